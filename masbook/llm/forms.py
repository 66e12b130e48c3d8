"""Forms: data that fits any JSON schema, read from a text as far as the text says it.

The offline expert fills outputs and the arguments of tools with it. Words choose among options, numbers go where they
are in range, names and quotations where they are asked for; what the text does not say becomes the plainest value that
fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nextafter
from random import Random
from typing import Any

from .patterns import FORMATS, matching
from .positions import alternatives, choose, mentions, stance, verdict
from .reading import facts
from .texts import COMMON, labelled, likeness, pairs, points, summary, words

Schema = Mapping[str, Any]
DEEPEST = 3  # objects inside each other, where a schema contains itself
LONGEST = 1000  # objects in a list, where the schema does not say
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w-])")
_QUOTED = re.compile(r"""(?<!\w)(?:"([^"\n]+)"|'([^'\n]+)'(?!\w))""")
_FREE = {"type", "title", "description", "default", "items", "additionalProperties"}  # all that a plain field may have
_TYPES = {str: ("string",), int: ("integer", "number"), float: ("number",), bool: ("boolean",)}
_CODE = re.compile(r"[A-Z]+\d+|\w+[_-]\w+")
_PROPER = re.compile(r"[A-Z]+\d+|\b[a-z]+_\w+|(?<=[\w,] )[A-Z]\w+(?: [A-Z]\w+)*")  # what is written like a name
_IDENTIFIER = re.compile(
    r"(?:\w+_)?(?:to|from|key|name|agent|topic|id|role|skill|recipient|receiver|sender|member|task|city|country|place|"
    r"person|customer|product|order|ticket|channel|path|file|capability|symbol)"
)
_ABOUT = re.compile(r"([\w-]+): ([^;]+)")  # what a description says of options
_ORDER = re.compile(r"(?i)(?:please )?(?:send|tell|broadcast|write|say|announce|post)\b[^.!?:\n]*: +([^\s'\"].*)")


def fill(
    schema: Schema,
    text: str,
    *,
    leaning: str = "",
    random: Random | None = None,
    slips: float = 0.0,
    known: Mapping[str, Any] = {},
) -> Any:
    """Return data that fits the JSON schema; the same text gives the same, but for slips drawn from `random`.

    What is `known` goes to the fields of the same names. `leaning` is a text that decides between options where the
    text names none more than the others; `slips` is the probability that a choice is one off, or that a sign in the
    text is overlooked.
    """
    return Form(text, schema, random, slips, leaning, known).fill(schema)


