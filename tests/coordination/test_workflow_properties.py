"""Whatever the graph, the faults and the order of simultaneous events: each task ends once, in order, within limits."""

from __future__ import annotations

import random

import pytest
from flows import Hand, audit
from hypothesis import given, settings
from hypothesis import strategies as st

from masbook import FaultPlan, Orchestrator, Task, Workflow, simulate
from masbook.runtime.faults import Crash
from masbook.runtime.trace import Event

FINAL = {"completed", "failed", "cancelled", "timed_out"}


def draw(seed, on_failure="continue"):
    """Return a workflow of some ten tasks, drawn from the seed."""
    chance = random.Random(seed)
    tasks = []
    for number in range(chance.randint(1, 12)):
        flaky = chance.random() < 0.3
        after = sorted(chance.sample(range(number), min(number, chance.choice([0, 1, 1, 2, 3]))))
        seconds = chance.choice([0.0, 0.5, 1.0, 1.0, 2.0])
        inputs = {"seconds": seconds, **({"key": f"t{number}", "failures": chance.randint(0, 2)} if flaky else {})}
        tasks.append(
            Task(
                f"t{number}",
                "flaky" if flaky else "work",
                inputs,
                after=[f"t{i}" for i in after],
                condition=(lambda context: False) if chance.random() < 0.1 else None,
                timeout=5.0,
                retries=chance.randint(0, 3),
                backoff=chance.choice([0.0, 1.0]),
                priority=chance.randint(-1, 1),
                resources=chance.choice([{}, {}, {"gpu": 1}, {"gpu": 2}, {"gpu": 1, "disk": 0.5}]),
                compensation=chance.choice([None, "undo"]),
            )
        )
    options = {"timeout": chance.choice([None, 6.0, 60.0]), "resources": {"gpu": 2, "disk": 1.0}}
    return Workflow("random", tasks, max_parallel=chance.randint(1, 4), on_failure=on_failure, **options)


def trouble(seed):
    """Return faults drawn from the seed: lost, late and doubled messages, agents that crash and perhaps return."""
    chance = random.Random(-seed)
    agents = [f"hand_{chance.randrange(3)}" for _ in range(chance.randint(0, 4))]
    back = [None, 0.0, 1.0, 4.0]
    crashes = [
        Crash(agent, at=chance.choice([0.0, 0.5, 1.0, 3.0]), restart_after=chance.choice(back)) for agent in agents
    ]
    return FaultPlan(drop=chance.choice([0.0, 0.1]), delay=0.1, duplicate=0.1, appointments=crashes)


async def scenario(world, flow, steer=0):
    """Run the workflow with three agents; pause, resume and cancel it as drawn."""
    for number in range(3):
        world.spawn(Hand(f"hand_{number}", concurrency=1 + number % 2, heartbeat=1.0 if number == 2 else None))
    orchestrator = world.spawn(Orchestrator("orchestrator"))
    workflow = await orchestrator.start(flow)
    chance = random.Random(steer)
    for _ in range(chance.choice([0, 0, 2, 4]) if steer else 0):
        await orchestrator.sleep(chance.choice([0.0, 0.5, 1.0]))
        await chance.choice([orchestrator.pause, orchestrator.resume, orchestrator.cancel])(workflow)
    await orchestrator.resume(workflow)
    outcome = await orchestrator.outcome(workflow)
    await orchestrator.sleep(30.0)  # whatever is late must change nothing
    assert await orchestrator.outcome(workflow) == outcome
    return outcome


@pytest.mark.parametrize("on_failure", ["stop", "continue", "retry"])
@pytest.mark.parametrize("part", range(4))
def test_random_graphs_under_faults_in_any_order(on_failure, part):
    """240 seeds for each strategy, three in four of them with faults."""
    for seed in range(1 + part * 60, 61 + part * 60):
        flow, faults = draw(seed, on_failure), trouble(seed) if seed % 4 else None
        run = simulate(scenario, seed, schedule="shuffled", faults=faults, flow=flow, steer=seed % 3 and seed)
        assert run.error is None, (seed, run.error)
        assert audit(run.trace, flow) == [], seed
        assert run.result.status in FINAL


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_trace(seed):
    for schedule in ("fifo", "shuffled"):
        runs = [simulate(scenario, seed, schedule=schedule, faults=trouble(seed), flow=draw(seed)) for _ in range(2)]
        assert runs[0].digest == runs[1].digest and runs[0].result == runs[1].result


