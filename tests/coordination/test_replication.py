"""The replicated store: what quorums promise under partitions, delays and crashes, and what they do without overlap."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability import ABSENT, UNKNOWN, Recorder, contradictions, versioned

from masbook import Agent, Crash, FaultPlan, OnMessage, Partition, Pause, Slow, World, simulate
from masbook.coordination import Entry, Namespace, ReplicatedStore, last_writer, merged, siblings
from masbook.coordination.state.replica import Replica, Version, newest
from masbook.errors import InvalidValue, QuorumMissed, Unrecordable, VersionConflict, WorldError

REPLICAS = ["store_1", "store_2", "store_3"]
LOOSE = {"write_quorum": 1, "read_quorum": 1}  # quorums that do not overlap


def society(*appointments, seed=7, clients=("ann", "bob"), **options):
    """Return a world with faults, a store and its clients."""
    world = World(seed, faults=FaultPlan(appointments=appointments) if appointments else None)
    store = ReplicatedStore(world, **options)
    return world, store, *[world.spawn(Agent(name)) for name in clients]


def split(start=0.0, end=float("inf")):
    """Ann and one replica on this side, Bob and two on the other."""
    return Partition(["ann", "store_1"], ["bob", "store", "store_2", "store_3"], start, end)


def rows(world, kind, *fields):
    return [(event.who, *(event.facts[field] for field in fields)) for event in world.trace.events(kind)]


def held(store, key="x"):
    """Return the values that each replica holds, in the order of the replicas."""
    return [[None if entry.deleted else entry.value for entry in copies] for copies in store.copies(key).values()]


def value(entry):
    return None if entry is None else entry.value


class TestQuorums:
    @pytest.mark.parametrize(
        ("options", "write", "read"),
        [
            ({}, 2, 2),
            ({"replicas": 1}, 1, 1),
            ({"replicas": 4}, 3, 2),
            ({"replicas": 5}, 3, 3),
            ({"replicas": 5, "write_quorum": 4}, 4, 2),
            ({"replicas": 5, "read_quorum": 1}, 5, 1),
            ({"replicas": 3, "write_quorum": 3}, 3, 1),
            ({"replicas": ["oslo", "rome"], "read_quorum": 2}, 1, 2),
        ],
    )
    def test_what_is_not_given_overlaps(self, options, write, read):
        _, store, *_ = society(**options)
        assert (store.write_quorum, store.read_quorum, store.overlapping) == (write, read, True)

    def test_loose_quorums_do_not_overlap(self):
        assert not society(**LOOSE)[1].overlapping
        assert not society(replicas=4, write_quorum=2, read_quorum=2)[1].overlapping

    def test_replicas_are_agents_of_ones_own_names(self):
        world, store, ann, _ = society(replicas=["oslo", "paris", "rome"], name="atlas")
        world.run(store.set("x", 1, by=ann))
        assert store.replicas == ("oslo", "paris", "rome")
        assert [type(world.agents[name]) for name in store.replicas] == [Replica] * 3
        assert {event.facts["to"] for event in world.trace.events("sent", "ann")} == set(store.replicas)

    @pytest.mark.parametrize(
        "options",
        [
            {"replicas": 0},
            {"replicas": -3},
            {"replicas": 2.0},
            {"replicas": True},
            {"replicas": []},
            {"replicas": "abc"},
            {"replicas": ["a", "a"]},
            {"replicas": ["a", "store"]},
            {"replicas": ["a", 3]},
            {"write_quorum": 4},
            {"read_quorum": 4},
            {"write_quorum": 0},
            {"read_quorum": -1},
            {"write_quorum": 1.5},
            {"timeout": 0},
            {"timeout": -1},
            {"timeout": float("nan")},
            {"history": -1},
            {"resolve": None},
            {"resolve": "siblings"},
            {"name": ""},
            {"name": "taken"},
            {"replicas": ["a", "taken"]},
        ],
    )
    def test_refused_before_anything_is_spawned(self, options):
        world = World(7)
        world.spawn(Agent("taken"))
        with pytest.raises(InvalidValue):
            ReplicatedStore(world, **options)
        assert list(world.agents) == ["taken"]

    def test_one_name_is_no_list_of_replicas(self):
        with pytest.raises(InvalidValue, match="replicas is 'replica_1': give their number, or a list of names"):
            ReplicatedStore(World(7), replicas="replica_1")

    def test_too_large_a_quorum_says_what_to_give(self):
        with pytest.raises(InvalidValue, match="write_quorum is 4, but there are 3 replicas: give 3 at most"):
            ReplicatedStore(World(7), write_quorum=4)

    def test_a_store_lives_in_a_world(self):
        with pytest.raises(InvalidValue, match="world"):
            ReplicatedStore("store")


class TestReadingAndWriting:
    def test_what_one_side_writes_the_other_reads(self):
        world, store, ann, bob = society()
        assert world.run(store.get("x", by=bob)) is None
        written = world.run(store.set("x", {"step": 1}, by=ann))
        assert (written.version, written.author, written.value) == (1, "ann", {"step": 1})
        assert world.run(store.get("x", by=bob)) == written
        assert held(store) == [[{"step": 1}]] * 3

    def test_versions_count_up_whoever_writes(self):
        world, store, ann, bob = society()
        writers = [ann, bob, bob, "carol", ann]
        assert [world.run(store.set("x", n, by=by)).version for n, by in enumerate(writers)] == [1, 2, 3, 4, 5]
        deleted = world.run(store.delete("x", by=bob))
        assert (deleted.version, deleted.deleted) == (6, True)
        assert world.run(store.delete("x", by=bob)) is None
        assert world.run(store.set("x", 1, by=ann, expected_version=0)).version == 7
        assert rows(world, "stored", "version", "change")[-2:] == [("bob", 6, "deleted"), ("ann", 7, "set")]

    def test_expected_versions(self):
        world, store, ann, bob = society()
        world.run(store.set("x", 1, by=ann, expected_version=0))
        with pytest.raises(VersionConflict, match=r"'x' has version 1, not 0: ann wrote it"):
            world.run(store.set("x", 2, by=bob, expected_version=0))
        with pytest.raises(VersionConflict, match="version 1, not 7"):
            world.run(store.delete("x", by=bob, expected_version=7))
        with pytest.raises(VersionConflict, match="version 0, not 7: nobody wrote it"):
            world.run(store.set("new", 2, by=bob, expected_version=7))
        assert world.run(store.set("x", 2, by=bob, expected_version=1)).version == 2
        assert rows(world, "version_conflict", "key", "expected", "version") == [
            ("bob", "x", 0, 1),
            ("bob", "x", 7, 1),
            ("bob", "new", 7, 0),
        ]

    def test_swap_update_keys_and_list(self):
        world, store, ann, bob = society()

        async def scenario():
            assert (await store.compare_and_swap("b", None, 1, by=ann)).version == 1
            assert await store.compare_and_swap("b", 5, 6, by=bob) is None
            assert (await store.update("b", lambda n: n + 1, by=bob)).value == 2
            await store.set("a", 0, by=ann)
            await store.set("gone", 0, by=ann)
            await store.delete("gone", by=ann)
            assert await store.keys() == ["a", "b"] and await store.keys("a") == ["a"]
            assert [(entry.key, entry.value) for entry in await store.list(by=bob)] == [("a", 0), ("b", 2)]

        world.run(scenario())

    def test_a_swap_looks_again_when_the_same_value_was_written_in_between(self):
        """The value is the expected one all the time, though its version is not: to fail would contradict that."""

        class Interrupted(ReplicatedStore):
            async def get(self, key, *, by=None):
                entry = await super().get(key, by=by)
                if entry.version < 3:
                    await self.set(key, entry.value, by="bob")
                return entry

        world = World(7)
        store = Interrupted(world)
        world.run(store.set("x", 1, by="ann"))
        assert world.run(store.compare_and_swap("x", 1, 2, by="ann")).version == 4
        assert rows(world, "version_conflict", "expected", "version") == [("ann", 1, 2), ("ann", 2, 3)]

    def test_history(self):
        world, store, ann, _ = society(history=3)

        async def scenario():
            for number in range(4):
                await store.set("x", number, by=ann)
            await store.delete("x", by=ann)
            past = await store.history("x")
            assert [(entry.version, entry.value, entry.deleted) for entry in past] == [
                (3, 2, False),
                (4, 3, False),
                (5, None, True),
            ]
            assert await store.history("x", 1) == past[-1:] and await store.history("other") == []

        world.run(scenario())

    def test_time_to_live(self):
        """What has expired counts as deleted, one version on, as it would in a store in memory."""
        world, store, ann, _ = society()

        async def scenario():
            await store.set("x", 1, by=ann, ttl=2.0)
            await ann.sleep(1.5)
            assert value(await store.get("x")) == 1
            await ann.sleep(0.5)
            assert await store.get("x") is None and await store.keys() == []
            with pytest.raises(VersionConflict):
                await store.set("x", 2, by=ann, expected_version=1)
            assert await store.delete("x", by=ann) is None
            return await store.set("x", 2, by=ann, expected_version=0)

        assert world.run(scenario()).version == 3

    def test_watching(self):
        world, store, ann, bob = society()

        async def scenario():
            watch = store.watch(prefix="task/", by=bob)
            await store.set("task/1", 1, by=ann)
            await store.set("other", 1, by=ann)
            await store.delete("task/1", by=ann)
            return [await anext(watch), await anext(watch)]

        assert [(entry.key, entry.version, entry.deleted) for entry in world.run(scenario())] == [
            ("task/1", 1, False),
            ("task/1", 2, True),
        ]

    def test_a_namespace_of_it(self):
        world, store, ann, bob = society()
        notes = Namespace(store, "notes", writers=["ann"])
        world.run(notes.set("x", 1, by=ann))
        assert value(world.run(notes.get("x", by=bob))) == 1 and world.run(store.keys()) == ["notes/x"]

    def test_values_are_frozen(self):
        world, store, ann, _ = society()
        plan = {"steps": [1]}
        world.run(store.set("x", plan, by=ann))
        plan["steps"].append(2)
        with pytest.raises(TypeError):
            world.run(store.get("x")).value["steps"].append(3)
        assert world.run(store.get("x")).value == {"steps": [1]}

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda store, ann: store.set("x", {1, 2}, by=ann), Unrecordable),
            (lambda store, ann: store.set("", 1, by=ann), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=""), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=3), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=ann, expected_version=-1), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=ann, expected_version="1"), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=ann, ttl=0), InvalidValue),
            (lambda store, ann: store.get(7), InvalidValue),
            (lambda store, ann: store.history("x", 0), InvalidValue),
            (lambda store, ann: store.set("x", 1, by=Agent("unborn")), WorldError),
            (lambda store, ann: store.set("x", 1, by=World(1).spawn(Agent("stranger"))), InvalidValue),
        ],
    )
    def test_bad_input(self, call, error):
        world, store, ann, _ = society()
        with pytest.raises(error):
            world.run(call(store, ann))
        assert held(store) == [[], [], []]

    def test_outside_a_run(self):
        _, store, *_ = society()
        with pytest.raises(WorldError, match=r"world\.run"):
            asyncio.run(store.get("x"))


class TestPartitions:
    def test_the_majority_goes_on_and_the_minority_is_told(self):
        world, store, ann, bob = society(split())
        with pytest.raises(QuorumMissed, match=r"write of 'x' in 'store': 1 of 2 replicas have answered ann in 5 s"):
            world.run(store.set("x", "ann's", by=ann))
        assert world.now == 5.0
        world.run(store.set("x", "bob's", by=bob))
        assert world.now == 5.0 and value(world.run(store.get("x", by=bob))) == "bob's"
        with pytest.raises(QuorumMissed, match="read of 'x'"):
            world.run(store.get("x", by=ann))
        assert rows(world, "quorum_missed", "store", "key", "action", "reached", "needed") == [
            ("ann", "store", "x", "write", 1, 2),
            ("ann", "store", "x", "read", 1, 2),
        ]

    def test_messages_come_from_who_acts(self):
        """A name, or nobody, is spoken for by the store's own agent, which is on Bob's side."""
        world, store, *_ = society(split())
        world.run(store.set("x", 1, by="ann"))
        assert value(world.run(store.get("x"))) == 1
        assert world.trace.count("sent", "store") > 0 == world.trace.count("sent", "ann")

    def test_after_the_partition_the_minority_reads_what_the_majority_wrote(self):
        world, store, ann, bob = society(split(1.0, 4.0))

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            await store.set("x", 2, by=bob)
            await ann.sleep(3.0)
            assert held(store) == [[1], [2], [2]]
            return [value(await store.get("x", by=ann)) for _ in range(3)]

        assert world.run(scenario()) == [2, 2, 2]

    @pytest.mark.parametrize("mend", [True, False])
    def test_repair_on_reading_can_be_switched_off(self, mend):
        lost = [OnMessage("drop", to="store_1", topic="write")]
        world, store, ann, _ = society(*lost, read_repair=mend)
        world.run(store.set("x", 1, by=ann))
        assert held(store) == [[], [1], [1]]
        world.run(store.get("x", by=ann))
        world.run()
        assert held(store) == [[1] if mend else [], [1], [1]]

    def test_nobody_waits_for_more_replicas_than_needed(self):
        world, store, ann, _ = society(Slow("store_2", 3.0))
        world.run(store.set("x", 1, by=ann))
        assert value(world.run(store.get("x", by=ann))) == 1 and world.now == 0.0

    def test_all_replicas_have_the_same_deadline(self):
        world, store, ann, _ = society(Pause("store_2", 0.0, 100.0), Pause("store_3", 0.0, 100.0), timeout=2.0)
        with pytest.raises(QuorumMissed):
            world.run(store.set("x", 1, by=ann))
        assert world.now == 2.0

    def test_a_late_accept_does_not_undo_a_newer_write(self):
        """What Ann sent to store_1 arrives after Bob's write, and is refused."""
        world, store, ann, bob = society(OnMessage("delay", to="store_1", topic="write", seconds=3.0))

        async def scenario():
            await store.set("x", 1, by=ann)
            await store.set("x", 2, by=bob)
            await ann.sleep(4.0)
            return held(store)

        assert world.run(scenario()) == [[2], [2], [2]]

    def test_in_quiet_times_no_letter_is_lost_or_late(self):
        world, store, ann, bob = society()
        world.run(store.set("x", 1, by=ann))
        world.run(store.update("x", lambda n: n + 1, by=bob))
        world.run()
        assert world.bus.dead_letters == [] and world.bus.accounting()["missing"] == 0


