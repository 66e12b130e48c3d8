"""The same seed gives the same trace, byte for byte, in every process; and the check that says so can fail."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from controls import BREAKING, SOUND, digests
from society import FAULTY, Recorder, gossip, gossip_digest

import masbook
from masbook import Agent, World, simulate


@pytest.fixture(scope="module")
def processes():
    """What `controls.py` prints in three processes with different hash seeds."""
    here = Path(__file__).parent
    paths = [str(here), str(Path(masbook.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    running = [
        subprocess.Popen(
            [sys.executable, here / "controls.py"], stdout=subprocess.PIPE, env={**environment, "PYTHONHASHSEED": seed}
        )
        for seed in ("0", "1", "424242")
    ]
    return [json.loads(process.communicate()[0]) for process in running]


class TestAcrossProcesses:
    @pytest.mark.parametrize("name", [*SOUND, *(f"{name}, shuffled" for name in SOUND), "five seeds"])
    def test_hash_seeds_do_not_matter(self, processes, name):
        assert len({digests[name] for digests in processes}) == 1

    def test_and_this_process_agrees(self, processes):
        here = digests()
        assert {name: here[name] for name in here if name not in BREAKING} == {
            name: processes[0][name] for name in here if name not in BREAKING
        }


class TestPositiveControls:
    """The same comparison catches what breaks determinism: it can fail."""

    @pytest.mark.parametrize("name", BREAKING)
    def test_what_breaks_determinism_is_caught(self, processes, name):
        assert len({digests[name] for digests in processes}) > 1

    def test_within_one_process_too(self):
        async def clock(world: World):
            world.spawn(Agent("a")).note("now", at=time.perf_counter_ns())

        async def draw(world: World):
            world.spawn(Agent("a")).note("draw", value=random.random())

        for scenario in (clock, draw):
            assert simulate(scenario, 7).digest != simulate(scenario, 7).digest


async def small(world: World):
    """A small faulty society, quick enough for a thousand seeds."""
    await gossip(world, agents=3, rumours=2)
    world.spawn(Agent("end")).note("books", book=world.bus.accounting())


def digest_of(seed):
    run = simulate(small, seed, faults=FAULTY)
    assert run.ok, (seed, run.error)
    (books,) = run.trace.events("note")
    assert books.facts["data"]["book"]["missing"] == 0, seed
    return run.digest


class TestThousandSeeds:
    def test_forwards_and_backwards_give_the_same(self):
        seeds = range(1000)
        forwards = {seed: digest_of(seed) for seed in seeds}
        backwards = {seed: digest_of(seed) for seed in reversed(seeds)}

        def together(digests):
            return hashlib.sha256("".join(digests[seed] for seed in seeds).encode()).hexdigest()

        assert together(forwards) == together(backwards)
        assert len(set(forwards.values())) > 990  # the seed matters


async def race(world: World):
    """Read, wait for nothing, write: a lost update, if two workers come between each other at the same instant."""
    board = world.spawn(Agent("board"))
    total = {"value": 0}

    async def add(name):
        await asyncio.sleep(1.0)
        value = total["value"]
        if name == "slow":
            await asyncio.sleep(0)
        total["value"] = value + 1
        board.note(name, value=value)

    async with asyncio.TaskGroup() as group:
        group.create_task(add("quick"))
        group.create_task(add("slow"))
    return total["value"]


class TestSchedule:
    def test_fifo_never_shows_the_planted_race(self):
        assert {simulate(race, seed).result for seed in range(30)} == {2}

    def test_shuffled_shows_it_on_some_seed_and_again_on_that_seed(self):
        results = {seed: simulate(race, seed, schedule="shuffled").result for seed in range(30)}
        assert set(results.values()) == {1, 2}
        unlucky = next(seed for seed, result in results.items() if result == 1)
        runs = [simulate(race, unlucky, schedule="shuffled") for _ in range(3)]
        assert {run.result for run in runs} == {1} and len({run.digest for run in runs}) == 1

    def test_shuffled_is_another_order_of_the_same_instants(self):
        async def crowd(world: World):
            people = [world.spawn(Recorder(f"a{i}")) for i in range(6)]
            hub = world.spawn(Recorder("hub"))

            async def speak(person):
                await person.sleep(1.0)
                await person.tell("hub", person.name)

            async with asyncio.TaskGroup() as group:
                for person in people:
                    group.create_task(speak(person))
            await hub.sleep(1.0)
            return hub.topics, set(hub.times)

        fifo, _ = simulate(crowd, 1).result
        orders = [simulate(crowd, seed, schedule="shuffled").result for seed in range(20)]
        assert fifo == [f"a{i}" for i in range(6)]
        assert all(sorted(order) == fifo and times == {1.0} for order, times in orders)
        assert len({tuple(order) for order, _ in orders}) > 10

    def test_time_is_never_shuffled(self):
        async def sleepers(world: World):
            woken = []

            async def sleeper(seconds):
                await asyncio.sleep(seconds)
                woken.append(seconds)

            async with asyncio.TaskGroup() as group:
                for i in range(50):
                    group.create_task(sleeper(50.0 - i))
            return woken

        for seed in range(5):
            woken = simulate(sleepers, seed, schedule="shuffled").result
            assert woken == sorted(woken)

    def test_messages_from_one_sender_keep_their_order_when_shuffled(self):
        async def burst(world: World):
            recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))
            for i in range(20):
                await sender.tell("recorder", str(i))
            await sender.sleep(1.0)
            return recorder.topics

        for seed in range(10):
            assert simulate(burst, seed, schedule="shuffled").result == [str(i) for i in range(20)]

    def test_without_ties_the_schedules_agree(self):
        async def alone(world: World):
            agent = world.spawn(Agent("a"))
            for i in range(10):
                await agent.sleep(1.0)
                agent.note(str(i))

        assert simulate(alone, 1).digest == simulate(alone, 1, schedule="shuffled").digest


def test_the_callers_context_does_not_matter():
    """A script's context is empty, a kernel's and pytest's are not."""
    anything = contextvars.ContextVar("anything")

    def in_a_full_context():
        anything.set(1)
        return gossip_digest()

    assert contextvars.Context().run(gossip_digest) == contextvars.Context().run(in_a_full_context) == gossip_digest()


def test_an_intervention_leaves_what_came_before_alone():
    """What happens at 5 s does not change the rows before 5 s: the ground of every fork and replay."""

    async def story(world: World, meddle: bool):
        if meddle:
            asyncio.get_running_loop().call_at(5.0, lambda: world.agents["g1"].stop())
        await gossip(world, rumours=8)

    plain, forked = (simulate(story, 3, faults=FAULTY, meddle=meddle) for meddle in (False, True))
    number, _, theirs = plain.trace.first_difference(forked.trace)
    assert theirs.time >= 5.0 and number > 20
