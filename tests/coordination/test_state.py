"""Stores: no update is lost, no version comes twice, nobody waits for ever, whatever kind of store it is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import math
import random

import pytest

from masbook import Agent, Crash, FaultPlan, World, capability, simulate
from masbook.coordination import (
    Entry,
    MemoryStore,
    Namespace,
    ReplicatedStore,
    SQLiteStore,
    StateService,
    StateStore,
)
from masbook.errors import InvalidInput, InvalidValue, Refused, Stuck, Unrecordable, VersionConflict

KINDS = {
    "memory": MemoryStore,
    "file": SQLiteStore,
    "namespace": lambda world, **options: Namespace(MemoryStore(world, **options), "part/of it"),
    "replicated": ReplicatedStore,
}
# Replicas remember every deletion, and write none when a time to live is over: a reader works that out.
in_one_place = pytest.mark.parametrize("make_store", ["memory", "file", "namespace"], indirect=True)


@pytest.fixture
def world():
    with World(7) as world:
        yield world


@pytest.fixture
def ann(world):
    return world.spawn(Agent("ann"))


@pytest.fixture(params=KINDS)
def make_store(request, world):
    return lambda **options: KINDS[request.param](world, **options)


@pytest.fixture
def store(make_store):
    return make_store()


def rows(world, kind, *fields):
    return [(event.who, *(event.facts[field] for field in fields)) for event in world.trace.events(kind)]


def changes(world):
    return rows(world, "stored", "version", "change")


def conflicts(world):
    return rows(world, "version_conflict", "expected", "version")


def slowly(agent, change=lambda value: (value or 0) + 1, seconds=1.0):
    """Return an async function that thinks before it changes a value, and counts how often it was called."""

    async def function(value):
        function.calls += 1
        await agent.sleep(seconds)
        return change(value)

    function.calls = 0
    return function


class TestEntries:
    def test_what_was_written_can_be_read(self, world, ann, store):
        async def scenario():
            await ann.sleep(2.5)
            written = await store.set("plan", {"step": 1}, by=ann)
            entry = await store.get("plan")
            assert entry == written
            assert (entry.key, entry.value, entry.version, entry.author, entry.time) == (
                "plan",
                {"step": 1},
                1,
                "ann",
                2.5,
            )
            assert await store.get("other") is None

        world.run(scenario())
        assert changes(world) == [("ann", 1, "set")]

    def test_the_author_may_be_given_by_name(self, world, store):
        assert world.run(store.set("plan", 1, by="bob")).author == "bob"

    @pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, {"b": None}]}, 10**30, -0.0, True, "é\n\0"])
    def test_values_come_back_as_they_are(self, world, ann, store, value):
        world.run(store.set("x", value, by=ann))
        found = world.run(store.get("x")).value
        assert found == value and isinstance(found, type(value)) and str(found) == str(value)

    def test_numbers_that_json_does_not_know(self, world, ann, store):
        world.run(store.set("x", [math.nan, math.inf], by=ann))
        first, second = world.run(store.get("x")).value
        assert math.isnan(first) and second == math.inf

    def test_models_and_tuples_become_plain_data(self, world, ann, store):
        @dataclasses.dataclass
        class Point:
            x: int
            y: tuple[int, ...]

        assert world.run(store.set("p", Point(1, (2, 3)), by=ann)).value == {"x": 1, "y": [2, 3]}

    def test_the_checksum_is_that_of_the_canonical_json(self, world, ann, store):
        entry = world.run(store.set("x", {"b": 1, "a": [None, "é"]}, by=ann))
        text = json.dumps({"a": [None, "é"], "b": 1}, separators=(",", ":"))
        assert entry.checksum == hashlib.sha256(text.encode()).hexdigest()
        again = world.run(store.set("y", {"a": [None, "é"], "b": 1}, by=ann))
        other = world.run(store.set("x", {"b": 2, "a": [None, "é"]}, by=ann))
        assert again.checksum == entry.checksum != other.checksum

    def test_what_cannot_be_encoded_is_refused_at_once(self, world, ann, store):
        for value in ({1, 2}, {"f": print}, {1: "one"}, object()):
            for call in (
                store.set("x", value, by=ann),
                store.update("x", lambda _, value=value: value, by=ann),
                store.compare_and_swap("x", None, value, by=ann),
                store.compare_and_swap("x", value, 1, by=ann),
            ):
                with pytest.raises(Unrecordable):
                    world.run(call)
        assert world.run(store.get("x")) is None and world.run(store.history("x")) == []
        assert changes(world) == conflicts(world) == []


class TestVersions:
    def test_they_count_up_for_each_key(self, world, ann, store):
        run = world.run
        assert [run(store.set("a", n, by=ann)).version for n in range(3)] == [1, 2, 3]
        assert run(store.set("b", 0, by=ann)).version == 1

    def test_the_expected_version_has_to_be_there(self, world, ann, store):
        run = world.run
        run(store.set("a", "first", by=ann, expected_version=0))
        run(store.set("a", "second", by=ann, expected_version=1))
        for wrong in (0, 1, 3):
            with pytest.raises(VersionConflict, match="has version 2, not"):
                run(store.set("a", "third", by="bob", expected_version=wrong))
        assert run(store.get("a")).value == "second"
        assert conflicts(world) == [("bob", 0, 2), ("bob", 1, 2), ("bob", 3, 2)]

    def test_the_error_says_who_wrote_meanwhile(self, world, ann, store):
        world.run(store.set("a", 1, by=ann))
        with pytest.raises(VersionConflict, match="ann wrote it; read it again, or use `update`"):
            world.run(store.set("a", 2, by="bob", expected_version=0))

    def test_deleting_leaves_a_version_behind(self, world, ann, store):
        run = world.run
        run(store.set("a", 1, by=ann))
        gone = run(store.delete("a", by="bob", expected_version=1))
        assert (gone.version, gone.author, gone.deleted, gone.value) == (2, "bob", True, None)
        assert run(store.get("a")) is None
        assert run(store.delete("a", by="bob")) is None and run(store.delete("never", by="bob")) is None
        assert run(store.set("a", 2, by=ann, expected_version=0)).version == 3
        assert changes(world) == [("ann", 1, "set"), ("bob", 2, "deleted"), ("ann", 3, "set")]

    def test_deleting_too_late_deletes_nothing(self, world, ann, store):
        world.run(store.set("a", 1, by=ann))
        world.run(store.set("a", 2, by=ann))
        for call in (
            store.delete("a", by="bob", expected_version=1),
            store.delete("b", by="bob", expected_version=1),
        ):
            with pytest.raises(VersionConflict):
                world.run(call)
        assert world.run(store.get("a")).value == 2

    def test_who_has_seen_the_deletion_may_write_after_it(self, world, ann, store):
        world.run(store.set("a", 1, by=ann))
        gone = world.run(store.delete("a", by=ann))
        assert world.run(store.set("a", 2, by=ann, expected_version=gone.version)).version == 3

    @pytest.mark.parametrize("seed", range(20))
    def test_no_version_comes_twice(self, seed):
        async def scenario(world):
            store, draw = MemoryStore(world), random.Random(seed)
            written = []
            for _ in range(60):
                key = draw.choice("ab")
                make = [
                    store.set(key, 1, by="x", ttl=draw.choice([None, 1.0])),
                    store.delete(key, by="x"),
                    asyncio.sleep(0.4),
                ]
                chosen = make.pop(draw.randrange(3))
                for other in make:
                    other.close()
                entry = await chosen
                written += [(key, entry.version)] if entry else []
            expired = world.trace.count("stored", "world")
            for key in "ab":
                versions = [version for k, version in written if k == key]
                assert versions == sorted(set(versions))
                assert [e.facts["version"] for e in world.trace.events("stored") if e.facts["key"] == key] == list(
                    range(1, len([e for e in world.trace.events("stored") if e.facts["key"] == key]) + 1)
                )
            return expired

        assert simulate(scenario, seed, schedule="shuffled").error is None


class TestUpdate:
    def test_by_a_function(self, world, ann, store):
        run = world.run
        assert run(store.update("count", lambda n: (n or 0) + 1, by=ann)).value == 1
        assert run(store.update("count", lambda n: (n or 0) + 1, by=ann)).value == 2
        run(store.delete("count", by=ann))
        assert run(store.update("count", lambda n: (n or 0) + 1, by=ann)).value == 1

    def test_what_the_function_gets_cannot_be_changed(self, world, ann, store):
        world.run(store.set("list", [1], by=ann))
        with pytest.raises(TypeError, match="copy"):
            world.run(store.update("list", lambda value: value.append(2), by=ann))
        assert world.run(store.update("list", lambda value: [*value, 2], by=ann)).value == [1, 2]

    def test_an_error_in_it_changes_nothing(self, world, ann, store):
        async def fails(value):
            await ann.sleep(1.0)
            raise KeyError("x")

        world.run(store.set("a", 1, by=ann))
        for in_line in (False, True):
            with pytest.raises(KeyError):
                world.run(store.update("a", fails, by=ann, in_line=in_line))
        assert world.run(store.update("a", lambda n: n + 1, by=ann, in_line=True)).version == 2

    def test_an_async_function_is_called_again_if_somebody_wrote(self, world, ann, store):
        think = slowly(ann)

        async def scenario():
            update = asyncio.ensure_future(store.update("a", think, by=ann))
            await ann.sleep(0.5)
            await store.set("a", 10, by="bob")
            return await update

        assert world.run(scenario()).value == 11
        assert think.calls == 2 and world.now == 2.0 and conflicts(world) == [("ann", 0, 1)]

    def test_a_conflict_inside_the_function_is_its_own(self, world, ann, store):
        async def inner(value):
            await store.set("other", 1, by=ann, expected_version=7)

        with pytest.raises(VersionConflict, match="other"):
            world.run(store.update("a", inner, by=ann))

    def test_the_function_may_use_the_store(self, world, ann, store):
        """Also the same key: nobody waits for oneself."""

        async def inner(value):
            if value is None:
                await store.set("a", 5, by=ann)
            return (value or 0) + 1

        assert world.run(store.update("a", inner, by=ann)).value == 6

    def test_in_line_nobody_has_to_try_again(self, world, ann, store):
        updates = [slowly(ann) for _ in range(5)]

        async def scenario():
            await asyncio.gather(
                *[store.update("a", think, by=f"w{i}", in_line=True) for i, think in enumerate(updates)]
            )

        world.run(scenario())
        assert [think.calls for think in updates] == [1] * 5 and conflicts(world) == []
        assert changes(world) == [(f"w{i}", i + 1, "set") for i in range(5)]  # in the order in which they came
        assert world.now == 5.0 and world.named == {}  # and the line is gone with the last of them

    def test_out_of_line_they_may_have_to(self, world, ann, store):
        updates = [slowly(ann) for _ in range(5)]

        async def scenario():
            await asyncio.gather(*[store.update("a", think, by=f"w{i}") for i, think in enumerate(updates)])

        world.run(scenario())
        assert sum(think.calls for think in updates) == 1 + 2 + 3 + 4 + 5
        assert len(conflicts(world)) == 10 and world.run(store.get("a")).value == 5

    def test_lines_of_different_keys_do_not_wait_for_each_other(self, world, ann, store):
        async def scenario():
            await asyncio.gather(*[store.update(key, slowly(ann), by=ann, in_line=True) for key in "abc"])

        world.run(scenario())
        assert world.now == 1.0

    def test_who_writes_past_the_line_costs_one_more_try(self, world, ann, store):
        think = slowly(ann)

        async def scenario():
            update = asyncio.ensure_future(store.update("a", think, by=ann, in_line=True))
            await ann.sleep(0.5)
            await store.set("a", 10, by="bob")
            return await update

        assert world.run(scenario()).value == 11 and think.calls == 2

    @pytest.mark.parametrize("seed", range(30))
    def test_who_leaves_the_line_takes_nobody_along(self, seed):
        """Defect 2 in the terms of the store: a waiter that is cancelled, also in the instant of its turn."""

        async def scenario(world):
            ann, store = world.spawn(Agent("ann")), MemoryStore(world)
            tasks = [asyncio.ensure_future(store.update("a", slowly(ann), by=f"w{i}", in_line=True)) for i in range(6)]
            draw = world.random("cancellations")
            for _ in range(3):
                await asyncio.sleep(draw.choice([0.0, 0.5, 1.0]))
                draw.choice(tasks).cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            written = sum(isinstance(entry, Entry) for entry in done)
            assert (await store.get("a")).value == written >= 3
            assert world.named == {}

        run = simulate(scenario, seed, schedule="shuffled")
        assert run.error is None

    def test_an_update_in_line_inside_itself_is_refused(self, world, ann, store):
        async def inner(value):
            await store.update("a", lambda n: 1, by=ann, in_line=True)

        with pytest.raises(InvalidValue, match="wait for itself"):
            world.run(store.update("a", inner, by=ann, in_line=True))
        assert world.run(store.update("a", lambda n: 1, by=ann, in_line=True)).version == 1

    def test_two_that_wait_for_each_other_are_named(self, world, ann, store):
        async def both(first, second, who):
            async def inner(value):
                await ann.sleep(1.0)
                await store.update(second, lambda n: 1, by=who, in_line=True)

            await store.update(first, inner, by=who, in_line=True)

        async def scenario():
            await asyncio.gather(both("x", "y", "bob"), both("y", "x", "cid"))

        with pytest.raises(Stuck, match="cycle: bob -> cid -> bob"):
            world.run(scenario())

    def test_a_crash_in_the_middle_lets_the_next_one_in(self):
        class Writer(Agent):
            @capability
            async def write(self) -> int:
                entry = await self.store.update("a", slowly(self, seconds=2.0), by=self, in_line=True)
                return entry.version

        async def scenario(world):
            store, client = MemoryStore(world), world.spawn(Agent("client"))
            for name in ("bob", "cid"):
                world.spawn(Writer(name)).store = store
            first = asyncio.ensure_future(client.request("bob", "write"))
            await asyncio.sleep(0.5)
            version = await client.request("cid", "write")
            with contextlib.suppress(Exception):
                await first
            return version, world.now

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("bob", at=1.0)]))
        assert run.result == (1, 3.0)


class TestCompareAndSwap:
    def test_it_swaps_what_is_expected(self, world, ann, store):
        run = world.run
        assert run(store.compare_and_swap("a", None, [1], by=ann)).version == 1
        assert run(store.compare_and_swap("a", [1], [2], by=ann)).version == 2
        assert run(store.compare_and_swap("a", (2,), [3], by=ann)).value == [3]
        assert run(store.compare_and_swap("a", [1], [4], by="bob")) is None
        assert run(store.get("a")).value == [3] and conflicts(world) == [("bob", None, 3)]

    def test_what_was_deleted_is_none(self, world, ann, store):
        world.run(store.set("a", 1, by=ann))
        world.run(store.delete("a", by=ann))
        assert world.run(store.compare_and_swap("a", 1, 2, by=ann)) is None
        assert world.run(store.compare_and_swap("a", None, 2, by=ann)).version == 3

    def test_it_does_not_wait_for_itself(self, world, ann, store):
        """Defect 4: compare-and-swap that calls set while it holds the lock that set takes."""

        async def scenario():
            async with asyncio.timeout(1.0):
                return await store.compare_and_swap("a", None, 1, by=ann)

        assert world.run(scenario()).version == 1 and world.now == 0.0

    @pytest.mark.parametrize("seed", range(10))
    def test_one_of_many_wins(self, seed):
        async def scenario(world):
            store = MemoryStore(world)

            async def claim(name):
                await asyncio.sleep(world.random(name).choice([0, 1]))
                return await store.compare_and_swap("leader", None, name, by=name)

            won = await asyncio.gather(*[claim(f"a{i}") for i in range(20)])
            assert [entry is not None for entry in won].count(True) == 1
            assert world.trace.count("version_conflict") == 19

        assert simulate(scenario, seed, schedule="shuffled").error is None


class TestHistory:
    def test_it_keeps_what_was_written(self, world, ann, store):
        run = world.run
        run(store.set("a", 1, by=ann))
        run(store.set("a", 2, by="bob"))
        run(store.delete("a", by=ann))
        run(store.set("b", 0, by=ann))
        past = run(store.history("a"))
        assert [(e.version, e.value, e.author, e.deleted) for e in past] == [
            (1, 1, "ann", False),
            (2, 2, "bob", False),
            (3, None, "ann", True),
        ]
        assert run(store.history("a", 2)) == past[1:] and run(store.history("a", limit=9)) == past
        assert run(store.history("never")) == []

    @pytest.mark.parametrize("kept", [0, 1, 5])
    def test_it_is_bounded(self, world, ann, make_store, kept):
        store = make_store(history=kept)

        async def scenario():
            for number in range(20):
                await store.set("a", number, by=ann)
            return [entry.value for entry in await store.history("a")]

        assert world.run(scenario()) == list(range(20 - kept, 20))
        assert world.run(store.get("a")).value == 19


class TestList:
    def test_by_prefix(self, world, ann, store):
        run = world.run
        for key in ("task/2", "task/10", "task", "tasks/1", "other", "task/3"):
            run(store.set(key, key, by=ann))
        run(store.delete("task/3", by=ann))
        assert run(store.keys("task/")) == ["task/10", "task/2"]
        assert run(store.keys()) == ["other", "task", "task/10", "task/2", "tasks/1"]
        assert [(entry.key, entry.value) for entry in run(store.list("task/"))] == [
            ("task/10", "task/10"),
            ("task/2", "task/2"),
        ]
        assert run(store.list("none")) == []


class TestTimeToLive:
    @in_one_place
    def test_the_value_is_deleted_when_its_time_is_over(self, world, ann, store):
        async def scenario():
            entry = await store.set("a", 1, by=ann, ttl=2.0)
            assert entry.expires == 2.0
            await ann.sleep(1.5)
            assert (await store.get("a")).value == 1
            await ann.sleep(0.5)
            assert await store.get("a") is None and await store.keys() == []
            past = await store.history("a")
            assert [(e.version, e.author, e.deleted, e.time) for e in past] == [
                (1, "ann", False, 0.0),
                (2, "world", True, 2.0),
            ]
            assert (await store.set("a", 2, by=ann, expected_version=0)).version == 3

        world.run(scenario())
        assert changes(world) == [("ann", 1, "set"), ("world", 2, "expired"), ("ann", 3, "set")]

    @in_one_place
    def test_it_is_deleted_without_being_asked_for(self, world, ann, store):
        world.run(store.set("a", 1, by=ann, ttl=2.0))
        world.run(until=5.0)
        assert [(event.time, event.facts["change"]) for event in world.trace.events("stored")] == [
            (0.0, "set"),
            (2.0, "expired"),
        ]

    @in_one_place
    def test_the_last_write_says_how_long(self, world, ann, store):
        async def scenario():
            await store.set("longer", 1, by=ann, ttl=2.0)
            await store.set("longer", 1, by=ann, ttl=9.0)
            await store.set("for ever", 1, by=ann, ttl=2.0)
            await store.update("for ever", lambda n: n, by=ann)
            await store.update("by update", lambda n: 1, by=ann, ttl=3.0)
            await store.compare_and_swap("by swap", None, 1, by=ann, ttl=3.0)
            await store.set("deleted", 1, by=ann, ttl=2.0)
            await store.delete("deleted", by=ann)
            await ann.sleep(2.5)
            assert await store.keys() == ["by swap", "by update", "for ever", "longer"]
            await ann.sleep(2.5)
            assert await store.keys() == ["for ever", "longer"]
            await ann.sleep(5.0)
            assert await store.keys() == ["for ever"]

        world.run(scenario())
        assert rows(world, "stored", "change").count(("world", "expired")) == 3

    def test_nothing_is_left_to_wait_for_once_the_value_is_another(self, world, ann, store):
        world.run(store.set("a", 1, by=ann, ttl=1000.0))
        world.run(store.set("a", 2, by=ann, ttl=2.0))
        world.run(store.set("b", 1, by=ann, ttl=1000.0))
        world.run(store.delete("b", by=ann))
        world.run()
        assert world.now <= 2.0

    @pytest.mark.parametrize("seed", range(20))
    def test_at_the_instant_itself_it_is_gone_whatever_the_order(self, seed):
        async def scenario(world):
            store = MemoryStore(world)

            async def look():
                await asyncio.sleep(2.0)
                return await store.get("a")

            looks = [asyncio.ensure_future(look()) for _ in range(3)]
            await store.set("a", 1, by="ann", ttl=2.0)
            return [entry is None for entry in await asyncio.gather(*looks)]

        assert simulate(scenario, seed, schedule="shuffled").result == [True] * 3


class TestWatch:
    @in_one_place
    def test_it_sees_every_change_in_order(self, world, ann, store):
        async def scenario():
            one, some, every = store.watch("task/1"), store.watch(prefix="task/"), store.watch()
            await store.set("task/1", 1, by=ann)
            await store.set("task/2", 1, by=ann, ttl=1.0)
            await store.set("other", 1, by=ann)
            await store.delete("task/1", by="bob")
            await ann.sleep(2.0)
            seen = []
            for watch in (one, some, every):
                seen.append([])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        async for entry in watch:
                            seen[-1].append((entry.key, entry.version, entry.deleted))
            return seen

        task_1, gone_1 = ("task/1", 1, False), ("task/1", 2, True)
        task_2, gone_2, other = ("task/2", 1, False), ("task/2", 2, True), ("other", 1, False)
        assert world.run(scenario()) == [
            [task_1, gone_1],
            [task_1, task_2, gone_1, gone_2],
            [task_1, task_2, other, gone_1, gone_2],
        ]

    def test_it_wakes_the_reader_in_the_same_instant(self, world, ann, store):
        async def scenario():
            watch = store.watch("a")
            reader = asyncio.ensure_future(anext(watch))
            await ann.sleep(3.0)
            await store.set("a", "x", by=ann)
            entry = await reader
            return entry.value, world.now

        assert world.run(scenario()) == ("x", 3.0)

    def test_closing_it_strands_nobody(self, world, ann, store):
        """The seed's streams strand their reader when they are closed."""

        async def read(watch):
            return [entry.value async for entry in watch]

        async def scenario():
            watch = store.watch("a")
            reader, other = asyncio.ensure_future(read(watch)), asyncio.ensure_future(anext(watch, "over"))
            await ann.sleep(1.0)
            watch.close()
            watch.close()
            await store.set("a", 1, by=ann)
            assert await anext(watch, "over") == "over"
            return await reader, await other

        assert world.run(scenario()) == ([], "over")

    def test_leaving_the_loop_closes_it(self, world, ann, store):
        async def scenario():
            watch = store.watch("a")
            await store.set("a", 1, by=ann)
            await store.set("a", 2, by=ann)
            async for _ in watch:
                break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return await anext(watch, "over")

        assert world.run(scenario()) == "over"

    def test_a_reader_that_is_cancelled_leaves_the_others(self, world, ann, store):
        async def scenario():
            watch = store.watch("a")
            readers = [asyncio.ensure_future(anext(watch)) for _ in range(2)]
            await ann.sleep(1.0)
            readers[0].cancel()
            await store.set("a", 1, by=ann)
            return (await readers[1]).value

        assert world.run(scenario()) == 1

    def test_nobody_waits_for_a_slow_reader(self, world, ann, store):
        async def scenario():
            watch = store.watch("a", limit=3)
            for number in range(10):
                await store.set("a", number, by=ann)
            return [(await anext(watch)).version for _ in range(3)]

        assert world.run(scenario()) == [8, 9, 10] and world.now == 0.0

    def test_a_watcher_may_write_what_it_watches(self, world, ann, store):
        async def scenario():
            async for entry in store.watch("a", by=ann):
                if entry.value == 5:
                    return entry.version
                await store.set("a", entry.value + 1, by=ann)

        async def begin():
            await asyncio.sleep(1.0)
            await store.set("a", 0, by=ann)

        async def both():
            return (await asyncio.gather(scenario(), begin()))[0]

        assert world.run(both()) == 6

    def test_a_world_that_is_stuck_names_who_watches(self, world, ann, store):
        with pytest.raises(Stuck, match="ann waits for a change in a store"):
            world.run(anext(store.watch("a", by=ann)))


