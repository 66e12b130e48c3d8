"""Who held a lock, a permit or a share and who waited: the table by hand, and the chart of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from test_frames import tampered, values

from masbook import Agent, World, simulate
from masbook.coordination import Lock, ReadWriteLock, Semaphore
from masbook.errors import MasbookError
from masbook.lab import charts, frames
from masbook.runtime.trace import Trace


async def use(agent, guard, after, stay, timeout=None):
    await agent.sleep(after)
    with suppress(MasbookError):
        async with guard.hold(agent, timeout):
            await agent.sleep(stay)


async def rush(world):
    """A lease runs out at 7 s, somebody gives up at 3.5 s, a holder crashes at 8 s; the last one never gets it."""
    agents = [world.spawn(Agent(name)) for name in ("ann", "bob", "cid", "dan", "eve")]
    ann, bob, cid, dan, eve = agents
    gpu, pool = Lock(world, "gpu", lease=4.0), Semaphore(world, "pool", 2)
    plans = [use(ann, gpu, 0.0, 3.0), use(bob, gpu, 1.0, 6.0), use(cid, gpu, 1.0, 2.0, 2.5), use(dan, gpu, 2.0, 9.0)]
    plans += [use(ann, pool, 4.0, 2.0), use(ann, pool, 4.0, 9.0), use(eve, pool, 5.0, 1.0), use(eve, gpu, 8.5, 1.0)]
    tasks = [asyncio.ensure_future(plan) for plan in plans]
    await asyncio.sleep(8.0)
    dan.crash(ValueError("x"))
    await gpu.acquire(cid)
    await asyncio.sleep(2.0)
    return sum(task.done() for task in tasks)


COLUMNS = ("who", "resource", "token", "asked", "start", "end", "waited", "duration", "status")


def test_holds_by_hand():
    assert values(frames.holds(simulate(rush)), *COLUMNS) == [
        ("ann", "lock:gpu", 1, 0.0, 0.0, 3.0, 0.0, 3.0, "released"),
        ("bob", "lock:gpu", 2, 1.0, 3.0, 7.0, 2.0, 4.0, "lease expired"),
        ("cid", "lock:gpu", None, 1.0, None, 3.5, 2.5, None, "timed out"),
        ("dan", "lock:gpu", 3, 2.0, 7.0, 8.0, 5.0, 1.0, "crashed"),
        ("ann", "semaphore:pool", 1, 4.0, 4.0, 6.0, 0.0, 2.0, "released"),
        ("ann", "semaphore:pool", 2, 4.0, 4.0, None, 0.0, None, "held"),
        ("eve", "semaphore:pool", 3, 5.0, 6.0, 7.0, 1.0, 1.0, "released"),
        ("cid", "lock:gpu", 4, 8.0, 8.0, None, 0.0, None, "held"),
        ("eve", "lock:gpu", None, 8.5, None, None, None, None, "waiting"),
    ]


def test_shares_and_the_whole_are_told_apart():
    async def scenario(world):
        plan = ReadWriteLock(world, "plan")
        ann, bob = world.spawn(Agent("ann")), world.spawn(Agent("bob"))
        await plan.acquire_read(ann)
        await plan.acquire_read(bob)
        await plan.release(ann)
        await plan.release(bob)
        await plan.acquire_write(ann)

    assert list(frames.holds(simulate(scenario))["resource"]) == ["read:plan", "read:plan", "write:plan"]


def test_nothing_held_gives_the_same_columns():
    empty, full = frames.holds(Trace.full()), frames.holds(simulate(rush))
    assert empty.empty and list(full) == list(empty) == list(COLUMNS) and list(full.dtypes) == list(empty.dtypes)


def test_a_release_cut_out_of_the_trace_is_noticed():
    run = simulate(rush)
    cut = tampered(run.trace, lambda row: row[1] == "released" and row[2] == "ann" and row[3] == "lock:gpu")
    assert frames.holds(cut)["status"][0] == "held"


def test_the_chart_has_a_row_for_each_agent_and_resource():
    chart = charts.holds(simulate(rush))
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == ["ann · gpu", "bob · gpu", "cid · gpu", "dan · gpu", "ann · pool", "eve · pool", "eve · gpu"]
    legend = [text.get_text() for text in chart.axes[0].get_legend().get_texts()]
    assert legend == ["waiting", "holding", "lost or given up", "waiting at the end"]


@pytest.mark.parametrize("agents", [0, 1])
def test_the_chart_of_nothing_says_so(agents):
    with World(7) as world:
        for number in range(agents):
            world.run(Lock(world, "gpu").acquire(world.spawn(Agent(f"agent_{number}"))))
        assert "nobody" in charts.holds(world).axes[0].texts[0].get_text()
