"""Faults: what goes wrong, as part of the seed.

A `FaultPlan` has rates, drawn for each message from streams of the seed, and appointments, which happen exactly once
at a given time or to the nth message. The same plan on the same seed strikes the same messages, and a higher rate
strikes those of the lower rate and more. Every fault that fires is a row of the trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidValue, MasbookError
from .message import Filter, Message, matches

if TYPE_CHECKING:
    from .agent import Agent
    from .world import World


class InjectedCrash(MasbookError):
    """The crash that a FaultPlan ordered; not an error of the agent."""


def _require(fault: object, **values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise InvalidValue(f"{type(fault).__name__}: {name}={value!r}; give 0 or more")


@dataclass(frozen=True, slots=True)
class OnMessage:
    """Strike the `nth` message (1 is the first) that fits; `to`, `sender` and `topic` are names or globs."""

    action: Literal["drop", "delay", "duplicate"]
    nth: int = 1
    to: str = "*"
    sender: str = "*"
    topic: str = "*"
    seconds: float = 1.0  # for `delay`, virtual seconds

    def __post_init__(self) -> None:
        _require(self, seconds=self.seconds)
        if self.action not in ("drop", "delay", "duplicate") or self.nth < 1:
            raise InvalidValue(f"{self!r}: the action is drop, delay or duplicate, and nth counts from 1")


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing passes from group `a` to group `b`, nor back unless `one_way`, from `start` to `end`."""

    a: Sequence[str]
    b: Sequence[str]
    start: float = 0.0
    end: float = float("inf")
    one_way: bool = False

    def __post_init__(self) -> None:
        _require(self, start=self.start, duration=self.end - self.start)

    def parts(self, now: float, sender: str, to: str) -> bool:
        """Return whether a message between the two is lost at this instant."""
        if not self.start <= now < self.end:
            return False
        there = sender in self.a and to in self.b
        return there or (not self.one_way and sender in self.b and to in self.a)


@dataclass(frozen=True, slots=True)
class Crash:
    """Crash an agent at an instant; start it again `restart_after` virtual seconds later, if given."""

    agent: str
    at: float
    restart_after: float | None = None

    def __post_init__(self) -> None:
        _require(self, at=self.at, restart_after=self.restart_after or 0.0)


