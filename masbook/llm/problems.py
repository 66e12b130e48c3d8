"""What goes wrong with models: the faults of a plan, and masbook's typed error for each of pydantic-ai's.

`ObservedModel` and `LLMAgent` call `translated` on whatever they catch. Texts pass through `redact`, so that no key
reaches a trace, a recording or a notebook.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from pydantic_ai import exceptions
from pydantic_ai.models import Model

from ..errors import (
    LimitReached,
    MasbookError,
    MissingKey,
    ModelError,
    ModelMisbehaved,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    NeedsRealClock,
    UnknownModel,
    describe,
)

if TYPE_CHECKING:
    from ..runtime.agent import Agent

_KEYS = re.compile(r"\b(?:sk|pk|gsk|xai|AIza)[-_A-Za-z0-9*]{6,}|(?i:bearer|basic)\s+[-._~+/=A-Za-z0-9]{6,}")
_SECRET = re.compile(r"(?i)key|token|secret|password")
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[ModelError]], ...] = (
    (exceptions.ModelRateLimitError, ModelRateLimited),
    ((exceptions.ModelTimeoutError, exceptions.ModelRequestTimeout), ModelTimeout),
    (exceptions.ModelAuthenticationError, MissingKey),
    (exceptions.ModelNotFoundError, UnknownModel),
    ((exceptions.ModelRequestRejectedError, exceptions.ModelQuotaExceededError, exceptions.UserError), ModelRefused),
    ((exceptions.ModelAPIError, exceptions.FallbackExceptionGroup), ModelUnavailable),
    (exceptions.UnexpectedModelBehavior, ModelMisbehaved),
    (exceptions.UsageLimitExceeded, LimitReached),
)
_OUTCOMES: dict[type[Exception], str] = {
    ModelRateLimited: "rate_limited",
    ModelTimeout: "timed_out",
    ModelUnavailable: "unavailable",
    ModelMisbehaved: "misbehaved",
}


def redact(text: str) -> str:
    """Return the text without keys: what looks like one, and the value of every variable that is named like one."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET.search(name):
            text = text.replace(value, "[key]")
    return _KEYS.sub("[key]", text)


def outcome(problem: Exception) -> str:
    """Return the word that the trace has for a problem."""
    return next((word for kind, word in _OUTCOMES.items() if isinstance(problem, kind)), "failed")


def translated(error: Exception, model: Model, timeout: float) -> Exception:
    """Return masbook's error for what a model raised; an error of the model's own code as it is."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MasbookError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, NeedsRealClock):
        text = f'{model.model_name} is reached over the network: make the world with World(clock="real")'
        return NeedsRealClock(f"{text}, or use 'offline' or a recording")
    if isinstance(error, MasbookError):
        return error
    if isinstance(error, TimeoutError):
        return ModelTimeout(f"{model.model_name} gave no answer within {timeout:g} s")
    text = redact(f"{model.model_name}: {describe(error)}")
    for kind, problem in _KINDS:
        if isinstance(error, kind):
            return (
                ModelRateLimited(text, getattr(error, "retry_after", None))
                if problem is ModelRateLimited
                else problem(text)
            )
    if model.provider is None or type(error) is RuntimeError:
        return error
    return ModelMisbehaved(redact(f"{model.model_name} sent what cannot be read: {type(error).__name__}: {error}"))


async def planned(agent: Agent) -> None:
    """Do what the world's fault plan has for this attempt of the agent's."""
    faults = agent.world.faults
    fault = None if faults is None else faults.strike_model(agent.name)
    if fault is None:
        return
    if fault.fault == "timeout":
        await asyncio.get_running_loop().create_future()  # until the deadline
    if fault.fault == "rate_limit":
        raise ModelRateLimited("too many calls (a planned fault)", fault.retry_after)
    if fault.fault == "malformed":
        raise ModelMisbehaved("the answer cannot be read (a planned fault)")
    raise ModelUnavailable("the provider failed (a planned fault)")
