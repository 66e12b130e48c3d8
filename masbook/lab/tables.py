"""Typed tables: the dtype of every field of the trace and of every column of `frames`, and how a table is made of them.

A kind of event that has a new field needs its dtype here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

import pandas as pd

from ..errors import InvalidValue

# The dtype of every field that KINDS declares and of every column of these frames.
_NAMES = """kind who type sender to parent topic capability state status outcome fault name
    workflow task next conflict strategy winner resource barrier store key change event reaction
    team role superior how agent model call tool member"""
_TEXTS = "limit output reason error restart filter action target protocol step health text detail description"
_SECONDS = """time seconds waited backoff spawned start end duration busy utilisation
    sent delivered finished answered waiting service latency
    added ready started begun ended opened undone fairness cost"""
IDS = "message conversation copies priority"
_OPTIONAL = "cause reply_to concurrency attempt missed round token generation version reached needed capacity arrived"
_OPTIONAL += " input_tokens output_tokens size"
_DATA = "facts content data capabilities tags expected after participants position decision satisfaction skills"
DTYPES: dict[str, str] = {
    name: dtype
    for dtype, names in {
        "str": _NAMES + " " + _TEXTS,
        "float64": _SECONDS,
        "int64": IDS,
        "Int64": _OPTIONAL,
        "object": _DATA,
    }.items()
    for name in names.split()
}


def columns_of(rows: list[tuple[Any, ...]], names: Iterable[str]) -> dict[str, Iterable[Any]]:
    """Return the rows column by column; fields beyond the names are left out."""
    names = list(names)
    return dict(zip(names, zip(*rows, strict=False) if rows else [()] * len(names), strict=False))


def columns_from(things: Iterable[Any], names: str, **derived: Callable[[Any], Any]) -> dict[str, list[Any]]:
    """Return columns by their names: those derived from each thing by a function, the others are its attributes."""
    known = list(things)
    return {name: [derived.get(name, attrgetter(name))(thing) for thing in known] for name in names.split()}


def table(columns: Mapping[str, Iterable[Any]], dtypes: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return a frame with the dtypes of DTYPES, or with others where they are given."""
    known = {**DTYPES, **(dtypes or {})}
    return pd.DataFrame({name: _series(values, known.get(name, "object")) for name, values in columns.items()})


def require_columns(table: pd.DataFrame, *names: str, numbers: Iterable[str] = ()) -> None:
    """Raise InvalidValue unless the table has these columns, and numbers in those that are `numbers`."""
    for name in (*names, *numbers):
        if name not in table:
            raise InvalidValue(f"no column {name!r} in the table; it has {', '.join(map(str, table.columns))}")
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InvalidValue(f"{name!r} has to be a number in every row")


def _series(values: Iterable[Any], dtype: str) -> pd.Series[Any]:
    if dtype == "str":  # enums become the text that they stand for
        values = [None if value is None else str(value) for value in values]
    return pd.Series(list(values), dtype=dtype)
