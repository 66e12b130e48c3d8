"""Choice: which of the workers that are free get the parts of a task.

A `Selection` says in which order free workers are asked: write one and give it to a `Coordinator`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING

from ...errors import InvalidValue
from ...runtime.registry import Registration
from .shares import Job, Part

if TYPE_CHECKING:
    from ...runtime.world import World

Selection = Callable[[Sequence[Registration], Random], Sequence[Registration]]
Rank = Callable[[Sequence[Registration]], list[str]]


def least_loaded(free: Sequence[Registration], random: Random) -> Sequence[Registration]:
    """Ask those with the least to do first."""
    return sorted(free, key=lambda worker: worker.load)


def at_random(free: Sequence[Registration], random: Random) -> Sequence[Registration]:
    """Ask in a random order."""
    return random.sample(free, len(free))


SELECTIONS: dict[str, Selection] = {"least_loaded": least_loaded, "random": at_random}


def ranked(selection: Selection, random: Random, doubted: Container[str], free: Sequence[Registration]) -> list[str]:
    """Return the names of free workers in the order of the selection, those that failed at their last part last."""
    chosen = selection(free, random)
    if not isinstance(chosen, Iterable) or any(entry not in free for entry in chosen):
        raise InvalidValue(f"the selection returned {chosen!r}: return a list of entries of `free`, the best first")
    names = [entry.name for entry in chosen]
    return sorted(names, key=doubted.__contains__)


class Round:
    """One look at who is there. A task that must wait keeps those behind it off the workers that it could use."""

    def __init__(self, world: World, busy: Iterable[str], rank: Rank) -> None:
        self._world, self._rank = world, rank
        self._taken = dict.fromkeys(busy)
        self._settled: dict[object, str] = {}  # what tasks of a kind lack: those behind would fare no better

    async def choose(self, job: Job, parts: Sequence[Part], tags: tuple[str, ...]) -> list[str] | str:
        """Return a worker for each part, all different; or what is lacking, "" if there are enough, but not free."""
        kind = (tags, *(part.capability for part in parts))
        if kind in self._settled:
            return self._settled[kind]
        needed = Counter(part.capability for part in parts)
        able = {name: await self._able(name, tags, job) for name in needed}
        free = {name: self._rank([entry for entry in able[name] if entry.name not in self._taken]) for name in needed}
        if workers := pair([free[part.capability] for part in parts]):
            self._taken.update(dict.fromkeys(workers))
            return workers
        lack = ""
        if pair([[entry.name for entry in able[part.capability]] for part in parts]):
            self._taken.update(dict.fromkeys(name for names in free.values() for name in names))
        else:
            counts = [f"{needed[name]} that can {name!r}, there are {len(able[name])}" for name in needed]
            lack = f"needs {'; '.join(counts)}" + (f" in the pool {tags[0]!r}" if tags else "")
        if job.stage == "waiting":  # one that runs has workers whom others may have
            self._settled[kind] = lack
        return lack

    async def _able(self, capability: str, tags: tuple[str, ...], job: Job) -> list[Registration]:
        """Return who can do a part and has none of the task; the unhealthy only if they are just long at work."""
        held = {part.worker for part in job.parts}
        found = await self._world.registry.discover([capability], tags)
        return [entry for entry in found if entry.name not in held and self._is_there(entry)]

    def _is_there(self, entry: Registration) -> bool:
        agent = self._world.bus.agent(entry.name)
        return entry.health != "unhealthy" or (agent is not None and agent.state == "busy")


def pair(wanted: Sequence[Sequence[str]]) -> list[str] | None:
    """Return a different one for each, out of those wanted, best first; None if that cannot be.

    By augmenting paths: H. W. Kuhn, *The Hungarian method for the assignment problem* (1955).
    """
    if len({name for names in wanted for name in names}) < len(wanted):
        return None
    held: dict[str, int] = {}

    def place(number: int, tried: set[str]) -> bool:
        for name in sorted(wanted[number], key=held.__contains__):  # those that nobody holds first
            if name not in tried:
                tried.add(name)
                if name not in held or place(held[name], tried):
                    held[name] = number
                    return True
        return False

    found = all(place(number, set()) for number in range(len(wanted)))
    return sorted(held, key=held.__getitem__) if found else None
