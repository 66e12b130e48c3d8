"""Agents that think: asked and told, with typed outputs and tools, without leaks between tasks, and never for ever."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import UsageLimits

from masbook import Agent, Message, World, on, simulate
from masbook.errors import (
    InvalidValue,
    LimitReached,
    ModelMisbehaved,
    ModelRefused,
    ModelTimeout,
    Unrecordable,
    WorldError,
)
from masbook.lab import frames
from masbook.llm import LLMAgent, capability_tools, scripted, tool_call


class Risk(BaseModel):
    level: Literal["low", "medium", "high"]
    reasons: list[str]


class Tags(BaseModel):
    tags: set[str] = {"a", "b"}


@dataclass
class Point:
    x: int


def calls(world):
    return [event.facts for event in world.trace.events("model_called")]


def tool_rows(world):
    return [(row.facts["tool"], row.facts["outcome"], row.facts["error"]) for row in world.trace.events("tool_called")]


class Ear(Agent):
    """Hears what is told to it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[Any] = []

    async def on_message(self, message: Message) -> None:
        self.heard.append((message.sender, message.topic, dict(message.content)))


class TestAsking:
    def test_a_call_and_a_message_are_answered_alike(self, world):
        analyst = world.spawn(LLMAgent("analyst", "You judge risks.", model="offline:instant", output_type=Risk))
        client = world.spawn(Agent("client"))
        called = world.run(analyst.ask("The risk is high."))
        requested = world.run(client.request("analyst", "ask", prompt="The risk is high."))
        assert isinstance(called, Risk) and called.level == "high"
        assert requested == called
        assert analyst.offers["ask"].output_schema["title"] == "Risk"
        assert {call["model"] for call in calls(world)} == {"offline:instant (rule-based expert, no language model)"}

    def test_the_latency_is_virtual_and_an_answer_has_a_price(self, world):
        analyst = world.spawn(LLMAgent("analyst", model="offline:strong"))
        world.run(analyst.ask("What is to be done about the outage?"))
        (call,) = calls(world)
        assert call["seconds"] == world.now > 0
        assert call["cost"] == pytest.approx((3 * call["input_tokens"] + 15 * call["output_tokens"]) / 1e6)

    def test_the_model_gets_instructions_and_prompt(self, world):
        seen = []
        model = scripted(lambda asked: seen.append((asked.instructions, asked.prompt)) or "ok")
        world.run(world.spawn(LLMAgent("a", "Be brief.", model=model)).ask("What?"))
        assert seen == [("Be brief.", "What?")]

    @pytest.mark.parametrize(
        ("output_type", "output"), [(list[int], [1]), (Point, Point(2)), (int, 3), ([int, str], 4)]
    )
    def test_an_answer_by_message_is_of_the_output_type(self, world, output_type, output):
        world.spawn(LLMAgent("agent", output_type=output_type, model=scripted(output)))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("agent", "ask", prompt="?")) == output

    def test_several_at_once_with_concurrency(self, world):
        model = scripted(matching={"": "ok"}, latency=1.0)
        world.spawn(LLMAgent("agent", model=model, concurrency=5))
        client = world.spawn(Agent("client"))

        async def many():
            await asyncio.gather(*[client.request("agent", "ask", prompt=str(i)) for i in range(10)])

        world.run(many())
        assert world.now == 2.0

    def test_an_output_that_never_fits_is_a_typed_error(self, world):
        agent = world.spawn(LLMAgent("agent", output_type=Risk, model=scripted(matching={"": {"level": "huge"}})))
        with pytest.raises(ModelMisbehaved, match="output"):
            world.run(agent.ask("?"))
        assert len(calls(world)) == 4

    def test_an_output_that_does_not_fit_is_mended(self, world):
        model = scripted({"level": "huge"}, {"level": "high", "reasons": []})
        agent = world.spawn(LLMAgent("agent", output_type=Risk, model=model))
        assert world.run(agent.ask("?")).level == "high"

    @pytest.mark.parametrize("output_type", [World, 7, "Risk", dict[World, int]])
    def test_an_output_type_without_a_schema_is_refused_at_once(self, output_type):
        with pytest.raises(InvalidValue, match="output_type"):
            LLMAgent("agent", model="offline:instant", output_type=output_type)

    def test_a_tool_without_a_schema_is_refused_at_once(self):
        def look(world: World) -> str:
            return ""

        for tools in ([look], [7]):
            with pytest.raises(InvalidValue, match="tool"):
                LLMAgent("agent", model="offline:instant", tools=tools)

    @pytest.mark.parametrize("wrong", [None, 5, "", "  ", b"x", ["a"]])
    def test_what_is_no_text_is_refused_at_once(self, world, wrong):
        agent = world.spawn(LLMAgent("agent", model="offline:instant"))

        async def listen():
            return [text async for text in agent.ask_in_parts(wrong)]

        for mistake in (agent.ask(wrong), listen(), agent.ask("Hello.", wrong if wrong is not None else 7)):
            with pytest.raises(InvalidValue, match="give some text"):
                world.run(mistake)
        with pytest.raises(InvalidValue):
            agent.remember(wrong, "talk")
        with pytest.raises(InvalidValue):
            agent.remember("It rains.", wrong)
        assert not calls(world) and not agent.conversations

    @pytest.mark.parametrize(
        "options",
        [
            {"instructions": None},
            {"instructions": ["a"]},
            {"tools": len},
            {"tools": "x"},
            {"toolsets": None},
            {"toolsets": [3]},
            {"toolsets": [capability_tools]},
            {"settings": 3},
            {"settings": "cold"},
        ],
    )
    def test_an_argument_of_the_wrong_kind_is_refused_at_once(self, options):
        with pytest.raises(InvalidValue, match="agent"):
            LLMAgent("agent", model="offline:instant", **options)

    def test_the_error_of_a_request_reaches_who_asked(self, world):
        world.spawn(LLMAgent("agent", model=scripted("late", latency=100), timeout=2.0))
        client = world.spawn(Agent("client"))
        with pytest.raises(ModelTimeout):
            world.run(client.request("agent", "ask", prompt="?"))
        assert world.agents["agent"].state == "idle"

    def test_an_error_says_what_happened_in_a_few_frames(self, world):
        agent = world.spawn(LLMAgent("agent", model=scripted(ModelTimeout("late"))))
        with pytest.raises(ModelTimeout) as caught:
            world.run(agent.ask("?"))
        assert not [entry for entry in caught.traceback if "pydantic_ai" in str(entry.path)]


