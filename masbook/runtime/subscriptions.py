"""Who listens to what: the index of subscriptions that the bus asks for every publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .capability import Subscription
from .message import Filter, Message, matches

if TYPE_CHECKING:
    from .agent import Agent

CACHED = 4096  # topics whose audience is remembered
Audience = list[tuple["Agent", list[Filter] | None]]


class Subscriptions:
    """Subscriptions by topic. The audience of a topic is worked out once and kept until a subscription changes."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[Agent, list[Filter | None]]] = {}
        self._globs: list[tuple[str, Agent, Filter | None]] = []
        self._listeners: list[tuple[str, Agent, Filter]] = []  # to direct messages between others
        self._audiences: dict[str, Audience] = {}

    def add(self, agent: Agent, subscription: Subscription) -> None:
        """Enter a subscription to a topic or glob."""
        topic, wanted = subscription.topic, subscription.filter
        if any(character in topic for character in "*?["):
            self._globs.append((topic, agent, wanted))
        else:
            self._exact.setdefault(topic, {}).setdefault(agent, []).append(wanted)
        self._audiences.clear()

    def listen(self, agent: Agent, topic: str, wanted: Filter) -> None:
        """Let the agent have copies of direct messages that pass."""
        self._listeners.append((topic, agent, wanted))

    def remove(self, agent: Agent, topic: str | None = None) -> None:
        """Take out the agent's subscriptions: those to exactly that topic or glob, or all."""
        for exact in list(self._exact) if topic is None else [topic]:
            self._exact.get(exact, {}).pop(agent, None)
        self._globs = [entry for entry in self._globs if not _concerns(entry, agent, topic)]
        self._listeners = [entry for entry in self._listeners if not _concerns(entry, agent, topic)]
        self._audiences.clear()

    def audience(self, topic: str) -> Audience:
        """Return the subscribers of a topic, each with the filters of which one must pass; None where none need to."""
        audience = self._audiences.get(topic)
        if audience is None:
            found: dict[Agent, list[Filter | None]] = {}
            for agent, filters in self._exact.get(topic, {}).items():
                found.setdefault(agent, []).extend(filters)
            for pattern, agent, wanted in self._globs:
                if matches(topic, pattern):
                    found.setdefault(agent, []).append(wanted)
            audience = [(agent, _all_needed(filters)) for agent, filters in found.items()]
            if len(self._audiences) > CACHED:
                self._audiences.clear()
            self._audiences[topic] = audience
        return audience

    def listeners(self, message: Message) -> list[Agent]:
        """Return who wants a copy of a direct message between others."""
        return [
            agent
            for topic, agent, wanted in self._listeners
            if matches(message.topic, topic) and wanted.matches(message)
        ]


def _concerns(entry: tuple[str, Agent, Filter | None], agent: Agent, topic: str | None) -> bool:
    return entry[1] is agent and topic in (None, entry[0])


def _all_needed(filters: list[Filter | None]) -> list[Filter] | None:
    needed = [wanted for wanted in filters if wanted is not None]
    return needed if len(needed) == len(filters) else None
