"""The story of a run: what became of each message, request and agent, told from the rows of the trace.

`frames` and the live view read it; it needs no pandas. What happens while a world closes (agents are stopped, their
work is cut off) is no part of the story: work in hand at the end shows as such, and not as failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import InvalidValue
from ..runtime.run import Run
from ..runtime.trace import KINDS, Trace
from ..runtime.world import World

Source = Run | World | Trace
Row = tuple[Any, ...]

SENT = {name: i for i, name in enumerate(("time", "kind", "sender", *KINDS["sent"]))}  # where a message has what
WAKING = frozenset({"reply", "error", "part", "end", "cancel"})  # they wake who waits or works, past the mailbox
_ID, _TYPE, _TO, _REPLY_TO = SENT["message"], SENT["type"], SENT["to"], SENT["reply_to"]
_REASON = 3 + KINDS["stopped"].index("reason")


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
    """One message sent: its row, and its copies in the order in which they are first heard of."""

    row: Row
    copies: list[Copy] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)  # recipients, once for each duplicate

    def find(self, to: str, outcome: str) -> Copy | None:
        """Return the first copy for `to` with that outcome so far."""
        return next((copy for copy in self.copies if copy.to == to and copy.outcome == outcome), None)

    def on_its_way(self, to: str) -> Copy:
        """Return the first copy for `to` that is in flight; a new one if none has been heard of."""
        copy = self.find(to, "in flight")
        if copy is None:
            copy = Copy(to)
            self.copies.append(copy)
        return copy

    def wakes(self, to: str) -> bool:
        """Return whether it wakes the recipient instead of going through a handler."""
        return self.row[_TYPE] in WAKING and self.row[_TO] == to


@dataclass(slots=True)
class Request:
    """One request: its row, when and with which outcome it ended for who asked, and what went wrong."""

    row: Row
    answered: float = math.nan
    outcome: str = "pending"
    error: str | None = None

    def end(self, outcome: str, error: str | None = None, answered: float = math.nan) -> None:
        """Settle the outcome; the first one counts."""
        if self.outcome == "pending":
            self.outcome, self.error, self.answered = outcome, error, answered


class Interval(NamedTuple):
    """A stretch of virtual time in which an agent was in one state, with so many messages in hand."""

    state: str
    in_hand: int
    start: float
    end: float


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


def letters(rows: list[Row]) -> list[Letter]:
    """Return every message sent, in order, with what became of its copies."""
    found: dict[int, Letter] = {}
    for row in rows:
        kind = row[1]
        if kind == "sent":
            found[row[_ID]] = Letter(row)
        elif kind in _STEPS and (letter := found.get(row[3])) is not None:
            _take(letter, row, kind)
    for letter in found.values():
        _add_unheard(letter)
    return list(found.values())


_ENDS = ("handled", "failed", "cancelled")
_LOSSES = ("dropped", "dead")
_STEPS = frozenset({"delivered", "delayed", "duplicated", *_ENDS, *_LOSSES})


def _take(letter: Letter, row: Row, kind: str) -> None:
    """Enter what a row says about a copy of the message."""
    time, _, who = row[:3]
    if kind == "delivered":
        copy = letter.on_its_way(who)
        copy.outcome, copy.delivered = kind, time
        if letter.wakes(who):
            copy.finished = time
    elif kind in _ENDS:
        in_hand = letter.find(who, "delivered")
        if in_hand is not None:
            in_hand.outcome, in_hand.finished = kind, time
            in_hand.reason = row[4] if kind == "failed" else None
    elif kind in _LOSSES:
        copy = letter.on_its_way(who)
        copy.outcome, copy.finished, copy.reason = kind, time, row[4]
    elif kind == "duplicated":
        letter.duplicated.append(who)
    else:
        letter.copies.append(Copy(who))


def _add_unheard(letter: Letter) -> None:
    """Add the copies that no row has mentioned yet: they wait in a mailbox, and whose is known of direct ones only."""
    to = letter.row[_TO]
    expected = [*([] if to is None else [to]), *letter.duplicated]
    missing = letter.row[SENT["copies"]] + len(letter.duplicated) - len(letter.copies)
    if missing > 0:
        for copy in letter.copies:
            if copy.to in expected:
                expected.remove(copy.to)
        letter.copies += [Copy(name) for name in [*expected, *[None] * missing][:missing]]


def requests(rows: list[Row]) -> list[Request]:
    """Return every request sent, in order, with how it ended for who asked."""
    found: dict[int, Request] = {}
    answers: dict[int, Row] = {}
    for row in rows:
        kind = row[1]
        if kind == "sent" and row[_TYPE] == "request":
            found[row[_ID]] = Request(row)
        elif kind == "sent" and row[_REPLY_TO] in found:
            if row[_TYPE] == "cancel":
                found[row[_REPLY_TO]].end("cancelled")
            elif row[_TYPE] != "part":
                answers[row[_ID]] = row
        elif kind == "delivered" and row[3] in answers and row[2] == answers[row[3]][_TO]:
            _settle(found[answers[row[3]][_REPLY_TO]], answers[row[3]], row[0])
        elif kind == "timed_out" and row[3] in found:
            found[row[3]].end("timed_out", f"no answer in {row[6]:g} s")
        elif kind == "dead" and row[3] in found and row[2] == found[row[3]].row[_TO] and row[4] != "expired":
            found[row[3]].end("dead", row[4])  # an expired one is about to time out
    return list(found.values())


def _settle(request: Request, answer: Row, time: float) -> None:
    content = answer[SENT["content"]]
    if answer[_TYPE] == "error":
        request.end("error", f"{content.get('error')}: {content.get('message')}", time)
    else:
        request.end("reply", None, time)


@dataclass(slots=True)
class _Life:
    """An agent's state, the messages in hand, since when that is so, and the intervals before."""

    since: float
    state: str = "idle"
    in_hand: list[int] = field(default_factory=list)
    past: list[Interval] = field(default_factory=list)

    def now(self, time: float) -> Interval:
        """Return the interval that lasts."""
        return Interval(self.state, len(self.in_hand), self.since, time)

    def change(self, kind: str, message: int | None) -> None:
        """Enter what a row says about the agent; one that has stopped is brought back by a restart alone."""
        if kind == "delivered" and message is not None:
            self.in_hand.append(message)
        elif kind in _ENDS and message in self.in_hand:
            self.in_hand.remove(message)
        elif kind in _TURNS and not (kind == "crashed" and self.state == "offline"):
            self.in_hand.clear()
            self.state = _TURNS[kind]
        if self.state in ("idle", "busy"):
            self.state = "busy" if self.in_hand else "idle"