class TestConversations:
    def test_each_task_begins_without_a_history(self, world):  # seed: history leaks from task to task
        seen = []
        agent = world.spawn(LLMAgent("agent", model=scripted(matching={"": lambda asked: seen.append(asked) or "ok"})))
        for prompt in ("my name is Ada", "what is my name?"):
            world.run(agent.ask(prompt))
        assert [asked.earlier for asked in seen] == [(), ()]
        assert [said.content for said in agent.user] == ["what is my name?"]
        assert [said.content for said in agent.assistant] == ["ok"]

    def test_a_conversation_is_continued_on_purpose(self, world):
        seen = []
        agent = world.spawn(LLMAgent("agent", model=scripted(matching={"": lambda asked: seen.append(asked) or "ok"})))
        for prompt, conversation in (("one", "a"), ("two", "b"), ("three", "a"), ("four", None)):
            world.run(agent.ask(prompt, conversation))
        assert [asked.earlier for asked in seen] == [(), (), ("one",), ()]
        agent.forget("a")
        world.run(agent.ask("five", conversation="a"))
        assert seen[-1].earlier == ()

    def test_old_conversations_are_forgotten(self, world, monkeypatch):
        monkeypatch.setattr("masbook.llm.agent.REMEMBERED", 3)
        agent = world.spawn(LLMAgent("agent", model="offline:instant"))
        for number in range(5):
            world.run(agent.ask("Hello.", conversation=str(number)))
        assert list(agent.conversations) == ["2", "3", "4"]

    def test_what_was_heard_is_remembered(self, world):
        seen = []
        agent = world.spawn(LLMAgent("agent", model=scripted(lambda asked: seen.append(asked) or "ok")))
        agent.remember("Ben: it rains", "talk")
        assert [said.content for said in agent.user] == ["Ben: it rains"]
        world.run(agent.ask("What is the weather?", conversation="talk"))
        assert seen[0].earlier == ("Ben: it rains",)

    def test_a_task_that_failed_leaves_no_trace_in_the_conversation(self, world):
        agent = world.spawn(LLMAgent("agent", model=scripted("one", ModelTimeout("late"), "three")))
        world.run(agent.ask("1", conversation="a"))
        with pytest.raises(ModelTimeout):
            world.run(agent.ask("2", conversation="a"))
        world.run(agent.ask("3", conversation="a"))
        assert [said.content for said in agent.user] == ["1", "3"]

    def test_an_answer_that_is_not_text_is_shown_as_json(self, world):
        agent = world.spawn(LLMAgent("agent", output_type=Point, model=scripted(Point(3))))
        world.run(agent.ask("?"))
        assert [said.content for said in agent.assistant] == ['{"x":3}']


