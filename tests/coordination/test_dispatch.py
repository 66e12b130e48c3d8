"""Dispatch: every task ends once, nobody has two parts at a time, and whatever fails gives its part to another."""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import permutations

import pytest
from crew import DoubleReleaser, Gauge, Scale, complaints, spawn_gauges
from hypothesis import given, settings
from hypothesis import strategies as st

from masbook import Agent, Crash, FaultPlan, OnMessage, Pause, World, capability, simulate
from masbook.coordination import Coordinator, TaskOutcome, Worker
from masbook.coordination.dispatch.choice import pair
from masbook.errors import AgentCrashed, AgentOffline, InvalidInput, InvalidValue, Stuck, WorkerBusy


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world


def staffed(world, workers=4, **options):
    """Return a coordinator with so many gauges to give work to."""
    spawn_gauges(world, workers)
    return world.spawn(Coordinator("coordinator", **options))


def starts(world):
    return [(event.time, event.who) for event in world.trace.events("task_started")]


def reasons(world):
    return [event.facts["reason"] for event in world.trace.events("task_waiting")]


class TestExecute:
    def test_several_workers_and_one_value(self, world):
        coordinator = staffed(world, 4)
        outcome = world.run(coordinator.execute("measure", {"seconds": 2.0}, workers=3, aggregate="mean"))
        assert (outcome.task, outcome.status, outcome.value) == ("task-1", "completed", 2.0)
        assert outcome.results == {"gauge_1": 1.0, "gauge_2": 2.0, "gauge_3": 3.0}
        assert (outcome.attempts, outcome.duration, outcome.error) == (3, 2.0, None)
        assert world.now == 2.0 and complaints(world.trace) == []

    def test_by_message_as_by_call(self, world):
        coordinator, client = staffed(world), world.spawn(Agent("client"))
        called = world.run(coordinator.execute("measure", workers=3, aggregate="sum"))
        content = {"capability": "measure", "workers": 3, "aggregate": "sum"}
        asked = world.run(client.request("coordinator", "execute", content))
        assert type(asked) is TaskOutcome and asked == dataclasses.replace(called, task="task-2")
        task = world.run(client.request("coordinator", "submit", content))
        assert world.run(client.request("coordinator", "status", task=task))["status"] == "running"
        assert world.run(client.request("coordinator", "result", task=task)).value == 6.0

    def test_submit_returns_at_once_and_result_waits(self, world):
        coordinator = staffed(world, 2)
        tasks = [world.run(coordinator.submit("measure", workers=2)) for _ in range(2)]
        assert world.now == 0.0
        assert [world.run(coordinator.result(task)).duration for task in tasks] == [1.0, 2.0]

    def test_each_worker_may_have_inputs_of_its_own(self, world):
        world.spawn(Scale("left"))
        world.spawn(Scale("right"))
        coordinator = world.spawn(Coordinator("coordinator"))
        outcome = world.run(coordinator.execute("weigh", [{"what": "iron"}, {"what": "wool"}]))
        assert outcome.value == ["left weighs iron", "right weighs wool"]

    def test_workers_of_several_capabilities(self, world):
        coordinator = staffed(world, 3)
        world.spawn(Scale("scale"))
        outcome = world.run(coordinator.execute(["measure", "weigh", "measure"]))
        assert outcome.value == [1.0, "scale weighs ", 2.0] and outcome.results["scale"] == "scale weighs "
        assert world.run(coordinator.execute(["measure", "weigh"], workers=1)).attempts == 2

    def test_plain_agents_may_serve(self, world):
        class Plain(Agent):
            @capability
            async def count(self) -> int:
                await self.sleep(1.0)
                return 1

        for name in ("a", "b"):
            world.spawn(Plain(name))
        coordinator = world.spawn(Coordinator("coordinator"))
        assert world.run(coordinator.execute("count", workers=2, aggregate="sum")).value == 2

    def test_outcomes_are_frozen(self, world):
        outcome = world.run(staffed(world).execute("measure", {"seconds": 1.0}))
        with pytest.raises(dataclasses.FrozenInstanceError):
            outcome.value = 0.0
        for change in (lambda: outcome.results.update(x=1), lambda: outcome.inputs[0].update(x=1)):
            with pytest.raises(TypeError):
                change()

    def test_inputs_are_taken_as_they_are_now(self, world):
        coordinator, inputs = staffed(world, 1), {"seconds": 1.0}
        task = world.run(coordinator.submit("measure", inputs))
        inputs["seconds"] = 50.0
        assert world.run(coordinator.result(task)).duration == 1.0

    def test_who_gives_up_waiting_cancels_the_task(self, world):
        coordinator, client = staffed(world, 1), world.spawn(Agent("client"))

        async def impatient():
            content = {"capability": "measure", "inputs": {"seconds": 60.0}}
            with pytest.raises(TimeoutError):
                await client.request("coordinator", "execute", content, timeout=1.0, on_timeout="cancel")
            await client.sleep(1.0)
            return await coordinator.execute("measure")

        assert world.run(impatient()).duration == 1.0
        assert world.run(coordinator.result("task-1")).status == "cancelled" and complaints(world.trace) == []


