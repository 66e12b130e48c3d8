"""Agents and scenarios that several tests of the runtime share; also run by subprocesses with other hash seeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from masbook import Agent, FaultPlan, Message, World, capability, on, simulate


class Recorder(Agent):
    """Keeps every message it gets, with the instant."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.got: list[Message] = []
        self.times: list[float] = []

    async def on_message(self, message: Message) -> None:
        self.got.append(message)
        self.times.append(self.now)

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.got]


class Slowpoke(Recorder):
    """Takes `seconds` for every message."""

    def __init__(self, name: str, seconds: float = 1.0, **options: Any) -> None:
        super().__init__(name, **options)
        self.seconds = seconds

    async def on_message(self, message: Message) -> None:
        await self.sleep(self.seconds)
        await super().on_message(message)


class Calculator(Agent):
    """Adds, counts, divides and waits."""

    @capability(cost=2.0)
    async def add(self, a: float, b: float) -> float:
        """Return a + b."""
        await self.sleep(0.5)
        return a + b

    @capability
    async def count(self, n: int) -> AsyncIterator[int]:
        """Yield 0 to n - 1, one a second."""
        for i in range(n):
            await self.sleep(1.0)
            yield i

    @capability
    async def divide(self, a: float, b: float) -> float:
        return a / b

    @capability
    async def wait(self, seconds: float) -> str:
        await self.sleep(seconds)
        return "waited"


class Breakable(Recorder):
    """Crashes on the topic `boom`."""

    async def on_message(self, message: Message) -> None:
        if message.topic == "boom":
            raise ZeroDivisionError("boom")
        await super().on_message(message)


class Gossip(Agent):
    """Passes rumours on to a friend drawn at random, publishes some of them, and asks a calculator."""

    friends: tuple[str, ...] = ()
    heard = 0

    @on("news.*")
    async def listen(self, message: Message) -> None:
        self.heard += 1

    @capability
    async def rumour(self, hops: int) -> None:
        await self.sleep(self.random.random())
        if hops <= 0:
            await self.publish("news.end", by=self.name)
            return
        friend = self.random.choice([name for name in self.friends if name != self.name])
        await self.tell(friend, "rumour", hops=hops - 1)


async def gossip(world: World, agents: int = 5, rumours: int = 4) -> int:
    """A society whose messages depend on random draws, ties in time, and faults."""
    names = tuple(f"g{i}" for i in range(agents))
    members = [world.spawn(Gossip(name, tags=("gossip", "talker"))) for name in names]
    world.spawn(Calculator("calc"))
    for member in members:
        member.friends = names

    async def ask(member: Gossip, i: int) -> float | None:
        try:
            return await member.request("calc", "add", a=i, b=i, timeout=2.0)
        except TimeoutError:
            return None

    for i in range(rumours):
        await members[i % agents].tell(names[(i + 1) % agents], "rumour", hops=3)
    async with asyncio.TaskGroup() as group:
        for i, member in enumerate(members):
            group.create_task(ask(member, i))
    await members[0].sleep(10.0)
    return sum(member.heard for member in members)


FAULTY = FaultPlan(drop=0.1, delay=0.1, duplicate=0.1, reorder=0.1)


def missing(world: World) -> int:
    """What the accounting of the bus cannot explain, worked out anew from the counts of the trace."""
    count = world.trace.count
    outcome = count("delivered") + count("dropped") + count("dead") + world.bus.in_flight
    return count("copies") + count("duplicated") - outcome


def gossip_digest(seed: int = 7, schedule: Any = "fifo") -> str:
    return simulate(gossip, seed, faults=FAULTY, schedule=schedule).digest