class TestTelling:
    def test_what_it_is_told_is_answered_to_the_sender(self, world):
        world.spawn(LLMAgent("agent", model=scripted("Hello Ada.", "Good, thanks.", latency=1.0)))
        ear = world.spawn(Ear("ear"))

        async def talk():
            await ear.tell("agent", "chat", text="Hello!")
            await ear.tell("agent", "weather", city="Lima", degrees=3)
            await ear.sleep(5)

        world.run(talk())
        assert ear.heard == [("agent", "chat", {"text": "Hello Ada."}), ("agent", "weather", {"text": "Good, thanks."})]

    def test_an_output_that_is_not_text_is_told_as_data(self, world):
        world.spawn(LLMAgent("agent", output_type=Point, model=scripted(Point(3))))
        ear = world.spawn(Ear("ear"))

        async def talk():
            await ear.tell("agent", "chat", text="Where?")
            await ear.sleep(1)

        world.run(talk())
        assert ear.heard == [("agent", "chat", {"output": {"x": 3}})]

    def test_a_conversation_by_messages_has_its_own_history(self, world):
        seen = []
        model = scripted(matching={"": lambda asked: seen.append(asked) or "ok"})
        world.spawn(LLMAgent("agent", model=model))
        ear = world.spawn(Ear("ear"))

        async def talk():
            for text, conversation in (("one", 11), ("two", 12), ("three", 11)):
                await ear.tell("agent", "chat", text=text, conversation=conversation)
                await ear.sleep(1)

        world.run(talk())
        assert [asked.earlier for asked in seen] == [(), (), ("one",)]

    def test_publications_and_broadcasts_are_not_answered(self, world):
        world.spawn(LLMAgent("agent", model="offline:instant"))
        ear = world.spawn(Ear("ear"))

        async def talk():
            await ear.broadcast("news", text="It rains.")
            await ear.publish("news", text="It rains.")
            await ear.sleep(5)

        world.run(talk())
        assert not calls(world)

    def test_a_subclass_handles_topics_of_its_own(self, world):
        class Reader(LLMAgent):
            @on("news")
            async def read(self, message: Message) -> None:
                self.note(await self.ask(message.content["text"]))

        world.spawn(Reader("reader", model=scripted("I see.")))
        ear = world.spawn(Ear("ear"))

        async def talk():
            await ear.publish("news", text="It rains.")
            await ear.sleep(1)

        world.run(talk())
        assert next(world.trace.events("note")).facts["text"] == "I see."

    def test_a_model_that_fails_is_a_message_that_failed_not_a_crash(self, world):
        agent = world.spawn(LLMAgent("agent", model=scripted(ModelTimeout("late"), "better")))
        ear = world.spawn(Ear("ear"))

        async def talk():
            await ear.tell("agent", "chat", text="one")
            await ear.tell("agent", "chat", text="two")
            await ear.sleep(1)

        world.run(talk())
        (failed,) = world.trace.events("failed")
        assert failed.facts["error"] == "ModelTimeout: late" and agent.state == "idle"
        assert [content["text"] for _, _, content in ear.heard] == ["better"]

    def test_a_sender_that_does_not_listen_costs_the_agent_nothing(self, world):
        class Deaf(Agent):
            async def on_start(self) -> None:
                await self.tell("agent", "chat", text="Hello!")

        agent = world.spawn(LLMAgent("agent", model=scripted("Hello.")))
        world.spawn(Deaf("deaf"))
        world.run(until=1)
        assert agent.state == "idle"
        (failed,) = world.trace.events("failed")
        assert failed.facts["error"].startswith("UnknownCapability")