class TestAggregation:
    @pytest.mark.parametrize(
        ("aggregate", "value"),
        [
            (None, [1.0, 2.0, 3.0, 4.0]),
            ("list", [1.0, 2.0, 3.0, 4.0]),
            ("mean", 2.5),
            ("median", 2.5),
            ("min", 1.0),
            ("max", 4.0),
            ("sum", 10.0),
            (lambda results: {"spread": max(results) - min(results)}, {"spread": 3.0}),
        ],
    )
    def test_of_numbers(self, world, aggregate, value):
        assert world.run(staffed(world).execute("measure", workers=4, aggregate=aggregate)).value == value

    def test_of_fields_that_are_numbers(self, world):
        outcome = world.run(staffed(world).execute("read", workers=4, aggregate="mean"))
        assert outcome.value == {"level": 2.5}

    def test_the_only_result_is_the_value(self, world):
        assert world.run(staffed(world).execute("measure")).value == 1.0
        assert world.run(staffed_again(world).execute("measure", aggregate="list")).value == [1.0]

    def test_results_are_in_the_order_of_the_parts_however_late_they_come(self, world):
        inputs = [{"seconds": seconds} for seconds in (4.0, 1.0, 3.0, 2.0)]
        outcome = world.run(staffed(world).execute("measure", inputs, aggregate=list))
        assert outcome.value == [1.0, 2.0, 3.0, 4.0] == list(outcome.results.values())

    @pytest.mark.parametrize(
        ("aggregate", "error"),
        [
            ("mean", "InvalidValue from the aggregation: a result is 'scale_1 weighs '"),
            (lambda results: results[9], "IndexError from the aggregation"),
            (lambda results: {1, 2}, "Unrecordable from the aggregation"),
        ],
    )
    def test_one_that_fails_fails_its_task_only(self, world, aggregate, error):
        world.spawn(Scale("scale_1"))
        coordinator = world.spawn(Coordinator("coordinator"))
        outcome = world.run(coordinator.execute("weigh", aggregate=aggregate))
        assert outcome.status == "failed" and error in outcome.error and outcome.value is None
        assert outcome.results == {"scale_1": "scale_1 weighs "}
        assert world.run(coordinator.execute("weigh")).status == "completed"


def staffed_again(world):
    return world.spawn(Coordinator("another"))


class TestWaiting:
    def test_a_task_for_more_than_there_are_waits_until_they_come(self, world):
        coordinator = staffed(world, 2)
        task = world.run(coordinator.submit("measure", workers=3, aggregate="sum"))
        world.run(until=5.0)
        assert reasons(world) == ["needs 3 that can 'measure', there are 2"] and starts(world) == []
        assert world.run(coordinator.status(task))["status"] == "waiting"
        world.spawn(Gauge("gauge_3"))
        assert world.run(coordinator.result(task)).value == 6.0
        assert [time for time, _ in starts(world)] == [5.0, 5.0, 5.0]

    def test_until_stopped_ones_are_restarted(self, world):
        coordinator = staffed(world, 8)
        for name in ("gauge_3", "gauge_5"):
            world.agents[name].stop()
        task = world.run(coordinator.submit("measure", workers=8))
        world.run(until=5.0)
        for name in ("gauge_3", "gauge_5"):
            world.agents[name].restart()
        outcome = world.run(coordinator.result(task))
        assert outcome.status == "completed" and len(outcome.results) == 8 and world.now == 6.0

    def test_or_until_the_deadline(self, world):
        coordinator = staffed(world, 2)
        outcome = world.run(coordinator.execute("measure", workers=3, timeout=7.0))
        lack = "not done within 7 s: it needs 3 that can 'measure', there are 2"
        assert (outcome.status, outcome.error, world.now) == ("timed_out", lack, 7.0)
        assert outcome.attempts == 0 and complaints(world.trace) == []
        assert "nobody waits for anything" in world.explain()

    def test_a_part_that_nobody_else_can_do_does_not_block_those_behind(self):
        async def scenario(world):
            coordinator = staffed(world, 2)
            await coordinator.submit("measure", [{"seconds": 1.0}, {"seconds": 5.0}])
            await coordinator.sleep(3.0)  # gauge_1 has done its part, and gauge_2 is gone
            return await coordinator.execute("measure")

        assert simulate(scenario, faults=FaultPlan(appointments=[Crash("gauge_2", 2.0)])).result.duration == 1.0

    def test_it_does_not_block_those_behind(self, world):
        coordinator = staffed(world, 2)
        world.run(coordinator.submit("measure", workers=3))
        assert world.run(coordinator.execute("measure", workers=2)).duration == 1.0

    def test_one_that_can_be_done_is_not_overtaken_for_ever(self, world):
        coordinator = staffed(world, 4)

        async def stream_of_small_ones():
            for _ in range(10):
                await coordinator.submit("measure", {"seconds": 1.5})
                await coordinator.sleep(0.5)

        async def scenario():
            small = asyncio.create_task(stream_of_small_ones())
            await coordinator.sleep(1.2)
            outcome = await coordinator.execute("measure", workers=4)
            await small
            return outcome.duration

        assert world.run(scenario()) < 3.0

    def test_workers_who_are_long_at_work_are_there_all_the_same(self, world):
        """The registry calls them unhealthy after ten minutes."""
        coordinator = staffed(world, 1)
        world.run(coordinator.submit("measure", {"seconds": 2000.0}))
        world.run(until=900.0)
        assert world.run(coordinator.execute("measure")).duration == 1101.0 and reasons(world) == []

    def test_nor_are_those_gone_who_are_long_at_the_work_of_others(self, world):
        coordinator, client = staffed(world, 1), world.spawn(Agent("client"))
        client.background(client.request("gauge_1", "measure", seconds=2000.0, timeout=None))
        world.run(until=900.0)
        assert world.run(coordinator.execute("measure")).duration == 1101.0

    def test_news_of_workers_cannot_be_lost(self):
        async def scenario(world):
            coordinator = staffed(world, 1)
            task = await coordinator.submit("measure", workers=2)
            await coordinator.sleep(5.0)
            world.spawn(Gauge("gauge_2"))
            return (await coordinator.result(task)).status

        lost = FaultPlan(appointments=[OnMessage("drop", topic="agent.*", to="coordinator")])
        assert simulate(scenario, faults=lost).result == "completed"

    def test_nor_held_up_by_a_thousand_who_wait(self, world):
        staffed(world, 0)
        client = world.spawn(Agent("client"))

        async def scenario():
            content = {"capability": "measure", "inputs": {"seconds": 0.01}}
            asks = [client.request("coordinator", "execute", content, timeout=None) for _ in range(1100)]
            waiting = asyncio.gather(*asks)
            await client.sleep(1.0)
            spawn_gauges(world, 4)
            return await waiting

        assert len(world.run(scenario())) == 1100

    def test_nothing_polls_and_a_stuck_world_says_what_is_missing(self, world):
        coordinator = staffed(world, 2)
        with pytest.raises(
            Stuck, match="coordinator waits for workers: task-1 needs 3 that can 'measure', there are 2"
        ):
            world.run(coordinator.execute("measure", workers=3))

    def test_unhealthy_workers_do_not_count(self, world):
        coordinator = staffed(world, 2)
        world.run(coordinator.execute("measure", workers=2))
        world.run(world.registry.discover())
        world.run(world.registry.update("gauge_1", health="unhealthy"))
        task = world.run(coordinator.submit("measure", workers=2))
        world.run(until=3.0)
        assert len(reasons(world)) == 1
        world.run(world.registry.update("gauge_1", health="healthy"))
        assert world.run(coordinator.result(task)).status == "completed"


