"""The trace: the one record of what happened in a world.

Everything that happens is a row, of a kind and with fields declared in `KINDS`; metrics, tables, charts, graders and
digests read the rows and nothing else. Components call `record`; whoever wants to look while it happens calls
`observe`. To add a kind of event, declare it here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InvalidValue, WorldClosed
from . import require
from .message import freeze

KINDS: dict[str, tuple[str, ...]] = {
    # agents; `who` is the agent
    "spawned": ("type", "parent", "restart", "concurrency"),
    "stopped": ("reason",),
    "crashed": ("error", "message"),
    "restarted": ("attempt", "backoff"),
    "escalated": ("to", "error"),
    "paused": ("seconds",),
    # messages; `who` is the sender for "sent", else the recipient
    "sent": ("message", "type", "to", "topic", "copies", "priority", "cause", "reply_to", "conversation", "content"),
    "delivered": ("message",),
    "handled": ("message",),
    "failed": ("message", "error"),
    "cancelled": ("message",),
    "delayed": ("message", "seconds"),
    "duplicated": ("message", "reason"),
    "dropped": ("message", "reason"),
    "dead": ("message", "reason"),
    "timed_out": ("message", "to", "topic", "seconds"),
    "blocked": ("message", "to"),
    # the bus; `who` is the agent concerned
    "subscribed": ("topic", "filter"),
    "unsubscribed": ("topic",),
    "refused": ("action", "target", "reason"),
    "violated": ("protocol", "message", "step", "expected"),
    # faults; `who` is whom the fault strikes
    "fault": ("fault", "message", "detail"),
    # the registry; `who` is the agent concerned
    "registered": ("capabilities", "tags"),
    "unregistered": ("reason",),
    "health": ("health", "missed"),
    # tasks of workflows, coordinators and teams; `who` is the service that keeps them, or the agent at work
    "workflow": ("workflow", "name", "status", "detail"),
    "task_added": ("workflow", "task", "capability", "after", "priority", "parent"),
    "task_waiting": ("workflow", "task", "reason"),
    "task_started": ("workflow", "task", "attempt"),
    "task_part": ("workflow", "task", "attempt"),  # one of several at work on a task has done its part
    "task_failed": ("workflow", "task", "attempt", "error", "next"),
    "task_ended": ("workflow", "task", "status", "reason"),
    "task_undone": ("workflow", "task", "error"),
    # teams; `who` is the agent that joins, or that hands a task to another
    "joined": ("team", "role", "superior", "skills", "capacity"),
    "handover": ("team", "task", "to", "how", "reason"),
    # pools; `who` is the pool
    "pool": ("change", "member", "size", "reason"),
    # conflicts; `who` is the resolver, for "position" the participant
    "conflict": ("conflict", "type", "participants", "description"),
    "position": ("conflict", "strategy", "round", "position"),
    "attempted": ("conflict", "strategy", "outcome", "reason"),
    "resolved": ("conflict", "type", "strategy", "outcome", "winner", "decision", "satisfaction"),
    # synchronisation; `who` is the agent
    "queued": ("resource",),  # it has to wait
    "gave_up": ("resource", "waited", "reason"),
    "acquired": ("resource", "token", "waited"),
    "released": ("resource", "token", "reason"),
    "barrier": ("barrier", "generation", "status", "arrived"),
    # shared state; `who` is the author
    "stored": ("store", "key", "version", "change"),
    "version_conflict": ("store", "key", "expected", "version"),
    "quorum_missed": ("store", "key", "action", "reached", "needed"),
    # domain events; `who` is the agent that reacts
    "reaction_failed": ("event", "reaction", "error"),
    # models; `who` is the agent that thinks; one row for each attempt at a call, a cost of None has no known price
    "model_called": ("model", "call", "seconds", "input_tokens", "output_tokens", "cost", "outcome", "error"),
    "tool_called": ("tool", "seconds", "outcome", "error"),
    "run_ended": ("seconds", "outcome", "output", "error"),  # it has answered, or not; the output as the model wrote it
    "conversation_stopped": ("conversation", "reason", "limit"),
    # what a scenario wants to remember
    "note": ("text", "data"),
}

FORMAT = 1
_SENT = 3 + len(KINDS["sent"])
_BATCH = 4096  # rows that `ring` and `counts` let pile up before they fold them away
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=True).encode


class Event(NamedTuple):
    """A row of the trace: when (virtual seconds), what kind, whom it concerns, and its facts by field."""

    time: float
    kind: str
    who: str
    facts: dict[str, Any]


class Trace:
    """What happened, in order.

    `Trace.full()` keeps every row; `Trace.ring(n)` the last n at least; `Trace.counts()` none, only the counts. The
    digest and the counts cover every row in all three, so that a long run costs no memory and proves the same.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.clock: Callable[[], float] | None = None  # of the world whose trace this is
        self.rows: list[tuple[Any, ...]] = []
        self._keep = keep
        self._folded = 0  # rows that were dropped
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counted = 0  # rows of `rows` that are in `_counts`
        self._base = b""  # the digest of the rows that were dropped
        self._chain = b""  # the digest of those and the first `_hashed` rows of `rows`
        self._hashed = 0
        self._observers: list[Callable[[Event], None]] = []
        self._failure: Exception | None = None  # what an observer raised
        self._choose_append()

    @classmethod
    def full(cls) -> Trace:
        """Return a trace that keeps every row."""
        return cls()

    @classmethod
    def ring(cls, rows: int) -> Trace:
        """Return a trace that keeps at least the last `rows` rows."""
        return cls(keep=require.whole("rows", rows))

    @classmethod
    def counts(cls) -> Trace:
        """Return a trace that keeps no rows, only counts and the digest."""
        return cls(keep=0)

    def _choose_append(self) -> None:
        """`append` takes a finished row; it is the list's own while nobody watches, because every message calls it."""
        plain = self._keep is None and not self._observers
        self.append: Callable[[tuple[Any, ...]], None] = self.rows.append if plain else self._append

    def _append(self, row: tuple[Any, ...]) -> None:
        self.rows.append(row)
        if self._observers:
            event = _event(row)
            for observer in tuple(self._observers):
                try:
                    observer(event)
                except Exception as error:  # raised at the end of the run: what is recorded must not fail for it
                    self._observers.remove(observer)
                    self._failure = self._failure or error
        if self._keep is not None and len(self.rows) >= self._keep + _BATCH:
            self._fold(len(self.rows) - self._keep)

    def record(self, kind: str, who: str, **facts: Any) -> None:
        """Add a row of `kind` about `who`; fields not given are None. InvalidValue for what is not declared."""
        fields = KINDS.get(kind)
        if fields is None:
            raise InvalidValue(f"no kind of event {kind!r}; declare it in masbook.runtime.trace.KINDS, or use 'note'")
        for name in facts:
            if name not in fields:
                raise InvalidValue(f"{kind!r} has no field {name!r}; it has {', '.join(fields)}")
        if not isinstance(who, str):
            raise InvalidValue(f"who is {who!r}: give the name of an agent")
        now = 0.0 if self.clock is None else self.clock()
        self.append((now, kind, who, *[freeze(facts.get(name), name) for name in fields]))

    def observe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Call `observer` with each event from now on; return the function that ends it."""
        self._observers.append(observer)
        self._choose_append()

        def stop() -> None:
            if observer in self._observers:
                self._observers.remove(observer)
                self._choose_append()

        return stop

    def check_observers(self) -> None:
        """Raise what an observer has raised, once; it has been dropped."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def events(self, kind: str | None = None, who: str | None = None) -> Iterator[Event]:
        """Yield the events that are kept, of one kind and about one agent if given."""
        for row in self.rows:
            if (kind is None or row[1] == kind) and (who is None or row[2] == who):
                yield _event(row)

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and len(self) == len(other) and self.digest == other.digest

    __hash__ = object.__hash__

    def __len__(self) -> int:
        """Return how many rows there have been, kept or not."""
        return self._folded + len(self.rows)

    def count(self, kind: str, who: str | None = None) -> int:
        """Return how many events of a kind there have been; `copies` counts messages sent, one for each recipient."""
        counts, rows = self._counts, self.rows
        for i in range(self._counted, len(rows)):
            row = rows[i]
            counts[row[1], row[2]] += 1
            if row[1] == "sent":
                counts["copies", row[2]] += row[7]
        self._counted = len(rows)
        if who is not None:
            return counts[kind, who]
        return sum(number for (name, _), number in counts.items() if name == kind)

    @property
    def complete(self) -> bool:
        """Whether every row is still here."""
        return not self._folded

    @property
    def digest(self) -> str:
        """The SHA-256 over the canonical JSON of every row, each chained to the one before."""
        self._chain = _hash(self._chain, self.rows[self._hashed :])
        self._hashed = len(self.rows)
        return hashlib.sha256(self._chain).hexdigest()

    def _fold(self, number: int) -> None:
        """Drop the oldest rows once they are counted and hashed."""
        self.count("")
        self._base = _hash(self._base, self.rows[:number])
        if self._hashed < number:
            self._chain, self._hashed = self._base, number
        del self.rows[:number]
        self._folded += number
        self._counted -= number
        self._hashed -= number

    def seal(self) -> None:
        """Take no more rows: the run is over, and the trace is its record."""
        self.clock = float
        self._observers.clear()
        self.append = _refuse

    def first_difference(self, other: Trace) -> tuple[int, Event | None, Event | None] | None:
        """Return the first row that differs from `other`: its number and both events; None where all are equal."""
        for i, (mine, theirs) in enumerate(zip(self.rows, other.rows, strict=False)):
            if _encode(_recorded(mine)) != _encode(_recorded(theirs)):
                return i, _event(mine), _event(theirs)
        i = min(len(self.rows), len(other.rows))
        if len(self.rows) == len(other.rows):
            return None
        longer = _event((self.rows + other.rows[len(self.rows) :])[i])
        return (i, longer, None) if len(self.rows) > i else (i, None, longer)

    def save(self, path: str | Path) -> Path:
        """Write the trace to one gzipped file of JSON lines; return its path."""
        target = Path(path)
        state = self.__getstate__()
        rows = state.pop("rows")
        with target.open("wb") as whole, gzip.GzipFile("", "wb", fileobj=whole, mtime=0) as file:
            for line in ({"masbook": FORMAT, **state}, *rows):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote; InvalidValue for another file or format."""
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                state, *rows = [json.loads(line) for line in file]
        except (OSError, EOFError, ValueError) as error:
            raise InvalidValue(f"{path} is not a trace that masbook saved: {error}") from error
        if not isinstance(state, dict) or state.pop("masbook", None) != FORMAT:
            raise InvalidValue(f"{path} has another format; this masbook reads traces of format {FORMAT}")
        trace = cls.__new__(cls)
        trace.__setstate__({**state, "rows": [tuple(freeze(value) for value in row) for row in rows]})
        if trace.digest != state["digest"]:
            raise InvalidValue(f"{path} has been altered: its rows do not have the digest that was saved with them")
        return trace

    def __getstate__(self) -> dict[str, Any]:
        digest, _ = self.digest, self.count("")  # bring both up to the last row
        counts = [[*key, number] for key, number in sorted(self._counts.items())]
        state = {"keep": self._keep, "folded": self._folded, "counts": counts, "digest": digest}
        return {**state, "base": self._base.hex(), "rows": [_recorded(row) for row in self.rows]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["keep"])  # type: ignore[misc]
        self.rows.extend(state["rows"])
        self._folded = state["folded"]
        self._counts.update({(kind, who): number for kind, who, number in state["counts"]})
        self._base = self._chain = bytes.fromhex(state["base"])
        self._counted = len(self.rows)
        self.seal()


def _hash(chain: bytes, rows: list[tuple[Any, ...]]) -> bytes:
    for row in rows:
        chain = hashlib.sha256(chain + _encode(_recorded(row)).encode()).digest()
    return chain


def _recorded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the row as declared: of a message, the fields that are recorded."""
    return row if type(row) is tuple else row[:_SENT]


def _event(row: tuple[Any, ...]) -> Event:
    time, kind, who, *values = _recorded(row)
    return Event(time, kind, who, dict(zip(KINDS[kind], values, strict=True)))


def _refuse(row: tuple[Any, ...]) -> None:
    raise WorldClosed(f"the run is over; its trace takes no {row[1]!r}")
