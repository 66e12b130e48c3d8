"""Priority queues: each urgency has workers of its own, nobody starves, and a shutdown loses nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from crew import complaints
from hypothesis import given, settings
from hypothesis import strategies as st

from masbook import Agent, Crash, FaultPlan, World, capability, simulate
from masbook.coordination import PriorityQueues, Worker
from masbook.errors import AgentOffline, InvalidValue, Stuck

LEVELS = ("high", "normal", "low")
POOLS = ("high", "high", "normal", "low")  # the course's: two workers for urgent tasks, one for each of the others


class Clerk(Worker):
    @capability
    async def solve(self, seconds: float = 1.0, fail: bool = False) -> str:
        """Work so long, and return who did."""
        await self.sleep(seconds)
        if fail:
            raise ValueError("no solution")
        return self.name


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world


def staffed(world, pools=POOLS, **options):
    for number, tags in enumerate(pools):
        world.spawn(Clerk(f"clerk_{number}", tags=tags.split()))
    return world.spawn(PriorityQueues("queues", **options))


async def outcomes(queues, *orders):
    """Hand in (priority, seconds) all at once; return how each ended."""
    tasks = [await queues.submit("solve", {"seconds": seconds}, priority=level) for level, seconds in orders]
    return [await queues.result(task) for task in tasks]


def waits(trace):
    """Return, by task, how long it waited for its first worker."""
    added = {event.facts["task"]: event.time for event in trace.events("task_added")}
    started = {}
    for event in trace.events("task_started"):
        started.setdefault(event.facts["task"], event.time - added[event.facts["task"]])
    return started


class TestQueues:
    def test_each_urgency_has_its_own_workers(self, world):
        queues = staffed(world)
        done = world.run(outcomes(queues, ("low", 1.0), ("high", 1.0), ("normal", 1.0), ("high", 1.0)))
        assert [outcome.value for outcome in done] == ["clerk_3", "clerk_0", "clerk_2", "clerk_1"]
        assert [outcome.priority for outcome in done] == ["low", "high", "normal", "high"] and world.now == 1.0

    def test_urgent_tasks_do_not_wait_for_others(self, world):
        queues = staffed(world)
        done = world.run(outcomes(queues, *[("low", 10.0)] * 5, ("high", 1.0)))
        assert done[-1].duration == 1.0 and done[-2].duration == 50.0

    def test_in_the_order_of_arrival_within_an_urgency(self, world):
        queues = staffed(world, ("normal",))
        done = world.run(outcomes(queues, *[("normal", 1.0)] * 4))
        assert [outcome.duration for outcome in done] == [1.0, 2.0, 3.0, 4.0]

    def test_urgency_is_in_the_trace(self, world):
        world.run(outcomes(staffed(world), *[(level, 1.0) for level in LEVELS]))
        assert [event.facts["priority"] for event in world.trace.events("task_added")] == [2, 1, 0]

    def test_by_message(self, world):
        staffed(world)
        client = world.spawn(Agent("client"))
        content = {"capability": "solve", "inputs": {"seconds": 2.0}, "priority": "low"}
        assert world.run(client.request("queues", "execute", content)).value == "clerk_3"

    def test_errors_belong_to_their_task(self, world):
        queues = staffed(world)

        async def scenario():
            bad = await queues.submit("solve", {"fail": True}, priority="low")
            good = await queues.submit("solve", priority="low")
            return [await queues.result(task) for task in (bad, good)]

        bad, good = world.run(scenario())
        assert (bad.status, bad.error) == ("failed", "ValueError: no solution") and good.status == "completed"

    def test_levels_of_ones_own(self, world):
        queues = staffed(world, ("now", "later"), levels=("now", "later"))
        assert world.run(outcomes(queues, ("later", 1.0)))[0].value == "clerk_1"

    def test_a_pool_without_workers_is_announced(self, world):
        queues = staffed(world, ("high", "normal"))
        with pytest.raises(Stuck, match="needs 1 that can 'solve', there are 0 in the pool 'low'"):
            world.run(queues.execute("solve", priority="low"))

    def test_several_workers_of_one_pool(self, world):
        queues = staffed(world, ("high", "high", "low"))
        assert world.run(queues.execute("solve", workers=2, priority="high")).value == ["clerk_0", "clerk_1"]


class TestBorrowing:
    def test_idle_workers_help_out(self, world):
        queues = staffed(world, borrow=True)
        done = world.run(outcomes(queues, *[("low", 1.0)] * 4))
        assert world.now == 1.0 and {outcome.value for outcome in done} == {f"clerk_{n}" for n in range(4)}

    def test_also_those_without_a_pool(self, world):
        queues = staffed(world, ("low", "", ""), borrow=True)
        assert world.run(outcomes(queues, *[("high", 1.0)] * 3)) and world.now == 1.0

    def test_but_their_own_queue_comes_first(self, world):
        queues = staffed(world, ("high", "low"), borrow=True)
        done = world.run(outcomes(queues, *[("high", 1.0)] * 4, ("low", 1.0), ("low", 1.0)))
        assert [outcome.value for outcome in done[-2:]] == ["clerk_1", "clerk_1"]
        assert [outcome.duration for outcome in done[-2:]] == [1.0, 2.0]

    def test_then_the_most_urgent(self, world):
        queues = staffed(world, ("high", "normal", "low"), borrow=True)
        orders = [("low", 2.0), ("low", 2.0), ("normal", 5.0), ("high", 1.0), ("high", 9.0), ("high", 9.0)]
        done = world.run(outcomes(queues, *orders))
        assert [outcome.value for outcome in done] == [f"clerk_{n}" for n in (2, 2, 1, 0, 0, 2)]

    def test_none_without_leave(self, world):
        assert world.run(outcomes(staffed(world), *[("low", 1.0)] * 4))[-1].duration == 4.0


async def overload(world, pools=POOLS, borrow=False, hours=0.25):
    """Far more urgent work than the urgent pool can do, and now and then a task that can wait; return the waits."""
    queues = staffed(world, pools, borrow=borrow)
    draw = world.random("customers")
    while world.now < hours * 3600:
        level = draw.choices(LEVELS, weights=(20, 4, 1))[0]
        await queues.submit("solve", {"seconds": draw.uniform(5.0, 20.0)}, priority=level)
        await queues.sleep(draw.expovariate(0.4))
    waited = waits(world.trace)
    low = [event for event in world.trace.events("task_added") if event.facts["priority"] == 0]
    return max(waited.get(event.facts["task"], world.now - event.time) for event in low)


def bound_broken(trace, workers, longest):
    """Return the tasks that started later than k // m + 1 times the longest service time, k tasks being before them."""
    found, waiting, added = [], {}, {}
    for event in trace:
        task = event.facts.get("task")
        if event.kind == "task_added":
            level = event.facts["priority"]
            added[task] = (level, event.time, sum(other == level for other in waiting.values()))
            waiting[task] = level
        elif event.kind == "task_started":
            waiting.pop(task, None)
            level, time, before = added[task]
            if event.time - time > (before // workers[level] + 1) * longest + 1e-9:
                found.append(task)
    return found


class TestStarvation:
    """Nobody waits longer than the tasks of its own urgency before it make it wait, and one task more."""

    @pytest.mark.parametrize("borrow", [False, True])
    def test_the_bound_holds_over_many_seeds(self, borrow):
        for seed in range(5):
            run = simulate(overload, seed, schedule="shuffled", borrow=borrow)
            assert run.ok and run.result < 200.0
            assert bound_broken(run.trace, {2: 2, 1: 1, 0: 1}, longest=20.0) == []

    def test_one_pool_for_all_starves_the_least_urgent_and_breaks_it(self):
        """The planted violation: everybody serves everybody, the most urgent first."""
        shared = ["high normal low"] * 4
        runs = [simulate(overload, seed, pools=shared) for seed in range(5)]
        assert max(run.result for run in runs) > 300.0
        assert any(bound_broken(run.trace, {2: 4, 1: 4, 0: 4}, longest=20.0) for run in runs)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(LEVELS), st.floats(0.1, 5.0), st.floats(0.0, 3.0)), max_size=25),
        st.booleans(),
        st.integers(0, 1000),
    )
    def test_the_bound_holds_for_any_work(self, orders, borrow, seed):
        async def scenario(world):
            queues = staffed(world, borrow=borrow)
            for level, seconds, pause in orders:
                await queues.submit("solve", {"seconds": seconds}, priority=level)
                await queues.sleep(pause)
            return await queues.shutdown()

        run = simulate(scenario, seed, schedule="shuffled")
        assert run.result == [] and complaints(run.trace) == []
        assert bound_broken(run.trace, {2: 2, 1: 1, 0: 1}, longest=5.0) == []


