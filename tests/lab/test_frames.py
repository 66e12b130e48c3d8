"""Frames against numbers computed by hand, the same dtypes when empty, and a trace that has been tampered with."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import pandas as pd
import pytest

from masbook import Agent, FaultPlan, MasbookError, World, capability, on, simulate
from masbook.errors import InvalidValue
from masbook.lab import frames
from masbook.runtime.faults import Crash, OnMessage
from masbook.runtime.trace import KINDS, Trace

FRAMES = [frames.messages, frames.deliveries, frames.requests, frames.agents, frames.faults, frames.states]


class Clerk(Agent):
    @capability
    async def stamp(self, number: int = 0, seconds: float = 1.0) -> int:
        if number < 0:
            raise ValueError("no such form")
        await self.sleep(seconds)
        return number

    @capability
    async def pages(self, number: int):
        for page in range(number):
            await self.sleep(1.0)
            yield page

    @on("bell")
    async def bell(self, message):
        await self.sleep(0.25)


async def three_forms(world, concurrency=1):
    """Three forms at once to one clerk who takes a second for each."""
    clerk = world.spawn(Clerk("clerk", concurrency=concurrency))
    client = world.spawn(Agent("client"))
    for number in range(3):
        await client.tell("clerk", "stamp", number=number)
    await clerk.sleep(4.0)


async def nothing(world):
    pass


async def everything(world):
    """Every kind of outcome at least once."""
    clerk = world.spawn(Clerk("clerk"), restart="on_crash", backoff=0.5)
    client = world.spawn(Agent("client"))
    other = world.spawn(Clerk("other", heartbeat=1.0))
    assert await client.request("clerk", "stamp", number=1) == 1
    for ask in (
        client.request("clerk", "stamp", number=-1),
        client.request("nobody", "stamp"),
        client.request("clerk", "stamp", timeout=0.5),
        client.request("clerk", "stamp", timeout=1.5, on_timeout="cancel"),
    ):
        with suppress(MasbookError, ValueError):
            await ask
    async for _ in client.stream("clerk", "pages", number=5):
        break
    assert [page async for page in client.stream("clerk", "pages", number=2)] == [0, 1]
    await client.publish("bell")
    await client.publish("silence")
    clerk.crash(RuntimeError("out of ink"))
    await client.sleep(1.0)
    other.note("done", share=0.5)
    other.stop()
    with suppress(MasbookError):
        await client.request("other", "stamp")
    client.background(client.request("clerk", "stamp", seconds=99.0))
    await client.sleep(2.0)


def values(frame, *columns):
    """The columns as a list of tuples, missing values as None."""
    rows = frame[list(columns)].astype(object).itertuples(index=False, name=None)
    return [tuple(None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in row) for row in rows]


def tampered(trace, drop):
    """A copy of a trace without the rows that `drop` picks."""
    copy = Trace.full()
    for row in trace.rows:
        if not drop(row):
            copy.append(row)
    return copy


def test_waiting_service_and_latency_of_three_forms_by_hand():
    found = frames.deliveries(simulate(three_forms))
    assert values(found, "message", "sent", "delivered", "finished", "waiting", "service", "latency", "outcome") == [
        (1, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, "handled"),
        (2, 0.0, 1.0, 2.0, 1.0, 1.0, 2.0, "handled"),
        (3, 0.0, 2.0, 3.0, 2.0, 1.0, 3.0, "handled"),
    ]
    assert values(found, "type", "sender", "to", "topic", "reason") == [("tell", "client", "clerk", "stamp", None)] * 3


def test_states_and_utilisation_by_hand():
    run = simulate(three_forms)
    assert values(frames.states(run), "who", "state", "start", "end", "duration") == [
        ("clerk", "busy", 0.0, 3.0, 3.0),
        ("clerk", "idle", 3.0, 4.0, 1.0),
        ("client", "idle", 0.0, 4.0, 4.0),
    ]
    assert values(frames.agents(run), "who", "type", "state", "sent", "received", "handled", "busy", "utilisation") == [
        ("clerk", "Clerk", "idle", 0, 3, 3, 3.0, 0.75),
        ("client", "Agent", "idle", 3, 0, 0, 0.0, 0.0),
    ]


def test_concurrency_shares_the_work_but_is_busy_once():
    run = simulate(three_forms, concurrency=2)
    assert values(frames.deliveries(run), "delivered", "finished") == [(0.0, 1.0), (0.0, 1.0), (1.0, 2.0)]
    assert values(frames.states(run), "who", "state", "end")[:2] == [("clerk", "busy", 2.0), ("clerk", "idle", 4.0)]
    assert values(frames.agents(run), "concurrency", "busy", "utilisation")[0] == (2, 3.0, 3.0 / (2 * 4.0))


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("drop", [(1, None, 0.0, "dropped"), (2, 0.0, 1.0, "handled"), (3, 1.0, 2.0, "handled")]),
        # it arrives at 0.75, behind the two others, of which the second begins at 1
        ("delay", [(1, 2.0, 3.0, "handled"), (2, 0.0, 1.0, "handled"), (3, 1.0, 2.0, "handled")]),
        (
            "duplicate",
            [(1, 0.0, 1.0, "handled"), (1, 1.0, 2.0, "handled"), (2, 2.0, 3.0, "handled"), (3, 3.0, 4.0, "handled")],
        ),
    ],
)
def test_a_fault_shows_in_the_deliveries_and_in_the_faults(action, expected):
    run = simulate(three_forms, faults=FaultPlan(appointments=[OnMessage(action, to="clerk", seconds=0.75)]))
    assert values(frames.deliveries(run), "message", "delivered", "finished", "outcome") == expected
    seconds = 0.75 if action == "delay" else None
    assert values(frames.faults(run), "time", "who", "fault", "seconds", "message", "type", "sender", "topic") == [
        (0.0, "clerk", action, seconds, 1, "tell", "client", "stamp")
    ]
    lost = int(action == "drop")
    statuses = ["dropped" if lost else "handled", "handled", "handled"]
    assert list(frames.messages(run)["status"]) == statuses
    assert list(frames.messages(run)["lost"]) == [lost, 0, 0]


def test_a_crash_fails_what_is_in_hand_and_keeps_the_rest_waiting():
    run = simulate(three_forms, faults=FaultPlan(appointments=[Crash("clerk", at=0.5, restart_after=0.25)]))
    found = frames.deliveries(run)
    assert values(found, "delivered", "finished", "waiting", "outcome") == [
        (0.0, 0.5, 0.0, "failed"),
        (0.75, 1.75, 0.75, "handled"),
        (1.75, 2.75, 1.75, "handled"),
    ]
    assert "clerk was crashed by the fault plan" in found["reason"][0]
    assert values(frames.states(run), "state", "start", "end")[:4] == [
        ("busy", 0.0, 0.5),
        ("error", 0.5, 0.75),
        ("busy", 0.75, 2.75),
        ("idle", 2.75, 4.0),
    ]
    assert values(frames.agents(run), "failed", "crashes", "restarts", "busy")[0] == (1, 1, 1, 2.5)
    fired = values(frames.faults(run), "time", "who", "fault", "message", "type")
    assert fired == [(0.5, "clerk", "crash", None, None)]


def test_every_outcome_of_a_request():
    run = simulate(everything)
    assert run.ok, run.error
    assert values(frames.requests(run), "to", "capability", "sent", "answered", "latency", "outcome", "error") == [
        ("clerk", "stamp", 0.0, 1.0, 1.0, "reply", None),
        ("clerk", "stamp", 1.0, 1.0, 0.0, "error", "ValueError: no such form"),
        ("nobody", "stamp", 1.0, None, None, "dead", "unknown recipient"),
        ("clerk", "stamp", 1.0, None, None, "timed_out", "no answer in 0.5 s"),
        ("clerk", "stamp", 1.5, None, None, "timed_out", "no answer in 1.5 s"),
        ("clerk", "pages", 3.0, None, None, "cancelled", None),
        ("clerk", "pages", 4.0, 6.0, 2.0, "reply", None),
        ("other", "stamp", 7.0, None, None, "dead", "offline"),
        ("clerk", "stamp", 7.0, None, None, "pending", None),
    ]


def test_a_late_reply_is_a_dead_letter_and_answers_nothing():
    run = simulate(everything)
    dead = frames.deliveries(run).query("outcome == 'dead' and type == 'reply'")
    assert values(dead, "sender", "to", "finished", "latency", "reason") == [("clerk", "client", 2.0, None, "late")]


def test_what_is_in_hand_at_the_end_has_not_failed():
    run = simulate(everything)
    assert run.trace.count("failed") > 0 and run.trace.rows[-1][1] != "sent"
    last = frames.deliveries(run).iloc[-1]
    assert (last["to"], last["delivered"], last["outcome"]) == ("clerk", 7.0, "delivered")
    assert math.isnan(last["finished"]) and math.isnan(last["latency"])
    final = {"clerk": "busy", "client": "idle", "other": "offline", "registry": "idle"}
    assert dict(values(frames.agents(run), "who", "state")) == final
    assert set(frames.events(run, "stopped")["reason"]) == {"stop", "world closed"}


def test_a_publication_counts_its_recipients():
    sent = frames.messages(simulate(everything)).query("type == 'publish'")
    assert values(sent, "to", "topic", "copies", "delivered", "handled", "lost", "status") == [
        (None, "bell", 2, 2, 2, 0, "handled"),
        (None, "silence", 0, 0, 0, 0, "no recipient"),
    ]
    plan = FaultPlan(appointments=[OnMessage("drop", to="other", topic="bell")])
    sent = frames.messages(simulate(everything, faults=plan)).query("topic == 'bell'")
    assert values(sent, "copies", "delivered", "handled", "lost", "status") == [(2, 1, 1, 1, "mixed")]


def test_messages_say_what_they_answer():
    sent = frames.messages(simulate(everything)).query("type != 'heartbeat'")
    assert values(sent, "message", "type", "cause", "reply_to", "conversation", "content")[:2] == [
        (1, "request", None, None, 1, {"number": 1}),
        (3, "reply", 1, 1, 1, {"result": 1}),
    ]


@pytest.mark.parametrize("frame", FRAMES)
def test_an_empty_frame_has_the_dtypes_of_a_full_one(frame):
    plan = FaultPlan(appointments=[OnMessage("delay", topic="bell"), Crash("other", at=0.5, restart_after=0.1)])
    empty, full = frame(simulate(nothing)), frame(simulate(everything, faults=plan))
    assert empty.empty and not full.empty
    assert dict(empty.dtypes) == dict(full.dtypes)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_events_are_typed_also_when_there_are_none(kind):
    plan = FaultPlan(appointments=[OnMessage("delay"), OnMessage("duplicate", nth=2), OnMessage("drop", nth=3)])
    empty, full = frames.events(Trace.full(), kind), frames.events(simulate(everything, faults=plan), kind)
    assert empty.empty
    assert dict(empty.dtypes) == dict(full.dtypes)
    if kind is not None:
        assert list(empty) == ["time", "kind", "who", *KINDS[kind]]


def test_every_declared_field_has_a_dtype():
    assert {field for fields in KINDS.values() for field in fields} <= set(frames.DTYPES)


def test_events_are_the_rows_of_the_trace():
    run = simulate(everything)
    assert len(frames.events(run)) == len(run.trace)
    notes = frames.events(run, "note")
    assert values(notes, "time", "kind", "who", "text", "data") == [(7.0, "note", "other", "done", {"share": 0.5})]
    assert len(frames.events(run, "sent")) == run.trace.count("sent")
    with pytest.raises(InvalidValue, match="the kinds are spawned"):
        frames.events(run, "snet")


@pytest.mark.parametrize("frame", FRAMES)
def test_a_run_its_trace_and_a_saved_trace_tell_the_same(frame, tmp_path):
    run = simulate(everything)
    saved = Trace.load(run.trace.save(tmp_path / "trace.gz"))
    pd.testing.assert_frame_equal(frame(run), frame(saved))
    pd.testing.assert_frame_equal(frame(run), frame(run.trace))


@pytest.mark.parametrize("frame", [*FRAMES, frames.events])
def test_what_has_no_trace_is_refused(frame):
    with pytest.raises(InvalidValue, match="give a Run, a World or a Trace"):
        frame([1, 2])


@pytest.mark.parametrize("frame", FRAMES)
def test_a_trace_that_has_dropped_rows_is_refused(frame):
    trace = Trace.ring(10)
    for number in range(10_000):
        trace.record("note", "client", text=str(number))
    with pytest.raises(InvalidValue, match=r"of 10,000 rows.*Trace\.full\(\)"):
        frame(trace)
    assert 10 <= len(frames.events(trace, "note")) < 10_000


def ledger(world):
    """The bus's book, computed from the frame of deliveries."""
    found = frames.deliveries(world)
    outcomes = found["outcome"].value_counts()
    return {
        "sent": int(frames.messages(world)["copies"].sum()),
        "duplicated": len(found) - int(frames.messages(world)["copies"].sum()),
        "delivered": int(found["delivered"].notna().sum()),
        "dropped": int(outcomes.get("dropped", 0)),
        "dead": int(outcomes.get("dead", 0)),
        "in_flight": int(outcomes.get("in flight", 0)),
    }