class TestBadInput:
    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.get(""),
            lambda s: s.get(5),
            lambda s: s.set("", 1, by="ann"),
            lambda s: s.set(None, 1, by="ann"),
            lambda s: s.set("a", 1, by=""),
            lambda s: s.set("a", 1, by=None),
            lambda s: s.set("a", 1, by="ann", expected_version=-1),
            lambda s: s.set("a", 1, by="ann", expected_version=True),
            lambda s: s.set("a", 1, by="ann", expected_version=1.0),
            lambda s: s.set("a", 1, by="ann", expected_version="1"),
            lambda s: s.set("a", 1, by="ann", ttl=0),
            lambda s: s.set("a", 1, by="ann", ttl=-1.0),
            lambda s: s.set("a", 1, by="ann", ttl=math.nan),
            lambda s: s.set("a", 1, by="ann", ttl="soon"),
            lambda s: s.update("", lambda n: 1, by="ann"),
            lambda s: s.update("", lambda n: 1, by="ann", in_line=True),
            lambda s: s.update("a", lambda n: 1, by=None),
            lambda s: s.update("a", lambda n: 1, by="ann", ttl=-1),
            lambda s: s.compare_and_swap("", None, 1, by="ann"),
            lambda s: s.compare_and_swap("a", None, 1, by=7),
            lambda s: s.delete("", by="ann"),
            lambda s: s.delete("a", by=None),
            lambda s: s.delete("a", by="ann", expected_version=-1),
            lambda s: s.update("a", 5, by="ann"),
            lambda s: s.update("a", None, by="ann"),
            lambda s: s.list(5),
            lambda s: s.list(None),
            lambda s: s.keys(["a"]),
            lambda s: s.watch(prefix=5),
            lambda s: s.history(""),
            lambda s: s.history("a", 0),
            lambda s: s.history("a", -3),
            lambda s: s.watch("").close(),
            lambda s: s.watch("a", limit=0),
            lambda s: s.watch("a", by=""),
        ],
    )
    def test_of_a_call(self, world, store, call):
        async def scenario():
            result = call(store)
            return await result if result else None

        with pytest.raises(InvalidValue):
            world.run(scenario())
        assert world.run(store.list()) == [] and changes(world) == conflicts(world) == [] and world.named == {}

    @pytest.mark.parametrize("options", [{"name": ""}, {"name": 5}, {"history": -1}, {"history": 1.5}])
    @pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore])
    def test_of_a_store(self, world, kind, options):
        with pytest.raises(InvalidValue):
            kind(world, **options)

    @pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore])
    def test_a_store_lives_in_a_world(self, kind):
        with pytest.raises(InvalidValue, match=rf"write {kind.__name__}\(world, ...\)"):
            kind("store")


