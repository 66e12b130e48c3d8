"""The offline model: a rule-based expert behind the face of a language model. It needs no key, no network, no weights.

It is honest about what it is: its name says so in every answer. What it answers is decided in `expert` from the prompt
it is given; how long that takes, what it costs and how often it slips is a profile of `data/model_profiles.csv`. Pass
`expert=` your own function from Question to Answer to replace the rules.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import exp
from pathlib import Path
from random import Random
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from ..errors import UnknownModel
from .expert import Answer, Question, Tool, answer
from .seal import caller

Expert = Callable[[Question], Answer]
PROFILES = Path(__file__).parents[2] / "data" / "model_profiles.csv"


@dataclass(frozen=True, slots=True)
class Profile:
    """How fast, how dear and how good a model is.

    `latency` is the median in virtual seconds of what an answer takes before its first token, `spread` the sigma of
    its log-normal, `per_token` the seconds a token of the answer takes; prices are in US dollars for a million tokens;
    `slips` is the probability that a judgement is one level off.
    """

    profile: str
    latency: float
    spread: float
    per_token: float
    input_price: float
    output_price: float
    slips: float
    about: str

    def seconds(self, tokens: int, random: Random) -> float:
        """Draw how many virtual seconds an answer of so many tokens takes."""
        return self.latency * exp(random.gauss(0, self.spread)) + self.per_token * tokens

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Return what a call costs, in US dollars."""
        exact = Decimal(str(self.input_price)) * input_tokens + Decimal(str(self.output_price)) * output_tokens
        return exact / 1_000_000


@cache
def profiles() -> dict[str, Profile]:
    """Return the profiles of data/model_profiles.csv by name."""
    with PROFILES.open(encoding="utf-8", newline="") as file:
        rows = [Profile(row.pop("profile"), about=row.pop("about"), **_numbers(row)) for row in csv.DictReader(file)]
    return {profile.profile: profile for profile in rows}


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in row.items()}


def offline(profile: str | Profile = "balanced", *, expert: Expert = answer) -> OfflineModel:
    """Return the offline model with a profile, by name or of one's own; UnknownModel lists the names."""
    if isinstance(profile, str):
        if profile not in profiles():
            raise UnknownModel(f"the offline model has no profile {profile!r}; choose one of {', '.join(profiles())}")
        profile = profiles()[profile]
    return OfflineModel(profile, expert)


class OfflineModel(Model):
    """A pydantic-ai model that answers by rules, in virtual time, from the randomness of the world it is called in.

    Outside a world it answers the same prompt alike each time.
    """

    def __init__(self, profile: Profile, expert: Expert = answer) -> None:
        json_output = ModelProfile(supports_json_schema_output=True, supports_json_object_output=True)
        super().__init__(profile=json_output)
        self.rates, self.expert = profile, expert

    @property
    def model_name(self) -> str:
        """What it is."""
        return f"offline:{self.rates.profile} (rule-based expert, no language model)"

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
        """Answer by the rules; take the time that the profile says."""
        _, parameters = self.prepare_request(model_settings, model_request_parameters)
        random = self._random(messages)
        question = ask(messages, parameters, Random(random.getrandbits(64)), self.rates.slips)
        parts = _parts(self.expert(question))
        read, written = question.tokens, sum(_tokens(_written(part)) for part in parts)
        await asyncio.sleep(self.rates.seconds(written, random))
        usage = RequestUsage(input_tokens=read, output_tokens=written, cost=self.rates.cost(read, written))
        return ModelResponse(parts, usage=usage, model_name=self.model_name, provider_name=self.system)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Answer as `request` does, piece by piece."""
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)

    def _random(self, messages: list[ModelMessage]) -> Random:
        agent = caller.get()
        return Random("offline") if agent is None else agent.world.random(f"{agent.name}/model")


def ask(messages: list[ModelMessage], parameters: ModelRequestParameters, random: Random, slips: float) -> Question:
    """Return what pydantic-ai hands to a model as a Question for the rules."""
    texts: list[str] = []
    results: list[tuple[str, Any, bool]] = []
    for message in messages:
        for part in message.parts:
            if part.part_kind == "user-prompt":
                texts.append(part.content if isinstance(part.content, str) else " ".join(map(str, part.content)))
                results = []
            elif part.part_kind == "tool-return":
                results.append((part.tool_name, part.content, part.outcome == "success"))
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
        tokens=_tokens(*system, *written, *texts, *(str(result) for _, result, _ in results)),
        random=random,
        slips=slips,
    )


def _tools(definitions: list[Any]) -> tuple[Tool, ...]:
    return tuple(Tool(tool.name, tool.description or "", tool.parameters_json_schema) for tool in definitions)


def _parts(found: Answer) -> list[TextPart | ToolCallPart]:
    parts: list[TextPart | ToolCallPart] = [] if found.text is None else [TextPart(found.text)]
    return [*parts, *(ToolCallPart(name, arguments) for name, arguments in found.calls)]


def _written(part: TextPart | ToolCallPart) -> str:
    return part.content if isinstance(part, TextPart) else part.tool_name + json.dumps(part.args)


def _tokens(*texts: str) -> int:
    """Estimate the tokens of texts: four characters each, as English has on the average."""
    return sum(len(text) // 4 + 1 for text in texts if text)
