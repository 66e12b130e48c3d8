"""The registry: always right, whatever has come, gone, changed its load or fallen silent."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from society import Calculator, Recorder, Slowpoke

from masbook import Agent, FaultPlan, Message, World, on, simulate
from masbook.errors import InvalidInput, InvalidValue, UnknownRecipient
from masbook.runtime.faults import Pause

HEALTH = ("healthy", "degraded", "unhealthy")


def names(entries):
    return [entry.name for entry in entries]


def discover(world, **query):
    return names(world.run(world.registry.discover(**query)))


def announced(world):
    kinds = ("registered", "unregistered", "health")
    return [(event.kind, event.who) for event in world.trace if event.kind in kinds]


class TestRegister:
    def test_spawned_agents_are_registered_with_what_they_can_do(self, world):
        world.spawn(Calculator("calc", tags=("maths",), heartbeat=5.0))
        entry = world.run(world.registry.find("calc"))
        assert entry.capabilities == ("add", "count", "divide", "wait")
        assert entry.tags == ("maths",) and entry.health == "healthy" and entry.load == 0.0
        assert entry.heartbeat == 5.0 and entry.registered == 0.0
        assert entry.description == "Adds, counts, divides and waits."

    def test_register_and_unregister(self, world):
        run, registry = world.run, world.registry
        run(registry.register("ghost", ["haunt"], tags=["old"], metadata={"floor": 3}))
        assert discover(world, capabilities=["haunt"]) == ["ghost"]
        assert run(registry.find("ghost")).metadata == {"floor": 3}
        assert run(registry.unregister("ghost")) is True
        assert run(registry.unregister("ghost")) is False
        assert discover(world, capabilities=["haunt"]) == [] and discover(world, tags=["old"]) == []
        with pytest.raises(UnknownRecipient, match="ghost"):
            run(registry.find("ghost"))

    def test_registering_anew_replaces(self, world):
        run, registry = world.run, world.registry
        run(registry.register("a", ["x"], tags=["old"]))
        run(registry.register("a", ["y"], tags=["new"]))
        assert discover(world, capabilities=["x"]) == [] and discover(world, tags=["old"]) == []
        assert discover(world, capabilities=["y"]) == discover(world, tags=["new"]) == ["a"]

    @pytest.mark.parametrize(
        "bad", [{"name": ""}, {"name": "  "}, {"name": "a", "heartbeat": 0}, {"name": "a", "heartbeat": -1}]
    )
    def test_bad_input(self, world, bad):
        with pytest.raises(InvalidValue):
            world.run(world.registry.register(**bad))
        assert discover(world) == []

    def test_stopped_agents_leave_and_restarted_ones_return(self, world):
        calc = world.spawn(Calculator("calc"))
        calc.stop()
        assert discover(world) == []
        calc.restart()
        assert discover(world, capabilities=["add"]) == ["calc"]

    def test_crashed_agents_leave_for_good_or_stay_over_a_restart(self, world):
        gone, back = world.spawn(Recorder("gone")), world.spawn(Recorder("back"), restart="on_crash", backoff=1.0)
        gone.crash(ValueError("x"))
        back.crash(ValueError("x"))
        world.run(until=5.0)
        assert discover(world) == ["back"]

    def test_who_has_seen_an_agent_crash_hears_when_it_is_back(self, world):
        listener, back = world.spawn(Recorder("listener")), world.spawn(Recorder("back"))
        listener.subscribe("agent.health", listener.on_message)
        back.crash(ValueError("x"), restart_after=2.0)
        assert discover(world, min_health="degraded") == ["listener"]
        world.run(until=5.0)
        heard = [(event.time, event.facts["health"]) for event in world.trace.events("health")]
        assert heard == [(0.0, "unhealthy"), (2.0, "healthy")] and world.trace.count("handled", "listener") == 2


class TestWatch:
    def test_watchers_hear_at_once_of_who_comes_or_lives_again(self, world):
        seen = []
        world.registry.watch(lambda entry: seen.append((world.now, entry.name, entry.capabilities[:1])))
        calc = world.spawn(Calculator("calc"))
        back = world.spawn(Recorder("back"), restart="on_crash", backoff=2.0)
        calc.stop()
        calc.restart()
        back.crash(ValueError("x"))
        world.run(until=5.0)
        world.run(world.registry.register("ghost", ["haunt"]))
        assert [name for _, name, _ in seen] == ["calc", "back", "calc", "back", "ghost"]
        assert seen[-2:] == [(2.0, "back", ()), (5.0, "ghost", ("haunt",))]

    def test_of_services_they_hear_nothing(self, world):
        class Service(Recorder):
            service = True

        seen = []
        world.registry.watch(lambda entry: seen.append(entry.name))
        world.spawn(Service("service"))
        assert seen == [] and "service" not in world.registry.stirred

    def test_and_of_who_is_well_again(self, world):
        world.spawn(Agent("anna"))
        seen = []

        def watcher(entry):
            seen.append((entry.name, entry.health))

        for _ in range(2):
            world.registry.watch(watcher)  # twice: it is called once all the same
        for health in ("unhealthy", "degraded", "degraded", "unhealthy", "healthy"):
            world.run(world.registry.update("anna", health=health))
        assert seen == [("anna", "degraded"), ("anna", "healthy")]


class TestCapabilities:
    """Every operation is a capability too."""

    def test_by_message(self, world):
        world.spawn(Calculator("calc", tags=("maths",)))
        client = world.spawn(Agent("client"))
        ask = lambda what, **inputs: world.run(client.request("registry", what, **inputs))  # noqa: E731
        ask("register", name="ghost", capabilities=["haunt"])
        assert names(ask("discover", capabilities=["haunt"])) == ["ghost"]
        ask("update", name="ghost", load=2.0, health="degraded", tags=["late"])
        found = ask("find", name="ghost")
        assert (found.load, found.health, found.tags) == (2.0, "degraded", ("late",))
        assert ask("statistics")["agents"] == 3
        assert ask("unregister", name="ghost") is True
        assert names(ask("discover", tags=["maths"], limit=1)) == ["calc"]
        with pytest.raises(UnknownRecipient):
            ask("find", name="ghost")
        with pytest.raises(InvalidInput, match="min_health"):
            ask("discover", min_health="fine")
        assert world.now == 0.0

    def test_the_registry_is_an_agent(self, world):
        client = world.spawn(Agent("client"))
        assert world.run(client.request("registry", "ping")) == "pong"
        offers = world.run(client.request("registry", "capabilities"))
        assert set(offers) >= {"register", "unregister", "discover", "find", "update", "statistics"}
        assert all(offer["description"] for offer in offers.values())


class TestDiscover:
    @pytest.fixture
    def crowd(self, world):
        for name, offers, tags, load, health in [
            ("a", ["x"], ["t"], 3.0, "healthy"),
            ("b", ["x", "y"], ["t", "u"], 1.0, "healthy"),
            ("c", ["y"], ["u"], 0.0, "unhealthy"),
            ("d", ["x"], [], 1.0, "degraded"),
            ("e", ["x", "y"], ["t"], 1.0, "healthy"),
        ]:
            world.run(world.registry.register(name, offers, tags))
            world.run(world.registry.update(name, load=load, health=health))
        return world

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({}, ["b", "e", "a", "d", "c"]),
            ({"capabilities": ["x"]}, ["b", "e", "a", "d"]),
            ({"capabilities": ["x", "y"]}, ["b", "e"]),
            ({"tags": ["t"]}, ["b", "e", "a"]),
            ({"tags": ["t", "u"]}, ["b"]),
            ({"capabilities": ["y"], "tags": ["u"]}, ["b", "c"]),
            ({"min_health": "healthy"}, ["b", "e", "a"]),
            ({"min_health": "degraded"}, ["b", "e", "a", "d"]),
            ({"max_load": 1.0}, ["b", "e", "d", "c"]),
            ({"max_load": 0.5}, ["c"]),
            ({"limit": 2}, ["b", "e"]),
            ({"capabilities": ["x"], "limit": 1}, ["b"]),
            ({"capabilities": ["x"], "limit": 1, "max_load": 0.5}, []),
            ({"capabilities": ["y"], "limit": 1, "max_load": 0.5}, ["c"]),
            ({"capabilities": ["nothing"]}, []),
            ({"capabilities": ["nothing"], "limit": 1}, []),
            ({"tags": ["nothing"]}, []),
        ],
    )
    def test_least_loaded_first_and_never_an_ill_one_before_a_well_one(self, crowd, query, expected):
        assert discover(crowd, **query) == expected

    def test_an_idle_unhealthy_agent_never_comes_before_a_busy_degraded_one(self, crowd):
        crowd.run(crowd.registry.update("d", load=100.0))
        assert discover(crowd)[-2:] == ["d", "c"]

    @pytest.mark.parametrize("query", [{"min_health": "fine"}, {"limit": 0}, {"limit": -1}, {"max_load": float("nan")}])
    def test_bad_queries(self, crowd, query):
        with pytest.raises(InvalidValue):
            crowd.run(crowd.registry.discover(**query))

    def test_what_comes_back_cannot_spoil_the_index(self, crowd):
        """Whoever changes the answer changes its own copy."""
        (best,) = crowd.run(crowd.registry.discover(capabilities=["x"], limit=1))
        with contextlib.suppress(AttributeError):
            best.load = 1000.0
        assert discover(crowd, capabilities=["x"], limit=1) == ["b"]
        assert discover(crowd, capabilities=["x"])[0] == "b"

    def test_the_best_follows_changing_loads(self, crowd):
        for load in (5.0, 0.5, 7.0, 1.0, 0.0):
            crowd.run(crowd.registry.update("a", load=load))
            everyone = crowd.run(crowd.registry.discover(capabilities=["x"]))
            assert discover(crowd, capabilities=["x"], limit=1) == [everyone[0].name]


class TestUpdate:
    @pytest.mark.parametrize("bad", [{"load": -1.0}, {"load": float("nan")}, {"health": "fine"}])
    def test_bad_updates_change_nothing(self, world, bad):
        world.run(world.registry.register("a", ["x"], tags=["t"]))
        with pytest.raises(InvalidValue):
            world.run(world.registry.update("a", tags=["new"], metadata={"x": 1}, **bad))
        entry = world.run(world.registry.find("a"))
        assert (entry.tags, entry.metadata, entry.load, entry.health) == (("t",), {}, 0.0, "healthy")

    def test_somebody_who_is_not_there(self, world):
        with pytest.raises(UnknownRecipient):
            world.run(world.registry.update("nobody", load=1.0))

    def test_tags_and_metadata(self, world):
        world.run(world.registry.register("a", ["x"], tags=["t"], metadata={"k": 1}))
        world.run(world.registry.update("a", tags=["u"], metadata={"l": 2}))
        assert discover(world, tags=["t"]) == [] and discover(world, tags=["u"]) == ["a"]
        assert world.run(world.registry.find("a")).metadata == {"k": 1, "l": 2}


class TestHealth:
    def silence(self, seconds):
        return FaultPlan(appointments=[Pause("a", at=10.05, seconds=seconds)])

    def health_at(self, world, *instants):
        found = []
        for instant in instants:
            world.run(until=instant)
            entries = world.run(world.registry.discover())
            found.append(next((entry.health for entry in entries if entry.name == "a"), None))
        return found

    def test_missed_heartbeats_degrade_then_make_unhealthy_then_remove(self, make_world):
        world = make_world(faults=self.silence(1000.0))
        world.spawn(Agent("a", heartbeat=1.0))
        assert self.health_at(world, 10.0, 11.5, 12.5, 13.5, 14.5, 21.5, 22.5) == [
            "healthy", "healthy", "degraded", "degraded", "unhealthy", "unhealthy", None,
        ]  # fmt: skip
        assert announced(world)[-3:] == [("health", "a"), ("health", "a"), ("unregistered", "a")]
        rows = [event.facts for event in world.trace.events("health")]
        assert rows == [{"health": "degraded", "missed": 2}, {"health": "unhealthy", "missed": 4}]

    def test_the_announcements_do_not_wait_for_somebody_to_ask(self, make_world):
        world = make_world(faults=self.silence(1000.0))
        world.spawn(Agent("a", heartbeat=1.0))
        world.run(until=100.0)
        assert [round(event.time) for event in world.trace.events("health")] == [12, 14]
        (row,) = world.trace.events("unregistered")
        assert round(row.time) == 22 and row.facts["reason"] == "missed heartbeats"

    def test_a_late_heartbeat_after_removal_brings_it_back(self, make_world):
        world = make_world(faults=self.silence(30.0))
        world.spawn(Calculator("a", heartbeat=1.0, tags=("t",)))
        assert self.health_at(world, 30.0, 42.5) == [None, "healthy"]
        assert discover(world, capabilities=["add"], limit=1) == discover(world, tags=["t"]) == ["a"]
        assert world.run(world.registry.find("a")).health == "healthy"
        assert [event.time for event in world.trace.events("registered", "a")] == [0.0, 41.0]

    def test_recovery_before_removal(self, make_world):
        world = make_world(faults=self.silence(5.0))
        world.spawn(Agent("a", heartbeat=1.0))
        assert self.health_at(world, 14.9, 16.5) == ["unhealthy", "healthy"]

    def test_heartbeats_keep_an_agent_for_a_day(self, world):
        for i in range(3):
            world.spawn(Agent(f"a{i}", heartbeat=30.0 + i))
        world.run(until=86400.0)
        assert discover(world, min_health="healthy") == ["a0", "a1", "a2"]
        assert world.trace.count("unregistered") == world.trace.count("health") == 0

    def test_agents_that_promised_no_heartbeat_are_not_evicted(self, world):
        world.spawn(Agent("quiet"))
        world.run(until=86400.0)
        assert discover(world, min_health="healthy") == ["quiet"]

    def test_a_wedged_agent_is_not_healthy(self, world):
        """It still sends heartbeats, but it has been at one message for a day."""

        class Wedge(Agent):
            @on("t")
            async def hang(self, message: Message) -> None:
                await asyncio.get_running_loop().create_future()

        world.spawn(Wedge("a", heartbeat=10.0))
        sender = world.spawn(Agent("sender"))
        world.run(sender.publish("t"))
        assert self.health_at(world, 50.0, 100.0, 700.0, 86400.0) == ["healthy", "degraded", "unhealthy", "unhealthy"]

    @pytest.mark.parametrize("heartbeat", [None, 10.0])
    def test_load_is_that_of_the_agent(self, world, heartbeat):
        """Least loaded first is worth nothing if the registry does not learn the load."""
        world.spawn(Slowpoke("busy", 1000.0, heartbeat=heartbeat))
        world.spawn(Slowpoke("idle", 1000.0, heartbeat=heartbeat))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(5):
                await sender.tell("busy", "t")
            await sender.sleep(15.0)

        world.run(scenario())
        assert world.run(world.registry.find("busy")).load == 5.0
        assert discover(world, limit=2) != ["busy", "idle"]

    def test_heartbeats_lost_on_the_way(self, make_world):
        world = make_world(3, faults=FaultPlan(drop=1.0))
        world.spawn(Agent("a", heartbeat=1.0))
        assert self.health_at(world, 3.5, 5.5, 20.0) == ["degraded", "unhealthy", None]

    def test_an_unregistered_agent_is_not_brought_back_by_its_heartbeat(self, world):
        """Taken out on purpose, it stays out until it registers."""
        world.spawn(Agent("a", heartbeat=1.0))
        world.run(until=3.5)
        world.run(world.registry.unregister("a"))
        world.run(until=10.0)
        assert discover(world) == []

    def test_a_heartbeat_under_way_does_not_revive_who_stopped(self, make_world):
        world = make_world(faults=FaultPlan(delay=1.0, delay_range=(5.0, 5.0)))
        agent = world.spawn(Agent("a", heartbeat=1.0))
        world.run(until=3.5)
        agent.stop()
        world.run(until=20.0)
        assert discover(world) == []


class TestAnnouncements:
    def test_on_the_bus(self, world):
        heard = []

        class Listener(Agent):
            @on("agent.*")
            async def hear(self, message: Message) -> None:
                heard.append((message.topic, message.content["agent"]))

        world.spawn(Listener("listener"))
        calc = world.spawn(Calculator("calc"))
        world.run(world.registry.update("calc", health="degraded"))
        calc.stop()
        world.run(until=1.0)
        assert [pair for pair in heard if pair[1] == "calc"] == [
            ("agent.registered", "calc"),
            ("agent.health", "calc"),
            ("agent.unregistered", "calc"),
        ]

    def test_what_is_announced_can_be_reached(self, world):
        """JOINED is not announced before the newcomer can be found and asked."""
        answers = []

        class Greeter(Agent):
            @on("agent.registered")
            async def greet(self, message: Message) -> None:
                if message.content["agent"] == "calc":
                    answers.append(await self.request("calc", "divide", a=6, b=2))
                    answers.extend(names(await self.request("registry", "discover", capabilities=["add"])))

        world.spawn(Greeter("greeter"))
        world.spawn(Calculator("calc"))
        world.run(until=1.0)
        assert answers == [3.0, "calc"]

    def test_without_listeners_no_message_is_sent(self, world):
        world.spawn(Calculator("calc"))
        world.run(until=1.0)
        assert world.trace.count("sent") == 0
        assert announced(world) == [("registered", "calc")]

    def test_an_update_that_changes_no_health_announces_none(self, world):
        world.spawn(Agent("a"))
        world.run(world.registry.update("a", health="healthy", load=1.0))
        assert world.trace.count("health") == 0


def test_statistics(world):
    run, registry = world.run, world.registry
    assert run(registry.statistics()) == {
        "agents": 0, "health": {"healthy": 0, "degraded": 0, "unhealthy": 0},
        "capabilities": {}, "tags": {}, "mean_load": 0.0,
    }  # fmt: skip
    for i, health in enumerate(["healthy", "healthy", "degraded"]):
        run(registry.register(f"a{i}", ["x"] if i else ["x", "y"], tags=["t"]))
        run(registry.update(f"a{i}", load=float(i), health=health))
    assert run(registry.statistics()) == {
        "agents": 3, "health": {"healthy": 2, "degraded": 1, "unhealthy": 0},
        "capabilities": {"x": 3, "y": 1}, "tags": {"t": 3}, "mean_load": 1.0,
    }  # fmt: skip
    run(registry.unregister("a0"))
    assert run(registry.statistics())["capabilities"] == {"x": 2}


who = st.sampled_from(["a", "b", "c", "d", "e", "f"])
some = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3, unique=True)
loads = st.integers(0, 3).map(float)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("register"), who, some, some),
        st.tuples(st.just("unregister"), who),
        st.tuples(st.just("load"), who, loads),
        st.tuples(st.just("health"), who, st.sampled_from(HEALTH)),
        st.tuples(st.just("tags"), who, some),
        st.tuples(st.just("best"), st.sampled_from(["x", "y", "z"])),
    ),
    max_size=60,
)
queries = st.lists(
    st.tuples(some, some, st.sampled_from(HEALTH), st.integers(0, 4), st.sampled_from([None, 1, 2])),
    min_size=1,
    max_size=8,
)


class BruteForce:
    """What the registry must know, kept in the simplest way."""

    def __init__(self):
        self.rows, self.number = {}, 0

    def apply(self, operation, name, *rest):
        if operation == "register":
            self.number += 1
            self.rows[name] = {"offers": rest[0], "tags": rest[1], "load": 0.0, "health": "healthy", "n": self.number}
        elif operation == "unregister":
            self.rows.pop(name, None)
        elif name in self.rows:
            self.rows[name][operation] = rest[0]

    def discover(self, offers, tags, min_health, max_load, limit):
        rank = HEALTH.index
        found = [
            (rank(row["health"]), row["load"], row["n"], name)
            for name, row in self.rows.items()
            if set(offers) <= set(row["offers"]) and set(tags) <= set(row["tags"])
            and rank(row["health"]) <= rank(min_health) and row["load"] <= max_load
        ]  # fmt: skip
        return [name for *_, name in sorted(found)][:limit]


async def _apply(registry, operation, name, *rest):
    if operation == "register":
        await registry.register(name, *rest)
    elif operation == "unregister":
        await registry.unregister(name)
    elif operation == "best":
        await registry.discover(capabilities=[name], limit=1)  # builds and uses the index
    else:
        with contextlib.suppress(UnknownRecipient):
            await registry.update(name, **{operation: rest[0]})


@settings(max_examples=150, deadline=None)
@given(operations, queries)
def test_the_indexes_are_always_right(operations, queries):
    async def scenario(world: World):
        truth = BruteForce()
        for operation in operations:
            await _apply(world.registry, *operation)
            if operation[0] != "best":
                truth.apply(*operation)
            for offer in "xyz":
                found = await world.registry.discover(capabilities=[offer], limit=1)
                assert names(found) == truth.discover([offer], [], "unhealthy", 99, 1)
        for offers, tags, min_health, max_load, limit in queries:
            found = await world.registry.discover(offers, tags, min_health, max_load, limit)
            assert names(found) == truth.discover(offers, tags, min_health, max_load, limit)
        stats = await world.registry.statistics()
        assert stats["agents"] == len(truth.rows)

    run = simulate(scenario)
    assert run.ok, run.error


def test_the_brute_force_would_notice_a_wrong_index(world):
    """Plant a violation: an agent whose load changes behind the registry's back."""
    world.run(world.registry.register("a", ["x"]))
    world.run(world.registry.register("b", ["x"]))
    truth = BruteForce()
    truth.apply("register", "a", ["x"], [])
    truth.apply("register", "b", ["x"], [])
    truth.apply("load", "a", 2.0)
    assert discover(world, capabilities=["x"], limit=1) != truth.discover(["x"], [], "unhealthy", 99, 1)


