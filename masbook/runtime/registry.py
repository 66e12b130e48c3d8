"""The registry: who is there, who can do what, who is well, and who has time.

An agent like any other: every operation is a capability and a method. `world.spawn` enters agents, their heartbeats
keep them; one that promised heartbeats and misses them becomes degraded, then unhealthy, and is removed, until its
next heartbeat brings it back. Announcements are published on `agent.registered`, `agent.unregistered`, `agent.health`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, get_args

from ..errors import InvalidValue, UnknownRecipient
from . import require
from .agent import Agent
from .capability import capability, on
from .message import Message, MessageType, freeze
from .worker import QUERIES

Health = Literal["healthy", "degraded", "unhealthy"]
_RANK = {health: rank for rank, health in enumerate(get_args(Health))}


class Registration(NamedTuple):
    """What the registry knows of an agent; times in virtual seconds, load in messages for each it can work on."""

    name: str
    description: str = ""
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    health: Health = "healthy"
    load: float = 0.0
    registered: float = 0.0
    heartbeat: float | None = None
    last_heartbeat: float = 0.0
    metadata: dict[str, Any] | None = None
    number: int = 0  # order of registration, which breaks ties

    def loaded(self, load: float) -> Registration:
        """Return the same with another load: what changes most, and so without the detour of `_replace`."""
        return tuple.__new__(Registration, (*self[:5], load, *self[6:]))

    def place(self) -> tuple[int, float, int, str]:
        """Return the order of discovery: healthy first, then least loaded, then first come."""
        return _RANK[self.health], self.load, self.number, self.name


class AgentRegistry(Agent):
    """Finds agents by capability, tag, health and load.

    `missed_degraded`, `missed_unhealthy` and `missed_removed` are numbers of heartbeats; an agent whose current
    message takes longer than `stalled_degraded` or `stalled_unhealthy` virtual seconds is not healthy either.
    """

    service = True
    missed_degraded = 2
    missed_unhealthy = 4
    missed_removed = 12
    stalled_degraded = 60.0
    stalled_unhealthy = 600.0

    def __init__(self, name: str = "registry") -> None:
        super().__init__(name, capacity=1_000_000)
        self._entries: dict[str, Registration] = {}
        self._absent: dict[str, Registration] = {}  # removed for silence; the next heartbeat brings them back
        self._by_capability: dict[str, dict[str, None]] = {}
        self._by_tag: dict[str, dict[str, None]] = {}
        self._heaps: dict[str, list[tuple[int, float, int, str]]] = {}
        self._places: dict[str, tuple[int, float, int, str]] = {}  # where each agent stands; other entries are stale
        self._beating: dict[float, dict[str, None]] = {}  # names by interval, longest silent first
        self.stirred: dict[
            str, Agent
        ] = {}  # agents without heartbeats that have had work since they were last looked at
        self._sweeping: set[float] = set()
        self._watchers: dict[Callable[[Registration], None], None] = {}
        self._number = 0

    # Operations

    @capability(cost=0.1)
    async def register(
        self,
        name: str,
        capabilities: list[str] | None = None,
        tags: list[str] | None = None,
        description: str = "",
        heartbeat: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Registration:
        """Enter an agent, or enter it anew; `heartbeat` is the interval it promises, in virtual seconds."""
        if not isinstance(name, str) or not name.strip():
            raise InvalidValue(f"cannot register {name!r}: give the agent's name")
        if heartbeat is not None:
            require.positive("heartbeat", heartbeat)
        offers, labels = require.names("capabilities", capabilities or ()), require.names("tags", tags or ())
        self._remove(name)
        return self._insert(name, description, offers, labels, heartbeat, freeze(metadata or {}))

    @capability(cost=0.1)
    async def unregister(self, name: str) -> bool:
        """Remove an agent; return whether it was there."""
        self._absent.pop(name, None)
        return self._remove(name, "unregistered") is not None

    @capability(cost=0.1)
    async def discover(
        self,
        capabilities: list[str] | tuple[str, ...] = (),
        tags: list[str] | tuple[str, ...] = (),
        min_health: Health = "unhealthy",
        max_load: float = math.inf,
        limit: int | None = None,
    ) -> list[Registration]:
        """Return the agents that have all these capabilities and tags: healthy ones first, then the least loaded."""
        self._look()
        anybody = min_health == "unhealthy" and max_load == math.inf and not tags
        if anybody and limit == 1 and len(capabilities) == 1 and not isinstance(capabilities, str):
            best = self._best(capabilities[0])
            return [] if best is None else [best]
        require.names("capabilities", capabilities)
        require.names("tags", tags)
        require.one_of("min_health", min_health, _RANK)
        require.number("max_load", max_load)
        if limit is not None:
            require.whole("limit", limit)
        rank, entries = _RANK[min_health], self._entries
        pools = [self._by_capability.get(name, {}) for name in capabilities]
        pools += [self._by_tag.get(tag, {}) for tag in tags]
        smallest = min(pools, key=len) if pools else entries
        shared = [entries[name] for name in smallest if all(name in pool for pool in pools)]
        found = [entry for entry in shared if _RANK[entry.health] <= rank and entry.load <= max_load]
        return heapq.nsmallest(limit or len(found), found, key=Registration.place)

    @capability(cost=0.1)
    async def find(self, name: str) -> Registration:
        """Return what is known of an agent; UnknownRecipient if it is not registered."""
        self._look()
        return self._entry(name)

    @capability(cost=0.1)
    async def update(
        self,
        name: str,
        load: float | None = None,
        health: Health | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Change what is known of an agent; UnknownRecipient if it is not registered."""
        entry = self._entry(name)
        if load is not None:
            require.not_negative("load", load)
        if health is not None:
            require.one_of("health", health, _RANK)
        if load is not None:
            self.stirred.pop(name, None)
            entry = entry.loaded(load)
        if metadata:
            entry = entry._replace(metadata=freeze({**(entry.metadata or {}), **metadata}))
        if tags is not None:
            self._index_tags(name, entry.tags, require.names("tags", tags))
            entry = entry._replace(tags=tuple(sorted(tags)))
        self._put(entry)
        if health is not None:
            self._set_health(entry, health, 0)

    @capability(cost=0.1)
    async def statistics(self) -> dict[str, Any]:
        """Return how many agents there are, by health, capability and tag, and their mean load."""
        self._look()
        entries = self._entries.values()
        return {
            "agents": len(entries),
            "health": {health: sum(entry.health == health for entry in entries) for health in _RANK},
            "capabilities": {name: len(pool) for name, pool in sorted(self._by_capability.items()) if pool},
            "tags": {tag: len(pool) for tag, pool in sorted(self._by_tag.items()) if pool},
            "mean_load": sum(entry.load for entry in entries) / len(entries) if entries else 0.0,
        }

    @on("heartbeat")
    async def beat(self, message: Message) -> None:
        """Take in a heartbeat: the agent lives, is this loaded, and has been at one message for so long."""
        if message.type is not MessageType.HEARTBEAT:
            return  # a publication on the same topic
        name = message.sender
        entry = self._entries.get(name) or self._absent.pop(name, None)
        if entry is None:
            return
        load = require.not_negative("load", message.content.get("load", entry.load))
        stalled = require.not_negative("stalled", message.content.get("stalled", 0.0))
        entry = entry._replace(last_heartbeat=self.now, load=load)
        if name in self._entries:
            self._put(entry)
        else:
            entry = self._insert(
                name, entry.description, entry.capabilities, entry.tags, entry.heartbeat, entry.metadata
            )
        if entry.heartbeat is not None:
            beating = self._beating[entry.heartbeat]
            beating[name] = beating.pop(name)  # now the last to be overdue
        self._set_health(entry, self._judge(stalled), 0)

    def watch(self, watcher: Callable[[Registration], None]) -> None:
        """Call `watcher` at once when an agent registers, or is there or well again after a crash or a silence."""
        self._watchers[watcher] = None

    def health_of(self, agent: Agent) -> Health:
        """Return how well an agent is at this moment; one that is not registered is not well, services apart."""
        self._look()
        entry = self._entries.get(agent.name)
        return entry.health if entry is not None else "healthy" if agent.service else "unhealthy"

    # What the world calls

    def admit(self, agent: Agent) -> None:
        """Register an agent that begins to live in this world; of one that lives again, announce that it is well."""
        if agent.service:
            return None
        if agent.name in self._entries:
            self._look()
            return self._tell(self._entries[agent.name])
        offers = [name for name in agent.offers if name not in QUERIES]
        description = (type(agent).__doc__ or "").strip().split("\n", 1)[0]
        self._insert(agent.name, description, offers, agent.tags, agent.heartbeat, None)
        return None

    def forget(self, name: str, reason: str) -> None:
        """Take out an agent that has stopped or crashed for good."""
        self._absent.pop(name, None)
        self._remove(name, reason)

    # Indexes

    def _entry(self, name: str) -> Registration:
        if name not in self._entries:
            raise UnknownRecipient(f"{name!r} is not registered; there are {len(self._entries)} agents, see discover()")
        return self._entries[name]

    def _insert(
        self,
        name: str,
        description: str,
        capabilities: Iterable[str],
        tags: Iterable[str],
        heartbeat: float | None,
        metadata: dict[str, Any] | None,
    ) -> Registration:
        self._number += 1
        offers, labels, now = tuple(capabilities), tuple(sorted(tags)), self.now
        entry = Registration(
            name, description, offers, labels, "healthy", 0.0, now, heartbeat, now, metadata, self._number
        )
        for offer in offers:
            self._by_capability.setdefault(offer, {})[name] = None
        self._index_tags(name, (), labels)
        if heartbeat is not None:
            self._beating.setdefault(heartbeat, {})[name] = None
            self._schedule_sweep(heartbeat)
        self._put(entry)
        self._announce("registered", name, capabilities=list(offers), tags=list(labels))
        self._tell(entry)
        return entry

    def _tell(self, entry: Registration) -> None:
        for watcher in self._watchers:
            watcher(entry)

    def _index_tags(self, name: str, old: Iterable[str], new: Iterable[str]) -> None:
        for tag in old:
            self._by_tag[tag].pop(name, None)
        for tag in new:
            self._by_tag.setdefault(tag, {})[name] = None

    def _remove(self, name: str, reason: str | None = None) -> Registration | None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return None
        del self._places[name]
        for offer in entry.capabilities:
            self._by_capability[offer].pop(name, None)
        self._index_tags(name, entry.tags, ())
        self.stirred.pop(name, None)
        if entry.heartbeat is not None:
            self._beating[entry.heartbeat].pop(name, None)
        if reason is not None:
            self._announce("unregistered", name, reason=reason)
        return entry

    def _announce(self, kind: str, name: str, **facts: Any) -> None:
        self.world.trace.record(kind, name, **facts)
        if self.world.bus.has_audience(f"agent.{kind}"):
            self.world.bus.post(self, MessageType.PUBLISH, None, f"agent.{kind}", {"agent": name, **facts})

    def _put(self, entry: Registration) -> None:
        """Keep what is now known of an agent, and its place in the heaps in use; former places are skipped later."""
        self._entries[entry.name] = entry
        self._places[entry.name] = place = entry.place()
        for offer in entry.capabilities:
            heap = self._heaps.get(offer)
            if heap is not None:
                heapq.heappush(heap, place)
                if len(heap) > 64 + 4 * len(self._by_capability[offer]):
                    del self._heaps[offer]

    def _look(self) -> None:
        """Bring health and load up to now: who has missed heartbeats, and what those without heartbeats have to do."""
        for interval in self._beating:
            self._sweep(interval)
        for name, agent in list(self.stirred.items()):
            entry, load = self._entries.get(name), agent.load
            if entry is not None and entry.load != load:
                entry = entry.loaded(load)
                self._put(entry)
            if entry is not None:
                health: Health = "unhealthy" if agent.state == "error" else self._judge(agent.stalled)
                self._set_health(entry, health, 0)
            if agent.at_rest:
                del self.stirred[name]

    def _best(self, offer: str) -> Registration | None:
        """Return the first agent in the order of discovery that has a capability, in logarithmic time."""
        heap, places = self._heaps.get(offer), self._places
        if heap is None:
            heap = self._heaps[offer] = [places[name] for name in self._by_capability.get(offer, ())]
            heapq.heapify(heap)
        while heap:
            place = heap[0]
            if places.get(place[3]) is place:
                return self._entries[place[3]]
            heapq.heappop(heap)
        return None

    # Health

    def _judge(self, stalled: float) -> Health:
        """Return the health of an agent that has been at one message for that many virtual seconds."""
        if stalled < self.stalled_degraded:
            return "healthy"
        return "degraded" if stalled < self.stalled_unhealthy else "unhealthy"

    def _set_health(self, entry: Registration, health: Health, missed: int) -> None:
        if health == entry.health:
            return
        self._put(entry._replace(health=health))
        self._announce("health", entry.name, health=health, missed=missed)
        if _RANK[health] < _RANK[entry.health]:
            self._tell(self._entries[entry.name])

    def _schedule_sweep(self, interval: float) -> None:
        if interval not in self._sweeping:
            self._sweeping.add(interval)
            self.world.loop.call_later(interval, self._sweep_again, interval)

    def _sweep_again(self, interval: float) -> None:
        self._sweeping.discard(interval)
        self._sweep(interval)
        if self._beating.get(interval):
            self._schedule_sweep(interval)

    def _sweep(self, interval: float) -> None:
        """Judge the agents that promised this interval by the heartbeats they have missed."""
        overdue = []
        for name in self._beating[interval]:  # longest silent first
            entry = self._entries[name]
            missed = math.floor((self.now - entry.last_heartbeat) / interval + 1e-9)
            if missed < self.missed_degraded:
                break
            overdue.append((entry, missed))
        for entry, missed in overdue:
            if missed >= self.missed_removed:
                self._remove(entry.name, "missed heartbeats")
                self._absent[entry.name] = entry
            else:
                health: Health = "degraded" if missed < self.missed_unhealthy else "unhealthy"
                if _RANK[health] > _RANK[entry.health]:
                    self._set_health(entry, health, missed)
