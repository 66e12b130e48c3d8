"""What a coordinator keeps of a task: what was asked for, its parts, how their results are combined, how it ended."""

from __future__ import annotations

import asyncio
import inspect
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...errors import InvalidValue, WorkerBusy, describe
from ...runtime import require
from ...runtime.message import freeze

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
    """One worker's share of a task: `worker` has it or has done it; `work` runs until it is done."""

    capability: str
    inputs: dict[str, Any]
    attempt: int = 0
    losses: int = 0
    errors: int = 0
    worker: str | None = None
    work: asyncio.Task[None] | None = None
    result: Any = None

    def blame(self, error: Exception) -> None:
        """Count a failure: as an error of the work, or as a loss if the worker is gone, silent or unwilling."""
        lost = isinstance(error, WorkerBusy) or not hasattr(error, "__notes__")
        self.losses, self.errors = self.losses + lost, self.errors + (not lost)


def rejected(error: Exception) -> bool:
    """Return whether a worker had no hands free; what the work itself raises has a note that says so."""
    return isinstance(error, WorkerBusy) and not hasattr(error, "__notes__")


class Job:
    """A task under way: when it ends, what is in `ends` is called, and `ended` gets its outcome."""

    def __init__(self, asked: TaskOutcome, combine: Combination, retries: int, now: float, ended: Any) -> None:
        self.asked, self.combine, self.retries, self.added = asked, combine, retries, now
        self.ended: asyncio.Future[TaskOutcome] = ended
        self.parts = [Part(*share) for share in zip(asked.capability, asked.inputs, strict=True)]
        self.stage: Status = "waiting"  # until the first part is given to a worker
        self.ends: list[Callable[[], object]] = []

    def unplaced(self) -> list[list[Part]]:
        """Return the parts that nobody has, in groups that must begin together: at first, that is all."""
        return [self.parts] if self.stage == "waiting" else [[part] for part in self.parts if part.worker is None]

    def combined(self) -> tuple[Status, str | None, Any]:
        """Return how it ends, now that every part is done: its status, what went wrong, and its value."""
        try:
            return "completed", None, freeze(self.combine([part.result for part in self.parts]))
        except Exception as error:  # of whatever kind: the function may be anybody's
            return "failed", f"{type(error).__name__} from the aggregation: {describe(error)}", None

    def outcome(self, now: float, error: str | None = None, value: Any = None) -> TaskOutcome:
        """Return what has become of it by now."""
        if self.ended.done():
            return self.ended.result()
        results = freeze({part.worker: part.result for part in self.parts if part.worker and part.work is None})
        attempts, duration = sum(part.attempt for part in self.parts), now - self.added
        what = {"value": value, "results": results, "attempts": attempts, "duration": duration, "error": error}
        return replace(self.asked, status=self.stage, **what)


def divide(capability: Any, inputs: Any, workers: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the capability and the inputs of each part of a task; InvalidValue if they do not fit."""
    several = capability if isinstance(capability, list | tuple) else [capability]
    needed = [name for name in several for _ in range(require.whole("workers", workers))]
    each = inputs if isinstance(inputs, list) else [{} if inputs is None else inputs] * len(needed)
    needed = needed * len(each) if len(needed) == 1 else needed  # one worker for each of several inputs
    if not needed or len(needed) != len(each) or not all(isinstance(name, str) and name for name in needed):
        raise InvalidValue(
            f"{len(needed)} workers for {capability!r}, and inputs for {len(each)}: name a capability, or several, "
            "and give as many inputs as workers"
        )
    if not all(isinstance(fields, Mapping) for fields in each):
        raise InvalidValue(f"inputs is {inputs!r}: give a dict of named inputs, or a list with one for each worker")
    return needed, freeze(each, "inputs")


def function(what: str, value: Any, known: Mapping[Any, Any]) -> Any:
    """Return the function of that name, or one's own; InvalidValue for anything else."""
    if callable(value) and not inspect.iscoroutinefunction(value):
        return value
    return known[require.one_of(what, value, known)]


def _numeric(reduce: Combination) -> Combination:
    """Return the function for results that are numbers, or dicts with numbers: then field by field."""

    def combine(results: list[Any]) -> Any:
        if not all(isinstance(result, Mapping) for result in results):
            return reduce([require.number("a result", result) for result in results])
        names = dict.fromkeys(name for result in results for name in result)
        values = {name: [found for r in results if type(found := r.get(name)) in (int, float)] for name in names}
        return {name: reduce(found) for name, found in values.items() if found}

    return combine


AGGREGATIONS: dict[str | None, Combination] = {
    None: lambda results: results[0] if len(results) == 1 else results,
    "list": list,
    "mean": _numeric(statistics.fmean),
    "median": _numeric(statistics.median),
    "min": _numeric(min),
    "max": _numeric(max),
    "sum": _numeric(sum),
}
