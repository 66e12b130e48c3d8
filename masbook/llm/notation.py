"""How requests and answers of models are written in recordings: plain data without ids, times of day and keys.

`recording` writes and reads it. A part of a message is a dict with one telling key: `user`, `text`, `call`, `tool` ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_jsonable_python

from .problems import redact

_UNWRITTEN = ("timeout", "request_timeout", "max_retries", "extra_headers", "extra_body")  # no part of the question
SHOWN = 60  # characters of a text that differs


def request(
    messages: Iterable[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
) -> dict[str, Any]:
    """Return what a model is asked."""
    written = {
        "instructions": "\n\n".join(part.content for part in parameters.instruction_parts or ()),
        "messages": [_part(part) for message in messages for part in message.parts],
        "settings": {key: value for key, value in (settings or {}).items() if key not in _UNWRITTEN},
        "tools": _tools(parameters.function_tools),
        "outputs": _tools(parameters.output_tools),
    }
    if parameters.output_object is not None and not parameters.output_tools:
        written["outputs"] = {"": parameters.output_object.json_schema}
    return _plain(written)


def answer(response: ModelResponse, cost: float | None) -> dict[str, Any]:
    """Return what a model answered, with its usage."""
    usage = {"input_tokens": response.usage.input_tokens, "output_tokens": response.usage.output_tokens, "cost": cost}
    return _plain({"answer": [_part(part) for part in response.parts], "usage": usage})


def response(call: dict[str, Any], model_name: str) -> ModelResponse:
    """Return the answer of a recorded call as a response."""
    usage = dict(call["usage"])
    cost = usage.pop("cost")
    counted = RequestUsage(**usage, cost=None if cost is None else Decimal(str(cost)))
    parts = [_restored(part) for part in call["answer"]]
    return ModelResponse(parts, usage=counted, model_name=model_name, provider_name="masbook")


def differences(then: Any, now: Any, path: str = "request") -> Iterator[str]:
    """Yield where two requests differ, and both values."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(f"{path}.{key}", then.get(key), now.get(key)) for key in dict.fromkeys((*then, *now))]
    elif isinstance(then, list) and isinstance(now, list):
        longest = range(max(len(then), len(now)))
        pairs = [(f"{path}[{i}]", (then[i:] or [None])[0], (now[i:] or [None])[0]) for i in longest]
    else:
        pairs = []
        if then != now:
            yield f"{path} was {_shown(then, now)} and is {_shown(now, then)}"
    for where, one, other in pairs:
        yield from differences(one, other, where)


def _shown(value: Any, other: Any) -> str:
    """Return a value in short; of a long text, the place where it begins to differ from the other."""
    if not isinstance(value, str) or len(value) <= SHOWN or not isinstance(other, str):
        return repr(value)[: 2 * SHOWN]
    same = next((i for i, (one, two) in enumerate(zip(value, other, strict=False)) if one != two), len(other))
    start = max(0, same - 20)
    return ("..." if start else "") + repr(value[start : start + SHOWN])


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return the value as it comes back from a file, without keys."""
    plain: dict[str, Any] = json.loads(redact(json.dumps(to_jsonable_python(value))))
    return plain


def _tools(definitions: Iterable[Any]) -> dict[str, Any]:
    return {tool.name: {"about": tool.description, "schema": tool.parameters_json_schema} for tool in definitions}


def _part(part: Any) -> dict[str, Any]:
    """Return a part of a message, of a request or of an answer."""
    kind = part.part_kind
    if kind == "tool-call":
        return {"call": part.tool_name, "arguments": part.args}
    if kind == "tool-return":
        outcome = {} if part.outcome == "success" else {"outcome": part.outcome}
        return {"tool": part.tool_name, "result": part.content, **outcome}
    return {_KEYS.get(kind, kind): part.content}


_KEYS = {"user-prompt": "user", "system-prompt": "system"}


def _restored(part: dict[str, Any]) -> Any:
    if not isinstance(part.get("call", part.get("text", part.get("thinking"))), str):
        raise TypeError(f"{part!r} is no part of an answer")
    if "call" in part:
        return ToolCallPart(part["call"], part["arguments"])
    return TextPart(part["text"]) if "text" in part else ThinkingPart(part["thinking"])
