"""The checker of histories: it finds an order where there is one, and none where there is none; and the stores pass."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability import (
    ABSENT,
    CONFLICT,
    IMPOSSIBLE,
    UNKNOWN,
    Call,
    Recorder,
    contradictions,
    linearization,
    register,
    versioned,
)

from masbook import simulate
from masbook.coordination import MemoryStore, SQLiteStore
from masbook.coordination.state.store import fits
from masbook.errors import VersionConflict

NEVER = math.inf


def call(action, arguments, result, began, ended, key="k", client="c"):
    return Call(client, action, key, arguments, result, began, ended)


def write(value, version, began, ended, expected=None):
    return call("set", (value, expected), version, began, ended)


def read(result, began, ended):
    return call("get", (), result, began, ended)


class TestHistoriesByHand:
    @pytest.mark.parametrize(
        "history",
        [
            [],
            [read(None, 1, 2), write("1", 1, 3, 4), read((1, "1"), 5, 6)],
            [write("1", 1, 1, 4), read((1, "1"), 2, 3)],  # seen while it is being written
            [write("1", 1, 1, 4), read(None, 2, 3)],  # or not yet
            [write("1", 2, 1, 4), write("2", 1, 2, 3), read((2, "1"), 5, 6)],  # the later call may come first
            [write("1", 1, 1, 2, expected=0), write("2", CONFLICT, 3, 4, expected=0)],
            [write("1", UNKNOWN, 1, NEVER), read(None, 2, 3)],  # it never happened
            [write("1", UNKNOWN, 1, NEVER), read(None, 2, 3), read((1, "1"), 4, 5)],  # it happened late
            [write("1", 1, 1, 2), call("delete", (), 2, 3, 4), read(None, 5, 6), write("2", 3, 7, 8, expected=0)],
            [call("swap", (None, "1"), 1, 1, 2), call("swap", ("2", "3"), None, 3, 4)],
            [call("add", (1,), 1, 1, 4), call("add", (1,), 2, 2, 3), read((2, "2"), 5, 6)],
        ],
    )
    def test_possible(self, history):
        order = linearization(history, versioned, ABSENT)
        assert order is not None
        state = ABSENT
        for one in order:
            state = versioned(state, one)
            assert state is not IMPOSSIBLE

    @pytest.mark.parametrize(
        "history",
        [
            [write("1", 1, 1, 2), read(None, 3, 4)],  # a stale read
            [write("1", 1, 1, 2), write("2", 2, 3, 4), read((1, "1"), 5, 6)],  # another
            [write("1", 1, 1, 6), read((1, "1"), 2, 3), read(None, 4, 5)],  # seen, then not seen
            [call("add", (1,), 1, 1, 4), call("add", (1,), 2, 2, 3), read((2, "1"), 5, 6)],  # a lost update
            [call("add", (1,), 1, 1, 4), call("add", (1,), 1, 2, 3)],  # the same version twice
            [write("1", 1, 1, 2), write("2", 2, 3, 4, expected=0)],  # a write that came too late and was done
            [write("1", CONFLICT, 1, 2, expected=0)],  # a conflict with nobody
            [write("1", 1, 1, 2), call("delete", (), 2, 3, 4), write("2", 1, 5, 6)],  # a version that comes again
            [write("1", UNKNOWN, 1, NEVER), read((1, "1"), 2, 3), read(None, 4, 5)],  # done, then undone
            [call("swap", ("1", "2"), 1, 1, 2)],  # swapped against what was not there
        ],
    )
    def test_impossible(self, history):
        assert linearization(history, versioned, ABSENT) is None

    def test_each_key_for_itself(self):
        good, bad = read(None, 1, 2), write("1", 7, 1, 2)
        assert contradictions([good, bad, call("get", (), (1, "1"), 3, 4, key="other")], versioned, ABSENT) == [
            "k",
            "other",
        ]

    def test_a_register_takes_any_versions_but_not_any_value(self):
        history = [write("1", 4, 1, 2), write("2", 9, 3, 4)]
        assert linearization([*history, read((9, "2"), 5, 6)], register, ABSENT)
        assert linearization([*history, read((4, "1"), 5, 6)], register, ABSENT) is None


@st.composite
def histories(draw: Any) -> list[Call]:
    """A few calls with arbitrary results, of which some overlap."""
    number = draw(st.integers(1, 5))
    places = draw(st.permutations(range(2 * number)))
    calls = []
    for i in range(number):
        began, ended = sorted(places[2 * i : 2 * i + 2])
        version = draw(st.integers(1, 3))
        value = draw(st.sampled_from(["1", "2"]))
        calls.append(
            draw(
                st.sampled_from(
                    [
                        write(value, version, began, ended),
                        write(value, draw(st.sampled_from([version, CONFLICT])), began, ended, expected=version - 1),
                        write(value, UNKNOWN, began, NEVER),
                        read(draw(st.sampled_from([None, (version, value)])), began, ended),
                        call("delete", (), draw(st.sampled_from([None, version])), began, ended),
                    ]
                )
            )
        )
    return calls


@settings(max_examples=300, deadline=None)
@given(histories())
def test_it_finds_an_order_whenever_trying_all_of_them_does(history):
    def possible(order):
        state = ABSENT
        for place, one in enumerate(order):
            if any(later.ended < one.began for later in order[place + 1 :]):
                return False
            state = versioned(state, one)
            if state is IMPOSSIBLE:
                return False
        return True

    done = [one for one in history if one.ended < NEVER]
    maybe = [one for one in history if one.ended == NEVER]
    chosen = ([*done, *some] for length in range(len(maybe) + 1) for some in itertools.combinations(maybe, length))
    expected = any(possible(order) for some in chosen for order in itertools.permutations(some))
    assert (linearization(history, versioned, ABSENT) is not None) == expected


class HastyStore(MemoryStore):
    """Reads, waits, and writes what follows from what it has read: two writers can be at it at once."""

    async def set(self, key, value, *, by, expected_version=None, ttl=None):
        found = self._find(key)
        if expected_version is not None and not fits(found, expected_version):
            raise VersionConflict(key)
        await asyncio.sleep(0)
        return self._write(key, found, value, by)


class StaleStore(MemoryStore):
    """Answers with what was there a moment ago."""

    async def get(self, key, *, by=None):
        entry = await super().get(key)
        await asyncio.sleep(0.25)
        return entry


class ForgetfulStore(MemoryStore):
    """Answers one question in three with the entry before the last."""

    async def get(self, key, *, by=None):
        past = await self.history(key)
        if len(past) > 1 and self.world.random("lapses").random() < 0.3:
            return None if past[-2].deleted else past[-2]
        return await super().get(key)


async def rush(world, kind=MemoryStore, clients=4, calls=5):
    """Clients call whatever comes to their mind, on two keys; return the keys whose history is impossible."""
    seen = Recorder(kind(world))

    async def client(name):
        draw = world.random(name)
        versions = dict.fromkeys("xy", 0)
        for number in range(calls):
            key, what = draw.choice("xy"), draw.randrange(7)
            if what < 2:
                entry = await seen.get(name, key)
                versions[key] = entry.version if entry else 0
            elif what == 2:
                await seen.set(name, key, number)
            elif what == 3:
                await seen.set(name, key, number, versions[key])
            elif what == 4:
                await seen.delete(name, key)
            elif what == 5:
                await seen.swap(name, key, draw.choice([None, 0, 1]), number)
            else:
                await seen.add(name, key, 1, slowly(draw.choice([0, 0.25])), in_line=draw.random() < 0.5)
            await asyncio.sleep(draw.choice([0, 0, 0.25]))

    def slowly(seconds):
        async def change(value):
            await asyncio.sleep(seconds)
            return (value or 0) + 1

        return change

    await asyncio.gather(*[client(f"client_{number}") for number in range(clients)])
    return contradictions(seen.calls, versioned, ABSENT)


def seeds_with_contradictions(kind, seeds):
    runs = [simulate(rush, seed, schedule="shuffled" if seed % 4 else "fifo", kind=kind) for seed in seeds]
    assert [run.error for run in runs if not run.ok] == []
    return [run.seed for run in runs if run.result]


class TestStores:
    def test_the_memory_store_is_linearizable(self):
        assert seeds_with_contradictions(MemoryStore, range(200)) == []

    def test_the_store_in_a_file_is_linearizable(self):
        assert seeds_with_contradictions(SQLiteStore, range(20)) == []

    @pytest.mark.parametrize("kind", [HastyStore, ForgetfulStore])
    def test_a_broken_store_is_caught(self, kind):
        assert len(seeds_with_contradictions(kind, range(20))) > 10

    def test_a_slow_answer_is_no_contradiction(self):
        """It was true at some instant between the question and the answer."""
        assert seeds_with_contradictions(StaleStore, range(20)) == []
