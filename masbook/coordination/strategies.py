"""Strategies that settle conflicts: coroutine functions of a `Case`, found by name in `STRATEGIES`.

A `ConflictResolver` calls them. One of your own awaits `case.ask(...)` where it wants to hear the participants, and
returns `case.award(name)`, `case.agree(position)` or `case.undecided(reason)`:

    async def lottery(case):
        return case.award(case.random.choice([party.name for party in case.conflict.participants]), "drawn by lot")

Ties are broken by rank: the higher priority, then the greater weight, then the order in the conflict.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, describe
from ..runtime import require
from ..runtime.message import freeze
from .claims import EXCLUSIVE, ROUNDS, Conflict, Participant, is_number
from .voting import RULES, Ballot

if TYPE_CHECKING:
    from .conflict import ConflictResolver


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy proposes: a winner with its claim, or a common position; no decision where it has found none.

    It falls if participants with more than the share `veto` of all weight reject it; at 1, nobody is asked.
    """

    winner: str | None
    decision: Mapping[str, Any] | None
    reason: str
    veto: float = 0.5

    def __post_init__(self) -> None:
        if self.decision is not None and not isinstance(self.decision, Mapping):
            raise InvalidValue(f"the decision {self.decision!r} has no names: give values by key, as in a claim")
        object.__setattr__(self, "decision", freeze(self.decision, "decision"))


@dataclass(slots=True)
class Case:
    """One attempt to settle a conflict by one strategy: what that may look at, and how it hears the participants.

    `silent` are those who did not answer a question within the `deadline` (virtual seconds), each with the reason; they
    are not asked another one.
    """

    resolver: ConflictResolver
    conflict: Conflict
    strategy: str
    deadline: float
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def random(self) -> Random:
        """The random stream of the resolver."""
        return self.resolver.random

    def award(self, winner: str, reason: str = "", veto: float = 0.5) -> Proposal:
        """Propose that a participant gets what it claims; InvalidValue if it is not in the conflict."""
        return Proposal(winner, self.conflict.party(winner).claim, reason, veto)

    def agree(self, position: Mapping[str, Any], reason: str = "") -> Proposal:
        """Propose a common position, which anybody may reject."""
        return Proposal(None, position, reason, veto=0.0)

    def undecided(self, reason: str) -> Proposal:
        """Propose nothing: the next strategy is to try."""
        return Proposal(None, None, reason)

    async def ask(
        self,
        *questions: str,
        stated: Callable[[Participant], Any],
        read: Callable[[Participant, Any], Any],
        **content: Any,
    ) -> dict[str, Any]:
        """Ask all participants at once; return what they answer, by name, in the order of the conflict.

        An agent is asked for the first of the capabilities `questions` that it has, with the content, if any, and the
        conflict; for anybody else counts what it has `stated`, unless that is None. `read` checks an answer: one that
        raises InvalidValue is recorded and left out, like who is silent.
        """
        parties = [party for party in self.conflict.participants if party.name not in self.silent]
        asked = {party.name: question for party in parties if (question := self._question(party.name, questions))}
        round = content.get("round")
        requests = [self._request(name, question, content) for name, question in asked.items()]
        answers = dict(zip(asked, await asyncio.gather(*requests, return_exceptions=True), strict=True))
        heard: dict[str, Any] = {}
        for party in parties:
            answer = answers[party.name] if party.name in answers else stated(party)
            if isinstance(answer, BaseException):  # its own error too: the others must not suffer
                self.silent[party.name] = f"{type(answer).__name__}: {describe(answer)}"
                self.record(party.name, {"silent": questions[0], "reason": self.silent[party.name]}, round)
            elif answer is not None:
                try:
                    heard[party.name] = read(party, answer)
                    self.record(party.name, {questions[0]: heard[party.name]}, round)
                except InvalidValue as error:
                    self.record(party.name, {"invalid": questions[0], "reason": describe(error)}, round)
        return heard

    def _question(self, name: str, questions: tuple[str, ...]) -> str | None:
        """Return what to ask a participant for; None where it cannot be asked."""
        agent = self.resolver.world.agents.get(name)
        if agent is None or (self.resolver.waiting[name] and agent.load >= 1):
            return None  # it has no hand free to answer: it waits for the resolver itself
        return next((question for question in questions if question in agent.offers), None)

    async def _request(self, name: str, question: str, content: Mapping[str, Any]) -> Any:
        if content:
            content = {"conflict": self.conflict.seen_by(name), **content}
        return await self.resolver.request(name, question, content, timeout=self.deadline)

    def record(self, who: str, position: Mapping[str, Any], round: int | None = None) -> None:
        """Write into the trace what somebody has said."""
        facts = {"conflict": self.conflict.id, "strategy": self.strategy, "round": round, "position": position}
        self.resolver.world.trace.record("position", who, **facts)


