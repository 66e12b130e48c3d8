"""The message sequence diagram: a line for each agent, an arrow for each copy of a message, time downwards.

Each message has a row of its own, so that labels never meet; the axis says when, and is not to scale. An arrow ends
where the message was given to its handler: one that slants has waited or was delayed. A bar on a line is work.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle

from ..runtime import require
from . import story, style
from .story import SENT, Copy, Letter, Source

_LOOKS: dict[str, tuple[str, str, Any]] = {  # by type of message: name in the legend, colour, line
    "request": ("request", style.BLUE, "-"),
    "reply": ("reply", style.GREEN, "--"),
    "part": ("reply", style.GREEN, "--"),
    "end": ("reply", style.GREEN, "--"),
    "error": ("error", style.VERMILLION, "--"),
    "tell": ("tell", style.INK, "-"),
    "publish": ("publish", style.ORANGE, "-"),
    "broadcast": ("broadcast", style.PURPLE, "-"),
}
_OTHER: tuple[str, str, Any] = ("other", style.GREY, "-")
_ROW = 0.25  # inches
_LOST: dict[str, Any] = {"marker": "x", "ms": 8, "mew": 2.2, "ls": "none", "color": style.VERMILLION}
_PLATE: dict[str, Any] = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def sequence(source: Source, limit: int = 40) -> Figure:
    """Draw the first `limit` messages; heartbeats are left out. Agents that take part stand in the order of spawning.

    The title says how many messages are shown of how many there are. InvalidValue for a limit below 1.
    """
    require.whole("limit", limit)
    told, _ = story.tell(source)
    sent = [letter for letter in told.letters.values() if letter.row[SENT["type"]] != "heartbeat"]
    if not sent:
        return style.blank("Message sequence", "no messages were sent")
    shown = sent[:limit]
    title = f"Message sequence: {len(shown):,} of {len(sent):,} messages shown"
    spawned = list(told.agents())
    taking_part = {name for letter in shown for name in _who(letter)}
    names = [*(name for name in spawned if name in taking_part), *sorted(taking_part.difference(spawned))]
    return _Diagram(names, shown).draw(title)


def _who(letter: Letter) -> set[str]:
    """Return who sent a message and who was to get it."""
    return {letter.row[2], *(copy.to for copy in letter.copies if copy.to is not None)}


def _arrival(copy: Copy) -> float:
    """Return when a copy reached its handler or was given up; missing while it is in flight."""
    return copy.finished if math.isnan(copy.delivered) else copy.delivered


class _Diagram:
    """Places for names and instants: columns from left to right, rows from top to bottom."""

    def __init__(self, names: Sequence[str], letters: Sequence[Letter]) -> None:
        self.letters = letters
        self.columns = {name: x for x, name in enumerate(names)}
        self.spacing = min(1.7, max(0.62, 11.5 / len(names)))  # inches between two lines
        self.rows: list[int] = []  # of each message
        self.firsts: dict[float, int] = {}  # the first row of each instant
        self.lasts: dict[tuple[float, str], int] = {}  # the last row in which somebody sends at an instant
        self._lay_out()

    def _lay_out(self) -> None:
        """Give each message a row, and each instant at which others only arrive one as well."""
        sent = {letter.row[0] for letter in self.letters}
        arrivals = {_arrival(copy) for letter in self.letters for copy in letter.copies}
        moments = [(time, None) for time in arrivals - sent if not math.isnan(time)]
        entries = sorted([*moments, *((letter.row[0], letter) for letter in self.letters)], key=lambda entry: entry[0])
        for row, (time, letter) in enumerate(entries):
            self.firsts.setdefault(time, row)
            if letter is not None:
                self.rows.append(row)
                self.lasts[time, letter.row[2]] = row
        self.instants = list(self.firsts)
        self.length = len(entries)

    def row(self, time: float, sender: str | None = None) -> float:
        """Return the row of an instant: where somebody sends last in it, else its first, or the gap it falls into."""
        if sender is not None and (time, sender) in self.lasts:
            return self.lasts[time, sender]
        if time in self.firsts:
            return self.firsts[time]
        before = bisect_right(self.instants, time)
        return self.firsts[self.instants[before]] - 0.5 if before < len(self.instants) else self.length - 0.3

    def draw(self, title: str) -> Figure:
        """Return the finished figure."""
        fits = all(style.text_width(name, 9) < 0.9 * self.spacing for name in self.columns)
        head = 1.4 if fits else 1.2 + max(style.text_width(name, 9) for name in self.columns) * 0.75 / _ROW
        width = self.spacing * len(self.columns) + 1.4
        with style.drawing(title, max(width, 6.0), max(_ROW * (self.length + head) + 0.8, 3.0)) as (chart, axes):
            self._draw_instants(axes)
            self._draw_lifelines(axes, fits)
            for letter, row in zip(self.letters, self.rows, strict=True):
                self._draw_letter(axes, letter, row)
            axes.set_xlim(-0.5, len(self.columns) - 0.4)
            axes.set_ylim(self.length - 0.2, -head)
            style.key(axes, self._legend())
        return chart

    def _draw_instants(self, axes: Axes) -> None:
        """Write each instant beside its first row, on a band of its own."""
        bounds = [*self.firsts.values(), self.length]
        for i, (top, bottom) in enumerate(pairwise(bounds)):
            if i % 2:
                axes.axhspan(top - 0.5, bottom - 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        axes.set_yticks(list(self.firsts.values()), [f"{round(time, 3):.10g}" for time in self.firsts], fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set_ylabel(f"{style.TIME}, not to scale")
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)

    def _draw_lifelines(self, axes: Axes, fits: bool) -> None:
        slant: dict[str, Any] = {} if fits else {"rotation": 45, "rotation_mode": "anchor"}
        for name, x in self.columns.items():
            ends = [-0.6, self.length - 0.3]
            axes.plot([x, x], ends, color=style.GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            axes.text(x, -0.75, name, ha="center" if fits else "left", va="bottom", weight="bold", gid="agent", **slant)

    def _draw_letter(self, axes: Axes, letter: Letter, row: int) -> None:
        """Draw a message: its label at the sender, and an arrow for each copy."""
        sender, topic, type = (letter.row[SENT[field]] for field in ("sender", "topic", "type"))
        colour = _LOOKS.get(type, _OTHER)[1]
        x = self.columns[sender]
        targets = [copy for copy in letter.copies if copy.to is not None]
        for copy in targets:
            self._draw_copy(axes, letter, copy, row)
        if not targets:
            axes.plot(x, row, "o", color="white", markeredgecolor=colour, markersize=6, zorder=4)
        to = self.columns[targets[0].to or ""] if targets else x + 1
        aside, side = (-0.12, "right") if to < x else (0.12 if to > x else 0.42, "left")
        look: dict[str, Any] = {"fontsize": 8, "color": colour, "bbox": _PLATE, "zorder": 5, "va": "bottom"}
        gid = f"label-{letter.row[SENT['message']]}"
        axes.text(x + aside / self.spacing, row - 0.06, style.shortened(topic, 24), ha=side, gid=gid, **look)

    def _draw_copy(self, axes: Axes, letter: Letter, copy: Copy, row: int) -> None:
        """Draw an arrow to the handler, a cross where the copy was lost, a dotted line where it is still in flight."""
        time, message, type = (letter.row[SENT[field]] for field in ("time", "message", "type"))
        x, target = self.columns[letter.row[2]], float(self.columns[copy.to or ""])
        arrival = _arrival(copy)
        y = row if math.isnan(arrival) or arrival == time else self.row(arrival)
        if copy.outcome == "dropped":
            target -= min(0.3, 0.25 / self.spacing) * ((target > x) - (target < x))
        _, colour, line = _LOOKS.get(type, _OTHER)
        arrow: dict[str, Any] = {"color": colour, "linestyle": ":" if copy.outcome == "in flight" else line}
        arrow |= {"mutation_scale": 11, "shrinkA": 0, "shrinkB": 0, "zorder": 3, "gid": f"message-{message}"}
        arrow |= {"posA": (x, row), "posB": (target, y), "arrowstyle": "-|>"}
        if copy.outcome in ("dropped", "dead", "in flight"):
            arrow["arrowstyle"] = "-"
        if target == x:  # to itself: a loop beside the line
            arrow |= {"posA": (x, row - 0.3), "posB": (x, y + 0.2)}
            arrow["connectionstyle"] = "arc,angleA=0,angleB=0,armA=22,armB=22,rad=5"
        axes.add_patch(FancyArrowPatch(**arrow))
        if copy.outcome in ("dropped", "dead"):
            axes.plot(target, y, zorder=4, gid=f"lost-{message}", **_LOST)
        elif copy.finished > copy.delivered or (math.isnan(copy.finished) and copy.outcome == "delivered"):
            bottom = self.length - 0.3 if math.isnan(copy.finished) else self.row(copy.finished, copy.to)
            bar: dict[str, Any] = {"facecolor": style.PALE, "edgecolor": style.GREY, "linewidth": 0.6, "zorder": 2}
            width = 0.11 / self.spacing
            axes.add_patch(Rectangle((target - width / 2, y), width, max(bottom - y, 0.2), **bar))

    def _legend(self) -> list[Line2D]:
        """Return an entry for each look that was used."""
        used = {_LOOKS.get(letter.row[SENT["type"]], _OTHER) for letter in self.letters}
        order = [*dict.fromkeys(_LOOKS.values()), _OTHER]
        lines = [
            Line2D([], [], label=name, color=colour, linestyle=line)
            for name, colour, line in order
            if (name, colour, line) in used
        ]
        outcomes = {copy.outcome for letter in self.letters for copy in letter.copies}
        lost = [Line2D([], [], label="lost", **_LOST)] if outcomes & {"dropped", "dead"} else []
        waits = [Line2D([], [], label="in flight", color=style.GREY, linestyle=":")] if "in flight" in outcomes else []
        return [*lines, *lost, *waits]