class TestBusyWorkers:
    def test_a_worker_rejects_what_it_has_no_hands_for(self, world):
        gauge, client = world.spawn(Gauge("gauge_1")), world.spawn(Agent("client"))

        async def two_at_once():
            asks = [client.request("gauge_1", "measure"), client.request("gauge_1", "measure")]
            return await asyncio.gather(*asks, return_exceptions=True)

        first, second = world.run(two_at_once())
        assert first == 1.0 and type(second) is WorkerBusy and "gauge_1" in str(second)
        assert gauge.metrics["failed"] == 1 and world.bus.accounting()["missing"] == 0

    def test_it_has_as_many_hands_as_its_concurrency_says(self, world):
        world.spawn(Gauge("gauge_1", concurrency=2))
        client = world.spawn(Agent("client"))

        async def three_at_once():
            asks = [client.request("gauge_1", "measure") for _ in range(3)]
            return await asyncio.gather(*asks, return_exceptions=True)

        assert [type(answer) for answer in world.run(three_at_once())] == [float, float, WorkerBusy]

    def test_and_says_when_it_is_free(self, world):
        world.spawn(Gauge("gauge_1"))
        client = world.spawn(Agent("client"))

        async def patient():
            work = asyncio.create_task(client.request("gauge_1", "measure", seconds=3.0))
            await client.sleep(1.0)
            await client.request("gauge_1", "when_free")
            return client.now, await work

        assert world.run(patient()) == (3.0, 1.0)

    def test_another_is_chosen(self, world):
        coordinator, client = staffed(world, 3, selection=lambda free, random: free), world.spawn(Agent("client"))
        slow = [Gauge(f"gauge_{n}", heartbeat=60.0) for n in (8, 9)]  # their load in the registry is old

        async def scenario():
            for worker in ("gauge_1", "gauge_2"):
                client.background(client.request(worker, "measure", seconds=5.0))
            await client.sleep(1.0)
            coordinator.selection = lambda free, random: sorted(free)  # those with work first
            return await coordinator.execute("measure")

        assert slow and world.run(scenario()).results == {"gauge_3": 3.0}
        failed = [(event.who, event.facts["next"]) for event in world.trace.events("task_failed")]
        assert failed == [("gauge_1", "another worker"), ("gauge_2", "another worker")]

    def test_where_all_are_busy_the_first_that_is_free_gets_it(self, world):
        coordinator, client = staffed(world, 2), world.spawn(Agent("client"))

        async def scenario():
            for worker, seconds in (("gauge_1", 9.0), ("gauge_2", 4.0)):
                client.background(client.request(worker, "measure", seconds=seconds))
            await client.sleep(1.0)
            return await coordinator.execute("measure")

        assert world.run(scenario()).results == {"gauge_2": 2.0} and world.now == 5.0
        assert world.run(coordinator.status())["busy"] == {"gauge_1": "the work of others"}
        world.run(until=20.0)
        assert world.run(coordinator.status())["busy"] == {} and complaints(world.trace) == []

    def test_a_request_delivered_twice_is_worked_on_once(self):
        async def scenario(world):
            coordinator = staffed(world, 1)
            return (await coordinator.execute("measure")).attempts

        run = simulate(scenario, faults=FaultPlan(appointments=[OnMessage("duplicate", topic="measure")]))
        assert run.result == 1 and run.trace.count("handled", "gauge_1") == 1 and run.time == 1.0

    def test_two_coordinators_share_the_workers(self, world):
        coordinators = [staffed(world, 3), world.spawn(Coordinator("other", selection="random"))]

        async def scenario():
            return await asyncio.gather(
                *[each.execute("measure", workers=2) for each in coordinators for _ in range(4)]
            )

        assert all(outcome.status == "completed" for outcome in world.run(scenario()))
        assert all(world.run(each.status())["busy"] == {} for each in coordinators) and complaints(world.trace) == []

    def test_a_rejection_raised_by_the_work_itself_is_no_endless_loop(self, world):
        class Choosy(Agent):
            @capability
            async def measure(self) -> float:
                raise WorkerBusy("not today")

        world.spawn(Choosy("choosy"))
        coordinator = world.spawn(Coordinator("coordinator", max_losses=3))
        outcome = world.run(coordinator.execute("measure"))
        assert outcome.status == "failed" and outcome.attempts == 4 and "not today" in outcome.error


