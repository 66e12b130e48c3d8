"""Capabilities and subscriptions: the two decorators that turn methods of an agent into what others can use.

`@capability` declares a method that answers requests; its schemas come from the annotations through pydantic and its
description from the docstring. `@on(topic)` declares a method that is called with each matching message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, get_type_hints, overload

from ..errors import InvalidValue, NotAsync
from . import require
from .message import SCALARS, Filter, MessageType

if TYPE_CHECKING:
    from .schema import Schema


@dataclass(frozen=True)
class Capability:
    """What an agent can do: a name, a description, a relative cost, and JSON schemas of what goes in and comes out."""

    name: str
    description: str
    cost: float
    function: Callable[..., Any]
    replaced: Capability | None = None
    """That of a base class: its annotations count for parameters that have none here."""

    @cached_property
    def streams(self) -> bool:
        """Whether it answers with many values, one after the other."""
        return inspect.isasyncgenfunction(self.function)

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the inputs."""
        return self._schema.input_schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """The JSON schema of the result, or of each part of a stream; empty where nothing is annotated."""
        return self._schema.output_schema

    def validate(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the method; InvalidInput names each field that is wrong."""
        return self._schema.arguments(content)

    def restore(self, value: Any) -> Any:
        """Return a result that has travelled as plain data in the type that the method promises."""
        return value if value.__class__ is self._promised else self._schema.result(value)

    @cached_property
    def _promised(self) -> Any:
        hint = get_type_hints(self.function).get("return")
        return hint if hint in SCALARS else None

    @cached_property
    def _schema(self) -> Schema:
        from .schema import Schema  # here, because pydantic takes as long to import as all of masbook

        return Schema(self.name, self.function, None if self.replaced is None else self.replaced._schema)


@overload
def capability(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def capability(*, cost: float = 1.0) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def capability(function: Callable[..., Any] | None = None, /, *, cost: float = 1.0) -> Callable[..., Any]:
    """Declare a method as a capability; `cost` is relative to other capabilities, 0 or more.

    The method is `async def`, and streams if it yields. Raises NotAsync or InvalidValue.
    """
    require.not_negative("cost", cost)

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        require_async(function, "@capability")
        _require_parameters(function, 1, "self")
        description = inspect.cleandoc(function.__doc__ or "")
        function.capability = Capability(function.__name__, description, cost, function)  # type: ignore[attr-defined]
        return function

    return declare if function is None else declare(function)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a method wants to hear: topics (a name or glob) and a filter."""

    topic: str
    filter: Filter | None

    def __post_init__(self) -> None:
        if not isinstance(self.topic, str) or not self.topic:
            raise InvalidValue(f"a subscription to {self.topic!r}: give a topic such as 'weather.*'")


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
    wanted = None if type is None and sender is None and content is None else Filter(type, sender, content)

    subscription = Subscription(topic, wanted)

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        require_async(function, "@on")
        _require_parameters(function, 2, "self and the message")
        subscriptions = [*getattr(function, "subscriptions", ()), subscription]
        function.subscriptions = subscriptions  # type: ignore[attr-defined]
        return function

    return declare


def require_async(function: Callable[..., Any], whose: str) -> None:
    """Raise NotAsync unless the function is `async def`, a partial of one, or an object that is called like one."""
    whole = inspect.isroutine(function) or isinstance(function, partial)
    called = function if whole else getattr(function, "__call__", function)  # noqa: B004
    if not (inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)):
        name = getattr(function, "__name__", repr(function))
        raise NotAsync(f"{whose} needs a coroutine function: write `async def {name}(...)`")


def _require_parameters(function: Callable[..., Any], number: int, which: str) -> None:
    """Raise InvalidValue unless the method can be called with the first `number` parameters."""
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    positional = [kind for kind in kinds if kind <= inspect.Parameter.VAR_POSITIONAL]
    if len(positional) < number and inspect.Parameter.VAR_POSITIONAL not in positional:
        raise InvalidValue(f"{function.__name__}{inspect.signature(function)} must take {which}")
