"""Watching a store: its changes, one after the other, for whoever wants to react to them. Stores make watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from ...runtime import require

if TYPE_CHECKING:
    from ...runtime.world import World
    from .store import Entry


class Watch:
    """Changes in the order in which they were made: `async for entry in store.watch("plan")`.

    It begins when it is made, and ends when the loop is left or `close` is called; whoever waits then goes on. Nobody
    waits for a slow reader: one that is more than `limit` changes behind misses the oldest, as the versions show.
    """

    def __init__(
        self, world: World, who: str, limit: int, wants: Callable[[str], bool], forget: Callable[[Watch], Any]
    ) -> None:
        self._world, self._who, self._wants, self._forget = world, who, wants, forget
        self._changes: deque[Entry] = deque(maxlen=require.whole("limit", limit))
        self._news = asyncio.Event()
        self._open = True
        self.strip = 0  # characters of the keys that the reader does not know of

    def put(self, change: Entry) -> None:
        """Take in a change, if it is to one of the keys that are watched; the store calls it."""
        if self._wants(change.key):
            self._changes.append(change)
            self._news.set()

    async def __anext__(self) -> Entry:
        while self._open and not self._changes:
            self._news.clear()
            await self._world.wait(self._news.wait(), who=self._who, what="a change in a store")
        if not self._open:
            raise StopAsyncIteration
        change = self._changes.popleft()
        return change._replace(key=change.key[self.strip :])

    async def __aiter__(self) -> AsyncIterator[Entry]:
        try:
            while self._open:
                yield await anext(self)
        except StopAsyncIteration:  # closed while it waited
            return
        finally:
            self.close()

    def close(self) -> None:
        """End it; changes that have not been read are dropped."""
        if self._open:
            self._open = False
            self._forget(self)
            self._news.set()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()
