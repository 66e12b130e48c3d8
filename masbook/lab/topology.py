"""The topology of a run: who talks to whom, as a graph on a circle."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import networkx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from . import frames, style
from .story import Source

Point = tuple[float, float]
_PLATE = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
_LABEL = 9.0  # points
_BEND = 0.13


def topology(source: Source) -> Figure:
    """Draw who talks to whom: an arrow for each pair, as wide as messages were many; heartbeats are left out.

    Agents stand clockwise in the order of spawning, in the colour of their class; one that talks to more than half of
    the others stands inside.
    """
    graph = _graph(source)
    if not graph:
        return style.blank("Who talks to whom", "nobody was spawned")
    counts = [number for *_, number in graph.edges.data("messages")]
    radius = min(3.0, 1.4 + 0.06 * len(graph))  # inches
    longest = max(style.text_width(name, _LABEL) for name in graph)
    radial = longest > 2 * math.pi * radius / len(graph)
    width, height = radius + longest + 0.5, radius + (longest if radial else 0.0) + 0.5
    with style.drawing(f"Who talks to whom: {sum(counts):,} messages", 2 * width, 2 * height + 0.6) as (chart, axes):
        places = _places(graph)
        edges = [(places[sender], places[to], number) for sender, to, number in graph.edges.data("messages")]
        for start, end, number in edges:
            _draw_edge(axes, start, end, 0.5 + 2.7 * min(1.0, 40 / len(counts)) * number / max(counts))
        _number_edges(axes, [edge for edge in edges if edge[0] != edge[1] and len(edges) <= 20])
        colours = _colours(graph)
        for name, place in places.items():
            _draw_node(axes, name, place, colours.get(graph.nodes[name]["type"], style.GREY), radial)
        if counts:
            note = f"messages on the widest arrow: {max(counts):,}"
            axes.text(1, 0, note, ha="right", color=style.GREY, transform=axes.transAxes)
        axes.set_xlim(-width / radius, width / radius)
        axes.set_ylim(-height / radius, height / radius)
        axes.set_aspect("equal", anchor="NW")
        axes.set_axis_off()
        style.key(axes, style.swatches(colours, list(colours)))
    return chart


def _graph(source: Source) -> Any:
    """Return the directed graph of agents, with the number of copies sent on each edge."""
    graph = networkx.DiGraph()
    for agent in frames.agents(source).itertuples():
        graph.add_node(agent.who, type=agent.type)
    sent = frames.deliveries(source)
    sent = sent[(sent["type"] != "heartbeat") & sent["to"].notna()]
    for (sender, to), number in Counter(zip(sent["sender"], sent["to"], strict=True)).items():
        for name in (sender, to):
            if name not in graph:
                graph.add_node(name, type="world" if name == "world" else "nobody")
        graph.add_edge(sender, to, messages=number)
    return graph


def _colours(graph: Any) -> dict[str, str]:
    """Return a colour for each class of agents, as many as the palette has."""
    types = dict.fromkeys(type for _, type in graph.nodes.data("type"))
    return dict(zip(types, style.PALETTE, strict=False))


def _places(graph: Any) -> dict[str, Point]:
    """Return where each agent stands: on a circle of radius 1, or inside it."""
    partners = {name: {*graph.successors(name), *graph.predecessors(name)} - {name} for name in graph}
    hubs = [name for name in graph if len(graph) > 3 and len(partners[name]) > len(graph) / 2]
    hubs = hubs if len(hubs) <= 3 else []
    inner, outer = networkx.empty_graph(hubs), networkx.empty_graph([name for name in graph if name not in hubs])
    places = {**networkx.circular_layout(inner, scale=0.3), **networkx.circular_layout(outer)}
    # networkx begins at the right and goes counterclockwise; a reader begins at the top and goes clockwise
    return {name: (float(y), float(x)) for name, (x, y) in places.items()}


def _draw_node(axes: Axes, name: str, place: Point, colour: str, radial: bool) -> None:
    """Draw an agent, with its name outside the circle, or below one that stands inside."""
    x, y = place
    axes.plot(x, y, "o", markersize=13, color=colour, markeredgecolor="white", zorder=3)
    look: dict[str, Any] = {"fontsize": _LABEL, "gid": "agent", "zorder": 4}
    left = x < -1e-9
    if math.hypot(x, y) < 0.5:
        axes.text(x, y - 0.1, name, ha="center", va="top", bbox=_PLATE, **look)
    elif radial:
        turn = math.degrees(math.atan2(y, x)) + (180 if left else 0)
        look |= {"rotation": turn, "rotation_mode": "anchor"}
        axes.text(1.1 * x, 1.1 * y, name, ha="right" if left else "left", va="center", **look)
    else:
        side = "center" if abs(x) < 0.2 else "right" if left else "left"
        level = "center" if abs(y) < 0.95 else "bottom" if y > 0 else "top"
        axes.text(1.1 * x, 1.1 * y, name, ha=side, va=level, **look)


def _draw_edge(axes: Axes, start: Point, end: Point, width: float) -> None:
    """Draw a bent arrow, so that the way there and the way back stay apart."""
    head = f"-|>,head_length={3.5 + width},head_width={1.5 + 0.7 * width}"
    look: dict[str, Any] = {"arrowstyle": head, "color": "#A6A6A6", "linewidth": width, "shrinkA": 8, "shrinkB": 9}
    bend = f"arc3,rad={_BEND}"
    if start == end:  # to itself: a loop above the agent
        start, end, bend = (start[0] - 0.07, start[1]), (end[0] + 0.07, end[1]), "arc3,rad=-2"
    axes.add_patch(FancyArrowPatch(start, end, mutation_scale=1, connectionstyle=bend, zorder=1, **look))


def _number_edges(axes: Axes, edges: list[tuple[Point, Point, int]]) -> None:
    """Write how many messages each arrow stands for, on it and away from the other numbers."""
    taken: list[Point] = []
    for start, end, number in edges:
        choices = [_along(start, end, share) for share in (0.4, 0.3, 0.5, 0.22, 0.6, 0.7)]
        place = next((at for at in choices if all(math.dist(at, other) > 0.16 for other in taken)), choices[0])
        taken.append(place)
        axes.text(*place, f"{number:,}", ha="center", va="center", fontsize=8, bbox=_PLATE, zorder=2, gid="number")


def _along(start: Point, end: Point, share: float) -> Point:
    """Return the point at that share of the way along a bent arrow: a quadratic Bezier curve."""
    (x0, y0), (x1, y1) = start, end
    bend = ((x0 + x1) / 2 + _BEND * (y1 - y0), (y0 + y1) / 2 - _BEND * (x1 - x0))
    weights = ((1 - share) ** 2, 2 * share * (1 - share), share**2)
    (x, y) = (sum(w * point[axis] for w, point in zip(weights, (start, bend, end), strict=True)) for axis in (0, 1))
    return x, y
