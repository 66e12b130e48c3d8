"""Tools for the bus and for shared state: what a model can say to others, hear from them, and keep with them.

Each tool is an ordinary function of the agent that thinks, `ctx.deps`. Scenarios give `bus_tools` to an `LLMAgent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from pydantic import Field, JsonValue
from pydantic_ai import RunContext
from pydantic_ai.toolsets import FunctionToolset

from ...coordination.state import StateStore
from ...errors import InvalidValue, MailboxFull, UnknownRecipient
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.message import Message
from ..agent import LLMAgent

TOPIC = "chat"  # what an LLMAgent answers, and any agent with an `on_message`
PATIENCE = 30.0  # virtual seconds that a message waits for room in a full mailbox
FAR = 20_000  # rows of the trace that are searched for recent messages
REMEMBERED = 10_000  # what was read of shared state; the oldest is forgotten
_MESSAGES = frozenset({"tell", "request", "reply", "error", "publish", "broadcast"})
Context = RunContext[LLMAgent]


def bus_tools(store: StateStore | None = None) -> FunctionToolset[LLMAgent]:
    """Return the tools send_message, broadcast and recent_messages; for a store, read_ and write_shared_state too.

    The agent that thinks is the sender and the author, with its rights. What it has read in a conversation it can only
    overwrite while nobody else has written there since: else it is told of the VersionConflict.
    """
    tools: list[Any] = [send_message, broadcast, recent_messages]
    if store is not None:
        if isinstance(store, Agent) or not isinstance(store, StateStore):
            raise InvalidValue(f"the store is {store!r}: give a store, such as MemoryStore(world)")
        shared = SharedState(store)
        tools += [shared.read_shared_state, shared.write_shared_state]
    return FunctionToolset(tools, instructions=_company)


async def send_message(ctx: Context, recipient: str, text: str) -> str:
    """Send a message to one agent, by its name; an answer comes later, as a message of its own."""
    me = ctx.deps
    if recipient == me.name:
        raise InvalidValue(f"you are {recipient} yourself; send the message to another agent")
    try:
        async with asyncio.timeout(PATIENCE):
            await me.tell(recipient, TOPIC, text=require.text("text", text))
    except TimeoutError:
        raise MailboxFull(f"the mailbox of {recipient} had no room for {PATIENCE:g} s; nothing was sent") from None
    return f"sent to {recipient}"


async def broadcast(ctx: Context, text: str) -> str:
    """Send a message to all other agents at once; nobody has to answer it."""
    others = _others(ctx.deps)
    if not others:
        raise UnknownRecipient(f"nobody but {ctx.deps.name} is there to hear it")
    await ctx.deps.broadcast(TOPIC, text=require.text("text", text))
    return f"sent to {', '.join(others)}"


async def recent_messages(
    ctx: Context, limit: Annotated[int, Field(ge=1, le=100, description="how many at most")] = 10
) -> list[dict[str, Any]]:
    """Return the last messages that you have sent or got, the oldest first."""
    return [_facts(message) for message in islice(_heard(ctx.deps), limit)][::-1]


def _company(ctx: Context) -> str:
    return f"You are {ctx.deps.name}. The other agents are: {', '.join(_others(ctx.deps)) or 'none'}."


def _others(me: Agent) -> list[str]:
    agents = me.world.agents.values()
    return [agent.name for agent in agents if agent.online and not agent.service and agent is not me]


def _heard(me: Agent) -> Iterator[Message]:
    """Yield what an agent has sent or got, the last first; what it says to services, and they to it, is left out."""
    got = set()
    for row in me.world.trace.rows[: -FAR - 1 : -1]:  # a message is delivered after it was sent
        if row[1] == "delivered" and row[2] == me.name:
            got.add(row[3])
        elif isinstance(row, Message) and row.type in _MESSAGES and (row.sender == me.name or row.id in got):
            other = me.world.bus.agent(row.sender if row.to is None or row.sender != me.name else row.to)
            if other is not None and not other.service:
                yield row


def _facts(message: Message) -> dict[str, Any]:
    return {
        "time": message.time,
        "type": str(message.type),
        "from": message.sender,
        "to": "all" if message.to is None else message.to,
        "topic": message.topic,
        "text": message.content.get("text", message.content),
    }


class SharedState:
    """The tools for one store; it remembers which version each agent has read in which conversation."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._read: dict[tuple[str, str | None, str], int] = {}

    async def read_shared_state(self, ctx: Context, key: str) -> dict[str, Any] | str:
        """Return what is stored under a key of the data that all agents share, its version and who wrote it."""
        entry = await self._store.get(key, by=ctx.deps)
        self._remember(ctx, key, 0 if entry is None else entry.version)
        if entry is None:
            keys = await self._store.keys(by=ctx.deps)
            return f"nothing is stored under {key!r}; there is {', '.join(keys[:20]) or 'nothing at all'}"
        return {"value": entry.value, "version": entry.version, "author": entry.author}

    async def write_shared_state(self, ctx: Context, key: str, value: JsonValue) -> str:
        """Set or update a value under a key of the data that all agents share; read it first if it depends on that."""
        known = self._read.get((ctx.deps.name, ctx.conversation_id, key))
        entry = await self._store.set(key, value, by=ctx.deps, expected_version=known)
        self._remember(ctx, key, entry.version)
        return f"written {key!r}, version {entry.version}"

    def _remember(self, ctx: Context, key: str, version: int) -> None:
        place = ctx.deps.name, ctx.conversation_id, key
        self._read.pop(place, None)
        self._read[place] = version
        while len(self._read) > REMEMBERED:
            del self._read[next(iter(self._read))]
