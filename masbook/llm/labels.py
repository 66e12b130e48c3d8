"""Labels: what a text says line by line, as in `Title: Rain`; `forms` fills fields from it, `expert` reads past it."""

from __future__ import annotations

import re

_LABEL = re.compile(r"(?m)^[A-Z]\w+: ")
_PAIR = re.compile(r"([\w-]+)[ :=]+(\d+)\b")
_TITLES = ("title", "subject", "issue", "what")  # what a thing is called in a few words


def labelled(name: str, text: str) -> str:
    """Return what the line with the label of that name says, or for a title the one with another word for title."""
    for label in (name, *_TITLES) if name in _TITLES else (name,):
        line = re.search(rf"(?m)^{re.escape(label.replace('_', ' ').capitalize())}: (.+)$", text) if label else None
        if line is not None:
            return line[1].strip()
    return ""


def unlabelled(text: str) -> str:
    """Return a text without the labels of its lines; a single one is none, as in `Urgent: the tap drips`."""
    return _LABEL.sub("", text) if len(_LABEL.findall(text)) > 1 else text


def pairs(text: str) -> dict[str, int]:
    """Return the numbers of a text by the word before each: `billing 3, account 2`."""
    return {name: int(number) for name, number in _PAIR.findall(text)}
