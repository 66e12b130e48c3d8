"""Agents that think: an ordinary masbook agent whose answers come from a model.

It is asked (`ask`, by call or by message) or told something (any message that it has no other handler for), and a
pydantic-ai agent does the thinking, with tools if it has any, in the time and by the seed of the world. Replace the
model with `model=`, see `find_model`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import BaseModel
from pydantic_ai import Agent as Thinker
from pydantic_ai import Tool
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import UsageLimits

from ..errors import InvalidValue, LimitReached, MasbookError, WorldError, describe
from ..runtime import require
from ..runtime.capability import Capability, capability
from ..runtime.message import Message, MessageType
from ..runtime.supervision import Supervision
from ..runtime.worker import current_worker
from .budget import Budget, Ledger, spending
from .model import ATTEMPTS, ObservedModel, find_model
from .problems import redact, translated
from .seal import stamp
from .talker import Talker
from .tools import FINAL, Watched

if TYPE_CHECKING:
    from ..runtime.agent import Agent
    from ..runtime.world import World

CALLS = 50  # of the model, for a task or conversation, unless `limits` says otherwise
REMEMBERED = 1000  # conversations; the oldest are forgotten
RETRIES = 3  # how often the model may mend an output that does not fit
Keep = Callable[[Any], None]


class LLMAgent(Talker):
    """An agent whose answers come from a model.

    Each `ask` is a task of its own and begins without a history, unless it continues a conversation by its name.
    `limits` bounds what a task or conversation may use, all agents in it together; `hops` how many answers it may be
    long; `timeout` is what one call of the model may take, in seconds, all its `attempts` included.

        analyst = world.spawn(LLMAgent("analyst", "You judge risks.", output_type=Risk))
        world.run(analyst.ask("The mail server is down."))
    """

    def __init__(
        self,
        name: str,
        instructions: str = "",
        *,
        model: str | Model | None = None,
        output_type: Any = str,
        tools: Sequence[Any] = (),
        toolsets: Sequence[AbstractToolset[Any]] = (),
        limits: UsageLimits | int = CALLS,
        hops: int = 20,
        timeout: float = 30.0,
        attempts: int = ATTEMPTS,
        settings: ModelSettings | None = None,
        **options: Any,
    ) -> None:
        """Give it a name, instructions, and perhaps a model, an output type and tools; `options` are those of Agent.

        A tool is a function, whose first parameter may be pydantic-ai's RunContext: `ctx.deps` is this agent. An int
        as `limits` is a number of calls; `settings` are pydantic-ai's, such as the temperature. UnknownModel,
        MissingKey, and InvalidValue for an output type without a schema.
        """
        super().__init__(name, output_type, **options)
        _check(name, instructions, output_type, tools, toolsets, settings)
        self.instructions = instructions
        if not isinstance(limits, UsageLimits):
            limits = UsageLimits(request_limit=require.whole("limits", limits))
        self.limits = limits
        self.hops = require.whole("hops", hops)
        self.model = ObservedModel(find_model(model), self, timeout=timeout, attempts=attempts)
        self.settings = settings
        vars(self)["offers"] = {**type(self).offers, "ask": _promising(type(self).offers["ask"], output_type)}
        try:
            self._thinker: Thinker[LLMAgent, Any] = Thinker(
                None,
                output_type=output_type,
                instructions=instructions or None,
                deps_type=LLMAgent,
                name=None,
                tools=list(tools),
                toolsets=list(toolsets),
                retries={"tools": limits.request_limit or 1000, "output": RETRIES},
                capabilities=[Watched()],
            )
        except Exception as error:
            what = f"output_type={output_type!r} or a tool cannot be described to a model"
            raise InvalidValue(f"{name}: {what}: {error}") from error
        _require_distinct(name, self._thinker.toolsets)

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world; a model that looks back at its end hears of it."""
        super().enter(world, parent, supervision)
        join = getattr(self.model.wrapped, "join", None)
        if join is not None:
            join(world)

    @capability
    async def ask(self, prompt: str, conversation: str | None = None) -> Any:
        """Return the model's answer to a prompt: text, or what `output_type` says.

        A `conversation` of that name is begun or continued. ModelError says what went wrong; LimitReached that the
        task has used up its calls.
        """
        _check_asked(prompt, conversation)
        return await self._think(prompt, conversation, Ledger.of(self.world).enter(self.handling()))

    @capability
    async def ask_in_parts(self, prompt: str, conversation: str | None = None) -> AsyncIterator[str]:
        """Yield the model's answer as it comes, piece by piece; for agents whose output is text."""
        _check_asked(prompt, conversation)
        budget = Ledger.of(self.world).enter(self.handling())
        async with aclosing(self._think_in_parts(prompt, conversation, budget)) as parts:
            async for text in parts:
                yield text

    async def on_message(self, message: Message) -> None:
        """Answer what it is told, in the conversation of the message, by telling the sender `text`, or `output`."""
        if message.type is not MessageType.TELL:
            return
        try:
            budget = Ledger.of(self.world).enter(message)
            output = await self._think(_text(message), f"message {message.conversation}", budget)
            content = {"text": output} if isinstance(output, str) else {"output": output}
            await self.tell(message.sender, message.topic, content)
        except MasbookError as error:
            worker = current_worker.get()
            if worker is None or isinstance(error, FINAL):
                raise
            worker.fail(error)

    async def on_stop(self) -> None:
        """Close the connections of the model; a subclass with an `on_stop` of its own calls this one too."""
        await self.model.close()

    async def _think(self, prompt: str | None, conversation: str | None, budget: Budget, form: Any = None) -> Any:
        """Run the pydantic-ai agent once, for a `form` if given; its messages become those of the conversation."""
        with self._exchange(conversation, budget) as (options, keep):
            result = await self._thinker.run(prompt, output_type=form, **options)
            keep(result)
        return result.output

    async def _think_in_parts(
        self, prompt: str | None, conversation: str | None, budget: Budget
    ) -> AsyncGenerator[str]:
        """Run the pydantic-ai agent once, and yield its text as it comes."""
        parts: asyncio.Queue[str | None] = asyncio.Queue()

        async def think() -> None:
            try:
                with self._exchange(conversation, budget) as (options, keep):
                    options["model_settings"] = {**(self.settings or {}), "request_timeout": self.model.timeout}
                    async with self._thinker.run_stream(prompt, **options) as result:
                        async for text in result.stream_text(delta=True, debounce_by=None):
                            parts.put_nowait(text)
                        keep(result)
            finally:
                parts.put_nowait(None)

        thinking = asyncio.create_task(think())  # of its own: who leaves the loop early leaves nothing half closed
        try:
            while (text := await parts.get()) is not None:
                yield text
            await thinking
        finally:
            thinking.cancel()
            await asyncio.wait([thinking])

    @contextmanager
    def _exchange(self, conversation: str | None, budget: Budget) -> Iterator[tuple[dict[str, Any], Keep]]:
        """Give the options of a run and what keeps its messages; end it with masbook's errors."""
        if asyncio.get_running_loop() is not self.world.loop:
            raise WorldError(f"nothing runs here in which {self.name} could think: write world.run(agent.ask(...))")
        began, facts = self.now, dict[str, Any](outcome="cancelled")
        history = [] if conversation is None else self.conversations.get(conversation, [])
        run = self.world.new_id("run")
        name = conversation or run
        options: dict[str, Any] = {"model": self.model, "deps": self, "usage": budget.usage}
        options |= {"usage_limits": self.limits, "model_settings": self.settings}
        options |= {"message_history": list(history), "run_id": run, "conversation_id": name}

        def keep(result: Any) -> None:
            self.messages = [] if conversation is None else self.conversations.setdefault(conversation, [])
            self.messages.extend(stamp(result.new_messages(), self.now))
            facts.update(outcome="completed", output=self.assistant[-1].content if self.assistant else None)
            while len(self.conversations) > REMEMBERED:
                del self.conversations[next(iter(self.conversations))]

        try:
            if budget.hops > self.hops:
                raise self._out_of(name, "hops", f"{self.hops} hops")
            with spending(budget):
                yield options, keep
        except Exception as error:
            problem = translated(error, self.model.wrapped, self.model.timeout)
            if isinstance(error, UsageLimitExceeded):
                problem = self._out_of(name, "usage", str(error).partition(". Consider")[0])
            facts.update(outcome="failed", error=redact(f"{type(problem).__name__}: {describe(problem)}"))
            if not isinstance(problem, MasbookError):
                raise
            raise copy(problem) from None  # without the way through pydantic-ai, which explains nothing
        finally:
            self.world.trace.record("run_ended", self.name, seconds=self.now - began, **facts)

    def _out_of(self, conversation: str, reason: str, limit: str) -> LimitReached:
        """Record that a conversation ends here, and return the error that says so."""
        facts = {"conversation": conversation, "reason": reason, "limit": limit}
        self.world.trace.record("conversation_stopped", self.name, **facts)
        return LimitReached(f"{self.name} ends the conversation: {limit}; raise its `hops` or `limits` to go on")


