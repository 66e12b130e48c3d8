"""Runs: `simulate` runs a scenario, an async function of a world, and returns what happened as a `Run`, plain data.

Sweeps, dashboards and graders call it; they pass runs around, never worlds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import pickle
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ..errors import InvalidValue, MasbookError, NotAsync, Unrecordable, WorldError
from .driver import check_outside
from .faults import FaultPlan
from .message import FrozenDict
from .security import Security
from .trace import Trace
from .world import Schedule, World


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of a scenario gave: plain data, frozen and picklable.

    `result` is what the scenario returned, `error` what it raised, if it did; `time` is how long it lasted in virtual
    seconds, and `digest` the SHA-256 of the trace, equal for equal runs.
    """

    scenario: str
    seed: int | str
    params: Mapping[str, Any]
    result: Any
    error: Exception | None
    time: float
    trace: Trace
    digest: str
    schedule: Schedule = "fifo"
    faults: FaultPlan | None = None

    @property
    def ok(self) -> bool:
        """Whether the scenario ended without an error."""
        return self.error is None

    def __repr__(self) -> str:
        outcome = f"result={self.result!r}" if self.ok else f"error={self.error!r}"
        if crashes := self.trace.count("crashed"):
            outcome += f", crashes={crashes}"
        return f"Run({self.scenario}, seed={self.seed}, {outcome}, time={self.time:g} s, digest={self.digest[:12]})"


def simulate(
    scenario: Callable[..., Coroutine[Any, Any, Any]],
    seed: int | str = 0,
    *,
    faults: FaultPlan | None = None,
    schedule: Schedule = "fifo",
    security: Security | None = None,
    trace: Trace | None = None,
    **params: Any,
) -> Run:
    """Run `scenario(world, **params)` in a world of its own and return the Run; an error in it is part of the Run.

    InvalidValue and NotAsync for what cannot be run at all are raised.
    """
    prepare(scenario, params)
    check_outside()
    world = World(seed, faults=faults, schedule=schedule, security=security, trace=trace)
    result: Any = None
    error: Exception | None = None
    try:
        result = world.run(scenario(world, **params))
    except asyncio.CancelledError:
        error = WorldError("the scenario was cancelled")
    except Exception as raised:
        error = raised
    return conclude(world, scenario, params, result, error)


def conclude(
    world: World, scenario: Callable[..., Any], params: Mapping[str, Any], result: Any, error: Exception | None
) -> Run:
    """Close the world and return what its run gave."""
    lasted = world.now
    try:
        world.close()
    except MasbookError as unfinished:  # what looks back at the end, such as a script of which much is left
        error = error or unfinished
    world.trace.seal()
    plan = None if world.faults is None else world.faults.plan
    if not _is_data(result):
        returned, result = result, None
        hint = "did you forget `await`?" if inspect.isawaitable(returned) else "a run is data; return numbers"
        if inspect.iscoroutine(returned):
            returned.close()  # it is never awaited, and the error says so
        error = error or Unrecordable(f"the scenario returned a {type(returned).__name__}: {hint}")
    return Run(
        name_of(scenario),
        world.seed,
        FrozenDict({name: value if _is_data(value) else name_of(value) for name, value in params.items()}),
        result,
        error and _portable(error),
        lasted,
        world.trace,
        world.trace.digest,
        world.schedule,
        plan if plan is None or _is_data(plan) else dataclasses.replace(plan, only=None),
    )


def name_of(scenario: Any) -> str:
    """Return the name of a scenario: of the function, of that behind a partial, or of the class of the object."""
    scenario = getattr(scenario, "func", scenario)
    return str(getattr(scenario, "__name__", type(scenario).__name__))


def _is_data(value: Any) -> bool:
    """Return whether the value can be pickled."""
    try:
        pickle.dumps(value)
    except Exception:  # whatever a foreign object's own pickling raises
        return False
    return True


def _portable(error: Exception) -> Exception:
    """Return the error without its frames, or a plain one that says the same, if it cannot be pickled."""
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign exception's own pickling raises
        copy = None
    return error if str(copy) == str(error) else MasbookError(f"{type(error).__name__}: {error}")


def prepare(scenario: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Check that `scenario(world, **params)` can be run."""
    name = name_of(scenario)
    if inspect.iscoroutine(scenario):
        scenario.close()
        raise NotAsync(f"the scenario has been called already: give {name} itself, not {name}(...)")
    if not (inspect.iscoroutinefunction(scenario) or inspect.iscoroutinefunction(type(scenario).__call__)):
        raise NotAsync(f"the scenario {name} must be a coroutine function: write `async def {name}(world, ...)`")
    try:
        inspect.signature(scenario).bind(None, **params)
    except TypeError as error:
        raise InvalidValue(f"{name}(world, ...) cannot be called with {dict(params)}: {error}") from error
