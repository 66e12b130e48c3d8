"""Lines: agents that hold something or wait for it, found by name; `locks` makes locks and semaphores of them.

A change of state never spans an `await`, so that no order of simultaneous events loses a permit: whoever is let in
holds from that instant, before it wakes up, and gives it on if it was cancelled meanwhile. For another primitive, write
a `Line` with another `admits`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, ClassVar, Self

from ...errors import AgentOffline, InvalidValue, LockTimeout, NotHeld
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.world import World


class Named:
    """Something of which a world has one of each kind and name; `__init__` is for the first who asks (see `is_new`)."""

    kind: ClassVar[str]
    world: World
    name: str
    options: dict[str, Any]

    def __new__(cls, world: World, name: str, *options: Any, **more: Any) -> Self:
        """Return the one of that name, or a new one."""
        if not isinstance(world, World):
            raise InvalidValue(f"a {cls.kind} belongs to a world, not to {world!r}: write {cls.__name__}(world, 'gpu')")
        if not isinstance(name, str) or not name.strip():
            raise InvalidValue(f"a {cls.kind} called {name!r}: give it a name, such as 'gpu'")
        found = world.named.get((cls.kind, name)) or super().__new__(cls)
        if not isinstance(found, cls):
            raise InvalidValue(f"{found} is a {type(found).__name__}; choose another name")
        found.world, found.name = world, name
        return found

    def is_new(self, **options: Any) -> bool:
        """Return whether it has yet to `enter` the world; InvalidValue if it has done so with other options.

        An option that is None was not given, and fits any.
        """
        if self.world.named.get((self.kind, self.name)) is not self:
            self.options = options
            return True
        for option, value in options.items():
            if value is not None and value != (known := self.options[option]):
                raise InvalidValue(f"{self} is there already, with {option}={known!r}, not {value!r}")
        return False

    def enter(self) -> None:
        """Let others find it from now on."""
        self.world.named[self.kind, self.name] = self

    def check_agent(self, agent: Agent, present: bool = True) -> None:
        """Raise InvalidValue unless it is an agent of this world, AgentOffline unless it runs."""
        if not isinstance(agent, Agent):
            raise InvalidValue(f"{agent!r} is no agent: give {self} the agent itself")
        if agent.unborn or agent.world is not self.world:
            raise InvalidValue(f"{agent.name} does not live in the world of {self}: spawn it there")
        if present and agent.state in ("offline", "error"):
            raise AgentOffline(f"{agent.name} is in the state {agent.state!r} and takes no part in {self}")

    def __repr__(self) -> str:
        return f"the {self.kind} {self.name!r}"


class Claim:
    """What one agent wants and then has: it waits in line, is held with a token, and is over."""

    __slots__ = ("agent", "call_off", "granted", "mode", "since", "timer", "token")

    def __init__(self, agent: Agent, mode: str) -> None:
        self.agent, self.mode, self.since = agent, mode, agent.now
        self.granted: asyncio.Future[None] = agent.world.loop.create_future()
        self.token = 0  # from when it is granted
        self.timer: Any = None  # of the time-out while it waits, then of the lease
        self.call_off: Callable[[], Any] = lambda: None  # of what happens when the agent departs


class Line(Named):
    """Who holds, and who waits: the first in line passes as soon as `admits` lets it.

    Every grant has a token, which only grows. Whoever crashes or stops leaves the line, and gives back what it holds.
    """

    modes: ClassVar[tuple[str, ...]]  # in which it can be acquired; the first is the usual one
    permits = 1
    lease: float | None = None  # virtual seconds

    def __init__(self, world: World, name: str) -> None:
        if self.is_new():
            self.enter()

    def enter(self) -> None:
        """Begin with nobody in the line."""
        self._line: list[Claim] = []
        self._held: dict[int, Claim] = {}  # by token
        self._newest = 0  # token
        super().enter()

    def admits(self, claim: Claim, held: Sequence[Claim]) -> bool:
        """Return whether the claim may join those held: the rule of the line."""
        return len(held) < self.permits

    async def acquire(self, agent: Agent, timeout: float | None = None, mode: str = "") -> int:
        """Wait in line and return the token.

        Raises LockTimeout after `timeout` virtual seconds, and AgentOffline if the agent departs meanwhile.
        """
        self.check_agent(agent)
        claim = Claim(agent, require.one_of("mode", mode or self.modes[0], self.modes))
        if timeout is not None:
            require.positive("timeout", timeout)
            claim.timer = self.world.loop.call_later(timeout, self._time_out, claim)
        claim.call_off = agent.when_gone(partial(self._depart, claim))
        self._line.append(claim)
        self._serve()
        if not claim.granted.done():
            self._record("queued", claim)
        try:
            await self.world.wait(claim.granted, who=agent.name, what=str(self), on=partial(self._blocker, claim))
        except BaseException:
            self._end(claim, "cancelled")  # granted or not: if it was, in this very instant, the next one gets it
            raise
        return claim.token

    async def release(self, agent: Agent, token: int | None = None) -> None:
        """Give back what the agent has held longest, or what it got with the token; NotHeld if it has no such thing."""
        self._end(self._find(agent, token), "released")

    @asynccontextmanager
    async def hold(self, agent: Agent, timeout: float | None = None, mode: str = "") -> AsyncIterator[int]:
        """Acquire, give the token to the body of `async with`, and release; NotHeld if the lease ran out meanwhile."""
        token = await self.acquire(agent, timeout, mode)
        try:
            yield token
        except BaseException:
            with suppress(NotHeld):  # it would hide the error
                await self.release(agent, token)
            raise
        await self.release(agent, token)

    def check(self, token: int) -> int:
        """Return the token if what it stands for is held at this moment; NotHeld otherwise."""
        if token not in self._held:
            raise NotHeld(f"token {token} of {self} is not valid: {self._state()}, and the newest is {self._newest}")
        return token

    @property
    def holders(self) -> list[str]:
        """Who holds it, longest first, once for each token."""
        return [claim.agent.name for claim in self._held.values()]

    @property
    def waiting(self) -> list[str]:
        """Who waits, first come first."""
        return [claim.agent.name for claim in self._line if not claim.granted.done()]

    def _find(self, agent: Agent, token: int | None) -> Claim:
        self.check_agent(agent, present=False)
        for claim in self._held.values():
            if claim.agent is agent and token in (None, claim.token):
                return claim
        raise NotHeld(f"{agent.name} does not hold {self}, or no longer: {self._state()}")

    def _state(self) -> str:
        return f"held by {', '.join(self.holders) or 'nobody'}"

    def _serve(self) -> None:
        """Let in whoever may pass, in order of arrival; one who was cancelled in this very instant is passed over."""
        while (claim := next((claim for claim in self._line if not claim.granted.done()), None)) is not None:
            if not self.admits(claim, [*self._held.values()]):
                return
            self._line.remove(claim)
            self._newest = claim.token = self._newest + 1
            self._held[claim.token] = claim
            self._begin_lease(claim)
            self._record("acquired", claim, token=claim.token, waited=self.world.now - claim.since)
            claim.granted.set_result(None)

    def _begin_lease(self, claim: Claim) -> None:
        if claim.timer is not None:
            claim.timer.cancel()
        if self.lease is not None:
            claim.timer = self.world.loop.call_later(self.lease, self._end, claim, "lease expired")

    def _time_out(self, claim: Claim) -> None:
        waited = f"{self.world.now - claim.since:g} s"
        fail(claim.granted, LockTimeout(f"{claim.agent.name} did not get {self} in {waited}: {self._state()}"))
        self._end(claim, "timed out")

    def _depart(self, claim: Claim) -> None:
        how = how_gone(claim.agent)
        fail(claim.granted, AgentOffline(f"{claim.agent.name} has {how}, and waits for {self} no longer"))
        self._end(claim, how)

    def _end(self, claim: Claim, reason: str) -> None:
        """Take a claim out, held or waiting, and let in who may pass now; a second time changes nothing."""
        if claim.timer is not None:
            claim.timer.cancel()
        claim.call_off()
        if self._held.pop(claim.token, None) is not None:
            self._record("released", claim, token=claim.token, reason=reason)
        elif claim in self._line:
            self._line.remove(claim)
            self._record("gave_up", claim, waited=self.world.now - claim.since, reason=reason)
        self._serve()

    def _record(self, kind: str, claim: Claim, **facts: Any) -> None:
        self.world.trace.record(kind, claim.agent.name, resource=f"{claim.mode}:{self.name}", **facts)

    def _blocker(self, claim: Claim) -> str | None:
        """Return who is in the way; of several, one that waits itself, unless any of them would do."""
        if claim.granted.done():
            return None
        waiting = {wait.who for wait in self.world.waits.values()}
        return min(self.holders, key=lambda name: (name in waiting) != (self.permits == 1), default=None)


def how_gone(agent: Agent) -> str:
    """Return whether an agent that is going, or gone, has crashed or stopped."""
    return "crashed" if agent.state == "error" else "stopped"


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Raise an error in whoever waits for the future, unless it is done."""
    if not future.done():
        future.set_exception(error)
