"""The seal: everything of pydantic-ai that differs from run to run is made to come from the world, here.

pydantic-ai numbers runs with random ids, stamps messages with the time of day, and runs sync tools in threads.
`LLMAgent` hands it ids of the world and an executor without threads, and keeps what `stamp` returns. `caller` tells a
model for whom it works: the offline model takes its randomness from that agent's world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart

if TYPE_CHECKING:
    from ..runtime.agent import Agent

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # what a message of the first instant is dated
RANDOM_ID = "pyd_ai_"  # how pydantic-ai begins the ids of tool calls that it makes up
caller: ContextVar[Agent | None] = ContextVar("caller", default=None)


class InlineExecutor(Executor):
    """Runs functions here and now: sync tools act within the world's thread, in no virtual time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function; return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


INLINE = InlineExecutor()


async def for_agent(agent: Agent, request: Callable[[], Awaitable[T]]) -> T:
    """Await what a model is requested to do for an agent."""
    token = caller.set(agent)
    try:
        return await request()
    finally:
        caller.reset(token)


def date(now: float) -> datetime:
    """Return the date that stands for an instant of the world."""
    return EPOCH + timedelta(seconds=now)


def settle(response: ModelResponse, messages: list[ModelMessage], now: float) -> ModelResponse:
    """Return the response dated by the world, its made-up ids of tool calls counted through the conversation."""
    number = sum(isinstance(part, ToolCallPart) for message in messages for part in message.parts)
    parts = []
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            number += 1
            if part.tool_call_id.startswith(RANDOM_ID):
                part = replace(part, tool_call_id=f"call-{number}")
        parts.append(part)
    return replace(response, parts=parts, timestamp=date(now))


def stamp(messages: list[ModelMessage], now: float) -> list[ModelMessage]:
    """Return the messages of a run with the world's dates; responses have theirs from `settle`."""
    instant = date(now)
    for message in messages:
        if not isinstance(message, ModelResponse):
            message.timestamp = instant
            for part in message.parts:
                if hasattr(part, "timestamp"):
                    part.timestamp = instant
    return messages