_TURNS = {"spawned": "idle", "restarted": "idle", "crashed": "error", "stopped": "offline"}


def intervals(rows: list[Row], end: float) -> dict[str, list[Interval]]:
    """Return the states of each agent, one after the other up to `end`; those passed through in no time are there too.

    Agents come in the order of spawning, then services such as the registry that were given messages.
    """
    lives: dict[str, _Life] = {}
    for row in rows:
        if row[1] == "spawned":
            lives.setdefault(row[2], _Life(row[0]))
    answers = {row[_ID]: row[_TO] for row in rows if row[1] == "sent" and row[_TYPE] in WAKING}
    for row in rows:
        time, kind, who = row[:3]
        if kind not in _MOVES or (kind == "delivered" and answers.get(row[3]) == who):
            continue
        life = lives.setdefault(who, _Life(0.0))
        before = life.now(time)
        life.change(kind, row[3] if kind in _HANDLING else None)
        if before[:2] != life.now(time)[:2]:
            life.past.append(before)
            life.since = time
    return {who: [*life.past, life.now(end)] for who, life in lives.items()}


_HANDLING = frozenset({"delivered", *_ENDS})
_MOVES = frozenset({*_HANDLING, *_TURNS})


def health(kind: str, fact: str) -> str | None:
    """Return the health that a row of the registry speaks of, by its kind and its first fact; None after a stop."""
    if kind == "unregistered":
        return None if fact == "stopped" else "removed"
    return "healthy" if kind == "registered" else fact


REGISTRY = frozenset({"registered", "health", "unregistered"})  # the kinds of these rows
