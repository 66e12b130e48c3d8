"""The bus: who gets what and when, what becomes of what cannot be delivered, and an accounting that always holds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from society import Calculator, Recorder, Slowpoke, gossip, missing

from masbook import Agent, FaultPlan, Filter, Message, MessageType, Run, World, capability, on, simulate
from masbook.errors import (
    AgentOffline,
    InvalidInput,
    InvalidName,
    InvalidValue,
    MailboxFull,
    MasbookError,
    Refused,
    RequestCycle,
    RequestTimeout,
    Stuck,
    UnknownCapability,
    UnknownRecipient,
)
from masbook.runtime.faults import Crash, OnMessage, Partition, Pause, Slow
from masbook.runtime.stream import WINDOW
from masbook.runtime.trace import Trace


def settle(world, coroutine, seconds=5.0):
    """Run the coroutine, then let the world go on for some virtual seconds."""
    result = world.run(coroutine)
    world.run(until=world.now + seconds)
    return result


class TestDirect:
    def test_only_the_addressee_gets_it(self, world):
        a, b = world.spawn(Recorder("agent1")), world.spawn(Recorder("agent10"))
        sender = world.spawn(Agent("sender"))
        settle(world, sender.tell("agent1", "hello", text="hi"))
        assert a.topics == ["hello"] and b.topics == []
        message = a.got[0]
        assert (message.sender, message.to, message.type) == ("sender", "agent1", MessageType.TELL)
        assert message.content == {"text": "hi"}

    def test_tell_does_not_wait_for_the_handler(self, world):
        world.spawn(Slowpoke("slow", 100.0))
        sender = world.spawn(Agent("sender"))
        world.run(sender.tell("slow", "t"))
        assert world.now == 0.0

    def test_messages_between_two_agents_keep_their_order(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            for i in range(100):
                await sender.tell("recorder", str(i))

        settle(world, scenario())
        assert recorder.topics == [str(i) for i in range(100)]

    def test_ids_count_up_and_are_unique(self, world):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await asyncio.gather(*(sender.tell("recorder", "t") for _ in range(1000)))

        settle(world, scenario())
        ids = [event.facts["message"] for event in world.trace.events("sent", who="sender")]
        assert ids == sorted(set(ids)) and len(ids) == 1000

    def test_an_agent_may_tell_itself(self, world):
        recorder = world.spawn(Recorder("recorder"))
        settle(world, recorder.tell("recorder", "self"))
        assert recorder.topics == ["self"]

    @pytest.mark.parametrize("verb", ["tell", "request"])
    def test_an_unknown_recipient_is_an_error_at_once(self, world, verb):
        sender = world.spawn(Agent("sender"))
        world.spawn(Agent("somebody"))
        with pytest.raises(UnknownRecipient, match="somebody"):
            world.run(getattr(sender, verb)("nobody", "ping"))
        assert world.now == 0.0
        (dead,) = world.bus.dead_letters
        assert dead.facts["reason"] == "unknown recipient"

    def test_an_unknown_stream_recipient_is_an_error_at_once(self, world):
        sender = world.spawn(Agent("sender"))

        async def scenario():
            async for _ in sender.stream("nobody", "count"):
                pass

        with pytest.raises(UnknownRecipient):
            world.run(scenario())
        assert world.now == 0.0

    def test_a_stopped_recipient_is_an_error_at_once(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))
        recorder.stop()
        with pytest.raises(AgentOffline, match="recorder"):
            world.run(sender.tell("recorder", "t"))
        with pytest.raises(AgentOffline):
            world.run(sender.request("recorder", "ping"))
        assert [event.facts["reason"] for event in world.bus.dead_letters] == ["offline", "offline"]

    def test_a_topic_nobody_handles_is_an_error_at_once(self, world):
        world.spawn(Calculator("calc"))
        sender = world.spawn(Agent("sender"))
        with pytest.raises(UnknownCapability, match="add"):
            world.run(sender.tell("calc", "subtract"))


class Weather(Agent):
    """Hears about the weather, each way it can be asked for."""

    def __init__(self, name):
        super().__init__(name)
        self.heard: dict[str, list] = {}

    def hear(self, method, message):
        self.heard.setdefault(method, []).append((message.topic, message.sender))

    @on("weather.rome")
    async def rome(self, message: Message) -> None:
        self.hear("rome", message)

    @on("weather.*")
    async def anywhere(self, message: Message) -> None:
        self.hear("anywhere", message)

    @on("weather.*", sender="station_1")
    async def from_one(self, message: Message) -> None:
        self.hear("from_one", message)

    @on("weather.*", content={"severe": True})
    async def severe(self, message: Message) -> None:
        self.hear("severe", message)

    @on("news", type=MessageType.BROADCAST)
    async def news(self, message: Message) -> None:
        self.hear("news", message)


class TestPublish:
    def test_subscribers_by_topic_glob_sender_and_content(self, world):
        weather = world.spawn(Weather("weather"))
        one, ten = world.spawn(Agent("station_1")), world.spawn(Agent("station_10"))

        async def scenario():
            await one.publish("weather.rome", degrees=21)
            await ten.publish("weather.oslo", degrees=-3, severe=True)
            await ten.publish("weather", degrees=0)
            await one.publish("my.weather.rome")

        settle(world, scenario())
        assert weather.heard == {
            "rome": [("weather.rome", "station_1")],
            "anywhere": [("weather.rome", "station_1"), ("weather.oslo", "station_10")],
            "from_one": [("weather.rome", "station_1")],
            "severe": [("weather.oslo", "station_10")],
        }

    def test_one_copy_per_subscriber_however_many_subscriptions(self, world):
        world.spawn(Weather("weather"))
        one = world.spawn(Agent("station_1"))
        settle(world, one.publish("weather.rome", severe=True))
        (sent,) = world.trace.events("sent", who="station_1")
        assert sent.facts["copies"] == 1
        assert world.trace.count("delivered", "weather") == 1

    def test_the_publisher_does_not_hear_itself(self, world):
        recorder = world.spawn(Recorder("recorder"))
        recorder.subscribe("t", recorder.on_message)
        settle(world, recorder.publish("t"))
        assert recorder.got == []

    def test_nobody_listens(self, world):
        sender = world.spawn(Agent("sender"))
        world.run(sender.publish("t"))
        (sent,) = world.trace.events("sent", who="sender")
        assert sent.facts["copies"] == 0

    def test_subscribe_and_unsubscribe_while_running(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.publish("a.1")
            recorder.subscribe("a.*", recorder.on_message)
            recorder.subscribe("b", recorder.on_message)
            await sender.publish("a.2")
            await sender.publish("b")
            await sender.sleep(1.0)
            recorder.unsubscribe("a.*")
            await sender.publish("a.3")
            await sender.publish("b")
            await sender.sleep(1.0)

        world.run(scenario())
        assert recorder.topics == ["a.2", "b", "b"]

    def test_subscription_filters_by_type(self, world):
        weather, sender = world.spawn(Weather("weather")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.publish("news")
            await sender.broadcast("news")

        settle(world, scenario())
        assert weather.heard == {"news": [("news", "sender")]}

    def test_to_listen_in_is_not_to_execute(self, world):
        """A subscription to the requests of others gets copies: it never answers or runs them."""

        class Auditor(Recorder):
            @capability
            async def add(self, a: float, b: float) -> float:
                raise AssertionError("the auditor was asked to work")

            @on("*", type=MessageType.REQUEST)
            async def audit(self, message: Message) -> None:
                self.got.append(message)

        auditor = world.spawn(Auditor("auditor"))
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        assert settle(world, client.request("calc", "add", a=2, b=3)) == 5.0
        assert auditor.topics == ["add"]
        assert calc.metrics["handled"] == 1
        assert world.trace.count("failed") == 0
        replies = [event for event in world.trace.events("sent") if event.facts["type"] == "reply"]
        assert [event.who for event in replies] == ["calc"]

    def test_delivery_order_is_that_of_subscription(self, world):
        order = []

        class Listener(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                order.append(self.name)

        names = ["zoe", "adam", "mia", "bob", "eve"]
        for name in names:
            world.spawn(Listener(name))
        settle(world, world.spawn(Agent("sender")).publish("t"))
        assert order == names


class TestBroadcast:
    def test_everybody_but_the_sender_and_the_furniture(self, world):
        recorders = [world.spawn(Recorder(f"r{i}")) for i in range(3)]
        stopped = world.spawn(Recorder("stopped"))
        stopped.stop()
        settle(world, recorders[0].broadcast("all", n=1))
        assert [recorder.topics for recorder in recorders] == [[], ["all"], ["all"]]
        assert stopped.got == []
        (sent,) = world.trace.events("sent", who="r0")
        assert sent.facts["copies"] == 2
        assert world.trace.count("delivered", "registry") == 0

    def test_system_messages(self, world):
        recorders = [world.spawn(Recorder(f"r{i}")) for i in range(2)]
        world.bus.inform(None, "shutdown", {"in": 5})
        world.bus.inform(recorders[1], "you", {})
        world.run(until=1.0)
        assert recorders[0].topics == ["shutdown"]
        assert recorders[1].topics == ["shutdown", "you"]
        assert {message.type for message in recorders[1].got} == {MessageType.SYSTEM}


class Careful(Calculator):
    """Answers only well-formed questions."""

    @capability
    async def nested(self, to: str, back: str) -> str:
        """Ask `to`, which asks `back`."""
        return await self.request(to, "relay", to=back, timeout=10.0)

    @capability
    async def relay(self, to: str) -> str:
        return await self.request(to, "ping" if to == "far" else "who", timeout=10.0)

    @capability
    async def who(self) -> str:
        return self.name

    @capability
    async def tell_back(self, to: str) -> None:
        await self.tell(to, "note_down", by=self.name)


class TestRequest:
    def test_reply(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("calc", "add", a=2, b=3)) == 5.0
        assert world.now == 0.5

    def test_replies_go_to_who_asked(self, world):
        world.spawn(Calculator("calc", concurrency=50))
        clients = [world.spawn(Agent(f"c{i}")) for i in range(50)]

        async def scenario():
            return await asyncio.gather(*(c.request("calc", "add", a=i, b=i) for i, c in enumerate(clients)))

        assert world.run(scenario()) == [2.0 * i for i in range(50)]

    def test_time_out_at_exactly_the_instant(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestTimeout, match="calc") as caught:
            world.run(client.request("calc", "wait", seconds=9.5, timeout=1.0))
        assert isinstance(caught.value, TimeoutError)
        assert world.now == 1.0
        (row,) = world.trace.events("timed_out")
        assert row.who == "client" and row.facts["to"] == "calc" and row.facts["seconds"] == 1.0

    def test_a_late_reply_is_recorded_and_wakes_nobody(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(RequestTimeout):
                await client.request("calc", "wait", seconds=3.0, timeout=1.0)
            return await client.request("calc", "add", a=1, b=1, timeout=10.0)  # waits its turn

        assert world.run(scenario()) == 2.0
        (dead,) = world.bus.dead_letters
        assert (dead.who, dead.facts["reason"], dead.time) == ("client", "late", 3.0)

    def test_a_request_that_expired_in_the_mailbox_is_never_run(self, world):
        """Whoever gave up is not charged: the callee does not begin what nobody waits for."""
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            client.background(client.request("calc", "wait", seconds=5.0))
            await client.sleep(0.0)
            with pytest.raises(RequestTimeout):
                await client.request("calc", "add", a=1, b=1, timeout=1.0)
            await client.sleep(10.0)

        world.run(scenario())
        assert calc.metrics["handled"] == 1
        assert [event.facts["reason"] for event in world.bus.dead_letters] == ["expired"]

    def test_on_timeout_cancel_stops_the_work(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(RequestTimeout):
                await client.request("calc", "wait", seconds=100.0, timeout=1.0, on_timeout="cancel")
            return await client.request("calc", "add", a=1, b=1)

        assert world.run(scenario()) == 2.0
        assert world.now == 1.5  # the callee was free at once
        assert world.trace.count("cancelled", "calc") == 1
        assert not [event for event in world.bus.dead_letters if event.facts["reason"] == "late"]

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"])
    def test_a_bad_time_out_is_refused_at_once(self, world, timeout):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(InvalidValue):
            world.run(client.request("calc", "add", a=1, b=1, timeout=timeout))
        assert world.trace.count("sent", "client") == 0

    def test_an_error_in_the_callee_is_raised_in_the_caller_with_its_name(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        with pytest.raises(ZeroDivisionError) as caught:
            world.run(client.request("calc", "divide", a=1, b=0))
        assert any("calc" in note and "divide" in note for note in caught.value.__notes__)
        assert calc.state == "idle"  # an error in an answer is no crash
        (failed,) = world.trace.events("failed")
        assert failed.who == "calc" and "ZeroDivisionError" in failed.facts["error"]
        (error,) = (event for event in world.trace.events("sent") if event.facts["type"] == "error")
        assert error.facts["content"]["error"] == "ZeroDivisionError"

    @pytest.mark.parametrize(
        ("inputs", "field"),
        [
            ({"a": 2}, "'b'"),
            ({"a": 2, "b": "three"}, "'b'"),
            ({"a": 2, "b": 3, "c": 4}, "'c'"),
            ({"a": None, "b": 1}, "'a'"),
        ],
    )
    def test_bad_input_is_answered_with_an_error_that_names_the_field(self, world, inputs, field):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        with pytest.raises(InvalidInput, match=field):
            world.run(client.request("calc", "add", **inputs))
        assert world.now == 0.0
        assert calc.state == "idle"
        assert world.run(client.request("calc", "add", a=2, b=3)) == 5.0

    def test_an_unknown_capability_lists_those_there_are(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(UnknownCapability, match="add, count"):
            world.run(client.request("calc", "subtract", a=1))
        assert world.now == 0.0

    def test_conversation_and_cause_are_followed(self, world):
        world.spawn(Careful("near"))
        world.spawn(Careful("far"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("near", "relay", to="far")) == "pong"
        sent = [event.facts for event in world.trace.events("sent")]
        first = sent[0]["message"]
        assert {facts["conversation"] for facts in sent} == {first}
        assert sent[1]["cause"] == first
        assert [facts["reply_to"] for facts in sent[2:]] == [sent[1]["message"], first]


class TestNested:
    def test_x_y_x_is_reported_at_once_as_a_cycle(self, world):
        world.spawn(Careful("x"))
        world.spawn(Careful("y"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestCycle, match="x -> y -> x"):
            world.run(client.request("x", "nested", to="y", back="x"))
        assert world.now == 0.0

    def test_x_y_x_is_served_with_concurrency(self, world):
        world.spawn(Careful("x", concurrency=2))
        world.spawn(Careful("y"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("x", "nested", to="y", back="x")) == "x"
        assert world.now == 0.0

    def test_a_request_to_oneself_is_a_cycle(self, world):
        world.spawn(Careful("x"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestCycle):
            world.run(client.request("x", "relay", to="x"))

    def test_a_cycle_within_a_task_group_is_seen_too(self, world):
        class Parallel(Careful):
            @capability
            async def both(self, to: str) -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.request(to, "relay", to=self.name))

        world.spawn(Parallel("x"))
        world.spawn(Careful("y"))
        client = world.spawn(Agent("client"))
        with pytest.raises(ExceptionGroup) as caught:
            world.run(client.request("x", "both", to="y"))
        assert caught.group_contains(RequestCycle)
        assert world.now == 0.0

    def test_queries_never_make_a_cycle(self, world):
        """`ping` is answered at once by a busy agent, so asking for it back is served."""

        class Pinger(Agent):
            @capability
            async def begin(self, to: str) -> str:
                return await self.request(to, "ping_back", to=self.name, timeout=5.0)

            @capability
            async def ping_back(self, to: str) -> str:
                return await self.request(to, "ping", timeout=5.0)

        world.spawn(Pinger("x"))
        world.spawn(Pinger("y"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("x", "begin", to="y")) == "pong"

    def test_answering_a_tell_with_a_request_is_no_cycle(self, world):
        """x tells y and is done; that y then asks x is no circle of waiting."""

        class Caller(Agent):
            @capability
            async def begin(self) -> None:
                await self.tell("y", "go")

            @capability
            async def who(self) -> str:
                return self.name

        class Callee(Agent):
            answer = ""

            @on("go")
            async def go(self, message: Message) -> None:
                self.answer = await self.request(message.sender, "who", timeout=5.0)

        world.spawn(Caller("x"))
        callee = world.spawn(Callee("y"))
        client = world.spawn(Agent("client"))
        settle(world, client.request("x", "begin"))
        assert callee.answer == "x"

    def test_two_chains_that_meet_are_reported_not_timed_out(self, world):
        """a asks b while b asks a, each from a handler of its own: a cycle too, and no time-out may hide it."""

        class Peer(Agent):
            @capability
            async def begin(self, to: str) -> str:
                await self.sleep(1.0)
                return await self.request(to, "who", timeout=30.0)

            @capability
            async def who(self) -> str:
                return self.name

        world.spawn(Peer("a"))
        world.spawn(Peer("b"))
        client = world.spawn(Agent("client"))

        async def scenario():
            return await asyncio.gather(
                client.request("a", "begin", to="b", timeout=60.0),
                client.request("b", "begin", to="a", timeout=60.0),
                return_exceptions=True,
            )

        outcomes = world.run(scenario())
        assert any(isinstance(outcome, RequestCycle) for outcome in outcomes), outcomes
        assert not any(isinstance(outcome, RequestTimeout) for outcome in outcomes)
        assert world.now == 1.0


class TestStream:
    def test_parts_arrive_as_they_are_made(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            return [(world.now, part) async for part in client.stream("calc", "count", n=3)]

        assert world.run(scenario()) == [(1.0, 0), (2.0, 1), (3.0, 2)]
        types = [str(event.facts["type"]) for event in world.trace.events("sent")]
        assert types == ["request", "part", "part", "part", "end"]

    def test_leaving_early_stops_the_producer(self, world):
        closed = []

        class Endless(Agent):
            @capability
            async def count(self):
                try:
                    i = 0
                    while True:
                        yield i
                        await self.sleep(1.0)
                        i += 1
                finally:
                    closed.append(self.now)

        endless, client = world.spawn(Endless("endless")), world.spawn(Agent("client"))

        async def scenario():
            got = []
            stream = client.stream("endless", "count")
            async for part in stream:
                got.append(part)
                if part == 2:
                    break
            await stream.aclose()
            await client.sleep(10.0)
            return got

        assert world.run(scenario()) == [0, 1, 2]
        assert closed == [2.0]
        assert endless.state == "idle"
        parts = [event for event in world.trace.events("sent") if event.facts["type"] == "part"]
        assert len(parts) == 3

    def test_a_cancelled_reader_stops_the_producer(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    async for _ in client.stream("calc", "count", n=100):
                        pass
            await client.sleep(1.0)
            return calc.state

        assert world.run(scenario()) == "idle"

    def test_an_error_in_the_middle_comes_after_the_parts(self, world):
        class Faulty(Agent):
            @capability
            async def parts(self):
                yield 1
                yield 2
                raise KeyError("three")

        world.spawn(Faulty("faulty"))
        client = world.spawn(Agent("client"))
        got = []

        async def scenario():
            async for part in client.stream("faulty", "parts"):
                got.append(part)

        with pytest.raises(KeyError, match="three"):
            world.run(scenario())
        assert got == [1, 2]
        assert world.trace.count("failed", "faulty") == 1
        assert world.run(client.request("faulty", "ping")) == "pong"

    def test_a_time_out_is_for_the_next_part(self, world):
        class Stalling(Agent):
            @capability
            async def count(self):
                for i in range(100):
                    await self.sleep(1.0 if i < 5 else 3.0)
                    yield i

        stalling, client = world.spawn(Stalling("stalling")), world.spawn(Agent("client"))
        got = []

        async def scenario():
            async for part in client.stream("stalling", "count", timeout=2.5):
                got.append(part)

        with pytest.raises(RequestTimeout):
            world.run(scenario())
        assert got == [0, 1, 2, 3, 4] and world.now == 7.5
        assert [event.time for event in world.trace.events("timed_out", "client")] == [7.5]
        world.run(until=10.0)
        assert stalling.state == "idle"

    def test_without_a_time_out_given_it_is_30_seconds_a_part(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        class Stalling(Agent):
            @capability
            async def count(self):
                await asyncio.get_running_loop().create_future()
                yield 1

        world.spawn(Stalling("stalling"))

        async def read(name, **inputs):
            return [part async for part in client.stream(name, "count", **inputs)]

        assert len(world.run(read("calc", n=100))) == 100  # 100 s in all, 1 s a part
        with pytest.raises(RequestTimeout):
            world.run(read("stalling"))
        assert world.now == 130.0

    def test_thinking_about_a_part_is_not_waiting_for_the_next(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            got = []
            async for part in client.stream("calc", "count", n=4, timeout=2.0):
                got.append(part)
                await client.sleep(10.0)
            return got

        assert world.run(scenario()) == [0, 1, 2, 3]

    def test_a_slow_reader_holds_the_producer_back(self, world):
        made = []

        class Eager(Agent):
            @capability
            async def count(self, n: int):
                for i in range(n):
                    made.append(i)
                    yield i

        world.spawn(Eager("eager"))
        client = world.spawn(Agent("client"))

        async def scenario():
            got, most_ahead = [], 0
            async for part in client.stream("eager", "count", n=200):
                await client.sleep(1.0)
                got.append(part)
                most_ahead = max(most_ahead, len(made) - len(got))
            return got, most_ahead

        got, most_ahead = world.run(scenario())
        assert got == list(range(200))
        assert most_ahead <= 32

    def test_the_crash_of_the_producer_ends_the_stream(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            async for part in client.stream("calc", "count", n=100):
                if part == 1:
                    calc.stop()

        with pytest.raises(AgentOffline):
            world.run(scenario())
        assert world.now == 2.0

    def test_a_stream_asked_for_as_a_request_is_an_error_at_once(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(Exception, match="stream") as caught:
            world.run(client.request("calc", "count", n=2, timeout=100.0))
        assert not isinstance(caught.value, RequestTimeout | Stuck)

    def test_a_request_asked_for_as_a_stream_is_an_error_at_once(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            return [part async for part in client.stream("calc", "add", a=1, b=2)]

        with pytest.raises(Exception, match="request") as caught:
            world.run(scenario())
        assert not isinstance(caught.value, RequestTimeout | Stuck | KeyError)

    @pytest.mark.parametrize("seed", range(5))
    def test_under_faults_a_stream_is_whole_and_in_order_or_an_error(self, seed):
        async def scenario(world: World):
            world.spawn(Calculator("calc"))
            client = world.spawn(Agent("client"))
            try:
                return [part async for part in client.stream("calc", "count", n=10, timeout=60.0)]
            except RequestTimeout:
                return "timed out"

        run = simulate(scenario, seed, faults=FaultPlan(drop=0.1, duplicate=0.2, delay=0.3, delay_range=(0.5, 5.0)))
        assert run.ok and run.result in (list(range(10)), "timed out")


class TestIsolation:
    def test_a_stuck_subscriber_costs_nobody_anything(self, world):
        class Stone(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                await asyncio.get_running_loop().create_future()

        world.spawn(Stone("stone", capacity=3))
        quick, sender = world.spawn(Recorder("quick")), world.spawn(Agent("sender"))
        quick.subscribe("t", quick.on_message)

        async def scenario():
            for _ in range(20):
                await sender.publish("t")
            return world.now

        assert settle(world, scenario()) == 0.0
        assert len(quick.got) == 20 and set(quick.times) == {0.0}

    def test_a_crashing_subscriber_costs_nobody_anything(self, world):
        class Fragile(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                raise ValueError("cannot hear")

        fragile = world.spawn(Fragile("fragile"))
        quick, sender = world.spawn(Recorder("quick")), world.spawn(Agent("sender"))
        quick.subscribe("t", quick.on_message)
        settle(world, sender.publish("t"))
        assert len(quick.got) == 1 and fragile.state == "error"
        (crashed,) = world.trace.events("crashed")
        assert crashed.facts == {"error": "ValueError", "message": "cannot hear"}

    def test_unsubscribing_during_a_publication_skips_nobody(self, world):
        order = []

        class Listener(Agent):
            @on("t")
            async def hear(self, message: Message) -> None:
                order.append(self.name)
                self.unsubscribe("t")

        for i in range(5):
            world.spawn(Listener(f"l{i}"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.publish("t")
            await sender.sleep(1.0)
            await sender.publish("t")

        settle(world, scenario())
        assert order == [f"l{i}" for i in range(5)]

    def test_a_message_in_the_mailbox_of_who_has_unsubscribed_meanwhile(self, world):
        """It was delivered in good faith: it is handled by nothing, and nothing breaks."""
        slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))
        slow.subscribe("t", slow.on_message)

        async def scenario():
            await sender.publish("t")
            await sender.publish("t")
            await sender.sleep(0.5)
            slow.unsubscribe("t")
            await sender.sleep(5.0)

        world.run(scenario())
        assert slow.state == "idle"


class TestTimeToLive:
    def test_expired_in_the_mailbox(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 2.0)), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "first")
            await sender.tell("slow", "short", ttl=1.0)
            await sender.tell("slow", "long", ttl=10.0)

        settle(world, scenario(), 20.0)
        assert slow.topics == ["first", "long"]
        (dead,) = world.bus.dead_letters
        assert dead.facts["reason"] == "expired"

    def test_expired_in_transit(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[OnMessage("delay", seconds=5.0)]))
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))
        settle(world, sender.tell("recorder", "t", ttl=1.0), 10.0)
        assert recorder.got == []
        assert [event.facts["reason"] for event in world.bus.dead_letters] == ["expired"]

    def test_publications_expire_too(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 2.0)), world.spawn(Agent("sender"))
        slow.subscribe("*", slow.on_message)

        async def scenario():
            await sender.publish("a")
            await sender.publish("b", ttl=1.0)

        settle(world, scenario())
        assert slow.topics == ["a"]

    @pytest.mark.parametrize("ttl", [0, -1.0, float("nan")])
    def test_a_bad_time_to_live_is_refused(self, world, ttl):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        with pytest.raises(InvalidValue):
            world.run(sender.tell("recorder", "t", ttl=ttl))


class TestRouting:
    def test_a_rule_adds_recipients(self, world):
        a, audit, sender = (world.spawn(Recorder(name)) for name in ("a", "audit", "sender"))
        world.bus.route(lambda message: "audit" if message.content.get("amount", 0) > 100 else None)

        async def scenario():
            await sender.tell("a", "order", amount=50)
            await sender.tell("a", "order", amount=500)

        settle(world, scenario())
        assert len(a.got) == 2
        assert [message.content["amount"] for message in audit.got] == [500]

    def test_a_rule_gives_meaning_to_a_name_nobody_has(self, world):
        workers = [world.spawn(Recorder(f"w{i}")) for i in range(2)]
        sender = world.spawn(Agent("sender"))
        turn = iter(range(100))
        world.bus.route(lambda message: f"w{next(turn) % 2}" if message.to == "pool" else None)

        async def scenario():
            for _ in range(4):
                await sender.tell("pool", "job")

        settle(world, scenario())
        assert [len(worker.got) for worker in workers] == [2, 2]

    def test_a_routed_request_is_answered(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        world.bus.route(lambda message: "calc" if message.to == "math" else None)
        assert world.run(client.request("math", "add", a=1, b=2)) == 3.0

    def test_routing_a_publication(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.bus.route(lambda message: ["a"] if message.topic.startswith("alert") else [])
        settle(world, sender.publish("alert.fire"))
        assert a.topics == ["alert.fire"]

    def test_a_rule_that_names_nobody_real_is_an_error(self, world):
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))
        world.bus.route(lambda message: "ghost")
        with pytest.raises(UnknownRecipient, match="ghost"):
            world.run(sender.tell("a", "t"))


class TestInterceptors:
    def test_alter(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: message.replace(content={**message.content, "stamp": 1}))
        settle(world, sender.tell("a", "t", text="x"))
        assert a.got[0].content == {"text": "x", "stamp": 1}
        (sent,) = world.trace.events("sent", who="sender")
        assert sent.facts["content"] == {"text": "x", "stamp": 1}

    def test_drop(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: None if message.topic == "spam" else message)

        async def scenario():
            await sender.tell("a", "spam")
            await sender.tell("a", "ham")

        settle(world, scenario())
        assert a.topics == ["ham"]
        (dropped,) = world.trace.events("dropped")
        assert dropped.who == "a" and dropped.facts["reason"] == "interceptor"

    def test_delay(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: message.replace(delay=2.5) if message.topic == "slow" else message)

        async def scenario():
            await sender.tell("a", "slow")
            await sender.tell("a", "fast")
            assert world.bus.in_flight == 2
            await sender.sleep(1.0)
            assert world.bus.in_flight == 1

        settle(world, scenario())
        assert list(zip(a.topics, a.times, strict=True)) == [("fast", 0.0), ("slow", 2.5)]
        (delayed,) = world.trace.events("delayed")
        assert delayed.facts["seconds"] == 2.5

    def test_in_the_order_in_which_they_were_added(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: message.replace(content={"by": "first"}))
        world.bus.intercept(lambda message: message.replace(content={"by": message.content["by"] + ", second"}))
        settle(world, sender.tell("a", "t"))
        assert a.got[0].content == {"by": "first, second"}

    def test_a_dropped_publication_and_broadcast_reach_nobody(self, world):
        a, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        a.subscribe("t", a.on_message)
        world.bus.intercept(lambda message: None)

        async def scenario():
            await sender.publish("t")
            await sender.broadcast("t")

        settle(world, scenario())
        assert a.got == []
        assert world.trace.count("dropped", "a") == 2

    def test_a_dropped_request_times_out(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        world.bus.intercept(lambda message: None if message.type is MessageType.REQUEST else message)
        with pytest.raises(RequestTimeout):
            world.run(client.request("calc", "add", a=1, b=1, timeout=3.0))

    def test_a_dropped_reply_times_out(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        world.bus.intercept(lambda message: None if message.type is MessageType.REPLY else message)
        with pytest.raises(RequestTimeout):
            world.run(client.request("calc", "add", a=1, b=1, timeout=3.0))

    def test_what_cannot_be_recorded_is_refused(self, world):
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: message.replace(content={"bad": {1, 2}}))
        with pytest.raises(InvalidValue, match="bad"):
            world.run(sender.tell("a", "t"))

    @pytest.mark.parametrize("delay", [-1.0, float("nan")])
    def test_a_bad_delay_is_refused(self, world, delay):
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))
        world.bus.intercept(lambda message: message.replace(delay=delay))
        with pytest.raises(InvalidValue, match="delay"):
            world.run(sender.tell("a", "t"))


class TestHistoryAndMetrics:
    def test_history_is_the_last_messages(self, world):
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for i in range(10):
                await sender.tell("a", str(i))

        settle(world, scenario())
        assert [event.facts["topic"] for event in world.bus.history(3)] == ["7", "8", "9"]
        assert len(world.bus.history()) == 10
        assert world.bus.history(0) == []

    def test_history_is_bounded_by_the_ring(self, make_world):
        world = make_world(trace=Trace.ring(100))
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for i in range(5000):
                await sender.tell("a", str(i))
                await sender.sleep(0.0)

        settle(world, scenario())
        assert len(world.trace.rows) < 6000 < 15_000 <= len(world.trace)
        assert world.bus.history(1)[0].facts["topic"] == "4999"
        assert world.bus.metrics()["messages"] == 5000
        assert world.bus.accounting()["missing"] == 0

    def test_metrics_are_those_of_the_trace(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            await client.request("calc", "add", a=1, b=1)
            with pytest.raises(ZeroDivisionError):
                await client.request("calc", "divide", a=1, b=0)
            with pytest.raises(RequestTimeout):
                await client.request("calc", "wait", seconds=5, timeout=1.0)
            with pytest.raises(UnknownRecipient):
                await client.tell("nobody", "t")
            await client.sleep(10.0)

        world.run(scenario())
        metrics = world.bus.metrics()
        assert metrics["messages"] == sum(1 for _ in world.trace.events("sent")) == 7
        assert metrics["handled"] == 2 and metrics["failed"] == 1 and metrics["timed_out"] == 1
        assert metrics["dead"] == len(world.bus.dead_letters) == 2
        assert metrics["in_flight"] == 0


def rates():
    return st.floats(0.0, 0.5)


def appointments():
    who, when = st.sampled_from(["a", "b", "c"]), st.floats(0.0, 6.0)
    return st.lists(
        st.one_of(
            st.builds(OnMessage, st.sampled_from(["drop", "delay", "duplicate"]), st.integers(1, 5), who),
            st.builds(Partition, st.just(("a",)), st.just(("b", "c")), st.just(1.0), st.just(3.0), st.booleans()),
            st.builds(Crash, who, when, st.one_of(st.none(), st.floats(0.0, 2.0))),
            st.builds(Pause, who, when, st.floats(0.0, 2.0)),
            st.builds(Slow, who, st.floats(0.0, 1.0), when),
        ),
        max_size=4,
    )


plans = st.builds(FaultPlan, rates(), rates(), rates(), rates(), appointments=appointments())


class Member(Agent):
    """Takes its time, answers, publishes, and crashes now and then."""

    @on("chat.*")
    async def chat(self, message: Message) -> None:
        await self.sleep(0.3)

    @capability
    async def work(self, seconds: float) -> float:
        await self.sleep(seconds)
        return seconds

    @capability
    async def count(self, n: int):
        for i in range(n):
            yield i
            await self.sleep(0.2)

    @on("boom")
    async def boom(self, message: Message) -> None:
        raise ValueError("boom")


verbs = st.sampled_from(["tell", "publish", "broadcast", "request", "hasty", "stream", "boom", "stop"])
acts = st.lists(st.tuples(st.floats(0.0, 1.0), verbs, st.sampled_from(["a", "b", "c"])), max_size=12)


@dataclasses.dataclass
class Society:
    """A random small society: what its three members do, and how their mailboxes behave."""

    acts: list
    policy: str
    capacity: int
    concurrency: int
    restart: str

    def people(self, world: World) -> Agent:
        options = {"policy": self.policy, "capacity": self.capacity, "concurrency": self.concurrency}
        for name in "abc":
            world.spawn(Member(name, **options), restart=self.restart, backoff=0.25)
        return world.spawn(Agent("driver"))

    async def act(self, world: World, driver: Agent, verb: str, to: str) -> None:
        if verb == "tell":
            await driver.tell(to, "chat.direct", ttl=2.0)
        elif verb in ("publish", "broadcast"):
            await getattr(driver, verb)("chat.all")
        elif verb == "request":
            await driver.request(to, "work", seconds=0.4, timeout=3.0)
        elif verb == "hasty":
            await driver.request(to, "work", seconds=1.0, timeout=0.2, on_timeout="cancel")
        elif verb == "stream":
            async for part in driver.stream(to, "count", n=4, timeout=5.0):
                if part == 2:
                    break
        elif verb == "boom":
            await driver.tell(to, "boom")
        else:
            world.agents[to].stop()

    async def scenario(self, world: World) -> None:
        driver = self.people(world)

        async def attempt(verb, to):
            try:
                await self.act(world, driver, verb, to)
            except Exception:
                world.bus.accounting()  # what fails, fails; only the accounting matters here

        async with asyncio.TaskGroup() as group:
            for pause, verb, to in self.acts:
                await driver.sleep(pause)
                group.create_task(attempt(verb, to))
        await driver.sleep(10.0)


societies = st.builds(
    Society,
    acts,
    st.sampled_from(["block", "reject", "drop_oldest"]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.sampled_from(["never", "on_crash", "always"]),
)


class TestAccounting:
    """sent + duplicated = delivered + dropped + dead-lettered + in flight, at every step."""

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(societies, plans, st.integers(0, 1000), st.sampled_from(["fifo", "shuffled"]))
    def test_holds_under_faults_at_every_step(self, society, plan, seed, schedule):
        unexplained = []

        async def watched(world: World) -> None:
            # between handlers is where the books must balance: look whenever the loop comes round, and at every 0.05 s
            async def look():
                while True:
                    if missing(world):
                        unexplained.append((world.now, world.bus.accounting()))
                    await asyncio.sleep(0.05)

            looking = asyncio.ensure_future(look())
            await society.scenario(world)
            looking.cancel()
            world.trace.record("note", "test", text="end", data=world.bus.accounting())

        run = simulate(watched, seed, faults=plan, schedule=schedule)
        assert run.ok, run.error
        assert unexplained == []
        (end,) = run.trace.events("note")
        assert end.facts["data"]["missing"] == 0

    @settings(max_examples=25, deadline=None)
    @given(societies, plans, st.integers(0, 1000))
    def test_holds_after_every_single_step(self, society, plan, seed):
        with World(seed, faults=plan) as world:
            driver = society.people(world)

            async def attempt(pause, verb, to):
                await driver.sleep(pause)
                await society.act(world, driver, verb, to)

            for pause, verb, to in society.acts[:6]:
                driver.background(attempt(pause, verb, to))
            for _ in range(120):
                if not world.step():
                    break
                assert missing(world) == 0, world.bus.accounting()

    def test_a_message_that_vanishes_is_caught(self, make_world):
        """Plant a violation: take a message out of a mailbox behind the bus's back."""
        world = World(7)
        slow, sender = world.spawn(Slowpoke("slow", 10.0)), world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(3):
                await sender.tell("slow", "t")
            await sender.sleep(1.0)

        world.run(scenario())
        assert world.bus.accounting()["missing"] == 0
        slow.mailbox.take()
        assert world.bus.accounting()["missing"] == 1
        world.close()

    def test_a_message_that_is_invented_is_caught(self):
        world = World(7)
        slow, sender = world.spawn(Slowpoke("slow", 10.0)), world.spawn(Agent("sender"))
        world.run(sender.tell("slow", "t"))
        world.run(until=1.0)
        slow.mailbox.put(_forged(world))
        assert world.bus.accounting()["missing"] == -1
        world.close()

    def test_a_delivery_nobody_made_is_caught(self, world):
        world.spawn(Recorder("a"))
        sender = world.spawn(Agent("sender"))
        settle(world, sender.tell("a", "t"))
        before = world.bus.accounting()
        assert before["missing"] == 0
        world.trace.record("delivered", "a", message=99)
        assert world.bus.accounting()["missing"] == -1
        world.trace.record("duplicated", "a", message=99, reason="to settle the books of this test")

    def test_holds_while_an_agent_is_paused_with_a_message_in_hand(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            recorder.suspend(5.0)
            await sender.tell("recorder", "t")
            await sender.sleep(1.0)
            return world.bus.accounting()

        book = world.run(scenario())
        assert book["missing"] == 0 and book["in_flight"] == 1

    @pytest.mark.parametrize("end", ["stop", "crash"])
    def test_holds_when_a_paused_agent_ends(self, world, end):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            recorder.suspend(5.0)
            await sender.tell("recorder", "t")
            await sender.sleep(1.0)
            recorder.stop() if end == "stop" else recorder.crash(ValueError("x"))
            await sender.sleep(10.0)
            return world.bus.accounting()

        book = world.run(scenario())
        assert book["missing"] == 0 and book["dead"] == 1

    def test_holds_while_a_slow_agent_thinks(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[Slow("recorder", 5.0)]))
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("recorder", "t")
            await sender.sleep(1.0)
            first = world.bus.accounting()
            world.agents["recorder"].crash(ValueError("x"))
            await sender.sleep(10.0)
            return first["missing"], world.bus.accounting()["missing"]

        assert world.run(scenario()) == (0, 0)

    def test_dead_letters_give_every_reason(self, world):
        reasons = set()
        slow = world.spawn(Slowpoke("slow", 2.0, capacity=1, policy="drop_oldest"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            await sender.tell("slow", "dropped")
            await sender.tell("slow", "expired", ttl=0.5)
            await sender.sleep(3.0)
            for topic in ("in hand", "waiting"):
                await sender.tell("slow", topic)
                await sender.sleep(0.1)
            slow.stop()
            with pytest.raises(AgentOffline):
                await sender.tell("slow", "offline")
            with pytest.raises(UnknownRecipient):
                await sender.tell("nobody", "t")

        world.run(scenario())
        reasons = [event.facts["reason"] for event in world.bus.dead_letters]
        assert reasons == ["dropped for a newer message", "expired", "stopped", "offline", "unknown recipient"]


def _forged(world: World) -> Message:
    (message,) = (row for row in world.trace.rows if isinstance(row, Message))
    return message


def test_runs_of_random_societies_are_repeatable():
    society = Society(
        [(0.3, verb, to) for verb in ("tell", "request", "stream", "boom") for to in "abc"], "block", 2, 1, "on_crash"
    )

    def run() -> Run:
        return simulate(society.scenario, 5, faults=FaultPlan(drop=0.2, delay=0.3, duplicate=0.2), schedule="shuffled")

    first, second = run(), run()
    assert first.digest == second.digest
    assert first.trace.first_difference(second.trace) is None


def test_filters_have_a_readable_place_in_the_trace(world):
    recorder = world.spawn(Recorder("recorder"))
    recorder.subscribe("t", recorder.on_message, sender="ann", content={"x": 1})
    (row,) = world.trace.events("subscribed", who="recorder")
    assert row.facts["topic"] == "t" and "ann" in row.facts["filter"]
    assert repr(Filter(sender="ann")) == repr(Filter(sender="ann"))


class Parts(Agent):
    """Streams numbers as fast as the reader takes them."""

    pause_between = 0.0

    @capability
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            if self.pause_between:
                await self.sleep(self.pause_between)
            yield i

    @capability
    async def other(self) -> int:
        return 7


class TestListeningIn:
    """Whoever listens in on messages between others changes nothing for them."""

    @pytest.fixture
    def tapped(self, make_world):
        """Return a world in which a spy listens to one type of message, or to none."""

        def make(type, spy="spy", **options):
            world = make_world(patience=2, **options)
            spy = world.spawn(Recorder(spy) if isinstance(spy, str) else spy)
            if type is not None:
                spy.subscribe("*", spy.on_message, type=type)
            return world, spy, world.spawn(Agent("client"))

        return make

    @pytest.mark.parametrize("type", [MessageType.REQUEST, MessageType.REPLY], ids=str)
    def test_a_request_is_answered(self, tapped, type):
        world, spy, client = tapped(type)
        world.spawn(Calculator("calc"))
        assert settle(world, client.request("calc", "add", a=1, b=2, timeout=5.0)) == 3.0
        assert [message.type for message in spy.got] == [type]
        assert world.trace.count("timed_out") == 0

    @pytest.mark.parametrize("type", [MessageType.REQUEST, MessageType.PART, MessageType.END], ids=str)
    def test_a_stream_is_whole(self, tapped, type):
        world, spy, client = tapped(type)
        world.spawn(Parts("parts"))

        async def read():
            return [part async for part in client.stream("parts", "count", n=20, timeout=5.0)]

        assert settle(world, read()) == list(range(20))
        assert len(spy.got) == (20 if type is MessageType.PART else 1)

    def test_an_error_is_raised_in_who_asked(self, tapped):
        world, spy, client = tapped(MessageType.ERROR)
        world.spawn(Calculator("calc"))
        with pytest.raises(ZeroDivisionError):
            world.run(client.request("calc", "divide", a=1, b=0, timeout=5.0))
        world.run(until=1.0)
        assert len(spy.got) == 1

    def test_a_busy_agent_still_answers_queries(self, tapped):
        world, _, client = tapped(MessageType.REQUEST)
        world.spawn(Calculator("calc"))

        async def scenario():
            working = asyncio.ensure_future(client.request("calc", "wait", seconds=100.0, timeout=None))
            await client.sleep(1.0)
            answer = await client.request("calc", "ping", timeout=5.0)
            working.cancel()
            return answer, client.now

        assert world.run(scenario()) == ("pong", 1.0)

    def test_an_offline_recipient_is_an_error_at_once(self, tapped):
        world, _, client = tapped(MessageType.TELL)
        world.spawn(Agent("gone")).stop()
        with pytest.raises(AgentOffline):
            world.run(client.tell("gone", "t"))

    def test_a_full_mailbox_refuses(self, tapped):
        world, spy, client = tapped(MessageType.TELL)
        full = world.spawn(Recorder("full", capacity=2, policy="reject"))
        full.suspend(10.0)

        async def scenario():
            with pytest.raises(MailboxFull):
                for _ in range(5):
                    await client.tell("full", "t")

        settle(world, scenario())
        assert len(full.mailbox) <= 3 and len(spy.got) == len(full.mailbox) + 1

    def test_a_full_mailbox_makes_the_sender_wait(self, tapped):
        world, _, client = tapped(MessageType.TELL)
        full = world.spawn(Recorder("full", capacity=2))
        full.suspend(10.0)

        async def scenario():
            for _ in range(20):
                await client.tell("full", "t")
            return client.now

        assert world.run(scenario()) >= 10.0

    def test_a_stuck_or_stopped_listener_costs_nobody_anything(self, tapped):
        world, spy, client = tapped(MessageType.TELL, Slowpoke("spy", 1e6, capacity=1, policy="reject"))
        other = world.spawn(Recorder("other"))

        async def scenario():
            for i in range(10):
                await client.tell("other", str(i))
            spy.stop()
            await client.tell("other", "last")
            return client.now

        assert settle(world, scenario()) == 0.0
        assert len(other.got) == 11


class TestAPlanWithoutFaults:
    """A plan that strikes nothing changes nothing: errors and back-pressure reach the sender."""

    def test_the_run_is_the_same(self):
        assert simulate(gossip, 7, faults=FaultPlan()).digest == simulate(gossip, 7).digest

    def test_an_offline_recipient_is_an_error_at_once(self, make_world):
        world = make_world(faults=FaultPlan())
        client = world.spawn(Agent("client"))
        world.spawn(Agent("gone")).stop()
        with pytest.raises(AgentOffline):
            world.run(client.tell("gone", "t"))
        with pytest.raises(AgentOffline):
            world.run(client.request("gone", "ping"))
        assert world.now == 0.0

    @pytest.mark.parametrize("policy", ["block", "reject", "drop_oldest"])
    def test_mailboxes_are_bounded(self, make_world, policy):
        world = make_world(faults=FaultPlan(), patience=2)
        full, client = world.spawn(Agent("full", capacity=2, policy=policy)), world.spawn(Agent("client"))
        full.suspend(10.0)

        async def flood():
            for i in range(100):
                await client.tell("full", "t", i=i)

        flooding = client.background(flood()) if policy != "reject" else None
        if flooding is None:
            with pytest.raises(MailboxFull):
                world.run(flood())
        else:
            world.run(until=1.0)
        assert len(full.mailbox) <= 3


class TestReaddressing:
    def test_an_interceptor_may_choose_another_recipient(self, world):
        first, second = world.spawn(Calculator("first")), world.spawn(Calculator("second"))
        client = world.spawn(Agent("client"))
        world.bus.intercept(lambda message: message.replace(to="second") if message.to == "first" else message)
        assert world.run(client.request("first", "add", a=1, b=2, timeout=5.0)) == 3.0
        assert (first.metrics["handled"], second.metrics["handled"]) == (0, 1)
        [sent] = [event for event in world.trace.events("sent") if event.facts["type"] == "request"]
        assert sent.facts["to"] == "second"

    def test_a_message_to_nobody_may_be_given_a_recipient(self, world):
        second, client = world.spawn(Recorder("second")), world.spawn(Agent("client"))
        world.bus.intercept(lambda message: message.replace(to="second"))
        settle(world, client.tell("nobody", "t"))
        assert second.topics == ["t"]

    def test_an_unknown_recipient_is_an_error(self, world):
        world.spawn(Recorder("first"))
        client = world.spawn(Agent("client"))
        world.bus.intercept(lambda message: message.replace(to="nobody"))
        with pytest.raises(UnknownRecipient, match="nobody"):
            world.run(client.tell("first", "t"))


class TestTheInstantOfTheTimeOut:
    @pytest.mark.parametrize("seed", range(20))
    def test_a_request_is_answered_or_timed_out_never_both(self, seed):
        async def scenario(world):
            world.bus.intercept(lambda message: message.replace(delay=0.5))
            world.spawn(Parts("parts"))
            return await world.spawn(Agent("client")).request("parts", "other", timeout=1.0)

        run = simulate(scenario, seed, schedule="shuffled")
        assert run.trace.count("timed_out") == (0 if run.ok else 1)
        assert run.ok or isinstance(run.error, RequestTimeout)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_part_that_arrives_in_that_instant_is_not_followed_by_a_time_out_of_its_own(self, seed):
        async def scenario(world):
            parts, client = world.spawn(Parts("parts")), world.spawn(Agent("client"))
            parts.pause_between = 1.0
            return [part async for part in client.stream("parts", "count", n=3, timeout=1.0)]

        run = simulate(scenario, seed, schedule="shuffled")
        assert run.trace.count("timed_out") == (0 if run.ok else 1)
        assert run.result == [0, 1, 2] if run.ok else isinstance(run.error, RequestTimeout)


class TestStreamsAreBounded:
    def test_a_doubled_request_leaves_nobody_waiting(self, make_world):
        world = make_world(faults=FaultPlan(appointments=[OnMessage("duplicate", to="parts", topic="count")]))
        parts, client = world.spawn(Parts("parts", concurrency=2)), world.spawn(Agent("client"))

        async def read():
            got = []
            async for part in client.stream("parts", "count", n=60):
                got.append(part)
                await client.sleep(0.1)
            await client.sleep(5.0)
            return got

        assert world.run(read()) == list(range(60))
        assert (parts.state, parts.load) == ("idle", 0.0)

    def test_parts_on_their_way_count_as_parts_ahead(self, make_world):
        world = make_world(faults=FaultPlan(delay=1.0), patience=2)
        world.spawn(Parts("parts"))
        client = world.spawn(Agent("client"))

        async def read():
            got = []
            async for part in client.stream("parts", "count", n=3000):
                got.append(part)
                if len(got) == 5:
                    return got

        assert settle(world, read()) == [0, 1, 2, 3, 4]
        made = [event for event in world.trace.events("sent") if event.facts["type"] == "part"]
        assert len(made) <= 5 + 2 * WINDOW

    def reader(self, n):
        class Reader(Agent):
            @capability
            async def read(self) -> int:
                total = 0
                async for _ in self.stream("parts", "count", n=n):
                    total += await self.request("parts", "other")
                return total

        return Reader("reader")

    def test_asking_a_producer_that_waits_for_its_reader_is_a_cycle(self, world):
        world.spawn(Parts("parts"))
        world.spawn(self.reader(40))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestCycle, match="parts -> reader"):
            world.run(client.request("reader", "read", timeout=500.0))
        assert world.now == 0.0

    def test_asking_a_producer_that_is_done_is_none(self, world):
        world.spawn(Parts("parts"))
        world.spawn(self.reader(3))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("reader", "read", timeout=500.0)) == 21

    def test_nor_is_asking_one_with_another_hand_free(self, world):
        world.spawn(Parts("parts", concurrency=2))
        world.spawn(self.reader(40))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("reader", "read", timeout=500.0)) == 280


