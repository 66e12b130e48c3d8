"""Looking and measuring: the trace as tables, figures, live dashboards and experiments.

The names below are loaded when they are first used, so that what needs no widgets does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.lazy import loader

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
    "charts": "charts",
    "compare": "experiment",
    "data_path": "data",
    "frames": "frames",
    "load": "data",
    "quality": "quality",
    "records": "data",
    "sweep": "experiment",
}

__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
