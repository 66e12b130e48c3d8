"""The defects of the course's orchestrator, each in its own terms: none of them is here."""

from __future__ import annotations

import pytest
from flows import Hand, audit, rows, society

from masbook import Agent, FaultPlan, OnMessage, Orchestrator, Task, Workflow, World
from masbook.errors import InvalidWorkflow, Stuck


@pytest.fixture
def world():
    with World(7) as world:
        yield world


def test_1_nobody_capable_freezes_nothing(world):
    """There, the loop never slept, and froze the kernel; here others go on, and no time is spent on waiting."""
    orchestrator = society(world, 1)
    world.agents["hand_0"].stop()
    bystander = world.spawn(Agent("bystander"))
    workflow = world.run(orchestrator.start(Workflow("test", [Task("a", "work")], timeout=3600.0)))
    rows_before = len(world.trace)
    world.run(bystander.sleep(1800.0))
    assert len(world.trace) == rows_before and world.now == 1800.0  # no row, hence no polling
    assert world.run(orchestrator.outcome(workflow)).status == "timed_out" and world.now == 3600.0


def test_6_a_retried_task_really_runs_again(world):
    """There, it went back to pending but stayed among the running: one attempt, then an hour's hang."""
    orchestrator = society(world)
    outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "flaky", {"failures": 2}, retries=3)])))
    assert outcome.ok and outcome.tasks["a"].attempts == 3 and outcome.time < 10.0


def test_9_time_outs_are_enforced_without_a_monitor(world):
    """There, the monitoring task died at birth, unseen, and no time-out was ever enforced."""
    orchestrator = society(world)
    outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work", {"seconds": 99.0}, timeout=5.0)])))
    assert outcome.tasks["a"].status == "timed_out" and outcome.tasks["a"].ended == 5.0
    assert world.trace.count("crashed") == 0


def test_continue_runs_a_failed_task_once(world):
    """There, with `continue` and no retries allowed, a failed task ran 1,201 times."""
    orchestrator = society(world)
    tasks = [Task("a", "flaky", {"failures": 9999}), Task("b", "work")]
    outcome = world.run(orchestrator.execute(Workflow("test", tasks, on_failure="continue", timeout=3600.0)))
    assert outcome.status == "completed" and outcome.tasks["a"].attempts == 1
    assert len(rows(world, "task_started", task="a")) == 1


def test_a_cancelled_task_is_not_restarted(world):
    """There, the task was restarted, the workflow ended completed, and the agent's workload was -1."""
    orchestrator = society(world, 1)
    workflow = world.run(orchestrator.start(Workflow("test", [Task("a", "work", {"seconds": 9.0}, retries=3)])))
    world.run(until=1.0)
    world.run(orchestrator.cancel(workflow))
    world.run(until=60.0)
    assert world.run(orchestrator.outcome(workflow)).status == "cancelled"
    assert len(rows(world, "task_started")) == 1 and world.agents["hand_0"].load == 0.0


def test_a_duplicate_completion_changes_nothing(world):
    """There, each double took one from the agent's workload, down to -3, so that it looked idlest of all."""
    with World(7, faults=FaultPlan(duplicate=1.0)) as world:
        orchestrator = society(world, 2)
        flow = Workflow("test", [Task(f"t{i}", "work") for i in range(4)])
        outcome = world.run(orchestrator.execute(flow))
        world.run(until=20.0)
        assert outcome.ok and audit(world.trace, flow) == []
        assert [task.agent for task in outcome.tasks.values()] == ["hand_0", "hand_1"] * 2
        again = world.run(orchestrator.execute(flow))
        assert [task.agent for task in again.tasks.values()] == ["hand_0", "hand_1"] * 2


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_late_completion_does_not_make_completed_of_failed(on_failure):
    """There, a late result made a failed task completed, or raised KeyError."""
    with World(7, faults=FaultPlan(appointments=[OnMessage("delay", to="orchestrator", seconds=5.0)])) as world:
        orchestrator = society(world, 1)
        flow = Workflow("test", [Task("a", "work", timeout=2.0), Task("b", "work")], on_failure=on_failure)
        outcome = world.run(orchestrator.execute(flow))
        world.run(until=60.0)
        assert outcome.tasks["a"].status == "timed_out" and "a" not in outcome.results
        assert world.run(orchestrator.status("workflow-1"))["tasks"].get("timed_out") == 1
        assert audit(world.trace, flow) == [] and world.trace.count("crashed") == 0
        assert {row["reason"] for row in rows(world, "dead")} == {"late"}


def test_cycles_and_missing_dependencies_are_refused_and_not_polled(world):
    """There, both polled until the global time-out."""
    orchestrator = society(world)
    for tasks in ([Task("a", "work", after=["a"])], [Task("a", "work", after=["ghost"])]):
        with pytest.raises(InvalidWorkflow):
            world.run(orchestrator.execute(Workflow("test", tasks, timeout=3600.0)))
    assert world.now == 0.0


def test_a_time_out_of_one_second_is_noticed_after_one_second(world):
    """There, after 9.5 s."""
    orchestrator = society(world)
    outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work", {"seconds": 30.0}, timeout=1.0)])))
    assert outcome.tasks["a"].ended == 1.0


def test_tasks_that_were_never_assigned_expire(world):
    """There, pending tasks never expired."""
    orchestrator = society(world, 1)
    world.agents["hand_0"].stop()
    tasks = [Task("a", "work", timeout=2.0), Task("b", "work", after=["a"], timeout=2.0)]
    outcome = world.run(orchestrator.execute(Workflow("test", tasks, on_failure="continue")))
    assert outcome.tasks["a"].status == "timed_out" and outcome.tasks["a"].ended == 2.0
    assert outcome.tasks["b"].status == "skipped"


def test_13_ids_never_collide(world):
    """There, ids were made of milliseconds: 8 of 1,000 were kept."""
    orchestrator = society(world)

    async def main():
        return [await orchestrator.start(Workflow("test", [])) for _ in range(100)]

    assert len(set(world.run(main()))) == 100


def test_a_request_that_is_lost_is_named_where_nothing_bounds_it():
    """There, nobody could tell what a workflow hung on."""
    with World(7, faults=FaultPlan(appointments=[OnMessage("drop", topic="work")])) as world:
        orchestrator = society(world, 1)
        with pytest.raises(Stuck, match="orchestrator waits for hand_0 to answer 'work'"):
            world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))


class Spinner(Orchestrator):
    """The course's orchestrator in the case of nobody capable: it looks again, and again."""

    async def choose(self, capability):
        while (agent := await super().choose(capability)) is None:
            await self.sleep(0.0)
        return agent


def test_the_spinning_orchestrator_is_caught(world):
    world.spawn(Hand("hand")).stop()
    orchestrator = world.spawn(Spinner("orchestrator"))
    with pytest.raises(Stuck, match="time stands still"):
        world.run(orchestrator.execute(Workflow("test", [Task("a", "work")], timeout=10.0)))
