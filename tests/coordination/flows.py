"""The cast of the tests of workflows: hands that work, fail and undo, and an auditor of the trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

from masbook import Agent, Orchestrator, Workflow, World, capability


class Hand(Agent):
    """Works for a while, fails as often as it is told, and keeps a diary."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.diary: list[Any] = []

    @capability
    async def work(self, seconds: float = 1.0, value: Any = None) -> dict[str, Any]:
        """Return who worked, and the value."""
        self.diary.append(("begun", value))
        await self.sleep(seconds)
        self.diary.append(("done", value))
        return {"by": self.name, "value": value}

    @capability
    async def flaky(self, key: str = "", failures: int = 1, seconds: float = 1.0) -> str:
        """Fail that many times, counted over all hands, then succeed."""
        await self.sleep(seconds)
        tries = self.world.named.setdefault(("tries", "all"), Counter())
        tries[key] += 1
        if tries[key] <= failures:
            raise ValueError(f"{key} failed for the {tries[key]}. time")
        return "at last"

    @capability
    async def undo(self, result: Any = None, fail: bool = False) -> None:
        self.diary.append(("undone", result))
        if fail:
            raise ValueError("cannot undo")


class Painter(Agent):
    @capability
    async def paint(self, seconds: float = 1.0) -> str:
        await self.sleep(seconds)
        return self.name


def society(world: World, hands: int = 3, **options: Any) -> Orchestrator:
    """Spawn hands and an orchestrator; return the latter."""
    for number in range(hands):
        world.spawn(Hand(f"hand_{number}", **options))
    return world.spawn(Orchestrator("orchestrator"))


def rows(world: World, kind: str, **wanted: Any) -> list[dict[str, Any]]:
    """Return the facts of the events of a kind, with `time` and `who`."""
    found = [{"time": event.time, "who": event.who, **event.facts} for event in world.trace.events(kind)]
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def audit(trace: Any, flow: Workflow, workflow: str = "workflow-1", resources: Any = None) -> list[str]:
    """Return what is wrong with the trace of a workflow that has ended.

    Every task ends exactly once; what runs comes after all it has to, with nothing running when the workflow has
    ended; the parallel limit and the capacities hold at every moment.
    """
    problems, added, started, ended = [], {}, Counter(), {}
    running, over = {}, False
    tasks = {task.id: task for task in flow.tasks}
    capacities = {**(resources or {}), **flow.resources}
    for event in trace.events():
        facts = event.facts
        if facts.get("workflow") != workflow:
            continue
        name = facts.get("task")
        if event.kind == "task_added":
            added[name] = facts["after"]
        elif event.kind == "task_started":
            started[name] += 1
            problems += [f"{name} started after it had ended"] * (name in ended)
            problems += [f"{name} started after the workflow had ended"] * over
            problems += [f"{name} runs twice"] * (name in running)
            problems += [f"{name} started before {other} had ended" for other in added[name] if other not in ended]
            if flow.on_failure == "continue":
                lost = [other for other in added[name] if ended.get(other) in ("failed", "timed_out")]
                problems += [f"{name} started although {other} failed" for other in lost]
            problems += [f"attempt {facts['attempt']} of {name} is the {started[name]}."] * (
                facts["attempt"] != started[name]
            )
            running[name] = event.who
            problems += [f"{len(running)} tasks run at once"] * (len(running) > flow.max_parallel)
            for resource, capacity in capacities.items():
                used = sum(tasks[task].resources.get(resource, 0) for task in running if task in tasks)
                problems += [f"{used} of {capacity} {resource} in use"] * (used > capacity + 1e-6)
        elif event.kind == "task_failed":
            running.pop(name, None)
        elif event.kind == "task_ended":
            problems += [f"{name} ended twice"] * (name in ended)
            ended[name] = facts["status"]
            running.pop(name, None)
        elif event.kind == "workflow" and facts["status"] in ("completed", "failed", "cancelled", "timed_out"):
            problems += ["the workflow ended twice"] * over
            problems += [f"{task} never ended" for task in added if task not in ended]
            over = True
    return problems + ["the workflow never ended"] * (not over)
