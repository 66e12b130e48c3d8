"""A small service desk: tickets arrive as in `data/tickets.csv`, a dispatcher routes them, clerks solve them.

The scenario of chapter 00, and the whole kit in small: three kinds of agent, a seam, a scenario. The seam is the
routing rule, a coroutine function that names a clerk for a ticket: write one and hand it to `service_desk`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidValue, MasbookError
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.world import World
from . import frames
from .data import data_path, records

WORK = {"low": 120.0, "medium": 240.0, "high": 480.0}  # mean virtual seconds of work, by complexity
UNFAMILIAR = 2.0  # how many times longer a clerk takes for a subject that is not among its skills
URGENCY = {"low": -1, "normal": 0, "high": 1}
ROSTER = (  # name, speed, skills: the categories of tickets that the clerk knows
    ("Ada", 1.2, ("technical",)),
    ("Ben", 0.9, ("delivery", "sales")),
    ("Chen", 1.0, ("account", "billing")),
    ("Dora", 0.8, ("technical",)),
    ("Emil", 1.3, ("billing", "delivery")),
    ("Fatou", 1.0, ("account", "technical")),
    ("Goran", 0.7, ("delivery", "sales")),
    ("Hana", 1.1, ("billing", "technical")),
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a customer wants to know, as far as the desk needs it."""

    id: str
    category: str
    priority: Literal["low", "normal", "high"]
    complexity: Literal["low", "medium", "high"]


class Clerk(Agent):
    """Solves one ticket at a time, the most urgent first."""

    def __init__(self, name: str, speed: float, skills: Iterable[str]) -> None:
        super().__init__(name, tags=skills)
        self.speed = speed

    @capability
    async def solve(self, ticket: Ticket) -> str:
        """Work on the ticket and return who solved it."""
        luck = self.world.random(ticket.id).uniform(0.5, 1.5)  # the ticket's own luck, whoever takes it
        work = WORK[ticket.complexity] * luck / self.speed
        await self.sleep(work if ticket.category in self.tags else UNFAMILIAR * work)
        return self.name


class Dispatcher(Agent):
    """Hands each ticket to the clerk that its routing rule names, and the answer back.

    `skills` are those of each clerk by name, `open` the number of tickets a clerk has been given and not answered yet,
    `turn` the names in turn, for ever.
    """

    def __init__(self, name: str, clerks: Iterable[Clerk], routing: Routing) -> None:
        super().__init__(name, concurrency=1000)  # it only waits for others
        self.skills = {clerk.name: clerk.tags for clerk in clerks}
        self.open = dict.fromkeys(self.skills, 0)
        self.turn = cycle(self.skills)
        self.routing = routing

    def shortest(self, names: Iterable[str]) -> str:
        """Return which of these clerks has the fewest open tickets; the first of them where several have."""
        return min(names, key=lambda name: self.open[name])

    @capability
    async def answer(self, ticket: Ticket) -> str:
        """Return who solved the ticket."""
        clerk = await self.routing(self, ticket)
        options: dict[str, Any] = {"priority": URGENCY[ticket.priority], "timeout": None, "on_timeout": "cancel"}
        self.open[clerk] += 1
        try:
            solver: str = await self.request(clerk, "solve", ticket=ticket, **options)
        finally:
            self.open[clerk] -= 1
        return solver


class Channel(Agent):
    """Brings what customers ask on one channel, such as chat, to the dispatcher."""

    async def ask(self, ticket: Ticket, patience: float) -> None:
        """Wait for the answer, and give up after `patience` virtual seconds."""
        with suppress(MasbookError):  # the trace says what became of the request; the next customer must not suffer
            await self.request("dispatcher", "answer", ticket=ticket, timeout=patience, on_timeout="cancel")


Routing = Callable[[Dispatcher, Ticket], Awaitable[str]]


async def in_turn(desk: Dispatcher, ticket: Ticket) -> str:
    """Name the clerks in turn."""
    return next(desk.turn)


async def shortest_queue(desk: Dispatcher, ticket: Ticket) -> str:
    """Name the clerk with the fewest open tickets."""
    return desk.shortest(desk.open)


async def by_skill(desk: Dispatcher, ticket: Ticket) -> str:
    """Name the clerk with the fewest open tickets among those who know the subject, or among all if none does."""
    able = [clerk for clerk, skills in desk.skills.items() if ticket.category in skills]
    return desk.shortest(able or desk.open)


ROUTING: dict[str, Routing] = {rule.__name__: rule for rule in (in_turn, shortest_queue, by_skill)}


async def service_desk(
    world: World,
    clerks: int = 6,
    patience: float = 900.0,
    routing: str | Routing = "shortest_queue",
    hours: float = 2.0,
) -> dict[str, Any]:
    """Play the first hours of the day; customers wait `patience` virtual seconds, and then give up.

    `clerks` are the first of ROSTER, `routing` is a name of ROUTING or a rule of your own. Returns the number of
    tickets, the share answered in time, and the mean virtual seconds that those customers waited. InvalidValue for an
    unknown rule or too many clerks.
    """
    desk = _open_desk(world, clerks, routing)
    rows = [row for row in _tickets(data_path("tickets.csv")) if row["arrival"] < 3600 * hours]
    channels = {name: world.spawn(Channel(name)) for name in sorted({row["channel"] for row in rows})}
    async with asyncio.TaskGroup() as customers:
        for row in rows:
            await desk.sleep(row["arrival"] - world.now)
            ticket = Ticket(row["id"], row["category"], row["priority"], row["complexity"])
            customers.create_task(channels[row["channel"]].ask(ticket, patience))
    return _summary(world)


@cache  # reading the file takes as long as the whole day
def _tickets(path: Path) -> list[dict[str, Any]]:
    return records(path)


def _open_desk(world: World, clerks: int, routing: str | Routing) -> Dispatcher:
    """Bring the dispatcher and the clerks to life."""
    if not 1 <= clerks <= len(ROSTER):
        raise InvalidValue(f"clerks={clerks!r}; the roster has 1 to {len(ROSTER)}")
    rule = ROUTING.get(routing) if isinstance(routing, str) else routing
    if rule is None:
        raise InvalidValue(f"routing={routing!r}; choose one of {', '.join(ROUTING)}, or give a rule of your own")
    team = [Clerk(*entry) for entry in ROSTER[:clerks]]
    desk = Dispatcher("dispatcher", team, rule)
    for agent in (desk, *team):
        world.spawn(agent)
    return desk


def _summary(world: World) -> dict[str, Any]:
    """Return what the trace says of the customers' requests."""
    asked = frames.requests(world).query("capability == 'answer'")
    answered = asked[asked["outcome"] == "reply"]
    share = len(answered) / len(asked) if len(asked) else float("nan")
    return {"tickets": len(asked), "in_time": round(share, 3), "waited": round(float(answered["latency"].mean()), 1)}
