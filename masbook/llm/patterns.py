"""Texts that an expression or a format of a schema allows: read from a text, or as short as may be; `forms` asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]  # what `re` itself reads patterns with: nothing public does
from typing import Any

_ANY = "a0A -_.,:;@/#!?\"'()*+&%$\u00e9\n\t"  # characters to try for a set, the plainest first
_CLASSES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
FORMATS = {  # of texts: how one looks, and one for where a text has none
    "date": (r"\d{4}-\d{2}-\d{2}", "2026-01-01"),
    "date-time": (r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:Z|[+-]\d{2}:\d{2})?)?", "2026-01-01T00:00:00Z"),
    "time": (r"\b\d{2}:\d{2}(?::\d{2})?\b", "00:00:00"),
    "duration": (r"\bP(?=[\dT])[\dDTHMS]+\b", "PT0S"),
    "uuid": (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "00000000-0000-4000-8000-000000000000"),
    "uri": (r"https?://[^\s\"'<>]+[\w/]", "https://unknown.example"),
    "uuid4": (r"\b[0-9a-f]{8}-[0-9a-f]{4}-4(?:[0-9a-f]{3}-){2}[0-9a-f]{12}\b", "00000000-0000-4000-8000-000000000000"),
    "ipv4": (r"\b(?:\d{1,3}\.){3}\d{1,3}\b", "127.0.0.1"),
    "ipv6": (r"\b(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}\b", "::1"),
    "base64": (r"\b(?:[A-Za-z0-9+/]{4})+={1,2}", "bm9uZQ=="),
    "email": (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "unknown@example.com"),
    "application/json": (r"\{[^{}]*\}", "null"),
}


def matching(pattern: str, text: str, least: int = 0, most: int | None = None) -> str:
    """Return the first part of the text that the pattern allows, else the shortest text that it does.

    It has `least` to `most` characters if that can be. For a pattern that Python does not read it is empty.
    """
    try:
        allowed = re.compile(pattern)
        tokens = _parser.parse(pattern)
    except re.error:
        return ""
    bare = pattern.removeprefix("^").removesuffix("$")
    said = (found[0] for found in re.finditer(bare, text))
    made = [_written(tokens, more) for more in range(max(least, 1))]
    for candidate in (*said, *made):
        if allowed.search(candidate) and least <= len(candidate) and (most is None or len(candidate) <= most):
            return candidate
    return made[0]


def _written(tokens: Any, more: int) -> str:
    """Return a text that a parsed regular expression matches; what looks around in it is not heeded.

    What may be repeated is, `more` times than it must be.
    """
    return "".join(_pieces(tokens, more))


def _pieces(tokens: Any, more: int) -> Iterator[str]:
    for operation, value in tokens:
        kind = str(operation)
        if kind == "LITERAL":
            yield chr(value)
        elif kind == "IN":
            yield _character(value)
        elif kind.endswith("_REPEAT"):
            least, most, repeated = value
            yield _written(repeated, more) * min(least + more, int(most))
        elif kind == "SUBPATTERN":
            yield _written(value[-1], more)
        elif kind == "BRANCH":
            yield _written(value[1][0], more)
        elif kind in ("ANY", "NOT_LITERAL"):
            yield "a" if value != ord("a") else "b"


def _character(choices: Any) -> str:
    """Return a character of a set such as [A-Z]."""
    negated = str(choices[0][0]) == "NEGATE"
    named = [chr(value if str(kind) == "LITERAL" else value[0]) for kind, value in choices if not _is_class(kind)]
    return next((one for one in (*named, *_ANY) if negated != any(_fits(one, *choice) for choice in choices)), "")


def _is_class(kind: Any) -> bool:
    return str(kind) in ("NEGATE", "CATEGORY")


def _fits(character: str, kind: Any, value: Any) -> bool:
    """Return whether a character is meant by one part of a set."""
    if str(kind) == "CATEGORY":
        name = str(value).removeprefix("CATEGORY_")
        return (re.match(_CLASSES[name.removeprefix("NOT_")], character) is None) == name.startswith("NOT_")
    if str(kind) == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    return str(kind) == "LITERAL" and ord(character) == value
