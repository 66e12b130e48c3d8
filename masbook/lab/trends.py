"""Trends and spreads: what was measured, over a parameter of a sweep, or group by group."""

from __future__ import annotations

from itertools import cycle

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from . import style
from .experiment import Interval, interval
from .tables import require_columns


def trend(table: pd.DataFrame, metric: str, over: str, by: str | None = None) -> Figure:
    """Draw the mean of a metric over a parameter, with its 95 % interval over the seeds; a line for each level of `by`.

    `table` is that of a `sweep`; runs that failed, or have no such number, are left out, and the title says how many.
    InvalidValue for a column that is not there, or is not a number.
    """
    require_columns(table, *([] if by is None else [by]), numbers=(metric, over))
    title, rows = f"{metric} over {over}", table.dropna(subset=[metric])
    if rows.empty:
        return style.blank(title, "no run gave such a number")
    if len(rows) < len(table):
        title += f" ({len(table) - len(rows):,} of {len(table):,} runs left out)"
    lines: list[Artist] = []
    levels = [(metric, rows)] if by is None else rows.groupby(by, sort=False)
    with style.drawing(title, 8, 3.4) as (chart, axes):
        for (level, own), colour in zip(levels, cycle(style.PALETTE)):
            found = pd.DataFrame({x: interval(values) for x, values in own.groupby(over)[metric]}, Interval._fields).T
            axes.vlines(found.index, found["low"], found["high"], color=colour, linewidth=2.5, alpha=0.4)
            lines += axes.plot(found.index, found["mean"], color=colour, marker="o", markersize=4, label=str(level))
        if by is not None:
            style.key(axes, lines)
        if rows[over].nunique() <= 12:
            axes.set_xticks(sorted(rows[over].unique()))
        axes.set_xlabel(over)
        axes.set_ylabel(metric)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.grid(axis="y")
    return chart


def spread(table: pd.DataFrame, value: str, by: str | list[str]) -> Figure:
    """Draw how a number is spread in each group of rows: median, middle half, and 5th to 95th percentile.

    `by` is a column, or several. InvalidValue for a column that is not there, or if the value is not a number.
    """
    groups = [by] if isinstance(by, str) else list(by)
    require_columns(table, *groups, numbers=[value])
    title, rows = f"{value} by {' and '.join(groups)}", table.dropna(subset=[value])
    if rows.empty:
        return style.blank(title, "there are no numbers to show")
    found = list(rows.groupby(groups, sort=False)[value])
    height, size = style.row_size(len(found))
    with style.drawing(title, 8, height * len(found) + 1.1) as (chart, axes):
        for row, (_, values) in enumerate(found):
            low, quarter, half, most, high = values.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
            axes.hlines(row, low, high, color=style.BLUE, linewidth=1.5, alpha=0.5)
            axes.hlines(row, quarter, most, color=style.BLUE, linewidth=7, alpha=0.5)
            axes.plot(half, row, "o", color=style.BLUE, markersize=6)
            style.note_row(axes, row, f"{half:.3g}  ({len(values):,})", size)
        names = [name if isinstance(name, tuple) else (name,) for name, _ in found]
        style.label_rows(axes, [" · ".join(map(str, name)) for name in names], size)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel(value)
        axes.grid(axis="x")
    return chart
