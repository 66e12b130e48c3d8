"""The task board of a team: who does which task, and when.

An agent like any other: `submit`, `task`, `outcome`, `cancel` and `team_status` answer calls and messages. The board
gives the most urgent task to a member with the skills and a free hand as soon as there are both; what must wait holds
up nobody behind it. The seams are plain functions: `choose` says who gets a task, `escalation` who is the next level.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Literal

from ...errors import AgentOffline, InvalidValue, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability, require_async
from ...runtime.message import freeze
from ...runtime.supervision import Supervision
from ...runtime.world import World
from .book import PERSON, TaskBook, TeamTask
from .team import Member, best_fit, next_level, superiors


class TaskBoard(TaskBook):
    """Keeps the tasks of a team and gives them out.

    Every task ends exactly once, a parent after its subtasks; nobody has more in hand than its capacity. What is
    escalated above the top is for `ask_person`, a coroutine function of the task; after `patience` virtual seconds
    without an answer, that is `default`. Members are asked by message, at least once: a task whose message is lost ends
    by its `timeout`, and one whose message comes twice is worked on twice, but ends once.

        board = world.spawn(TaskBoard("board"))
        world.spawn(Member("ada", "specialist", {"billing": 4}))
        task = world.run(board.submit(TeamTask("Refund", priority=4, requires={"billing": 3})))
        world.run(board.outcome(task.id)).result
    """

    def __init__(
        self,
        name: str = "board",
        *,
        choose: Callable[[TeamTask, list[Member], Random], Member] = best_fit,
        escalation: Callable[[Member, Mapping[str, Member]], Member | None] = next_level,
        ask_person: Callable[[TeamTask], Awaitable[Any]] | None = None,
        patience: float = 60.0,
        default: Any = None,
    ) -> None:
        super().__init__(name)
        if not callable(choose) or not callable(escalation):
            raise InvalidValue("choose and escalation are functions, such as best_fit and next_level of hierarchy")
        if ask_person is not None:
            require_async(ask_person, "ask_person")
        self.choose, self.escalation, self.ask_person = choose, escalation, ask_person
        self.patience, self.default = require.positive("patience", patience), freeze(default, "default")
        self.team: dict[str, Member] = {}
        self._queued: list[tuple[int, int, str, str]] = []  # tasks to give out, the most urgent first
        self._places: dict[str, int] = {}  # by first come; a task that is given back keeps its place
        self._fresh: list[str] = []  # queued since tasks were last given out
        self._attempts: dict[str, asyncio.Task[Any]] = {}  # the work in hand, by task
        self._stirred = False

    @capability
    async def submit(
        self,
        task: TeamTask,
        parent: str | None = None,
        by: str | None = None,
        how: Literal["delegated", "assistance", "escalated"] = "delegated",
    ) -> TeamTask:
        """Add a task and those below it, and return it as it is now; what nobody can do has failed already.

        A subtask is at least as urgent as its parent. `by` names the member who hands it over. InvalidValue for an id
        that is taken, a parent that is not there or has ended, and an assignee who is not there or lacks a skill.
        """
        if not isinstance(task, TeamTask):
            raise InvalidValue(f"submit takes a task, not {task!r}: give TeamTask(title, priority=..., requires=...)")
        if not self.unborn and self.state in ("error", "offline"):
            raise AgentOffline(f"{self.name} takes no more tasks: {self.why_offline()}")
        above = None if parent is None else self._find(parent)
        if above is not None and above.ended is not None:
            raise InvalidValue(f"{parent} has {above.status}: it takes no more subtasks")
        if by is not None and by not in self.team:
            raise InvalidValue(f"{by!r} is not in the team of {self.name}: only a member can hand a task over")
        if how == "escalated" or (how == "assistance" and not task.requires):
            task = replace(task, assignee=self._above(by))
        usual = f"{parent}.{len(above.children) + 1}" if above else self.world.new_id("task")
        plan = self._plan(replace(task, id=task.id or usual, by=by), above)
        id = plan[0].id
        self._check(plan)
        if above is not None:
            self._put(above.id, children=(*above.children, id))
        for new in plan:
            self._enter(new)
        if by is not None:
            self._record_handover(id, by, task.assignee, how, task.description or task.title)
        for new in plan:
            if self._book[new.id].status == "pending":  # or it has ended with an impossible one before it
                self._queue(new)
        return self._book[id]

    @capability(cost=0.1)
    async def team_status(self) -> dict[str, Any]:
        """Return who is present by role, tasks by status, tasks in hand, success rate and mean time to the end.

        The last two count what has ended and was not cancelled; they are None where nothing has.
        """
        ended = [task for task in self._book.values() if task.ended is not None and task.status != "cancelled"]
        times = [(task.ended or 0.0) - task.added for task in ended]
        present = Counter(member.role.value for member in self.team.values() if member.present)
        return {
            "members": {"total": len(self.team), "present": present.total(), **present},
            "tasks": {"total": len(self._book), **Counter(task.status for task in self._book.values())},
            "workload": {member.name: member.workload for member in self.team.values()},
            "success_rate": sum(task.status == "completed" for task in ended) / len(ended) if ended else None,
            "mean_time": sum(times) / len(times) if times else None,
        }

    # What the world and members call

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into the world, where members find the board by name."""
        super().enter(world, parent, supervision)
        world.named["board", self.name] = self
        world.registry.watch(lambda entry: self._stir())  # somebody has come, or come back
        self.when_gone(self._abandon)

    def admit(self, member: Member) -> None:
        """Take a member into the team."""
        self.team[member.name] = member
        member.when_gone(partial(self._lose, member))
        facts = {"superior": member.superior, "skills": member.levels, "capacity": member.capacity}
        self.world.trace.record("joined", member.name, team=self.name, role=member.role.value, **facts)

    # Giving out

    def _check(self, plan: list[TeamTask]) -> None:
        """Raise InvalidValue unless the ids of new tasks are new, and their assignees able."""
        ids = Counter(task.id for task in plan)
        for task in plan:
            if ids[task.id] > 1 or task.id in self._book:
                raise InvalidValue(f"there is a task {task.id!r} already: choose another id, or none")
            member = self.team.get(task.assignee or "")
            if task.assignee not in (None, PERSON) and (member is None or not member.can(task)):
                lack = f"lacks {task.needs}" if member else "is not in the team"
                raise InvalidValue(f"{task.assignee!r} {lack}: name somebody else to do {task.title!r}, or nobody")
            if task.assignee is not None and task.assignee == task.by:
                raise InvalidValue(f"{task.by} cannot delegate {task.title!r} to itself: name another, or nobody")

    def _queue(self, task: TeamTask) -> None:
        """Let a task wait for a free hand, which the person always has; it fails where nobody will ever have one."""
        if task.assignee == PERSON:
            return self._start(task, PERSON)
        if not self._able(task):
            return self._fail(task.id, f"impossible: nobody can do it who has {task.needs}")
        place = self._places.setdefault(task.id, len(self._places))
        insort(self._queued, (-task.priority, place, task.id, f"{task.needs} {task.assignee} {task.by}"))
        self._fresh.append(task.id)
        return self._stir()

    def _able(self, task: TeamTask) -> list[Member]:
        """Return who can do a task, also those who are busy, or have crashed and will be back."""
        here = [member for member in self.team.values() if member.online and member.name != task.by]
        if task.assignee is None:
            return [member for member in here if member.can(task)]
        return [member for member in here if member.name == task.assignee]

    def _stir(self) -> None:
        """Give out tasks soon: there is a new one, or somebody is free."""
        if self._queued and not self._stirred:
            self._stirred = True
            self.background(self._give_out())

    async def _give_out(self) -> None:
        """Give out what can be given out, the most urgent first; what must wait holds up nobody behind it."""
        self._stirred, busy = False, set()  # the kinds of task for which nobody is free
        for place in list(self._queued):
            *_, id, kind = place
            if kind in busy:
                continue
            task = self._book[id]
            able = self._able(task) if task.status == "pending" else []
            free = [member for member in able if member.free]
            if able and not free:
                busy.add(kind)
                continue
            self._queued.remove(place)
            if free:
                self._start(task, self._chosen(task, free))
            elif task.status == "pending":  # the last who could do it has left
                self._fail(task.id, f"impossible: nobody is left who has {task.needs}")
        for task in [self._book[id] for id in self._fresh if self._book[id].status == "pending"]:
            names = [f"{member.name}{'' if member.present else ' (away)'}" for member in self._able(task)]
            self._record("task_waiting", task, reason=f"busy: {', '.join(names)}")
        self._fresh.clear()

    def _chosen(self, task: TeamTask, free: list[Member]) -> str:
        who = free[0] if task.assignee else self.choose(task, free, self.random)
        if who not in free:
            raise InvalidValue(f"choose returned {who!r}: return one of the members that it was given")
        return who.name

    def _start(self, task: TeamTask, who: str) -> None:
        """Put a task into somebody's hands."""
        task = self._put(task.id, status="in_progress", worker=who, attempts=task.attempts + 1)
        if who != PERSON:
            self.team[who].hand[task.id] = None
        self._record("task_started", task, who, attempt=task.attempts)
        self._attempts[task.id] = self.background(self._attempt(task, who))

    async def _attempt(self, task: TeamTask, who: str) -> None:
        """Have a task done by who has it in hand, and take in what comes of it."""
        reason = None
        try:
            if who == PERSON:
                result, reason = await self._consult(task)
            else:
                result = await self.request(who, "perform", {"task": task}, timeout=None, on_timeout="cancel")
        except Exception as error:  # whatever the work raises is the failure of the task
            self._fail(task.id, f"{type(error).__name__}: {describe(error)}", again=True)
        else:
            self._finish(task.id, result, reason)

    async def _consult(self, task: TeamTask) -> tuple[Any, str]:
        """Return the answer of the person, or the default one after the deadline, and which of them it is."""
        question = self.ask_person(task) if self.ask_person else self.world.loop.create_future()
        try:
            async with asyncio.timeout(self.patience):
                answer = await self.world.wait(question, who=self.name, what=f"a person to answer {task.id}")
                return freeze(answer, "answer"), "answered"
        except TimeoutError:
            return self.default, f"by default: no answer in {self.patience:g} s"

    # What follows

    def _release(self, task: TeamTask) -> None:
        """Take a task out of the hands of who has it, and stop the work."""
        attempt = self._attempts.pop(task.id, None)
        if attempt is not None:
            if attempt is not asyncio.current_task(self.world.loop):
                attempt.cancel()
            if task.worker != PERSON:
                self.team[str(task.worker)].hand.pop(task.id, None)
            self._stir()

    def _lose(self, member: Member) -> None:
        """Take back what a member that stops or crashes has in hand."""
        member.when_gone(partial(self._lose, member))  # and the next time
        error = f"{member.name} has {'crashed' if member.state == 'error' else 'stopped'}"
        while member.hand:
            task = self._book[next(iter(member.hand))]
            self._record("task_failed", task, member.name, attempt=task.attempts, error=error, next="given back")
            self._begin_again(task)
        self._stir()

    def _abandon(self) -> None:
        """End every task when the board stops or crashes: nobody waits for one in vain."""
        self.when_gone(self._abandon)  # and the next time
        self._stirred, reason = False, f"{self.name} is gone: {self.why_offline()}"
        for id in list(self._book):
            self._end(id, "cancelled", reason)

    def _next_level(self, task: TeamTask, reason: str) -> str:
        """Return to whom a task goes from who had it last, and record that it does."""
        above = self._above(task.worker or task.by)
        self._record_handover(task.id, task.worker or self.name, above, "escalated", reason)
        return above

    def _above(self, who: str | None) -> str:
        """Return the next level above a member; above anybody else that is the first member of the highest role."""
        member = self.team.get(who or "")
        if member is None:
            here = [one for one in self.team.values() if one.present]
            boss = max(here, key=lambda one: one.role, default=None)
        else:
            boss = self.escalation(member, self.team)
            if boss and boss.role <= member.role and boss not in superiors(member, self.team):
                raise InvalidValue(f"escalation returned {boss.name}, who is not above {who}: return who is, or None")
        return PERSON if boss is None else boss.name

    def _record_handover(self, task: str, who: str, to: str | None, how: str, reason: str) -> None:
        self.world.trace.record("handover", who, team=self.name, task=task, to=to, how=how, reason=reason)
