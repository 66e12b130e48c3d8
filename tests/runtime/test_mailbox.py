"""Mailboxes: order of priority then arrival, bounds, and the three policies."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from society import Recorder, Slowpoke, missing

from masbook import Agent, World, capability, simulate
from masbook.errors import AgentOffline, InvalidValue, MailboxFull, RequestTimeout, Stuck, Undeliverable


class Worker(Slowpoke):
    @capability
    async def work(self) -> None:
        await self.sleep(1.0)


class TestOrder:
    def test_priority_then_arrival(self, world):
        slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "first")
            await sender.sleep(0.5)  # it is at work: the rest waits
            for topic, priority in [("a", 0), ("b", 5), ("c", -1), ("d", 0), ("e", 5), ("f", 10), ("g", -1)]:
                await sender.tell("slow", topic, priority=priority)
            await sender.sleep(20.0)

        world.run(scenario())
        assert slow.topics == ["first", "f", "b", "e", "a", "d", "c", "g"]

    def test_publications_have_priorities_too(self, world):
        slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))
        slow.subscribe("*", slow.on_message)

        async def scenario():
            await sender.publish("first")
            await sender.sleep(0.5)
            for topic, priority in [("a", 0), ("b", 3), ("c", 1)]:
                await sender.publish(topic, priority=priority)
            await sender.sleep(20.0)

        world.run(scenario())
        assert slow.topics == ["first", "b", "c", "a"]

    @given(st.lists(st.integers(-3, 3), max_size=30))
    def test_order_is_that_of_a_stable_sort(self, priorities):
        async def scenario(world: World):
            slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))
            await sender.tell("slow", "first")
            await sender.sleep(0.5)
            for i, priority in enumerate(priorities):
                await sender.tell("slow", str(i), priority=priority)
            await sender.sleep(100.0)
            return slow.topics[1:]

        expected = [str(i) for i in sorted(range(len(priorities)), key=lambda i: -priorities[i])]
        assert simulate(scenario).result == expected

    @given(st.lists(st.integers(-2, 2), max_size=25), st.integers(1, 4), st.sampled_from(["block", "drop_oldest"]))
    def test_bounded_mailboxes_lose_nothing_unaccounted(self, priorities, capacity, policy):
        async def scenario(world: World):
            slow = world.spawn(Slowpoke("slow", capacity=capacity, policy=policy))
            senders = [world.spawn(Agent(f"s{i}")) for i in range(3)]

            async def send(sender, mine):
                for priority in mine:
                    await sender.tell("slow", "t", priority=priority)
                    assert missing(world) == 0

            async with asyncio.TaskGroup() as group:
                for i, sender in enumerate(senders):
                    group.create_task(send(sender, priorities[i::3]))
            await senders[0].sleep(100.0)
            return len(slow.got), world.trace.count("dead")

        handled, dead = simulate(scenario).result
        assert handled + dead == len(priorities)
        assert dead == 0 or policy == "drop_oldest"


class TestBounds:
    @pytest.mark.parametrize("capacity", [0, -1, 1.5, None, "many"])
    def test_capacity_is_a_positive_whole_number(self, capacity):
        with pytest.raises(InvalidValue, match="capacity"):
            Agent("a", capacity=capacity)

    def test_policies_have_names(self):
        with pytest.raises(InvalidValue, match="block, reject, drop_oldest"):
            Agent("a", policy="spill")

    def test_reject_refuses_and_records(self, world):
        slow = world.spawn(Slowpoke("slow", capacity=2, policy="reject"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            await sender.tell("slow", "one")
            await sender.tell("slow", "two")
            with pytest.raises(MailboxFull, match="slow"):
                await sender.tell("slow", "three")
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["in hand", "one", "two"]
        (dead,) = world.bus.dead_letters
        assert dead.facts["reason"] == "mailbox full" and dead.who == "slow"

    def test_reject_fails_a_request_at_once(self, world):
        world.spawn(Worker("slow", capacity=1, policy="reject"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            await sender.tell("slow", "waiting")
            with pytest.raises(Undeliverable):
                await sender.request("slow", "work", timeout=30.0)
            return world.now

        assert world.run(scenario()) == 0.1

    def test_drop_oldest_gives_up_the_oldest_of_the_lowest_priority(self, world):
        slow = world.spawn(Slowpoke("slow", capacity=3, policy="drop_oldest"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            for topic, priority in [("urgent", 5), ("a", 0), ("b", 0), ("c", 0), ("d", 0)]:
                await sender.tell("slow", topic, priority=priority)
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["in hand", "urgent", "c", "d"]
        assert [event.facts["reason"] for event in world.bus.dead_letters] == ["dropped for a newer message"] * 2

    def test_drop_oldest_tells_who_waits_for_a_dropped_request(self, world):
        world.spawn(Worker("slow", capacity=1, policy="drop_oldest"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            asking = asyncio.ensure_future(sender.request("slow", "work", timeout=30.0))
            await sender.sleep(0.0)
            await sender.tell("slow", "newer")
            with pytest.raises(Undeliverable):
                await asking
            return world.now

        assert world.run(scenario()) == 0.1

    def test_block_makes_only_the_sender_wait(self, world):
        slow, free = world.spawn(Slowpoke("slow", capacity=1)), world.spawn(Recorder("free"))
        sender, other = world.spawn(Agent("sender")), world.spawn(Agent("other"))
        done = []

        async def flood():
            for i in range(4):
                await sender.tell("slow", str(i))
                done.append(world.now)

        async def chat():
            for i in range(3):
                await other.tell("free", str(i))
                await other.sleep(0.1)

        async def scenario():
            async with asyncio.TaskGroup() as group:
                group.create_task(flood())
                group.create_task(chat())
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["0", "1", "2", "3"]
        assert done[-1] >= 1.0  # it had to wait for room
        assert free.times == pytest.approx([0.0, 0.1, 0.2])
        assert world.trace.count("blocked", "sender") > 0
        assert world.trace.count("dead") == 0

    @pytest.mark.parametrize("capacity", [1, 2, 3, 10])
    def test_nobody_waits_while_there_is_room(self, world, capacity):
        """The receiver works on its first message for long: what it holds and what has room is sent at once."""
        world.spawn(Slowpoke("slow", 100.0, capacity=capacity))
        sender, sent = world.spawn(Agent("sender")), []

        async def send(number):
            await sender.tell("slow", str(number), priority=number % 3)
            sent.append(world.now)

        async def scenario():
            await asyncio.gather(*[send(number) for number in range(capacity + 3)])

        world.run(scenario())
        assert sent == [0.0] * (capacity + 1) + [100.0, 200.0]

    def test_who_withdraws_a_message_makes_room(self, world):
        world.spawn(Worker("slow", 100.0, capacity=1))
        sender, other = world.spawn(Agent("sender")), world.spawn(Agent("other"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            asked = asyncio.ensure_future(sender.request("slow", "work", timeout=5.0, on_timeout="cancel"))
            await sender.sleep(0.1)
            await other.tell("slow", "next")
            with pytest.raises(RequestTimeout):
                await asked
            return world.now

        assert world.run(scenario()) == pytest.approx(5.1)

    def test_a_blocked_sender_is_named_by_a_stuck_world(self, world):
        class Stone(Agent):
            async def on_message(self, message):
                await asyncio.get_running_loop().create_future()

        world.spawn(Stone("stone", capacity=1))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(5):
                await sender.tell("stone", "t")

        with pytest.raises(Stuck, match=r"sender waits for room in the mailbox.*stone"):
            world.run(scenario())

    def test_blocked_senders_learn_that_the_recipient_stopped(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 100.0, capacity=1)), world.spawn(Agent("sender"))

        async def scenario():
            asyncio.get_running_loop().call_later(5.0, slow.stop)
            for _ in range(5):
                await sender.tell("slow", "t")

        with pytest.raises(AgentOffline):
            world.run(scenario())
        assert world.now == 5.0

    def test_blocked_publishers_do_not_wait(self, world):
        """A publication to a full `block` mailbox becomes a dead letter: the publisher and the others go on."""
        slow, quick = world.spawn(Slowpoke("slow", 100.0, capacity=1)), world.spawn(Recorder("quick"))
        sender = world.spawn(Agent("sender"))
        slow.subscribe("t", slow.on_message)
        quick.subscribe("t", quick.on_message)

        async def scenario():
            for _ in range(5):
                await sender.publish("t")
                await sender.sleep(0.1)
            return world.now

        assert world.run(scenario()) == pytest.approx(0.5)
        assert len(quick.got) == 5
        assert [event.who for event in world.bus.dead_letters] == ["slow"] * 3

    def test_the_queries_are_answered_although_the_mailbox_is_full(self, world):
        world.spawn(Slowpoke("slow", 100.0, capacity=1))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "in hand")
            await sender.sleep(0.1)
            await sender.tell("slow", "waiting")
            return await sender.request("slow", "ping", timeout=1.0)

        assert world.run(scenario()) == "pong"

    def test_a_cancelled_sender_does_not_deliver_later(self, world):
        slow, sender = world.spawn(Slowpoke("slow", capacity=1)), world.spawn(Agent("sender"))

        async def scenario():
            for topic in ("a", "b"):
                await sender.tell("slow", topic)
                await sender.sleep(0.1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await sender.tell("slow", "given up")
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["a", "b"]
        assert "given up" not in slow.topics


class TestTheLine:
    def test_priorities_hold_in_the_line_of_a_full_mailbox_too(self, world):
        slow, low, high = world.spawn(Slowpoke("slow", capacity=2)), world.spawn(Agent("low")), world.spawn(Agent("d"))

        async def scenario():
            for i in range(6):
                low.background(low.tell("slow", f"low{i}"))
            await low.sleep(0.1)
            high.background(high.tell("slow", "urgent", priority=9))
            await low.sleep(20.0)

        world.run(scenario())
        assert slow.topics.index("urgent") <= 3  # behind what was at work or had room, before those in line
        assert sorted(slow.topics) == [*(f"low{i}" for i in range(6)), "urgent"]
        assert [topic for topic in slow.topics if topic != "urgent"] == [f"low{i}" for i in range(6)]

    def test_requests_in_line_when_the_agent_stops(self, world, caplog):
        worker, client = world.spawn(Worker("worker", capacity=1)), world.spawn(Agent("client"))

        async def scenario():
            asking = [asyncio.ensure_future(client.request("worker", "work", timeout=50.0)) for _ in range(5)]
            await client.sleep(0.5)
            worker.stop()
            return await asyncio.gather(*asking, return_exceptions=True)

        assert {type(error) for error in world.run(scenario())} == {AgentOffline}
        assert world.now == 0.5
        world.run(client.sleep(0.0))  # forgets the result of the run before
        gc.collect()
        assert "never retrieved" not in caplog.text
