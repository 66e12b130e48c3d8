"""Pools: several agents that can be asked as if they were one.

Scenarios `ask` them, give them a `batch`, or `checkout` an agent. Read `strategies` next: who gets a task; then
`seats`: who waits for whom; and `roster`: how a pool grows, shrinks, and replaces agents that fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from ..coordination.sync.line import fail
from ..errors import AgentOffline, LockTimeout, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability, on
from ..runtime.message import Message
from ..runtime.supervision import Supervision
from ..runtime.worker import current_worker
from ..runtime.world import World
from .outcomes import PATIENCE, Outcome, Outcomes, outcome_of, together
from .roster import Roster
from .seats import Claim, deal
from .strategies import STRATEGIES, Candidate, Choose


class Pool(Agent):
    """Agents that can be asked through one name, by call or by message.

    `agents` is a list, or a function that makes the n-th one, from 1: `size` at first; one more where work waits and
    nobody is free, up to `most`; one less where one has had nothing to do for `cooldown` virtual seconds, down to
    `least`; and as long lies between two changes. One of a list that crashes is restarted, a made one that crashes,
    stops or is unhealthy is replaced: three times a minute at the most. `choose` is `round_robin`, `least_loaded`,
    `fastest` or a function; `timeout` is how many virtual seconds a task may take an agent.

        pool = world.spawn(Pool("pool", lambda n: LLMAgent(f"worker_{n}"), size=3, most=8, choose="fastest"))
        world.run(pool.ask("Summarise: ..."))
    """

    def __init__(
        self,
        name: str,
        agents: Sequence[Agent] | Callable[[int], Agent] = (),
        *,
        choose: str | Choose = "round_robin",
        size: int | None = None,
        least: int | None = None,
        most: int | None = None,
        cooldown: float = 30.0,
        timeout: float = PATIENCE,
        **options: Any,
    ) -> None:
        """Gather the agents, or make the first; `options` are those of Agent. InvalidValue for a pool of none."""
        super().__init__(name, **{"concurrency": 1000, "capacity": 1_000_000} | options)
        self.choose = choose if callable(choose) else STRATEGIES[require.one_of("choose", choose, STRATEGIES)]
        self.cooldown = require.finite("cooldown", require.positive("cooldown", cooldown))
        self.timeout = require.positive("timeout", timeout)
        self._roster = Roster(self, agents, size, least, most)
        self.output_type = getattr(self[0], "output_type", Any)
        self._line: list[Claim] = []
        self._claims = 0  # so far
        self._news = asyncio.Event()  # for `_tend`: something has changed

    @capability
    async def ask(self, prompt: str, timeout: float | None = None) -> Any:
        """Return what an agent answers within `timeout` virtual seconds.

        Raises what the agent fails of, LockTimeout where none was free in time, AgentOffline where none is left.
        """
        return await self._do(self._claim(timeout), require.text("prompt", prompt))

    async def batch(self, prompts: Iterable[str], limit: int | None = None, timeout: float | None = None) -> Outcomes:
        """Ask all prompts, at most `limit` at the same time; return all outcomes in their order, the failures too.

        Each may take `timeout` virtual seconds, from when it is asked.
        """
        asked = require.names("prompts", prompts)
        gate = asyncio.Semaphore(len(asked) if limit is None else require.whole("limit", limit))
        require.positive("timeout", inf if timeout is None else timeout)

        async def outcome(prompt: str) -> Outcome:
            async with gate:
                claim = self._claim(timeout)
                found = await outcome_of(self, self._do(claim, prompt))
                return found if claim.seat is None else replace(found, agent=claim.seat.agent.name)

        return Outcomes(await together(outcome(prompt) for prompt in asked))

    @asynccontextmanager
    async def checkout(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """Give an agent that has no task of the pool to the body of `async with`; it gets none until the end.

        LockTimeout after `timeout` virtual seconds, AgentOffline where none is left.
        """
        claim, record = self._claim(timeout, alone=True), self.world.trace.record
        async with self._seated(claim) as agent:
            facts = {"resource": f"{self.name}:{agent.name}", "token": claim.number}
            record("acquired", claim.who, **facts, waited=self.now - claim.since)
            try:
                yield agent
            finally:
                record("released", claim.who, **facts, reason="released")

    @property
    def agents(self) -> list[Any]:
        """The agents at present, also those that are not well."""
        return [seat.agent for seat in self._roster.seats]

    def candidates(self) -> list[Candidate]:
        """Return what a strategy would see of the agents now."""
        return [seat.view() for seat in self._roster.seats]

    def __len__(self) -> int:
        return len(self._roster.seats)

    def __getitem__(self, place: int | slice) -> Any:
        return self.agents[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.agents)

    def check_place(self, world: World) -> None:
        """Refuse a world where the agents cannot live; nothing has been recorded then."""
        self._roster.check_place(world)

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world together with the agents."""
        super().enter(world, parent, supervision)
        for seat in self._roster.seats:
            self._roster.admit(seat, "opened")

    async def on_start(self) -> None:
        """Look after the agents and the line from now on."""
        self.world.registry.watch(lambda entry: self._news.set())
        self.background(self._tend())

    async def on_stop(self) -> None:
        """Stop the agents, except for those that lived before."""
        for one in self:
            if one.parent is self:
                one.stop(f"{self.name} has stopped")

    @on("agent.health")
    async def hear_of_health(self, message: Message) -> None:
        """Look at the agents anew: somebody's health has changed."""
        self._news.set()

    async def _tend(self) -> None:
        """Mend, deal and change the size, each time when anything has changed or is due."""
        while True:
            self._news.clear()
            due = self._roster.mend()
            deal(self._line, self._roster.seats, self.choose, self.random)
            self._line = [claim for claim in self._line if not claim.served.done()]
            due = min(due, self._roster.resize(len(self._line), self.cooldown))
            for one in self:
                one.when_gone(self._news.set)
            if not any(seat.agent.online or seat.due < inf for seat in self._roster.seats):
                self._refuse()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if due == inf else due):
                    await self._news.wait()

    def _refuse(self) -> None:
        """Tell all that wait that they wait in vain."""
        gone = self if self.state in ("offline", "error") else self[0]
        for claim in self._line:
            fail(claim.served, AgentOffline(f"{self.name} has nobody left: {gone.name} {gone.why_offline()}"))

    def _claim(self, timeout: float | None, alone: bool = False) -> Claim:
        """Return what can wait in line."""
        until = self.now + require.positive("timeout", inf if timeout is None else timeout)
        worker = current_worker.get()
        self._claims += 1
        who = self.name if worker is None else worker.agent.name
        return Claim(self._claims, who, self.now, until, self.world.loop.create_future(), alone)

    @asynccontextmanager
    async def _seated(self, claim: Claim) -> AsyncIterator[Any]:
        """Wait in line and give the agent that the claim gets; take it back at the end, however that comes."""
        if self.state in ("offline", "error"):
            raise AgentOffline(f"{self.name} takes no tasks: {self.why_offline()}")
        late = LockTimeout(f"no agent of {self.name} was free for {claim.who} in {claim.until - claim.since:g} s")
        timer = None if claim.until == inf else self.world.loop.call_at(claim.until, fail, claim.served, late)
        self.when_gone(self._refuse)
        self._line.append(claim)
        self._news.set()
        try:
            blocker = partial(self._blocker, claim)
            await self.world.wait(claim.served, who=claim.who, what=f"an agent of {self.name}", on=blocker)
            yield claim.seat and claim.seat.agent
        finally:
            if timer is not None:
                timer.cancel()
            if claim.seat is not None:  # perhaps in the very instant in which it was given up
                claim.seat.hands.remove(claim)
                claim.seat.since = self.now
            self._news.set()

    def _blocker(self, claim: Claim) -> str | None:
        """Return who is in the way, where all agents are checked out: somebody else who does not wait, if possible."""
        waiting = {wait.who for wait in self.world.waits.values()}
        holders = [seat.holder.who for seat in self._roster.seats if seat.holder is not None]
        return min(holders, key=lambda who: (who in waiting, who == claim.who)) if len(holders) == len(self) else None

    async def _do(self, claim: Claim, prompt: str) -> Any:
        """Have a prompt answered, and remember how that went."""
        record = partial(self.world.trace.record, workflow=self.name, task=self.world.new_id("task"))
        began, status, reason = self.now, "cancelled", "nobody waits for it any more"
        record("task_added", self.name, capability="ask", priority=0)
        try:
            async with self._seated(claim) as agent:
                record("task_started", agent.name, attempt=1)
                began = self.now
                left = max(min(self.timeout, claim.until - began), 1e-9)
                output = await self.request(agent.name, "ask", prompt=prompt, timeout=left, on_timeout="cancel")
            status, reason = "completed", ""
            return output
        except Exception as error:
            status = "timed_out" if isinstance(error, TimeoutError) else "failed"
            reason = f"{type(error).__name__}: {describe(error)}"
            raise
        finally:
            record("task_ended", self.name, status=status, reason=reason or None)
            if claim.seat is not None and status != "cancelled":
                claim.seat.past.append((self.now, self.now - began, status == "completed"))
