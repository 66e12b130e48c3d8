"""The thread in which a world runs, watched over by the thread that waits for it."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import BlockedLoop
from .clock import RealLoop, VirtualLoop

_running: list[tuple[int, int, int]] = []  # for each world that runs, the thresholds of before the first
_running_lock = threading.Lock()


def _collect_less(begin: bool) -> None:
    """Let Python's collector look less often while any world runs: a trace grows by objects that never die.

    Looking through them again and again would be half of the cost of a message.
    """
    with _running_lock:
        if begin:
            _running.append(_running[0] if _running else gc.get_threshold())
            gc.set_threshold(20_000, 50, 100)
        elif len(_running) > 1:
            _running.pop()
        else:
            gc.set_threshold(*_running.pop())


class WorldThread:
    """The thread in which a world runs, watched over by the thread that waits for it.

    A notebook's own loop lives in the calling thread, so worlds never run there. `patience` is how many seconds of the
    wall clock one handler may hold the thread before BlockedLoop is raised inside it.
    """

    def __init__(self, work: Callable[[], Any], loop: VirtualLoop | RealLoop, patience: float) -> None:
        self._work, self._loop, self._patience = work, loop, patience
        self._seen: Any = None
        self._since = time.monotonic()
        self._result: Any = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._over = False
        self._ended = threading.Event()  # not Thread.join, which takes a thread for dead when it is interrupted
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._target,), name="masbook", daemon=True)
        self._thread.start()

    def _target(self) -> None:
        _collect_less(True)
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        while not self._ended.is_set():
            with contextlib.suppress(BlockedLoop):
                with self._lock:
                    self._over = True  # from here on nobody breaks in
                for _ in range(100):  # and one that is on its way arrives in this loop
                    pass
                self._ended.set()
        _collect_less(False)

    @property
    def ended(self) -> bool:
        """Whether the work is over."""
        return self._ended.is_set() or not self._thread.is_alive()

    def watch(self, wait: float = 0.0) -> bool:
        """Return whether the work goes on after `wait` seconds; break into a handler that holds the thread too long."""
        ended = self._ended.wait(wait) or not self._thread.is_alive()
        if self._loop.idle or self._loop.progress != self._seen:
            self._seen, self._since = self._loop.progress, time.monotonic()
        elif time.monotonic() - self._since > self._patience and not self._imports():
            self._break_in()
        return not ended

    def result(self) -> Any:
        """Wait for the work and return its result or raise its error; interrupting halts it within half a second."""
        try:
            while self.watch(0.1):
                pass
        except BaseException:
            self.stop()
            raise
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def stop(self) -> None:
        """Halt the loop; where a handler holds the thread, break into it."""
        self._loop.halt("interrupted")
        if not self._ended.wait(0.1):
            self._break_in()
            self._ended.wait(0.4)

    def _imports(self) -> bool:
        """Return whether the thread is importing a module, which is slow but must not be broken off."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        return frame is not None

    def _break_in(self) -> None:
        """Raise BlockedLoop in the thread at its next line of Python, if it is still at work."""
        with self._lock:
            self._since = time.monotonic()
            if not self._over:
                _raise_in(self._thread, BlockedLoop)


def _raise_in(thread: threading.Thread, error: type[Exception]) -> None:
    """Raise `error` in a thread at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))
