"""Domain events: what happens to tasks, agents, tools and state, told over the bus, as topics: `event.task.completed`.

A domain event is a row of the trace in the words of the domain: `domain_event` translates, an `EventBus` publishes what
it makes of each new row and answers questions about the past, and `emit` publishes events of any type of one's own.
Whoever wants to hear subscribes with `@on("event.task.*")`; a `ReactiveCoordinator` runs reactions and keeps shared
state. To tell other rows, or in other words, give the EventBus another translation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..errors import InvalidValue, Refused, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability, on, require_async
from ..runtime.message import Message, matches
from ..runtime.run import name_of
from ..runtime.supervision import Supervision
from ..runtime.trace import Event
from ..runtime.world import World
from .state import StateStore

TOPIC = "event."
Reaction = Callable[["DomainEvent"], Awaitable[Any]]


class EventType(StrEnum):
    """The types that an EventBus tells by itself; a task may also end as `task.skipped` or `task.cancelled`."""

    TASK_CREATED = "task.created"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    AGENT_JOINED = "agent.joined"
    AGENT_LEFT = "agent.left"
    STATE_CHANGED = "state.changed"
    ERROR_OCCURRED = "error.occurred"
    TOOL_FINISHED = "tool.finished"  # of an agent that thinks; `error` is None where all went well
    RUN_FINISHED = "run.finished"


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """What happened, to or through whom (`source`), when (virtual seconds), and the facts that belong to its type."""

    type: str
    source: str
    time: float
    payload: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def told(cls, time: float, sender: str, topic: str, content: Mapping[str, Any]) -> DomainEvent:
        """Return the event that a publication tells."""
        payload = {key: value for key, value in content.items() if key != "source"}
        return cls(topic.removeprefix(TOPIC), content.get("source", sender), time, payload)


async def emit(agent: Agent, type: str, /, **payload: Any) -> None:
    """Let an agent tell all others of an event, such as `order.paid`; InvalidValue if that is no type."""
    if not isinstance(agent, Agent) or not isinstance(type, str) or not type or any(c in type for c in "*?[ "):
        raise InvalidValue(f"emit({agent!r}, {type!r}): give an agent and the type of an event, such as 'order.paid'")
    if "source" in payload:
        raise InvalidValue(f"the source of an event is who tells it, {agent.name}; call that fact something else")
    await agent.publish(TOPIC + type, payload)
    if isinstance(agent, ReactiveCoordinator):  # a publication does not come back to its publisher
        await agent.tell(agent.name, TOPIC + type, payload)


def domain_event(row: Event) -> DomainEvent | None:
    """Return what a row of the trace means to the domain; None for most rows."""
    facts = row.facts
    if row.kind == "sent":
        told = facts["topic"].startswith(TOPIC) and facts["type"] == "publish" and "source" not in facts["content"]
        return DomainEvent.told(row.time, row.who, facts["topic"], facts["content"]) if told else None
    type = f"task.{facts['status']}" if row.kind == "task_ended" else _TYPES.get(row.kind)
    return None if type is None else DomainEvent(str(type), row.who, row.time, facts)


_TYPES: dict[str, str] = {
    "task_added": EventType.TASK_CREATED,
    "task_started": EventType.TASK_STARTED,
    "registered": EventType.AGENT_JOINED,  # by then it has a mailbox: who is told of it can write to it
    "unregistered": EventType.AGENT_LEFT,
    "stored": EventType.STATE_CHANGED,
    "crashed": EventType.ERROR_OCCURRED,
    "tool_called": EventType.TOOL_FINISHED,
    "run_ended": EventType.RUN_FINISHED,
}


class EventBus(Agent):
    """Publishes the domain events of its world, in the order in which they happened, and knows those of the past."""

    service = True

    def __init__(
        self, name: str = "events", *, translate: Callable[[Event], DomainEvent | None] = domain_event
    ) -> None:
        super().__init__(name)
        self.translate = translate
        self._untold: deque[DomainEvent] = deque()
        self._telling: asyncio.Task[None] | None = None

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world and follow its trace from now on; `world.spawn` calls it."""
        super().enter(world, parent, supervision)
        world.trace.observe(self._notice)

    @capability(cost=0.1)
    async def history(
        self, type: str = "*", source: str = "*", since: float = 0.0, limit: int = 100
    ) -> list[DomainEvent]:
        """Return the last events whose type and source fit a name or glob, oldest first.

        `since` is an instant in virtual seconds; how far back the trace reaches depends on its mode.
        """
        require.not_negative("since", since)
        require.whole("limit", limit)
        events = [self.translate(row) for row in self.world.trace if row.time >= since]
        found = [event for event in events if event and matches(event.type, type) and matches(event.source, source)]
        return found[-limit:]

    def _notice(self, row: Event) -> None:
        """Take note of a new row; it is told in a moment, when whoever has recorded it is done."""
        if row.kind != "sent" and self.online and self.state != "error" and (event := self.translate(row)) is not None:
            self._untold.append(event)
            if self._telling is None or self._telling.done():
                self._telling = self.background(self._tell())

    async def _tell(self) -> None:
        while self._untold:
            event = self._untold.popleft()
            if self.world.bus.has_audience(TOPIC + event.type):
                with suppress(Refused):  # the trace has it
                    await self.publish(TOPIC + event.type, {**event.payload, "source": event.source})


