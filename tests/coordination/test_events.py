"""Domain events: told once, in order, to all; reactions that fail alone; shared state that loses nothing."""

from __future__ import annotations

import asyncio
import statistics
from enum import StrEnum
from functools import partial

import pytest

from masbook import Agent, Crash, FaultPlan, Message, Orchestrator, Task, Workflow, World, capability, on, simulate
from masbook.coordination import (
    DomainEvent,
    EventBus,
    EventType,
    Lock,
    MemoryStore,
    Namespace,
    ReactiveCoordinator,
    StateStore,
    emit,
)
from masbook.coordination.events import domain_event
from masbook.errors import InvalidInput, InvalidValue, NotAsync
from masbook.runtime.security import Rule, Security
from masbook.runtime.trace import Trace


class Listener(Agent):
    """Keeps what it hears."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.heard = []

    @on("event.*")
    async def hear(self, message: Message) -> None:
        self.heard.append(DomainEvent.told(message.time, message.sender, message.topic, message.content))

    @property
    def types(self):
        return [(event.type, event.source) for event in self.heard]


class Cook(Agent):
    @capability
    async def cook(self, dish: str = "soup") -> str:
        """Cook a dish; nobody can cook stones."""
        await self.sleep(1.0)
        if dish == "stones":
            raise ValueError("not cooked through")
        return dish


@pytest.fixture
def world():
    with World(7) as world:
        yield world


def later(world, seconds=1.0):
    world.run(until=world.now + seconds)


def failures(world):
    return [(event.who, *event.facts.values()) for event in world.trace.events("reaction_failed")]


def value(world, store, key):
    entry = world.run(store.get(key))
    return None if entry is None else list(entry.value)


class TestEmit:
    def test_an_event_is_a_publication(self, world):
        ann, listener = world.spawn(Agent("ann")), world.spawn(Listener("listener"))
        later(world, 2.0)
        world.run(emit(ann, "order.paid", order=7, lines=[1, 2]))
        later(world)
        assert listener.heard == [DomainEvent("order.paid", "ann", 2.0, {"order": 7, "lines": [1, 2]})]

    def test_types_of_ones_own(self, world):
        """A tool has finished, a run has finished: whatever has a name can be told, heard and asked for."""

        class Work(StrEnum):
            TOOL = "tool.finished"
            RUN = "run.finished"

        ann, listener, events = world.spawn(Agent("ann")), world.spawn(Listener("listener")), world.spawn(EventBus())
        world.run(emit(ann, Work.TOOL, tool="search", type="lookup", agent="bob"))
        world.run(emit(ann, Work.RUN))
        later(world)
        assert listener.types == [("tool.finished", "ann"), ("run.finished", "ann")]
        assert listener.heard[0].payload == {"tool": "search", "type": "lookup", "agent": "bob"}
        assert world.run(events.history(Work.TOOL)) == listener.heard[:1]

    def test_content_filters_apply(self, world):
        ann, big = world.spawn(Agent("ann")), world.spawn(Listener("big"))
        small = world.spawn(Agent("small"))
        small.subscribe("event.order.*", small.on_message, content={"size": "small"})
        world.run(emit(ann, "order.paid", size="big"))
        later(world)
        assert len(big.heard) == 1 and world.trace.count("delivered", "small") == 0

    @pytest.mark.parametrize("bad", ["", None, 3, "order.*", "order paid"])
    def test_bad_types(self, world, bad):
        with pytest.raises(InvalidValue, match=r"order\.paid"):
            world.run(emit(world.spawn(Agent("ann")), bad))

    def test_bad_sources(self, world):
        with pytest.raises(InvalidValue):
            world.run(emit("ann", "order.paid"))
        with pytest.raises(InvalidValue, match="ann"):
            world.run(emit(world.spawn(Agent("ann")), "order.paid", source="bob"))

    def test_events_are_frozen(self):
        with pytest.raises(AttributeError):
            DomainEvent("order.paid", "ann", 0.0).type = "order.lost"


class TestEventBus:
    def test_the_life_of_agents(self, world):
        listener = world.spawn(Listener("listener"))
        world.spawn(EventBus())
        ann = world.spawn(Cook("ann", tags=("kitchen",)), restart="on_crash")
        later(world)
        ann.crash(ValueError("burnt"))
        later(world)
        ann.stop()
        later(world)
        assert listener.types == [("agent.joined", "ann"), ("error.occurred", "ann"), ("agent.left", "ann")]
        joined, error, left = listener.heard
        assert joined.payload == {"capabilities": ["cook"], "tags": ["kitchen"]}
        assert (error.time, error.payload) == (1.0, {"error": "ValueError", "message": "burnt"})
        assert (left.time, left.payload) == (2.0, {"reason": "stopped"})

    def test_the_life_of_tasks(self, world):
        listener = world.spawn(Listener("listener"))
        world.spawn(EventBus())
        world.spawn(Cook("cook"))
        orchestrator = world.spawn(Orchestrator("orchestrator"))
        tasks = [Task("a", "cook"), Task("b", "cook", inputs={"dish": "stones"}), Task("c", "cook", after=["b"])]
        world.run(orchestrator.execute(Workflow("dinner", tasks, on_failure="continue")))
        later(world)
        told = {event.payload["task"]: [] for event in listener.heard if event.type == "task.created"}
        for event in listener.heard:
            if event.type.startswith("task."):
                told[event.payload["task"]].append(event.type.removeprefix("task."))
        assert told == {
            "a": ["created", "started", "completed"],
            "b": ["created", "started", "failed"],
            "c": ["created", "skipped"],
        }

    def test_changes_of_state(self, world):
        listener, ann = world.spawn(Listener("listener")), world.spawn(Agent("ann"))
        world.spawn(EventBus())
        store = MemoryStore(world)
        world.run(store.set("plan", 1, by=ann))
        world.run(store.delete("plan", by=ann))
        later(world)
        facts = {"store": "store", "key": "plan"}
        assert listener.heard == [
            DomainEvent("state.changed", "ann", 0.0, {**facts, "version": 1, "change": "set"}),
            DomainEvent("state.changed", "ann", 0.0, {**facts, "version": 2, "change": "deleted"}),
        ]

    def test_what_nobody_hears_is_not_sent_and_still_known(self, world):
        bus = world.spawn(EventBus())
        world.spawn(Agent("ann"))
        later(world)
        assert world.trace.count("sent") == 0
        assert [event.type for event in world.run(bus.history())] == ["agent.joined"]

    def test_in_the_order_in_which_it_happened(self):
        """Also where one instant has room for a whole life."""

        async def scenario(world):
            listener = world.spawn(Listener("listener"))
            world.spawn(EventBus())
            for number in range(5):
                world.spawn(Agent(f"fly_{number}")).stop()
            await asyncio.sleep(1.0)
            return [list(pair) for pair in listener.types]

        for seed in range(20):
            lives = [[type, f"fly_{n}"] for n in range(5) for type in ("agent.joined", "agent.left")]
            assert simulate(scenario, seed, schedule="shuffled").result == lives

    def test_who_is_announced_can_be_reached(self):
        """Seed defect: JOINED is announced before the agent can be reached."""

        class Greeter(Agent):
            answers = 0

            @on("event.agent.joined")
            async def greet(self, message: Message) -> None:
                Greeter.answers += await self.request(message.content["source"], "cook", timeout=5.0) == "soup"

        class Sleepyhead(Cook):
            async def on_start(self) -> None:
                await self.sleep(2.0)

        async def scenario(world):
            world.spawn(Greeter("greeter"))
            world.spawn(EventBus())
            world.spawn(Cook("cook"))
            world.spawn(Sleepyhead("sleepyhead"))
            await asyncio.sleep(10.0)
            return world.trace.count("crashed")

        for seed in range(20):
            assert simulate(scenario, seed, schedule="shuffled").result == 0
        assert Greeter.answers == 40

    def test_a_removed_agent_keeps_no_ghost_handler(self, world):
        """Seed defect: removed agents keep a ghost handler."""
        ann, listener = world.spawn(Agent("ann")), world.spawn(Listener("listener"))
        world.run(emit(ann, "order.paid"))
        later(world)
        listener.stop()
        world.run(emit(ann, "order.paid"))
        later(world)
        assert len(listener.heard) == 1
        assert [row[7] for row in world.trace.rows if row[1] == "sent"] == [1, 0]

    def test_a_stopped_bus_tells_nothing_and_a_restarted_one_goes_on(self, world):
        listener, bus = world.spawn(Listener("listener")), world.spawn(EventBus())
        bus.stop()
        world.spawn(Agent("unseen"))
        later(world)
        bus.restart()
        world.spawn(Agent("seen"))
        later(world)
        assert listener.types == [("agent.joined", "seen")]

    def test_one_that_may_not_speak_goes_on(self):
        """What the security policy forbids is a row of the trace; the next event is told."""
        with World(7, security=Security(rules=[Rule("deny", topic="event.agent.left")], default="allow")) as world:
            listener, bus = world.spawn(Listener("listener")), world.spawn(EventBus())
            world.spawn(Agent("ann")).stop()
            world.spawn(Agent("bob"))
            later(world)
            assert listener.types == [("agent.joined", "ann"), ("agent.joined", "bob")]
            assert bus.state == "idle" and world.trace.count("refused") == 1

    def test_another_translation(self, world):
        def only_notes(row):
            return DomainEvent("remark", row.who, row.time, {"text": row.facts["text"]}) if row.kind == "note" else None

        listener = world.spawn(Listener("listener"))
        world.spawn(EventBus(translate=only_notes))
        world.spawn(Agent("ann")).note("hello")
        later(world)
        assert listener.heard == [DomainEvent("remark", "ann", 0.0, {"text": "hello"})]

    def test_more_rows_than_usual(self, world):
        def with_tools(row):
            if row.kind == "tool_called":
                return DomainEvent("tool.finished", row.who, row.time, row.facts)
            return domain_event(row)

        listener = world.spawn(Listener("listener"))
        world.spawn(EventBus(translate=with_tools))
        world.spawn(Agent("ann"))
        world.trace.record("tool_called", "ann", tool="search", outcome="ok")
        later(world)
        assert listener.types == [("agent.joined", "ann"), ("tool.finished", "ann")]
        assert listener.heard[1].payload["tool"] == "search"

    def test_translations_of_rows(self):
        trace = Trace()
        trace.record("task_ended", "cook", workflow="w", task="a", status="timed_out")
        trace.record("delivered", "cook", message=1)
        assert [event and event.type for event in map(domain_event, trace)] == ["task.timed_out", None]
        assert set(EventType) >= {"task.created", "agent.left", "state.changed", "error.occurred"}


class TestHistory:
    @pytest.fixture
    def client(self, world):
        world.spawn(EventBus("events"))
        client, bob = world.spawn(Agent("client")), world.spawn(Agent("bob"))
        for number in range(4):
            world.run(emit(client if number % 2 else bob, "order.paid" if number < 3 else "order.lost", order=number))
            later(world)
        return client

    @pytest.mark.parametrize(
        ("query", "orders"),
        [
            ({"type": "order.*"}, [0, 1, 2, 3]),
            ({"type": "order.paid"}, [0, 1, 2]),
            ({"type": "order.*", "source": "client"}, [1, 3]),
            ({"type": "order.*", "source": "b*"}, [0, 2]),
            ({"type": "order.*", "since": 1.0}, [1, 2, 3]),
            ({"type": "order.*", "limit": 2}, [2, 3]),
            ({"type": "order.paid", "source": "client", "since": 1.5}, []),
        ],
    )
    def test_filters_by_call_and_by_message(self, world, client, query, orders):
        by_call = world.run(world.agents["events"].history(**query))
        by_message = world.run(client.request("events", "history", **query))
        assert by_call == by_message and [event.payload["order"] for event in by_call] == orders

    def test_agents_are_in_it_too(self, world, client):
        joined = world.run(client.request("events", "history", type=EventType.AGENT_JOINED))
        assert [event.source for event in joined] == ["client", "bob"]

    def test_it_is_not_told_twice(self, world, client):
        world.spawn(Listener("listener"))
        world.spawn(Agent("cid"))
        later(world)
        history = world.run(client.request("events", "history", type="agent.joined", source="cid"))
        assert len(history) == 1

    def test_bad_input(self, world, client):
        bus = world.agents["events"]
        for query in ({"limit": 0}, {"limit": -1}, {"since": -1.0}, {"since": float("nan")}):
            with pytest.raises(InvalidValue):
                world.run(bus.history(**query))
        with pytest.raises(InvalidInput, match="limit"):
            world.run(client.request("events", "history", limit="many"))


class TestReactions:
    def test_each_reaction_whose_pattern_fits(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        seen = []

        def note(name):
            async def reaction(event):
                seen.append((name, event.type))

            return reaction

        for pattern in ("order.paid", "order.*", "*", "order", "*.lost"):
            coordinator.react(pattern, note(pattern))
        world.run(emit(ann, "order.paid"))
        later(world)
        assert seen == [("order.paid", "order.paid"), ("order.*", "order.paid"), ("*", "order.paid")]

    def test_one_that_fails_stops_no_other_and_is_seen(self, world):
        """Seed defect: the event bus swallows handler errors, and publish raises into the publisher."""
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator", patience=5.0))
        done = []

        async def fail(event):
            raise ValueError("no paper")

        async def hang(event):
            await asyncio.Future()

        async def work(event):
            await coordinator.sleep(1.0)
            done.append((event.payload["order"], world.now))

        for reaction in (fail, hang, work):
            coordinator.react("order.*", reaction)
        for order in (1, 2):
            world.run(emit(ann, "order.paid", order=order))
        later(world, 20.0)
        assert done == [(1, 1.0), (2, 6.0)] and coordinator.state == "idle"
        assert (
            failures(world)
            == [
                ("coordinator", "order.paid", "fail", "ValueError: no paper"),
                ("coordinator", "order.paid", "hang", "TimeoutError: "),
            ]
            * 2
        )

    def test_one_that_waits_for_what_is_cancelled_has_failed_too(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        seen = []

        async def give_up(event):
            errand = asyncio.ensure_future(coordinator.sleep(9.0))
            errand.cancel()
            await errand

        async def work(event):
            await coordinator.sleep(1.0)
            seen.append(event.type)

        coordinator.react("*", give_up)
        coordinator.react("*", work)
        for type in ("one", "two"):
            world.run(emit(ann, type))
        later(world, 5.0)
        assert seen == ["one", "two"] and coordinator.state == "idle"
        assert [(event, reaction) for _, event, reaction, _ in failures(world)] == [
            ("one", "give_up"),
            ("two", "give_up"),
        ]

    def test_a_coordinator_that_stops_in_the_middle_has_not_failed(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        seen = []

        async def work(event):
            await coordinator.sleep(5.0)
            seen.append(event)

        coordinator.react("*", work)
        world.run(emit(ann, "one"))
        later(world)
        coordinator.stop()
        later(world, 10.0)
        assert seen == failures(world) == []

    def test_one_leads_to_another(self, world):
        """A coordinator hears what it emits itself, once, as others do."""
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        events, listener, seen = world.spawn(EventBus()), world.spawn(Listener("listener")), []

        async def escalate(event):
            await emit(coordinator, "boss.called", order=event.payload["order"])

        async def answer(event):
            seen.append((event.source, event.payload["order"]))

        coordinator.react("order.lost", escalate)
        coordinator.react("boss.*", answer)
        for order in range(3):
            world.run(emit(ann, "order.lost", order=order))
        later(world)
        assert seen == [("coordinator", 0), ("coordinator", 1), ("coordinator", 2)]
        assert [source for type, source in listener.types if type == "boss.called"] == ["coordinator"] * 3
        assert len(world.run(events.history("boss.*"))) == 3

    def test_many_beside_each_other(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        seen = []

        async def work(event, number):
            await coordinator.sleep(1.0)
            seen.append((number, world.now))

        for number in range(200):
            coordinator.react("*", partial(work, number=number))
        world.run(emit(ann, "one"))
        later(world, 2.0)
        assert seen == [(number, 1.0) for number in range(200)]

    def test_partials_and_objects_react_too(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))

        class Failing:
            async def __call__(self, event):
                raise ValueError("an object's")

        async def fail(event, text):
            raise ValueError(text)

        coordinator.react("*", partial(fail, text="a partial's"))
        coordinator.react("*", Failing())
        world.run(emit(ann, "order.paid"))
        later(world)
        assert [(reaction, error) for _, _, reaction, error in failures(world)] == [
            ("fail", "ValueError: a partial's"),
            ("Failing", "ValueError: an object's"),
        ]

    def test_called_off(self, world):
        ann, coordinator = world.spawn(Agent("ann")), world.spawn(ReactiveCoordinator("coordinator"))
        seen = []

        async def reaction(event):
            seen.append(event.type)

        end = coordinator.react("*", reaction)
        world.run(emit(ann, "one"))
        later(world)
        end()
        end()
        world.run(emit(ann, "two"))
        later(world)
        assert seen == ["one"]

    def test_bad_reactions(self, world):
        coordinator = world.spawn(ReactiveCoordinator("coordinator"))
        with pytest.raises(NotAsync):
            coordinator.react("*", lambda event: None)
        for bad in ("", None):
            with pytest.raises(InvalidValue):
                coordinator.react(bad, coordinator.hear)
        for bad in (0, -1, float("nan")):
            with pytest.raises(InvalidValue):
                ReactiveCoordinator("other", patience=bad)


class TestSharedState:
    def test_active_agents_and_completed_tasks(self, world):
        early = world.spawn(Agent("early"))
        store = MemoryStore(world)
        world.spawn(EventBus())
        world.spawn(ReactiveCoordinator("coordinator", store))
        cook = world.spawn(Cook("cook"))
        orchestrator = world.spawn(Orchestrator("orchestrator"))
        world.run(orchestrator.execute(Workflow("dinner", [Task("a", "cook"), Task("b", "cook", after=["a"])])))
        world.run(emit(cook, EventType.TASK_COMPLETED, task="dishes"))
        later(world)
        assert value(world, store, "active_agents") == ["cook", "early"]
        done = value(world, store, "completed_tasks")
        assert [task.split("/")[-1] for task in done] == ["a", "b", "dishes"]
        early.stop()
        later(world)
        assert value(world, store, "active_agents") == ["cook"] and failures(world) == []

    @staticmethod
    async def scenario(world, kind, coordinators=2):
        """Ten agents come, finish a task each, and every second one goes. Return whether the lists are right."""
        store = MemoryStore(world)
        world.spawn(EventBus())
        for number in range(coordinators):
            world.spawn(kind(f"coordinator_{number}", store))
        await asyncio.sleep(1.0)
        agents = [world.spawn(Agent(f"agent_{number}")) for number in range(10)]
        await asyncio.gather(*[emit(agent, "task.completed", task=f"task {agent.name}") for agent in agents])
        for agent in agents[::2]:
            agent.stop()
        await asyncio.sleep(50.0)
        active, done = await store.get("active_agents"), await store.get("completed_tasks")
        assert not [*world.trace.events("reaction_failed")]
        rest = [f"agent_{number}" for number in range(1, 10, 2)]
        return active.value == rest and sorted(done.value) == [f"task agent_{number}" for number in range(10)]

    @pytest.mark.parametrize("coordinators", [1, 2, 3])
    def test_no_update_is_lost(self, coordinators):
        """Seed defect: read-modify-write of the list of active agents loses updates."""
        for seed in range(20):
            params = {"kind": ReactiveCoordinator, "coordinators": coordinators}
            assert simulate(self.scenario, seed, schedule="shuffled", **params).result is True

    def test_read_modify_write_loses_updates_and_is_caught(self):
        """The course's own way, planted."""

        class Careless(ReactiveCoordinator):
            async def _update(self, key, change):
                entry = await self.store.get(key)
                await self.sleep(self.random.random())  # as a store elsewhere would
                await self.store.set(key, change(list(entry.value) if entry else []), by=self)

        results = [simulate(self.scenario, seed, schedule="shuffled", kind=Careless).result for seed in range(20)]
        assert results.count(False) > 2

    def test_a_restarted_coordinator_looks_around(self, world):
        store = MemoryStore(world)
        world.spawn(EventBus())
        coordinator = world.spawn(ReactiveCoordinator("coordinator", store))
        cook = world.spawn(Cook("cook"))
        later(world)
        coordinator.stop()
        cook.stop()
        world.spawn(Agent("late"))
        later(world)
        assert value(world, store, "active_agents") == ["cook"]
        coordinator.restart()
        later(world)
        assert value(world, store, "active_agents") == ["late"]


