"""Orchestrator and workers: a manager plans, workers do the subtasks, and the manager consolidates their results.

Scenarios call `delegate`. The plan is typed; every subtask in it has exactly one outcome, in the trace and the report.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..errors import InvalidValue, RequestTimeout, TaskFailed, describe
from ..runtime import require
from .agent import LLMAgent
from .outcomes import PATIENCE, Chair, Outcome, Outcomes, as_text, ask, chaired, filled, outcome_of, talkers, world_of


class Subtask(BaseModel):
    """A part of the work."""

    model_config = ConfigDict(frozen=True)
    title: str = Field(min_length=1, description="What is to be done, in a sentence that can be understood alone.")
    worker: str = Field("", description="Who is to do it; empty where it does not matter.")
    after: list[int] = Field([], description="The numbers of the subtasks before it, from 1, whose results it needs.")


class Plan(BaseModel):
    """The subtasks that together reach the goal."""

    model_config = ConfigDict(frozen=True)
    subtasks: list[Subtask] = Field(min_length=1, max_length=100)


@dataclass(frozen=True, slots=True)
class CrewReport:
    """What a crew has made of a goal: the manager's `output`, and for each subtask its outcome, in order.

    `subtasks` are those of the plan with what was mended in it; `notes` say what, and what went to another worker.
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

    A worker does as many at once as its `concurrency` says; the rest wait, and so do those that come after others. Who
    is called by no worker's name, or whose worker is gone, goes to the one with the fewest. What fails, or takes longer
    than `timeout` virtual seconds, is an outcome that the manager hears of; what needs its result is skipped.
    TaskFailed if the manager fails.

        report = await delegate(editor, [ann, bob], "Collect the facts. Draw a chart. Write a summary after 1 and 2.")
        report.output, report.outcomes.success_rate
    """
    crew: list[Any] = talkers(workers)
    names = [one.name for one in crew]
    if len(set(names)) < len(names) or talkers([manager])[0].name in names:
        raise InvalidValue(f"{[manager.name, *names]} has somebody twice: give a manager, and each worker once")
    require.text("the goal", goal)
    require.positive("timeout", timeout)
    world_of([manager, *crew])
    async with chaired(crew, "crew") as chair:
        prompt = f"Make a plan for this goal, a subtask for each thing that is to be done:\n{goal}"
        plan = await _managed(manager, "plan", filled(chair, manager, _form(crew), prompt, timeout))
        work = _Work(chair, manager, crew, plan, timeout)
        outcomes = await work.run()
        subtasks = tuple(Subtask(**one.model_dump()) for one in work.subtasks.values())
        pairs = zip(subtasks, outcomes, strict=True)
        results = "\n".join(f"{number}. {_told(*pair)}" for number, pair in enumerate(pairs, 1))
        wanted = "Consolidate the results of its subtasks into one answer:"
        prompt = f"The goal was: {' '.join(goal.split())}\n{wanted}\n{results}"
        output = await _managed(manager, "put the results together", ask(chair, manager, timeout, prompt=prompt))
        return CrewReport(goal, subtasks, outcomes, tuple(work.notes), output)


async def _managed(manager: LLMAgent, what: str, work: Any) -> Any:
    found = await outcome_of(manager, work)
    if found.error is not None:
        text = f"{manager.name} could not {what}: {type(found.error).__name__}: {describe(found.error)}"
        raise TaskFailed(text) from found.error
    return found.output


def _form(crew: list[LLMAgent]) -> type[Plan]:
    """Return the form of a plan that names the workers and says what they are."""
    about = "; ".join(f"{one.name}: {' '.join(one.instructions.split())}" for one in crew)
    names = [one.name for one in crew]
    named = Field("", description=f"{Subtask.model_fields['worker'].description} {about}", examples=names)
    subtask = create_model("Subtask", __base__=Subtask, __doc__=Subtask.__doc__, worker=(str, named))
    subtasks = (list[subtask], Field(min_length=1, max_length=100))  # type: ignore[valid-type]
    return create_model(f"Plan: {', '.join(names)}", __base__=Plan, __doc__=Plan.__doc__, subtasks=subtasks)


def _told(subtask: Subtask, outcome: Outcome) -> str:
    """Return what the manager is told of a subtask."""
    what = f"{subtask.title.rstrip('.')} ({outcome.agent})"
    if outcome.status == "completed":
        return f"{what}: {' '.join(as_text(outcome.output).split())}"
    return f"{what} {outcome.status}" + (f": {describe(outcome.error)}" if outcome.error else "")


class _Work:
    """The subtasks of a plan under way, by their numbers."""

    def __init__(self, chair: Chair, manager: LLMAgent, crew: list[LLMAgent], plan: Plan, timeout: float) -> None:
        self.chair, self.manager, self.timeout = chair, manager, timeout
        self.crew = {one.name: one for one in crew}
        self.given = Counter(dict.fromkeys(self.crew, 0))  # subtasks by worker
        self.free = {one.name: asyncio.Semaphore(one.concurrency) for one in crew}
        self.notes: list[str] = []
        self.subtasks = dict(enumerate(plan.subtasks, 1))
        self.ended = {number: chair.world.loop.create_future() for number in self.subtasks}

    async def run(self) -> Outcomes:
        """Do all subtasks, side by side as far as they can be, and return their outcomes."""
        for number, subtask in self.subtasks.items():
            before = [n for n in dict.fromkeys(subtask.after) if 0 < n < number]
            if len(before) < len(set(subtask.after)):
                self.notes.append(f"{number} cannot come after {subtask.after}: only {before} are before it")
            self.subtasks[number] = subtask.model_copy(update={"after": before, "worker": self._worker(number)})
            self._record("task_added", number, capability="ask", after=[self._name(n) for n in before])
        try:
            async with asyncio.TaskGroup() as group:
                for number in self.subtasks:
                    group.create_task(self._see_to(number))
        except BaseExceptionGroup as mistakes:  # of who wrote this; what a worker fails of is an outcome
            raise mistakes.exceptions[0] from None
        finally:
            for number, ended in self.ended.items():
                if ended.cancelled() or not ended.done():
                    self._record("task_ended", number, status="cancelled", reason="nobody waits for it any more")
        return Outcomes(one.result() for one in self.ended.values())

    def _worker(self, number: int) -> str:
        """Return who is to do a subtask: whom the plan names, else who has the fewest."""
        said = self.subtasks[number].worker
        named = [name for name in self.crew if re.search(rf"(?i)(?<!\w){re.escape(name)}(?!\w)", said)]
        chosen = named[0] if len(named) == 1 else min(self.crew, key=self.given.__getitem__)
        if said not in ("", chosen):
            self._hand_over(number, chosen, f"the plan says {said!r}")
        self.given[chosen] += 1
        return chosen

    def _hand_over(self, number: int, name: str, reason: str) -> None:
        self.notes.append(f"{number} goes to {name}: {reason}")
        self._record("handover", number, self.manager.name, to=name, how="reassigned", reason=reason)

    async def _see_to(self, number: int) -> None:
        """Do a subtask once those before it have ended and its worker is free; skip it if it lacks their results."""
        subtask = self.subtasks[number]
        lacks = [n for n in subtask.after if (await self.ended[n]).status != "completed"]
        outcome = Outcome(subtask.worker, "skipped") if lacks else await self._do(number, subtask.worker)
        reason = f"it lacks the results of {lacks}" if lacks else None
        status: str = outcome.status
        if outcome.error is not None:
            reason = f"{type(outcome.error).__name__}: {describe(outcome.error)}"
            status = "timed_out" if isinstance(outcome.error, RequestTimeout) else status
            self._record("task_failed", number, outcome.agent, attempt=1, error=reason, next="none")
        self._record("task_ended", number, outcome.agent, status=status, reason=reason)
        self.ended[number].set_result(outcome)

    async def _do(self, number: int, name: str) -> Outcome:
        """Ask a worker; another one if it is gone before its turn comes."""
        subtask = self.subtasks[number]
        async with self.free[name]:
            there = [other for other, one in self.crew.items() if one.responsive]
            if name in there or not there:
                self._record("task_started", number, name, attempt=1)
                known = [_told(self.subtasks[n], self.ended[n].result()) for n in subtask.after]
                prompt = "\n".join([subtask.title, *(["", "What is known so far:"] if known else []), *known])
                return await outcome_of(self.crew[name], ask(self.chair, self.crew[name], self.timeout, prompt=prompt))
        other = min(there, key=self.given.__getitem__)
        self.given[other] += 1
        self._hand_over(number, other, f"{name} is gone")
        return await self._do(number, other)

    def _name(self, number: int) -> str:
        return f"{number} {self.subtasks[number].title.rstrip('.')}"

    def _record(self, kind: str, number: int, who: str | None = None, **facts: Any) -> None:
        whole = "team" if kind == "handover" else "workflow"
        facts |= {whole: self.chair.name, "task": self._name(number)}
        self.chair.world.trace.record(kind, who or self.chair.name, **facts)
