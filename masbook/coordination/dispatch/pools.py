"""Priority queues: tasks of each urgency have workers of their own: the urgent need not wait, nor do the rest starve.

A pool is a tag: workers spawned with `tags=["low"]` serve the tasks of that priority. Everything else is as with the
Coordinator. For another rule of who serves whom, override `_offers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from ...errors import InvalidValue
from ...runtime import require
from .coordinator import Coordinator
from .shares import Job


class PriorityQueues(Coordinator):
    """A coordinator with a queue and a pool of workers for each of its `levels`, the most urgent first.

    With `borrow`, a worker whose own queue is empty takes the most urgent task of the others; it may have any tag, or
    none. Nobody starves: a task for one worker that finds k tasks of its level before it starts after at most
    (k // m + 1) * d virtual seconds, if m workers have its tag and no other, live, and take at most d for a task.

        queues = world.spawn(PriorityQueues("queues", borrow=True))
        for level in queues.levels:
            world.spawn(Clerk(f"clerk_{level}", tags=[level]))      # a Worker that can `solve`
        outcome = world.run(queues.execute("solve", {"ticket": 1}, priority="high"))
    """

    def __init__(
        self, name: str, *, levels: Sequence[str] = ("high", "normal", "low"), borrow: bool = False, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.levels = require.names("levels", levels)
        self.borrow = require.one_of("borrow", borrow, (False, True))
        several = self.levels and all(self.levels) and len({*self.levels}) == len(self.levels)
        if not several or isinstance(levels, Set):  # a set has no order
            raise InvalidValue(f"levels is {levels!r}: give the names of different priorities, the most urgent first")

    def _offers(self) -> Iterable[tuple[Job, tuple[str, ...]]]:
        """Offer each task the workers of its own pool; then, if they may be borrowed, whoever is left."""
        waiting = sorted(self._unfinished, key=lambda job: self.levels.index(job.asked.priority))
        own = [(job, (job.asked.priority,)) for job in waiting]
        return own + [(job, ()) for job in waiting if self.borrow]
