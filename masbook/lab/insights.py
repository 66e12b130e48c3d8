"""What can be said about a table: its summary, and what stands out.

Plain functions from a DataFrame to plain data that can be sent in a message; `DataProcessor` calls them. Another kind
of insight is another function in `INSIGHTS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pandas as pd

Facts = dict[str, Any]
STATISTICS = ("count", "mean", "std", "min", "q1", "median", "q3", "max")
DIGITS = 4  # of every number answered, so that the last bits of a sum never show


def summarize(frame: pd.DataFrame) -> Facts:
    """Return what each column holds; of texts, the five values that are repeated most."""
    numbers, texts, dates = _numbers(frame), _texts(frame), frame.select_dtypes("datetime")
    return {
        "columns": list(frame),
        "missing": {name: int(count) for name, count in frame.isna().sum().items() if count},
        "numbers": {name: _describe(numbers[name]) for name in numbers},
        "texts": {name: _repeated(texts[name]) for name in texts},
        "dates": {name: {"first": _plain(dates[name].min()), "last": _plain(dates[name].max())} for name in dates},
    }


def analyze(frame: pd.DataFrame, groups: pd.Series[Any] | None = None) -> Iterator[Facts]:
    """Yield the insights: each has a `kind`, a sentence as `text`, and the facts that the sentence is made of."""
    for insight in INSIGHTS:
        yield from insight(frame)
    if groups is not None:
        yield from differences(frame, groups)


def missing(frame: pd.DataFrame) -> Iterator[Facts]:
    """Yield the columns with gaps."""
    for name, count in frame.isna().sum().items():
        if count:
            share = _plain(count / len(frame))
            text = f"{name} is missing in {count} of {len(frame)} rows"
            yield {"kind": "missing", "column": name, "rows": int(count), "share": share, "text": text}


def correlations(frame: pd.DataFrame) -> Iterator[Facts]:
    """Yield the two numbers with the strongest linear correlation (Pearson's r)."""
    table = _numbers(frame).corr(min_periods=3)
    pairs = {(a, b): float(table[a][b]) for a, b in combinations(map(str, table), 2)}
    known = {pair: r for pair, r in pairs.items() if math.isfinite(r)}
    if known:
        (first, second), r = max(known.items(), key=lambda item: abs(item[1]))
        text = f"{first} and {second} have the strongest correlation: {_strength(r)} (r = {r:.2f})"
        yield {"kind": "correlation", "columns": [first, second], "r": _plain(r), "text": text}


def outliers(frame: pd.DataFrame) -> Iterator[Facts]:
    """Yield the columns with values beyond Tukey's fences: 1.5 interquartile ranges outside the quartiles.

    J. W. Tukey, Exploratory Data Analysis, 1977, chapter 2; quartiles interpolated linearly. A column whose quartiles
    are equal is left out, because any other value would count.
    """
    for name, column in _numbers(frame).items():
        q1, q3 = column.quantile(0.25), column.quantile(0.75)
        low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
        outside = column[(column < low) | (column > high)]
        if q1 < q3 and len(outside):
            place = int((outside - column.median()).abs().to_numpy().argmax())
            extreme = {"row": _label(frame, outside.index[place]), "value": _plain(outside.iloc[place])}
            facts = {"column": name, "rows": len(outside), "low": _plain(low), "high": _plain(high), "extreme": extreme}
            span = f"{low:.2f} to {high:.2f}; the farthest is {extreme['value']} in row {extreme['row']}"
            text = f"{name} has {len(outside)} of {column.count()} values outside {span}"
            yield {"kind": "outliers", "rule": "Tukey's fences", **facts, "text": text}


def largest_groups(frame: pd.DataFrame) -> Iterator[Facts]:
    """Yield the most frequent value of each text with 2 to 20 values that are not all equally frequent."""
    for name, column in _texts(frame).items():
        counts = _counts(column)
        if 2 <= len(counts) <= 20 and len(set(counts.values())) > 1:
            value, rows = next(iter(counts.items()))
            text = f"the most frequent {name} is {value}, in {rows} of {len(frame)} rows"
            share = _plain(rows / len(frame))
            yield {"kind": "group", "column": name, "value": value, "rows": rows, "share": share, "text": text}


def differences(frame: pd.DataFrame, groups: pd.Series[Any]) -> Iterator[Facts]:
    """Yield the number whose mean differs most between the groups, by the share of its variance they explain.

    The share is eta squared: K. Pearson's correlation ratio, 1905.
    """
    numbers = _numbers(frame.drop(columns=str(groups.name), errors="ignore"))[groups.notna()]
    means = numbers.groupby(groups, observed=True).transform("mean").where(numbers.notna())
    shares = (means.var() / numbers.var()).dropna()
    if len(shares):
        name, share = str(shares.idxmax()), float(shares.max())
        text = f"{name} differs most between the groups of {groups.name}, which explain {share:.1%} of its variance"
        yield {"kind": "difference", "by": groups.name, "column": name, "share": _plain(share), "text": text}


INSIGHTS = (missing, correlations, outliers, largest_groups)


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.select_dtypes("number").astype(float).replace([math.inf, -math.inf], math.nan)


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.select_dtypes(exclude=["number", "datetime"])


def _describe(column: pd.Series[Any]) -> Facts:
    facts = dict(zip(STATISTICS, column.describe(), strict=True))
    return {name: _plain(value) for name, value in facts.items()} | {"count": int(column.count())}


def _repeated(column: pd.Series[Any], most: int = 5) -> Facts:
    counts = _counts(column)
    return {"distinct": len(counts), "most": {value: n for value, n in list(counts.items())[:most] if n > 1}}


def _counts(column: pd.Series[Any]) -> dict[str, int]:
    """Return how often each value occurs, most frequent first, equals by name."""
    counts = sorted((-count, str(value)) for value, count in column.value_counts().items() if count)
    return {value: -count for count, value in counts}


def _label(frame: pd.DataFrame, place: Any) -> Any:
    """Return the id of a row, where the first column is an id, or else its number, from 0."""
    first = frame.iloc[:, 0]
    return _plain(first[place] if first.is_unique else place)


def _strength(r: float) -> str:
    """Return the word for a correlation (J. Cohen, Statistical Power Analysis, 1988)."""
    size = abs(r)
    return "strong" if size >= 0.5 else "medium" if size >= 0.3 else "weak" if size >= 0.1 else "negligible"


def _plain(value: Any) -> Any:
    """Return a value as plain data: rounded, dates as text, missing as None."""
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d")
    value = value.item() if hasattr(value, "item") else value
    return round(value, DIGITS) + 0.0 if isinstance(value, float) else value
