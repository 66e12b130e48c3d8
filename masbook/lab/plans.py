"""Plans: the tasks of a run over time as a Gantt chart, and as the graph of what comes after what."""

from __future__ import annotations

from itertools import accumulate, chain, pairwise
from typing import Any, Literal

import networkx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InvalidValue
from . import frames, story, style
from .story import Source

_DARK = frozenset({style.GREEN, style.VERMILLION, style.BLUE, style.PURPLE})  # names on these are white
_FEW = 40  # tasks that get a row each
_WIDEST, _GAP = 14.0, 0.5  # inches: of a graph, and between its layers
_SMALLEST = 5.0  # points of a legible name
_CRITICAL: dict[str, Any] = {"color": style.BLACK, "linewidth": 1.8, "zorder": 0.9}
_THIN: dict[str, Any] = {"color": style.GREY, "linewidth": 0.7, "zorder": 0.9}


def gantt(source: Source, by: Literal["task", "agent"] | None = None) -> Figure:
    """Draw when each task waited (pale) and was worked on, in the colour of how that ended; the critical path is black.

    `by` says what has a row of its own: each task, or each agent at work; by default tasks, while they are few.
    InvalidValue for another `by`.
    """
    if by not in (None, "task", "agent"):
        raise InvalidValue(f"by={by!r}; choose 'task' or 'agent', or leave it out")
    tasks, end = _tasks(source), story.read(source)[1]
    if tasks.empty:
        return style.blank("Tasks over time", "no task was added")
    each = by == "task" or (by is None and len(tasks) <= _FEW)
    tasks["last"] = tasks["ended"].fillna(end)
    tasks["until"] = tasks["begun"].fillna(tasks["last"])
    tasks["row"] = tasks["until"].rank(method="first").astype(int) - 1
    tried = frames.attempts(source).merge(tasks[["workflow", "task", "critical", "row"]], on=["workflow", "task"])
    tried = tried.dropna(subset="begun")  # the others never came to the turn
    tried["duration"] = tried["end"].fillna(end) - tried["begun"]
    notes = _task_rows(tasks) if each else _agent_rows(tried, source)
    height, size = style.row_size(len(notes))
    title = f"Tasks over time: {(tasks['status'] == 'completed').sum():,} of {len(tasks):,} completed"
    with style.drawing(title, 9, height * len(notes) + 1.3) as (chart, axes):
        (_wait_each if each else _wait_together)(axes, tasks, len(notes) - 1)
        axes.barh(tried["row"], tried["duration"], 0.72, tried["begun"], **_looks(tried))
        style.label_rows(axes, [label for label, _ in notes], size)
        for row, (_, note) in enumerate(notes):
            if note:
                style.note_row(axes, row, note, size)
        start, stop = tasks["added"].min(), tasks["last"].max()
        axes.set_xlim(start, stop if stop > start else start + 1)
        axes.set_xlabel(style.TIME)
        style.key(axes, [*style.swatches(style.TASKS, [*tried["status"], "waiting"]), *_critical_key(tasks)])
    return chart


def _tasks(source: Source) -> pd.DataFrame:
    """Return the tasks of a run, with a name for each that fits a chart."""
    tasks = frames.tasks(source).drop_duplicates(["workflow", "task"], keep="last", ignore_index=True)
    unique = tasks["task"].is_unique
    names = zip(tasks["workflow"], tasks["task"], strict=True)
    labels = [task if unique else f"{workflow} {task}" for workflow, task in names]
    return tasks.assign(label=[style.shortened(label, 30) for label in labels])


