"""Dispatch: a coordinator hands tasks to several workers at once and combines their results.

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

from ..errors import AgentCrashed, AgentOffline, InvalidValue, MasbookError, RequestTimeout, WorkerBusy, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability, on
from ..runtime.message import Message, freeze
from .choice import SELECTIONS, Round, Selection, ranked
from .shares import Job, Part, Status, TaskOutcome, combination, divide
from .worker import Worker as Worker


class Coordinator(Agent):
    """Gives each task to as many workers as it needs, a part each, and combines the results.

    Nobody gets a part while it has another, or two parts of one task. A worker that crashes or stops loses its part to
    another, up to `max_losses` times for each part; what it says later changes nothing. Each `patience` virtual seconds
    it is asked how it is, and loses its part too if it does not answer, or has nothing in hand: a message was lost.
    `selection` is `least_loaded`, `random` or a function of your own.

        coordinator = world.spawn(Coordinator("coordinator"))
        outcome = world.run(coordinator.execute("measure", workers=3, aggregate="mean", timeout=20.0))
        outcome.status, outcome.value, outcome.results      # results by worker
    """

    service = True
    levels: tuple[str, ...] = ("normal",)  # the priorities that a task may have, the most urgent first
    remembered = 10_000  # how many tasks that have ended `result` and `status` still know

    def __init__(
        self,
        name: str,
        *,
        selection: str | Selection = "least_loaded",
        patience: float = 60.0,
        max_losses: int = 5,
    ) -> None:
        super().__init__(name, concurrency=1000, capacity=1_000_000)  # it only waits for others
        if not callable(selection):
            selection = SELECTIONS[require.one_of("selection", selection, SELECTIONS)]
        self.selection: Selection = selection
        self.patience = require.positive("patience", patience)
        self.max_losses = require.whole("max_losses", max_losses, least=0)
        self._jobs: dict[str, Job] = {}  # those that have not ended, by task, in the order of submission
        self._outcomes: dict[str, TaskOutcome] = {}  # of those that have
        self._busy: dict[str, str] = {}  # what each worker is at, from when it is asked until it is back
        self._silent: dict[str, None] = {}  # workers that lost a part and have not been heard of since
        self._due = self._closed = False  # whether a look at the tasks is due; whether it takes no more of them

    async def on_start(self) -> None:
        """End what is in hand when the coordinator stops or crashes."""
        self._due = self._closed = False
        self.when_gone(self._abandon)

    # Operations

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
        """Take a task and return its id at once; InvalidValue for bad input.

        It needs `workers` agents of the capability, or of each in a list. `inputs` go to every one, or a list has one
        for each. `aggregate` names one of AGGREGATIONS or is a function of the results in order; by default the value
        is all of them, or the only one. `timeout` is the deadline in virtual seconds from now; `retries` says how often
        an error is forgiven a part, and the part given to another.
        """
        if self._closed:
            raise AgentOffline(f"{self.name} takes no more tasks: it has been shut down, or is gone; ask another")
        needed, each = divide(capability, inputs, workers)
        combine, retries = combination(aggregate), require.whole("retries", retries, least=0)
        level = self.levels.index(require.one_of("priority", priority, self.levels))
        if timeout is not None:
            require.positive("timeout", timeout)
        asked = TaskOutcome(self.world.new_id("task"), needed, each, priority)
        job = Job(asked, combine, retries, self.now, self.world.loop.create_future())
        self._jobs[asked.task] = job
        named = ", ".join(dict.fromkeys(needed))
        self._record("task_added", self.name, job, capability=named, priority=len(self.levels) - 1 - level)
        if timeout is not None:
            late = partial(self._conclude, job, "timed_out", f"not done within {timeout:g} s")
            job.timer = self.world.loop.call_later(timeout, late)
        self._look()
        return asked.task

    @capability
    async def execute(
        self, capability: str | list[str], inputs: Any = None, workers: int = 1, **options: Any
    ) -> TaskOutcome:
        """Take a task as `submit` does and return how it ended; who gives up waiting cancels it."""
        task = await self.submit(capability, inputs, workers, **options)
        try:
            outcome: TaskOutcome = await self.result(task)
            return outcome
        except asyncio.CancelledError:
            self._conclude(self._jobs.get(task), "cancelled", "nobody waits for it any more")
            raise

    @capability(cost=0.1)
    async def result(self, task: str) -> TaskOutcome:
        """Return how a task ended, once it has; InvalidValue for an unknown one."""
        job = self._job(task)
        if job is not None:
            await self.world.wait(asyncio.shield(job.ended), who=self.name, what=f"{task} to end")
        return self._outcomes[task]

    @capability(cost=0.1)
    async def cancel(self, task: str) -> bool:
        """End a task and free its workers; return False if it had ended already. InvalidValue for an unknown one."""
        return self._conclude(self._job(task), "cancelled", "cancelled")

    @capability(cost=0.0)
    async def status(self, task: str | None = None) -> dict[str, Any]:
        """Return how far a task is, or, without one, how many tasks are at which stage and who is at what."""
        if task is not None:
            job = self._job(task)
            known = self._outcomes[task] if job is None else job.outcome(self.now, job.stage)
            return dict(freeze(known))
        stages = Counter([job.stage for job in self._jobs.values()] + [end.status for end in self._outcomes.values()])
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
        left, reason = list(self._jobs.values()), f"{self.name} is shut down"
        early = () if drain else [job for job in left if job.stage == "waiting"]
        back = {job for job in early if self._conclude(job, "cancelled", reason)}
        try:
            async with asyncio.timeout(timeout):
                for job in left:
                    await self.world.wait(asyncio.shield(job.ended), who=self.name, what=f"{job.asked.task} to end")
        except TimeoutError:
            back |= {job for job in left if self._conclude(job, "cancelled", reason)}
        return [job.ended.result() for job in left if job in back]

    # Whom to give what

    @on("agent.registered")
    @on("agent.health")
    async def look_again(self, message: Message) -> None:
        """Look at the waiting tasks again: somebody has come, or come back."""
        self._silent.pop(message.content.get("agent", ""), None)
        self._look()

    def _look(self) -> None:
        """Look at the waiting tasks, once, in this instant."""
        if self._jobs and not self._due:
            self._due = True
            self.background(self._dispatch())

    def _offers(self) -> Iterable[tuple[Job, tuple[str, ...]]]:
        """Return the tasks in the order in which they are offered workers, each with the tags that those must have."""
        return [(job, ()) for job in self._jobs.values()]

    async def _dispatch(self) -> None:
        """Give parts to workers, as far as there are any."""
        self._due, lacking = False, dict[Job, str]()
        rank = partial(ranked, self.selection, self.random, self._silent)
        round = Round(self.world.registry, self._busy, rank)
        for job, tags in self._offers():
            for parts in job.unplaced():
                workers = await round.choose(job, parts, tags)
                if isinstance(workers, str):
                    lacking[job] = workers
                    continue
                for part, worker in zip(parts, workers, strict=True):
                    self._give(job, part, worker)
        for job in self._jobs.values():
            self._announce(job, lacking.get(job) if job.unplaced() else None)

    def _announce(self, job: Job, lack: str | None) -> None:
        """Say what workers a task is waiting for, in the trace and to whoever asks why the world is stuck."""
        if lack and job.lacking is None:
            self._record("task_waiting", self.name, job, reason=lack)
            never, what = self.world.loop.create_future(), f"workers: {job.asked.task} {lack}"
            job.lacking = self.background(self.world.wait(never, who=self.name, what=what))
        elif not lack and job.lacking is not None:
            job.lacking.cancel()
            job.lacking = None

    # What becomes of a part

    def _give(self, job: Job, part: Part, worker: str) -> None:
        job.stage, part.worker, part.attempt = "running", worker, part.attempt + 1
        self._busy[worker] = job.asked.task
        self._record("task_started", worker, job, attempt=part.attempt)
        part.asking = self.background(self._ask(part, worker))
        watch = self.background(self._watch(part.asking, worker))
        part.asking.add_done_callback(lambda asking: watch.cancel())
        part.asking.add_done_callback(partial(self._back, job, part, worker))

    async def _ask(self, part: Part, worker: str) -> Any:
        """Return what the worker answers, or the error."""
        try:
            return freeze(await self.request(worker, part.capability, part.inputs, timeout=None, on_timeout="cancel"))
        except Exception as error:  # of whatever kind: it is the worker's answer
            return error

    async def _watch(self, asking: asyncio.Task[Any], worker: str) -> None:
        """Stop waiting for a worker that does not say how it is, or has nothing in hand."""
        with suppress(MasbookError):
            busy = True
            while busy:
                await self.sleep(self.patience)
                status = await self.request(worker, "status", timeout=self.patience)
                busy = status["state"] == "busy" or status["waiting"] > 0
        asking.cancel()

    def _back(self, job: Job, part: Part, worker: str, asking: asyncio.Task[Any]) -> None:
        """Take a worker back, exactly once for each part given; and its answer, unless the task has ended."""
        self._release(worker)
        if job.ended.done():
            return
        part.asking = None
        lost = RequestTimeout(f"{worker} does not answer, or has no {part.capability!r} in hand")
        answer = lost if asking.cancelled() else asking.result()
        self._silent.pop(worker, None)
        if isinstance(answer, Exception):
            part.worker = None
            return self._fail(job, part, worker, answer)
        part.result = answer
        self._record("task_part", worker, job, attempt=part.attempt)
        if all(part.worker and part.asking is None for part in job.parts):
            self._conclude(job, *job.combined())

    def _release(self, worker: str, *_: Any) -> None:
        del self._busy[worker]
        self._look()

    def _fail(self, job: Job, part: Part, worker: str, error: Exception) -> None:
        """Let another do the part, or end the task: errors are forgiven as ordered, rejections always."""
        if isinstance(error, WorkerBusy) and not hasattr(error, "__notes__"):  # not raised by the work itself
            self._busy[worker] = "the work of others"
            self.background(self._until_free(worker)).add_done_callback(partial(self._release, worker))
        else:
            part.blame(error)
            job.failed[worker] = None
        if isinstance(error, (RequestTimeout, AgentCrashed)):
            self._silent[worker] = None
        again = part.losses <= self.max_losses and part.errors <= job.retries
        text, following = f"{type(error).__name__}: {describe(error)}", "another worker" if again else "failed"
        self._record("task_failed", worker, job, attempt=part.attempt, error=text, next=following)
        if not again:
            self._conclude(job, "failed", text)

    async def _until_free(self, worker: str) -> None:
        """Wait until a worker that rejected a part has time."""
        with suppress(MasbookError):  # it is gone, or does not answer: the next part that it is given will tell
            await self.request(worker, "when_free", timeout=self.patience, on_timeout="cancel")

    # What becomes of a task

    def _conclude(self, job: Job | None, status: Status, error: str | None = None, value: Any = None) -> bool:
        """End a task, once; stop those at work on it, and tell who waits. Return False if it had ended already."""
        if job is None or job.ended.done():
            return False
        task = job.asked.task
        del self._jobs[task]
        self._announce(job, None)
        for pending in (job.timer, *(part.asking for part in job.parts)):
            if pending is not None:
                pending.cancel()
        self._outcomes[task] = outcome = job.outcome(self.now, status, error, value)
        if len(self._outcomes) > self.remembered:
            del self._outcomes[next(iter(self._outcomes))]
        self._record("task_ended", self.name, job, status=status, reason=error)
        job.ended.set_result(outcome)
        return True

    def _abandon(self) -> None:
        """End every task: the coordinator itself has stopped or crashed."""
        self._due = self._closed = True
        for job in list(self._jobs.values()):
            self._conclude(job, "cancelled", f"{self.name} is gone: {self.why_offline()}")

    def _job(self, task: str) -> Job | None:
        """Return a task that has not ended, None for one that has; InvalidValue for an unknown one."""
        if task not in self._jobs and task not in self._outcomes:
            raise InvalidValue(f"{self.name} knows no task {task!r}; give an id that `submit` has returned")
        return self._jobs.get(task)

    def _record(self, kind: str, who: str, job: Job, **facts: Any) -> None:
        self.world.trace.record(kind, who, workflow=self.name, task=job.asked.task, **facts)
