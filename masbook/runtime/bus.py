"""The message bus: who gets what, when, and what becomes of it.

Agents call it through `tell`, `request`, `publish`, `broadcast` and `stream`; a message passes the checks (security,
protocols), the interceptors, the routing rules and the faults before it reaches a mailbox. Every step is a row of the
trace, and the metrics are read from there. Each seam is a plain function: see `check`, `intercept` and `route`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import (
    AgentOffline,
    InvalidValue,
    MailboxFull,
    RequestCycle,
    RequestTimeout,
    Undeliverable,
    UnknownCapability,
    UnknownRecipient,
)
from .capability import Capability, Subscription
from .message import Filter, FrozenDict, Message, MessageType, freeze, matches
from .protocol import Protocol, ProtocolMonitor
from .stream import StreamBuffer
from .trace import Event
from .waits import Wait

if TYPE_CHECKING:
    from .agent import Agent
    from .world import World

Check = Callable[[Message], None]
Interceptor = Callable[[Message], Message | None]
RoutingRule = Callable[[Message], str | Iterable[str] | None]

_new_message = tuple.__new__
_ANSWERS = frozenset({MessageType.REPLY, MessageType.ERROR, MessageType.PART, MessageType.END})
_TO_ONE = frozenset({MessageType.TELL, MessageType.REQUEST, MessageType.HEARTBEAT, MessageType.CANCEL, *_ANSWERS})
_TELL, _PUBLISH, _REQUEST, _CANCEL = MessageType.TELL, MessageType.PUBLISH, MessageType.REQUEST, MessageType.CANCEL


class MessageBus:
    """Carries the messages of one world.

    At every step, for the messages counted once for each recipient:
    sent + duplicated = delivered + dropped + dead-lettered + in flight.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._trace = world.trace
        self._clock = world.clock
        self._agents: dict[str, Agent] = {}
        self._last_id = 0
        self._in_transit = 0
        self._checks: list[Check] = []
        self._interceptors: list[Interceptor] = []
        self._rules: list[RoutingRule] = []
        self._exact: dict[str, dict[Agent, list[Filter | None]]] = {}
        self._globs: list[tuple[str, Agent, Filter | None]] = []
        self._taps: list[tuple[str, Agent, Filter]] = []
        self._audience: dict[str, list[tuple[Agent, list[Filter] | None]]] = {}
        self.security: Any = None

    # Seams

    def check(self, check: Check) -> None:
        """Let `check(message)` see every message before it is sent; it raises to refuse it."""
        self._checks.append(check)

    def intercept(self, interceptor: Interceptor) -> None:
        """Let `interceptor(message)` return the message, a changed copy (also of its `delay`), or None to drop it."""
        self._interceptors.append(interceptor)

    def route(self, rule: RoutingRule) -> None:
        """Let `rule(message)` name further recipients, or the recipients of a name that no agent has."""
        self._rules.append(rule)

    # Directory and subscriptions

    def attach(self, agent: Agent) -> None:
        """Make the agent reachable and subscribe its `@on` methods."""
        self._agents[agent.name] = agent
        for subscription in agent.subscriptions():
            self.subscribe(agent, subscription)

    def detach(self, agent: Agent) -> None:
        """Forget the agent's subscriptions; its name stays known, so that late mail is answered with the reason."""
        for listeners in self._exact.values():
            listeners.pop(agent, None)
        self._globs = [glob for glob in self._globs if glob[1] is not agent]
        self._taps = [tap for tap in self._taps if tap[1] is not agent]
        self._audience.clear()

    def agent(self, name: str) -> Agent | None:
        """Return the agent of that name, running or not."""
        return self._agents.get(name)

    def subscribe(self, agent: Agent, subscription: Subscription) -> None:
        """Enter a subscription; the security policy may refuse it."""
        topic, wanted = subscription.topic, subscription.filter
        if self.security is not None:
            self.security.check_subscription(agent.name, topic)
        if wanted and _TO_ONE.intersection(wanted.types()):
            self._taps.append((topic, agent, wanted))
        if any(character in topic for character in "*?["):
            self._globs.append((topic, agent, wanted))
        else:
            self._exact.setdefault(topic, {}).setdefault(agent, []).append(wanted)
        self._audience.clear()
        self._trace.record("subscribed", agent.name, topic=topic, filter=None if wanted is None else repr(wanted))

    def unsubscribe(self, agent: Agent, topic: str) -> None:
        """End the agent's subscriptions to exactly that topic or glob."""
        self._exact.get(topic, {}).pop(agent, None)
        self._globs = [glob for glob in self._globs if glob[:2] != (topic, agent)]
        self._taps = [tap for tap in self._taps if tap[:2] != (topic, agent)]
        self._audience.clear()
        self._trace.record("unsubscribed", agent.name, topic=topic)

    def _audience_of(self, topic: str) -> list[tuple[Agent, list[Filter] | None]]:
        """Return the agents subscribed to a topic, each with the filters of which one must pass; None: no filter."""
        found: dict[Agent, list[Filter | None]] = {}
        for agent, filters in self._exact.get(topic, {}).items():
            found.setdefault(agent, []).extend(filters)
        for pattern, agent, wanted in self._globs:
            if matches(topic, pattern):
                found.setdefault(agent, []).append(wanted)
        audience = [(agent, None if None in filters else filters) for agent, filters in found.items()]
        self._audience[topic] = audience  # type: ignore[assignment]
        return audience  # type: ignore[return-value]

    def has_audience(self, topic: str) -> bool:
        """Return whether anybody has subscribed to the topic."""
        return bool(self._audience[topic] if topic in self._audience else self._audience_of(topic))

    # Sending

    def post(
        self,
        sender: Agent,
        type: MessageType,
        to: str | None,
        topic: str,
        content: Mapping[str, Any],
        priority: int = 0,
        lifetime: float | None = None,
        conversation: int | None = None,
        reply_to: Message | None = None,
        error: Exception | None = None,
    ) -> tuple[Message, asyncio.Future[None] | None]:
        """Make a message and send it; return it, and the future to await where the recipient's mailbox has no room."""
        now = self._clock()
        handling = sender.handling()
        self._last_id = number = self._last_id + 1
        if lifetime is not None and not lifetime > 0:
            raise InvalidValue(f"a lifetime of {lifetime!r} s: a message lives for more than 0 virtual seconds")
        message = _new_message(
            Message,
            (
                number,
                type,
                sender.name,
                to,
                topic,
                freeze(content),
                now,
                priority,
                math.inf if lifetime is None else now + lifetime,
                None if reply_to is None else reply_to.id,
                None if handling is None else handling.id,
                conversation or (reply_to or handling or _FIRST).conversation or number,
                () if handling is None else (*handling.chain, sender.name),
                0.0,
                None,
                error,
            ),
        )
        if self.security is not None:
            message = self.security.sign(sender, message)
        return message, self.send(message)

    def inform(self, agent: Agent | None, topic: str, content: Mapping[str, Any]) -> None:
        """Send a system message from the world to one agent, or to everybody."""
        self.post(_System(), MessageType.SYSTEM, agent and agent.name, topic, content)  # type: ignore[arg-type]

    def watch(self, protocol: Protocol) -> None:
        """Refuse messages that do not fit a protocol, from now on."""
        self.check(ProtocolMonitor(protocol, self._trace).check)

    def send(self, message: Message) -> asyncio.Future[None] | None:
        """Send a finished message; return the future to await where a mailbox has no room.

        Raises UnknownRecipient, Undeliverable, Refused or ProtocolViolation for a message to one recipient.
        """
        for check in self._checks:
            check(message)
        passed: Message | None = message
        for interceptor in self._interceptors:
            if passed is not None:
                message = passed
                passed = interceptor(message)
        message = passed or message
        agent = self._agents.get(message.to) if message.to is not None else None
        if agent is not None and not (self._rules or self._taps):
            recipients = [agent]
        else:
            message, recipients = self._recipients(message, agent)
        copies = len(recipients) or message.type in _TO_ONE
        self._trace.append(
            (
                self._clock(),
                "sent",
                message.sender,
                message.id,
                message.type,
                message.to,
                message.topic,
                int(copies),
                message.priority,
                message.cause,
                message.reply_to,
                message.conversation,
                message.content,
            )
        )
        if passed is None:
            for recipient in recipients:
                self._trace.record("dropped", recipient.name, message=message.id, reason="interceptor")
            return None
        if message.type in _TO_ONE and not recipients:
            self._bury(message, message.to or "", "unknown recipient")
            raise UnknownRecipient(_nobody(message.to, self._agents))
        return self._carry(message, recipients)

    def _recipients(self, message: Message, agent: Agent | None) -> tuple[Message, list[Agent]]:
        """Return who gets a copy: the addressee, the audience or everybody; those routed to; those who listen in.

        A name that no agent has is replaced by the first one that a routing rule gives for it.
        """
        routed = self._routed(message) if self._rules else []
        direct = message.type in _TO_ONE
        if direct and agent is None and routed:
            agent = routed[0]
            message = message._replace(to=agent.name)
        found: dict[Agent, None] = {}
        if agent is not None:
            found[agent] = None
        elif message.type is _PUBLISH:
            audience = self._audience.get(message.topic)
            for listener, filters in self._audience_of(message.topic) if audience is None else audience:
                if filters is None or any(wanted.matches(message) for wanted in filters):
                    found[listener] = None
        elif not direct:
            found.update({agent: None for agent in self._agents.values() if agent.online and not agent.service})
        elif message.to not in self._agents:
            return message, []
        found.update(dict.fromkeys(routed))
        for pattern, listener, wanted in self._taps if direct else ():
            if matches(message.topic, pattern) and wanted.matches(message):
                found[listener] = None
        if not direct:
            found.pop(self._agents.get(message.sender), None)  # type: ignore[call-overload]
        return message, list(found)

    def _routed(self, message: Message) -> list[Agent]:
        """Return whom the routing rules name."""
        found = []
        for rule in self._rules:
            names = rule(message) or ()
            for name in (names,) if isinstance(names, str) else names:
                if name not in self._agents:
                    raise UnknownRecipient(f"a routing rule chose {_nobody(name, self._agents)}")
                found.append(self._agents[name])
        return found

    def _carry(self, message: Message, recipients: list[Agent]) -> asyncio.Future[None] | None:
        """Take the copies to their mailboxes, through the faults; return a future to await, or raise why not."""
        faults = self._world.faults
        if faults is None and not message.delay:
            if len(recipients) == 1 and message.to is not None:
                return self._arrive(message, recipients[0], direct=True)
            for agent in recipients:
                self._arrive(message, agent)
            return None
        for agent in recipients:
            delays = (message.delay,) if faults is None else faults.strike(message, agent.name)
            for delay in delays:
                if delay > 0:
                    self._trace.record("delayed", agent.name, message=message.id, seconds=delay, reason="transit")
                    self._in_transit += 1
                    self._world.loop.call_later(delay, self._arrive_late, message, agent)
                else:
                    self._arrive(message, agent)
        return None

    def _arrive_late(self, message: Message, agent: Agent) -> None:
        self._in_transit -= 1
        self._arrive(message, agent)

    def _arrive(self, message: Message, agent: Agent, direct: bool = False) -> asyncio.Future[None] | None:
        """Hand a copy over; where that is impossible it is a dead letter, and a direct sender gets the error."""
        type = message.type
        if type in _ANSWERS and message.to == agent.name:
            return self._answer(message)
        if not agent.online:
            self._bury(message, agent.name, "offline")
            if direct:
                raise AgentOffline(f"{agent.name} is {agent.state} and takes no messages; restart it or ask another")
            return None
        if type is _CANCEL:
            self._trace.append((self._clock(), "delivered", agent.name, message.id))
            agent.cancel_request(message.reply_to)
            return None
        mailbox = agent.mailbox
        if mailbox.size >= mailbox.capacity or mailbox._line:
            return self._overflow(message, agent, direct)
        if type is _REQUEST and agent.answers_at_once(message):
            return None
        mailbox.put(message)
        if agent.free:
            agent.wake()
        return None

    def _overflow(self, message: Message, agent: Agent, direct: bool) -> asyncio.Future[None] | None:
        """Apply the policy of a full mailbox. Copies of publications never make the publisher wait."""
        mailbox = agent.mailbox
        if mailbox.policy == "drop_oldest":
            self._bury(mailbox.drop_oldest(), agent.name, "dropped for a newer message")
            mailbox.put(message)
        elif mailbox.policy == "block" and message.to is not None:
            room: asyncio.Future[None] | None = self._world.loop.create_future() if direct else None
            mailbox.wait_in_line(message, room)
            self._trace.record("blocked", message.sender, message=message.id, to=agent.name)
            return room
        else:
            self._bury(message, agent.name, "mailbox full")
            if direct:
                raise MailboxFull(f"the mailbox of {agent.name} is full ({mailbox.capacity} messages)")
        return None

    def _bury(self, message: Message, recipient: str, reason: str) -> None:
        """Make a message a dead letter; whoever waits for the answer to a dead request learns it at once."""
        self._trace.append((self._clock(), "dead", recipient, message.id, reason))
        if message.type is _REQUEST and message.to == recipient and reason != "expired":
            self._fail(message.id, Undeliverable(f"{recipient} did not get the request {message.topic!r}: {reason}"))

    def bury_all(self, messages: Iterable[Message], recipient: str, reason: str) -> None:
        """Make the messages dead letters: the recipient has stopped or crashed."""
        for message in messages:
            self._bury(message, recipient, reason)

    # Requests and answers

    def ask(
        self,
        sender: Agent,
        to: str,
        topic: str,
        content: Mapping[str, Any],
        timeout: float | None,
        priority: int,
        buffer: Callable[[Any], Any] | None = None,
    ) -> tuple[Message, Capability | None, asyncio.Future[None] | None]:
        """Send a request whose answer arrives in `world.waits`; return it, the capability asked for, and the room.

        Raises UnknownRecipient, UnknownCapability or RequestCycle at once.
        """
        if timeout is not None and not timeout > 0:
            raise InvalidValue(f"a time-out of {timeout!r} s: give more than 0 virtual seconds, or None")
        agent = self._agents.get(to)
        capability = None
        if agent is not None:
            capability = agent.offers.get(topic)
            if capability is None:
                raise UnknownCapability(f"{to} cannot {topic!r}; it can {', '.join(agent.offers)}")
            handling = sender.handling()
            if handling is not None:
                chain = (*handling.chain, sender.name)
                if chain.count(to) >= agent.concurrency:
                    path = " -> ".join((*chain[chain.index(to) :], to))
                    raise RequestCycle(f"{path}: {to} would wait for itself; use `tell`, or give it concurrency=2")
        loop, waits = self._world.loop, self._world.waits
        number = self._last_id + 1
        future = loop.create_future() if buffer is None else buffer(loop)
        timer = None if timeout is None else loop.call_later(timeout, self._time_out, number, sender.name, to, topic)
        waits[number] = Wait(sender.name, f"the reply to {topic!r}", to, self._clock(), future, timer)
        try:
            message, room = self.post(sender, _REQUEST, to, topic, content, priority, timeout)
        except BaseException:
            waits.end(number)
            raise
        return message, capability, room

    def _time_out(self, request: int, sender: str, to: str, topic: str) -> None:
        seconds = self._clock() - self._world.waits[request].since
        self._trace.record("timed_out", sender, message=request, to=to, topic=topic, seconds=seconds)
        self._fail(request, RequestTimeout(f"no reply from {to} to {topic!r} (message {request}) in {seconds:g} s"))

    def _fail(self, request: int, error: Exception) -> None:
        wait = self._world.waits.get(request)
        if wait is not None and wait.future is not None and not wait.future.done():
            wait.future.set_exception(error)
            if isinstance(wait.future, asyncio.Future):
                wait.future.exception()  # it may never be awaited: who asked may have got the error at once

    def _answer(self, message: Message) -> None:
        """Hand an answer to whoever waits for it; too late, it wakes nobody."""
        wait = self._world.waits.get(message.reply_to)
        future = None if wait is None else wait.future
        if future is None or future.done():
            return self._bury(message, message.to or "", "late")
        self._trace.append((self._clock(), "delivered", message.to, message.id))
        if isinstance(future, StreamBuffer):
            future.put(message)
        elif message.error is not None:
            future.set_exception(message.error)
        else:
            future.set_result(message.content["result"])
        return None

    # What the trace says

    @property
    def dead_letters(self) -> list[Event]:
        """The messages that reached nobody, each with the reason."""
        return list(self._trace.events("dead"))

    def history(self, limit: int = 100) -> list[Event]:
        """Return the last messages sent, the newest last; how far back depends on the mode of the trace."""
        return list(self._trace.events("sent"))[-limit:]

    @property
    def in_flight(self) -> int:
        """How many messages are on their way or wait in a mailbox, one for each recipient."""
        return self._in_transit + sum(len(agent.mailbox) for agent in self._agents.values())

    def accounting(self) -> dict[str, int]:
        """Return what became of the messages so far; `missing` is 0 unless the bus has lost or invented one."""
        count = self._trace.count
        book = {
            "sent": count("copies"),
            "duplicated": count("duplicated"),
            "delivered": count("delivered"),
            "dropped": count("dropped"),
            "dead": count("dead"),
            "in_flight": self.in_flight,
        }
        outcome = book["delivered"] + book["dropped"] + book["dead"] + book["in_flight"]
        return {**book, "missing": book["sent"] + book["duplicated"] - outcome}

    def metrics(self) -> dict[str, int]:
        """Return the counts of everything the bus has recorded, in messages."""
        kinds = ("handled", "failed", "cancelled", "delayed", "timed_out", "blocked", "refused", "violated")
        return {"messages": self._trace.count("sent"), **self.accounting(), **{k: self._trace.count(k) for k in kinds}}


class _System:
    """The voice of the world itself."""

    name = "world"

    @staticmethod
    def handling() -> None:
        return None


_FIRST = Message(0, MessageType.SYSTEM, "", None, "", FrozenDict(), 0.0)


def _nobody(name: str | None, agents: Mapping[str, Agent]) -> str:
    known = [name for name, agent in agents.items() if not agent.service]
    listed = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
    return f"nobody called {name!r} in this world; there are: {listed or 'no agents yet, spawn one'}"
