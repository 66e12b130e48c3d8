"""Supervision: who is restarted, how often, when, and who hears of it in the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from society import Breakable, Calculator, Recorder, Slowpoke, missing

from masbook import Agent, FaultPlan, Message, World, capability, on, simulate
from masbook.errors import AgentCrashed, AgentOffline, InvalidName, InvalidValue
from masbook.runtime.faults import Crash


def crash_at(world, agent, *times):
    """Crash the agent at each instant, and let the world go on for a while after the last."""
    for time in times:
        world.run(until=time)
        agent.crash(ValueError(f"at {time:g}"))
    world.run(until=max(times) + 50.0)


def life(world, who="a"):
    kinds = ("crashed", "restarted", "stopped", "escalated")
    return [(event.kind, event.time) for event in world.trace if event.who == who and event.kind in kinds]


class TestModes:
    def test_never(self, world):
        agent = world.spawn(Recorder("a"), restart="never")
        crash_at(world, agent, 1.0)
        assert life(world) == [("crashed", 1.0), ("escalated", 1.0)]
        assert agent.state == "error"

    def test_on_crash(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", backoff=0.5)
        crash_at(world, agent, 1.0)
        assert life(world) == [("crashed", 1.0), ("restarted", 1.5)]
        assert agent.state == "idle"

    def test_on_crash_does_not_restart_what_stopped(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash")
        world.run(until=1.0)
        agent.stop()
        world.run(until=50.0)
        assert life(world) == [("stopped", 1.0)]

    def test_always_restarts_who_stops_itself(self, world):
        class Quitter(Recorder):
            @on("quit")
            async def quit(self, message: Message) -> None:
                self.stop()

        agent, sender = world.spawn(Quitter("a"), restart="always", backoff=0.5), world.spawn(Agent("sender"))
        world.run(sender.tell("a", "quit"))
        world.run(until=10.0)
        assert life(world) == [("stopped", 0.0), ("restarted", 0.5)]
        assert agent.state == "idle"

    def test_always_leaves_alone_whom_others_stop(self, world):
        agent = world.spawn(Recorder("a"), restart="always")
        world.run(until=1.0)
        agent.stop()
        world.run(until=50.0)
        assert life(world) == [("stopped", 1.0)] and agent.state == "offline"

    @pytest.mark.parametrize("restart", ["on_crash", "always"])
    def test_stopping_a_crashed_agent_calls_its_restart_off(self, world, restart):
        agent = world.spawn(Recorder("a"), restart=restart, backoff=10.0)
        world.run(until=1.0)
        agent.crash(ValueError("x"))
        world.run(until=2.0)
        agent.stop()
        world.run(until=100.0)
        assert life(world) == [("crashed", 1.0), ("stopped", 2.0)]
        assert agent.state == "offline"

    def test_stopping_calls_a_restart_of_the_fault_plan_off(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Crash("a", at=1.0, restart_after=10.0)]))
        agent = world.spawn(Recorder("a"))
        world.run(until=2.0)
        agent.stop()
        world.run(until=100.0)
        assert agent.state == "offline" and world.trace.count("restarted") == 0

    def test_a_pending_restart_does_not_touch_a_successor_of_the_same_name(self, world):
        first = world.spawn(Recorder("a"), restart="on_crash", backoff=10.0)
        first.crash(ValueError("x"))
        first.stop()
        second = world.spawn(Recorder("a"))
        world.run(until=100.0)
        assert second.state == "idle" and world.trace.count("restarted") == 0

    @pytest.mark.parametrize(
        "options",
        [
            {"restart": "sometimes"},
            {"max_restarts": -1},
            {"within": -1.0},
            {"backoff": -0.1},
            {"backoff": float("nan")},
        ],
    )
    def test_options_are_checked(self, world, options):
        with pytest.raises(InvalidValue, match=next(iter(options))):
            world.spawn(Agent("a"), **options)
        assert "a" not in world.agents and world.trace.count("spawned") == 0


class TestLimits:
    def test_back_off_doubles(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=4, within=1000.0, backoff=0.5)

        async def scenario():
            for _ in range(4):
                crashed = world.now
                agent.crash(ValueError("x"))
                while agent.state == "error":
                    await asyncio.sleep(0.25)
                waited.append(world.now - crashed)

        waited: list[float] = []
        world.run(scenario())
        assert waited == [0.5, 1.0, 2.0, 4.0]
        restarts = [(e.facts["attempt"], e.facts["backoff"]) for e in world.trace.events("restarted")]
        assert restarts == [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)]

    def test_n_within_t_then_escalation(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=2, within=60.0, backoff=0.0)
        crash_at(world, agent, 1.0, 2.0, 3.0)
        assert life(world) == [
            ("crashed", 1.0), ("restarted", 1.0),
            ("crashed", 2.0), ("restarted", 2.0),
            ("crashed", 3.0), ("escalated", 3.0),
        ]  # fmt: skip
        assert agent.state == "error"

    def test_crashes_far_apart_are_forgiven(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=2, within=10.0, backoff=0.0)
        crash_at(world, agent, 1.0, 2.0, 12.5, 13.0, 30.0)
        assert world.trace.count("restarted") == 5 and world.trace.count("escalated") == 0
        assert agent.state == "idle"

    def test_the_back_off_starts_again_after_a_calm(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=5, within=10.0, backoff=0.5)
        crash_at(world, agent, 1.0, 2.0, 100.0)
        assert [event.facts["backoff"] for event in world.trace.events("restarted")] == [0.5, 1.0, 0.5]

    def test_no_restarts_at_all(self, world):
        agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=0)
        crash_at(world, agent, 1.0)
        assert life(world) == [("crashed", 1.0), ("escalated", 1.0)]

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.floats(0.1, 20.0), min_size=1, max_size=12),
        st.integers(0, 3),
        st.floats(0.5, 30.0),
        st.sampled_from([0.0, 0.125, 0.5]),
    )
    def test_never_more_than_n_restarts_within_t(self, gaps, most, within, backoff):
        async def scenario(world: World):
            agent = world.spawn(Recorder("a"), restart="on_crash", max_restarts=most, within=within, backoff=backoff)
            for gap in gaps:
                await asyncio.sleep(gap)
                agent.crash(ValueError("x"))
            await asyncio.sleep(100.0)
            return agent.state

        run = simulate(scenario)
        crashes = [event.time for event in run.trace.events("crashed")]
        # a restart belongs to the crash before it: no window of `within` seconds holds more than n such crashes
        restarts = list(run.trace.events("restarted"))
        if restarts:
            starts = [max(t for t in crashes if t <= event.time - event.facts["backoff"] + 1e-9) for event in restarts]
            assert all(sum(start <= t < start + within for t in starts) <= most for start in starts)
        assert run.result == ("error" if run.trace.count("escalated") else "idle")
        assert run.trace.count("escalated") <= 1


class Parent(Recorder):
    """Hears of its children's ends."""

    @on("agent.crashed")
    async def mourn(self, message: Message) -> None:
        self.got.append(message)


