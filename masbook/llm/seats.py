"""The seats of a pool: what it knows of the agent in each, and the strategies that say who gets the next task.

`Pool` keeps the seats and calls `deal`. A strategy is a plain function: pass your own to the pool as `choose=`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from statistics import median
from typing import Any

from ..errors import InvalidName, InvalidValue
from ..runtime.agent import Agent
from ..runtime.supervision import Supervision
from .outcomes import askable, world_of

WINDOW = 20  # tasks of an agent that say how it is
MEMORY = 60.0  # virtual seconds for which they do; then it is tried afresh, for it may have recovered
TOLERANCE = 0.1  # by how much the share of failures of the fastest may exceed that of the most reliable


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a strategy gets to see of an agent: tasks that it has (`load`), can do at once, and got so far (`given`).

    `latency` is how many virtual seconds a success takes it, None where nothing is known; `failures` is a share.
    """

    name: str
    load: int
    hands: int
    given: int
    latency: float | None
    failures: float
    health: str


Choose = Callable[[Sequence[Candidate], Random], Candidate | None]


def round_robin(candidates: Sequence[Candidate], random: Random) -> Candidate:
    """Choose one after the other, whatever they have to do."""
    return min(candidates, key=lambda one: one.given)


def least_loaded(candidates: Sequence[Candidate], random: Random) -> Candidate:
    """Choose the one with the least to do, for each task that it can do at once."""
    return min(candidates, key=lambda one: (one.load / one.hands, one.given))


def fastest(candidates: Sequence[Candidate], random: Random) -> Candidate | None:
    """Choose the one that will be done first, among those that fail hardly more often than the best: not a black hole.

    Shortest expected delay: Banawan and Zahorjan, *Load sharing in heterogeneous queueing systems* (1989). One of whom
    nothing is known gets one task and no more, as behind a circuit breaker (Nygard, *Release It!*, 2007).
    """
    new = [one for one in candidates if one.latency is None and not one.load]
    bound = min(one.failures for one in candidates) + TOLERANCE
    sound = [one for one in candidates if one.latency is not None and one.failures <= bound]
    return min(new or sound, key=_delay, default=None)


def _delay(one: Candidate) -> tuple[float, int]:
    """Return when it would be done with one task more, in virtual seconds from now."""
    return (one.latency or 0.0) * max(1.0, (one.load + 1) / one.hands), one.given


STRATEGIES: dict[str, Choose] = {"round_robin": round_robin, "least_loaded": least_loaded, "fastest": fastest}


@dataclass(eq=False, slots=True)
class Claim:
    """A task that wants an agent, or who wants one for himself (`exclusive`): it waits until it has a seat."""

    who: str
    since: float
    served: asyncio.Future[None]
    timeout: float | None = None
    conversation: str | None = None
    exclusive: bool = False
    seat: Seat | None = None