async def polite(world, hops=20, limits=50, names=("ada", "ben"), seconds=300):
    """Agents that answer whatever they are told, for five minutes or as long as they are let."""
    for name in names:
        world.spawn(LLMAgent(name, "You are polite.", model="offline:fast", hops=hops, limits=limits))
    await world.agents[names[0]].tell(names[1], "chat", text="Thank you!")
    await world.agents[names[0]].sleep(seconds)


class Postman(Agent):
    """Passes on what it is told, to the other one: it breaks the chain of answers, not the conversation."""

    async def on_message(self, message: Message) -> None:
        other = {"ada": "ben", "ben": "ada"}.get(message.sender, "ada")
        await self.tell(other, "chat", text=message.content["text"])


class TestLimits:
    @pytest.mark.parametrize(("hops", "limits", "expected"), [(20, 50, 20), (10_000, 50, 50), (10_000, 7, 7)])
    def test_two_polite_agents_stop(self, hops, limits, expected):  # seed defect 15
        run = simulate(polite, seed=1, hops=hops, limits=limits)
        assert run.error is None
        assert run.trace.count("model_called") == expected <= 50
        (stop,) = run.trace.events("conversation_stopped")
        assert stop.facts["reason"] == ("hops" if hops == 20 else "usage")
        assert stop.facts["conversation"] is not None
        (failed,) = run.trace.events("failed")
        assert failed.facts["error"].startswith(LimitReached.__name__)

    def test_without_limits_they_would_go_on(self):  # the violation that the limits prevent
        limits = UsageLimits(request_limit=None)
        run = simulate(polite, hops=10_000, limits=limits, seconds=30)
        assert run.trace.count("model_called") > 60

    @pytest.mark.parametrize("seed", range(5))
    def test_they_stop_in_every_order_of_events(self, seed):
        run = simulate(polite, seed=seed, schedule="shuffled")
        assert run.trace.count("model_called") == 20

    def test_a_go_between_does_not_prolong_it(self, world):
        async def relayed():
            for name in ("ada", "ben"):
                world.spawn(LLMAgent(name, model="offline:fast"))
            post = world.spawn(Postman("post"))
            await post.tell("ada", "chat", text="Thank you!")
            await post.sleep(300)

        world.run(relayed())
        assert len(calls(world)) == 50
        assert world.trace.count("conversation_stopped") == 1

    def test_another_conversation_has_a_budget_of_its_own(self, world):
        agent = world.spawn(LLMAgent("agent", model="offline:instant", limits=3))
        ear = world.spawn(Ear("ear"))

        async def talk():
            for number in range(10):
                await ear.tell("agent", "chat", text=str(number))
                await ear.sleep(1)

        world.run(talk())
        assert len(ear.heard) == 10
        for _ in range(5):
            world.run(agent.ask("again"))

    def test_a_task_that_calls_tools_for_ever_is_stopped(self, world):
        def again() -> str:
            return "once more"

        agent = world.spawn(
            LLMAgent("agent", tools=[again], model=scripted(matching={"": tool_call("again")}), limits=9)
        )
        with pytest.raises(LimitReached, match="request_limit of 9"):
            world.run(agent.ask("Go."))
        assert len(calls(world)) == 9
        (stop,) = world.trace.events("conversation_stopped")
        assert (stop.who, stop.facts["reason"], stop.facts["conversation"]) == ("agent", "usage", "run-1")
        with pytest.raises(LimitReached):
            world.run(agent.ask("Go.", conversation="office"))
        assert frames.events(world, "conversation_stopped")["conversation"].tolist() == ["run-1", "office"]

    def test_agents_that_ask_each_other_share_the_budget_of_the_task(self, world):
        async def pass_on(ctx: RunContext[LLMAgent]) -> str:
            other = {"ada": "ben", "ben": "ada"}[ctx.deps.name]
            return await ctx.deps.request(other, "ask", prompt="You do it.")

        model = scripted(matching={"": tool_call("pass_on")})
        for name in ("ada", "ben"):
            world.spawn(LLMAgent(name, tools=[pass_on], model=model, concurrency=100, limits=30, hops=10))
        client = world.spawn(Agent("client"))
        with pytest.raises(LimitReached):
            world.run(client.request("ada", "ask", prompt="Do it."))
        assert len(calls(world)) <= 30 and {row.facts["reason"] for row in world.trace.events("conversation_stopped")}

    def test_limits_of_tokens_and_cost(self, world):
        for number, limits in enumerate((UsageLimits(output_tokens_limit=2), UsageLimits(cost_limit=1e-9))):
            agent = world.spawn(LLMAgent(f"agent_{number}", model="offline:strong", limits=limits))
            with pytest.raises(LimitReached):
                world.run(agent.ask("A long answer to a long question, please, with many words."))

    def test_a_batch_handled_in_one_message_is_not_one_task(self, world):
        class Batch(Agent):
            async def on_message(self, message: Message) -> None:
                for number in range(60):
                    await self.request("agent", "ask", prompt=str(number))

        world.spawn(LLMAgent("agent", model="offline:instant"))
        world.spawn(Batch("batch"))
        client = world.spawn(Agent("client"))
        world.run(client.tell("batch", "go"))
        world.run(until=10)
        assert len(calls(world)) == 60 and not world.trace.count("conversation_stopped")


