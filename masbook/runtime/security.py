"""Security: who may send what to whom, who may listen to what, and whether the sender is who it says.

A `Security` is a list of rules, the first that fits decides, and optionally signatures. Each agent has an identity, a
key derived from the world's seed and its name; agents sign what they send, and a message with another's name is
refused. To bring a policy of your own, add a check to the bus: a function that raises Refused.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import ForgedSender, Refused
from . import require
from .bus import ANSWERS
from .message import Message, MessageType, matches

if TYPE_CHECKING:
    from .world import World


@dataclass(frozen=True, slots=True)
class Rule:
    """Allow or deny an action; `sender`, `to` and `topic` are names or globs that match the whole text.

    Publications and broadcasts have no recipient and fit any `to`. Replies, heartbeats and system messages need no
    permission: the request did.
    """

    effect: Literal["allow", "deny"]
    sender: str = "*"
    to: str = "*"
    topic: str = "*"
    action: Literal["send", "subscribe"] = "send"

    def __post_init__(self) -> None:
        require.one_of("effect", self.effect, ("allow", "deny"))
        require.one_of("action", self.action, ("send", "subscribe"))

    def fits(self, action: str, sender: str, to: str | None, topic: str) -> bool:
        """Return whether the rule speaks about this action."""
        addressed = to is None or matches(to, self.to)
        return self.action == action and matches(sender, self.sender) and addressed and matches(topic, self.topic)


@dataclass(frozen=True, slots=True)
class Security:
    """The policy of a world: rules, what happens where none fits, and whether messages are signed."""

    rules: Sequence[Rule] = ()
    default: Literal["allow", "deny"] = "allow"
    signed: bool = False

    def __post_init__(self) -> None:
        require.one_of("default", self.default, ("allow", "deny"))

    def install(self, world: World) -> None:
        """Enforce the policy in a world; `World(security=...)` calls it."""
        guard = Guard(self, world)
        world.bus.security = guard
        world.bus.check(guard.check_message)


class Guard:
    """A policy at work in one world; every refusal is a row of the trace and a typed error."""

    def __init__(self, security: Security, world: World) -> None:
        self._security, self._world = security, world
        self._last: dict[str, int] = {}  # the last message of each sender: an older one is a replay

    def sign(self, message: Message) -> Message:
        """Return the message with its sender's signature, where the policy wants one."""
        return message._replace(signature=self._signature(message)) if self._security.signed else message

    def check_message(self, message: Message) -> None:
        """Raise ForgedSender or Refused for a message that must not be sent."""
        if self._security.signed and not hmac.compare_digest(message.signature or "", self._signature(message)):
            self._refuse("send", message.sender, message.to or message.topic, "forged sender")
            raise ForgedSender(f"the message {message.id} is not from {message.sender}: its signature does not fit")
        if self._security.signed and message.id <= self._last.get(message.sender, 0):
            self._refuse("send", message.sender, message.to or message.topic, "replayed")
            raise ForgedSender(f"the message {message.id} of {message.sender} has been sent before")
        self._last[message.sender] = message.id
        if message.type in ANSWERS and not self._was_asked(message):
            self._refuse("send", message.sender, message.to or message.topic, "was not asked")
            raise ForgedSender(f"{message.sender} was not asked {message.topic!r} by {message.to}, and cannot answer")
        if not self._needs_no_permission(message):
            self._check("send", message.sender, message.to, message.topic)

    def check_subscription(self, agent: str, topic: str) -> None:
        """Raise Refused for a subscription that the policy forbids."""
        self._check("subscribe", agent, None, topic)

    def _check(self, action: str, sender: str, to: str | None, topic: str) -> None:
        rule, effect = self._judge(action, sender, to, topic)
        if effect == "deny":
            reason = "no rule allows it" if rule is None else f"denied by {rule!r}"
            self._refuse(action, sender, to or topic, reason)
            raise Refused(f"{sender} may not {action} {topic!r}" + (f" to {to}" if to else "") + f": {reason}")

    def _needs_no_permission(self, message: Message) -> bool:
        """Return whether the message is an answer to who asked, a heartbeat to the registry, or the world's own."""
        if message.type is MessageType.SYSTEM:
            return message.sender == "world"
        if message.type is MessageType.HEARTBEAT:
            return message.to == self._world.registry.name
        return message.type in ANSWERS

    def _was_asked(self, message: Message) -> bool:
        wait = self._world.waits.get(message.reply_to)
        return wait is None or (wait.on, wait.who) == (message.sender, message.to)

    def may_hear(self, agent: str, topic: str) -> bool:
        """Return whether the agent may have a publication on the topic, whatever glob it has subscribed to."""
        return self._judge("subscribe", agent, None, topic)[1] == "allow"

    def _judge(self, action: str, agent: str, to: str | None, topic: str) -> tuple[Rule | None, str]:
        """Return the rule that decides, if any, and what it says; the world's own services need no permission."""
        if agent in ("world", self._world.registry.name):
            return None, "allow"
        rule = next((rule for rule in self._security.rules if rule.fits(action, agent, to, topic)), None)
        return rule, self._security.default if rule is None else rule.effect

    def _refuse(self, action: str, sender: str, target: str, reason: str) -> None:
        self._world.trace.record("refused", sender, action=action, target=target, reason=reason)

    def _signature(self, message: Message) -> str:
        """Return the HMAC-SHA-256 (RFC 2104) of what the message says, with the key of the sender it names."""
        key = f"{self._world.seed}/identity/{message.sender}".encode()
        said = json.dumps(message._replace(delay=0.0, signature=None, copies=1), sort_keys=True)
        return hmac.new(key, said.encode(), "sha256").hexdigest()
