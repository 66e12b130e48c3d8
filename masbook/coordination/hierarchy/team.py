"""Hierarchies: members of a team, with roles, skills and superiors, who hand tasks to each other.

A team is a `TaskBoard` (see `board`) and the members that are spawned after it. What a member does with a task is its
`work`: write that in a subclass, and call `delegate`, `ask_for_help`, `escalate` and `team_status` there; what they ask
for becomes a subtask of the task in hand. The plain functions at the end are the policies that a board begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from random import Random
from typing import Any

from ...errors import InvalidValue
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.supervision import Supervision
from ...runtime.world import World
from .book import HIGHEST, PERSON, OnFailure, TeamTask, check_levels


@total_ordering
class Role(Enum):
    """A rank: `Role.WORKER < Role.SPECIALIST < Role.COORDINATOR < Role.SUPERVISOR`."""

    WORKER = "worker"
    SPECIALIST = "specialist"
    COORDINATOR = "coordinator"
    SUPERVISOR = "supervisor"

    def __lt__(self, other: Role) -> bool:
        ranks = list(Role)
        return ranks.index(self) < ranks.index(other) if isinstance(other, Role) else NotImplemented


@dataclass(frozen=True, slots=True)
class Skill:
    """A field that somebody knows, at a level from 1 to 5 (expert), and what it is good at within that field."""

    domain: str
    level: int
    specialisations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_levels(dict.fromkeys((self.domain, *require.names("specialisations", self.specialisations)), self.level))


class Member(Agent):
    """Somebody in a team: works on the tasks that the board hands out, on `capacity` of them at once.

    `skills` are Skills, or levels by name; `superior` is a member of no lower role, spawned before, or None at the top.
    It joins the team of `board` when it is spawned, and takes its place again after a crash.

        class Specialist(Member):
            async def work(self, task):
                if task.priority == 5:
                    await self.escalate(task.title, reason="the contract is in danger")
                return "solved"
    """

    def __init__(
        self,
        name: str,
        role: Role | str = Role.WORKER,
        skills: Iterable[Skill] | Mapping[str, int] = (),
        *,
        superior: str | None = None,
        capacity: int | None = None,
        board: str = "board",
        **options: Any,
    ) -> None:
        """Give it its place; by default a worker has a capacity of 3, others of 5. `options` are those of Agent."""
        self.role = Role(require.one_of("role", getattr(role, "value", role), [known.value for known in Role]))
        self.levels = _levels(skills)
        self.superior = None if superior is None else require.text("superior", superior)
        self.board = board
        usual = 3 if self.role is Role.WORKER else 5
        self.capacity = usual if capacity is None else require.whole("capacity", capacity)
        self.hand: dict[str, None] = {}  # ids of the tasks it works on, in order; the board writes them
        super().__init__(name, concurrency=self.capacity + 1, **options)  # one more: messages get through
        if name == PERSON:
            raise InvalidValue(f"a member called {PERSON!r}: that is who is above the top; choose another name")

    def check_place(self, world: World) -> None:
        """Refuse a place where there is no such board or superior: InvalidValue."""
        board = world.named.get(("board", self.board))
        if board is None:
            raise InvalidValue(f"no task board called {self.board!r}: spawn TaskBoard({self.board!r}) first")
        if self.superior is not None:
            boss = board.team.get(self.superior)
            if boss is None or self.superior == self.name:
                raise InvalidValue(f"no member {self.superior!r} above {self.name}: spawn superiors first")
            if boss.role < self.role:
                raise InvalidValue(f"{boss.name}, a {boss.role.value}, is no superior for a {self.role.value}")
            if self.name in [above.name for above in superiors(boss, board.team)]:
                raise InvalidValue(f"{boss.name} is below {self.name} already: superiors form no circle")

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into the world and the team."""
        world.named["board", self.board].admit(self)
        super().enter(world, parent, supervision)

    @property
    def present(self) -> bool:
        """Whether it can take tasks: it has neither stopped nor crashed."""
        return self.state in ("idle", "busy")

    @property
    def workload(self) -> int:
        """Return how many tasks it has in hand."""
        return len(self.hand)

    @property
    def free(self) -> bool:
        """Whether it could begin another task at once."""
        return self.present and self.workload < self.capacity

    def can(self, task: TeamTask) -> bool:
        """Return whether it has the skills that the task takes, and their levels."""
        return all(self.levels.get(skill, 0) >= level for skill, level in task.levels.items())

    async def work(self, task: TeamTask) -> Any:
        """Do the task and return its result; raise to fail. Here it merely takes its `duration`."""
        await self.sleep(task.duration)
        return f"{task.title}: done by {self.name}"

    @capability
    async def perform(self, task: TeamTask) -> Any:
        """Do a task; the board asks for this, and counts it as in hand."""
        return await self.work(task)

    @capability
    async def delegate(
        self,
        title: str,
        description: str = "",
        requires: dict[str, int] | list[str] | None = None,
        priority: int = 1,
        *,
        to: str | None = None,
        on_failure: OnFailure = "fail",
        data: dict[str, Any] | None = None,
    ) -> TeamTask:
        """Give a subtask to the member `to`, or to the best other one with the skills; return it, not yet done.

        `requires` names skills, or gives each the level that it takes; levels and priority are 1 to 5, 5 the highest.
        """
        options: dict[str, Any] = {"assignee": to, "on_failure": on_failure, "data": data or {}}
        return await self._hand_over("delegated", TeamTask(title, description, priority, requires or {}, **options))

    @capability
    async def ask_for_help(
        self, what: str, description: str = "", requires: dict[str, int] | list[str] | None = None, urgent: bool = False
    ) -> TeamTask:
        """Ask the best other member with the skills, or if none are required the next level; return the subtask."""
        task = TeamTask(f"Help: {what}", description, 4 if urgent else 2, requires or {})
        return await self._hand_over("assistance", task)

    @capability
    async def escalate(self, issue: str, reason: str = "") -> TeamTask:
        """Hand an issue to the next level, at the top to a person, with the highest priority; return the subtask."""
        title = f"Escalation: {issue.removeprefix('Escalation: ')}"  # it may come from below
        return await self._hand_over("escalated", TeamTask(title, reason, HIGHEST, on_failure="escalate"))

    @capability
    async def team_status(self) -> dict[str, Any]:
        """Return who is there, what there is to do, and how well it goes."""
        return dict(await self.request(self.board, "team_status"))

    async def outcome(self, task: TeamTask) -> TeamTask:
        """Wait until a task has ended and return it; what is in hand stays in hand meanwhile."""
        ended: TeamTask = await self.world.named["board", self.board].wait_for(task.id, self.name)
        return ended

    async def _hand_over(self, how: str, task: TeamTask) -> TeamTask:
        """Submit a subtask of the task in hand, if there is one."""
        order = self.handling()
        parent = order.content["task"]["id"] if order is not None and order.topic == "perform" else None
        added: TeamTask = await self.request(self.board, "submit", task=task, parent=parent, by=self.name, how=how)
        return added


