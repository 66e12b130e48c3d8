"""The orchestrator: runs workflows by giving their tasks to agents that can do them.

`execute` runs one and returns its Outcome; `start`, `status`, `pause`, `resume`, `cancel`, `add` and `outcome` handle
those under way. Agents come from the registry, the least loaded first; override `choose` for another choice.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from ..errors import (
    AgentCrashed,
    AgentOffline,
    InvalidInput,
    InvalidValue,
    InvalidWorkflow,
    Refused,
    RequestTimeout,
    WorldError,
    describe,
)
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.message import FrozenList
from ..runtime.registry import Registration
from ..runtime.waits import Wait
from ..runtime.worker import QUERIES
from .capacity import Pools, Resources
from .flow import Flow, Job
from .plan import Compensation, Outcome, Task, TaskOutcome, Workflow, check, resolve

__all__ = ["Compensation", "Orchestrator", "Outcome", "Task", "TaskOutcome", "Workflow"]
LASTING = (InvalidInput, InvalidValue, Refused)  # errors that no further attempt mends
RETRIES = 3  # the least number under on_failure="retry"


class Orchestrator(Agent):
    """Runs workflows, any number at once; `resources` are capacities by name that they share.

    A task goes to the least loaded agent that has the capability. If that agent crashes or stops, it goes to the next,
    which uses up no retry; if there is nobody, it waits until somebody registers or restarts, for its time-out at the
    most. A paused workflow starts nothing new, while what runs goes on, and so do time-outs. How a workflow has ended
    is final. Workflows that run when the orchestrator crashes or stops are cancelled, without rollback.
    """

    service = True

    def __init__(
        self, name: str = "orchestrator", *, resources: Mapping[str, float] | None = None, concurrency: int = 1000
    ) -> None:
        super().__init__(name, concurrency=concurrency)
        for resource, capacity in (resources or {}).items():
            require.positive(f"the capacity of {resource!r}", capacity)
        self._flows: dict[str, Flow] = {}
        self._resources = Resources(resources or {})
        self._parked: dict[str, dict[Job, None]] = {}  # tasks that nobody can do at present, by capability
        self._pools: Any = None

    # Operations

    @capability
    async def execute(self, workflow: Workflow) -> Outcome:
        """Run a workflow and return its outcome; it is cancelled if nobody waits for that any more.

        InvalidWorkflow if it cannot run; AgentCrashed or AgentOffline if the orchestrator ends before.
        """
        flow = self._launch(workflow)
        try:
            return await self.outcome(flow.id)
        except asyncio.CancelledError:
            self._finish(flow, "cancelled", "nobody waits for it any more")
            raise

    @capability
    async def start(self, workflow: Workflow) -> str:
        """Begin to run a workflow and return its id."""
        return self._launch(workflow).id

    @capability
    async def outcome(self, workflow: str) -> Outcome:
        """Wait until a workflow has ended and return its outcome."""
        flow = self._flow(workflow)
        result: Outcome = await self.world.wait(
            asyncio.shield(flow.done), who=self.name, what=f"the end of {workflow} ({flow.workflow.name})"
        )
        return result

    @capability
    async def add(self, workflow: str, tasks: list[Task], parent: str | None = None) -> list[str]:
        """Add tasks to a running workflow, also from one of its tasks, the `parent`; return their ids.

        InvalidWorkflow if they cannot run, or if the workflow has ended.
        """
        flow = self._flow(workflow)
        if flow.status not in ("running", "paused"):
            raise InvalidWorkflow(f"{workflow} is {flow.status}: it takes no more tasks")
        check(tasks, flow.tasks, flow.workflow.context)
        self._check(flow.workflow, flow.id, tasks)
        self._take_in(flow, tasks, parent)
        return [task.id for task in tasks]

    @capability(cost=0.0)
    async def status(self, workflow: str | None = None) -> dict[str, Any]:
        """Return how far a workflow is: tasks by state, the share that has ended, those running.

        Without an id, what every agent answers.
        """
        return await super().status() if workflow is None else self._flow(workflow).progress()

    @capability
    async def pause(self, workflow: str) -> bool:
        """Start no further tasks of a workflow until `resume`; return whether it was running."""
        return self._change(workflow, "running", "paused")

    @capability
    async def resume(self, workflow: str) -> bool:
        """Let a paused workflow go on; return whether it was paused."""
        return self._change(workflow, "paused", "running")

    @capability
    async def cancel(self, workflow: str, reason: str = "cancelled") -> bool:
        """Stop what runs, start nothing more, and roll back; return whether there was anything to cancel."""
        return self._finish(self._flow(workflow), "cancelled", reason)

    @capability
    async def summary(self) -> dict[str, Any]:
        """Return how many workflows and tasks there were, by status, and their mean time in virtual seconds."""
        ended = [flow.outcome for flow in self._flows.values() if flow.outcome is not None]
        tasks = [job for flow in self._flows.values() for job in flow.jobs.values()]
        times = [job.ended - job.started for job in tasks if job.status == "completed" and job.started is not None]
        return {
            "workflows": dict(sorted(Counter(flow.status for flow in self._flows.values()).items())),
            "tasks": dict(sorted(Counter(job.status for job in tasks).items())),
            "attempts": sum(job.attempts for job in tasks),
            "mean_workflow_time": sum(outcome.time for outcome in ended) / len(ended) if ended else None,
            "mean_task_time": sum(times) / len(times) if times else None,
        }

    # Beginning and end

    def _launch(self, workflow: Workflow) -> Flow:
        if not isinstance(workflow, Workflow):
            raise InvalidWorkflow(f"{workflow!r} is no Workflow; write Workflow('report', [Task(...), ...])")
        world = self.world
        if asyncio._get_running_loop() is not world.loop:
            raise WorldError(f"nothing runs here that could do tasks: write world.run({self.name}.execute(...))")
        if self.state not in ("idle", "busy"):
            raise AgentOffline(f"{self.name} runs no workflows: {self.why_offline()}")
        self._check(workflow, "", workflow.tasks)
        if self._pools is None:
            self._pools = Pools(world)
            world.registry.watch(self._arrived)
        flow = Flow(world.new_id("workflow"), workflow, self.name, world.now, world.loop.create_future())
        self._flows[flow.id] = flow
        self._resources.declare(flow.id, workflow.resources)
        flow.call_off = self.when_gone(partial(self._abandon, flow))
        if workflow.timeout is not None:
            text = f"not done after {workflow.timeout:g} s"
            flow.timer = world.loop.call_later(workflow.timeout, self._finish, flow, "timed_out", text)
        self._note(flow)
        self._take_in(flow, workflow.tasks, None)
        return flow

    def _check(self, workflow: Workflow, name: str, tasks: Sequence[Task]) -> None:
        """Raise InvalidWorkflow if nobody has ever offered what a task needs, or if there are too few resources."""
        agents = [agent for agent in self.world.agents.values() if not agent.service]
        offered = {name for agent in agents for name, offer in agent.offers.items() if not offer.streams} - QUERIES
        for task in tasks:
            self._resources.needs(name, workflow.resources, task)
            undo = task.compensation
            for wanted in (task.capability,) if undo is None else (task.capability, undo.capability):
                if wanted not in offered:
                    can = ", ".join(sorted(offered)) or "nothing"
                    raise InvalidWorkflow(
                        f"{task.id!r} needs {wanted!r}, and nobody here has ever offered that, but {can}"
                    )

    def _take_in(self, flow: Flow, tasks: Sequence[Task], parent: str | None) -> None:
        now, append = self.now, self.world.trace.append
        for task in tasks:
            after = FrozenList(task.after)
            append((now, "task_added", self.name, flow.id, task.id, task.capability, after, task.priority, parent))
        ready = flow.add(tasks)
        for task in tasks:
            if task.resources:
                flow.jobs[task.id].needs = self._resources.needs(flow.id, flow.workflow.resources, task)
        self._unlock(flow, ready)
        self._fill(flow)

    def _finish(self, flow: Flow, status: str, detail: str | None = None) -> bool:
        """End a workflow: cancel what runs, and roll back unless it has completed; return False if it has ended."""
        if flow.status not in ("running", "paused"):
            return False
        flow.status, flow.verdict = "rolling_back", (status, detail)
        self._drop(flow, detail)
        if flow.undo and status != "completed":
            self._note(flow, detail)
            self.background(self._roll_back(flow))
        else:
            self._conclude(flow)
        self._admit()
        return True

    def _drop(self, flow: Flow, reason: str | None) -> None:
        """End all tasks that have not ended."""
        current = asyncio.current_task(self.world.loop)
        for lane in flow.lanes:
            if lane is not current:
                lane.cancel()
        self._resources.leave(flow)
        for job in flow.jobs.values() if flow.open else ():
            if job.ended is None:
                self._end(job, "cancelled", reason)

    def _conclude(self, flow: Flow) -> None:
        outcome = flow.conclude(*flow.verdict, self.now)
        flow.call_off()
        if flow.timer is not None:
            flow.timer.cancel()
        self._note(flow, outcome.detail)
        if not flow.done.done():
            flow.done.set_result(outcome)

    def _abandon(self, flow: Flow) -> None:
        """End a workflow at once: the orchestrator is gone, and cannot even roll it back."""
        crashed = self.state == "error"
        error = (AgentCrashed if crashed else AgentOffline)(f"{self.name} {'crashed' if crashed else 'has stopped'}")
        flow.done.set_exception(error)
        flow.done.exception()  # perhaps nobody waits for it
        if flow.status != "rolling_back":
            flow.status, flow.verdict = "rolling_back", ("cancelled", str(error))
        self._drop(flow, str(error))
        self._conclude(flow)

    async def _roll_back(self, flow: Flow) -> None:
        await asyncio.gather(*flow.lanes, return_exceptions=True)
        for job in reversed(flow.undo):
            undo, agent, text = cast(Compensation, job.task.compensation), None, None
            try:
                inputs = resolve(undo.inputs, flow.context)
                agent = await self._pools.best(undo.capability)
                if agent is None:
                    raise AgentOffline(f"nobody can {undo.capability!r} at present")
                await self._ask(agent, undo.capability, inputs, job.task.timeout or 30.0)
            except Exception as error:
                text = f"{type(error).__name__}: {describe(error)}"
            job.undone = text is None
            self.world.trace.record("task_undone", agent or self.name, workflow=flow.id, task=job.task.id, error=text)
        self._conclude(flow)

    # Tasks

    def _fill(self, flow: Flow) -> None:
        """Start as many tasks as there is room for."""
        while (job := self._next(flow)) is not None:
            self._run(job)

    def _next(self, flow: Flow) -> Job | None:
        """Return the next task to run, if there is one and room for it; those that need resources stand in line."""
        while flow.ready and flow.room:
            job = heapq.heappop(flow.ready)[2]
            if job.needs is None:
                flow.busy += 1
                return job
            self._resources.queue(job)
            self._admit()
            if not job.holds:
                self._wait(job, f"resources: {', '.join(job.task.resources)}")
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
            await self._work(job)
            flow.busy -= 1
            self._admit()
            job = self._next(flow)
            self._fill(flow)

    async def _work(self, job: Job) -> None:
        """Give a task to agents until one of them has done it, or has failed."""
        flow, task, agent = job.flow, job.task, None
        try:
            if job.inputs is None and (reason := await self._inputs(job)) is not None:
                return self._settle(job, "skipped", reason)
            while (agent := await self._pools.best(task.capability)) is not None:
                now = job.begin(agent, self.now)
                self.world.trace.append((now, "task_started", agent, flow.id, task.id, job.attempts))
                try:
                    result = await self._ask(agent, task.capability, job.inputs, task.timeout, task.priority)
                except (AgentCrashed, AgentOffline) as error:
                    if not self._is_gone(agent, error, now):
                        raise
                    self._note_failure(job, agent, error, "reassign")
                else:
                    flow.keep(job, result)
                    return self._settle(job, "completed", None, agent)
        except Exception as error:
            return self._fail(job, agent, error)
        self._park(job)

    async def _inputs(self, job: Job) -> str | None:
        """Work out the inputs of a task; return why it is to be skipped, if it is."""
        flow, condition = job.flow, job.task.condition
        if condition is not None:
            wanted = condition(flow.context)
            if not (await wanted if inspect.isawaitable(wanted) else wanted):
                return "its condition does not hold"
        if (missing := flow.missing(job)) is not None:
            return f"needs the result of {missing!r}, which was skipped"
        job.inputs = resolve(job.task.inputs, flow.context) if job.refers else job.task.inputs
        return None

    async def _ask(
        self, agent: str, capability: str, inputs: Mapping[str, Any], timeout: float | None, priority: int = 0
    ) -> Any:
        self._pools.give(agent, 1)
        try:
            return await self.request(
                agent, capability, inputs, timeout=timeout, priority=priority, on_timeout="cancel"
            )
        finally:
            self._pools.give(agent, -1)

    def _is_gone(self, name: str, error: Exception, began: float) -> bool:
        """Return whether the error says that this agent is gone, not one it asked."""
        agent = self.world.bus.agent(name)
        ready = agent is not None and agent.responsive and self.now == began
        return not ready and not _raised_by(name, error)

    def _fail(self, job: Job, agent: str | None, error: Exception) -> None:
        """Try a task again later, or end it as failed or timed out."""
        flow, task = job.flow, job.task
        retries = max(task.retries, RETRIES) if flow.workflow.on_failure == "retry" else task.retries
        again = job.failures < retries and not isinstance(error, LASTING)
        text = self._note_failure(job, agent, error, "retry" if again else "none")
        if again:
            job.failures += 1
            seconds = task.backoff * 2.0 ** min(job.failures - 1, 60)
            self._wait(job, f"tries again in {seconds:g} s")
            job.timer = self.world.loop.call_later(seconds, self._resume, job)
            return
        late = isinstance(error, RequestTimeout) and not (agent and _raised_by(agent, error))
        status = "timed_out" if late else "failed"
        if flow.workflow.on_failure == "continue":
            self._settle(job, status, text, agent)
        else:
            self._end(job, status, text, agent)
            self._finish(flow, "failed", f"{task.id}: {text}")

    def _note_failure(self, job: Job, agent: str | None, error: Exception, onward: str) -> str:
        text, facts = f"{type(error).__name__}: {describe(error)}", {"workflow": job.flow.id, "task": job.task.id}
        self.world.trace.record(
            "task_failed", agent or self.name, **facts, attempt=job.attempts, error=text, next=onward
        )
        return text

    def _wait(self, job: Job, reason: str) -> None:
        """Note that a task waits, and give back what it holds."""
        job.status = "waiting"
        if job.holds:
            self._resources.release(job)
        self.world.trace.record("task_waiting", self.name, workflow=job.flow.id, task=job.task.id, reason=reason)

    def _park(self, job: Job) -> None:
        """Let a task wait until somebody who can do it registers or restarts, or until it has waited too long."""
        task = job.task
        self._wait(job, f"nobody can {task.capability!r} at present")
        self._parked.setdefault(task.capability, {})[job] = None
        what = f"somebody who can {task.capability!r}, for {task.id!r} of {job.flow.id}"
        self.world.waits[job] = Wait(self.name, what, None, self.now)
        if task.timeout is not None:
            job.timer = self.world.loop.call_later(task.timeout, self._waited, job)

    def _waited(self, job: Job) -> None:
        """Fail a task that has waited for its time-out."""
        self._unpark(job)
        self._fail(job, None, RequestTimeout(f"nobody could {job.task.capability!r} in {job.task.timeout:g} s"))
        self._fill(job.flow)

    def _unpark(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job in self.world.waits:
            self.world.waits.end(job)
            del self._parked[job.task.capability][job]

    def _arrived(self, entry: Registration) -> None:
        """Take up the tasks that an agent which has just come can do."""
        self._pools.forget()
        for offer in entry.capabilities:
            for job in list(self._parked.get(offer, ())):
                self._resume(job)

    def _resume(self, job: Job) -> None:
        self._unpark(job)
        job.flow.push(job)
        self._fill(job.flow)

    def _settle(self, job: Job, status: str, reason: str | None = None, who: str | None = None) -> None:
        """End a task and see to those behind it; a task that has ended stays as it is."""
        if job.ended is None:
            if status in ("failed", "timed_out"):
                job.flow.lost[job.task.id] = status
            self._end(job, status, reason, who)
            self._unlock(job.flow, job.flow.follow(job))

    def _unlock(self, flow: Flow, jobs: Iterable[Job]) -> None:
        """Make tasks ready that wait for no other any more; skip those behind a task that was lost."""
        unlocked = list(jobs)
        for job in unlocked:
            cause = next((name for name in job.task.after if name in flow.lost), None) if flow.lost else None
            if cause is None:
                flow.push(job)
            else:
                self._end(job, "skipped", f"{cause} {flow.lost[cause]}")
                flow.lost[job.task.id] = "skipped"
                unlocked.extend(flow.follow(job))
        if not flow.open:
            self._finish(flow, "completed")

    def _end(self, job: Job, status: str, reason: str | None = None, who: str | None = None) -> None:
        self._unpark(job)
        if job.holds:
            self._resources.release(job)
        job.status, job.ended, job.error = status, self.world.clock(), reason
        job.flow.open -= 1
        self.world.trace.append((job.ended, "task_ended", who or self.name, job.flow.id, job.task.id, status, reason))

    # Reports

    def _flow(self, workflow: str) -> Flow:
        if workflow not in self._flows:
            raise InvalidValue(f"no workflow {workflow!r}; {self.name} knows {', '.join(self._flows) or 'none yet'}")
        return self._flows[workflow]

    def _change(self, workflow: str, old: str, new: str) -> bool:
        flow = self._flow(workflow)
        if flow.status != old:
            return False
        flow.status = new
        self._note(flow)
        self._admit()
        self._fill(flow)
        return True

    def _note(self, flow: Flow, detail: str | None = None) -> None:
        facts = {"workflow": flow.id, "name": flow.workflow.name, "status": flow.status, "detail": detail}
        self.world.trace.record("workflow", self.name, **facts)


def _raised_by(agent: str, error: Exception) -> bool:
    """Return whether the agent raised the error while it answered, rather than ending in the middle."""
    return any(note.startswith(f"raised by {agent} ") for note in getattr(error, "__notes__", ()))
