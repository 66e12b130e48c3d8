"""Positions: who says what in a discussion, written for a model to read, and read again by the offline one.

`consensus` writes them into prompts. The rest are rules of the offline model, which `forms` asks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .texts import likeness

_LINE = re.compile(r"(?m)^- (.+?) says (.+?)(?:, because: (.*))?$\n?")
_MARKS = " .,;:!?\"'"
_QUESTION = re.compile(r"[^.!?\n]+\?")
_OR = re.compile(r"((?:[\w-]+, )*[\w-]+),? or ([\w-]+)\?")
_CLOSED = re.compile(
    r"(?i)(?:^|, )\s*(?:should|shall|can|could|will|would|do|does|did|is|are|was|were|has|have|may|must)\b"
)
_BOLD = re.compile(r"(?i)\b(?:ambitio|bold|change|curio|eager|embrac|enthusias|experiment|innovat|opportun|optimis)")
_WARY = re.compile(r"(?i)\b(?:careful|cautio|conservativ|critic|doubt|proven|pruden|risk|safe|sceptic|skeptic|stabil)")


@dataclass(frozen=True, slots=True)
class Position:
    """What an agent answers in a round, and why; `ranking` are the options it could live with, best first."""

    agent: str
    answer: str
    reasoning: str = ""
    ranking: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f", because: {' '.join(self.reasoning.split())}" if self.reasoning.strip() else ""
        return f"- {self.agent} says {' '.join(self.answer.split())}{why}"


def positions(text: str) -> list[Position]:
    """Return the positions written in a text, a line each."""
    return [Position(*found) for found in _LINE.findall(text)]


def without_positions(text: str) -> str:
    """Return the rest of the text."""
    return _LINE.sub("", text)


def gist(answer: str) -> str:
    """Return what answers share that differ only in capitals, spaces, and the marks around them."""
    return " ".join(answer.casefold().split()).strip(_MARKS)


def leading(answers: Iterable[str]) -> tuple[str, int]:
    """Return the answer given most, as it was first written, and how often it was given; the first of equals."""
    given = list(answers)
    most, count = Counter(map(gist, given)).most_common(1)[0]
    return next(answer for answer in given if gist(answer) == most), count


def alternatives(text: str) -> list[str]:
    """Return what the question in a text lets choose from: `a, b or c?`, yes and no, or what others have answered."""
    question = _QUESTION.search(without_positions(text))
    listed = question and _OR.search(question[0])
    if listed:
        return [*listed[1].split(", "), listed[2]]
    closed = question and _CLOSED.search(question[0])
    return ["yes", "no"] if closed else list(dict.fromkeys(one.answer for one in positions(text)))


def stance(instructions: str) -> str:
    """Return instructions with a yes for each word that is bold, and a no for each that is wary."""
    return instructions + " yes" * len(_BOLD.findall(instructions)) + " no" * len(_WARY.findall(instructions))


def verdict(fields: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, Any]:
    """Return for a form with a field `agree` whether the positions in a text do, on what, and why."""
    said = [one.answer for one in positions(text)]
    if not said or fields.get("agree", {}).get("type") != "boolean":
        return {}
    answer, count = leading(said)
    found = {"agree": count == len(said), "answer": answer, "reason": f"{count} of {len(said)} say {answer}"}
    return {name: value for name, value in found.items() if name in fields}


def choose(options: list[Any], text: str, leaning: str = "", about: Mapping[str, str] = {}, usual: Any = None) -> Any:
    """Return the option that the text names most; of several the one whose description `about` it is most like it.

    Of several of these it is the one that `leaning` names most, then the first. A position counts once, for what it
    says. Where nothing is named at all, it is the `usual` one, or else the one in the middle.
    """
    said, text = [position.answer for position in positions(text)], without_positions(text)
    counts = [
        (mentions(one, text) + said.count(str(one)), likeness(about.get(str(one), ""), text), mentions(one, leaning))
        for one in options
    ]
    middle = options[len(options) // 2] if usual is None else usual
    return options[counts.index(max(counts))] if any(map(any, counts)) else middle


def mentions(option: Any, text: str) -> int:
    """Return how often a text names an option."""
    return len(re.findall(rf"(?i)(?<!\w){re.escape(str(option).replace('_', ' '))}(?!\w)", text.replace("_", " ")))
