"""Orders: what a prompt bids its reader do, in other words than a tool's own; `expert` asks.

`orders.toml` has the verbs and the ways of speaking. They know no names of masbook's tools, so that a student's
`save_note` is found as well; to have other ways understood, add to them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .texts import COMMON, sentences, unlabelled, words

if TYPE_CHECKING:
    from .expert import Tool

_TABLE = tomllib.loads(Path(__file__).with_name("orders.toml").read_text(encoding="utf-8"))
_FIELDS = {part: names.split() for part, names in _TABLE["fields"].items()}
_PARTS = {"COMMON": COMMON.pattern, **_TABLE["parts"]}
_VERBS = {deed: frozenset(how["verbs"].split()) for deed, how in _TABLE["deeds"].items()}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_POLITE = re.compile(r"(?i)(?:(?:please|kindly|(?:could|can|would|will) you|update (?:the )?shared \w+:)[ ,]*)*")


def _way(pattern: str) -> re.Pattern[str]:
    while (whole := re.sub("|".join(_PARTS), lambda part: _PARTS[part[0]], pattern)) != pattern:
        pattern = whole
    return re.compile(f"(?is){pattern}")


_WAYS = [(deed, _way(way)) for deed, how in _TABLE["deeds"].items() for way in how["ways"]]


def ordered(tools: Sequence[Tool], prompt: str) -> tuple[Tool, dict[str, Any]] | None:
    """Return the tool for the first order in a prompt that one is for, and the arguments that the order names."""
    for sentence, text in _sentences(prompt):
        for deed, way in _WAYS:
            said = way.match(text if way.pattern.endswith(_PARTS["TEXT"]) else sentence)
            able = [tool for tool in tools if said and _VERBS[deed] & _verbs(tool)]
            placed = [(tool, _placed(tool, said.groupdict())) for tool in able if said]
            fitting = [(tool, arguments) for tool, arguments in placed if arguments is not None]
            if fitting:
                return max(fitting, key=lambda pair: len(pair[1]))
        bidden = next((tool for tool in tools if _bids(sentence, tool)), None)
        if bidden is not None:
            return bidden, {}
    return None


def _sentences(prompt: str) -> Iterator[tuple[str, str]]:
    """Yield each sentence, and the text from there on; of lines with labels, only the first may be an order."""
    text, at = unlabelled(prompt), 0
    text = text if text == prompt else text.partition("\n")[0]
    for sentence in sentences(text):
        at = text.index(sentence, at)
        polite = _POLITE.match(sentence)
        start = polite.end() if polite else 0
        yield sentence[start:], text[at + start :].strip()


def _verbs(tool: Tool) -> set[str]:
    return {*tool.name.lower().split("_"), *tool.description.lower().split()[:1]}


def _bids(sentence: str, tool: Tool) -> bool:
    """Return whether a sentence begins with a tool's verb, and has the rest of its name and its numbers."""
    verb, *rest = tool.name.lower().split("_")
    first = sentence.lower().partition(" ")[0]
    fields = tool.schema.get("properties", {})
    numbers = [name for name in tool.schema.get("required", ()) if fields[name].get("type") in ("integer", "number")]
    alike = first == verb or any({first, verb} <= verbs for verbs in _VERBS.values())
    return alike and words(" ".join(rest)) <= words(sentence) and len(numbers) <= len(_NUMBER.findall(sentence))


def _placed(tool: Tool, parts: Mapping[str, str | None]) -> dict[str, Any] | None:
    """Return arguments from the parts of an order, or None if one has no place, unless the tool's name says it."""
    fields, found = tool.schema.get("properties", {}), {}
    named = {name for names in _FIELDS.values() for name in names}
    other = [name for name in tool.schema.get("required", ()) if name not in named]
    said = {part: text.strip() for part, text in parts.items() if text}
    for part, text in said.items():
        bare = text.strip("'\"") if part != "text" or text[0] in "'\"" else text
        own = [name for name in _FIELDS.get(part, ()) if name in fields] or other * (part in _FIELDS)
        free = [name for name in own if name not in found and _takes(fields[name], bare)]
        if part == "text" and COMMON.fullmatch(bare.lower()):
            continue  # hand this over
        if free:
            number = fields[free[0]].get("type") != "string" and _NUMBER.fullmatch(bare)
            found[free[0]] = json.loads(bare) if number else bare
        elif not words(bare) <= words(tool.name.replace("_", " ")):
            return None
    return found


def _takes(schema: Mapping[str, Any], text: str) -> bool:
    """Return whether a field may have a text, or the number that it is."""
    kind = schema.get("type", "string")
    return text in schema.get("enum", [text]) and (kind == "string" or bool(_NUMBER.fullmatch(text)))
