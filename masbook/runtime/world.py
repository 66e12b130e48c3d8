"""The world: it owns time, randomness, identifiers, messages, agents and the trace, and runs them.

`World` is for exploring by hand; `simulate` runs a scenario, an async function of a world, and returns what happened as
a `Run`, which is plain data. Both run in a thread of their own, so that they work alike in a script, in a notebook
cell and inside another event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import pickle
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from hashlib import sha256
from random import Random
from typing import Any, Literal, Self

from ..errors import InvalidName, InvalidValue, MasbookError, NestedRun, NotAsync, Stuck, WorldClosed
from .agent import Agent, explained
from .bus import MessageBus
from .clock import MAX_HANDLES, RealLoop, VirtualLoop, WorldThread, _Drive
from .faults import FaultInjector, FaultPlan
from .message import FrozenDict
from .registry import AgentRegistry
from .security import Security
from .supervision import Restart, Supervision
from .trace import Trace
from .waits import Wait, Waits

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
        if clock not in ("virtual", "real"):
            raise InvalidValue(f"clock={clock!r}; choose 'virtual' or 'real'")
        if schedule not in ("fifo", "shuffled"):
            raise InvalidValue(f"schedule={schedule!r}; choose 'fifo' or 'shuffled'")
        if not isinstance(seed, int | str):
            raise InvalidValue(f"seed={seed!r}: give a whole number or text")
        if not patience > 0:
            raise InvalidValue(f"patience={patience!r}: give more than 0 seconds")
        self.seed = seed
        self.schedule = schedule
        self.loop: VirtualLoop | RealLoop
        if clock == "real":
            self.loop = RealLoop()
        else:
            self.loop = VirtualLoop(self._stream("schedule") if schedule == "shuffled" else None)
        self.clock: Callable[[], float] = self.loop.time
        self.trace = Trace() if trace is None else trace
        self.trace.clock = self.clock
        self.waits = Waits()
        self.agents: dict[str, Agent] = {}
        self.faults = None if faults is None else FaultInjector(self, faults)
        self.bus = MessageBus(self)
        self.registry = AgentRegistry()
        self._patience = patience
        self._streams: dict[str, Random] = {}
        self._ids: Counter[str] = Counter()
        self._thread: WorldThread | None = None
        self._gate = threading.Event()  # opened by whoever steers a paused run
        self._command = ""
        self._closed = False
        if security is not None:
            security.install(self)
        self.bus.attach(self.registry)
        self.registry.start(self, None, Supervision())

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
        return Random(int.from_bytes(sha256(f"{self.seed}/{owner}".encode()).digest()[:16], "big"))

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

        Raises InvalidName if the name is taken, InvalidValue if a capability has no schema.
        """
        self._check_open()
        if not isinstance(agent, Agent):
            raise InvalidValue(f"spawn takes an Agent, not {agent!r}; write a class that inherits from Agent")
        taken = self.bus.agent(agent.name)
        if taken is not None and (taken.online or taken is agent):
            raise InvalidName(f"there is already an agent called {agent.name!r}; choose another name")
        for offer in agent.offers.values():
            _ = offer.input_schema  # a capability that nobody can call is refused now, not at the first request
        supervision = Supervision(restart, max_restarts, within, backoff)
        self.trace.record(
            "spawned",
            agent.name,
            type=type(agent).__name__,
            parent=None if parent is None else parent.name,
            restart=restart,
            concurrency=agent.concurrency,
        )
        agent.start(self, parent, supervision)
        self.agents[agent.name] = agent
        return agent

    async def wait(self, future: Awaitable[Any], *, who: str, what: str, on: str | None = None) -> Any:
        """Await a future through the one door: a stuck world will say that `who` waits for `what`, from `on`."""
        key = object()
        self.waits[key] = Wait(who, what, on, self.now, future)
        try:
            return await future
        finally:
            self.waits.end(key)

    def escalate(self, agent: Agent, error: Exception) -> None:
        """Tell whoever spawned the agent that it crashed for good: a system message `agent.crashed` to the parent."""
        parent = agent.parent
        self.trace.record("escalated", agent.name, to="world" if parent is None else parent.name, error=repr(error))
        if parent is not None and parent.online:
            content = {"agent": agent.name, "error": type(error).__name__, "message": str(error)}
            self.bus.inform(parent, "agent.crashed", content)

    # Running

    def run(self, coroutine: Coroutine[Any, Any, Any] | None = None, *, until: float | None = None) -> Any:
        """Run until the coroutine is done and return its result, or to the instant `until`, or until all is quiet.

        Raises what the coroutine raises; Stuck when nothing can happen any more before it is done; NestedRun inside a
        run. Interrupting stops the world and leaves it usable.
        """
        try:
            limit = self._check_run(coroutine, until)
            self._thread = WorldThread(lambda: self._drive(coroutine, limit), self.loop, self._patience)
        except MasbookError:
            _discard(coroutine)
            raise
        return self._thread.result()

    def step(self) -> bool:
        """Run to the next row of the trace, or the next instant at which anything happens; return whether any did."""
        self._check_run(None, None)
        if isinstance(self.loop, RealLoop):
            raise InvalidValue("a world on the wall clock cannot be stepped")
        before = (len(self.trace), self.now)
        self._thread = WorldThread(self._one_step, self.loop, self._patience)
        return self._thread.result() != "quiet" or (len(self.trace), self.now) != before

    async def live(self, coroutine: Coroutine[Any, Any, Any], *, speed: float = 1.0) -> Any:
        """Run as `run` does, at `speed` virtual seconds per second of the wall clock, while the caller's loop goes on.

        `pause`, `resume`, `advance`, `set_speed` and `stop` steer it; the trace is that of the unpaced run.
        """
        try:
            self._check_run(coroutine, None)
            self.set_speed(speed)
        except MasbookError:
            _discard(coroutine)
            raise
        thread = self._thread = WorldThread(lambda: self._drive(coroutine, math.inf), self.loop, self._patience)
        try:
            while thread.is_alive():
                await asyncio.sleep(0.02)
        except BaseException:
            thread.stop()
            raise
        finally:
            self.loop.set_speed(None)
        return thread.result()

    def set_speed(self, speed: float | None) -> None:
        """Change the pace of a live run: virtual seconds per second of the wall clock."""
        if speed is not None and not speed > 0:
            raise InvalidValue(f"speed={speed!r}: give more than 0 virtual seconds per second")
        self.loop.set_speed(speed)

    def pause(self) -> None:
        """Hold a live run before its next event."""
        self.loop.halt("paused")

    def resume(self) -> None:
        """Let a paused live run go on."""
        self._command = "resume"
        self._gate.set()

    def advance(self) -> None:
        """Let a paused live run take one step (see `step`)."""
        self._command = "step"
        self._gate.set()

    def stop(self) -> None:
        """End the current run, from inside or from another thread: its coroutine is cancelled, `run` returns None."""
        self._command = "stop"
        self.loop.halt("stopped")
        self._gate.set()

    def close(self) -> None:
        """Stop every agent, run their `on_stop` hooks, and cancel whatever is left: nothing outlives the world."""
        if self._closed:
            return
        if self._thread is not None and self._thread.is_alive():
            self._thread.stop()
        self._closed = True
        WorldThread(self._shut_down, self.loop, self._patience).result()

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
            if task.get_name() not in known and (place := _place(task)) and not place.startswith("Agent._work,")
        ]
        crashes = [
            f"{event.who} crashed at {event.time:g} s: {event.facts['error']}: {event.facts['message']}"
            for event in self.trace.events("crashed")
        ]
        lines = [*self.waits.explain(), *waiting, *crashes[-5:]] or ["nobody waits for anything"]
        return "\n".join(f"  {line}" for line in lines)

    def _check_open(self) -> None:
        if self._closed:
            raise WorldClosed("this world has been closed; make a new one with World(seed=...)")

    def _check_run(self, coroutine: object, until: float | None) -> float:
        self._check_open()
        if isinstance(asyncio._get_running_loop(), _Drive):
            raise NestedRun("a world is already running here: `await` the coroutine instead of running it")
        if self._thread is not None and self._thread.is_alive():
            raise NestedRun("this world is already running; wait for it, or call world.stop()")
        if coroutine is not None and not inspect.isawaitable(coroutine):
            raise NotAsync(f"run takes a coroutine, not {coroutine!r}: call an `async def` function, as in run(main())")
        if until is not None and not until >= self.now:
            raise InvalidValue(f"until={until!r} is not ahead: it is {self.now:g} s already")
        return math.inf if until is None else until

    def _drive(self, coroutine: Coroutine[Any, Any, Any] | None, until: float) -> Any:
        """Drive the loop, in the world's thread, until the coroutine is done or nothing is left to do."""
        loop = self.loop
        loop.until = until
        self._command = ""
        self._gate.clear()
        main = None
        if coroutine is not None:
            main = loop.create_task(coroutine, name="main")
            main.add_done_callback(lambda _: loop.halt("done"))
        try:
            reason = loop.drive()
            while not (main is not None and main.done()) and self._command != "stop":
                if reason in ("paused", "step"):
                    reason = self._held()
                elif reason == "done":  # that was an earlier run's task
                    reason = loop.drive()
                else:
                    break
            if main is not None and main.done():
                return main.result()
            if reason == "livelock":
                raise Stuck(self._livelock())
            if reason == "quiet" and main is not None:
                raise Stuck(f"nothing can happen any more at {self.now:g} s:\n{self.explain()}")
            return None
        except Exception as error:
            if (nested := explained(error)) is not error:
                raise nested from error
            raise
        finally:
            loop.until = math.inf
            if main is not None and not main.done():
                self._cancel([main])

    def _held(self) -> str:
        """Wait, in the world's thread, for the command that ends a pause; obey it and return why the loop halted."""
        self.loop.idle = True
        self._gate.wait()
        self._gate.clear()
        self.loop.idle = False
        return self._one_step() if self._command == "step" else self.loop.drive()

    def _livelock(self) -> str:
        return (
            f"time stands still at {self.now:g} s after {MAX_HANDLES:,} callbacks: somebody never waits; "
            f"put `await agent.sleep(...)` into the loop, or give messages a delay\n{self.explain()}"
        )

    def _one_step(self) -> str:
        loop = self.loop
        unobserve = self.trace.observe(lambda _: loop.halt("step"))
        speed, loop.speed, loop.stepping = loop.speed, None, self.now
        try:
            return loop.drive()
        finally:
            loop.speed, loop.stepping = speed, None
            unobserve()

    def _shut_down(self) -> None:
        loop = self.loop
        self._finish([agent.stop("world closed") for agent in self.agents.values()], within=60.0)
        self._cancel(asyncio.all_tasks(loop))
        self._finish([loop.create_task(loop.shutdown_asyncgens(), name="close")])
        loop.close()

    def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks and let them end, in no virtual time."""
        tasks = sorted(tasks, key=hash)
        for task in tasks:
            task.cancel()
        self._finish(tasks)

    def _finish(self, tasks: Iterable[asyncio.Future[Any]], within: float = 0.0) -> None:
        """Drive the loop until the tasks are done, or for that many virtual seconds."""
        tasks, loop = list(tasks), self.loop
        for task in tasks:
            task.add_done_callback(lambda _: loop.halt("done"))
        loop.until = self.now + (within or isinstance(loop, RealLoop))
        while not all(task.done() for task in tasks) and loop.drive() == "done":
            pass
        loop.until = math.inf


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of a scenario gave: plain data, frozen and picklable.

    `result` is what the scenario returned, `error` what it raised, if it did; `time` is how long it lasted in virtual
    seconds, and `digest` the SHA-256 of the trace, equal for equal runs.
    """

    scenario: str
    seed: int | str
    params: Mapping[str, Any]
    result: Any
    error: Exception | None
    time: float
    trace: Trace
    digest: str
    schedule: Schedule = "fifo"
    faults: FaultPlan | None = None

    @property
    def ok(self) -> bool:
        """Whether the scenario ended without an error."""
        return self.error is None

    def __repr__(self) -> str:
        outcome = f"result={self.result!r}" if self.ok else f"error={self.error!r}"
        return f"Run({self.scenario}, seed={self.seed}, {outcome}, time={self.time:g} s, digest={self.digest[:12]})"


