"""Which agent gets a task: the layer of the orchestrator that knows who can do what, and how loaded they are.

The registry says so; override `choose` in a subclass of `Orchestrator` for another choice.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...runtime.agent import Agent
from ...runtime.registry import Registration

_RANKS = {"healthy": 0, "degraded": 1, "unhealthy": 2}


class Staff(Agent):
    """The agents as an orchestrator sees them at one instant, and what it has given them since."""

    def __init__(self, name: str, *, concurrency: int) -> None:
        super().__init__(name, concurrency=concurrency)
        self._given: Counter[str] = Counter()  # tasks in the hands of each agent
        self._looked = -1.0  # when the pools were filled
        self._pools: dict[str, list[list[Any]]] = {}  # agents by capability: rank, load, number, name, share of a task
        self._places: dict[str, list[Any]] = {}  # the same by name

    async def choose(self, capability: str) -> str | None:
        """Return the agent to give a task to; None if nobody can do it at present.

        The registry is asked once an instant; what the agents have been given since then counts as load.
        """
        if self.world.clock() != self._looked:
            self._forget()
        pool = self._pools.get(capability)
        if pool is None:
            found = await self.world.registry.discover([capability])
            pool = self._pools[capability] = [place for entry in found if (place := self._place(entry, capability))]
        while pool:
            name: str = min(pool)[3]
            if self._present(name) is not None:
                return name
            pool.remove(min(pool))
        return None

    def _present(self, name: str) -> Agent | None:
        """Return the agent of that name if it could be asked: it runs, or is paused."""
        agent = self.world.bus.agent(name)
        return agent if agent is not None and (agent.responsive or agent.state in ("idle", "busy")) else None

    def _place(self, entry: Registration, capability: str) -> list[Any] | None:
        """Return where an agent stands; None if it could not be asked. Paused ones come last."""
        agent = self._present(entry.name)
        if agent is None or capability not in agent.offers:
            return None
        rank, share = _RANKS[entry.health] + 3 * (not agent.responsive), 1 / agent.concurrency
        load = max(entry.load, self._given[entry.name] * share)  # heartbeats may not have told of it yet
        return self._places.setdefault(entry.name, [rank, load, entry.number, entry.name, share])

    def _give(self, agent: str, tasks: int) -> None:
        """Note that an agent has been given tasks, or, if less than 0, has done them."""
        self._given[agent] += tasks
        if (place := self._places.get(agent)) is not None:
            place[1] += tasks * place[4]

    def _forget(self) -> None:
        self._looked = self.world.clock()
        self._pools.clear()
        self._places.clear()