async def crowd(world):
    team = [world.spawn(Clerk(f"clerk_{i}", capacity=3, policy="drop_oldest"), restart="on_crash") for i in range(4)]

    async def work(agent):
        for number in range(6):
            await agent.sleep(world.random(agent.name).random())
            await agent.publish("bell")
            with suppress(MasbookError):
                await agent.request(world.random(agent.name).choice(team).name, "stamp", number=number, timeout=2.0)

    async with asyncio.TaskGroup() as group:
        for agent in team:
            group.create_task(work(agent))


@pytest.mark.parametrize("seed", range(12))
def test_deliveries_balance_like_the_bus(seed):
    plan = FaultPlan(drop=0.1, delay=0.2, duplicate=0.1, reorder=0.1, appointments=[Crash("clerk_1", at=1.5)])
    with World(seed, faults=plan) as world:
        world.run(crowd(world))
        book = world.bus.accounting()
        assert book.pop("missing") == 0
        assert ledger(world) == book


def test_intervals_are_without_gaps_from_birth_to_end():
    run = simulate(crowd, 5, faults=FaultPlan(drop=0.1, appointments=[Crash("clerk_1", at=1.5)]))
    found = frames.states(run)
    for _, own in found.groupby("who"):
        assert own["start"].iloc[0] == 0.0 and own["end"].iloc[-1] == run.time
        assert list(own["start"].iloc[1:]) == list(own["end"].iloc[:-1])
        assert (own["state"] != own["state"].shift()).all()


