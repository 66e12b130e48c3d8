"""Waits: who waits for whom, and the cycle if there is one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from society import Calculator

from masbook import Agent
from masbook.errors import Stuck
from masbook.runtime.waits import Wait, Waits


def waits(*pairs):
    book = Waits()
    for i, (who, on) in enumerate(pairs):
        book[f"key {i}"] = Wait(who, "the lock", on, 1.5)
    return book


class TestCycle:
    @pytest.mark.parametrize(
        ("pairs", "cycle"),
        [
            ([], []),
            ([("a", "b")], []),
            ([("a", "b"), ("b", "c")], []),
            ([("a", "b"), ("b", "a")], ["a", "b", "a"]),
            ([("a", "a")], ["a", "a"]),
            ([("c", "a"), ("a", "b"), ("b", "c")], ["a", "b", "c", "a"]),
            ([("x", "a"), ("a", "b"), ("b", "a"), ("y", None)], ["a", "b", "a"]),
            ([("a", "b"), ("a", "c"), ("c", "a")], ["a", "c", "a"]),
            ([("a", None), ("b", None)], []),
        ],
    )
    def test_found_where_there_is_one(self, pairs, cycle):
        assert waits(*pairs).cycle() == cycle

    def test_the_same_whatever_the_order_of_arrival(self):
        pairs = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("e", "a")]
        assert waits(*pairs).cycle() == waits(*pairs[::-1]).cycle() == ["a", "b", "c", "d", "a"]


class TestExplain:
    def test_one_line_a_wait_then_the_cycle(self):
        lines = waits(("a", "b"), ("b", "a"), ("c", None)).explain()
        assert lines[0].startswith("a waits for the lock") and lines[0].endswith("since 1.5 s") and " b" in lines[0]
        assert lines[2] == "c waits for the lock, since 1.5 s"
        assert lines[3] == "cycle: a -> b -> a"

    def test_nothing_waits(self):
        assert Waits().explain() == []

    def test_ended_waits_are_gone(self):
        book = waits(("a", "b"))
        book.end("key 0")
        assert book == {} and book.explain() == []


class TestInAWorld:
    def test_world_wait_is_the_one_door(self, world):
        async def scenario():
            future = asyncio.get_running_loop().create_future()
            await world.wait(future, who="ann", what="the lock 'gpu'", on="bob")

        with pytest.raises(Stuck, match=r"ann waits for the lock 'gpu'.* bob, since 0 s"):
            world.run(scenario())
        assert not world.waits  # given up

    def test_whom_a_wait_depends_on_may_change_while_it_lasts(self, world):
        holder = ["bob"]

        async def scenario():
            future = asyncio.get_running_loop().create_future()
            waiting = asyncio.ensure_future(world.wait(future, who="ann", what="the lock", on=lambda: holder[0]))
            await asyncio.sleep(1.0)
            before, holder[0] = world.explain(), "ann"
            after = world.explain()
            waiting.cancel()
            return before, after

        before, after = world.run(scenario())
        assert "held by bob" in before and "cycle" not in before
        assert "held by ann" in after and "cycle: ann -> ann" in after

    def test_a_wait_that_is_over_or_cancelled_is_taken_out(self, world):
        async def scenario():
            assert await world.wait(asyncio.sleep(1.0, "slept"), who="ann", what="sleep") == "slept"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await world.wait(asyncio.sleep(9.0), who="ann", what="sleep")
            return len(world.waits)

        assert world.run(scenario()) == 0

    def test_requests_are_waits_until_answered(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "add", a=1, b=1))
            await client.sleep(0.1)
            (wait,) = world.waits.values()
            explained = world.explain()
            await asking
            return (wait.who, wait.on, wait.since), explained, len(world.waits)

        wait, explained, left = world.run(scenario())
        assert wait == ("client", "calc", 0.0) and left == 0
        assert "client waits for" in explained and "calc" in explained

    @pytest.mark.parametrize("end", ["timeout", "error", "cancel", "stop"])
    def test_no_wait_is_left_behind(self, world, end):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "wait", seconds=9.0, timeout=3.0))
            await client.sleep(1.0)
            if end == "cancel":
                asking.cancel()
            elif end == "stop":
                calc.stop()
            elif end == "error":
                calc.crash(ValueError("x"))
            await asyncio.gather(asking, return_exceptions=True)

        world.run(scenario())
        assert not world.waits

    def test_explain_names_the_waiting_line_of_the_scenario_not_of_the_library(self, world):
        @asynccontextmanager
        async def hold():
            yield await asyncio.get_running_loop().create_future()

        async def scenario():
            async with hold():
                pass

        with pytest.raises(Stuck, match=r"main waits in .*scenario, line \d+") as caught:
            world.run(scenario())
        assert "aenter" not in str(caught.value)

    def test_explain_names_crashes_and_idle_worlds(self, world):
        assert "nobody waits for anything" in world.explain()
        world.spawn(Agent("a")).crash(ValueError("disk full"))
        assert "a crashed at 0 s: ValueError: disk full" in world.explain()
