"""The offline model: a rule-based expert behind the face of a language model. It needs no key, no network, no weights.

It is honest about what it is: its name says so in every answer. What it answers is decided in `expert` from the prompt
it is given; how long that takes, what it costs and how often it slips is a profile of `data/model_profiles.csv`. Pass
`expert=` your own function from Question to Answer to replace the rules.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import exp
from pathlib import Path
from random import Random
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from ..errors import UnknownModel
from .expert import Answer, Question, answer
from .local import LocalModel, Thought, written
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
    if not isinstance(profile, Profile):
        if profile not in list(profiles()):
            raise UnknownModel(f"the offline model has no profile {profile!r}; choose one of {', '.join(profiles())}")
        profile = profiles()[profile]
    return OfflineModel(profile, expert)


class OfflineModel(LocalModel):
    """A pydantic-ai model that answers by rules, in virtual time, from the randomness of the world it is called in.

    Outside a world it answers the same prompt alike each time.
    """

    def __init__(self, profile: Profile, expert: Expert = answer) -> None:
        super().__init__()
        self.rates, self.expert = profile, expert

    @property
    def model_name(self) -> str:
        """What it is."""
        return f"offline:{self.rates.profile} (rule-based expert, no language model)"

    async def think(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> Thought:
        """Answer by the rules; the profile says how long that takes, what it costs and how often it slips."""
        agent, rates = caller.get(), self.rates
        random = Random("offline") if agent is None else agent.world.random(f"{agent.name}/model")
        asked = self.question(messages, parameters, random=Random(random.getrandbits(64)), slips=rates.slips)
        found = self.expert(asked)
        parts: list[Any] = [] if found.text is None else [TextPart(found.text)]
        parts += [ToolCallPart(name, arguments) for name, arguments in found.calls]
        output = written(parts)
        usage = RequestUsage(input_tokens=asked.tokens, output_tokens=output, cost=rates.cost(asked.tokens, output))
        response = ModelResponse(parts, usage=usage, model_name=self.model_name, provider_name=self.system)
        return Thought(response, rates.latency * exp(random.gauss(0, rates.spread)), rates.per_token * output)
