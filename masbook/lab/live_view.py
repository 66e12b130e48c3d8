"""The live view: what is going on in a world, ten times a second, drawn in the browser.

A `Picture` follows the story of one world and makes frames, plain data; `LiveView` is the widget that draws them
(`live_view.js`, loaded inline). The world's thread only appends rows to its trace; whoever asks for a frame, on the
kernel's loop, reads those that are new. To draw something else, write another front end for the same frames.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..runtime.agent import Agent
from ..runtime.world import World
from .story import SENT, Row, Story

AGENTS, EDGES, FLIGHTS = 400, 300, 40  # how much of each a frame shows
_STYLES = {
    "part": "reply",
    "end": "reply",
    "cancel": "tell",
    "system": "tell",
}  # other messages are drawn as their type
_TO, _TYPE, _TOPIC = SENT["to"], SENT["type"], SENT["topic"]


class LiveView(anywidget.AnyWidget):
    """Draws the latest frame of a `Picture`: agents, messages on their way, and metrics."""

    _esm = Path(__file__).with_name("live_view.js")
    _css = Path(__file__).with_name("live_view.css")
    frame = traitlets.Dict().tag(sync=True)


class Picture:
    """What there is to see of a world, told from its trace; mailboxes and states are read from the agents.

    `frame()` is called from one thread, which need not be the world's. The trace must keep every row.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._story = Story()
        self._read = 0  # rows of the trace
        self._counts: Counter[str] = Counter()
        self._edges: Counter[tuple[str, str]] = Counter()
        self._flights: dict[tuple[int, str], list[str]] = {}
        self._serial = 0

    def frame(self) -> dict[str, Any]:
        """Return what has become visible since the last frame, as plain data."""
        rows = self._world.trace.rows[self._read :]
        self._read += len(rows)
        for row in rows:
            self._take(row)
        agents = self._agents()
        places = {agent.name: i for i, agent in enumerate(agents)}
        flights = [flight for flight in self._flights.values() if flight[0] in places and flight[1] in places]
        self._flights.clear()
        self._serial += bool(flights)
        edges = [(pair, count) for pair, count in self._edges.most_common(EDGES) if places.keys() >= {*pair}]
        return {
            "time": self._world.now,
            "agents": [self._agent(agent) for agent in agents],
            "edges": [[places[a], places[b], count] for (a, b), count in edges],
            "hubs": [places[name] for name in self._hubs() if name in places],
            "flights": [[places[a], places[b], style, topic] for a, b, style, topic in flights[-FLIGHTS:]],
            "serial": self._serial,
            "metrics": self.metrics(),
        }

    def metrics(self) -> dict[str, float | None]:
        """Return the counts so far, in messages, one for each recipient, and two numbers about requests.

        `mean_latency` is in virtual seconds from request to answer; `answered` is the share of the requests that have
        ended (answered, with an error or not, or timed out) that got what they asked for. None where none has ended.
        """
        count, outcomes = self._counts, self._story.outcomes
        answers = outcomes["reply"] + outcomes["error"]
        ended = answers + outcomes["timed_out"]
        names = ("sent", "delivered", "handled", "failed", "dropped", "dead", "timed_out")
        return {
            **{name: count[name] for name in names},
            "in_flight": count["sent"] + count["duplicated"] - count["delivered"] - count["dropped"] - count["dead"],
            "mean_latency": self._story.waited / answers if answers else None,
            "answered": outcomes["reply"] / ended if ended else None,
        }

    def _agents(self) -> list[Agent]:
        agents = list(self._world.agents.values())[:AGENTS]
        registry = self._world.registry
        return [*agents, registry] if any(registry.name in pair for pair in self._edges) else agents

    def _agent(self, agent: Agent) -> list[Any]:
        """Return name, state, messages waiting, the topic it works on, and its health where that is not healthy."""
        life, health = self._story.lives.get(agent.name), self._story.health.get(agent.name, [(None, 0.0)])[-1][0]
        work = self._story.letters[life.in_hand[0]].row[_TOPIC] if life is not None and life.in_hand else ""
        return [agent.name, agent.state, len(agent.mailbox), work, "" if health in (None, "healthy") else health]

    def _hubs(self) -> list[str]:
        """Return the one or two agents that talk to more than half of the others, as in `topology`."""
        partners = Counter(name for pair in self._edges if pair[0] != pair[1] for name in pair)
        hubs = [name for name, number in partners.items() if number > len(self._world.agents) / 2]
        return hubs if len(self._world.agents) > 3 and len(hubs) <= 2 else []

    def _take(self, row: Row) -> None:
        """Go on with the next row: count it, and let what it says fly."""
        self._story.take(row)
        _, kind, who, *facts = row
        self._counts[kind] += row[SENT["copies"]] if kind == "sent" else 1
        if kind == "sent" and row[_TO] is not None:
            self._fly(row, row[_TO])
        elif kind in ("delivered", "dropped", "dead") and (letter := self._story.letters.get(facts[0])) is not None:
            if kind != "delivered":
                self._fly(letter.row, who, "lost")
            elif letter.row[_TO] is None:
                self._fly(letter.row, who)

    def _fly(self, sent: Row, to: str, style: str | None = None) -> None:
        """Show a copy of a message on its way, in the style of its type, or as lost."""
        sender, message, type = sent[2], sent[SENT["message"]], sent[_TYPE]
        self._edges[min(sender, to), max(sender, to)] += (message, to) not in self._flights
        self._flights[message, to] = [sender, to, style or _STYLES.get(type, str(type)), sent[_TOPIC]]