def _task_rows(tasks: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the name of each row and the remark beside it: who worked on the task, or why nobody did."""
    task: Any
    notes = []
    for task in tasks.sort_values("row").itertuples():
        said = ", ".join(task.agents) or f"{task.status}: {'no agent yet' if pd.isna(task.error) else task.error}"
        notes.append((task.label, style.shortened(said, 40)))
    return notes


def _agent_rows(tried: pd.DataFrame, source: Source) -> list[tuple[str, str]]:
    """Give each agent as many rows as it has attempts at a time; return the rows' names and remarks, the queue last."""
    notes: list[tuple[str, str]] = []
    spawned = [*frames.agents(source)["who"], *tried["agent"]]
    for who in dict.fromkeys(name for name in spawned if name in set(tried["agent"])):
        own, free = tried[tried["agent"] == who].sort_values("begun", kind="stable"), list[float]()
        for attempt in own.itertuples():
            lane = next((lane for lane, until in enumerate(free) if until <= attempt.begun), len(free))
            free[lane : lane + 1] = [attempt.begun + attempt.duration]
            tried.loc[attempt.Index, "row"] = len(notes) + lane
        number = own["task"].nunique()
        notes += [(who, f"{number:,} task{'s' * (number != 1)}"), *[("", "")] * (len(free) - 1)]
    return [*notes, ("waiting", "")]


def _wait_each(axes: Axes, tasks: pd.DataFrame, _: int) -> None:
    """Draw from when to when each task was ready and not done, and the links of the critical path."""
    ready = tasks.dropna(subset="ready")
    duration = ready["last"] - ready["ready"]
    axes.barh(ready["row"], duration, 0.36, ready["ready"], color=style.PALE, zorder=0.8)
    for one, other in _links(tasks):
        axes.plot([one.ended, one.ended, other.until], [one.row, other.row, other.row], **_CRITICAL)


def _wait_together(axes: Axes, tasks: pd.DataFrame, row: int) -> None:
    """Draw in the last row how many tasks were ready and not begun."""
    ready = tasks.dropna(subset="ready")
    changes = [pd.Series(0, [0.0]), pd.Series(1, ready["ready"]), pd.Series(-1, ready["until"])]
    waiting = pd.concat(changes).groupby(level=0).sum().cumsum()
    most = waiting.max()
    axes.fill_between(waiting.index, row + 0.4, row + 0.4 - 0.8 * waiting / max(most, 1), step="post", color=style.PALE)
    style.note_row(axes, row, f"at most {most:,}", 8)


def _looks(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the colours of bars by their status, and their edges: black on the critical path."""
    return {
        "color": [style.TASKS.get(status, style.GREY) for status in rows["status"]],
        "edgecolor": [style.BLACK if yes else "white" for yes in rows["critical"]],
        "linewidth": [1.6 if yes else 0.4 for yes in rows["critical"]],
    }


def _critical_key(tasks: pd.DataFrame) -> list[Line2D]:
    return [Line2D([], [], label="critical path", **_CRITICAL)] if tasks["critical"].any() else []


def _links(tasks: pd.DataFrame) -> list[tuple[Any, Any]]:
    """Return the links of the critical paths: pairs of rows, in the order of time."""
    paths = tasks[tasks["critical"]].sort_values("ended", kind="stable").groupby("workflow", dropna=False)
    return [link for _, path in paths for link in pairwise(path.itertuples())]


def dag(source: Source) -> Figure:
    """Draw the graph of the tasks: each stands to the right of what it comes after, in the colour of how it ended.

    The critical path is black. Tasks that are too many to be named are only counted.
    """
    tasks = _tasks(source)
    if tasks.empty:
        return style.blank("What comes after what", "no task was added")
    layers, lines = _layers(tasks)
    most = max(map(len, layers))
    height, size = style.row_size(most)
    widths = [max(style.text_width(tasks["label"].get(node, ""), size) for node in layer) + 0.2 for layer in layers]
    size *= min(1.0, _WIDEST / (sum(widths) + _GAP * len(widths)))
    named = size >= _SMALLEST
    if not named:
        height, widths = 0.1, [0.1] * len(widths)
    lefts = [0.0, *accumulate(width + _GAP for width in widths)]
    places = {node: (lefts[x], y, widths[x]) for x, layer in enumerate(layers) for node, y in layer.items()}
    tasks[["x", "row", "width"]] = [places[node] for node in tasks.index]
    title = "What comes after what" + ("" if named else f": {len(tasks):,} tasks")
    with style.drawing(title, min(_WIDEST, max(lefts[-1], 5.0)), 1.4 * height * most + 0.9) as (chart, axes):
        critical = [(one.Index, other.Index) for one, other in _links(tasks)]
        _draw_lines(axes, [line for edge, line in lines.items() if edge not in critical], places, _THIN)
        _draw_lines(axes, [lines[edge] for edge in critical], places, _CRITICAL)
        axes.barh(tasks["row"], tasks["width"], 0.74, tasks["x"], **_looks(tasks))
        if named:
            _name_boxes(axes, tasks, size)
        axes.set_xlim(-0.05, max(lefts[-1], 5.0))
        axes.set_ylim(most / 2 - 0.45, -most / 2 - 0.55)
        axes.set_axis_off()
        style.key(axes, [*style.swatches(style.TASKS, list(tasks["status"])), *_critical_key(tasks)])
    return chart


def _draw_lines(axes: Axes, lines: list[list[Any]], places: dict[Any, Any], look: dict[str, Any]) -> None:
    """Draw lines from the right end of a box to the left end of another, straight through the stops between."""
    ends = [[((x, y), (x + width, y)) for x, y, width in map(places.__getitem__, line)] for line in lines]
    axes.add_collection(LineCollection([list(chain(*points))[1:-1] for points in ends], **look))


def _name_boxes(axes: Axes, tasks: pd.DataFrame, size: float) -> None:
    task: Any
    for task in tasks.itertuples():
        place = (task.x + task.width / 2, task.row)
        ink = "white" if style.TASKS.get(task.status, style.GREY) in _DARK else style.INK
        axes.text(*place, task.label, ha="center", va="center", fontsize=size, color=ink, gid="task")


def _layers(tasks: pd.DataFrame) -> tuple[list[dict[Any, float]], dict[tuple[int, int], list[Any]]]:
    """Return the rows of the tasks, layer by layer, and for each link of two tasks what its line passes.

    A line has a stop in each layer that it crosses, so that it goes between the boxes. Each task and stop stands near
    those before it, so that few lines cross.
    """
    nodes = {name: node for node, name in enumerate(zip(tasks["workflow"], tasks["task"], strict=True))}
    graph = networkx.empty_graph(len(nodes), networkx.DiGraph)
    for node, workflow, after in zip(tasks.index, tasks["workflow"], tasks["after"], strict=True):
        graph.add_edges_from((nodes[workflow, name], node) for name in after if (workflow, name) in nodes)
    depth = {node: x for x, layer in enumerate(networkx.topological_generations(graph)) for node in layer}
    stops = {(a, b): [a, *((a, x) for x in range(depth[a] + 1, depth[b])), b] for a, b in graph.edges}
    for line in stops.values():
        networkx.add_path(graph, line)
    graph.remove_edges_from([edge for edge, line in stops.items() if len(line) > 2])
    layers: list[dict[Any, float]] = []
    for layer in networkx.topological_generations(graph):
        before = {node: [layers[-1][other] for other in graph.predecessors(node)] for node in layer}
        ordered = sorted(layer, key=lambda node: sum(before[node]) / max(len(before[node]), 1))
        layers.append({node: row - len(layer) / 2 for row, node in enumerate(ordered)})
    return layers, stops