def _levels(skills: Iterable[Skill] | Mapping[str, int]) -> Mapping[str, int]:
    """Return the level of each field and specialisation; the higher where one is named twice."""
    if isinstance(skills, Mapping):
        return check_levels(skills)
    found: dict[str, int] = {}
    for skill in skills if isinstance(skills, Iterable) else [skills]:
        if not isinstance(skill, Skill):
            raise InvalidValue(f"{skill!r} is no skill: give Skill('billing', 4), or levels such as {{'billing': 4}}")
        found |= {name: max(skill.level, found.get(name, 0)) for name in (skill.domain, *skill.specialisations)}
    return check_levels(found)


def best_fit(task: TeamTask, members: list[Member], random: Random) -> Member:
    """Return the most skilled: the sum of its levels at what is required, less half a level for each task in hand.

    On a tie, the lowest role, then who came first. A board's `choose` is such a function; who it gets is able and free.
    """
    return min(members, key=lambda one: (one.workload / 2 - sum(one.levels[skill] for skill in task.levels), one.role))


def superiors(member: Member, team: Mapping[str, Member]) -> list[Member]:
    """Return who is above a member, the nearest first."""
    above = team.get(member.superior or "")
    return [] if above is None else [above, *superiors(above, team)]


def next_level(member: Member, team: Mapping[str, Member]) -> Member | None:
    """Return the nearest superior that is present, None at the top. A board's `escalation` is such a function."""
    return next((above for above in superiors(member, team) if above.present), None)
