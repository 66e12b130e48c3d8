"""Agents: names with a mailbox, capabilities, and handlers, running in a world.

Write one by subclassing `Agent` and decorating coroutine methods with `@capability` and `@on`; `world.spawn` brings it
to life. An agent handles one message at a time unless it says `concurrency=n`. What happens when a handler fails is
decided here: an error while answering a request goes back to who asked; any other unhandled error crashes the agent,
and `Supervision` says what becomes of it then.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import (
    InvalidName,
    WorldError,
)
from . import require
from .capability import Capability, Subscription, capability, require_async
from .life import Life
from .mailbox import Mailbox, Policy
from .message import Filter, Message, MessageType, matches
from .subscriptions import CACHED
from .supervision import Supervision
from .worker import QUERIES, Worker, perform_told

if TYPE_CHECKING:
    from .world import World


class Agent(Life):
    """A member of the society.

    States: `idle`; `busy` while a handler runs; `error` after a crash, until a restart; `offline` before `spawn` and
    after `stop`. A stopped agent stays stopped, and the rest of its handler does not run.

        class Greeter(Agent):
            @capability
            async def greet(self, name: str) -> str:
                await self.sleep(1.0)
                return f"hello {name}"
    """

    service = False  # part of the world's furniture: gets no broadcasts, is not listed among the agents
    _world: World | None = None
    offers: ClassVar[dict[str, Capability]] = {}
    listeners: ClassVar[list[tuple[Subscription, str]]] = []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _collect(cls)

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = 1,
        capacity: int = 1000,
        policy: Policy = "block",
        tags: Iterable[str] = (),
        heartbeat: float | None = None,
    ) -> None:
        """Give the agent a name; `heartbeat` is the interval in virtual seconds at which it reports to the registry."""
        if not isinstance(name, str) or not name.strip():
            raise InvalidName(f"an agent called {name!r}: give it a name, such as 'worker_1'")
        if name == "world":
            raise InvalidName("'world' is the voice of the world itself; choose another name")
        super().__init__(Mailbox(capacity, policy))
        self.name = name
        self.concurrency = require.whole("concurrency", concurrency)
        self.tags = tuple(sorted(require.names("tags", tags)))
        self.heartbeat = None if heartbeat is None else require.positive("heartbeat", heartbeat)
        self._slow = 0.0  # virtual seconds that a fault adds to every message
        self._plans: dict[str, list[tuple[Callable[..., Awaitable[Any]], Filter | None]]] = {}
        self._subscribed: list[tuple[Subscription, Callable[..., Awaitable[Any]]]] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    async def sleep(self, seconds: float) -> None:
        """Wait for that many virtual seconds; InvalidValue if negative."""
        await asyncio.sleep(require.not_negative("the time to sleep", seconds))

    def subscribe(
        self,
        topic: str,
        handler: Callable[[Message], Awaitable[Any]],
        *,
        type: MessageType | tuple[MessageType, ...] | None = None,
        sender: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> None:
        """Call `handler` with each message on the topic from now on; the filter is that of `@on`."""
        require_async(handler, "subscribe")
        wanted = None if type is None and sender is None and content is None else Filter(type, sender, content)
        subscription = Subscription(topic, wanted)
        self.world.bus.subscribe(self, subscription)
        self._subscribed.append((subscription, handler))
        self._plans.clear()

    def unsubscribe(self, topic: str) -> None:
        """End all subscriptions to exactly that topic or glob."""
        self.world.bus.unsubscribe(self, topic)
        self._subscribed = [pair for pair in self._subscribed if pair[0].topic != topic]
        self._plans.clear()

    def note(self, text: str, **data: Any) -> None:
        """Write a remark into the trace."""
        self.world.trace.record("note", self.name, text=text, data=data)

    # What subclasses may define

    async def on_message(self, message: Message) -> None:
        """Handle what no capability and no `@on` method handles."""

    # What every agent answers

    @capability(cost=0.0)
    async def ping(self) -> str:
        """Answer `pong`: the agent is there."""
        return "pong"

    @capability(cost=0.0)
    async def status(self) -> dict[str, Any]:
        """Return state, load, messages waiting, and metrics."""
        waiting = len(self.mailbox)
        return {"name": self.name, "state": self.state, "load": self.load, "waiting": waiting, "metrics": self.metrics}

    @capability(cost=0.0)
    async def capabilities(self) -> dict[str, Any]:
        """Return what the agent can do: descriptions, schemas and costs by name."""
        return {
            name: {
                "description": offer.description,
                "cost": offer.cost,
                "input_schema": offer.input_schema,
                "output_schema": offer.output_schema,
            }
            for name, offer in self.offers.items()
            if name not in QUERIES
        }

    @capability(cost=0.0)
    async def info(self) -> dict[str, Any]:
        """Return who the agent is."""
        offers = [name for name in self.offers if name not in QUERIES]
        description = inspect.cleandoc(type(self).__doc__ or "").split("\n", 1)[0]
        kind = type(self).__name__
        return {
            "name": self.name,
            "type": kind,
            "description": description,
            "capabilities": offers,
            "tags": list(self.tags),
        }

    # What can be read of an agent

    @property
    def world(self) -> World:
        """The world it lives in; WorldError before `spawn`."""
        if self._world is None:
            raise WorldError(f"{self.name} is in no world yet; call world.spawn({self.name}) first")
        return self._world

    @property
    def unborn(self) -> bool:
        """Whether it has never been spawned."""
        return self._world is None

    @property
    def now(self) -> float:
        """The current instant, in virtual seconds."""
        return self.world.now

    @property
    def random(self) -> Random:
        """The agent's own stream of random numbers, derived from the seed and its name."""
        return self.world.random(self.name)

    @property
    def metrics(self) -> dict[str, int]:
        """Messages sent, received, handled and failed, crashes and restarts, counted from the trace."""
        kinds = {"sent": "sent", "received": "delivered", "handled": "handled", "failed": "failed"}
        kinds |= {"crashes": "crashed", "restarts": "restarted"}
        return {name: self.world.trace.count(kind, self.name) for name, kind in kinds.items()}

    def subscriptions(self) -> list[Subscription]:
        """Return what the agent listens to."""
        return [subscription for subscription, _ in self._subscribed]

    def handlers(self, topic: str) -> list[tuple[Callable[..., Awaitable[Any]], Filter | None]]:
        """Return the methods that a message on the topic is for, each with its filter; empty where there is none."""
        plan = self._plans.get(topic)
        if plan is None:
            plan = [(handler, sub.filter) for sub, handler in self._subscribed if matches(topic, sub.topic)]
            if topic in self.offers:
                plan.append((partial(perform_told, self), None))
            if not plan and (type(self) is Agent or type(self).on_message is not Agent.on_message):
                plan.append((self.on_message, None))
            if len(self._plans) > CACHED:
                self._plans.clear()
            self._plans[topic] = plan
        return plan

    # What the world and the bus call

    def check_place(self, world: World) -> None:
        """Raise an error if the agent cannot live in this world; nothing has been recorded of it then."""

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world and begin to live; `world.spawn` calls it."""
        self._world, self.parent, self.supervision = world, parent, supervision
        self._subscribed = [(subscription, getattr(self, method)) for subscription, method in self.listeners]
        self._begin()

    def answers_at_once(self, message: Message) -> bool:
        """Answer one of the queries that even a busy agent answers; return False for any other request."""
        if message.topic not in QUERIES or message.to != self.name or not self.responsive:
            return False
        worker = Worker(self)
        worker.message = message
        self._asides.append(worker)
        self.world.trace.append((self.world.clock(), "delivered", self.name, message.id))
        self.background(worker.answer_query(message))
        return True

    def cancel_request(self, request: int | None, sender: str) -> None:
        """Stop working on a request that its sender no longer wants, or take it out of the mailbox."""
        for worker in self._workers:
            if worker.message is not None and (worker.message.id, worker.message.sender) == (request, sender):
                return worker.cancel_request()
        return self.withdraw(request, sender, "cancelled")

    def withdraw(self, message: int | None, sender: str, reason: str) -> None:
        """Take a message of a sender that waits out of the mailbox: it becomes a dead letter."""
        for letter in self.mailbox.remove(message, sender):
            self.world.bus.bury(letter, self.name, reason)


def _collect(cls: type[Agent]) -> None:
    """Gather the capabilities and subscriptions of a class, those of its bases first."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    methods = [(name, getattr(cls, name)) for name in names if callable(getattr(cls, name, None))]
    cls.offers = {name: offer for name, method in methods if (offer := _offer(cls, name, method)) is not None}
    cls.listeners = [(sub, name) for name, method in methods for sub in getattr(method, "subscriptions", ())]
    for hook in ("on_start", "on_stop", "on_message"):
        require_async(getattr(cls, hook), f"{cls.__name__}.{hook}")
    for name in [*cls.offers, *(name for _, name in cls.listeners)]:
        if name in _RESERVED - QUERIES:
            raise InvalidName(f"{cls.__name__}.{name}: every agent has {name!r} for itself; call yours something else")


def _offer(cls: type[Agent], name: str, method: Any) -> Capability | None:
    """Return the capability that a method is; one that replaces a capability of a base is a capability too."""
    for base in cls.__mro__:
        declared: Capability | None = getattr(vars(base).get(name), "capability", None)
        if declared is not None:
            same = declared.function is method
            return declared if same else replace(declared, function=method, replaced=declared)
    return None


_RESERVED: frozenset[str] = frozenset()
_collect(Agent)
_RESERVED = frozenset(dir(Agent("reserved")))
