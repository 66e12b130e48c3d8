"""Teams that tests use: the organisation of the course, members with scripted work, and what must always hold."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace

from masbook.coordination import Member, Skill, TaskBoard, TeamTask

PLACES = {  # name: role, superior, skills
    "sue": ("supervisor", None, [Skill("management", 5, ("oversight", "decisions"))]),
    "carl": ("coordinator", "sue", [Skill("customer_service", 4, ("routing", "coordination"))]),
    "tess": ("specialist", "carl", [Skill("technical", 4, ("hardware", "network"))]),
    "bill": ("specialist", "carl", [Skill("financial", 4, ("billing", "accounts"))]),
    "wim": ("worker", "carl", [Skill("general", 3, ("inquiries", "documentation"))]),
    "wanda": ("worker", "carl", [Skill("general", 3, ("inquiries", "tickets"))]),
}


class Scripted(Member):
    """Does what the task's data say: `fail`s so often, then `delegate`s, asks for `help`, `escalate`s."""

    async def work(self, task):
        script = task.data
        await self.sleep(task.duration)
        if task.attempts <= script.get("fail", 0):
            raise ValueError("no luck")
        for child in script.get("delegate", ()):
            await self.delegate(**child)
        if "help" in script:
            await self.ask_for_help("a hand", **script["help"])
        if "escalate" in script:
            await self.escalate(script["escalate"], "beyond me")
        return f"{self.name} did {task.title}"


def staff(world, member=Scripted, *, board=TaskBoard, only=tuple(PLACES), **options):
    """Spawn a board and the organisation of the course, or some of it; everybody has a capacity of 1."""
    team = world.spawn(board("board", **options))
    for name in only:
        role, superior, skills = PLACES[name]
        superior = superior if superior in only else None
        world.spawn(member(name, role, skills, superior=superior, capacity=1), restart="on_crash", backoff=0.5)
    return team


async def submit_all(board, *tasks):
    """Submit the tasks at one instant, and return them when all have ended."""
    added = [await board.submit(task) for task in tasks]
    return [await board.outcome(task.id) for task in added]


def rows(trace, *kinds, **wanted):
    """Return the facts of the rows of these kinds, with who they are about and when."""
    found = [{"kind": e.kind, "who": e.who, "time": e.time, **e.facts} for e in trace if e.kind in kinds]
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


STEPS = ("task_added", "task_waiting", "task_started", "task_failed", "task_ended", "handover", "joined")


def violations(trace, all_ended=True):
    """Return a sentence for each rule of teams that the trace breaks; every rule is told from the rows alone."""
    found, members, tasks, hands, handed, waiting = [], {}, {}, defaultdict(dict), {}, {}
    for row in rows(trace, *STEPS):
        kind, who, task = row["kind"], row["who"], row.get("task")
        if kind == "joined":
            members[who] = row
        elif kind == "handover":
            if row["to"] == who:
                found.append(f"{who} hands {task} to itself")
            handed[task] = row
        elif kind == "task_added":
            tasks[task] = {**row, "ends": 0}
        else:
            if tasks[task]["ends"]:
                found.append(f"{task}: {kind} after its end")
            for hand in (*hands.values(), waiting):
                hand.pop(task, None)
        if kind == "task_waiting" and row["reason"].startswith("busy") and task not in handed:
            waiting[task] = row
        if kind == "task_started" and who in members:
            urgent = [name for name in waiting if tasks[name]["priority"] > tasks[task]["priority"]]
            urgent = [name for name in urgent if waiting[name]["time"] < row["time"]]
            found += [f"{task} overtakes {n}" for n in urgent if able(members[who], tasks[n]["capability"])]
            hands[who][task] = row
            if len(hands[who]) > members[who]["capacity"]:
                found.append(f"{who} has {len(hands[who])} tasks in hand")
            up = task in handed and handed[task]["how"] == "escalated"
            if not up and not able(members[who], tasks[task]["capability"]):
                found.append(f"{who} lacks the skills for {task}")
        if kind == "task_ended":
            tasks[task]["ends"] += 1
            below = [name for name in tasks if tasks[name]["parent"] == task and not tasks[name]["ends"]]
            found += [f"{task} ended before {name}" for name in below]
            if row["reason"] == f"{tasks[task]['parent']} has completed":
                found.append(f"{tasks[task]['parent']} completed before {task}")
    if all_ended:
        found += [f"{name} ended {task['ends']} times" for name, task in tasks.items() if task["ends"] != 1]
    return found


def able(member, needs):
    """Return whether a member of the trace has the skills that a row of it names."""
    if needs == "work":
        return True
    wanted = [need.rsplit(" ", 1) for need in needs.split(" + ")]
    return all(member["skills"].get(skill, 0) >= int(level) for skill, level in wanted)


SKILLS = ("network", "billing", "inquiries", "routing", "oversight")


def random_task(random, depth=0):
    """Return a task of any kind: with subtasks or a script, any policy, some of them impossible."""
    data = {}
    if random.random() < 0.3:
        data["fail"] = random.choice((1, 2, 9))
    if random.random() < 0.3 and depth == 0:
        needs = {"requires": {random.choice(SKILLS): random.randint(1, 5)}} if random.random() < 0.8 else {}
        policy = random.choice(("fail", "ignore", "escalate"))
        data["delegate"] = [{"title": f"part {n}", "on_failure": policy, **needs} for n in range(random.randint(1, 2))]
    if random.random() < 0.2:
        data["escalate"] = "a matter"
    if random.random() < 0.2:
        data["help"] = {"urgent": random.random() < 0.5}
    parts = random.randint(1, 3) if depth < 2 and random.random() < 0.3 else 0
    return TeamTask(
        f"job {random.randint(1, 99)}",
        priority=random.randint(1, 5),
        requires={random.choice(SKILLS): random.randint(1, 5)} if not parts or random.random() < 0.5 else {},
        subtasks=[random_task(random, depth + 1) for _ in range(parts)],
        on_failure=random.choice(("fail", "retry", "ignore", "escalate")),
        timeout=random.choice((None, None, 2.0, 20.0)),
        duration=random.choice((0.0, 0.5, 1.0, 1.0)),
        data=data,
    )


async def busy_day(world, jobs=12, team=staff, patience=None):
    """Let much go wrong on one day; return how often the callback of each task was called, and the last status."""
    told, added, random, board = [], [], world.random("day"), team(world)
    for _ in range(jobs):
        task = random_task(random)
        task = await board.submit(replace(task, timeout=task.timeout or patience))
        board.when_done(task.id, lambda ended: told.append(ended.id))
        added.append(task)
        await asyncio.sleep(random.choice((0.0, 0.0, 0.7)))
    if random.random() < 0.5:
        await board.cancel(random.choice(added).id)
    for task in added:
        await board.outcome(task.id)
    await asyncio.sleep(0.01)
    return Counter(told), await board.team_status()
