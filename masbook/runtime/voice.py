"""What agents say: the four ways to send a message, and their answers.

`tell` is fire-and-forget, `publish` and `broadcast` reach many, `request` waits for one answer, `stream` for several.
`Agent` inherits them; they call the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidValue, Undeliverable, UnknownCapability
from .message import Message, MessageType, check_key
from .stream import StreamBuffer

if TYPE_CHECKING:
    from .world import World

OnTimeout = Literal["leave", "cancel"]


class Voice:
    """The sending half of an agent; `name` and `world` come from the other half."""

    name: str

    @property
    def world(self) -> World:
        """The world it lives in."""
        raise NotImplementedError

    async def tell(
        self,
        to: str,
        topic: str,
        content: Mapping[str, Any] | None = None,
        /,
        *,
        priority: int = 0,
        ttl: float | None = None,
        conversation: int | None = None,
        **more: Any,
    ) -> None:
        """Send a message to one agent and go on; waits only where its mailbox is full and says `block`.

        `ttl` is how many virtual seconds the message is worth delivering. UnknownRecipient, UnknownCapability,
        AgentOffline and MailboxFull are raised at once.
        """
        bus = self.world.bus
        agent = bus.agent(to)
        if agent is not None and not (agent._plans.get(topic) or agent.handlers(topic)):
            raise UnknownCapability(f"{to} has no handler for {topic!r}; it can {', '.join(agent.offers)}")
        content = more if content is None else _merge(content, more)
        message = bus.compose(self, MessageType.TELL, to, topic, content, priority, ttl, conversation)
        room = bus.send(message)
        if room is not None:
            try:
                await self.world.wait(room, who=self.name, what=f"room in the mailbox of {to}", on=to)
            except asyncio.CancelledError:
                if agent is not None:
                    agent.withdraw(message.id, self.name, "withdrawn by its sender")
                raise

    async def publish(
        self,
        topic: str,
        content: Mapping[str, Any] | None = None,
        /,
        *,
        priority: int = 0,
        ttl: float | None = None,
        conversation: int | None = None,
        **more: Any,
    ) -> None:
        """Send a message to whoever has subscribed to the topic; a full mailbox there costs nobody else anything."""
        content = more if content is None else _merge(content, more)
        self.world.bus.post(self, MessageType.PUBLISH, None, topic, content, priority, ttl, conversation)

    async def broadcast(self, topic: str, content: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Send a message to every other agent."""
        content = more if content is None else _merge(content, more)
        self.world.bus.post(self, MessageType.BROADCAST, None, topic, content)

    async def request(
        self,
        to: str,
        capability: str,
        content: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = 30.0,
        priority: int = 0,
        on_timeout: OnTimeout = "leave",
        **more: Any,
    ) -> Any:
        """Ask an agent for a capability and return the result; an error in the callee is raised here, with its name.

        After `timeout` virtual seconds RequestTimeout is raised. The callee works on, and its reply is recorded as
        late, unless `on_timeout="cancel"` tells it to stop. Inputs whose names collide with these options go into
        `content`.
        """
        world = self.world
        future: asyncio.Future[Any] = world.loop.create_future()
        content = more if content is None else _merge(content, more)
        message, offer = world.bus.requests.ask(self, to, capability, content, timeout, priority, future)
        try:
            result = await future
        except (TimeoutError, asyncio.CancelledError):
            if on_timeout == "cancel":
                _cancel(self, message)
            raise
        finally:
            world.bus.requests.end(message)
        return result if offer is None else offer.restore(result)

    async def stream(
        self,
        to: str,
        capability: str,
        content: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = 30.0,
        **more: Any,
    ) -> AsyncIterator[Any]:
        """Yield the parts that a streaming capability produces; leaving the loop early stops the producer.

        RequestTimeout is raised when the next part takes longer than `timeout` virtual seconds.
        """
        world, buffer = self.world, StreamBuffer(self.world.loop)
        content = more if content is None else _merge(content, more)
        message, offer = world.bus.requests.ask(self, to, capability, content, timeout, 0, buffer)
        complete = False
        try:
            while (part := await world.bus.requests.in_time(message, buffer.next(), timeout)) is not None:
                value = part.content["part"]
                yield value if offer is None else offer.restore(value)
            complete = True
        finally:
            world.bus.requests.end(message)
            buffer.close()
            if not complete:
                _cancel(self, message)


def _cancel(agent: Voice, request: Message) -> None:
    """Tell whoever works on the request that nobody wants the answer any more; the trace says if that is too late."""
    with contextlib.suppress(Undeliverable):
        agent.world.bus.post(agent, MessageType.CANCEL, request.to, request.topic, {}, 0, None, None, request)


def _merge(content: Mapping[str, Any], more: dict[str, Any]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise InvalidValue(f"the content {content!r} has no names; write it as named fields, such as text={content!r}")
    return {check_key(key): value for key, value in (*content.items(), *more.items())}
