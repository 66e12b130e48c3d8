"""The tables of tasks, attempts, conflicts and members, by hand; and that what is cut out of a trace is missed."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from fabricated import Book, report, rush, team
from hypothesis import given
from hypothesis import strategies as st
from test_frames import tampered, values

from masbook import Orchestrator, Task, Workflow, simulate
from masbook.errors import InvalidValue
from masbook.lab import charts, frames
from masbook.lab.ledger import fairness
from masbook.lab.studio import ImageProcessor, hire
from masbook.runtime.trace import Trace

FULL = {frames.tasks: report, frames.attempts: report, frames.conflicts: rush, frames.team: team}


async def studio(world, trouble=0.0, on_failure="stop"):
    """The report of chapter 04."""
    hire(world, trouble=trouble)
    tasks = [
        Task("ingest", "process_data", {"path": "orders.csv"}),
        Task("images", "process_image", {"count": 50}),
        Task("texts", "process_text", after=["ingest"]),
        Task("summary", "write_report", {"text": "${texts.texts} texts"}, after=["images", "texts"]),
    ]
    return await world.spawn(Orchestrator()).execute(Workflow("report", tasks, on_failure=on_failure))


def test_tasks_by_hand():
    found = frames.tasks(report())
    columns = ("task", "agents", "status", "ready", "started", "ended", "waited", "duration", "attempts")
    assert values(found, *columns) == [
        ("ingest", ("data_1",), "completed", 0.0, 0.0, 2.0, 0.0, 2.0, 1),
        ("images", ("image_1",), "completed", 0.0, 0.5, 4.0, 0.5, 3.5, 1),
        ("texts", ("text_1", "text_2"), "completed", 2.0, 2.5, 5.0, 0.5, 2.5, 2),
        ("summary", ("data_1",), "timed_out", 5.0, 5.0, 7.0, 0.0, 2.0, 1),
        ("archive", (), "skipped", 7.0, None, 7.0, None, None, 0),
    ]
    assert values(found, "workflow", "capability", "service", "priority", "parent", "added", "undone")[0] == (
        ("w", "work", "boss", 0, None, 0.0, None)
    )
    assert found["agent"].tolist()[:4] == ["data_1", "image_1", "text_2", "data_1"]
    assert values(found, "error") == [
        (None,),
        (None,),
        ("ValueError: no",),
        ("no answer in 2 s",),
        ("summary timed_out",),
    ]
    assert found["after"].tolist() == [(), (), ("ingest",), ("ingest", "images", "texts"), ("summary",)]


def test_the_critical_path_goes_back_from_the_last_end_to_the_predecessor_that_ended_last():
    assert frames.tasks(report()).query("critical")["task"].tolist() == ["ingest", "texts", "summary"]
    independent = Book()
    independent.add("a", "b")
    independent.work("a", "x", 0.0, 1.0)
    assert not frames.tasks(independent.trace)["critical"].any()


def test_of_two_that_ended_last_the_later_one_is_critical():
    book = Book()
    book.add("a")
    book.add("b", after=["a"])
    book.work("a", "x", 0.0, 1.0)
    book.work("b", "x", 1.0, 1.0)  # took no time
    assert frames.tasks(book.trace)["critical"].all()


def test_attempts_by_hand():
    found = frames.attempts(report())
    assert values(found, "task", "agent", "attempt", "status", "start", "end", "duration", "error") == [
        ("ingest", "data_1", 1, "completed", 0.0, 2.0, 2.0, None),
        ("images", "image_1", 1, "completed", 0.5, 4.0, 3.5, None),
        ("texts", "text_1", 1, "failed", 2.5, 3.0, 0.5, "ValueError: no"),
        ("texts", "text_2", 2, "completed", 3.5, 5.0, 1.5, None),
        ("summary", "data_1", 1, "timed_out", 5.0, 7.0, 2.0, "no answer in 2 s"),
    ]


def test_what_has_not_ended_waits_or_runs():
    book = Book()
    book.add("new", "running", "failed", "parted")
    for task in ("running", "failed", "parted"):
        book.at(1.0, "task_started", "x", workflow="w", task=task, attempt=1)
    book.at(2.0, "task_failed", "x", workflow="w", task="failed", attempt=1, error="E: x", next="retry")
    book.at(2.0, "task_part", "x", workflow="w", task="parted", attempt=1)
    found = frames.tasks(book.trace)
    assert found["status"].tolist() == ["waiting", "running", "waiting", "waiting"]
    assert found["ended"].isna().all() and found["duration"].isna().all()
    assert frames.attempts(book.trace)["status"].tolist() == ["running", "failed", "completed"]


def test_several_at_work_on_one_task_end_one_by_one():
    book = Book()
    book.add("count")
    for who in ("x", "y", "z"):
        book.at(0.0, "task_started", who, workflow="w", task="count", attempt=1)
    book.at(1.0, "task_part", "x", workflow="w", task="count", attempt=1)
    book.at(2.0, "task_failed", "y", workflow="w", task="count", attempt=1, error="E: y", next="reassign")
    assert frames.tasks(book.trace)["status"].tolist() == ["running"]
    book.at(3.0, "task_ended", "boss", workflow="w", task="count", status="completed")
    assert values(frames.attempts(book.trace), "agent", "status", "end") == [
        ("x", "completed", 1.0),
        ("y", "failed", 2.0),
        ("z", "completed", 3.0),
    ]
    assert values(frames.tasks(book.trace), "agents", "attempts") == [(("x", "y", "z"), 1)]


def test_ended_is_final_but_can_be_undone():
    book = Book()
    book.add("a")
    book.work("a", "x", 0.0, 1.0)
    book.at(2.0, "task_ended", "boss", workflow="w", task="a", status="failed", reason="late")
    book.at(2.0, "task_started", "y", workflow="w", task="a", attempt=2)
    book.at(3.0, "task_undone", "x", workflow="w", task="a")
    assert values(frames.tasks(book.trace), "status", "ended", "agent", "undone", "error") == [
        ("completed", 1.0, "x", 3.0, None)
    ]
    book.at(4.0, "task_undone", "x", workflow="w", task="a", error="E: the compensation failed")
    assert frames.tasks(book.trace)["undone"].isna().all()


def test_tasks_of_the_same_name_in_two_workflows_are_two():
    book = Book()
    book.add("a", workflow="one")
    book.add("a", workflow="two")
    book.at(1.0, "task_started", "x", workflow="two", task="a", attempt=1)
    assert values(frames.tasks(book.trace), "workflow", "status") == [("one", "waiting"), ("two", "running")]


def test_conflicts_by_hand():
    found = frames.conflicts(rush(4))
    columns = ("conflict", "opened", "ended", "duration", "strategy", "tried", "outcome", "winner")
    assert values(found, *columns) == [
        ("conflict-0", 0.0, 1.0, 1.0, "voting", ("voting",), "resolved", "a"),
        ("conflict-1", 10.0, 11.0, 1.0, "voting", ("voting",), "resolved", "a"),
        ("conflict-2", 20.0, 24.0, 4.0, "person", ("voting", "person"), "person", "a"),
        ("conflict-3", 30.0, None, None, None, ("voting",), "open", None),
    ]
    assert found["satisfaction"].tolist()[:3] == [0.5, 0.5, 1.0]
    assert found["fairness"].tolist()[:3] == [pytest.approx(1.5**2 / (3 * 1.25)), pytest.approx(0.6), 1.0]
    assert found["satisfaction"].isna().tolist() == [False, False, False, True]
    assert found["participants"][0] == ("a", "b", "c") and found["decision"][0] == {"winner": "a"}
    assert found["type"].unique().tolist() == ["resource_contention"]


def test_where_nothing_was_decided_nobody_was_treated_fairly():
    trace = rush(1)
    trace.record("conflict", "resolver", conflict="conflict-9", type="priority", participants=["a", "b"])
    end = {"strategy": "person", "outcome": "unresolved", "satisfaction": {"a": 0.0, "b": 0.0}}
    trace.record("resolved", "resolver", conflict="conflict-9", **end)
    found = frames.conflicts(trace)
    assert found["satisfaction"].tolist() == [0.5, 0.0] and found["fairness"].isna().tolist() == [False, True]
    assert len(charts.conflicts(found).axes) == 3


def test_resolved_is_final():
    trace = rush(1)
    trace.record("resolved", "resolver", conflict="conflict-0", strategy="voting", outcome="resolved", winner="b")
    assert values(frames.conflicts(trace), "winner", "outcome") == [("a", "resolved")]


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_fairness_lies_between_one_of_n_and_1(shares):
    assert 1 / len(shares) - 1e-9 <= fairness(shares) <= 1 + 1e-9
    assert fairness([1.0] * len(shares)) == 1.0 == fairness([0.0] * len(shares))
    assert fairness([1.0] + [0.0] * (len(shares) - 1)) == pytest.approx(1 / len(shares))
    assert math.isnan(fairness([]))


def test_team_by_hand():
    found = frames.team(team())
    columns = (
        "who",
        "role",
        "superior",
        "started",
        "completed",
        "failed",
        "in_hand",
        "escalated",
        "busy",
        "utilisation",
    )
    assert values(found, *columns) == [
        ("lead", "supervisor", None, 1, 1, 0, 0, 0, 3.0, 0.15),
        ("ann", "specialist", "lead", 2, 1, 0, 1, 0, 6.0, 0.3),
        ("bob", "specialist", "lead", 0, 0, 0, 0, 0, 0.0, 0.0),
        ("worker_0", "worker", "ann", 1, 0, 1, 0, 1, 2.0, 0.1),
        ("worker_1", "worker", "bob", 0, 0, 0, 0, 0, 0.0, 0.0),
    ]
    assert values(found, "team", "skills", "capacity")[0] == ("w", {"python": 3}, 2)


def test_who_joins_again_has_a_new_place():
    trace = team()
    trace.record("joined", "worker_1", team="w", role="specialist", superior="lead", skills={}, capacity=1)
    found = frames.team(trace).set_index("who")
    assert len(found) == 5 and tuple(found.loc["worker_1", ["role", "superior", "capacity"]]) == (
        "specialist",
        "lead",
        1,
    )


@pytest.mark.parametrize(("frame", "full"), FULL.items())
def test_an_empty_frame_has_the_dtypes_of_a_full_one(frame, full):
    empty, found = frame(Trace.full()), frame(full())
    assert empty.empty and not found.empty
    assert dict(empty.dtypes) == dict(found.dtypes)


@pytest.mark.parametrize("frame", FULL)
def test_bad_sources_are_refused(frame):
    with pytest.raises(InvalidValue, match="give a Run, a World or a Trace"):
        frame([1, 2])
    ring = Trace.ring(1)
    for number in range(10_000):
        ring.record("note", "a", text=str(number))
    with pytest.raises(InvalidValue, match=r"of 10,000 rows.*Trace\.full\(\)"):
        frame(ring)


def test_a_real_workflow_agrees_with_its_outcome():
    for seed in range(5):
        run = simulate(studio, seed, trouble=0.5, on_failure="continue")
        found = frames.tasks(run).set_index("task")
        for name, told in run.result.tasks.items():
            row = found.loc[name]
            assert (row["status"], row["attempts"]) == (told.status, told.attempts)
            for column in ("agent", "started", "ended"):
                value = getattr(told, column)
                assert pd.isna(row[column]) if value is None else row[column] == value
        pd.testing.assert_frame_equal(frames.tasks(run), frames.tasks(run.trace))


def test_a_task_that_was_given_to_a_busy_agent_is_begun_when_its_turn_has_come():
    async def rush(world):
        world.spawn(ImageProcessor("image"))
        tasks = [Task(f"t{i}", "process_image", {"batch": str(i)}, timeout=9.0) for i in range(20)]
        await world.spawn(Orchestrator()).execute(Workflow("w", tasks, on_failure="continue", max_parallel=20))

    found = frames.attempts(simulate(rush))
    done, late = found[found["status"] == "completed"], found[found["status"] == "timed_out"]
    assert set(found["start"]) == {0.0} and len(done) > 1 and len(done) + len(late) == 20
    assert done["begun"].tolist() == [0.0, *done["end"].tolist()[:-1]]
    assert done["duration"].between(1.5, 4.5).all() and set(late["end"]) == {9.0}
    assert late["begun"].isna().sum() >= len(late) - 1  # the others never came to their turn
    tasks = frames.tasks(simulate(rush))
    assert tasks["waited"].equals(tasks["begun"]) and tasks["begun"].tolist()[:2] == done["begun"].tolist()[:2]


def test_an_end_cut_out_of_the_trace_is_missed():
    run = simulate(studio)
    assert frames.tasks(run)["status"].tolist() == ["completed"] * 4
    cut = tampered(run.trace, lambda row: row[1] == "task_ended" and row[4] == "texts")
    assert frames.tasks(cut)["status"].tolist() == ["completed", "completed", "running", "completed"]
    assert frames.tasks(run).query("critical")["task"].tolist() != frames.tasks(cut).query("critical")["task"].tolist()


def test_work_in_hand_at_the_end_is_not_cancelled():
    async def given_up(world):
        hire(world)
        await world.spawn(Orchestrator()).start(Workflow("w", [Task("ingest", "process_data", {"path": "orders.csv"})]))

    run = simulate(given_up)
    assert frames.tasks(run)["status"].tolist() == ["running"]
