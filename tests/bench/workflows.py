"""What a workflow costs a task, against graphlib and asyncio without agents; `run.py` prints the comparison."""

from __future__ import annotations

import asyncio
import time
from graphlib import TopologicalSorter

from masbook import Agent, Orchestrator, Task, Workflow, World, capability

WIDTH, PARALLEL = 50, 10


class Idler(Agent):
    """Does nothing, at once or after a while."""

    @capability
    async def nothing(self) -> None: ...

    @capability
    async def take(self, seconds: float) -> None:
        await self.sleep(seconds)


def layers(count: int) -> dict[str, list[str]]:
    """Return a graph of layers of 50 tasks, each after three tasks of the layer before."""
    graph: dict[str, list[str]] = {}
    for number in range(count):
        above = (number // WIDTH - 1) * WIDTH
        graph[f"task_{number}"] = [
            f"task_{above + (number * 7 + step * 13) % WIDTH}" for step in range(3) if above >= 0
        ]
    return graph


def workflow(count: int, agents: int = PARALLEL) -> float:
    """Seconds a task that does nothing takes, given to agents over the bus, traced."""
    world = World()
    for number in range(agents):
        world.spawn(Idler(f"idler_{number}"))
    orchestrator = world.spawn(Orchestrator())
    tasks = [Task(name, "nothing", after=after) for name, after in layers(count).items()]
    flow = Workflow("bench", tasks, max_parallel=PARALLEL)

    async def main() -> float:
        began = time.thread_time()
        outcome = await orchestrator.execute(flow)
        took = time.thread_time() - began
        assert outcome.ok and len(outcome.results) == count
        return took / count

    try:
        return world.run(main())
    finally:
        world.close()


def graph_alone(count: int) -> float:
    """The same graph with graphlib, a coroutine a task and a semaphore: seconds a task."""
    graph = layers(count)

    async def main() -> float:
        began = time.thread_time()
        sorter = TopologicalSorter(graph)
        sorter.prepare()
        places, ended = asyncio.Semaphore(PARALLEL), asyncio.Queue[str]()
        tasks: set[asyncio.Task[None]] = set()

        async def perform(name: str) -> None:
            async with places:
                await asyncio.sleep(0)
            ended.put_nowait(name)

        while sorter.is_active():
            for name in sorter.get_ready():
                task = asyncio.create_task(perform(name))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            sorter.done(await ended.get())
        return (time.thread_time() - began) / count

    return asyncio.run(main())


def ideal(count: int = 200, seconds: float = 0.01) -> float:
    """Return the virtual time of tasks of equal length, as a multiple of the ideal."""
    world = World()
    for number in range(PARALLEL):
        world.spawn(Idler(f"idler_{number}"))
    orchestrator = world.spawn(Orchestrator())
    tasks = [Task(f"task_{number}", "take", {"seconds": seconds}) for number in range(count)]
    try:
        taken: float = world.run(orchestrator.execute(Workflow("bench", tasks, max_parallel=PARALLEL))).time
    finally:
        world.close()
    return taken / (count / PARALLEL * seconds)
