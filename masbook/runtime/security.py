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

from ..errors import ForgedSender, InvalidValue, Refused
from .message import Message, MessageType, matches

if TYPE_CHECKING:
    from .world import World

_EXEMPT = frozenset(
    {MessageType.REPLY, MessageType.ERROR, MessageType.PART, MessageType.END, MessageType.HEARTBEAT, MessageType.SYSTEM}
)


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
        if self.effect not in ("allow", "deny") or self.action not in ("send", "subscribe"):
            raise InvalidValue(f"{self!r}: the effect is 'allow' or 'deny', the action 'send' or 'subscribe'")

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

    def install(self, world: World) -> None:
        """Enforce the policy in a world; `World(security=...)` calls it."""
        guard = Guard(self, world)
        world.bus.security = guard
        world.bus.check(guard.check_message)


class Guard:
    """A policy at work in one world; every refusal is a row of the trace and a typed error."""

    def __init__(self, security: Security, world: World) -> None:
        self._security, self._world = security, world

    def sign(self, message: Message) -> Message:
        """Return the message with its sender's signature, where the policy wants one."""
        return message._replace(signature=self._signature(message)) if self._security.signed else message

    def check_message(self, message: Message) -> None:
        """Raise ForgedSender or Refused for a message that must not be sent."""
        if self._security.signed and not hmac.compare_digest(message.signature or "", self._signature(message)):
            self._refuse("send", message.sender, message.to or message.topic, "forged sender")
            raise ForgedSender(f"the message {message.id} is not from {message.sender}: its signature does not fit")
        if message.type not in _EXEMPT:
            self._check("send", message.sender, message.to, message.topic)

    def check_subscription(self, agent: str, topic: str) -> None:
        """Raise Refused for a subscription that the policy forbids."""
        self._check("subscribe", agent, None, topic)

    def _check(self, action: str, sender: str, to: str | None, topic: str) -> None:
        if (addressee := self._world.bus.agent(sender)) is not None and addressee.service:
            return
        rule = next((rule for rule in self._security.rules if rule.fits(action, sender, to, topic)), None)
        if (self._security.default if rule is None else rule.effect) == "deny":
            reason = "no rule allows it" if rule is None else f"denied by {rule!r}"
            self._refuse(action, sender, to or topic, reason)
            raise Refused(f"{sender} may not {action} {topic!r}" + (f" to {to}" if to else "") + f": {reason}")

    def _refuse(self, action: str, sender: str, target: str, reason: str) -> None:
        self._world.trace.record("refused", sender, action=action, target=target, reason=reason)

    def _signature(self, message: Message) -> str:
        """Return the HMAC-SHA-256 (RFC 2104) of what the message says, with the key of the sender it names."""
        key = f"{self._world.seed}/identity/{message.sender}".encode()
        said = [message.id, message.type, message.to, message.topic, message.content, message.time, message.reply_to]
        return hmac.new(key, json.dumps(said, sort_keys=True).encode(), "sha256").hexdigest()
