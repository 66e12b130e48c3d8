"""Agents working together: workflows, conflicts, dispatch, hierarchy, shared state, synchronisation and events.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.lazy import loader

if TYPE_CHECKING:
    from .conflict import Conflict, ConflictDetector, ConflictResolver, Negotiator, Participant, Resolution
    from .dispatch import Coordinator, PriorityQueues, TaskOutcome, Worker
    from .events import DomainEvent, EventBus, EventType, ReactiveCoordinator, emit
    from .hierarchy import Member, Role, Skill, TaskBoard, TeamTask
    from .state import (
        Entry,
        MemoryStore,
        Namespace,
        ReplicatedStore,
        SQLiteStore,
        StateService,
        StateStore,
        last_writer,
        merged,
        siblings,
    )
    from .sync import Barrier, Lock, ReadWriteLock, Semaphore
    from .workflow import Orchestrator, Outcome, Task, Workflow

_HOMES = {
    "Barrier": "sync",
    "Conflict": "conflict",
    "ConflictDetector": "conflict",
    "ConflictResolver": "conflict",
    "Coordinator": "dispatch",
    "DomainEvent": "events",
    "Entry": "state",
    "EventBus": "events",
    "EventType": "events",
    "Lock": "sync",
    "Member": "hierarchy",
    "MemoryStore": "state",
    "Namespace": "state",
    "Negotiator": "conflict",
    "Orchestrator": "workflow",
    "Outcome": "workflow",
    "Participant": "conflict",
    "PriorityQueues": "dispatch",
    "ReactiveCoordinator": "events",
    "ReadWriteLock": "sync",
    "ReplicatedStore": "state",
    "Resolution": "conflict",
    "Role": "hierarchy",
    "SQLiteStore": "state",
    "Semaphore": "sync",
    "Skill": "hierarchy",
    "StateService": "state",
    "StateStore": "state",
    "Task": "workflow",
    "TaskBoard": "hierarchy",
    "TaskOutcome": "dispatch",
    "TeamTask": "hierarchy",
    "Worker": "dispatch",
    "Workflow": "workflow",
    "emit": "events",
    "last_writer": "state",
    "merged": "state",
    "siblings": "state",
}
__all__ = [
    "Barrier",
    "Conflict",
    "ConflictDetector",
    "ConflictResolver",
    "Coordinator",
    "DomainEvent",
    "Entry",
    "EventBus",
    "EventType",
    "Lock",
    "Member",
    "MemoryStore",
    "Namespace",
    "Negotiator",
    "Orchestrator",
    "Outcome",
    "Participant",
    "PriorityQueues",
    "ReactiveCoordinator",
    "ReadWriteLock",
    "ReplicatedStore",
    "Resolution",
    "Role",
    "SQLiteStore",
    "Semaphore",
    "Skill",
    "StateService",
    "StateStore",
    "Task",
    "TaskBoard",
    "TaskOutcome",
    "TeamTask",
    "Worker",
    "Workflow",
    "emit",
    "last_writer",
    "merged",
    "siblings",
]

__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
