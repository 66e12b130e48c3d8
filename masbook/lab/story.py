"""The story of a run: what became of each message, request and agent, told from the rows of the trace.

`Story` takes the rows one after the other: `frames` and charts read those of a finished run, the live view goes on with
those that are new. It needs no pandas. What happens while a world closes (agents are stopped, their work is cut off) is
no part of a finished story: work in hand at the end shows as such, and not as failed. Tasks, conflicts and holds stand
in the `ledger`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import InvalidValue
from ..runtime.run import Run
from ..runtime.trace import KINDS, Trace
from ..runtime.world import World

Source = Run | World | Trace
Row = tuple[Any, ...]

SENT = {name: i for i, name in enumerate(("time", "kind", "sender", *KINDS["sent"]))}  # where a message has what
_ID, _TYPE, _TO, _REPLY_TO = SENT["message"], SENT["type"], SENT["to"], SENT["reply_to"]
_REASON = 3 + KINDS["stopped"].index("reason")

_WAKING = frozenset({"reply", "error", "part", "end", "cancel"})  # they wake who waits or works, past the mailbox
_ENDS = frozenset({"handled", "failed", "cancelled"})
_LOSSES = frozenset({"dropped", "dead"})
_STEPS = frozenset({"delivered", "delayed", "duplicated", "timed_out", *_ENDS, *_LOSSES})
_TURNS = {"spawned": "idle", "restarted": "idle", "crashed": "error", "stopped": "offline"}
_REGISTRY = frozenset({"registered", "health", "unregistered"})


@dataclass(slots=True)
class Copy:
    """One copy of a message: to whom, when it was given to the handler and done with, and what became of it."""

    to: str | None
    delivered: float = math.nan
    finished: float = math.nan
    outcome: str = "in flight"
    reason: str | None = None


@dataclass(slots=True)
class Letter:
    """One message sent: its row, and its copies in the order in which they are first heard of.

    Of a request also when and with which outcome it ended for who asked, and what went wrong.
    """

    row: Row
    copies: list[Copy] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)  # recipients, once for each duplicate
    outcome: str = "pending"
    answered: float = math.nan
    error: str | None = None

    def wakes(self, to: str) -> bool:
        """Return whether it wakes the recipient instead of going through a handler."""
        return self.row[_TYPE] in _WAKING and self.row[_TO] == to

    def take(self, row: Row) -> None:
        """Enter what a row says about a copy of the message."""
        time, kind, who = row[:3]
        if kind == "delivered":
            copy = self._on_its_way(who)
            copy.outcome, copy.delivered = kind, time
            if self.wakes(who):
                copy.finished = time
        elif kind in _ENDS:
            in_hand = self._find(who, "delivered")
            if in_hand is not None:
                in_hand.outcome, in_hand.finished = kind, time
                in_hand.reason = row[4] if kind == "failed" else None
        elif kind in _LOSSES:
            copy = self._on_its_way(who)
            copy.outcome, copy.finished, copy.reason = kind, time, row[4]
        elif kind == "duplicated":
            self.duplicated.append(who)
        elif kind == "delayed":
            self.copies.append(Copy(who))

    def add_unheard(self) -> None:
        """Add the copies that no row has mentioned: they wait in a mailbox, and whose is known of direct ones only."""
        missing = self.row[SENT["copies"]] + len(self.duplicated) - len(self.copies)
        if missing > 0:
            expected = [*([] if self.row[_TO] is None else [self.row[_TO]]), *self.duplicated]
            for copy in self.copies:
                if copy.to in expected:
                    expected.remove(copy.to)
            self.copies += [Copy(name) for name in [*expected, *[None] * missing][:missing]]

    def _find(self, to: str, outcome: str) -> Copy | None:
        """Return the first copy for `to` with that outcome so far."""
        return next((copy for copy in self.copies if copy.to == to and copy.outcome == outcome), None)

    def _on_its_way(self, to: str) -> Copy:
        """Return the first copy for `to` that is in flight; a new one if none has been heard of."""
        copy = self._find(to, "in flight")
        if copy is None:
            copy = Copy(to)
            self.copies.append(copy)
        return copy


class Interval(NamedTuple):
    """A stretch of virtual time in which an agent was in one state, with so many messages in hand."""

    state: str
    in_hand: int
    start: float
    end: float


@dataclass(slots=True)
class Life:
    """One agent: its state, the messages in hand, since when that is so, and the intervals before."""

    since: float
    spawned: Row | None = None  # a service such as the registry is not spawned
    state: str = "idle"
    in_hand: list[int] = field(default_factory=list)
    past: list[Interval] = field(default_factory=list)

    def take(self, row: Row) -> None:
        """Enter what a row says about the agent; one that has stopped is brought back by a restart alone."""
        time, kind = row[:2]
        before = self._now(time)
        if kind == "delivered":
            self.in_hand.append(row[3])
        elif kind in _TURNS and not (kind == "crashed" and self.state == "offline"):
            self.in_hand.clear()
            self.state = _TURNS[kind]
        elif kind in _ENDS and row[3] in self.in_hand:
            self.in_hand.remove(row[3])
        if self.state in ("idle", "busy"):
            self.state = "busy" if self.in_hand else "idle"
        if before[:2] != self._now(time)[:2]:
            self.past.append(before)
            self.since = time

    def intervals(self, end: float) -> list[Interval]:
        """Return the intervals up to that instant; those passed through in no time are there too."""
        return [*self.past, self._now(end)]

    def _now(self, time: float) -> Interval:
        return Interval(self.state, len(self.in_hand), self.since, time)


class Story:
    """What has become of every message and every agent so far.

    `letters` are by the id of the message, `lives` by agent, `health` (what the registry said of an agent, and when;
    None after a stop) by agent too. `outcomes` counts the requests that have ended, `waited` adds up what the answered
    ones took.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.letters: dict[int, Letter] = {}
        self.lives: dict[str, Life] = {}
        self.health: dict[str, list[tuple[str | None, float]]] = {}
        self.outcomes: Counter[str] = Counter()
        self.waited = 0.0
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Go on with the next row of the trace."""
        time, kind, who = row[:3]
        if kind == "sent":
            self.letters[row[_ID]] = Letter(row)
            if row[_TYPE] == "cancel":
                self._end(row[_REPLY_TO], "cancelled")
        elif kind in _STEPS:
            self._step(row)
        elif kind in _TURNS:
            life = self.lives.setdefault(who, Life(time if kind == "spawned" else 0.0))
            life.spawned = row if kind == "spawned" else life.spawned
            life.take(row)
        elif kind in _REGISTRY:
            state = {"registered": "healthy", "unregistered": "removed"}.get(kind, row[3])
            self.health.setdefault(who, []).append((None if row[3] == "stopped" else state, time))

    def requests(self) -> list[Letter]:
        """Return the requests, in the order of sending."""
        return [letter for letter in self.letters.values() if letter.row[_TYPE] == "request"]

    def agents(self) -> dict[str, Life]:
        """Return the lives in the order of spawning, then those of services that were given messages."""
        return dict(sorted(self.lives.items(), key=lambda item: item[1].spawned is None))

    def _step(self, row: Row) -> None:
        """Enter what a row says about a message, and about whoever it was for."""
        time, kind, who, message, *facts = row
        letter = self.letters.get(message)
        if letter is not None:
            letter.take(row)
            if kind == "timed_out":
                self._end(message, "timed_out", f"no answer in {row[6]:g} s")
            elif kind == "dead" and who == letter.row[_TO] and facts[0] != "expired":  # which is about to time out
                self._end(message, "dead", facts[0])
            elif kind == "delivered" and who == letter.row[_TO]:
                self._answer(letter.row, time)
        if kind in _ENDS or (kind == "delivered" and not (letter is not None and letter.wakes(who))):
            self.lives.setdefault(who, Life(0.0)).take(row)

    def _answer(self, row: Row, time: float) -> None:
        """End the request that a message answers, if it does, now that the answer is there."""
        content = row[SENT["content"]]
        if row[_TYPE] == "error":
            self._end(row[_REPLY_TO], "error", f"{content.get('error')}: {content.get('message')}", time)
        elif row[_TYPE] not in ("part", "cancel"):
            self._end(row[_REPLY_TO], "reply", None, time)

    def _end(self, message: int | None, outcome: str, error: str | None = None, answered: float = math.nan) -> None:
        """Settle the outcome of a request; the first one counts."""
        request = None if message is None else self.letters.get(message)
        if request is not None and request.row[_TYPE] == "request" and request.outcome == "pending":
            request.outcome, request.error, request.answered = outcome, error, answered
            self.outcomes[outcome] += 1
            if outcome in ("reply", "error"):
                self.waited += answered - request.row[0]


def trace_of(source: Source) -> Trace:
    """Return the trace of a Run or a World, or the Trace itself; InvalidValue for anything else."""
    trace = getattr(source, "trace", source)
    if not isinstance(trace, Trace):
        raise InvalidValue(f"{source!r} has no trace; give a Run, a World or a Trace")
    return trace


def read(source: Source) -> tuple[list[Row], float]:
    """Return the rows up to the closing of the world, and the instant at which the story ends.

    Raises InvalidValue where the trace has not kept every row: what is missing would make every number wrong.
    """
    trace = trace_of(source)
    rows = list(trace.rows)
    if not trace.complete:
        raise InvalidValue(
            f"the trace has kept {len(rows):,} of {len(trace):,} rows, too few to tell what became of each message; "
            "run again with trace=Trace.full(), or use trace.count(...), which covers them all"
        )
    end = getattr(source, "time", getattr(source, "now", rows[-1][0] if rows else 0.0))
    for i, row in enumerate(rows):
        if row[1] == "stopped" and row[_REASON] == "world closed":
            return rows[:i], end
    return rows, end


def tell(source: Source) -> tuple[Story, float]:
    """Return the story of a run, complete, and the instant at which it ends."""
    rows, end = read(source)
    story = Story(rows)
    for letter in story.letters.values():
        letter.add_unheard()
    return story, end
