"""Faults: drawn from the seed or by appointment, each in the trace, and no more than what was ordered."""

from __future__ import annotations

import asyncio
import itertools
import pickle

import pytest
from society import Calculator, Recorder, missing

from masbook import Agent, FaultPlan, Filter, MessageType, World, simulate
from masbook.errors import AgentCrashed, InvalidValue, RequestTimeout
from masbook.runtime.faults import Crash, ModelFault, OnMessage, Partition, Pause, Slow


async def chatter(world: World, messages: int = 200, agents: int = 4):
    """Everybody tells everybody, a message every 0.1 s; nobody answers, so that faults change nothing that is sent."""
    people = [world.spawn(Recorder(f"a{i}")) for i in range(agents)]
    for i in range(messages):
        sender, to = people[i % agents], people[(i * 7 + 1) % agents]
        await sender.tell(to.name, "t", n=i)
        await sender.sleep(0.1)
    await asyncio.sleep(20.0)
    return [[message.content["n"] for message in person.got] for person in people]


def struck(run, fault):
    """The messages that a kind of fault struck, with whom."""
    return {(event.facts["message"], event.who) for event in run.trace.events("fault") if event.facts["fault"] == fault}


def tell_many(world, n=5, to="b", topic="t"):
    sender, recorder = world.spawn(Recorder("a")), world.spawn(Recorder("b"))

    async def scenario():
        for i in range(n):
            await sender.tell(to, topic, n=i)
            await sender.sleep(1.0)
        await sender.sleep(20.0)

    world.run(scenario())
    return [message.content["n"] for message in recorder.got], recorder.times


class TestRates:
    @pytest.mark.parametrize("fault", ["drop", "delay", "duplicate", "reorder"])
    def test_each_kind_strikes_about_as_often_as_ordered_and_is_in_the_trace(self, fault):
        run = simulate(chatter, 1, faults=FaultPlan(**{fault: 0.3}), messages=400)
        hits = len(struck(run, fault))
        assert 80 < hits < 160
        assert run.trace.count("fault") == hits
        assert run.ok

    @pytest.mark.parametrize("fault", ["drop", "delay", "duplicate", "reorder"])
    def test_at_one_every_message_is_struck_and_at_zero_none(self, fault):
        assert len(struck(simulate(chatter, 1, faults=FaultPlan(**{fault: 1.0}), messages=50), fault)) == 50
        none = simulate(chatter, 1, faults=FaultPlan(**{fault: 0.0}), messages=50)
        assert none.trace.count("fault") == 0
        assert none.digest == simulate(chatter, 1, messages=50).digest

    def test_dropped_messages_do_not_arrive(self):
        run = simulate(chatter, 1, faults=FaultPlan(drop=0.3))
        assert sum(map(len, run.result)) == 200 - run.trace.count("dropped") < 200
        assert {event.facts["reason"] for event in run.trace.events("dropped")} == {"drop"}

    def test_duplicated_messages_arrive_twice(self):
        run = simulate(chatter, 1, faults=FaultPlan(duplicate=0.3))
        assert sum(map(len, run.result)) == 200 + run.trace.count("duplicated") > 200

    def test_delays_are_in_the_range(self, make_world):
        world = make_world(faults=FaultPlan(delay=1.0, delay_range=(2.0, 3.0)))
        _, times = tell_many(world)
        assert all(i + 2.0 <= time <= i + 3.0 for i, time in enumerate(times))
        assert len({time - i for i, time in enumerate(times)}) == 5
        details = [event.facts["detail"] for event in world.trace.events("fault")]
        assert all(2.0 <= seconds <= 3.0 for seconds in details)

    def test_reordering_lets_later_messages_overtake(self):
        async def burst(world: World):
            sender, recorder = world.spawn(Recorder("a")), world.spawn(Recorder("b"))
            for i in range(50):
                await sender.tell("b", "t", n=i)
            await sender.sleep(10.0)
            return [message.content["n"] for message in recorder.got]

        got = simulate(burst, 1, faults=FaultPlan(reorder=0.5)).result
        assert sorted(got) == list(range(50)) != got
        assert simulate(burst, 1).result == list(range(50))

    def test_only_limits_the_rates(self):
        plan = FaultPlan(drop=1.0, only=Filter(sender="a1"))
        run = simulate(chatter, 1, faults=plan)
        senders = {event.facts["message"]: event.who for event in run.trace.events("sent")}
        assert {senders[number] for number, _ in struck(run, "drop")} == {"a1"}
        assert run.trace.count("dropped") == 50

    def test_only_by_type_spares_the_answers(self, make_world):
        world = make_world(faults=FaultPlan(drop=1.0, only=Filter(type=MessageType.PUBLISH)))
        world.spawn(Calculator("calc"))
        assert world.run(world.spawn(Agent("client")).request("calc", "add", a=1, b=1)) == 2.0

    def test_each_recipient_of_a_publication_is_struck_on_its_own(self):
        async def publications(world: World):
            people = [world.spawn(Recorder(f"a{i}")) for i in range(5)]
            for person in people:
                person.subscribe("t", person.on_message)
            for _ in range(40):
                await people[0].publish("t")
            await asyncio.sleep(1.0)

        run = simulate(publications, 1, faults=FaultPlan(drop=0.5))
        hit = struck(run, "drop")
        assert 40 < len(hit) < 120
        by_message = [{who for number, who in hit if number == message} for message in {number for number, _ in hit}]
        assert any(0 < len(who) < 4 for who in by_message)


