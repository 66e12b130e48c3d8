"""Frames: what happened in a run, as pandas DataFrames.

Every function takes a Run, a World or a Trace and reads the trace alone (see `story`). The columns and dtypes of a
frame are the same for every trace, also for one in which nothing happened. Times are in virtual seconds.

`events` has every row that the trace has kept. The other frames end where the world begins to close, so that work in
hand at the end is not taken for a failure; they raise InvalidValue if the trace has not kept every row. Those of tasks,
conflicts, teams and locks stand in `cooperation`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pandas as pd

from ..errors import InvalidValue
from ..runtime.trace import KINDS
from . import story
from .cooperation import attempts as attempts
from .cooperation import conflicts as conflicts
from .cooperation import holds as holds
from .cooperation import tasks as tasks
from .cooperation import team as team
from .dialogue import transcript as transcript
from .story import SENT, Interval, Source
from .tables import DTYPES as DTYPES
from .tables import IDS, columns_from, columns_of, table
from .thinking import model_calls as model_calls

_ROW = ("time", "kind", "who")


def events(source: Source, kind: str | None = None) -> pd.DataFrame:
    """Return the rows that the trace has kept, all or those of one kind, in order.

    Columns: time float64, kind str, who str; then the fields that KINDS declares for that kind (text `str`, whole
    numbers `Int64`, other numbers `float64`, anything else `object`), or for all kinds `facts`, a dict, `object`.
    InvalidValue for a kind that is not declared.
    """
    rows = list(story.trace_of(source).rows)
    if kind is None:
        facts = [dict(zip(KINDS[row[1]], row[3:], strict=False)) for row in rows]
        return table({**columns_of(rows, _ROW), "facts": facts})
    if kind not in KINDS:
        raise InvalidValue(f"no kind of event {kind!r}; the kinds are {', '.join(KINDS)}")
    columns = columns_of([row for row in rows if row[1] == kind], (*_ROW, *KINDS[kind]))
    dtypes = dict.fromkeys(IDS.split(), "Int64")  # a row may leave any field out
    return table(columns, {**dtypes, **_IRREGULAR.get(kind, {})})


_IRREGULAR = {
    "crashed": {"message": "str"},
    "fault": {"detail": "object"},
    "conversation_stopped": {"conversation": "str"},
}


def messages(source: Source) -> pd.DataFrame:
    """Return one row for each message sent, in the order of sending.

    Columns: time float64, message int64 (its id), type, sender, to, topic str (`to` is missing for publications and
    broadcasts), copies, priority int64, cause, reply_to Int64, conversation int64, content object; then delivered,
    handled, failed, lost int64, how many of its copies were (lost is dropped or dead), and status str: the outcome of
    its copies as in `deliveries`, `mixed` where they differ, `no recipient` where there are none.
    """
    sent = story.tell(source)[0].letters.values()
    columns = columns_of([letter.row for letter in sent], SENT)
    columns = {name: columns[name] for name in ("time", "message", "type", "sender", *list(SENT)[5:])}
    outcomes = [Counter(copy.outcome for copy in letter.copies) for letter in sent]
    counts = {
        "delivered": [sum(not math.isnan(copy.delivered) for copy in letter.copies) for letter in sent],
        "handled": [found["handled"] for found in outcomes],
        "failed": [found["failed"] for found in outcomes],
        "lost": [found["dropped"] + found["dead"] for found in outcomes],
    }
    status = [_agreed(found) for found in outcomes]
    return table({**columns, **counts, "status": status}, dict.fromkeys(counts, "int64"))


def _agreed(outcomes: Counter[str]) -> str:
    if not outcomes:
        return "no recipient"
    return next(iter(outcomes)) if len(outcomes) == 1 else "mixed"


def deliveries(source: Source) -> pd.DataFrame:
    """Return one row for each copy of a message: one for each recipient, and one more for each duplicate.

    Columns: message int64, type, sender, to, topic str (`to` is missing while a subscriber's copy waits unnamed);
    sent, delivered, finished float64: when it was sent, given to its handler, and done with or given up; waiting,
    service, latency float64: sent to delivered, delivered to finished, sent to finished, missing where it did not get
    that far; outcome str: `handled`, `failed`, `cancelled`, `dropped`, `dead`, `delivered` (an answer received, or a
    message in hand at the end) or `in flight` (under way, or in the mailbox); reason str, for what failed or was lost.
    Ordered by message, then by recipient as first heard of.
    """
    pairs = [(letter.row, copy) for letter in story.tell(source)[0].letters.values() for copy in letter.copies]
    sent = columns_of([row for row, _ in pairs], SENT)
    columns = {"sent": sent["time"], **{name: sent[name] for name in ("message", "type", "sender", "topic")}}
    told = columns_from([copy for _, copy in pairs], "to delivered finished outcome reason")
    frame = table({**columns, **told})
    waiting, service = frame["delivered"] - frame["sent"], frame["finished"] - frame["delivered"]
    latency = (frame["finished"] - frame["sent"]).where(frame["delivered"].notna())
    return frame.assign(waiting=waiting, service=service, latency=latency)[_DELIVERY.split()]


_DELIVERY = "message type sender to topic sent delivered finished waiting service latency outcome reason"


def requests(source: Source) -> pd.DataFrame:
    """Return one row for each request sent, in the order of sending.

    Columns: message int64, sender, to, capability str; sent, answered, latency float64: when it was sent, when the
    reply, the end of the stream or the error reached who asked, and the time between, missing if none did; outcome
    str: `reply`, `error`, `timed_out`, `cancelled` (who asked gave up), `dead` (nobody could take it) or `pending`;
    error str: what went wrong.
    """
    found = story.tell(source)[0].requests()
    sent = columns_of([request.row for request in found], SENT)
    asked = {"message": "message", "sender": "sender", "to": "to", "capability": "topic", "sent": "time"}
    columns = {column: sent[name] for column, name in asked.items()}
    frame = table({**columns, **columns_from(found, "answered outcome error")})
    frame.insert(6, "latency", frame["answered"] - frame["sent"])
    return frame


def agents(source: Source) -> pd.DataFrame:
    """Return one row for each agent in the order of spawning, then for services such as the registry that got messages.

    Columns: who, type, parent str, concurrency Int64, spawned float64, state str (at the end: `idle`, `busy`, `error`,
    `offline`); sent, received, handled, failed, crashes, restarts int64; busy float64: virtual seconds spent on
    messages, added up where several are in hand; utilisation float64: busy as a share of what its concurrency allows
    since it was spawned, missing where no time has passed.
    """
    rows, end = story.read(source)
    lives = story.Story(rows).agents()
    facts = [_born(life.spawned) for life in lives.values()]
    pasts = [life.intervals(end) for life in lives.values()]
    count = Counter((row[1], row[2]) for row in rows)
    busy = [sum(life.in_hand * (life.end - life.start) for life in past) for past in pasts]
    slots = [fact["concurrency"] * (end - past[0].start) for fact, past in zip(facts, pasts, strict=True)]
    return table(
        {
            "who": list(lives),
            **{name: [fact.get(name) for fact in facts] for name in ("type", "parent", "concurrency")},
            "spawned": [past[0].start for past in pasts],
            "state": [past[-1].state for past in pasts],
            **{column: [count[kind, who] for who in lives] for column, kind in _COUNTED.items()},
            "busy": busy,
            "utilisation": [work / room if room else math.nan for work, room in zip(busy, slots, strict=True)],
        },
        dict.fromkeys(_COUNTED, "int64"),
    )


_COUNTED = {"sent": "sent", "received": "delivered", "handled": "handled", "failed": "failed"}
_COUNTED |= {"crashes": "crashed", "restarts": "restarted"}


def _born(row: story.Row | None) -> dict[str, Any]:
    """Return what the trace says of an agent's birth; services such as the registry are there from the beginning."""
    return {"type": "service", "concurrency": 1} if row is None else dict(zip(KINDS["spawned"], row[3:], strict=True))


def faults(source: Source) -> pd.DataFrame:
    """Return one row for each fault that fired, in order, with the message it struck.

    Columns: time float64, who str (whom it struck), fault str, seconds float64 (how much it delays, how long it lasts;
    missing where it does not say), detail str (what it says instead), message Int64 and its type, sender and topic
    str, which are missing for crashes and other faults of agents.
    """
    rows, _ = story.read(source)
    columns = columns_of([row for row in rows if row[1] == "fault"], (*_ROW, *KINDS["fault"]))
    sent = {row[SENT["message"]]: row for row in rows if row[1] == "sent"}
    struck = [sent.get(message) for message in columns["message"]]
    details = columns["detail"]
    return table(
        {
            **{name: columns[name] for name in ("time", "who", "fault")},
            "seconds": [detail if isinstance(detail, int | float) else None for detail in details],
            "detail": [detail if isinstance(detail, str) else None for detail in details],
            "message": columns["message"],
            **{name: [row and row[SENT[name]] for row in struck] for name in ("type", "sender", "topic")},
        },
        {"message": "Int64"},
    )


def states(source: Source) -> pd.DataFrame:
    """Return the intervals in which each agent was in one state, agent by agent in the order of `agents`.

    Columns: who, state str (`idle`; `busy` with at least one message in hand; `error` after a crash; `offline` after a
    stop); start, end, duration float64. States passed through in no time are left out.
    """
    told, end = story.tell(source)
    lives = [(who, life) for who, past in told.agents().items() for life in _merged(past.intervals(end))]
    return _spans("state", [(who, life.state, life.start, life.end) for who, life in lives])


def health(source: Source) -> pd.DataFrame:
    """Return the intervals in which the registry took each agent to be healthy, in the order of first registration.

    Columns: who, health str (`healthy`, `degraded`, `unhealthy`, or `removed` until it is registered again); start,
    end, duration float64. An interval ends with the run, or with the agent's stop.
    """
    told, end = story.tell(source)
    spans = [
        (who, now, start, until)
        for who, past in told.health.items()
        for (now, start), (_, until) in pairwise([*past, (None, end)])
        if now is not None and until > start
    ]
    return _spans("health", spans)


def _spans(what: str, rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """Return who was in which state from when to when, and how long."""
    columns = columns_of(rows, ("who", what, "start", "end"))
    return table({**columns, "duration": [end - start for *_, start, end in rows]})


def _merged(past: Iterable[Interval]) -> list[Interval]:
    """Return the intervals without the empty ones, neighbours in the same state as one."""
    found: list[Interval] = []
    for life in past:
        if life.end <= life.start:
            continue
        if found and found[-1].state == life.state:
            found[-1] = found[-1]._replace(end=life.end)
        else:
            found.append(life)
    return found
