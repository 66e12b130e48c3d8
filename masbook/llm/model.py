"""Models by name, and what every call to one goes through: a deadline, further attempts, planned faults, the trace.

`find_model` turns a name into a pydantic-ai model. An `LLMAgent` wraps it in an `ObservedModel`, the one place where
calls are timed, tried again and counted, and where pydantic-ai's many errors become masbook's few (see `problems`).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, infer_model
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from ..errors import (
    InvalidValue,
    MissingKey,
    ModelError,
    ModelMisbehaved,
    ModelRateLimited,
    ModelUnavailable,
    UnknownModel,
    describe,
)
from ..runtime import require
from .problems import outcome, planned, redact, remote, translated
from .seal import for_agent, settle

if TYPE_CHECKING:
    from ..runtime.agent import Agent

T = TypeVar("T")
Recorder = Callable[..., None]  # writes one row: outcome, response, error
VARIABLE = "MASBOOK_MODEL"  # the environment variable that names the model of whoever does not
KEY = "MASBOOK_API_KEY"  # the variable with the key of a server that is given by its address
ATTEMPTS = 3  # in all, for one call
_ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[^\s?#@]*)?")
BACKOFF = 0.5  # seconds before the second attempt; twice as long before each further one
FORMS = (
    "'offline', 'offline:PROFILE', 'replay:NAME', 'openai:NAME', 'anthropic:NAME' or another name of pydantic-ai's, "
    "'openai:NAME@http://ADDRESS/v1' for a server that speaks the OpenAI format, or a pydantic-ai Model"
)


def find_model(name: str | Model | None = None, *, base_url: str | None = None, api_key: str | None = None) -> Model:
    """Return the model of a name; a Model as it is; for None that of the variable MASBOOK_MODEL, else the offline one.

    `base_url` is the address of a server that speaks the OpenAI format, also written `openai:NAME@http://...`; its
    key, if it wants one, is `api_key` or the variable MASBOOK_API_KEY. UnknownModel lists the forms of a name;
    MissingKey says which variable to set.
    """
    if isinstance(name, Model):
        return name
    if name is None:
        try:
            return find_model(os.environ.get(VARIABLE) or "offline", base_url=base_url, api_key=api_key)
        except (ModelError, InvalidValue) as error:
            raise type(error)(f"by the variable {VARIABLE}: {error}") from None
    if not isinstance(name, str) or not name.strip():
        raise UnknownModel(f"the model {name!r}: give {FORMS}")
    kind, _, rest = name.partition(":")
    if base_url is not None and kind in ("offline", "replay"):
        raise InvalidValue(f"the model {name!r} is not behind an address: leave base_url out")
    if kind == "offline":
        from .offline_model import offline

        return offline(rest if ":" in name else "balanced")
    if kind == "replay":
        from .recording import replay

        return replay(rest)
    if kind == "openai" and base_url is None and "@" in rest:
        name, _, base_url = name.partition("@")
    if name.strip().endswith(":"):
        raise UnknownModel(f"the model {name!r} has no name after the colon: give {FORMS}")
    if base_url is not None:
        return _at(name, base_url, api_key)
    if api_key is not None:
        raise InvalidValue("api_key is that of a server by its base_url; that of a provider belongs in the environment")
    return _named(name)


def _named(name: str) -> Model:
    """Return a model of a provider by pydantic-ai's name."""
    try:
        return infer_model(name)
    except (UserError, ImportError, ValueError) as error:
        reason = redact(describe(error)).partition(" To try")[0]  # pydantic-ai's own model without a key
        if "Unknown model" in reason:
            raise UnknownModel(f"there is no model {name!r}: give {FORMS}") from None
        problem = ModelUnavailable if isinstance(error, ImportError) else MissingKey
        instead = "without it, 'offline' or a recording can take its place"
        raise problem(f"the model {name!r} cannot be used yet: {reason} ({instead})") from None


def _at(name: str, base_url: str, api_key: str | None) -> Model:
    """Return a model behind an address that speaks the OpenAI format."""
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    if not _ADDRESS.fullmatch(str(base_url)):
        shown = redact(repr(base_url))
        raise InvalidValue(f"base_url is {shown}: give an address, without a key, such as 'http://127.0.0.1:8000/v1'")
    key = api_key or os.environ.get(KEY) or "none"  # never that of OpenAI: the address may be anybody's
    provider = OpenAIProvider(base_url=base_url, api_key=key)
    whole = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)  # else what breaks off counts as said
    return OpenAIChatModel(name.removeprefix("openai:"), provider=provider, profile=whole)


