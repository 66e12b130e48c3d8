"""The defects of the course documents' own code, as far as bus, agent and registry go: masbook must not have them.

Each test is named after the defect and shows that the opposite holds here. The list is SEED_DEFECTS.md's.
"""

from __future__ import annotations

import asyncio

import pytest
from society import Breakable, Calculator, Recorder, Slowpoke

from masbook import Agent, FaultPlan, Filter, Message, MessageType, World, capability, on, simulate
from masbook.errors import (
    AgentOffline,
    InvalidValue,
    MailboxFull,
    MasbookError,
    RequestCycle,
    RequestTimeout,
    Stuck,
    UnknownRecipient,
)
from masbook.runtime.faults import OnMessage, Pause
from masbook.runtime.trace import Trace


def later(world, seconds=10.0):
    world.run(until=world.now + seconds)


def reasons(world):
    return [event.facts["reason"] for event in world.bus.dead_letters]


class TestAgent:
    def test_finally_state_idle_brings_a_stopped_agent_back_to_life(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 10.0)), world.spawn(Agent("sender"))
        world.run(sender.tell("slow", "t"))
        later(world, 1.0)
        slow.stop()
        later(world, 100.0)
        assert slow.state == "offline" and slow.got == []
        with pytest.raises(AgentOffline):
            world.run(sender.tell("slow", "t"))

    def test_stop_during_a_handler_is_lost(self, world):
        class Stopper(Recorder):
            async def on_message(self, message):
                self.stop()
                await super().on_message(message)

        stopper, sender = world.spawn(Stopper("stopper")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("stopper", "one")
            await sender.tell("stopper", "two")
            await sender.sleep(5.0)

        world.run(scenario())
        assert stopper.state == "offline" and "two" not in stopper.topics
        assert reasons(world) == ["stopped"]

    def test_restarted_within_a_second_an_agent_has_two_message_loops(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 1.0)), world.spawn(Agent("sender"))
        slow.stop()
        slow.restart()
        for i in range(4):
            world.run(sender.tell("slow", str(i)))
        later(world)
        assert slow.times == [1.0, 2.0, 3.0, 4.0]  # one at a time: one loop

    def test_live_agents_are_evicted_because_they_never_heartbeat(self, world):
        world.spawn(Calculator("calc"))
        later(world, 100_000.0)
        assert world.run(world.registry.find("calc")).health == "healthy"

    def test_two_polite_agents_answer_each_other_for_ever(self, world):
        """In no virtual time this is a livelock, and named; with thinking time, a run whose end is chosen."""

        class Polite(Agent):
            async def on_message(self, message):
                await self.sleep(1.0)
                await self.tell(message.sender, "thanks")

        world.spawn(Polite("ann"))
        bob = world.spawn(Polite("bob"))
        world.run(bob.tell("ann", "hello"))
        world.run(until=10.5)
        assert world.trace.count("sent") == 11
        assert world.bus.in_flight <= 1

    def test_stopping_loses_what_waits_without_a_word(self, world):
        """Nine of ten tasks are lost when the workers stop: here each is a dead letter, and its sender can know."""
        slow, sender = world.spawn(Slowpoke("slow", 1.0)), world.spawn(Agent("sender"))
        for i in range(10):
            world.run(sender.tell("slow", str(i)))
        world.run(until=0.5)
        slow.stop()
        assert reasons(world) == ["stopped"] * 9
        assert world.trace.count("failed", "slow") == 1

    def test_an_error_in_a_monitoring_task_is_seen_by_nobody(self, world):
        agent = world.spawn(Agent("monitor"))

        async def monitor():
            raise NameError("timeout")

        agent.background(monitor())
        later(world)
        assert agent.state == "error"
        assert [event.facts["error"] for event in world.trace.events("crashed")] == ["NameError"]


