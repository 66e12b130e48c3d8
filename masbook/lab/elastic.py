"""Pools over time: how many agents there are, and how much there is to do."""

from __future__ import annotations

from itertools import accumulate

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import frames
from .story import Source, read
from .style import BLACK, SKY, TASKS, TIME, blank, drawing, key, swatches


def pool(source: Source, name: str | None = None) -> Figure:
    """Draw the tasks of a pool that are at work and that wait, one upon the other, and how many agents it has.

    `name` says which pool, where there are several; without it, the first.
    """
    changes, tasks, end = frames.events(source, "pool"), frames.tasks(source), read(source)[1]
    name = name or next(iter(changes["who"]), "")
    changes, tasks = changes[changes["who"] == name], tasks[tasks["workflow"] == name]
    if changes.empty:
        return blank("Size and load of a pool", "there is no such pool")
    over = tasks["started"].fillna(tasks["ended"])
    with drawing(f"Size and load of {name}", 8, 3.0) as (chart, axes):
        moments = sorted({0.0, end, *tasks["added"], *over.dropna(), *tasks["ended"].dropna()})
        working = _count(moments, tasks["started"], tasks["ended"].where(tasks["started"].notna()))
        waiting = [a + b for a, b in zip(working, _count(moments, tasks["added"], over), strict=True)]
        axes.fill_between(moments, 0, working, step="post", color=SKY, linewidth=0)
        axes.fill_between(moments, working, waiting, step="post", color=TASKS["waiting"], linewidth=0)
        times, sizes = [*changes["time"], end], [*changes["size"], changes["size"].iloc[-1]]
        line = axes.step(times, sizes, where="post", color=BLACK, linewidth=2, label="agents")
        key(axes, [*line, *swatches({"at work": SKY, "waiting": TASKS["waiting"]}, ["at work", "waiting"])])
        axes.set(xlabel=TIME, ylabel="agents, tasks", ylim=(0, None), xlim=(0, end or 1))
        axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.grid(axis="y")
    return chart


def _count(moments: list[float], begun: pd.Series[float], ended: pd.Series[float]) -> list[int]:
    """Return how many have begun and not ended at each moment."""
    steps = begun.value_counts().sub(ended.value_counts(), fill_value=0)
    return list(accumulate(int(steps.get(moment, 0)) for moment in moments))