Strategy = Callable[[Case], Awaitable[Proposal]]


async def voting(case: Case) -> Proposal:
    """Put the claims to a weighted vote, by the resolver's rule; ties by rank.

    An agent is asked for `vote(conflict, options)`: one option or several, best first. Anybody else votes for what is
    worth most by its own claim. Who does not answer abstains; those who vote must have half of all weight at least.
    """
    conflict, options = case.conflict, case.conflict.options()

    def read(party: Participant, answer: Any) -> list[str]:
        names = [answer] if isinstance(answer, str) else require.names("a vote", answer)
        return list(dict.fromkeys(conflict.option(name) for name in names))

    votes = await case.ask("vote", stated=lambda party: conflict.ballot(party.name), read=read, options=options)
    papers = [Ballot(ranking, conflict.party(name).weight) for name, ranking in votes.items()]
    cast = math.fsum(paper.weight for paper in papers if paper.ranking)
    if not cast or 2 * cast < conflict.weight:
        return case.undecided(f"votes with a weight of {cast:g} out of {conflict.weight:g}: fewer than half")
    tally = RULES[case.resolver.rule](papers, list(options), lambda tied: tied[0])
    return case.award(tally.winner, f"{tally.rule}, {tally.share:.0%} of the weight")


async def priority(case: Case) -> Proposal:
    """Award it to the highest priority; ties by rank."""
    first = case.conflict.by_rank()[0]
    return case.award(first.name, f"priority {first.priority:g}")


async def load_balancing(case: Case) -> Proposal:
    """Award it to the least loaded; ties by rank.

    An agent reports its load itself if it has `report_load()`; of any other it is the number of messages in work and
    waiting. Anybody else counts with the load that it states. Whose load is not known is given nothing.
    """

    def read(party: Participant, answer: Any) -> float:
        load = answer.get("load") if isinstance(answer, Mapping) else answer
        return require.not_negative(f"the load of {party.name}", load)

    loads = await case.ask("report_load", "status", stated=lambda party: party.load, read=read)
    if not loads:
        return case.undecided("nobody's load is known")
    winner = min((party.name for party in case.conflict.by_rank() if party.name in loads), key=lambda name: loads[name])
    return case.award(winner, f"load {loads[winner]:g}")


async def consensus(case: Case) -> Proposal:
    """Look for a position that everybody can accept, in rounds of concessions.

    The monotonic concession protocol (Rosenschein and Zlotkin, Rules of Encounter, 1994) for any number of parties and
    keys. A party accepts what it has offered so far: all numbers from its claim to its last offer, or the values it has
    named. In each round all move at once, on the keys that are still open: an agent as it answers
    `concede(conflict, offers, round)`, anybody else by a tenth of the way to its limit, or to the next alternative. A
    key is settled where all accept: in the middle of the numbers, at the alternative best for all, or, if the context
    states a `capacity` for it, once the sum fits. It fails when nobody moves, or somebody is silent.
    """
    talks, moved, round = Talks(case.conflict), True, 0
    if not talks.open and case.conflict.kind in EXCLUSIVE:
        return case.undecided("there is nothing to concede, and only one can have it")
    while talks.open and moved and not case.silent and round < ROUNDS:
        round += 1
        offers = await case.ask(
            "concede",
            stated=partial(Participant.offer, round=round),
            read=talks.check,
            round=round,
            offers=talks.offers(),
        )
        moved = talks.hear(offers)
    if case.silent:
        return case.undecided(f"no answer from {', '.join(case.silent)}")
    if talks.open:
        return case.undecided(f"no common ground on {', '.join(talks.open)} after {round} rounds")
    return case.agree(talks.settled, f"after {round} rounds of concessions")


