"""`make bench`: what masbook costs, as ratios against a reference that does the same bare work in the same run.

Each pair is measured several times in turn, in seconds of the thread's own processor time, and the medians are
compared: a shared machine changes its speed, a ratio much less.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import analysis
import conflicts
import llm
import simpy
import state
import workflows

from masbook import Agent, Message, World, capability, on

ROUNDS = 3


class Sink(Agent):
    """Counts what it hears and echoes what it is asked."""

    heard = 0

    @on("tick")
    async def tick(self, message: Message) -> None:
        self.heard += 1

    @capability
    async def echo(self, n: int) -> int:
        return n


def timed(world: World, work: Callable[[], object], count: int) -> float:
    """Return the seconds a unit of `await work()` takes in the world."""

    async def main() -> float:
        began = time.thread_time()
        await work()
        return (time.thread_time() - began) / count

    try:
        return world.run(main())
    finally:
        world.close()


def queue_alone(count: int = 100_000) -> float:
    """One producer, one consumer, one bare asyncio.Queue: seconds a message."""

    async def handler(message: int) -> None:
        pass

    async def main() -> float:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def consume() -> None:
            for _ in range(count):
                await handler(await queue.get())

        consumer = asyncio.create_task(consume())
        began = time.thread_time()
        for number in range(count):
            await queue.put(number)
        await consumer
        return (time.thread_time() - began) / count

    return asyncio.run(main())


def direct(count: int = 100_000, unrelated: int = 0) -> float:
    world = World()
    sink, client = world.spawn(Sink("sink")), world.spawn(Agent("client"))
    for number in range(unrelated):
        client.subscribe(f"unrelated.{number}", client.on_message)

    async def work() -> None:
        for number in range(count):
            await client.tell("sink", "tick", n=number)
        while sink.heard < count:
            await asyncio.sleep(0)

    return timed(world, work, count)


def publish(count: int = 1000, audience: int = 100) -> float:
    world = World()
    sinks = [world.spawn(Sink(f"sink_{number}")) for number in range(audience)]
    client = world.spawn(Agent("client"))

    async def work() -> None:
        for number in range(count):
            await client.publish("tick", n=number)
        while sinks[-1].heard < count:
            await asyncio.sleep(0)

    return timed(world, work, count * audience)


def two_queues(count: int = 20_000, in_flight: int = 1) -> float:
    """A server behind one queue, replies matched by correlation id behind another: seconds a request."""

    async def main() -> float:
        asked: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        answered: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        pending: dict[int, asyncio.Future[int]] = {}

        async def serve() -> None:
            while True:
                await answered.put(await asked.get())

        async def match() -> None:
            while True:
                number, value = await answered.get()
                pending.pop(number).set_result(value)

        async def client(first: int, requests: int) -> None:
            for number in range(first, first + requests):
                pending[number] = asyncio.get_running_loop().create_future()
                await asked.put((number, number))
                assert await pending[number] == number

        tasks = [asyncio.create_task(serve()), asyncio.create_task(match())]
        each = count // in_flight
        began = time.thread_time()
        await asyncio.gather(*[client(number * each, each) for number in range(in_flight)])
        elapsed = time.thread_time() - began
        for task in tasks:
            task.cancel()
        return elapsed / count

    async def in_turn() -> float:
        asked: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        answered: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

        async def serve() -> None:
            while True:
                await answered.put(await asked.get())

        server = asyncio.create_task(serve())
        began = time.thread_time()
        for number in range(count):
            await asked.put((number, number))
            assert (await answered.get())[0] == number
        elapsed = time.thread_time() - began
        server.cancel()
        return elapsed / count

    return asyncio.run(main() if in_flight > 1 else in_turn())


def requests(count: int = 20_000, in_flight: int = 1) -> float:
    world = World()
    world.spawn(Sink("sink"))
    client = world.spawn(Agent("client"))

    async def ask(number: int) -> None:
        for n in range(number):
            assert await client.request("sink", "echo", n=n) == n

    async def work() -> None:
        await asyncio.gather(*[ask(count // in_flight) for _ in range(in_flight)])

    return timed(world, work, count)


def simpy_sleeps(agents: int = 1000, times: int = 100) -> tuple[float, list[int]]:
    environment, order = simpy.Environment(), []

    def process(number: int):
        for _ in range(times):
            yield environment.timeout(1 + number % 7)
        order.append(number)

    for number in range(agents):
        environment.process(process(number))
    began = time.thread_time()
    environment.run()
    return (time.thread_time() - began) / agents / times, order


def sleeps(agents: int = 1000, times: int = 100) -> tuple[float, list[int]]:
    order: list[int] = []

    async def sleeper(number: int) -> None:
        for _ in range(times):
            await asyncio.sleep(1 + number % 7)
        order.append(number)

    async def work() -> None:
        await asyncio.gather(*[sleeper(number) for number in range(agents)])

    return timed(World(), work, agents * times), order


def heap_index(agents: int, count: int = 10_000) -> float:
    """A heap of (load, number) with lazy deletion: seconds a pick and a change of load."""
    loads = [0.0] * agents
    heap = [(0.0, number) for number in range(agents)]
    draw = random.Random(1).random
    began = time.thread_time()
    for _ in range(count):
        while loads[heap[0][1]] != heap[0][0]:
            heapq.heappop(heap)
        best = heap[0][1]
        loads[best] = draw()
        heapq.heappush(heap, (loads[best], best))
    return (time.thread_time() - began) / count


def discovery(agents: int, count: int = 10_000) -> float:
    world = World()
    registry = world.registry
    draw = random.Random(1).random

    async def fill() -> None:
        for number in range(agents):
            await registry.register(f"agent_{number}", capabilities=["work"])

    world.run(fill())

    async def work() -> None:
        for _ in range(count):
            (best,) = await registry.discover(["work"], limit=1)
            await registry.update(best.name, load=draw())

    return timed(world, work, count)


def importing(module: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began


def traced_memory(count: int = 100_000) -> float:
    """Return the MiB that a world with that many traced messages holds."""
    gc.collect()
    tracemalloc.start()
    world = World()
    sink, client = world.spawn(Sink("sink")), world.spawn(Agent("client"))

    async def work() -> None:
        for number in range(count):
            await client.tell("sink", "tick", n=number)
        while sink.heard < count:
            await asyncio.sleep(0)

    world.run(work())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    world.close()
    return held / 2**20


def paired(ours: Callable[[], float], reference: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of both, measured in turn."""
    pairs = []
    for _ in range(ROUNDS):
        gc.collect()
        pairs.append((ours(), reference()))
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def main() -> None:
    rows: list[tuple[str, str, float, float]] = []

    def row(work: str, reference: str, ours: Callable[[], float], theirs: Callable[[], float], reach: float) -> None:
        cost, base = paired(ours, theirs)
        print(
            f"| {work} | {cost * 1e6:,.2f} us | {reference} | {base * 1e6:,.2f} us | {cost / base:.2f}x | {reach}x |",
            flush=True,
        )
        rows.append((work, reference, cost / base, reach))

    print("Costs a unit of work; `reach` is the ratio to stay under.\n")
    print("| work | cost | reference | cost | ratio | reach |\n|---|---|---|---|---|---|")
    row("direct message, 100,000", "bare asyncio.Queue", direct, queue_alone, 2.0)
    row("direct, 100,000 against 1,000", "direct, 1,000", direct, lambda: direct(1000), 1.2)
    row("direct with 1,000 unrelated subscriptions", "direct", lambda: direct(unrelated=1000), direct, 1.2)
    row("publication to 100, a delivery", "bare asyncio.Queue", publish, queue_alone, 0.5)
    row("requests in sequence", "two queues", requests, two_queues, 1.0)
    row(
        "requests, 100 in flight", "two queues", lambda: requests(in_flight=100), lambda: two_queues(in_flight=100), 1.3
    )
    row("asyncio.sleep, an event", "SimPy timeout", lambda: sleeps()[0], lambda: simpy_sleeps()[0], 3.0)
    row("discovery among 10,000", "heap index", lambda: discovery(10_000), lambda: heap_index(10_000), 2.5)
    row("discovery among 100,000", "among 10,000", lambda: discovery(100_000), lambda: discovery(10_000), 3.0)
    row("update of shared state, by version", "dict with compare-and-swap", state.by_version, state.plain_dict, 3.0)
    line = lambda: state.by_function(in_line=True)[0]  # noqa: E731
    row("update of shared state, in line", "dict with compare-and-swap", line, state.plain_dict, 3.0)
    large, small = lambda: workflows.workflow(10_000), lambda: workflows.workflow(1_000)
    row("a task of a workflow of 1,000", "graphlib and asyncio", small, lambda: workflows.graph_alone(1_000), 2.5)
    row("a task of a workflow of 10,000", "graphlib and asyncio", large, lambda: workflows.graph_alone(10_000), 2.5)
    row("a task of 10,000 against 1,000", "of 1,000", large, small, 1.2)
    row("an answer of the offline model, over the bus", "pydantic-ai alone", llm.offline, llm.bare, 1.5)
    row("import masbook", "import pydantic", lambda: importing("masbook"), lambda: importing("pydantic"), 1.5)
    same = sleeps()[1] == simpy_sleeps()[1]
    print(f"\nThe sleepers woke in the order of SimPy: {'yes' if same else 'NO'}.")
    print(f"An update in line has to be tried again {state.by_function(in_line=True)[1]:.1f} times (reach: 1).")
    print(f"200 tasks of 10 virtual ms take {workflows.ideal():.3f} of the ideal time (reach: 1.010).")
    print(f"100,000 traced messages hold {traced_memory():.0f} MiB (reach: 100 MiB).", flush=True)
    print(f"The offline model answers {1 / llm.offline():.0f} a second (reach: {llm.PER_SECOND} at least).")
    tickets, reach = analysis.TICKETS, analysis.SECONDS
    print(f"{tickets} tickets take the panel of four {analysis.panel_of_four():.1f} s (reach: {reach:g} s at most).")
    for name in conflicts.STRATEGIES:
        print(f"Conflicts by {name}: {conflicts.rate(name):,.0f} a second (reach: {conflicts.PER_SECOND:,} at least).")
    subprocess.run([sys.executable, str(Path(__file__).with_name("society.py"))], check=True)


if __name__ == "__main__":
    main()