def simulate(
    scenario: Callable[..., Coroutine[Any, Any, Any]],
    seed: int | str = 0,
    *,
    faults: FaultPlan | None = None,
    schedule: Schedule = "fifo",
    security: Security | None = None,
    trace: Trace | None = None,
    **params: Any,
) -> Run:
    """Run `scenario(world, **params)` in a world of its own and return the Run; an error in it is part of the Run.

    InvalidValue and NotAsync for what cannot be run at all are raised.
    """
    prepare(scenario, params)
    world = World(seed, faults=faults, schedule=schedule, security=security, trace=trace)
    result, error = None, None
    try:
        result = world.run(scenario(world, **params))
    except Exception as raised:
        error = raised
    return conclude(world, scenario, params, result, error)


def conclude(
    world: World, scenario: Callable[..., Any], params: Mapping[str, Any], result: Any, error: Exception | None
) -> Run:
    """Close the world and return what its run gave."""
    lasted = world.now
    world.close()
    world.trace.seal()
    return Run(
        scenario.__name__,
        world.seed,
        FrozenDict(params),
        result,
        error and _portable(error),
        lasted,
        world.trace,
        world.trace.digest,
        world.schedule,
        None if world.faults is None else world.faults.plan,
    )


def _portable(error: Exception) -> Exception:
    """Return the error without its frames, or a plain one that says the same, if it cannot be pickled."""
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign exception's own pickling raises
        copy = None
    return error if str(copy) == str(error) else MasbookError(f"{type(error).__name__}: {error}")


def prepare(scenario: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Check that `scenario(world, **params)` can be run."""
    name = getattr(scenario, "__name__", repr(scenario))
    if not inspect.iscoroutinefunction(scenario):
        raise NotAsync(f"the scenario {name} must be a coroutine function: write `async def {name}(world, ...)`")
    try:
        inspect.signature(scenario).bind(None, **params)
    except TypeError as error:
        raise InvalidValue(f"{name}(world, ...) cannot be called with {dict(params)}: {error}") from error


def _place(task: asyncio.Task[Any]) -> str:
    """Return the function and line, outside asyncio, in which a task waits; empty where it does not wait."""
    place = ""
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        if not frame.f_globals.get("__name__", "").startswith("asyncio"):
            place = f"{coroutine.__qualname__}, line {frame.f_lineno}"
        coroutine = coroutine.cr_await
    return place


def _discard(coroutine: object) -> None:
    """Close a coroutine that will not be run, so that Python does not warn of it."""
    if inspect.iscoroutine(coroutine):
        coroutine.close()
