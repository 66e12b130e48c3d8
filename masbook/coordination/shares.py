"""What a coordinator keeps of a task: what was asked for, its parts, how their results are combined, how it ended."""

from __future__ import annotations

import asyncio
import inspect
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import AgentCrashed, InvalidValue, RequestTimeout, Undeliverable, WorkerBusy, describe
from ..runtime import require
from ..runtime.message import freeze

Status = Literal["waiting", "running", "completed", "failed", "cancelled", "timed_out"]
Combination = Callable[[list[Any]], Any]


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """What was asked for, a capability and inputs for each worker, and what has become of it.

    `results` are those of the parts, by worker, also where the task came to no `value`; `attempts` counts how often a
    worker was given a part; `duration` is in virtual seconds since submission; `error` says why it is not completed.
    """

    task: str
    capability: list[str]
    inputs: list[dict[str, Any]]
    priority: str
    status: Status = "waiting"
    value: Any = None
    results: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    duration: float = 0.0
    error: str | None = None


@dataclass(slots=True, eq=False)
class Part:
    """One worker's share of a task: `worker` has it or has done it; `asking` waits for the answer."""

    capability: str
    inputs: dict[str, Any]
    attempt: int = 0
    losses: int = 0
    errors: int = 0
    worker: str | None = None
    asking: asyncio.Task[Any] | None = None
    result: Any = None

    def blame(self, error: Exception) -> None:
        """Count a failure: as a loss if the worker is gone, silent or unwilling, else as an error of the work."""
        lost = isinstance(error, (AgentCrashed, RequestTimeout, Undeliverable, WorkerBusy))
        self.losses, self.errors = self.losses + lost, self.errors + (not lost)


class Job:
    """A task under way; `ended` gets its outcome, and `lacking` waits as long as there are too few workers for it."""

    def __init__(self, asked: TaskOutcome, combine: Combination, retries: int, now: float, ended: Any) -> None:
        self.asked, self.combine, self.retries, self.added = asked, combine, retries, now
        self.ended: asyncio.Future[TaskOutcome] = ended
        self.parts = [Part(*share) for share in zip(asked.capability, asked.inputs, strict=True)]
        self.failed: dict[str, None] = {}  # workers that had a part and brought no result
        self.stage: Status = "waiting"  # until the first part is given to a worker
        self.lacking: asyncio.Task[Any] | None = None
        self.timer: Any = None

    def unplaced(self) -> list[list[Part]]:
        """Return the parts that nobody has, in groups that must begin together: at first, that is all."""
        return [self.parts] if self.stage == "waiting" else [[part] for part in self.parts if part.worker is None]

    def combined(self) -> tuple[Status, str | None, Any]:
        """Return how it ends, now that every part is done: its status, what went wrong, and its value."""
        try:
            return "completed", None, freeze(self.combine([part.result for part in self.parts]))
        except Exception as error:  # of whatever kind: the function may be anybody's
            return "failed", f"{type(error).__name__} from the aggregation: {describe(error)}", None

    def outcome(self, now: float, status: Status, error: str | None = None, value: Any = None) -> TaskOutcome:
        """Return what has become of it by now."""
        results = freeze({part.worker: part.result for part in self.parts if part.worker and part.asking is None})
        attempts, duration = sum(part.attempt for part in self.parts), now - self.added
        what = {"value": value, "results": results, "attempts": attempts, "duration": duration, "error": error}
        return replace(self.asked, status=status, **what)


def divide(capability: Any, inputs: Any, workers: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the capability and the inputs of each part of a task; InvalidValue if they do not fit."""
    several = [capability] if isinstance(capability, str) else require.names("capability", capability)
    needed = [name for name in several for _ in range(require.whole("workers", workers))]
    each = inputs if isinstance(inputs, list) else [{} if inputs is None else inputs] * len(needed)
    needed = needed * len(each) if len(needed) == 1 else needed  # one worker for each of several inputs
    if not all(needed) or not needed or len(needed) != len(each):
        raise InvalidValue(
            f"{len(needed)} workers for {capability!r}, and inputs for {len(each)}: give as many of both"
        )
    if not all(isinstance(fields, Mapping) for fields in each):
        raise InvalidValue(f"inputs is {inputs!r}: give a dict of named inputs, or a list with one for each worker")
    return needed, freeze(each, "inputs")


def combination(aggregate: Any) -> Combination:
    """Return the function that combines results: one of AGGREGATIONS, or one's own; InvalidValue for anything else."""
    if aggregate is None:
        return lambda results: results[0] if len(results) == 1 else results
    if callable(aggregate) and not inspect.iscoroutinefunction(aggregate):
        return aggregate  # type: ignore[no-any-return]
    return AGGREGATIONS[require.one_of("aggregate", aggregate, AGGREGATIONS)]


def _numeric(reduce: Combination) -> Combination:
    """Return the function for results that are numbers, or dicts with numbers: then field by field."""

    def combine(results: list[Any]) -> Any:
        if not all(isinstance(result, Mapping) for result in results):
            return reduce([require.number("a result", result) for result in results])
        names = dict.fromkeys(name for result in results for name in result)
        values = {name: [found for r in results if type(found := r.get(name)) in (int, float)] for name in names}
        return {name: reduce(found) for name, found in values.items() if found}

    return combine


AGGREGATIONS: dict[str, Combination] = {
    "list": list,
    "mean": _numeric(statistics.fmean),
    "median": _numeric(statistics.median),
    "min": _numeric(min),
    "max": _numeric(max),
    "sum": _numeric(sum),
}