class ObservedModel(WrapperModel):
    """A model as one agent calls it: each attempt is a row `model_called`, and every failure is one typed error.

    A call has `timeout` seconds in all, attempts and the pauses between them included.
    """

    def __init__(self, wrapped: Model, agent: Agent, *, timeout: float = 30.0, attempts: int = ATTEMPTS) -> None:
        super().__init__(wrapped)
        self.agent = agent
        self.timeout = require.positive("timeout", timeout)
        self.attempts = require.whole("attempts", attempts)
        self._open = False  # whether the provider's connections are

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer of the wrapped model, or raise a ModelError within the deadline."""
        settings = self._visible(model_settings)
        response, record = await self._try(
            lambda: self.wrapped.request(messages, settings, model_request_parameters), self.agent.now + self.timeout
        )
        record("answered", response)
        return settle(response, messages, self.agent.now)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Open a stream as `request` asks; its row is written when it ends, however it does."""
        settings, deadline = self._visible(model_settings), self.agent.now + self.timeout
        async with AsyncExitStack() as stack:

            def opened() -> Awaitable[StreamedResponse]:
                stream = self.wrapped.request_stream(messages, settings, model_request_parameters, run_context)
                return stack.enter_async_context(stream)

            stream, record = await self._try(opened, deadline)
            with self._watching(record, deadline):
                yield stream
            record("answered", stream.get())

    async def close(self) -> None:
        """Close the connections to the provider; the next request opens them again."""
        if self._open:
            self._open = False
            await self.wrapped.__aexit__(None, None, None)

    def _visible(self, settings: ModelSettings | None) -> ModelSettings | None:
        """Return the settings, without attempts of the provider's own: the trace would not have them."""
        if not remote(self.wrapped):
            return settings
        return {**(settings or {}), "max_retries": 0}

    async def _try(self, request: Callable[[], Awaitable[T]], deadline: float) -> tuple[T, Recorder]:
        """Return what was requested, after as many attempts as it takes, and what writes the row of the last."""
        call = self.agent.world.new_id("call")
        if not self._open and remote(self.wrapped):
            self._open = True
            await self.wrapped.__aenter__()
        for attempt in range(1, self.attempts + 1):
            record = self._recorder(call)
            try:
                with self._watching(record, deadline):
                    async with asyncio.timeout_at(deadline):
                        await planned(self.agent)
                        return await for_agent(self.agent, request), record
            except (ModelRateLimited, ModelUnavailable, ModelMisbehaved) as error:
                pause = getattr(error, "retry_after", None)
                pause = BACKOFF * 2 ** (attempt - 1) if pause is None else pause
                if attempt == self.attempts or self.agent.now + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _watching(self, record: Recorder, deadline: float) -> Iterator[None]:
        """Record what goes wrong, and raise masbook's error for it."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):  # the latter where a stream is left
            late = self.agent.now >= deadline - 0.01 * self.timeout  # a stream's own deadline began a moment before
            record("timed_out" if late else "cancelled")
            raise
        except Exception as error:
            problem = translated(error, self.wrapped, self.timeout)
            record(outcome(problem), error=redact(f"{type(problem).__name__}: {describe(problem)}"))
            if problem is error:
                raise
            raise problem from None  # what caused it may show a key

    def _recorder(self, call: str) -> Recorder:
        """Return what writes the row of an attempt that begins now."""
        agent, model, began = self.agent, self.wrapped.model_name, self.agent.now

        def record(outcome: str, response: ModelResponse | None = None, error: str | None = None) -> None:
            facts: dict[str, Any] = {"model": model, "call": call, "seconds": agent.now - began}
            if response is not None:
                usage = response.usage
                facts |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
                facts["cost"] = cost(response)
            agent.world.trace.record("model_called", agent.name, **facts, outcome=outcome, error=error)

        return record


def cost(response: ModelResponse) -> float | None:
    """Return what a response cost in US dollars; None where no price is known.

    The price list goes by names, and a server of one's own may call its model like one of OpenAI's.
    """
    if response.usage.cost is not None:
        return float(response.usage.cost)
    if response.provider_name == "openai" and not str(response.provider_url).startswith("https://api.openai.com/"):
        return None
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError, AssertionError):
        return None