class ReactiveCoordinator(Agent):
    """Runs reactions to domain events, also its own: those to one event beside each other, one event after the other.

    A reaction that fails, or takes longer than `patience` virtual seconds, is a row `reaction_failed` of the trace and
    stops nothing else. With a store it keeps the lists `active_agents` and `completed_tasks` there.

        coordinator = world.spawn(ReactiveCoordinator("coordinator", MemoryStore(world)))
        coordinator.react("task.failed", call_the_boss)
    """

    service = True

    def __init__(self, name: str = "coordinator", store: StateStore | None = None, *, patience: float = 30.0) -> None:
        super().__init__(name)
        self.store, self.patience = store, require.positive("patience", patience)
        self._reactions: list[tuple[str, Reaction]] = []
        if store is not None:
            self.react(EventType.AGENT_JOINED, self._add_agent)
            self.react(EventType.AGENT_LEFT, self._remove_agent)
            self.react(EventType.TASK_COMPLETED, self._add_task)

    def react(self, type: str, reaction: Reaction) -> Callable[[], None]:
        """Call an async function with each event whose type fits a name or glob; return the function that ends it."""
        if not isinstance(type, str) or not type:
            raise InvalidValue(f"react({type!r}, ...): give the type of an event or a glob, such as 'task.*'")
        require_async(reaction, "react")
        entry = (type, reaction)
        self._reactions.append(entry)
        return lambda: self._reactions.remove(entry) if entry in self._reactions else None

    async def on_start(self) -> None:
        """Begin with the agents that are there already."""
        if self.store is not None:
            names = [entry.name for entry in await self.world.registry.discover()]
            await self.store.update("active_agents", lambda _: sorted(names), by=self)

    @on(TOPIC + "*")
    async def hear(self, message: Message) -> None:
        """Run what is to be done about an event."""
        event = DomainEvent.told(message.time, message.sender, message.topic, message.content)
        await asyncio.gather(*[self._run(event, do) for type, do in self._reactions if matches(event.type, type)])

    async def _run(self, event: DomainEvent, reaction: Reaction) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await reaction(event)
        except (Exception, asyncio.CancelledError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the coordinator itself has stopped; otherwise the reaction waited for what was cancelled
            facts = {"event": event.type, "reaction": name_of(reaction)}
            text = f"{type(error).__name__}: {describe(error)}"
            self.world.trace.record("reaction_failed", self.name, **facts, error=text)

    async def _update(self, key: str, change: Callable[[list[str]], list[str]]) -> None:
        """Change a list in the store, with nothing in between: whoever else does so loses nothing."""
        if self.store is not None:
            await self.store.update(key, lambda names: change([*(names or ())]), by=self)

    async def _add_agent(self, event: DomainEvent) -> None:
        await self._update("active_agents", lambda names: sorted({*names, event.source}))

    async def _remove_agent(self, event: DomainEvent) -> None:
        await self._update("active_agents", lambda names: [name for name in names if name != event.source])

    async def _add_task(self, event: DomainEvent) -> None:
        task = "/".join(name for name in (event.payload.get("workflow"), event.payload["task"]) if name)
        await self._update("completed_tasks", lambda names: names if task in names else [*names, task])
