"""The rules of the offline model: from a Question to an Answer, by reading the words of the prompt.

`answer` decides between a tool, a filled output schema, and text; `fill` makes data for any JSON schema, and what it
knows about support tickets is in `reading`. They are plain functions: replace them with `offline(expert=...)`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from .reading import facts

Schema = dict[str, Any]
_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_COMMON = re.compile(
    r"(?:a|an|and|are|as|at|be|by|for|from|has|have|i|in|is|it|me|my|of|on|or|our|please|that|the|their|them|this|to|us|"
    r"was|we|what|which|who|will|with|you|your)"
)


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
    """Return a text: what the tools found, else the sentences of the prompt that say most."""
    if question.results:
        return "; ".join(f"{name}: {result}" for name, result, _ in question.results)
    return summary(question.prompt) or "There is nothing to answer."


def summary(text: str, sentences: int = 2) -> str:
    """Return the sentences with the most words that count, in their order."""
    found = [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()]
    best = sorted(found, key=lambda sentence: -len(words(sentence)))[:sentences]
    return " ".join(sentence for sentence in found if sentence in best)


@lru_cache(maxsize=4096)
def words(text: str) -> frozenset[str]:
    """Return the words of a text that count, in lower case and without a plural's s."""
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if not _COMMON.fullmatch(word))


def likeness(text: str, other: str) -> int:
    """Return how many words that count two texts share."""
    return len(words(text) & words(other))


def _filled(schema: Schema, question: Question) -> Any:
    text = "\n".join([question.prompt, *(str(result) for _, result, _ in question.results)])
    return fill(schema, text, random=question.random, slips=question.slips)


def fill(
    schema: Schema,
    text: str,
    *,
    name: str = "",
    root: Schema | None = None,
    random: Random | None = None,
    slips: float = 0.0,
) -> Any:
    """Return data that fits the JSON schema, read from the text as far as it says; the same text gives the same."""
    root = schema if root is None else root

    def inner(part: Schema, name: str = name) -> Any:
        return fill(part, text, name=name, root=root, random=random, slips=slips)

    schema = _whole(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _slip(choose(schema["enum"], text, schema.get("description", name)), schema["enum"], random, slips)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            options = [option for option in schema[union] if option.get("type") != "null"] or schema[union]
            return inner(options[0])
    if "allOf" in schema:
        return inner({key: value for part in schema["allOf"] for key, value in part.items()})
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind if isinstance(kind, str) else next(one for one in kind if one != "null")
    if kind == "object":
        parts = {key: _whole(part, root) for key, part in schema.get("properties", {}).items()}
        known = facts(parts, text, random=random, missed=slips)
        return {key: known[key] if key in known else inner(part, key) for key, part in parts.items()}
    if kind == "array":
        return _array(schema, text, name, inner)
    return _scalar(kind, schema, text, name)


def _whole(schema: Schema, root: Schema) -> Schema:
    """Return a schema with what it refers to."""
    while "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = {**found, **{key: schema[key] for key in schema if key != "$ref"}}
    return schema


def choose(options: list[Any], text: str, about: str = "") -> Any:
    """Return the option that the text names most, the middle one where it names none."""
    counts = [len(re.findall(rf"\b{re.escape(str(option).lower())}\b", text.lower())) for option in options]
    return options[counts.index(max(counts))] if any(counts) else options[len(options) // 2]


def _slip(choice: Any, options: list[Any], random: Random | None, slips: float) -> Any:
    """Return the choice, or with the probability `slips` a neighbour of it."""
    if random is None or len(options) < 2 or random.random() >= slips:
        return choice
    at = options.index(choice)
    return options[at - 1] if at and (at == len(options) - 1 or random.random() < 0.5) else options[at + 1]


def _array(schema: Schema, text: str, name: str, inner: Any) -> list[Any]:
    """Return a list: the best sentences for texts, else as few items as the schema allows."""
    item = schema.get("items", {})
    fixed = schema.get("prefixItems")
    if fixed is not None:
        return [inner(part) for part in fixed]
    least, most = schema.get("minItems", 1), schema.get("maxItems", 3)
    if item.get("type", "string") == "string" and "enum" not in item and "$ref" not in item:
        found = [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()][:most]
        return [*found, *[f"{name or 'item'} {number}" for number in range(len(found), least)]]
    return [inner(item) for _ in range(min(max(least, 1), most))]


def _scalar(kind: str, schema: Schema, text: str, name: str) -> Any:
    if kind == "null":
        return None
    if kind == "boolean":
        return bool(words(name) & words(text))
    if kind in ("integer", "number"):
        return _number(kind, schema, text)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return (summary(text) or name or "nothing")[:most].ljust(least, ".")


def _number(kind: str, schema: Schema, text: str) -> float:
    """Return the first number of the text that is in range, else the middle of the range."""
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0)) or 0)
    span = 1 if kind == "number" else 10
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + span)) or 0)
    found = [float(number) for number in _NUMBER.findall(text)]
    value = next((number for number in found if low < number < high), (low + high) / 2)
    return int(value) if kind == "integer" else round(value, 3)
