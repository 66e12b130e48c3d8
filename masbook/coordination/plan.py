"""Workflows as data: tasks, the order they come in, and what became of them.

`Workflow` refuses what cannot run before anything runs; the `Orchestrator` in `workflow.py` runs the rest and returns
an `Outcome`. All of it is plain data, so that it travels in messages; only a condition, which is a function, does not.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import WithJsonSchema

from ..errors import InvalidInput, InvalidWorkflow, TaskFailed
from ..runtime import require
from ..runtime.message import FrozenDict, freeze

OnFailure = Literal["stop", "continue", "retry"]
Condition = Callable[[Mapping[str, Any]], Any]
_REFERENCE = re.compile(r"\$\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Compensation:
    """What undoes a task: a capability, and inputs that may refer to the task and to those before it."""

    capability: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", freeze(self.inputs, "the inputs of a compensation"))


@dataclass(frozen=True, slots=True)
class Task:
    """A capability to ask for, once the tasks named in `after` have ended.

    An input `"${ingest.rows}"` is replaced by a field of an earlier task's result (inside a longer text, by its text),
    or by the value of that name in the shared context; `"${workflow.id}"` is the running workflow's own id.
    `condition`, a function of the context (`async` or not), decides whether the task runs: a task skipped by its own
    condition does not hold up those behind it, unless they refer to its result. `timeout` bounds each attempt and each
    wait for an agent; the k-th of `retries` follows `backoff * 2 ** (k - 1)` virtual seconds after the failure.
    Ready tasks of higher `priority` go first. `resources` are amounts by name, had all at once for as long as the task
    runs. `compensation` undoes the task on rollback; a mere name is called with the task's result as `result`.
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
    resources: Mapping[str, float] = field(default_factory=dict)
    compensation: Compensation | str | None = None

    def __post_init__(self) -> None:
        require.names("id and capability", (self.id, self.capability))
        require.whole("retries", self.retries, least=0)
        require.not_negative("backoff", self.backoff)
        require.number("priority", self.priority)
        if self.timeout is not None:
            require.positive("timeout", self.timeout)
        for name, amount in self.resources.items():
            require.positive(f"the amount of {name!r}", amount)
        undo = self.compensation
        if isinstance(undo, str):
            undo = Compensation(undo, {"result": f"${{{self.id}}}"})
        for name, value in (
            ("inputs", freeze(self.inputs, f"the inputs of {self.id}")),
            ("after", require.names("after", self.after)),
            ("resources", FrozenDict(self.resources)),
            ("compensation", undo),
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Workflow:
    """Tasks and the rules for running them.

    At most `max_parallel` tasks run at once; `timeout` is for the whole, in virtual seconds. When a task has failed for
    good, `on_failure="stop"` cancels the rest and rolls back; `"continue"` skips what depends on it and runs the rest;
    `"retry"` is `"stop"` after at least three further attempts. Rollback, also after a cancellation or the time-out,
    runs the compensations of finished tasks, the last finished first. `context` is shared by all tasks; `resources`
    are capacities by name.
    """

    name: str
    tasks: Sequence[Task]
    max_parallel: int = 10
    timeout: float | None = None
    on_failure: OnFailure = "stop"
    context: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require.names("name", (self.name,))
        require.whole("max_parallel", self.max_parallel)
        require.one_of("on_failure", self.on_failure, get_args(OnFailure))
        if self.timeout is not None:
            require.positive("timeout", self.timeout)
        for name, capacity in self.resources.items():
            require.positive(f"the capacity of {name!r}", capacity)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "context", freeze(self.context, "context"))
        object.__setattr__(self, "resources", FrozenDict(self.resources))
        check(self.tasks, {}, self.context)


class TaskOutcome(NamedTuple):
    """What became of one task; times in virtual seconds."""

    status: str
    agent: str | None = None
    attempts: int = 0
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    undone: bool | None = None


class TaskOutcomes(FrozenDict):
    """The outcomes of tasks by id."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskOutcomes, (dict(self),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a workflow ended: plain, frozen data.

    `status` is `completed` when it ran to its end (with `continue`, tasks may have failed: see `ok`), else `failed`,
    `cancelled` or `timed_out`, and `detail` says why. `results` has the results of completed tasks by id.
    """

    workflow: str
    name: str
    status: str
    results: Mapping[str, Any]
    tasks: Mapping[str, TaskOutcome]
    context: Mapping[str, Any]
    started: float
    ended: float
    detail: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", TaskOutcomes(self.tasks))

    @property
    def ok(self) -> bool:
        """Whether every task completed, or was skipped by its own condition."""
        return self.status == "completed" and all(task.error is None for task in self.tasks.values())

    @property
    def time(self) -> float:
        """How long it took, in virtual seconds."""
        return self.ended - self.started

    def raise_for_status(self) -> Outcome:
        """Return the outcome if it is `ok`; TaskFailed, saying what went wrong, if not."""
        if self.ok:
            return self
        wrong = "; ".join(f"{name}: {task.error}" for name, task in self.tasks.items() if task.error is not None)
        raise TaskFailed(f"{self.workflow} ({self.name}) {self.status}: {wrong or self.detail}")


