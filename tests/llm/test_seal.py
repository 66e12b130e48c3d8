"""The seal: runs with models are the same in every process, with every hash seed, and in no threads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel
from pydantic_ai import Agent as Thinker
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from masbook import FaultPlan, ModelFault, World, simulate
from masbook.errors import LimitReached
from masbook.llm import LLMAgent, delegate, offline, reach_consensus, run_phases, scripted, tool_call
from masbook.llm.seal import EPOCH, RANDOM_ID

PROGRAM = """
import sys; sys.path.insert(0, {here!r})
from test_seal import society
from masbook import FaultPlan, ModelFault, simulate
faults = FaultPlan(delay=0.2, appointments=[ModelFault("unavailable", probability=0.1)])
print(*[simulate(society, seed=11, schedule=schedule, faults=faults).digest for schedule in ("fifo", "shuffled")])
"""


class Verdict(BaseModel):
    level: str
    reasons: set[str]


async def society(world):
    """Agents that are asked, told, fail, use tools at the same time, stream, converse, work in phases and in crews."""

    def look(place: str) -> str:
        return f"nothing at {place}"

    async def wait(seconds: float) -> float:
        await world.agents["user"].sleep(seconds)
        return world.now

    calls = [tool_call("look", place="door"), tool_call("wait", seconds=1.0), tool_call("nope")]
    world.spawn(LLMAgent("user", tools=[look, wait], model=scripted(calls, tool_call("look", place="window"), "done")))
    names = ("ada", "ben", "cy")
    for name, profile in zip(names, ("fast", "balanced", "strong"), strict=True):
        world.spawn(LLMAgent(name, "You judge.", model=f"offline:{profile}", output_type=Verdict, concurrency=2))
    talker = world.spawn(LLMAgent("talker", model="offline:fast"))
    await talker.tell("ada", "chat", text="How high is the risk?")
    world.agents["user"].background(world.agents["user"].ask("What is there?"))
    for name in names:
        for number in range(3):
            await talker.tell(name, "ask", prompt=f"The risk of number {number} is high.")
    async for text in talker.ask_in_parts("Tell me a story in many words."):
        talker.note(text)
    pair = [world.spawn(LLMAgent(name, model="offline:fast", hops=5)) for name in ("dan", "eve")]
    async with pair[0] | pair[1] as talk:
        await talk.say("dan", "How high is the risk?")
        await asyncio.gather(talk.reply("dan", "Go on."), talk.reply("eve"), return_exceptions=True)
        with suppress(LimitReached):
            await talk.rounds(3)
    async for _ in pair[0].ask_in_parts("One word is enough."):
        break
    await run_phases(pair, ["What is the risk?", lambda agent, done: str(done[0].results)])
    await reach_consensus(pair, "Is the risk high?", options=["yes", "no"])
    await delegate(talker, pair, "Look at the door. Look at the window. Write down both after 1 and 2.")
    await talker.sleep(60)


def test_the_digest_is_the_same_across_processes_and_hash_seeds():
    here = str(Path(__file__).parent)

    def digests(hash_seed):
        command, environment = [sys.executable, "-c", PROGRAM.format(here=here)], {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
        return done.stdout.split()

    faults = FaultPlan(delay=0.2, appointments=[ModelFault("unavailable", probability=0.1)])
    runs = [simulate(society, seed=11, schedule=schedule, faults=faults) for schedule in ("fifo", "shuffled")]
    assert all(run.error is None and run.trace.count("tool_called") == 4 for run in runs)
    assert digests("1") == digests("4242") == [run.digest for run in runs]


def test_another_seed_is_another_run():
    assert simulate(society, seed=1).digest != simulate(society, seed=2).digest


def test_one_agent_more_does_not_change_what_the_others_draw():
    async def scenario(world, extra=False):
        first = world.spawn(LLMAgent("first", model="offline:strong"))
        if extra:
            await world.spawn(LLMAgent("extra", model="offline:strong")).ask("Hello")
        began = world.now
        await first.ask("Hello")
        return round(world.now - began, 9)

    assert simulate(scenario).result == simulate(scenario, extra=True).result


def test_messages_are_dated_by_the_world_and_numbered_by_the_conversation(world):
    agent = world.spawn(LLMAgent("agent", tools=[len], model=scripted(tool_call("len", obj=[1]), "one", latency=2.0)))
    world.run(agent.ask("?"))
    dates = [(message.timestamp - EPOCH).total_seconds() for message in agent.messages]
    assert dates == [4.0, 2.0, 4.0, 4.0]
    assert {message.run_id for message in agent.messages} == {"run-1"}
    assert RANDOM_ID not in repr(agent.messages) and "call-1" in repr(agent.messages)


def test_ids_that_pydantic_ai_makes_up_do_not_reach_the_history(world):
    async def think(messages, info):
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("look"), ToolCallPart("look")])
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"level": "low", "reasons": []})])

    def look() -> str:
        return "x"

    agent = world.spawn(LLMAgent("agent", tools=[look], output_type=Verdict, model=FunctionModel(think)))
    world.run(agent.ask("?"))
    parts = [part for message in agent.messages for part in message.parts if isinstance(part, ToolCallPart)]
    assert [part.tool_call_id for part in parts] == ["call-1", "call-2", "call-3"]


def test_without_the_seal_ids_and_dates_are_random():  # the violation that the seal prevents
    async def think(messages, info):
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"level": "low", "reasons": []})])

    with World() as world:
        results = [world.run(Thinker(FunctionModel(think), output_type=Verdict).run("?")) for _ in range(2)]
    assert repr(results[0].all_messages()) != repr(results[1].all_messages())
    assert RANDOM_ID in repr(results[0].all_messages())


def test_tools_that_are_not_async_run_in_the_thread_of_the_world(world):
    seen = []

    def look() -> int:
        seen.append(threading.get_ident())
        return threading.active_count()

    agent = world.spawn(LLMAgent("agent", tools=[look], model=scripted(tool_call("look"), "done")))

    async def scenario():
        seen.append(threading.get_ident())
        await agent.ask("?")

    world.run(scenario())
    assert seen[0] == seen[1] and world.now == 0.0


def test_outside_a_world_the_offline_model_answers_alike_each_time():
    thinker = Thinker(offline("instant"))
    assert len({asyncio.run(thinker.run("The risk is high.")).output for _ in range(3)}) == 1
