"""Quality: how often analyses are right, and how sure they are of it.

`dataset` makes labelled tickets a pydantic-evals Dataset; evaluate it with any task that returns an AnalysisReport, in
virtual time, and `judgements` makes its report a table, which `scores` sums up and the charts of `verdicts` draw:

    report = world.run(dataset(records("tickets.csv")).evaluate(panel.analyse, progress=False, max_concurrency=20))
    charts.confusion(judgements(report), "sentiment")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext
from pydantic_evals.reporting import EvaluationReport

from ..errors import InvalidValue
from ..llm.opinions import KINDS
from .verdicts import tenths, wilson


@dataclass
class Right(Evaluator[Any, Any, Any]):
    """Says for each analysis that there is whether its label is the expected one."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> dict[str, bool]:
        """Return what is right, by agent; nothing for one that gave no result."""
        expected = ctx.expected_output or {}
        return {kind: found.label == expected[kind] for kind, found in ctx.output.results.items()}


def dataset(tickets: Iterable[Mapping[str, Any]], name: str = "tickets") -> Dataset[Any, Any, Any]:
    """Return labelled tickets, such as the rows of tickets.csv, as a Dataset; InvalidValue for one without a label."""
    cases: list[Case[Any, Any, Any]] = []
    for ticket in tickets:
        if missing := [kind.judges for kind in KINDS.values() if not isinstance(ticket.get(kind.judges), str)]:
            raise InvalidValue(f"the ticket {ticket.get('id')!r} has no label for {', '.join(missing)}")
        expected = {kind: ticket[output.judges] for kind, output in KINDS.items()}
        cases.append(Case(name=str(ticket["id"]), inputs=dict(ticket), expected_output=expected))
    return Dataset(name=name, cases=cases, evaluators=[Right()])


def judgements(report: EvaluationReport[Any, Any, Any]) -> pd.DataFrame:
    """Return one row for each ticket and agent, in order.

    Columns: ticket, agent, expected, label str (missing where the agent gave no result); right boolean, confidence
    float64, missing too; seconds float64; error str: why there is no result.
    """
    rows = []
    for case in report.cases:
        for kind, expected in (case.expected_output or {}).items():
            found, failure = case.output.results.get(kind), case.output.failures.get(kind)
            said = (None, None, None) if found is None else (found.label, case.assertions[kind].value, found.confidence)
            error = None if failure is None else failure.error
            rows.append((case.name, kind, expected, *said, case.output.seconds[kind], error))
    texts, numbers = ("ticket", "agent", "expected", "label", "error"), ("confidence", "seconds")
    table = pd.DataFrame(rows, columns=[*texts[:4], "right", *numbers, "error"])
    return table.astype({**dict.fromkeys(texts, "str"), **dict.fromkeys(numbers, "float64"), "right": "boolean"})


def scores(table: pd.DataFrame, by: str = "agent") -> pd.DataFrame:
    """Return one row for each agent, or other value of the column `by`.

    Columns: tickets, answered int64; accuracy, the share of the answers that is right, with its 95 % interval low and
    high (Wilson, 1927); majority, what saying the most frequent label each time would reach; confidence, its mean; and
    calibration_error, how far confidence is from accuracy, on the average over tenths of confidence.
    """
    rows = []
    for name, own in table.groupby(by, sort=False):
        told = own.dropna(subset=["label"])
        right, bins = told["right"].astype(float), tenths(told["confidence"])
        gaps = (right - told["confidence"]).groupby(bins, observed=True).sum().abs()
        low, high = wilson(int(right.sum()), len(told))
        most = own["expected"].value_counts(normalize=True).iloc[0]
        facts = (right.mean(), low, high, most, told["confidence"].mean(), gaps.sum() / max(len(told), 1))
        rows.append((name, len(own), len(told), *facts))
    names = "tickets answered accuracy low high majority confidence calibration_error"
    return pd.DataFrame(rows, columns=[by, *names.split()])
