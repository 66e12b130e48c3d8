"""Tools under observation: each call is a row, a tool that fails tells the model why, and a typo never ends a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.tools import RunContext
from pydantic_core import PydanticSerializationError, to_json

from ..errors import Unrecordable, describe
from .problems import redact


@dataclass
class Watched(AbstractCapability[Any]):
    """What `LLMAgent` adds to the tools of its model."""

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: Any, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        """Call a tool; its error is told to the model, except that a result that cannot be written down is raised."""
        agent = ctx.deps
        began = agent.now

        def record(outcome: str, error: str | None = None) -> None:
            seconds = agent.now - began
            agent.world.trace.record(
                "tool_called",
                agent.name,
                tool=call.tool_name,
                call=call.tool_call_id,
                seconds=seconds,
                outcome=outcome,
                error=error,
            )

        try:
            result = await handler(args)
            to_json(result)
        except PydanticSerializationError as error:
            record("failed", f"Unrecordable: {error}")
            text = f"the tool {call.tool_name!r} returned a {type(result).__name__}, which no model can read"
            raise Unrecordable(f"{text}; return numbers, text, lists, dicts or pydantic models") from None
        except Exception as error:
            text = redact(f"{type(error).__name__}: {describe(error)}")
            record("failed", text)
            raise
        record("answered")
        return result