class TestFailures:
    def test_the_part_of_a_crashed_worker_goes_to_another(self):
        async def scenario(world):
            coordinator = staffed(world, 4)
            return await coordinator.execute("measure", {"seconds": 2.0}, workers=3, aggregate="sum")

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("gauge_2", 1.0)]))
        assert run.result.status == "completed" and run.result.value == 1.0 + 4.0 + 3.0
        assert (run.result.attempts, run.time) == (4, 3.0) and list(run.result.results) == [
            "gauge_1",
            "gauge_4",
            "gauge_3",
        ]
        failed = next(run.trace.events("task_failed"))
        assert (failed.time, failed.who, failed.facts["next"]) == (1.0, "gauge_2", "another worker")
        assert "InjectedCrash" in failed.facts["error"] and complaints(run.trace) == []

    def test_where_all_are_needed_it_waits_until_they_are_back(self):
        async def scenario(world):
            coordinator = staffed(world, 8)
            outcome = await coordinator.execute("measure", {"seconds": 2.0}, workers=8, aggregate="mean")
            return outcome, await coordinator.status()

        plan = FaultPlan(appointments=[Crash("gauge_2", 1.0, restart_after=4.0), Crash("gauge_7", 1.5, 9.0)])
        run = simulate(scenario, faults=plan)
        outcome, status = run.result
        assert outcome.value == 4.5 and outcome.attempts == 10 and run.time == 12.5
        assert status["busy"] == {} and status["tasks"] == {"completed": 1} and complaints(run.trace) == []

    def test_a_restarted_worker_is_used_again(self):
        async def scenario(world):
            coordinator = staffed(world, 1)
            await coordinator.execute("measure", timeout=1.5)
            return (await coordinator.execute("measure")).results

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("gauge_1", 0.5, restart_after=5.0)]))
        assert run.result == {"gauge_1": 1.0} and run.time == 6.5

    def test_one_that_says_nothing_is_taken_for_lost_and_changes_nothing_later(self):
        async def scenario(world):
            coordinator = staffed(world, 3, patience=5.0)
            outcome = await coordinator.execute("measure", workers=2, aggregate="sum")
            await coordinator.sleep(60.0)
            return outcome, await coordinator.result("task-1"), await coordinator.status()

        late = OnMessage("delay", nth=1, to="coordinator", sender="gauge_1", seconds=30.0)
        run = simulate(scenario, faults=FaultPlan(appointments=[late]))
        outcome, after, status = run.result
        assert outcome.value == 5.0 and outcome == after and status["busy"] == {}
        assert [event.who for event in run.trace.events("dead")] == ["coordinator"]  # the late answer

    def test_work_may_take_as_long_as_it_takes(self, world):
        outcome = world.run(staffed(world, 2, patience=1.0).execute("measure", {"seconds": 500.0}))
        assert outcome.status == "completed" and outcome.attempts == 1 and world.now == 500.0

    def test_those_that_fell_silent_are_asked_last(self):
        async def scenario(world):
            coordinator = staffed(world, 3, patience=5.0)
            await coordinator.sleep(1.0)
            return [(await coordinator.execute("measure", workers=2)).duration for _ in range(3)]

        run = simulate(scenario, faults=FaultPlan(appointments=[Pause("gauge_1", 0.5, 1000.0)]))
        assert run.result == [11.0, 1.0, 1.0]  # asked after 5 s, given up after 5 more

    def test_who_has_done_a_part_again_is_not_asked_last_any_more(self, world):
        coordinator = staffed(world, 2)
        assert world.run(coordinator.execute("measure", {"fail": "gauge_1"})).status == "failed"
        assert world.run(coordinator.execute("measure")).results == {"gauge_2": 2.0}
        assert world.run(coordinator.execute("measure", workers=2)).status == "completed"
        assert world.run(coordinator.execute("measure")).results == {"gauge_1": 1.0}

    def test_nor_is_a_crashed_one_first_whose_heartbeats_are_not_missed_yet(self):
        async def scenario(world):
            spawn_gauges(world, 3, heartbeat=10.0)
            coordinator = world.spawn(Coordinator("coordinator"))
            return [(await coordinator.execute("measure", workers=2)).duration for _ in range(4)]

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("gauge_1", 0.5, restart_after=100.0)]))
        assert run.result == [1.5, 1.0, 1.0, 1.0]

    def test_lost_messages_end_as_lost_workers(self):
        async def scenario(world):
            coordinator = staffed(world, 1, patience=5.0)
            return await coordinator.execute("measure")

        for lost in (
            OnMessage("drop", to="gauge_1", topic="measure"),
            OnMessage("drop", to="coordinator", sender="g*"),
        ):
            run = simulate(scenario, faults=FaultPlan(appointments=[lost]))
            assert run.result.status == "completed" and run.result.attempts == 2 and run.time == 6.0

    def test_a_task_that_kills_its_workers_ends(self, world):
        class Fragile(Worker):
            @capability
            async def lift(self) -> None:
                self.crash(ValueError("too heavy"))

        for n in range(10):
            world.spawn(Fragile(f"fragile_{n}"))
        outcome = world.run(world.spawn(Coordinator("coordinator", max_losses=3)).execute("lift"))
        assert outcome.status == "failed" and outcome.attempts == 4 and "too heavy" in outcome.error
        assert len({who for _, who in starts(world)}) == 4

    def test_an_error_of_the_work_ends_the_task_and_says_which(self, world):
        coordinator = staffed(world, 3)
        outcome = world.run(coordinator.execute("measure", {"fail": "gauge_2"}, workers=3))
        assert outcome.status == "failed" and outcome.error == "ValueError: gauge_2 is out of order"
        assert outcome.results == {"gauge_1": 1.0} and complaints(world.trace) == []
        assert world.run(coordinator.execute("measure", workers=3)).status == "completed"

    def test_unless_it_is_forgiven(self, world):
        outcome = world.run(staffed(world, 4).execute("measure", {"fail": "gauge_2"}, workers=3, retries=1))
        assert outcome.status == "completed" and set(outcome.results) == {"gauge_1", "gauge_3", "gauge_4"}
        outcome = world.run(staffed_again(world).execute("measure", {"fail": "all"}, retries=2))
        assert outcome.status == "failed" and outcome.attempts == 3

    def test_bad_inputs_are_an_error_of_the_task(self, world):
        outcome = world.run(staffed(world).execute("measure", {"seconds": "long"}))
        assert outcome.status == "failed" and "InvalidInput" in outcome.error and "seconds" in outcome.error

    def test_a_deadline_frees_the_workers_at_once(self, world):
        coordinator = staffed(world, 2)
        outcome = world.run(coordinator.execute("measure", [{"seconds": 1.0}, {"seconds": 90.0}], timeout=5.0))
        assert outcome.status == "timed_out" and outcome.results == {"gauge_1": 1.0} and world.now == 5.0
        assert world.run(coordinator.execute("measure", workers=2)).duration == 1.0
        assert world.trace.count("cancelled", "gauge_2") == 1 and complaints(world.trace) == []

    def test_cancelled_is_final(self, world):
        coordinator = staffed(world, 2)
        task = world.run(coordinator.submit("measure", workers=2))
        world.run(until=0.5)
        assert world.run(coordinator.cancel(task)) is True and world.run(coordinator.cancel(task)) is False
        world.run(until=10.0)
        assert world.run(coordinator.result(task)).status == "cancelled" and complaints(world.trace) == []
        assert world.run(coordinator.status())["busy"] == {}

    def test_when_the_coordinator_crashes_its_tasks_end_and_its_workers_are_free(self, world):
        coordinator, client = staffed(world, 2), world.spawn(Agent("client"))

        async def scenario():
            ask = asyncio.create_task(client.request("coordinator", "execute", capability="measure", workers=2))
            task = await coordinator.submit("measure")
            await client.sleep(0.5)
            coordinator.crash(ValueError("x"), restart_after=1.0)
            with pytest.raises(AgentOffline):
                await coordinator.submit("measure")
            with pytest.raises(AgentCrashed, match="ValueError: x"):
                await ask
            await client.sleep(2.0)
            return await coordinator.result(task), await coordinator.execute("measure", workers=2)

        lost, again = world.run(scenario())
        assert lost.status == "cancelled" and "ValueError: x" in lost.error
        assert again.duration == 1.0 and complaints(world.trace) == []

    def test_one_that_was_stopped_before_it_began_takes_nothing(self, world):
        coordinator = staffed(world, 2)
        coordinator.stop()
        with pytest.raises(AgentOffline, match="restart"):
            world.run(coordinator.submit("measure"))
        coordinator.restart()
        assert world.run(coordinator.execute("measure")).status == "completed"

    def test_a_registration_without_an_agent_loses_its_part_to_another(self, world):
        coordinator = staffed(world, 1)
        world.run(world.registry.register("ghost", ["measure"]))
        coordinator.selection = lambda free, random: sorted(free)  # the ghost comes second
        outcome = world.run(coordinator.execute("measure", workers=2, timeout=5.0))
        assert outcome.status == "failed" and "UnknownRecipient" in outcome.error and outcome.attempts == 7
        coordinator.selection = lambda free, random: sorted(free, reverse=True)
        assert world.run(coordinator.execute("measure")).results == {"gauge_1": 1.0}

    def test_an_error_that_the_work_passes_on_is_an_error_of_the_work(self, world):
        class Nested(Worker):
            @capability
            async def relay(self) -> None:
                await self.request("gauge_1", "measure", timeout=0.5)

        staffed(world, 1)
        world.spawn(Nested("nested"))
        outcome = world.run(world.agents["coordinator"].execute("relay"))
        assert outcome.status == "failed" and "RequestTimeout" in outcome.error and outcome.attempts == 1


