"""The ledger of a run: what became of each task and each conflict, told from the rows of the trace.

`frames` makes tables of it, and charts read those. Workflows, coordinators and teams record the same kinds of rows, so
that their tasks stand side by side. Like `story` it needs no pandas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..runtime.trace import KINDS
from .story import Row

NEVER = math.nan


@dataclass(slots=True)
class Attempt:
    """One agent's work on a task: when it was given and begun, until when, and how it ended; `running` before that.

    A task that was given by a request is begun when the agent takes the message in hand, and until then waits with it.
    """

    workflow: str
    task: str
    capability: str
    agent: str
    attempt: int | None
    start: float
    begun: float
    end: float = NEVER
    status: str = "running"
    error: str | None = None


@dataclass(slots=True)
class Work:
    """One task: who keeps it, who worked on it and when, and what became of it; `waiting` or `running` at first."""

    service: str
    added: float
    workflow: str
    task: str
    capability: str
    after: tuple[str, ...]
    priority: int | None
    parent: str | None
    tries: list[Attempt] = field(default_factory=list)
    status: str = "waiting"
    agent: str | None = None
    ready: float = NEVER
    started: float = NEVER
    ended: float = NEVER
    undone: float = NEVER
    critical: bool = False
    error: str | None = None

    def take(self, time: float, kind: str, who: str, facts: Mapping[str, Any]) -> None:
        """Enter what a row says about the task; what has ended stays so."""
        if kind == "task_undone":
            self.undone = time if facts["error"] is None else NEVER
        elif not math.isnan(self.ended):
            return
        elif kind == "task_started":
            self.tries.append(Attempt(self.workflow, self.task, self.capability, who, facts["attempt"], time, time))
            self.status, self.agent, self.started = "running", who, self.tries[0].start
        elif kind == "task_part" or (kind == "task_waiting" and str(facts["reason"]).startswith("subtasks")):
            self._close(time, "completed", None, who)  # its own part is done
        elif kind == "task_failed":
            self.error = facts["error"]
            self._close(time, "failed", facts["error"], who)
        elif kind == "task_ended":
            self._close(time, facts["status"], facts["reason"])
            if facts["status"] == "timed_out" and self.tries and self.tries[-1].end == time:
                self.tries[-1].status = "timed_out"  # and not merely failed
            self.status, self.ended, self.error = facts["status"], time, facts["reason"] or self.error

    def _close(self, time: float, status: str, error: str | None, who: str | None = None) -> None:
        """End the attempts under way: that of the agent named, where one of them is its own, or all."""
        under_way = [attempt for attempt in self.tries if attempt.status == "running"]
        own = [attempt for attempt in under_way if attempt.agent == who]
        for attempt in own or under_way:
            attempt.end, attempt.status, attempt.error = time, status, error
        if self.status == "running" and len(own or under_way) == len(under_way):
            self.status = "waiting"


_STEPS = frozenset(kind for kind in KINDS if kind.startswith("task_"))


def tasks(rows: list[Row]) -> list[Work]:
    """Return every task added, in order, with what became of it."""
    found: list[Work] = []
    plans: dict[str, dict[str, Work]] = {}
    given: dict[tuple[str, str], list[Attempt]] = {}  # by service and agent, until the request is sent
    asked: dict[int, Attempt] = {}  # by message, until the agent takes it in hand
    for time, kind, who, *values in rows:
        if kind in _STEPS:
            facts = dict(zip(KINDS[kind], values, strict=True))
            plan = plans.setdefault(facts["workflow"], {})
            if kind == "task_added":
                work = plan[facts["task"]] = Work(who, time, **facts | {"after": tuple(facts["after"] or ())})
                found.append(work)
            elif (known := plan.get(facts["task"])) is not None:
                known.take(time, kind, who, facts)
                if kind == "task_started" and known.tries:
                    given.setdefault((known.service, who), []).append(known.tries[-1])
        elif kind == "sent" and values[1] == "request" and given.get((who, values[2])):
            attempt = given[who, values[2]].pop(0)
            if attempt.start == time:
                attempt.begun, asked[values[0]] = NEVER, attempt
        elif kind == "delivered" and values[0] in asked and asked[values[0]].agent == who:
            attempt = asked.pop(values[0])
            attempt.begun = time if attempt.status == "running" else NEVER  # it may come too late
    for plan in plans.values():
        _relate(plan)
    return found


def _relate(plan: dict[str, Work]) -> None:
    """Enter when each task of a workflow was ready, and which of them are on the critical path."""
    for work in plan.values():
        ends = [plan[task].ended if task in plan else NEVER for task in work.after]
        work.ready = NEVER if any(map(math.isnan, ends)) else max([work.added, *ends])
    if any(work.after for work in plan.values()):
        done = {task: work for task, work in plan.items() if work.tries and not math.isnan(work.ended)}
        chain = list(done)
        while chain:
            last = max(reversed(chain), key=lambda task: done[task].ended)
            done[last].critical = True
            chain = [task for task in done[last].after if task in done and not done[task].critical]


@dataclass(slots=True)
class Dispute:
    """One conflict: since when, what has been tried, and how it ended; `open` while it has not."""

    opened: float
    conflict: str
    type: str
    participants: tuple[str, ...]
    description: str | None
    tried: tuple[str, ...] = ()
    ended: float = NEVER
    outcome: str = "open"
    strategy: str | None = None
    winner: str | None = None
    decision: Any = None
    satisfaction: Mapping[str, float] | None = None

    def satisfied(self) -> list[float]:
        """Return how satisfied each participant is, from 0 to 1, as far as it is known."""
        return list((self.satisfaction or {}).values())


def disputes(rows: list[Row]) -> list[Dispute]:
    """Return every conflict, in the order in which they came up, with how it ended."""
    found: dict[str, Dispute] = {}
    for time, kind, _, *values in rows:
        if kind not in ("conflict", "attempted", "resolved"):
            continue
        facts = dict(zip(KINDS[kind], values, strict=True))
        name = facts["conflict"]
        if kind == "conflict":
            found.setdefault(name, Dispute(time, **facts | {"participants": tuple(facts["participants"] or ())}))
        elif kind == "attempted" and name in found:
            found[name].tried += (facts["strategy"],)
        elif name in found and math.isnan(found[name].ended):  # resolved is final
            found[name] = replace(found[name], ended=time, **facts)
    return list(found.values())


@dataclass(slots=True)
class Hold:
    """What one agent had of a lock, a semaphore or a read-write lock: since when it wanted it, and from when to when.

    Its status is `waiting`, then `held`, then why that ended: `released`, `lease expired`, `timed out`, `cancelled`,
    `crashed` or `stopped`.
    """

    who: str
    resource: str
    asked: float
    start: float = NEVER
    end: float = NEVER
    token: int | None = None
    status: str = "waiting"


def holds(rows: list[Row]) -> list[Hold]:
    """Return everything that somebody wanted to hold, in the order in which it was asked for."""
    found: list[Hold] = []
    queues: dict[tuple[str, str], list[Hold]] = {}
    held: dict[tuple[str, int], Hold] = {}
    for time, kind, who, *values in rows:
        if kind not in ("queued", "gave_up", "acquired", "released"):
            continue
        facts = dict(zip(KINDS[kind], values, strict=True))
        name, line = facts["resource"], queues.setdefault((who, facts["resource"]), [])
        if kind == "queued" or (kind == "acquired" and not line):
            found.append(Hold(who, name, time))
            line.append(found[-1])
        if kind in ("gave_up", "acquired"):
            began = time - facts["waited"]
            hold = min(line, key=lambda hold: abs(hold.asked - began), default=Hold(who, name, began))
            line[:] = [other for other in line if other is not hold]
            if kind == "gave_up":
                hold.end, hold.status = time, facts["reason"]
            else:
                hold.start, hold.token, hold.status = time, facts["token"], "held"
                held[name, facts["token"]] = hold
        elif kind == "released" and (name, facts["token"]) in held:
            hold = held.pop((name, facts["token"]))
            hold.end, hold.status = time, facts["reason"]
    return found


def fairness(values: Iterable[float]) -> float:
    """Return how evenly the values are shared out: 1 where all are equal, 1/n where one has everything; NaN for none.

    Jain's index, (sum x)^2 / (n sum x^2): R. Jain, D.-M. Chiu, W. Hawe, *A quantitative measure of fairness and
    discrimination* (1984). Where all are 0 they are equal.
    """
    known = list(values)
    squares = sum(value * value for value in known)
    if not known:
        return NEVER
    return sum(known) ** 2 / (len(known) * squares) if squares else 1.0
