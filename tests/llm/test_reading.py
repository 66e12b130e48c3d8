"""What the offline expert reads in a ticket: better than the majority on rows it was not made from, and calibrated."""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from pydantic import BaseModel

from masbook.lab import data_path
from masbook.llm import LLMAgent
from masbook.llm.forms import fill
from masbook.llm.reading import aspects, facts, read

with data_path("tickets.csv").open(encoding="utf-8", newline="") as file:
    TICKETS = list(csv.DictReader(file))
HALVES = {"first": TICKETS[:240], "second": TICKETS[240:]}  # the cues were chosen by looking at the first
# What was measured; the guess that says the most frequent label of the half each time is right in .45 to .68 of them.
ACCURACY = {
    "first": {"sentiment": 0.863, "complexity": 0.817, "impact": 0.808, "risk": 0.896},
    "second": {"sentiment": 0.804, "complexity": 0.783, "impact": 0.758, "risk": 0.867},
}
with Path(__file__).with_name("other_words.csv").open(encoding="utf-8", newline="") as file:
    ELSEWHERE = list(
        csv.DictReader(file)
    )  # 120 tickets of other trades; the general cues were chosen by looking at them
IRONIC = tomllib.loads(data_path("phrases.toml").read_text())["mood"][
    "sarcastic"
]  # known to the tests, not to the expert


def text(ticket):
    return f"{ticket['subject']}\n{ticket['message']}\ntier: {ticket['tier']}"


def right(aspect, tickets, **options):
    """The share of tickets whose label is read as it is."""
    return sum(read(aspect, text(row), **options).label == row[aspect] for row in tickets) / len(tickets)


@pytest.mark.parametrize("aspect", ["sentiment", "complexity", "impact", "risk"])
@pytest.mark.parametrize("half", HALVES)
def test_it_clearly_beats_the_majority_class(half, aspect):
    tickets = HALVES[half]
    majority = Counter(row[aspect] for row in tickets).most_common(1)[0][1] / len(tickets)
    accuracy = right(aspect, tickets)
    assert accuracy == pytest.approx(ACCURACY[half][aspect], abs=0.015)
    assert accuracy > majority + 0.15


@pytest.mark.parametrize("aspect", ["sentiment", "complexity", "impact", "risk"])
def test_it_knows_how_customers_elsewhere_speak(aspect):
    right = sum(read(aspect, row["message"]).label == row[aspect] for row in ELSEWHERE) / len(ELSEWHERE)
    majority = Counter(row[aspect] for row in ELSEWHERE).most_common(1)[0][1] / len(ELSEWHERE)
    assert right > majority + 0.25


@pytest.mark.parametrize(
    "said", ["We cannot pay.", "We CAN'T pay.", "We can\u2019t pay.", "I am unable to pay.", "We can no longer pay."]
)
def test_who_cannot_says_so_in_many_ways(said):
    assert read("impact", said).label == "high"
    assert read("impact", said).cues[0] in said.lower()


def test_a_cue_counts_once_however_often_it_is_said():
    once, often = read("risk", "Our lawyer."), read("risk", "Our lawyer, the lawyer, all lawyers!")
    assert (once.probabilities, once.cues) == (often.probabilities, often.cues)


def test_the_measure_sees_a_reader_that_reads_nothing():
    blind = [right(name, HALVES["second"], random=Random(1), missed=1.0) for name in aspects()]
    majority = [Counter(row[name] for row in HALVES["second"]).most_common(1)[0][1] / 240 for name in aspects()]
    assert all(accuracy <= most for accuracy, most in zip(blind, majority, strict=True))


