"""What an optimistic update costs, against a plain dict with compare-and-swap; `run.py` prints the comparison.

Fifty writers add to ten keys: each reads, lets the others go on, and writes if nobody has written since; else it tries
again. Both do the same, in the same order, with as many attempts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from masbook import World
from masbook.coordination import MemoryStore
from masbook.errors import VersionConflict

WRITERS, KEYS = 50, 10


def plain_dict(count: int = 100_000) -> float:
    """Seconds an update of a dict takes, with versions and nothing else."""
    values: dict[str, tuple[int, int]] = {}

    def compare_and_swap(key: str, version: int, value: int) -> bool:
        if values.get(key, (0, 0))[1] != version:
            return False
        values[key] = (value, version + 1)
        return True

    async def write(key: str) -> None:
        for _ in range(count // WRITERS):
            while True:
                value, version = values.get(key, (0, 0))
                await asyncio.sleep(0)
                if compare_and_swap(key, version, value + 1):
                    break

    async def main() -> float:
        began = time.thread_time()
        await asyncio.gather(*[write(f"key_{number % KEYS}") for number in range(WRITERS)])
        return (time.thread_time() - began) / count

    seconds = asyncio.run(main())
    assert sum(value for value, _ in values.values()) == count
    return seconds


def by_version(count: int = 100_000) -> float:
    """Seconds an update of a store takes: `get`, `set` with the version that was read, and again after a conflict."""

    async def add(store: MemoryStore, key: str, who: str) -> None:
        while True:
            entry = await store.get(key)
            await asyncio.sleep(0)
            value, version = (entry.value, entry.version) if entry else (0, 0)
            try:
                await store.set(key, value + 1, by=who, expected_version=version)
                return
            except VersionConflict:
                continue

    return _measure(add, count)[0]


def by_function(count: int = 100_000, in_line: bool = False) -> tuple[float, float]:
    """Seconds an update by an async function takes, and how often it has to try again."""

    async def think(value: int | None) -> int:
        await asyncio.sleep(0)
        return (value or 0) + 1

    async def add(store: MemoryStore, key: str, who: str) -> None:
        await store.update(key, think, by=who, in_line=in_line)

    return _measure(add, count)


def _measure(add: Callable[..., Any], count: int) -> tuple[float, float]:
    world = World()
    store = MemoryStore(world)

    async def write(key: str, who: str) -> None:
        for _ in range(count // WRITERS):
            await add(store, key, who)

    async def main() -> float:
        writers = [write(f"key_{number % KEYS}", f"writer_{number}") for number in range(WRITERS)]
        began = time.thread_time()
        await asyncio.gather(*writers)
        seconds = (time.thread_time() - began) / count
        assert sum(entry.value for entry in await store.list()) == count
        assert len(await store.history("key_0")) > 1
        return seconds

    try:
        return world.run(main()), world.trace.count("version_conflict") / count
    finally:
        world.close()
