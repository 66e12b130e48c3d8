"""Workflows: tasks run in order, within the limits, and each ends exactly once, whatever happens to the agents."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from flows import Hand, Painter, audit, rows, society

from masbook import Agent, Orchestrator, Task, Workflow, World, capability
from masbook.errors import (
    AgentCrashed,
    AgentOffline,
    InvalidInput,
    InvalidValue,
    InvalidWorkflow,
    MasbookError,
    Stuck,
    Unrecordable,
    WorldError,
)


@pytest.fixture
def world():
    with World(7) as world:
        yield world


def execute(world, tasks, hands=3, **options):
    """Run a workflow of these tasks, audit its trace, and return the outcome."""
    orchestrator = world.agents.get("orchestrator") or society(world, hands)
    flow = Workflow("test", tasks, **options)
    outcome = world.run(orchestrator.execute(flow))
    assert audit(world.trace, flow, outcome.workflow) == []
    return outcome


def order(world, kind="task_started"):
    return [row["task"] for row in rows(world, kind)]


def statuses(outcome):
    return {name: task.status for name, task in outcome.tasks.items()}


class TestOrder:
    def test_tasks_run_after_those_they_come_after(self, world):
        tasks = [Task("d", "work", after=["b", "c"]), Task("b", "work", after=["a"])]
        outcome = execute(world, [*tasks, Task("c", "work", after=["a"]), Task("a", "work")])
        assert order(world) == ["a", "b", "c", "d"]
        assert outcome.ok and outcome.status == "completed" and outcome.time == 3.0
        assert outcome.tasks["d"].started == 2.0 and outcome.tasks["d"].ended == 3.0

    def test_the_example_of_the_design(self, world):
        class Office(Agent):
            @capability
            async def process_data(self, path: str = "") -> dict[str, int]:
                await self.sleep(2.0)
                return {"rows": 10}

            @capability
            async def process_image(self, count: int) -> int:
                await self.sleep(3.0)
                return count

            @capability
            async def process_text(self) -> str:
                await self.sleep(1.5)
                return "positive"

        world.spawn(Office("office", concurrency=3))
        tasks = [
            Task("ingest", "process_data", inputs={"path": "data/orders.csv"}),
            Task("images", "process_image", inputs={"count": 50}),
            Task("texts", "process_text", after=["ingest"]),
            Task("summary", "process_data", after=["ingest", "images", "texts"], timeout=20, retries=2),
        ]
        outcome = execute(world, tasks, max_parallel=10, on_failure="stop")
        assert outcome.results == {"ingest": {"rows": 10}, "images": 50, "texts": "positive", "summary": {"rows": 10}}
        assert outcome.time == 5.5

    def test_no_more_tasks_at_once_than_allowed(self, world):
        outcome = execute(world, [Task(f"t{i}", "work") for i in range(10)], hands=10, max_parallel=3)
        assert outcome.time == 4.0

    def test_higher_priority_first_then_first_come(self, world):
        tasks = [Task(name, "work", priority=priority) for name, priority in zip("abcd", (0, 5, -1, 5), strict=True)]
        execute(world, tasks, max_parallel=1)
        assert order(world) == ["b", "d", "a", "c"]

    def test_priority_counts_in_the_mailbox_of_an_agent_too(self, world):
        tasks = [Task(name, "work", {"value": name}, priority=i) for i, name in enumerate("abc")]
        execute(world, tasks, hands=1)
        assert [value for what, value in world.agents["hand_0"].diary if what == "done"] == ["c", "b", "a"]

    def test_an_empty_workflow_is_done_at_once(self, world):
        outcome = execute(world, [])
        assert outcome.ok and outcome.results == {} and outcome.time == 0.0

    def test_several_workflows_at_once(self, world):
        orchestrator = society(world, 4)
        flows = [Workflow(f"flow {i}", [Task("a", "work"), Task("b", "work", after=["a"])]) for i in range(3)]

        async def main():
            return await asyncio.gather(*[orchestrator.execute(flow) for flow in flows])

        outcomes = world.run(main())
        assert [outcome.workflow for outcome in outcomes] == ["workflow-1", "workflow-2", "workflow-3"]
        assert all(outcome.ok and outcome.time <= 3.0 for outcome in outcomes)

    def test_two_hundred_short_tasks_take_the_ideal_time(self, world):
        tasks = [Task(f"t{i}", "work", {"seconds": 0.01}) for i in range(200)]
        assert execute(world, tasks, hands=10, max_parallel=10).time == pytest.approx(0.2, rel=0.01)


class TestInputs:
    def test_results_of_earlier_tasks(self, world):
        tasks = [
            Task("a", "work", {"value": {"rows": [10, 20], "name": "orders"}}),
            Task("b", "work", {"value": "${a.value.rows.1}"}, after=["a"]),
            Task("c", "work", {"value": ["${a.value.name}: ${b.value} rows", {"all": "${a}"}]}, after=["b"]),
        ]
        outcome = execute(world, tasks)
        assert outcome.results["b"]["value"] == 20
        assert outcome.results["c"]["value"][0] == "orders: 20 rows"
        assert outcome.results["c"]["value"][1]["all"]["by"] == "hand_0"

    def test_shared_context_and_the_workflow_itself(self, world):
        value = ["${region}", "${limits.high}", "${workflow.id}", "${workflow.name} on ${workflow.orchestrator}"]
        outcome = execute(
            world, [Task("a", "work", {"value": value})], context={"region": "north", "limits": {"high": 9}}
        )
        assert outcome.results["a"]["value"] == ["north", 9, "workflow-1", "test on orchestrator"]
        assert outcome.context == {"region": "north", "limits": {"high": 9}}

    def test_a_field_that_is_not_there_fails_the_task_without_another_attempt(self, world):
        tasks = [Task("a", "work"), Task("b", "work", {"value": "${a.rows}"}, after=["a"], retries=5)]
        outcome = execute(world, tasks)
        assert outcome.tasks["b"].status == "failed" and outcome.tasks["b"].attempts == 0
        assert outcome.tasks["b"].error.startswith("InvalidInput: ${a.rows}")

    def test_what_does_not_fit_the_capability_is_not_tried_again(self, world):
        outcome = execute(world, [Task("a", "work", {"seconds": "long"}, retries=5)])
        assert outcome.tasks["a"].attempts == 1 and outcome.tasks["a"].agent == "hand_0"
        assert "InvalidInput" in outcome.tasks["a"].error and "seconds" in outcome.tasks["a"].error
        assert outcome.time == 0.0

    def test_results_may_update_the_context(self, world):
        tasks = [
            Task("a", "work", {"value": 1}),
            Task("b", "work", after=["a"], condition=lambda context: context["mode"] == "careful"),
        ]

        class Changer(Agent):
            @capability
            async def change(self) -> dict:
                return {"context_updates": {"mode": "careful"}}

        world.spawn(Changer("changer"))
        outcome = execute(world, [*tasks, Task("c", "change")], context={"mode": "bold"})
        assert outcome.tasks["b"].status == "completed" and outcome.context["mode"] == "careful"

    def test_nobody_can_change_results(self, world):
        outcome = execute(world, [Task("a", "work", {"value": [1]})])
        with pytest.raises(TypeError):
            outcome.results["a"]["value"] = 2


class TestConditions:
    def test_a_condition_sees_results_and_context(self, world):
        seen = {}

        def look(context):
            seen.update(context)
            return context["a"]["value"] > context["limit"]

        tasks = [Task("a", "work", {"value": 3}), Task("b", "work", after=["a"], condition=look)]
        outcome = execute(world, tasks, context={"limit": 2})
        assert outcome.tasks["b"].status == "completed"
        assert set(seen) == {"a", "limit", "workflow"} and seen["workflow"]["id"] == "workflow-1"

    def test_conditions_may_be_async_and_take_their_time(self, world):
        async def later(context):
            await asyncio.sleep(2.0)
            return False

        outcome = execute(world, [Task("a", "work", condition=later)])
        assert outcome.ok and outcome.tasks["a"].status == "skipped" and outcome.time == 2.0
        assert rows(world, "task_ended")[0]["reason"] == "its condition does not hold"

    def test_a_condition_cannot_change_what_it_sees(self, world):
        def meddle(context):
            context["a"] = 1

        outcome = execute(world, [Task("a", "work", condition=meddle)])
        assert outcome.tasks["a"].status == "failed" and "TypeError" in outcome.tasks["a"].error

    def test_a_condition_whose_own_wait_is_cancelled_fails_its_task_and_hangs_nothing(self, world):
        async def wait(context):
            asyncio.get_running_loop().call_later(1.0, (future := asyncio.Future()).cancel)
            await future

        outcome = execute(world, [Task("a", "work", condition=wait)])
        assert statuses(outcome) == {"a": "failed"} and outcome.tasks["a"].error.startswith("CancelledError")

    def test_a_condition_that_fails_while_its_workflow_is_cancelled_changes_nothing(self, world):
        async def stubborn(context):
            try:
                await asyncio.sleep(9.0)
            except asyncio.CancelledError:
                raise ValueError("not like this") from None

        outcome = execute(world, [Task("a", "work", condition=stubborn)], timeout=1.0)
        world.run(until=20.0)
        assert statuses(outcome) == {"a": "cancelled"} and len(rows(world, "task_ended")) == 1

    def test_those_behind_a_skipped_task_go_on_unless_they_need_its_result(self, world):
        tasks = [
            Task("a", "work", condition=lambda context: False),
            Task("b", "work", {"value": "${a.by}"}, after=["a"]),
            Task("c", "work", after=["a"]),
            Task("d", "work", after=["b", "c"]),
        ]
        outcome = execute(world, tasks)
        assert statuses(outcome) == {"a": "skipped", "b": "skipped", "c": "completed", "d": "completed"}
        assert outcome.ok and "'a'" in outcome.tasks["b"].error

    def test_a_condition_may_cancel_its_own_workflow(self, world):
        orchestrator = society(world)

        async def give_up(context):
            await orchestrator.cancel(context["workflow"]["id"])
            return True

        outcome = execute(world, [Task("a", "work", condition=give_up), Task("b", "work", after=["a"])])
        assert outcome.status == "cancelled" and order(world) == []

    def test_a_condition_that_raises_fails_its_task(self, world):
        outcome = execute(world, [Task("a", "work", condition=lambda context: context["ghost"])])
        assert outcome.status == "failed" and outcome.tasks["a"].error == "KeyError: 'ghost'"


class TestFailure:
    def chain(self):
        broken = Task("b", "flaky", {"key": "b", "failures": 99, "seconds": 2.0}, after=["a"])
        return [Task("a", "work"), broken, Task("c", "work", after=["b"]), Task("d", "work", {"seconds": 9.0})]

    def test_stop_cancels_the_rest(self, world):
        outcome = execute(world, self.chain())
        assert statuses(outcome) == {"a": "completed", "b": "failed", "c": "cancelled", "d": "cancelled"}
        assert outcome.status == "failed" and not outcome.ok and outcome.time == 3.0
        assert outcome.detail == "b: ValueError: b failed for the 1. time"
        world.run(until=20.0)
        assert ("done", None) not in world.agents["hand_1"].diary  # it was stopped in the middle

    def test_continue_skips_what_depends_on_it_and_says_so(self, world):
        tasks = [*self.chain(), Task("e", "work", after=["c"]), Task("f", "work", after=["d"])]
        outcome = execute(world, tasks, on_failure="continue")
        assert outcome.status == "completed" and not outcome.ok
        expected = {"a": "completed", "b": "failed", "c": "skipped", "d": "completed", "e": "skipped", "f": "completed"}
        assert statuses(outcome) == expected
        assert outcome.tasks["c"].error == "'b' failed" and outcome.tasks["e"].error == "'c' was skipped"

    def test_retries_with_exponential_back_off(self, world):
        outcome = execute(world, [Task("a", "flaky", {"key": "a", "failures": 3}, retries=3, backoff=0.5)])
        assert outcome.ok and outcome.results == {"a": "at last"} and outcome.tasks["a"].attempts == 4
        assert [row["time"] for row in rows(world, "task_started")] == [0.0, 1.5, 3.5, 6.5]
        assert [row["next"] for row in rows(world, "task_failed")] == ["retry"] * 3

    def test_no_more_attempts_than_allowed(self, world):
        outcome = execute(world, [Task("a", "flaky", {"key": "a", "failures": 3}, retries=2)])
        assert outcome.status == "failed" and outcome.tasks["a"].attempts == 3
        assert [row["next"] for row in rows(world, "task_failed")] == ["retry", "retry", "none"]

    def test_on_failure_retry_gives_each_task_three_attempts_more(self, world):
        outcome = execute(world, [Task("a", "flaky", {"key": "a", "failures": 3})], on_failure="retry")
        assert outcome.ok and outcome.tasks["a"].attempts == 4
        outcome = execute(world, [Task("a", "flaky", {"key": "b", "failures": 4})], on_failure="retry")
        assert outcome.status == "failed" and outcome.tasks["a"].attempts == 4

    def test_a_task_that_waits_for_its_next_attempt_takes_no_place(self, world):
        tasks = [Task("a", "flaky", {"key": "a"}, retries=1, backoff=10.0), Task("b", "work")]
        outcome = execute(world, tasks, max_parallel=1)
        assert outcome.tasks["b"].ended == 2.0 and outcome.tasks["a"].ended == 12.0


class TestTime:
    def test_a_time_out_is_noticed_in_its_instant_and_stops_the_worker(self, world):
        outcome = execute(world, [Task("a", "work", {"seconds": 9.5}, timeout=1.0)])
        assert outcome.tasks["a"].status == "timed_out" and outcome.tasks["a"].ended == 1.0
        assert outcome.status == "failed" and "RequestTimeout" in outcome.tasks["a"].error
        world.run(until=20.0)
        assert world.agents["hand_0"].diary == [("begun", None)]

    def test_the_time_out_is_for_each_attempt(self, world):
        outcome = execute(world, [Task("a", "work", {"seconds": 9.5}, timeout=1.0, retries=2, backoff=1.0)])
        assert [row["time"] for row in rows(world, "task_failed")] == [1.0, 3.0, 6.0]
        assert outcome.tasks["a"].attempts == 3

    def test_a_time_out_of_the_whole(self, world):
        tasks = [Task("a", "work"), Task("b", "work", {"seconds": 9.0}, after=["a"]), Task("c", "work", after=["b"])]
        outcome = execute(world, tasks, timeout=2.5)
        assert outcome.status == "timed_out" and outcome.time == 2.5 and "2.5 s" in outcome.detail
        assert statuses(outcome) == {"a": "completed", "b": "cancelled", "c": "cancelled"}

    def test_a_time_out_in_what_the_agent_asked_is_a_failure_like_any_other(self, world):
        class Asker(Agent):
            @capability
            async def ask(self) -> None:
                await self.request("hand_0", "work", seconds=9.0, timeout=1.0)

        world.spawn(Asker("asker"))
        assert execute(world, [Task("a", "ask")]).tasks["a"].status == "failed"


class TestAgents:
    def test_the_least_loaded_agent_is_chosen(self, world):
        orchestrator = society(world)
        busy = world.spawn(Agent("client"))

        async def main():
            for _ in range(2):
                await busy.tell("hand_0", "work", seconds=5.0)
            await busy.tell("hand_1", "work", seconds=5.0)
            await busy.sleep(1.0)
            return await orchestrator.execute(Workflow("test", [Task(f"t{i}", "work") for i in range(3)]))

        outcome = world.run(main())
        assert [task.agent for task in outcome.tasks.values()] == ["hand_2", "hand_1", "hand_2"]

    @pytest.mark.parametrize("heartbeat", [None, 5.0])
    def test_what_has_just_been_given_counts_as_load(self, world, heartbeat):
        orchestrator = society(world, 3, heartbeat=heartbeat)
        outcome = world.run(orchestrator.execute(Workflow("test", [Task(f"t{i}", "work") for i in range(6)])))
        assert [task.agent for task in outcome.tasks.values()] == ["hand_0", "hand_1", "hand_2"] * 2

    @pytest.mark.parametrize("heartbeat", [None, 60.0])
    def test_who_is_done_is_idle_again_and_who_is_not_is_not(self, world, heartbeat):
        society(world, 2, heartbeat=heartbeat)
        chain = [Task(name, "work", after=after) for name, after in (("b", []), ("c", ["b"]), ("d", ["c"]))]
        outcome = execute(world, [Task("a", "work", {"seconds": 9.0}), *chain])
        assert [task.agent for task in outcome.tasks.values()] == ["hand_0", "hand_1", "hand_1", "hand_1"]

    def test_capacity_counts(self, world):
        world.spawn(Hand("big", concurrency=4))
        world.spawn(Hand("small"))
        outcome = execute(world, [Task(f"t{i}", "work") for i in range(5)], hands=0)
        assert [task.agent for task in outcome.tasks.values()] == ["big", "small", "big", "big", "big"]

    def test_an_agent_that_crashes_gives_its_task_to_another(self, world):
        orchestrator = society(world, 2)
        world.loop.call_at(0.5, world.agents["hand_0"].crash, ValueError("boom"))
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))
        assert outcome.ok and outcome.tasks["a"] == ("completed", "hand_1", 2, 0.0, 1.5, None, None)
        assert [(row["who"], row["next"]) for row in rows(world, "task_failed")] == [("hand_0", "reassign")]

    def test_so_does_one_that_is_stopped(self, world):
        orchestrator = society(world, 2)
        world.loop.call_at(0.5, world.agents["hand_0"].stop)
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))
        assert outcome.ok and outcome.tasks["a"].agent == "hand_1"

    def test_an_agent_that_waits_for_its_restart_gets_no_task(self, world):
        world.spawn(Hand("first"), restart="on_crash", backoff=5.0)
        world.spawn(Hand("second"))
        world.agents["first"].crash(ValueError("boom"))
        outcome = execute(world, [Task(f"t{i}", "work") for i in range(2)], hands=0)
        assert {task.agent for task in outcome.tasks.values()} == {"second"}

    @pytest.mark.parametrize("seconds", [0.0, 1.0])
    def test_a_helper_that_is_gone_is_a_failure_and_not_another_turn(self, world, seconds):
        """Otherwise the task would go from one agent to the next for ever, all in one instant."""

        class Relay(Agent):
            @capability
            async def relay(self, seconds: float) -> None:
                await self.sleep(seconds)
                await self.request("database", "work")

        world.spawn(Hand("database")).stop()
        for name in ("relay_1", "relay_2"):
            world.spawn(Relay(name))
        outcome = execute(world, [Task("a", "relay", {"seconds": seconds}, retries=1)])
        assert outcome.tasks["a"].status == "failed" and outcome.tasks["a"].attempts == 2
        assert "AgentOffline" in outcome.tasks["a"].error

    def test_names_that_only_the_registry_knows_are_not_asked(self, world):
        world.run(world.registry.register("ghost", ["work"]))
        assert execute(world, [Task("a", "work")]).tasks["a"].agent == "hand_0"

    def test_paused_agents_come_last_but_are_better_than_nobody(self, world):
        orchestrator = society(world, 2)
        world.agents["hand_0"].suspend(3.0)
        flow = Workflow("test", [Task("a", "work")])
        assert world.run(orchestrator.execute(flow)).tasks["a"].agent == "hand_1"
        world.agents["hand_1"].stop()
        outcome = world.run(orchestrator.execute(flow))
        assert outcome.tasks["a"].agent == "hand_0" and outcome.ended == 4.0

    def test_another_choice(self, world):
        class AlwaysLast(Orchestrator):
            async def choose(self, capability):
                found = await self.world.registry.discover([capability])
                return max(entry.name for entry in found)

        for i in range(3):
            world.spawn(Hand(f"hand_{i}"))
        world.spawn(AlwaysLast("orchestrator"))
        outcome = execute(world, [Task(f"t{i}", "work") for i in range(3)])
        assert {task.agent for task in outcome.tasks.values()} == {"hand_2"} and outcome.time == 3.0

    @pytest.mark.parametrize("choice", ["hand_0", "ghost", 5, Hand("stranger")])
    def test_a_choice_of_who_is_not_there_fails_the_task_and_is_not_asked_for_ever(self, world, choice):
        class Stubborn(Orchestrator):
            async def choose(self, capability):
                return choice

        world.spawn(Hand("hand_0")).stop()
        world.spawn(Stubborn("orchestrator"))
        outcome = execute(world, [Task("a", "work", retries=1)])
        assert outcome.tasks["a"].status == "failed" and outcome.tasks["a"].attempts == 0 and outcome.time == 1.0
        assert "return the name of an agent that runs" in outcome.detail


class TestNobody:
    def test_waiting_is_announced_and_bounded_by_the_time_out(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work", timeout=3.0)])))
        assert outcome.tasks["a"].status == "timed_out" and outcome.ended == 3.0
        assert rows(world, "task_waiting")[0]["reason"] == "nobody can 'work' at present"
        assert outcome.tasks["a"].attempts == 0 and len(world.trace) < 20

    def test_a_time_out_of_the_whole_ends_the_wait(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work")], timeout=3.0)))
        assert outcome.status == "timed_out" and outcome.ended == 3.0

    def test_somebody_comes(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()
        world.loop.call_at(2.0, world.spawn, Hand("newcomer"))
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work"), Task("b", "work")])))
        assert outcome.ok and {task.agent for task in outcome.tasks.values()} == {"newcomer"}
        assert outcome.tasks["a"].started == 2.0

    def test_somebody_comes_in_the_very_instant(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()

        async def main():
            workflow = await orchestrator.start(Workflow("test", [Task("a", "work")]))
            while not rows(world, "task_waiting"):
                await orchestrator.sleep(0.0)
            world.spawn(Hand("newcomer"))
            return await orchestrator.outcome(workflow)

        assert world.run(main()).time == 1.0

    def test_somebody_restarts(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()
        world.loop.call_at(2.0, world.agents["hand_0"].restart)
        outcome = world.run(orchestrator.execute(Workflow("test", [Task("a", "work", timeout=5.0)])))
        assert outcome.ok and outcome.ended == 3.0

    def test_a_crashed_agent_is_waited_for_until_its_restart(self, world):
        world.spawn(Hand("only"), restart="on_crash", backoff=5.0)
        world.spawn(Orchestrator("orchestrator"))
        world.loop.call_at(0.5, world.agents["only"].crash, ValueError("boom"))
        outcome = execute(world, [Task("a", "work")])
        assert outcome.ok and outcome.tasks["a"].attempts == 2 and outcome.ended == 6.5

    def test_a_task_that_waits_for_somebody_takes_no_place_and_no_resource(self, world):
        orchestrator = society(world, 1)
        world.spawn(Painter("painter")).stop()
        tasks = [Task("a", "paint", resources={"gpu": 1}), Task("b", "work", resources={"gpu": 1})]
        flow = Workflow("test", tasks, max_parallel=1, timeout=5.0, resources={"gpu": 1})
        assert world.run(orchestrator.execute(flow)).tasks["b"].ended == 1.0

    def test_a_world_that_is_stuck_says_who_is_missed(self, world):
        orchestrator = society(world, 1)
        world.agents["hand_0"].stop()
        with pytest.raises(Stuck, match="somebody who can 'work', for 'a'"):
            world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))


class TestResources:
    def gpu(self, name, amount=1, **options):
        return Task(name, "work", resources={"gpu": amount}, **options)

    def test_tasks_queue_and_do_not_fail(self, world):
        outcome = execute(world, [self.gpu(f"t{i}") for i in range(4)], hands=4, resources={"gpu": 1})
        assert outcome.ok and outcome.time == 4.0
        assert {row["reason"] for row in rows(world, "task_waiting")} == {"resources: gpu"}

    def test_a_mere_name_is_one(self, world):
        tasks = [Task(f"t{i}", "work", resources=["gpu"]) for i in range(2)]
        assert execute(world, tasks, resources=["gpu"]).time == 2.0

    def test_a_capacity_of_several(self, world):
        outcome = execute(world, [self.gpu(f"t{i}") for i in range(4)], hands=4, resources={"gpu": 2})
        assert outcome.time == 2.0

    def test_those_who_wait_for_resources_leave_their_place_to_others(self, world):
        tasks = [*[self.gpu(f"g{i}") for i in range(4)], *[Task(f"t{i}", "work") for i in range(4)]]
        outcome = execute(world, tasks, hands=4, resources={"gpu": 1}, max_parallel=2)
        assert outcome.time == 4.0

    def test_higher_priority_first(self, world):
        tasks = [self.gpu(name, priority=priority) for name, priority in zip("abc", (0, 5, 9), strict=True)]
        execute(world, tasks, resources={"gpu": 1})
        assert order(world) == ["c", "b", "a"]

    def test_several_resources_are_had_all_at_once_and_never_dead_lock(self, world):
        needs = [{"gpu": 1, "disk": 1}, {"disk": 1, "gpu": 1}] * 3
        tasks = [Task(f"t{i}", "work", resources=need) for i, need in enumerate(needs)]
        outcome = execute(world, tasks, hands=6, resources={"gpu": 1, "disk": 1})
        assert outcome.ok and outcome.time == 6.0

    def test_one_who_needs_much_is_not_overtaken_for_ever(self, world):
        tasks = [
            self.gpu("small_0"),
            self.gpu("small_1"),
            self.gpu("big", 2),
            *[self.gpu(f"later_{i}") for i in range(9)],
        ]
        outcome = execute(world, tasks, hands=9, resources={"gpu": 2})
        assert outcome.tasks["big"].started == 1.0

    def test_nor_by_those_who_need_something_else_as_well(self, world):
        later = [Task(f"later_{i}", "work", resources={"gpu": 1, "disk": 1}) for i in range(9)]
        tasks = [self.gpu("small_0"), self.gpu("small_1"), self.gpu("big", 2), *later]
        assert execute(world, tasks, hands=9, resources={"gpu": 2, "disk": 9}).tasks["big"].started == 1.0

    def test_nothing_is_kept_for_a_workflow_that_is_cancelled(self, world):
        orchestrator = world.spawn(Orchestrator("orchestrator", resources={"gpu": 2}))
        world.spawn(Hand("hand", concurrency=4))

        async def main():
            tasks = {"long": self.gpu("a"), "big": self.gpu("a", 2), "small": self.gpu("a")}
            flows = {name: await orchestrator.start(Workflow(name, [task])) for name, task in tasks.items()}
            await orchestrator.sleep(0.5)
            await orchestrator.cancel(flows["big"])
            return await orchestrator.outcome(flows["small"])

        assert world.run(main()).tasks["a"].started == 0.5

    def test_who_waits_for_one_resource_does_not_hold_up_who_needs_another(self, world):
        tasks = [self.gpu("g0"), self.gpu("g1"), Task("d0", "work", resources={"disk": 1})]
        assert execute(world, tasks, resources={"gpu": 1, "disk": 1}).tasks["d0"].started == 0.0

    def test_resources_of_the_orchestrator_are_shared_by_its_workflows(self, world):
        society(world, 0)
        world.agents["orchestrator"].stop()
        for i in range(4):
            world.spawn(Hand(f"hand_{i}"))
        orchestrator = world.spawn(Orchestrator("second", resources={"gpu": 1}))
        flow = Workflow("test", [self.gpu("a"), self.gpu("b")])

        async def main():
            return await asyncio.gather(orchestrator.execute(flow), orchestrator.execute(flow))

        assert sorted(outcome.ended for outcome in world.run(main())) == [2.0, 4.0]

    def test_fractions_add_up(self, world):
        tasks = [*[self.gpu(f"t{i}", 0.1 * (i % 3 + 1)) for i in range(30)], self.gpu("all", 1.0)]
        assert execute(world, tasks, hands=9, resources={"gpu": 1.0}).ok
        assert execute(world, [self.gpu("a", 0.1), self.gpu("b", 0.2)], resources={"gpu": 0.3}).time == 1.0

    def test_resources_come_back_from_whoever_fails_or_is_cancelled(self, world):
        orchestrator = world.spawn(Orchestrator("orchestrator", resources={"gpu": 1}))
        world.spawn(Hand("hand"))
        broken = Task("a", "flaky", {"failures": 9}, resources={"gpu": 1}, retries=1)
        assert not world.run(orchestrator.execute(Workflow("one", [broken]))).ok
        assert not world.run(orchestrator.execute(Workflow("two", [self.gpu("a", timeout=0.5)]))).ok
        assert not world.run(orchestrator.execute(Workflow("three", [self.gpu("a"), self.gpu("b")], timeout=0.5))).ok
        assert world.run(orchestrator.execute(Workflow("four", [self.gpu("a")]))).ok

    def test_a_paused_workflow_keeps_nothing_from_others(self, world):
        orchestrator = world.spawn(Orchestrator("orchestrator", resources={"gpu": 1}))
        world.spawn(Hand("hand", concurrency=4))

        async def main():
            paused = await orchestrator.start(Workflow("paused", [self.gpu("a"), self.gpu("b")]))
            await orchestrator.pause(paused)
            outcome = await orchestrator.execute(Workflow("other", [self.gpu("a")]))
            await orchestrator.resume(paused)
            return outcome, await orchestrator.outcome(paused)

        other, paused = world.run(main())
        assert other.ended == 2.0 and paused.ended == 3.0


class TestRollback:
    def tasks(self, *more):
        first = Task("a", "work", {"value": 1}, compensation="undo")
        second = Task(
            "b", "work", {"value": 2}, after=["a"], compensation=("undo", {"result": "${b.value} of ${a.by}"})
        )
        return [first, second, *more]

    def broken(self):
        return Task("z", "flaky", {"failures": 9}, after=["b"])

    def undone(self, world):
        return [value for what, value in world.agents["hand_0"].diary if what == "undone"]

    def test_finished_tasks_are_undone_in_reverse_order(self, world):
        outcome = execute(world, self.tasks(self.broken()), hands=1)
        assert outcome.status == "failed"
        assert self.undone(world) == ["2 of hand_0", {"by": "hand_0", "value": 1}]
        assert [(row["task"], row["error"]) for row in rows(world, "task_undone")] == [("b", None), ("a", None)]
        assert outcome.tasks["a"].undone and outcome.tasks["b"].undone and outcome.tasks["z"].undone is None
        assert [row["status"] for row in rows(world, "workflow")] == ["running", "rolling_back", "failed"]

    def test_a_compensation_that_fails_is_recorded_and_the_others_still_run(self, world):
        tasks = [*self.tasks(), Task("c", "work", after=["b"], compensation=("undo", {"fail": True}))]
        outcome = execute(world, [*tasks, Task("z", "flaky", {"failures": 9}, after=["c"])], hands=1)
        assert [(row["task"], row["error"]) for row in rows(world, "task_undone")] == [
            ("c", "ValueError: cannot undo"),
            ("b", None),
            ("a", None),
        ]
        assert outcome.tasks["c"].undone is False and outcome.status == "failed"

    def test_cancellation_and_time_out_roll_back_too(self, world):
        assert execute(world, self.tasks(Task("c", "work", {"seconds": 9.0}, after=["b"])), timeout=3.0).ended == 3.0
        assert len(rows(world, "task_undone")) == 2

    def test_a_rollback_is_neither_cancelled_nor_timed_out_nor_begun_again(self, world):
        orchestrator = society(world)
        first = Task("a", "work", compensation=("work", {"seconds": 5.0}))
        broken = Task("z", "flaky", {"failures": 9}, after=["a"])
        workflow = world.run(orchestrator.start(Workflow("test", [first, broken], timeout=4.0)))
        world.run(until=3.0)
        assert world.run(orchestrator.status(workflow))["status"] == "rolling_back"
        for steer in (orchestrator.cancel, orchestrator.pause, orchestrator.resume):
            assert world.run(steer(workflow)) is False
        outcome = world.run(orchestrator.outcome(workflow))
        assert outcome.status == "failed" and outcome.ended == 7.0
        assert [row["task"] for row in rows(world, "task_undone")] == ["a"]

    def test_nothing_is_undone_of_what_is_continued_or_completed(self, world):
        assert execute(world, self.tasks(self.broken()), on_failure="continue").status == "completed"
        assert execute(world, self.tasks()).ok
        assert rows(world, "task_undone") == []

    def test_a_capability_alone_gets_what_it_takes(self, world):
        class Hotel(Agent):
            heard = ()

            @capability
            async def book(self, guest: str, nights: int = 1) -> str:
                return "room 7"

            @capability
            async def free(self, guest: str, result: str) -> None:
                self.heard += ((guest, result),)

            @capability
            async def apologise(self) -> None:
                self.heard += ("sorry",)

            @capability
            async def record(self, **facts: object) -> None:
                self.heard += (sorted(facts),)

        hotel = world.spawn(Hotel("hotel"))
        tasks = [
            Task(undo, "book", {"guest": "Ada", "nights": 2}, before, compensation=undo)
            for undo, before in (("free", []), ("apologise", ["free"]), ("record", ["apologise"]))
        ]
        execute(world, [*tasks, Task("z", "flaky", {"failures": 9}, after=["record"])])
        assert hotel.heard == (["guest", "nights", "result"], "sorry", ("Ada", "room 7"))

    def test_nobody_there_to_undo(self, world):
        class Vandal(Agent):
            @capability
            async def smash(self) -> None:
                for name in ("hand_0", "vandal"):
                    self.world.agents[name].stop()

        world.spawn(Vandal("vandal"))
        outcome = execute(world, self.tasks(Task("z", "smash", after=["b"], timeout=5.0)), hands=1)
        assert [row["error"] for row in rows(world, "task_undone")] == [
            "AgentOffline: nobody can 'undo' at present"
        ] * 2
        assert outcome.status == "failed" and outcome.tasks["a"].undone is False


class TestSteering:
    def flow(self, count=4, **options):
        return Workflow(
            "test", [Task(f"t{i}", "work", after=[f"t{i - 1}"] if i else []) for i in range(count)], **options
        )

    def test_start_returns_the_id_at_once(self, world):
        orchestrator = society(world)

        async def main():
            workflow = await orchestrator.start(self.flow())
            assert world.now == 0.0
            return workflow, await orchestrator.outcome(workflow)

        workflow, outcome = world.run(main())
        assert workflow == outcome.workflow == "workflow-1" and outcome.ok

    def test_status_tells_the_progress(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(self.flow()))
        world.run(until=1.5)
        progress = world.run(orchestrator.status(workflow))
        assert progress["status"] == "running" and progress["progress"] == 0.25 and progress["running"] == ["t1"]
        assert progress["tasks"] == {"completed": 1, "pending": 2, "running": 1}
        world.run(until=9.0)
        assert world.run(orchestrator.status(workflow))["progress"] == 1.0
        assert world.run(orchestrator.status())["state"] == "idle"

    def test_pause_lets_running_tasks_finish_and_starts_no_others(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(self.flow()))
        world.run(until=0.5)
        assert world.run(orchestrator.pause(workflow)) and not world.run(orchestrator.pause(workflow))
        world.run(until=5.0)
        assert world.run(orchestrator.status(workflow))["tasks"] == {"completed": 1, "pending": 2, "ready": 1}
        assert world.run(orchestrator.resume(workflow)) and not world.run(orchestrator.resume(workflow))
        assert world.run(orchestrator.outcome(workflow)).ended == 8.0

    def test_time_outs_go_on_during_a_pause(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(self.flow(timeout=3.0)))
        world.run(orchestrator.pause(workflow))
        assert world.run(orchestrator.outcome(workflow)).status == "timed_out" and world.now == 3.0

    def test_cancelled_is_final(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(self.flow()))
        world.run(until=1.5)
        assert world.run(orchestrator.cancel(workflow, "no longer needed")) is True
        outcome = world.run(orchestrator.outcome(workflow))
        assert outcome.status == "cancelled" and outcome.detail == "no longer needed" and outcome.ended == 1.5
        for steer in (orchestrator.cancel, orchestrator.pause, orchestrator.resume):
            assert world.run(steer(workflow)) is False
        world.run(until=20.0)
        assert world.run(orchestrator.outcome(workflow)) == outcome
        assert statuses(outcome) == {"t0": "completed", "t1": "cancelled", "t2": "cancelled", "t3": "cancelled"}
        assert order(world) == ["t0", "t1"]
        assert world.agents["hand_0"].load == 0.0 and audit(world.trace, self.flow()) == []

    def test_a_paused_workflow_can_be_cancelled(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(self.flow()))
        world.run(orchestrator.pause(workflow))
        assert world.run(orchestrator.cancel(workflow)) is True
        assert world.run(orchestrator.outcome(workflow)).status == "cancelled"

    def test_whoever_gives_up_waiting_for_execute_cancels_the_workflow(self, world):
        orchestrator = society(world)

        async def main():
            async with asyncio.timeout(1.5):
                await orchestrator.execute(self.flow())

        with pytest.raises(TimeoutError):
            world.run(main())
        world.run(until=9.0)
        assert rows(world, "workflow")[-1]["status"] == "cancelled" and order(world) == ["t0", "t1"]

    def test_summary(self, world):
        orchestrator = society(world)
        world.run(orchestrator.execute(self.flow()))
        world.run(orchestrator.execute(Workflow("broken", [Task("a", "flaky", {"failures": 9}, retries=1)])))
        summary = world.run(orchestrator.summary())
        assert summary["workflows"] == {"completed": 1, "failed": 1}
        assert summary["tasks"] == {"completed": 4, "failed": 1} and summary["attempts"] == 6
        assert summary["mean_time"] == 3.5
        one = world.run(orchestrator.summary("workflow-2"))
        assert one["status"] == "failed" and one["tasks"]["a"]["attempts"] == 2

    def test_unknown_workflows(self, world):
        orchestrator = society(world)
        for operation in (orchestrator.status, orchestrator.cancel, orchestrator.pause, orchestrator.outcome):
            for wrong in ("workflow-9", "", 5, ["workflow-1"]):
                with pytest.raises(InvalidValue, match="no workflow"):
                    world.run(operation(wrong))


class TestAdding:
    def grower(self, world, tasks, after=None):
        class Grower(Agent):
            @capability
            async def grow(self, workflow: str, orchestrator: str) -> list[str]:
                await self.sleep(1.0)
                return await self.request(orchestrator, "add", workflow=workflow, tasks=tasks, parent="a")

        world.spawn(Grower("grower"))
        return Task("a", "grow", {"workflow": "${workflow.id}", "orchestrator": "${workflow.orchestrator}"})

    def test_a_task_adds_tasks_to_its_own_workflow(self, world):
        new = [Task("b", "work", {"value": "${a}"}, after=["a"]), Task("c", "work", after=["b", "d"])]
        outcome = execute(world, [self.grower(world, new), Task("d", "work", {"seconds": 4.0})])
        assert outcome.ok and outcome.results["b"]["value"] == ["b", "c"]
        assert outcome.tasks["b"].started == 1.0 and outcome.tasks["c"].started == 4.0
        assert [row["parent"] for row in rows(world, "task_added")] == [None, None, "a", "a"]

    def test_the_same_checks_apply(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(Workflow("test", [Task("a", "work"), Task("b", "work")])))
        for tasks, text in (
            ([Task("a", "work")], "'a' is the name"),
            ([Task("c", "work", after=["ghost"])], "'ghost'"),
            ([Task("c", "work", after=["d"]), Task("d", "work", after=["c"])], "c -> d -> c"),
            ([Task("c", "fly")], "'fly'"),
            ([Task("c", "work", {"value": "${b.value}"}, after=["a"])], "does not come after 'b'"),
            ([Task("c", "work", resources={"gpu": 1})], "'gpu'"),
            *((wrong, "give a list of tasks") for wrong in (None, 5, [{"id": "c"}], Task("c", "work"))),
        ):
            with pytest.raises(InvalidWorkflow, match=text):
                world.run(orchestrator.add(workflow, tasks))
        with pytest.raises(InvalidWorkflow, match="'ghost' is no task of workflow-1"):
            world.run(orchestrator.add(workflow, [Task("c", "work")], parent="ghost"))
        assert world.run(orchestrator.outcome(workflow)).results.keys() == {"a", "b"}

    def test_nothing_is_added_to_what_has_ended(self, world):
        orchestrator = society(world)
        world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))
        with pytest.raises(InvalidWorkflow, match="completed"):
            world.run(orchestrator.add("workflow-1", [Task("b", "work")]))

    def test_what_comes_after_a_failed_task_is_skipped_at_once(self, world):
        orchestrator = society(world)
        tasks = [Task("a", "flaky", {"failures": 9}), Task("b", "work", {"seconds": 5.0})]
        workflow = world.run(orchestrator.start(Workflow("test", tasks, on_failure="continue")))
        world.run(until=2.0)
        world.run(orchestrator.add(workflow, [Task("c", "work", after=["a"]), Task("d", "work", after=["c"])]))
        assert world.run(orchestrator.status(workflow))["tasks"] == {"failed": 1, "running": 1, "skipped": 2}

    def test_those_behind_ended_tasks_begin_at_once(self, world):
        orchestrator = society(world)
        workflow = world.run(
            orchestrator.start(Workflow("test", [Task("a", "work"), Task("b", "work", {"seconds": 5})]))
        )
        world.run(until=2.0)
        world.run(orchestrator.add(workflow, [Task("c", "work", {"value": "${a.by}"}, after=["a"])]))
        assert world.run(orchestrator.outcome(workflow)).tasks["c"].started == 2.0


class TestMessages:
    """Every operation is a capability, and a workflow is data."""

    def test_execute_by_message(self, world):
        society(world)
        client = world.spawn(Agent("client"))
        tasks = [Task("a", "work", {"value": 1}, compensation=("undo", {}), resources={"gpu": 1})]
        flow = Workflow("test", [*tasks, Task("b", "work", after=["a"])], resources={"gpu": 1})
        outcome = world.run(client.request("orchestrator", "execute", workflow=flow))
        assert (
            outcome.ok and outcome.tasks["a"].agent == "hand_0" and outcome.results["a"] == {"by": "hand_0", "value": 1}
        )
        assert outcome == world.run(world.agents["orchestrator"].outcome("workflow-1"))

    def test_the_other_operations_by_message(self, world):
        society(world)
        client = world.spawn(Agent("client"))

        async def main():
            ask = lambda what, **inputs: client.request("orchestrator", what, **inputs)  # noqa: E731
            workflow = await ask(
                "start", workflow=Workflow("test", [Task("a", "work"), Task("b", "work", after=["a"])])
            )
            assert (await ask("status", workflow=workflow))["running"] == ["a"]
            assert await ask("pause", workflow=workflow) and await ask("resume", workflow=workflow)
            assert await ask("add", workflow=workflow, tasks=[Task("c", "work", after=["b"])]) == ["c"]
            await client.sleep(0.5)
            assert await ask("cancel", workflow=workflow)
            outcome = await ask("outcome", workflow=workflow)
            assert outcome.status == "cancelled" and outcome.tasks["c"].status == "cancelled"
            assert (await ask("summary"))["workflows"] == {"cancelled": 1}
            return await ask("status")

        assert world.run(main())["name"] == "orchestrator"

    def test_status_while_many_wait_for_their_outcome(self, world):
        society(world)
        clients = [world.spawn(Agent(f"client_{i}")) for i in range(50)]
        flow = Workflow("test", [Task("a", "work", {"seconds": 20.0})])

        async def main():
            asking = [
                asyncio.ensure_future(client.request("orchestrator", "execute", workflow=flow))
                for client in clients[1:]
            ]
            await clients[0].sleep(1.0)
            assert await clients[0].request("orchestrator", "cancel", workflow="workflow-7", timeout=1.0)
            return await asyncio.gather(*asking, return_exceptions=True)

        assert world.run(main())[6].status == "cancelled"

    def test_resources_and_compensations_may_be_only_named_in_a_message_too(self, world):
        society(world)
        client = world.spawn(Agent("client"))
        tasks = [{"id": "a", "capability": "work", "resources": ["gpu"], "compensation": "undo"}]
        flow = {"name": "test", "tasks": tasks, "resources": ["gpu"]}
        assert world.run(client.request("orchestrator", "execute", workflow=flow)).ok

    def test_an_invalid_workflow_in_a_message_is_refused(self, world):
        society(world)
        client = world.spawn(Agent("client"))
        tasks = [{"id": "a", "capability": "work", "after": ["b"]}, {"id": "b", "capability": "work", "after": ["a"]}]
        with pytest.raises(InvalidInput, match="a -> b -> a"):
            world.run(client.request("orchestrator", "execute", workflow={"name": "test", "tasks": tasks}))

    def test_outcomes_are_data(self, world):
        outcome = execute(world, [Task("a", "work", {"value": [1, {"x": None}]}), Task("b", "flaky", after=["a"])])
        assert pickle.loads(pickle.dumps(outcome)) == outcome
        flow = Workflow("test", [Task("a", "work", {"value": 1})])
        assert pickle.loads(pickle.dumps(flow)) == flow


class TestRefused:
    def refuse(self, world, text, tasks, **options):
        orchestrator = world.agents.get("orchestrator") or society(world)
        with pytest.raises(InvalidWorkflow, match=text):
            world.run(orchestrator.execute(Workflow("test", tasks, **options)))
        assert rows(world, "workflow") == [] and rows(world, "task_added") == []

    def test_cycles_naming_the_path(self, world):
        self.refuse(world, "a -> b -> a", [Task("a", "work", after=["b"]), Task("b", "work", after=["a"])])
        self.refuse(world, "a -> a", [Task("a", "work", after=["a"])])
        names = ["a", "b", "c", "d"]
        ring = [Task(name, "work", after=[names[(i + 1) % 4]]) for i, name in enumerate(names)]
        self.refuse(world, "a -> b -> c -> d -> a", [Task("x", "work"), *ring, Task("y", "work", after=["c"])])

    def test_unknown_dependencies_and_duplicate_ids(self, world):
        self.refuse(world, "'b' comes after 'ghost'", [Task("a", "work"), Task("b", "work", after=["ghost"])])
        self.refuse(world, "'a' is the name of another task", [Task("a", "work"), Task("a", "work")])
        self.refuse(world, "'region' is the name", [Task("region", "work")], context={"region": 1})
        self.refuse(world, "'workflow' is the name", [Task("workflow", "work")])

    def test_what_nobody_has_ever_offered(self, world):
        self.refuse(world, "'a' needs 'fly'", [Task("a", "fly")])
        self.refuse(world, "'a' needs 'unfly'", [Task("a", "work", compensation="unfly")])
        self.refuse(world, "'a' needs 'ping'", [Task("a", "ping")])
        self.refuse(world, "'a' needs 'discover'", [Task("a", "discover")])
        self.refuse(world, "'a' needs 'execute'", [Task("a", "execute")])

    def test_a_search_along_many_paths_is_no_search_along_each(self, world):
        layers = [
            Task(f"{i}{side}", "work", after=[f"{i - 1}a", f"{i - 1}b"] if i else [])
            for i in range(60)
            for side in "ab"
        ]
        last = Task("last", "work", {"value": "${aside.by}"}, after=["59a"])
        self.refuse(world, "does not come after 'aside'", [*layers, Task("aside", "work"), last])

    def test_what_streams_is_no_task(self, world):
        class Writer(Agent):
            @capability
            async def draft(self):
                yield "once"

        world.spawn(Writer("writer"))
        self.refuse(world, "'a' needs 'draft'", [Task("a", "draft")])

    def test_references(self, world):
        self.refuse(world, r"\${ghost.x}; 'ghost' is no task", [Task("a", "work", {"value": "${ghost.x}"})])
        self.refuse(world, "does not come after 'b'", [Task("a", "work", {"value": ["${b}"]}), Task("b", "work")])
        self.refuse(world, "does not come after 'a'", [Task("a", "work", {"value": "${a.by}"})])
        dotted = [Task("a.b", "work"), Task("c", "work", {"value": "${a.b.by}"}, after=["a.b"])]
        self.refuse(world, "'a' is no task", dotted)
        undo = ("undo", {"result": "${ghost}"})
        self.refuse(world, "ghost", [Task("a", "work", compensation=undo)])
        chain = [
            Task("a", "work"),
            Task("b", "work", after=["a"]),
            Task("c", "work", {"value": "${a.by}"}, after=["b"]),
        ]
        assert execute(world, chain).results["c"]["value"] == "hand_0"

    def test_resources(self, world):
        self.refuse(world, "needs 1 of 'gpu', and there is 0", [Task("a", "work", resources={"gpu": 1})])
        self.refuse(
            world, "needs 3 of 'gpu', and there is 2", [Task("a", "work", resources={"gpu": 3})], resources={"gpu": 2}
        )

    @pytest.mark.parametrize(
        "options",
        [
            *({"timeout": value} for value in (0, -1, float("nan"), "long")),
            *({"retries": value} for value in (-1, 1.5, True)),
            *({"backoff": value} for value in (-1, float("nan"))),
            *({"resources": value} for value in ({"gpu": 0}, {"gpu": -1}, "gpu", {"gpu"}, {"gpu": float("nan")})),
            *({"priority": value} for value in ("high", 0.5, None)),
            *({"after": value} for value in ("b", [1], {"b"}, None)),
            *({"inputs": value} for value in ([1], "x", {1: 2}, {"x": {1, 2}}, {"x": print})),
            *({"compensation": value} for value in (("undo", [1]), ("undo", {"x": print}), ("undo",), 3)),
            {"condition": "a.value > 3"},
            {"id": ""},
            {"id": None},
            {"capability": ""},
        ],
    )
    def test_tasks(self, options):
        with pytest.raises(MasbookError):
            Task(**{"id": "a", "capability": "work", **options})

    @pytest.mark.parametrize(
        "options",
        [
            *({"max_parallel": value} for value in (0, -1, 2.5)),
            *({"timeout": value} for value in (0, -1, float("nan"))),
            *({"resources": value} for value in ({"gpu": 0}, {"gpu": -1})),
            *({"context": value} for value in ([1], {"x": {1}})),
            *({"tasks": value} for value in (["a"], [None], None, 5, "abc", Task("a", "work"))),
            *({"name": value} for value in ("", " ", 5)),
            {"context": {"workflow": 1}},
            *({"on_failure": value} for value in ("panic", None, ["stop"])),
            {"name": None},
        ],
    )
    def test_workflows(self, options):
        with pytest.raises(MasbookError):
            Workflow(**{"name": "test", "tasks": [], **options})

    @pytest.mark.parametrize("resources", [{"gpu": -1}, {"gpu": float("nan")}, {1: 1}, "gpu", 5])
    def test_orchestrators(self, resources):
        with pytest.raises(InvalidValue):
            Orchestrator("o", resources=resources)

    def test_sets_are_refused_for_their_order(self):
        with pytest.raises(Unrecordable, match="after"):
            Task("a", "work", after={"b", "c"})

    def test_what_is_no_workflow(self, world):
        orchestrator = society(world)
        with pytest.raises(InvalidWorkflow, match="no Workflow"):
            world.run(orchestrator.execute([Task("a", "work")]))

    def test_outside_a_run(self, world):
        orchestrator = society(world)
        with pytest.raises(WorldError, match=r"world\.run"):
            asyncio.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))

    def test_by_an_orchestrator_that_is_gone(self, world):
        orchestrator = society(world)
        orchestrator.stop()
        with pytest.raises(AgentOffline):
            world.run(orchestrator.execute(Workflow("test", [Task("a", "work")])))

    def test_a_reason_that_cannot_be_recorded_cancels_nothing(self, world):
        orchestrator = society(world)
        workflow = world.run(orchestrator.start(Workflow("test", [Task("a", "work")])))
        for reason in ({1}, "", None):
            with pytest.raises(InvalidValue, match="reason"):
                world.run(orchestrator.cancel(workflow, reason))
        assert world.run(orchestrator.outcome(workflow)).ok


class TestOrchestratorGone:
    @pytest.mark.parametrize("by_message", [False, True])
    @pytest.mark.parametrize("end", ["stop", "crash"])
    def test_whoever_waits_learns_of_it_and_nothing_hangs(self, world, end, by_message):
        orchestrator, client = society(world), world.spawn(Agent("client"))
        flow = Workflow(
            "test", [Task("a", "work", {"seconds": 9.0}, compensation="undo"), Task("b", "work", after=["a"])]
        )
        how = orchestrator.stop if end == "stop" else lambda: orchestrator.crash(ValueError("boom"))
        world.loop.call_at(0.5, how)
        asked = client.request("orchestrator", "execute", workflow=flow) if by_message else orchestrator.execute(flow)
        with pytest.raises(AgentOffline if end == "stop" else AgentCrashed):
            world.run(asked)
        world.run(until=20.0)
        assert world.now == 20.0 and audit(world.trace, flow) == []
        assert [row["status"] for row in rows(world, "task_ended")] == ["cancelled", "cancelled"]
        assert world.agents["hand_0"].diary == [("begun", None)] and rows(world, "task_undone") == []

    def test_it_takes_up_work_after_a_restart(self, world):
        orchestrator = society(world)
        flow = Workflow("test", [Task("a", "work")])
        workflow = world.run(orchestrator.start(flow))
        orchestrator.stop()
        orchestrator.restart()
        assert world.run(orchestrator.execute(flow)).ok
        assert world.run(orchestrator.status(workflow))["status"] == "cancelled"
        with pytest.raises(AgentOffline):
            world.run(orchestrator.outcome(workflow))

    def test_in_the_middle_of_a_rollback(self, world):
        orchestrator = society(world)
        tasks = [Task("a", "work", compensation="work"), Task("z", "flaky", {"failures": 9}, after=["a"])]
        tasks[0] = Task("a", "work", compensation=("work", {"seconds": 5.0}))
        world.loop.call_at(3.0, orchestrator.stop)
        with pytest.raises(AgentOffline):
            world.run(orchestrator.execute(Workflow("test", tasks)))
        assert rows(world, "workflow")[-1]["status"] == "failed"

    def test_closing_the_world_ends_every_task(self):
        with World(7) as world:
            orchestrator = society(world)
            flow = Workflow("test", [Task("a", "work", {"seconds": 9.0}), Task("b", "work", after=["a"])])
            world.run(orchestrator.start(flow))
            world.run(until=1.0)
        assert audit(world.trace, flow) == []


def test_a_world_without_agents_is_told_to_spawn_them():
    world = World(7)
    flow = Workflow("f", [Task("a", "work")])
    with pytest.raises(InvalidWorkflow, match="nobody here has ever offered anything: spawn the agents first"):
        world.run(world.spawn(Orchestrator()).execute(flow))
