"""Work in phases: agents work side by side and meet at a barrier, so that the next phase can use what all have made.

Scenarios call `run_phases`. Whoever fails, crashes or is late leaves the barrier, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ..coordination.sync import Barrier
from ..errors import AgentOffline, BarrierBroken, InvalidValue
from ..runtime import require
from .outcomes import PATIENCE, Chair, Outcome, Outcomes, ask, chaired, outcome_of, talkers, together
from .talker import Talker

Prompts = Callable[[Talker, Sequence[Outcomes]], str | None]  # of an agent and the outcomes of all phases before
Phase = str | Sequence[str | None] | Prompts


async def run_phases(
    agents: Iterable[Talker], phases: Iterable[Phase], *, timeout: float = PATIENCE
) -> tuple[Outcomes, ...]:
    """Let agents work in phases; none begins one before all have done with the one before. Return all outcomes.

    A phase is a prompt for all, a list with a prompt for each agent, in their order, or a function that returns the
    prompt for an agent. Who has none is skipped there, and waits for the others. Who fails, or takes longer than
    `timeout` virtual seconds, is skipped in all that follows. Each remembers its own phases until the last one ends.

        def review(agent, done):
            return f"Review: {done[0].results}"

        analyses, reviews = await run_phases([ann, bob], [["Analyse sales.", "Analyse costs."], review])
    """
    everyone, plan = talkers(agents), _plan(phases)
    require.positive("timeout", timeout)
    names = [one.name for one in everyone]
    if len(set(names)) < len(names):
        raise InvalidValue(f"{names} has an agent twice: one agent works on one prompt in each phase")
    if any(isinstance(phase, list) and len(phase) > len(names) for phase in plan):
        raise InvalidValue(f"there are more prompts than agents ({', '.join(names)}): add agents, or another phase")
    async with chaired(everyone, "phases") as chair:
        course = _Course(chair, everyone, plan, timeout)
        try:
            await together(map(course.walk, everyone))
        finally:
            for one in everyone:
                one.forget(chair.name)
    return course.done(len(plan))


class _Course:
    """The way of all agents through the phases."""

    def __init__(self, chair: Chair, agents: list[Talker], plan: list[Phase], timeout: float) -> None:
        self.chair, self.agents, self.plan, self.timeout = chair, agents, plan, timeout
        self.barrier = Barrier(chair.world, chair.name, len(agents))
        self.outcomes = [{one.name: Outcome(one.name, "skipped") for one in agents} for _ in plan]

    def done(self, phases: int) -> tuple[Outcomes, ...]:
        """Return the outcomes of the first phases."""
        return tuple(Outcomes(found.values()) for found in self.outcomes[:phases])

    async def walk(self, one: Talker) -> None:
        """Go with an agent from phase to phase, as far as it comes."""
        for number in range(len(self.plan)):
            outcome = self.outcomes[number][one.name] = await self._pass(number, one)
            if outcome.status == "failed":
                return self.barrier.leave(one)

    async def _pass(self, number: int, one: Talker) -> Outcome:
        """Do one phase, as soon as all others are there; return what became of it."""
        try:
            if number:
                await self._meet(one)
        except (AgentOffline, BarrierBroken) as error:  # it went while it waited
            return Outcome(one.name, "failed", error=error)
        phase = self.plan[number]
        if isinstance(phase, list):
            prompt = dict(zip(self.agents, phase, strict=False)).get(one)
        else:
            prompt = phase(one, self.done(number)) if callable(phase) else phase
        if prompt is None:
            return Outcome(one.name, "skipped")
        content = {"prompt": _text(prompt), "conversation": self.chair.name}
        return await outcome_of(one, ask(self.chair, one, self.timeout, **content))

    async def _meet(self, one: Talker) -> None:
        call_off = one.when_gone(partial(self.barrier.leave, one))  # called before the barrier would break for all
        try:
            await self.barrier.wait(one)
        finally:
            call_off()


def _plan(phases: Iterable[Phase]) -> list[Phase]:
    """Return the phases, their prompts checked; what functions return is checked when they have."""
    plan = [] if isinstance(phases, str) or not isinstance(phases, Iterable) else list(phases)
    if not plan:
        raise InvalidValue(f"the phases are {phases!r}: give a list, such as ['Analyse the outage.', review]")
    return [phase if callable(phase) else _texts(phase) for phase in plan]


def _texts(phase: str | Sequence[str | None]) -> str | list[str | None]:
    if isinstance(phase, list | tuple):
        return [None if prompt is None else _text(prompt) for prompt in phase]
    return _text(phase)


def _text(prompt: object) -> str:
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidValue(f"{prompt!r} is no prompt: give text, a list of texts, or a function that returns text")
    return prompt
