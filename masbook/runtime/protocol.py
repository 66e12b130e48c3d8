"""Protocols, which say whether a conversation follows its pattern.

A `Protocol` declares which step may follow which. `bus.watch(protocol)` refuses a message that does not fit, with a
row of the trace and a ProtocolViolation for its sender. The steps of a conversation are the topics of its messages
(`cfp`, `propose`) or their types (`request`, `reply`); messages about anything else are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ProtocolViolation
from .message import Message
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Protocol:
    """A pattern of conversation: the step that begins it, for each step those that may follow, and who leads.

    `leads` are the steps of whoever began; the others are those of the participants. A step with nothing behind it
    ends the conversation. Each participant has a thread of its own with the one who
    began, so that a call for proposals to many is followed participant by participant.
    """

    name: str
    start: str
    steps: Mapping[str, tuple[str, ...]]
    leads: frozenset[str] | None = None  # None: anybody may say any step

    def vocabulary(self) -> set[str]:
        """Return every step that the protocol knows."""
        return {self.start, *self.steps, *(step for following in self.steps.values() for step in following)}


REQUEST_REPLY = Protocol(
    "request_reply",
    "request",
    {"request": ("reply", "error", "part", "end"), "part": ("part", "end", "error")},
    frozenset({"request"}),
)
# FIPA Contract Net Interaction Protocol, SC00029H
CONTRACT_NET = Protocol(
    "contract_net",
    "cfp",
    {"cfp": ("propose", "refuse"), "propose": ("accept", "reject"), "accept": ("inform", "failure")},
    frozenset({"cfp", "accept", "reject"}),
)


class ProtocolMonitor:
    """Follows every conversation of one protocol."""

    def __init__(self, protocol: Protocol, trace: Trace) -> None:
        self._protocol, self._trace = protocol, trace
        self._vocabulary = protocol.vocabulary()
        self._begun: dict[int, str] = {}  # who began each conversation
        self._last: dict[tuple[int, str], str] = {}  # the last step of each thread: conversation and participant

    def check(self, message: Message) -> None:
        """Note the step, or raise ProtocolViolation."""
        step = message.topic if message.topic in self._vocabulary else str(message.type)
        if step not in self._vocabulary:
            return
        conversation = message.conversation if message.reply_to is None else message.reply_to
        if step == self._protocol.start == "request":
            conversation = message.id
        initiator = self._begun.get(conversation)
        participant = message.to if message.sender == initiator else message.sender
        last = self._last.get((conversation, participant or ""))
        if last is None and initiator is not None and message.sender != initiator:
            last = self._last.get((conversation, ""))  # the start went to everybody
        expected = (self._protocol.start,) if last is None else tuple(self._protocol.steps.get(last, ()))
        leads = self._protocol.leads
        in_turn = leads is None or initiator is None or (step in leads) == (message.sender == initiator)
        if step not in expected or not in_turn:
            allowed = " or ".join(expected) or "nothing: it has ended"
            self._trace.record(
                "violated",
                message.sender,
                protocol=self._protocol.name,
                message=message.id,
                step=step,
                expected=list(expected),
            )
            raise ProtocolViolation(
                f"{self._protocol.name}: {message.sender} says {step!r} after {last or 'nothing'!r}; allowed: {allowed}"
            )
        if initiator is None:
            self._begun[conversation] = message.sender
            participant = message.to
        self._last[conversation, participant or ""] = step
