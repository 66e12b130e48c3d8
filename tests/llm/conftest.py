"""What the tests of models share. Real requests are blocked, as everywhere: see tests/offline/no_network.py."""

from __future__ import annotations

import pytest

from masbook import World


@pytest.fixture(autouse=True)
def no_model_of_the_environment(monkeypatch):
    monkeypatch.delenv("MASBOOK_MODEL", raising=False)


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world
