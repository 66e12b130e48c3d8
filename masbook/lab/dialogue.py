"""Conversations to look at: who said what, as a table and to be read.

`frames` gives out `transcript`; a notebook shows a `Transcript` with the names in colours.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from . import story, style
from .story import SENT, Source
from .tables import table

if TYPE_CHECKING:
    from ..llm.conversation import Conversation

COLOURS = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY)  # on white and on black
_TURNS = ("take_turn", "take_turn_in_parts")
_LOST = ("failed", "cancelled", "dropped", "dead")
_COLUMNS = {"talk": "str", "number": "Int64", "time": "float64", "speaker": "str", "text": "str"}
_COLUMNS |= {"heard": "int64", "missed": "str", "error": "str"}
_MARKS = re.compile(r"([\\`*_{}\[\]()#+.!|~$-])")  # what Markdown takes for more than text


def transcript(source: Source | Conversation) -> pd.DataFrame:
    """Return one row for each thing said in a conversation, and one for each reply that failed, in order.

    `source` may be a Conversation: its rows alone. Columns: talk str; number Int64, counted from 0 in each talk and
    missing for a reply that failed; time float64; speaker, text str; heard int64, how many of the others heard it;
    missed str, the names of those who did not; error str, why a reply failed.
    """
    talk, given = None, cast("Any", source)
    if hasattr(given, "participants"):
        talk, given = given.name, given.participants[0].world
    said: dict[tuple[str, int], dict[str, Any]] = {}
    told, _ = story.tell(given)
    for letter in told.letters.values():
        content = letter.row[SENT["content"]]
        if letter.row[SENT["topic"]] != "hear" or letter.row[SENT["type"]] not in ("request", "tell"):
            continue
        if not _said(content) or talk not in (None, content["talk"]):
            continue
        line = said.setdefault((content["talk"], content.get("number", 0)), _line(letter.row))
        heard = {copy.to for copy in letter.copies if copy.outcome == "handled"}  # one of two copies is enough
        lost = dict.fromkeys(copy.to for copy in letter.copies if copy.outcome in _LOST)
        line["heard"] += len(heard)
        line["missed"] += [name for name in lost if name not in heard]
    for request in told.requests():
        name = request.row[SENT["content"]].get("talk")
        if (
            request.row[SENT["topic"]] in _TURNS
            and talk in (None, name)
            and request.outcome not in ("reply", "pending")
        ):
            said[name, -request.row[SENT["message"]]] = _line(request.row, request)
    lines = sorted(said.values(), key=lambda line: line["time"])
    columns = {name: [line[name] for line in lines] for name in _COLUMNS}
    return table({**columns, "missed": [", ".join(names) or None for names in columns["missed"]]}, _COLUMNS)


def _said(content: Mapping[str, Any]) -> bool:
    """Return whether it is what `Talker.hear` takes: agents of one's own may hear other things."""
    number = content.get("number", 0)
    return isinstance(content.get("talk"), str) and isinstance(content.get("text"), str) and isinstance(number, int)


def _line(row: story.Row, failed: story.Letter | None = None) -> dict[str, Any]:
    """Return the row of what was said, or of a reply that failed: its speaker is who was asked for it."""
    content, speaker, time, error = row[SENT["content"]], row[SENT["sender"]], row[0], None
    if failed is not None:
        speaker, time = row[SENT["to"]], time if math.isnan(failed.answered) else failed.answered
        error = failed.error or failed.outcome
    facts = {"talk": content["talk"], "number": content.get("number"), "time": time, "speaker": speaker}
    return {**facts, "text": content.get("text"), "heard": 0, "missed": [], "error": error}


class Transcript:
    """What was said, to be read: a notebook shows it with the names in colours; whatever was said is escaped."""

    def __init__(self, source: Source | Conversation) -> None:
        """Take what a Run, a World, a Trace or a Conversation has to tell, as `transcript` does."""
        self.frame = transcript(source)

    def __repr__(self) -> str:
        return "\n".join(f"{time:.2f} s {name}: {text}{remark}" for time, name, text, remark in self._lines())

    def markdown(self) -> str:
        """Return it as Markdown, with a paragraph for each thing said."""
        lines = [(time, *map(_plain, (name, text, remark))) for time, name, text, remark in self._lines()]
        return "\n\n".join(f"**{name}** ({time:.2f} s): {text}{remark}" for time, name, text, remark in lines)

    def html(self) -> str:
        """Return it as HTML; each speaker has a colour, in the order in which they first speak."""
        speakers = list(dict.fromkeys(self.frame["speaker"]))
        colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(speakers)}
        rows = [
            f'<div style="margin:4px 0;padding:2px 8px;border-left:4px solid {colours[name]}">'
            f'<b style="color:{colours[name]}">{html.escape(name)}</b> '
            f'<small style="color:{style.GREY}">{time:.2f} s</small>'
            f'<div style="white-space:pre-wrap">{html.escape(text)}<i>{html.escape(remark)}</i></div></div>'
            for time, name, text, remark in self._lines()
        ]
        return "".join(rows) or "<i>Nothing was said.</i>"

    _repr_html_ = html
    _repr_markdown_ = markdown

    def _lines(self) -> Iterator[tuple[float, str, str, str]]:
        """Yield time, speaker, text, and a remark where not everybody heard it, or where a reply failed."""
        for line in self.frame.to_dict("records"):
            missed, error = line["missed"], line["error"]
            remark = f" (not heard by {missed})" if isinstance(missed, str) else ""
            failed = isinstance(error, str)
            text, remark = ("", f"no reply: {error}") if failed else (line["text"], remark)
            yield line["time"], line["speaker"], text, remark


def _plain(text: str) -> str:
    """Return a text in which Markdown finds nothing to mark up."""
    return _MARKS.sub(r"\\\1", html.escape(text, quote=False)).replace("\n", "<br>")
