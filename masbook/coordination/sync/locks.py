"""Locks, semaphores and read-write locks: lines that differ in who may pass (see `line`).

Every hand-over is a row of the trace, and `world.explain()` says who waits and who is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.world import World
from .line import Claim, Line


class Lock(Line):
    """One holder at a time.

    With a lease, in virtual seconds, a holder that is late loses the lock to the next in line: its token is stale, its
    release is NotHeld, and whoever is shown the token can refuse it, by `check` or because it has seen a newer one.

        async with Lock(world, "gpu", lease=60.0).hold(agent, timeout=5.0) as token:
            await agent.request("ledger", "write", token=token, text="...")
    """

    kind = "lock"
    modes = ("lock",)

    def __init__(self, world: World, name: str, lease: float | None = None) -> None:
        if self.is_new(lease=lease):
            self.lease = None if lease is None else require.positive("lease", lease)
            self.enter()

    async def renew(self, agent: Agent, token: int | None = None) -> None:
        """Let the lease begin anew; NotHeld if it has run out."""
        self._begin_lease(self._find(agent, token))

    @property
    def holder(self) -> str | None:
        """Who holds it."""
        return next(iter(self.holders), None)


class Semaphore(Line):
    """As many holders as permits; an agent that takes two gives back two."""

    kind = "semaphore"
    modes = ("semaphore",)

    def __init__(self, world: World, name: str, permits: int | None = None) -> None:
        if self.is_new(permits=permits):
            self.permits = require.whole("permits", permits)
            self.enter()

    @property
    def available(self) -> int:
        """How many permits are left."""
        return self.permits - len(self.holders)


class ReadWriteLock(Line):
    """Many readers or one writer, in order of arrival, so that neither starves the other.

    `async with lock.read(agent, timeout=5.0)` holds a share, `async with lock.write(agent)` the whole. A reader that
    wants to write lets go first: it would wait for itself.
    """

    kind = "read-write lock"
    modes = ("write", "read")

    def admits(self, claim: Claim, held: Sequence[Claim]) -> bool:
        """Return whether nobody holds it, or only readers do and here is another one."""
        return not held or (claim.mode == "read" and all(other.mode == "read" for other in held))

    async def acquire_read(self, agent: Agent, timeout: float | None = None) -> int:
        """Wait in line for a share; see `acquire`."""
        return await self.acquire(agent, timeout, "read")

    async def acquire_write(self, agent: Agent, timeout: float | None = None) -> int:
        """Wait in line for the whole; see `acquire`."""
        return await self.acquire(agent, timeout, "write")

    def read(self, agent: Agent, timeout: float | None = None) -> AbstractAsyncContextManager[int]:
        """Hold a share in `async with`; see `hold`."""
        return self.hold(agent, timeout, "read")

    def write(self, agent: Agent, timeout: float | None = None) -> AbstractAsyncContextManager[int]:
        """Hold the whole in `async with`; see `hold`."""
        return self.hold(agent, timeout, "write")
