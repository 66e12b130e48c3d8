"""A workflow under way: which tasks are ready, which have ended, and what they gave.

The orchestrator calls it. Nothing here knows of agents or of time; the order comes from graphlib.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Any

from ..runtime.message import FrozenDict, freeze
from .plan import Outcome, Task, TaskOutcome, Workflow, references, root


class Job:
    """A task under way; `failures` is how often it was tried in vain, `holds` whether it has its resources."""

    __slots__ = (
        *("agent", "attempts", "ended", "error", "failures", "flow", "graph", "holds", "inputs", "needs"),
        *("refers", "started", "status", "task", "timer", "undone"),
    )

    def __init__(self, flow: Flow, task: Task, graph: TopologicalSorter[str]) -> None:
        self.flow, self.task, self.graph = flow, task, graph
        self.status = "pending"
        self.agent: str | None = None
        self.attempts = self.failures = 0
        self.started: float | None = None
        self.ended: float | None = None
        self.error: str | None = None
        self.undone: bool | None = None
        self.refers = [*references(task.inputs)] if task.inputs else None
        self.inputs: Mapping[str, Any] | None = None  # as they are sent, once that is known
        self.needs: dict[tuple[str, str], float] | None = None
        self.holds = False
        self.timer: Any = None  # of the next attempt, or of the end of a wait

    def begin(self, agent: str, now: float) -> float:
        """Count an attempt by an agent; return when it began."""
        self.status, self.agent = "running", agent
        self.attempts += 1
        self.started = now if self.started is None else self.started
        return now

    def outcome(self) -> TaskOutcome:
        """Return what became of it so far."""
        return TaskOutcome(self.status, self.agent, self.attempts, self.started, self.ended, self.error, self.undone)


class Flow:
    """One execution of a workflow; `status` is `running`, `paused`, `rolling_back`, or how it ended."""

    def __init__(self, name: str, workflow: Workflow, orchestrator: str, now: float, done: asyncio.Future[Outcome]):
        self.id, self.workflow, self.began, self.done = name, workflow, now, done
        self.status = "running"
        self.tasks: dict[str, Task] = {}
        self.jobs: dict[str, Job] = {}
        self.ready: list[tuple[float, int, Job]] = []
        self.open = 0  # tasks that have not ended
        self.busy = 0  # tasks that have one of the places for running tasks
        self.lanes: dict[asyncio.Task[None], None] = {}
        self.undo: list[Job] = []  # completed tasks with a compensation
        self.lost: dict[str, str] = {}  # what became of tasks that others cannot come after
        self.results: dict[str, Any] = {}
        self.shared: dict[str, Any] = dict(workflow.context)
        itself = FrozenDict(id=name, name=workflow.name, orchestrator=orchestrator)
        self.context = MappingProxyType(ChainMap(self.results, self.shared, {"workflow": itself}))
        self.outcome: Outcome | None = None
        self.verdict: tuple[str, str | None] = ("cancelled", None)  # how it will have ended when it is rolled back
        self.timer: Any = None
        self.call_off: Callable[[], Any] = bool  # no longer notice when the orchestrator is gone
        self._others: dict[str, list[TopologicalSorter[str]]] = {}  # graphs of tasks that were added later
        self._pushed = 0

    def add(self, tasks: Sequence[Task]) -> list[Job]:
        """Take in tasks and return those that are ready.

        They form a graph of their own: one that has begun to give out tasks takes no more.
        """
        new = {task.id for task in tasks}
        waited = {name for task in tasks for name in task.after if name in self.jobs and self.jobs[name].ended is None}
        graph = TopologicalSorter(
            {task.id: [name for name in task.after if name in new or name in waited] for task in tasks}
        )
        graph.prepare()
        for name in sorted(waited):
            self._others.setdefault(name, []).append(graph)
        for task in tasks:
            self.tasks[task.id], self.jobs[task.id] = task, Job(self, task, graph)
        self.open += len(tasks)
        return [self.jobs[name] for name in graph.get_ready() if name in new]

    @property
    def room(self) -> bool:
        """Whether one more task may run."""
        return self.status == "running" and self.busy < self.workflow.max_parallel

    def follow(self, job: Job) -> Iterator[Job]:
        """Yield the tasks that were only waiting for this one to end."""
        name = job.task.id
        for graph in (job.graph, *self._others.pop(name, ())):
            graph.done(name)
            for follower in graph.get_ready():
                yield self.jobs[follower]

    def push(self, job: Job) -> None:
        """Put a task among those that are ready: higher priority first, then first come."""
        job.status = "ready"
        self._pushed += 1
        heapq.heappush(self.ready, (-job.task.priority, self._pushed, job))

    def keep(self, job: Job, result: Any) -> None:
        """Keep the result of a completed task; its `context_updates`, if it has any, go into the context."""
        self.results[job.task.id] = result = freeze(result)
        if isinstance(result, FrozenDict) and isinstance(result.get("context_updates"), FrozenDict):
            self.shared.update(result["context_updates"])
        if job.task.compensation is not None:
            self.undo.append(job)

    def missing(self, job: Job) -> str | None:
        """Return which task, skipped by its own condition, this one needs the result of."""
        names = (root(path, self.jobs) for path in job.refers or ())
        return next((name for name in names if name is not None and self.jobs[name].status == "skipped"), None)

    def progress(self) -> dict[str, Any]:
        """Return the counts of tasks by state, the share that has ended, and which are running."""
        states = Counter(job.status for job in self.jobs.values())
        running = [name for name, job in self.jobs.items() if job.status == "running"]
        share = 1.0 - self.open / len(self.jobs) if self.jobs else 1.0
        facts = {"workflow": self.id, "name": self.workflow.name, "status": self.status, "tasks": len(self.jobs)}
        return {**facts, "states": dict(sorted(states.items())), "progress": share, "running": running}

    def conclude(self, status: str, detail: str | None, now: float) -> Outcome:
        """End the workflow and return its outcome."""
        self.status = status
        tasks = {name: job.outcome() for name, job in self.jobs.items()}
        self.outcome = Outcome(
            self.id,
            self.workflow.name,
            status,
            FrozenDict(self.results),
            tasks,
            FrozenDict(self.shared),
            self.began,
            now,
            detail,
        )
        return self.outcome
