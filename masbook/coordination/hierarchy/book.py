"""The tasks of a team, and the book in which a board keeps them: what each takes, and what becomes of it.

Parents end here after their subtasks, failures have their consequences, and who waits for a task is told once, whatever
became of it. Who does the tasks is decided in `board`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from ...errors import InvalidValue, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import FrozenDict, freeze

Status = Literal["pending", "in_progress", "waiting", "completed", "failed", "cancelled", "timed_out"]
OnFailure = Literal["fail", "retry", "ignore", "escalate"]
HIGHEST = 5  # of levels, an expert, and of priorities, the most urgent; the lowest is 1
PERSON = "person"  # who is above the top of every team


@dataclass(frozen=True, slots=True)
class TeamTask:
    """A task for a team; once it is on a board, as it is at that moment.

    `priority` is 1 to 5, 5 the most urgent; `requires` names skills, with the level that each takes at least (a list:
    level 1); `duration` is an estimate of the work and `timeout` the time it may take in all, in virtual seconds. Only
    `assignee` may do it, or, where that is None, anybody but `by`, the member who handed it over. Work that fails is
    tried again, `retries` times (for `retry` 2 by default); then its parent fails too (`fail`, `retry`) or does without
    it (`ignore`), or the next level takes it on (`escalate`). Its `subtasks` are at least as urgent. If it has some and
    neither `requires` nor `assignee`, it has no work of its own: its result is theirs, by id.

    States: `pending`, `in_progress` (`worker` has it in hand), `waiting` (for its subtasks, in nobody's hands), and for
    good `completed`, `failed`, `cancelled` or `timed_out`.

        TeamTask("Disputed invoice", priority=4, requires={"billing": 3}, on_failure="escalate")
    """

    title: str
    description: str = ""
    priority: int = 1
    requires: Mapping[str, int] | list[str] = field(default_factory=FrozenDict)
    subtasks: tuple[TeamTask, ...] = ()
    assignee: str | None = None
    on_failure: OnFailure = "fail"
    retries: int = 0
    timeout: float | None = None
    duration: float = 1.0
    data: Mapping[str, Any] = field(default_factory=FrozenDict)
    id: str = ""
    # what the board adds
    parent: str | None = None
    children: tuple[str, ...] = ()
    by: str | None = None
    status: Status = "pending"
    worker: str | None = None
    attempts: int = 0
    result: Any = None
    error: str | None = None
    added: float = 0.0
    ended: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip():
            raise InvalidValue(f"the title of a task is {self.title!r}: say in a few words what is to be done")
        if not isinstance(self.id, str) or not isinstance(self.data, Mapping):
            raise InvalidValue(f"id is {self.id!r} and data {self.data!r}: give text, or nothing, and a dict")
        _check_grade("priority", self.priority)
        require.one_of("on_failure", self.on_failure, get_args(OnFailure))
        require.whole("retries", self.retries, 0)
        require.not_negative("duration", self.duration)
        if self.timeout is not None:
            require.positive("timeout", self.timeout)
        if self.assignee is not None:
            require.text("assignee", self.assignee)
        several = isinstance(self.subtasks, list | tuple)
        if not several or not all(isinstance(sub, TeamTask) for sub in self.subtasks):
            raise InvalidValue(f"subtasks is {self.subtasks!r}: give a list of TeamTask(title, ...)")
        object.__setattr__(self, "subtasks", tuple(self.subtasks))
        object.__setattr__(self, "requires", check_levels(self.requires, "requires"))
        object.__setattr__(self, "data", freeze(self.data, "data"))

    @property
    def levels(self) -> Mapping[str, int]:
        """The level that it takes at least of each skill."""
        return cast("Mapping[str, int]", self.requires)

    @property
    def needs(self) -> str:
        """The same as text, `work` where anybody can do it."""
        return " + ".join(f"{skill} {level}" for skill, level in self.levels.items()) or "work"


def check_levels(skills: Any, what: str = "skills") -> FrozenDict:
    """Return levels by skill, 1 for those of a mere list; InvalidValue for what is no level or no name."""
    found = skills if isinstance(skills, Mapping) else dict.fromkeys(require.names(what, skills), 1)
    for skill, level in found.items():
        if not isinstance(skill, str) or not skill.strip():
            raise InvalidValue(f"a skill called {skill!r}: give it a name, such as 'billing'")
        _check_grade(f"the level of {skill!r}", level)
    return FrozenDict(found)


def _check_grade(what: str, grade: Any) -> None:
    if require.whole(what, grade) > HIGHEST:
        raise InvalidValue(f"{what} is {grade!r}: give a whole number from 1 to {HIGHEST}")


class TaskBook(Agent):
    """Keeps tasks, and ends each exactly once; `TaskBoard` inherits it, and defines the three methods at the end."""

    service = True

    def __init__(self, name: str) -> None:
        super().__init__(name, concurrency=1000)  # `outcome` may take long
        self._book: dict[str, TeamTask] = {}
        self._ends: dict[str, asyncio.Future[TeamTask]] = {}
        self._timers: dict[str, asyncio.Task[None]] = {}

    @capability(cost=0.1)
    async def task(self, task: str) -> TeamTask:
        """Return a task as it is now; InvalidValue if it is not on this board."""
        return self._find(task)

    @capability(cost=0.1)
    async def tasks(self, status: Status | None = None) -> list[TeamTask]:
        """Return the tasks in the order in which they were added, all or those in one state."""
        return [task for task in self._book.values() if status in (None, task.status)]

    @capability
    async def outcome(self, task: str) -> TeamTask:
        """Wait until a task has ended, and return it, whatever became of it."""
        return await self.wait_for(task, self.name)

    async def wait_for(self, task: str, who: str) -> TeamTask:
        """Do the same for somebody of whom a stuck world then says what it waits for, and on whom that depends."""
        found, end = self._find(task), asyncio.shield(self._ends[task])
        what, on = f"{task}, {found.title!r}, to end", found.worker or found.assignee
        ended: TeamTask = await self.world.wait(end, who=who, what=what, on=on)
        return ended

    @capability
    async def cancel(self, task: str) -> TeamTask:
        """End a task and those below it, also in the middle of the work; one that has ended stays as it is."""
        self._find(task)
        self._end(task, "cancelled", "cancelled")
        return self._book[task]

    def when_done(self, task: str, callback: Callable[[TeamTask], Any]) -> None:
        """Call a function or coroutine function of the task once, when it has ended; soon if it has already."""
        self._find(task)
        if not callable(callback):
            raise InvalidValue(f"when_done cannot call {callback!r}: give a function of the task")
        self._ends[task].add_done_callback(lambda end: self.background(self._call_back(callback, end.result())))

    async def _call_back(self, callback: Callable[[TeamTask], Any], ended: TeamTask) -> None:
        try:
            answer = callback(ended)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:  # of who asked to be told: it is seen, and the team goes on
            name, text = getattr(callback, "__name__", "callback"), f"{type(error).__name__}: {describe(error)}"
            self.world.trace.record("reaction_failed", self.name, event=ended.id, reaction=name, error=text)

    # Entering

    def _find(self, task: str) -> TeamTask:
        if not isinstance(task, str) or task not in self._book:
            raise InvalidValue(f"no task {task!r} on {self.name}, which has {len(self._book)}: give the id of one")
        return self._book[task]

    def _plan(self, task: TeamTask, above: TeamTask | None) -> list[TeamTask]:
        """Return a task and all below it as they begin; nothing is in the book yet."""
        begun: dict[str, Any] = dict.fromkeys(("worker", "result", "error", "ended"))
        new = replace(
            task,
            priority=max(task.priority, above.priority if above else 1),
            retries=task.retries or (2 if task.on_failure == "retry" else 0),
            subtasks=(),
            parent=above.id if above else None,
            children=tuple(sub.id or f"{task.id}.{n}" for n, sub in enumerate(task.subtasks, start=1)),
            status="waiting" if task.subtasks and not task.requires and task.assignee is None else "pending",
            added=self.now,
            attempts=0,
            **begun,
        )
        below = [replace(sub, id=id, by=None) for id, sub in zip(new.children, task.subtasks, strict=True)]
        return [new, *(one for sub in below for one in self._plan(sub, new))]

    def _enter(self, task: TeamTask) -> None:
        self._book[task.id], self._ends[task.id] = task, self.world.loop.create_future()
        needs, urgency = task.needs, task.priority
        self._record("task_added", task, capability=needs, after=[], priority=urgency, parent=task.parent)
        self._set_timer(task)

    def _put(self, id: str, **changes: Any) -> TeamTask:
        """Enter what has changed about a task, and return it."""
        self._book[id] = task = replace(self._book[id], **changes)
        return task

    def _record(self, kind: str, task: TeamTask, who: str | None = None, **facts: Any) -> None:
        self.world.trace.record(kind, who or self.name, workflow=self.name, task=task.id, **facts)

    def _set_timer(self, task: TeamTask) -> None:
        """Count the time that a task may take from now on; that of one that has ended no longer."""
        if task.id in self._timers:
            self._timers.pop(task.id).cancel()
        if task.timeout is not None and task.ended is None and task.assignee != PERSON:
            self._timers[task.id] = self.background(self._expire(task.id, task.timeout))

    async def _expire(self, id: str, seconds: float) -> None:
        await self.sleep(seconds)
        del self._timers[id]
        self._fail(id, f"not done in {seconds:g} s", "timed_out")

    # What becomes of tasks

    def _open_below(self, task: TeamTask) -> list[str]:
        return [child for child in task.children if self._book[child].ended is None]

    def _finish(self, id: str, result: Any, reason: str | None = None) -> None:
        """Take in that the own work of a task is done; it may have to wait for those below it."""
        self._release(self._book[id])
        task = self._put(id, status="waiting", result=result)
        self._complete(id, reason)
        if self._book[id].ended is None:
            self._record("task_waiting", task, reason=f"subtasks: {', '.join(self._open_below(task))}")

    def _complete(self, id: str, reason: str | None = None) -> None:
        """End a task whose own work is done, if nothing below it is open."""
        task = self._book[id]
        if task.status == "waiting" and not self._open_below(task):
            if not task.attempts:
                task = self._put(id, result={child: self._book[child].result for child in task.children})
            self._end(id, "completed", reason)

    def _fail(self, id: str, error: str, status: Status = "failed", again: bool = False) -> None:
        """Do what the task's policy says of a failure: try `again`, hand it to the next level, or end it."""
        task = self._book[id]
        if again and task.retries:
            follows = "retry"
        else:
            follows = "escalate" if task.on_failure == "escalate" and task.assignee != PERSON else "end"
        if task.status == "in_progress":
            self._record("task_failed", task, task.worker, attempt=task.attempts, error=error, next=follows)
        if follows == "end":
            self._end(id, status, error)
        elif follows == "retry":
            self._begin_again(task, retries=task.retries - 1)
        else:
            self._begin_again(task, assignee=self._next_level(task, error), by=None)
            self._set_timer(self._book[id])

    def _begin_again(self, task: TeamTask, **changes: Any) -> None:
        """Let a task wait to be done from the beginning; what was handed over in the course of it is given up."""
        self._release(task)
        task = self._put(task.id, status="pending", **changes)
        for child in self._open_below(task):
            if "assignee" in changes or self._book[child].by is not None:
                self._put(child, on_failure="ignore")
                self._end(child, "cancelled", f"{task.id} begins again")
        self._queue(task)

    def _end(self, id: str, status: Status, reason: str | None = None) -> None:
        """End a task for good: those below it first, then tell who waits for it, and look at its parent."""
        task = self._book[id]
        if task.ended is not None:
            return
        self._release(task)
        task = self._put(id, status=status, ended=self.now, error=None if status == "completed" else reason)
        self._set_timer(task)
        for child in task.children:
            self._end(child, "cancelled", f"{id} has {status}")
        self._record("task_ended", task, status=status, reason=reason)
        self._ends[id].set_result(task)
        above = self._book.get(task.parent or "")
        if above is not None and above.ended is None:
            if status == "completed" or task.on_failure == "ignore":
                self._complete(above.id)
            else:
                self._fail(above.id, f"{id}, {task.title!r}, has {status}: {reason}")

    def _release(self, task: TeamTask) -> None:
        """Take a task out of the hands of who has it."""
        raise NotImplementedError

    def _queue(self, task: TeamTask) -> None:
        """Let a task wait for somebody to do it."""
        raise NotImplementedError

    def _next_level(self, task: TeamTask, reason: str) -> str:
        """Return to whom a task goes from who had it last."""
        raise NotImplementedError