class TestShutdown:
    def hand_in(self, world, queues):
        for level in ("high", "normal", "low") * 3 + ("low",):
            world.run(queues.submit("solve", {"seconds": 4.0}, priority=level))
        world.run(until=1.0)

    def test_every_task_is_finished(self, world):
        queues = staffed(world)
        self.hand_in(world, queues)
        assert world.run(queues.shutdown()) == []
        assert world.run(queues.status())["tasks"] == {"completed": 10} and complaints(world.trace) == []

    def test_or_returned(self, world):
        """The course loses nine of ten tasks when its workers are stopped."""
        queues = staffed(world)
        self.hand_in(world, queues)
        left = world.run(queues.shutdown(drain=False))
        status = world.run(queues.status())
        assert len(left) == 6 and status["tasks"] == {"completed": 4, "cancelled": 6} and world.now == 4.0
        assert [order.priority for order in left].count("low") == 3 and complaints(world.trace) == []
        with pytest.raises(AgentOffline):
            world.run(queues.submit("solve"))

    def test_or_returned_when_time_is_up(self, world):
        queues = staffed(world)
        self.hand_in(world, queues)
        left = world.run(queues.shutdown(timeout=5.0))
        assert [order.task for order in left] == ["task-5", "task-6", "task-7", "task-8", "task-9", "task-10"][:6]
        assert len(left) + world.run(queues.status())["tasks"]["completed"] == 10 and complaints(world.trace) == []

    def test_nothing_is_lost_whatever_fails(self):
        async def scenario(world):
            queues = staffed(world, borrow=world.random("x").random() < 0.5)
            draw = world.random("orders")
            tasks = []
            for _ in range(15):
                order = {"seconds": draw.uniform(0.5, 4.0), "fail": draw.random() < 0.2}
                tasks.append(await queues.submit("solve", order, priority=draw.choice(LEVELS)))
                await queues.sleep(draw.choice([0.0, 0.5]))
            left = await queues.shutdown(drain=draw.random() < 0.5, timeout=draw.choice([2.0, 30.0]))
            ends = [(await queues.result(task)).status for task in tasks]
            returned = [order.task for order in left]
            assert returned == sorted(returned, key=tasks.index)
            assert [task for task, end in zip(tasks, ends, strict=True) if end == "cancelled"] == returned
            return ends

        plan = FaultPlan(appointments=[Crash("clerk_0", 2.0, 3.0), Crash("clerk_3", 1.0, 9.0)])
        seen = set()
        for seed in range(60):
            run = simulate(scenario, seed, schedule="shuffled", faults=plan)
            assert run.ok and complaints(run.trace) == [], (seed, run.error)
            seen.update(run.result)
        assert seen == {"completed", "failed", "cancelled"}


