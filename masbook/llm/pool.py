"""Pools: several agents that can be asked as if they were one.

Scenarios `ask` them, or `checkout` an agent. Tasks wait in one line; whenever anything changes, those that wait are
dealt anew, and so follow the news of who is free, fails or is gone. The strategies to replace are in `seats`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from ..coordination.sync.line import fail
from ..errors import AgentOffline, InvalidName, InvalidValue, LockTimeout, WorldError, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.supervision import Supervision
from ..runtime.worker import current_worker
from .outcomes import PATIENCE, Outcome, Outcomes, outcome_of
from .seats import STRATEGIES, Candidate, Choose, Claim, Seat, deal, gathered

if TYPE_CHECKING:
    from ..runtime.world import World


class Pool(Agent):
    """Agents that can be asked through one name, by call or by message.

    `agents` is a list, or a function that makes the n-th one, from 1. Made ones are `size` at first; one more where
    work finds nobody free, up to `most`; one less where one has always been free for `cooldown` virtual seconds, down
    to `least`; and as long lies between two changes. A made one that crashes, stops or is unhealthy is replaced, one of
    a list that crashes is restarted: three times a minute at the most. `choose` is `round_robin`, `least_loaded`,
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
        self.cooldown, self.timeout = require.positive("cooldown", cooldown), require.positive("timeout", timeout)
        self._make: Any = agents if callable(agents) else None
        self._made = 0
        if self._make is None and (size, least, most) != (None, None, None):
            raise InvalidValue(f"the agents of {name} are a list, which has its size; give a function that makes them")
        if self._make is not None:
            size = require.whole("size", least or 1 if size is None else size)
            agents = [self._next() for _ in range(size)]
        given = gathered(name, agents)
        self.least = require.whole("least", len(given) if least is None else least)
        self.most = require.whole("most", len(given) if most is None else most)
        if not self.least <= len(given) <= self.most:
            raise InvalidValue(f"{name} of least={least}, size={size}, most={most}: give them in ascending order")
        self.output_type = getattr(given[0], "output_type", Any)
        self._seats = [Seat(one, mine=one.unborn) for one in given]
        self._line: dict[Claim, None] = {}
        self._asleep: list[Agent] = []  # those that stopped with the pool
        self._round: asyncio.Task[None] | None = None  # the next look at who waits and who is free
        self._alarm = self._changed = -inf  # when the size may be changed, and when it was
        self._slack: float | None = None  # since when somebody has always been free

    def check_place(self, world: World) -> None:
        """Refuse a world where an agent has a namesake, or does not live; nothing has been recorded then."""
        super().check_place(world)
        for one in self:
            if not one.unborn and one.world is not world:
                raise WorldError(f"{one.name} lives in another world: spawn {self.name} there")
            namesake = world.bus.agent(one.name)
            if namesake not in (None, one) and namesake.online:
                raise InvalidName(f"there is already an agent called {one.name!r}; choose other names in {self.name}")

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world together with the agents."""
        super().enter(world, parent, supervision)
        for seat in self._seats:
            self._admit(seat, "opened")

    async def on_start(self) -> None:
        """Look after the agents; bring those back that stopped with the pool."""
        self.when_gone(self._refuse)
        self.world.registry.watch(self._look)
        for one in self._asleep:
            one.restart()
        self._look()

    async def on_stop(self) -> None:
        """Stop the agents, except for those that lived before the pool."""
        self._asleep = [seat.agent for seat in self._seats if seat.mine and seat.agent.online]
        for one in self._asleep:
            one.stop(f"{self.name} has stopped")

    @capability
    async def ask(self, prompt: str, conversation: str | None = None, timeout: float | None = None) -> Any:
        """Return what an agent answers, in `timeout` virtual seconds; a conversation stays with who began it.

        Raises what the agent fails of, LockTimeout where none was free in time, AgentOffline where none is left.
        """
        return await self._do(self._claim(timeout, conversation), require.text("prompt", prompt))

    async def batch(self, prompts: Iterable[str], limit: int | None = None, timeout: float | None = None) -> Outcomes:
        """Ask all prompts, at most `limit` at the same time; return all outcomes in their order, the failures too.

        Each may take `timeout` virtual seconds, from when it is asked.
        """
        asked, found = require.names("prompts", prompts), dict[int, Outcome]()
        limit = len(asked) if limit is None else require.whole("limit", limit)
        numbered = enumerate(asked)

        async def go_on() -> None:
            for number, prompt in numbered:
                claim = self._claim(timeout)
                outcome = await outcome_of(self, self._do(claim, prompt))
                found[number] = outcome if claim.seat is None else replace(outcome, agent=claim.seat.agent.name)

        await asyncio.gather(*(go_on() for _ in range(min(limit, len(asked)))))
        return Outcomes(found[number] for number in range(len(asked)))

    @asynccontextmanager
    async def checkout(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """Give an agent that has no task to the body of `async with`; it gets none until the end.

        LockTimeout after `timeout` virtual seconds, AgentOffline where none is left.
        """
        claim, record = self._claim(timeout, exclusive=True), self.world.trace.record
        async with self._seated(claim) as agent:
            facts = {"resource": f"agent:{agent.name}", "token": int(self.world.new_id("checkout").split("-")[1])}
            record("acquired", claim.who, **facts, waited=self.now - claim.since)
            try:
                yield agent
            finally:
                record("released", claim.who, **facts, reason="released")

    @property
    def agents(self) -> list[Any]:
        """The agents, also those that are not well."""
        return [seat.agent for seat in self._seats]

    def candidates(self) -> list[Candidate]:
        """Return what a strategy would see of the agents now."""
        return [seat.view(self.now) for seat in self._seats]

    def __len__(self) -> int:
        return len(self._seats)

    def __getitem__(self, place: int | slice) -> Any:
        return self.agents[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.agents)

    def _claim(self, timeout: float | None, conversation: str | None = None, exclusive: bool = False) -> Claim:
        """Return what can wait in line."""
        timeout = None if timeout is None else require.positive("timeout", timeout)
        worker = current_worker.get()
        who = self.name if worker is None else worker.agent.name
        return Claim(who, self.now, self.world.loop.create_future(), timeout, conversation, exclusive)

    async def _do(self, claim: Claim, prompt: str) -> Any:
        """Have a prompt answered, and remember how that went."""
        task, begun = self.world.new_id("task"), self.now
        status, reason = "cancelled", "nobody waits for it any more"
        self._record("task_added", task=task, capability="ask", priority=0)
        try:
            async with self._seated(claim) as agent:
                self._record("task_started", agent.name, task=task, attempt=1)
                begun, content = self.now, {"prompt": prompt}
                if claim.conversation is not None:
                    content["conversation"] = claim.conversation
                left = inf if claim.timeout is None else max(claim.since + claim.timeout - begun, 1e-9)
                options: dict[str, Any] = {"timeout": min(self.timeout, left), "on_timeout": "cancel"}
                output = await self.request(agent.name, "ask", content, **options)
            status, reason = "completed", ""
            return output
        except Exception as error:
            status = "timed_out" if isinstance(error, TimeoutError) else "failed"
            reason = f"{type(error).__name__}: {describe(error)}"
            raise
        finally:
            self._record("task_ended", task=task, status=status, reason=reason or None)
            if claim.seat is not None and status != "cancelled":
                claim.seat.past.append((self.now, self.now - begun, status == "completed"))

    @asynccontextmanager
    async def _seated(self, claim: Claim) -> AsyncIterator[Any]:
        """Wait in line and give the agent that the claim gets; take it back at the end, however that comes."""
        if self.state in ("offline", "error"):
            raise AgentOffline(f"{self.name} takes no tasks: {self.why_offline()}")
        late = LockTimeout(f"no agent of {self.name} was free for {claim.who} in {claim.timeout or inf:g} s")
        timer = None if claim.timeout is None else self.world.loop.call_later(claim.timeout, fail, claim.served, late)
        self._line[claim] = None
        self._look()
        try:
            on = partial(self._blocker, claim)
            await self.world.wait(claim.served, who=claim.who, what=f"an agent of {self.name}", on=on)
            yield claim.seat and claim.seat.agent
        finally:
            if timer is not None:
                timer.cancel()
            self._line.pop(claim, None)
            if claim.seat is not None:  # perhaps in the very instant in which it was given up
                claim.seat.let_go(claim)
                self._dismiss(claim.seat)
            self._look()

    def _blocker(self, claim: Claim) -> str | None:
        """Return who is in the way, where all agents are checked out: somebody else who does not wait, if possible."""
        waiting = {wait.who for wait in self.world.waits.values()}
        holders = [seat.holder.who for seat in self._seats if seat.holder is not None]
        return min(holders, key=lambda who: (who in waiting, who == claim.who)) if len(holders) == len(self) else None

    def _look(self, *_: object) -> None:
        """Look at everything anew, once, in this instant."""
        if self.state in ("idle", "busy") and (self._round is None or self._round.done()):
            self._round = self.background(self._turn())

    async def _turn(self) -> None:
        """Mend, deal and change the size, as far as can be done now."""
        self._mend()
        changed = True
        while changed:
            deal(self._line, self._seats, self.choose, self.random, self.now)
            changed = self._resize()
        if not any(seat.agent.online or seat.due is not None for seat in self._seats):
            self._refuse()

    def _mend(self) -> None:
        """Replace made agents that are gone or unhealthy, each after a back-off."""
        for place, seat in enumerate(self._seats):
            seat.agent.when_gone(self._look)
            if seat.well or self._make is None:
                seat.due = None
            elif seat.due is None and (delay := seat.supervision.next_restart(self.now)[1]) is not None:
                seat.due = self.now + delay
                self.world.loop.call_at(seat.due, self._look)
            elif seat.due is not None and self.now >= seat.due:
                why = f"{seat.agent.name} is {seat.agent.state}, {seat.health}"
                self._seats[place] = Seat(self._next(), True, seat.supervision, seat.given)
                self._admit(self._seats[place], "replaced", why)
                self._dismiss(seat)

    def _resize(self) -> bool:
        """Add an agent where work finds nobody free, or take one away where one always was; return whether it did."""
        idle, waits = [seat for seat in self._seats if seat.idle], bool(self._line)
        self._slack = None if waits or not idle else self.now if self._slack is None else self._slack
        grow = waits and len(self) < self.most and not any(seat.well and seat.free for seat in self._seats)
        if not grow and (self._slack is None or len(self) == self.least):
            return False
        due = max(self._changed, -inf if self._slack is None else self._slack) + self.cooldown
        if self.now < due:
            if self._alarm != due:
                self.world.loop.call_at(due, self._look)
            self._alarm = due
            return False
        self._changed = self.now
        if grow:
            self._seats.append(Seat(self._next(), True, given=min(seat.given for seat in self._seats)))
            self._admit(self._seats[-1], "grown", f"{len(self._line)} wait")
        else:
            self._seats.remove(idle[-1])
            self._record("pool", change="shrunk", member=idle[-1].agent.name, size=len(self))
            self._dismiss(idle[-1])
        return True

    def _next(self) -> Agent:
        self._made += 1
        return gathered(self.name, [self._make(self._made)])[0]

    def _admit(self, seat: Seat, change: str, reason: str | None = None) -> None:
        """Bring an agent to life, if it is unborn; the world restarts it, unless the pool replaces it."""
        if seat.agent.unborn:
            self.world.spawn(seat.agent, parent=self, restart="on_crash" if self._make is None else "never")
        self._record("pool", change=change, member=seat.agent.name, size=len(self), reason=reason)

    def _dismiss(self, seat: Seat) -> None:
        """Stop an agent that has lost its seat, once it has nothing in hand."""
        if seat not in self._seats and not seat.hands and seat.holder is None:
            seat.agent.stop(f"it has no seat in {self.name}")

    def _refuse(self) -> None:
        """Tell all that wait that they wait in vain."""
        gone = self if self.state in ("offline", "error") else self[0]
        for claim in self._line:
            fail(claim.served, AgentOffline(f"{self.name} has nobody left: {gone.name} {gone.why_offline()}"))

    def _record(self, kind: str, who: str | None = None, **facts: Any) -> None:
        pool = {} if kind == "pool" else {"workflow": self.name}
        self.world.trace.record(kind, who or self.name, **pool, **facts)
