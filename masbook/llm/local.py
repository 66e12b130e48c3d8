"""Models that live in this process: the offline model, scripts and replays share how they answer, streams included."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent, TextPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings

from .expert import Question, Tool
from .seal import EPOCH, settle

_PIECE = re.compile(r"\s*\S+\s*")  # a word: what a stream brings at a time


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer, and how many virtual seconds pass before its first word and until its last."""

    response: ModelResponse
    first: float = 0.0
    rest: float = 0.0


class LocalModel(Model):
    """A model that knows its answers without a network; subclasses write `think`."""

    def __init__(self) -> None:
        super().__init__(profile=ModelProfile(supports_json_schema_output=True, supports_json_object_output=True))

    async def think(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> Thought:
        """Return the answer to a request; the time it takes passes elsewhere."""
        raise NotImplementedError

    def question(self, messages: list[ModelMessage], parameters: ModelRequestParameters, **more: Any) -> Question:
        """Return what pydantic-ai hands to a model as a Question; `more` are its other fields."""
        return _question(messages, self.prepare_request(None, parameters)[1], more)

    @property
    def system(self) -> str:
        """Who provides it."""
        return "masbook"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Answer, in virtual time."""
        thought = await self.think(messages, model_settings, model_request_parameters)
        await asyncio.sleep(thought.first + thought.rest)
        return thought.response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Answer as `request` does, word by word."""
        _, parameters = self.prepare_request(model_settings, model_request_parameters)
        thought = await self.think(messages, model_settings, model_request_parameters)
        await asyncio.sleep(thought.first)
        response = settle(thought.response, messages, asyncio.get_running_loop().time())
        yield WordByWord(parameters, replace(thought, response=response))


@dataclass
class WordByWord(StreamedResponse):
    """A known answer as a stream."""

    thought: Thought = field(default_factory=lambda: Thought(ModelResponse([])))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        parts = self.thought.response.parts
        pieces = [_PIECE.findall(part.content) if isinstance(part, TextPart) else [part] for part in parts]
        pause = self.thought.rest / max(sum(map(len, pieces)), 1)
        for number, part in enumerate(pieces):
            for piece in part:
                await asyncio.sleep(pause)
                if isinstance(piece, str):
                    for event in self._parts_manager.handle_text_delta(vendor_part_id=number, content=piece):
                        yield event
                else:
                    yield self._parts_manager.handle_part(vendor_part_id=number, part=piece)
        self._usage = self.thought.response.usage

    async def close_stream(self) -> None:
        """Close nothing: there is no connection."""

    model_name = property(lambda self: self.thought.response.model_name or "")
    provider_name = property(lambda self: self.thought.response.provider_name)
    provider_url = property(lambda self: None)
    timestamp = property(lambda self: EPOCH)


def _question(messages: list[ModelMessage], parameters: ModelRequestParameters, more: dict[str, Any]) -> Question:
    texts: list[str] = []
    results: list[tuple[str, Any, bool]] = []
    functions = [tool.name for tool in parameters.function_tools]
    for message in messages:
        for part in message.parts:
            if part.part_kind == "user-prompt":
                texts.append(part.content if isinstance(part.content, str) else " ".join(map(str, part.content)))
                results = []
            elif part.part_kind == "tool-return":
                results.append((part.tool_name, part.content, part.outcome == "success"))
            elif part.part_kind == "retry-prompt" and part.tool_name in functions:
                results.append((part.tool_name, part.model_response(), False))
    system = [part.content for message in messages for part in message.parts if part.part_kind == "system-prompt"]
    written = [part.content for part in parameters.instruction_parts or ()]
    schema = None if parameters.output_object is None else parameters.output_object.json_schema
    return Question(
        prompt=texts[-1] if texts else "",
        earlier=tuple(texts[:-1]),
        instructions="\n".join([*system, *written]),
        results=tuple(results),
        tools=_tools(parameters.function_tools),
        outputs=_tools(parameters.output_tools),
        schema=schema,
        tokens=tokens(*system, *written, *texts, *(str(result) for _, result, _ in results)),
        **more,
    )


def _tools(definitions: list[Any]) -> tuple[Tool, ...]:
    return tuple(Tool(tool.name, tool.description or "", tool.parameters_json_schema) for tool in definitions)


def written(parts: Sequence[Any]) -> int:
    """Estimate the tokens of an answer."""
    return sum(
        tokens(part.content) if isinstance(part, TextPart) else tokens(part.tool_name, part.args_as_json_str())
        for part in parts
    )


def tokens(*texts: str) -> int:
    """Estimate the tokens of texts: four characters each, as English has on the average."""
    return sum(len(text) // 4 + 1 for text in texts if text)
