"""A workflow under way: which tasks are ready, which have ended, and who may have which resources.

The orchestrator calls it. Nothing here knows of agents, nor waits. graphlib has checked that the tasks can be put in an
order; each counts those it still comes after, because a sorter that has begun to give out tasks takes in no more.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...runtime.message import FrozenDict, freeze
from .plan import Outcome, Task, TaskRecord, Workflow, references

Key = tuple[str, str]  # a resource: the workflow that declares it, "" for the orchestrator, and its name


@dataclass(slots=True, eq=False)
class Job:
    """A task under way, `pending`, `ready`, `running` or `waiting` until it has ended."""

    flow: Flow
    task: Task
    inputs: Mapping[str, Any] | None  # as they are sent, once that is known
    behind: int = 0  # how many tasks that have not ended it comes after
    followers: list[Job] = field(default_factory=list)
    status: str = "pending"
    agent: str | None = None
    attempts: int = 0  # how often it was given to an agent
    failures: int = 0  # how often it was tried in vain
    started: float | None = None  # first given to an agent
    ended: float | None = None
    error: str | None = None
    undone: bool | None = None
    holds: Mapping[Key, float] | None = None
    timer: Any = None  # of the next attempt, or of the end of a wait

    def begin(self, agent: str, now: float) -> None:
        """Count an attempt by an agent."""
        self.status, self.agent = "running", agent
        self.attempts += 1
        if self.started is None:
            self.started = now

    def outcome(self) -> TaskRecord:
        """Return what has become of it."""
        return TaskRecord(self.status, self.agent, self.attempts, self.started, self.ended, self.error, self.undone)

    def needs(self) -> dict[Key, float]:
        """Return the resources that it needs."""
        own = self.flow.workflow.resources
        return {(self.flow.id if name in own else "", name): n for name, n in self.task.resources.items()}


class Flow:
    """One execution of a workflow, `running` or `paused`, then `rolling_back`, until it has ended."""

    def __init__(self, name: str, workflow: Workflow, orchestrator: str, now: float, done: asyncio.Future[Outcome]):
        self.id, self.workflow, self.began, self.done = name, workflow, now, done
        self.status = "running"
        self.verdict: tuple[str, str | None] = ("completed", None)  # how it has ended, or will when it is rolled back
        self.outcome: Outcome | None = None
        self.jobs: dict[str, Job] = {}
        self.ready: list[tuple[float, int, Job]] = []
        self.open = 0  # tasks that have not ended
        self.busy = 0  # tasks that run
        self.lanes: dict[asyncio.Task[None], None] = {}
        self.undo: list[tuple[Any, ...]] = []  # completed tasks, each with the capability that undoes it and its inputs
        self.lost: dict[str, str] = {}  # what became of tasks that nothing can come after
        self.results: dict[str, Any] = {}
        self.shared = dict(workflow.context)
        itself = {"workflow": FrozenDict(id=name, name=workflow.name, orchestrator=orchestrator)}
        self.context = MappingProxyType(ChainMap(itself, self.results, self.shared))
        self.ends: list[Any] = []  # what is called when it ends
        self._pushed = 0

    @property
    def room(self) -> bool:
        """Whether one more task may run."""
        return self.status == "running" and self.busy < self.workflow.max_parallel

    def add(self, tasks: Sequence[Task]) -> list[Job]:
        """Take in tasks and return those that are ready."""
        jobs = self.jobs
        for task in tasks:
            simple = task.condition is None and not (task.inputs and any(references(task.inputs)))
            jobs[task.id] = Job(self, task, task.inputs if simple else None)
        for task in tasks:
            job = jobs[task.id]
            for name in task.after:
                if (before := jobs[name]).ended is None:
                    job.behind += 1
                    before.followers.append(job)
        self.open += len(tasks)
        return [job for task in tasks if not (job := jobs[task.id]).behind]

    def follow(self, job: Job) -> list[Job]:
        """Return the tasks that were only waiting for this one to end."""
        found = []
        for follower in job.followers:
            follower.behind -= 1
            if not follower.behind:
                found.append(follower)
        return found

    def push(self, job: Job) -> None:
        """Put a task among those that are ready: higher priority first, then first come."""
        job.status = "ready"
        self._pushed += 1
        heapq.heappush(self.ready, (-job.task.priority, self._pushed, job))

    def keep(self, job: Job, result: Any) -> None:
        """Keep the result of a task; if it has `context_updates`, they go into the shared context."""
        self.results[job.task.id] = result = freeze(result)
        if isinstance(result, FrozenDict) and isinstance(updates := result.get("context_updates"), FrozenDict):
            self.shared.update(updates)
        if job.task.compensation is not None:
            self.undo.append((job, *job.task.compensation))

    def missing(self, job: Job) -> str | None:
        """Return a task that was skipped by a condition, and whose result this one needs."""
        names = (path.partition(".")[0] for path in references(job.task.inputs))
        return next((name for name in names if name in self.jobs and self.jobs[name].status == "skipped"), None)

    def fitting(self, job: Job, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return what fits the schema of the inputs of a task and its `result`."""
        known = {**(job.inputs or {}), "result": self.results[job.task.id]}
        takes = known if schema.get("additionalProperties") else schema.get("properties", {})
        return {name: value for name, value in known.items() if name in takes}

    def progress(self) -> dict[str, Any]:
        """Return how far it is."""
        states = Counter(job.status for job in self.jobs.values())
        running = [name for name, job in self.jobs.items() if job.status == "running"]
        share = 1.0 - self.open / len(self.jobs) if self.jobs else 1.0
        facts = {"workflow": self.id, "name": self.workflow.name, "status": self.status, "total": len(self.jobs)}
        return {**facts, "tasks": dict(sorted(states.items())), "progress": share, "running": running}

    def conclude(self, now: float) -> None:
        """End it, and hand its outcome to who waits."""
        self.status, detail = self.verdict
        results, context = FrozenDict(self.results), FrozenDict(self.shared)
        tasks = {name: job.outcome() for name, job in self.jobs.items()}
        name, status = self.workflow.name, self.status
        self.outcome = Outcome(self.id, name, status, results, tasks, context, self.began, now, detail)
        for end in self.ends:
            end()
        if not self.done.done():
            self.done.set_result(self.outcome)


