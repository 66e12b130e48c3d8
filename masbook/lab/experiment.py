"""Experiments: the same scenario over a grid of parameters and many seeds, and what the difference is worth.

`sweep` gives one row a run; `compare` pairs the rows of two settings by seed. Runs of the same seed meet the same luck,
because every agent draws from a stream of its own, so that a paired difference is far more certain than the
difference of two means.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
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
from .tables import require_columns

_OWN = ("seed", "time", "error", "digest")  # columns that every table has


def sweep(
    scenario: Callable[..., Any],
    grid: Mapping[str, Iterable[Any]] | None = None,
    *,
    seeds: Iterable[int | str] = range(20),
    faults: FaultPlan | Mapping[str, FaultPlan | None] | None = None,
    schedule: Schedule = "fifo",
) -> pd.DataFrame:
    """Run the scenario for each combination of the grid and each seed; return one row a run, in that order.

    Columns: the parameters (a function by its name), `faults` (the label, where `faults` maps labels to plans), `seed`,
    the fields of the result (`result` where it has none), `time` in virtual seconds, `error` ("Type: text" of a run
    that failed, else None) and `digest`. A run that fails is a row like any other. A terminal shows a bar meanwhile.
    InvalidValue for bad input.
    """
    if not isinstance(grid, Mapping | None):
        raise InvalidValue(f"the grid is {grid!r}: give a dict from parameters to their values, as {{'n': [1, 2]}}")
    jobs = list(_jobs(scenario, dict(grid or {}), _listed("seeds", seeds), faults, schedule))
    # without a terminal there is no bar: a notebook would keep it among its outputs
    rows = [_row(label, play()) for label, play in tqdm(jobs, unit="run", leave=False, disable=None)]
    first = list(jobs[0][0])
    fields = dict.fromkeys(name for row in rows for name in row if name not in (*first, *_OWN))
    table = pd.DataFrame(rows, columns=[*first, *fields, "time", "error", "digest"])
    table["error"] = pd.Series([row["error"] for row in rows], dtype=object)  # None stays None, also among texts
    return table


def _jobs(
    scenario: Callable[..., Any],
    grid: dict[str, Iterable[Any]],
    seeds: list[Any],
    faults: FaultPlan | Mapping[str, FaultPlan | None] | None,
    schedule: Schedule,
) -> Iterator[tuple[dict[str, Any], Callable[[], Run]]]:
    """Yield for each run what its row begins with, and what plays it."""
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
                play = partial(simulate, scenario, seed, faults=plan, schedule=schedule, **params)
                yield {**shown, "seed": seed}, play


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


def _row(label: dict[str, Any], run: Run) -> dict[str, Any]:
    error = None if run.error is None else f"{type(run.error).__name__}: {run.error}"
    row = {**label, "time": run.time, "error": error, "digest": run.digest}
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


def interval(values: Iterable[float]) -> Interval:
    """Return the mean of independent values and its 95 % confidence interval by Student's t.

    Student, "The probable error of a mean", Biometrika 6 (1908), 1-25: exact where the values are normal, good from
    about 30 values otherwise. InvalidValue for no values.
    """
    sample = pd.Series(list(values), dtype=float)
    if sample.empty or sample.isna().any():
        raise InvalidValue("an interval needs values, and none of them missing; use .dropna() if that is meant")
    mean, count = float(sample.mean()), len(sample)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    reach = float(stdtrit(count - 1, 0.975) * sample.sem())
    return Interval(mean, mean - reach, mean + reach)


def compare(table: pd.DataFrame, metric: str, by: str, *, baseline: Hashable | None = None) -> pd.DataFrame:
    """Compare each level of `by` with the baseline (the first level), paired by seed; return one row a level.

    Columns: the level, `baseline`, `pairs`, `dropped` (pairs in which a run failed or has no metric), `mean` and
    `baseline_mean` over the pairs, their `difference` with its 95 % interval from `low` to `high`, and `p_value`.
    Method: the paired t-test, two-sided, that is `interval` of the differences; not corrected for several levels, and
    NaN where fewer than two pairs, or no spread, leave it undefined. Where many pairs were dropped, the rest are the
    lucky ones: compare the failures first. InvalidValue for a table whose levels do not have the same seeds.
    """
    levels = _levels(table, metric, by)
    baseline = next(iter(levels)) if baseline is None else baseline
    if baseline not in levels:
        raise InvalidValue(f"no level {baseline!r} in {by!r}; it has {', '.join(map(repr, levels))}")
    if len(levels) < 2:
        raise InvalidValue(f"{by!r} has one level only, {baseline!r}: there is nothing to compare it with")
    reference = levels.pop(baseline)
    rows = [{by: level, "baseline": baseline, **_paired(values, reference)} for level, values in levels.items()]
    return pd.DataFrame(rows)


def _levels(table: pd.DataFrame, metric: str, by: str) -> dict[Any, pd.Series[float]]:
    """Return the metric of each level in order, by seed; NaN where the run failed."""
    require_columns(table, metric, by, "seed")
    try:
        values = table[metric].astype(float)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{metric!r} is not a number in every row: {error}") from error
    if "error" in table:
        values = values.where(table["error"].isna())
    found = pd.DataFrame({"level": table[by], "seed": table["seed"], "value": values})
    groups = found.groupby("level", sort=False, dropna=False)
    levels = {level: rows.set_index("seed")["value"] for level, rows in groups}
    seeds = set(table["seed"])
    for level, own in levels.items():
        missing = sorted(seeds.difference(own.index), key=str)
        if missing:
            raise InvalidValue(
                f"{by}={level!r} has no run of seed = {missing[0]} ({len(missing)} missing): "
                "compare only what was run on the same seeds"
            )
        if own.index.has_duplicates:
            raise InvalidValue(f"several rows have {by}={level!r} and the same seed: choose a part of the table")
    return levels


def _paired(values: pd.Series[float], reference: pd.Series[float]) -> dict[str, Any]:
    """Return what two levels, paired by seed, say of their difference."""
    both = pd.DataFrame({"level": values, "baseline": reference})
    pairs = both.dropna()
    bounds, p_value = Interval(math.nan, math.nan, math.nan), math.nan
    if not pairs.empty:
        differences = pairs["level"] - pairs["baseline"]
        bounds, error = interval(differences), float(differences.std()) / len(pairs) ** 0.5
        p_value = 2 * float(stdtr(len(pairs) - 1, -abs(bounds.mean) / error)) if error > 0 else math.nan
    return {
        "pairs": len(pairs),
        "dropped": len(both) - len(pairs),
        "mean": pairs["level"].mean(),
        "baseline_mean": pairs["baseline"].mean(),
        "difference": bounds.mean,
        "low": bounds.low,
        "high": bounds.high,
        "p_value": p_value,
    }
