"""The rules of the offline model: from a Question to an Answer, by reading the words of the prompt.

`answer` decides between a tool, a filled output schema, and text. How data are made for a schema is in `forms`, what is
known about support tickets in `reading`. They are plain functions: replace them with `offline(expert=...)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from .forms import Schema, fill
from .orders import ordered
from .reading import aspects, read
from .texts import GO_ON, likeness, points, sentences, summary, unlabelled, words

_USE = re.compile(r"(?i)\buse (?:it|this|this tool) (?:when|if|for) ([^.!?]+)")
_IF = re.compile(r"(?i)\b(?:if|when)\b")
_CASE = re.compile(r"(?i)[,;:]\s|\b(?:or|if|when)\b")  # what lies between two cases of a condition
_MERE = re.compile(r"(?i)\b(?:only|always|at once|everything|anything|something|must|should|can|could|any|all|there)\b")
_ME = re.compile(r"\bYou are ([\w-]+)")
_NEVER = re.compile(r"(?i)\b(?:never|not|don't|without)\b")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, or a form of output: its name, what it is for, and the JSON schema of its arguments."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked.

    `results` are the tools called since the prompt: name, result, and whether it succeeded; `outputs` the forms of
    output to choose from, or `schema` one to answer as JSON text; `tokens` how much was read; `random` the randomness
    of this call alone, and `slips` the probability that a judgement is one level off, or that a cue is overlooked.
    """

    prompt: str
    instructions: str = ""
    earlier: tuple[str, ...] = ()
    results: tuple[tuple[str, Any, bool], ...] = ()
    tools: tuple[Tool, ...] = ()
    outputs: tuple[Tool, ...] = ()
    schema: Schema | None = None
    tokens: int = 0
    random: Random = field(default_factory=lambda: Random("expert"))
    slips: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answers: text, or calls of tools by name and arguments."""

    text: str | None = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


def answer(question: Question) -> Answer:
    """Return a call of the tool that the prompt asks for, else the output that is wanted."""
    tool, named = _order(question) or (choose_tool(question), {})
    if tool is not None:
        return Answer(calls=((tool.name, _filled(tool.schema, question) | named),))
    if question.outputs:
        output = max(question.outputs, key=lambda tool: likeness(question.prompt, f"{tool.name} {tool.description}"))
        return Answer(calls=((output.name, _filled(output.schema, question)),))
    if question.schema is not None:
        return Answer(json.dumps(_filled(question.schema, question)))
    return Answer(speak(question))


def _order(question: Question) -> tuple[Tool, dict[str, Any]] | None:
    """Return what the prompt orders, unless that is to pass something on to the one who reads it."""
    found = None if question.results or not question.tools else ordered(question.tools, question.prompt)
    me = _ME.search(question.instructions)
    return None if found and me and me[1] in found[1].values() else found


def choose_tool(question: Question) -> Tool | None:
    """Return the tool that the prompt names, else one that is meant for such a prompt, else one that is like it.

    A tool that has answered since the prompt is not called again; one that has failed may name another. What a tool is
    meant for is read in the instructions (`Escalate what is legal or has a high risk.`), and where they are silent
    about it in its description (`Use it when ...`).
    """
    done = {name for name, _, _ in question.results}
    open_tools = [tool for tool in question.tools if tool.name not in done]
    text = "\n".join([question.prompt, *(str(result) for _, result, succeeded in question.results if not succeeded)])
    said = [tool for tool in open_tools if re.search(rf"\b{re.escape(tool.name)}\b", text)]
    if said:
        return min(said, key=lambda tool: text.index(tool.name))
    if question.results or not open_tools:
        return None
    scored = [(_met(tool, question), tool) for tool in open_tools]
    best = max(scored, key=lambda pair: pair[0])
    return best[1] if best[0] > 0 else None


@lru_cache(maxsize=1024)
def cases(tool: str, instructions: str, description: str = "") -> tuple[frozenset[str], ...]:
    """Return the words of each case in which a tool is to be used, by the instructions or else by its description."""
    name = re.compile(rf"(?i)\b{tool.replace('_', '[ _]')}\b")
    spoken = [name.split(sentence, maxsplit=1) for sentence in sentences(instructions) if name.search(sentence)]
    advice = [before if _IF.search(before) else after for before, after in spoken if not _NEVER.search(before)]
    if not spoken:
        advice = _USE.findall(" ".join(description.split()))
    parts = [words(_MERE.sub("", part)) for sentence in advice for part in _CASE.split(sentence)]
    return tuple(part for part in parts if part)


def _met(tool: Tool, question: Question) -> float:
    """Return how many of a tool's cases a prompt is, or a little if it is like a tool whose description names none."""
    prompt = unlabelled(question.prompt)
    wanted = cases(tool.name, question.instructions, tool.description)
    like = 0 if _USE.search(tool.description) else likeness(prompt, f"{tool.name} {tool.description}")
    return sum(_is(case, prompt, question) for case in wanted) + (like / 100 if like >= 2 else 0)


def _is(case: frozenset[str], prompt: str, question: Question) -> bool:
    """Return whether a sentence of a prompt has all words of a case, or all of it is read to be so: a high risk."""
    if any(case <= words(sentence) for sentence in sentences(prompt)):
        return True
    judged = [(name, label) for name, aspect in aspects().items() for label in aspect.labels if case == {name, label}]
    options: Any = {"random": question.random, "missed": question.slips}
    return any(read(name, prompt, **options).label == label for name, label in judged)


def speak(question: Question) -> str:
    """Return a text: what the tools found, all points where they are to be put together, else what says most."""
    if question.results:
        return "; ".join(f"{name}: {result}" for name, result, _ in question.results)
    if re.search(r"(?i)\b(?:combine|consolidate|merge|put together)\b", question.prompt):
        return "; ".join(point.rstrip(".") for point in points(question.prompt)) + "."
    said = "\n".join(question.earlier[-3:]) if question.prompt == GO_ON else question.prompt
    return summary(said) or "There is nothing to answer."


def _filled(schema: Schema, question: Question) -> Any:
    text = "\n".join([question.prompt, *(str(result) for _, result, _ in question.results)])
    told = [result for _, result, succeeded in question.results if succeeded and isinstance(result, Mapping)]
    known = {name: value for result in told for name, value in result.items()}
    leaning, random, slips = question.instructions, question.random, question.slips
    return fill(schema, text, leaning=leaning, random=random, slips=slips, known=known)