class TestMissedQuorums:
    """A write that misses its quorum is neither there nor gone; the seed's stayed readable, and nobody was told."""

    reaches_store_1 = (
        OnMessage("drop", sender="ann", to="store_2", topic="write"),
        OnMessage("drop", sender="ann", to="store_3", topic="write"),
    )

    def missed(self, *more):
        """Return a society in which Ann's write has reached store_1 only, and she knows."""
        world, store, ann, bob = society(*self.reaches_store_1, *more)
        with pytest.raises(QuorumMissed, match="may yet be seen by some readers"):
            world.run(store.set("x", "ann's", by=ann))
        assert held(store) == [["ann's"], [], []] and world.trace.count("stored") == 0
        return world, store, ann, bob

    def test_once_a_reader_has_seen_it_all_do(self):
        world, store, ann, bob = self.missed()
        assert value(world.run(store.get("x", by=bob))) == "ann's"  # asked store_1, and gave it to a quorum first
        assert held(store) == [["ann's"]] * 3
        world.agents["store_1"].stop()
        assert value(world.run(store.get("x", by=ann))) == "ann's"

    def test_a_reader_that_does_not_hear_of_it_sees_what_was_there(self):
        world, store, _, bob = self.missed(Partition(["bob"], ["store_1"]))
        assert world.run(store.get("x", by=bob)) is None

    def test_a_write_that_does_not_hear_of_it_buries_it(self):
        world, store, ann, bob = self.missed(Partition(["bob"], ["store_1"]))
        assert world.run(store.set("x", "bob's", by=bob)).version == 1
        assert value(world.run(store.get("x", by=ann))) == "bob's"
        assert held(store) == [["bob's"]] * 3

    def test_a_write_that_hears_of_it_comes_after_it(self):
        world, store, _, bob = self.missed()
        assert world.run(store.set("x", "bob's", by=bob)).version == 2
        assert [entry.value for entry in world.run(store.history("x"))] == ["ann's", "bob's"]

    def test_without_repair_readers_disagree(self):
        """The planted violation: the value is seen, and then it is gone again."""
        world, store, ann, bob = society(*self.reaches_store_1, Partition(["bob"], ["store_1"]), read_repair=False)
        with pytest.raises(QuorumMissed):
            world.run(store.set("x", "ann's", by=ann))
        assert value(world.run(store.get("x", by=ann))) == "ann's"
        assert world.run(store.get("x", by=bob)) is None

    def test_writers_that_need_all(self):
        """Who reads one replica knows by what it holds whether that has its quorum; if not, it has to get it one."""
        world, store, ann, bob = society(Crash("store_3", at=1.0, restart_after=10.0), write_quorum=3)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            assert value(await store.get("x", by=bob)) == 1
            with pytest.raises(QuorumMissed, match="2 of 3"):
                await store.set("x", 2, by=ann)
            return await ann.sleep(10.0)

        world.run(scenario())
        assert value(world.run(store.get("x", by=bob))) in (1, 2)

    def test_a_write_by_who_crashes_in_between(self):
        """Its messages are out: the write is completed by the next reader, or never seen."""

        class Hasty(Agent):
            async def on_start(self):
                self.background(store.set("x", "hasty", by=self))

        slow = [Slow(name, 0.5) for name in REPLICAS]
        world, store, ann, _ = society(*slow, Crash("hasty", at=0.75), Crash("ann", at=99.0))
        world.spawn(Hasty("hasty"))
        world.run(until=3.0)
        assert held(store) == [["hasty"]] * 3 and world.trace.count("stored") == 0
        assert value(world.run(store.get("x", by=ann))) == "hasty"


