"""The roster of a pool: who belongs to it, how many they are, and who takes the place of one that fails.

`Pool` calls `mend` and `resize` each time anything has changed; for other rules, override them.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..errors import InvalidName, InvalidValue, WorldError
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.world import World
from .outcomes import askable
from .seats import Seat


class Roster:
    """The agents of a pool: those of a list, or those that a function makes, `least` to `most` of them.

    The world restarts one of a list that crashes; a made one is replaced when it crashes, stops or is unhealthy.
    """

    def __init__(self, pool: Agent, agents: Any, size: int | None, least: int | None, most: int | None) -> None:
        """Take the agents, or make the first `size`. InvalidValue for none, or bounds that contradict each other."""
        self.pool, self.made = pool, 0
        self.make: Any = agents if callable(agents) else None
        self.changed = -inf  # when its size was
        for option, value in (("size", size), ("least", least), ("most", most)):
            require.whole(option, 1 if value is None else value)
        if self.make is not None:
            self.seats = [self._make() for _ in range(size or least or 1)]
        elif (size, least, most) == (None, None, None):
            self.seats = [Seat(one) for one in askable(agents)]
        else:
            raise InvalidValue(f"the agents of {pool.name} are a list, which has its size; give a function instead")
        self.least, self.most = least or len(self.seats), most or len(self.seats)
        if not self.least <= len(self.seats) <= self.most:
            raise InvalidValue(f"{pool.name} has least={least}, size={size}, most={most}: give them in ascending order")
        names = [seat.agent.name for seat in self.seats]
        if len({*names}) < len(names):
            raise InvalidName(f"{pool.name} has agents of the same name: {', '.join(names)}")

    def check_place(self, world: World) -> None:
        """Raise an error if not all agents can live in this world."""
        for one in [seat.agent for seat in self.seats]:
            if not one.unborn and one.world is not world:
                raise WorldError(f"{one.name} lives in another world: spawn {self.pool.name} there")
            if (namesake := world.bus.agent(one.name)) not in (None, one) and namesake.online:
                raise InvalidName(f"there is already an agent called {one.name!r}; choose other names")

    def admit(self, seat: Seat, change: str, reason: str | None = None) -> None:
        """Bring an agent to life, unless it lives."""
        if seat.agent.unborn:
            self.pool.world.spawn(seat.agent, parent=self.pool, restart="never" if self.make else "on_crash")
        seat.since = self.pool.now
        self._record(change, seat, reason)

    def mend(self) -> float:
        """Replace made agents that are not well, each after a back-off; return the instant at which to do it again."""
        for place, seat in enumerate(self.seats):
            if self.make is None or seat.well:
                seat.due = inf
            elif seat.due == inf:
                delay = seat.supervision.next_restart(self.pool.now)[1]
                seat.due = inf if delay is None else self.pool.now + delay
            elif seat.due <= self.pool.now:
                why = f"{seat.agent.name} is {seat.agent.state}, {seat.view().health}"
                seat.agent.stop(f"it is replaced in {self.pool.name}")
                self.seats[place] = self._make()
                self.seats[place].supervision = seat.supervision
                self.admit(self.seats[place], "replaced", why)
        return min(seat.due for seat in self.seats)

    def resize(self, waiting: int, cooldown: float) -> float:
        """Make one more where work waits and nobody is free; stop one that has had nothing to do for a cool-down.

        A cool-down, in virtual seconds, lies between two changes. Returns the instant at which to look again.
        """
        return self._grow(waiting, cooldown) if waiting else self._shrink(cooldown)

    def _grow(self, waiting: int, cooldown: float) -> float:
        due = self.changed + cooldown
        if len(self.seats) == self.most or any(seat.well and seat.free for seat in self.seats):
            return inf
        if self.pool.now >= due:
            self.changed = due = self.pool.now
            self.seats.append(self._make())
            self.admit(self.seats[-1], "grown", f"{waiting} wait")
        return due

    def _shrink(self, cooldown: float) -> float:
        now, spare = self.pool.now, [seat for seat in self.seats if not seat.hands and len(self.seats) > self.least]
        due = {seat: max(self.changed, seat.since) + cooldown for seat in spare}
        idle = [seat for seat in spare if due[seat] <= now and (seat.agent.at_rest or not seat.agent.online)]
        if not idle:  # who does the work of others is left alone until something changes
            return min((instant for instant in due.values() if instant > now), default=inf)
        leaver = min(idle, key=lambda seat: seat.since)
        self.changed = now
        self.seats.remove(leaver)
        self._record("shrunk", leaver)
        leaver.agent.stop(f"{self.pool.name} has shrunk")
        return now

    def _make(self) -> Seat:
        """Have the next agent made."""
        self.made += 1
        (agent,) = askable([self.make(self.made)])
        if not agent.unborn:
            raise InvalidValue(f"{agent.name} lives already: make {self.pool.name} a new agent each time")
        return Seat(agent)

    def _record(self, change: str, seat: Seat, reason: str | None = None) -> None:
        facts = {"change": change, "member": seat.agent.name, "size": len(self.seats), "reason": reason}
        self.pool.world.trace.record("pool", self.pool.name, **facts)