def _check(name: str, instructions: Any, output_type: Any, tools: Any, toolsets: Any, settings: Any) -> None:
    """Raise InvalidValue for what an LLMAgent cannot be made of, saying what to give instead."""
    if not isinstance(instructions, str):
        raise InvalidValue(f"the instructions of {name} are {instructions!r}: give text")
    if isinstance(output_type, str | BaseModel):
        raise InvalidValue(f"{name} has output_type={output_type!r}: give a type, such as int")
    if not isinstance(settings, Mapping | None):
        raise InvalidValue(f"the settings of {name} are {settings!r}: give a dict, such as {{'temperature': 0.0}}")
    for what, values in (("tools", tools), ("toolsets", toolsets)):
        if not isinstance(values, list | tuple):
            raise InvalidValue(f"the {what} of {name} are {values!r}: give a list of them")
    for one in tools:
        if not (callable(one) or isinstance(one, Tool)):
            raise InvalidValue(f"a tool of {name} is {one!r}: give a function; a toolset belongs into `toolsets`")
        if (
            inspect.isfunction(one)
            and inspect.getfullargspec(one).args[:1] == ["ctx"]
            and "ctx" not in one.__annotations__
        ):
            raise InvalidValue(f"the tool {one.__name__} of {name} has a `ctx` of no type: write ctx: RunContext")
    for toolset in toolsets:
        if not isinstance(toolset, AbstractToolset):
            raise InvalidValue(f"{name}: {toolset!r} is no toolset; write bus_tools() or capability_tools(agent)")


