"""What others hear of an agent that thinks: when a tool or a run of it has finished, and how."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from pydantic_ai import ToolOutput

from masbook import Agent, Message, on, simulate
from masbook.coordination import DomainEvent, EventBus, ReactiveCoordinator
from masbook.errors import LimitReached, ModelTimeout
from masbook.lab import frames
from masbook.llm import LLMAgent, run_phases, scripted, tool_call
from masbook.llm.problems import redact


class Listener(Agent):
    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    @on("event.tool.*")
    @on("event.run.*")
    async def hear(self, message: Message) -> None:
        self.heard.append(DomainEvent.told(message.time, message.sender, message.topic, message.content))


class Verdict(BaseModel):
    level: str
    reasons: set[str]


def divide(a: int, b: int) -> float:
    return a / b


def outcomes(world):
    return [(row.facts["outcome"], row.facts["output"], row.facts["error"]) for row in world.trace.events("run_ended")]


def test_others_hear_when_a_tool_or_a_run_has_finished(world):
    listener, events = world.spawn(Listener("listener")), world.spawn(EventBus())
    model = scripted(tool_call("divide", a=1, b=2), tool_call("divide", a=1, b=0), "a half", latency=1.0)
    world.run(world.spawn(LLMAgent("analyst", model=model, tools=[divide])).ask("?"))
    world.run(until=10)
    tool = {"tool": "divide", "seconds": 0.0}
    assert listener.heard == [
        DomainEvent("tool.finished", "analyst", 1.0, {**tool, "outcome": "answered", "error": None}),
        DomainEvent(
            "tool.finished",
            "analyst",
            2.0,
            {**tool, "outcome": "failed", "error": "ZeroDivisionError: division by zero"},
        ),
        DomainEvent(
            "run.finished",
            "analyst",
            3.0,
            {"seconds": 3.0, "outcome": "completed", "output": "a half", "error": None},
        ),
    ]
    assert world.run(events.history("*.finished", source="analyst")) == listener.heard


def test_a_coordinator_tells_the_other_agents(world):
    seen = []

    def look(question):
        seen.append(question.earlier)
        return "good"

    ann = world.spawn(LLMAgent("ann", model=scripted(tool_call("divide", a=4, b=2), "two"), tools=[divide]))
    bob = world.spawn(LLMAgent("bob", model=scripted(look)))
    coordinator = world.spawn(ReactiveCoordinator("coordinator"))
    world.spawn(EventBus())

    async def notify(event):
        for one in (ann, bob):
            if one.name != event.source:
                one.remember(f"{event.source}: {event.type} {event.payload['outcome']}", "office")

    coordinator.react("tool.*", notify)
    coordinator.react("run.*", notify)

    async def work():
        await ann.ask("Divide 4 by 2.")
        await ann.sleep(1)
        await bob.ask("How is Ann?", conversation="office")

    world.run(work())
    assert seen == [("ann: tool.finished answered", "ann: run.finished completed")]


def test_every_run_ends_once_however_it_does(world):
    world.spawn(LLMAgent("slow", model=scripted(ModelTimeout("late"), "never", latency=5.0), attempts=1))
    client = world.spawn(Agent("client"))

    async def work():
        for on_timeout in ("leave", "cancel"):
            with pytest.raises(TimeoutError):  # the model's, then the request's
                await client.request(
                    "slow", "ask", prompt="?", timeout=5.5 if on_timeout == "leave" else 1.0, on_timeout=on_timeout
                )
        await client.sleep(10)

    world.run(work())
    assert outcomes(world) == [("failed", None, "ModelTimeout: late"), ("cancelled", None, None)]
    table = frames.events(world, "run_ended")
    assert table["seconds"].tolist() == [0.0, 1.0] and table["output"].dtype == "str"


def test_a_crash_ends_the_run_and_a_limit_is_its_error(world):
    agent = world.spawn(LLMAgent("agent", model=scripted(matching={"": "ok"}, latency=5.0), hops=1))
    other = world.spawn(LLMAgent("other", tools=[divide], limits=2, model=scripted(matching={"": tool_call("divide")})))
    world.loop.call_later(1.0, agent.crash, ValueError("burnt"))
    client = world.spawn(Agent("client"))

    async def work():
        with pytest.raises(Exception, match="crashed"):
            await client.request("agent", "ask", prompt="?")
        with pytest.raises(LimitReached):
            await other.ask("?")

    world.run(work())
    (crashed, limited) = outcomes(world)
    assert crashed == ("cancelled", None, None)
    assert limited[0] == "failed" and limited[2].startswith("LimitReached: other ends the conversation")


def test_a_stream_has_ended_when_it_is_over(world):
    agent = world.spawn(LLMAgent("agent", model=scripted("one two three")))

    async def listen():
        return [part async for part in agent.ask_in_parts("?")]

    assert "".join(world.run(listen())) == "one two three"
    assert outcomes(world) == [("completed", "one two three", None)]


@pytest.mark.parametrize("output_type", [Verdict, ToolOutput(Verdict, name="judge"), [Verdict, str]])
def test_the_output_is_in_the_row_as_the_model_wrote_it(world, output_type):
    """Also sets, whose order differs from process to process."""
    agent = world.spawn(
        LLMAgent("agent", output_type=output_type, model=scripted({"level": "low", "reasons": ["a", "b"]}))
    )
    world.run(agent.ask("?"))
    ((_, output, _),) = outcomes(world)
    assert output == '{"level":"low","reasons":["a","b"]}'


def test_a_key_in_an_error_is_not_told(world):
    agent = world.spawn(LLMAgent("agent", model=scripted(ValueError("refused for key sk-abcdefgh12345678"))))
    with pytest.raises(ValueError, match="refused"):
        world.run(agent.ask("?"))
    assert "sk-abc" not in str(list(world.trace))


@pytest.mark.parametrize(
    "key", ["sk-proj-abc123", "gsk_abcdef123", "xai-abcdef123", "AIzaSyabcdef", "Bearer abcdef.ghi1"]
)
def test_what_looks_like_a_key_is_hidden_and_words_are_not(key):
    text = "the skeleton of a skyscraper, task-123456, pkgutil_walk, basic trains"
    assert redact(f"{text}: {key}") == f"{text}: [key]"


def test_told_in_the_same_order_in_every_run():
    async def team(world):
        listener = world.spawn(Listener("listener"))
        world.spawn(EventBus())
        agents = [world.spawn(LLMAgent(name, model="offline")) for name in ("ann", "bob")]
        await run_phases(agents, ["What is the risk?", "And then?"])
        await listener.sleep(1)
        return [[event.source, event.payload["output"]] for event in listener.heard]

    for schedule in ("fifo", "shuffled"):
        first, second = (simulate(team, 5, schedule=schedule) for _ in range(2))
        assert first.digest == second.digest and len(first.result) == 4
        assert [event["output"] for event in frames.events(first, "run_ended").to_dict("records")] == [
            output for _, output in first.result
        ]
