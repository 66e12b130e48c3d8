"""Scenarios whose digests are compared between processes: `python controls.py` prints them all as one JSON object.

Those of `BREAKING` break determinism on purpose, each in its own way; the comparison has to catch them.
"""

from __future__ import annotations

import asyncio
import json
import random
import time

from society import FAULTY, gossip

from masbook import Agent, World, capability, simulate


async def cancelling(world: World):
    """Tasks cancelled by a group, by hand, and out of sets."""
    agent = world.spawn(Agent("a"))

    async def wait(name):
        try:
            await asyncio.sleep(10 + len(name) % 3)
        finally:
            agent.note(name)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(f"t{i}")) for i in range(20)]
        _, pending = await asyncio.wait(tasks, timeout=10.5)
        for task in pending:
            task.cancel()
    try:
        async with asyncio.TaskGroup() as group:
            for i in range(20):
                group.create_task(wait(f"u{i}"))
            raise KeyError
    except* KeyError:
        pass
    waiting = {asyncio.create_task(wait(f"v{i}")) for i in range(20)}
    await asyncio.wait(waiting, timeout=1.0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class Careless(Agent):
    """Fails with an object in the error, whose repr has an address."""

    @capability
    async def fail(self) -> None:
        raise KeyError(object())


async def addresses(world: World):
    world.spawn(Careless("careless"))
    client = world.spawn(Agent("client"))
    try:
        await client.request("careless", "fail")
    except KeyError:
        await client.tell("careless", "fail")
    await client.sleep(1.0)


async def tags(world: World):
    for i in range(3):
        world.spawn(Agent(f"a{i}", tags={"red", "green", "blue", "yellow"}))
    await world.registry.discover(tags={"red", "green"})


async def own_generator(world: World):
    agent = world.spawn(Agent("a"))
    agent.note("draw", value=agent.random.random())


async def wall_clock(world: World):
    world.spawn(Agent("a")).note("now", at=time.time_ns())


class Thing:
    def __init__(self, name):
        self.name = name


async def set_of_objects(world: World):
    _kept = [bytearray(random.randrange(100)) for _ in range(random.randrange(1000))]  # so that addresses differ
    world.spawn(Agent("a")).note("order", names=[thing.name for thing in {Thing(str(i)) for i in range(50)}])


async def set_of_text(world: World):
    world.spawn(Agent("a")).note("order", names=list({str(i) for i in range(50)}))


async def unseeded(world: World):
    world.spawn(Agent("a")).note("draw", value=random.random())


SOUND = {scenario.__name__: scenario for scenario in (gossip, cancelling, addresses, tags, own_generator)}
BREAKING = {scenario.__name__: scenario for scenario in (wall_clock, set_of_objects, set_of_text, unseeded)}


def digests():
    """Return the digest of each scenario, of the sound ones under faults and in both schedules."""
    found = {name: simulate(scenario, 7).digest for name, scenario in BREAKING.items()}
    for name, scenario in SOUND.items():
        found[name] = simulate(scenario, 7, faults=FAULTY if scenario is gossip else None).digest
        found[f"{name}, shuffled"] = simulate(scenario, 7, schedule="shuffled").digest
    found["five seeds"] = "".join(
        simulate(gossip, seed, faults=FAULTY, schedule="shuffled").digest for seed in range(5)
    )
    return found


if __name__ == "__main__":
    print(json.dumps(digests()))
