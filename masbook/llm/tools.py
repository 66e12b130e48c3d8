"""Tools under observation: each call is a row, a tool that fails tells the model why, and a typo never ends a run.

`LLMAgent` gives a `Watched` to its pydantic-ai agent; it sees the calls of functions and of toolsets alike.
"""

from __future__ import annotations

import asyncio
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
from pydantic_ai.messages import ToolReturn
from pydantic_core import ValidationError

from ..errors import RecordingMismatch, ScriptExhausted, Unrecordable, WorldError, describe
from ..runtime.message import freeze
from .budget import sharing
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
            with sharing(ctx.deps):
                result = await handler(args)
            _check(result, call.tool_name)
        except _PASSED:
            raise
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the run is over; otherwise the tool waited for what was cancelled
            text = redact(f"{type(error).__name__}: {describe(error)}".removesuffix(": "))
            _record(ctx.deps, call, "failed", text, ctx.deps.now - began)
            if isinstance(error, (*_TOLD, *FINAL)):
                raise
            raise ToolFailed(text) from error
        _record(ctx.deps, call, "answered", None, ctx.deps.now - began)
        return result

    async def after_tool_validate(self, ctx: Any, *, call: Any, tool_def: Any, args: Any) -> Any:
        """Refuse arguments that are no object: a tool with a schema of its own lets them pass."""
        if isinstance(args, dict):
            return args
        text = f"the arguments are {args!r}: give a JSON object with a field for each of them"
        _record(ctx.deps, call, "refused", text)
        raise ModelRetry(text)

    async def on_tool_validate_error(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, error: Any) -> Any:
        """Record that a call had wrong arguments; the model hears which, and tries again."""
        problems = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        places = ["".join(f"{key}." for key in problem["loc"])[:-1] or "the arguments" for problem in problems]
        text = "; ".join(f"{place}: {problem['msg']}" for place, problem in zip(places, problems, strict=True))
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
    """Raise Unrecordable for a result that cannot be written down for a model, or not in the same way each time."""
    try:
        freeze(result.return_value if isinstance(result, ToolReturn) else result, "its result")
    except Unrecordable as error:
        raise Unrecordable(f"the tool {tool!r} returned what no model can read: {error}") from None
