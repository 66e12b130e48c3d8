"""Seats of a pool, and the line of those who want one: `deal` brings the two together.

A task keeps its place in line, not its agent: each time anything has changed, all that wait are dealt anew, and so
follow the news of who is free, fails or is gone. `Pool` calls `deal`; the rule of whom to choose is in `strategies`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from random import Random

from ..errors import InvalidValue
from ..runtime.agent import Agent
from ..runtime.supervision import Supervision
from .strategies import WINDOW, Candidate, Choose, estimate


@dataclass(eq=False, slots=True)
class Claim:
    """A task that wants an agent, or somebody who wants one `alone`; it has a seat from when it is served."""

    number: int
    who: str
    since: float
    until: float  # after which it is of no use
    served: asyncio.Future[None]
    alone: bool = False
    seat: Seat | None = None


@dataclass(eq=False, slots=True)
class Seat:
    """The place of an agent in a pool: what the agent has in hand, and how its latest tasks went (see `estimate`)."""

    agent: Agent
    since: float = 0.0  # when it last had anything in hand
    turn: int = 0  # the number of the latest claim it got
    hands: list[Claim] = field(default_factory=list)
    past: deque[tuple[float, float, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    supervision: Supervision = field(default_factory=lambda: Supervision("on_crash"))
    due: float = inf  # when the agent is to be replaced

    @property
    def well(self) -> bool:
        """Whether the agent runs, and is not unhealthy in the eyes of the world."""
        return self.agent.state in ("idle", "busy") and self.agent.world.registry.health_of(self.agent) != "unhealthy"

    @property
    def holder(self) -> Claim | None:
        """Who has the agent alone."""
        return next((claim for claim in self.hands if claim.alone), None)

    @property
    def free(self) -> bool:
        """Whether the agent has a hand for another task, if it is well."""
        return len(self.hands) < self.agent.concurrency and self.holder is None

    def view(self) -> Candidate:
        """Return what a strategy sees."""
        agent, now = self.agent, self.agent.now
        health, load = agent.world.registry.health_of(agent), round(agent.load * agent.concurrency)
        tasks, known = len(self.hands), estimate(self.past, now)
        return Candidate(agent.name, tasks, max(tasks, load), agent.concurrency, self.turn, *known, health)


def deal(line: Iterable[Claim], seats: Iterable[Seat], choose: Choose, random: Random) -> None:
    """Serve those in line, first come first, as long as anybody is free.

    Where the choice falls on an agent that has its hands full, the task waits, and counts as that agent's load for
    those behind. Whom somebody waits for to have it alone, nobody else gets.
    """
    views = {seat: seat.view() for seat in seats if seat.well and seat.holder is None}
    for claim in [claim for claim in line if not claim.served.done()]:
        if not any(seat.free for seat in views):
            return
        try:
            seat = _chosen(claim, views, choose, random)
        except Exception as error:  # who asked has to know that the strategy failed
            claim.served.set_exception(error)
            continue
        if seat is None:
            continue
        if not seat.hands or (seat.free and not claim.alone):
            seat.hands.append(claim)
            seat.turn = claim.number
            claim.seat = seat
            claim.served.set_result(None)
        view = views[seat]
        views[seat] = replace(view, tasks=view.tasks + 1, load=view.load + 1, turn=claim.number)
        if claim.alone:
            del views[seat]


def _chosen(claim: Claim, views: dict[Seat, Candidate], choose: Choose, random: Random) -> Seat | None:
    """Return whom the strategy chooses; who wants an agent alone gets an idle one, or waits for the least loaded."""
    seats: Sequence[Seat] = [seat for seat in views if not (claim.alone and seat.hands)]
    if not seats:
        return min(views, key=lambda seat: views[seat].load)
    candidates = [views[seat] for seat in seats]
    choice = choose(candidates, random)
    if choice is not None and choice not in candidates:
        raise InvalidValue(f"`choose` returned {choice!r}: return one of the candidates, or None to wait")
    return None if choice is None else seats[candidates.index(choice)]
