"""Who and what tasks can have: agents, the least loaded first, and named resources, all that a task needs at once.

The orchestrator asks both. Neither lets anybody wait who could go on, nor overtakes who has waited longer for the same.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidWorkflow
from ..runtime.world import World

if TYPE_CHECKING:
    from .flow import Flow, Job
    from .plan import Task

_RANK = {"healthy": 0, "degraded": 1, "unhealthy": 2}


class Pools:
    """The agents by capability, as the registry sees them at this instant, and what they have been given since.

    An agent that reports its load by heartbeats has at least the load that it was given.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._given: Counter[str] = Counter()  # tasks in hand
        self._looked = -1.0
        self._places: dict[str, dict[str, tuple[int, float, int, str]]] = {}
        self._heaps: dict[str, list[tuple[int, float, int, str]]] = {}

    async def best(self, capability: str) -> str | None:
        """Return the agent that is best placed to do something more; None where there is nobody."""
        if self._world.clock() != self._looked:
            self.forget()
        heap = self._heaps.get(capability)
        if heap is None:
            heap = await self._look(capability)
        places, agents = self._places[capability], self._world.bus
        while heap:
            place = heap[0]
            agent = agents.agent(place[3])
            if (
                places.get(place[3]) is place
                and agent is not None
                and (agent.responsive or agent.state in ("idle", "busy"))
            ):
                return place[3]
            heapq.heappop(heap)
        return None

    async def _look(self, capability: str) -> list[tuple[int, float, int, str]]:
        places = self._places[capability] = {}
        for entry in await self._world.registry.discover([capability]):
            agent = self._world.bus.agent(entry.name)
            if agent is not None and capability in agent.offers and agent.state not in ("error", "offline"):
                rank = _RANK[entry.health] + 3 * (not agent.responsive)
                load = max(entry.load, self._given[entry.name] / agent.concurrency)
                places[entry.name] = (rank, load, entry.number, entry.name)
        heap = self._heaps[capability] = sorted(places.values())
        return heap

    def give(self, name: str, tasks: int) -> None:
        """Note that an agent has that many tasks more in hand, or fewer."""
        self._given[name] += tasks
        agent = self._world.bus.agent(name)
        share = tasks if agent is None else tasks / agent.concurrency
        for capability, places in self._places.items():
            place = places.get(name)
            if place is not None:
                heap = self._heaps[capability]
                places[name] = place = (place[0], place[1] + share, place[2], name)
                heapq.heappush(heap, place)
                if len(heap) > 64 + 4 * len(places):
                    heap[:] = sorted(places.values())

    def forget(self) -> None:
        """Look at the registry anew at the next choice."""
        self._looked = self._world.clock()
        self._places.clear()
        self._heaps.clear()


class Resources:
    """Amounts that tasks hold while they run.

    A task gets all it needs at once, so that none waits while it holds. Who has waited longer, or has priority, keeps
    what is free for itself, so that a task that needs much is not overtaken for ever.
    """

    def __init__(self, capacities: Mapping[str, float]) -> None:
        self._capacities: dict[tuple[str, str], float] = {}
        self._free: dict[tuple[str, str], float] = {}
        self.lines: dict[tuple[Any, ...], list[tuple[float, int, Job]]] = {}  # by workflow and by what is needed
        self._joined = 0
        self.declare("", capacities)

    def declare(self, workflow: str, capacities: Mapping[str, float]) -> None:
        """Enter the resources of a workflow, or of all of them."""
        entries = {(workflow, name): amount for name, amount in capacities.items()}
        self._capacities.update(entries)
        self._free.update(entries)

    def needs(self, workflow: str, capacities: Mapping[str, float], task: Task) -> dict[tuple[str, str], float] | None:
        """Return what a task needs, by whose it is and by name; InvalidWorkflow if there is not as much."""
        found = {}
        for name, amount in task.resources.items():
            key = (workflow if name in capacities else "", name)
            capacity = capacities.get(name, self._capacities.get(key, 0))
            if amount > capacity:
                raise InvalidWorkflow(
                    f"{task.id!r} needs {amount:g} of {name!r}, and there is {capacity:g}: declare more"
                )
            found[key] = amount
        return found or None

    def queue(self, job: Job) -> None:
        """Let a task wait in line."""
        self._joined += 1
        line = self.lines.setdefault((job.flow.id, *sorted(job.needs)), [])
        heapq.heappush(line, (-job.task.priority, self._joined, job))

    def grant(self) -> Iterator[Job]:
        """Give the waiting tasks what they need, as far as it goes, and yield those that may run."""
        heads, reserved = [line[0] for line in self.lines.values()], Counter[tuple[str, str]]()
        heapq.heapify(heads)
        while heads:
            job = heapq.heappop(heads)[2]
            if job.flow.status != "running":
                continue
            if job.flow.room and all(self._free[key] - reserved[key] > need - 1e-9 for key, need in job.needs.items()):
                self._change(job, -1)
                line = self.lines[key := (job.flow.id, *sorted(job.needs))]
                heapq.heappop(line)
                if line:
                    heapq.heappush(heads, line[0])
                else:
                    del self.lines[key]
                yield job
            else:
                reserved.update(job.needs)

    def release(self, job: Job) -> None:
        """Take back what a task holds."""
        if job.holds:
            self._change(job, 1)

    def _change(self, job: Job, sign: int) -> None:
        job.holds = sign < 0
        for key, need in job.needs.items():
            self._free[key] += sign * need

    def leave(self, flow: Flow) -> None:
        """Let the tasks of a workflow wait no more."""
        self.lines = {key: line for key, line in self.lines.items() if key[0] != flow.id}
