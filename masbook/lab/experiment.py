"""Experiments: the same scenario over a grid of parameters and many seeds, and what the difference is worth.

`sweep` gives one row a run; `compare` pairs the rows of two settings by seed. Runs of the same seed meet the same luck,
because every agent draws from a stream of its own, so that a paired difference is far more certain than the
difference of two means.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats has it too, but takes a second to load
from tqdm import tqdm

from ..errors import InvalidValue
from ..runtime.faults import FaultPlan
from ..runtime.run import Run, prepare, simulate
from ..runtime.world import Schedule

_OWN = ("seed", "time", "error", "digest")  # columns that every table has


class _Job(NamedTuple):
    """One run of a sweep: what to call, and what its row begins with: the parameters, and the label of its faults."""

    scenario: Callable[..., Any]
    params: dict[str, Any]
    label: dict[str, Any]
    seed: int | str
    faults: FaultPlan | None
    schedule: Schedule


def sweep(
    scenario: Callable[..., Any],
    grid: Mapping[str, Iterable[Any]] | None = None,
    *,
    seeds: Iterable[int | str] = range(20),
    faults: FaultPlan | Mapping[str, FaultPlan | None] | None = None,
    schedule: Schedule = "fifo",
    processes: int = 1,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run the scenario for each combination of the grid and each seed; return one row a run, in that order.

    Columns: the parameters (a function by its name), `faults` (the label, where `faults` maps labels to plans), `seed`,
    the fields of the result (`result` where it has none), `time` in virtual seconds, `error` ("Type: text" of a run
    that failed, else None) and `digest`. A run that fails is a row like any other. `processes` above 1 gives the same
    table sooner; the scenario must then live in a module. `progress` shows a bar; by default only in a terminal.
    InvalidValue for bad input.
    """
    jobs = list(_jobs(scenario, dict(grid or {}), _listed("seeds", seeds), faults, schedule))
    if not isinstance(processes, int) or processes < 1:
        raise InvalidValue(f"processes={processes!r}: give a whole number from 1 up")
    shown = sys.stderr.isatty() if progress is None else progress  # a notebook would keep the bar among its outputs
    with _mapper(jobs, processes) as run_all:
        rows = list(tqdm(run_all(_row, jobs), total=len(jobs), unit="run", leave=False, disable=not shown))
    first = list(jobs[0].label)
    fields = dict.fromkeys(name for row in rows for name in row if name not in (*first, *_OWN))
    table = pd.DataFrame(rows, columns=[*first, "seed", *fields, "time", "error", "digest"])
    table["error"] = pd.Series([row["error"] for row in rows], dtype=object)  # None stays None, also among texts
    return table


def _jobs(
    scenario: Callable[..., Any],
    grid: dict[str, Iterable[Any]],
    seeds: list[Any],
    faults: FaultPlan | Mapping[str, FaultPlan | None] | None,
    schedule: Schedule,
) -> Iterator[_Job]:
    axes = {name: _listed(name, values) for name, values in grid.items()}
    taken = sorted({*_OWN, "faults", "schedule", "security", "trace"} & {*axes})
    if taken:
        raise InvalidValue(f"the grid has an axis {taken[0]!r}; give it to sweep itself, or rename the parameter")
    plans = faults if isinstance(faults, Mapping) else {None: faults}
    if not plans:
        raise InvalidValue("faults={}: give at least one plan, such as {'none': None}")
    named = {name: _named(name, values) for name, values in axes.items()}
    for values, names in zip(product(*axes.values()), product(*named.values()), strict=True):
        params = dict(zip(axes, values, strict=True))
        prepare(scenario, params)
        for label, plan in plans.items():
            shown = dict(zip(axes, names, strict=True)) | ({} if label is None else {"faults": label})
            for seed in seeds:
                yield _Job(scenario, params, shown, seed, plan, schedule)


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidValue(f"{name}={values!r}: give several values, such as [{values!r}]")
    several = list(values)
    if not several:
        raise InvalidValue(f"{name}: there are no values to try")
    return several


def _named(name: str, values: list[Any]) -> list[Any]:
    """Return the values as the table shows them: functions by their names, which must differ."""
    functions = [value.__name__ for value in values if hasattr(value, "__name__")]
    if len({*functions}) < len(functions):
        raise InvalidValue(f"{name}: two functions have one name among {', '.join(functions)}; give each its own")
    return [getattr(value, "__name__", value) for value in values]


