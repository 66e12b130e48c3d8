"""The half of an `LLMAgent` that hears, speaks and remembers; the other half thinks.

`LLMAgent` inherits it, `Conversation` calls it. What it hears over the bus becomes what a user has said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_ai import ToolOutput
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart

from ..errors import AgentOffline, InvalidValue, ProtocolViolation
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.message import MessageType
from ..runtime.worker import current_worker
from .budget import Budget, Ledger
from .seal import stamp
from .texts import GO_ON

if TYPE_CHECKING:
    from .conversation import Conversation

OUTPUT = "final_result"  # how pydantic-ai begins the names of output tools, where they are not given
_ONCE = ("hear", "take_turn", "take_turn_in_parts")  # twice, they would spoil the history
around: ContextVar[tuple[Conversation, ...]] = ContextVar("the conversations around the code that runs", default=())


class Said(NamedTuple):
    """One turn of a conversation, as text."""

    content: str


class Talker(Agent):
    """Who takes part in conversations; it remembers them also when it restarts."""

    def __init__(self, name: str, output_type: Any, **options: Any) -> None:
        """Take part in no conversation yet."""
        super().__init__(name, **options)
        self.output_type = output_type
        self.talks: dict[str, Conversation] = {}  # those that are open, by name
        self.conversations: dict[str, list[ModelMessage]] = {}
        self.messages: list[ModelMessage] = []  # of the latest conversation

    def __or__(self, other: Talker | Conversation) -> Conversation:
        """Return a conversation of two, to be opened with `async with`."""
        from .conversation import Conversation  # here: a conversation is made of talkers

        return Conversation(self, *(other.participants if isinstance(other, Conversation) else (other,)))

    async def say(self, text: str) -> None:
        """Say something in the conversation around the call; returns when the others have heard it."""
        await self._talk().say(self, text)

    async def reply(self, prompt: str | None = None) -> Any:
        """Return what the model says to what was heard in the conversation around the call; the others hear it too."""
        return await self._talk().reply(self, prompt)

    def reply_in_parts(self, prompt: str | None = None) -> AsyncIterator[str]:
        """Yield a reply as it comes, piece by piece; the others hear it when it is complete."""
        return self._talk().reply_in_parts(self, prompt)

    @capability(cost=0.0)
    async def hear(self, talk: str, text: str, number: int = 0) -> None:
        """Take in what another one has said in a conversation; `number` counts what is said there, from 0."""
        message, worker = self.handling(), current_worker.get()
        if talk not in self.talks and worker is not None and message is not None and message.type is MessageType.TELL:
            return worker.fail(self._over(talk))  # it comes too late, which is nobody's fault
        self._require_in(talk)
        if not self._again(talk):
            self.remember(text, talk)

    @capability
    async def fill_in(self, prompt: str, form: str) -> Any:
        """Return the model's answer in the form of that name, a type in `world.named`, in place of `output_type`."""
        require.text("the prompt", prompt)
        wanted = self.world.named.get(("form", form))
        if wanted is None:
            raise InvalidValue(f"{self.name} knows no form {form!r}; put a type into world.named['form', {form!r}]")
        return await self._think(prompt, None, Ledger.of(self.world).enter(self.handling()), wanted)

    @capability
    async def take_turn(self, talk: str, prompt: str | None = None) -> Any:
        """Return the model's contribution to a conversation that this agent is in."""
        if self._again(talk):
            return None
        try:
            return await self._think(*self._turn(talk, prompt))
        finally:
            self._forget_over(talk)

    @capability
    async def take_turn_in_parts(self, talk: str, prompt: str | None = None) -> AsyncIterator[str]:
        """Yield the model's contribution to a conversation that this agent is in, piece by piece."""
        if self._again(talk):
            return
        try:
            async with aclosing(self._think_in_parts(*self._turn(talk, prompt))) as parts:
                async for part in parts:
                    yield part
        finally:
            self._forget_over(talk)

    def remember(self, text: str, conversation: str) -> None:
        """Add to a conversation what the agent has heard there, without an answer."""
        require.text("what is remembered", text)
        require.text("the conversation", conversation)
        said = stamp([ModelRequest([UserPromptPart(text)])], self.now)
        self.messages = self.conversations.setdefault(conversation, [])
        self.messages.extend(said)

    def forget(self, conversation: str) -> None:
        """Forget a conversation."""
        self.conversations.pop(conversation, None)

    @property
    def user(self) -> list[Said]:
        """What the agent has heard in the latest conversation."""
        parts = [part for message in self.messages for part in message.parts if isinstance(part, UserPromptPart)]
        return [Said(part.content if isinstance(part.content, str) else str(part.content)) for part in parts]

    @property
    def assistant(self) -> list[Said]:
        """What the agent has answered in the latest conversation; an output that is not text as JSON."""
        types = self.output_type if isinstance(self.output_type, list | tuple) else [self.output_type]
        named = [type.name for type in types if isinstance(type, ToolOutput)]
        answers = []
        for part in [part for message in self.messages for part in message.parts]:
            if isinstance(part, TextPart):
                answers.append(Said(part.content))
            elif isinstance(part, ToolCallPart) and (part.tool_name in named or part.tool_name.startswith(OUTPUT)):
                answers.append(Said(part.args_as_json_str()))
        return answers

    def check_online(self, what: str) -> None:
        """Raise AgentOffline, with the reason, if the agent is not there to do something."""
        if not self.online:
            raise AgentOffline(f"{self.name} cannot {what}: {self.why_offline()}")

    def _turn(self, talk: str, prompt: str | None) -> tuple[str | None, str, Budget]:
        """Return prompt, conversation and budget of a turn: without a prompt it is an answer to what was heard."""
        self._require_in(talk)
        heard = self.conversations.get(talk, [])
        if prompt is None and not heard:
            raise InvalidValue(f"nothing has been said in {talk} yet: begin with `say`, or give {self.name} a prompt")
        if prompt is None and isinstance(heard[-1], ModelResponse):
            prompt = GO_ON
        return prompt, talk, Ledger.of(self.world).enter(self.handling(), self.talks[talk].spend())

    def _again(self, talk: str) -> bool:
        """Return whether the message in hand has come before; it has failed then, and nothing answers it."""
        message, worker, conversation = self.handling(), current_worker.get(), self.talks.get(talk)
        if message is None or message.topic not in _ONCE or worker is None or conversation is None:
            return False  # called, perhaps from within other work
        if message.id not in conversation.taken:
            conversation.taken.add(message.id)
            return False
        worker.fail(ProtocolViolation(f"{self.name} has had this message of {talk} already"))
        return True

    def _require_in(self, talk: str) -> None:
        if talk not in self.talks:
            raise self._over(talk)

    def _over(self, talk: str) -> InvalidValue:
        return InvalidValue(f"{self.name} is not in the conversation {talk!r}; it may be over")

    def _forget_over(self, talk: str) -> None:
        if talk not in self.talks:
            self.forget(talk)

    def _talk(self) -> Conversation:
        """Return the conversation meant: that of the message in hand, else the innermost around the code that runs."""
        message = self.handling()
        inner = [talk for talk in around.get() if self.talks.get(talk.name) is talk] if message is None else []
        named = None if message is None else self.talks.get(message.content.get("talk", ""))
        if named is not None or inner:
            return named or inner[-1]
        if len(self.talks) == 1:
            return next(iter(self.talks.values()))
        where = f"in {', '.join(self.talks)}: write talk.say(...)" if self.talks else "in no conversation that is open"
        raise InvalidValue(f"{self.name} is {where}; open one with `async with {self.name} | other as talk`")

    async def _think(self, prompt: str | None, conversation: str | None, budget: Budget, form: Any = None) -> Any:
        raise NotImplementedError

    def _think_in_parts(self, prompt: str | None, conversation: str | None, budget: Budget) -> Any:
        raise NotImplementedError
