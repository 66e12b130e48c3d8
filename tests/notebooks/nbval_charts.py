"""The pytest plugin that makes nbval compare charts too; pyproject.toml loads it.

nbval leaves `image/png` and `image/jpeg` out of its comparison, so that a changed chart would pass.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


def settle_environment() -> None:
    """Give kernels started from now on the surroundings the committed outputs were made in."""
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ.pop("MASBOOK_MODEL", None)  # chapters choose their models themselves
    os.environ.pop("MPLBACKEND", None)  # ipykernel chooses the inline backend only where nothing else is chosen


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, Any, Any]:
    """Take the images out of what nbval does not compare."""
    collectors = yield
    if file_path.suffix == ".ipynb":
        settle_environment()
    for collector in collectors:
        if hasattr(collector, "skip_compare"):
            collector.skip_compare = tuple(key for key in collector.skip_compare if not key.startswith("image/"))
    return collectors
