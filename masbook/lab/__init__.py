"""Looking and measuring: the trace as tables, figures, live dashboards and experiments.

The names below are loaded when they are first used, so that what needs no widgets does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import charts, frames, quality
    from .dashboard import Dashboard
    from .data import DataProcessor, data_path, load, records
    from .desk import Desk
    from .dialogue import Transcript
    from .experiment import compare, sweep

__all__ = [
    "Dashboard",
    "DataProcessor",
    "Desk",
    "Transcript",
    "charts",
    "compare",
    "data_path",
    "frames",
    "load",
    "quality",
    "records",
    "sweep",
]

_HOMES = {
    "Dashboard": "dashboard",
    "DataProcessor": "data",
    "Desk": "desk",
    "Transcript": "dialogue",
    "compare": "experiment",
    "data_path": "data",
    "load": "data",
    "records": "data",
    "sweep": "experiment",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_HOMES.get(name, name)}", __name__)
    value = globals()[name] = getattr(module, name) if name in _HOMES else module
    return value


def __dir__() -> list[str]:
    return __all__