def _require_distinct(name: str, toolsets: Sequence[AbstractToolset[Any]]) -> None:
    """Raise InvalidValue if two tools have the same name, as far as is known before they are used."""
    known = Counter(tool for toolset in toolsets for tool in getattr(toolset, "tools", ()))
    for tool, number in known.items():
        if number > 1:
            which = f"{name}: {number} tools are called {tool!r}, and a model could not tell them apart"
            raise InvalidValue(f"{which}; give a toolset a prefix, such as capability_tools(agent, prefix='agent_')")


def _promising(ask: Capability, output_type: Any) -> Capability:
    """Return `ask` with the output type as its result: who asks by message gets that, not plain data."""
    if ask.function is not LLMAgent.ask or not (isinstance(output_type, type) or get_origin(output_type)):
        return ask

    @wraps(ask.function)
    async def promising(self: LLMAgent, prompt: str, conversation: str | None = None) -> Any:
        return await ask.function(self, prompt, conversation)

    promising.__annotations__ = {**ask.function.__annotations__, "return": output_type}
    return replace(ask, function=promising)


def _check_asked(prompt: str, conversation: str | None) -> None:
    require.text("the prompt", prompt)
    if conversation is not None:
        require.text("the conversation", conversation)


def _text(message: Message) -> str:
    """Return what a message says: its `text`, else all of it with its topic."""
    text = message.content.get("text")
    return text if isinstance(text, str) else f"{message.topic}: {json.dumps(message.content)}"