def references(value: Any) -> Iterator[str]:
    """Yield the paths of all references in the inputs of a task."""
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from references(item)


def resolve(value: Any, context: Mapping[str, Any]) -> Any:
    """Return the inputs with all references replaced; InvalidInput for a field that is not there."""
    if isinstance(value, str):
        if (whole := _REFERENCE.fullmatch(value)) is not None:
            return _look_up(whole[1], context)
        return _REFERENCE.sub(lambda found: str(_look_up(found[1], context)), value)
    if isinstance(value, Mapping):
        return {name: resolve(item, context) for name, item in value.items()}
    return [resolve(item, context) for item in value] if isinstance(value, list) else value


def root(path: str, names: Any) -> str | None:
    """Return which of the names a reference begins with: the longest, for names may have dots."""
    steps = path.split(".")
    heads = (".".join(steps[:length]) for length in range(len(steps), 0, -1))
    return next((head for head in heads if head in names), None)


def _look_up(path: str, context: Mapping[str, Any]) -> Any:
    name = root(path, context)
    if name is None:
        raise InvalidInput(f"${{{path}}}: that task has no result")
    value = context[name]
    for step in filter(None, path[len(name) + 1 :].split(".")):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            has = ", ".join(value) if isinstance(value, Mapping) else repr(value)
            raise InvalidInput(f"${{{path}}}: there is no {step!r} in it, only {has}") from None
    return value


def check(tasks: Sequence[Task], known: dict[str, Task], context: Iterable[str]) -> None:
    """Raise InvalidWorkflow unless the tasks can follow those that are known; `context` names what it holds."""
    shared = {*context, "workflow"}
    new: dict[str, Task] = {}
    named = ChainMap(new, known)
    for task in tasks:
        if not isinstance(task, Task):
            raise InvalidWorkflow(f"{task!r} is no Task; write Task('ingest', 'process_data')")
        if task.id in named or task.id in shared:
            raise InvalidWorkflow(f"{task.id!r} is already a task, or a name in the context: give each its own")
        new[task.id] = task
    for task in tasks:
        for name in task.after:
            if name not in named:
                raise InvalidWorkflow(
                    f"{task.id!r} comes after {name!r}, which is no task; there are {', '.join(named)}"
                )
    order = ordered(tasks)
    distant = [reference for task in tasks for reference in _distant(task, named, shared)]
    if distant:
        before, number = _before(ordered(list(named.values())) if known else order, named)
        for task_id, name, path in distant:
            if not before[task_id] >> number[name] & 1:
                raise InvalidWorkflow(f"{task_id!r} refers to ${{{path}}}, but does not come after {name!r}")


def ordered(tasks: Sequence[Task]) -> list[str]:
    """Return the ids in an order in which the tasks can run; InvalidWorkflow names a cycle of tasks that cannot."""
    number = {task.id: i for i, task in enumerate(tasks)}
    graph = {task.id: [name for name in task.after if name in number] for task in tasks}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = error.args[1][:0:-1]  # each waits for the next; graphlib has it the other way round
        first = cycle.index(min(cycle, key=number.__getitem__))
        path = " -> ".join([*cycle[first:], *cycle[: first + 1]])
        raise InvalidWorkflow(f"{path}: each of these tasks comes after the next, so that none can begin") from None


def _distant(task: Task, named: Mapping[str, Task], shared: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the references that are neither to the context nor to a task named in `after`: by whom, to whom, path."""
    undo = () if task.compensation is None else references(task.compensation.inputs)
    for path, near in (*((path, ()) for path in references(task.inputs)), *((path, (task.id,)) for path in undo)):
        name = root(path, named) or root(path, shared)
        if name is None:
            raise InvalidWorkflow(f"{task.id!r} refers to ${{{path}}}: there is no such task, nor is it in the context")
        if name not in shared and name not in task.after and name not in near:
            yield task.id, name, path


def _before(order: Iterable[str], named: Mapping[str, Task]) -> tuple[dict[str, int], dict[str, int]]:
    """Return for each task those before it, as the bits of a whole number, and which bit is whose."""
    number = {name: i for i, name in enumerate(named)}
    before: dict[str, int] = {}
    for name in order:
        before[name] = 0
        for other in named[name].after:
            before[name] |= before[other] | 1 << number[other]
    return before, number
