"""Workflows as data: tasks, the order they come in, and what became of them.

`Workflow` refuses what cannot run; the `Orchestrator` runs the rest and returns an `Outcome`. All of
it is plain data that travels in messages, but for conditions, which are functions.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, WithJsonSchema

from ...errors import InvalidInput, InvalidValue, InvalidWorkflow
from ...runtime import require
from ...runtime.message import FrozenDict, FrozenList, freeze

OnFailure = Literal["stop", "continue", "retry"]
Condition = Callable[[Mapping[str, Any]], Any]
_REFERENCE = re.compile(r"\$\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Task:
    """A capability to ask for, once the tasks named in `after` have ended; times in virtual seconds.

    In the inputs, `"${ingest.rows}"` stands for a field of an earlier task's result or a value of the shared context,
    and `"${workflow.id}"` for the running workflow; a task whose id has a dot cannot be referred to. A `condition`, a
    function of the context (`async` or not), decides whether the task runs; if it is skipped so, those behind it go on
    unless they refer to its result. `timeout` is for each attempt, and for a wait for an agent: without one, a task
    waits for ever if nobody comes or its message is lost. The k-th of `retries` comes `backoff * 2 ** (k - 1)` after
    the failure. Ready tasks of higher `priority` go first. `resources` are amounts by name, or names of which one each
    is needed, held while the task runs. `compensation` undoes the task: a capability and its inputs, or a capability
    alone, which gets what it takes of the task's inputs and its `result`.
    """

    id: str
    capability: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    condition: Annotated[Condition | None, WithJsonSchema({"type": "null"})] = None
    timeout: float | None = None
    retries: int = 0
    backoff: float = 1.0
    priority: int = 0
    resources: Annotated[Mapping[str, float], BeforeValidator(amounts)] = field(default_factory=dict)
    compensation: str | tuple[str, Mapping[str, Any] | None] | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name for name in (self.id, self.capability)):
            raise InvalidWorkflow(f"Task({self.id!r}, {self.capability!r}): give two names, as in Task('a', 'read')")
        require.whole("retries", self.retries, least=0)
        require.whole("priority", self.priority, least=None)
        require.not_negative("backoff", self.backoff)
        if self.timeout is not None:
            require.positive("timeout", self.timeout)
        if self.condition is not None and not callable(self.condition):
            raise InvalidValue(f"the condition of {self.id!r} is {self.condition!r}: give a function of the context")
        after = require.names("after", freeze(self.after, f"what {self.id!r} comes after"))
        inputs = _named(f"the inputs of {self.id!r}", self.inputs)
        undo = _compensation(f"the compensation of {self.id!r}", self.compensation)
        _set(self, inputs=inputs, after=FrozenList(after), resources=amounts(self.resources), compensation=undo)


@dataclass(frozen=True, slots=True)
class Workflow:
    """Tasks and the rules for running them; InvalidWorkflow if they cannot be put in an order.

    At most `max_parallel` tasks run at once; `timeout` is for the whole, in virtual seconds. When a task has failed for
    good, `on_failure="stop"` cancels the rest and rolls back, `"continue"` skips what comes after it and runs the rest,
    and `"retry"` is `"stop"` after at least three further attempts. To roll back, also after `cancel` or the time-out,
    is to run the compensations of completed tasks, the last completed first. `context` holds values for all tasks,
    `resources` capacities by name.
    """

    name: str
    tasks: Sequence[Task]
    max_parallel: int = 10
    timeout: float | None = None
    on_failure: OnFailure = "stop"
    context: Mapping[str, Any] = field(default_factory=dict)
    resources: Annotated[Mapping[str, float], BeforeValidator(amounts)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require.text("the name of the workflow", self.name)
        require.whole("max_parallel", self.max_parallel)
        require.one_of("on_failure", self.on_failure, get_args(OnFailure))
        if self.timeout is not None:
            require.positive("timeout", self.timeout)
        context, resources = _named("the context", self.context), amounts(self.resources)
        if "workflow" in context:
            raise InvalidWorkflow("'workflow' in the context: that is the running workflow itself; rename the value")
        _set(self, tasks=listed(self.tasks), context=context, resources=resources)
        check(self.tasks, {}, self.context)


class TaskRecord(NamedTuple):
    """What became of a task; times in virtual seconds, `attempts` as often as an agent was asked."""

    status: str
    agent: str | None = None
    attempts: int = 0
    started: float | None = None
    ended: float | None = None
    error: str | None = None  # why it did not complete
    undone: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a workflow ended, as plain data.

    `status` is `completed` when it ran to its end (with `continue`, tasks may have failed: see `ok`), else `failed`,
    `cancelled` or `timed_out`, and `detail` says why. `results` has the results of completed tasks by id.
    """

    workflow: str
    name: str
    status: str
    results: Mapping[str, Any]
    tasks: Mapping[str, TaskRecord]
    context: Mapping[str, Any]
    started: float
    ended: float
    detail: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every task completed, or was skipped by a condition."""
        return self.status == "completed" and {task.status for task in self.tasks.values()} <= {"completed", "skipped"}

    @property
    def time(self) -> float:
        """How long it took, in virtual seconds."""
        return self.ended - self.started


def references(value: Any) -> Iterator[str]:
    """Yield the paths of all references in inputs."""
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from references(item)


def resolve(value: Any, context: Mapping[str, Any]) -> Any:
    """Return the inputs with references replaced, inside a longer text by text; InvalidInput for what is not there."""
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        return _look_up(whole[1], context) if whole else _REFERENCE.sub(lambda m: str(_look_up(m[1], context)), value)
    if isinstance(value, Mapping):
        return {name: resolve(item, context) for name, item in value.items()}
    return [resolve(item, context) for item in value] if isinstance(value, list) else value


def _look_up(path: str, context: Mapping[str, Any]) -> Any:
    value: Any = context
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            raise InvalidInput(f"${{{path}}}: there is no {step!r}, only {value!r}") from None
    return value


def listed(tasks: Any) -> tuple[Task, ...]:
    """Return the tasks; InvalidWorkflow if that is not what they are."""
    several = tuple(tasks) if isinstance(tasks, Iterable) else (None,)
    if not all(isinstance(task, Task) for task in several):
        raise InvalidWorkflow(f"{tasks!r}: give a list of tasks, such as [Task('ingest', 'process_data')]")
    return several


def check(tasks: Sequence[Task], known: dict[str, Task], context: Mapping[str, Any]) -> None:
    """Raise InvalidWorkflow unless the tasks can follow those that are known."""
    new: dict[str, Task] = {}
    named, shared = ChainMap(new, known), {*context, "workflow"}
    for task in tasks:
        if task.id in named or task.id in shared:
            raise InvalidWorkflow(f"{task.id!r} is the name of another task, or of a value of the context; rename one")
        new[task.id] = task
    for task in tasks:
        for name in task.after:
            if name not in named:
                raise InvalidWorkflow(f"{task.id!r} comes after {name!r}; the tasks there are: {', '.join(named)}")
    _check_order(new)
    for task in tasks:
        undo = task.compensation and task.compensation[1]
        for inputs, own in ((task.inputs, None), (undo, task.id)):  # a task may refer to itself to be undone
            for path in references(inputs):
                name = path.partition(".")[0]
                if name not in named and name not in shared:
                    raise InvalidWorkflow(f"{task.id!r} refers to ${{{path}}}; {name!r} is no task, nor in the context")
                if name in named and name != own and not _follows(task, name, named):
                    raise InvalidWorkflow(f"{task.id!r} refers to ${{{path}}}, but does not come after {name!r}")


def _check_order(tasks: Mapping[str, Task]) -> None:
    """Raise InvalidWorkflow if tasks come after each other in a circle; the message names the path."""
    graph = {task.id: [name for name in task.after if name in tasks] for task in tasks.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle, order = error.args[1][:0:-1], list(tasks)  # each after the next; graphlib has it the other way round
        first = cycle.index(min(cycle, key=order.index))
        path = " -> ".join([*cycle[first:], *cycle[: first + 1]])
        raise InvalidWorkflow(f"{path}: each of these tasks comes after the next, so that none can begin") from None


def _follows(task: Task, other: str, named: Mapping[str, Task]) -> bool:
    """Return whether the task comes after the other, directly or not."""
    above, seen = [*task.after], {task.id}
    while above:
        name = above.pop()
        if name == other:
            return True
        if name not in seen:
            seen.add(name)
            above.extend(named[name].after)
    return False


def _compensation(what: str, value: Any) -> tuple[str, Any] | None:
    """Return a capability and its inputs, which are None if it is to get what it takes."""
    undo = (value, None) if isinstance(value, str) else value
    if undo is None:
        return None
    if not (isinstance(undo, tuple | list) and len(undo) == 2 and isinstance(undo[0], str)):
        raise InvalidValue(f"{what} is {value!r}: give 'undo', or ('undo', {{...}})")
    return undo[0], None if undo[1] is None else _named(what, undo[1])


def _named(what: str, value: Any) -> Any:
    """Return the value frozen; InvalidValue if it has no named fields."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{what} is {value!r}: give named values, such as {{'path': 'orders.csv'}}")
    return freeze(value, what)


def amounts(resources: Any) -> FrozenDict:
    """Return amounts by name, frozen; of resources that are only named, one each."""
    given = freeze(resources, "resources")
    if not isinstance(given, FrozenDict):
        given = FrozenDict(dict.fromkeys(require.names("resources", given), 1.0))
    for name, amount in given.items():
        require.positive(f"the amount of {name!r}", amount)
    return given


def _set(data: Any, **fields: Any) -> None:
    """Set fields of a frozen dataclass while it is made."""
    for name, value in fields.items():
        object.__setattr__(data, name, value)