class TestSelection:
    def test_the_least_loaded_first(self, world):
        coordinator, client = world.spawn(Coordinator("coordinator")), world.spawn(Agent("client"))
        for n in (1, 2, 3):
            world.spawn(Gauge(f"gauge_{n}", concurrency=4))

        async def scenario():
            for worker in ("gauge_1", "gauge_1", "gauge_2"):
                client.background(client.request(worker, "measure", seconds=50.0))
            await client.sleep(1.0)
            return await coordinator.execute("measure", workers=2)

        assert list(world.run(scenario()).results) == ["gauge_3", "gauge_2"]

    def test_random_is_of_the_seed(self):
        async def scenario(world):
            coordinator = staffed(world, 8, selection="random")
            return [tuple((await coordinator.execute("measure", workers=3)).results) for _ in range(5)]

        runs = [simulate(scenario, seed).result for seed in (1, 1, 2)]
        assert runs[0] == runs[1] != runs[2] and len({*runs[0]}) == 5

    def test_a_function_of_ones_own(self, world):
        def last_first(free, random):
            return free[::-1]

        coordinator = staffed(world, 5, selection=last_first)
        assert list(world.run(coordinator.execute("measure", workers=2)).results) == ["gauge_5", "gauge_4"]

    def test_one_that_names_a_stranger_is_told(self, world):
        coordinator, client = staffed(world), world.spawn(Agent("client"))
        stranger = world.run(world.registry.find("client"))
        coordinator.selection = lambda free, random: [stranger]
        with pytest.raises(AgentCrashed, match=r"the selection returned .*entries of `free`"):
            world.run(client.request("coordinator", "execute", capability="measure"))

    def test_many_skills_are_shared_out_so_that_all_fit(self, world):
        class Two(Worker):
            @capability
            async def a(self) -> str:
                return self.name

            @capability
            async def b(self) -> str:
                return self.name

        class One(Worker):
            @capability
            async def a(self) -> str:
                return self.name

        world.spawn(Two("two"))
        world.spawn(One("one"))
        coordinator = world.spawn(Coordinator("coordinator"))
        assert world.run(coordinator.execute(["a", "b"])).value == ["one", "two"]

    def test_a_thousand_are_paired_without_recursion(self):
        names = [f"worker_{n}" for n in range(2000)]
        assert pair([names] * 2000) == names and pair([names] * 2001) is None

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=4))
    def test_a_pairing_is_found_if_there_is_one(self, wanted):
        possible = any(
            all(name in names for name, names in zip(chosen, wanted, strict=True))
            for chosen in permutations("abcd", len(wanted))
        )
        found = pair(wanted)
        assert (found is not None) == possible
        if found is not None:
            assert len({*found}) == len(wanted)
            assert all(name in names for name, names in zip(found, wanted, strict=True))