class TestTools:
    def test_sync_async_and_toolsets_with_the_agent_as_deps(self, world):
        def shout(text: str) -> str:
            """Shout."""
            return text.upper()

        async def wait(ctx: RunContext[LLMAgent], seconds: float) -> float:
            await ctx.deps.sleep(seconds)
            return ctx.deps.now

        more = FunctionToolset()

        @more.tool_plain
        def double(n: int) -> int:
            return 2 * n

        model = scripted(
            [tool_call("shout", text="hi"), tool_call("wait", seconds=2.0), tool_call("double", n=4)],
            lambda asked: str(sorted(result for _, result, _ in asked.results[:0]) or asked.results),
        )
        agent = world.spawn(LLMAgent("agent", model=model, tools=[shout, Tool(wait)], toolsets=[more]))
        answer = world.run(agent.ask("?"))
        assert answer == "(('shout', 'HI', True), ('wait', 2.0, True), ('double', 8, True))"
        assert world.now == 2.0
        assert sorted(tool_rows(world)) == [(tool, "answered", None) for tool in ("double", "shout", "wait")]

    def test_a_tool_that_fails_tells_the_model_why(self, world):
        def divide(a: int, b: int) -> float:
            return a / b

        model = scripted(tool_call("divide", a=1, b=0), lambda asked: str(asked.results))
        agent = world.spawn(LLMAgent("agent", model=model, tools=[divide]))
        assert world.run(agent.ask("?")) == "(('divide', 'ZeroDivisionError: division by zero', False),)"
        assert tool_rows(world) == [("divide", "failed", "ZeroDivisionError: division by zero")]

    def test_a_tool_can_ask_for_another_try(self, world):
        def guess(n: int) -> str:
            if n != 7:
                raise ModelRetry("higher")
            return "right"

        model = scripted(tool_call("guess", n=3), tool_call("guess", n=7), "done")
        agent = world.spawn(LLMAgent("agent", model=model, tools=[guess]))
        assert world.run(agent.ask("?")) == "done"
        assert [outcome for _, outcome, _ in tool_rows(world)] == ["failed", "answered"]

    @pytest.mark.parametrize("times", [1, 20])
    def test_a_typo_never_ends_a_run(self, world, times):  # seed: a model's typo aborts the run
        def send(to: str, number: int) -> str:
            return "sent"

        typos = [tool_call("sned", to="b", number=1), tool_call("send", to="b", number="one"), tool_call("send")]
        model = scripted(*(typos * times)[:40], tool_call("send", to="b", number=1), "done")
        agent = world.spawn(LLMAgent("agent", model=model, tools=[send]))
        assert world.run(agent.ask("?")) == "done"
        outcomes = [outcome for _, outcome, _ in tool_rows(world)]
        assert outcomes[:3] == ["unknown", "refused", "refused"] and outcomes[-1] == "answered"
        assert "send" in tool_rows(world)[0][2] and "number" in tool_rows(world)[1][2]

    def test_a_tool_that_awaits_something_cancelled_has_failed_and_the_run_goes_on(self, world):
        async def look() -> str:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future

        world.spawn(LLMAgent("agent", model=scripted(tool_call("look"), "ok"), tools=[look]))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("agent", "ask", prompt="?")) == "ok"
        assert tool_rows(world) == [("look", "failed", "CancelledError")]

    def test_a_request_that_is_given_up_ends_its_tools(self, world):
        async def wait(ctx: RunContext[LLMAgent]) -> None:
            try:
                await ctx.deps.sleep(100)
            finally:
                ctx.deps.note("over")

        world.spawn(LLMAgent("agent", model=scripted(tool_call("wait")), tools=[wait]))
        client = world.spawn(Agent("client"))
        with pytest.raises(TimeoutError):
            world.run(client.request("agent", "ask", prompt="?", timeout=2.0, on_timeout="cancel"))
        world.run(until=10)
        assert [row.time for row in world.trace.events("note")] == [2.0] and not tool_rows(world)

    @pytest.mark.parametrize(
        "result",
        [object(), {"a", "b"}, [{"x": {1}}], (n for n in "ab"), Tags(), len, b"x"],
        ids=lambda result: str(type(result)),
    )
    def test_a_result_that_no_model_can_read_is_an_error_of_who_wrote_the_tool(self, world, result):
        """Neither one that differs from process to process, as sets do, nor one that is gone when it has been read."""

        def look() -> Any:
            return result

        agent = world.spawn(LLMAgent("agent", model=scripted(tool_call("look")), tools=[look]))
        with pytest.raises(Unrecordable, match="the tool 'look' returned"):
            world.run(agent.ask("?"))

    def test_results_may_be_models_and_dataclasses(self, world):
        def where() -> Point:
            return Point(3)

        model = scripted(tool_call("where"), lambda asked: str(asked.results[0][1]))
        agent = world.spawn(LLMAgent("agent", model=model, tools=[where]))
        assert "3" in world.run(agent.ask("?"))

    def test_a_key_in_an_error_is_not_recorded(self, world):
        def call() -> str:
            raise ValueError("refused for key sk-abcdefgh12345678")

        agent = world.spawn(LLMAgent("agent", model=scripted(tool_call("call"), "ok"), tools=[call]))
        world.run(agent.ask("?"))
        assert "sk-abc" not in str(list(world.trace))