class TestNamespaces:
    @pytest.fixture
    def shared(self, world):
        return MemoryStore(world, "shared")

    def test_keys_of_two_namespaces_never_meet(self, world, shared):
        """The seed's namespaces all share one key."""
        names = ["a", "b", "a/b", "a%2Fb", "a/", "/a", "a.b", "A", "[namespace]", "é", " "]
        spaces = [Namespace(shared, name) for name in names]
        keys = ["k", "b/k", "/k", "../b/k", "%2Fk"]

        async def scenario():
            for space in spaces:
                for key in keys:
                    await space.set(key, [space.name, key], by="ann", expected_version=0)
            for space in spaces:
                assert await space.keys() == sorted(keys)
                for key in keys:
                    assert (await space.get(key)).value == [space.name, key]

        world.run(scenario())
        assert len(world.run(shared.keys())) == len(names) * len(keys)

    def test_entries_have_the_keys_they_were_written_with(self, world, shared):
        space = Namespace(shared, "team")

        async def scenario():
            watch = space.watch(prefix="p")
            found = [
                await space.set("plan", 1, by="ann"),
                await space.update("plan", lambda n: n + 1, by="ann"),
                await space.compare_and_swap("plan", 2, 3, by="ann"),
                await space.get("plan"),
                *await space.list("pl"),
                *await space.history("plan"),
                await space.delete("plan", by="ann"),
                await anext(watch),
            ]
            return {entry.key for entry in found}

        assert world.run(scenario()) == {"plan"}
        assert {key for _, key in rows(world, "stored", "key")} == {"team/plan"}

    def test_namespaces_in_namespaces(self, world, shared):
        outer = Namespace(shared, "team", writers=["ann", "bob"])
        inner = Namespace(outer, "secrets", readers=["ann"], writers=["ann"])
        run = world.run
        run(inner.set("pin", 1234, by="ann"))
        assert run(inner.get("pin", by="ann")).key == "pin" and run(shared.keys()) == ["team/secrets/pin"]
        with pytest.raises(Refused):
            run(inner.get("pin", by="bob"))
        with pytest.raises(Refused):  # a right to the inner one is none to the outer one
            run(Namespace(outer, "open").set("x", 1, by="cid"))

        async def scenario():
            watch = inner.watch(by="ann")
            await inner.set("pin", 1, by="ann")
            return (await anext(watch)).key

        assert run(scenario()) == "pin"

    READS = {  # noqa: RUF012
        "get": lambda s, who: s.get("k", by=who),
        "history": lambda s, who: s.history("k", by=who),
        "list": lambda s, who: s.list(by=who),
        "keys": lambda s, who: s.keys(by=who),
    }
    WRITES = {  # noqa: RUF012
        "set": lambda s, who: s.set("k", 2, by=who),
        "delete": lambda s, who: s.delete("k", by=who),
    }
    BOTH = {  # noqa: RUF012
        "update": lambda s, who: s.update("k", lambda n: 2, by=who),
        "compare_and_swap": lambda s, who: s.compare_and_swap("k", 1, 2, by=who),
    }

    @pytest.mark.parametrize("call", [*READS.values(), *WRITES.values(), *BOTH.values()], ids=[*READS, *WRITES, *BOTH])
    @pytest.mark.parametrize("who", ["boss", "reader_1", "reader", "stranger", "reader_1x", "*"])
    def test_rights(self, world, shared, call, who):
        space = Namespace(shared, "team", readers=["reader_?"], writers=["boss"])
        world.run(space.set("k", 1, by="boss"))
        before = world.run(shared.history("team/k"))
        allowed = who == "boss" or (who == "reader_1" and call in self.READS.values())
        with contextlib.nullcontext() if allowed else pytest.raises(Refused, match=f"{who.replace('*', '.')} may not"):
            world.run(call(space, who))
        if not allowed:
            assert world.run(shared.history("team/k")) == before
            action = "read" if call in [*self.READS.values(), *self.BOTH.values()] and who != "reader_1" else "write"
            assert [row[0] for row in rows(world, "refused", "action")] == [who]
            assert rows(world, "refused", "action")[0][1] == action

    def test_a_letter_box(self, world, shared):
        """Everybody may write, one may read."""
        box = Namespace(shared, "box", readers=["boss"])
        world.run(box.set("k", 1, by="ann"))
        for call in (box.get("k", by="ann"), box.update("k", lambda n: n, by="ann"), box.get("k")):
            with pytest.raises(Refused, match="only boss may read"):
                world.run(call)
        with pytest.raises(Refused):
            box.watch(by="ann")
        assert world.run(box.get("k", by="boss")).value == 1

    def test_nobody(self, world, shared):
        with pytest.raises(Refused, match="only nobody may write"):
            world.run(Namespace(shared, "frozen", writers=[]).set("k", 1, by="ann"))

    def test_an_agent_is_known_by_its_name(self, world, shared, ann):
        space = Namespace(shared, "team", writers=["ann"])
        assert world.run(space.set("k", 1, by=ann)).author == "ann"

    @pytest.mark.parametrize(
        "options", [{"name": ""}, {"name": 5}, {"readers": "ann"}, {"writers": "ann"}, {"writers": [5]}]
    )
    def test_bad_input(self, shared, options):
        with pytest.raises(InvalidValue):
            Namespace(shared, **{"name": "team", **options})

    @pytest.mark.parametrize("store", [None, "store", MemoryStore])
    def test_of_what_is_no_store(self, store):
        for make in (lambda: Namespace(store, "team"), lambda: StateService("state", store)):
            with pytest.raises(InvalidValue, match="give a store"):
                make()

    def test_empty_keys_do_not_reach_the_namespace_itself(self, world, shared):
        space = Namespace(shared, "team")
        for call in (space.get(""), space.set("", 1, by="ann"), space.history("")):
            with pytest.raises(InvalidValue):
                world.run(call)