class Resources:
    """Amounts that tasks hold while they run.

    A task gets all that it needs at once, so that none waits while it holds. Who has waited longer, or has priority,
    has what is free kept for it, so that a task that needs much is not overtaken for ever.
    """

    def __init__(self) -> None:
        self.free: dict[Key, float] = {}
        self.lines: dict[Any, list[tuple[float, int, Job]]] = {}  # those that wait, by what they need
        self._joined = 0

    def queue(self, job: Job) -> None:
        """Let a task wait in line."""
        self._joined += 1
        line = self.lines.setdefault((job.flow, *sorted(job.task.resources)), [])
        heapq.heappush(line, (-job.task.priority, self._joined, job))

    def grant(self) -> Iterator[Job]:
        """Give the tasks in line what they need, as far as it goes, and yield those that may run."""
        heads = [(line[0], key) for key, line in self.lines.items()]
        heapq.heapify(heads)
        reserved: Counter[Key] = Counter()
        while heads:
            (_, _, job), key = heapq.heappop(heads)
            needs = job.needs()
            if not job.flow.room or any(self.free[k] - reserved[k] < need - 1e-9 for k, need in needs.items()):
                if job.flow.status == "running":
                    reserved.update(needs)
                continue
            job.holds = needs
            self.free.update({k: self.free[k] - need for k, need in needs.items()})
            line = self.lines[key]
            heapq.heappop(line)
            if line:
                heapq.heappush(heads, (line[0], key))
            else:
                del self.lines[key]
            yield job

    def release(self, job: Job) -> None:
        """Take back what a task holds."""
        for key, amount in (job.holds or {}).items():
            self.free[key] += amount
        job.holds = None