class TestStreams:
    def test_words_come_one_after_the_other_in_virtual_time(self, world):
        agent = world.spawn(LLMAgent("agent", model="offline:strong"))

        async def listen():
            return [(world.now, text) async for text in agent.ask_in_parts("The mail server is down since noon.")]

        parts = world.run(listen())
        whole = "".join(text for _, text in parts)
        times = [time for time, _ in parts]
        assert len(parts) > 3 and times == sorted(set(times)) and agent.assistant[0].content == whole
        (call,) = calls(world)
        assert call["seconds"] == pytest.approx(world.now) and call["output_tokens"] > 0

    def test_the_whole_answer_takes_as_long_as_without_a_stream(self):
        async def whole(world):
            agent = world.spawn(LLMAgent("agent", model="offline:strong"))
            return await agent.ask("The mail server is down since noon."), round(world.now, 9)

        async def parts(world):
            agent = world.spawn(LLMAgent("agent", model="offline:strong"))
            texts = [text async for text in agent.ask_in_parts("The mail server is down since noon.")]
            return "".join(texts), round(world.now, 9)

        assert simulate(whole, seed=3).result == simulate(parts, seed=3).result

    def test_by_message_with_tools(self, world):
        def look() -> str:
            return "rain"

        world.spawn(LLMAgent("agent", model=scripted(tool_call("look"), "It will rain"), tools=[look]))
        client = world.spawn(Agent("client"))

        async def listen():
            return [text async for text in client.stream("agent", "ask_in_parts", prompt="?")]

        assert "".join(world.run(listen())) == "It will rain"
        assert tool_rows(world) == [("look", "answered", None)]

    def test_leaving_early_stops_the_model(self, world):
        world.spawn(LLMAgent("agent", model="offline:strong"))
        client = world.spawn(Agent("client"))

        async def listen():
            async for text in client.stream("agent", "ask_in_parts", prompt="one two three four five six seven eight"):
                return text

        world.run(listen())
        world.run(until=100)
        assert world.agents["agent"].state == "idle"
        assert world.run(world.agents["agent"].ask("Hello again."))

    @pytest.mark.parametrize("how", ["break", "close", "error", "time-out"])
    def test_who_leaves_a_stream_of_a_call_leaves_nothing_half_closed(self, world, how):
        agent = world.spawn(LLMAgent("agent", model="offline:strong"))

        async def leave():
            parts = agent.ask_in_parts("a b c d")
            with suppress(KeyError, TimeoutError):
                async with asyncio.timeout(1.0 if how == "time-out" else None):
                    async for _ in parts:
                        if how == "error":
                            raise KeyError
                        break
            if how == "close":
                await parts.aclose()
            left.append(world.now)

        left = []
        world.run(leave())
        world.run(until=100)
        gc.collect()
        (call,) = calls(world)
        assert (call["outcome"], call["seconds"]) == ("cancelled", left[0])
        assert world.run(agent.ask("Hello again.")) and agent.state == "idle"

    def test_who_reads_slowly_costs_the_model_no_time(self, world):
        agent = world.spawn(LLMAgent("agent", model="offline:fast", timeout=5.0))

        async def read():
            texts = []
            async for text in agent.ask_in_parts("one two three four"):
                texts.append(text)
                await agent.sleep(20)
            return "".join(texts)

        assert world.run(read()) == "one two three four"
        assert calls(world)[0]["seconds"] < 5.0

    def test_an_output_that_is_not_text_cannot_be_streamed(self, world):
        agent = world.spawn(LLMAgent("agent", output_type=Point, model=scripted(Point(3))))

        async def listen():
            return [text async for text in agent.ask_in_parts("?")]

        with pytest.raises(ModelRefused, match="text"):
            world.run(listen())