class TestEscalation:
    def test_to_whoever_spawned_it(self, world):
        parent = world.spawn(Parent("parent"))
        child = world.spawn(Recorder("child"), parent=parent)
        world.spawn(Parent("bystander"))
        child.crash(ValueError("bad day"))
        world.run(until=1.0)
        (message,) = parent.got
        assert message.content == {"agent": "child", "error": "ValueError", "message": "bad day"}
        assert world.agents["bystander"].got == []
        (row,) = world.trace.events("escalated")
        assert row.who == "child" and row.facts["to"] == "parent"

    def test_spawning_from_a_handler_makes_it_a_child(self, world):
        class Manager(Parent):
            @capability
            async def hire(self, name: str) -> None:
                self.world.spawn(Breakable(name))

        manager, client = world.spawn(Manager("manager")), world.spawn(Agent("client"))

        async def scenario():
            await client.request("manager", "hire", name="worker")
            await client.tell("worker", "boom")
            await client.sleep(1.0)

        world.run(scenario())
        assert [message.content["agent"] for message in manager.got] == ["worker"]
        assert next(iter(world.trace.events("spawned", "worker"))).facts["parent"] == "manager"

    def test_to_the_world_where_nobody_spawned_it(self, world):
        world.spawn(Recorder("a")).crash(ValueError("x"))
        (row,) = world.trace.events("escalated")
        assert row.facts["to"] == "world" and "ValueError" in row.facts["error"]

    def test_a_parent_that_is_gone(self, world):
        parent = world.spawn(Parent("parent"))
        child = world.spawn(Recorder("child"), parent=parent)
        parent.stop()
        child.crash(ValueError("x"))
        world.run(until=1.0)
        assert world.trace.count("escalated", "child") == 1 and parent.got == []

    def test_an_agent_never_escalates_to_itself(self, world):
        agent = Recorder("a")
        with pytest.raises(InvalidValue):
            world.spawn(agent, parent=agent)

    def test_escalation_runs_up_the_tree(self, world):
        """A parent that crashes over its child's crash escalates to its own parent."""

        class Nervous(Agent):
            @on("agent.crashed")
            async def panic(self, message: Message) -> None:
                raise RuntimeError("my child!")

        top = world.spawn(Parent("top"))
        middle = world.spawn(Nervous("middle"), parent=top)
        child = world.spawn(Recorder("child"), parent=middle)
        child.crash(ValueError("x"))
        world.run(until=1.0)
        assert [message.content["agent"] for message in top.got] == ["middle"]


