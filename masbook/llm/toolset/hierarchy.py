"""The hierarchy as tools: what a model may do with a task of its team besides working on it.

`hierarchy_tools` is for agents that are members of a team and think; `ThinkingMember` has it already. The tools are
the member's own capabilities, in a form for models: a typo that would become a failed task is refused here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Annotated, Any

from pydantic import Field
from pydantic_ai import RunContext, Tool
from pydantic_ai.toolsets import FunctionToolset

from ...coordination.hierarchy import Member, TeamTask
from ...errors import InvalidValue
from ..texts import words

Context = RunContext[Any]
Grade = Annotated[int, Field(ge=1, le=5)]
Name = str | None
Skills = dict[str, int] | list[str] | None


def hierarchy_tools() -> FunctionToolset[Any]:
    """Return the tools `delegate`, `ask_for_help`, `team_status` and `escalate`, for a member of a team.

    What they hand over becomes a subtask of the task in hand; they do not wait for it, but that task does. An agent
    that is no Member raises InvalidValue when it thinks.
    """
    return FunctionToolset(_tools(), instructions=_place)


@cache
def _tools() -> list[Tool[Any]]:
    """Return the tools, described once for all members."""
    return [Tool(function) for function in (delegate, ask_for_help, team_status, escalate)]


async def delegate(
    ctx: Context, title: str, description: str = "", requires: Skills = None, priority: Grade = 1, assignee: Name = None
) -> str:
    """Give a part of your task to a colleague. Use it when you lack skills that it requires.

    `requires` has skills, each with the least level from 1 to 5; priority 5 is the most urgent. Without an assignee the
    best gets it who is free. Your task ends after that part, whose result you are not told.
    """
    member = _member(ctx)
    able = _able(member, requires, assignee)
    task = await member.delegate(title, description, requires, priority, to=assignee)
    return f"{task.title!r} is {task.id} now; it is for {' or '.join(able)}"


async def ask_for_help(
    ctx: Context, what: str, description: str = "", skills: Skills = None, urgent: bool = False
) -> str:
    """Ask for assistance. Use it when you are stuck, are unsure or need assistance.

    `skills` are those that a colleague is to have, each with the least level from 1 to 5; without, who is above you is
    asked.
    """
    member = _member(ctx)
    able = _able(member, skills) if skills else []
    task = await member.ask_for_help(what, description, skills, urgent)
    return f"{task.title!r} is {task.id} now; it is for {' or '.join(able) or task.assignee}"


async def team_status(ctx: Context) -> dict[str, Any]:
    """Return who is present, who has which skills, and how the team is doing."""
    member = _member(ctx)
    skills = {one.name: dict(one.levels) for one in _team(member) if one.present}
    return {**await member.team_status(), "skills": skills}


async def escalate(ctx: Context, issue: str, reason: str = "") -> str:
    """Let the next level decide an issue. Use it for what is urgent, risky, legal or unlawful."""
    task = await _member(ctx).escalate(issue, reason)
    return f"{task.title!r} is {task.id} now; it is for {task.assignee}"


def needed(member: Member, task: TeamTask) -> tuple[str, str]:
    """Return what skills a task requires, or where it does not say, which of the team's it names; and who has them.

    The latter is empty where the member has them itself, and for a task that has failed before: it is to decide that.
    """
    said = words(f"{task.title} {task.description}")
    named = {skill: 1 for one in _team(member) for skill in one.levels if words(skill) <= said}
    whole = replace(task, requires=task.levels or named)
    able = [] if member.can(whole) or task.attempts > 1 else [one.name for one in _others(member) if one.can(whole)]
    return ", ".join(f"{skill} {level}" for skill, level in whole.levels.items()), " or ".join(able)


def _place(ctx: Context) -> str:
    """Return instructions that say who the member is."""
    member = _member(ctx)
    skills = TeamTask("mine", requires=member.levels).needs
    above = "a person, for what is unlawful: all else you decide yourself, and escalate only what is unlawful"
    place = f"You are {member.name}, a {member.role.value}, good at {skills}. Above you is {member.superior or above}."
    order = member.handling()
    if order is not None and "Help: " in str(order.content.get("task", {}).get("title", "")):
        place += " You are to help a colleague: do not ask for help with that yourself."
    return place


def _member(ctx: Context) -> Member:
    if not isinstance(ctx.deps, Member):
        raise InvalidValue(f"{ctx.deps!r} is in no team: hierarchy_tools are for members, such as a ThinkingMember")
    return ctx.deps


def _team(member: Member) -> list[Member]:
    return list(member.world.named["board", member.board].team.values())


def _others(member: Member) -> list[Member]:
    """Return the colleagues who are there, or will be back."""
    return [one for one in _team(member) if one is not member and one.online]


def _able(member: Member, requires: Skills, assignee: str | None = None) -> list[str]:
    """Return who else can do what requires these skills; InvalidValue says who and what there is instead."""
    task = TeamTask("a part", requires=requires or {})
    able, what = [one.name for one in _others(member) if one.can(task)], f"what takes {task.needs}"
    if assignee is not None and assignee not in able:
        whom = "you cannot hand it to yourself" if assignee == member.name else f"no {assignee!r} can do {what}"
        raise InvalidValue(f"{whom}: there is {' or '.join(able) or 'nobody else'}")
    if not able:
        known = ", ".join(
            sorted({f"{skill} {level}" for one in _others(member) for skill, level in one.levels.items()})
        )
        raise InvalidValue(
            f"nobody else can do {what}; others have {known or 'no skills'}: do what you can, or escalate it"
        )
    return able if assignee is None else [assignee]