class TestCoupling:
    """The same seed strikes the same messages; a higher rate strikes those of the lower rate, and more."""

    @pytest.mark.parametrize("fault", ["drop", "delay", "duplicate", "reorder"])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_higher_rate_strikes_a_superset(self, fault, seed):
        hits = [
            struck(simulate(chatter, seed, faults=FaultPlan(**{fault: rate})), fault)
            for rate in (0.05, 0.1, 0.3, 0.8, 1.0)
        ]
        assert all(lower < higher for lower, higher in itertools.pairwise(hits))

    def test_repeatable_and_different_between_seeds(self):
        plan = FaultPlan(drop=0.2)
        assert struck(simulate(chatter, 17, faults=plan), "drop") == struck(simulate(chatter, 17, faults=plan), "drop")
        assert struck(simulate(chatter, 17, faults=plan), "drop") != struck(simulate(chatter, 18, faults=plan), "drop")

    @pytest.mark.parametrize("seed", range(3))
    def test_more_drops_do_not_change_who_is_delayed(self, seed):
        """Of the messages that still arrive, the same ones are late, by as much: runs stay comparable in pairs."""

        def delays(drop):
            run = simulate(chatter, seed, faults=FaultPlan(drop=drop, delay=0.3))
            late = {
                e.facts["message"]: e.facts["detail"] for e in run.trace.events("fault") if e.facts["fault"] == "delay"
            }
            return late, {number for number, _ in struck(run, "drop")}

        few, _ = delays(0.05)
        many, dropped = delays(0.4)
        assert many == {number: seconds for number, seconds in few.items() if number not in dropped}

    def test_a_longer_delay_range_scales_the_same_draws(self):
        def details(delay):
            run = simulate(chatter, 1, faults=FaultPlan(delay=delay))
            return {e.facts["message"]: e.facts["detail"] for e in run.trace.events("fault")}

        few, many = details(0.2), details(0.6)
        assert all(many[number] == seconds for number, seconds in few.items())

    def test_an_appointment_does_not_move_the_draws(self):
        plain = struck(simulate(chatter, 1, faults=FaultPlan(drop=0.2)), "drop")
        extra = struck(
            simulate(chatter, 1, faults=FaultPlan(drop=0.2, appointments=[OnMessage("drop", nth=3)])), "drop"
        )
        assert plain <= extra and len(extra - plain) <= 1

    def test_one_pair_more_does_not_change_the_others(self):
        async def with_strangers(world: World):
            x, _ = world.spawn(Recorder("x")), world.spawn(Recorder("y"))
            talking = asyncio.ensure_future(_talk(x, "y"))
            try:
                return await chatter(world)
            finally:
                talking.cancel()

        async def _talk(x, y):
            while True:
                await x.tell(y, "t")
                await x.sleep(0.07)

        plain = simulate(chatter, 1, faults=FaultPlan(drop=0.2))
        crowded = simulate(with_strangers, 1, faults=FaultPlan(drop=0.2))
        assert plain.result == crowded.result

    def test_faults_do_not_change_what_agents_draw(self):
        async def draws(world: World):
            await chatter(world, 50)
            return [world.random(name).random() for name in ("a0", "a1", "anything")]

        assert simulate(draws, 1).result == simulate(draws, 1, faults=FaultPlan(drop=0.5, delay=0.5)).result