@dataclass(eq=False, slots=True)
class Seat:
    """A place in a pool: its agent, what that has in hand, and how the latest tasks went (when, how long, whether)."""

    agent: Agent
    mine: bool  # the pool's own to spawn and to stop
    supervision: Supervision = field(default_factory=lambda: Supervision("on_crash"))
    given: int = 0
    hands: dict[Claim, None] = field(default_factory=dict)
    holder: Claim | None = None  # who has checked it out
    due: float | None = None  # when it is to be replaced
    past: deque[tuple[float, float, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @property
    def health(self) -> str:
        """How well the agent is, as far as the world knows."""
        return self.agent.world.registry.health_of(self.agent)

    @property
    def well(self) -> bool:
        """Whether the agent runs, and is not unhealthy."""
        return self.agent.state in ("idle", "busy") and self.health != "unhealthy"

    @property
    def free(self) -> bool:
        """Whether the agent has a hand for another task, if it is well."""
        return self.holder is None and len(self.hands) < self.agent.concurrency

    @property
    def idle(self) -> bool:
        """Whether nobody would miss the agent."""
        return not self.hands and self.holder is None and (self.agent.at_rest or not self.agent.online)

    def take(self, claim: Claim) -> None:
        """Give the agent to a claim."""
        if claim.exclusive:
            self.holder = claim
        else:
            self.hands[claim] = None
            self.given += 1
        claim.seat = self
        claim.served.set_result(None)

    def let_go(self, claim: Claim) -> None:
        """Take the agent back from a claim; whoever has checked it out is the only one that has it."""
        self.hands.pop(claim, None)
        self.holder = None

    def knows(self, talk: str | None) -> bool:
        """Whether the agent is in a conversation."""
        named = talk in getattr(self.agent, "conversations", ()) or any(talk == one.conversation for one in self.hands)
        return named and self.well

    def estimate(self, now: float) -> tuple[float | None, float]:
        """Return how many virtual seconds a success takes, by the latest tasks, and the share of those that failed.

        The median, because one slow task says little (it bears up to half of them: Huber, *Robust Statistics*, 1981),
        divided by the share of successes, because what failed is still to be done.
        """
        recent = [(seconds, succeeded) for ended, seconds, succeeded in self.past if ended >= now - MEMORY]
        good = [seconds for seconds, succeeded in recent if succeeded]
        if not good:
            return (inf, 1.0) if recent else (None, 0.0)
        return median(good) * len(recent) / len(good), 1 - len(good) / len(recent)

    def view(self, now: float, ahead: int = 0) -> Candidate:
        """Return what a strategy gets to see, with that many tasks that wait for the agent already."""
        load, given, hands = len(self.hands) + ahead, self.given + ahead, self.agent.concurrency
        return Candidate(self.agent.name, load, hands, given, *self.estimate(now), self.health)


def deal(line: dict[Claim, None], every: Sequence[Seat], choose: Choose, random: Random, now: float) -> None:
    """Give the claims in a line their seats, in order, as long as there are free ones.

    A task dealt to an agent that has its hands full counts as that agent's load, and waits to be dealt anew.
    """
    seats, ahead = [seat for seat in every if seat.well and seat.holder is None], Counter[Seat]()
    for seat in every:  # who was away has no claim to what it has missed
        seat.given = max(seat.given, min((other.given for other in seats), default=0))
    seen = {seat: seat.view(now) for seat in seats}
    for claim in [claim for claim in line if not claim.served.done()]:
        if not any(seat.free for seat in seats):
            return
        known = [seat for seat in every if claim.conversation is not None and seat.knows(claim.conversation)] or seats
        places = [seat for seat in seats if seat in known and not (claim.exclusive and seat.hands)]
        views = [seen[seat] for seat in places]
        try:
            choice = choose(views, random) if views else None
            if choice is not None and choice not in views:
                raise InvalidValue(f"`choose` returned {choice!r}: return one of the candidates, or None to wait")
        except Exception as error:  # who asked has to know that the strategy failed
            claim.served.set_exception(error)
            continue
        place = None if choice is None else places[views.index(choice)]
        if place is not None and place.free:
            del line[claim]
            place.take(claim)
        elif place is not None:
            ahead[place] += 1
        elif claim.exclusive:
            place = min(seats, key=lambda seat: len(seat.hands))  # nobody else gets this one until it is free
        if place is not None:
            seen[place] = place.view(now, ahead[place])
            if claim.exclusive:
                seats.remove(place)


def gathered(name: str, agents: Any) -> list[Agent]:
    """Return the agents of a list; InvalidValue, InvalidName or WorldError unless a pool can be made of them."""
    if isinstance(agents, str | Agent) or not isinstance(agents, Iterable):
        raise InvalidValue(f"{name} is a pool of {agents!r}: give a list of agents, or a function that makes the n-th")
    if not (given := [*agents]):
        raise InvalidValue(f"{name} is a pool of none: give it a list of agents, or a function that makes the n-th")
    if len({one.name for one in askable(given)}) < len(given):
        raise InvalidName(f"{name} has agents of the same name: {', '.join(one.name for one in given)}")
    if born := [one for one in given if not one.unborn]:
        world_of(born)
    return given