class TestFailingReplicas:
    """One replica that raises or crashes does not stop a quorum that can be reached; in the seed it did."""

    @pytest.mark.parametrize("what", ["read", "write"])
    @pytest.mark.parametrize("name", REPLICAS)
    def test_one_that_raises(self, what, name):
        world, store, ann, bob = society()

        async def broken(*args, **more):
            raise OSError("disk full")

        setattr(world.agents[name], what, broken)
        assert world.run(store.set("x", 1, by=ann)).version == 1
        assert value(world.run(store.get("x", by=bob))) == 1
        assert world.trace.count("failed", name) > 0

    def test_two_that_raise(self):
        world, store, ann, _ = society()

        async def broken(*args, **more):
            raise OSError("disk full")

        world.agents["store_1"].write = world.agents["store_3"].write = broken
        with pytest.raises(QuorumMissed, match="1 of 2"):
            world.run(store.set("x", 1, by=ann))
        assert world.now == 0.0  # all have answered, in their way: there is nothing to wait for

    @pytest.mark.parametrize("name", REPLICAS)
    def test_one_that_crashes(self, name):
        world, store, ann, bob = society(Crash(name, at=1.0))

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            await store.update("x", lambda n: n + 1, by=bob)
            return await store.get("x", by=ann)

        assert value(world.run(scenario())) == 2 and world.now == 2.0

    def test_what_was_accepted_survives_crashes(self):
        crashes = [Crash(name, at=1.0, restart_after=1.0) for name in REPLICAS]
        world, store, ann, bob = society(*crashes)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(3.0)
            return await store.get("x", by=bob)

        assert value(world.run(scenario())) == 1