class TestAppointments:
    def test_drop_the_third_message_to_b(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[OnMessage("drop", nth=3, to="b")]))
        got, _ = tell_many(world)
        assert got == [0, 1, 3, 4]
        (fault,) = world.trace.events("fault")
        assert fault.who == "b" and fault.facts["fault"] == "drop" and fault.time == 2.0

    def test_delay_and_duplicate_exactly_one(self, make_world):
        plan = FaultPlan(appointments=[OnMessage("delay", nth=1, seconds=2.5), OnMessage("duplicate", nth=2)])
        got, times = tell_many(make_world(faults=plan))
        assert list(zip(got, times, strict=True)) == [(1, 1.0), (1, 1.0), (2, 2.0), (0, 2.5), (3, 3.0), (4, 4.0)]

    def test_names_and_topics_match_as_a_whole(self, make_world):
        plan = FaultPlan(
            appointments=[OnMessage("drop", topic="t"), OnMessage("drop", to="b1"), OnMessage("drop", sender="aa")]
        )
        got, _ = tell_many(make_world(faults=plan), topic="tt")
        assert got == [0, 1, 2, 3, 4]

    def test_globs(self, make_world):
        plan = FaultPlan(appointments=[OnMessage("drop", nth=2, topic="t*", sender="a", to="?")])
        assert tell_many(make_world(faults=plan), topic="tt")[0] == [0, 2, 3, 4]

    def test_every_appointment_counts_every_message(self, make_world):
        """The second message is the second, also where another appointment or a partition has taken the first."""
        drop_then_delay = [OnMessage("drop", nth=1, to="b"), OnMessage("delay", nth=2, to="b", seconds=0.5)]
        got, times = tell_many(make_world(faults=FaultPlan(appointments=drop_then_delay)))
        assert list(zip(got, times, strict=True)) == [(1, 1.5), (2, 2.0), (3, 3.0), (4, 4.0)]
        parted = [Partition(["a"], ["b"], end=0.5), OnMessage("drop", nth=2, to="b")]
        assert tell_many(make_world(faults=FaultPlan(appointments=parted)))[0] == [2, 3, 4]

    def test_a_partition_in_both_directions_for_a_while(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Partition(["a"], ["b"], start=1.0, end=3.0)]))
        a, b = world.spawn(Recorder("a")), world.spawn(Recorder("b"))

        async def scenario():
            for i in range(5):
                await a.tell("b", str(i))
                await b.tell("a", str(i))
                await a.sleep(1.0)

        world.run(scenario())
        assert a.topics == b.topics == ["0", "3", "4"]
        assert {event.facts["fault"] for event in world.trace.events("fault")} == {"partition"}
        assert world.trace.count("dropped") == 4

    def test_a_one_way_partition(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Partition(["a"], ["b"], one_way=True)]))
        a, b = world.spawn(Recorder("a")), world.spawn(Recorder("b"))

        async def scenario():
            await a.tell("b", "t")
            await b.tell("a", "t")
            await a.sleep(1.0)

        world.run(scenario())
        assert b.got == [] and a.topics == ["t"]

    def test_a_partition_does_not_touch_third_parties(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Partition(["a"], ["b"])]))
        a, c = world.spawn(Recorder("a")), world.spawn(Recorder("c"))
        world.run(a.tell("c", "t"))
        world.run(until=1.0)
        assert c.topics == ["t"]

    def test_a_partition_takes_replies_too(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Partition(["calc"], ["client"], one_way=True)]))
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestTimeout):
            world.run(client.request("calc", "add", a=1, b=1, timeout=2.0))

    def test_crash_for_good(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Crash("calc", at=2.0)]))
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(AgentCrashed):
                await client.request("calc", "wait", seconds=10.0)
            return world.now

        assert world.run(scenario()) == 2.0
        assert calc.state == "error"
        assert [(event.who, event.time) for event in world.trace.events("fault")] == [("calc", 2.0)]

    def test_crash_and_restart(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Crash("b", at=1.5, restart_after=2.0)]))
        got, times = tell_many(world)
        assert got == [0, 1, 2, 3, 4] and times == [0.0, 1.0, 3.5, 3.5, 4.0]
        (restarted,) = world.trace.events("restarted")
        assert restarted.time == 3.5

    def test_crash_is_supervised(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Crash("a", at=1.0)]))
        agent = world.spawn(Recorder("a"), restart="on_crash", backoff=0.5)
        world.run(until=5.0)
        assert agent.state == "idle" and world.trace.count("restarted", "a") == 1

    def test_pause(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Pause("b", at=0.5, seconds=2.0)]))
        got, times = tell_many(world)
        assert got == [0, 1, 2, 3, 4] and times == [0.0, 2.5, 2.5, 3.0, 4.0]
        assert [event.facts["fault"] for event in world.trace.events("fault")] == ["pause"]

    def test_slow_handler_for_a_while(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Slow("calc", seconds=5.0, start=1.0, end=10.0)]))
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        took = []

        async def scenario():
            for _ in range(4):
                began = world.now
                await client.request("calc", "add", a=1, b=1)
                took.append(world.now - began)
                await client.sleep(1.0)

        world.run(scenario())
        assert took == [0.5, 5.5, 5.5, 0.5]
        assert {event.facts["fault"] for event in world.trace.events("fault")} == {"slow"}

    def test_an_agent_that_is_not_there(self, make_world):
        world = make_world(
            faults=FaultPlan(appointments=[Crash("ghost", at=1.0), Pause("ghost", 1.0, 1.0), Slow("ghost", 1.0)])
        )
        world.run(until=5.0)
        faults = list(world.trace.events("fault"))
        assert len(faults) == 3 and all("nobody" in event.facts["detail"] for event in faults)

    def test_an_agent_that_comes_later_is_slow_too(self, make_world):
        """`Slow` from 0 to the end holds for whoever bears the name, whenever they are spawned."""
        world = make_world(faults=FaultPlan(appointments=[Slow("calc", seconds=5.0)]))

        async def scenario():
            await asyncio.sleep(1.0)
            world.spawn(Calculator("calc"))
            client = world.spawn(Agent("client"))
            await client.request("calc", "add", a=1, b=1)
            return world.now

        assert world.run(scenario()) == 6.5