def test_the_best_of_many_while_loads_change(world):
    """The cheap way to the best gives what sorting everybody gives."""

    async def scenario():
        registry, draw = world.registry, world.random("test")
        for i in range(300):
            await registry.register(f"a{i}", ["x"])
        for _ in range(1000):
            await registry.update(f"a{draw.randrange(300)}", load=float(draw.randrange(50)))
            (best,) = await registry.discover(capabilities=["x"], limit=1)
            everyone = await registry.discover(capabilities=["x"], limit=2)
            assert best.name == everyone[0].name

    world.run(scenario())


class TestStrangeHeartbeats:
    """Nobody can make the registry fall over, or lie, by what they send it."""

    @pytest.mark.parametrize(
        "content", [{"stalled": "long"}, {"load": "high"}, {"load": -1.0}, {"load": math.nan}, {"load": None}], ids=str
    )
    @pytest.mark.parametrize("verb", ["publish", "tell", "broadcast"])
    def test_from_anybody(self, world, verb, content):
        names_of_workers = [world.spawn(Calculator(f"calc{i}", heartbeat=5.0)).name for i in range(2)]
        stranger = world.agents["calc1"]

        async def scenario():
            await world.registry.discover(capabilities=["add"], limit=1)
            send = stranger.tell("registry", "heartbeat", content) if verb == "tell" else None
            await (send or getattr(stranger, verb)("heartbeat", content))
            await stranger.sleep(1.0)
            return await world.registry.discover(capabilities=["add"], max_load=10.0)

        assert names(world.run(scenario())) == names_of_workers
        assert world.registry.state == "idle" and world.trace.count("crashed") == 0

    def test_a_publication_keeps_nobody_alive(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Pause("a", at=1.0, seconds=1e6)]))
        world.spawn(Agent("a", heartbeat=1.0))
        client = world.spawn(Agent("client"))
        world.run(until=20.0)
        world.run(client.publish("heartbeat", load=0.0))
        assert "a" not in discover(world)


