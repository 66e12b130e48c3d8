"""Charts: a run as figures, drawn from the tables of `frames`.

Each function takes a Run, a World or a Trace (`trend` the table of a sweep, `spread` any table, `confusion`,
`calibration` and `agreement` one of judgements) and returns a matplotlib Figure; a cell that ends with it shows it.
Agents keep the order in which they were spawned, outcomes and states their colours; where there is nothing to show, the
figure says so. A chart of your own is a function that draws on what `style.drawing` gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import frames, style
from .elastic import pool as pool
from .outcomes import conflicts as conflicts
from .outcomes import hierarchy as hierarchy
from .plans import dag as dag
from .plans import gantt as gantt
from .sequence import sequence as sequence
from .story import Source, read
from .topology import topology as topology
from .trends import spread as spread
from .trends import trend as trend
from .verdicts import agreement as agreement
from .verdicts import calibration as calibration
from .verdicts import confusion as confusion

_MARK: dict[str, Any] = {"ls": "none", "markersize": 8, "clip_on": False}
_STILL = {**_MARK, "color": style.ORANGE, "marker": ">", "markeredgecolor": style.BLACK}
_CRASH = {**_MARK, "color": style.BLACK, "marker": "X", "markeredgecolor": "white"}


def timeline(source: Source) -> Figure:
    """Draw when each agent was idle, busy, in error or offline, a bar for each agent, with its share of busy time."""
    states = frames.states(source)
    if states.empty:
        return style.blank("Agent states over time", "nobody was spawned, or no virtual time has passed")
    busy = states["duration"].where(states["state"] == "busy", 0.0).groupby(states["who"], sort=False).sum()
    shares = busy / states.groupby("who", sort=False)["duration"].sum()
    crashes = states[states["state"] == "error"]
    marks = [("crash", crashes["who"], crashes["start"], {**_CRASH, "clip_on": True})]
    notes = [f"{share:.0%} busy" for share in shares]
    return _bands("Agent states over time", states, "state", style.STATES, marks, notes)


def health(source: Source) -> Figure:
    """Draw when the registry took each agent to be healthy, degraded or unhealthy, or had removed it."""
    spans = frames.health(source)
    if spans.empty:
        return style.blank("Health of agents", "nobody was registered, or no virtual time has passed")
    return _bands("Health of agents, as far as the registry knows", spans, "health", style.HEALTH)


def holds(source: Source) -> Figure:
    """Draw when each agent waited for a lock, a permit or a share, and when it held it, and how that ended."""
    found, (_, end) = frames.holds(source), read(source)
    several = found["resource"].nunique() > 1
    names = found["who"] + (" · " + found["resource"].str.partition(":")[2] if several else "")
    over = found["end"].fillna(end)
    granted = found["start"].fillna(over)
    waiting = pd.DataFrame({"who": names, "state": "waiting", "start": found["asked"], "end": granted})
    holding = pd.DataFrame({"who": names, "state": "holding", "start": found["start"], "end": over})
    spans = pd.concat([waiting, holding.dropna()])
    spans["duration"] = spans["end"] - spans["start"]
    title = "Who holds and who waits"
    if not spans["duration"].sum():
        return style.blank(title, "nobody held or waited for anything, or no virtual time has passed")
    still, lost = found["status"] == "waiting", ~found["status"].isin(["released", "held", "waiting"])
    marks = [
        ("lost or given up", names[lost], over[lost], _CRASH),
        ("waiting at the end", names[still], over[still], _STILL),
    ]
    return _bands(title, spans, "state", style.HOLDS, marks)


Marks = tuple[str, "pd.Series[str]", "pd.Series[float]", dict[str, Any]]  # label, on whose bars, when, and their look


def _bands(
    title: str,
    spans: pd.DataFrame,
    column: str,
    colours: dict[str, str],
    marks: Iterable[Marks] = (),
    notes: Iterable[str] = (),
) -> Figure:
    """Draw a bar for each agent, coloured by a column of its intervals, with marks on it and a note beside it."""
    names = list(dict.fromkeys(spans["who"]))
    height, size = style.row_size(len(names))
    handles = style.swatches(colours, list(spans[column]))
    with style.drawing(title, 9, height * len(names) + 1.2) as (chart, axes):
        for (name, who), own in spans.groupby([column, "who"], sort=False):
            edge = style.GREY if name == "offline" else "none"
            bars = list(own[["start", "duration"]].itertuples(index=False, name=None))
            place = (names.index(who) - 0.36, 0.72)
            axes.broken_barh(bars, place, facecolor=colours[str(name)], edgecolor=edge, linewidth=0.5)
        style.label_rows(axes, names, size)
        axes.set_xlim(spans["start"].min(), spans["end"].max())
        axes.set_xlabel(style.TIME)
        for row, note in enumerate(notes):
            style.note_row(axes, row, note, size)
        for label, whose, when, look in marks:
            axes.plot(when, [names.index(name) for name in whose], **look)
            handles += [] if when.empty else [Line2D([], [], label=label, **look)]
        style.key(axes, handles)
    return chart


def latency(source: Source) -> Figure:
    """Draw how long answered requests took, from sending to answer, with the median and the 95th percentile."""
    requests = frames.requests(source)
    taken = requests["latency"].dropna()
    if taken.empty:
        why = f"none of {len(requests):,} requests was answered" if len(requests) else "no requests were sent"
        return style.blank("Request latency", why)
    title = f"Request latency: {len(taken):,} of {len(requests):,} requests answered"
    with style.drawing(title, 8, 3.4) as (chart, axes):
        low, high = taken.min(), taken.max()
        room = (high - low) * 0.04 or abs(high) * 0.5 or 0.5  # all equal: one bar in the middle
        bins = min(40, max(8, math.ceil(2 * len(taken) ** (1 / 3)))) if high > low else 1
        edges = (low, high) if high > low else (low - room / 12, high + room / 12)
        axes.hist(taken, bins=bins, range=edges, color=style.SKY, edgecolor="white", linewidth=0.6)
        marks = ((0.5, "median", style.BLACK, "-"), (0.95, "95th percentile", style.VERMILLION, "--"))
        style.key(axes, [_mark(axes, float(taken.quantile(share)), *look) for share, *look in marks])
        axes.set_xlim(max(edges[0] - room, min(edges[0], 0)), edges[1] + room)
        axes.set_xlabel("latency (virtual seconds)")
        axes.set_ylabel("requests")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(axis="y")
    return chart


def _mark(axes: Axes, value: float, label: str, colour: str, style: Any) -> Line2D:
    return axes.axvline(value, color=colour, linestyle=style, linewidth=1.8, label=f"{label} {value:.3g} s")


def success(source: Source) -> Figure:
    """Draw the outcomes of requests by agent asked; agents stand in the order of spawning, what is none comes last."""
    requests = frames.requests(source)
    if requests.empty:
        return style.blank("Success of requests", "no requests were sent")
    counts = pd.crosstab(requests["to"], requests["outcome"]).reindex(columns=list(style.OUTCOMES), fill_value=0)
    agents = [who for who in frames.agents(source)["who"] if who in counts.index]
    names = [*agents, *counts.index.difference(agents)]
    height, size = style.row_size(len(names))
    with style.drawing("Success of requests by agent asked", 9, height * len(names) + 1.2) as (chart, axes):
        for row, name in enumerate(names):
            good, all_ = counts.loc[name, "reply"], counts.loc[name].sum()
            style.stack(axes, row, 100 * counts.loc[name] / all_, style.OUTCOMES)
            style.note_row(axes, row, f"{good / all_:.0%}  ({good:,} of {all_:,})", size)
        style.label_rows(axes, names, size)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of requests (%)")
        style.key(axes, style.swatches(style.OUTCOMES, list(requests["outcome"])))
    return chart