# The course's complete coordinated system, 50 lines: state, messages, synchronisation and events together.

WORK = {"compute": sum, "analysis": statistics.mean}
TEAM = {"worker_1": ("compute", "data_processing"), "worker_2": ("analysis", "reporting"), "worker_3": ("compute",)}


class Specialist(Agent):
    """Does tasks, each under its lock; its status and result are shared, and everybody hears what comes of it."""

    def __init__(self, name: str, shared: StateStore) -> None:
        super().__init__(name, tags=TEAM[name])
        self.shared = shared

    @capability
    async def execute_task(self, task: str, kind: str, data: list[float]) -> float:
        """Return what the work gives."""
        async with Lock(self.world, f"task:{task}", lease=60.0).hold(self, timeout=30.0):
            await emit(self, EventType.TASK_STARTED, task=task)
            await self.shared.set(f"{task}/status", "in progress", by=self)
            await self.sleep(0.1 * len(data))
            try:
                result = WORK[kind](data)
            except ValueError as error:
                await emit(self, EventType.TASK_FAILED, task=task, error=str(error))
                raise
            await self.shared.set(f"{task}/result", result, by=self)
            await emit(self, EventType.TASK_COMPLETED, task=task)
            return result


async def submit(client: Agent, task: str, kind: str, data: list[float]) -> object:
    """Give a task to the least loaded agent that can do it."""
    found = await client.world.registry.discover(tags=[kind], limit=1)
    if not found:
        return f"no capable agent for {kind}"
    try:
        return await client.request(found[0].name, "execute_task", task=task, kind=kind, data=data)
    except ValueError as error:
        return str(error)


