"""Outcomes: how conflicts ended and what the participants got; how a team is made up, and who did what in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import frames, style
from .story import Source
from .tables import require_columns

_MARKS: dict[str, dict[str, Any]] = {
    "satisfaction": {"color": style.BLUE, "marker": "o", "markersize": 8, "ls": "none", "label": "mean satisfaction"},
    "fairness": {"color": style.BLACK, "marker": "D", "markersize": 6, "ls": "none", "label": "mean fairness"},
}
_STEP = 0.25  # inches from a superior to those below


def conflicts(source: Source | pd.DataFrame, by: str = "strategy") -> Figure:
    """Draw how conflicts ended, how long they took, and how satisfied the participants were, by deciding strategy.

    `source` may be a frame of `conflicts`, so that many runs can be joined first, and `by` another of its columns.
    Boxes have the middle half of the times, with their median; fairness is Jain's index. InvalidValue for a column that
    is not there.
    """
    found = source if isinstance(source, pd.DataFrame) else frames.conflicts(source)
    require_columns(found, "outcome", "duration", *_MARKS, by)
    if found.empty:
        return style.blank("Conflicts", "there was no conflict")
    groups = {str(name): rows for name, rows in found.groupby(found[by].astype("object").fillna("none"))}
    height, size = style.row_size(len(groups))
    title, tall = f"Conflicts by {by}", 1.5 * height * len(groups) + 1.4
    with style.panels(title, 11, tall, (4, 3, 3)) as (chart, (ends, times, marks)):
        for row, rows in enumerate(groups.values()):
            style.stack(ends, row, 100 * rows["outcome"].value_counts(normalize=True), style.ENDS)
            taken = rows["duration"].dropna()
            times.boxplot([taken], positions=[row], **_BOX)
            for name, look in _MARKS.items():
                marks.plot(rows[name].mean(), row, clip_on=False, **look)
            style.note_row(marks, row, f"n = {len(rows):,}", size)
        style.label_rows(ends, list(groups), size)
        _finish(ends, "share of conflicts (%)", 100)
        _finish(times, "time to the end (virtual seconds)", None)
        _finish(marks, "satisfaction, fairness", 1)
        means = [Line2D([], [], **look) for look in _MARKS.values()]
        style.key(ends, [*style.swatches(style.ENDS, list(found["outcome"])), *means])
    return chart


_BOX: dict[str, Any] = {"orientation": "horizontal", "widths": 0.5, "manage_ticks": False}
_BOX |= {"medianprops": {"color": style.BLACK}, "flierprops": {"markersize": 3, "markeredgecolor": style.GREY}}


def _finish(axes: Axes, label: str, most: float | None) -> None:
    axes.set_xlim(0, most)
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def hierarchy(source: Source) -> Figure:
    """Draw a team as a tree, from the top down, with everybody's role, and beside it what became of whose tasks.

    At the right stand the share of its capacity that each member used, and how often it handed a task over.
    """
    team = frames.team(source)
    if team.empty:
        return style.blank("Who works under whom", "nobody has joined a team")
    tried = frames.attempts(source)
    members = list(_down(team))
    height, size = style.row_size(len(members))
    left = max(depth * _STEP + style.text_width(f"{who.who}  {who.role}", size) for depth, _, who in members) + 0.2
    tall = height * len(members) + 1.3
    with style.panels("Who works under whom", left + 7, tall, (left, 5)) as (chart, (tree, bars)):
        for row, (depth, above, member) in enumerate(members):
            x = depth * _STEP
            if depth:
                tree.plot([x - _STEP, x - _STEP, x], [above, row, row], color=style.GREY, linewidth=1, zorder=1)
            tree.plot(x, row, "o", color=style.INK, markersize=0.6 * size)
            name = tree.annotate(member.who, (x + 0.1, row), va="center", fontsize=size, weight="bold", gid="member")
            beside: dict[str, Any] = {"xycoords": name, "xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            tree.annotate(member.role, (1, 0.5), fontsize=size, color=style.GREY, gid="role", **beside)
            style.stack(bars, row, tried.loc[tried["agent"] == member.who, "status"].value_counts(), style.TASKS)
            style.note_row(bars, row, _remark(member), size)
        style.label_rows(tree, [""] * len(members), size)
        tree.set_xlim(-0.1, left)
        tree.set_axis_off()
        _finish(bars, "tasks taken on", None)
        bars.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        style.key(tree, style.swatches(style.TASKS, list(tried["status"])))
    return chart


def _down(team: pd.DataFrame) -> Iterator[tuple[int, int, Any]]:
    """Yield how deep, below which row, and who, from the top down: each member right above those whom it leads."""
    everybody: list[Any] = list(team.itertuples())
    members = {(member.team, member.who): member for member in everybody}
    below: dict[Any, list[Any]] = {}
    for member in everybody:
        above = (member.team, member.superior)
        below.setdefault(above if above in members else None, []).append(member)
    stack = [(0, 0, member) for member in reversed(below.get(None, []))]
    row = 0
    while stack:
        depth, above_row, member = stack.pop()
        yield depth, above_row, member
        stack += [(depth + 1, row, other) for other in reversed(below.get((member.team, member.who), []))]
        row += 1


def _remark(member: Any) -> str:
    """Return how much of its capacity a member used, and how often it handed a task over."""
    handed = [
        f"{getattr(member, how)} {how}" for how in ("delegated", "assistance", "escalated") if getattr(member, how)
    ]
    used = [] if pd.isna(member.utilisation) else [f"{member.utilisation:.0%} of capacity"]
    return ", ".join([*used, *handed])
