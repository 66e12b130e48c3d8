"""Agents that think: asked and told, with typed outputs, without leaks between tasks, and never for ever."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

from masbook import Agent, simulate
from masbook.errors import LimitReached
from masbook.llm import LLMAgent


class Risk(BaseModel):
    level: Literal["low", "medium", "high"]
    reasons: list[str]


def calls(world):
    return [event.facts for event in world.trace.events("model_called")]


def test_ask_answers_a_call_and_a_message_alike(world):
    analyst = world.spawn(LLMAgent("analyst", "You judge risks.", model="offline:instant", output_type=Risk))
    client = world.spawn(Agent("client"))
    called = world.run(analyst.ask("The risk is high."))
    requested = world.run(client.request("analyst", "ask", prompt="The risk is high."))
    assert called == Risk(level="high", reasons=["The risk is high."])
    assert Risk.model_validate(requested) == called
    assert {call["model"] for call in calls(world)} == {"offline:instant (rule-based expert, no language model)"}


def test_an_answer_takes_virtual_time_and_has_a_price(world):
    analyst = world.spawn(LLMAgent("analyst", model="offline:strong"))
    world.run(analyst.ask("What is to be done about the outage?"))
    (call,) = calls(world)
    assert call["seconds"] == world.now > 0
    assert call["cost"] == pytest.approx((3 * call["input_tokens"] + 15 * call["output_tokens"]) / 1e6)


def test_each_task_begins_without_a_history_unless_it_continues_a_conversation(world):
    analyst = world.spawn(LLMAgent("analyst", model="offline:instant"))
    for prompt in ("one", "two"):
        world.run(analyst.ask(prompt))
    assert [said.content for said in analyst.user] == ["two"]
    for prompt in ("three", "four"):
        world.run(analyst.ask(prompt, conversation="case"))
    assert [said.content for said in analyst.user] == ["three", "four"]
    assert len(analyst.assistant) == 2


async def polite(world, hops=20, limits=50):
    """Two agents that answer whatever they are told."""
    for name in ("ada", "ben"):
        world.spawn(LLMAgent(name, "You are polite.", model="offline:fast", hops=hops, limits=limits))
    await world.agents["ada"].tell("ben", "chat", text="Thank you!")
    await world.agents["ada"].sleep(300)


@pytest.mark.parametrize(("hops", "limits", "least"), [(20, 50, 20), (10_000, 50, 50), (10_000, 7, 7)])
def test_two_polite_agents_stop(hops, limits, least):  # seed defect 15
    run = simulate(polite, seed=1, hops=hops, limits=limits)
    assert run.error is None
    assert run.trace.count("model_called") == least <= 50
    (stop,) = run.trace.events("conversation_stopped")
    assert stop.facts["reason"] == ("hops" if hops == 20 else "usage")
    (failed,) = run.trace.events("failed")
    assert failed.facts["error"].startswith(LimitReached.__name__)