class TestService:
    @pytest.fixture
    def service(self, world):
        functions = {"add": lambda value, n=1: (value or 0) + n}
        return world.spawn(StateService("state", MemoryStore(world), functions))

    def test_every_operation_answers_a_message(self, world, ann, service):
        def ask(what, **inputs):
            return world.run(ann.request("state", what, **inputs))

        entry = ask("set", key="plan", value={"step": 1}, expected_version=0)
        assert entry == Entry("plan", {"step": 1}, 1, "ann", 0.0) == ask("get", key="plan")
        assert ask("get", key="other") is None
        assert ask("compare_and_swap", key="plan", expected={"step": 1}, value=2, ttl=5.0).expires == 5.0
        assert ask("compare_and_swap", key="plan", expected=7, value=3) is None
        assert ask("update", key="count", function="add").value == 1
        assert ask("update", key="count", function="add", inputs={"n": 4}).value == 5
        assert [entry.key for entry in ask("list")] == ["count", "plan"]
        assert ask("delete", key="count").deleted
        assert [entry.version for entry in ask("history", key="count", limit=2)] == [2, 3]
        assert [entry.author for entry in ask("history", key="plan")] == ["ann", "ann"]

    def test_errors_travel(self, world, ann, service):
        with pytest.raises(VersionConflict):
            world.run(ann.request("state", "set", key="a", value=1, expected_version=7))
        with pytest.raises(InvalidValue, match="choose one of add"):
            world.run(ann.request("state", "update", key="a", function="subtract"))
        with pytest.raises(InvalidInput, match="key"):
            world.run(ann.request("state", "get", key=5))

    def test_the_method_answers_a_call_alike(self, world, service):
        assert world.run(service.set("a", 1)).author == "state"
        assert world.run(service.get("a")).value == 1

    def test_who_asks_is_who_acts(self, world, ann):
        store = Namespace(MemoryStore(world), "team", writers=["boss"])
        boss = world.spawn(Agent("boss"))
        world.spawn(StateService("state", store))
        world.run(boss.request("state", "set", key="a", value=1))
        with pytest.raises(Refused):
            world.run(ann.request("state", "set", key="a", value=2))
        with pytest.raises(InvalidInput):  # nobody can say it is somebody else
            world.run(ann.request("state", "set", key="a", value=2, by="boss"))

    def test_changes_stream(self, world, ann, service):
        async def scenario():
            seen = []
            writer = asyncio.ensure_future(write())
            async for entry in ann.stream("state", "watch", prefix="a", timeout=None):
                seen.append((entry.key, entry.value, world.now))
                if len(seen) == 3:
                    break
            await writer
            return seen

        async def write():
            for number, key in enumerate(("a1", "b", "a2", "a3", "a4")):
                await ann.sleep(1.0)
                await service.set(key, number)

        assert world.run(scenario()) == [("a1", 0, 1.0), ("a2", 2, 3.0), ("a3", 3, 4.0)]
        assert service.load == 0.0  # whoever watched no longer does

    def test_watchers_keep_nobody_else_waiting(self, world, ann, service):
        async def scenario():
            streams = [ann.stream("state", "watch", timeout=None) for _ in range(50)]
            readers = [asyncio.ensure_future(anext(stream)) for stream in streams]
            await ann.sleep(1.0)
            await ann.request("state", "set", key="a", value=1)
            seen = [entry.value for entry in await asyncio.gather(*readers)]
            for stream in streams:
                await stream.aclose()
            return seen

        assert world.run(scenario()) == [1] * 50


