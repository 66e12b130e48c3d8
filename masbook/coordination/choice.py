"""Choice: which of the workers that are free get the parts of a task.

A `Selection` says in which order free workers are asked: write one and give it to a `Coordinator`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from random import Random

from ..errors import InvalidValue
from ..runtime.registry import AgentRegistry, Registration
from .shares import Job, Part

Selection = Callable[[Sequence[Registration], Random], Sequence[Registration]]
Rank = Callable[[Sequence[Registration]], list[str]]


def least_loaded(free: Sequence[Registration], random: Random) -> Sequence[Registration]:
    """Ask those with the least to do first."""
    return sorted(free, key=lambda worker: worker.load)


def at_random(free: Sequence[Registration], random: Random) -> Sequence[Registration]:
    """Ask in a random order."""
    return random.sample(free, len(free))


SELECTIONS: dict[str, Selection] = {"least_loaded": least_loaded, "random": at_random}


def ranked(selection: Selection, random: Random, silent: Container[str], free: Sequence[Registration]) -> list[str]:
    """Return the names of free workers in the order of the selection; those that fell silent come last."""
    names = [entry.name for entry in selection(free, random)]
    if strangers := sorted({*names} - {entry.name for entry in free}):
        raise InvalidValue(f"the selection returned {strangers}: return entries of `free`, the best first")
    return sorted(names, key=silent.__contains__)


class Round:
    """One look at who is there. A task that must wait keeps those behind it off the workers that it could use."""

    def __init__(self, registry: AgentRegistry, busy: Iterable[str], rank: Rank) -> None:
        self._registry, self._rank = registry, rank
        self._taken = dict.fromkeys(busy)
        self._settled: dict[object, str] = {}  # what tasks of a kind lack: those behind would fare no better

    async def choose(self, job: Job, parts: Sequence[Part], tags: tuple[str, ...]) -> list[str] | str:
        """Return a worker for each part, all different; or what is lacking, "" if there are enough, but not free."""
        kind = (tags, *(part.capability for part in parts))
        if job.stage == "waiting" and kind in self._settled:
            return self._settled[kind]
        needed = Counter(part.capability for part in parts)
        able = {name: await self._able(job, name, number, tags) for name, number in needed.items()}
        free = {name: self._rank([entry for entry in able[name] if entry.name not in self._taken]) for name in able}
        workers = pair([free[part.capability] for part in parts])
        if workers is not None:
            self._taken.update(dict.fromkeys(workers))
            return workers
        lack = ""
        if pair([[entry.name for entry in able[part.capability]] for part in parts]) is None:
            open = Counter(part.capability for part in job.parts if part.worker is None)
            counts = [f"{open[name]} that can {name!r}, there are {len(able[name])}" for name in needed]
            lack = f"needs {'; '.join(counts)}" + (f" in the pool {tags[0]!r}" if tags else "")
        else:
            self._taken.update(dict.fromkeys(name for names in free.values() for name in names))
        if job.stage == "waiting":
            self._settled[kind] = lack
        return lack

    async def _able(self, job: Job, name: str, number: int, tags: tuple[str, ...]) -> list[Registration]:
        """Return who can do a part and has none of the task; who has failed at one only if the others are too few."""
        found = await self._registry.discover([name], tags)
        well = [entry for entry in found if entry.health != "unhealthy" or entry.name in self._taken]  # long at work
        others = [entry for entry in well if entry.name not in {part.worker for part in job.parts}]
        fresh = [entry for entry in others if entry.name not in job.failed]
        return fresh if len(fresh) >= number else others


def pair(wanted: Sequence[Sequence[str]]) -> list[str] | None:
    """Return a different one for each, out of those wanted, best first; None if that cannot be.

    By augmenting paths: H. W. Kuhn, *The Hungarian method for the assignment problem* (1955).
    """
    if len({name for names in wanted for name in names}) < len(wanted):
        return None
    held: dict[str, int] = {}

    def find(number: int, tried: set[str]) -> bool:
        for name in wanted[number]:
            if name not in held:
                held[name] = number
                return True
        for name in wanted[number]:
            if name not in tried:
                tried.add(name)
                if find(held[name], tried):
                    held[name] = number
                    return True
        return False

    found = all(find(number, set()) for number in range(len(wanted)))
    return sorted(held, key=held.__getitem__) if found else None
