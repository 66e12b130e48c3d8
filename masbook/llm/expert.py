"""The rules of the offline model: from a Question to an Answer, by reading the words of the prompt.

`answer` decides between a tool, a filled output schema, and text. How data are made for a schema is in `forms`, what is
known about support tickets in `reading`. They are plain functions: replace them with `offline(expert=...)`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .forms import Schema, fill, likeness, points, summary


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
    tool = choose_tool(question)
    if tool is not None:
        return Answer(calls=((tool.name, _filled(tool.schema, question)),))
    if question.outputs:
        output = max(question.outputs, key=lambda tool: likeness(question.prompt, f"{tool.name} {tool.description}"))
        return Answer(calls=((output.name, _filled(output.schema, question)),))
    if question.schema is not None:
        return Answer(json.dumps(_filled(question.schema, question)))
    return Answer(speak(question))


def choose_tool(question: Question) -> Tool | None:
    """Return the tool whose name the prompt says, or whose name and description are most like it, if any is.

    A tool that has answered since the prompt is not called again.
    """
    done = {name for name, _, _ in question.results}
    open_tools = [tool for tool in question.tools if tool.name not in done]
    said = [tool for tool in open_tools if re.search(rf"\b{re.escape(tool.name)}\b", question.prompt)]
    if said:
        return min(said, key=lambda tool: question.prompt.index(tool.name))
    likely = [(likeness(question.prompt, f"{tool.name} {tool.description}"), tool) for tool in open_tools]
    best = max(likely, key=lambda pair: pair[0], default=None)
    return best[1] if best is not None and best[0] >= 2 and not question.results else None


def speak(question: Question) -> str:
    """Return a text: what the tools found, all points where they are to be put together, else what says most."""
    if question.results:
        return "; ".join(f"{name}: {result}" for name, result, _ in question.results)
    if re.search(r"(?i)\b(?:combine|consolidate|merge|put together)\b", question.prompt):
        return " ".join(points(question.prompt))
    return summary(question.prompt) or "There is nothing to answer."


def _filled(schema: Schema, question: Question) -> Any:
    text = "\n".join([question.prompt, *(str(result) for _, result, _ in question.results)])
    return fill(schema, text, leaning=question.instructions, random=question.random, slips=question.slips)