class TestTrace:
    async def everything(world, kind=MemoryStore):
        """Use all of a store, in a race; the trace has to be the same for every kind."""
        store, draw = kind(world, name="notes"), world.random("writers")

        async def writer(name):
            for number in range(15):
                key = draw.choice("abc")
                with contextlib.suppress(VersionConflict):
                    await store.set(
                        key,
                        number,
                        by=name,
                        expected_version=draw.choice([None, None, 1, number]),
                        ttl=draw.choice([None, 0.2]),
                    )
                await asyncio.sleep(draw.choice([0.0, 0.3]))
                await store.compare_and_swap(draw.choice("abc"), number, "swapped", by=name)
                if draw.random() < 0.2:
                    await store.delete(draw.choice("abc"), by=name)

        await asyncio.gather(*[writer(f"w{i}") for i in range(4)])
        return [entry.checksum for entry in await store.list()]

    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_every_kind_of_store_leaves_the_same(self, schedule):
        everything = TestTrace.everything
        runs = [
            simulate(everything, 3, schedule=schedule, kind=kind) for kind in (MemoryStore, MemoryStore, SQLiteStore)
        ]
        assert [run.error for run in runs] == [None] * 3
        assert len({run.digest for run in runs}) == 1 and len({tuple(run.result) for run in runs}) == 1
        assert runs[0].trace.count("version_conflict") > 10 and runs[0].trace.count("stored", "world") > 3

    def test_every_kind_is_a_state_store(self, store):
        assert isinstance(store, StateStore)