class TestBothSidesGoOn:
    """Quorums that do not overlap: everybody is served, and what was written apart is put together afterwards."""

    def apart(self, resolve, ann_does=None, bob_does=None, **options):
        """Let Ann and Bob write on both sides of a partition, then repair; return the world, the store and both."""
        world, store, ann, bob = society(split(1.0, 4.0), resolve=resolve, **{**LOOSE, **options})

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            await (ann_does or store.set)("x", *() if ann_does else ("ann's",), by=ann)
            await (bob_does or store.set)("x", *() if bob_does else ("bob's",), by=bob)
            await ann.sleep(3.0)

        world.run(scenario())
        return world, store, ann, bob

    def test_each_side_reads_its_own(self):
        world, store, ann, bob = society(split(), **LOOSE)
        for agent in (ann, bob):
            world.run(store.set("x", agent.name, by=agent))
        assert [value(world.run(store.get("x", by=agent))) for agent in (ann, bob)] == ["ann", "bob"]
        assert held(store) == [["ann"], ["bob"], ["bob"]] and world.trace.count("quorum_missed") == 0

    def test_the_last_writer_counts(self):
        """Lamport's clocks are level, so that the name decides: the same for all who read, and Ann's write is lost."""
        world, store, ann, bob = self.apart(last_writer)
        world.run(store.repair())
        assert held(store) == [["ann's", "bob's"]] * 3
        assert [value(world.run(store.get("x", by=by))) for by in (ann, bob, "carol")] == ["bob's"] * 3

    def test_a_clock_that_is_ahead_counts_more_than_a_name(self):
        async def twice(key, *, by):
            for _ in range(2):
                await store.set(key, "ann's", by=by)

        world, store, ann, bob = society(split(1.0, 4.0), **LOOSE)
        world.run(until=2.0)
        world.run(twice("x", by=ann))
        world.run(store.set("x", "bob's", by=bob))
        world.run(until=5.0)
        world.run(store.repair())
        assert value(world.run(store.get("x", by=bob))) == "ann's"

    def test_keeping_both(self):
        world, store, ann, bob = self.apart(siblings)
        world.run(store.repair())
        entry = world.run(store.get("x", by=ann))
        assert (entry.value, entry.version) == (["ann's", "bob's"], 2)
        assert world.run(store.get("x", by=bob)) == entry

    def test_a_write_that_has_seen_both_replaces_both(self):
        world, store, ann, bob = self.apart(siblings)
        world.run(store.repair())
        assert world.run(store.set("x", "one plan", by=ann)).version == 3
        assert held(store) == [["one plan"]] * 3
        assert value(world.run(store.get("x", by=bob))) == "one plan"

    def test_a_function_of_ones_own(self):
        world, store, _, bob = self.apart(merged(lambda values: " and ".join(values)))
        world.run(store.repair())
        assert value(world.run(store.get("x", by=bob))) == "ann's and bob's"

    @pytest.mark.parametrize(("resolve", "expected"), [(last_writer, "bob's"), (siblings, ["bob's"])])
    def test_deleted_here_and_written_there(self, resolve, expected):
        world, store, ann, bob = society(split(1.0, 4.0), resolve=resolve, **LOOSE)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            await store.delete("x", by=ann)
            await store.set("x", "bob's", by=bob)
            await ann.sleep(3.0)
            await store.repair()
            return [value(await store.get("x", by=by)) for by in (ann, bob)]

        assert world.run(scenario()) == [expected] * 2

    def test_reading_mends_too(self):
        world, store, _, bob = self.apart(siblings)
        assert held(store) == [["ann's"], ["bob's"], ["bob's"]]
        store.read_quorum = 2  # from now on a reader hears of both
        assert value(world.run(store.get("x", by=bob))) == ["ann's", "bob's"]

    def test_a_write_covers_nothing_that_its_writer_has_not_seen(self):
        """Not even by the writer itself: Bob reads the quickest replica, which was away when he wrote before."""
        slow = [Slow(name, 0.1) for name in REPLICAS[1:]]
        world, store, _, bob = society(split(1.0, 4.0), *slow, resolve=siblings, **LOOSE)

        async def scenario():
            await store.set("x", "first", by=bob)
            for text in ("second", "third", "fourth"):
                await bob.sleep(1.5)
                await store.set("x", text, by=bob)
            return value(await store.get("x", by=bob))

        assert "first" not in world.run(scenario())
        world.run(store.repair())
        assert sorted(held(store)[0]) == ["fourth", "third"] and held(store) == [held(store)[0]] * 3

    @pytest.mark.parametrize("seed", range(8))
    def test_updates_replace_what_was_read_and_nothing_else(self, seed):
        """Another value may be there under the number of the one that was read: it is kept beside what is written."""

        def union(values):
            return {sale: 1 for value in values for sale in value}

        async def branches(world):
            store = ReplicatedStore(world, resolve=merged(union), **LOOSE)

            async def sell(agent):
                for number in range(8):
                    await agent.sleep(agent.random.expovariate(1.0))
                    sale = f"{agent.name}-{number}"
                    await store.update("x", lambda sold, sale=sale: {**(sold or {}), sale: 1}, by=agent)

            await asyncio.gather(*[sell(world.spawn(Agent(name))) for name in ("ann", "bob")])
            await asyncio.sleep(20.0)
            await store.repair()
            return len((await store.get("x")).value)

        plan = FaultPlan(delay=0.3, delay_range=(0.0, 0.2), appointments=[split(2.0, 5.0)])
        assert simulate(branches, seed, faults=plan).result == 16

    def test_writers_of_one_name_on_one_side_at_a_time(self):
        """Who writes twice at once is two writers to itself: neither write covers the other."""
        world, store, ann, _ = society(*[Slow(name, 0.1) for name in REPLICAS], **LOOSE)
        store.resolve = siblings

        async def scenario():
            await asyncio.gather(*[store.set("x", number, by=ann) for number in range(3)])
            await ann.sleep(9.0)
            return await store.get("x", by=ann)

        assert sorted(value(world.run(scenario()))) == [0, 1, 2]


