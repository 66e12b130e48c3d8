"""Ways to a store: a part of it with rights, and an agent that answers for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import quote

from ...errors import InvalidValue, Refused
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import matches
from .store import Author, Entry, StateStore, author, text
from .watch import Watch

Names = Iterable[str] | None
Found = TypeVar("Found", Entry, Entry | None)


class Namespace(StateStore):
    """A part of a store, and itself a store: its keys are nobody else's, and not everybody may read or write them.

    `readers` and `writers` are names or globs, None for everybody; writers that are named may read. Whoever may not is
    Refused. In the store and in the trace its keys begin with its name and a slash; a namespace in a namespace is a
    part of that one, and needs its rights too.

        notes = Namespace(store, "notes", writers=["editor", "writer_*"])
    """

    def __init__(self, store: StateStore, name: str, *, readers: Names = None, writers: Names = None) -> None:
        self.store, self.world, self.name = _store(store), store.world, text("the name of a namespace", name)
        self._prefix = quote(name, safe="") + "/"  # a slash in the name would reach into another namespace
        writers = None if writers is None else require.names("writers", writers)
        readers = None if readers is None else (*require.names("readers", readers), *(writers or ()))
        self._rights = {"read": readers, "write": writers}

    async def get(self, key: str, *, by: Author | None = None) -> Entry | None:
        """Return the entry of a key; Refused for who may not read."""
        return self._mine(await self.store.get(self._key(key, by, "read"), by=by))

    async def set(self, key: str, value: Any, *, by: Author, **options: Any) -> Entry:
        """Write a value and return its entry; Refused for who may not write."""
        return self._mine(await self.store.set(self._key(key, by, "write"), value, by=by, **options))

    async def delete(self, key: str, *, by: Author, **options: Any) -> Entry | None:
        """Delete a key; Refused for who may not write."""
        return self._mine(await self.store.delete(self._key(key, by, "write"), by=by, **options))

    async def update(self, key: str, function: Callable[[Any], Any], *, by: Author, **options: Any) -> Entry:
        """Replace a value by a function of it; Refused for who may not read and write."""
        return self._mine(await self.store.update(self._key(key, by, "read", "write"), function, by=by, **options))

    async def compare_and_swap(
        self, key: str, expected: Any, value: Any, *, by: Author, **options: Any
    ) -> Entry | None:
        """Write a value if the present one equals the expected one; Refused for who may not read and write."""
        inner = self._key(key, by, "read", "write")
        return self._mine(await self.store.compare_and_swap(inner, expected, value, by=by, **options))

    async def history(self, key: str, limit: int | None = None, *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of a key that are kept, oldest first; Refused for who may not read."""
        return [self._mine(entry) for entry in await self.store.history(self._key(key, by, "read"), limit, by=by)]

    async def list(self, prefix: str = "", *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of the keys that begin with a prefix; Refused for who may not read."""
        return [self._mine(entry) for entry in await self.store.list(self._allow(prefix, by, "read"), by=by)]

    def watch(self, key: str | None = None, *, prefix: str = "", by: Author | None = None, limit: int = 1000) -> Watch:
        """Return the changes from now on; Refused for who may not read."""
        inner = None if key is None else self._key(key, by, "read")
        watch = self.store.watch(inner, prefix=self._allow(prefix, by, "read"), by=by, limit=limit)
        watch.strip += len(self._prefix)
        return watch

    def _mine(self, entry: Found) -> Found:
        """Return the entry with the key that it has here."""
        return entry and entry._replace(key=entry.key[len(self._prefix) :])

    def _key(self, key: str, by: Author | None, *actions: str) -> str:
        return self._allow(text("the key", key), by, *actions)

    def _allow(self, key: str, by: Author | None, *actions: str) -> str:
        """Return the key in the store; Refused, and a row of the trace, for who has no right to it."""
        inner = self._prefix + text("the prefix", key, empty=True)
        who = "somebody" if by is None else author(by)
        for action in actions:
            allowed = self._rights[action]
            if allowed is not None and not any(matches(who, name) for name in allowed):
                reason = f"only {', '.join(allowed) or 'nobody'} may {action} in the namespace {self.name!r}"
                self.world.trace.record("refused", who, action=action, target=inner, reason=reason)
                raise Refused(f"{who} may not {action} {key!r}: {reason}; say who it is with `by=`")
        return inner


class StateService(Agent):
    """Answers for a store, so that messages reach it; whoever asks is the author.

    Functions do not travel, so `update` takes the name of one of `functions`, and more inputs for it.

        world.spawn(StateService("state", store, {"add": lambda value, n: (value or 0) + n}))
        await agent.request("state", "update", key="count", function="add", inputs={"n": 1})
    """

    service = True

    def __init__(self, name: str, store: StateStore, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        super().__init__(name, concurrency=1000)  # each watcher keeps one busy
        self.store, self.functions = _store(store), dict(functions or {})

    @property
    def _asker(self) -> str:
        message = self.handling()
        return self.name if message is None else message.sender

    @capability(cost=0.1)
    async def get(self, key: str) -> Entry | None:
        """Return the entry of a key; None where there is none, or no more."""
        return await self.store.get(key, by=self._asker)

    @capability(cost=0.1)
    async def set(self, key: str, value: Any, expected_version: int | None = None, ttl: float | None = None) -> Entry:
        """Write a value and return its entry; VersionConflict where the key has another version than expected."""
        return await self.store.set(key, value, by=self._asker, expected_version=expected_version, ttl=ttl)

    @capability(cost=0.1)
    async def update(self, key: str, function: str, inputs: dict[str, Any] | None = None) -> Entry:
        """Replace a value by the function of that name, called with the value and the inputs."""
        chosen = self.functions[require.one_of("function", function, self.functions)]
        return await self.store.update(key, lambda value: chosen(value, **(inputs or {})), by=self._asker)

    @capability(cost=0.1)
    async def compare_and_swap(self, key: str, expected: Any, value: Any, ttl: float | None = None) -> Entry | None:
        """Write a value if the present one, None where there is none, equals the expected one; else return None."""
        return await self.store.compare_and_swap(key, expected, value, by=self._asker, ttl=ttl)

    @capability(cost=0.1)
    async def delete(self, key: str, expected_version: int | None = None) -> Entry | None:
        """Delete a key; return the entry that marks the deletion, None where there was nothing to delete."""
        return await self.store.delete(key, by=self._asker, expected_version=expected_version)

    @capability(cost=0.1)
    async def history(self, key: str, limit: int | None = None) -> Sequence[Entry]:
        """Return the entries of a key that are kept, oldest first, deletions too; at most the last `limit`."""
        return await self.store.history(key, limit, by=self._asker)

    @capability(cost=0.1)
    async def list(self, prefix: str = "") -> Sequence[Entry]:
        """Return the entries of the keys that begin with a prefix, sorted by key."""
        return await self.store.list(prefix, by=self._asker)

    @capability(cost=0.1)
    async def watch(self, key: str | None = None, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield the changes from now on of one key, or of those that begin with a prefix, deletions too."""
        async with aclosing(self.store.watch(key, prefix=prefix, by=self._asker)) as changes:
            async for change in changes:
                yield change


def _store(store: StateStore) -> StateStore:
    if not isinstance(store, StateStore):
        raise InvalidValue(f"the store is {store!r}: give a store, such as MemoryStore(world)")
    return store