class TestStatus:
    def test_of_a_task(self, world):
        coordinator = staffed(world, 2)
        task = world.run(coordinator.submit("measure", [{"seconds": 1.0}, {"seconds": 3.0}]))
        world.run(until=2.0)
        status = world.run(coordinator.status(task))
        assert (status["status"], status["results"], status["attempts"]) == ("running", {"gauge_1": 1.0}, 2)
        outcome = world.run(coordinator.result(task))
        world.run(until=9.0)
        assert world.run(coordinator.status(task)) == dataclasses.asdict(outcome) and outcome.value == [1.0, 2.0]

    def test_of_everything(self, world):
        coordinator = staffed(world, 2)
        for workers in (1, 2, 5):
            world.run(coordinator.submit("measure", workers=workers))
        world.run(until=0.5)
        status = world.run(coordinator.status())
        assert status["tasks"] == {"running": 1, "waiting": 2} and status["busy"] == {"gauge_1": "task-1"}
        assert status["name"] == "coordinator" and status["state"] == "idle"
        client = world.spawn(Agent("client"))
        assert world.run(client.request("coordinator", "status"))["tasks"] == status["tasks"]


class TestShutdown:
    def test_draining_finishes_everything(self, world):
        coordinator = staffed(world, 2)
        tasks = [world.run(coordinator.submit("measure")) for _ in range(6)]
        assert world.run(coordinator.shutdown()) == [] and world.now == 3.0
        assert all(world.run(coordinator.result(task)).status == "completed" for task in tasks)
        with pytest.raises(AgentOffline, match="takes no more tasks"):
            world.run(coordinator.submit("measure"))
        coordinator.stop()
        coordinator.restart()
        assert world.run(coordinator.execute("measure")).status == "completed"

    def test_without_draining_what_has_not_started_is_returned(self, world):
        coordinator = staffed(world, 2)
        for n in range(6):
            world.run(coordinator.submit("measure", {"seconds": 1.0 + n}))
        world.run(until=0.5)
        left = world.run(coordinator.shutdown(drain=False))
        assert [(order.task, order.status, order.inputs) for order in left] == [
            (f"task-{n}", "cancelled", [{"seconds": float(n)}]) for n in (3, 4, 5, 6)
        ]
        assert world.now == 2.0 and complaints(world.trace) == []

    def test_what_is_not_done_in_time_is_returned_too(self, world):
        coordinator, client = staffed(world, 2), world.spawn(Agent("client"))
        for seconds in (1.0, 9.0, 1.0, 9.0):
            world.run(coordinator.submit("measure", {"seconds": seconds}))
        content = {"drain": True, "timeout": 3.0}
        left = world.run(client.request("coordinator", "shutdown", content))
        assert [order.task for order in left] == ["task-2", "task-4"] and world.now == 3.0
        assert type(left[0]) is TaskOutcome and complaints(world.trace) == []
        assert world.run(coordinator.status())["busy"] == {}

    def test_what_is_returned_can_be_handed_in_elsewhere(self, world):
        coordinator, other = staffed(world, 2), staffed_again(world)
        for _ in range(2):
            world.run(coordinator.submit(["measure", "read"], [{"seconds": 2.0}, {}]))
        (left,) = world.run(coordinator.shutdown(drain=False))
        again = world.run(other.execute(left.capability, left.inputs))
        assert again.status == "completed" and again.duration == 2.0