class TestPlans:
    @pytest.mark.parametrize(
        "bad",
        [
            {"drop": -0.1}, {"drop": 1.1}, {"delay": float("nan")}, {"duplicate": 2}, {"reorder": -1},
            {"drop": "often"}, {"delay_range": (2.0, 1.0)}, {"delay_range": (-1.0, 1.0)}, {"delay_range": (1.0,)},
            {"reorder_window": -1.0},
            {"appointments": ["crash"]}, {"appointments": [None]},
        ],
        ids=str,
    )  # fmt: skip
    def test_bad_plans(self, bad):
        with pytest.raises(InvalidValue):
            FaultPlan(**bad)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: OnMessage("lose"),
            lambda: OnMessage("drop", nth=0),
            lambda: OnMessage("drop", nth=1.5),
            lambda: OnMessage("delay", seconds=-1.0),
            lambda: Partition(["a"], ["b"], start=2.0, end=1.0),
            lambda: Partition(["a"], ["b"], start=-1.0),
            lambda: Partition(["a"], 1.0, 20.0),
            lambda: Partition("a", ["b"]),
            lambda: Partition("ab", "cd"),
            lambda: Crash("a", at=-1.0),
            lambda: Crash("a", at=1.0, restart_after=-1.0),
            lambda: Pause("a", at=1.0, seconds=-1.0),
            lambda: Slow("a", seconds=float("nan")),
            lambda: Slow("a", 1.0, start=5.0, end=1.0),
        ],
    )
    def test_bad_appointments(self, make):
        with pytest.raises(InvalidValue):
            make()

    def test_plans_are_frozen_comparable_and_picklable(self):
        plan = FaultPlan(drop=0.1, appointments=[Crash("a", 1.0), Partition(["a"], ["b"])])
        with pytest.raises(AttributeError):
            plan.drop = 0.5
        assert pickle.loads(pickle.dumps(plan)) == plan == FaultPlan(drop=0.1, appointments=plan.appointments)

    def test_the_plan_is_part_of_the_run(self):
        plan = FaultPlan(drop=0.1)
        assert simulate(chatter, 1, faults=plan).faults == plan

    def test_a_list_changed_later_does_not_change_the_plan(self):
        appointments = [OnMessage("drop")]
        plan = FaultPlan(appointments=appointments)
        before = hash(repr(plan))
        appointments.append(OnMessage("drop", nth=2))
        assert hash(repr(plan)) == before

    @pytest.mark.parametrize("faults", [0.1, {"drop": 0.1}])
    def test_a_world_takes_plans_only(self, faults):
        with pytest.raises(InvalidValue, match="FaultPlan"):
            World(1, faults=faults)


