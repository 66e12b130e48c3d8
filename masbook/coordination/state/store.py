"""Stores: what every one of them does, and the one in memory.

Agents call a store directly, or by message through a `StateService`. Every write is a row `stored` of the trace, every
write that came too late a row `version_conflict`. For a store of another kind write a class with the methods of
`StateStore`; to keep the entries elsewhere too, inherit from `MemoryStore`, as `SQLiteStore` does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ...errors import InvalidValue, VersionConflict
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.message import freeze, is_plain
from ...runtime.world import World
from .watch import Watch

Author = Agent | str
canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Entry(NamedTuple):
    """One version of a value: plain data that nobody can change, who wrote it, and when (virtual seconds).

    The first version of a key is 1, and every change counts one up: also a deletion, which leaves an entry without a
    value behind, and what is written after it, so that no version comes twice. `expires` is when its time is over.
    """

    key: str
    value: Any
    version: int
    author: str
    time: float
    expires: float | None = None
    deleted: bool = False

    @property
    def checksum(self) -> str:
        """The SHA-256 of the value's canonical JSON: equal for equal data."""
        return hashlib.sha256(canonical(self.value).encode()).hexdigest()


@runtime_checkable
class StateStore(Protocol):
    """What every store can do; whoever inherits from it has to write the first six methods. `by` is who acts.

    Bad input is InvalidValue, a value that is not plain data Unrecordable: at once, before anything has changed.
    """

    world: World
    name: str

    async def get(self, key: str, *, by: Author | None = None) -> Entry | None:
        """Return the entry of a key; None where there is none, or no more."""

    async def set(
        self, key: str, value: Any, *, by: Author, expected_version: int | None = None, ttl: float | None = None
    ) -> Entry:
        """Write a value and return its entry; after `ttl` virtual seconds, if given, it is deleted.

        VersionConflict where the key has another version than expected; 0 expects that it does not exist.
        """

    async def delete(self, key: str, *, by: Author, expected_version: int | None = None) -> Entry | None:
        """Delete a key; return the entry that marks the deletion, None where there was nothing to delete."""

    async def history(self, key: str, limit: int | None = None, *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of a key that are kept, oldest first, deletions too; at most the last `limit`."""

    async def list(self, prefix: str = "", *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of the keys that begin with a prefix, sorted by key."""

    def watch(self, key: str | None = None, *, prefix: str = "", by: Author | None = None, limit: int = 1000) -> Watch:
        """Return the changes from now on of one key, or of those that begin with a prefix, deletions too."""

    async def keys(self, prefix: str = "", *, by: Author | None = None) -> Sequence[str]:
        """Return the keys that begin with a prefix, sorted."""
        return [entry.key for entry in await self.list(prefix, by=by)]

    async def update(
        self, key: str, function: Callable[[Any], Any], *, by: Author, ttl: float | None = None, in_line: bool = False
    ) -> Entry:
        """Replace a value by a function of it, None where there is none, with nothing in between.

        An async function is called again if somebody has written meanwhile. `in_line` lets all who ask for it have
        their turn at the key, in the order in which they came, so that none of them makes another one try again.
        """
        if not callable(function):
            raise InvalidValue(f"update is given {function!r}: give a function of the value, or use `set`")
        leave = await _take_turn(self, key, author(by)) if in_line else None
        try:
            while True:
                entry = await self.get(key, by=by)
                present, version = (None, 0) if entry is None else (entry.value, entry.version)
                value = function(present)
                if hasattr(value, "__await__"):
                    value = await value
                try:
                    return await self.set(key, value, by=by, expected_version=version, ttl=ttl)
                except VersionConflict:
                    continue
        finally:
            if leave is not None:
                leave()

    async def compare_and_swap(
        self, key: str, expected: Any, value: Any, *, by: Author, ttl: float | None = None
    ) -> Entry | None:
        """Write a value if the present one, None where there is none, equals the expected one; else return None."""
        value, expected = freeze(value, "value"), freeze(expected, "expected")
        while True:
            entry = await self.get(key, by=by)
            present, version = (None, 0) if entry is None else (entry.value, entry.version)
            if present != expected:
                self.world.trace.record("version_conflict", author(by), store=self.name, key=key, version=version)
                return None
            with suppress(VersionConflict):  # somebody may have written the same value again
                return await self.set(key, value, by=by, expected_version=version, ttl=ttl)


class WatchedStore(StateStore):
    """What stores with entries of their own share: a world, a name, and whoever watches."""

    def __init__(self, world: World, name: str) -> None:
        if not isinstance(world, World):
            raise InvalidValue(f"a store lives in a world, not in {world!r}: write {type(self).__name__}(world, ...)")
        self.world, self.name = world, text("the name of a store", name)
        self._watches: list[Watch] = []

    def watch(self, key: str | None = None, *, prefix: str = "", by: Author | None = None, limit: int = 1000) -> Watch:
        """Return the changes from now on of one key, or of those that begin with a prefix, deletions too."""
        begins, who = text("the prefix", prefix, empty=True), "a reader" if by is None else author(by)
        wants = (lambda each: each.startswith(begins)) if key is None else text("the key", key).__eq__
        watch = Watch(self.world, who, limit, wants, self._watches.remove)
        self._watches.append(watch)
        return watch

    def _tell(self, entry: Entry, change: str) -> None:
        """Tell the trace, and whoever watches, of a change that was made."""
        world, (key, _, version, who, *_) = self.world, entry
        world.trace.append((world.clock(), "stored", who, self.name, key, version, change))
        for watch in self._watches:
            watch.put(entry)

    def _conflict(self, key: str, found: Entry | None, expected: int, who: str) -> VersionConflict:
        """Tell the trace that somebody came too late; return the error that says so."""
        version, last = (0, "nobody") if found is None else (found.version, found.author)
        world = self.world
        world.trace.append((world.clock(), "version_conflict", who, self.name, key, expected, version))
        return VersionConflict(
            f"{key!r} has version {version}, not {expected}: {last} wrote it; read it again, or use `update`"
        )


class MemoryStore(WatchedStore):
    """A store in the memory of its world, which keeps the last `history` entries of each key.

    store = MemoryStore(world)
    await store.set("plan", {"step": 1}, by=agent, expected_version=0)
    await store.update("count", lambda n: (n or 0) + 1, by=agent)
    (await store.get("plan")).value["step"]
    """

    def __init__(self, world: World, name: str = "store", *, history: int = 100) -> None:
        super().__init__(world, name)
        self._kept = require.whole("history", history, least=0)
        self._past: dict[str, deque[Entry]] = {}  # with those that mark deletions; the last of each is what counts
        self._timers: dict[str, Any] = {}

    async def get(self, key: str, *, by: Author | None = None) -> Entry | None:
        """Return the entry of a key; None where there is none, or no more."""
        entry = self._find(key)
        return None if entry is None or entry.deleted else entry

    async def set(
        self, key: str, value: Any, *, by: Author, expected_version: int | None = None, ttl: float | None = None
    ) -> Entry:
        """Write a value and return its entry; VersionConflict where the key has another version than expected."""
        found, who = self._find(key), author(by)
        value = value if is_plain(value) else freeze(value, "value")
        expires = None if ttl is None else self.world.now + require.positive("ttl", ttl)
        if expected_version is not None and not fits(found, expected_version):
            raise self._conflict(key, found, expected_version, who)
        return self._write(key, found, value, who, expires)

    async def delete(self, key: str, *, by: Author, expected_version: int | None = None) -> Entry | None:
        """Delete a key; return the entry that marks the deletion, None where there was nothing to delete."""
        found, who = self._find(key), author(by)
        if expected_version is not None and not fits(found, expected_version):
            raise self._conflict(key, found, expected_version, who)
        return None if found is None or found.deleted else self._write(key, found, None, who, change="deleted")

    async def history(self, key: str, limit: int | None = None, *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of a key that are kept, oldest first, deletions too; at most the last `limit`."""
        past = [*self._past[key]] if self._find(key) and self._kept else []
        return past if limit is None else past[-require.whole("limit", limit) :]

    async def list(self, prefix: str = "", *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of the keys that begin with a prefix, sorted by key."""
        text("the prefix", prefix, empty=True)
        found = [self._find(key) for key in sorted(self._past) if key.startswith(prefix)]
        return [entry for entry in found if entry is not None and not entry.deleted]

    def _find(self, key: str) -> Entry | None:
        """Return the last entry of a key: one that marks a deletion where there was one, or where its time is over."""
        past = self._past.get(key) if key.__class__ is str else None
        if past is None:
            text("the key", key)
            return None
        entry = past[-1]
        if entry.expires is not None and entry.expires <= self.world.now:
            return self._write(key, entry, None, "world", change="expired")
        return entry

    def _write(
        self, key: str, found: Entry | None, value: Any, who: str, expires: float | None = None, change: str = "set"
    ) -> Entry:
        """Add the entry that comes after the one found, at once: whoever calls has not awaited anything since."""
        version = 1 if found is None else found.version + 1
        entry = tuple.__new__(Entry, (key, value, version, who, self.world.clock(), expires, change != "set"))
        self._keep(entry)
        self._tell(entry, change)
        return entry

    def _keep(self, entry: Entry) -> None:
        """Make the entry the last of its key."""
        key = entry.key
        past = self._past.get(key)
        if past is None:
            past = self._past[key] = deque(maxlen=self._kept or 1)
        past.append(entry)
        if key in self._timers:
            self._timers.pop(key).cancel()
        if entry.expires is not None:  # so that watchers hear of it in time
            self._timers[key] = self.world.loop.call_at(entry.expires, self._find, key)


async def _take_turn(store: StateStore, key: str, who: str) -> Callable[[], None]:
    """Wait until everybody who came before has had a turn at the key; return the function that ends this one."""
    named, place = store.world.named, ("turns", f"{store.name}/{key}")
    line: deque[tuple[str, Any, asyncio.Future[None]]] = named.setdefault(place, deque())
    turn = (who, asyncio.current_task(), store.world.loop.create_future())
    if any(task is turn[1] for _, task, _ in line):
        raise InvalidValue(f"{who} updates {key!r} in line inside its own update of it: it would wait for itself")

    def leave() -> None:
        line.remove(turn)
        if not line:
            del named[place]
        elif not line[0][2].done():
            line[0][2].set_result(None)

    line.append(turn)
    if line[0] is not turn:
        try:
            await store.world.wait(turn[2], who=who, what=f"its turn to update {key!r}", on=lambda: line[0][0])
        except BaseException:
            leave()
            raise
    return leave


def fits(found: Entry | None, expected: int) -> bool:
    """Return whether the entry found has the version expected; 0 where there is none, or it marks a deletion."""
    if expected.__class__ is not int or expected < 0:
        require.whole("expected_version", expected, least=0)
    return expected == 0 if found is None else expected == found.version or (expected == 0 and found.deleted)


def text(what: str, value: Any, empty: bool = False) -> str:
    """Return the value if it is text, and not empty unless it may be."""
    if type(value) is not str or not (value or empty):
        raise InvalidValue(f"{what} is {value!r}: give it some text, such as 'plan'")
    return value


def author(by: Author) -> str:
    """Return the name of who acts."""
    name = by.name if isinstance(by, Agent) else by
    return name if name.__class__ is str and name else text("by", name)
