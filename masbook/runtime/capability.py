"""Capabilities and subscriptions: the two decorators that turn methods of an agent into what others can use.

`@capability` declares a method that answers requests; its schemas come from the annotations through pydantic and its
description from the docstring. `@on(topic)` declares a method that is called with each matching message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, Required, get_type_hints, overload

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from ..errors import InvalidInput, InvalidValue, NotAsync
from .message import SCALARS, Filter, MessageType


@dataclass(frozen=True)
class Capability:
    """What an agent can do: a name, a description, a relative cost, and JSON schemas of what goes in and comes out."""

    name: str
    description: str
    cost: float
    function: Callable[..., Any]

    @cached_property
    def streams(self) -> bool:
        """Whether it answers with many values, one after the other."""
        return inspect.isasyncgenfunction(self.function)

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the inputs."""
        return self._inputs.json_schema()

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """The JSON schema of the result, or of each part of a stream; empty where nothing is annotated."""
        return self._output.json_schema() if self._output else {}

    def validate(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the method; InvalidInput names each field that is wrong."""
        try:
            return self._validate(content)
        except ValidationError as error:
            problems = "; ".join(
                f"field {'.'.join(map(str, problem['loc'])) or '(content)'!r}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
            raise InvalidInput(f"{self.name} cannot use its input: {problems}") from error

    def restore(self, value: Any) -> Any:
        """Return a result that has travelled as plain data in the type that the method promises."""
        if self._plain_output or self._output is None:
            return value
        try:
            return self._output.validate_python(value)
        except ValidationError as error:
            raise InvalidInput(f"{self.name} promised another type of result: {error}") from error

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise InvalidValue(f"{self.name}: the annotation {error.name!r} is not known at module level") from error

    @cached_property
    def _inputs(self) -> TypeAdapter[Any]:
        fields: dict[str, Any] = {}
        extra = "forbid"
        for name, parameter in list(inspect.signature(self.function).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                extra = "allow"
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise InvalidValue(f"{self.name}: messages carry named fields, so {name!r} must be a named parameter")
            else:
                hint = self._hints.get(name, Any)
                fields[name] = Required[hint] if parameter.default is parameter.empty else NotRequired[hint]
        shape = TypedDict(self.name, fields)  # type: ignore[operator]
        shape.__pydantic_config__ = ConfigDict(extra=extra)  # type: ignore[attr-defined,typeddict-item]
        return self._adapter(shape)

    @cached_property
    def _validate(self) -> Callable[[Any], Any]:
        return self._inputs.validator.validate_python

    @cached_property
    def _output(self) -> TypeAdapter[Any] | None:
        hint = self._hints.get("return", inspect.Parameter.empty)
        if self.streams:
            hint = (getattr(hint, "__args__", None) or [inspect.Parameter.empty])[0]
        return None if hint in (inspect.Parameter.empty, Any) else self._adapter(hint)

    @cached_property
    def _plain_output(self) -> bool:
        return self._hints.get("return", type(None)) in SCALARS

    def _adapter(self, hint: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(hint)
        except PydanticUserError as error:
            raise InvalidValue(f"{self.name}: no schema for the annotation {hint!r}: {error.message}") from error


@overload
def capability(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def capability(*, cost: float = 1.0) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def capability(function: Callable[..., Any] | None = None, /, *, cost: float = 1.0) -> Callable[..., Any]:
    """Declare a method as a capability; `cost` is relative to other capabilities, 0 or more.

    The method is `async def`, and streams if it yields. Raises NotAsync or InvalidValue.
    """
    if not cost >= 0:
        raise InvalidValue(f"a cost of {cost!r}: give 0 or more")

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        _require_async(function, "capability")
        description = inspect.cleandoc(function.__doc__ or "")
        function.capability = Capability(function.__name__, description, cost, function)  # type: ignore[attr-defined]
        return function

    return declare if function is None else declare(function)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a method wants to hear: topics (a name or glob) and a filter."""

    topic: str
    filter: Filter | None


def on(
    topic: str,
    *,
    type: MessageType | tuple[MessageType, ...] | None = None,
    sender: str | None = None,
    content: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call the method with each message on `topic`, a name or glob, that passes the filter (see Filter).

    Publications, broadcasts, system messages and direct messages with that topic count. To listen in on the requests
    of others, name the type: `@on("*", type=MessageType.REQUEST)`; a copy is never executed or answered.
    """
    if not isinstance(topic, str) or not topic:
        raise InvalidValue(f"a subscription to {topic!r}: give a topic such as 'weather.*'")
    wanted = None if type is sender is content is None else Filter(type, sender, content)

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        _require_async(function, "on")
        subscriptions = [*getattr(function, "subscriptions", ()), Subscription(topic, wanted)]
        function.subscriptions = subscriptions  # type: ignore[attr-defined]
        return function

    return declare


def _require_async(function: Callable[..., Any], decorator: str) -> None:
    if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        name = getattr(function, "__name__", repr(function))
        raise NotAsync(f"@{decorator} needs a coroutine function: write `async def {name}(...)`")
