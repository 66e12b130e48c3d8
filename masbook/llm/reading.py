"""Reading a support ticket: what a rule-based expert makes of its mood, difficulty, consequences and risk.

The offline model asks `facts` wherever an output has a field called like one of the ASPECTS of `cues.toml`. The weights
of the cues found are added up, and a softmax of the sums is the confidence. For the mood the lexicon VADER (Hutto and
Gilbert, 2014) has a say too. To have it read something else, add to `cues.toml`.

The cues were chosen, and the confidence was calibrated, by looking at the first 240 of the 480 rows of
data/tickets.csv, and for the words of other trades at tests/llm/other_words.csv. The rules know no irony, and see only
what they have words for: of 60 tickets from elsewhere they read 62 % right before they had been made for them, while
the most frequent label each time would have been right in 53 %.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from .positions import Position, positions, without_positions

ALARMING = ("negative", "high")  # labels that call for action
HEARD = 1.0  # how much it weighs that somebody else has come to a label
LOUD = 0.3  # how far from neutral a sentence must be for the lexicon to have a say
TYPES = {  # of the fields that an analysis may have beside its label
    "analysis": "string",
    "confidence": "number",
    "cues": "array",
    "ranking": "array",
    "reasoning": "string",
    "recommendations": "array",
    "requires_action": "boolean",
}
_MUTE = (0.0, "")
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")
_CANNOT = "(?:can(?:not|.t| not| no longer)|(?:unable|not able) to)"
_POLITE = re.compile(  # how letters begin and end, whatever the mood; and the names of fields
    r"(?i)(?:hi|hello|dear|good (?:day|morning|evening)|(?:kind |best )?(?:regards|wishes)|thanks, |\w+:$)"
)


class Cue(NamedTuple):
    """Words that speak for a label, or for an advice, and how strongly."""

    speaks_for: str
    weight: float
    words: str


@dataclass(frozen=True, slots=True)
class Aspect:
    """A question to a text: labels, the score of each to begin with, and what speaks for it; see `cues.toml`.

    A pattern is a line of the file, with a group at the end of each cue.
    """

    name: str
    labels: tuple[str, ...]
    base: tuple[float, ...]
    cues: tuple[tuple[str, float, re.Pattern[str]], ...]
    hints: tuple[tuple[str, re.Pattern[str]], ...]
    advice: Mapping[str, str]
    sharpness: float = 1.0
    lexicon: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: a label, how likely each one is, the words that spoke for it, and what is to be done."""

    aspect: str
    label: str
    probabilities: dict[str, float]
    cues: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def confidence(self) -> float:
        """How likely the label is."""
        return self.probabilities[self.label]


def read(
    aspect: str, text: str, *, heard: Iterable[Position] = (), random: Random | None = None, missed: float = 0.0
) -> Reading:
    """Return what a text says about an aspect; each cue is overlooked with the probability `missed`.

    What others say about it, as far as that was `heard`, is a cue like any other.
    """
    table = aspects()[aspect]
    said = [Cue(one.answer, HEARD, f"{one.agent} says {one.answer}") for one in heard if one.answer in table.labels]
    cues = [cue for cue in (*_cues(aspect, text), *said) if random is None or random.random() >= missed]
    scores = dict(zip(table.labels, table.base, strict=True))
    for cue in cues:
        scores[cue.speaks_for] += cue.weight
    label = max(scores, key=scores.__getitem__)
    odds = {name: math.exp(table.sharpness * (score - scores[label])) for name, score in scores.items()}
    probabilities = {name: round(value / sum(odds.values()), 3) for name, value in odds.items()}
    spoke = tuple(dict.fromkeys(cue.words for cue in cues if cue.speaks_for == label))
    hints = [hint for hint, pattern in table.hints if any(pattern.search(words) for words in spoke)]
    usual = [table.advice[label]] if label in table.advice else []
    return Reading(aspect, label, probabilities, spoke, tuple(dict.fromkeys(hints + usual)))


