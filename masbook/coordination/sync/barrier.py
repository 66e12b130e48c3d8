"""Barriers: agents wait for each other, and go on together.

What happens at one is a row of the trace, and where the parties are known, `world.explain()` names one that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ...errors import BarrierBroken, InvalidValue
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.world import World
from .line import Named, fail, how_gone


class Barrier(Named):
    """A place where so many agents meet before any of them goes on, again and again.

    `parties` is their number, or the agents themselves. One that has waited too long breaks the barrier for everybody;
    so does one that crashes or stops while it waits, or at any time where the parties are known. It stays broken until
    `reset`. Who will not come any more can `leave`: the others go on without it.
    """

    kind = "barrier"

    def __init__(self, world: World, name: str, parties: int | Sequence[Agent] | None = None) -> None:
        known: dict[str, Agent] = {}
        if isinstance(parties, Sequence):
            for agent in parties:
                self.check_agent(agent, present=False)
            known = {agent.name: agent for agent in parties}
            if len(known) < len(parties):
                raise InvalidValue(f"{self} has an agent twice among its parties: one agent is one party")
            parties = len(known)
        if self.is_new(parties=parties, known=sorted(known) or None):
            require.whole("parties", parties)
            for agent in known.values():
                self.check_agent(agent)
            self._known, self._left = known, dict[str, None]()
            self._arrived: dict[str, asyncio.Future[int]] = {}  # done when they have met, or will not
            self._broken = ""  # why, if it is
            self.generation = 0  # how often they have met
            self.enter()
            for agent in known.values():
                agent.when_gone(partial(self._depart, agent))

    @property
    def parties(self) -> int:
        """How many have to come: all but those who have left."""
        return int(self.options["parties"]) - len(self._left)

    @property
    def arrived(self) -> list[str]:
        """Who waits, first come first."""
        return [name for name, future in self._arrived.items() if not future.done()]

    @property
    def broken(self) -> bool:
        """Whether nobody passes until `reset`."""
        return bool(self._broken)

    async def wait(self, agent: Agent, timeout: float | None = None) -> int:
        """Wait for the others; return which one the agent was to come: 0 for the first.

        BarrierBroken if one of them is not there `timeout` virtual seconds later, or departs.
        """
        name = self._party(agent)
        if timeout is not None:
            require.positive("timeout", timeout)
        if name in self.arrived:
            raise InvalidValue(f"{name} waits at {self} already: one agent is one party")
        if self._broken:
            raise BarrierBroken(self._broken)
        self._join(agent)
        future = self._arrived[name] = self.world.loop.create_future()
        self._record(name, "arrived")
        call_off = agent.when_gone(partial(self._depart, agent))
        timer = None if timeout is None else self.world.loop.call_later(timeout, self._time_out, name, future)
        self._meet(name)
        try:
            return int(await self.world.wait(future, who=name, what=str(self), on=self._missing))
        except asyncio.CancelledError:
            if future.cancelled():  # neither met nor broken
                self._record(name, "withdrawn")
            raise
        finally:
            call_off()
            if timer is not None:
                timer.cancel()

    def leave(self, agent: Agent) -> None:
        """Let the others go on without the agent, until it waits here again."""
        name = self._party(agent, present=False)
        if name not in self._left:
            self._left[name] = None
            if (future := self._arrived.pop(name, None)) is not None:
                fail(future, BarrierBroken(f"{name} has left {self}"))
            self._record(name, "left")
            self._meet(name)

    def reset(self) -> asyncio.Future[None]:
        """Mend it, at once; whoever waits gets BarrierBroken. The result may be awaited, and is done."""
        if self.arrived:
            self._break("world", "it was reset")
        self._broken = ""
        self._record("world", "reset")
        done: asyncio.Future[None] = self.world.loop.create_future()
        done.set_result(None)
        return done

    def _party(self, agent: Agent, present: bool = True) -> str:
        """Return the name of an agent that may come here; see `check_agent`."""
        self.check_agent(agent, present)
        if self._known and agent.name not in self._known:
            raise InvalidValue(f"{agent.name} is no party of {self}; its parties: {', '.join(self._known)}")
        return agent.name

    def _join(self, agent: Agent) -> None:
        """Count on the agent again, if it had left or crashed."""
        self._arrived.pop(agent.name, None)  # of the last time: now it comes behind the others
        if agent.name in self._left:
            del self._left[agent.name]
            if agent.name in self._known:
                agent.when_gone(partial(self._depart, agent))

    def _meet(self, last: str) -> None:
        """Let them all go on if all have come; those cancelled in this very instant have not."""
        futures = [future for future in self._arrived.values() if not future.done()]
        if futures and len(futures) >= self.parties:
            self._record(last, "tripped")
            self.generation += 1
            for index, future in enumerate(futures):
                future.set_result(index)

    def _time_out(self, name: str, future: asyncio.Future[int]) -> None:
        if not future.done():
            self._break(name, f"{name} has waited long enough, and {len(self.arrived)} of {self.parties} have come")

    def _depart(self, agent: Agent) -> None:
        name = agent.name
        if not self._broken and name not in self._left and (name in self._known or name in self.arrived):
            self._break(name, f"{name} has {how_gone(agent)}")
        if name in self._known:
            self._left[name] = None

    def _break(self, who: str, why: str) -> None:
        """Let nobody pass, now or later."""
        self._broken = f"{self} is broken: {why}; call its reset() before it is used again"
        self._record(who, "broken")
        for future in self._arrived.values():
            fail(future, BarrierBroken(self._broken))

    def _record(self, who: str, status: str) -> None:
        facts = {"generation": self.generation, "status": status, "arrived": len(self.arrived)}
        self.world.trace.record("barrier", who, barrier=self.name, **facts)

    def _missing(self) -> str | None:
        """Return a party that has not come, if they are known; best one that waits itself."""
        missing = [name for name in self._known if name not in [*self._left, *self.arrived]]
        waiting = {wait.who for wait in self.world.waits.values()}
        return min(missing, key=lambda name: name not in waiting, default=None)