class TestBadInput:
    @pytest.mark.parametrize(
        "bad",
        [
            {"workers": 0},
            {"workers": -1},
            {"workers": 1.5},
            {"timeout": -1.0},
            {"timeout": 0},
            {"timeout": float("nan")},
            {"retries": -1},
            {"aggregate": "average"},
            {"aggregate": 7},
            {"aggregate": asyncio.sleep},
            {"priority": "urgent"},
            {"capability": ""},
            {"capability": []},
            {"capability": 3},
            {"capability": ["measure", 3]},
            {"inputs": "seconds"},
            {"inputs": []},
            {"inputs": [{}, {}], "workers": 3},
            {"inputs": ["a", "b"]},
            {"inputs": {"seconds": {1, 2}}},
            {"workers": True},
            {"workers": None},
            {"workers": float("nan")},
            {"timeout": True},
            {"timeout": "5"},
            {"retries": float("inf")},
            {"aggregate": True},
            {"aggregate": ["mean"]},
            {"priority": None},
            {"priority": ["normal"]},
            {"capability": None},
            {"capability": {"measure": 1}},
            {"inputs": ({}, {})},
            {"inputs": [None]},
            {"inputs": {1: 2}},
        ],
    )
    def test_is_refused_at_once_and_nothing_is_half_done(self, world, bad):
        coordinator = staffed(world)
        with pytest.raises(InvalidValue):
            world.run(coordinator.submit(**{"capability": "measure", **bad}))
        with pytest.raises(InvalidValue):
            world.run(coordinator.execute(**{"capability": "measure", **bad}))
        assert world.trace.count("task_added") == 0 and world.run(coordinator.status())["tasks"] == {}
        assert world.run(coordinator.execute("measure")).task == "task-1"

    def test_by_message_too(self, world):
        staffed(world)
        client = world.spawn(Agent("client"))
        for content, error in (
            ({"workers": 0}, InvalidValue),
            ({"workers": "many"}, InvalidInput),
            ({"patience": 1.0}, InvalidInput),
        ):
            for operation in ("submit", "execute"):
                with pytest.raises(error):
                    world.run(client.request("coordinator", operation, {"capability": "measure", **content}))

    def test_both_ways_to_hand_in_a_task_take_the_same(self):
        submit, execute = (Coordinator.offers[name].input_schema["properties"] for name in ("submit", "execute"))
        assert submit == execute and {"timeout", "aggregate", "retries", "priority"} <= {*execute}

    @pytest.mark.parametrize(
        "options",
        [
            {"selection": "fastest"},
            {"selection": 3},
            {"selection": asyncio.sleep},
            {"patience": 0},
            {"patience": -1},
            {"patience": float("nan")},
            {"max_losses": -1},
            {"max_losses": True},
        ],
    )
    def test_of_the_constructor(self, options):
        with pytest.raises(InvalidValue):
            Coordinator("coordinator", **options)

    @pytest.mark.parametrize("operation", ["result", "cancel", "status"])
    def test_an_unknown_task(self, world, operation):
        coordinator = staffed(world)
        for task in ("task-9", 9, ["task-9"]):
            with pytest.raises(InvalidValue, match="knows no task"):
                world.run(getattr(coordinator, operation)(task))

    def test_a_shutdown_before_anything_has_happened_counts(self, world):
        coordinator = staffed(world)

        async def at_once():
            await coordinator.submit("measure")
            await coordinator.shutdown()
            await coordinator.execute("measure")

        with pytest.raises(AgentOffline, match="has been shut down"):
            world.run(at_once())
        coordinator.stop()
        coordinator.restart()
        assert world.run(coordinator.execute("measure")).status == "completed"

    def test_a_negative_time_for_the_shutdown(self, world):
        coordinator = staffed(world)
        with pytest.raises(InvalidValue):
            world.run(coordinator.shutdown(timeout=-1.0))
        assert world.run(coordinator.execute("measure")).status == "completed"


