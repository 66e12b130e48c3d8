"""The trace: declared kinds only, one digest everywhere, and three modes that prove the same."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from society import FAULTY, Calculator, Recorder, gossip, missing

from masbook import Agent, World, simulate
from masbook.errors import InvalidValue, MasbookError, Unrecordable
from masbook.runtime.trace import KINDS, Trace


def fill(trace, rows=10, shift=0):
    for i in range(rows):
        trace.record("note", f"a{i % 3}", text=str(i + shift), data={"i": i})
    return trace


class TestRecord:
    def test_only_declared_kinds(self):
        trace = Trace()
        with pytest.raises(InvalidValue, match="note"):
            trace.record("surprise", "a")
        assert len(trace) == 0

    def test_only_declared_fields(self):
        trace = Trace()
        with pytest.raises(InvalidValue, match="text, data"):
            trace.record("note", "a", txt="typo")
        assert len(trace) == 0

    def test_only_what_can_be_recorded(self):
        trace = Trace()
        with pytest.raises(Unrecordable, match="data"):
            trace.record("note", "a", data={1, 2})
        assert len(trace) == 0
        assert len(fill(trace).digest) == 64

    def test_fields_not_given_are_none(self):
        trace = Trace()
        trace.record("note", "a")
        (event,) = trace
        assert event == (0.0, "note", "a", {"text": None, "data": None})

    def test_every_kind_that_a_busy_run_records_is_declared_and_complete(self):
        run = simulate(gossip, 3, faults=FAULTY)
        kinds = {event.kind for event in run.trace}
        assert kinds <= set(KINDS) and len(kinds) >= 8
        for event in run.trace:
            assert tuple(event.facts) == KINDS[event.kind]

    def test_times_never_go_back(self):
        times = [event.time for event in simulate(gossip, 3, faults=FAULTY, schedule="shuffled").trace]
        assert times == sorted(times)

    def test_the_who_of_each_kind(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        world.run(client.request("calc", "add", a=1, b=1))
        story = [(event.kind, event.who) for event in world.trace if event.kind in ("sent", "delivered", "handled")]
        assert story == [
            ("sent", "client"), ("delivered", "calc"), ("sent", "calc"), ("delivered", "client"), ("handled", "calc"),
        ]  # fmt: skip


class TestReading:
    def test_by_kind_and_who(self):
        trace = fill(Trace())
        trace.record("stopped", "a1", reason="x")
        assert len(list(trace.events("note"))) == 10
        assert [event.facts["text"] for event in trace.events("note", "a1")] == ["1", "4", "7"]
        assert [event.kind for event in trace.events(who="a1")] == ["note"] * 3 + ["stopped"]
        assert list(trace.events("crashed")) == []
        assert len(trace) == len(list(trace)) == 11

    def test_counts(self):
        trace = fill(Trace())
        assert trace.count("note") == 10 and trace.count("note", "a0") == 4 and trace.count("crashed") == 0
        fill(trace)
        assert trace.count("note") == 20 and trace.count("note", "a0") == 8

    def test_counting_does_not_change_what_is_equal(self):
        one, two = fill(Trace()), fill(Trace())
        one.count("nothing", "nobody")
        assert one == two and one.digest == two.digest
        assert pickle.dumps(one) == pickle.dumps(two)

    def test_copies_counts_each_recipient(self, world):
        for i in range(3):
            world.spawn(Recorder(f"r{i}"))
        world.run(world.agents["r0"].broadcast("t"))
        assert world.trace.count("sent") == 1 and world.trace.count("copies") == 2


class TestObservers:
    def test_hear_everything_in_order_until_they_stop(self):
        trace, heard = Trace(), []
        stop = trace.observe(heard.append)
        fill(trace, 3)
        stop()
        stop()
        fill(trace, 3)
        assert heard == list(trace)[:3]

    def test_they_see_messages_too(self, world):
        heard = []
        world.trace.observe(heard.append)
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        world.run(client.request("calc", "add", a=1, b=1))
        assert heard == list(world.trace)[-len(heard) :] and {"sent", "delivered"} <= {event.kind for event in heard}

    def test_they_do_not_change_the_run(self):
        async def watched(world: World):
            world.trace.observe(lambda event: None)
            return await gossip(world)

        assert simulate(watched, 5).digest == simulate(gossip, 5).digest

    def test_several(self):
        trace, first, second = Trace(), [], []
        trace.observe(first.append)
        stop = trace.observe(second.append)
        fill(trace, 2)
        stop()
        fill(trace, 2)
        assert len(first) == 4 and len(second) == 2

    def test_an_observer_that_fails_does_not_lose_the_row(self, world):
        def broken(event):
            raise KeyError("observer")

        world.trace.observe(broken)
        with contextlib.suppress(KeyError):
            world.spawn(Agent("a"))
        assert world.trace.count("spawned", "a") == 1
        assert len(world.trace.digest) == 64


class TestDigest:
    def test_is_sha_256_in_hex(self):
        assert len(Trace().digest) == 64 and int(Trace().digest, 16)

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t.record("note", "a", text="x", data={"i": 2}),
            lambda t: t.record("note", "b", text="x", data={"i": 1}),
            lambda t: t.record("note", "a", text="y", data={"i": 1}),
            lambda t: t.record("note", "a", text="x", data={"i": 1.0}),
            lambda t: t.record("note", "a", text="x", data={"i": "1"}),
            lambda t: t.record("note", "a", text="x", data={"i": True}),
            lambda t: t.record("note", "a", text="x", data=["i", 1]),
            lambda t: t.record("stopped", "a", reason="x"),
            lambda t: None,
        ],
    )
    def test_every_difference_shows(self, change):
        plain, other = Trace(), Trace()
        plain.record("note", "a", text="x", data={"i": 1})
        change(other)
        assert plain.digest != other.digest and plain != other

    def test_the_time_shows(self):
        digests = set()
        for now in (0.0, 1.0, 1.0000000000000002):
            trace = Trace()
            trace.clock = lambda now=now: now
            digests.add(fill(trace).digest)
        assert len(digests) == 3

    def test_order_of_rows_shows_order_of_keys_does_not(self):
        one, two, three = Trace(), Trace(), Trace()
        one.record("note", "a", data={"x": 1, "y": 2})
        two.record("note", "a", data={"y": 2, "x": 1})
        assert one.digest == two.digest
        three.record("note", "b")
        one.record("note", "b")
        three.record("note", "a", data={"x": 1, "y": 2})
        assert one.digest != three.digest

    def test_asking_in_between_changes_nothing(self):
        asked, never = Trace(), Trace()
        for i in range(20):
            asked.record("note", "a", text=str(i))
            never.record("note", "a", text=str(i))
            _ = asked.digest
        assert asked.digest == never.digest

    def test_is_a_function_of_the_rows_alone(self):
        """The digest can be computed again from what is saved: nothing hidden goes in."""
        one, two = fill(Trace()), Trace()
        for event in one:
            two.record(event.kind, event.who, **event.facts)
        assert one.digest == two.digest

    def test_equal_traces_of_equal_runs(self):
        one, two = simulate(gossip, 7, faults=FAULTY), simulate(gossip, 7, faults=FAULTY)
        assert one.digest == two.digest == one.trace.digest and one.trace == two.trace
        assert one.trace.first_difference(two.trace) is None

    @settings(max_examples=25, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_any_plain_value_has_one_and_survives_saving(self, value):
        import tempfile
        from pathlib import Path

        trace = Trace()
        trace.record("note", "a", data={"value": value})
        with tempfile.TemporaryDirectory() as folder:
            again = Trace.load(trace.save(Path(folder) / "trace.gz"))
        assert again == trace and list(again) == list(trace)


class TestFirstDifference:
    def test_names_the_row_and_both_events(self):
        one, two = fill(Trace()), fill(Trace(), 5)
        two.record("stopped", "a2", reason="here")
        number, mine, theirs = one.first_difference(two)
        assert (number, mine.kind, theirs.kind) == (5, "note", "stopped")
        assert two.first_difference(one)[1].kind == "stopped"

    @pytest.mark.parametrize("rows", [0, 1, 9])
    def test_one_is_longer(self, rows):
        one, two = fill(Trace()), fill(Trace(), rows)
        number, mine, theirs = one.first_difference(two)
        assert number == rows and mine.facts["text"] == str(rows) and theirs is None
        assert two.first_difference(one) == (rows, None, mine)

    def test_between_seeds(self):
        one, two = simulate(gossip, 1), simulate(gossip, 2)
        number, mine, theirs = one.trace.first_difference(two.trace)
        assert mine != theirs
        assert list(one.trace)[:number] == list(two.trace)[:number]


class TestModes:
    @pytest.mark.parametrize(
        "make", [lambda: Trace.ring(10), lambda: Trace.ring(5000), Trace.counts], ids=["ring", "big", "counts"]
    )
    def test_same_digest_and_counts_as_full(self, make):
        full, other = Trace.full(), make()
        for i in range(20_000):
            for trace in (full, other):
                trace.record("note" if i % 3 else "stopped", f"a{i % 7}")
            if i == 7777:
                assert full.digest == other.digest
        assert other.digest == full.digest and len(other) == len(full) == 20_000 and other == full
        for kind in ("note", "stopped", "crashed"):
            assert other.count(kind) == full.count(kind)
            assert all(other.count(kind, f"a{i}") == full.count(kind, f"a{i}") for i in range(7))
        assert len(other.rows) < 12_000

    @pytest.mark.parametrize("make", [lambda: Trace.ring(3), Trace.counts])
    def test_in_a_run(self, make):
        run, full = simulate(gossip, 7, faults=FAULTY, trace=make()), simulate(gossip, 7, faults=FAULTY)
        assert run.digest == full.digest and run.result == full.result
        assert run.trace.count("copies") == full.trace.count("copies")

    def test_a_ring_keeps_the_last_rows(self):
        trace = fill(Trace.ring(100), 20_000)
        rows = [event.facts["text"] for event in trace]
        assert len(rows) >= 100 and rows[-100:] == [str(i) for i in range(19_900, 20_000)]
        assert not trace.complete and fill(Trace.ring(100)).complete

    def test_observers_hear_everything_in_each_mode(self):
        for trace in (Trace.ring(1), Trace.counts()):
            heard = []
            trace.observe(heard.append)
            fill(trace, 10_000)
            assert len(heard) == 10_000

    @pytest.mark.parametrize("rows", [0, -1, 1.5, None])
    def test_a_ring_has_room(self, rows):
        with pytest.raises(InvalidValue):
            Trace.ring(rows)

    def test_a_trace_belongs_to_one_world(self):
        trace = Trace()
        World(1, trace=trace).close()
        with pytest.raises(MasbookError):
            World(2, trace=trace)


class TestSaving:
    @pytest.mark.parametrize("make", [Trace.full, lambda: Trace.ring(5), Trace.counts], ids=["full", "ring", "counts"])
    def test_round_trip(self, tmp_path, make):
        run = simulate(gossip, 7, faults=FAULTY, trace=make())
        again = Trace.load(run.trace.save(tmp_path / "run.trace"))
        assert again == run.trace and again.digest == run.digest and len(again) == len(run.trace)
        assert list(again) == list(run.trace)
        assert again.count("copies") == run.trace.count("copies")
        assert again.count("sent", "g0") == run.trace.count("sent", "g0")

    def test_saving_does_not_end_a_trace(self, tmp_path):
        trace = fill(Trace())
        trace.save(tmp_path / "t")
        assert fill(trace, 5, shift=100).count("note") == 15
        assert Trace.load(tmp_path / "t").count("note") == 10

    def test_saving_twice_gives_the_same_bytes(self, tmp_path):
        one, two = (simulate(gossip, 7).trace.save(tmp_path / name) for name in ("one", "two"))
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()

    def test_one_file(self, tmp_path):
        fill(Trace()).save(tmp_path / "t")
        assert [path.name for path in tmp_path.iterdir()] == ["t"]

    def test_loading_does_not_make_content_changeable(self, tmp_path):
        again = Trace.load(fill(Trace()).save(tmp_path / "t"))
        (event, *_) = again
        with pytest.raises(TypeError):
            event.facts["data"]["i"] = 99

    def test_odd_numbers(self, tmp_path):
        trace = Trace()
        trace.record("note", "a", data=[math.inf, -math.inf, 0.1 + 0.2, 1e-320, 2**80])
        assert list(Trace.load(trace.save(tmp_path / "t"))) == list(trace)

    @pytest.mark.parametrize(
        "content",
        [b"", b"not a trace", gzip.compress(b"{}"), gzip.compress(b"[1]\n[2]"), gzip.compress(b"")],
        ids=["nothing", "text", "no format", "no header", "an empty archive"],
    )
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(InvalidValue, match="t "):
            Trace.load(tmp_path / "t")

    def test_a_missing_file(self, tmp_path):
        with pytest.raises((InvalidValue, FileNotFoundError)):
            Trace.load(tmp_path / "nowhere")

    def test_a_truncated_or_altered_file_is_refused(self, tmp_path):
        path = fill(Trace()).save(tmp_path / "t")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InvalidValue):
            Trace.load(path)
        lines = gzip.decompress(whole).decode().splitlines()
        row = json.loads(lines[3])
        row[3] = "altered"
        lines[3] = json.dumps(row)
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        with pytest.raises(InvalidValue):
            Trace.load(path)

    def test_pickling(self):
        trace = simulate(gossip, 7).trace
        again = pickle.loads(pickle.dumps(trace))
        assert again == trace and list(again) == list(trace)


class TestSealed:
    def test_the_trace_of_a_run_takes_no_more_rows(self):
        run = simulate(gossip, 7)
        with pytest.raises(MasbookError):
            run.trace.record("note", "a")
        assert run.trace.digest == run.digest

    def test_nor_after_pickling(self):
        run = pickle.loads(pickle.dumps(simulate(gossip, 7)))
        with pytest.raises(MasbookError):
            run.trace.record("note", "a")
        assert run.trace.digest == run.digest


class TestBadObservers:
    @pytest.mark.parametrize("who", [Recorder("a"), None, 7], ids=["agent", "None", "7"])
    def test_who_is_a_name(self, world, who):
        with pytest.raises(MasbookError):
            world.trace.record("note", who, text="x")
        assert len(world.trace.digest) == 64

    def test_one_that_ends_itself_costs_the_next_one_nothing(self, world):
        seen = []
        stop = world.trace.observe(lambda event: stop())
        world.trace.observe(lambda event: seen.append(event.kind))
        world.trace.record("note", "a", text="x")
        world.trace.record("note", "a", text="y")
        assert seen == ["note", "note"]

    def test_one_that_ends_another(self, world):
        seen, stops = [], []
        world.trace.observe(lambda event: [stop() for stop in stops])
        stops.append(world.trace.observe(lambda event: seen.append(event.kind)))
        world.trace.observe(lambda event: seen.append("last"))
        world.trace.record("note", "a", text="x")
        world.trace.record("note", "a", text="y")
        assert seen.count("last") == 2 and seen.count("note") <= 1

    def test_one_that_fails_harms_neither_the_bus_nor_the_others(self, world):
        def bad(event):
            if event.kind == "sent":
                raise ValueError("observer")

        seen = []
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))
        world.trace.observe(bad)
        world.trace.observe(lambda event: seen.append(event.kind))
        with contextlib.suppress(ValueError, MasbookError):
            world.run(sender.tell("recorder", "t"))
        with contextlib.suppress(ValueError, MasbookError):
            world.run(until=1.0)
        assert recorder.topics == ["t"] and "delivered" in seen
        assert missing(world) == 0 and sender.state == "idle"


class TestOddValues:
    def test_rows_with_nan_do_not_differ_from_themselves(self, tmp_path):
        one, two = (fill(Trace()) for _ in range(2))
        for trace in (one, two):
            trace.record("note", "a", text="x", data={"z": math.nan, "b": [math.nan]})
        assert one.digest == two.digest and one.first_difference(two) is None
        one.save(tmp_path / "trace.gz")
        assert Trace.load(tmp_path / "trace.gz").first_difference(two) is None

    def test_saving_keeps_the_order_of_fields(self, tmp_path):
        trace = Trace()
        trace.record("note", "a", text="x", data={"zebra": 1, "ant": 2})
        trace.save(tmp_path / "trace.gz")
        [event] = Trace.load(tmp_path / "trace.gz").events()
        assert list(event.facts["data"]) == ["zebra", "ant"]