class Talks:
    """A negotiation: what each party has offered so far, key by key, and the keys that are settled."""

    def __init__(self, conflict: Conflict) -> None:
        self._capacity = conflict.context.get("capacity", {})
        self._offered = {
            party.name: {key: [value] for key, value in party.claim.items()} for party in conflict.participants
        }
        self._keys = list(dict.fromkeys(key for own in self._offered.values() for key in own))
        self.settled: dict[str, Any] = {}
        self.hear({})

    @property
    def open(self) -> list[str]:
        """The keys on which there is no common ground yet."""
        return [key for key in self._keys if key not in self.settled]

    def offers(self) -> dict[str, dict[str, Any]]:
        """Return what each party offers now, on the open keys."""
        return {name: {key: own[key][-1] for key in self.open if key in own} for name, own in self._offered.items()}

    def check(self, party: Participant, answer: Any) -> dict[str, Any]:
        """Return an offer on the open keys; InvalidValue if it is none."""
        if not isinstance(answer, Mapping):
            raise InvalidValue(f"{party.name} offers {answer!r}: give a value by key")
        for key in [key for key in self.open if key in answer and is_number(party.claim.get(key))]:
            require.number(f"the offer of {party.name} for {key!r}", answer[key])
        return {key: answer[key] for key in self.open if key in answer and key in party.claim}

    def hear(self, offers: Mapping[str, Mapping[str, Any]]) -> bool:
        """Take the offers of a round in; return whether anybody moved. To go back is to stand still."""
        moved = False
        for name, offer in offers.items():
            for key, value in offer.items():
                values = self._offered[name][key]
                if _concedes(values, value):
                    values.append(value)
                    moved = True
        self.settled |= {key: common[0] for key in self.open if (common := self._common(key))}
        return moved

    def _common(self, key: str) -> list[Any]:
        """Return the value of a key that everybody accepts, in a list; an empty list if there is none."""
        offered = {name: own[key] for name, own in self._offered.items() if key in own}
        if all(is_number(value) for values in offered.values() for value in values):
            if key in self._capacity:
                shares = {name: values[-1] for name, values in offered.items()}
                return [shares] if math.fsum(shares.values()) <= self._capacity[key] else []
            low, high = max(map(min, offered.values())), min(map(max, offered.values()))
            return [] if low > high else [low if low == high else (low + high) / 2]
        first, *others = offered.values()
        shared = [value for value in first if all(value in values for values in others)]
        return sorted(shared, key=lambda value: sum(values.index(value) for values in offered.values()))[:1]


def _concedes(values: list[Any], value: Any) -> bool:
    """Return whether an offer goes further than those before it, in their direction."""
    if not is_number(value):
        return value not in values
    first, last = values[0], values[-1]
    return bool(value != first if last == first else (value - last) * (last - first) > 0)


async def arbitration(case: Case) -> Proposal:
    """Let the arbiter decide, or the match of capabilities, or the lot; nobody is asked to accept.

    The resolver's `arbiter`, if it has one, answers `arbitrate(conflict)` with a name. Without its answer, whoever has
    most of the `required_capabilities` in the context wins; among several, one is drawn from the resolver's stream.
    """
    conflict, resolver, arbiter = case.conflict, case.resolver, case.resolver.arbiter
    if arbiter is not None:
        try:
            content = {"conflict": conflict}
            winner = await resolver.request(arbiter, "arbitrate", content, timeout=case.deadline)
            proposal = case.award(winner, f"decided by {arbiter}", veto=1.0)
        except Exception as error:  # the arbiter's own error too: the rule decides
            case.record(arbiter, {"silent": "arbitrate", "reason": f"{type(error).__name__}: {describe(error)}"})
        else:
            case.record(arbiter, {"arbitrate": winner})
            return proposal
    needed = conflict.context.get("required_capabilities", ())
    scores = {party.name: sum(name in _skills(case, party) for name in needed) for party in conflict.participants}
    best = [name for name in scores if scores[name] == max(scores.values())]
    if len(best) == 1:
        return case.award(best[0], f"{scores[best[0]]} of {len(needed)} required capabilities", veto=1.0)
    return case.award(case.random.choice(best), f"drawn by lot among {len(best)}", veto=1.0)


def _skills(case: Case, party: Participant) -> tuple[str, ...]:
    agent = case.resolver.world.agents.get(party.name)
    return party.capabilities if agent is None else tuple(agent.offers)


STRATEGIES: dict[str, Strategy] = {
    strategy.__name__: strategy for strategy in (voting, priority, load_balancing, consensus, arbitration)
}
