"""The coordinator: it hands tasks to several workers at once and combines their results.

Whoever has work calls `execute`, or `submit` and later `result`. Workers are found through the registry: any agent with
the capability will do, and a `Worker` also rejects what it has no hands for. A task starts when all the workers that it
needs are free, in the order of submission; one that needs more than there are waits until they return, and holds up
nobody. Two seams: the `selection`, a function that says whom to ask first, and the aggregation (see `shares`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from ...errors import AgentOffline, InvalidValue, MasbookError, RequestTimeout, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import freeze
from ...runtime.registry import Registration
from ...runtime.waits import Wait
from .choice import SELECTIONS, Round, Selection, ranked
from .shares import AGGREGATIONS, Job, Part, Status, TaskOutcome, divide, function, rejected


class Coordinator(Agent):
    """Gives each task to as many workers as it needs, a part each, and combines the results.

    Nobody gets a part while it has another, or two parts of one task. A worker that crashes or stops loses its part to
    another, up to `max_losses` times for each part; what it says later changes nothing. Each `patience` virtual seconds
    it is asked how it is, and loses its part too if it does not answer, or has nothing in hand: a message was lost.
    `selection` is `least_loaded`, `random` or a function of your own; who failed at its last part is asked last.

        coordinator = world.spawn(Coordinator("coordinator"))
        outcome = world.run(coordinator.execute("measure", workers=3, aggregate="mean", timeout=20.0))
        outcome.status, outcome.value, outcome.results      # results by worker
    """

    service = True
    levels: tuple[str, ...] = ("normal",)  # the priorities that a task may have, the most urgent first

    def __init__(
        self, name: str, *, selection: str | Selection = "least_loaded", patience: float = 60.0, max_losses: int = 5
    ) -> None:
        super().__init__(name, concurrency=1000, capacity=1_000_000)  # it only waits for others
        self.selection: Selection = function("selection", selection, SELECTIONS)
        self.patience = require.positive("patience", patience)
        self.max_losses = require.whole("max_losses", max_losses, least=0)
        self._jobs: dict[str, Job] = {}
        self._unfinished: dict[Job, None] = {}  # those that have not ended, in the order of submission
        self._busy: dict[str, str] = {}  # what each worker is at, from when it is asked until it is back
        self._doubted: dict[str, None] = {}  # workers that failed at a part and have not been heard of since
        self._round: asyncio.Task[None] | None = None  # the next look at the tasks
        self._closed = False  # whether it takes no more of them

    async def on_start(self) -> None:
        """Hear of workers who come, or come back."""
        self.world.registry.watch(self._welcome)

    @capability
    async def submit(
        self,
        capability: str | list[str],
        inputs: dict[str, Any] | list[dict[str, Any]] | None = None,
        workers: int = 1,
        *,
        aggregate: Any = None,
        timeout: float | None = None,
        retries: int = 0,
        priority: str = "normal",
    ) -> str:
        """Take a task and return its id at once; InvalidValue for bad input, AgentOffline after a shutdown.

        It needs `workers` agents of the capability, or of each in a list. `inputs` go to every one, or a list has one
        for each. `aggregate` names one of AGGREGATIONS or is a function of the results in order; by default the value
        is all of them, or the only one. `timeout` is the deadline in virtual seconds from now; `retries` says how often
        an error is forgiven a part, and the part given to another.
        """
        world = self.world
        needed, each = divide(capability, inputs, workers)
        combine: Any = function("aggregate", aggregate, AGGREGATIONS)
        urgency = len(self.levels) - 1 - self.levels.index(require.one_of("priority", priority, self.levels))
        require.whole("retries", retries, least=0)
        if timeout is not None:
            require.positive("timeout", timeout)
        if self._closed or not self.online or self._error is not None:
            why = "it has been shut down" if self._closed else self.why_offline()
            raise AgentOffline(f"{self.name} takes no more tasks: {why}")
        asked = TaskOutcome(world.new_id("task"), needed, each, priority)
        job = Job(asked, combine, retries, self.now, world.loop.create_future())
        self._jobs[asked.task], self._unfinished[job] = job, None
        self._record("task_added", self.name, job, capability=", ".join(dict.fromkeys(needed)), priority=urgency)
        job.ends.append(self.when_gone(partial(self._abandon, job)))
        if timeout is not None:
            job.ends.append(world.loop.call_later(timeout, self._time_out, job, timeout).cancel)
        self._look()
        return asked.task

    @capability
    async def execute(
        self,
        capability: str | list[str],
        inputs: dict[str, Any] | list[dict[str, Any]] | None = None,
        workers: int = 1,
        *,
        aggregate: Any = None,
        timeout: float | None = None,
        retries: int = 0,
        priority: str = "normal",
    ) -> TaskOutcome:
        """Take a task as `submit` does and return how it ended; who gives up waiting cancels it."""
        options: dict[str, Any] = {"aggregate": aggregate, "timeout": timeout, "retries": retries, "priority": priority}
        job = self._job(await self.submit(capability, inputs, workers, **options))
        try:
            return await self._ended(job)
        except asyncio.CancelledError:
            self._conclude(job, "cancelled", "nobody waits for it any more")
            raise

    @capability(cost=0.1)
    async def result(self, task: str) -> TaskOutcome:
        """Return how a task ended, once it has; InvalidValue for an unknown one."""
        return await self._ended(self._job(task))

    @capability(cost=0.1)
    async def cancel(self, task: str) -> bool:
        """End a task and free its workers; return False if it had ended already. InvalidValue for an unknown one."""
        return self._conclude(self._job(task), "cancelled", "cancelled")

    @capability(cost=0.0)
    async def status(self, task: str | None = None) -> dict[str, Any]:
        """Return how far a task is, or, without one, how many tasks are at which stage and who is at what."""
        if task is not None:
            return dict(freeze(self._job(task).outcome(self.now)))
        stages = Counter(job.stage for job in self._jobs.values())
        return {**await super().status(), "tasks": dict(stages), "busy": dict(self._busy)}

    @capability
    async def shutdown(self, drain: bool = True, timeout: float | None = None) -> list[TaskOutcome]:
        """Take no more tasks, let those in hand end, and return the rest: nothing is lost.

        Without `drain`, tasks that have not started are returned at once. What is not done `timeout` virtual seconds
        from now is cancelled and returned too.
        """
        if timeout is not None:
            require.positive("timeout", timeout)
        self._closed = True
        self.when_gone(self._reopen)
        left, reason = list(self._unfinished), f"{self.name} is shut down"
        early = [job for job in left if job.stage == "waiting" and not drain]
        back = {job for job in early if self._conclude(job, "cancelled", reason)}
        try:
            async with asyncio.timeout(timeout):
                for job in left:
                    await self._ended(job)
        except TimeoutError:
            back |= {job for job in left if self._conclude(job, "cancelled", reason)}
        return [job.ended.result() for job in left if job in back]

    def _reopen(self) -> None:
        """Take tasks again when it lives again."""
        self._closed = False

    # Whom to give what

    def _welcome(self, entry: Registration) -> None:
        """Look at the waiting tasks again: somebody has come, or come back."""
        self._doubted.pop(entry.name, None)
        self._look()

    def _look(self) -> None:
        """Look at the waiting tasks, once, in this instant."""
        if self._unfinished and (self._round is None or self._round.done()):
            self._round = self.background(self._dispatch())

    def _offers(self) -> Iterable[tuple[Job, tuple[str, ...]]]:
        """Return the tasks in the order in which they are offered workers, each with the tags that those must have."""
        return [(job, ()) for job in self._unfinished]

    async def _dispatch(self) -> None:
        """Give parts to workers, as far as there are any."""
        rank = partial(ranked, self.selection, self.random, self._doubted)
        round, lacking = Round(self.world, self._busy, rank), dict[Job, str]()
        for job, tags in self._offers():
            for parts in job.unplaced():
                workers = await round.choose(job, parts, tags)
                if isinstance(workers, str):
                    lacking[job] = workers
                    continue
                for part, worker in zip(parts, workers, strict=True):
                    self._give(job, part, worker)
        for job in self._unfinished:
            self._announce(job, lacking.get(job) if job.unplaced() else None)

    def _announce(self, job: Job, lack: str | None) -> None:
        """Say what workers a task is waiting for, in the trace and to whoever asks why the world is stuck."""
        waits = self.world.waits
        if lack and job not in waits:
            self._record("task_waiting", self.name, job, reason=lack)
            waits[job] = Wait(self.name, f"workers: {job.asked.task} {lack}", None, self.now)
        elif not lack and job in waits:
            waits.end(job)

    # What becomes of a part

    def _give(self, job: Job, part: Part, worker: str) -> None:
        job.stage, part.worker, part.attempt = "running", worker, part.attempt + 1
        self._busy[worker] = job.asked.task
        self._record("task_started", worker, job, attempt=part.attempt)
        part.work = self.background(self._work(job, part, worker))
        part.work.add_done_callback(partial(self._release, worker))

    def _release(self, worker: str, *_: Any) -> None:
        """Take a worker back: once for each part that it was given, however that ended."""
        del self._busy[worker]
        self._look()

    async def _work(self, job: Job, part: Part, worker: str) -> None:
        """Have a worker do a part; if it rejects that, wait until it is free, while another does the part."""
        try:
            part.result = freeze(await self._ask(worker, part))
        except Exception as error:  # of whatever kind: it is the worker's answer
            self._fail(job, part, worker, error)
            if rejected(error):
                self._busy[worker] = "the work of others"
                self._look()
                with suppress(MasbookError):  # it is gone, or does not answer: the next part given to it will tell
                    await self.request(worker, "when_free", timeout=self.patience, on_timeout="cancel")
            return
        part.work = None
        self._doubted.pop(worker, None)
        self._record("task_part", worker, job, attempt=part.attempt)
        if all(part.worker and part.work is None for part in job.parts):
            self._conclude(job, *job.combined())

    async def _ask(self, worker: str, part: Part) -> Any:
        """Return what a worker answers; RequestTimeout if it does not say how it is, or has nothing in hand."""
        request = self.request(worker, part.capability, part.inputs, timeout=None, on_timeout="cancel")
        answer = self.world.loop.create_task(request, name=self.name)
        try:
            at_work = True
            while at_work and not answer.done():
                await asyncio.wait([answer], timeout=self.patience)
                at_work = answer.done() or await self._at_work(worker)
            if not answer.done():
                raise RequestTimeout(f"{worker} does not answer, or has no {part.capability!r} in hand")
            return answer.result()
        finally:
            answer.cancel()

    async def _at_work(self, worker: str) -> bool:
        """Return whether a worker says that it has something in hand."""
        with suppress(MasbookError):  # it does not answer
            status = await self.request(worker, "status", timeout=self.patience)
            return bool(status["state"] == "busy" or status["waiting"] > 0)
        return False

    def _fail(self, job: Job, part: Part, worker: str, error: Exception) -> None:
        """Let another do the part, or end the task: errors of the work are forgiven as ordered, rejections always."""
        part.worker = part.work = None
        if not rejected(error):
            self._doubted[worker] = None
            part.blame(error)
        again = part.losses <= self.max_losses and part.errors <= job.retries
        text, following = f"{type(error).__name__}: {describe(error)}", "another worker" if again else "failed"
        self._record("task_failed", worker, job, attempt=part.attempt, error=text, next=following)
        if not again:
            self._conclude(job, "failed", text)

    # What becomes of a task

    def _conclude(self, job: Job, status: Status, error: str | None = None, value: Any = None) -> bool:
        """End a task, once; stop those at work on it, and tell who waits. Return False if it had ended already."""
        if job.ended.done():
            return False
        self._announce(job, None)
        for end in job.ends + [part.work.cancel for part in job.parts if part.work is not None]:
            end()
        del self._unfinished[job]
        job.stage = status
        self._record("task_ended", self.name, job, status=status, reason=error)
        job.ended.set_result(job.outcome(self.now, error, value))
        return True

    def _time_out(self, job: Job, timeout: float) -> None:
        """End a task that took too long; say what it lacked, if it still waited for workers."""
        wait = self.world.waits.get(job)
        lack = "" if wait is None else f": it {wait.what.partition(f'{job.asked.task} ')[2]}"
        self._conclude(job, "timed_out", f"not done within {timeout:g} s{lack}")

    def _abandon(self, job: Job) -> None:
        """End a task: the coordinator itself has stopped or crashed."""
        self._conclude(job, "cancelled", f"{self.name} is gone: {self.why_offline()}")

    async def _ended(self, job: Job) -> TaskOutcome:
        """Return the outcome of a task, once it has ended."""
        await self.world.wait(asyncio.shield(job.ended), who=self.name, what=f"{job.asked.task} to end")
        return job.ended.result()

    def _job(self, task: str) -> Job:
        if not isinstance(task, str) or task not in self._jobs:
            raise InvalidValue(f"{self.name} knows no task {task!r}; give an id that `submit` has returned")
        return self._jobs[task]

    def _record(self, kind: str, who: str, job: Job, **facts: Any) -> None:
        self.world.trace.record(kind, who, workflow=self.name, task=job.asked.task, **facts)