@st.composite
def graphs(draw):
    """Any graph without circles: tasks come after some of those before them, in any order of writing."""
    after = [
        draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set()
        for number in range(draw(st.integers(1, 15)))
    ]
    tasks = [Task(f"t{i}", "work", after=[f"t{j}" for j in sorted(before)]) for i, before in enumerate(after)]
    return Workflow("any", draw(st.permutations(tasks)), max_parallel=draw(st.integers(1, 5)))


@settings(max_examples=60, deadline=None)
@given(flow=graphs(), seed=st.integers(0, 10**6))
def test_any_graph_is_run_in_order_and_completely(flow, seed):
    run = simulate(scenario, seed, schedule="shuffled", flow=flow)
    assert run.ok and run.result.ok and set(run.result.results) == {task.id for task in flow.tasks}
    assert audit(run.trace, flow) == []


class Doctored:
    """A trace in which somebody has changed the events."""

    def __init__(self, events):
        self._events = list(events)

    def events(self):
        return iter(self._events)


def found(events, kind, task, last=False):
    numbers = [i for i, event in enumerate(events) if event.kind == kind and event.facts.get("task") == task]
    return numbers[-1 if last else 0]


class TestTheAuditor:
    """It sees each violation that is planted in a sound trace."""

    flow = Workflow(
        "test",
        [Task("a", "work"), Task("b", "work", after=["a"]), Task("c", "work", resources={"gpu": 1})],
        max_parallel=2,
        resources={"gpu": 1},
    )

    @pytest.fixture
    def events(self):
        run = simulate(scenario, 1, flow=self.flow)
        assert audit(run.trace, self.flow) == []
        return list(run.trace.events())

    def complaints(self, events):
        return audit(Doctored(events), self.flow)

    def test_a_task_that_ends_twice(self, events):
        events.insert(found(events, "task_ended", "b") + 1, events[found(events, "task_ended", "b")])
        assert "b ended twice" in self.complaints(events)

    def test_a_task_that_never_ends(self, events):
        del events[found(events, "task_ended", "b")]
        assert "b never ended" in self.complaints(events)

    def test_a_task_that_starts_too_early(self, events):
        events.insert(found(events, "task_started", "a"), events.pop(found(events, "task_started", "b")))
        assert "b started before a had ended" in self.complaints(events)

    def test_a_task_that_starts_again_after_its_end(self, events):
        events.insert(found(events, "task_ended", "a") + 1, events[found(events, "task_started", "a")])
        assert "a started after it had ended" in self.complaints(events)

    def test_too_many_at_once(self, events):
        events.insert(found(events, "task_started", "c") + 1, events.pop(found(events, "task_started", "b")))
        assert "3 tasks run at once" in self.complaints(events)

    def test_too_much_of_a_resource(self, events):
        twin = events[found(events, "task_started", "c")]
        tasks = [*self.flow.tasks, Task("d", "work", resources={"gpu": 1})]
        events.insert(found(events, "task_started", "c") + 1, twin._replace(facts={**twin.facts, "task": "d"}))
        added = events[found(events, "task_added", "c")]
        events.insert(found(events, "task_added", "c"), added._replace(facts={**added.facts, "task": "d"}))
        flow = Workflow("test", tasks, max_parallel=9, resources={"gpu": 1})
        assert "2 of 1 gpu in use" in audit(Doctored(events), flow)

    def test_a_workflow_that_ends_twice_or_never(self, events):
        last = max(i for i, event in enumerate(events) if event.kind == "workflow")
        assert "the workflow never ended" in self.complaints([event for i, event in enumerate(events) if i != last])
        assert "the workflow ended twice" in self.complaints([*events, events[last]])

    def test_a_start_after_the_end_of_the_workflow(self, events):
        facts = {"workflow": "workflow-1", "task": "b", "attempt": 2}
        assert "b started after the workflow had ended" in self.complaints(
            [*events, Event(99.0, "task_started", "x", facts)]
        )


class Careless(Orchestrator):
    """An orchestrator with a planted defect: whoever is unlocked is run, whether there is room or not."""

    def _next(self, flow):
        busy, flow.busy = flow.busy, 0
        job = super()._next(flow)
        flow.busy += busy
        return job


def test_an_orchestrator_without_a_limit_is_caught():
    async def careless(world, flow):
        for number in range(3):
            world.spawn(Hand(f"hand_{number}"))
        return await world.spawn(Careless("orchestrator")).execute(flow)

    flow = Workflow("test", [Task(f"t{i}", "work") for i in range(5)], max_parallel=2)
    run = simulate(careless, 1, flow=flow)
    assert "3 tasks run at once" in audit(run.trace, flow)
