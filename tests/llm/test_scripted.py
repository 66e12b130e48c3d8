"""Scripts: answers in order or by what the prompt says, and loud failures on either side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from pydantic import BaseModel

from masbook import Agent, World, simulate
from masbook.errors import InvalidValue, ModelRateLimited, ModelTimeout, ScriptExhausted, ScriptUnused
from masbook.llm import LLMAgent, scripted, tool_call


class Risk(BaseModel):
    level: str


@dataclass
class Plan:
    steps: list[str]


def test_answers_come_in_order(world):
    agent = world.spawn(LLMAgent("agent", model=scripted("one", "two")))
    assert [world.run(agent.ask("?")) for _ in range(2)] == ["one", "two"]
    first, _ = world.trace.events("model_called")
    assert first.facts["model"] == "scripted (answers given beforehand)" and first.facts["cost"] == 0


@pytest.mark.parametrize(
    ("output_type", "answer", "expected"),
    [
        (Risk, {"level": "high"}, Risk(level="high")),
        (Risk, Risk(level="low"), Risk(level="low")),
        (Plan, Plan(["a", "b"]), Plan(["a", "b"])),
        (list[int], [1, 2], [1, 2]),
        (int, 7, 7),
        (Literal["yes", "no"], "yes", "yes"),
        (str, "text", "text"),
    ],
)
def test_data_fills_the_output_type(world, output_type, answer, expected):
    agent = world.spawn(LLMAgent("agent", output_type=output_type, model=scripted(answer)))
    assert world.run(agent.ask("?")) == expected


def test_data_fills_the_member_of_a_union_that_it_is(world):
    agent = world.spawn(LLMAgent("agent", output_type=[Risk, Plan], model=scripted(Plan(["x"]), Risk(level="low"))))
    assert [world.run(agent.ask("?")) for _ in range(2)] == [Plan(["x"]), Risk(level="low")]


def test_answers_by_what_the_prompt_says(world):
    model = scripted(matching={r"refund|money": "sorry", "^hello": ["first", "second"], "": "anything"})
    agent = world.spawn(LLMAgent("agent", model=model))
    prompts = ["hello", "give me my money", "hello there", "my refund", "what?"]
    assert [world.run(agent.ask(prompt)) for prompt in prompts] == ["first", "sorry", "second", "sorry", "anything"]
    with pytest.raises(ScriptExhausted, match="hello again"):
        world.run(agent.ask("hello again"))


def test_a_function_answers_from_the_question(world):
    agent = world.spawn(LLMAgent("agent", "You count.", model=scripted(lambda asked: str(len(asked.prompt)))))
    assert world.run(agent.ask("four")) == "4"


def test_an_error_is_raised_and_tried_again_where_that_helps(world):
    agent = world.spawn(LLMAgent("agent", model=scripted(ModelRateLimited("slowly", 2.0), "there", ModelTimeout("no"))))
    assert world.run(agent.ask("?")) == "there"
    assert world.now == 2.0
    with pytest.raises(ModelTimeout):
        world.run(agent.ask("?"))


def test_latency_is_virtual(world):
    agent = world.spawn(LLMAgent("agent", model=scripted("late", latency=5.0)))
    world.run(agent.ask("?"))
    assert world.now == 5.0


def test_a_script_that_runs_out_says_for_which_prompt(world):
    agent = world.spawn(LLMAgent("agent", model=scripted("only one")))
    world.run(agent.ask("first"))
    with pytest.raises(ScriptExhausted, match="after 1 given, to 'second'"):
        world.run(agent.ask("second"))


def test_a_script_that_runs_out_is_loud_also_in_a_message(world):
    world.spawn(LLMAgent("agent", model=scripted()))
    client = world.spawn(Agent("client"))

    async def talk():
        await client.tell("agent", "chat", text="hello")
        await client.sleep(1)

    world.run(talk())
    (crash,) = world.trace.events("crashed")
    assert crash.who == "agent" and crash.facts["error"] == "ScriptExhausted"


def test_a_script_that_runs_out_inside_a_tool_is_not_told_to_the_model_away(world):
    world.spawn(LLMAgent("helper", model=scripted()))

    async def ask_helper(ctx) -> str:
        return await ctx.deps.request("helper", "ask", prompt="help")

    from pydantic_ai import RunContext

    ask_helper.__annotations__["ctx"] = RunContext[LLMAgent]
    agent = world.spawn(LLMAgent("agent", tools=[ask_helper], model=scripted(tool_call("ask_helper"), "never")))
    with pytest.raises(ScriptExhausted):
        world.run(agent.ask("?"))
    with pytest.raises(ScriptUnused, match="never"):
        world.close()


def test_what_nobody_asked_for_is_an_error_at_the_end_of_the_world():
    with pytest.raises(ScriptUnused, match="2 of the script's answers: 'two'; 'three'"), World() as world:
        agent = world.spawn(LLMAgent("agent", model=scripted("one", "two", "three")))
        world.run(agent.ask("?"))


def test_a_pattern_that_was_never_found_is_unused():
    with pytest.raises(ScriptUnused, match="'never': 'x'"), World() as world:
        world.spawn(LLMAgent("agent", model=scripted(matching={"never": "x"})))


def test_another_error_is_not_hidden_by_the_unused_script():
    with pytest.raises(ZeroDivisionError), World() as world:
        world.spawn(LLMAgent("agent", model=scripted("one")))
        _ = 1 / 0


def test_in_a_simulation_an_unused_script_is_the_error_of_the_run():
    async def scenario(world):
        world.spawn(LLMAgent("agent", model=scripted("one")))

    run = simulate(scenario)
    assert isinstance(run.error, ScriptUnused)


def test_a_script_can_be_checked_before_the_end(world):
    model = scripted("one")
    with pytest.raises(ScriptUnused):
        model.check()
    agent = world.spawn(LLMAgent("agent", model=model))
    world.run(agent.ask("?"))
    model.check()


def test_a_script_begins_afresh_in_every_world():
    async def scenario(world, model):
        return await world.spawn(LLMAgent("agent", model=model)).ask("?")

    model = scripted("one")
    runs = [simulate(scenario, seed=seed, model=model) for seed in range(3)]
    assert [run.result for run in runs] == ["one"] * 3 and not any(run.error for run in runs)


def test_in_order_or_by_matching():
    with pytest.raises(InvalidValue, match="not both"):
        scripted("one", matching={"a": "b"})


@pytest.mark.parametrize("matching", [{"(": "x"}, {7: "x"}, ["a"], "a"])
def test_patterns_are_checked_at_once(matching):
    with pytest.raises(InvalidValue, match="regular expression"):
        scripted(matching=matching)


def test_a_shared_script_answers_in_the_order_of_the_calls(world):
    model = scripted("one", "two")
    agents = [world.spawn(LLMAgent(name, model=model)) for name in ("a", "b")]
    assert [world.run(agent.ask("?")) for agent in agents] == ["one", "two"]


def test_a_list_of_texts_is_no_text(world):
    """Who forgets the star hands in one answer, and got it as JSON."""
    agent = world.spawn(LLMAgent("agent", model=scripted(["one", "two"])))
    with pytest.raises(InvalidValue, match=r"is a list, where text is wanted: write scripted\(\*answers\)"):
        world.run(agent.ask("?"))