@dataclass(frozen=True, slots=True)
class Pause:
    """Let an agent do nothing for a while, as a machine that swaps or collects garbage."""

    agent: str
    at: float
    seconds: float

    def __post_init__(self) -> None:
        _require(self, at=self.at, seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Slow:
    """Add virtual seconds to every message an agent handles, from `start` to `end`."""

    agent: str
    seconds: float
    start: float = 0.0
    end: float = float("inf")

    def __post_init__(self) -> None:
        _require(self, seconds=self.seconds, start=self.start, duration=self.end - self.start)


Appointment = OnMessage | Partition | Crash | Pause | Slow


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What goes wrong: probabilities for each message and recipient, from 0 to 1, and appointments.

    A delayed message takes between `delay_range` virtual seconds longer; a reordered one waits up to
    `reorder_window`, so that later ones overtake it. `only` limits the rates to messages that pass the filter.

        FaultPlan(drop=0.05, appointments=[OnMessage("drop", nth=3, to="calc"), Crash("calc", at=2.0)])
    """

    drop: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_range: tuple[float, float] = (0.1, 1.0)
    reorder_window: float = 0.5
    appointments: Sequence[Appointment] = ()
    only: Filter | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "delay", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValue(f"{name}={getattr(self, name)!r}: a probability is between 0 and 1")
        low, high = self.delay_range
        _require(self, reorder_window=self.reorder_window, delay_range=low, delay_range_width=high - low)


@dataclass(slots=True)
class FaultInjector:
    """A plan at work in one world."""

    world: World
    plan: FaultPlan
    _seen: Counter[int] = field(default_factory=Counter)  # messages that each OnMessage has matched so far

    def __post_init__(self) -> None:
        call_at = self.world.loop.call_at
        for fault in self.plan.appointments:
            if isinstance(fault, Crash):
                call_at(fault.at, self._crash, fault)
            elif isinstance(fault, Pause):
                call_at(fault.at, self._pause, fault)
            elif isinstance(fault, Slow):
                call_at(fault.start, self._slow, fault, fault.seconds)
                if fault.end < float("inf"):
                    call_at(fault.end, self._slow, fault, 0.0)

    def strike(self, message: Message, to: str) -> list[float]:
        """Return the delays of the copies that arrive: none if it is lost, two if it is duplicated."""
        for fault in self.plan.appointments:
            if isinstance(fault, Partition) and fault.parts(self.world.now, message.sender, to):
                return self._drop(message, to, "partition")
        delays = [message.delay]
        for number, fault in enumerate(self.plan.appointments):
            if isinstance(fault, OnMessage) and self._due(number, fault, message, to):
                if fault.action == "drop":
                    return self._drop(message, to, "drop")
                delays = self._apply(fault.action, message, to, delays, fault.seconds)
        if self.plan.only is not None and not self.plan.only.matches(message):
            return delays
        if self._draw("drop", message, to) < self.plan.drop:
            return self._drop(message, to, "drop")
        if self._draw("duplicate", message, to) < self.plan.duplicate:
            delays = self._apply("duplicate", message, to, delays, 0.0)
        low, high = self.plan.delay_range
        if self._draw("delay", message, to) < self.plan.delay:
            delays = self._apply("delay", message, to, delays, low + (high - low) * self._draw("long", message, to))
        if self._draw("reorder", message, to) < self.plan.reorder:
            seconds = self.plan.reorder_window * self._draw("held", message, to)
            delays = self._apply("reorder", message, to, delays, seconds)
        return delays

    def _draw(self, purpose: str, message: Message, to: str) -> float:
        """Draw for a purpose and a pair of agents, so that what befalls one pair does not change the others."""
        return self.world.random(f"faults/{purpose}/{message.sender}/{to}").random()

    def _due(self, number: int, fault: OnMessage, message: Message, to: str) -> bool:
        fits = matches(to, fault.to) and matches(message.sender, fault.sender) and matches(message.topic, fault.topic)
        self._seen[number] += fits
        return fits and self._seen[number] == fault.nth

    def _drop(self, message: Message, to: str, reason: str) -> list[float]:
        self.world.trace.record("fault", to, fault=reason, message=message.id)
        self.world.trace.record("dropped", to, message=message.id, reason=reason)
        return []

    def _apply(self, action: str, message: Message, to: str, delays: list[float], seconds: float) -> list[float]:
        detail = None if action == "duplicate" else seconds
        self.world.trace.record("fault", to, fault=action, message=message.id, detail=detail)
        if action == "duplicate":
            self.world.trace.record("duplicated", to, message=message.id, reason="fault")
            return [*delays, delays[0]]
        return [delay + seconds for delay in delays]

    def _crash(self, fault: Crash) -> None:
        if agent := self._struck(fault.agent, "crash", fault.restart_after):
            agent.crash(InjectedCrash(f"{fault.agent} was crashed by the fault plan"), fault.restart_after)

    def _pause(self, fault: Pause) -> None:
        if agent := self._struck(fault.agent, "pause", fault.seconds):
            agent.pause(fault.seconds)

    def _slow(self, fault: Slow, seconds: float) -> None:
        if agent := self._struck(fault.agent, "slow", seconds):
            agent.slow = seconds

    def _struck(self, name: str, fault: str, detail: float | None) -> Agent | None:
        """Record that a fault strikes an agent, and return the agent; an appointment with nobody is recorded too."""
        agent = self.world.agents.get(name)
        self.world.trace.record("fault", name, fault=fault, detail=detail if agent else "nobody of that name")
        return agent
