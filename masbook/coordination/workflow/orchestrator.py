"""The orchestrator: runs workflows by giving their tasks to agents that can do them.

What a workflow is stands in `plan.py`, and what it has come to so far in `flow.py`. `Staff` chooses the agents and
`Execution` goes from task to task; here are the operations, and how a workflow begins and ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...errors import AgentOffline, InvalidValue, InvalidWorkflow, WorldError
from ...runtime import require
from ...runtime.capability import capability
from ...runtime.worker import QUERIES
from .execution import Execution
from .flow import Flow
from .plan import Outcome, Task, Workflow, amounts, check, listed


class Orchestrator(Execution):
    """Runs workflows, any number at once; `resources` are capacities by name, shared by all of them.

    A task whose agent crashes or stops goes to another, which uses up no retry. If nobody can do it, it waits until
    somebody registers or restarts, for its time-out at most. What is paused starts nothing new, while tasks and
    time-outs go on. How a workflow has ended is final, and remembered; if the orchestrator ends before, it is cancelled
    as it stands.

        orchestrator = world.spawn(Orchestrator("orchestrator"))
        tasks = [Task("read", "read_file", {"path": "x.csv"}), Task("sum", "add", {"rows": "${read.rows}"}, ["read"])]
        world.run(orchestrator.execute(Workflow("report", tasks))).results["sum"]
    """

    service = True

    def __init__(
        self,
        name: str = "orchestrator",
        *,
        resources: Mapping[str, float] | Sequence[str] = (),
        concurrency: int = 1000,
    ) -> None:
        super().__init__(name, concurrency=concurrency)
        self.resources: Mapping[str, float] = amounts(() if resources is None else resources)
        self._resources.free.update({("", key): capacity for key, capacity in self.resources.items()})
        self._flows: dict[str, Flow] = {}

    # Operations

    @capability
    async def execute(self, workflow: Workflow) -> Outcome:
        """Run a workflow and return its outcome; it is cancelled if nobody waits for that any more.

        InvalidWorkflow if it cannot run; AgentCrashed or AgentOffline if the orchestrator ends before it does.
        """
        flow = self._launch(workflow)
        try:
            outcome: Outcome = await self.outcome(flow.id)
            return outcome
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
        done, what = asyncio.shield(self._flow(workflow).done), f"the end of {workflow}"
        result: Outcome = await self.world.wait(done, who=self.name, what=what)
        return result

    @capability
    async def add(self, workflow: str, tasks: list[Task], parent: str | None = None) -> list[str]:
        """Add tasks to a workflow under way and return their ids; `parent` is the task that does so, if one does.

        InvalidWorkflow if they cannot run, or if the workflow has ended.
        """
        flow = self._flow(workflow)
        if flow.status not in ("running", "paused"):
            raise InvalidWorkflow(f"{workflow} is {flow.status}: it takes no more tasks")
        if parent is not None and parent not in flow.jobs:
            raise InvalidWorkflow(f"{parent!r} is no task of {workflow}; its tasks are {', '.join(flow.jobs)}")
        new = listed(tasks)
        check(new, {name: job.task for name, job in flow.jobs.items()}, flow.workflow.context)
        self._check_means(flow.workflow, new)
        self._take_in(flow, new, parent)
        return [task.id for task in new]

    @capability(cost=0.0)
    async def status(self, workflow: str | None = None) -> dict[str, Any]:
        """Return how far a workflow is; without an id, what every agent answers."""
        return await super().status() if workflow is None else self._flow(workflow).progress()

    @capability
    async def pause(self, workflow: str) -> bool:
        """Start no more tasks of a workflow until `resume`; return whether it was running."""
        return self._switch(workflow, "running", "paused")

    @capability
    async def resume(self, workflow: str) -> bool:
        """Let a paused workflow go on; return whether it was paused."""
        return self._switch(workflow, "paused", "running")

    @capability
    async def cancel(self, workflow: str, reason: str = "cancelled") -> bool:
        """Stop what runs, start nothing more, and roll back; return whether there was anything to cancel."""
        return self._finish(self._flow(workflow), "cancelled", require.text("the reason", reason))

    @capability
    async def summary(self, workflow: str | None = None) -> dict[str, Any]:
        """Return how far a workflow is, task by task; without an id, what there was of all.

        That is the numbers of workflows and tasks by status and of attempts, and the mean time in virtual seconds.
        """
        if workflow is not None:
            flow = self._flow(workflow)
            return {**flow.progress(), "tasks": {name: job.outcome()._asdict() for name, job in flow.jobs.items()}}
        flows = self._flows.values()
        jobs = [job for flow in flows for job in flow.jobs.values()]
        times = [flow.outcome.time for flow in flows if flow.outcome is not None]
        return {
            "workflows": dict(sorted(Counter(flow.status for flow in flows).items())),
            "tasks": dict(sorted(Counter(job.status for job in jobs).items())),
            "attempts": sum(job.attempts for job in jobs),
            "mean_time": sum(times) / len(times) if times else None,
        }

    # Beginning and end of a workflow

    def _launch(self, workflow: Workflow) -> Flow:
        world = self.world
        if not isinstance(workflow, Workflow):
            raise InvalidWorkflow(f"{workflow!r} is no Workflow; write Workflow('report', [Task(...), ...])")
        if asyncio._get_running_loop() is not world.loop:
            raise WorldError(f"nothing runs here that could do tasks: write world.run({self.name}.execute(...))")
        if self.state not in ("idle", "busy"):
            raise AgentOffline(f"{self.name} runs no workflows: {self.why_offline()}")
        self._check_means(workflow, workflow.tasks)
        if not self._flows:
            world.registry.watch(self._arrived)
        flow = Flow(world.new_id("workflow"), workflow, self.name, world.now, world.loop.create_future())
        self._flows[flow.id] = flow
        self._resources.free.update({(flow.id, name): capacity for name, capacity in workflow.resources.items()})
        flow.ends.append(self.when_gone(partial(self._abandon, flow)))
        if workflow.timeout is not None:
            text = f"it was not done after {workflow.timeout:g} s"
            flow.ends.append(world.loop.call_later(workflow.timeout, self._finish, flow, "timed_out", text).cancel)
        self._note(flow)
        self._take_in(flow, workflow.tasks)
        return flow

    def _check_means(self, workflow: Workflow, tasks: Sequence[Task]) -> None:
        """Raise InvalidWorkflow if nobody has ever offered what a task needs, or if it needs more than there is."""
        agents = [agent for agent in self.world.agents.values() if not agent.service]
        offered = {name for agent in agents for name, offer in agent.offers.items() if not offer.streams} - QUERIES
        capacities = {**self.resources, **workflow.resources}
        for task in tasks:
            for name in (task.capability, *(task.compensation or ())[:1]):
                if name not in offered:
                    can = f"that, but {', '.join(sorted(offered))}" if offered else "anything: spawn the agents first"
                    raise InvalidWorkflow(f"{task.id!r} needs {name!r}; nobody here has ever offered {can}")
            for name, amount in task.resources.items():
                if amount > capacities.get(name, 0.0):
                    has = f"there is {capacities.get(name, 0.0):g}; declare as much in resources={{...}}"
                    raise InvalidWorkflow(f"{task.id!r} needs {amount:g} of {name!r}, and {has}")

    def _take_in(self, flow: Flow, tasks: Sequence[Task], parent: str | None = None) -> None:
        now, append = self.now, self.world.trace.append
        for task in tasks:
            facts = (task.id, task.capability, task.after, task.priority, parent)
            append((now, "task_added", self.name, flow.id, *facts))
        self._unlock(flow, flow.add(tasks))
        self._fill(flow)

    # Bookkeeping

    def _flow(self, workflow: str) -> Flow:
        if not isinstance(workflow, str) or workflow not in self._flows:
            raise InvalidValue(f"no workflow {workflow!r}; {self.name} knows {', '.join(self._flows) or 'none yet'}")
        return self._flows[workflow]

    def _switch(self, workflow: str, old: str, new: str) -> bool:
        flow = self._flow(workflow)
        if flow.status != old:
            return False
        flow.status = new
        self._note(flow)
        self._admit()
        self._fill(flow)
        return True