def facts(
    fields: Mapping[str, Mapping[str, Any]], text: str, *, random: Random | None = None, missed: float = 0.0
) -> dict[str, Any]:
    """Return what can be read for fields of an output; empty if none of them is an aspect with its labels.

    `fields` are JSON schemas by name. A field of another name is about the aspect whose labels it has, if the text asks
    for it. Where several aspects are asked for in one output, confidence, cues and analysis are those of the
    least certain.
    """
    heard, text = positions(text), without_positions(text)
    asked = {name: aspect for name, schema in fields.items() if (aspect := _meant(name, schema, text))}
    found = {name: read(asked[name], text, heard=heard, random=random, missed=missed) for name in asked}
    if not found:
        return {}
    readings = list(found.values())
    weakest = min(readings, key=lambda reading: reading.confidence)
    because = f"because of: {'; '.join(weakest.cues)}" if weakest.cues else "for want of a sign of anything else"
    more: dict[str, Any] = {
        "analysis": f"{weakest.aspect} is {weakest.label}, {because}",
        "confidence": weakest.confidence,
        "cues": list(weakest.cues),
        "ranking": sorted(weakest.probabilities, key=lambda label: -weakest.probabilities[label]),
        "reasoning": f"{weakest.aspect} is {weakest.label}, {because}",
        "recommendations": list(dict.fromkeys(advice for reading in readings for advice in reading.advice)),
        "requires_action": any(reading.label in ALARMING for reading in readings),
    }
    fitting = {name: value for name, value in more.items() if fields.get(name, {}).get("type") == TYPES[name]}
    return {name: reading.label for name, reading in found.items()} | fitting


@cache
def aspects() -> dict[str, Aspect]:
    """Return the aspects of `cues.toml` by name."""
    tables = tomllib.loads(Path(__file__).with_name("cues.toml").read_text(encoding="utf-8"))
    return {name: _aspect(name, **table) for name, table in tables.items()}


def _aspect(
    name: str,
    labels: list[str],
    base: list[float],
    cues: list[dict[str, Any]],
    hints: list[dict[str, Any]] = [],  # noqa: B006
    **more: Any,
) -> Aspect:
    speaking = tuple((line["label"], line["weight"], _compiled(line["patterns"])) for line in cues)
    hinting = tuple((line["advice"], _compiled(line["patterns"])) for line in hints)
    return Aspect(name, tuple(labels), tuple(base), speaking, hinting, **more)


def _compiled(patterns: list[str]) -> re.Pattern[str]:
    """Return one pattern for one pass over a text: where a word begins one of them, its group ends it."""
    either = "|".join(f"(?:{pattern})()" for pattern in patterns)  # around it, a group would slow the search down
    return re.compile(rf"\b(?=\w)(?={either.replace('cannot', _CANNOT)})")


def _meant(name: str, schema: Mapping[str, Any], text: str) -> str | None:
    """Return the aspect that a field is about, if it is about one."""
    if name in aspects():
        return name if _fit(name, schema) else None
    labels = set(schema.get("enum", ()))
    fitting = [aspect for aspect, table in aspects().items() if labels == set(table.labels)]
    asked = {
        match[0]: match.start() for aspect in fitting if (match := re.search(rf"\b{aspect}\b(?=[^.!?\n]*\?)", text))
    }
    return min(asked, key=asked.__getitem__, default=None)


def _fit(aspect: str, schema: Mapping[str, Any]) -> bool:
    """Return whether the field may have the labels of the aspect."""
    return schema.get("type") == "string" and set(aspects()[aspect].labels) <= set(
        schema.get("enum", aspects()[aspect].labels)
    )


@lru_cache(maxsize=4096)
def _cues(aspect: str, text: str) -> tuple[Cue, ...]:
    """Return the cues in a text, those of the lexicon last."""
    table = aspects()[aspect]
    said = text.lower()
    found = [Cue(label, weight, words) for label, weight, line in table.cues for words in _matches(line, said)]
    return (*found, *(_tones(table.lexicon, text) if table.lexicon else ()))


def _matches(line: re.Pattern[str], text: str) -> Iterable[str]:
    """Return the words that match a line, once for each of its cues."""
    found: dict[int, str] = {}
    for match in line.finditer(text):
        cue = match.lastindex or 0
        found.setdefault(cue, text[match.start() : match.end(cue)])
    return found.values()


def _tones(weight: float, text: str) -> Iterator[Cue]:
    """Yield the warmest and the coldest sentence, as the lexicon sees them, without how letters begin and end."""
    said = [sentence for sentence in _SENTENCE.split(text) if not _POLITE.match(sentence)]
    tones = [(float(_lexicon().polarity_scores(sentence)["compound"]), sentence) for sentence in said]
    warm, warmest = max(tones, default=_MUTE)
    cold, coldest = min(tones, default=_MUTE)
    if warm > LOUD:
        yield Cue("positive", weight * warm, warmest.lower())
    if cold < -LOUD:
        yield Cue("negative", -weight * cold, coldest.lower())


@cache
def _lexicon() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # here: most outputs have no mood to read

    return SentimentIntensityAnalyzer()