class TestMailboxOverARestart:
    def test_what_waits_is_kept(self, world):
        agent, sender = world.spawn(Breakable("a"), restart="on_crash", backoff=1.0), world.spawn(Agent("sender"))

        async def scenario():
            for topic in ("boom", "one", "two"):
                await sender.tell("a", topic)
            await sender.sleep(0.5)
            await sender.tell("a", "during the back-off")
            await sender.sleep(5.0)

        world.run(scenario())
        assert agent.topics == ["one", "two", "during the back-off"]
        assert set(agent.times) == {1.0}
        assert world.trace.count("dead") == 0

    def test_without_a_restart_it_becomes_dead_letters(self, world):
        agent, sender = world.spawn(Breakable("a")), world.spawn(Agent("sender"))

        async def scenario():
            for topic in ("boom", "one", "two"):
                await sender.tell("a", topic)
            await sender.sleep(1.0)
            with pytest.raises(AgentOffline):
                await sender.tell("a", "later")

        world.run(scenario())
        assert agent.got == []
        assert [event.facts["reason"] for event in world.bus.dead_letters] == ["crashed", "crashed", "offline"]

    def test_the_message_in_hand_is_failed_not_repeated(self, world):
        world.spawn(Breakable("a"), restart="on_crash")
        sender = world.spawn(Agent("sender"))
        world.run(sender.tell("a", "boom"))
        world.run(until=5.0)
        assert world.trace.count("failed", "a") == 1 and world.trace.count("crashed", "a") == 1

    def test_who_asked_learns_of_the_crash_at_once(self, world):
        calc, client = world.spawn(Calculator("calc"), restart="on_crash"), world.spawn(Agent("client"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "wait", seconds=50.0, timeout=100.0))
            await client.sleep(1.0)
            calc.crash(ValueError("x"))
            with pytest.raises(AgentCrashed, match="calc"):
                await asking
            assert world.now == 1.0
            return await client.request("calc", "add", a=1, b=1)  # waits for the restart

        assert world.run(scenario()) == 2.0

    def test_waiting_requests_of_a_crash_without_restart_fail_at_once(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            asking = [asyncio.ensure_future(client.request("calc", "wait", seconds=9.0)) for _ in range(3)]
            await client.sleep(1.0)
            calc.crash(ValueError("x"))
            return await asyncio.gather(*asking, return_exceptions=True), world.now

        errors, now = world.run(scenario())
        assert now == 1.0 and not any(isinstance(error, TimeoutError) for error in errors)
        assert len(errors) == 3 and all(isinstance(error, Exception) for error in errors)

    def test_subscriptions_survive_a_restart_and_are_not_doubled(self, world):
        class Listener(Recorder):
            @on("t")
            async def hear(self, message: Message) -> None:
                self.got.append(message)

        agent, sender = world.spawn(Listener("a"), restart="on_crash", backoff=0.0), world.spawn(Agent("sender"))
        agent.subscribe("u", agent.on_message)
        crash_at(world, agent, 1.0, 2.0)
        for topic in ("t", "u"):
            world.run(sender.publish(topic))
        world.run(until=world.now + 1.0)
        assert agent.topics == ["t", "u"]

    def test_a_crash_loop_on_start_is_bounded(self, world):
        class Stillborn(Recorder):
            async def on_start(self):
                raise OSError("no disk")

        agent = world.spawn(Stillborn("a"), restart="on_crash", max_restarts=3, backoff=0.0)
        world.run(until=10.0)
        assert world.trace.count("crashed", "a") == 4 and world.trace.count("escalated", "a") == 1
        assert agent.state == "error"

    def test_accounting_over_crashes(self, world):
        agent = world.spawn(Breakable("a", capacity=2), restart="on_crash", max_restarts=1, backoff=1.0)
        senders = [world.spawn(Agent(f"s{i}")) for i in range(4)]

        async def send(sender):
            for topic in ("x", "boom", "y"):
                await sender.tell("a", topic)

        async def scenario():
            await asyncio.gather(*(send(sender) for sender in senders), return_exceptions=True)
            assert missing(world) == 0
            await senders[0].sleep(30.0)

        world.run(scenario())
        assert missing(world) == 0 and world.bus.in_flight == 0
        assert agent.state == "error"


class TestOneAgentOfAName:
    def test_a_replaced_agent_does_not_come_back(self, world):
        class Quitter(Agent):
            @capability
            async def quit(self) -> None:
                self.stop()

        first, client = world.spawn(Quitter("a"), restart="always", backoff=1.0), world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(AgentOffline):
                await client.request("a", "quit")
            second = world.spawn(Agent("a"))
            await client.sleep(5.0)
            return second

        second = world.run(scenario())
        assert (first.online, second.online) == (False, True)
        assert world.bus.agent("a") is second and world.agents["a"] is second

    def test_nor_by_hand(self, world):
        first = world.spawn(Agent("a"))
        first.stop()
        second = world.spawn(Agent("a"))
        with contextlib.suppress(InvalidName):
            first.restart()
        assert (first.online, second.online) == (False, True)
        assert world.bus.agent("a") is second and world.agents["a"] is second

    def test_a_restart_by_hand_calls_the_one_to_come_off(self, world):
        agent = world.spawn(Agent("a"), restart="on_crash", backoff=10.0, max_restarts=9, within=1e6)
        world.run(until=1.0)
        agent.crash(ValueError("first"))
        world.run(until=2.0)
        agent.restart()
        world.run(until=10.0)
        agent.crash(ValueError("second"))
        world.run(until=100.0)
        restarts = [event.time for event in world.trace.events("restarted", "a")]
        assert restarts[0] == 2.0 and len(restarts) == 2 and restarts[1] >= 20.0


class TestEscalationIsAnnounced:
    @pytest.mark.parametrize("policy", ["reject", "block", "drop_oldest"])
    def test_to_a_parent_with_a_full_mailbox(self, world, caplog, policy):
        parent = world.spawn(Slowpoke("parent", 1000.0, capacity=1, policy=policy))
        child, client = world.spawn(Breakable("child"), parent=parent), world.spawn(Agent("client"))

        async def scenario():
            await client.tell("parent", "t")
            await client.sleep(0.1)
            await client.tell("parent", "t")
            await client.tell("child", "boom")
            await client.sleep(1.0)

        world.run(scenario())
        gc.collect()
        assert (child.state, parent.state) == ("error", "busy")
        assert world.trace.count("escalated", "child") == 1 and missing(world) == 0
        assert "never retrieved" not in caplog.text


class TestAlways:
    @pytest.mark.parametrize("place", ["background", "on_start"])
    def test_an_agent_that_stops_itself_outside_a_handler_comes_back(self, world, place):
        class Quitter(Agent):
            starts = 0

            async def on_start(self):
                self.starts += 1
                if self.starts > 1:
                    return
                if place == "background":
                    self.background(self.quit())
                else:
                    self.stop()

            async def quit(self):
                await self.sleep(1.0)
                self.stop()

        quitter = world.spawn(Quitter("quitter"), restart="always", backoff=1.0)
        world.run(until=10.0)
        assert (quitter.state, quitter.starts) == ("idle", 2)