class TestRepair:
    """The seed's synchronising resurrected deletes, was not idempotent, and lost the newest write to a wrong clock."""

    def after_partition(self, **options):
        """Return a society of which Bob's side has deleted `old`, changed `x` and made `new` while Ann's was away."""
        world, store, ann, bob = society(split(1.0, 4.0), **options)

        async def scenario():
            await store.set("x", 1, by=ann)
            await store.set("old", 1, by=ann)
            await ann.sleep(2.0)
            await store.set("x", 2, by=bob)
            await store.delete("old", by=bob)
            await store.set("new", 1, by=bob)
            await ann.sleep(3.0)

        world.run(scenario())
        assert [held(store, key)[0] for key in ("x", "old", "new")] == [[1], [1], []]
        return world, store, ann, bob

    @pytest.mark.parametrize("options", [{}, LOOSE])
    def test_it_brings_every_replica_to_one_state(self, options):
        world, store, *_ = self.after_partition(**options)
        assert world.run(store.repair()) == 3
        assert [held(store, key) for key in ("x", "old", "new")] == [[[2]] * 3, [[None]] * 3, [[1]] * 3]

    @pytest.mark.parametrize("options", [{}, LOOSE])
    def test_it_is_idempotent(self, options):
        """Nothing is written that was not there: no new versions, and nothing to do the second time."""
        world, store, *_ = self.after_partition(**options)
        world.run(store.repair())
        before = [store.copies(key) for key in ("x", "old", "new")]
        assert [world.run(store.repair()) for _ in range(3)] == [0, 0, 0]
        assert [store.copies(key) for key in ("x", "old", "new")] == before
        assert world.run(store.get("x")).version == 2 and world.trace.count("stored") == 5

    @pytest.mark.parametrize("options", [{}, LOOSE])
    def test_it_resurrects_no_deletion(self, options):
        world, store, ann, bob = self.after_partition(**options)
        world.run(store.repair())
        assert self.seen_of_old(world, store, ann, bob) == [None, None]

    def test_replicas_that_keep_no_tombstones_are_caught(self):
        """The planted violation: who forgets what was deleted gets it back from who was away."""
        world, store, ann, bob = society(split(1.0, 4.0), **LOOSE)
        for name in REPLICAS:
            replica = world.agents[name]

            async def forgetful(key, record, replica=replica):
                ballot = await Replica.write(replica, key, record)
                if all(version.entry.deleted for version in record.versions):
                    del replica.records[key]
                return ballot

            replica.write = forgetful

        async def scenario():
            await store.set("old", 1, by=ann)
            await ann.sleep(2.0)
            await store.delete("old", by=bob)
            assert await store.get("old", by=bob) is None
            await ann.sleep(3.0)
            await store.repair()

        world.run(scenario())
        assert self.seen_of_old(world, store, ann, bob) == [1, 1]

    def seen_of_old(self, world, store, *readers):
        return [value(world.run(store.get("old", by=reader))) for reader in readers]

    def test_a_wrong_clock_loses_no_newer_write(self):
        """Bob has read what Ann wrote, and writes; that her clock is an hour fast makes no difference to anybody."""
        ahead = {"ann": 3600.0, "bob": 0.0}

        def by_wall_clock(entries):
            return max(entries, key=lambda entry: entry.time + ahead[entry.author])

        world, store, ann, bob = society(split(1.0, 4.0), resolve=by_wall_clock, **LOOSE)

        async def scenario():
            first = await store.set("x", "first", by=ann)
            await ann.sleep(2.0)
            second = await store.set("x", "newest", by=bob)
            assert by_wall_clock([first, second]) == first  # asked, it would lose Bob's
            await ann.sleep(3.0)
            await store.repair()
            return [value(await store.get("x", by=by)) for by in (ann, bob)]

        assert world.run(scenario()) == ["newest", "newest"]

    @pytest.mark.parametrize("options", [{}, LOOSE])
    def test_whatever_went_wrong_all_replicas_agree_in_the_end(self, options):
        async def scenario(world):
            store = ReplicatedStore(world, resolve=siblings, timeout=1.0, **options)

            async def client(agent):
                for number in range(6):
                    with contextlib.suppress(QuorumMissed):
                        if agent.random.random() < 0.3:
                            await store.delete("x", by=agent)
                        else:
                            await store.set("x", f"{agent.name} {number}", by=agent)
                    await agent.sleep(0.3)

            await asyncio.gather(*[client(world.spawn(Agent(f"client_{number}"))) for number in range(3)])
            await asyncio.sleep(10.0)
            await store.repair()
            first, *others = held(store)
            seen = [value(await store.get("x", by=name)) for name in ("a", "b", "c")]
            return all(copy == first for copy in others), seen == [seen[0]] * 3, await store.repair()

        for seed in range(8):
            plan = [
                Partition(["client_0", "store_1"], ["client_1", "client_2", "store_2", "store_3"], 0.2, 2.0),
                Crash("store_2", 1.0, restart_after=1.0),
            ]
            run = simulate(scenario, seed, schedule="shuffled", faults=FaultPlan(appointments=plan))
            assert run.result == (True, True, 0), run.error

    def test_a_write_that_came_to_nothing_keeps_no_replica_behind(self):
        """The replica on Ann's side has promised her to take nothing older, and then heard no more of her."""
        world, store, ann, bob = society(split(1.0, 9.0), timeout=1.0)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            with pytest.raises(QuorumMissed):
                await store.set("x", 2, by=ann)
            await store.set("x", 3, by=bob)
            await ann.sleep(9.0)
            assert held(store) == [[1], [3], [3]]
            return [await store.repair() for _ in range(2)]

        assert world.run(scenario()) == [1, 0] and held(store) == [[3]] * 3

    def test_a_minority_repairs_nothing(self):
        """What two of five agree on under a new ballot would bury what the other three have written meanwhile."""
        away = Partition(["ann", "store_1", "store_2"], ["bob", "store_3", "store_4", "store_5"], 1.0, 9.0)
        lost = OnMessage("drop", to="store_1", topic="write")
        world, store, ann, bob = society(away, lost, replicas=5, timeout=1.0)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            with pytest.raises(QuorumMissed):  # store_1 has promised, and has nothing; store_2 has promised, and has 1
                await store.set("x", 2, by=ann)
            await store.set("x", 3, by=bob)
            with pytest.raises(QuorumMissed, match="repair of '' in 'store': 2 of 3"):
                await store.repair(by=ann)
            await ann.sleep(9.0)
            await store.repair()
            return [value(await store.get("x", by=by)) for by in (ann, bob)]

        assert world.run(scenario()) == [3, 3] and held(store) == [[3]] * 5

    def test_repairing_what_cannot_be_reached(self):
        world, store, ann, bob = society(split(1.0, 9.0), **LOOSE)

        async def scenario():
            await store.set("x", 1, by=ann)
            await ann.sleep(2.0)
            await store.set("x", 2, by=bob)
            reached = await store.repair(by=bob)  # waits for store_1 until the time is up
            assert (reached, world.now, held(store)) == (0, 7.0, [[1], [2], [2]])
            await ann.sleep(2.0)

        world.run(scenario())
        assert world.run(store.repair(by=bob)) == 1 and held(store) == [[2]] * 3

    def test_nothing_to_repair(self):
        world, store, *_ = society()
        assert world.run(store.repair()) == 0


