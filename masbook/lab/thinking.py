"""Frames of what agents asked of their models; `frames` gives it out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..runtime.trace import KINDS
from . import story
from .story import Source
from .tables import table

_FIELDS = ("ended", "kind", "who", *KINDS["model_called"])
_SPENT = ("input_tokens", "output_tokens", "cost")


def model_calls(source: Source) -> pd.DataFrame:
    """Return one row for each call of an agent to its model, in the order in which they began to be tried.

    Columns: call, who, model str; attempts int64; started, ended, seconds float64: the start of the first attempt, the
    end of the last, and the time between; input_tokens, output_tokens int64 and cost float64 (US dollars) of all
    attempts; priced bool: where it is False no price is known and the cost is missing; outcome, error str of the last
    attempt, `answered` where all is well. What a provider may charge for failed attempts is not known and not counted.
    """
    calls: dict[str, list[dict[str, Any]]] = {}
    for row in story.read(source)[0]:
        if row[1] == "model_called":
            facts = dict(zip(_FIELDS, row, strict=True))
            calls.setdefault(facts["call"], []).append(facts)
    found = list(calls.values())
    starts = [tries[0]["ended"] - tries[0]["seconds"] for tries in found]
    priced = [all(one["cost"] is not None for one in tries if one["outcome"] == "answered") for tries in found]
    spent: dict[str, list[Any]] = {name: [sum(one[name] or 0 for one in tries) for tries in found] for name in _SPENT}
    spent["cost"] = [cost if known else None for cost, known in zip(spent["cost"], priced, strict=True)]
    last = {
        name: [tries[-1][name] for tries in found] for name in ("call", "who", "model", "ended", "outcome", "error")
    }
    columns = {
        **{name: last[name] for name in ("call", "who", "model")},
        "attempts": [len(tries) for tries in found],
        "started": starts,
        "ended": last["ended"],
        "seconds": [end - start for start, end in zip(starts, last["ended"], strict=True)],
        **spent,
        "priced": priced,
        "outcome": last["outcome"],
        "error": last["error"],
    }
    return table(columns, {"attempts": "int64", "input_tokens": "int64", "output_tokens": "int64", "priced": "bool"})
