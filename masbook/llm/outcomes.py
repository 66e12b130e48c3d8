"""Agents one after the other, `pipeline`, or side by side, `fan_out`: every outcome is kept, failures among them.

Scenarios call them; `Conversation` reports its turns in the same form.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, PydanticUserError, StringConstraints, TypeAdapter

from ..errors import InvalidValue, WorldError
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.message import freeze
from .talker import Talker
from .tools import FINAL

if TYPE_CHECKING:
    from ..runtime.world import World

T = TypeVar("T")
Form = TypeVar("Form", bound=BaseModel)
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]  # for a field that must say something
PATIENCE = 120.0  # virtual seconds that one task of an agent may take


class Chair(Agent):
    """Who asks the agents in turn; it says nothing itself."""

    service = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a turn, a stage or a branch: its output, or its error; `skipped` ones have neither."""

    agent: str
    status: Literal["completed", "failed", "skipped"]
    output: Any = None
    error: Exception | None = None
    seconds: float = 0.0


class Outcomes(tuple[Outcome, ...]):
    """All outcomes, in the order of the agents asked: those that failed or were skipped are among them."""

    __slots__ = ()

    @property
    def results(self) -> list[Any]:
        """The outputs of those that completed."""
        return [one.output for one in self if one.status == "completed"]

    @property
    def failures(self) -> list[Outcome]:
        """Those that failed or were skipped."""
        return [one for one in self if one.status != "completed"]

    @property
    def success_rate(self) -> float:
        """The share that completed; of nothing, NaN."""
        return len(self.results) / len(self) if self else math.nan

    @property
    def output(self) -> Any:
        """The last output; the first error is raised if there is one."""
        for one in self:
            if one.error is not None:
                raise one.error
        return self[-1].output


async def pipeline(agents: Iterable[Agent], prompt: str, *, timeout: float = PATIENCE) -> Outcomes:
    """Ask the agents one after the other: each works on what the one before it has made; return all outcomes.

    Where one fails, or takes longer than `timeout` virtual seconds, the rest is skipped. What is no text is passed on
    as JSON. `outcomes.output` is the last output.
    """
    stages, outcomes = askable(agents), list[Outcome]()
    require.text("the prompt", prompt)
    require.positive("timeout", timeout)
    async with chaired(stages, "pipeline") as chair:
        for one in stages:
            if outcomes and outcomes[-1].status != "completed":
                outcomes.append(Outcome(one.name, "skipped"))
                continue
            outcomes.append(await outcome_of(one, ask(chair, one, timeout, prompt=prompt)))
            prompt = as_text(outcomes[-1].output)
    return Outcomes(outcomes)


async def fan_out(
    tasks: Iterable[Agent | tuple[Agent, str]], prompt: str | None = None, *, timeout: float = PATIENCE
) -> Outcomes:
    """Ask agents at the same time, all of them the same, or each its own as (agent, prompt); return all outcomes.

    Each may take `timeout` virtual seconds. One that fails costs the others nothing.
    """
    pairs = [task if isinstance(task, tuple) and len(task) == 2 else (task, prompt) for task in listed(tasks)]
    agents = askable([one for one, _ in pairs])
    require.positive("timeout", timeout)
    for one, text in pairs:
        if not isinstance(text, str) or not text.strip():
            raise InvalidValue(f"{one.name} is asked {text!r}: write fan_out([...], prompt), or (agent, prompt) pairs")
    async with chaired(agents, "fan-out") as chair:
        asked = [outcome_of(one, ask(chair, one, timeout, prompt=text)) for one, text in pairs if text is not None]
        return Outcomes(await together(asked))


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at the same time; a mistake in one of them ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as mistakes:
        raise mistakes.exceptions[0] from None
    return [task.result() for task in tasks]


async def filled(chair: Chair, agent: Talker, form: type[Form], prompt: str, timeout: float) -> Form:
    """Return what an agent answers in a form, whatever its own output type; it is told to stop when the time is up."""
    chair.world.named["form", form.__name__] = form
    content = {"prompt": prompt, "form": form.__name__}
    return form.model_validate(
        await chair.request(agent.name, "fill_in", content, timeout=timeout, on_timeout="cancel")
    )


async def outcome_of(agent: Agent, work: Awaitable[Any]) -> Outcome:
    """Await what an agent does; what it fails of becomes its outcome, mistakes of whoever wrote this do not."""
    since = agent.now
    try:
        output = await work
    except FINAL:
        raise
    except Exception as error:
        return Outcome(agent.name, "failed", error=error, seconds=agent.now - since)
    return Outcome(agent.name, "completed", output, seconds=agent.now - since)


def as_text(output: Any) -> str:
    """Return an output as text: as it is, or as JSON."""
    return output if isinstance(output, str) else json.dumps(freeze(output), ensure_ascii=False)


def restored(agent: Agent, output: Any) -> Any:
    """Return an output that has travelled as plain data in the type that the agent promises, where that is a type."""
    try:
        return TypeAdapter(getattr(agent, "output_type", Any)).validate_python(output)
    except PydanticUserError:  # one of several types, say
        return output


def world_of(agents: Sequence[Agent]) -> World:
    """Return the world that all agents live in; WorldError if there is none."""
    world = agents[0].world
    for one in agents:
        if one.world is not world:
            raise WorldError(f"{agents[0].name} and {one.name} live in different worlds; spawn them in one")
    return world


def listed(agents: Iterable[T]) -> list[T]:
    """Return what is given as a list; InvalidValue for a single agent, say."""
    if not isinstance(agents, Iterable) or isinstance(agents, str):
        raise InvalidValue(f"{agents!r} is no list: give a list of LLMAgents")
    return list(agents)


def askable(agents: Iterable[Agent]) -> list[Agent]:
    """Return the agents to be asked; InvalidValue where there are none, or some that have no `ask`, as Pools have."""
    found = listed(agents)
    for one in found:
        if not isinstance(one, Agent) or "ask" not in one.offers:
            raise InvalidValue(f"{one!r} cannot be asked: it is no LLMAgent, nor a Pool of them")
    if not found:
        raise InvalidValue("nobody to ask: give one LLMAgent at least")
    return found


def talkers(agents: Iterable[Talker]) -> list[Talker]:
    """Return the agents to be asked; InvalidValue where there are none, or others than LLMAgents among them."""
    found = listed(agents)
    for one in askable(found):
        if not isinstance(one, Talker):
            raise InvalidValue(f"{one!r} cannot do this: it is no LLMAgent")
    return found


@asynccontextmanager
async def chaired(agents: Sequence[Agent], kind: str) -> AsyncIterator[Chair]:
    """Spawn a Chair for as long as the block lasts, its name a new one of that kind; WorldError outside of a run."""
    world = world_of(agents)
    if asyncio.get_running_loop() is not world.loop:
        raise WorldError(f"nothing runs here in which {agents[0].name} could answer: write world.run(...)")
    chair = world.spawn(Chair(world.new_id(kind)))
    try:
        yield chair
    finally:
        await chair.stop("all is done")


async def ask(chair: Chair, agent: Agent, timeout: float, **content: str) -> Any:
    """Return what an agent answers to the chair, to what its `ask` takes; it is told to stop when the time is up."""
    output = await chair.request(agent.name, "ask", content, timeout=timeout, on_timeout="cancel")
    return restored(agent, output)
