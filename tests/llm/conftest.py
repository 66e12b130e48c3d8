"""Real model requests are blocked: a test of a provider's format allows them for its loopback server alone."""

from __future__ import annotations

import pytest
from pydantic_ai import models

from masbook import World


@pytest.fixture(autouse=True)
def no_real_requests(monkeypatch):
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", False)
    monkeypatch.delenv("MASBOOK_MODEL", raising=False)


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world
