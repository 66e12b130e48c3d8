"""A case: a conflict before the resolver, as a strategy sees it, and agents that answer what it asks.

A strategy looks at `case.conflict`, awaits `case.ask(...)` where it wants to hear the participants, and returns a
`Proposal`. Agents that take part inherit from `Negotiator`, or have capabilities of the same names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import InvalidValue, Refused, Undeliverable, describe
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import MessageType, freeze
from .claims import Conflict, Participant, Resolution

if TYPE_CHECKING:
    from .resolver import ConflictResolver


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy proposes: a winner with its claim, or a common position; no decision where it has found none.

    It falls if participants with more than the share `veto` of all weight reject it: at 0 if anybody does, whatever the
    weight; at 1 nobody is asked.
    """

    winner: str | None
    decision: Mapping[str, Any] | None
    reason: str
    veto: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.decision, Mapping | None):
            raise InvalidValue(f"the decision {self.decision!r} has no names: give values by key, as in a claim")
        object.__setattr__(self, "decision", freeze(self.decision, "decision"))


@dataclass(slots=True)
class Case:
    """A conflict before the resolver: what a strategy may look at, and how it hears the participants.

    `silent` are those who have not answered a question of this strategy within the `deadline` (virtual seconds), with
    the reason; it does not ask them again.
    """

    resolver: ConflictResolver
    conflict: Conflict
    given: Conflict  # the same as it was given, without an id
    deadline: float
    began: float
    done: asyncio.Future[Resolution]
    strategy: str = ""
    silent: dict[str, str] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)
    views: dict[str, Any] = field(default_factory=dict)  # of the conflict, as each participant may see it
    limit: asyncio.Timeout | None = None  # of the attempt that is going on

    def award(self, winner: str, reason: str = "", veto: float = 0.5) -> Proposal:
        """Propose that a participant gets what it claims; InvalidValue if it is not in the conflict."""
        return Proposal(winner, self.conflict.party(winner).claim, reason, veto)

    def agree(self, position: Mapping[str, Any], reason: str = "", veto: float = 0.0) -> Proposal:
        """Propose a common position, which anybody may reject."""
        return Proposal(None, position, reason, veto)

    def undecided(self, reason: str) -> Proposal:
        """Propose nothing: the next strategy is to try."""
        return Proposal(None, None, reason)

    async def ask(
        self,
        *questions: str,
        stated: Callable[[Participant], Any] = lambda party: None,
        read: Callable[[Participant, Any], Any] = lambda party, answer: answer,
        **content: Any,
    ) -> dict[str, Any]:
        """Ask all participants at once; return what they answer, by name, in the order of the conflict.

        An agent is asked for the first of the capabilities `questions` that it has, with the content, if any, and the
        conflict; for anybody else counts what it has `stated`, unless that is None. `read` checks an answer: one that
        raises InvalidValue is recorded and left out, like who is silent.
        """
        parties = [party for party in self.conflict.participants if party.name not in self.silent]
        asked = {party.name: name for party in parties if (name := self._question(party.name, questions))}
        requests = [self._request(who, question, content) for who, question in asked.items()]
        replies = await asyncio.gather(*requests, return_exceptions=True) if requests else ()
        answers = dict(zip(asked, replies, strict=True))
        heard: dict[str, Any] = {}
        for party in parties:
            answer = answers[party.name] if party.name in answers else stated(party)
            if answer is not None or party.name in answers:
                position = self._understand(party, questions[0], answer, read)
                self.record(party.name, position, content.get("round"))
                if questions[0] in position:
                    heard[party.name] = position[questions[0]]
        return heard

    def _question(self, name: str, questions: tuple[str, ...]) -> str | None:
        """Return what to ask a participant for; None where it cannot be asked."""
        agent = self.resolver.world.agents.get(name)
        if agent is None or (self.resolver.waiting[name] and agent.load >= 1):
            return None  # it has no hand free to answer: it waits for the resolver itself
        return next((question for question in questions if question in agent.offers), None)

    async def _request(self, name: str, question: str, content: Mapping[str, Any]) -> Any:
        if content:
            if name not in self.views:
                self.views[name] = freeze(self.conflict.seen_by(name))
            content = {"conflict": self.views[name], **content}
        return await self.resolver.request(name, question, content, timeout=self.deadline)

    def _understand(
        self, party: Participant, question: str, answer: Any, read: Callable[[Participant, Any], Any]
    ) -> dict[str, Any]:
        """Return an answer by its question, or why there is none."""
        if isinstance(answer, BaseException):  # its own error too: the others must not suffer
            self.silent[party.name] = reason = f"{type(answer).__name__}: {describe(answer)}"
            return {"silent": question, "reason": reason}
        try:
            return {question: read(party, answer)}
        except InvalidValue as error:
            return {"invalid": question, "reason": describe(error)}

    def record(self, who: str, position: Mapping[str, Any], round: int | None = None) -> None:
        """Write into the trace what somebody has said."""
        world, what = self.resolver.world, freeze(position, "position")
        world.trace.append((world.clock(), "position", who, self.conflict.id, self.strategy or None, round, what))


Strategy = Callable[[Case], Awaitable[Proposal]]


def notify(sender: Agent, names: Iterable[str], topic: str, content: Mapping[str, Any]) -> None:
    """Send everybody a message without waiting for anybody; who is gone or full misses it, and the trace has that."""
    for name in names:
        with suppress(Undeliverable, Refused):
            sender.world.bus.post(sender, MessageType.TELL, name, topic, content)


class Negotiator(Agent):
    """An agent in conflicts: it votes for what it claims, concedes evenly to its limits, and accepts what comes out.

    Replace what your agent should decide for itself; any agent with one of these capabilities is asked, and one with
    `report_load()` for its load. A message `conflict.resolved` tells it the Resolution, as plain data.

        class Stubborn(Negotiator):
            async def accept(self, conflict, winner, decision):
                return winner == self.name
    """

    @capability
    async def vote(self, conflict: Conflict, options: dict[str, Any]) -> list[str]:
        """Return the options it votes for, the best first; options are claims by who makes them."""
        return conflict.ballot(self.name)

    @capability
    async def concede(self, conflict: Conflict, offers: dict[str, Any], round: int) -> dict[str, Any]:
        """Return what it offers in this round; what it has offered before stays offered."""
        return conflict.party(self.name).offer(round)

    @capability
    async def accept(self, conflict: Conflict, winner: str | None, decision: dict[str, Any]) -> bool:
        """Return whether it accepts what a strategy proposes."""
        return True