class TestLoadBeforeTheFirstHeartbeat:
    def test_of_an_agent_that_is_still_starting(self, world):
        class Late(Calculator):
            async def on_start(self):
                await self.sleep(100.0)

        late, ready = world.spawn(Late("late")), world.spawn(Calculator("ready"))
        client = world.spawn(Agent("client"))

        async def scenario():
            await world.registry.discover(capabilities=["add"], limit=1)
            ready.suspend(500.0)
            await client.tell("ready", "wait", seconds=1.0)
            for _ in range(50):
                await client.tell("late", "wait", seconds=1.0)
            await client.sleep(1.0)
            [best] = await world.registry.discover(capabilities=["add"], limit=1)
            return best.name, (await world.registry.find("late")).load

        assert world.run(scenario()) == ("ready", 50.0)
        assert late.load == 50.0

    def test_of_an_agent_that_waits_for_its_restart(self, world):
        crashed = world.spawn(Calculator("crashed"), restart="on_crash", backoff=1000.0, within=1e6)
        busy, client = world.spawn(Calculator("busy")), world.spawn(Agent("client"))

        async def scenario():
            crashed.crash(ValueError("x"))
            await client.sleep(1.0)
            await world.registry.discover()
            for _ in range(9):
                await client.tell("crashed", "wait", seconds=1.0)
            busy.suspend(5.0)
            await client.tell("busy", "wait", seconds=1.0)
            found = await world.registry.discover(capabilities=["add"])
            return [(entry.name, entry.health, entry.load) for entry in found]

        assert world.run(scenario()) == [("busy", "healthy", 1.0), ("crashed", "unhealthy", 9.0)]

    def test_it_recovers_with_the_agent(self, world):
        agent = world.spawn(Calculator("a"), restart="on_crash", backoff=5.0)
        agent.crash(ValueError("x"))
        assert world.run(world.registry.find("a")).health == "unhealthy"
        world.run(until=10.0)
        assert world.run(world.registry.find("a")).health == "healthy"


