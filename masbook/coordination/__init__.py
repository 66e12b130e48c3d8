"""Agents working together: workflows, conflicts, dispatch, hierarchy, shared state, synchronisation and events.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import Namespace, StateService
    from .conflict import Conflict, ConflictResolver, Negotiator, Participant, Resolution
    from .detection import ConflictDetector
    from .dispatch import Coordinator, Worker
    from .replication import ReplicatedStore
    from .sqlite import SQLiteStore
    from .state import Entry, MemoryStore, StateStore
    from .sync import Barrier, Lock, ReadWriteLock, Semaphore
    from .workflow import Orchestrator, Task, Workflow

_HOMES = {
    "Barrier": "sync",
    "Conflict": "conflict",
    "ConflictDetector": "detection",
    "ConflictResolver": "conflict",
    "Coordinator": "dispatch",
    "Entry": "state",
    "Lock": "sync",
    "MemoryStore": "state",
    "Namespace": "access",
    "Negotiator": "conflict",
    "Orchestrator": "workflow",
    "Participant": "conflict",
    "ReadWriteLock": "sync",
    "ReplicatedStore": "replication",
    "Resolution": "conflict",
    "SQLiteStore": "sqlite",
    "Semaphore": "sync",
    "StateService": "access",
    "StateStore": "state",
    "Task": "workflow",
    "Worker": "dispatch",
    "Workflow": "workflow",
}
__all__ = [
    "Barrier",
    "Conflict",
    "ConflictDetector",
    "ConflictResolver",
    "Coordinator",
    "Entry",
    "Lock",
    "MemoryStore",
    "Namespace",
    "Negotiator",
    "Orchestrator",
    "Participant",
    "ReadWriteLock",
    "ReplicatedStore",
    "Resolution",
    "SQLiteStore",
    "Semaphore",
    "StateService",
    "StateStore",
    "Task",
    "Worker",
    "Workflow",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
