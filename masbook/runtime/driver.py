"""Driving a world: in a thread of its own, to the end, step by step, or paced against the wall clock.

`World` hands its loop over and passes its own `run`, `step`, `live` and `pause` on. The thread is what makes them work
in a script, in a notebook cell and inside another event loop alike.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..errors import InvalidValue, MasbookError, NestedRun, NotAsync, Stuck, explained
from . import require
from .clock import MAX_HANDLES, RealLoop, VirtualLoop, WorldLoop
from .thread import WorldThread
from .trace import Trace


class Driver:
    """Runs the loop of one world, and holds it, steps it and ends it from any thread.

    A run is `_held` or not, owes a number of `_steps`, and is `_ending` or not; whoever changes one of these halts the
    loop, and the world's thread looks at them before it drives on.
    """

    def __init__(self, loop: VirtualLoop | RealLoop, trace: Trace, explain: Callable[[], str], patience: float) -> None:
        self._loop, self._trace, self._explain, self._patience = loop, trace, explain, patience
        self._thread: WorldThread | None = None
        self._changed = threading.Condition()
        self._running = self._held = self._ending = self._is_live = False
        self._steps = 0

    def run(self, coroutine: Awaitable[Any] | None, until: float | None) -> Any:
        """Run until the coroutine is done, to the instant `until`, or until nothing can happen any more."""
        return self._begin(coroutine, until).result()

    async def live(self, coroutine: Awaitable[Any], speed: float | None) -> Any:
        """Run until the coroutine is done, paced, while the caller's loop goes on."""
        try:
            self.set_speed(speed)
        except InvalidValue:
            discard(coroutine)
            raise
        thread = self._begin(coroutine, None, live=True)
        try:
            while thread.watch():
                await asyncio.sleep(0.02)
        except BaseException:
            self.stop()
            thread.stop()
            raise
        finally:
            self._loop.set_speed(None)
        return thread.result()

    def step(self) -> bool:
        """Run to the next row of the trace or the next instant; return whether anything happened."""
        self._check(None, None)
        if isinstance(self._loop, RealLoop):
            raise InvalidValue("a world on the wall clock cannot be stepped")
        before = (len(self._trace), self._loop.time())
        self._thread = WorldThread(self._step, self._loop, self._patience)
        reason = self._thread.result()
        self._complain(reason, unfinished=False)
        return reason != "quiet" or (len(self._trace), self._loop.time()) != before

    def set_speed(self, speed: float | None) -> None:
        """Change the pace; InvalidValue unless it is more than 0, or None."""
        if speed is not None:
            require.positive("speed, in virtual seconds per second,", speed)
        self._loop.set_speed(speed)

    def pause(self) -> None:
        """Hold the live run before its next handle, or the next live run before its first."""
        if self._is_live or not self._running:
            self._change("paused", held=True)

    def resume(self) -> None:
        """Let a held run go on."""
        self._change(held=False)

    def advance(self) -> None:
        """Let a held run take one step."""
        self._change(steps=self._steps + self._held)

    def stop(self) -> None:
        """End the run; its coroutine is cancelled. Nothing happens where nothing runs."""
        if self._running:
            self._change("stopped", ending=True)

    def close(self, stop_agents: Callable[[], Iterable[asyncio.Future[Any]]]) -> None:
        """End whatever runs and close the loop; nothing outlives it. Hooks may take a minute of virtual time."""
        check_outside()
        if self._thread is not None and self._is_running():
            self.stop()
            self._thread.stop()

        def shut_down() -> None:
            left = asyncio.all_tasks(self._loop)
            self._finish(stop_agents(), within=60.0)
            self._cancel(asyncio.all_tasks(self._loop))
            for task in left:
                if task.done() and not task.cancelled():
                    task.exception()  # it need not be told any more that those it waited for are gone
            self._finish([self._loop.create_task(self._loop.shutdown_asyncgens(), name="close")])
            self._loop.close()

        WorldThread(shut_down, self._loop, self._patience).result()

    def _change(self, halt: str = "", held: bool | None = None, steps: int = 0, ending: bool | None = None) -> None:
        with self._changed:
            self._held = self._held if held is None else held
            self._ending = self._ending if ending is None else ending
            self._steps = steps
            if halt and self._running:
                self._loop.halt(halt)
            self._changed.notify_all()

    def _is_running(self) -> bool:
        return self._thread is not None and not self._thread.ended

    def _begin(self, coroutine: Awaitable[Any] | None, until: float | None, live: bool = False) -> WorldThread:
        try:
            self._check(coroutine, until)
        except MasbookError:
            discard(coroutine)
            raise
        self._running, self._is_live, self._ending = True, live, False
        if not live:
            self._held, self._steps = False, 0
        limit = math.inf if until is None else until
        self._thread = WorldThread(lambda: self._drive(coroutine, limit), self._loop, self._patience)
        return self._thread

    def _check(self, coroutine: object, until: float | None) -> None:
        check_outside()
        if self._is_running():
            raise NestedRun("this world is already running; wait for it, or call world.stop()")
        if coroutine is not None and not inspect.isawaitable(coroutine):
            raise NotAsync(f"run takes a coroutine, not {coroutine!r}: call an `async def` function, as in run(main())")
        if until is not None and require.number("until", until) < self._loop.time():
            raise InvalidValue(f"until={until!r} is not ahead: it is {self._loop.time():g} s already")

    def _drive(self, coroutine: Awaitable[Any] | None, until: float) -> Any:
        """Drive the loop, in the world's thread, until the coroutine is done or nothing is left to do."""
        loop, main = self._loop, None
        loop.until = until
        if coroutine is not None:
            main = loop.create_task(_awaited(coroutine), name="main")
            main.add_done_callback(lambda _: loop.halt("done"))
        try:
            reason = self._drive_on(main)
            self._trace.check_observers()
            if main is not None and main.done():
                return main.result()
            self._complain(reason, main is not None)
        except Exception as error:
            if (nested := explained(error)) is not error:
                raise nested from error
            raise
        finally:
            loop.until = math.inf
            self._running = self._held = self._is_live = False
            if main is not None and not main.done():
                self._cancel([main])

    def _drive_on(self, main: asyncio.Task[Any] | None) -> str:
        """Drive, holding and stepping as told, until there is a reason to end; halts of earlier runs are none."""
        while (turn := self._turn()) != "stopped":
            reason = self._step() if turn == "step" else self._loop.drive()
            if main is not None and main.done():
                return reason
            if turn == "step" and reason != "step":  # an old halt was in the way
                self._steps += 1
            if reason in ("quiet", "until", "livelock", "interrupted"):
                return reason
        return turn

    def _turn(self) -> str:
        """Wait, in the world's thread, while the run is held; return what to do next."""
        with self._changed:
            self._loop.idle = True
            while self._held and not self._steps and not self._ending:
                self._changed.wait()
            self._loop.idle = False
            if self._ending:
                return "stopped"
            if self._held:
                self._steps -= 1
                return "step"
            return "go"

    def _step(self) -> str:
        loop = self._loop
        unobserve = self._trace.observe(lambda _: loop.halt("step"))
        speed, loop.speed, loop.stepping = loop.speed, None, loop.time()
        try:
            return loop.drive()
        finally:
            loop.speed, loop.stepping = speed, None
            unobserve()

    def _complain(self, reason: str, unfinished: bool) -> None:
        """Raise Stuck where the loop halted because it cannot go on."""
        now = self._loop.time()
        if reason == "livelock":
            raise Stuck(
                f"time stands still at {now:g} s after {MAX_HANDLES:,} callbacks: somebody never waits; "
                f"put `await agent.sleep(...)` into the loop, or give messages a delay\n{self._explain()}"
            )
        if reason == "quiet" and unfinished:
            raise Stuck(f"nothing can happen any more at {now:g} s:\n{self._explain()}")

    def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks and let them end, in no virtual time."""
        tasks = sorted(tasks, key=hash)
        for task in tasks:
            task.cancel()
        self._finish(tasks)

    def _finish(self, tasks: Iterable[asyncio.Future[Any]], within: float = 0.0) -> None:
        """Drive the loop until the tasks are done, or for that many virtual seconds."""
        tasks, loop = list(tasks), self._loop
        for task in tasks:
            task.add_done_callback(lambda _: loop.halt("done"))
        loop.until = loop.time() + (within or isinstance(loop, RealLoop))
        while not all(task.done() for task in tasks):
            if loop.drive() in ("until", "quiet", "livelock"):
                break
        loop.until = math.inf


def check_outside() -> None:
    """Raise NestedRun inside a world: it cannot run, close or simulate from there."""
    if isinstance(asyncio._get_running_loop(), WorldLoop):
        raise NestedRun("a world is already running here: `await` the coroutine instead of running it")


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def discard(coroutine: object) -> None:
    """Close a coroutine that will not be run, so that Python does not warn of it."""
    if inspect.iscoroutine(coroutine):
        coroutine.close()
