"""Recordings: what models were asked and answered, in one readable file, and models that answer from such a file.

`record` wraps any model; `replay` answers as recorded, in the time it took then, without a network. The files are JSON,
in data/recordings/. No ids, no times of day and no keys are in them: two recordings of the same differ in nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from .. import errors
from ..errors import InvalidRecording, InvalidValue, ModelRateLimited, RecordingMismatch, describe
from ..runtime import require
from . import notation
from .local import LocalModel, Thought
from .model import cost, find_model
from .problems import redact, translated
from .seal import caller

if TYPE_CHECKING:
    from ..runtime.world import World

FORMAT = 1
PROJECT = Path(__file__).parents[2]
_TAIL = "\n ]\n}\n"


def record(model: str | Model, name: str | Path) -> Recorder:
    """Return the model, every call of which is also written to data/recordings/NAME.json (or to a path).

    The first call begins the file anew; give the same model object to all agents that are to be in one recording.
    """
    return Recorder(find_model(model), path_of(name, to_write=True))


def replay(name: str | Path) -> Replay:
    """Return a model that answers as recorded; InvalidRecording lists the recordings there are.

    A request is answered by the recorded one that is equal, first among those of the same agent, each once; if there
    is none, RecordingMismatch says where it differs from the one most like it that the agent made then. `unused` and
    `check` of the model tell whether all of the recording was needed.
    """
    return Replay(path_of(name))


def path_of(name: str | Path, *, to_write: bool = False) -> Path:
    """Return the file of a recording: by its path, or by its name in the data/recordings/ of this folder or above."""
    if not isinstance(name, str | Path) or not str(name).strip():
        raise InvalidValue(f"a recording needs a name, such as 'replay:tickets', not {name!r}")
    given = Path(name)
    if given.suffix == ".json" or given.parent != Path():
        return given if given.suffix == ".json" else given.with_name(f"{given.name}.json")
    here = Path.cwd()
    folders = [folder / "data" for folder in (here, *here.parents, PROJECT)]
    homes = [folder / "recordings" for folder in folders if to_write or (folder / "recordings").is_dir()]
    if to_write:
        homes = [home for home in homes if home.parent.is_dir()] or homes[-1:]
    path = next((home / f"{name}.json" for home in homes if to_write or (home / f"{name}.json").exists()), None)
    if path is None:
        found = sorted({file.stem for home in homes for file in home.glob("*.json")})
        raise InvalidRecording(f"there is no recording {str(name)!r}; there are {', '.join(found) or 'none yet'}")
    return path


class Recorder(WrapperModel):
    """A model whose calls are written down, one after the other."""

    def __init__(self, wrapped: Model, path: Path) -> None:
        super().__init__(wrapped)
        self.path = path
        self._forms: list[Any] = []  # the tools and outputs of each call, written once

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer of the wrapped model, and write it down; an error too."""
        with self._writing(messages, model_settings, model_request_parameters) as found:
            found.append(await self.wrapped.request(messages, model_settings, model_request_parameters))
        return found[0]

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Pass the stream on, and write down what it brought."""
        asked = messages, model_settings, model_request_parameters
        with self._writing(*asked) as found:
            async with self.wrapped.request_stream(*asked, run_context) as stream:
                try:
                    yield stream
                finally:
                    found.append(stream.get())

    @contextmanager
    def _writing(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> Iterator[list[ModelResponse]]:
        """Write down the response that is put into the list, or what went wrong instead."""
        asked, began, found = notation.request(messages, settings, parameters), _now(), list[ModelResponse]()
        try:
            yield found
        except GeneratorExit:  # who listened has left: what came until then was the answer
            self._write(asked, began, notation.answer(found[0], cost(found[0])))
            raise
        except BaseException as error:
            self._write(asked, began, _failure(error, self.wrapped))
            raise
        self._write(asked, began, notation.answer(found[0], cost(found[0])))

    def _write(self, asked: dict[str, Any], began: float, answered: dict[str, Any]) -> None:
        """Add a call to the file, which is complete after each."""
        form: dict[str, Any] = {key: asked.pop(key) for key in ("tools", "outputs")}
        known = self._forms.index(form) if form in self._forms else None
        self._forms.append(form)
        asked |= form if known is None else {"form": known}
        seconds = round(_now() - began, 6)
        entry = {"agent": _asking(), "request": asked, **answered, "seconds": seconds}
        lines = json.dumps(entry, indent=1, ensure_ascii=False).splitlines()
        text = "\n".join(f"  {line}" for line in lines)
        if len(self._forms) == 1:
            model = json.dumps(redact(self.wrapped.model_name))
            head = f'{{\n "masbook recording": {FORMAT},\n "model": {model},\n "calls": ['
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{head}\n{text}{_TAIL}", encoding="utf-8")
            return
        with self.path.open("r+b") as file:
            file.seek(-len(_TAIL), 2)
            file.write(f",\n{text}{_TAIL}".encode())


class Replay(LocalModel):
    """A model that answers from a recording."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._model_name, self._calls = _load(path)
        self._left = list(self._calls)
        self._world: World | None = None

    @property
    def model_name(self) -> str:
        """What it is, and of what it is a recording."""
        return self._model_name

    def join(self, world: World) -> None:
        """Begin afresh in a world; whoever spawns an agent with this model calls it."""
        if self._world is not world:
            self._world, self._left = world, list(self._calls)

    def unused(self) -> list[str]:
        """Return the recorded calls that nobody has made in this world yet: who made each, and what was asked last."""
        return [f"{call['agent'] or 'somebody'}: {str(call['request']['messages'][-1:])[:100]}" for call in self._left]

    def check(self) -> None:
        """Raise RecordingMismatch, with the calls, unless all were made again.

        Unlike a script, a world does not do so by itself at its end: to replay a part of a recording is no mistake.
        """
        if left := self.unused():
            raise RecordingMismatch(f"nobody has made {len(left)} calls of {self.path.name}: {'; '.join(left[:10])}")

    async def think(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> Thought:
        """Give the recorded answer, or raise the recorded error after the time that it took."""
        call = self._take(notation.request(messages, settings, parameters), _asking())
        if "error" not in call:
            return Thought(call["response"], 0.0, call["seconds"])
        await asyncio.sleep(call["seconds"])
        if call["error"] == "cancelled":
            await asyncio.get_running_loop().create_future()  # who waited then gave up now, and will again
        raise _problem(call)

    def _take(self, asked: dict[str, Any], agent: str | None) -> dict[str, Any]:
        """Return the recorded call for a request, each once."""
        own = [call for call in self._left if call["agent"] == agent]
        for call in (*own, *self._left):
            if call["request"] == asked:
                self._left.remove(call)
                return call
        if not self._left:
            raise RecordingMismatch(f"{self.path.name} has no call left for {agent or 'this request'}; record it again")
        found = [list(notation.differences(call["request"], asked)) for call in own or self._left]
        where = min(found, key=len)[0]  # of the one that is most like it
        raise RecordingMismatch(f"{agent or 'somebody'} asks what {self.path.name} does not have: {where}")


def _load(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the model's name and the calls of a recording."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        version, model, calls = whole.get("masbook recording"), whole.get("model"), whole.get("calls")
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidRecording(f"{path} cannot be read as a recording: {error}; record it again") from None
    if version != FORMAT:
        raise InvalidRecording(f"{path.name} is of version {version}, this masbook reads {FORMAT}; record it again")
    name = f"replay:{path.stem} (recorded from {model})"
    try:
        for call in calls:
            first = calls[call["request"].pop("form", 0)]["request"]
            call["request"] = {"tools": first["tools"], "outputs": first["outputs"], **call["request"]}
            require.amount("seconds", call["seconds"])
            if not isinstance(call["agent"], str | None):
                raise TypeError(f"{call['agent']!r} is no name of an agent")
            if "error" not in call:
                call["response"] = notation.response(call, name)
            elif call["error"] != "cancelled":
                _problem(call)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise InvalidRecording(f"{path.name} is damaged: {error!r}; record it again") from None
    return name, calls


def _problem(call: dict[str, Any]) -> Exception:
    """Return the error that a call ended with."""
    kind: type[Exception] = getattr(errors, call["error"], errors.ModelUnavailable)
    return kind(call["message"], call["retry_after"]) if kind is ModelRateLimited else kind(call["message"])


def _failure(error: BaseException, model: Model) -> dict[str, Any]:
    if not isinstance(error, Exception):
        return {"error": "cancelled"}
    problem = translated(error, model, 0.0)
    written = {"error": type(problem).__name__, "message": redact(describe(problem))}
    return written | {"retry_after": problem.retry_after} if isinstance(problem, ModelRateLimited) else written


def _asking() -> str | None:
    """Return the name of the agent that asks, if one does."""
    agent = caller.get()
    return None if agent is None else agent.name


def _now() -> float:
    return asyncio.get_running_loop().time()
