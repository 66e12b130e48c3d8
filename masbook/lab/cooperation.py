"""The frames of what agents do together: tasks, attempts at them, conflicts, members of teams, and who holds what.

They are names of `frames`, and keep its rules.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..runtime.trace import KINDS
from . import ledger, story
from .story import Source
from .tables import columns_of, table


def tasks(source: Source) -> pd.DataFrame:
    """Return one row for each task of workflows, coordinators and teams, in the order in which they were added.

    Columns: workflow, task, capability, agent str (who was at work); attempt Int64; status str: that of its task if it
    lasted until the task ended, else `failed`, or `completed` for a part of a task, or `running` at the end of the run;
    start, begun, end float64: when it was given to the agent, taken in hand, and over; duration float64: begun to end;
    error str.
    """
    found = ledger.tasks(story.read(source)[0])
    columns = _fields(
        found,
        _TASK,
        agents=[tuple(dict.fromkeys(attempt.agent for attempt in work.tries)) for work in found],
        attempts=[len({attempt.attempt for attempt in work.tries}) for work in found],
        begun=[work.tries[0].begun if work.tries else math.nan for work in found],
        waited=[work.tries[0].begun - work.ready if work.tries else math.nan for work in found],
        duration=[work.ended - work.started for work in found],
    )
    return table(columns, {"service": "str", "attempts": "int64", "priority": "Int64", "critical": "bool"})


_TASK = """workflow task capability service agent agents status added ready started begun ended waited duration undone
    attempts priority after parent critical error"""


def attempts(source: Source) -> pd.DataFrame:
    """Return one row for each agent's attempt at a task, in the order in which the tasks were added.

    Columns: workflow, task, capability, agent str (who was at work); attempt Int64; status str: that of its task if it
    lasted until the task ended, else `failed`, or `running` at the end of the run; start, end, duration float64; error
    str.
    """
    found = [attempt for work in ledger.tasks(story.read(source)[0]) for attempt in work.tries]
    names = "workflow task capability agent attempt status start begun end duration error"
    return table(_fields(found, names, duration=[attempt.end - attempt.begun for attempt in found]))


def conflicts(source: Source) -> pd.DataFrame:
    """Return one row for each conflict, in the order in which they came up.

    Columns: conflict, type str; participants object (a tuple of names); description str; opened, ended, duration
    float64: when it came up, when it was resolved, and the time between, missing while it is open; strategy str (that
    decided); tried object (a tuple of the strategies, in turn); outcome str, `open` while there is none; winner str;
    satisfaction float64: the mean over the participants, from 0 to 1; fairness float64: Jain's index of it (see
    `ledger.fairness`), 1 where all are equally satisfied, 1/n where one of n is and nobody else, missing where nothing
    was decided; decision object.
    """
    found = ledger.disputes(story.read(source)[0])
    said = [list((dispute.satisfaction or {}).values()) for dispute in found]
    columns = _fields(
        found,
        _CONFLICT,
        duration=[dispute.ended - dispute.opened for dispute in found],
        satisfaction=[sum(values) / len(values) if values else math.nan for values in said],
        fairness=[
            ledger.fairness(values if dispute.decision is not None else ())
            for dispute, values in zip(found, said, strict=True)
        ],
    )
    return table(columns, {"satisfaction": "float64"})


_CONFLICT = """conflict type participants description opened ended duration strategy tried outcome winner
    satisfaction fairness decision"""


def team(source: Source) -> pd.DataFrame:
    """Return one row for each member of a team, in the order in which they joined.

    Columns: team, who, role, superior str (missing at the top); skills object; capacity Int64; started, completed,
    failed, in_hand int64: how many tasks it began, how many of these it did, failed or gave back, and has at the end;
    delegated, assistance, escalated int64: how many it handed over so; busy float64: virtual seconds spent on tasks,
    added up where several were in hand; utilisation float64: busy as a share of what its capacity allows since then.
    """
    rows, end = story.read(source)
    joined = {
        (row[3], row[2]): row for row in rows if row[1] == "joined"
    }.values()  # the last row about somebody counts
    columns = columns_of(list(joined), ("time", "kind", "who", *KINDS["joined"]))
    tried = attempts(source)
    spent = (tried["end"].fillna(end) - tried["begun"]).groupby(tried["agent"]).sum()
    busy = [float(spent.get(row[2], 0.0)) for row in joined]
    room = [(row[7] or 1) * (end - row[0]) for row in joined]
    count = Counter(zip(tried["agent"], tried["status"], strict=True))
    count.update((who, "started") for who in tried["agent"])
    count.update((row[2], row[6]) for row in rows if row[1] == "handover")
    counts = {name: [count[row[2], _COUNTS.get(name, name)] for row in joined] for name in _MEMBER[6:13]}
    facts = {**{name: columns[name] for name in _MEMBER[:6]}, **counts, "busy": busy}
    share = [work / space if space else math.nan for work, space in zip(busy, room, strict=True)]
    return table({**facts, "utilisation": share}, dict.fromkeys(counts, "int64"))


_MEMBER = ["team", "who", "role", "superior", "skills", "capacity", "started", "completed", "failed", "in_hand"]
_MEMBER += ["delegated", "assistance", "escalated"]
_COUNTS = {"in_hand": "running"}


def holds(source: Source) -> pd.DataFrame:
    """Return one row for each lock, permit or share that somebody wanted to hold, in the order of asking.

    Columns: who, resource str (such as `lock:gpu`); token Int64, missing if it was never granted; asked, start, end
    float64: when it was asked for, granted and given back; waited (until it was granted, or given up), duration (until
    it was given back) float64; status str: `waiting` or `held` at the end of the run, else why it ended: `released`,
    `lease expired`, `timed out`, `cancelled`, `crashed`, `stopped`.
    """
    found = ledger.holds(story.read(source)[0])
    until = [hold.end if math.isnan(hold.start) else hold.start for hold in found]
    waited = [end - hold.asked for hold, end in zip(found, until, strict=True)]
    names = "who resource token asked start end waited duration status"
    return table(_fields(found, names, waited=waited, duration=[hold.end - hold.start for hold in found]))


def _fields(found: Iterable[object], names: str, **derived: list[Any]) -> dict[str, Iterable[Any]]:
    """Return columns by their names: those derived, the others as attributes of what was found."""
    return {name: derived.get(name) or [getattr(thing, name) for thing in found] for name in names.split()}