@st.composite
def versions(draw):
    """Versions of one key, each written by somebody who had seen some of the earlier ones."""
    made: list[Version] = []
    for clock in range(1, draw(st.integers(1, 6)) + 1):
        writer = draw(st.sampled_from("abc"))
        known = [v for v in made if v.ballot[1] == writer or draw(st.booleans())]  # one knows what one has written
        seen = dict(sorted(pair for v in known for pair in v.seen.items()))
        made.append(Version(Entry("x", clock, 1, writer, 0.0), (clock, writer), {**seen, writer: clock}))
    return made


class TestConcurrentVersions:
    @settings(max_examples=100, deadline=None)
    @given(versions(), st.data())
    def test_in_whatever_order_replicas_meet_they_end_with_the_same(self, made, data):
        """What is put together of parts, again and again and in any order, is that of the whole."""
        whole = newest(made)
        order = data.draw(st.permutations(made))
        cut = data.draw(st.integers(0, len(order)))
        one, other = newest(order[:cut]), newest(order[cut:])
        assert newest((*one, *other)) == newest((*other, *one)) == newest((*whole, *one)) == newest(whole) == whole

    @settings(max_examples=100, deadline=None)
    @given(versions())
    def test_nothing_is_lost_but_what_somebody_had_seen(self, made):
        kept = newest(made)
        for version in made:
            later = [v for v in made if v is not version and v.seen.get(version.ballot[1], 0) >= version.ballot[0]]
            assert (version in kept) == (not later)


