"""The live view: what is going on in a world, ten times a second, drawn in the browser.

A `Picture` follows the trace of one world and makes frames, plain data; `LiveView` is the widget that draws them
(`live_view.js`, loaded inline). The world's thread only appends events to a queue; whoever asks for a frame, on the
kernel's loop, folds them. To draw something else, write another front end for the same frames.
"""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..runtime.agent import Agent
from ..runtime.message import MessageType
from ..runtime.trace import Event
from ..runtime.world import World
from .story import REGISTRY, health

AGENTS, EDGES, FLIGHTS = 400, 300, 40  # how much of each a frame shows
_FLIGHT_STYLES = {
    MessageType.REQUEST: "request",
    MessageType.REPLY: "reply",
    MessageType.PART: "reply",
    MessageType.END: "reply",
    MessageType.ERROR: "error",
    MessageType.TELL: "tell",
    MessageType.CANCEL: "tell",
    MessageType.SYSTEM: "tell",
    MessageType.PUBLISH: "publish",
    MessageType.BROADCAST: "broadcast",
    MessageType.HEARTBEAT: "heartbeat",
}
_ANSWERS = {MessageType.REPLY: "replies", MessageType.END: "replies", MessageType.ERROR: "errors"}


class LiveView(anywidget.AnyWidget):
    """Draws the latest frame of a `Picture`: agents, messages on their way, and metrics."""

    _esm = Path(__file__).with_name("live_view.js")
    _css = Path(__file__).with_name("live_view.css")
    frame = traitlets.Dict().tag(sync=True)


class Picture:
    """What there is to see of a world, folded from its trace; mailboxes and states are read from the agents.

    `frame()` is called from one thread, which need not be the world's.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._events: deque[Event] = deque()
        self._counts: Counter[str] = Counter()
        self._letters: dict[int, tuple[str, str, str, bool]] = {}  # sender, style, topic, whether it has one recipient
        self._asked: dict[int, float] = {}  # when each request that has no answer yet was sent
        self._waited = 0.0
        self._health: dict[str, str | None] = {}
        self._edges: Counter[tuple[str, str]] = Counter()
        self._work: dict[str, dict[int, str]] = {}
        self._flights: dict[tuple[int, str], list[str]] = {}
        self._serial = 0
        world.trace.observe(self._events.append)

    def frame(self) -> dict[str, Any]:
        """Return what has become visible since the last frame, as plain data."""
        while self._events:
            self._fold(self._events.popleft())
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
        count, sent = self._counts, self._counts["sent"] + self._counts["duplicated"]
        names = ("sent", "delivered", "handled", "failed", "dropped", "dead", "timed_out")
        answers = count["replies"] + count["errors"]
        ended = answers + count["timed_out"]
        shares = {
            "mean_latency": self._waited / answers if answers else None,
            "answered": count["replies"] / ended if ended else None,
        }
        in_flight = sent - count["delivered"] - count["dropped"] - count["dead"]
        return {**{name: count[name] for name in names}, "in_flight": in_flight, **shares}

    def _agents(self) -> list[Agent]:
        agents = list(self._world.agents.values())[:AGENTS]
        registry = self._world.registry
        return [*agents, registry] if any(registry.name in pair for pair in self._edges) else agents

    def _agent(self, agent: Agent) -> list[Any]:
        """Return name, state, messages waiting, the topic it works on, and its health where that is not healthy."""
        work = next(iter(self._work.get(agent.name, {}).values()), "")
        found = self._health.get(agent.name)
        return [agent.name, agent.state, len(agent.mailbox), work, "" if found in (None, "healthy") else found]

    def _hubs(self) -> list[str]:
        """Return the one or two agents that talk to more than half of the others, as in `topology`."""
        partners = Counter(name for pair in self._edges if pair[0] != pair[1] for name in pair)
        hubs = [name for name, number in partners.items() if number > len(self._world.agents) / 2]
        return hubs if len(self._world.agents) > 3 and len(hubs) <= 2 else []

    def _fold(self, event: Event) -> None:
        kind, who, facts = event.kind, event.who, event.facts
        if kind == "sent":
            self._fold_sent(event)
            return
        self._counts[kind] += 1
        message = facts.get("message", 0)
        if kind == "delivered" and message in self._letters:
            sender, style, topic, direct = self._letters[message]
            if style not in ("reply", "error"):  # those are handed to whoever waits for them
                self._work.setdefault(who, {})[message] = topic
            if not direct:
                self._fly(message, sender, who, style, topic)
        elif kind in ("dropped", "dead") and message in self._letters:
            sender, _, topic, _ = self._letters[message]
            self._fly(message, sender, who, "lost", topic)
        elif kind in ("handled", "failed", "cancelled"):
            self._work.get(who, {}).pop(message, None)
        elif kind in ("crashed", "stopped"):
            self._work.pop(who, None)
        elif kind == "timed_out":
            self._asked.pop(message, None)
        elif kind in REGISTRY:
            self._health[who] = health(kind, next(iter(facts.values())))

    def _fold_sent(self, event: Event) -> None:
        facts, message = event.facts, event.facts["message"]
        style = _FLIGHT_STYLES[facts["type"]]
        self._counts["sent"] += facts["copies"]
        self._letters[message] = event.who, style, facts["topic"], facts["to"] is not None
        if facts["to"] is not None:
            self._fly(message, event.who, facts["to"], style, facts["topic"])
        if style == "request":
            self._asked[message] = event.time
        elif facts["reply_to"] in self._asked and facts["type"] in _ANSWERS:
            self._counts[_ANSWERS[facts["type"]]] += 1
            self._waited += event.time - self._asked.pop(facts["reply_to"])

    def _fly(self, message: int, sender: str, to: str, style: str, topic: str) -> None:
        pair = min(sender, to), max(sender, to)
        self._edges[pair] += (message, to) not in self._flights
        self._flights[message, to] = [sender, to, style, topic]
