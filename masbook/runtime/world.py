"""The world: it owns time, randomness, identifiers, messages, agents and the trace, and runs them.

It is for exploring by hand; `simulate` (see run.py) makes one for each run of a scenario. A world runs in a thread of
its own, so that it works alike in a script, in a notebook cell and inside another event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from hashlib import sha256
from random import Random
from typing import Any, Literal, Self

from ..errors import (
    InvalidName,
    InvalidValue,
    Refused,
    Undeliverable,
    WorldClosed,
    describe,
)
from . import require
from .agent import Agent
from .bus import MessageBus
from .clock import RealLoop, VirtualLoop
from .driver import Driver, discard
from .faults import FaultInjector, FaultPlan
from .registry import AgentRegistry
from .security import Security
from .supervision import Restart, Supervision
from .trace import Trace
from .waits import On, Wait, Waits
from .worker import current_worker

Schedule = Literal["fifo", "shuffled"]


class World:
    """A society and its time.

    The same seed gives the same trace. `clock="real"` lives on the wall clock, for models and networks;
    `schedule="shuffled"` draws the order of simultaneous events from the seed; `faults` breaks things on purpose;
    `patience` is how many seconds of the wall clock one handler may hold the thread.

        world = World(seed=7)
        client = world.spawn(Agent("client"))
        world.run(client.sleep(2.5))      # world.now == 2.5
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        clock: Literal["virtual", "real"] = "virtual",
        schedule: Schedule = "fifo",
        faults: FaultPlan | None = None,
        security: Security | None = None,
        trace: Trace | None = None,
        patience: float = 3.0,
    ) -> None:
        require.one_of("clock", clock, ("virtual", "real"))
        require.one_of("schedule", schedule, ("fifo", "shuffled"))
        require.positive("patience", patience)
        if not isinstance(seed, int | str):
            raise InvalidValue(f"seed is {seed!r}: give a whole number or text")
        self.seed = seed
        self.schedule = schedule
        self.loop: VirtualLoop | RealLoop
        if clock == "real":
            self.loop = RealLoop()
        else:
            self.loop = VirtualLoop(self._stream("schedule") if schedule == "shuffled" else None)
        self.clock: Callable[[], float] = self.loop.time
        self.trace = Trace() if trace is None else trace
        if self.trace.clock is not None:
            raise InvalidValue("this trace belongs to another world; give each world one of its own")
        self.trace.clock = self.clock
        self.waits = Waits()
        self.agents: dict[str, Agent] = {}
        self.named: dict[tuple[str, str], Any] = {}  # what else can be found by kind and name: locks, barriers
        self.faults = None if faults is None else FaultInjector(self, faults)
        self.bus = MessageBus(self)
        self.registry = AgentRegistry()
        self._streams: dict[str, Random] = {}
        self._ids: Counter[str] = Counter()
        self._driver = Driver(self.loop, self.trace, self.explain, patience)
        self._farewells: list[Callable[[], None]] = []  # called when it is closed
        self._closed = False
        if security is not None:
            security.install(self)
        self.registry.enter(self, None, Supervision())

    # What a world owns

    @property
    def now(self) -> float:
        """The current instant, in virtual seconds since the world began."""
        return self.loop.time()

    def random(self, owner: str) -> Random:
        """Return the random stream of an owner, derived from the seed and the name: others' draws do not change it."""
        stream = self._streams.get(owner)
        if stream is None:
            stream = self._streams[owner] = self._stream(owner)
        return stream

    def _stream(self, owner: str) -> Random:
        return Random(int.from_bytes(sha256(f"{self.seed!r}/{owner}".encode()).digest()[:16], "big"))

    def new_id(self, kind: str) -> str:
        """Return the next identifier of a kind: `task-1`, `task-2`."""
        self._ids[kind] += 1
        return f"{kind}-{self._ids[kind]}"

    def spawn(
        self,
        agent: Agent,
        *,
        parent: Agent | None = None,
        restart: Restart = "never",
        max_restarts: int = 3,
        within: float = 60.0,
        backoff: float = 0.1,
    ) -> Any:
        """Bring an agent to life at once and return it; the options are those of Supervision.

        Its parent is the agent that spawns it, if one does; it hears `agent.crashed` when this one crashes for good.
        Raises InvalidName if the name is taken, InvalidValue if a capability has no schema.
        """
        self._check_open()
        if not isinstance(agent, Agent):
            raise InvalidValue(f"spawn takes an Agent, not {agent!r}; write a class that inherits from Agent")
        if not hasattr(agent, "mailbox"):
            raise InvalidValue(f"{type(agent).__name__}.__init__ must call super().__init__(name, ...)")
        taken = self.bus.agent(agent.name)
        if taken is not None and (taken.online or taken is agent):
            raise InvalidName(f"there is already an agent called {agent.name!r}; choose another name")
        if not agent.unborn:
            raise InvalidName(f"{agent.name} lives in another world; make a new agent for this one")
        worker = current_worker.get()
        if parent is None and worker is not None and worker.agent.world is self:
            parent = worker.agent
        if parent is agent:
            raise InvalidValue(f"{agent.name} cannot be its own parent: who would hear of its crash?")
        for offer in agent.offers.values():
            _ = offer.input_schema  # a capability that nobody can call is refused now, not at the first request
        self.bus.check_subscriptions(agent)
        agent.check_place(self)
        supervision = Supervision(restart, max_restarts, within, backoff)
        self.trace.record(
            "spawned",
            agent.name,
            type=type(agent).__name__,
            parent=None if parent is None else parent.name,
            restart=restart,
            concurrency=agent.concurrency,
        )
        if self.faults is not None:
            agent._slow = self.faults.slowness(agent.name)
        agent.enter(self, parent, supervision)
        self.agents[agent.name] = agent
        return agent

    async def wait(self, future: Awaitable[Any], *, who: str, what: str, on: On = None) -> Any:
        """Await a future through the one door: a stuck world will say that `who` waits for `what`, from `on`.

        `on` is a name, or a function that returns the name when somebody asks.
        """
        key = object()
        self.waits[key] = Wait(who, what, on, self.now, future)
        try:
            return await future
        finally:
            self.waits.end(key)

    def escalate(self, agent: Agent, error: Exception) -> None:
        """Tell whoever spawned the agent that it crashed for good: a system message `agent.crashed` to the parent."""
        parent = agent.parent
        self.trace.record(
            "escalated", agent.name, to="world" if parent is None else parent.name, error=type(error).__name__
        )
        if parent is not None and parent.online:
            content = {"agent": agent.name, "error": type(error).__name__, "message": describe(error)}
            with contextlib.suppress(Undeliverable, Refused):  # a dead letter, or a refusal, in the trace
                self.bus.inform(parent, "agent.crashed", content)

    # Running

    def run(self, coroutine: Coroutine[Any, Any, Any] | None = None, *, until: float | None = None) -> Any:
        """Run until the coroutine is done and return its result, or to the instant `until`, or until all is quiet.

        Raises what the coroutine raises; Stuck when nothing can happen any more before it is done; NestedRun inside a
        run. Interrupting stops the world and leaves it usable.
        """
        self._check_open(coroutine)
        return self._driver.run(coroutine, until)

    def step(self) -> bool:
        """Run to the next row of the trace, or the next instant at which anything happens; return whether any did."""
        self._check_open()
        return self._driver.step()

    async def live(self, coroutine: Coroutine[Any, Any, Any], *, speed: float | None = 1.0) -> Any:
        """Run as `run` does, at `speed` virtual seconds per second of the wall clock, while the caller's loop goes on.

        `pause`, `resume`, `advance`, `set_speed` and `stop` steer it; the trace is that of the unpaced run.
        """
        self._check_open(coroutine)
        return await self._driver.live(coroutine, speed)

    def set_speed(self, speed: float | None) -> None:
        """Change the pace of a live run: virtual seconds per second of the wall clock; None for as fast as it goes."""
        self._driver.set_speed(speed)

    def pause(self) -> None:
        """Hold a live run before its next event."""
        self._driver.pause()

    def resume(self) -> None:
        """Let a paused live run go on."""
        self._driver.resume()

    def advance(self) -> None:
        """Let a paused live run take one step (see `step`)."""
        self._driver.advance()

    def stop(self) -> None:
        """End the current run, from inside or from another thread: its coroutine is cancelled, `run` returns None."""
        self._driver.stop()

    def close(self) -> None:
        """Stop every agent, run their `on_stop` hooks, and cancel whatever is left: nothing outlives the world."""
        if not self._closed:
            self._driver.close(lambda: [agent.stop("world closed") for agent in self.agents.values()])
            self._closed = True
            with contextlib.ExitStack() as farewells:  # each is called, whatever another raises
                for farewell in reversed(self._farewells):
                    farewells.callback(farewell)

    def when_closed(self, farewell: Callable[[], None]) -> None:
        """Call `farewell` when the world is closed: files and connections end with it."""
        self._farewells.append(farewell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def explain(self) -> str:
        """Return who waits for whom, one line a wait, and the cycle if there is one; then who has crashed."""
        known = {wait.who for wait in self.waits.values()}
        waiting = [
            f"{task.get_name()} waits in {place}"
            for task in sorted(asyncio.all_tasks(self.loop), key=hash)
            if task.get_name() not in known and (place := _place(task)) and not place.startswith("Worker._work,")
        ]
        crashes = [
            f"{event.who} crashed at {event.time:g} s: {event.facts['error']}: {event.facts['message']}"
            for event in self.trace.events("crashed")
        ]
        lines = [*self.waits.explain(), *waiting, *crashes[-5:]] or ["nobody waits for anything"]
        return "\n".join(f"  {line}" for line in lines)

    def _check_open(self, coroutine: object = None) -> None:
        if self._closed:
            discard(coroutine)
            raise WorldClosed("this world has been closed; make a new one with World(seed=...)")


def _place(task: asyncio.Task[Any]) -> str:
    """Return the function and line, outside the standard library, in which a task waits; empty if it does not."""
    place = ""
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        if not frame.f_globals.get("__name__", "").startswith(("asyncio", "contextlib")):
            place = f"{coroutine.__qualname__}, line {frame.f_lineno}"
        coroutine = coroutine.cr_await
    return place
