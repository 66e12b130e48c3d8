"""Texts, taken apart: sentences, words that count, labels such as `Title: Rain`; `forms` and `expert` read with it."""

from __future__ import annotations

import re
from functools import lru_cache

GO_ON = "Go on."  # what an agent is told that is to speak again, though nobody else has
_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ITEM = re.compile(r"(?m)^ *(?:[-*]|\d+[.)]) +(.+)$")  # of a list
COMMON = re.compile(
    r"(?:a|an|and|are|as|at|be|by|for|from|has|have|i|in|is|it|me|my|of|on|or|our|please|that|the|their|them|this|to|us|"
    r"was|we|what|which|who|will|with|you|your)"
)
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


def points(text: str) -> list[str]:
    """Return the items of the list in a text, or its sentences where there is none, without headings."""
    listed = [match[1].strip() for match in _ITEM.finditer(text)]
    return listed or [sentence for sentence in sentences(text) if not sentence.endswith(":")]


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text."""
    return [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()]


def summary(text: str, length: int = 2) -> str:
    """Return the sentences with the most words that count, in their order."""
    found = sentences(labelled("description", text) or labelled("title", text) or unlabelled(text))
    best = sorted(found, key=lambda sentence: -len(words(sentence)))[:length]
    return " ".join(sentence for sentence in found if sentence in best)


@lru_cache(maxsize=4096)
def words(text: str) -> frozenset[str]:
    """Return the words of a text that count, in lower case and without a plural's s."""
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if not COMMON.fullmatch(word))


def likeness(text: str, other: str) -> int:
    """Return how many words that count two texts share."""
    return len(words(text) & words(other))
