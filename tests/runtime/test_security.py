"""Security: who may send what to whom, who may listen, and that nobody speaks in another's name."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from society import Calculator, Recorder

from masbook import Agent, Message, MessageType, World, on
from masbook.errors import ForgedSender, InvalidName, InvalidValue, MasbookError, Refused
from masbook.runtime.security import Rule, Security


def tell(world, sender, to, topic="t"):
    world.run(world.agents[sender].tell(to, topic))
    world.run(until=world.now + 1.0)


@pytest.fixture
def people(make_world):
    def make(security, names=("ann", "bob", "cid")):
        world = make_world(security=security)
        for name in names:
            world.spawn(Recorder(name))
        return world

    return make


class TestRules:
    def test_deny_who_may_send_what_to_whom(self, people):
        world = people(Security(rules=[Rule("deny", sender="ann", to="bob", topic="secret.*")]))
        with pytest.raises(Refused, match="ann"):
            tell(world, "ann", "bob", "secret.plan")
        tell(world, "ann", "bob", "public")
        tell(world, "ann", "cid", "secret.plan")
        tell(world, "cid", "bob", "secret.plan")
        assert world.agents["bob"].topics == ["public", "secret.plan"]
        (row,) = world.trace.events("refused")
        assert row.who == "ann" and row.facts["action"] == "send" and row.facts["target"] == "bob"
        assert "secret" in row.facts["reason"]

    def test_a_refused_message_was_never_sent(self, people):
        world = people(Security(default="deny"))
        with pytest.raises(Refused, match="no rule allows it"):
            tell(world, "ann", "bob")
        assert world.trace.count("sent") == 0
        assert world.bus.metrics()["refused"] == 1
        assert world.agents["bob"].got == []

    def test_the_first_rule_that_fits_decides(self, people):
        rules = [Rule("allow", sender="ann"), Rule("deny", sender="*")]
        world = people(Security(rules=rules))
        tell(world, "ann", "bob")
        with pytest.raises(Refused):
            tell(world, "cid", "bob")
        world = people(Security(rules=rules[::-1]))
        with pytest.raises(Refused):
            tell(world, "ann", "bob")

    def test_names_match_as_a_whole(self, make_world):
        world = make_world(security=Security(rules=[Rule("deny", sender="agent1")]))
        for name in ("agent1", "agent10", "bob"):
            world.spawn(Recorder(name))
        tell(world, "agent10", "bob")
        with pytest.raises(Refused):
            tell(world, "agent1", "bob")

    def test_requests_publications_and_broadcasts(self, make_world):
        world = make_world(security=Security(rules=[Rule("deny", sender="ann")]))
        world.spawn(Calculator("calc"))
        ann, bob = world.spawn(Agent("ann")), world.spawn(Agent("bob"))
        for attempt in (ann.request("calc", "add", a=1, b=1), ann.publish("t"), ann.broadcast("t")):
            with pytest.raises(Refused):
                world.run(attempt)
        assert world.now == 0.0
        assert world.run(bob.request("calc", "add", a=1, b=1)) == 2.0  # its answer needs no permission

    def test_who_may_subscribe_to_what(self, people):
        world = people(Security(rules=[Rule("deny", sender="bob", topic="payroll*", action="subscribe")]))
        ann, bob = world.agents["ann"], world.agents["bob"]
        with pytest.raises(Refused, match="subscribe"):
            bob.subscribe("payroll.may", bob.on_message)
        ann.subscribe("payroll.may", ann.on_message)
        world.run(world.agents["cid"].publish("payroll.may"))
        world.run(until=1.0)
        assert ann.topics == ["payroll.may"] and bob.topics == []
        (row,) = world.trace.events("refused")
        assert row.facts["action"] == "subscribe" and row.facts["target"] == "payroll.may"

    def test_a_wider_glob_does_not_get_round_the_rule(self, people):
        """Whoever may not subscribe to `payroll.*` does not hear it through `*` either."""
        world = people(Security(rules=[Rule("deny", sender="bob", topic="payroll.*", action="subscribe")]))
        bob = world.agents["bob"]
        try:
            bob.subscribe("*", bob.on_message)
        except Refused:
            return
        world.run(world.agents["cid"].publish("payroll.may"))
        world.run(until=1.0)
        assert bob.topics == []

    def test_a_class_that_may_not_subscribe_cannot_be_spawned(self, make_world):
        class Spy(Agent):
            @on("payroll.*")
            async def listen(self, message: Message) -> None: ...

        world = make_world(security=Security(rules=[Rule("deny", topic="payroll.*", action="subscribe")]))
        with pytest.raises(Refused):
            world.spawn(Spy("spy"))
        assert "spy" not in world.agents
        world.spawn(Recorder("spy"))  # the name is still free
        assert world.run(world.registry.find("spy")).name == "spy"

    @pytest.mark.parametrize("type", [MessageType.SYSTEM, MessageType.REPLY, MessageType.HEARTBEAT])
    def test_the_types_that_need_no_permission_are_no_way_in(self, people, type):
        world = people(Security(default="deny"))
        with contextlib.suppress(MasbookError):
            world.bus.send(world.bus.compose(world.agents["ann"], type, "bob", "t", {"result": 1}))
        world.run(until=1.0)
        assert world.agents["bob"].got == []

    def test_only_who_was_asked_may_answer(self, make_world):
        world = make_world(security=Security(signed=True))
        world.spawn(Calculator("calc"))
        client, mallory = world.spawn(Agent("client")), world.spawn(Agent("mallory"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "add", a=2, b=3))
            await client.sleep(0.1)
            request = next(row for row in world.trace.rows if row[1] == "sent")
            with contextlib.suppress(MasbookError):
                world.bus.requests.answer(mallory, request, {"result": 666.0})
            return await asking

        assert world.run(scenario()) == 5.0

    @pytest.mark.parametrize("bad", [{"effect": "maybe"}, {"effect": "allow", "action": "shout"}])
    def test_rules_are_checked(self, bad):
        with pytest.raises(InvalidValue):
            Rule(**bad)

    def test_the_default_is_checked(self):
        with pytest.raises(InvalidValue):
            Security(default="perhaps")

    def test_heartbeats_and_the_registry_work_under_deny(self, make_world):
        world = make_world(security=Security(default="deny"))
        world.spawn(Agent("ann", heartbeat=1.0))
        world.run(until=30.0)
        assert world.run(world.registry.find("ann")).health == "healthy"

    def test_a_world_without_security_is_untouched(self, make_world):
        world = make_world()
        world.spawn(Recorder("ann"))
        world.spawn(Recorder("bob"))
        tell(world, "ann", "bob")
        assert world.trace.count("refused") == 0


class TestSignatures:
    def test_signed_messages_pass(self, people):
        world = people(Security(signed=True))
        tell(world, "ann", "bob")
        assert world.agents["bob"].topics == ["t"]
        assert world.agents["bob"].got[0].signature

    def test_all_patterns_work_signed(self, make_world):
        world = make_world(security=Security(signed=True))
        world.spawn(Calculator("calc"))
        client, listener = world.spawn(Agent("client", heartbeat=1.0)), world.spawn(Recorder("listener"))
        listener.subscribe("t", listener.on_message)

        async def scenario():
            await client.publish("t", deep={"list": [1, 2]})
            await client.broadcast("u")
            parts = [part async for part in client.stream("calc", "count", n=2)]
            return parts, await client.request("calc", "add", a=1, b=2)

        assert world.run(scenario()) == ([0, 1], 3.0)
        assert listener.topics == ["t", "u"]
        assert world.trace.count("refused") == 0

    @pytest.mark.parametrize(
        "forgery",
        [
            lambda message: message.replace(sender="ann"),
            lambda message: message.replace(content={"amount": 1_000_000}),
            lambda message: message.replace(to="cid"),
            lambda message: message.replace(topic="other"),
            lambda message: message.replace(signature=None),
            lambda message: message.replace(signature="00" * 32),
            lambda message: message.replace(priority=99),
        ],
        ids=["sender", "content", "recipient", "topic", "unsigned", "nonsense", "priority"],
    )
    def test_a_forged_message_is_rejected(self, people, forgery):
        world = people(Security(signed=True))
        honest = world.bus.compose(world.agents["cid"], MessageType.TELL, "bob", "t", {"amount": 1})
        with pytest.raises(ForgedSender):
            world.bus.send(forgery(honest))
        world.run(until=1.0)
        assert world.agents["bob"].got == [] and world.agents["cid"].got == []
        (row,) = world.trace.events("refused")
        assert row.facts["reason"] == "forged sender"

    def test_a_signature_cannot_be_used_again(self, people):
        """A recorded message sent a second time is a replay, not the sender."""
        world = people(Security(signed=True))
        honest = world.bus.compose(world.agents["cid"], MessageType.TELL, "bob", "t", {"amount": 1})
        world.bus.send(honest)
        with pytest.raises(Refused):
            world.bus.send(honest)
        world.run(until=1.0)
        assert len(world.agents["bob"].got) == 1

    def test_keys_differ_between_worlds_and_agents(self, people):
        signatures = set()
        for seed_world in (people(Security(signed=True)), World(8, security=Security(signed=True))):
            for name in ("ann", "bob"):
                agent = seed_world.agents.get(name) or seed_world.spawn(Recorder(name))
                signatures.add(seed_world.bus.compose(agent, MessageType.BROADCAST, None, "t", {}).signature)
            if seed_world.seed == 8:
                seed_world.close()
        assert len(signatures) == 4

    def test_policy_and_signature_together(self, people):
        world = people(Security(rules=[Rule("deny", sender="ann")], signed=True))
        forged = world.bus.compose(world.agents["ann"], MessageType.TELL, "bob", "t", {}).replace(sender="cid")
        with pytest.raises(ForgedSender):
            world.bus.send(forged)
        with pytest.raises(Refused):
            tell(world, "ann", "bob")


class TestNamesThatMeanMore:
    def test_nobody_is_called_the_world(self):
        with pytest.raises(InvalidName, match="'world'"):
            Agent("world")

    def test_nobody_is_called_the_registry(self, people):
        world = people(Security(default="deny"))
        with pytest.raises(InvalidName, match="'registry'"):
            world.spawn(Agent("registry"))

    def test_a_name_with_brackets_is_its_own_pattern(self, people):
        world = people(Security([Rule("deny", sender="agent[1]")]), names=("agent[1]", "bob"))
        with pytest.raises(Refused):
            tell(world, "agent[1]", "bob")
        assert world.agents["bob"].got == []


class TestWhoMayCancel:
    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("waiting", [True, False], ids=["in the mailbox", "in hand"])
    def test_only_who_asked(self, make_world, signed, waiting):
        world = make_world(security=Security(signed=signed))
        world.spawn(Calculator("calc"))
        client, mallory = world.spawn(Agent("client")), world.spawn(Agent("mallory"))
        seen: list[Message] = []
        world.bus.check(seen.append)
        if waiting:
            world.agents["calc"].suspend(3.0)

        async def scenario():
            asking = asyncio.ensure_future(client.request("calc", "wait", seconds=5.0, timeout=20.0))
            await client.sleep(1.0)
            [request] = [message for message in seen if message.type is MessageType.REQUEST]
            with contextlib.suppress(MasbookError):
                world.bus.post(mallory, MessageType.CANCEL, "calc", "wait", {}, 0, None, None, request)
            return await asking

        assert world.run(scenario()) == "waited"
        assert world.trace.count("cancelled") == 0


class TestRefusedAtSpawn:
    def test_an_agent_whose_subscription_is_refused_leaves_no_trace(self, make_world):
        class Curious(Agent):
            @on("open")
            async def heard(self, message):
                self.note("heard")

            @on("payroll")
            async def pry(self, message):
                self.note("pried")

        world = make_world(security=Security([Rule("deny", topic="payroll", action="subscribe")]))
        client = world.spawn(Agent("client"))
        with pytest.raises(Refused):
            world.spawn(Curious("curious"))
        world.run(client.publish("open"))
        world.run(until=1.0)
        assert "curious" not in world.agents and world.bus.agent("curious") is None
        for kind in ("spawned", "subscribed", "registered", "dead", "note"):
            assert world.trace.count(kind, "curious") == 0, kind
        assert world.spawn(Recorder("curious")).state == "idle"
