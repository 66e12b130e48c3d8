"""The committed recording: made by its script, described by the dictionary, replayed to its last call, no secrets."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from masbook import World, simulate
from masbook.errors import RecordingMismatch
from masbook.lab import records
from masbook.llm import LLMAgent, find_model, replay

DATA = Path(__file__).parents[2] / "data"
RECORDING = DATA / "recordings" / "triage.json"
SECRETS = {
    "a key": r"\bsk-|(?i:api.?key|bearer|authorization)",
    "a time of day": r"\d{4}-\d\d-\d\dT|timestamp",
    "a path or an address": r"(?<!\w)/(?:home|root|tmp|work|Users)/|https?://",
    "an id that was drawn": r"pyd_ai_|tool_call_id|run_id|call-\d",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("record", DATA / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def triage(world, script, model, tickets):
    """What chapter 17 and the script ask."""
    instructions = "You read support tickets."
    desk = world.spawn(LLMAgent("desk", instructions, model=model, output_type=script.Triage))
    chosen = world.random("desk").sample(records("tickets.csv"), tickets)
    return [(await desk.ask(ticket["message"])).risk for ticket in chosen]


def test_the_script_reproduces_the_recording_byte_for_byte(script, tmp_path):
    again = script.write(tmp_path).read_bytes()
    assert again == RECORDING.read_bytes(), "the rules have changed: run data/record.py, then chapter 17"


def test_every_recording_of_the_folder_is_described_with_what_made_it():
    dictionary = (DATA / "README.md").read_text(encoding="utf-8")
    for path in (DATA / "recordings").iterdir():
        section = " ".join(dictionary.split(f"\n## recordings/{path.name}\n")[1].split("\n## ")[0].split())
        made_by = json.loads(path.read_text(encoding="utf-8"))["model"]
        assert made_by in section and "no language model was asked" in section


def test_it_is_replayed_to_its_last_call_by_name_and_from_any_folder(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = replay("triage")
    run = simulate(triage, seed=script.SEED, script=script, model=model, tickets=script.TICKETS)
    assert run.error is None and len(run.result) == script.TICKETS
    assert model.unused() == []
    model.check()
    assert find_model("replay:triage").model_name == (
        "replay:triage (recorded from offline:strong (rule-based expert, no language model))"
    )


def test_what_is_left_over_is_noticed(script):
    model = replay("triage")
    simulate(triage, seed=script.SEED, script=script, model=model, tickets=script.TICKETS - 2)
    assert len(model.unused()) == 2
    with pytest.raises(RecordingMismatch, match=r"nobody has made 2 calls of triage\.json: desk: "):
        model.check()


@pytest.mark.parametrize("what", SECRETS)
def test_it_holds_no_secrets_and_nothing_of_the_machine_it_was_made_on(what):
    assert not re.search(SECRETS[what], RECORDING.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("what", "text"),
    [("a key", "sk-abc"), ("a time of day", "2026-01-01T00:00:00"), ("an id that was drawn", "pyd_ai_12")],
)
def test_such_a_secret_would_be_noticed(what, text):
    assert re.search(SECRETS[what], text)


def test_with_other_tickets_it_says_where_they_differ(script):
    with World(seed=1) as world, pytest.raises(RecordingMismatch, match=r"request\.messages\[0\]\.user was '"):
        world.run(triage(world, script, "replay:triage", 3))
