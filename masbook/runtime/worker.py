"""Workers: the loop that takes an agent's messages from its mailbox and handles them.

An agent has as many workers as messages it may work on at the same time; a worker without mail is parked and costs
nothing. Agents create them; nobody else calls them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, MasbookError, UnknownCapability, describe, explained
from .message import Message, MessageType

if TYPE_CHECKING:
    from .agent import Agent

_REQUEST = MessageType.REQUEST
QUERIES = frozenset({"ping", "status", "capabilities", "info"})  # answered at once, also by a busy agent
current_worker: contextvars.ContextVar[Worker | None] = contextvars.ContextVar("current_worker", default=None)


class Worker:
    """One pair of hands of an agent.

    `message` is what it has in hand, until that is handled, failed or cancelled; `since` when it took it, in virtual
    seconds. It is `live` until the agent stops or crashes.
    """

    __slots__ = ("_parked", "_task", "_unwanted", "agent", "awaits", "live", "message", "since")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._parked: asyncio.Future[None] | None = None  # resolved when there is mail
        self._task: asyncio.Task[None] | None = None
        self._unwanted = False  # the requester has cancelled
        self.awaits: dict[int, str] = {}  # the requests it waits for while it handles a message, and to whom
        self.live = True
        self.message: Message | None = None
        self.since = 0.0

    def wake(self) -> None:
        """Go through the mailbox, soon."""
        if self._parked is not None:
            self._parked.set_result(None)
        else:
            self._task = self.agent.world.loop.create_task(self._work(), name=self.agent.name)

    async def _work(self) -> None:
        """Handle messages, and park when there are none: the loop at the heart of every agent."""
        current_worker.set(self)
        agent, world, plans = self.agent, self.agent.world, self.agent._plans
        mailbox, usual, name, trace, clock = agent.mailbox, agent.mailbox.usual, agent.name, world.trace, world.clock
        try:
            while self.live:
                if agent._paused is not None:
                    await asyncio.shield(agent._paused)
                message = mailbox.take() if mailbox.special else usual.popleft() if usual else None
                if message is None:
                    self._parked = world.loop.create_future()
                    agent._idle.append(self)
                    await self._parked
                    continue
                self.since = now = clock()
                if message.expires <= now:
                    world.bus.bury(message, name, "expired")
                    continue
                self.message = message
                trace.append((now, "delivered", name, message.id))
                try:
                    if agent._slow:
                        await asyncio.sleep(agent._slow)
                    if message.type is _REQUEST and message.to == name:
                        await self.answer(message)
                    else:
                        for handler, wanted in plans.get(message.topic) or agent.handlers(message.topic):
                            if self.live and (wanted is None or wanted.matches(message)):
                                await handler(message)
                except asyncio.CancelledError as error:
                    if not self._unwanted or self._task is None:
                        raise _settled(error, name, message) from error
                    self._task.uncancel()
                    world.trace.record("cancelled", name, message=message.id)
                    self.message, self._unwanted = None, False
                if self.message is not None:
                    trace.append((clock(), "handled", name, message.id))
                    self.message = None
        except Exception as error:
            error = explained(error)
            self.fail(error)
            agent.crash(error)

    async def answer(self, message: Message) -> None:
        """Answer a request: with the result, the parts of a stream, or the error."""
        agent, bus = self.agent, self.agent.world.bus
        try:
            offer = agent.offers.get(message.topic)
            if offer is None:
                raise UnknownCapability(f"{agent.name} cannot {message.topic!r}; it can {', '.join(agent.offers)}")
            method, arguments = getattr(agent, message.topic), offer.validate(message.content)
            if offer.streams:
                await self._produce(message, method(**arguments))
            else:
                result = await method(**arguments)
                if self.message is not None:
                    bus.requests.answer(agent, message, {"result": result})
        except (Exception, asyncio.CancelledError) as raised:
            error = explained(_settled(raised, agent.name, message))  # type: ignore[arg-type]
            if isinstance(error, asyncio.CancelledError):
                raise
            error.add_note(f"raised by {agent.name} while it answered {message.topic!r}")
            self.fail(error)
            bus.requests.answer_error(agent, message, error)

    async def _produce(self, message: Message, parts: Any) -> None:
        """Send the parts of a stream, never more than a window ahead of the reader."""
        agent, number = self.agent, 0
        waits, requests = agent.world.waits, agent.world.bus.requests
        async with contextlib.aclosing(parts):
            async for part in parts:
                requests.answer(agent, message, {"part": part, "number": number}, MessageType.PART)
                number += 1
                if message.id not in waits:
                    break
                self.awaits[message.id] = message.sender  # until the reader has caught up
                try:
                    wanted = await waits[message.id].future.room(number)
                finally:
                    self.awaits.pop(message.id, None)
                if not wanted:
                    break
        if self.message is not None:
            requests.answer(agent, message, {"parts": number}, MessageType.END)

    async def answer_query(self, message: Message) -> None:
        """Answer a question about the agent, beside its other work."""
        agent = self.agent
        await self.answer(message)
        agent._asides.remove(self)
        if self.message is not None:
            agent.world.trace.append((agent.world.clock(), "handled", agent.name, message.id))

    def awaited(self) -> list[Agent]:
        """Return the agents whose answers it waits for at this moment."""
        world = self.agent.world
        agents = [world.bus.agent(to) for number, to in self.awaits.items() if not world.waits[number].future.done()]
        return [agent for agent in agents if agent is not None]

    def fail(self, error: Exception) -> None:
        """Record that the message in hand has failed."""
        if self.message is not None:
            world, text = self.agent.world, f"{type(error).__name__}: {describe(error)}"
            world.trace.append((world.clock(), "failed", self.agent.name, self.message.id, text))
            self.message = None

    def cancel_request(self) -> None:
        """Stop working on the request in hand: nobody wants the answer."""
        if self._task is not None:
            self._unwanted = True
            self._task.cancel("cancelled")

    def dismiss(self, error: Exception, why: str) -> None:
        """End for good; who waits for an answer to the message in hand gets the error."""
        self.live = False
        message = self.message
        self.fail(error)
        if message is not None and message.type is _REQUEST and message.to == self.agent.name:
            self.agent.world.bus.requests.answer_error(self.agent, message, error)
        if self._task is not None:
            self._task.cancel(why)


def _settled(error: BaseException, name: str, message: Message) -> BaseException:
    """Return the error; where something that the handler awaited was cancelled, and not itself, one that says so."""
    task = asyncio.current_task()
    if not isinstance(error, asyncio.CancelledError) or task is None or task.cancelling():
        return error
    return MasbookError(
        f"{name} awaited something that was cancelled, in {message.topic!r}; catch CancelledError there"
    )


def wait_path(agent: Agent, worker: Worker, seen: tuple[str, ...] = ()) -> list[str] | None:
    """Return the agents through which `agent` waits for `worker` to finish; None if it could take a message before.

    An agent waits for it if each of its own workers is this one, or waits for an agent that does (the OR model of
    Knapp, Deadlock detection in distributed databases, 1987).
    """
    if agent.name in seen:
        return []
    path: list[str] | None = None
    for other in agent._workers:
        if other.message is None:
            return None
        if other is worker:
            onward: list[str] | None = []
        else:
            steps = (wait_path(next_agent, worker, (*seen, agent.name)) for next_agent in other.awaited())
            onward = next((step for step in steps if step is not None), None)
        if onward is None:
            return None
        path = [agent.name, *onward] if path is None else path
    return path


async def perform_told(agent: Agent, message: Message) -> None:
    """Run a capability that was told, not asked: there is no answer, and input that does not fit is a failure.

    Publications, and copies for those who listen in, are not orders and run nothing.
    """
    if message.to != agent.name:
        return
    offer = agent.offers[message.topic]
    try:
        arguments = offer.validate(message.content)
    except InvalidInput as error:
        if (worker := current_worker.get()) is not None:
            worker.fail(error)
        return
    if offer.streams:
        raise InvalidInput(f"{message.topic!r} streams its result to who asks; use `stream` instead of `tell`")
    await getattr(agent, message.topic)(**arguments)
