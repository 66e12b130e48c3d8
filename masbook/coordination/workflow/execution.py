"""From task to task: the layer of the orchestrator that starts tasks, and sees to what they come to.

A workflow runs in lanes, at most `max_parallel` of them, each of which takes one ready task after the other. Waiting
tasks occupy none: for resources, for the next attempt, for somebody who can do them.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect

from ...errors import AgentCrashed, AgentOffline, InvalidInput, InvalidValue, Refused, RequestTimeout, describe
from ...runtime.registry import Registration
from ...runtime.waits import Wait
from .flow import Flow, Job, Resources
from .plan import resolve
from .staff import Staff

LASTING = (InvalidInput, InvalidValue, Refused)  # errors that no further attempt mends
RETRIES = 3  # at least so many under on_failure="retry"


class Execution(Staff):
    """The tasks of all workflows under way."""

    def __init__(self, name: str, *, concurrency: int) -> None:
        super().__init__(name, concurrency=concurrency)
        self._resources = Resources()
        self._parked: dict[str, dict[Job, None]] = {}  # tasks that nobody can do at present, by capability

    # From task to task

    def _fill(self, flow: Flow) -> None:
        """Start as many tasks as there is room for."""
        while (job := self._next(flow)) is not None:
            self._run(job)

    def _next(self, flow: Flow) -> Job | None:
        """Return the next task that may run; one that needs resources stands in line for them instead."""
        while flow.ready and flow.room:
            job = heapq.heappop(flow.ready)[2]
            if not job.task.resources:
                flow.busy += 1
                return job
            self._resources.queue(job)
            self._admit()
            if job.holds is None:
                self._hold_up(job, f"resources: {', '.join(job.task.resources)}")
        return None

    def _admit(self) -> None:
        """Start the tasks whose resources have become free."""
        for job in self._resources.grant() if self._resources.lines else ():
            job.flow.busy += 1
            self._run(job)

    def _run(self, job: Job) -> None:
        lane = self.background(self._lane(job))
        job.flow.lanes[lane] = None
        lane.add_done_callback(job.flow.lanes.pop)

    async def _lane(self, first: Job) -> None:
        """Run one task after the other, as long as there are any."""
        job: Job | None = first
        flow = first.flow
        while job is not None:
            try:
                await self._work(job)
            except (Exception, asyncio.CancelledError) as error:
                self._fail(job, error)
            flow.busy -= 1
            self._admit()
            job = self._next(flow)
            if flow.ready:
                self._fill(flow)

    async def _work(self, job: Job) -> None:
        """Give a task to one agent after the other, until one has answered; let it wait if there is nobody."""
        flow, task, world = job.flow, job.task, self.world
        if job.inputs is None and (reason := await self._prepare_inputs(job)) is not None:
            return self._settle(job, "skipped", reason)
        while job.ended is None and (agent := await self.choose(task.capability)) is not None:
            if self._present(agent) is None:  # asking again would get the same answer, for ever
                raise AgentOffline(f"choose returned {agent!r}: return the name of an agent that runs, or None")
            now = world.clock()
            job.begin(agent, now)
            world.trace.append((now, "task_started", agent, flow.id, task.id, job.attempts))
            self._give(agent, 1)
            try:
                result = await self.request(
                    agent,
                    task.capability,
                    job.inputs,
                    timeout=task.timeout,
                    priority=task.priority,
                    on_timeout="cancel",
                )
                flow.keep(job, result)
                return self._settle(job, "completed", None, agent)
            except (AgentCrashed, AgentOffline) as error:
                if _raised_by(agent, error):  # gone is somebody whom it has asked
                    raise
                self._note_failure(job, error, "reassign")
            finally:
                self._give(agent, -1)
        if job.ended is None:
            self._park(job)

    async def _prepare_inputs(self, job: Job) -> str | None:
        """Work out what a task is to be given; return why it is to be skipped, if it is."""
        flow, condition = job.flow, job.task.condition
        if condition is not None:
            wanted = condition(flow.context)
            if not (await wanted if inspect.isawaitable(wanted) else wanted):
                return "its condition does not hold"
        if (missing := flow.missing(job)) is not None:
            return f"it needs the result of {missing!r}, which was skipped"
        job.inputs = resolve(job.task.inputs, flow.context)
        return None

    def _fail(self, job: Job, error: BaseException) -> None:
        """Try a task again later, or end it, unless it has ended: its lane may have been cancelled for that."""
        flow, task = job.flow, job.task
        if job.ended is not None:
            return None
        asked = job.status == "running" and _raised_by(str(job.agent), error)
        retries = max(task.retries, RETRIES) if flow.workflow.on_failure == "retry" else task.retries
        again = job.failures < retries and not isinstance(error, LASTING)
        text, agent = self._note_failure(job, error, "retry" if again else "none")
        job.failures += 1
        if again:
            seconds = task.backoff * 2.0 ** min(job.failures - 1, 60)
            job.timer = self.world.loop.call_later(seconds, self._take_up, job)
            return self._hold_up(job, f"another attempt in {seconds:g} s")
        status = "timed_out" if isinstance(error, RequestTimeout) and not asked else "failed"
        if flow.workflow.on_failure == "continue":
            return self._settle(job, status, text, agent)
        self._end(job, status, text, agent)
        self._finish(flow, "failed", f"{task.id}: {text}")

    def _note_failure(self, job: Job, error: BaseException, onward: str) -> tuple[str, str]:
        agent = job.agent if job.agent is not None and job.status == "running" else self.name
        text, name = f"{type(error).__name__}: {describe(error)}", job.task.id
        facts = {"workflow": job.flow.id, "attempt": job.attempts, "error": text, "next": onward}
        self.world.trace.record("task_failed", agent, task=name, **facts)
        return text, agent

    def _hold_up(self, job: Job, reason: str) -> None:
        """Let a task wait, without holding anything."""
        job.status = "waiting"
        self._resources.release(job)
        self.world.trace.record("task_waiting", self.name, workflow=job.flow.id, task=job.task.id, reason=reason)

    def _park(self, job: Job) -> None:
        """Let a task wait for somebody who can do it."""
        task = job.task
        self._hold_up(job, f"nobody can {task.capability!r} at present")
        self._parked.setdefault(task.capability, {})[job] = None
        what = f"somebody who can {task.capability!r}, for {task.id!r}"
        self.world.waits[job] = Wait(self.name, what, None, self.now)
        if task.timeout is not None:
            job.timer = self.world.loop.call_later(task.timeout, self._give_up, job)

    def _give_up(self, job: Job) -> None:
        """Fail a task that has waited too long for somebody who can do it."""
        self._wake(job)
        self._fail(job, RequestTimeout(f"nobody could {job.task.capability!r} within {job.task.timeout:g} s"))
        self._fill(job.flow)

    def _wake(self, job: Job) -> None:
        """End the wait of a task, if it waits."""
        if job.timer is not None:
            job.timer.cancel()
        if job in self.world.waits:
            self.world.waits.end(job)
            del self._parked[job.task.capability][job]

    def _take_up(self, job: Job) -> None:
        """Make a task ready again after a wait."""
        self._wake(job)
        job.flow.push(job)
        self._fill(job.flow)

    def _arrived(self, entry: Registration) -> None:
        """Take up the tasks that an agent which has just come can do."""
        self._forget()
        for offer in entry.capabilities:
            for job in list(self._parked.get(offer, ())):
                self._take_up(job)

    def _settle(self, job: Job, status: str, reason: str | None = None, who: str | None = None) -> None:
        """End a task and see to those behind it; one that has ended stays as it is."""
        if job.ended is None:
            if status in ("failed", "timed_out"):
                job.flow.lost[job.task.id] = status
            self._end(job, status, reason, who)
            self._unlock(job.flow, job.flow.follow(job))

    def _unlock(self, flow: Flow, jobs: list[Job]) -> None:
        """Make tasks ready that wait for no other any more, but skip those behind one that was lost."""
        for job in jobs:  # which grows on the way
            cause = next((name for name in job.task.after if name in flow.lost), None) if flow.lost else None
            if cause is None:
                flow.push(job)
            else:
                self._end(job, "skipped", f"{cause!r} {flow.lost[cause]}")
                flow.lost[job.task.id] = "was skipped"
                jobs.extend(flow.follow(job))
        if not flow.open:
            self._finish(flow, "completed")

    def _end(self, job: Job, status: str, reason: str | None = None, who: str | None = None) -> None:
        """End a task for good."""
        if job.timer is not None or job.status == "waiting":
            self._wake(job)
        if job.holds is not None:
            self._resources.release(job)
        flow, world = job.flow, self.world
        job.status, job.ended, job.error = status, world.clock(), reason
        flow.open -= 1
        world.trace.append((job.ended, "task_ended", who or self.name, flow.id, job.task.id, status, reason))

    # The end of a workflow

    def _finish(self, flow: Flow, status: str, detail: str | None = None) -> bool:
        """End a workflow: cancel what has not ended, and roll back unless it completed; False if it has ended."""
        if flow.status not in ("running", "paused"):
            return False
        flow.status, flow.verdict = "rolling_back", (status, detail)
        self._drop(flow, detail)
        if flow.undo and status != "completed":
            self._note(flow)
            self.background(self._roll_back(flow))
        else:
            self._conclude(flow)
        return True

    def _drop(self, flow: Flow, reason: str | None) -> None:
        """Cancel the tasks that have not ended."""
        current = asyncio.current_task(self.world.loop)
        for lane in flow.lanes:
            if lane is not current:
                lane.cancel()
        for job in flow.jobs.values() if flow.open else ():
            if job.ended is None:
                self._end(job, "cancelled", reason)
        lines = self._resources.lines
        self._resources.lines = {key: line for key, line in lines.items() if key[0] is not flow}
        self._admit()

    def _conclude(self, flow: Flow) -> None:
        flow.conclude(self.now)
        self._note(flow)

    def _abandon(self, flow: Flow) -> None:
        """End a workflow as it stands: the orchestrator is gone."""
        how = f"{self.name} {'crashed' if self.state == 'error' else 'has stopped'}"
        flow.done.set_exception((AgentCrashed if self.state == "error" else AgentOffline)(how))
        flow.done.exception()  # it is not lost, though perhaps nobody waits for it
        if flow.status != "rolling_back":
            flow.status, flow.verdict = "rolling_back", ("cancelled", how)
        self._drop(flow, how)
        self._conclude(flow)

    async def _roll_back(self, flow: Flow) -> None:
        """Undo the completed tasks, the last one first."""
        for job, capability, given in reversed(flow.undo):
            agent, text = None, None
            try:
                if (agent := await self.choose(capability)) is None:
                    raise AgentOffline(f"nobody can {capability!r} at present")
                takes = self.world.agents[agent].offers[capability].input_schema
                inputs = flow.fitting(job, takes) if given is None else resolve(given, flow.context)
                timeout = job.task.timeout or 30.0
                await self.request(agent, capability, inputs, timeout=timeout, on_timeout="cancel")
            except Exception as error:
                text = f"{type(error).__name__}: {describe(error)}"
            job.undone = text is None
            self.world.trace.record("task_undone", agent or self.name, workflow=flow.id, task=job.task.id, error=text)
        self._conclude(flow)

    def _note(self, flow: Flow) -> None:
        facts = {"workflow": flow.id, "name": flow.workflow.name, "status": flow.status, "detail": flow.verdict[1]}
        self.world.trace.record("workflow", self.name, **facts)


def _raised_by(agent: str, error: BaseException) -> bool:
    """Return whether the agent raised the error while it answered, rather than ending in the middle."""
    return any(note.startswith(f"raised by {agent} ") for note in getattr(error, "__notes__", ()))
