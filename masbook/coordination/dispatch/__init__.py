"""Dispatch: tasks that need several workers at once, and queues by priority.

In the order of reading: `worker`, who rejects what it has no hands for; `shares`, a task, its parts, and how their
results are combined; `choice`, who gets which part; `coordinator`, which brings them together; `pools`, a queue and
workers for each priority.
"""

from .coordinator import Coordinator
from .pools import PriorityQueues
from .shares import TaskOutcome
from .worker import Worker

__all__ = ["Coordinator", "PriorityQueues", "TaskOutcome", "Worker"]
