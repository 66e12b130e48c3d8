"""Recordings: one readable file, replayed in virtual time, and a request that differs says where it does."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import models
from server import Server, call, status

from masbook import FaultPlan, ModelFault, World, simulate
from masbook.errors import (
    InvalidRecording,
    InvalidValue,
    ModelMisbehaved,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    RecordingMismatch,
)
from masbook.llm import LLMAgent, find_model, offline, record, replay, scripted, tool_call


class Risk(BaseModel):
    level: Literal["low", "medium", "high"]


PROMPTS = ("The risk is high.", "The risk is low.")


async def session(world, model, prompts=PROMPTS, **options):
    """Two agents with one model are asked at the same time, twice."""
    options = {"instructions": "You judge.", "output_type": Risk, **options}
    agents = [world.spawn(LLMAgent(name, model=model, concurrency=2, **options)) for name in ("ada", "ben")]
    asked = [agent.ask(prompt) for agent in agents for prompt in prompts]
    return [output.model_dump() for output in await asyncio.gather(*asked)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "session.json"


@pytest.fixture
def recorded(path):
    """The run that was recorded."""
    return simulate(session, seed=3, model=record(offline("balanced"), path))


def rows(run):
    return [{**event.facts, "model": None, "time": event.time} for event in run.trace.events("model_called")]


def test_a_replay_gives_the_same_answers_at_the_same_times(recorded, path):
    run = simulate(session, seed=99, model=replay(path))
    assert run.error is None and run.result == recorded.result
    assert rows(run) == [pytest.approx(row) if isinstance(row, float) else row for row in rounded(rows(recorded))]
    names = {event.facts["model"] for event in run.trace.events("model_called")}
    assert names == {"replay:session (recorded from offline:balanced (rule-based expert, no language model))"}


def rounded(rows):
    """A recording has microseconds."""
    return [
        {name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def test_parallel_calls_are_replayed_in_whatever_order_they_come(recorded, path):
    run = simulate(session, seed=1, schedule="shuffled", model=replay(path))
    assert run.result == recorded.result
    backwards = simulate(session, model=replay(path), prompts=PROMPTS[::-1])
    assert sorted(map(str, backwards.result)) == sorted(map(str, recorded.result))


def test_a_replay_begins_afresh_in_every_world(recorded, path):
    model = replay(path)
    assert [simulate(session, seed=seed, model=model).result for seed in range(2)] == [recorded.result] * 2


def test_the_file_is_readable_and_has_no_ids_or_times_of_day(recorded, path):
    whole = json.loads(path.read_text())
    assert (whole["masbook recording"], whole["model"]) == (
        1,
        "offline:balanced (rule-based expert, no language model)",
    )
    assert [call["agent"] for call in whole["calls"]].count("ada") == 2
    call = whole["calls"][0]
    assert call["request"]["instructions"] == "You judge." and call["request"]["messages"][0]["user"] in PROMPTS
    assert call["answer"][0]["call"] == "final_result" and call["usage"]["cost"] > 0
    text = path.read_text()
    for word in ("timestamp", "tool_call_id", "run_id", "2026", "pyd_ai", "call-1"):
        assert word not in text


def test_two_recordings_of_the_same_are_the_same_file(recorded, path, tmp_path):
    simulate(session, seed=3, model=record(offline("balanced"), tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_what_was_offered_is_written_once(recorded, path):
    assert path.read_text().count('"schema"') == 1


def test_a_prompt_that_differs_is_shown_with_both_values(recorded, path):
    run = simulate(session, model=replay(path), prompts=("The risk is high.", "The risk is huge."))
    assert isinstance(run.error, RecordingMismatch)
    text = "request.messages[0].user was 'The risk is low.' and is 'The risk is huge.'"
    assert text in str(run.error) and "ada asks what session.json does not have" in str(run.error)


def test_a_long_prompt_is_shown_where_it_begins_to_differ(path):
    long = "All work and no play. " * 40
    simulate(session, model=record("offline:instant", path), prompts=(long + "Yes.",))
    run = simulate(session, model=replay(path), prompts=(long + "No.",))
    assert "Yes." in str(run.error) and "No." in str(run.error) and len(str(run.error)) < 400


def test_instructions_and_schemas_are_part_of_the_request(recorded, path):
    class Other(BaseModel):
        level: Literal["low", "high"]

    run = simulate(session, model=replay(path), instructions="You guess.")
    assert "request.instructions was 'You judge.' and is 'You guess.'" in str(run.error)
    run = simulate(session, model=replay(path), settings={"temperature": 0.7})
    assert "request.settings.temperature was None and is 0.7" in str(run.error)
    run = simulate(session, model=replay(path), output_type=Other)
    assert "request.outputs.final_result.schema.properties.level.enum[1]" in str(run.error)


def test_every_recorded_call_is_given_once(recorded, path):
    run = simulate(session, model=replay(path), prompts=(PROMPTS[0],) * 3)
    assert isinstance(run.error, RecordingMismatch)


def test_an_agent_of_another_name_gets_what_is_left_for_its_request(path):
    with World() as world:
        world.run(world.spawn(LLMAgent("ada", model=record(scripted("hello"), path))).ask("hi"))
    with World() as world:
        assert world.run(world.spawn(LLMAgent("zoe", model=replay(path))).ask("hi")) == "hello"


def test_more_calls_than_recorded_are_a_mismatch(path):
    with World() as world:
        world.run(world.spawn(LLMAgent("ada", model=record(scripted("hello"), path))).ask("hi"))
    with World() as world:
        ada = world.spawn(LLMAgent("ada", model=replay(path)))
        world.run(ada.ask("hi"))
        with pytest.raises(RecordingMismatch, match="no call left for ada"):
            world.run(ada.ask("hi"))


def lookup(order: str) -> dict[str, str]:
    return {"order": order, "status": "shipped"}


def test_tools_and_their_results_are_replayed(path):
    answers = [tool_call("lookup", order="O1"), "It is shipped."]
    for make in (lambda: record(scripted(*answers), path), lambda: replay(path)):
        with World() as world:
            agent = world.spawn(LLMAgent("agent", tools=[lookup], model=make()))
            assert world.run(agent.ask("Where is O1?")) == "It is shipped."
            assert world.trace.count("tool_called") == 1
    messages = json.loads(path.read_text())["calls"][1]["request"]["messages"]
    assert messages[1:] == [
        {"call": "lookup", "arguments": {"order": "O1"}},
        {"tool": "lookup", "result": {"order": "O1", "status": "shipped"}},
    ]


def test_errors_are_replayed_too(path):
    answers = [ModelRateLimited("slowly", 2.0), "there", ModelMisbehaved("?"), ModelMisbehaved("?"), "hm"]

    async def scenario(world, model):
        agent = world.spawn(LLMAgent("agent", model=model, attempts=2))
        first = await agent.ask("one")
        with pytest.raises(ModelMisbehaved):
            await agent.ask("two")
        return first, await agent.ask("three")

    runs = [simulate(scenario, model=record(scripted(*answers), path)), simulate(scenario, model=replay(path))]
    assert runs[0].error is None and runs[1].error is None
    assert runs[0].result == runs[1].result == ("there", "hm")
    assert rows(runs[0]) == rows(runs[1])


def test_a_call_that_took_too_long_does_so_again(path):
    async def scenario(world, model):
        agent = world.spawn(LLMAgent("agent", model=model, timeout=3.0))
        with pytest.raises(ModelTimeout):
            await agent.ask("one")
        return world.now

    for make in (lambda: record(scripted("late", latency=9), path), lambda: replay(path)):
        run = simulate(scenario, model=make())
        assert run.error is None and run.result == 3.0


def test_planned_faults_strike_a_replay_as_they_strike_any_model(recorded, path):
    run = simulate(session, model=replay(path), faults=FaultPlan(appointments=[ModelFault("rate_limit", "ada", nth=1)]))
    assert run.result == recorded.result
    assert run.trace.count("model_called", "ada") == 3


def test_streams_are_recorded_and_replayed(path):
    async def scenario(world, model):
        agent = world.spawn(LLMAgent("agent", model=model))
        return [text async for text in agent.ask_in_parts("Say three words.")]

    first = simulate(scenario, model=record(scripted("one two three", latency=1.0), path))
    second = simulate(scenario, model=replay(path))
    assert first.result == second.result and len(first.result) > 1


def test_a_stream_that_is_left_is_replayed_as_far_as_it_was_heard(path):
    async def scenario(world, model):
        agent = world.spawn(LLMAgent("agent", model=model))
        async with aclosing(agent.ask_in_parts("Say three words.")) as parts:
            first = await anext(parts)
        return first, await agent.ask("And then?")

    first = simulate(scenario, model=record(scripted("one two three", "four", latency=1.0), path))
    second = simulate(scenario, model=replay(path))
    assert first.result == second.result == ("one ", "four") and second.error is None
    assert first.time == second.time


def test_a_key_in_a_prompt_is_not_written_and_does_not_prevent_the_replay(path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "correct-horse-battery")
    for make in (lambda: record(scripted("ok"), path), lambda: replay(path)):
        with World() as world:
            agent = world.spawn(LLMAgent("agent", model=make()))
            world.run(agent.ask("My key is sk-abcdef1234567890 or correct-horse-battery."))
    assert "sk-abc" not in path.read_text() and "horse" not in path.read_text() and "[key]" in path.read_text()


def test_a_key_in_an_error_is_not_written(path):
    run = simulate(session, model=record(scripted(*[ModelRefused("not with sk-abcdef1234567890")] * 4), path))
    assert isinstance(run.error, ModelRefused)
    assert "sk-abc" not in path.read_text() and "not with [key]" in path.read_text()


def test_a_recording_of_another_version_is_refused(recorded, path):
    path.write_text(path.read_text().replace('"masbook recording": 1', '"masbook recording": 7'))
    with pytest.raises(InvalidRecording, match="version 7, this masbook reads 1"):
        replay(path)


@pytest.mark.parametrize("key", ["agent", "request", "answer", "usage", "seconds"])
@pytest.mark.parametrize("damage", ["gone", "nothing", "wrong"])
def test_a_call_that_is_damaged_is_noticed_when_the_recording_is_opened(recorded, path, key, damage):
    whole = json.loads(path.read_text())
    call = whole["calls"][0]
    call[key] = {"nothing": None, "wrong": [7]}.get(damage)
    if damage == "gone":
        del call[key]
    path.write_text(json.dumps(whole))
    if key == "agent" and damage == "nothing":  # who asks outside a world has no name
        return
    with pytest.raises(InvalidRecording, match="is damaged"):
        replay(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"masbook recording": 1, "model": "m", "calls": [{}]}', "null"])
def test_a_damaged_recording_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(InvalidRecording, match="record it again"):
        replay(path)


def test_names_are_found_in_data_recordings(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    with World() as world:
        world.run(world.spawn(LLMAgent("agent", model=record(scripted("ok"), "talk"))).ask("?"))
    assert (tmp_path / "data" / "recordings" / "talk.json").exists()
    assert find_model("replay:talk").model_name.startswith("replay:talk ")
    with pytest.raises(InvalidRecording, match="no recording 'walk'; there are talk"):
        find_model("replay:walk")
    with pytest.raises(InvalidValue, match="needs a name"):
        find_model("replay:")


@pytest.mark.parametrize("name", [None, 7, "", " "])
def test_a_name_must_be_one(name):
    with pytest.raises(InvalidValue, match="needs a name"):
        replay(name)


def test_a_dot_in_a_name_is_part_of_it(tmp_path):
    names = [record("offline", tmp_path / name).path.name for name in ("gpt-4.1", "gpt-4.5", "gpt.json")]
    assert names == ["gpt-4.1.json", "gpt-4.5.json", "gpt.json"]


def test_what_nobody_asked_again_is_listed(recorded, path):
    model = replay(path)
    assert simulate(session, model=model, prompts=PROMPTS[:1]).error is None  # a part of a recording is a replay too
    assert [line.partition(":")[0] for line in model.unused()] == ["ada", "ben"] and PROMPTS[1] in model.unused()[0]
    with pytest.raises(RecordingMismatch, match=r"nobody has made 2 calls of session\.json"):
        model.check()
    simulate(session, model=model)
    assert model.unused() == []
    model.check()


def test_a_real_model_is_recorded_by_the_wall_clock_and_replayed_in_virtual_time(path, monkeypatch):
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
    answers = [call("final_result", '{"level": "hi'), call("final_result", {"level": "high"})]
    with Server(status(429, "not with correct-horse-battery", retry_after="0"), *answers) as server:
        model = find_model("openai:tiny", base_url=server.address, api_key="correct-horse-battery")
        with World(clock="real") as world:
            agent = world.spawn(LLMAgent("ada", model=record(model, path), output_type=Risk))
            first = world.run(agent.ask("The risk is high."))
    with World() as world:
        agent = world.spawn(LLMAgent("ada", model=replay(path), output_type=Risk))
        assert world.run(agent.ask("The risk is high.")) == first == Risk(level="high")
        rows = [(event.facts["outcome"], event.facts["cost"]) for event in world.trace.events("model_called")]
        assert rows == [("rate_limited", None), ("answered", None), ("answered", None)]
    text = path.read_text()
    assert "horse" not in text and "127.0.0.1" not in text and "[key]" in text


def test_the_file_is_complete_after_every_call(path):
    with World() as world:
        agent = world.spawn(LLMAgent("agent", model=record(scripted("a", "b", "c"), path)))
        for number, prompt in enumerate("xyz", start=1):
            world.run(agent.ask(prompt))
            assert len(json.loads(path.read_text())["calls"]) == number