async def complete_system(world: World) -> dict[str, object]:
    shared, alarms = Namespace(MemoryStore(world), "shared"), []

    async def alarm(event: DomainEvent) -> None:
        alarms.append(f"{event.source}: {event.payload['error']}")

    world.spawn(EventBus())
    world.spawn(ReactiveCoordinator("coordinator", shared)).react(EventType.TASK_FAILED, alarm)
    client, *team = map(world.spawn, [Agent("client"), *[Specialist(name, shared) for name in TEAM]])
    tasks = [("t1", "compute", [1, 2, 3]), ("t2", "compute", [4]), ("t3", "analysis", [2, 4]), ("t4", "analysis", [])]
    answers = await asyncio.gather(*[submit(client, *task) for task in [*tasks, ("t5", "painting", [])]])
    peer = await team[0].request("worker_2", "status")
    team[0].stop()
    await client.sleep(1.0)
    kept = {entry.key: entry.value for entry in await shared.list()}
    return {"answers": answers, "peer": peer["state"], "alarms": alarms, "kept": kept}


class TestCompleteSystem:
    def test_all_parts_together(self):
        for seed in range(20):
            run = simulate(complete_system, seed, schedule="shuffled" if seed else "fifo")
            assert run.error is None, run.error
            found, kept = run.result, run.result["kept"]
            assert found["answers"][:3] == [6, 4, 3] and found["answers"][4] == "no capable agent for painting"
            assert found["peer"] == "idle" and found["alarms"] == [f"worker_2: {found['answers'][3]}"]
            assert kept["active_agents"] == ["client", "worker_2", "worker_3"]
            assert sorted(kept["completed_tasks"]) == ["t1", "t2", "t3"]
            assert kept["t3/result"] == 3 and kept["t4/status"] == "in progress" and "t4/result" not in kept
            released = [(event.facts["resource"], event.facts["reason"]) for event in run.trace.events("released")]
            assert sorted(released) == [(f"lock:task:t{number}", "released") for number in range(1, 5)]
            assert {event.who for event in run.trace.events("acquired")} == set(TEAM)

    def test_the_same_seed_gives_the_same_system(self):
        faults = FaultPlan(drop=0.1, delay=0.1, appointments=[Crash("worker_3", at=0.05)])
        for schedule in ("fifo", "shuffled"):
            one, other = (simulate(complete_system, 3, schedule=schedule, faults=faults) for _ in range(2))
            assert one.digest == other.digest
