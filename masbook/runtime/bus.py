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
    InvalidName,
    InvalidValue,
    MailboxFull,
    Undeliverable,
    UnknownRecipient,
)
from . import require
from .capability import Subscription
from .message import LARGEST, LEAST, SCALARS, FrozenDict, Message, MessageType, freeze
from .protocol import Protocol, ProtocolMonitor
from .requests import Requests
from .subscriptions import Subscriptions
from .trace import Event
from .voice import Voice
from .worker import current_worker

if TYPE_CHECKING:
    from .agent import Agent
    from .world import World

Check = Callable[[Message], None]
Interceptor = Callable[[Message], Message | None]
RoutingRule = Callable[[Message], str | Iterable[str] | None]

_new = tuple.__new__  # what a NamedTuple's own constructor calls, without the detour
ANSWERS = (MessageType.REPLY, MessageType.ERROR, MessageType.PART, MessageType.END)  # a tuple: enums hash slowly
_TO_MANY = (MessageType.PUBLISH, MessageType.BROADCAST, MessageType.SYSTEM)
_TO_ONE = frozenset(set(MessageType) - set(_TO_MANY))
_REQUEST, _REPLY = MessageType.REQUEST, MessageType.REPLY


class MessageBus:
    """Carries the messages of one world.

    At every step, for the messages counted once for each recipient:
    sent + duplicated = delivered + dropped + dead-lettered + in flight.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._trace = world.trace
        self._clock = world.clock
        self._faults = world.faults
        self._seams = False  # whether messages to one agent pass any check, interceptor, rule or listener
        self._agents: dict[str, Agent] = {}
        self._last_id = 0
        self._in_transit = 0
        self._checks: list[Check] = []
        self._interceptors: list[Interceptor] = []
        self._rules: list[RoutingRule] = []
        self._subscriptions = Subscriptions()
        self.requests = Requests(world, self)
        self.security: Any = None

    # Seams

    def check(self, check: Check) -> None:
        """Let `check(message)` see every message before it is sent; it raises to refuse it."""
        self._checks.append(check)
        self._seams = True

    def intercept(self, interceptor: Interceptor) -> None:
        """Let `interceptor(message)` return the message, a changed copy (also of its `delay`), or None to drop it."""
        self._interceptors.append(interceptor)
        self._seams = True

    def route(self, rule: RoutingRule) -> None:
        """Let `rule(message)` name further recipients, or the recipients of a name that no agent has."""
        self._rules.append(rule)
        self._seams = True

    # Directory and subscriptions

    def attach(self, agent: Agent) -> None:
        """Make the agent reachable and subscribe its `@on` methods."""
        self._agents[agent.name] = agent
        for subscription in agent.subscriptions():
            self.subscribe(agent, subscription)

    def check_subscriptions(self, agent: Agent) -> None:
        """Raise Refused if the security policy forbids one of the agent's `@on` methods."""
        for subscription, _ in agent.listeners if self.security is not None else ():
            self.security.check_subscription(agent.name, subscription.topic)

    def detach(self, agent: Agent) -> None:
        """Forget the agent's subscriptions; its name stays known, so that late mail is answered with the reason."""
        self._subscriptions.remove(agent)

    def agent(self, name: str) -> Agent | None:
        """Return the agent of that name, running or not."""
        try:
            return self._agents.get(name)
        except TypeError:  # a list of names, say
            raise InvalidName(f"{name!r} is no name: give that of one agent") from None

    def subscribe(self, agent: Agent, subscription: Subscription) -> None:
        """Enter a subscription; the security policy may refuse it."""
        if self.security is not None:
            self.security.check_subscription(agent.name, subscription.topic)
        wanted = subscription.filter
        if wanted and _TO_ONE.intersection(wanted.types()):
            self._subscriptions.listen(agent, subscription.topic, wanted)
            self._seams = True
        self._subscriptions.add(agent, subscription)
        described = None if wanted is None else repr(wanted)
        self._trace.record("subscribed", agent.name, topic=subscription.topic, filter=described)

    def unsubscribe(self, agent: Agent, topic: str) -> None:
        """End the agent's subscriptions to exactly that topic or glob."""
        self._subscriptions.remove(agent, topic)
        self._trace.record("unsubscribed", agent.name, topic=topic)

    def has_audience(self, topic: str) -> bool:
        """Return whether anybody has subscribed to the topic."""
        return bool(self._subscriptions.audience(topic))

    # Sending

    @property
    def next_id(self) -> int:
        """The number that the next message will have."""
        return self._last_id + 1

    def compose(
        self,
        sender: Voice,
        type: MessageType,
        to: str | None,
        topic: str,
        content: Mapping[str, Any],
        priority: int = 0,
        lifetime: float | None = None,
        conversation: int | None = None,
        request: Message | None = None,
    ) -> Message:
        """Return a new message from `sender`, with immutable content; `request` is the one it answers."""
        self._last_id = number = self._last_id + 1
        for value in content.values():
            kind = value.__class__
            if kind not in SCALARS or (kind is int and not LEAST < value < LARGEST):
                content = freeze(content)
                break
        now = self._clock()
        expires = math.inf if lifetime is None else now + require.positive("the time to live", lifetime)
        cause, begun, worker = None, request, current_worker.get()
        if worker is not None and worker.agent is sender:
            if (handling := worker.message) is not None:
                cause, begun = handling.id, request or handling
            elif not worker.live and request is None:
                raise AgentOffline(f"{sender.name} has stopped and says nothing more")
        message = _new(
            Message,
            (
                now,
                "sent",
                sender.name,
                number,
                type,
                to,
                topic,
                1,
                priority,
                cause,
                None if request is None else request.id,
                conversation or (number if begun is None else begun.conversation),
                FrozenDict(content),
                expires,
                0.0,
                None,
            ),
        )
        return message if self.security is None else self.security.sign(message)

    def post(self, *message: Any) -> asyncio.Future[None] | None:
        """Compose a message and send it: see `compose` and `send`."""
        return self.send(self.compose(*message))

    def inform(self, agent: Agent | None, topic: str, content: Mapping[str, Any]) -> None:
        """Send a system message from the world to one agent, or to everybody."""
        self.post(_System(), MessageType.SYSTEM, agent and agent.name, topic, content)

    def watch(self, protocol: Protocol) -> None:
        """Refuse messages that do not fit a protocol, from now on."""
        self.check(ProtocolMonitor(protocol, self._trace).check)

    def send(self, message: Message) -> asyncio.Future[None] | None:
        """Send a finished message; return the future to await where a mailbox has no room.

        Raises UnknownRecipient, Undeliverable, Refused or ProtocolViolation for a message to one recipient.
        """
        agent = self._agents.get(message.to)  # type: ignore[arg-type]
        if agent is None or self._seams:
            return self._send_through_seams(message, agent)
        self._trace.append(message)
        if self._faults is not None:
            return self._transmit(message, agent, True)
        return self._arrive(message, agent, True)

    def _send_through_seams(self, message: Message, agent: Agent | None) -> asyncio.Future[None] | None:
        """Send a message that has many recipients, or that checks, interceptors, rules or listeners want to see."""
        if agent is None and not isinstance(message.to, str | None):
            raise InvalidName(f"the recipient is {message.to!r}: give its name")
        for check in self._checks:
            check(message)
        passed: Message | None = message
        for interceptor in self._interceptors:
            passed = interceptor(message)
            if passed is None:
                break
            if not isinstance(passed, Message):
                raise InvalidValue(f"the interceptor returned {passed!r}: return the message, a changed copy, or None")
            message = passed
        require.not_negative("the delay of a message", message.delay)
        if agent is None or agent.name != message.to:  # an interceptor has readdressed it
            agent = self._agents.get(message.to)  # type: ignore[arg-type]
        message, recipients = self._recipients(message, agent)
        direct = message.type in _TO_ONE
        message = message._replace(copies=len(recipients) or int(direct))
        self._trace.append(message)
        if passed is None:
            for name in [recipient.name for recipient in recipients] or [message.to or ""] * direct:
                self._trace.record("dropped", name, message=message.id, reason="interceptor")
            return None
        if direct and not recipients:
            self.bury(message, message.to or "", "unknown recipient")
            raise UnknownRecipient(_nobody(message.to, self._agents))
        return self._distribute(message, recipients, direct)

    def _distribute(self, message: Message, recipients: list[Agent], direct: bool) -> asyncio.Future[None] | None:
        """Take a copy to each recipient; a full or stuck one costs the others nothing."""
        if direct:  # the addressee first, then those who only listen
            for listener in recipients[1:]:
                self._transmit(message, listener, False)
            return self._transmit(message, recipients[0], True)
        for agent in recipients:
            mailbox = agent.mailbox
            plain = self._faults is None and not message.delay and not message.priority
            if plain and agent.online and len(mailbox.usual) < mailbox.room:
                mailbox.usual.append(message)
                if agent._idle:
                    agent.wake()
            else:
                self._transmit(message, agent, False)
        return None

    def _transmit(self, message: Message, agent: Agent, direct: bool) -> asyncio.Future[None] | None:
        """Take a copy through the faults, or through its own delay; return the future to await for room."""
        delays = [message.delay] if self._faults is None else self._faults.strike(message, agent.name)
        late = [delay for delay in delays if delay > 0]
        for delay in late:
            self._trace.record("delayed", agent.name, message=message.id, seconds=delay)
            self._in_transit += 1
            self._world.loop.call_later(delay, self._arrive_late, message, agent)
        copies = len(delays) - len(late)
        for _ in range(copies - 1):  # doubles: the sender hears of the last copy only
            self._arrive(message, agent)
        return self._arrive(message, agent, direct) if copies else None

    def _recipients(self, message: Message, agent: Agent | None) -> tuple[Message, list[Agent]]:
        """Return who gets a copy: the addressee, the audience or everybody; those routed to; those who listen in.

        A name that no agent has is replaced by the first one that a routing rule gives for it.
        """
        routed = self._routed(message) if self._rules else []
        direct = message.type in _TO_ONE
        if direct and agent is None and routed:
            agent = routed[0]
            message = message._replace(to=agent.name)
        wait = self._world.waits.get(message.id)
        if wait is not None and agent is not None and wait.on != agent.name:
            self._world.waits[message.id] = wait._replace(on=agent.name)
        found: dict[Agent, None] = {}
        if agent is not None:
            found[agent] = None
        elif message.type is MessageType.PUBLISH:
            for listener, filters in self._subscriptions.audience(message.topic):
                if filters is None or any(wanted.matches(message) for wanted in filters):
                    found[listener] = None
            if self.security is not None:
                found = {listener: None for listener in found if self.security.may_hear(listener.name, message.topic)}
        elif not direct:
            found.update({agent: None for agent in self._agents.values() if agent.online and not agent.service})
        elif message.to not in self._agents:
            return message, []
        found.update(dict.fromkeys(routed))
        if direct:
            found.update(dict.fromkeys(self._subscriptions.listeners(message)))
        if not direct:
            found = {agent: None for agent in found if agent.name != message.sender}
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

    def _arrive_late(self, message: Message, agent: Agent) -> None:
        self._in_transit -= 1
        self._arrive(message, agent)

    def _arrive(self, message: Message, agent: Agent, direct: bool = False) -> asyncio.Future[None] | None:
        """Hand a copy over; where that is impossible it is a dead letter, and a direct sender gets the error."""
        if (message.reply_to is not None or message.type in ANSWERS) and message.to == agent.name:
            self.requests.settle(message, agent)
            return None
        if not agent.online:
            self.bury(message, agent.name, "offline")
            if direct:
                raise AgentOffline(f"{agent.name} takes no messages: {agent.why_offline()}")
            return None
        if message.type is _REQUEST and agent.answers_at_once(message):
            return None
        mailbox = agent.mailbox
        if len(mailbox.usual) >= mailbox.room:
            return self._overflow(message, agent, direct)
        if message.priority:
            mailbox.put(message)
        else:
            mailbox.usual.append(message)
        if agent._idle:
            agent.wake()
        return None

    def _overflow(self, message: Message, agent: Agent, direct: bool) -> asyncio.Future[None] | None:
        """Apply the policy of a full mailbox. Copies of publications never make the publisher wait."""
        mailbox = agent.mailbox
        if mailbox.policy == "drop_oldest":
            self.bury(mailbox.drop_oldest(), agent.name, "dropped for a newer message")
            mailbox.put(message)
        elif mailbox.policy == "block" and message.to is not None:
            wanted = direct and message.type is not _REQUEST  # who asks waits for the answer anyway
            room: asyncio.Future[None] | None = self._world.loop.create_future() if wanted else None
            mailbox.wait_in_line(message, room)
            self._trace.record("blocked", message.sender, message=message.id, to=agent.name)
            return room
        else:
            self.bury(message, agent.name, "mailbox full")
            if direct:
                raise MailboxFull(f"the mailbox of {agent.name} is full ({mailbox.capacity} messages)")
        return None

    def bury(self, message: Message, recipient: str, reason: str) -> None:
        """Make a message a dead letter; whoever waits for the answer to a dead request learns it at once."""
        self._trace.append((self._clock(), "dead", recipient, message.id, reason))
        if message.type is _REQUEST and message.to == recipient and reason != "expired":
            error = AgentOffline if reason in ("offline", "stopped", "crashed") else Undeliverable
            self.requests.fail(message.id, error(f"{recipient} did not get the request {message.topic!r}: {reason}"))

    # What the trace says

    @property
    def dead_letters(self) -> list[Event]:
        """The messages that reached nobody, each with the reason."""
        return list(self._trace.events("dead"))

    def history(self, limit: int = 100) -> list[Event]:
        """Return the last messages sent, the newest last; how far back depends on the mode of the trace."""
        sent = list(self._trace.events("sent"))
        return sent[max(0, len(sent) - require.whole("limit", limit, least=0)) :]

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


class _System(Voice):
    """The voice of the world itself."""

    name = "world"


def _nobody(name: str | None, agents: Mapping[str, Agent]) -> str:
    known = [name for name, agent in agents.items() if not agent.service]
    listed = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
    return f"nobody called {name!r} in this world; there are: {listed or 'no agents yet, spawn one'}"