@dataclass
class Form:
    """One form being filled: numbers and quotations of the text are each used once."""

    text: str
    root: Schema
    random: Random | None = None
    slips: float = 0.0
    leaning: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)  # where in the text

    def fill(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """Return the value of a field."""
        schema = self._whole(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema)
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self._member(options, name, depth)
        if "allOf" in schema:
            return self.fill({key: value for part in schema["allOf"] for key, value in self._whole(part).items()}, name)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind if isinstance(kind, str) else next((one for one in kind if one != "null"), "null")
        if kind == "object":
            return self._object(schema, name, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return self._number(schema, name, whole=kind == "integer")
        if kind == "boolean":
            return bool(words(name) & words(self.text)) and not re.search(rf"(?i)\bnot? {re.escape(name)}", self.text)
        return None if kind == "null" else self._string(schema, name)

    def _whole(self, schema: Schema) -> Schema:
        """Return a schema with what it refers to."""
        while "$ref" in schema:
            found: Any = self.root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = {**found, **{key: schema[key] for key in schema if key != "$ref"}}
        return schema

    def _slip(self, choice: Any, options: list[Any]) -> Any:
        """Return the choice, or with the probability `slips` a neighbour of it."""
        if self.random is None or len(options) < 2 or self.random.random() >= self.slips:
            return choice
        at = options.index(choice)
        return options[at - 1] if at and (at == len(options) - 1 or self.random.random() < 0.5) else options[at + 1]

    def _member(self, options: list[Schema], name: str, depth: int) -> Any:
        """Return a value of a union: of the member whose words the text says most, the first of equals."""
        whole = [self._whole(option) for option in options]
        filled = [option for option in whole if option.get("type") != "null"]
        if not filled or (len(filled) < len(whole) and (depth >= DEEPEST or self._unsaid(filled, name))):
            return None
        return self.fill(max(filled, key=lambda option: likeness(self.text, _said(option))), name, depth)

    def _unsaid(self, options: list[Schema], name: str) -> bool:
        """Return whether the text gives nothing for a plain field that may be left out."""
        kinds = ("string", "object", "array")
        plain = all(option.keys() <= _FREE and option.get("type") in kinds for option in options)
        return plain and bool(name) and not (self._labelled(name) or self._identified(name))

    def _idle(self, schema: Schema, name: str) -> bool:
        """Return whether a field that nobody needs is left to its default, which is not told."""
        return "default" not in schema and self._unsaid([schema], name)

    def _object(self, schema: Schema, name: str, depth: int) -> dict[str, Any]:
        parts = {key: self._whole(part) for key, part in schema.get("properties", {}).items()}
        needed = {*schema.get("required", parts), *self.known}
        parts = {key: part for key, part in parts.items() if key in needed or not self._idle(part, key)}
        known = verdict(parts, self.text) or facts(parts, self.text, random=self.random, missed=self.slips)
        found = {key: known[key] if key in known else self._field(part, key, depth + 1) for key, part in parts.items()}
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping) and more.get("type") in ("integer", "number") and not parts:
            found |= pairs(labelled(name, self.text))
        for number in range(len(found), schema.get("minProperties", 0)):
            keys = schema.get("propertyNames", {}).get("enum", [])
            key = keys[number] if number < len(keys) else f"item {number + 1}"
            found[key] = self.fill(more if isinstance(more, Mapping) else {}, "", depth + 1)
        return found

    def _field(self, schema: Schema, name: str, depth: int) -> Any:
        """Return what is known of a field, as it is or in the form that is wanted, else what the text says."""
        if name not in self.known:
            return self.fill(schema, name, depth)
        value = self.known[name]
        inner = value if isinstance(value, Mapping) else {}
        return value if self._suits(schema, value) else Form(str(value), self.root, known=inner).fill(schema)

    def _suits(self, schema: Schema, value: Any) -> bool:
        """Return whether a value is what a plain field asks for."""
        kind, schema = type(value), self._whole(schema)
        if kind in (list, tuple) and schema.get("type") == "array":
            return schema.keys() <= _FREE and all(self._suits(schema.get("items", {}), item) for item in value)
        return schema.keys() <= _FREE and schema.get("type") in _TYPES.get(kind, ())

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        """Return a list: the options that the text names, or an item for each of its points, as far as it may.

        A list of options or numbers that may be left out is, unless the text names some, or the list.
        """
        if "prefixItems" in schema:
            return [self.fill(item, name, depth) for item in schema["prefixItems"]]
        item, least = self._whole(schema.get("items", {})), schema.get("minItems", 0)
        kind = item.get("type", "string")
        most = max(least, min(schema.get("maxItems", 3), 5) if kind != "object" else schema.get("maxItems", LONGEST))
        if depth > DEEPEST and not least:
            return []
        if kind in ("integer", "number") and schema.get("default") == [] and not words(name) & words(self.text):
            return []
        if "enum" in item:
            counts = {option: mentions(option, self.text) for option in item["enum"]}
            named = sorted(filter(counts.__getitem__, counts), key=lambda option: -counts[option])
            rest = [option for option in item["enum"] if option not in named]
            found = [*named, *rest][: max(least, len(named), "default" not in schema)]
        elif kind in ("integer", "number"):
            found = [self.fill(item, name, depth) for _ in range(max(min(most, len(self._numbers())), 1))]
        elif kind in ("string", "object"):
            listed = labelled(name, self.text) if kind == "string" else ""
            pieces = re.split(", ", listed) if listed else points(self.text)[:most] or [self.text]
            forms = [Form(piece, self.root, self.random, self.slips, self.leaning) for piece in pieces]
            found = [form.fill(item, "", depth) for form in forms]
        else:
            found = []
        found = _distinct(found) if schema.get("uniqueItems") else found
        while len(found) < least:
            found.append(self._another(item, found, name, depth))
        return found[:most]

    def _another(self, item: Schema, found: list[Any], name: str, depth: int) -> Any:
        """Return one more item, other than those found if it is plain text or a number."""
        if item.get("type") == "string" and not item.keys() & {"format", "pattern", "enum"}:
            return f"{name or 'item'} {len(found) + 1}"
        value = self.fill(item, name, depth)
        low, high = _range(item, whole=True)
        step = item.get("multipleOf", 1)
        while isinstance(value, int | float) and value in found and len(found) <= (high - low) / step:
            value = value + step if value + step <= high else max(low, min(found) - step)
        return value

    def _numbers(self) -> list[tuple[int, float]]:
        """Return the numbers of the text that have not been used, with their places."""
        found = [(match.start(), float(match[0])) for match in _NUMBER.finditer(self.text)]
        return [(place, value) for place, value in found if place not in self._used]

    def _number(self, schema: Schema, name: str, whole: bool) -> float:
        """Return the number of the text that is in range and nearest to the field's name, else the middle."""
        step = schema.get("multipleOf", 1 if whole else 0)
        low, high = _range(schema, whole)
        said = re.search(rf"(?i)\b{re.escape(name.replace('_', ' '))}\b", self.text) if name else None
        fitting = [
            (abs(place - said.start()) if said else place, place, value)
            for place, value in self._numbers()
            if low <= value <= high and (not step or value % step == 0)
        ]
        if fitting:
            _, place, value = min(fitting)
            self._used.add(place)
        else:
            value = (low + high) / 2 if inf not in (-low, high) else max(low, min(0, high))
            value = min(-(-value // step) * step, high // step * step) if step else value
        return int(value) if whole else value

    def _string(self, schema: Schema, name: str) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if "pattern" in schema:
            return matching(schema["pattern"], self.text, least, most)
        if "contentSchema" in schema:
            return json.dumps(self.fill(schema["contentSchema"], name))
        form = schema.get("format") or schema.get("contentMediaType")
        if form in FORMATS:
            pattern, plain = FORMATS[form]
            said = re.search(pattern, self.text)
            return said[0] if said else plain
        text = self._said(name) or self._named(name) or schema.get("default") or summary(self.text) or name or "nothing"
        return text[:most].ljust(least, ".")

    def _choice(self, schema: Schema) -> Any:
        """Return one of the options of a schema; those that are described one by one are no levels to slip on."""
        about = dict(_ABOUT.findall(schema.get("description", "")))
        found = choose(schema["enum"], self.text, self.leaning, about, schema.get("default"))
        return found if about else self._slip(found, schema["enum"])

    def _said(self, name: str) -> str:
        """Return an answer to the question in the text, or the reasoning behind it, for fields of these names."""
        if name == "answer" and (options := alternatives(self.text)):
            return str(self._slip(choose(options, self.text, stance(self.leaning)), options))
        return summary(self.leaning) if name == "reasoning" else ""

    def _named(self, name: str) -> str:
        """Return what the text gives for a field: `order O00017`, `title: Rain`, `to ada`, a name, a quotation."""
        order = _ORDER.match(self.text) if name in ("text", "message", "content") else None
        said = order[1] if order else self._labelled(name) or self._identified(name)
        quoted = next((found for found in _QUOTED.finditer(self.text) if found.start() not in self._used), None)
        if said or quoted is None:
            return said
        self._used.add(quoted.start())
        return quoted[1] or quoted[2]

    def _labelled(self, name: str) -> str:
        """Return what the text says right after the name of a field."""
        spoken = re.escape(name.replace("_", " "))
        if not name or labelled(name, self.text):
            return labelled(name, self.text)
        said = re.search(rf"(?i)\b{spoken} ?[:=]? ?(?:\"([^\"\n]+)\"|'([^'\n]+)'(?!\w))", self.text)
        said = said or re.search(rf"(?i)\b{spoken} ?[:=] ?([^\n,;'\"]+)", self.text)
        if said is None:
            return ""
        self._used.add(said.start(said.lastindex or 0) - 1)
        return str(said[said.lastindex or 0]).strip()

    def _identified(self, name: str) -> str:
        """Return what the text calls a person or thing, if the field is for such a name."""
        if not _IDENTIFIER.fullmatch(name):
            return ""
        spoken = "(?:recipient|receiver|to)" if name in ("recipient", "receiver") else re.escape(name.split("_")[0])
        called: list[str] = re.findall(rf"(?i)\b{spoken} ([\w-]+)", self.text)
        called = [word for word in called if not COMMON.fullmatch(word.lower())]
        found = called or [word for word in _PROPER.findall(self.text) if not COMMON.fullmatch(word.lower())]
        word = next((word for word in found if _CODE.fullmatch(word)), found[0]) if found else ""
        self._used |= {quoted.start() for quoted in _QUOTED.finditer(self.text) if word in quoted.groups()}
        return word


def _said(schema: Schema) -> str:
    """Return the words by which a member of a union can be recognised in a text."""
    parts = schema.get("properties", {})
    constants = [str(part.get("const", "")) for part in parts.values()]
    return " ".join(
        [schema.get("title", ""), schema.get("description", ""), schema.get("type", ""), *parts, *constants]
    )


def _range(schema: Schema, whole: bool) -> tuple[float, float]:
    """Return the least and the greatest number allowed; where only one end is, the other is the same."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1 if whole else nextafter(schema["exclusiveMinimum"], inf)
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1 if whole else nextafter(schema["exclusiveMaximum"], -inf)
    return -inf if low is None else low, inf if high is None else high


def _distinct(found: list[Any]) -> list[Any]:
    return [value for number, value in enumerate(found) if value not in found[:number]]
