"""The frames of what agents do together: tasks, attempts at them, conflicts, members of teams, and who holds what.

They are names of `frames`, and keep its rules.
"""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from ..runtime.trace import KINDS
from . import ledger, story
from .story import Source
from .tables import columns_from, columns_of, table


def tasks(source: Source) -> pd.DataFrame:
    """Return one row for each task of workflows, coordinators and teams, in the order in which they were added.

    Columns: workflow, task, capability, service (that keeps it), agent (at work last) str; agents object (a tuple of
    all who worked on it); status str: how it ended, or `waiting` or `running` at the end of the run; added, ready (what
    it comes after had ended), started, begun (given to an agent first, and taken in hand), ended float64; waited (ready
    to begun), duration (started to ended), undone (when it was compensated) float64; attempts int64; priority Int64;
    after object (a tuple of tasks); parent str; critical bool: whether it is on the critical path; error str.
    """
    columns = columns_from(
        ledger.tasks(story.read(source)[0]),
        """workflow task capability service agent agents status added ready started begun ended waited duration undone
        attempts priority after parent critical error""",
        agents=lambda work: tuple(dict.fromkeys(attempt.agent for attempt in work.tries)),
        attempts=lambda work: len({attempt.attempt for attempt in work.tries}),
        begun=lambda work: work.tries[0].begun if work.tries else math.nan,
        waited=lambda work: work.tries[0].begun - work.ready if work.tries else math.nan,
        duration=lambda work: work.ended - work.started,
    )
    return table(columns, {"service": "str", "attempts": "int64", "priority": "Int64", "critical": "bool"})


def attempts(source: Source) -> pd.DataFrame:
    """Return one row for each agent's attempt at a task, in the order in which the tasks were added.

    Columns: workflow, task, capability, agent str (who was at work); attempt Int64; status str: that of its task if it
    lasted until the task ended, else `failed`, or `completed` for a part of a task, or `running` at the end of the run;
    start, begun, end float64: when it was given to the agent, taken in hand, and over; duration float64: begun to end;
    error str.
    """
    found = [attempt for work in ledger.tasks(story.read(source)[0]) for attempt in work.tries]
    names = "workflow task capability agent attempt status start begun end duration error"
    return table(columns_from(found, names, duration=lambda attempt: attempt.end - attempt.begun))


def conflicts(source: Source) -> pd.DataFrame:
    """Return one row for each conflict, in the order in which they came up.

    Columns: conflict, type str; participants object (a tuple of names); description str; opened, ended, duration
    float64: when it came up, when it was resolved, and the time between, missing while it is open; strategy str (that
    decided); tried object (a tuple of the strategies, in turn); outcome str, `open` while there is none; winner str;
    satisfaction float64: the mean over the participants, from 0 to 1; fairness float64: Jain's index of it (see
    `ledger.fairness`), 1 where all are equally satisfied, 1/n where one of n is and nobody else, missing where nothing
    was decided; decision object.
    """
    columns = columns_from(
        ledger.disputes(story.read(source)[0]),
        """conflict type participants description opened ended duration strategy tried outcome winner satisfaction
        fairness decision""",
        duration=lambda dispute: dispute.ended - dispute.opened,
        satisfaction=lambda dispute: _mean(dispute.satisfied()),
        fairness=lambda dispute: ledger.fairness(dispute.satisfied() if dispute.decision is not None else ()),
    )
    return table(columns, {"satisfaction": "float64"})


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def team(source: Source) -> pd.DataFrame:
    """Return one row for each member of a team, in the order in which they joined.

    Columns: team, who, role, superior str (missing at the top); skills object; capacity Int64; started, completed,
    failed, in_hand int64: how many tasks it began, how many of these it did, failed or gave back, and has at the end;
    delegated, assistance, escalated int64: how many it handed over so; busy float64: virtual seconds spent on tasks,
    added up where several were in hand; utilisation float64: busy as a share of what its capacity allows since then.
    """
    rows, end = story.read(source)
    joined = list({(row[3], row[2]): row for row in rows if row[1] == "joined"}.values())  # the last about somebody
    facts = columns_of(joined, ("time", "kind", "who", *KINDS["joined"]))
    tried = attempts(source)
    spent = (tried["end"].fillna(end) - tried["begun"]).groupby(tried["agent"]).sum()
    count = Counter(zip(tried["agent"], tried["status"], strict=True))
    count.update((who, "started") for who in tried["agent"])
    count.update((row[2], row[6]) for row in rows if row[1] == "handover")
    busy = [float(spent.get(who, 0.0)) for who in facts["who"]]
    room = [(row[7] or 1) * (end - row[0]) for row in joined]
    columns = {name: facts[name] for name in ("team", "who", "role", "superior", "skills", "capacity")}
    columns |= {name: [count[who, status] for who in facts["who"]] for name, status in _COUNTED.items()}
    share = [work / space if space else math.nan for work, space in zip(busy, room, strict=True)]
    return table({**columns, "busy": busy, "utilisation": share}, dict.fromkeys(_COUNTED, "int64"))


_COUNTED = {"started": "started", "completed": "completed", "failed": "failed", "in_hand": "running"}
_COUNTED |= {how: how for how in ("delegated", "assistance", "escalated")}


def holds(source: Source) -> pd.DataFrame:
    """Return one row for each lock, permit or share that somebody wanted to hold, in the order of asking.

    Columns: who, resource str (such as `lock:gpu`); token Int64, missing if it was never granted; asked, start, end
    float64: when it was asked for, granted and given back; waited (until it was granted, or given up), duration (until
    it was given back) float64; status str: `waiting` or `held` at the end of the run, else why it ended: `released`,
    `lease expired`, `timed out`, `cancelled`, `crashed`, `stopped`.
    """
    columns = columns_from(
        ledger.holds(story.read(source)[0]),
        "who resource token asked start end waited duration status",
        waited=lambda hold: (hold.end if math.isnan(hold.start) else hold.start) - hold.asked,
        duration=lambda hold: hold.end - hold.start,
    )
    return table(columns)
