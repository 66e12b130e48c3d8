"""Scripts: answers given beforehand by a test or an exercise, in order or by what the prompt says.

A script fails loudly: ScriptExhausted when it has no answer, ScriptUnused when the world is closed before all
were given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_json, to_jsonable_python

from ..errors import InvalidValue, ScriptExhausted, ScriptUnused
from ..runtime import require
from .expert import Question
from .local import LocalModel, Thought, written

if TYPE_CHECKING:
    from ..runtime.world import World


def scripted(*answers: Any, matching: Mapping[str, Any] | None = None, latency: float = 0.0) -> Script:
    """Return a model that gives these answers in order, or those whose pattern is found in the prompt.

    An answer is text; data (a dict, dataclass or pydantic model), which fills the output type; `tool_call(name, ...)`;
    a list with calls; an error, which is raised; or a function of the Question that returns one of these. `matching`
    maps regular expressions, of which the first that is found counts, to an answer for each time or to a list of
    answers in order. `latency` is in virtual seconds.

        scripted(tool_call("lookup", order="O00017"), "It was shipped on Monday.")
        scripted(matching={"refund|money": {"risk": "high"}, "": {"risk": "low"}})
    """
    if matching is None:
        return Script({"": list(answers)}, latency)
    if answers:
        raise InvalidValue("a script gives its answers in order or by `matching`, not both")
    if not isinstance(matching, Mapping):
        raise InvalidValue(f"matching={matching!r}: give a dict from regular expressions to answers")
    for pattern in matching:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InvalidValue(f"the pattern {pattern!r} is no regular expression: {error}") from None
    return Script(dict(matching), latency)


def tool_call(name: str, /, **arguments: Any) -> ToolCallPart:
    """Return a call of a tool, as an answer of a script."""
    return ToolCallPart(name, arguments)


class Script(LocalModel):
    """A model with answers given beforehand, by pattern: a list is used up, anything else is given each time."""

    model_name = "scripted (answers given beforehand)"

    _joined: World | None = None

    def __init__(self, answers: Mapping[str, Any], latency: float = 0.0) -> None:
        super().__init__()
        self.latency = require.not_negative("latency", latency)
        self._script = dict(answers)
        self._begin()

    def _begin(self) -> None:
        script = self._script.items()
        self._answers = {key: list(found) if isinstance(found, list) else found for key, found in script}
        self._given = dict.fromkeys(self._script, 0)

    def join(self, world: World) -> None:
        """Begin afresh in a world, and look back when it is closed; spawning an agent with this model calls it."""
        if self._joined is not world:
            self._joined = world
            self._begin()
            world.when_closed(self._look_back)

    def unused(self) -> list[str]:
        """Return what nobody has asked for yet: a line for each answer, or pattern that was never found."""
        left = []
        for pattern, found in self._answers.items():
            if isinstance(found, list):
                left += [_shown(answer) for answer in found]
            elif not self._given[pattern]:
                left.append(f"{pattern!r}: {_shown(found)}")
        return left

    def check(self) -> None:
        """Raise ScriptUnused, with the answers, unless all were given."""
        if left := self.unused():
            raise ScriptUnused(f"nobody asked for {len(left)} of the script's answers: {'; '.join(left)}")

    async def think(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> Thought:
        """Give the next answer."""
        asked = self.question(messages, parameters)
        parts = _parts(self._next(asked), asked)
        usage = RequestUsage(input_tokens=asked.tokens, output_tokens=written(parts), cost=Decimal(0))
        response = ModelResponse(parts, usage=usage, model_name=self.model_name, provider_name=self.system)
        return Thought(response, self.latency)

    def _next(self, asked: Question) -> Any:
        for pattern, found in self._answers.items():
            if not re.search(pattern, asked.prompt):
                continue
            if isinstance(found, list) and not found:
                break
            self._given[pattern] += 1
            return found.pop(0) if isinstance(found, list) else found
        given = sum(self._given.values())
        raise ScriptExhausted(f"the script has no answer, after {given} given, to {asked.prompt[:200]!r}; add one")

    def _look_back(self) -> None:
        if sys.exc_info()[0] is None:  # else the world ends because of another error, which says more
            self.check()


def _parts(answer: Any, asked: Question) -> list[Any]:
    """Return an answer as parts of a response; data fills the output that fits the question."""
    if callable(answer) and not isinstance(answer, type):
        return _parts(answer(asked), asked)
    if isinstance(answer, BaseException):
        raise answer
    if isinstance(answer, list) and any(isinstance(each, TextPart | ToolCallPart) for each in answer):
        return [part for each in answer for part in _parts(each, asked)]
    if isinstance(answer, TextPart | ToolCallPart):
        return [answer]
    if isinstance(answer, str) and not (asked.outputs and _wraps(asked)):
        return [TextPart(answer)]
    data = to_jsonable_python(answer)
    if not asked.outputs and isinstance(answer, list) and any(isinstance(each, str) for each in answer):
        raise InvalidValue(f"the answer {answer!r} is a list, where text is wanted: write scripted(*answers)")
    if not asked.outputs:
        return [TextPart(to_json(answer).decode())]
    form = next((form for form in asked.outputs if type(answer).__name__ in form.name), asked.outputs[0])
    return [ToolCallPart(form.name, {"response": data} if _wraps(asked) else data)]


def _wraps(asked: Question) -> bool:
    """Whether the output is a plain value, which pydantic-ai wants as the field `response`."""
    return list(asked.outputs[0].schema.get("properties", {})) == ["response"]


def _shown(answer: Any) -> str:
    return repr(answer)[:100]
