"""Virtual time: an asyncio event loop whose clock jumps to the next event instead of waiting for it.

The world calls `drive`, which runs handles until the run is done, paused, or has nothing left to do. Ordinary
asyncio code runs on it unchanged. Equal deadlines run in the order in which they were set; `schedule="shuffled"`
draws the order of simultaneous handles from the seed instead. `RealLoop` has the same face on the wall clock.
To replace the clock, give the world another loop with `drive`, `halt` and `time`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from ..errors import BlockedLoop, InvalidValue, NeedsRealClock

MAX_HANDLES = 500_000  # callbacks at one instant before the world counts as livelocked

_copy_context = contextvars.copy_context


class Handle(list):  # type: ignore[type-arg]
    """A callback to run: `[when, number, callback, args, context]`, ordered by the first two.

    A list, because lists compare in C: the heap of timers is the hottest place of the package.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Never run the callback."""
        self[2] = None

    def cancelled(self) -> bool:
        """Return whether `cancel` was called."""
        return self[2] is None

    def when(self) -> float:
        """Return the instant at which the callback is due, in virtual seconds."""
        return float(self[0])


class SequentialTask(asyncio.Task):  # type: ignore[type-arg]
    """A task whose hash is its number, so that sets of tasks iterate in the same order in every process."""

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)
        self._log_destroy_pending = False  # a world that is dropped takes its waiting tasks along

    def __hash__(self) -> int:
        return self.number


class WorldLoop:
    """What both loops share: sequential tasks, and running until somebody says why to stop."""

    stopped_by = ""
    idle = False  # waiting for the wall clock: no handler holds the thread
    _tasks_made = 0
    _still = 0

    def create_task(self, coro: Any, *, name: object = None, context: Any = None, **options: Any) -> SequentialTask:
        """Return a task that runs `coro`; its default name is its number."""
        self._tasks_made += 1
        label = str(self._tasks_made if name is None else name)
        return SequentialTask(coro, self._tasks_made, loop=self, name=label, context=context, **options)

    def drive(self) -> str:
        """Run until something calls `halt`; return its reason."""
        self._still = 0
        self.run_forever()  # type: ignore[attr-defined]
        return self.stopped_by


class VirtualLoop(WorldLoop, asyncio.BaseEventLoop):
    """An event loop on virtual time.

    Attributes: `until`, the instant at which to halt; `speed`, virtual seconds per second of the wall clock (None:
    as fast as it goes); `stepping`, the instant at which a single step began, which ends before the clock moves twice.
    """

    def __init__(self, shuffle: random.Random | None = None) -> None:
        super().__init__()
        self._ready: deque[Handle] = deque()
        self._arriving: deque[Handle] = deque() if shuffle else self._ready  # where new handles go
        self._scheduled: list[Handle] = []
        self._shuffle = shuffle
        self._now = 0.0
        self._number = 0
        self._still = 0  # handles run since the clock last moved
        self._roomy = 1024  # length of the heap at which cancelled timers are swept out
        self._kick = threading.Event()
        self.until = math.inf
        self.speed: float | None = None
        self.stepping: float | None = None

    def time(self) -> float:
        """Return the current instant in virtual seconds since the world began."""
        return self._now

    @property
    def progress(self) -> tuple[int, float]:
        """What changes whenever a handle has run."""
        return self._still, self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        """Run the callback in the next turn, at the current instant."""
        handle = Handle((0.0, 0, callback, args, _copy_context() if context is None else context))
        self._arriving.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        """As `call_soon`, from any thread."""
        handle = self.call_soon(callback, *args, context=context)
        self._kick.set()
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        """Run the callback after `delay` virtual seconds; InvalidValue if that is negative or not a number."""
        if not delay >= 0:
            raise InvalidValue(f"a delay of {delay!r} s: the clock only goes forward, use 0 or more")
        return self._schedule(self._now + delay, callback, args, context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        """Run the callback at the instant `when`, or soon if that has come."""
        return self._schedule(when, callback, args, context)

    def _schedule(self, when: float, callback: Any, args: tuple[Any, ...], context: Any) -> Handle:
        self._number = number = self._number + 1
        handle = Handle((when, number, callback, args, _copy_context() if context is None else context))
        if when > self._now:
            heap = self._scheduled
            heapq.heappush(heap, handle)
            if len(heap) > self._roomy:
                self._sweep()
        else:
            self._arriving.append(handle)
        return handle

    def _sweep(self) -> None:
        """Take cancelled timers out of the heap."""
        self._scheduled[:] = [handle for handle in self._scheduled if handle[2] is not None]
        heapq.heapify(self._scheduled)
        self._roomy = max(1024, 2 * len(self._scheduled))

    def _run_once(self) -> None:
        """Run handles, one after the other, until somebody halts the loop: the engine of every world."""
        ready = self._ready
        while not self._stopping:
            if not ready:
                self._refill()
                continue
            self._still = still = self._still + 1
            if still > MAX_HANDLES:
                return self.halt("livelock")
            handle = ready.popleft()
            callback = handle[2]
            if callback is not None:
                try:
                    handle[4].run(callback, *handle[3])
                except Exception as error:
                    self.call_exception_handler({"message": f"error in {callback!r}", "exception": error})
        return None

    def _refill(self) -> None:
        """Gather what can run next: what has arrived, else what is due when the clock has moved to the next timer."""
        heap, arriving = self._scheduled, self._arriving
        if not arriving:
            if not self._move_clock():
                return
            while heap and heap[0][0] <= self._now:
                arriving.append(heapq.heappop(heap))
        if self._shuffle is not None:
            handles = [arriving.popleft() for _ in range(len(arriving))]
            self._shuffle.shuffle(handles)
            self._ready.extend(handles)

    def _move_clock(self) -> bool:
        """Move to the next timer and return True, or halt where there is none, or none before `until`."""
        heap = self._scheduled
        while heap and heap[0][2] is None:
            heapq.heappop(heap)
        when = heap[0][0] if heap else math.inf
        if when == self.until == math.inf:
            self.halt("quiet")
            return False
        if self.stepping is not None and self.stepping < self._now < when:
            self.halt("step")
        elif self.speed:
            self._wait(min(when, self.until))
        if self._stopping or self._arriving:
            return False
        if when > self.until:
            self._now = max(self._now, self.until)
            self.halt("until")
            return False
        self._now = when
        self._still = 0
        return True

    def _wait(self, when: float) -> None:
        """Let the wall clock catch up with `when`, at the present speed; `halt` and a new speed cut it short."""
        remaining = when - self._now
        while remaining > 0 and not self._stopping and not self._arriving:
            speed, started = self.speed or math.inf, time.monotonic()
            self.idle = True
            self._kick.wait(min(remaining / speed, 3600.0))
            self._kick.clear()
            self.idle = False
            remaining -= (time.monotonic() - started) * speed

    def halt(self, reason: str) -> None:
        """Make `drive` return `reason` before the next handle; callable from any thread."""
        self.stopped_by = reason
        self._stopping = True
        self._kick.set()

    def set_speed(self, speed: float | None) -> None:
        """Run at `speed` virtual seconds per second of the wall clock, from now on; None for as fast as it goes."""
        self.speed = speed
        self._kick.set()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run the function here and now, in no virtual time; return a future that is done."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _refuse(self, *args: Any, **options: Any) -> Any:
        raise NeedsRealClock(
            'there is no network and there are no processes in virtual time; make the world with World(clock="real")'
        )

    getaddrinfo = getnameinfo = create_connection = create_server = create_datagram_endpoint = _refuse
    create_unix_connection = create_unix_server = connect_accepted_socket = start_tls = sendfile = _refuse
    sock_connect = sock_accept = sock_recv = sock_recv_into = sock_recvfrom = sock_recvfrom_into = _refuse
    sock_sendall = sock_sendto = sock_sendfile = connect_read_pipe = connect_write_pipe = _refuse
    subprocess_exec = subprocess_shell = remove_reader = remove_writer = _refuse
    add_reader = add_writer = add_signal_handler = _refuse  # type: ignore[assignment]

    def __del__(self, _warn: Any = None) -> None:
        """Nothing to warn of: the loop holds no sockets and no threads."""


class RealLoop(WorldLoop, asyncio.SelectorEventLoop):
    """The same face on the wall clock, for model providers and network buses; the world began at 0."""

    until = math.inf
    speed = stepping = None

    def __init__(self) -> None:
        super().__init__(_WatchedSelector(self))
        self._began = time.monotonic()

    def _run_once(self) -> None:
        self._still += 1
        super()._run_once()  # type: ignore[misc]

    def time(self) -> float:
        """Return the seconds of the wall clock since the world began."""
        return time.monotonic() - self._began

    def drive(self) -> str:
        """Run until something calls `halt`, or until the instant `until`; return the reason."""
        timer = self.call_at(self.until, self.halt, "until") if self.until < math.inf else None
        try:
            return super().drive()
        finally:
            if timer:
                timer.cancel()

    def set_speed(self, speed: float | None) -> None:
        """Do nothing: the wall clock has one speed."""

    def halt(self, reason: str) -> None:
        """Make `drive` return `reason`; callable from any thread."""
        self.stopped_by = reason
        if not self.is_closed():
            self.call_soon_threadsafe(self.stop)

    @property
    def progress(self) -> int:
        """What changes with every turn; a loop that waits for the network is `idle`."""
        return self._still


class _WatchedSelector(selectors.DefaultSelector):
    """A selector that says when it waits, so that the watchdog does not take that for a blocked handler."""

    def __init__(self, loop: RealLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.idle = True
        try:
            return super().select(timeout)
        finally:
            self._loop.idle = False


_sleep = time.sleep


def _sleep_outside_worlds(seconds: float) -> None:
    if isinstance(asyncio._get_running_loop(), WorldLoop):
        raise BlockedLoop(f"time.sleep({seconds!r}) would stop the whole world; write `await agent.sleep({seconds!r})`")
    _sleep(seconds)


_as_completed = asyncio.as_completed


def _as_completed_in_order(fs: Any, *, timeout: float | None = None) -> Any:
    if isinstance(asyncio._get_running_loop(), WorldLoop):
        fs = [asyncio.ensure_future(awaitable) for awaitable in fs]
    return _as_completed(fs, timeout=timeout)


# The one place where masbook replaces something of Python's. A loop cannot see `time.sleep` any other way before
# Python 3.13, and a student who writes it deserves the reason at once instead of a world that hangs; `as_completed`
# starts coroutines in the order of their addresses, which differs from process to process.
asyncio.as_completed = _as_completed_in_order
time.sleep = _sleep_outside_worlds  # type: ignore[assignment]
