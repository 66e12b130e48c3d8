"""The studio of chapter 04: what its agents find in data/, how long they take, and when they fail."""

from __future__ import annotations

import re

import pytest

from masbook import Agent, Orchestrator, Task, Workflow, World, simulate
from masbook.errors import InvalidInput, InvalidValue
from masbook.lab import load
from masbook.lab.studio import COLD, ROSTER, WARM, ImageProcessor, TextProcessor, hire


def ask(agent, topic, seed=7, **inputs):
    with World(seed) as world:
        world.spawn(agent)
        return world.run(world.spawn(Agent("client")).request(agent.name, topic, inputs)), world.now


def test_texts_are_read_for_real():
    messages = load("tickets.csv")["message"].head(200).str.lower().str.findall(r"[a-z']+")
    moods = messages.map(lambda words: sum(word in WARM for word in words) - sum(word in COLD for word in words))
    found, took = ask(TextProcessor("t", speed=2.0), "process_text", count=200)
    assert (found["texts"], found["negative"], found["positive"]) == (200, (moods < 0).sum(), (moods > 0).sum())
    assert len(found["topics"]) == 3 and took == pytest.approx(200 * 0.0075 / 2)
    assert WARM.isdisjoint(COLD)


def test_parts_of_a_file_add_up_to_the_whole():
    parts = [ask(TextProcessor("t"), "process_text", first=first, count=160)[0] for first in (0, 160, 320)]
    whole, _ = ask(TextProcessor("t"), "process_text", count=480)
    for name in ("texts", "negative", "positive"):
        assert sum(part[name] for part in parts) == whole[name]
    assert ask(TextProcessor("t"), "process_text", first=480)[0]["texts"] == 0


def test_a_file_without_messages_is_refused():
    with pytest.raises(InvalidValue, match="no column 'message'"):
        ask(TextProcessor("t"), "process_text", path="orders.csv")


def test_a_batch_is_as_long_whoever_works_on_it():
    found, took = ask(ImageProcessor("slow"), "process_image", count=50, batch="x")
    same, faster = ask(ImageProcessor("fast", speed=2.0), "process_image", count=50, batch="x")
    assert found == same and took == pytest.approx(2 * faster)
    assert 50 * 0.03 <= took <= 50 * 0.09 and found["images"] == 50 and 0 < found["objects"] <= 100


def test_trouble_is_the_share_of_attempts_that_fail():
    async def many(world):
        hire(world, trouble=0.3)
        tasks = [Task(f"t{i}", "process_image", {"count": 1, "batch": str(i)}) for i in range(300)]
        return await world.spawn(Orchestrator()).execute(Workflow("many", tasks, on_failure="continue"))

    ended = [task.status for task in simulate(many).result.tasks.values()]
    assert 60 < ended.count("failed") < 120 and ended.count("completed") + ended.count("failed") == 300


def test_an_unreadable_picture_is_named():
    with World(7) as world:
        hire(world, trouble=1.0)
        flow = Workflow("w", [Task("images", "process_image", {"batch": "b"})])
        outcome = world.run(world.spawn(Orchestrator()).execute(flow))
        assert re.search(r"picture \d+ of b is unreadable", outcome.tasks["images"].error)


def test_the_roster_is_the_course_s_five_and_one_more():
    with World(7) as world:
        names = [agent.name for agent in hire(world, 6)]
        assert names == [name for name, _ in ROSTER] and names[:5] == [
            "data_1",
            "image_1",
            "text_1",
            "data_2",
            "image_2",
        ]
        with pytest.raises(InvalidValue, match="1 to 6"):
            hire(world, 7)


@pytest.mark.parametrize("options", [{"speed": 0.0}, {"speed": -1.0}, {"trouble": 1.5}])
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(InvalidValue, match=next(iter(options))):
        ImageProcessor("i", **options)


def test_bad_inputs_name_the_field():
    with pytest.raises(InvalidInput, match="count"):
        ask(ImageProcessor("i"), "process_image", count="many")
    with pytest.raises(InvalidValue, match="count"):
        ask(ImageProcessor("i"), "process_image", count=0)
