"""Tools under observation: each call is a row, a tool that fails tells the model why, and a typo never ends a run.

`LLMAgent` gives a `Watched` to its pydantic-ai agent; it sees the calls of functions and of toolsets alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent as Thinker
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    SkipToolExecution,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
    UsageLimitExceeded,
)
from pydantic_core import PydanticSerializationError, ValidationError, to_json

from ..errors import RecordingMismatch, ScriptExhausted, Unrecordable, WorldError, describe
from .problems import redact
from .seal import INLINE

_TOLD = (ModelRetry, ToolFailed, ToolFailedError, ToolRetryError)  # the model hears of these already
_PASSED = (ApprovalRequired, CallDeferred, SkipToolExecution)  # no errors, but ways to go on
FINAL = (RecordingMismatch, ScriptExhausted, Unrecordable, WorldError)  # errors of whoever wrote this, not of the model


@dataclass
class Watched(AbstractCapability[Any]):
    """What `LLMAgent` adds to the tools of its model: `ctx.deps` is the agent."""

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        """Run without threads: tools that are not async act in the world's own thread."""
        with Thinker.using_thread_executor(INLINE):
            return await handler()

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        """Call the model, within the limit also where agents that share a budget think at the same time."""
        usage, limit = ctx.usage, ctx.usage_limits.request_limit
        if limit is not None and usage.requests + usage.under_way >= limit:
            raise UsageLimitExceeded(f"The next request would exceed the request_limit of {limit}")
        usage.under_way += 1
        try:
            return await handler(request_context)
        finally:
            usage.under_way -= 1

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Call a tool and record it; its error is told to the model, unless that is no matter of the model's."""
        began = ctx.deps.now
        try:
            result = await handler(args)
            _check(result, call.tool_name)
        except _PASSED:
            raise
        except Exception as error:
            text = redact(f"{type(error).__name__}: {describe(error)}")
            _record(ctx.deps, call, "failed", text, ctx.deps.now - began)
            if isinstance(error, (*_TOLD, *FINAL)):
                raise
            raise ToolFailed(text) from error
        _record(ctx.deps, call, "answered", None, ctx.deps.now - began)
        return result

    async def on_tool_validate_error(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, error: Any) -> Any:
        """Record that a call had wrong arguments; the model hears which, and tries again."""
        problems = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        text = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
        _record(ctx.deps, call, "refused", text or describe(error))
        raise error

    async def before_model_request(self, ctx: Any, request_context: Any) -> Any:
        """Record that the model has called tools that do not exist; it hears which there are."""
        known = {tool.name for tool in request_context.model_request_parameters.function_tools}
        known |= {tool.name for tool in request_context.model_request_parameters.output_tools}
        for part in request_context.messages[-1].parts:
            if part.part_kind == "tool-return" and part.tool_name not in known:
                _record(ctx.deps, part, "unknown", str(part.content))
        return request_context


def _record(agent: Any, call: Any, outcome: str, error: str | None, seconds: float = 0.0) -> None:
    facts = {"tool": call.tool_name, "seconds": seconds, "outcome": outcome, "error": error}
    agent.world.trace.record("tool_called", agent.name, **facts)


def _check(result: Any, tool: str) -> None:
    """Raise Unrecordable for a result that cannot be written down for a model."""
    try:
        to_json(result)
    except PydanticSerializationError:
        text = f"the tool {tool!r} returned a {type(result).__name__}, which no model can read"
        raise Unrecordable(f"{text}; return numbers, text, lists, dicts or pydantic models") from None
