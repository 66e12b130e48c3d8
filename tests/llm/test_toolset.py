"""Toolsets: any agent's capabilities, messages and shared state as tools, whose failures are told to the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_ai import RunContext
from pydantic_ai.messages import ToolCallPart

from masbook import (
    Agent,
    ConflictResolver,
    Crash,
    FaultPlan,
    Message,
    ModelFault,
    Orchestrator,
    Rule,
    Security,
    World,
    capability,
    on,
    simulate,
)
from masbook.coordination.state import MemoryStore, Namespace, ReplicatedStore, StateService
from masbook.errors import InvalidValue, LimitReached, WorldError
from masbook.llm import LLMAgent, scripted, tool_call
from masbook.llm.toolset import bus_tools, capability_tools


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


class Desk(Agent):
    """Does this and that."""

    @capability
    async def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @capability
    async def mirror(self, point: Point) -> Point:
        return Point(point.y, point.x)

    @capability
    async def count(self, n: int) -> AsyncIterator[int]:
        """Count."""
        for number in range(n):
            await self.sleep(1.0)
            yield number

    @capability
    async def fail(self) -> None:
        raise ValueError("the printer is out of paper")

    @capability
    async def dawdle(self) -> str:
        await self.sleep(100)
        return "at last"


class Ear(Agent):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.heard: list[Any] = []

    async def on_message(self, message: Message) -> None:
        self.heard.append((message.sender, str(message.type), message.content.get("text")))


def thinker(world, toolset, *calls, name="ada", **options):
    """An agent that makes these calls of tools, one after the other, and returns what became of them."""
    model = scripted(*calls, lambda asked: str([(result, good) for _, result, good in asked.results]))
    return world.spawn(LLMAgent(name, toolsets=[toolset], model=model, **options))


def use(world, toolset, *calls, **options) -> list[tuple[Any, bool]]:
    """Return results of calls of tools, and whether they succeeded."""
    return eval(world.run(thinker(world, toolset, *calls, **options).ask("Go.")), {"nan": float("nan")})


def told(world, toolset, *calls, **options) -> str:
    """Return what the model is told of one call that fails."""
    ((text, good),) = use(world, toolset, *calls, **options)
    assert not good
    (row,) = world.trace.events("tool_called")
    assert row.facts["outcome"] == "failed"
    return text


def sent(world, **facts):
    found = [event for event in world.trace.events("sent") if facts.items() <= event.facts.items()]
    return [(event.who, event.facts["to"], event.facts["content"]) for event in found]


class TestCapabilities:
    @pytest.mark.parametrize("by_name", [False, True])
    def test_they_are_tools_with_their_own_name_description_and_schema(self, world, by_name):
        desk = world.spawn(Desk("desk"))
        seen = []
        model = scripted(lambda asked: seen.extend(asked.tools) or "done")
        tools = capability_tools("desk" if by_name else desk)
        world.run(world.spawn(LLMAgent("ada", toolsets=[tools], model=model)).ask("?"))
        found = {tool.name: tool for tool in seen}
        assert list(found) == ["add", "mirror", "count", "fail", "dawdle"]  # no ping, status ...
        assert found["add"].description == "Add two numbers."
        assert found["add"].schema == desk.offers["add"].input_schema
        assert "desk" in found["mirror"].description  # it has none of its own

    @pytest.mark.parametrize("by_name", [False, True])
    def test_a_call_is_an_ordinary_request(self, world, by_name):
        desk = world.spawn(Desk("desk"))
        tools = capability_tools("desk" if by_name else desk, "add", "mirror")
        calls = tool_call("add", a=1, b=2), tool_call("mirror", point={"x": 1, "y": 2})
        assert use(world, tools, *calls) == [(3, True), ({"x": 2, "y": 1}, True)]  # plain data
        assert sent(world, type="request") == [
            ("ada", "desk", {"a": 1, "b": 2}),
            ("ada", "desk", {"point": {"x": 1, "y": 2}}),
        ]
        assert desk.metrics["handled"] == 2

    def test_calls_of_one_answer_run_at_the_same_time(self, world):
        for name in ("one", "two"):
            world.spawn(Desk(name))
        tools = [capability_tools(name, "count", prefix=f"{name}_") for name in ("one", "two")]
        model = scripted([tool_call("one_count", n=3), tool_call("two_count", n=3)], "done")
        world.run(world.spawn(LLMAgent("ada", toolsets=tools, model=model)).ask("?"))
        assert world.now == 3.0

    def test_a_stream_is_the_list_of_its_parts(self, world):
        desk = world.spawn(Desk("desk"))
        assert use(world, capability_tools(desk), tool_call("count", n=3)) == [([0, 1, 2], True)]

    def test_a_stream_that_does_not_end_in_time(self, world):
        world.spawn(Desk("desk"))
        text = told(world, capability_tools("desk", timeout=5.0), tool_call("count", n=1000))
        assert text.startswith("RequestTimeout: 'count' of desk") and world.now == 5.0
        world.run(until=100)
        assert world.agents["desk"].state == "idle"  # it was told to stop

    def test_services_of_other_rooms(self, world):
        store = MemoryStore(world)
        services = [Orchestrator("orchestrator"), ConflictResolver("resolver"), StateService("state", store)]
        for each in services:
            world.spawn(each)
        tools = capability_tools("state", "set", "get")
        done = use(world, tools, tool_call("set", key="k", value=[1]), tool_call("get", key="k"))
        assert done[1][0]["value"] == [1] and done[1][0]["author"] == "ada"
        for each in services:  # each of their capabilities can be described to a model
            agent = LLMAgent(f"of {each.name}", toolsets=[capability_tools(each)], model="offline:instant")
            assert world.run(world.spawn(agent).ask("Hello."))

    def test_results_are_plain_data_at_any_depth(self, world):
        world.spawn(StateService("state", MemoryStore(world)))
        done = use(world, capability_tools("state"), tool_call("set", key="k", value=1), tool_call("list"))
        assert [type(entry) for entry in done[1][0]] == [dict] and done[1][0][0]["value"] == 1

    def test_a_query_that_a_service_answers_in_its_own_way_is_a_tool(self, world):
        orchestrator = world.spawn(Orchestrator("orchestrator"))
        flow = {"name": "report", "tasks": [{"id": "sum", "capability": "add", "inputs": {"a": 1, "b": 2}}]}
        world.spawn(Desk("desk"))
        calls = tool_call("start", workflow=flow), tool_call("status", workflow="workflow-1"), tool_call("ping")
        started, status, ping = use(world, capability_tools(orchestrator), *calls)
        assert started == ("workflow-1", True) and status[0]["workflow"] == "workflow-1"
        assert not ping[1]  # what every agent can say is no tool unless named

    def test_ten_calls_of_one_answer(self, world):
        world.spawn(Desk("desk", concurrency=10))
        calls = [tool_call("add", a=number, b=number) for number in range(9)]
        done = use(world, capability_tools("desk"), [*calls, tool_call("fail")])
        assert done[:9] == [(2 * number, True) for number in range(9)]
        assert done[9] == ("ValueError: the printer is out of paper", False)

    @pytest.mark.parametrize("arguments", ["null", "[1]", '"x"', "42", "true", "NaN"])
    def test_arguments_that_are_no_object(self, world, arguments):
        call = ToolCallPart("add", arguments)
        (refused, again) = use(world, capability_tools(world.spawn(Desk("desk"))), call, tool_call("add", a=1, b=2))
        assert "JSON object" in refused[0] and again == (3, True)
        assert [row.facts["outcome"] for row in world.trace.events("tool_called")] == ["refused", "answered"]

    def test_an_agent_that_thinks_asks_another(self, world):
        world.spawn(LLMAgent("oracle", model=scripted("42", latency=2.0)))
        assert use(world, capability_tools("oracle", "ask"), tool_call("ask", prompt="What?")) == [("42", True)]

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            (tool_call("add", a="x", b=1), "InvalidInput: add cannot use its input: field 'a'"),
            (tool_call("add", a=1, b=1, c=1), "InvalidInput"),
            (tool_call("fail"), "ValueError: the printer is out of paper"),
            (tool_call("dawdle"), "RequestTimeout: no reply from desk to 'dawdle'"),
        ],
    )
    def test_what_fails_is_told_to_the_model(self, world, call, expected):
        assert told(world, capability_tools(world.spawn(Desk("desk"))), call).startswith(expected)

    def test_a_name_that_no_agent_has(self, world):
        text = told(world, capability_tools("nobody", "add"), tool_call("add", a=1, b=2))
        assert text.startswith("UnknownRecipient: nobody called 'nobody'")

    def test_a_name_that_no_agent_has_and_no_capabilities(self, world):
        model = scripted(lambda asked: asked.instructions)
        agent = world.spawn(LLMAgent("ada", toolsets=[capability_tools("nobody")], model=model))
        assert "No agent is called 'nobody'" in world.run(agent.ask("?"))

    def test_a_capability_that_nobody_of_that_name_has(self, world):
        world.spawn(Desk("desk"))
        text = told(world, capability_tools("desk", "sing"), tool_call("sing"))
        assert text.startswith("UnknownCapability: desk cannot 'sing'; it can") and "add" in text

    @pytest.mark.parametrize("by_name", [False, True])
    def test_an_agent_that_has_gone_away(self, world, by_name):
        desk = world.spawn(Desk("desk"))
        world.run(desk.stop())
        tools = capability_tools("desk" if by_name else desk)
        assert told(world, tools, tool_call("add", a=1, b=2)).startswith("AgentOffline: desk")

    def test_an_agent_that_comes_later(self, world):
        tools = capability_tools("desk")
        ada = thinker(world, tools, tool_call("add", a=1, b=2))
        world.spawn(Desk("desk"))
        assert world.run(ada.ask("Go.")) == "[(3, True)]"

    @pytest.mark.parametrize("concurrency", [1, 100])
    @pytest.mark.parametrize("by_message", [False, True])
    def test_an_agent_given_to_itself(self, world, concurrency, by_message):
        call = tool_call("ask", prompt="What?")
        ada = thinker(world, capability_tools("ada", "ask"), call, concurrency=concurrency)
        client = world.spawn(Agent("client"))
        asked = client.request("ada", "ask", prompt="Go.") if by_message else ada.ask("Go.")
        ((text, good),) = eval(world.run(asked))
        assert (good, text.split(":")[0]) == (False, "RequestCycle") and world.now == 0

    @pytest.mark.parametrize("by_message", [False, True])
    def test_what_an_agent_can_do_itself_is_a_tool_of_its_own(self, world, by_message):
        class Clerk(LLMAgent):
            @capability
            async def add(self, a: int, b: int) -> int:
                """Add two numbers."""
                await self.sleep(0.5)
                return a + b

            @capability
            async def count(self, to: int) -> AsyncIterator[int]:
                """Count."""
                for number in range(to):
                    yield number

        calls = tool_call("add", a=1, b=2), tool_call("count", to=3), tool_call("add", a=1, b="x")
        model = scripted(*calls, lambda asked: str([result for _, result, _ in asked.results]))
        clerk = world.spawn(Clerk("clerk", toolsets=[capability_tools("clerk", "add", "count")], model=model))
        client = world.spawn(Agent("client"))
        asked = client.request("clerk", "ask", prompt="Go.") if by_message else clerk.ask("Go.")
        first, second, third = eval(world.run(asked))
        assert (first, second, world.now) == (3, [0, 1, 2], 0.5)
        assert third.startswith("InvalidInput") and "b" in third

    def test_two_that_are_given_to_each_other(self, world):
        for name, other in (("ada", "ben"), ("ben", "ada")):
            model = scripted(tool_call("ask", prompt="You do it."), lambda asked: str(asked.results[-1][1]))
            world.spawn(LLMAgent(name, toolsets=[capability_tools(other, "ask")], model=model))
        client = world.spawn(Agent("client"))
        assert "RequestCycle" in world.run(client.request("ada", "ask", prompt="Go."))

    def test_policies_hold_for_models_too(self):
        rules = [Rule("deny", sender="ada", to="desk", topic="add")]
        with World(seed=7, security=Security(rules)) as world:
            desk = world.spawn(Desk("desk"))
            text = told(world, capability_tools(desk), tool_call("add", a=1, b=2))
        assert text.startswith("Refused: ada may not send 'add' to desk")

    def test_names_that_collide_are_refused_at_once(self, world):
        one, two = Desk("one"), Desk("two")
        with pytest.raises(InvalidValue, match=r"2 tools are called 'add'.*prefix="):
            LLMAgent("ada", toolsets=[capability_tools(one), capability_tools(two)])
        with pytest.raises(InvalidValue, match="'send_message'"):
            LLMAgent("ada", toolsets=[bus_tools(), bus_tools()])
        LLMAgent("ada", toolsets=[capability_tools(one), capability_tools(two, prefix="two_")])

    def test_names_that_collide_later_are_refused_when_the_model_is_called(self, world):
        for name in ("one", "two"):
            world.spawn(Desk(name))
        tools = [capability_tools("one"), capability_tools("two")]
        with pytest.raises(InvalidValue, match="'add'"):
            world.run(world.spawn(LLMAgent("ada", toolsets=tools, model=scripted())).ask("?"))

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: capability_tools(Desk("desk"), "ad"), "desk cannot 'ad'; it can .*add"),
            (lambda: capability_tools(Desk("desk"), ["add"]), "list of names"),
            (lambda: capability_tools(Agent("plain")), "no capabilities"),
            (lambda: capability_tools(Desk), "give an agent, or the name of one"),
            (lambda: capability_tools(""), "give an agent, or the name of one"),
            (lambda: capability_tools("desk", prefix="my desk"), "prefix"),
            (lambda: capability_tools("desk", timeout=0), "timeout"),
            (lambda: bus_tools("store"), "MemoryStore"),
        ],
    )
    def test_bad_input_is_refused_at_once(self, make, match):
        with pytest.raises(InvalidValue, match=match):
            make()

    def test_an_agent_of_another_world(self, world):
        model = scripted(tool_call("add", a=1, b=2))
        with World() as other:
            tools = capability_tools(other.spawn(Desk("desk")))
        with pytest.raises(WorldError, match="another world"):
            world.run(world.spawn(LLMAgent("ada", toolsets=[tools], model=model)).ask("?"))


class TestMessages:
    def test_a_message_is_told(self, world):
        ear = world.spawn(Ear("ear"))
        done = use(world, bus_tools(), tool_call("send_message", recipient="ear", text="Hello."))
        assert done == [("sent to ear", True)]
        assert ear.heard == [("ada", "tell", "Hello.")]

    @pytest.mark.parametrize(
        ("recipient", "expected"),
        [
            ("bob", "UnknownRecipient: nobody called 'bob' in this world; there are: desk, gone, ada"),
            ("ada", "InvalidValue: you are ada yourself"),
            ("desk", "UnknownCapability: desk has no handler for 'chat'; it can"),
            ("gone", "AgentOffline: gone takes no messages"),
        ],
    )
    def test_message_sent_to_an_agent_that_cannot_get_it(self, world, recipient, expected):  # seed 000
        world.spawn(Desk("desk"))
        world.run(world.spawn(Ear("gone")).stop())
        assert told(world, bus_tools(), tool_call("send_message", recipient=recipient, text="x")).startswith(expected)

    def test_a_full_mailbox_does_not_hang_the_sender(self, world):
        class Stone(Ear):
            async def on_message(self, message: Message) -> None:
                await asyncio.get_running_loop().create_future()

        world.spawn(Stone("stone", capacity=1))
        calls = [tool_call("send_message", recipient="stone", text=str(n)) for n in range(3)]
        done = use(world, bus_tools(), *calls)
        assert [good for _, good in done] == [True, True, False] and world.now == 30.0
        assert done[-1][0].startswith("MailboxFull")

    def test_a_typo_never_ends_a_run(self, world):  # seed 000: "a model's typo in a message type aborts the run"
        ear = world.spawn(Ear("ear"))
        calls = [
            tool_call("send_mesage", recipient="ear", text="x"),
            tool_call("send_message", recipient="ear", text="x", message_type="reqest"),
            tool_call("send_message", to="ear"),
            tool_call("recent_messages", limit=0),
            tool_call("send_message", recipient="ear", text="Here I am."),
        ]
        assert use(world, bus_tools(), *calls)[-1] == ("sent to ear", True)
        rows = [row.facts["outcome"] for row in world.trace.events("tool_called")]
        assert rows == ["unknown", "refused", "refused", "refused", "answered"]
        assert [text for _, _, text in ear.heard] == ["Here I am."]

    def test_a_broadcast_reaches_all_others(self, world):
        ears = [world.spawn(Ear(name)) for name in ("one", "two")]
        silent = world.spawn(LLMAgent("silent", model=scripted()))  # hears it and does not answer
        assert use(world, bus_tools(), tool_call("broadcast", text="Fire!")) == [("sent to one, two, silent", True)]
        assert [ear.heard for ear in ears] == [[("ada", "broadcast", "Fire!")]] * 2
        assert silent.metrics["handled"] == 1

    def test_a_broadcast_that_nobody_hears(self, world):
        assert told(world, bus_tools(), tool_call("broadcast", text="?")).startswith("UnknownRecipient: nobody but ada")

    def test_recent_messages_are_those_sent_or_got(self, world):
        ear, client = world.spawn(Ear("ear")), world.spawn(Agent("client"))
        world.spawn(Desk("desk"))
        ada = thinker(world, bus_tools(), tool_call("broadcast", text="All!"), tool_call("recent_messages", limit=3))

        async def talk():
            await client.tell("ear", "chat", text="A secret.")
            await ear.broadcast("chat", text="Hello all.")
            await client.request("desk", "add", a=1, b=2)
            await client.sleep(1)
            return await client.request("ada", "ask", prompt="Go.")

        _, (messages, _) = eval(world.run(talk()))
        assert [(each["type"], each["from"], each["to"], each["text"]) for each in messages] == [
            ("broadcast", "ear", "all", "Hello all."),
            ("request", "client", "ada", {"prompt": "Go."}),
            ("broadcast", "ada", "all", "All!"),
        ]
        assert [each["time"] for each in messages] == [0.0, 1.0, 1.0] and ada.state == "idle"

    def test_a_message_to_nobody_is_no_message(self, world):
        calls = [tool_call("send_message", recipient=name, text="x") for name in ("", "nobody")]
        assert use(world, bus_tools(), *calls, tool_call("recent_messages"))[-1] == ([], True)

    def test_what_was_refused_is_no_message(self):
        rules = [Rule("deny", sender="ear", to="ada")]
        with World(seed=7, security=Security(rules)) as world:
            ear = world.spawn(Ear("ear"))
            ada = thinker(world, bus_tools(), tool_call("recent_messages"))
            with pytest.raises(Exception, match="may not send"):
                world.run(ear.tell("ada", "chat", text="x"))
            assert world.run(ada.ask("?")) == "[([], True)]"

    def test_the_model_is_told_who_is_there(self, world):
        world.spawn(Ear("ear"))
        world.spawn(Orchestrator("a service"))
        model = scripted(lambda asked: asked.instructions)
        ada = world.spawn(LLMAgent("ada", "Be kind.", toolsets=[bus_tools()], model=model))
        assert world.run(ada.ask("?")) == "Be kind.\nYou are ada. The other agents are: ear."


class TestSharedState:
    def test_it_is_read_and_written(self, world):
        store = MemoryStore(world)
        done = use(
            world,
            bus_tools(store),
            tool_call("read_shared_state", key="plan"),
            tool_call("write_shared_state", key="plan", value={"step": 1}),
            tool_call("read_shared_state", key="plan"),
            tool_call("write_shared_state", key="plan", value={"step": 2}),
            tool_call("write_shared_state", key="plan", value={"step": 3}),
        )
        assert all(good for _, good in done)
        assert done[0][0] == "nothing is stored under 'plan'; there is nothing at all"
        assert done[2][0] == {"value": {"step": 1}, "version": 1, "author": "ada"}
        entry = world.run(store.get("plan"))
        assert (entry.value, entry.version, entry.author) == ({"step": 3}, 3, "ada")

    def test_a_write_of_what_was_never_read_writes(self, world):
        store = MemoryStore(world)
        world.run(store.set("status", "idle", by="somebody"))
        done = use(world, bus_tools(store), tool_call("write_shared_state", key="status", value="busy"))
        assert done == [("written 'status', version 2", True)]

    @pytest.mark.parametrize("seed", range(5))
    def test_no_update_is_lost(self, seed):
        def more(asked):
            if not asked.results or not asked.results[-1][2]:
                return tool_call("read_shared_state", key="n")
            name, found, _ = asked.results[-1]
            if name == "read_shared_state":
                return tool_call("write_shared_state", key="n", value=found["value"] + 1)
            return "done"

        async def scenario(world):
            store = MemoryStore(world)
            await store.set("n", 0, by="somebody")
            tools = bus_tools(store)
            model = scripted(matching={"": more}, latency=1.0)
            agents = [world.spawn(LLMAgent(f"a{n}", toolsets=[tools], model=model)) for n in range(5)]
            await asyncio.gather(*[agent.ask("Add one.") for agent in agents])
            return (await store.get("n")).value

        run = simulate(scenario, seed=seed, schedule="shuffled")
        assert run.result == 5
        failed = [row.facts["error"] for row in run.trace.events("tool_called") if row.facts["outcome"] == "failed"]
        assert failed and all(error.startswith("VersionConflict: 'n' has version") for error in failed)

    def test_a_version_is_remembered_for_its_conversation_only(self, world):
        store = MemoryStore(world)
        model = scripted(
            tool_call("read_shared_state", key="k"),
            "I have read it.",
            tool_call("write_shared_state", key="k", value=1),
            lambda asked: asked.results[-1][1],
            tool_call("write_shared_state", key="k", value=2),
            lambda asked: asked.results[-1][1],
        )
        ada = world.spawn(LLMAgent("ada", toolsets=[bus_tools(store)], model=model))
        world.run(ada.ask("Read.", "talk"))
        world.run(store.set("k", 0, by="ben"))
        assert "VersionConflict" in world.run(ada.ask("Write.", "talk"))
        assert "version 2" in world.run(ada.ask("Write."))

    def test_rights_hold_for_models_too(self, world):
        notes = Namespace(MemoryStore(world), "notes", writers=["ben"])
        text = told(world, bus_tools(notes), tool_call("write_shared_state", key="k", value=1))
        assert text.startswith("Refused: ada may not write 'k'")

    def test_a_replicated_store(self, world):
        store = ReplicatedStore(world, replicas=3)
        done = use(
            world,
            bus_tools(store),
            tool_call("read_shared_state", key="k"),
            tool_call("write_shared_state", key="k", value=1),
            tool_call("recent_messages"),
        )
        assert done[1] == ("written 'k', version 1", True)
        assert done[2] == ([], True)  # what went to replicas is nobody's talk

    def test_without_a_store_there_are_no_tools_for_it(self, world):
        assert set(bus_tools().tools) == {"send_message", "broadcast", "recent_messages"}
        assert set(bus_tools(MemoryStore(world)).tools) - set(bus_tools().tools) == {
            "read_shared_state",
            "write_shared_state",
        }


def test_requests_answers_errors_and_broadcasts_all_have_a_branch(world):  # seed 000: two of them had none
    """Ben asks ada, who asks the desk, tells the ear and is told; every message is handled, none is dropped."""
    world.spawn(Desk("desk"))
    ear, client = world.spawn(Ear("ear")), world.spawn(Ear("client"))
    tools = [capability_tools("desk"), bus_tools()]
    calls = [
        tool_call("add", a=1, b=2),
        tool_call("fail"),
        tool_call("send_message", recipient="ear", text="x"),
        tool_call("broadcast", text="y"),
    ]
    world.spawn(LLMAgent("ada", toolsets=tools, model=scripted(calls, "done", "You are welcome.")))

    async def talk():
        answer = asyncio.create_task(client.request("ada", "ask", prompt="Go."))
        await client.sleep(0)
        await client.tell("ada", "chat", text="Thanks!")  # while she is busy
        await client.sleep(1)
        return await answer

    assert world.run(talk()) == "done"
    assert ear.heard == [("ada", "tell", "x"), ("ada", "broadcast", "y")]
    assert client.heard == [("ada", "broadcast", "y"), ("ada", "tell", "You are welcome.")]
    types = [event.facts["type"] for event in world.trace.events("sent")]
    assert {"request", "reply", "error", "tell", "broadcast"} <= set(types)
    assert not world.trace.count("dropped") and not world.trace.count("dead")


NAMES = ("ada", "ben", "cid")


def courteous(name):
    """Thanks everybody else, and says goodbye."""
    thanks = [tool_call("send_message", recipient=other, text="Thank you!") for other in NAMES if other != name]
    return scripted(matching={"": lambda asked: "Goodbye!" if asked.results else thanks}, latency=0.1)


async def party(world, hops=10_000, limits=50, concurrency=1, by_message=False):
    """Agents who thank each other with a tool, whatever they hear, and answer besides."""
    for name in NAMES:
        options = {"hops": hops, "limits": limits, "concurrency": concurrency}
        world.spawn(LLMAgent(name, toolsets=[bus_tools()], model=courteous(name), **options))
    host = world.spawn(Agent("host"))
    if by_message:
        await host.request("ada", "ask", prompt="Begin.")
    else:
        await world.agents["ada"].ask("Begin.")
    await host.sleep(300)


class Eager(LLMAgent):
    """Answers broadcasts and publications in kind."""

    async def on_message(self, message: Message) -> None:
        if message.type == "tell":
            return await super().on_message(message)
        text = await self.ask(message.content["text"])
        await (self.broadcast if message.type == "broadcast" else self.publish)(message.topic, text=text)

    @on("news")
    async def read(self, message: Message) -> None:
        await self.on_message(message)


async def gathering(world, way, agents=2, concurrency=1):
    """Agents whose tools, written by a student, say thank you in one of many ways."""

    async def say_thanks(ctx: RunContext[LLMAgent]) -> Any:
        me, names = ctx.deps, list(world.agents)
        next_one, others = names[names.index(me.name) - 1], [name for name in names if name != me.name]
        if way == "tell":
            return [await me.tell(name, "chat", text="Thank you!") for name in others]
        if way == "request":
            return await me.request(next_one, "ask", prompt="Thank you!")
        if way == "call":
            return await world.agents[next_one].ask("Thank you!")
        return await (me.broadcast if way == "broadcast" else me.publish)("news", text="Thank you!")

    for number in range(agents):
        again = scripted(
            matching={"": lambda q: "You are welcome!" if q.results else tool_call("say_thanks")}, latency=0.1
        )
        options = {"tools": [say_thanks], "model": again, "concurrency": concurrency, "hops": 10_000}
        world.spawn(Eager(f"polite {number}", **options))
    try:
        await world.agents["polite 0"].ask("Begin.")
    finally:
        await world.agents["polite 0"].sleep(300)


class TestLimits:
    @pytest.mark.parametrize("concurrency", [1, 10])
    @pytest.mark.parametrize("agents", [2, 5])
    @pytest.mark.parametrize("way", ["tell", "broadcast", "publish", "call", "request"])
    def test_polite_agents_stop_whatever_way_they_talk(self, way, agents, concurrency):  # seed defect 15
        run = simulate(gathering, seed=3, schedule="shuffled", way=way, agents=agents, concurrency=concurrency)
        assert run.error is None or isinstance(run.error, LimitReached)
        calls = run.trace.count("model_called")
        assert calls == 50 or (way == "request" and calls < 50)  # who would wait for itself is told of a RequestCycle
        assert run.trace.count("conversation_stopped") or way == "request"

    def test_a_call_from_within_a_tool_is_one_hop_further(self, world):
        async def consult(ctx: RunContext[LLMAgent]) -> str:
            """Ask the agent itself, which asks itself."""
            return await ctx.deps.ask("And now?")

        model = scripted(
            matching={"": lambda asked: str(asked.results[-1][1]) if asked.results else tool_call("consult")}
        )
        ada = world.spawn(LLMAgent("ada", tools=[consult], model=model, hops=5))
        assert "LimitReached: ada ends the conversation: 5 hops" in world.run(ada.ask("?"))
        assert world.trace.count("model_called") == 10

    def test_who_is_woken_by_a_tool_has_a_budget_of_its_own(self, world):
        """The first message that ben gets starts him: what he does later, for others, is no part of that task."""

        class Ben(LLMAgent):
            async def on_message(self, message: Message) -> None:
                await world.agents["cid"].ask("?")

        world.spawn(Ben("ben", model="offline:instant"))
        cid = world.spawn(LLMAgent("cid", model="offline:instant", limits=3))
        ada = thinker(world, bus_tools(), *[tool_call("send_message", recipient="ben", text="x")] * 9)
        world.run(ada.ask("Go."))
        world.run(until=1)
        assert cid.metrics["crashes"] == 0 and world.trace.count("model_called", "cid") == 9

    @pytest.mark.parametrize("by_message", [False, True])
    @pytest.mark.parametrize("concurrency", [1, 10])
    @pytest.mark.parametrize("seed", range(3))
    def test_polite_agents_stop_when_they_talk_by_tool(self, seed, concurrency, by_message):  # seed defect 15
        options = {"concurrency": concurrency, "by_message": by_message}
        run = simulate(party, seed=seed, schedule="shuffled", **options)
        assert run.error is None or isinstance(run.error, LimitReached)
        assert run.trace.count("model_called") == 50
        assert {row.facts["reason"] for row in run.trace.events("conversation_stopped")} == {"usage"}

    def test_the_limit_is_what_stops_them(self):
        assert simulate(party, limits=77).trace.count("model_called") == 77

    def test_hops_count_through_the_tool(self):
        run = simulate(party, hops=3, limits=10_000)
        assert run.error is None
        assert run.trace.count("model_called") == 2 * (1 + 2 + 2 * 3)  # each hears of two, and is answered
        assert {row.facts["reason"] for row in run.trace.events("conversation_stopped")} == {"hops"}

    def test_a_message_that_was_not_sent_gives_its_budget_to_nobody(self, world):
        calls = [tool_call("send_message", recipient="desk", text="x")] * 5  # refused before it has a number
        world.spawn(Desk("desk"))
        ada = thinker(world, bus_tools(), *calls, limits=6)
        other = world.spawn(LLMAgent("other", model="offline:instant", limits=6))
        world.run(ada.ask("Go."))
        world.run(ada.tell("other", "chat", text="Hello."))
        world.run(until=1)
        assert other.metrics["failed"] == 0 and ada.metrics["failed"] == 1  # ada's script is over, other has answered

    @pytest.mark.parametrize("services", [1, 2])
    def test_services_between_do_not_prolong_a_task(self, world, services):
        class Front(Agent):
            @capability
            async def start(self) -> str:
                return await self.request("back", "start")

        class Back(Agent):
            @capability
            async def start(self) -> str:
                return await self.request("ada", "ask", prompt="Go.")

        world.spawn(Back("back", concurrency=1000))
        world.spawn(Front("front", concurrency=1000))
        tools = capability_tools("back" if services == 1 else "front")
        model = scripted(matching={"": tool_call("start")})
        ada = world.spawn(LLMAgent("ada", toolsets=[tools], model=model, concurrency=1000, limits=20, hops=1000))
        with pytest.raises(LimitReached):
            world.run(ada.ask("Go."))
        assert world.trace.count("model_called") == 20


class TestFaults:
    @pytest.mark.parametrize(
        ("faults", "expected"),
        [
            (FaultPlan(drop=1.0), "RequestTimeout"),
            (FaultPlan(appointments=[Crash("desk", at=1.0)]), "AgentCrashed: desk crashed"),
        ],
    )
    @pytest.mark.parametrize("seed", range(3))
    def test_messages_and_agents(self, faults, expected, seed):
        async def scenario(world):
            world.spawn(Desk("desk"))
            ada = thinker(world, capability_tools("desk"), tool_call("dawdle"))
            return await ada.ask("Go.")

        run = simulate(scenario, seed=seed, faults=faults, schedule="shuffled")
        ((text, good),) = eval(run.result)
        assert not good and text.startswith(expected)

    def test_the_model_of_the_agent_asked(self):
        async def scenario(world):
            world.spawn(LLMAgent("oracle", model="offline:instant"))
            return await thinker(world, capability_tools("oracle", "ask"), tool_call("ask", prompt="?")).ask("Go.")

        faults = FaultPlan(appointments=[ModelFault("unavailable", agent="oracle")])
        ((text, good),) = eval(simulate(scenario, faults=faults).result)
        assert not good and text.startswith("ModelUnavailable")

    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_the_same_seed_gives_the_same_run(self, schedule):
        faults = FaultPlan(drop=0.1, duplicate=0.1)
        runs = [simulate(party, seed=3, faults=faults, schedule=schedule, concurrency=3) for _ in range(2)]
        assert runs[0].trace.digest == runs[1].trace.digest
        assert runs[0].trace.count("model_called") <= 50


@pytest.mark.parametrize(
    ("prompt", "tool", "content"),
    [
        (
            "Send a message to billing: Invoice 12 is wrong. Please check.",
            "send_message",
            "Invoice 12 is wrong. Please check.",
        ),
        ("Broadcast to all agents: The system is down.", "broadcast", "The system is down."),
        ("Update shared data: Set 'agent_0_status' to 'at_lunch'", "write_shared_state", "at_lunch"),
        ("Read the shared state: what is stored under the key plan?", "read_shared_state", None),
        ("What recent messages have you sent or got?", "recent_messages", None),
    ],
)
def test_the_offline_model_chooses_and_fills_the_tools(world, prompt, tool, content):
    store, ear = MemoryStore(world), world.spawn(Ear("billing"))
    world.spawn(Ear("shipping"))
    world.run(world.spawn(LLMAgent("ada", toolsets=[bus_tools(store)], model="offline:fast")).ask(prompt))
    assert [(row.facts["tool"], row.facts["outcome"]) for row in world.trace.events("tool_called")] == [
        (tool, "answered")
    ]
    heard = [text for _, _, text in ear.heard] + [entry.value for entry in world.run(store.list())]
    assert heard == ([] if content is None else [content])