@contextmanager
def _mapper(jobs: list[_Job], processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield what maps a function over jobs in order: `map` itself, or that of a pool of fresh processes."""
    if processes == 1:
        yield map
        return
    _require_importable(jobs[0].scenario)
    for job in jobs:
        for value in job.params.values():
            _require_importable(value)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _require_importable(value: Any) -> None:
    """Refuse what other processes could not load: functions of a notebook, lambdas, functions inside functions."""
    try:
        pickle.dumps(value)
        home = getattr(value, "__module__", None)
        importable = home != "__main__" or hasattr(sys.modules["__main__"], "__file__")
    except (pickle.PicklingError, AttributeError, TypeError):
        importable = False
    if not importable:
        raise InvalidValue(
            f"other processes cannot load {getattr(value, '__qualname__', value)!r}: "
            "put it into a module of its own and import it, or use processes=1"
        )


def _row(job: _Job) -> dict[str, Any]:
    run = simulate(job.scenario, job.seed, faults=job.faults, schedule=job.schedule, **job.params)
    error = None if run.error is None else f"{type(run.error).__name__}: {run.error}"
    row = {**job.label, "seed": job.seed, "time": run.time, "error": error, "digest": run.digest}
    for name, value in _fields(run).items():
        if name in row:
            raise InvalidValue(f"the result has a field {name!r}, which the table has already; call it otherwise")
        row[name] = value
    return row


def _fields(run: Run) -> dict[str, Any]:
    result = run.result
    if not run.ok:
        return {}
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if isinstance(result, BaseModel):
        return result.model_dump()
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return dataclasses.asdict(result)
    return {"result": result}


class Interval(NamedTuple):
    """A mean and the confidence interval around it; the bounds are NaN below two values."""

    mean: float
    low: float
    high: float


def interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Return the mean of independent values and its Student t confidence interval.

    Student, "The probable error of a mean", Biometrika 6 (1908), 1-25: exact where the values are normal, good from
    about 30 values otherwise. InvalidValue for no values or a confidence outside 0 to 1.
    """
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence={confidence!r}: give a share between 0 and 1, such as 0.95")
    sample = pd.Series(list(values), dtype=float)
    if sample.empty or sample.isna().any():
        raise InvalidValue("an interval needs values, and none of them missing; use .dropna() if that is meant")
    mean, count = float(sample.mean()), len(sample)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    reach = float(stdtrit(count - 1, (1 + confidence) / 2) * sample.sem())
    return Interval(mean, mean - reach, mean + reach)


def compare(
    table: pd.DataFrame,
    metric: str,
    by: str,
    *,
    baseline: Hashable | None = None,
    pair: Sequence[str] = ("seed",),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare each level of `by` with the baseline (the first level), paired by seed; return one row a level.

    Columns: the level, `baseline`, `pairs`, `dropped` (pairs in which a run failed or has no metric), `mean` and
    `baseline_mean` over the pairs, their `difference` with its interval from `low` to `high`, and `p_value`. Method:
    the paired t-test, two-sided, that is `interval` of the differences; not corrected for several levels, and NaN where
    fewer than two pairs, or no spread, leave it undefined. Where many pairs were dropped, the rest are the lucky ones:
    compare the failures first. InvalidValue for a table whose levels do not have the same seeds.
    """
    levels = _levels(table, metric, by, pair)
    baseline = next(iter(levels)) if baseline is None else baseline
    if baseline not in levels:
        raise InvalidValue(f"no level {baseline!r} in {by!r}; it has {', '.join(map(repr, levels))}")
    if len(levels) < 2:
        raise InvalidValue(f"{by!r} has one level only, {baseline!r}: there is nothing to compare it with")
    reference = levels.pop(baseline)
    rows = []
    for level, values in levels.items():
        both = pd.DataFrame({"level": values, "baseline": reference})
        facts = {by: level, "baseline": baseline, **_paired(both.dropna(), confidence)}
        rows.append({**facts, "dropped": len(both) - facts["pairs"]})
    order = [by, "baseline", "pairs", "dropped", "mean", "baseline_mean", "difference", "low", "high", "p_value"]
    return pd.DataFrame(rows)[order]


def _levels(table: pd.DataFrame, metric: str, by: str, pair: Sequence[str]) -> dict[Any, pd.Series[float]]:
    """Return the metric of each level in order, indexed by what pairs it; NaN where the run failed."""
    for column in (metric, by, *pair):
        if column not in table:
            raise InvalidValue(f"no column {column!r} in the table; it has {', '.join(map(str, table.columns))}")
    try:
        values = table[metric].astype(float)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{metric!r} is not a number in every row: {error}") from error
    if "error" in table:
        values = values.where(table["error"].isna())
    levels: dict[Any, pd.Series[float]] = {}
    for level, rows in table.groupby(by, sort=False, dropna=False):
        keys = pd.MultiIndex.from_frame(rows[list(pair)])
        if keys.has_duplicates:
            raise InvalidValue(
                f"several rows have {by}={level!r} and the same {', '.join(pair)}: choose a part of the table, "
                f"or pair by more columns, such as pair=('seed', 'patience')"
            )
        levels[level] = pd.Series(values[rows.index].to_numpy(), index=keys)
    _require_paired(levels, by, pair)
    return levels


def _require_paired(levels: Mapping[Any, pd.Series[float]], by: str, pair: Sequence[str]) -> None:
    everywhere = {key for values in levels.values() for key in values.index}
    for level, values in levels.items():
        missing = sorted(everywhere.difference(values.index), key=str)
        if missing:
            raise InvalidValue(
                f"{by}={level!r} has no run of {', '.join(pair)} = {', '.join(map(str, missing[0]))} "
                f"({len(missing)} missing): compare only what was run on the same seeds"
            )


def _paired(both: pd.DataFrame, confidence: float) -> dict[str, Any]:
    nothing = float("nan")
    if both.empty:
        bounds, p_value = Interval(nothing, nothing, nothing), nothing
    else:
        differences = both["level"] - both["baseline"]
        bounds = interval(differences, confidence)
        error = float(differences.std()) / len(both) ** 0.5
        p_value = 2 * float(stdtr(len(both) - 1, -abs(bounds.mean) / error)) if error > 0 else nothing
    return {
        "pairs": len(both),
        "mean": both["level"].mean(),
        "baseline_mean": both["baseline"].mean(),
        "difference": bounds.mean,
        "low": bounds.low,
        "high": bounds.high,
        "p_value": p_value,
    }
