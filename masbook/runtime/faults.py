"""Faults: what goes wrong, as part of the seed.

A `FaultPlan` has rates, drawn for each message from streams of the seed, and appointments, which happen exactly once
at a given time or to the nth message. The same plan on the same seed strikes the same messages, and a higher rate
strikes those of the lower rate and more. Every fault that fires is a row of the trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InjectedCrash, InvalidValue
from . import require
from .message import Filter, Message, matches

if TYPE_CHECKING:
    from .agent import Agent
    from .world import World


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
        require.one_of("action", self.action, ("drop", "delay", "duplicate"))
        for what in ("to", "sender", "topic"):
            _named(what, getattr(self, what))
        require.whole("nth", self.nth)
        require.not_negative("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing passes from group `a` to group `b`, nor back unless `one_way`, from `start` to `end`."""

    a: Sequence[str]
    b: Sequence[str]
    start: float = 0.0
    end: float = float("inf")
    one_way: bool = False

    def __post_init__(self) -> None:
        for group in (self.a, self.b):
            require.names("a side of a partition", group)
        require.not_negative("start", self.start)
        require.not_negative("the duration of the partition", self.end - self.start)

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
        _named("agent", self.agent)
        require.not_negative("at", self.at)
        require.not_negative("restart_after", self.restart_after or 0.0)


@dataclass(frozen=True, slots=True)
class Pause:
    """Let an agent do nothing for a while, as a machine that swaps or collects garbage."""

    agent: str
    at: float
    seconds: float

    def __post_init__(self) -> None:
        _named("agent", self.agent)
        require.not_negative("at", self.at)
        require.not_negative("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Slow:
    """Add virtual seconds to every message an agent handles, from `start` to `end`."""

    agent: str
    seconds: float
    start: float = 0.0
    end: float = float("inf")

    def __post_init__(self) -> None:
        _named("agent", self.agent)
        require.not_negative("seconds", self.seconds)
        require.not_negative("start", self.start)
        require.not_negative("the duration of the slowness", self.end - self.start)


@dataclass(frozen=True, slots=True)
class ModelFault:
    """Strike the calls of agents to their models, from `start` to `end`: the `nth` (1 is the first), or by chance.

    `agent` is a name or glob. The faults are a `rate_limit` that asks to wait `retry_after` virtual seconds, a
    `timeout`, an answer that is `malformed`, and a provider that is `unavailable`. An attempt again is a call too.
    """

    fault: Literal["rate_limit", "timeout", "malformed", "unavailable"]
    agent: str = "*"
    nth: int | None = None
    probability: float = 1.0
    start: float = 0.0
    end: float = float("inf")
    retry_after: float | None = None

    def __post_init__(self) -> None:
        require.one_of("fault", self.fault, ("rate_limit", "timeout", "malformed", "unavailable"))
        _named("agent", self.agent)
        require.whole("nth", 1 if self.nth is None else self.nth)
        require.probability("probability", self.probability)
        require.not_negative("start", self.start)
        require.not_negative("the duration of the fault", self.end - self.start)
        require.not_negative("retry_after", self.retry_after or 0.0)


def _named(what: str, value: Any) -> None:
    """Raise InvalidValue unless it is a name: an agent itself, or a list of names, would never be struck."""
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"{what} is {value!r}: give one name, such as 'calc'")


Appointment = OnMessage | Partition | Crash | Pause | Slow | ModelFault


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
            require.probability(name, getattr(self, name))
        if isinstance(self.appointments, Appointment):
            raise InvalidValue(f"appointments is {self.appointments!r}: give a list, such as [{self.appointments!r}]")
        object.__setattr__(self, "appointments", tuple(self.appointments))
        for appointment in self.appointments:
            if not isinstance(appointment, Appointment):
                raise InvalidValue(
                    f"{appointment!r} is no appointment: give OnMessage, Partition, Crash, Pause, Slow or ModelFault"
                )
        if len(self.delay_range) != 2:
            raise InvalidValue(f"delay_range is {self.delay_range!r}: give the shortest and the longest delay")
        low, high = self.delay_range
        require.not_negative("reorder_window", self.reorder_window)
        require.not_negative("the shortest delay", low)
        require.not_negative("the width of delay_range", high - low)