class TestSlowWork:
    def test_a_request_cancelled_while_a_slow_agent_thinks(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Slow("calc", 5.0)]))
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(RequestTimeout):
                await client.request("calc", "add", a=1, b=2, timeout=2.0, on_timeout="cancel")
            await client.sleep(10.0)
            assert (calc.state, calc.load) == ("idle", 0.0)
            return await client.request("calc", "add", a=1, b=2, timeout=20.0)

        assert world.run(scenario()) == 3.0
        assert [event.time for event in world.trace.events("cancelled", "calc")] == [2.0]
        assert missing(world) == 0

    def test_a_stream_left_while_a_slow_agent_thinks(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Slow("calc", 5.0)]))
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(RequestTimeout):
                async for _ in client.stream("calc", "count", n=3, timeout=2.0):
                    pass
            await client.sleep(10.0)
            assert (calc.state, calc.load) == ("idle", 0.0)
            return await client.request("calc", "add", a=1, b=2, timeout=20.0)

        assert world.run(scenario()) == 3.0

    def test_a_tell_in_hand_of_a_slow_agent_that_stops(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Slow("b", 5.0)]))
        b, client = world.spawn(Recorder("b")), world.spawn(Agent("client"))
        world.run(client.tell("b", "t"))
        world.run(until=1.0)
        b.stop()
        world.run(until=10.0)
        assert b.got == [] and b.state == "offline"


def test_names_with_brackets_are_struck(make_world):
    world = make_world(faults=FaultPlan(appointments=[OnMessage("drop", to="agent[1]")]))
    struck_one, client = world.spawn(Recorder("agent[1]")), world.spawn(Agent("client"))
    world.run(client.tell("agent[1]", "t"))
    world.run(until=1.0)
    assert struck_one.got == [] and world.trace.count("dropped") == 1


def test_a_single_appointment_is_no_list():
    with pytest.raises(InvalidValue, match=r"give a list, such as \[Crash\(agent='a'"):
        FaultPlan(appointments=Crash("a", at=1.0))


@pytest.mark.parametrize("name", [Agent("calc"), ["calc", "ann"], None, ""])
def test_a_fault_for_what_is_no_name_is_refused_instead_of_never_striking(name):
    for fault in (
        lambda: Crash(name, at=1.0),
        lambda: Pause(name, at=1.0, seconds=1.0),
        lambda: Slow(name, 1.0),
        lambda: ModelFault("unavailable", agent=name),
        lambda: OnMessage("drop", to=name),
        lambda: OnMessage("drop", sender=name),
        lambda: OnMessage("drop", topic=name),
    ):
        with pytest.raises(InvalidValue, match="give one name"):
            fault()