class TestBus:
    def test_nothing_completes_a_requests_future(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("calc", "add", a=1, b=2, timeout=1.0)) == 3.0

    def test_a_reply_to_system_is_broadcast(self, world):
        """Who answers the world's own message, or the registry's, reaches nobody else."""
        bystander, agent = world.spawn(Recorder("bystander")), world.spawn(Recorder("agent"))
        world.bus.inform(agent, "how are you", {})
        later(world)
        with pytest.raises(UnknownRecipient):
            world.run(agent.tell(agent.got[0].sender, "fine"))
        later(world)
        assert bystander.got == []

    def test_heartbeats_to_system_are_broadcast(self, world):
        """50 idle agents for 300 s: one delivery a heartbeat, not 24,500."""
        for i in range(50):
            world.spawn(Recorder(f"a{i}", heartbeat=30.0))
        world.run(until=301.0)
        assert world.trace.count("copies") == 50 * 10
        assert sum(world.trace.count("delivered", f"a{i}") for i in range(50)) == 0

    def test_a_one_second_time_out_is_noticed_after_9_5_seconds(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestTimeout):
            world.run(client.request("calc", "wait", seconds=9.5, timeout=1.0))
        assert world.now == 1.0

    def test_failed_deliveries_stay_0(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        a.stop()
        for to in ("a", "nobody"):
            with pytest.raises(MasbookError):
                world.run(sender.tell(to, "t"))
        assert world.bus.metrics()["dead"] == 2

    def test_unknown_receivers_are_dropped_silently(self, world):
        sender = world.spawn(Agent("sender"))
        with pytest.raises(UnknownRecipient, match="ghost"):
            world.run(sender.tell("ghost", "t"))
        assert reasons(world) == ["unknown recipient"]

    def test_message_sent_to_an_agent_that_does_not_exist(self, world):
        """The tool says `Message sent`; here it raises, so no model can believe it."""
        sender = world.spawn(Agent("sender"))
        with pytest.raises(LookupError):
            world.run(sender.request("ghost", "ping"))
        assert world.now == 0.0

    def test_an_unknown_recipient_costs_the_whole_time_out(self, world):
        sender = world.spawn(Agent("sender"))
        with pytest.raises(UnknownRecipient):
            world.run(sender.request("ghost", "ping", timeout=30.0))
        assert world.now == 0.0

    def test_priority_is_ignored(self, world):
        slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))

        async def scenario():
            for topic, priority in [("first", 0), ("low", 0), ("high", 1)]:
                await sender.tell("slow", topic, priority=priority)
                await sender.sleep(0.1)
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["first", "high", "low"]

    def test_queues_are_unbounded(self, world):
        world.spawn(Slowpoke("slow", capacity=10, policy="reject"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(100):
                await sender.tell("slow", "t")

        with pytest.raises(MailboxFull):
            world.run(scenario())
        assert world.bus.in_flight <= 11

    def test_history_grows_without_bound(self, make_world):
        world = make_world(trace=Trace.ring(10))
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(10_000):
                await sender.tell("a", "t")

        world.run(scenario())
        later(world)
        assert len(world.trace.rows) < 5_000 < len(world.trace)

    def test_a_filter_meant_to_eavesdrop_executes_the_request_too(self, world):
        class Spy(Calculator):
            heard = 0

            @on("add", type=MessageType.REQUEST)
            async def listen(self, message: Message) -> None:
                self.heard += 1

        calc, spy, client = world.spawn(Calculator("calc")), world.spawn(Spy("spy")), world.spawn(Agent("client"))
        assert world.run(client.request("calc", "add", a=1, b=2)) == 3.0
        later(world)
        assert spy.heard == 1 and calc.metrics["handled"] == 1
        assert world.trace.count("sent", "spy") == 0  # it did not answer

    def test_agent1_matches_agent10(self, world):
        class Listener(Recorder):
            @on("t", sender="agent1")
            async def hear(self, message: Message) -> None:
                self.got.append(message)

        listener = world.spawn(Listener("listener"))
        for name in ("agent1", "agent10", "my_agent1"):
            world.run(world.spawn(Agent(name)).publish("t"))
        later(world)
        assert [message.sender for message in listener.got] == ["agent1"]

    def test_one_mutable_message_object_is_shared_by_all_recipients(self, world):
        class Vandal(Recorder):
            @on("t")
            async def hear(self, message: Message) -> None:
                self.got.append(message)
                message.content["items"].append("spoilt")

        vandal, innocent = world.spawn(Vandal("vandal")), world.spawn(Recorder("innocent"))
        innocent.subscribe("t", innocent.on_message)
        world.run(world.spawn(Agent("sender")).publish("t", items=[1]))
        later(world)
        assert vandal.state == "error"
        assert innocent.got[0].content == {"items": [1]}

    def test_nested_x_y_x_requests_time_out(self, world):
        class Peer(Agent):
            @capability
            async def relay(self, to: str, back: str) -> str:
                return await self.request(to, "answer", back=back)

            @capability
            async def answer(self, back: str) -> str:
                return await self.request(back, "answer", back=back)

        world.spawn(Peer("x"))
        world.spawn(Peer("y"))
        with pytest.raises(RequestCycle, match="x -> y -> x"):
            world.run(world.spawn(Agent("client")).request("x", "relay", to="y", back="x"))
        assert world.now == 0.0

    def test_delivery_order_depends_on_the_hash_seed(self, world):
        """Subscribers hear in the order in which they subscribed; across processes: test_determinism.py."""
        order = []

        class Listener(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                order.append(self.name)

        names = [f"n{i * 7919 % 101}" for i in range(30)]
        for name in names:
            world.spawn(Listener(name))
        world.run(world.spawn(Agent("sender")).publish("t"))
        later(world)
        assert order == names

    def test_responses_and_errors_have_no_branch_and_are_dropped(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(ZeroDivisionError):
            world.run(client.request("calc", "divide", a=1, b=0))
        assert reasons(world) == []

    def test_one_stuck_subscriber_costs_everybody_a_second_a_message_then_the_message_is_lost(self, world):
        class Stone(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                await asyncio.get_running_loop().create_future()

        world.spawn(Stone("stone", capacity=2, policy="block"))
        listener, sender = world.spawn(Recorder("listener")), world.spawn(Agent("sender"))
        listener.subscribe("t", listener.on_message)

        async def scenario():
            for _ in range(10):
                await sender.publish("t")
            return world.now

        assert world.run(scenario()) == 0.0
        later(world)
        assert listener.times == [0.0] * 10
        assert set(reasons(world)) == {"mailbox full"}  # for the stone alone, and on record
        assert {event.who for event in world.bus.dead_letters} == {"stone"}

    def test_unsubscribing_during_a_publish_skips_a_queue(self, world):
        heard = []

        class Once(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                heard.append(self.name)
                self.unsubscribe("t")

        for name in "abcd":
            world.spawn(Once(name))
        world.run(world.spawn(Agent("sender")).publish("t"))
        later(world)
        assert heard == list("abcd")

    @pytest.mark.parametrize(
        "make", [lambda: Filter(type="publsh"), lambda: on("t", type="publsh"), lambda: Filter(type=("tell", "asj"))]
    )
    def test_a_typo_in_a_message_type_aborts_the_run(self, make):
        """It is refused where it is written, with the types there are."""
        with pytest.raises(InvalidValue, match="publish"):
            make()

    def test_publish_raises_into_the_publisher(self, world):
        class Fragile(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                raise ValueError("x")

        world.spawn(Fragile("fragile"))
        sender = world.spawn(Agent("sender"))
        assert world.run(sender.publish("t")) is None
        later(world)
        assert sender.state == "idle"

    def test_the_event_bus_swallows_handler_errors(self, world):
        fragile, sender = world.spawn(Breakable("fragile")), world.spawn(Agent("sender"))
        fragile.subscribe("boom", fragile.on_message)
        world.run(sender.publish("boom"))
        later(world)
        assert [event.facts["message"] for event in world.trace.events("crashed")] == ["boom"]
        assert "fragile crashed" in world.explain()


class TestChannels:
    def test_handlers_of_timed_out_calls_go_on_three_charges(self, world):
        """Three attempts at a slow charge, each cancelled when it times out: the customer is charged once."""

        class Bank(Agent):
            charges = 0
            delay = 5.0

            @capability
            async def charge(self) -> str:
                await self.sleep(self.delay)
                self.charges += 1
                return "charged"

        bank, client = world.spawn(Bank("bank")), world.spawn(Agent("client"))

        async def scenario():
            for attempt in range(3):
                bank.delay = 0.5 if attempt == 2 else 5.0
                try:
                    await client.request("bank", "charge", timeout=1.0, on_timeout="cancel")
                except RequestTimeout:
                    continue
            await client.sleep(60.0)

        world.run(scenario())
        assert bank.charges == 1

    def test_closing_a_stream_strands_its_reader(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def read():
            return [part async for part in client.stream("calc", "count", n=100)]

        async def scenario():
            reading = asyncio.ensure_future(read())
            await client.sleep(2.5)
            await calc.stop()
            with pytest.raises(AgentOffline):
                await reading
            return world.now

        assert world.run(scenario()) == 2.5
        assert not world.waits

    def test_a_stream_whose_end_is_lost_strands_its_reader(self, make_world):
        """With a time-out it ends in a typed error; without one, a stuck world says who waits for whom."""
        world = make_world(faults=FaultPlan(appointments=[OnMessage("drop", nth=4, to="client")]))
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def read(timeout):
            return [part async for part in client.stream("calc", "count", n=3, timeout=timeout)]

        with pytest.raises(RequestTimeout):
            world.run(read(10.0))
        world = make_world(faults=FaultPlan(appointments=[OnMessage("drop", nth=4, to="client")]))
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(Stuck, match=r"client waits for .*calc"):
            world.run(read(None))

    def test_receive_with_timeout_0_blocks(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(InvalidValue, match="time"):
            world.run(client.request("calc", "add", a=1, b=1, timeout=0))
        assert world.now == 0.0

    def test_joined_is_announced_before_the_agent_can_be_reached(self, world):
        answers = []

        class Greeter(Agent):
            @on("agent.registered")
            async def greet(self, message: Message) -> None:
                if message.content["agent"] == "new":
                    answers.append(await self.request("new", "ping"))

        world.spawn(Greeter("greeter"))
        world.spawn(Recorder("new"))
        later(world)
        assert answers == ["pong"]

    def test_removed_agents_keep_a_ghost_handler(self, world):
        ghost, sender = world.spawn(Recorder("ghost")), world.spawn(Agent("sender"))
        ghost.subscribe("t", ghost.on_message)
        world.bus.route(lambda message: None)
        ghost.stop()
        world.run(sender.publish("t"))
        world.run(sender.broadcast("t"))
        later(world)
        assert ghost.got == [] and world.trace.count("copies") == 0

    def test_ids_made_of_milliseconds_collide(self, world):
        """1,000 messages and 1,000 ids at one instant: all different, all in order."""
        world.spawn(Recorder("a", capacity=2000))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(1000):
                await sender.tell("a", "t")

        world.run(scenario())
        assert world.now == 0.0
        assert len({event.facts["message"] for event in world.trace.events("sent")}) == 1000
        assert len({world.new_id("task") for _ in range(1000)}) == 1000

    def test_history_leaks_from_run_to_run(self):
        async def scenario(world: World):
            calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
            calc.subscribe("t", calc.on_message)
            await client.request("calc", "add", a=1, b=1)
            return world.new_id("task"), world.trace.count("sent"), calc.metrics

        first, second = simulate(scenario, 1), simulate(scenario, 1)
        assert first.result == second.result and first.digest == second.digest


class TestRegistry:
    def silent(self, make_world, seconds):
        world = make_world(faults=FaultPlan(appointments=[Pause("calc", at=5.5, seconds=seconds)]))
        world.spawn(Calculator("calc", heartbeat=1.0, tags=("maths",)))
        return world

    def test_a_late_heartbeat_after_eviction_is_acknowledged_but_the_agent_stays_unregistered(self, make_world):
        world = self.silent(make_world, 60.0)
        world.run(until=30.0)
        with pytest.raises(UnknownRecipient):
            world.run(world.registry.find("calc"))
        world.run(until=70.0)
        assert world.run(world.registry.find("calc")).health == "healthy"
        assert [entry.name for entry in world.run(world.registry.discover(["add"], ["maths"]))] == ["calc"]

    def test_the_capability_index_is_stale(self, make_world):
        """Evicted, stopped or registered anew: the index never names who is not there."""
        world = self.silent(make_world, 60.0)
        for limit in (1, None):
            assert world.run(world.registry.discover(["add"], limit=limit))
        world.run(until=30.0)
        for limit in (1, None):
            assert world.run(world.registry.discover(["add"], limit=limit)) == []
        assert world.run(world.registry.discover(tags=["maths"])) == []

    def test_an_idle_unhealthy_agent_sorts_before_a_busy_degraded_one(self, world):
        for name, load, health in [("idle", 0.0, "unhealthy"), ("busy", 50.0, "degraded")]:
            world.run(world.registry.register(name, ["x"]))
            world.run(world.registry.update(name, load=load, health=health))
        assert [entry.name for entry in world.run(world.registry.discover(["x"]))] == ["busy", "idle"]
        assert [entry.name for entry in world.run(world.registry.discover(["x"], limit=1))] == ["busy"]

    def test_a_wedged_agent_is_healthy_after_a_day(self, world):
        class Wedge(Agent):
            async def on_message(self, message):
                await asyncio.get_running_loop().create_future()

        world.spawn(Wedge("wedge", heartbeat=60.0))
        world.run(world.spawn(Agent("sender")).tell("wedge", "t"))
        world.run(until=86_400.0)
        assert world.run(world.registry.find("wedge")).health == "unhealthy"

    def test_a_wedged_agent_without_heartbeats_is_healthy_after_a_day(self, world):
        class Wedge(Agent):
            async def on_message(self, message):
                await asyncio.get_running_loop().create_future()

        world.spawn(Wedge("wedge"))
        world.run(world.spawn(Agent("sender")).tell("wedge", "t"))
        world.run(until=86_400.0)
        assert world.run(world.registry.find("wedge")).health != "healthy"

    def test_every_load_is_the_default_so_the_first_wins(self, world):
        for name in ("first", "second"):
            world.spawn(Slowpoke(name, 1000.0, heartbeat=1.0))
        sender = world.spawn(Agent("sender"))
        for _ in range(3):
            world.run(sender.tell("first", "t"))
        world.run(until=2.5)
        best = world.run(world.registry.discover(limit=5, max_load=0.0))
        assert [entry.name for entry in best] == ["second", "sender"]

    def test_the_random_choice_is_unseeded(self):
        async def scenario(world: World):
            return world.random("arbiter").choice(range(1000))

        assert simulate(scenario, 5).result == simulate(scenario, 5).result != simulate(scenario, 6).result