def test_usage_and_cost_per_agent_add_up_to_the_total(world):
    for name, profile in (("ada", "fast"), ("ben", "strong"), ("cy", "instant")):
        agent = world.spawn(LLMAgent(name, model=f"offline:{profile}"))
        for number in range(5):
            world.run(agent.ask(f"Question number {number}?"))
    table = frames.model_calls(world)
    by_agent = table.groupby("who")[["input_tokens", "output_tokens", "cost"]].sum()
    rows = calls(world)
    for name in ("input_tokens", "output_tokens", "cost"):
        assert by_agent[name].sum() == pytest.approx(sum(row[name] for row in rows))
    assert by_agent["cost"]["ben"] > by_agent["cost"]["ada"] > by_agent["cost"]["cy"] == 0
    assert table["priced"].all() and (table["attempts"] == 1).all()


def test_calls_without_a_known_price_are_flagged(world):
    from pydantic_ai.models.test import TestModel

    world.run(world.spawn(LLMAgent("agent", model=TestModel())).ask("?"))
    table = frames.model_calls(world)
    assert not table["priced"].any() and table["cost"].isna().all()


def test_a_world_without_calls_has_an_empty_table(world):
    table = frames.model_calls(world)
    assert table.empty and table["attempts"].dtype == "int64"


class TestSlips:
    """What somebody does who sees this for the first time; each error says what to write instead."""

    def test_asked_by_await_where_no_world_runs(self, world):
        """In a cell of a notebook `await agent.ask(...)` ran into the time limit of the model."""
        agent = world.spawn(LLMAgent("agent", model=scripted("Yes.", "Yes.")))
        for question in (lambda: agent.ask("?"), lambda: anext(aiter(agent.ask_in_parts("?")))):
            with pytest.raises(WorldError, match=r"nothing runs here in which agent .*write world\.run"):
                asyncio.run(question())
        assert [world.run(agent.ask("?")) for _ in range(2)] == ["Yes.", "Yes."]

    def test_asked_in_the_run_of_another_world(self, world):
        agent = World(2).spawn(LLMAgent("agent", model=scripted("Yes.")))
        with pytest.raises(WorldError, match="nothing runs here"):
            world.run(agent.ask("?"))

    @pytest.mark.parametrize("tool", ["look_up", FunctionToolset(), ("look_up",), 7])
    def test_a_tool_that_is_no_function(self, tool):
        with pytest.raises(InvalidValue, match=r"a tool of agent is .*: give a function; a toolset .*`toolsets`"):
            LLMAgent("agent", tools=[tool])

    def test_a_tool_whose_context_has_no_type(self):
        """A model would have to fill it in."""

        async def look_up(ctx, order: str) -> str:
            return order

        with pytest.raises(InvalidValue, match=r"look_up .*write ctx: RunContext"):
            LLMAgent("agent", tools=[look_up])

    @pytest.mark.parametrize("output_type", ["int", Risk(level="low", reasons=[])])
    def test_an_output_type_that_is_no_type(self, output_type):
        with pytest.raises(InvalidValue, match="give a type, such as int"):
            LLMAgent("agent", output_type=output_type)
