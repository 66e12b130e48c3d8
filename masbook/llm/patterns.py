"""Texts that a regular expression of a schema allows: read from a text, or the shortest there is; `forms` asks."""

from __future__ import annotations

import re
from re import _parser  # type: ignore[attr-defined]  # what `re` itself reads patterns with: nothing public does
from typing import Any


def matching(pattern: str, text: str) -> str:
    """Return the first part of the text that the pattern allows, else the shortest text that it does."""
    bare = pattern.removeprefix("^").removesuffix("$")
    said = next((found[0] for found in re.finditer(bare, text) if re.search(pattern, found[0])), None)
    return _shortest(_parser.parse(pattern)) if said is None else said


def _shortest(tokens: Any) -> str:
    """Return a short text that a parsed regular expression matches; what looks around in it is not heeded."""
    written = ""
    for operation, value in tokens:
        kind = str(operation)
        if kind == "LITERAL":
            written += chr(value)
        elif kind == "IN":
            written += _character(value)
        elif kind.endswith("_REPEAT"):
            written += _shortest(value[2]) * value[0]
        elif kind == "SUBPATTERN":
            written += _shortest(value[-1])
        elif kind == "BRANCH":
            written += _shortest(value[1][0])
        elif kind in ("ANY", "NOT_LITERAL"):
            written += "a" if value != ord("a") else "b"
    return written


def _character(choices: Any) -> str:
    """Return a character of a set such as [A-Z]."""
    allowed = "".join(_members(str(kind), value) for kind, value in choices if str(kind) != "NEGATE")
    if str(choices[0][0]) == "NEGATE":
        return next(character for character in "aA0 -_" if character not in allowed)
    return allowed[0]


def _members(kind: str, value: Any) -> str:
    if kind == "RANGE":
        return "".join(map(chr, range(value[0], min(value[1], value[0] + 128) + 1)))
    return (
        chr(value)
        if kind == "LITERAL"
        else {"CATEGORY_DIGIT": "0123456789", "CATEGORY_SPACE": " "}.get(str(value), "a")
    )
