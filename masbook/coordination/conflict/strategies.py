"""Strategies that settle conflicts: coroutine functions of a `Case`, found by name in `STRATEGIES`.

A `ConflictResolver` calls them. One of your own awaits `case.ask(...)` where it wants to hear the participants, and
returns `case.award(name)`, `case.agree(position)` or `case.undecided(reason)`:

    async def lottery(case):
        names = [party.name for party in case.conflict.participants]
        return case.award(case.resolver.random.choice(names), "drawn by lot")

Ties are broken by rank: the higher priority, then the greater weight, then the order in the conflict.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...errors import InvalidValue
from ...runtime import require
from .case import Case, Proposal, Strategy
from .claims import EXCLUSIVE, ROUNDS, Conflict, Participant
from .voting import RULES, Ballot


async def voting(case: Case) -> Proposal:
    """Put the claims to a weighted vote, by the resolver's rule; ties by rank.

    An agent is asked for `vote(conflict, options)`: one option or several, best first. Anybody else votes for what is
    worth most by its own claim. Who does not answer abstains; those who vote must have half of all weight at least.
    """
    conflict, options = case.conflict, {party.name: party.claim for party in case.conflict.by_rank()}

    def read(party: Participant, answer: Any) -> list[str]:
        names = [answer] if isinstance(answer, str) else require.names("a vote", answer)
        return [require.one_of("a vote", name, options) for name in dict.fromkeys(names)]

    votes = await case.ask("vote", stated=lambda party: conflict.ballot(party.name), read=read, options=options)
    papers = [Ballot(ranking, conflict.party(name).weight) for name, ranking in votes.items()]
    cast = math.fsum(paper.weight for paper in papers if paper.ranking)
    if not cast or 2 * cast < conflict.weight:
        return case.undecided(f"votes with a weight of {cast:g} out of {conflict.weight:g}: fewer than half")
    tally = RULES[case.resolver.rule](papers, list(options))
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
        return require.amount(f"the load of {party.name}", load)

    loads = await case.ask("report_load", "status", stated=lambda party: party.load, read=read)
    if not loads:
        return case.undecided("nobody's load is known")
    winner = min((party.name for party in case.conflict.by_rank() if party.name in loads), key=lambda name: loads[name])
    return case.award(winner, f"load {loads[winner]:g}")


async def consensus(case: Case) -> Proposal:
    """Look for a position that everybody can accept, in rounds of concessions.

    The monotonic concession protocol (Rosenschein and Zlotkin, Rules of Encounter, 1994) for any number of parties and
    keys. A party accepts what it has offered so far: all numbers between its offers, or the values it has named. In
    each round all move at once, on the keys that are still open: an agent as it answers
    `concede(conflict, offers, round)`, anybody else by a tenth of the way to its limit, or to the next alternative. A
    key is settled where all accept: in the middle of the numbers, at the alternative best for all, or, if the context
    states a `capacity` for it, once the sum fits. It fails when nobody moves, or somebody is silent.
    """
    talks, conflict, round, moved = Talks(case.conflict), case.conflict, 0, True
    if not talks.open and conflict.kind in EXCLUSIVE and not conflict.capacity.keys() & talks.settled.keys():
        return case.undecided("there is nothing to concede, and only one can have it")
    while talks.open and moved and not case.silent and round < ROUNDS:
        round += 1
        stated, last = partial(Participant.offer, round=round), talks.last()
        moved = talks.hear(await case.ask("concede", stated=stated, read=talks.read, round=round, offers=last))
    if case.silent:
        return case.undecided(f"no answer from {', '.join(case.silent)}")
    if talks.open:
        return case.undecided(f"no common ground on {', '.join(talks.open)} after {round} rounds of concessions")
    return case.agree(talks.settled, f"after {round} rounds of concessions")


class Talks:
    """A negotiation: all offers so far, by party and key; the keys that are settled, each with its value, or `open`."""

    def __init__(self, conflict: Conflict) -> None:
        self._capacity = conflict.capacity
        self._offers = {p.name: {key: [value] for key, value in p.claim.items()} for p in conflict.participants}
        self.open = list(dict.fromkeys(key for own in self._offers.values() for key in own))
        self.settled: dict[str, Any] = {}
        self.hear({})

    def last(self) -> dict[str, dict[str, Any]]:
        """Return what each party has offered last, on the open keys."""
        return {name: {key: own[key][-1] for key in self.open if key in own} for name, own in self._offers.items()}

    def read(self, party: Participant, answer: Any) -> dict[str, Any]:
        """Return an offer on the open keys of a claim; InvalidValue if it is none."""
        if not isinstance(answer, Mapping):
            raise InvalidValue(f"{party.name} offers {answer!r}: give values by key, as in a claim")
        offer = {key: answer[key] for key in self.open if key in answer and key in party.claim}
        for key in offer:
            if require.is_number(party.claim[key]):
                require.finite(f"the offer of {party.name} for {key!r}", offer[key])
        return offer

    def hear(self, offers: Mapping[str, Mapping[str, Any]]) -> bool:
        """Take in the offers of a round, and settle what can be; return whether anybody moved."""
        moves = [_concede(self._offers[who][key], value) for who, own in offers.items() for key, value in own.items()]
        for key in [*self.open]:
            values = {name: own[key] for name, own in self._offers.items() if key in own}
            for value in _common_ground(values, self._capacity.get(key)):
                self.settled[key] = value
                self.open.remove(key)
        return any(moves)


def _concede(former: list[Any], value: Any) -> bool:
    """Add an offer to those before it, if it goes further than they do; return whether it does."""
    numbers = require.is_number(former[0])
    further = not (min(former) <= value <= max(former) if numbers else value in former)
    former += [value] * further
    return further


def _common_ground(offers: Mapping[str, list[Any]], room: float | None) -> list[Any]:
    """Return the value of a key that all accept, in a list; an empty one if there is none."""
    if not all(require.is_number(own[0]) for own in offers.values()):
        shared = [value for value in next(iter(offers.values())) if all(value in own for own in offers.values())]
        return sorted(shared, key=lambda value: sum(own.index(value) for own in offers.values()))[:1]
    if room is not None:
        shares = {name: own[-1] for name, own in offers.items()}
        return [shares] if math.fsum(shares.values()) <= room else []
    low, high = max(map(min, offers.values())), min(map(max, offers.values()))
    return [] if low > high else [low if low == high else (low + high) / 2]


async def arbitration(case: Case) -> Proposal:
    """Award it to the best match of capabilities, or by lot; nobody is asked to accept.

    The match is the number of the `required_capabilities` in the context that an agent offers, or anybody else states;
    among several with the most, one is drawn from the resolver's stream.
    """
    conflict, agents = case.conflict, case.resolver.world.agents
    needed = conflict.context.get("required_capabilities", ())
    skills = {p.name: agents[p.name].offers if p.name in agents else p.capabilities for p in conflict.participants}
    match = {name: sum(need in own for need in needed) for name, own in skills.items()}
    best = [name for name in match if match[name] == max(match.values())]
    if len(best) == 1:
        return case.award(best[0], f"{match[best[0]]} of {len(needed)} required capabilities", veto=1.0)
    return case.award(case.resolver.random.choice(best), f"drawn by lot among {len(best)}", veto=1.0)


async def person(case: Case) -> Proposal:
    """Let a person choose, by the resolver's `ask_person`, within `patience` virtual seconds; nobody has to accept."""
    resolver, conflict = case.resolver, case.conflict
    if resolver.ask_person is None:
        return case.undecided("there is nobody to ask")
    asked = asyncio.wait_for(resolver.ask_person(conflict), resolver.patience)
    try:
        choice = await resolver.world.wait(asked, who=resolver.name, what=f"a person to decide {conflict.id}")
    except TimeoutError:
        choice = None
    if choice is None:
        return case.undecided(f"no answer in {resolver.patience:g} s")
    decide = case.award if isinstance(choice, str) else case.agree
    return decide(choice, "decided by a person", veto=1.0)


STRATEGIES: dict[str, Strategy] = {
    strategy.__name__: strategy for strategy in (voting, priority, load_balancing, consensus, arbitration)
}
