"""A society of 1,000 agents for a virtual hour: 100,000 messages, and a heartbeat from everybody each minute.

`run.py` runs it in a process of its own, because it measures the memory of the process; for a profiler:
`python -m cProfile -s tottime tests/bench/society.py`. Everybody asks somebody drawn at random fifty times in the hour,
and is answered: 100,000 messages. 60,000 heartbeats come on top. All of it is traced.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import time
from pathlib import Path

from masbook import Agent, World, capability

AGENTS, MESSAGES, HOUR, MINUTE = 1000, 100_000, 3600.0, 60.0
SECONDS, MEBIBYTES = 6.0, 200.0  # to stay under


class Citizen(Agent):
    """Asks others now and then, and answers them."""

    @capability
    async def greet(self, number: int) -> int:
        return number

    async def live(self, others: list[str], questions: int) -> None:
        draw = self.random
        for number, instant in enumerate(sorted(draw.uniform(0.0, HOUR - 1.0) for _ in range(questions))):
            await asyncio.sleep(instant - self.now)
            assert await self.request(draw.choice(others), "greet", number=number) == number


def society() -> World:
    """Return the world after the hour."""
    world = World(seed=7)
    names = [f"citizen_{number}" for number in range(AGENTS)]
    for citizen in [world.spawn(Citizen(name, heartbeat=MINUTE)) for name in names]:
        others = [name for name in names if name != citizen.name]
        citizen.background(citizen.live(others, MESSAGES // AGENTS // 2))
    world.run(until=HOUR)
    return world


def hops(count: int) -> None:
    """Pass a number on through 1,000 bare queues, one after the other, that many times."""

    async def pass_on(here: asyncio.Queue[int], there: asyncio.Queue[int]) -> None:
        while (left := await here.get()) > 0:
            await there.put(left - 1)

    async def main() -> None:
        queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(AGENTS)]
        tasks = [asyncio.create_task(pass_on(queues[n - 1], queues[n])) for n in range(AGENTS)]
        await queues[0].put(count)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    asyncio.run(main())


def peak() -> float:
    """Return the most memory this process has held, in MiB; ru_maxrss would count what its parent held at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    began = time.process_time()
    world = society()
    seconds = time.process_time() - began
    mebibytes = peak()
    sent, beats = world.trace.count("sent"), int(AGENTS * HOUR / MINUTE)
    book = world.bus.accounting()
    assert sent == MESSAGES + beats and book["missing"] == 0, book
    began = time.process_time()
    hops(sent)
    bare = time.process_time() - began
    print(
        f"1,000 agents send 100,000 messages and {beats:,} heartbeats in a virtual hour: {seconds:.1f} s "
        f"(reach: {SECONDS:g} s), {seconds / bare:.1f}x as many hops between bare queues; "
        f"{mebibytes:.0f} MiB (reach: {MEBIBYTES:g} MiB)."
    )


if __name__ == "__main__":
    main()
