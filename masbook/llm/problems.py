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
    InvalidValue,
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

_KEYS = re.compile(
    r"\b(?:(?:sk|pk|gsk|xai|hf|ghp)[-_]|AIza)[-_A-Za-z0-9*]{6,}"
    r"|\b(?i:bearer|basic)\s+(?=\S*\d|\S{16})[-._~+/=A-Za-z0-9]{6,}"
    r"|(?<=://)[^\s/@]+(?=@)"  # name and password in an address
    r"|(?i:(?<=[?&]key=)|(?<=[?&]api_key=)|(?<=[?&]token=))[^\s&\"']+"
)
_KEY_ADVICE = "; mend the key in the provider's environment variable (MASBOOK_API_KEY for a server by its address)"
_VISIT = re.compile(r"For further information visit \S+")
_SECRET = re.compile(r"(?i)key|token|secret|password")
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[ModelError]], ...] = (
    (exceptions.ModelRateLimitError, ModelRateLimited),
    (exceptions.ModelAuthenticationError, MissingKey),
    (exceptions.ModelNotFoundError, UnknownModel),
    ((exceptions.ModelRequestRejectedError, exceptions.ModelQuotaExceededError, exceptions.UserError), ModelRefused),
    (
        (exceptions.ModelUnavailableError, exceptions.ModelServerError, exceptions.ModelConnectionError),
        ModelUnavailable,
    ),
    (exceptions.FallbackExceptionGroup, ModelUnavailable),
    ((exceptions.ModelAPIError, exceptions.UnexpectedModelBehavior), ModelMisbehaved),
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
    if any(isinstance(cause, NeedsRealClock) for cause in _causes(error)):
        text = f'{model.model_name} is reached over the network: make the world with World(clock="real")'
        return NeedsRealClock(f"{text}, or use 'offline' or a recording")
    if isinstance(error, MasbookError):
        return error
    if isinstance(error, exceptions.UserError) and "name conflicts" in str(error):
        return InvalidValue(f"two tools have the same name, and a model could not tell them apart: {error}")
    if isinstance(error, TimeoutError | exceptions.ModelTimeoutError | exceptions.ModelRequestTimeout):
        return ModelTimeout(f"{model.model_name} gave no answer within {timeout:g} s")
    each = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    text = _brief(f"{model.model_name}: {'; '.join(map(describe, each))}", model)
    if type(error) is exceptions.ModelHTTPError and 400 <= error.status_code < 500:
        return ModelUnavailable(text) if error.status_code in (408, 409, 425) else ModelRefused(text)
    for kind, problem in _KINDS:
        if isinstance(error, kind):
            if problem is ModelRateLimited:
                return ModelRateLimited(text, getattr(error, "retry_after", None))
            return problem(text + _KEY_ADVICE if problem is MissingKey else text)
    if not remote(model) or type(error) is RuntimeError:
        return error
    text = f"{model.model_name} sent what cannot be read: {type(error).__name__}: {error}"
    return ModelMisbehaved(_brief(text, model))


def remote(model: Model) -> bool:
    """Return whether a model is behind a network, or one of those that it falls back on."""
    return model.provider is not None or any(map(remote, getattr(model, "models", ())))


def _brief(text: str, model: Model) -> str:
    """Return a text in one line, without keys; that of the model's own client too."""
    key = getattr(getattr(model, "client", None), "api_key", None)
    text = text.replace(key, "[key]") if isinstance(key, str) and len(key) > len("none") else text
    return redact(" ".join(_VISIT.sub("", text).split()))[:600]


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and all that led to it, each once."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        cause = left.pop()
        if cause is not None and not any(cause is one for one in found):
            found.append(cause)
            left += [cause.__cause__, cause.__context__, *getattr(cause, "exceptions", ())]
    return found


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