PLANS = [
    FaultPlan(),
    FaultPlan(drop=0.1, delay=0.3, duplicate=0.1, reorder=0.3),
    FaultPlan(appointments=[Partition(["client_0", "store_1"], ["client_1", "client_2", "store_2", "store_3"], 0, 2)]),
    FaultPlan(appointments=[Crash(name, at, 0.5) for name, at in zip(REPLICAS, (0.2, 0.6, 1.2), strict=True)]),
    FaultPlan(delay=1.0, delay_range=(0.01, 0.3)),
    FaultPlan(0.2, 0.5, delay_range=(0.01, 0.5), appointments=[Partition(["store_1"], ["client_0"], 0.3, 1.0)]),
]


async def rush(world, clients=4, calls=5, **options):
    """Clients call whatever comes to their mind, on one key and a counter; return the impossible keys and the calls."""
    seen = Recorder(ReplicatedStore(world, timeout=3.0, **options))

    async def client(agent):
        draw, version = agent.random, 0
        for _ in range(calls):
            what, chosen = draw.randrange(8), draw.choice([0, 1])
            if what < 3:
                entry = await seen.get(agent, "x")
                version = entry.version if entry else 0
            elif what < 5:
                await seen.set(agent, "x", chosen, None if what == 3 else version)
            elif what == 5:
                await seen.delete(agent, "x")
            elif what == 6:
                await seen.swap(agent, "x", draw.choice([None, 0, 1]), chosen)
            else:
                await seen.add(agent, "n", 1)
            await agent.sleep(draw.choice([0, 0, 0.25]))

    await asyncio.gather(*[client(world.spawn(Agent(f"client_{number}"))) for number in range(clients)])
    unknown = sum(call.result == UNKNOWN for call in seen.calls)
    return {"impossible": contradictions(seen.calls, versioned, ABSENT), "unknown": unknown}


