"""Is there an order in which these calls could have happened one at a time? A checker for small histories.

A history is linearizable if its calls can be put in an order that respects what came before what, and in which each
call gives the result it gave (Herlihy and Wing, 1990). The search is that of Wing and Gong (1993): take away, one after
the other, a call that nothing still in the history came before; what has been tried is not tried again (Lowe, 2017).
A history is linearizable if that of each key is, so that each key is checked for itself.

`Recorder` stands between a store and its clients and writes the history; a model says what a call does to one key.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from masbook.coordination import Entry, StateStore
from masbook.coordination.state.store import canonical
from masbook.errors import QuorumMissed, RequestTimeout, VersionConflict
from masbook.runtime.message import freeze

CONFLICT = "conflict"  # the result of a call that came too late
UNKNOWN = "unknown"  # nobody knows whether the call has done or will ever do what it should


@dataclass(frozen=True, slots=True)
class Call:
    """A call by a client, between two places in the order of all beginnings and ends; infinity: it never ended."""

    client: str
    action: str  # get, set, swap, delete or add
    key: str
    arguments: tuple[Any, ...]
    result: Any
    began: int
    ended: float = math.inf


Model = Callable[[Any, Call], Hashable]  # the state after the call, or IMPOSSIBLE if it cannot give that result
IMPOSSIBLE = object()


def linearization(calls: Sequence[Call], model: Model, initial: Hashable) -> list[Call] | None:
    """Return an order in which the calls could have happened one at a time, or None if there is none.

    Calls that never ended need not have happened at all.
    """
    calls = sorted(calls, key=lambda call: call.began)
    everything = (1 << len(calls)) - 1
    tried: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable, tuple[Call, ...]]] = [(everything, initial, ())]
    while stack:
        left, state, order = stack.pop()
        if (left, state) in tried:
            continue
        tried.add((left, state))
        waiting = [(number, call) for number, call in enumerate(calls) if left >> number & 1]
        first_end = min((call.ended for _, call in waiting), default=math.inf)
        if first_end == math.inf:
            return list(order)
        for number, call in waiting:
            if call.began < first_end and (after := model(state, call)) is not IMPOSSIBLE:
                stack.append((left & ~(1 << number), after, (*order, call)))
    return None


def contradictions(calls: Sequence[Call], model: Model, initial: Hashable) -> list[str]:
    """Return the keys whose calls cannot have happened one at a time."""
    keys = dict.fromkeys(call.key for call in calls)
    return [key for key in keys if linearization([call for call in calls if call.key == key], model, initial) is None]


ABSENT = (0, None)


def versioned(state: Any, call: Call) -> Hashable:
    """The model of a store's key: (version, value), where the value None stands for none.

    Results are versions (of what was written), (version, value) (of what was read), CONFLICT, or None.
    """
    version, value = state
    present = 0 if value is None else version
    written: Any = call.arguments[0] if call.arguments else None
    if call.action == "get":
        return state if call.result in ((version, value) if value is not None else None, UNKNOWN) else IMPOSSIBLE
    if call.action == "delete" and value is None:
        return state if call.result in (None, UNKNOWN) else IMPOSSIBLE
    if call.action == "set" and call.arguments[1] not in (None, present):
        return state if call.result in (CONFLICT, UNKNOWN) else IMPOSSIBLE
    if call.action == "swap":
        expected, written = call.arguments
        if expected != value:
            return state if call.result in (None, UNKNOWN) else IMPOSSIBLE
    if call.action == "add":
        written = canonical((0 if value is None else int(value)) + call.arguments[0])
    return (version + 1, written) if call.result in (version + 1, UNKNOWN) else IMPOSSIBLE


def register(state: Any, call: Call) -> Hashable:
    """As `versioned`, for a store whose versions may leave numbers out: only the values count."""
    version, value = state
    if call.action == "get" and isinstance(call.result, tuple):
        return state if call.result[1] == value else IMPOSSIBLE
    made = version + 1 if isinstance(call.result, int) else call.result
    return versioned(state, Call(call.client, call.action, call.key, call.arguments, made, call.began, call.ended))


class Recorder:
    """A store as its clients see it, and the history of their calls; values are kept as text, which can be hashed."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.calls: list[Call] = []
        self._place = 0

    async def get(self, who: str, key: str) -> Entry | None:
        return await self._record(who, "get", key, (), self.store.get(key, by=who))

    async def set(self, who: str, key: str, value: Any, expected: int | None = None) -> Entry | None:
        call = self.store.set(key, value, by=who, expected_version=expected)
        return await self._record(who, "set", key, (_text(value), expected), call)

    async def swap(self, who: str, key: str, expected: Any, value: Any) -> Entry | None:
        call = self.store.compare_and_swap(key, expected, value, by=who)
        return await self._record(who, "swap", key, (_text(expected), _text(value)), call)

    async def delete(self, who: str, key: str) -> Entry | None:
        return await self._record(who, "delete", key, (), self.store.delete(key, by=who))

    async def add(
        self, who: str, key: str, number: int, change: Callable[[Any], Any] | None = None, in_line: bool = False
    ) -> Entry | None:
        """Add a number by `update`; `change`, if given, is the function that does it."""
        change = change or (lambda value: (value or 0) + number)
        call = self.store.update(key, change, by=who, in_line=in_line)
        return await self._record(who, "add", key, (number,), call)

    async def _record(
        self, who: str, action: str, key: str, arguments: tuple[Any, ...], call: Awaitable[Any]
    ) -> Entry | None:
        began = self._next()
        entry: Entry | None = None
        result: Any
        ended = math.inf
        try:
            entry = await call
            result = entry and ((entry.version, _text(entry.value)) if action == "get" else entry.version)
            ended = self._next()
        except VersionConflict:
            result, ended = CONFLICT, self._next()
        except (QuorumMissed, RequestTimeout):
            result = UNKNOWN  # it may have been done in part, and be done later
        self.calls.append(Call(who, action, key, arguments, result, began, ended))
        return entry

    def _next(self) -> int:
        self._place += 1
        return self._place


def _text(value: Any) -> str | None:
    return None if value is None else canonical(freeze(value))
