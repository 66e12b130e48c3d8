"""Charts of judgements: which labels are confused, whether confidence is honest, and who agrees with whom.

They draw tables with the columns of `quality.judgements`, whoever judged: agents, models, or people.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InvalidValue
from .style import BLUE, GREY, INK, blank, drawing, panels

SCALES = (("positive", "neutral", "negative"), ("low", "medium", "high"))  # from harmless to alarming


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share (Wilson, Journal of the American Statistical Association 22, 1927, 209-212)."""
    if not count:
        return math.nan, math.nan
    share, room = hits / count, z * z / count
    middle, reach = share + room / 2, z * math.sqrt(share * (1 - share) / count + room / count / 4)
    return (middle - reach) / (1 + room), (middle + reach) / (1 + room)


def tenths(confidence: pd.Series[Any]) -> pd.Series[Any]:
    """Return in which tenth of 0 to 1 each confidence lies."""
    return pd.cut(confidence, [number / 10 for number in range(11)], include_lowest=True)


def levels(table: pd.DataFrame) -> pd.Series[Any]:
    """Return the labels as levels from 0, harmless, to 2, alarming."""
    return table["label"].map({label: level for scale in SCALES for level, label in enumerate(scale)})


def confusion(table: pd.DataFrame, agent: str) -> Figure:
    """Draw how often each label was given where each one was expected; InvalidValue for an agent that is not there."""
    own = table[(table["agent"] == agent) & table["label"].notna()]
    if agent not in set(table["agent"]):
        raise InvalidValue(f"no agent {agent!r} in the table; it has {', '.join(table['agent'].unique())}")
    if own.empty:
        return blank(f"Confusion of {agent}", "no ticket was answered")
    scale = next(scale for scale in SCALES if own["expected"].isin(scale).all())
    counts = pd.crosstab(own["expected"], own["label"]).reindex(index=scale, columns=scale, fill_value=0)
    share = counts.div(counts.sum(axis="columns").clip(lower=1), axis="index")
    with drawing(f"Confusion of {agent}: {own['right'].mean():.0%} of {len(own):,} right", 5.6, 3.4) as (chart, axes):
        _cells(axes, share, [[f"{value:,}" for value in row] for row in counts.to_numpy()])
        axes.set_xlabel("label given")
        axes.set_ylabel("label expected")
    return chart


def agreement(table: pd.DataFrame, by: str = "agent") -> Figure:
    """Draw on which share of the tickets any two, agents or other values of `by`, give labels equally alarming."""
    given = table.assign(level=levels(table)).dropna(subset=["level"])
    wide = given.pivot(index="ticket", columns=by, values="level")
    names = list(dict.fromkeys(given[by]))
    if len(names) < 2:
        return blank("Agreement", "it takes two to agree")
    share = pd.DataFrame({one: {other: _same(wide[one], wide[other]) for other in names} for one in names})
    size = (1.2 * len(names) + 2, 0.6 * len(names) + 1.1)
    with drawing(f"Agreement of {by}s on how alarming a ticket is", *size) as (chart, axes):
        _cells(axes, share, [[f"{value:.0%}" for value in row] for row in share.to_numpy()])
    return chart


def _same(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    both = one.notna() & other.notna()
    return float((one[both] == other[both]).mean()) if both.any() else math.nan


def _cells(axes: Axes, share: pd.DataFrame, texts: list[list[str]]) -> None:
    """Draw a table of shares from 0 to 1, the darker the more, with a text in each cell."""
    shares = share.to_numpy(dtype=float)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    axes.set_xticks(range(len(share.columns)), share.columns)
    axes.set_yticks(range(len(share.index)), share.index)
    axes.tick_params(length=0)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)


def calibration(table: pd.DataFrame) -> Figure:
    """Draw how often each agent is right where it is so sure, with 95 % intervals; on the line confidence is honest."""
    told = table.dropna(subset=["label"])
    names = list(dict.fromkeys(told["agent"]))
    if not names:
        return blank("Calibration", "no ticket was answered")
    with panels("Confidence and accuracy", 2.4 * len(names) + 0.6, 3.0, [1] * len(names)) as (chart, row):
        for axes, name in zip(row, names, strict=True):
            own = told[told["agent"] == name]
            for _, members in own.groupby(tenths(own["confidence"]), observed=True):
                sure, hits, count = members["confidence"].mean(), int(members["right"].sum()), len(members)
                axes.vlines(sure, *wilson(hits, count), color=BLUE, linewidth=2, alpha=0.4)
                axes.scatter(sure, hits / count, s=14 + count / 2, color=BLUE, zorder=3)
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
            axes.set_xlim(0.25, 1.03)
            axes.set_ylim(0, 1.03)
            axes.set_xlabel(f"confidence of {name}")
            axes.grid(axis="y")
        row[0].set_ylabel("share that is right")
    return chart