class TestFalseCycles:
    def test_a_request_that_outlives_its_handler_makes_no_cycle(self, world):
        class Starter(Agent):
            @capability
            async def kick(self) -> None:
                self.side = asyncio.ensure_future(self.request("worker", "work", timeout=100.0))
                await self.sleep(0.1)

            @capability
            async def small(self) -> int:
                return 1

        class Worker(Agent):
            @capability
            async def work(self) -> int:
                await self.sleep(5.0)
                return await self.request("starter", "small")

        starter, client = world.spawn(Starter("starter")), world.spawn(Agent("client"))
        world.spawn(Worker("worker"))

        async def scenario():
            await client.request("starter", "kick")
            return await starter.side

        assert world.run(scenario()) == 1


class TestRefusedByASeam:
    """A check or interceptor that says no, or says nonsense, harms no more than the message it saw."""

    def test_an_error_answer_that_is_refused_leaves_no_agent_half_stopped(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        def no_errors(message):
            if message.type is MessageType.ERROR:
                raise Refused("no errors")

        world.bus.check(no_errors)

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "wait", seconds=100.0, timeout=5.0))
            await client.sleep(1.0)
            calc.stop()
            with pytest.raises((MasbookError, TimeoutError)):
                await asking

        world.run(scenario())
        assert (calc.state, calc.online) == ("offline", False)
        with pytest.raises(AgentOffline):
            world.run(client.tell("calc", "wait", seconds=1.0))

    @pytest.mark.parametrize("value", [True, "yes", 7, {}], ids=str)
    def test_an_interceptor_that_returns_no_message(self, world, value):
        recorder, client = world.spawn(Recorder("recorder")), world.spawn(Agent("client"))
        world.bus.intercept(lambda message: value)
        with pytest.raises(InvalidValue, match="interceptor"):
            world.run(client.tell("recorder", "t"))
        world.run(until=1.0)
        assert recorder.got == [] and recorder.state == "idle"

    def test_an_interceptor_that_empties_answers(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        world.bus.intercept(
            lambda message: message.replace(content={}) if message.type is MessageType.REPLY else message
        )

        async def scenario():
            with contextlib.suppress(MasbookError, TimeoutError):
                await client.request("calc", "add", a=1, b=2, timeout=5.0)
            await client.sleep(1.0)

        world.run(scenario())
        assert calc.state == "idle" and world.trace.count("crashed") == 0

    @pytest.mark.parametrize("timeout", [-1, 0, math.nan, "soon"], ids=str)
    def test_a_bad_time_out_is_named_as_the_caller_wrote_it(self, world, timeout):
        world.spawn(Agent("a"))
        client = world.spawn(Agent("client"))
        with pytest.raises(InvalidValue, match="timeout"):
            world.run(client.request("a", "ping", timeout=timeout))


@pytest.mark.parametrize("to", [lambda agent: agent, lambda agent: [agent.name]], ids=["the agent itself", "a list"])
@pytest.mark.parametrize("way", ["tell", "request", "stream"])
def test_a_recipient_that_is_no_name_is_refused_and_leaves_a_trace_that_can_be_written(way, to):
    async def scenario(world: World):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        if way == "stream":
            async for _ in client.stream(to(calc), "add", a=1, b=2):
                pass
        else:
            await getattr(client, way)(to(calc), "add", a=1, b=2)

    run = simulate(scenario)
    assert isinstance(run.error, InvalidName) and "give" in str(run.error) and "calc" in str(run.error)
    assert run.digest and run.trace.count("sent") == 0
