"""Traces written by hand, row by row, so that what a table or a chart must say of them is known beforehand."""

from __future__ import annotations

from typing import Any

from masbook.runtime.trace import Trace


class Book:
    """A trace and the instant at which rows are entered."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trace = Trace.full()
        self.trace.clock = lambda: self.now

    def at(self, time: float, kind: str, who: str, **facts: Any) -> None:
        self.now = time
        self.trace.record(kind, who, **facts)

    def add(self, *tasks: str, after: list[str] | None = None, time: float = 0.0, **facts: Any) -> None:
        for task in tasks:
            known = {"workflow": "w", "capability": "work", "priority": 0, **facts}
            self.at(time, "task_added", "boss", task=task, after=after or [], **known)

    def work(self, task: str, agent: str, start: float, end: float, status: str = "completed") -> None:
        """Enter one attempt that ends the task; rows must be entered in the order of time if that matters."""
        self.at(start, "task_started", agent, workflow="w", task=task, attempt=1)
        self.at(end, "task_ended", "boss", workflow="w", task=task, status=status)


def report() -> Trace:
    """Five tasks: one retried by another agent, one timed out, one skipped for it; the critical path is known."""
    book, w = Book(), {"workflow": "w"}
    book.add("ingest", "images")
    book.add("texts", after=["ingest"])
    book.add("summary", after=["ingest", "images", "texts"])
    book.add("archive", after=["summary"])
    book.at(0.0, "task_started", "data_1", task="ingest", attempt=1, **w)
    book.at(0.5, "task_started", "image_1", task="images", attempt=1, **w)
    book.at(2.0, "task_ended", "boss", task="ingest", status="completed", **w)
    book.at(2.5, "task_started", "text_1", task="texts", attempt=1, **w)
    book.at(3.0, "task_failed", "text_1", task="texts", attempt=1, error="ValueError: no", next="retry", **w)
    book.at(3.5, "task_started", "text_2", task="texts", attempt=2, **w)
    book.at(4.0, "task_ended", "boss", task="images", status="completed", **w)
    book.at(5.0, "task_ended", "boss", task="texts", status="completed", **w)
    book.at(5.0, "task_started", "data_1", task="summary", attempt=1, **w)
    book.at(7.0, "task_ended", "boss", task="summary", status="timed_out", reason="no answer in 2 s", **w)
    book.at(7.0, "task_ended", "boss", task="archive", status="skipped", reason="summary timed_out", **w)
    return book.trace


def layers(number: int, width: int, agents: int) -> Trace:
    """Tasks in layers, three dependencies each, of one second, given to the agents in turn, layer after layer."""
    book = Book()
    rounds = -(-width // agents)
    for i in range(number):
        depth, place = divmod(i, width)
        before = [f"t{(depth - 1) * width + (place + k) % width}" for k in range(min(3, width))] if depth else []
        book.add(f"t{i}", after=before)
    for i in range(number):
        depth, place = divmod(i, width)
        start = depth * rounds + place // agents
        book.work(f"t{i}", f"a{place % agents}", start, start + 1, "failed" if i % 17 == 5 else "completed")
    return book.trace


def team(workers: int = 2) -> Trace:
    """A lead, two seconds and their workers; a worker escalates a task to the lead."""
    book = Book()
    roster = [("lead", "supervisor", None), ("ann", "specialist", "lead"), ("bob", "specialist", "lead")]
    roster += [(f"worker_{i}", "worker", ("ann", "bob")[i % 2]) for i in range(workers)]
    for who, role, superior in roster:
        book.at(0.0, "joined", who, team="w", role=role, superior=superior, skills={"python": 3}, capacity=2)
    book.add("task-1", "task-2", "task-3")
    book.at(0.0, "task_started", "ann", workflow="w", task="task-1", attempt=1)
    book.at(1.0, "task_started", "worker_0", workflow="w", task="task-2", attempt=1)
    book.at(3.0, "task_failed", "worker_0", workflow="w", task="task-2", attempt=1, error="E: x", next="escalate")
    book.at(3.0, "handover", "worker_0", team="w", task="task-2", to="lead", how="escalated", reason="E: x")
    book.at(3.0, "task_started", "lead", workflow="w", task="task-2", attempt=2)
    book.at(4.0, "task_waiting", "boss", workflow="w", task="task-1", reason="subtasks: task-3")
    book.at(6.0, "task_ended", "boss", workflow="w", task="task-2", status="completed")
    book.at(8.0, "task_started", "ann", workflow="w", task="task-3", attempt=1)
    book.at(10.0, "note", "lead", text="the end")
    return book.trace


def rush(number: int = 3) -> Trace:
    """Conflicts of three about one thing: voting settles all but every third, which a person does; the last is open."""
    book = Book()
    about = {"type": "resource_contention", "participants": ["a", "b", "c"], "description": "all want the printer"}
    for i in range(number):
        name = {"conflict": f"conflict-{i}"}
        book.at(10.0 * i, "conflict", "resolver", **about, **name)
        book.at(10.0 * i, "position", "a", strategy="voting", round=1, position={"vote": ["a"]}, **name)
        stuck = i % 3 == 2
        outcome = "undecided" if stuck else "resolved"
        book.at(10.0 * i + 1, "attempted", "resolver", strategy="voting", outcome=outcome, reason="", **name)
        if stuck:
            book.at(10.0 * i + 4, "attempted", "resolver", strategy="person", outcome="resolved", reason="", **name)
        if i < number - 1 or number < 3:
            end = {"strategy": "person" if stuck else "voting", "outcome": "person" if stuck else "resolved"}
            heard = {"a": 1.0, "b": 0.5, "c": 0.0} if not stuck else {"a": 1.0, "b": 1.0, "c": 1.0}
            end |= {"winner": "a", "decision": {"winner": "a"}, "satisfaction": heard, "type": about["type"]}
            book.at(10.0 * i + (4 if stuck else 1), "resolved", "resolver", **end, **name)
    return book.trace
