"""Checks of arguments: each returns the value, or raises InvalidValue that says what to give instead."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from ..errors import InvalidValue


def number(what: str, value: Any) -> float:
    """Return the value if it is a number, and not NaN."""
    if not is_number(value) or value != value:
        raise InvalidValue(f"{what} is {value!r}: give a number")
    return value  # type: ignore[no-any-return]


def finite(what: str, value: Any) -> float:
    """Return the value if it is a number that a float can hold: not NaN, and not infinite."""
    if not is_number(value) or not abs(value) <= sys.float_info.max:
        raise InvalidValue(f"{what} is {value!r}: give a finite number")
    return value  # type: ignore[no-any-return]


def amount(what: str, value: Any) -> float:
    """Return the value if it is a finite number, 0 or more."""
    return finite(what, not_negative(what, value))


def not_negative(what: str, value: Any) -> float:
    """Return the value if it is 0 or more."""
    if not is_number(value) or not value >= 0:
        raise InvalidValue(f"{what} is {value!r}: give 0 or more")
    return value  # type: ignore[no-any-return]


def positive(what: str, value: Any) -> float:
    """Return the value if it is more than 0."""
    if not is_number(value) or not value > 0:
        raise InvalidValue(f"{what} is {value!r}: give more than 0")
    return value  # type: ignore[no-any-return]


def probability(what: str, value: Any) -> float:
    """Return the value if it is between 0 and 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise InvalidValue(f"{what} is {value!r}: a probability is between 0 and 1")
    return value  # type: ignore[no-any-return]


def whole(what: str, value: Any, least: int | None = 1) -> int:
    """Return the value if it is a whole number, `least` or more; with None, any whole number will do."""
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" from {least} up"
        raise InvalidValue(f"{what} is {value!r}: give a whole number{bound}")
    return value


def one_of(what: str, value: Any, options: Any) -> Any:
    """Return the value if it is one of the options."""
    if value not in tuple(options):
        raise InvalidValue(f"{what} is {value!r}: choose one of {', '.join(map(str, options))}")
    return value


def text(what: str, value: Any) -> str:
    """Return the value if it is text, and not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(f"{what} is {value!r}: give some text")
    return value


def names(what: str, values: Any) -> tuple[str, ...]:
    """Return the values if they are several names, not one text."""
    several = isinstance(values, Iterable) and not isinstance(values, str)
    found = tuple(values) if several else ()  # once: a generator gives its values but once
    if not several or not all(isinstance(value, str) for value in found):
        such = f"such as [{values!r}]" if isinstance(values, str) else "each of them text"
        raise InvalidValue(f"{what} is {values!r}: give a list of names, {such}")
    return found


def is_number(value: Any) -> bool:
    """Return whether the value can be added and halved; True and False cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)