def test_a_delivery_cut_out_of_the_trace_is_noticed():
    run = simulate(three_forms)
    cut = tampered(run.trace, lambda row: row[1] == "delivered" and row[3] == 2)
    before, after = frames.deliveries(run), frames.deliveries(cut)
    assert list(before["outcome"]) == ["handled"] * 3
    assert list(after["outcome"]) == ["handled", "in flight", "handled"]
    assert frames.messages(cut)["delivered"].sum() == frames.messages(run)["delivered"].sum() - 1
    assert frames.agents(cut)["busy"][0] == frames.agents(run)["busy"][0] - 1.0


def test_a_reply_cut_out_of_the_trace_leaves_the_request_pending():
    run = simulate(everything)
    reply = int(frames.messages(run).query("type == 'reply'")["message"].iloc[0])
    cut = tampered(run.trace, lambda row: row[1] == "delivered" and row[3] == reply)
    assert frames.requests(run)["outcome"][0] == "reply"
    assert frames.requests(cut)["outcome"][0] == "pending"


def test_a_crash_cut_out_of_the_trace_changes_the_states():
    run = simulate(three_forms, faults=FaultPlan(appointments=[Crash("clerk", at=0.5, restart_after=0.25)]))
    cut = tampered(run.trace, lambda row: row[1] == "crashed")
    assert "error" in set(frames.states(run)["state"])
    assert "error" not in set(frames.states(cut)["state"])