@dataclass(slots=True)
class FaultInjector:
    """A plan at work in one world."""

    world: World
    plan: FaultPlan
    _seen: Counter[int] = field(default_factory=Counter)  # what each OnMessage and ModelFault has matched so far

    def __post_init__(self) -> None:
        if not isinstance(self.plan, FaultPlan):
            raise InvalidValue(f"faults is {self.plan!r}: give a FaultPlan, such as FaultPlan(drop=0.05)")
        call_at = self.world.loop.call_at
        for fault in self.plan.appointments:
            if isinstance(fault, Crash):
                call_at(fault.at, self._crash, fault)
            elif isinstance(fault, Pause):
                call_at(fault.at, self._pause, fault)
            elif isinstance(fault, Slow):
                call_at(fault.start, self._slow, fault.agent)
                if fault.end < float("inf"):
                    call_at(fault.end, self._slow, fault.agent)

    def strike(self, message: Message, to: str) -> list[float]:
        """Return the delays of the copies that arrive: none if it is lost, two if it is duplicated."""
        plan, draws = self.plan, self._draws(message.sender, to)
        due = [
            fault
            for number, fault in enumerate(plan.appointments)
            if isinstance(fault, OnMessage) and self._due(number, fault, message, to)
        ]
        for fault in plan.appointments:
            if isinstance(fault, Partition) and fault.parts(self.world.now, message.sender, to):
                return self._drop(message, to, "partition", 1)
        delays = [message.delay]
        for fault in due:
            if fault.action == "drop":
                return self._drop(message, to, "drop", len(delays))
            delays = self._apply(fault.action, message, to, delays, fault.seconds)
        if plan.only is not None and not plan.only.matches(message):
            return delays
        if draws["drop"] < plan.drop:
            return self._drop(message, to, "drop", len(delays))
        if draws["duplicate"] < plan.duplicate:
            delays = self._apply("duplicate", message, to, delays, 0.0)
        low, high = plan.delay_range
        if draws["delay"] < plan.delay:
            delays = self._apply("delay", message, to, delays, low + (high - low) * draws["how long"])
        if draws["reorder"] < plan.reorder:
            delays = self._apply("reorder", message, to, delays, plan.reorder_window * draws["how late"])
        return delays

    def _draws(self, sender: str, to: str) -> dict[str, float]:
        """Draw for every purpose, needed or not, so that no fault moves the draws of another or of another pair."""
        purposes = ("drop", "duplicate", "delay", "how long", "reorder", "how late")
        stream = self.world.random(f"faults/{sender}/{to}")
        return {purpose: stream.random() for purpose in purposes}

    def _due(self, number: int, fault: OnMessage, message: Message, to: str) -> bool:
        fits = matches(to, fault.to) and matches(message.sender, fault.sender) and matches(message.topic, fault.topic)
        self._seen[number] += fits
        return fits and self._seen[number] == fault.nth

    def strike_model(self, agent: str) -> ModelFault | None:
        """Return what goes wrong with this call of the agent to its model, if anything does."""
        due = [
            fault
            for number, fault in enumerate(self.plan.appointments)
            if isinstance(fault, ModelFault) and self._model_due(number, fault, agent)
        ]
        if not due:
            return None
        self.world.trace.record("fault", agent, fault=f"model {due[0].fault}", detail=due[0].retry_after)
        return due[0]

    def _model_due(self, number: int, fault: ModelFault, agent: str) -> bool:
        drawn = self.world.random(f"faults/{agent}/model/{number}").random()  # always: no fault moves another's draws
        if not matches(agent, fault.agent) or not fault.start <= self.world.now < fault.end:
            return False
        self._seen[number] += 1
        return drawn < fault.probability and fault.nth in (None, self._seen[number])

    def _drop(self, message: Message, to: str, reason: str, copies: int) -> list[float]:
        self.world.trace.record("fault", to, fault=reason, message=message.id)
        for _ in range(copies):
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
            agent.suspend(fault.seconds)

    def _slow(self, name: str) -> None:
        if agent := self._struck(name, "slow", self.slowness(name)):
            agent._slow = self.slowness(name)

    def slowness(self, name: str) -> float:
        """Return the virtual seconds that the plan adds, at this instant, to every message of an agent."""
        faults = [fault for fault in self.plan.appointments if isinstance(fault, Slow) and fault.agent == name]
        return sum(fault.seconds for fault in faults if fault.start <= self.world.now < fault.end)

    def _struck(self, name: str, fault: str, detail: float | None) -> Agent | None:
        """Record that a fault strikes an agent, and return the agent; an appointment with nobody is recorded too."""
        agent = self.world.bus.agent(name)
        self.world.trace.record("fault", name, fault=fault, detail=detail if agent else "nobody of that name")
        return agent
