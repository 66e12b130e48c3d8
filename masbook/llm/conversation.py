"""Conversations: agents that hear each other, as `a | b | c`.

What one participant says reaches the others over the bus; a reply comes from the model of who is asked for it.
Scenarios open conversations. Who speaks next is a plain function: pass another one to `turns`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import ModelResponse, TextPart

from ..errors import AgentOffline, InvalidValue, LimitReached, MasbookError, RequestCycle, WorldError, describe
from ..runtime import require
from ..runtime.message import Message
from .budget import Budget, Spent
from .outcomes import PATIENCE, Chair, Outcome, Outcomes, as_text, outcome_of, restored, world_of
from .seal import date
from .talker import Talker, around

Choice = Callable[["Conversation", int], "Talker | str"]


def in_turn(talk: Conversation, turn: int) -> Talker:
    """Choose who speaks next: the participants, one after the other."""
    return talk.participants[turn % len(talk.participants)]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was said: when, in virtual seconds, by whom, and who has not heard it (name: why)."""

    time: float
    speaker: str
    text: str
    missed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text}"


class Conversation:
    """Agents that hear each other, two at the least; open within its `async with` block.

    Each block is a conversation of its own, with a history of its own in each agent, forgotten at its end; the
    `transcript` stays. `limits` and `hops` of the agents hold for all model replies of a block together. An agent may
    be in several. `timeout` is how long a turn, or being heard, may take, in virtual seconds.

        async with researcher | analyst | presenter as talk:
            await researcher.say("I collected data on market trends.")
            answer = await analyst.reply()
    """

    def __init__(self, *participants: Talker) -> None:
        """Gather the participants; InvalidValue unless they are two LLMAgents or more, each of them once."""
        for one in participants:
            if not isinstance(one, Talker):
                raise InvalidValue(f"{one!r} cannot take part in a conversation: it is no LLMAgent")
        names = [one.name for one in participants]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InvalidValue(f"a conversation needs two or more different agents, not {names}: write a | b")
        self.participants = participants
        self.name, self.timeout = "", PATIENCE
        self.transcript: list[Utterance] = []
        self.taken: set[int] = set()  # the messages that have been taken in: a bus may deliver one twice
        self._chair: Chair | None = None
        self._usage, self._replies = Spent(), 0

    def __or__(self, other: Talker | Conversation) -> Conversation:
        """Return a conversation with more participants."""
        more = other.participants if isinstance(other, Conversation) else (other,)
        return Conversation(*self.participants, *more)

    def __repr__(self) -> str:
        return " | ".join(one.name for one in self.participants)

    def __str__(self) -> str:
        return "\n".join(map(str, self.transcript))

    async def __aenter__(self) -> Conversation:
        """Open it; WorldError or AgentOffline for a participant that is not there."""
        if self._chair is not None:
            raise InvalidValue(f"{self!r} is open already; write {self!r} again for another conversation")
        world = world_of(self.participants)
        if asyncio.get_running_loop() is not world.loop:
            raise WorldError(f"nothing runs here in which {self!r} could talk: write world.run(...)")
        for one in self.participants:
            one.check_online("take part")
        self.name = world.new_id("talk")
        self._chair = world.spawn(Chair(self.name))
        self.transcript, self.taken, self._usage, self._replies = [], set(), Spent(), 0
        for one in self.participants:
            one.talks[self.name] = self
            one.messages = one.conversations[self.name] = []
        around.set((*around.get(), self))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it: the participants forget it; what is still being said is not heard any more."""
        chair, self._chair = self._require_open(), None
        around.set(tuple(talk for talk in around.get() if talk is not self))
        for one in self.participants:
            one.talks.pop(self.name)
            one.forget(self.name)
        await chair.stop("the conversation is over")

    async def say(self, speaker: Talker | str, text: str) -> Utterance:
        """Let a participant say something; returns when all who are there have heard it.

        Who could not hear it is in `missed`, with the reason. AgentOffline if nobody could, or the speaker is gone.
        """
        one = self._member(speaker)
        require.text(f"what {one.name} says", text)
        self._require_open()
        one.check_online("speak")
        one.messages = one.conversations.setdefault(self.name, [])
        one.messages.append(ModelResponse([TextPart(text)], timestamp=date(one.now)))
        return await self._pass_on(one, text)

    async def reply(self, speaker: Talker | str, prompt: str | None = None) -> Any:
        """Return what the model of a participant says to what it has heard; the others hear it too.

        A `prompt` is for the speaker alone. ModelError where the model fails, LimitReached where the conversation has
        used up its calls or hops, AgentCrashed or AgentOffline where the speaker is gone.
        """
        one, chair = self._member(speaker), self._require_open()
        options: dict[str, Any] = {"timeout": self.timeout, "on_timeout": "cancel"}
        output = await chair.request(one.name, "take_turn", {"talk": self.name, "prompt": prompt}, **options)
        await self._pass_on(one, as_text(output))
        return restored(one, output)

    async def reply_in_parts(self, speaker: Talker | str, prompt: str | None = None) -> AsyncIterator[str]:
        """Yield a reply piece by piece; the others hear it when it is complete, and never if the loop is left."""
        one, chair = self._member(speaker), self._require_open()
        content, whole = {"talk": self.name, "prompt": prompt}, ""
        async with aclosing(chair.stream(one.name, "take_turn_in_parts", content, timeout=self.timeout)) as parts:  # type: ignore[type-var]
            async for part in parts:
                whole += part
                yield part
        await self._pass_on(one, whole)

    async def turns(self, number: int, choose: Choice = in_turn) -> AsyncIterator[Outcome]:
        """Yield the outcomes of that many replies as they come: one after the other, each heard by all.

        `choose(talk, turn)` says who is next, turns counted from 0. What a participant fails of is its outcome, and the
        others go on; LimitReached is raised. InvalidValue where nobody has said anything yet.
        """
        self._require_open()
        if not self.transcript:
            raise InvalidValue(f"nothing has been said in {self!r} yet: begin with `say`, or with a prompt to `reply`")
        for turn in range(require.whole("number", number, 0)):
            one = self._member(choose(self, turn))
            outcome = await outcome_of(one, self.reply(one))
            if isinstance(outcome.error, LimitReached):
                raise outcome.error
            yield outcome

    async def rounds(self, number: int = 1) -> Outcomes:
        """Let each participant reply in turn, that many times; return all outcomes."""
        turns = require.whole("rounds", number) * len(self.participants)
        return Outcomes([outcome async for outcome in self.turns(turns)])

    def spend(self) -> Budget:
        """Count one more reply; return the budget that all replies share."""
        self._replies += 1
        return Budget(self._usage, self._replies)

    async def _pass_on(self, speaker: Talker, text: str) -> Utterance:
        """Send the others what has been said, and wait until they have heard it."""
        self._require_open()
        utterance = Utterance(speaker.now, speaker.name, text)
        content = {"talk": self.name, "text": text, "number": len(self.transcript)}
        self.transcript.append(utterance)
        others = [one for one in self.participants if one is not speaker]
        errors = await self._deliver(speaker, others, content)
        found = [(one.name, error) for one, error in zip(others, errors, strict=True) if error is not None]
        utterance.missed.update({name: f"{type(error).__name__}: {describe(error)}" for name, error in found})
        if len(utterance.missed) == len(others):
            raise AgentOffline(f"nobody has heard {speaker.name} in {self.name}: {utterance.missed}; restart them")
        return utterance

    async def _deliver(
        self, speaker: Talker, others: list[Talker], content: dict[str, Any]
    ) -> list[MasbookError | None]:
        """Send each of the others its copy, all in one instant, so that speakers are heard everywhere in one order.

        Return for each None once it has heard it, or the error that kept it from that. Who waits for the speaker itself
        is told, and hears it later.
        """
        requests = speaker.world.bus.requests
        sent: list[Message] = []
        copies: list[asyncio.Future[None] | MasbookError] = []
        try:
            for one in others:
                future: asyncio.Future[None] = speaker.world.loop.create_future()
                try:
                    sent.append(requests.ask(speaker, one.name, "hear", content, self.timeout, 0, future)[0])
                    copies.append(future)
                except RequestCycle:
                    await speaker.tell(one.name, "hear", content)
                    future.set_result(None)
                    copies.append(future)
                except MasbookError as error:
                    copies.append(error)
            return [copy if isinstance(copy, MasbookError) else await _settled(copy) for copy in copies]
        finally:
            for message in sent:
                requests.end(message)

    def _member(self, speaker: Talker | str) -> Talker:
        for one in self.participants:
            if one is speaker or one.name == speaker:
                return one
        raise InvalidValue(f"{speaker!r} takes no part in {self!r}")

    def _require_open(self) -> Chair:
        if self._chair is None:
            raise InvalidValue(f"{self!r} is not open: write `async with {self!r} as talk`")
        return self._chair


async def _settled(heard: asyncio.Future[None]) -> MasbookError | None:
    """Wait for the answer; return the error that comes in its place, if one does."""
    try:
        await heard
    except MasbookError as error:
        return error
    return None