async def busy_day(world, workers=6, tasks=12, selection="random"):
    """Tasks for one to four workers come in over a few seconds; return the outcomes and who is still out at the end."""
    coordinator = world.spawn(Coordinator("coordinator", selection=selection, patience=8.0))
    spawn_gauges(world, workers)
    draw = world.random("day")
    for _ in range(tasks):
        seconds, needed = draw.uniform(0.5, 3.0), draw.randint(1, 4)
        await coordinator.submit("measure", {"seconds": seconds}, workers=needed, timeout=draw.choice([6.0, 40.0]))
        await coordinator.sleep(draw.choice([0.0, 0.5]))
    outcomes = [await coordinator.result(f"task-{n}") for n in range(1, tasks + 1)]
    await coordinator.sleep(100.0)
    status = await coordinator.status()
    return [outcome.status for outcome in outcomes], status["busy"]


TROUBLE = FaultPlan(
    drop=0.05,
    delay=0.1,
    duplicate=0.05,
    appointments=[
        Crash("gauge_1", 1.0, restart_after=3.0),
        Crash("gauge_2", 2.0, restart_after=0.5),
        Crash("gauge_3", 2.5),
        Pause("gauge_4", 1.5, 12.0),
        Pause("gauge_5", 3.0, 2.0),
    ],
)


class TestInvariants:
    """Never two parts at a time, never two of one task, every task ends once, everybody is back at the end."""

    def test_over_many_orders_of_events(self):
        for seed in range(100):
            run = simulate(busy_day, seed, schedule="shuffled")
            statuses, out = run.result
            assert complaints(run.trace) == [] and out == {}, seed
            assert set(statuses) <= {"completed", "timed_out"}

    def test_over_many_orders_of_events_and_faults(self):
        seen = set()
        for seed in range(100):
            run = simulate(busy_day, seed, schedule="shuffled", faults=TROUBLE)
            statuses, out = run.result
            assert complaints(run.trace) == [] and out == {}, seed
            assert run.trace.count("task_ended") == 12
            seen.update(statuses)
        assert {"completed", "timed_out"} <= seen

    def test_the_same_seed_gives_the_same_trace(self):
        for schedule in ("fifo", "shuffled"):
            digests = {simulate(busy_day, 5, schedule=schedule, faults=TROUBLE).digest for _ in range(2)}
            assert len(digests) == 1

    def test_a_planted_double_release_is_caught(self):
        """Defect 11: four workers become sixteen, one gets the same task twice, and the task hangs."""

        async def scenario(world):
            spawn_gauges(world, 4)
            broken = world.spawn(DoubleReleaser("coordinator", [f"gauge_{n}" for n in range(1, 5)]))
            for n in range(4):
                await broken.execute(f"task-{n}", 3, timeout=30.0 * (n + 1))
            return len(broken.available)

        runs = [simulate(scenario, seed) for seed in range(10)]
        assert max(run.result for run in runs) > 8
        assert any("again" in complaint for run in runs for complaint in complaints(run.trace))
        assert any("while it has" in complaint for run in runs for complaint in complaints(run.trace))

    def test_a_task_that_never_ends_is_caught(self):
        async def scenario(world):
            coordinator = staffed(world, 1)
            await coordinator.submit("measure")

        world = World()
        world.run(scenario(world))
        world.run(until=0.5)
        assert complaints(world.trace) == ["task-1 never ends", "gauge_1 is never back from task-1"]
        world.close()


class TestSeedDefects:
    """What the coordinator of the course gets wrong, in its own terms."""

    def test_11_workers_are_released_once(self):
        async def scenario(world):
            coordinator = staffed(world, 4, selection="random")
            outcomes = [await coordinator.execute("measure", workers=3, timeout=30.0) for _ in range(20)]
            return [len(outcome.results) for outcome in outcomes], await coordinator.status()

        run = simulate(scenario)
        assert run.result[0] == [3] * 20 and run.result[1]["busy"] == {} and run.time == 20.0

    def test_13_ids_do_not_collide_in_one_instant(self, world):
        coordinator = staffed(world, 1)
        assert len({world.run(coordinator.submit("measure")) for _ in range(50)}) == 50

    def test_pending_tasks_expire(self, world):
        outcome = world.run(world.spawn(Coordinator("coordinator")).execute("measure", timeout=3.0))
        assert outcome.status == "timed_out" and world.now == 3.0

    def test_a_late_result_does_not_complete_what_has_failed(self):
        async def scenario(world):
            coordinator = staffed(world, 2)
            await coordinator.execute("measure", workers=2, timeout=4.0)
            await coordinator.sleep(20.0)
            return (await coordinator.result("task-1")).status

        slow = OnMessage("delay", to="coordinator", sender="gauge_2", seconds=10.0)
        assert simulate(scenario, faults=FaultPlan(appointments=[slow])).result == "timed_out"

    def test_every_waiting_task_is_looked_at_when_a_worker_is_free(self, world):
        """The course assigns the first pending task only, whether it can start or not."""
        coordinator = staffed(world, 1)
        world.run(coordinator.submit("measure", {"seconds": 2.0}))
        world.run(coordinator.submit("measure", workers=2))
        task = world.run(coordinator.submit("measure"))
        assert world.run(coordinator.result(task)).duration == 3.0

    def test_an_error_of_a_worker_is_no_result(self, world):
        outcome = world.run(staffed(world).execute("measure", {"fail": "all"}, workers=2))
        assert outcome.status == "failed" and outcome.results == {}

    def test_results_hold_no_aggregate_among_the_workers(self, world):
        outcome = world.run(staffed(world).execute("measure", workers=2, aggregate="mean"))
        assert set(outcome.results) == {"gauge_1", "gauge_2"}