class TestBadInput:
    def test_an_unknown_priority_is_refused(self, world):
        """The course puts it into the normal queue without a word."""
        queues = staffed(world)
        with pytest.raises(InvalidValue, match="choose one of high, normal, low"):
            world.run(queues.submit("solve", priority="urgent"))
        assert world.trace.count("task_added") == 0

    @pytest.mark.parametrize("levels", [(), "high", ("high", "high"), (1, 2), ("", "low"), None, {"high", "low"}])
    def test_levels_that_are_none(self, levels):
        with pytest.raises(InvalidValue):
            PriorityQueues("queues", levels=levels)

    @pytest.mark.parametrize("borrow", ["no", None, 2])
    def test_to_borrow_or_not(self, borrow):
        with pytest.raises(InvalidValue):
            PriorityQueues("queues", borrow=borrow)


def test_the_tasks_of_one_instant_have_ids_of_their_own(world):
    """Defect 13: ids made of milliseconds collide, and 8 of 1,000 tasks are kept."""
    queues = staffed(world)

    async def rush():
        return await asyncio.gather(*[queues.submit("solve", {"seconds": 0.01}) for _ in range(1000)])

    tasks = world.run(rush())
    assert len({*tasks}) == 1000 and world.run(queues.shutdown()) == []
    assert world.trace.count("task_ended") == 1000
    ends = [event.time for event in world.trace.events("task_ended")]
    assert all(before <= after for before, after in pairwise(ends)) and world.now == pytest.approx(10.0)