class TestNamesInLists:
    @pytest.mark.parametrize("options", [{"capabilities": "add"}, {"tags": "fast"}], ids=str)
    def test_a_text_where_a_list_is_wanted(self, world, options):
        with pytest.raises(InvalidValue, match=next(iter(options))):
            world.run(world.registry.register("outside", **options))
        with pytest.raises(InvalidValue, match=next(iter(options))):
            world.run(world.registry.discover(**options))
        assert world.run(world.registry.statistics())["agents"] == 0

    def test_tags_of_an_update(self, world):
        world.spawn(Agent("a", tags=["fast"]))
        with pytest.raises(InvalidValue, match="tags"):
            world.run(world.registry.update("a", tags="slow"))
        assert discover(world, tags=["fast"]) == ["a"]

    def test_tags_of_an_agent(self):
        with pytest.raises(InvalidValue, match="tags"):
            Agent("a", tags="fast")


def test_how_well_one_agent_is_can_be_read_at_once(world):
    clerk, gone, registry = world.spawn(Agent("clerk")), world.spawn(Agent("gone")), world.registry
    gone.stop()
    assert registry.health_of(clerk) == registry.health_of(registry) == "healthy"
    assert registry.health_of(gone) == "unhealthy"
    clerk.crash(RuntimeError("boom"), restart_after=1.0)
    assert registry.health_of(clerk) == "unhealthy"
    world.run()
    assert registry.health_of(clerk) == "healthy"
