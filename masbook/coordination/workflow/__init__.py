"""Workflows: tasks in order, done by whoever can, with retries, time-outs, resources and a way back.

In order of reading: `plan` says what a workflow is and refuses what cannot run; `flow` is one under way, and knows of
no agents; `staff` chooses who gets a task; `execution` goes from task to task; `orchestrator` has the operations.
"""

from .orchestrator import Orchestrator
from .plan import Outcome, Task, TaskRecord, Workflow

__all__ = ["Orchestrator", "Outcome", "Task", "TaskRecord", "Workflow"]
