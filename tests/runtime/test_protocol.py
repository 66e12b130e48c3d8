"""Protocols: a conversation follows its pattern, or its next message is refused."""

from __future__ import annotations

import pytest
from society import Calculator, Recorder

from masbook import Agent
from masbook.errors import MasbookError, ProtocolViolation
from masbook.runtime.protocol import CONTRACT_NET, REQUEST_REPLY, Protocol


@pytest.fixture
def net(world):
    """A manager and two bidders under the contract net, and `say(sender, to, step, conversation)`."""
    for name in ("manager", "b1", "b2"):
        world.spawn(Recorder(name))
    world.bus.watch(CONTRACT_NET)

    def say(sender, to, step, conversation=1000):
        agent = world.agents[sender]
        if to is None:
            world.run(agent.publish(step, conversation=conversation))
        else:
            world.run(agent.tell(to, step, conversation=conversation))

    say.world = world
    return say


class TestContractNet:
    def test_a_full_round_with_two_bidders(self, net):
        net("manager", "b1", "cfp")
        net("manager", "b2", "cfp")
        net("b1", "manager", "propose")
        net("b2", "manager", "propose")
        net("manager", "b1", "accept")
        net("manager", "b2", "reject")
        net("b1", "manager", "inform")
        assert net.world.trace.count("violated") == 0

    def test_a_bidder_may_refuse(self, net):
        net("manager", "b1", "cfp")
        net("b1", "manager", "refuse")
        with pytest.raises(ProtocolViolation, match="ended"):
            net("manager", "b1", "accept")

    def test_accepting_what_was_never_proposed(self, net):
        net("manager", "b1", "cfp")
        with pytest.raises(ProtocolViolation, match="propose or refuse") as caught:
            net("manager", "b1", "accept")
        assert isinstance(caught.value, MasbookError)
        (row,) = net.world.trace.events("violated")
        assert row.who == "manager"
        assert row.facts["protocol"] == "contract_net" and row.facts["step"] == "accept"
        assert row.facts["expected"] == ["propose", "refuse"]
        net.world.run(until=1.0)
        assert net.world.agents["b1"].topics == ["cfp"]

    def test_a_violation_is_not_delivered_and_does_not_move_the_conversation(self, net):
        net("manager", "b1", "cfp")
        with pytest.raises(ProtocolViolation):
            net("b1", "manager", "inform")
        net("b1", "manager", "propose")
        net.world.run(until=1.0)
        assert net.world.agents["manager"].topics == ["propose"]

    def test_a_bidder_cannot_accept_its_own_proposal(self, net):
        """Who may say a step belongs to the pattern: accepting is the manager's."""
        net("manager", "b1", "cfp")
        net("b1", "manager", "propose")
        with pytest.raises(ProtocolViolation):
            net("b1", "manager", "accept")

    def test_one_cannot_answer_without_a_call(self, net):
        with pytest.raises(ProtocolViolation, match="cfp"):
            net("b1", "manager", "propose")

    def test_threads_are_independent(self, net):
        net("manager", "b1", "cfp")
        net("manager", "b2", "cfp")
        net("b1", "manager", "propose")
        with pytest.raises(ProtocolViolation):
            net("manager", "b2", "accept")  # it was the other who proposed
        net("manager", "b1", "accept")

    def test_conversations_are_independent(self, net):
        net("manager", "b1", "cfp", 1)
        net("b1", "manager", "propose", 1)
        with pytest.raises(ProtocolViolation):
            net("manager", "b1", "accept", 2)

    def test_a_call_published_to_many(self, net):
        for name in ("b1", "b2"):
            agent = net.world.agents[name]
            agent.subscribe("cfp", agent.on_message)
        net("manager", None, "cfp")
        net("b1", "manager", "propose")
        net("b2", "manager", "refuse")
        net("manager", "b1", "accept")
        with pytest.raises(ProtocolViolation):
            net("manager", "b2", "accept")

    def test_proposing_twice(self, net):
        net("manager", "b1", "cfp")
        net("b1", "manager", "propose")
        with pytest.raises(ProtocolViolation):
            net("b1", "manager", "propose")

    def test_other_topics_are_left_alone(self, net):
        net("b1", "manager", "weather")
        net("b1", "b2", "weather")
        assert net.world.trace.count("violated") == 0


class TestRequestReply:
    def test_requests_streams_and_errors_fit(self, world):
        world.bus.watch(REQUEST_REPLY)
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def scenario():
            assert await client.request("calc", "add", a=1, b=1) == 2.0
            with pytest.raises(ZeroDivisionError):
                await client.request("calc", "divide", a=1, b=0)
            return [part async for part in client.stream("calc", "count", n=3)]

        assert world.run(scenario()) == [0, 1, 2]
        assert world.trace.count("violated") == 0

    def test_answering_twice_is_a_violation(self, world):
        world.bus.watch(REQUEST_REPLY)
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        world.run(client.request("calc", "divide", a=4, b=2))
        request = next(row for row in world.trace.rows if row[1] == "sent")
        with pytest.raises(ProtocolViolation, match="ended"):
            world.bus.requests.answer(calc, request, {"result": 3})

    def test_answering_nobody_is_a_violation(self, world):
        world.bus.watch(REQUEST_REPLY)
        calc, client = world.spawn(Calculator("calc")), world.spawn(Recorder("client"))
        world.spawn(Recorder("other"))
        world.run(calc.tell("client", "t"))
        told = next(row for row in world.trace.rows if row[1] == "sent")
        with pytest.raises(ProtocolViolation):
            world.bus.requests.answer(client, told, {"result": 3})

    def test_after_a_time_out_a_late_reply_fits(self, world):
        world.bus.watch(REQUEST_REPLY)
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(TimeoutError):
            world.run(client.request("calc", "wait", seconds=3.0, timeout=1.0))
        world.run(until=5.0)
        assert world.trace.count("violated") == 0
        assert world.agents["calc"].state == "idle"


def test_a_protocol_of_ones_own(world):
    ann, bob = world.spawn(Recorder("ann")), world.spawn(Recorder("bob"))
    world.bus.watch(Protocol("knock", "knock", {"knock": ("who",), "who": ("me",), "me": ()}))
    world.run(ann.tell("bob", "knock", conversation=1))
    world.run(bob.tell("ann", "who", conversation=1))
    world.run(ann.tell("bob", "me", conversation=1))
    with pytest.raises(ProtocolViolation, match="nothing: it has ended"):
        world.run(bob.tell("ann", "who", conversation=1))


def test_the_vocabulary_is_every_step():
    assert CONTRACT_NET.vocabulary() == {"cfp", "propose", "refuse", "accept", "reject", "inform", "failure"}


def test_two_protocols_at_once(net):
    net.world.bus.watch(REQUEST_REPLY)
    net.world.spawn(Calculator("calc"))
    assert net.world.run(net.world.agents["manager"].request("calc", "add", a=1, b=2)) == 3.0
    net("manager", "b1", "cfp")
    with pytest.raises(ProtocolViolation):
        net("manager", "b1", "accept")
