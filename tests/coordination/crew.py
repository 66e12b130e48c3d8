"""The cast of the tests of dispatch: workers, a coordinator with the course's defect, and who audits their trace."""

from __future__ import annotations

from contextlib import suppress

from masbook import Agent, capability
from masbook.coordination import Worker
from masbook.errors import WorkerBusy


class Gauge(Worker):
    """Measures: its number, after as long as it is told."""

    @capability
    async def measure(self, seconds: float = 1.0, fail: str = "") -> float:
        """Return the number at the end of the name."""
        await self.sleep(seconds)
        if fail in ("all", self.name):
            raise ValueError(f"{self.name} is out of order")
        return float(self.name.split("_")[1])

    @capability
    async def read(self, seconds: float = 1.0) -> dict[str, object]:
        """Return several values, some of them numbers."""
        await self.sleep(seconds)
        return {"level": int(self.name.split("_")[1]), "who": self.name, "steady": True}


class Scale(Worker):
    @capability
    async def weigh(self, what: str = "") -> str:
        await self.sleep(1.0)
        return f"{self.name} weighs {what}"


def spawn_gauges(world, number, **options):
    return [world.spawn(Gauge(f"gauge_{n}", **options)) for n in range(1, number + 1)]


class DoubleReleaser(Agent):
    """The coordinator of the course: who announces that it is free is put on the list, and again when the task ends."""

    def __init__(self, name, workers):
        super().__init__(name)
        self.available = list(workers)

    async def execute(self, task, workers, timeout):
        """Give one task to so many workers; return whether all the results came in time."""
        record, results = self.world.trace.record, {}
        record("task_added", self.name, workflow=self.name, task=task, capability="measure")
        chosen = self.random.sample(self.available, workers)
        for worker in chosen:
            self.available.remove(worker)

        async def ask(worker):
            record("task_started", worker, workflow=self.name, task=task, attempt=1)
            with suppress(WorkerBusy):  # nobody reads the rejection
                results[worker] = await self.request(worker, "measure", seconds=self.random.uniform(1.0, 5.0))
                record("task_part", worker, workflow=self.name, task=task, attempt=1)
                if worker not in self.available:
                    self.available.append(worker)  # it has said that it is free

        for worker in chosen:
            self.background(ask(worker))
        while len(results) < workers and self.now < timeout:
            await self.sleep(0.5)
        done = len(results) == workers
        record("task_ended", self.name, workflow=self.name, task=task, status="completed" if done else "timed_out")
        self.available.extend(chosen)
        return done


def complaints(trace):
    """Return what is wrong with the books of a coordinator: a sentence for each broken promise."""
    found, at_work, had, added, ended = [], {}, set(), [], []
    for time, kind, who, *facts in trace.rows:
        if not kind.startswith("task_"):
            continue
        worker, task = (facts[0], who), facts[1]
        if kind == "task_added":
            added.append(task)
        elif kind == "task_started":
            if worker in at_work:
                found.append(f"{time:g} s: {who} gets {task} while it has {at_work[worker]}")
            if (task, who) in had:
                found.append(f"{time:g} s: {who} gets {task} again")
            at_work[worker] = task
            had.add((task, who))
        elif kind in ("task_part", "task_failed"):
            at_work.pop(worker, None)
            if kind == "task_failed":
                had.discard((task, who))  # it has crashed, say, and may be back
        elif kind == "task_ended":
            if task in ended:
                found.append(f"{time:g} s: {task} ends again")
            ended.append(task)
            at_work = {worker: what for worker, what in at_work.items() if what != task}
    found += [f"{task} never ends" for task in added if task not in ended]
    return found + [f"{who} is never back from {task}" for (_, who), task in at_work.items()]
