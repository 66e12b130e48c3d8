"""Orchestrator and workers: a manager plans, workers do the subtasks, and the manager consolidates their results.

Scenarios call `delegate`. The plan is typed; every subtask in it has exactly one outcome, in the trace and the report.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..errors import InvalidValue, RequestTimeout, TaskFailed, describe
from ..runtime import require
from .agent import LLMAgent
from .outcomes import (
    PATIENCE,
    Chair,
    Outcome,
    Outcomes,
    Text,
    as_text,
    ask,
    chaired,
    filled,
    outcome_of,
    talkers,
    together,
    world_of,
)

ANYBODY = "anybody"


class Subtask(BaseModel):
    """A part of the work."""

    model_config = ConfigDict(frozen=True)
    title: Text = Field(description="What is to be done, in a sentence that can be understood alone.")
    worker: str = ANYBODY
    after: list[int] = Field([], description="The numbers of the subtasks before it, from 1, whose results it needs.")


class Plan(BaseModel):
    """The subtasks that together reach the goal; a manager fills in a `plan_for` its workers."""

    subtasks: list[Subtask] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class CrewReport:
    """What a crew has made of a goal: the manager's `output`, and for each subtask its outcome, in order.

    `subtasks` are those of the plan, each with who did it; `notes` say what in the plan had to be mended.
    """

    goal: str
    subtasks: tuple[Subtask, ...]
    outcomes: Outcomes
    notes: tuple[str, ...]
    output: Any


async def delegate(
    manager: LLMAgent, workers: Iterable[LLMAgent], goal: str, *, timeout: float = PATIENCE
) -> CrewReport:
    """Let a manager divide a goal into subtasks, workers do them, and the manager put their results together.

    What the plan gives to anybody, or to somebody who is gone when its turn comes, goes to the worker with the fewest.
    A worker does as many at once as its `concurrency` says; the rest wait, and so do those that come after others. What
    fails, or takes longer than `timeout` virtual seconds, is an outcome that the manager hears of; what needs its
    result is skipped. TaskFailed if the manager fails.

        report = await delegate(editor, [ann, bob], "Collect the facts. Draw a chart. Write a summary after 1 and 2.")
        report.output, report.outcomes.success_rate
    """
    crew: list[Any] = talkers(workers)
    names = [one.name for one in crew]
    if len({*names, talkers([manager])[0].name}) <= len(names):
        raise InvalidValue(f"{[manager.name, *names]} has somebody twice: give a manager, and each worker once")
    require.text("the goal", goal)
    require.positive("timeout", timeout)
    world_of([manager, *crew])
    async with chaired(crew, "crew") as chair:
        prompt = f"Make a plan for this goal, a subtask for each thing that is to be done:\n{goal}"
        plan = await _managed(manager, "plan", filled(chair, manager, plan_for(crew), prompt, timeout))
        work = _Work(chair, crew, plan, timeout)
        outcomes = await work.run()
        results = "\n".join(f"{number}. {work.told(number)}" for number in work.subtasks)
        wanted = "Consolidate the results of its subtasks into one answer:"
        prompt = f"The goal was: {' '.join(goal.split())}\n{wanted}\n{results}"
        output = await _managed(manager, "put the results together", ask(chair, manager, timeout, prompt=prompt))
        return CrewReport(goal, tuple(work.subtasks.values()), outcomes, tuple(work.notes), output)


def plan_for(crew: list[LLMAgent]) -> type[Plan]:
    """Return the form of a plan that gives work to none but these, and says what they are."""
    names = [one.name for one in crew]
    about = "; ".join(f"{one.name}: {' '.join(one.instructions.split())}" for one in crew)
    who: Any = (Literal[ANYBODY, *names], Field(ANYBODY, description=f"Who is to do it, if that matters. {about}"))
    subtask = create_model("Subtask", __base__=Subtask, worker=who)
    return create_model(f"Plan for {names}", __base__=Plan, subtasks=(list[subtask], Field(min_length=1)))  # type: ignore[valid-type]


async def _managed(manager: LLMAgent, what: str, work: Any) -> Any:
    found = await outcome_of(manager, work)
    if found.error is not None:
        text = f"{manager.name} could not {what}: {type(found.error).__name__}: {describe(found.error)}"
        raise TaskFailed(text) from found.error
    return found.output


class _Work:
    """The subtasks of a plan under way, by their numbers."""

    def __init__(self, chair: Chair, crew: list[LLMAgent], plan: Plan, timeout: float) -> None:
        self.chair, self.timeout = chair, timeout
        self.crew = {one.name: one for one in crew}
        self.free = {one.name: asyncio.Semaphore(one.concurrency) for one in crew}
        self.notes: list[str] = []
        self.subtasks = dict(enumerate(plan.subtasks, 1))
        self.given = Counter(one.worker for one in plan.subtasks)
        for number, one in self.subtasks.items():
            before = [n for n in dict.fromkeys(one.after) if 0 < n < number]
            if len(before) < len(set(one.after)):
                self.notes.append(f"{number} cannot come after {one.after}: only {before} are before it")
            self.subtasks[number] = Subtask(title=one.title, worker=one.worker, after=before)
            if one.worker not in self.crew:
                self._give(number, self.crew)
        self.ended = {number: chair.world.loop.create_future() for number in self.subtasks}

    async def run(self) -> Outcomes:
        """Do all subtasks, side by side as far as they can be, and return their outcomes."""
        for number, subtask in self.subtasks.items():
            self._record("task_added", number, capability="ask", after=[self._name(n) for n in subtask.after])
        try:
            await together(self._see_to(number) for number in self.subtasks)
        finally:
            for number, ended in self.ended.items():
                if ended.cancelled() or not ended.done():
                    self._record("task_ended", number, status="cancelled", reason="nobody waits for it any more")
        return Outcomes(one.result() for one in self.ended.values())

    async def _see_to(self, number: int) -> None:
        """Do a subtask once those before it have ended, or skip it if it lacks their results."""
        subtask = self.subtasks[number]
        lacks = [n for n in subtask.after if (await self.ended[n]).status != "completed"]
        outcome = Outcome(subtask.worker, "skipped") if lacks else await self._do(number)
        reason = f"it lacks the results of {lacks}" if lacks else None
        status: str = outcome.status
        if outcome.error is not None:
            reason = f"{type(outcome.error).__name__}: {describe(outcome.error)}"
            status = "timed_out" if isinstance(outcome.error, RequestTimeout) else status
            self._record("task_failed", number, outcome.agent, attempt=1, error=reason, next="none")
        self._record("task_ended", number, outcome.agent, status=status, reason=reason)
        self.ended[number].set_result(outcome)

    async def _do(self, number: int) -> Outcome:
        """Ask the worker as soon as it is free, its time begins then; another one, if it is gone by then."""
        subtask = self.subtasks[number]
        worker = self.crew[subtask.worker]
        async with self.free[worker.name]:
            there = [name for name, one in self.crew.items() if one.online]
            if worker.online or not there:
                self._record("task_started", number, worker.name, attempt=1)
                prompt = "\n".join([subtask.title, *(f"Result of {self.told(n)}" for n in subtask.after)])
                return await outcome_of(worker, ask(self.chair, worker, self.timeout, prompt=prompt))
        self.notes.append(f"{number} goes to {self._give(number, there)}: {worker.name} is gone")
        return await self._do(number)

    def _give(self, number: int, names: Iterable[str]) -> str:
        """Give a subtask to the one of the workers who has been given the fewest."""
        name = min(names, key=self.given.__getitem__)
        self.given[name] += 1
        self.subtasks[number] = self.subtasks[number].model_copy(update={"worker": name})
        return name

    def told(self, number: int) -> str:
        """Return what is told of a subtask that has ended."""
        outcome: Outcome = self.ended[number].result()
        what = f"{' '.join(self.subtasks[number].title.split()).rstrip('.')} ({outcome.agent})"
        if outcome.status == "completed":
            return f"{what}: {' '.join(as_text(outcome.output).split())}"
        return f"{what} {outcome.status}" + (f": {describe(outcome.error)}" if outcome.error else "")

    def _name(self, number: int) -> str:
        return f"{number} {self.subtasks[number].title.rstrip('.')}"

    def _record(self, kind: str, number: int, who: str | None = None, **facts: Any) -> None:
        facts |= {"workflow": self.chair.name, "task": self._name(number)}
        self.chair.world.trace.record(kind, who or self.chair.name, **facts)
