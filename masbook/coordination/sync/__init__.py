"""Synchronisation between the agents of a world: locks, semaphores, read-write locks and barriers, found by name.

In order of reading: `line` is where agents wait, and how what they wait for changes hands; `locks` are lines that
differ in who may pass; `barrier` is a place where agents wait for each other.
"""

from .barrier import Barrier
from .line import Claim, Line
from .locks import Lock, ReadWriteLock, Semaphore

__all__ = ["Barrier", "Claim", "Line", "Lock", "ReadWriteLock", "Semaphore"]
