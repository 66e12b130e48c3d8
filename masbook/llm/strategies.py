"""Strategies: which agent of a pool gets the next task.

A strategy is a plain function of what is known of the agents. Write one, and pass it to the pool as `choose=`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from statistics import median

from ..runtime.registry import Health

WINDOW = 10  # tasks of an agent that say how it is
MEMORY = 60.0  # virtual seconds for which they do; then it is tried afresh, for it may have recovered
TOLERANCE = 0.1  # by how much the share of failures of the fastest may exceed that of the most reliable


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a strategy sees of an agent: how much it has to do, and how it has done so far.

    It has `tasks` of the pool, and a `load` of these and what others have asked of it, `concurrency` of it at once;
    `turn` is the number of its latest task, 0 for none; `latency` is how many virtual seconds a success takes it, None
    where nothing is known; `failures` is a share.
    """

    name: str
    tasks: int
    load: int
    concurrency: int
    turn: int
    latency: float | None
    failures: float
    health: Health


Choose = Callable[[Sequence[Candidate], Random], Candidate | None]


def round_robin(candidates: Sequence[Candidate], random: Random) -> Candidate:
    """Choose one after the other, whatever they have to do."""
    return min(candidates, key=lambda one: one.turn)


def least_loaded(candidates: Sequence[Candidate], random: Random) -> Candidate:
    """Choose the one with the least to do, for each task that it can do at once."""
    return min(candidates, key=lambda one: (one.load / one.concurrency, one.turn))


def fastest(candidates: Sequence[Candidate], random: Random) -> Candidate | None:
    """Choose the one that will be done first, among those that fail hardly more often than the best: not a black hole.

    Shortest expected delay: Banawan and Zahorjan, *Load sharing in heterogeneous queueing systems* (1989). One of whom
    nothing is known gets one task and no more, as behind a circuit breaker (Nygard, *Release It!*, 2007).
    """
    new = [one for one in candidates if one.latency is None and not one.tasks]
    bound = min(one.failures for one in candidates) + TOLERANCE
    sound = [one for one in candidates if one.latency is not None and one.failures <= bound]
    return min(new or sound, key=_delay, default=None)


def _delay(one: Candidate) -> tuple[float, int]:
    """Return when it would be done with one task more, in virtual seconds from now."""
    return (one.latency or 0.0) * max(1.0, (one.load + 1) / one.concurrency), one.turn


STRATEGIES: dict[str, Choose] = {"round_robin": round_robin, "least_loaded": least_loaded, "fastest": fastest}


def estimate(past: Iterable[tuple[float, float, bool]], now: float) -> tuple[float | None, float]:
    """Return how many virtual seconds a success takes an agent, and the share of its tasks that failed.

    The `past` says when each ended, how long it took, and whether it succeeded. The median, because one slow task says
    little (it bears up to half of them: Huber, *Robust Statistics*, 1981), divided by the share of successes, because
    what failed is still to be done.
    """
    recent = [(seconds, succeeded) for ended, seconds, succeeded in past if ended >= now - MEMORY]
    good = [seconds for seconds, succeeded in recent if succeeded]
    if not good:
        return (inf, 1.0) if recent else (None, 0.0)
    return median(good) * len(recent) / len(good), 1 - len(good) / len(recent)
