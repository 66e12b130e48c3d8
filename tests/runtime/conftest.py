"""Fixtures of the runtime tests: worlds that are closed, and whose accounting is checked, when the test ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from society import missing

from masbook import World


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(seed: int | str = 7, **options: Any) -> World:
        worlds.append(World(seed, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        assert missing(world) == 0, world.bus.accounting()
        world.close()
        assert missing(world) == 0, world.bus.accounting()
    assert not [thread for thread in threading.enumerate() if thread.name == "masbook"]


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