@pytest.mark.parametrize("aspect", ["sentiment", "complexity", "impact", "risk"])
def test_confidence_is_calibrated_on_the_half_that_was_not_looked_at(aspect):
    readings = [(read(aspect, text(row)), row[aspect]) for row in HALVES["second"]]
    error = 0.0  # expected calibration error: how far confidence is from accuracy, over five bins of equal width
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        members = [(found, label) for found, label in readings if low < found.confidence <= low + 0.2]
        gap = sum((found.label == label) - found.confidence for found, label in members)
        error += abs(gap) / len(readings)
    assert error < 0.14
    sure = [found.label == label for found, label in readings if found.confidence >= 0.9]
    unsure = [found.label == label for found, label in readings if found.confidence < 0.7]
    assert sum(sure) / len(sure) > 0.9 > sum(unsure) / len(unsure)


def test_who_overlooks_more_is_right_less_often():
    scores = [
        sum(right(name, TICKETS, random=Random(1), missed=missed) for name in aspects()) for missed in (0.0, 0.2, 0.5)
    ]
    assert scores[0] > scores[1] + 0.1 > scores[2] + 0.2


def test_cues_are_said_and_confidence_grows_with_them():
    one, two = read("risk", "Our lawyer will write."), read("risk", "Our lawyer will write, and so will a journalist.")
    assert (one.label, one.cues) == ("high", ("lawyer",))
    assert two.cues == ("lawyer", "journalist")
    assert two.confidence > one.confidence
    assert set(one.advice) == {"hand the correspondence to the legal department", "bring in the management today"}
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("empty", ["", " ", "\n", "Qwx zzzz."])
def test_a_text_without_a_cue_is_read_with_little_confidence(empty):
    for name, aspect in aspects().items():
        reading = read(name, empty)
        assert reading.cues == ()
        assert reading.confidence < 0.9
        assert reading.label in aspect.labels


@pytest.mark.parametrize(
    ("said", "mood"),
    [
        ("This is the worst service I have ever seen, I hate it.", "negative"),
        ("I love the new portal, what a great improvement!", "positive"),
        ("The parcel has the number 12.", "neutral"),
        ("Kind regards, Best wishes Ltd", "neutral"),
    ],
)
def test_the_mood_of_texts_of_which_the_tickets_have_none(said, mood):
    assert read("sentiment", said).label == mood


def test_irony_is_not_understood():
    """Planted in the tickets, and a lesson of the chapter: warm words that mean the opposite."""
    ironic = [row for row in TICKETS if any(words in row["message"] for words in IRONIC)]
    assert len(ironic) == 18
    assert {row["sentiment"] for row in ironic} == {"negative"}
    missed = [row for row in ironic if read("sentiment", text(row)).label != "negative"]
    assert len(missed) > 9


def test_facts_fill_the_fields_of_an_analysis_and_no_others():
    schema = {"risk": {"type": "string", "enum": ["low", "medium", "high"]}, "confidence": {"type": "string"}}
    found = facts({**schema, "cues": {"type": "array"}}, "Our lawyer will write.")
    assert found == {"risk": "high", "cues": ["lawyer"]}
    assert facts({"risk": {"type": "string", "enum": ["yes", "no"]}}, "Our lawyer will write.") == {}
    assert facts({"confidence": {"type": "number"}}, "Our lawyer will write.") == {}


def test_several_aspects_in_one_output_are_as_sure_as_the_least_sure():
    properties = {name: {"type": "string", "enum": list(aspect.labels)} for name, aspect in aspects().items()}
    properties["confidence"] = {"type": "number"}
    said = "Nobody answers. Our lawyer will write."
    found = fill({"type": "object", "properties": properties}, said)
    assert found["confidence"] == min(read(name, said).confidence for name in aspects())
    assert (found["sentiment"], found["risk"]) == ("negative", "high")


class Judgement(BaseModel):
    sentiment: Literal["negative", "neutral", "positive"]
    confidence: float
    cues: list[str]


def test_an_agent_of_ones_own_gets_what_was_read(world):
    critic = world.spawn(LLMAgent("critic", model="offline:instant", output_type=Judgement))
    said = "Honestly, I am fed up."
    expected = read("sentiment", said)
    answer = world.run(critic.ask(said))
    assert answer == Judgement(sentiment=expected.label, confidence=expected.confidence, cues=list(expected.cues))
