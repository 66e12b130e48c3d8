"""Requests and their answers: who waits for which, for how long, and what is raised when none comes.

The bus carries requests and answers like any other message; here the two are matched. A request that could only be
answered after itself is refused at once as a cycle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, MasbookError, RequestCycle, RequestTimeout, UnknownCapability, WorldError, describe
from . import require
from .capability import Capability
from .message import Message, MessageType
from .stream import StreamBuffer
from .voice import Voice
from .waits import Wait
from .worker import QUERIES, current_worker, wait_path

if TYPE_CHECKING:
    from .agent import Agent
    from .bus import MessageBus
    from .world import World

_REQUEST, _REPLY = MessageType.REQUEST, MessageType.REPLY


class Requests:
    """The requests of one world; those that wait for an answer are entered in `world.waits` by the message's id."""

    def __init__(self, world: World, bus: MessageBus) -> None:
        self._world, self._bus = world, bus
        self._errors: dict[int | None, Exception] = {}  # what failed requests raise, until the answer arrives

    def ask(
        self,
        sender: Voice,
        to: str,
        topic: str,
        content: Mapping[str, Any],
        timeout: float | None,
        priority: int,
        future: Any,
    ) -> tuple[Message, Capability | None]:
        """Send a request that `future` waits for; return it and the capability asked for.

        Raises UnknownRecipient, UnknownCapability or RequestCycle at once.
        """
        if timeout is not None:
            require.positive("timeout", timeout)
        if asyncio._get_running_loop() is not self._world.loop:
            raise WorldError(f"nothing runs here that could answer: write world.run({sender.name}.request(...))")
        agent = self._bus.agent(to)
        offer = None if agent is None else agent.offers.get(topic)
        buffered = isinstance(future, StreamBuffer)
        if agent is not None:
            self._check_offer(agent, offer, topic, buffered)
        message = self._bus.compose(sender, _REQUEST, to, topic, content, priority, timeout)
        number, waits = message.id, self._world.waits
        timer = None
        if timeout is not None and not buffered:
            timer = self._world.loop.call_later(timeout, self._time_out, number)
        waits[number] = tuple.__new__(Wait, (sender.name, topic, to, message.time, future, timer))
        try:
            if message.cause is not None and agent is not None and topic not in QUERIES:
                self._enter_wait(message, agent)
            self._bus.send(message)
        except BaseException:
            self.end(message)
            raise
        return message, offer

    def _check_offer(self, agent: Agent, offer: Capability | None, topic: str, buffered: bool) -> None:
        if offer is None:
            raise UnknownCapability(f"{agent.name} cannot {topic!r}; it can {', '.join(agent.offers)}")
        if offer.streams != buffered:
            how = "streams its answer: use `async for part in agent.stream(...)`"
            how = how if offer.streams else "answers once: use `await agent.request(...)`"
            raise InvalidValue(f"{topic!r} of {agent.name} {how}")

    def _enter_wait(self, message: Message, agent: Agent) -> None:
        """Note that the worker waits for the agent; RequestCycle if the agent waits for the worker already."""
        worker = current_worker.get()
        if worker is not None:
            path = wait_path(agent, worker)
            if path is not None:
                cycle = " -> ".join((*path, path[0]))
                raise RequestCycle(f"{cycle}: {message.to} would wait for itself; use `tell`, or more concurrency")
            worker.awaits[message.id] = agent.name

    def end(self, message: Message) -> None:
        """Forget who waits for the answer: it has come, or nobody wants it any more."""
        self._world.waits.end(message.id)
        self._errors.pop(message.id, None)
        worker = current_worker.get()
        if worker is not None:
            worker.awaits.pop(message.id, None)

    async def in_time(self, request: Message, step: Awaitable[Any], timeout: float | None) -> Any:
        """Await a step of a stream, and time the request out if that takes too long."""
        timer = None if timeout is None else self._world.loop.call_later(timeout, self._time_out, request.id)
        try:
            return await step
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self, request: int) -> None:
        wait = self._world.waits[request]
        if wait.future.done():
            return  # the answer came in this very instant
        seconds = self._world.clock() - wait.since
        self._world.trace.record("timed_out", wait.who, message=request, to=wait.on, topic=wait.what, seconds=seconds)
        text = f"no reply from {wait.on} to {wait.what!r} (message {request}) in {seconds:g} s"
        self.fail(request, RequestTimeout(text))

    def fail(self, request: int, error: Exception) -> None:
        """Raise an error in whoever waits for the answer."""
        wait = self._world.waits.get(request)
        if wait is not None and not wait.future.done():
            wait.future.set_exception(error)
            if isinstance(wait.future, asyncio.Future):
                wait.future.exception()  # it may never be awaited: who asked may have got the error at once

    def answer(self, agent: Agent, request: Message, content: Mapping[str, Any], type: MessageType = _REPLY) -> None:
        """Answer a request: with the result, a part of a stream, or its end."""
        self._bus.post(agent, type, request.sender, request.topic, content, 0, None, None, request)

    def answer_error(self, agent: Agent, request: Message, error: Exception) -> None:
        """Answer a request with an error: its name and text travel, the error itself is raised in the requester."""
        if request.id in self._world.waits:
            self._errors[request.id] = error
        content = {"error": type(error).__name__, "message": describe(error)}
        try:
            self.answer(agent, request, content, MessageType.ERROR)
        except MasbookError:  # a check refused it; who asked learns of the error all the same
            self.fail(request.id, error)

    def settle(self, message: Message, agent: Agent) -> None:
        """Hand an answer to whoever waits for it, or a cancellation to whoever works; too late, it wakes nobody."""
        if message.type is MessageType.CANCEL:
            self._world.trace.append((self._world.clock(), "delivered", agent.name, message.id))
            return agent.cancel_request(message.reply_to, message.sender)
        wait = self._world.waits.get(message.reply_to)
        if wait is None or wait.future.done():
            return self._bus.bury(message, agent.name, "late")
        self._world.trace.append((self._world.clock(), "delivered", agent.name, message.id))
        if message.type is MessageType.ERROR:
            wait.future.set_exception(self._errors.pop(message.reply_to, None) or _rebuilt(message))
        elif message.type is _REPLY:
            wait.future.set_result(message.content.get("result"))
        else:
            wait.future.put(message)
        return None


def _rebuilt(message: Message) -> Exception:
    """Return an error that says what the message says: the error itself is not in this process."""
    return MasbookError(f"{message.content.get('error')}: {message.content.get('message')}")