def impossible(seeds, **options):
    """Return the seeds whose histories nobody can put in order; each has its faults."""
    found = []
    for seed in seeds:
        schedule = "shuffled" if seed % 4 else "fifo"
        run = simulate(rush, seed, schedule=schedule, faults=PLANS[seed % len(PLANS)], **options)
        assert run.ok, run.error
        found += [seed] * bool(run.result["impossible"])
    return found


class TestLinearizability:
    """Reads, writes, conditional writes, deletions and updates seem to happen one at a time, whatever the faults."""

    @pytest.mark.parametrize("options", [{}, {"write_quorum": 3}, {"write_quorum": 1}, {"replicas": 5}])
    def test_overlapping_quorums(self, options):
        assert impossible(range(24), **options) == []

    def test_quorums_that_do_not_overlap_are_caught(self):
        assert len(impossible(range(12), **LOOSE)) > 6

    def test_reads_that_complete_nothing_are_caught(self):
        seeds = [4, 37, 41, 70, 97]
        assert impossible(seeds, read_repair=False) == seeds and impossible(seeds) == []

    @pytest.mark.parametrize("rule", ["promises", "accepts"])
    def test_replicas_that_break_a_rule_are_caught(self, rule, monkeypatch):
        """Planted: replicas that forget their promise, or accept below it."""
        read, write = Replica.read.capability.function, Replica.write.capability.function

        async def forgetful(self, key, ballot=(0, "")):
            return await read(self, key)

        async def gullible(self, key, record):
            self.records.pop(key, None)
            return await write(self, key, record)

        if rule == "promises":
            monkeypatch.setattr(Replica, "read", forgetful)
        else:
            monkeypatch.setattr(Replica, "write", gullible)
        assert impossible(range(24))

    def test_somebody_who_writes_twice_at_a_time(self):
        """Every update of one agent counts, also those that it makes at the same time."""

        async def count(world):
            store, ann = ReplicatedStore(world), world.spawn(Agent("ann"))
            await asyncio.gather(*[store.update("n", lambda n: (n or 0) + 1, by=ann) for _ in range(10)])
            return (await store.get("n", by=ann)).value, [e.version for e in await store.history("n")]

        plan = FaultPlan(delay=0.5, delay_range=(0.001, 0.02))
        for seed in range(5):
            run = simulate(count, seed, schedule="shuffled", faults=plan)
            assert run.result == (10, [*range(1, 11)]), run.error

    def test_many_writers_of_one_key_all_come_to_their_end(self):
        async def count(world):
            store = ReplicatedStore(world)
            agents = [world.spawn(Agent(f"agent_{number}")) for number in range(20)]
            await asyncio.gather(*[store.update("n", lambda n: (n or 0) + 1, by=agent) for agent in agents])
            return (await store.get("n")).value

        assert simulate(count, 3, schedule="shuffled").result == 20

    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_the_same_seed_gives_the_same_trace(self, schedule):
        runs = [simulate(rush, 5, schedule=schedule, faults=PLANS[1]) for _ in range(2)]
        assert runs[0].digest == runs[1].digest != simulate(rush, 6, schedule=schedule, faults=PLANS[1]).digest
