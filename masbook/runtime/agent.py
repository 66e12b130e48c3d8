"""Agents: names with a mailbox, capabilities, and handlers, running in a world.

Write one by subclassing `Agent` and decorating coroutine methods with `@capability` and `@on`; `world.spawn` brings it
to life. An agent handles one message at a time unless it says `concurrency=n`. What happens when a handler fails is
decided here: an error while answering a request goes back to who asked; any other unhandled error crashes the agent,
and `Supervision` says what becomes of it then.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import (
    AgentCrashed,
    AgentOffline,
    InvalidName,
    InvalidValue,
    WorldError,
)
from .capability import Capability, Subscription, capability
from .mailbox import Mailbox, Policy
from .message import Filter, Message, MessageType, matches
from .supervision import Supervision
from .voice import Voice
from .worker import Worker, current_worker, perform_told

if TYPE_CHECKING:
    from .world import World

State = Literal["idle", "busy", "error", "offline"]
QUERIES = frozenset({"ping", "status", "capabilities", "info"})  # answered at once, also by a busy agent


class Agent(Voice):
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
    offers: ClassVar[dict[str, Capability]] = {}
    _listeners: ClassVar[list[tuple[Subscription, str]]] = []

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
        if not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidValue(f"concurrency {concurrency!r}: a whole number of messages from 1 up")
        if heartbeat is not None and not heartbeat > 0:
            raise InvalidValue(f"a heartbeat every {heartbeat!r} s: give more than 0 virtual seconds, or None")
        self.name = name
        self.concurrency = concurrency
        self.tags = tuple(sorted(tags))
        self.heartbeat = heartbeat
        self.mailbox = Mailbox(capacity, policy)
        self.supervision = Supervision()
        self.parent: Agent | None = None
        self.online = False
        self.idle: list[Worker] = []  # those that could take a message now
        self.slow = 0.0  # virtual seconds that a fault adds to every message
        self.paused: asyncio.Future[None] | None = None  # done when a pause is over
        self._error: Exception | None = None
        self._workers: list[Worker] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.plans: dict[str, list[tuple[Callable[..., Awaitable[Any]], Filter | None]]] = {}
        self._subscribed: list[tuple[Subscription, Callable[..., Awaitable[Any]]]] = []
        self._heart: Any = None
        self._world: World | None = None

    async def sleep(self, seconds: float) -> None:
        """Wait for that many virtual seconds; InvalidValue if negative."""
        if not seconds >= 0:
            raise InvalidValue(f"sleep({seconds!r}): give 0 or more virtual seconds")
        await asyncio.sleep(seconds)

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
        wanted = None if type is None and sender is None and content is None else Filter(type, sender, content)
        subscription = Subscription(topic, wanted)
        self.world.bus.subscribe(self, subscription)
        self._subscribed.append((subscription, handler))
        self.plans.clear()

    def unsubscribe(self, topic: str) -> None:
        """End all subscriptions to exactly that topic or glob."""
        self.world.bus.unsubscribe(self, topic)
        self._subscribed = [pair for pair in self._subscribed if pair[0].topic != topic]
        self.plans.clear()

    def note(self, text: str, **data: Any) -> None:
        """Write a remark into the trace."""
        self.world.trace.record("note", self.name, text=text, data=data)

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine beside the mailbox, as long as the agent runs; its error crashes the agent."""
        context = contextvars.copy_context()
        context.run(current_worker.set, None)
        task = self.world.loop.create_task(self._guard(coroutine), name=self.name, context=context)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        return task

    async def _guard(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Exception as error:
            self.crash(error)

    # What subclasses may define

    async def on_start(self) -> None:
        """Do what comes before the first message, at spawn and after each restart."""

    async def on_stop(self) -> None:
        """Do what comes after the last message."""

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
    def now(self) -> float:
        """The current instant, in virtual seconds."""
        return self.world.now

    @property
    def random(self) -> Random:
        """The agent's own stream of random numbers, derived from the seed and its name."""
        return self.world.random(self.name)

    @property
    def state(self) -> State:
        """`idle`, `busy`, `error` or `offline`."""
        if self._error is not None:
            return "error"
        if not self.online:
            return "offline"
        return "busy" if len(self.idle) < len(self._workers) else "idle"

    @property
    def load(self) -> float:
        """Messages in work and waiting, for each message it can work on at once."""
        return (len(self._workers) - len(self.idle) + len(self.mailbox)) / self.concurrency

    @property
    def stalled(self) -> float:
        """For how many virtual seconds it has been at the message it has worked on longest."""
        now = self.now
        return max((now - worker.since for worker in self._workers if worker.message is not None), default=0.0)

    @property
    def metrics(self) -> dict[str, int]:
        """Messages sent, received, handled and failed, crashes and restarts, counted from the trace."""
        kinds = {"sent": "sent", "received": "delivered", "handled": "handled", "failed": "failed"}
        kinds |= {"crashes": "crashed", "restarts": "restarted"}
        return {name: self.world.trace.count(kind, self.name) for name, kind in kinds.items()}

    def subscriptions(self) -> list[Subscription]:
        """Return what the agent listens to."""
        return [subscription for subscription, _ in self._subscribed]

    def handling(self) -> Message | None:
        """Return the message being handled by whoever calls, if it is this agent."""
        worker = current_worker.get()
        return worker.message if worker is not None and worker.agent is self else None

    def handlers(self, topic: str) -> list[tuple[Callable[..., Awaitable[Any]], Filter | None]]:
        """Return the methods that a message on the topic is for, each with its filter; empty where there is none."""
        plan = self.plans.get(topic)
        if plan is None:
            plan = [(handler, sub.filter) for sub, handler in self._subscribed if matches(topic, sub.topic)]
            if topic in self.offers:
                plan.append((partial(perform_told, self), None))
            if not plan and (type(self) is Agent or type(self).on_message is not Agent.on_message):
                plan.append((self.on_message, None))
            self.plans[topic] = plan
        return plan

    # Life

    def start(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Begin to live in a world; `world.spawn` calls it."""
        self._world, self.parent, self.supervision = world, parent, supervision
        self._subscribed = [(subscription, getattr(self, method)) for subscription, method in self._listeners]
        world.bus.attach(self)
        world.registry.enter(self)
        self._begin()

    def _begin(self) -> None:
        self.online, self._error = True, None
        self._beat(self.now, 0)
        if type(self).on_start is Agent.on_start:
            self._open()
        else:
            self.background(self._prepare())

    def _beat(self, born: float, number: int) -> None:
        """Send a heartbeat to the registry at each multiple of the interval, as long as the agent runs."""
        if self.heartbeat is None:
            return
        if number and self.responsive:
            content = {"load": self.load, "stalled": self.stalled}
            self.world.bus.post(self, MessageType.HEARTBEAT, self.world.registry.name, "heartbeat", content)
        when = born + (number + 1) * self.heartbeat
        self._heart = self.world.loop.call_at(when, self._beat, born, number + 1)

    async def _prepare(self) -> None:
        await self.on_start()
        self._open()

    def _open(self) -> None:
        self._workers = [Worker(self) for _ in range(self.concurrency)]
        self.idle = list(reversed(self._workers))
        while self.idle and self.concurrency - len(self.idle) < len(self.mailbox):
            self.wake()

    def stop(self, reason: str = "stop") -> asyncio.Future[None]:
        """Stop at once, also in the middle of a handler; return a future that is done when `on_stop` is.

        Waiting messages become dead letters, and requests being answered end in AgentOffline for who asked.
        """
        by_itself = self.handling() is not None
        done = self.world.loop.create_future()
        if not self.online:
            done.set_result(None)
            return done
        self.world.trace.record("stopped", self.name, reason=reason)
        self._halt(AgentOffline(f"{self.name} has stopped"), "stopped")
        self._close("stopped")
        hook = self.world.loop.create_task(self.on_stop(), name=self.name)
        hook.add_done_callback(lambda task: self._stopped(task, done))
        if by_itself and self.supervision.restart == "always":
            self.supervision.schedule(self, self._restart)
        return done

    def _stopped(self, task: asyncio.Task[None], done: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.trace.record("crashed", self.name, error=type(error).__name__, message=str(error))
        if not done.done():
            done.set_result(None)

    def crash(self, error: Exception, restart_after: float | None = None) -> None:
        """Crash: what is in hand is lost; what waits is kept for a restart, or becomes dead letters if there is none.

        `restart_after` virtual seconds starts the agent again whatever its supervision says.
        """
        if not self.online:
            return
        self.world.trace.record("crashed", self.name, error=type(error).__name__, message=str(error))
        self._error = error
        self._halt(AgentCrashed(f"{self.name} crashed: {type(error).__name__}: {error}"), "crashed")
        if restart_after is not None:
            self.world.loop.call_later(restart_after, self._restart, 0, restart_after)
            return
        if self.supervision.schedule(self, self._restart):
            return
        self._close("crashed")
        self.world.escalate(self, error)

    def _halt(self, error: Exception, why: str) -> None:
        """End all work in hand; who waits for an answer gets the error."""
        workers, self._workers, self.idle = self._workers, [], []
        if self._heart is not None:
            self._heart.cancel()
        for worker in workers:
            worker.dismiss(error, why)
        for task in list(self._tasks):
            task.cancel(why)

    def _close(self, reason: str) -> None:
        """Leave the world: no subscriptions, no registration, nothing in the mailbox."""
        self.online = False
        self.world.bus.detach(self)
        self.world.registry.forget(self.name, reason)
        letters = self.mailbox.empty(AgentOffline(f"{self.name} has {reason}"))
        for message in letters:
            self.world.bus.bury(message, self.name, reason)

    def _restart(self, attempt: int, backoff: float) -> None:
        if self.online and self._error is None:
            return
        self.world.trace.record("restarted", self.name, attempt=attempt, backoff=backoff)
        if not self.online:
            self.world.bus.attach(self)
        self.world.registry.enter(self)
        self._begin()

    def restart(self) -> None:
        """Start again after a crash or a stop; the mailbox is kept after a crash."""
        self._restart(0, 0.0)

    def pause(self, seconds: float) -> None:
        """Take no messages and send no heartbeats for that many virtual seconds."""
        self.world.trace.record("paused", self.name, seconds=seconds)
        self.paused = self.world.loop.create_future()
        self.world.loop.call_later(seconds, self.paused.set_result, None)

    @property
    def responsive(self) -> bool:
        """Whether the agent runs: online, not crashed, and not paused."""
        return self.online and self._error is None and (self.paused is None or self.paused.done())

    # Work

    def wake(self) -> None:
        """Let an idle worker go through the mailbox."""
        self.idle.pop().wake()

    def answers_at_once(self, message: Message) -> bool:
        """Answer one of the queries that even a busy agent answers; return False for any other request."""
        if message.topic not in QUERIES or message.to != self.name or not self.responsive:
            return False
        self.background(Worker(self).answer_query(message))
        return True

    def cancel_request(self, request: int | None) -> None:
        """Stop working on a request that nobody wants any more, or take it out of the mailbox."""
        for worker in self._workers:
            if worker.message is not None and worker.message.id == request:
                return worker.cancel_request()
        return self.withdraw(request, "cancelled")

    def withdraw(self, message: int | None, reason: str) -> None:
        """Take a message that waits out of the mailbox: it becomes a dead letter."""
        for letter in self.mailbox.remove(message):
            self.world.bus.bury(letter, self.name, reason)


def _collect(cls: type[Agent]) -> None:
    """Gather the capabilities and subscriptions of a class, those of its bases first."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    methods = [(name, getattr(cls, name)) for name in names if callable(getattr(cls, name, None))]
    cls.offers = {name: method.capability for name, method in methods if hasattr(method, "capability")}
    cls._listeners = [(sub, name) for name, method in methods for sub in getattr(method, "subscriptions", ())]


_collect(Agent)
