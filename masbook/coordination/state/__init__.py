"""Shared state: values with versions, which many agents read and write without losing each other's work.

In order of reading: `store` says what every store does, and has the one in memory; `watch` tells what changes; `access`
has the ways to a store, a part of it with rights and an agent that answers for it; `sqlite` is a store in a file;
`replication` is one on several agents, and `replica` what each of those keeps and how they are asked.
"""

from .access import Namespace, StateService
from .replication import ReplicatedStore, last_writer, merged, siblings
from .sqlite import SQLiteStore
from .store import Entry, MemoryStore, StateStore
from .watch import Watch

__all__ = [
    "Entry",
    "MemoryStore",
    "Namespace",
    "ReplicatedStore",
    "SQLiteStore",
    "StateService",
    "StateStore",
    "Watch",
    "last_writer",
    "merged",
    "siblings",
]
