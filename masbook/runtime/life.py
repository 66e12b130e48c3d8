"""The life of an agent: it starts, stops, crashes, restarts, pauses, and its heart beats.

`Agent` inherits it; `world.spawn` starts an agent, supervision restarts it, fault plans crash and pause it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import AgentCrashed, AgentOffline, Refused, Undeliverable, describe, explained
from . import require
from .driver import discard
from .mailbox import Mailbox
from .message import Message, MessageType
from .supervision import Supervision
from .voice import Voice
from .worker import Worker, current_worker

if TYPE_CHECKING:
    from .agent import Agent

State = Literal["idle", "busy", "error", "offline"]


class Life(Voice):
    """What happens to an agent between `spawn` and the end of its world."""

    concurrency: int
    heartbeat: float | None
    service = False

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.supervision = Supervision()
        self.parent: Agent | None = None
        self.online = False
        self._workers: list[Worker] = []
        self._asides: list[Worker] = []  # those that answer questions about the agent
        self._idle: list[Worker] = []  # those that could take a message now
        self._paused: asyncio.Future[None] | None = None  # done when a pause is over
        self._pause_ends = 0.0
        self._error: Exception | None = None  # what it crashed of, until it starts again
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._farewells: dict[Callable[[], None], None] = {}  # called once, when it is gone
        self._heart: Any = None  # the timer of the next heartbeat
        self._revival: Any = None  # the timer of the next restart

    async def on_start(self) -> None:
        """Do what comes before the first message, at spawn and after each restart."""

    async def on_stop(self) -> None:
        """Do what comes after the last message."""

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine beside the mailbox, as long as the agent runs; its error crashes the agent."""
        task = self._start_task(self._guard(coroutine))
        self._tasks[task] = None

        def forget(task: asyncio.Task[Any]) -> None:
            self._tasks.pop(task, None)
            discard(coroutine)

        task.add_done_callback(forget)
        return task

    def when_gone(self, farewell: Callable[[], None]) -> Callable[[], None]:
        """Call `farewell` once when the agent stops or crashes; return the function that calls that off."""
        self._farewells[farewell] = None
        return lambda: self._farewells.pop(farewell, None)

    def _start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that is not part of the handling of any message."""
        context = contextvars.copy_context()
        context.run(current_worker.set, None)
        return self.world.loop.create_task(coroutine, name=self.name, context=context)

    async def _guard(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Exception as error:
            self.crash(explained(error))

    def _begin(self) -> None:
        """Begin to live, or to live again, in the world that has been entered."""
        if not self.online:
            self.world.bus.attach(self._agent)
        self.online, self._error = True, None
        self._stir()
        self.world.registry.admit(self._agent)
        self._beat(self.world.now, 0)
        if type(self).on_start is Life.on_start:
            self._open()
        else:
            self.background(self._prepare())

    async def _prepare(self) -> None:
        await self.on_start()
        self._open()

    def _open(self) -> None:
        self._workers = [Worker(self._agent) for _ in range(self.concurrency)]
        self._idle = list(reversed(self._workers))
        while self._idle and self.concurrency - len(self._idle) < len(self.mailbox):
            self.wake()

    def wake(self) -> None:
        """Let an idle worker go through the mailbox."""
        self._stir()
        self._idle.pop().wake()

    def _stir(self) -> None:
        """Let the registry look at load and health itself, where no heartbeat will tell."""
        if self.heartbeat is None and not self.service:
            self.world.registry.stirred[self.name] = self._agent

    def _beat(self, born: float, number: int) -> None:
        """Send a heartbeat to the registry at each multiple of the interval, as long as the agent runs."""
        if self.heartbeat is None:
            return
        self._heart = self.world.loop.call_at(born + (number + 1) * self.heartbeat, self._beat, born, number + 1)
        if number and self.responsive:
            content = {"load": self.load, "stalled": self.stalled}
            with contextlib.suppress(Undeliverable, Refused):  # the trace has it; the next one may get through
                self.world.bus.post(self, MessageType.HEARTBEAT, self.world.registry.name, "heartbeat", content)

    def stop(self, reason: str = "stop") -> asyncio.Future[None]:
        """Stop at once, also in the middle of a handler; return a future that is done when `on_stop` is.

        Waiting messages become dead letters, requests being answered end in AgentOffline for who asked, and a restart
        that was to come is called off.
        """
        loop = self.world.loop
        by_itself = self.handling() is not None or (loop.is_running() and asyncio.current_task(loop) in self._tasks)
        done = self.world.loop.create_future()
        if self._revival is not None:
            self._revival.cancel()
        self._error = None
        if not self.online:
            done.set_result(None)
            return done
        self.world.trace.record("stopped", self.name, reason=reason)
        self._halt(AgentOffline(f"{self.name} has stopped"), "stopped")
        self._close("stopped")
        hook = self._start_task(self.on_stop())
        hook.add_done_callback(lambda task: self._stopped(task, done))
        if by_itself and self.supervision.restart == "always":
            self._schedule_restart()
        return done

    def _stopped(self, hook: asyncio.Task[None], done: asyncio.Future[None]) -> None:
        if not hook.cancelled() and (error := hook.exception()) is not None:
            self.world.trace.record("crashed", self.name, error=type(error).__name__, message=describe(error))
        if not done.done():
            done.set_result(None)

    def crash(self, error: Exception, restart_after: float | None = None) -> None:
        """Crash: what is in hand is lost; what waits is kept for a restart, or becomes dead letters if there is none.

        `restart_after` virtual seconds starts the agent again whatever its supervision says.
        """
        if not self.online or self._error is not None:
            return
        self.world.trace.record("crashed", self.name, error=type(error).__name__, message=describe(error))
        self._error = error
        self._stir()
        self._halt(AgentCrashed(f"{self.name} crashed: {type(error).__name__}: {describe(error)}"), "crashed")
        if not self._schedule_restart(restart_after):
            self._close("crashed")
            self.world.escalate(self._agent, error)

    def _schedule_restart(self, after: float | None = None) -> bool:
        """Start again later, as ordered or as the supervision says; return False if it says never again."""
        attempt, delay = (0, after) if after is not None else self.supervision.next_restart(self.world.now)
        if delay is None:
            return False
        self._revival = self.world.loop.call_later(delay, self._restart, attempt, delay)
        return True

    def _restart(self, attempt: int, backoff: float) -> None:
        if self._revival is not None:
            self._revival.cancel()
        replaced = self.world.bus.agent(self.name) is not self
        if replaced or (self.online and self._error is None):
            return
        self.world.trace.record("restarted", self.name, attempt=attempt, backoff=backoff)
        self._begin()

    def restart(self) -> None:
        """Start again after a crash or a stop; the mailbox is kept after a crash."""
        self._restart(0, 0.0)

    def _halt(self, error: Exception, why: str) -> None:
        """End all work in hand; who waits for an answer gets the error."""
        workers, self._workers, self._asides, self._idle = self._workers + self._asides, [], [], []
        if self._heart is not None:
            self._heart.cancel()
        for worker in workers:
            worker.dismiss(error, why)
        for task in list(self._tasks):
            task.cancel(why)
        farewells, self._farewells = self._farewells, {}
        for farewell in farewells:
            farewell()

    def _close(self, reason: str) -> None:
        """Leave the world: no subscriptions, no registration, nothing in the mailbox."""
        self.online = False
        self.world.bus.detach(self._agent)
        self.world.registry.forget(self.name, reason)
        for message in self.mailbox.empty(AgentOffline(f"{self.name} has {reason}")):
            self.world.bus.bury(message, self.name, reason)

    def suspend(self, seconds: float) -> None:
        """Take no messages and send no heartbeats for that many virtual seconds, or until a longer pause ends."""
        ends = self.world.now + require.not_negative("the pause", seconds)
        self.world.trace.record("paused", self.name, seconds=seconds)
        if self._paused is None or self._paused.done():
            self._paused = self.world.loop.create_future()
        self._pause_ends = max(self._pause_ends, ends)
        self.world.loop.call_at(ends, self._unpause)

    def _unpause(self) -> None:
        if self._paused is not None and not self._paused.done() and self.world.now >= self._pause_ends:
            self._paused.set_result(None)

    # What can be read of its life

    @property
    def state(self) -> State:
        """`idle`, `busy`, `error` or `offline`."""
        if self._error is not None:
            return "error"
        if not self.online:
            return "offline"
        return "busy" if any(worker.message is not None for worker in self._workers) else "idle"

    def why_offline(self) -> str:
        """Return why the agent is not there, and what can be done."""
        if self._error is None:
            return "it has stopped; call its restart(), or ask another"
        reason = f"{type(self._error).__name__}: {describe(self._error)}"
        return f"it crashed ({reason}); spawn it with restart='on_crash', call its restart(), or ask another"

    @property
    def responsive(self) -> bool:
        """Whether the agent runs: online, not crashed, and not paused."""
        return self.online and self._error is None and (self._paused is None or self._paused.done())

    @property
    def at_rest(self) -> bool:
        """Whether it has nothing to do and would begin at once if it had."""
        return len(self._idle) == self.concurrency and not len(self.mailbox)

    @property
    def load(self) -> float:
        """Messages in work and waiting, for each message it can work on at once."""
        working = sum(worker.message is not None for worker in self._workers)
        return (working + len(self.mailbox)) / self.concurrency

    @property
    def stalled(self) -> float:
        """For how many virtual seconds it has been at the message it has worked on longest."""
        now = self.world.now
        return max((now - worker.since for worker in self._workers if worker.message is not None), default=0.0)

    def handling(self) -> Message | None:
        """Return the message being handled by whoever calls, if it is this agent."""
        worker = current_worker.get()
        return worker.message if worker is not None and worker.agent is self else None

    def in_hand(self, message: int | None) -> Message | None:
        """Return the message of that number if the agent is handling it at present."""
        held = (worker.message for worker in self._workers)
        return next((each for each in held if each is not None and each.id == message), None)

    @property
    def _agent(self) -> Agent:
        return cast("Agent", self)