class TestSeedDefects:
    """What the course's stores get wrong (SEED_DEFECTS, State), in the terms of these."""

    def test_an_expected_version_of_an_absent_key(self, world, ann, store):
        with pytest.raises(VersionConflict, match="has version 0, not 7: nobody wrote it"):
            world.run(store.set("a", 1, by=ann, expected_version=7))
        assert world.run(store.get("a")) is None

    def test_aba(self, world, ann, store):
        run = world.run
        seen = run(store.set("a", "A", by=ann))
        run(store.delete("a", by="bob"))
        run(store.set("a", "A", by="bob"))
        with pytest.raises(VersionConflict):
            run(store.set("a", "B", by=ann, expected_version=seen.version))

    def test_aliasing(self, world, ann, store):
        mine = {"list": [1]}
        entry = world.run(store.set("a", mine, by=ann))
        mine["list"].append(2)
        found = world.run(store.get("a"))
        assert found.value == {"list": [1]} and found.checksum == entry.checksum
        for change in (lambda v: v["list"].append(3), lambda v: v.update(x=1), lambda v: v["list"].__setitem__(0, 9)):
            with pytest.raises(TypeError):
                change(found.value)
        assert world.run(store.get("a")).value == {"list": [1]}

    @pytest.mark.parametrize("seed", range(10))
    def test_the_list_of_active_agents(self, seed):
        """Read, think, write loses agents; `update` does not."""

        async def scenario(world, atomic):
            store = MemoryStore(world)

            async def join(name):
                await asyncio.sleep(world.random(name).choice([0, 1]))
                if atomic:
                    await store.update("agents", lambda agents: sorted([*(agents or ()), name]), by=name)
                    return
                entry = await store.get("agents")
                await asyncio.sleep(0)
                await store.set("agents", [*(entry.value if entry else ()), name], by=name)

            await asyncio.gather(*[join(f"a{i}") for i in range(8)])
            return len((await store.get("agents")).value)

        assert simulate(scenario, seed, schedule="shuffled", atomic=True).result == 8
        assert simulate(scenario, seed, schedule="shuffled", atomic=False).result < 8

    def test_nothing_grows_without_bound(self, world, ann, make_store):
        """History and lines stay as long as they have to."""
        store = make_store(history=5)

        async def scenario():
            for number in range(100):
                await store.set("one", number, by=ann, ttl=1.0)
                await store.update("two", lambda n: (n or 0) + 1, by=ann, in_line=True)
            return [len(await store.history(key)) for key in ("one", "two")]

        assert world.run(scenario()) == [5, 5] and world.named == {}
