"""Schemas of capabilities: what pydantic makes of a method's signature.

The one module of the runtime that imports pydantic; it is loaded with the first agent that is spawned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from ..errors import InvalidInput, InvalidValue


class Schema:
    """What a method takes and returns, as JSON schemas and as checks."""

    def __init__(self, name: str, function: Callable[..., Any], replaced: Schema | None = None) -> None:
        self._name, self._function = name, function
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError as error:
            raise InvalidValue(f"{name}: the annotation {error.name!r} is not known at module level") from error
        self._hints: dict[str, Any] = hints if replaced is None else {**replaced._hints, "return": Any, **hints}
        self._inputs = self._adapter(self._shape())
        self._validate = self._inputs.validator.validate_python

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the inputs."""
        return self._inputs.json_schema()

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """The JSON schema of the result, or of each part of a stream; empty where nothing is annotated."""
        return self._output.json_schema() if self._output else {}

    def arguments(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the method; InvalidInput names each field that is wrong."""
        try:
            return self._validate(content)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise InvalidInput(f"{self._name} cannot use its input: {_problems(error)}") from error

    def result(self, value: Any) -> Any:
        """Return plain data in the type that the method promises; InvalidInput if it does not fit."""
        if self._output is None:
            return value
        try:
            return self._output.validate_python(value)
        except ValidationError as error:
            raise InvalidInput(f"{self._name} promised another type of result: {_problems(error)}") from error

    def _shape(self) -> Any:
        """Return the inputs as a typed dict; a field with a default need not be given."""
        fields: dict[str, Any] = {}
        extra: Literal["allow", "forbid"] = "forbid"
        for name, parameter in list(inspect.signature(self._function).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                extra = "allow"
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise InvalidValue(f"{self._name}: messages carry named fields, so {name!r} must be a named parameter")
            else:
                hint = self._hints.get(name, Any)
                fields[name] = Required[hint] if parameter.default is parameter.empty else NotRequired[hint]
        shape = TypedDict(self._name, fields)  # type: ignore[misc]
        shape.__pydantic_config__ = ConfigDict(extra=extra)  # type: ignore[attr-defined]
        return shape

    @cached_property
    def _output(self) -> TypeAdapter[Any] | None:
        hint = self._hints.get("return", Any)
        if inspect.isasyncgenfunction(self._function):
            hint = (getattr(hint, "__args__", None) or [Any])[0]
        return None if hint is Any else self._adapter(hint)

    def _adapter(self, hint: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(hint)
        except PydanticUserError as error:
            raise InvalidValue(f"{self._name}: no schema for the annotation {hint!r}: {error.message}") from error


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"field {'.'.join(map(str, problem['loc'])) or '(value)'!r}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
