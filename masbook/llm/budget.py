"""Budgets: what ends conversations that would go on for ever.

Every message that an `LLMAgent` answers with its model is entered here. What a message causes shares its budget and is
one hop further; messages told in one conversation share one budget, whoever passes them on. `LLMAgent` asks, and
`ThinkingMember`, which keeps what a task has for those below it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic_ai.usage import RunUsage

from ..runtime.message import Message, MessageType
from ..runtime.worker import Worker, current_worker

if TYPE_CHECKING:
    from ..runtime.agent import Agent
    from ..runtime.world import World

REMEMBERED = 10_000  # messages and conversations; older ones are forgotten
SPANS = 1000  # calls of tools of an agent, outside of any message

_spending: ContextVar[tuple[Budget, Worker | None] | None] = ContextVar("budget and worker of a model", default=None)


@dataclass
class Spent(RunUsage):
    """What has been used of a model; calls that are under way have not been counted yet."""

    under_way: int = 0


@dataclass(slots=True)
class Budget:
    """What a task or conversation has used so far, and how many hops the message in hand is from its first."""

    usage: Spent = field(default_factory=Spent)
    hops: int = 1


@dataclass(slots=True)
class Span:
    """The numbers of the messages that an agent may have sent while it used a tool; it still does if `end` is inf."""

    budget: Budget
    begin: int
    end: float = inf


class Ledger:
    """The budgets of a world, by message and by conversation; `spans` has those of tools that no message asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._budgets: dict[Hashable, Budget] = {}
        self.spans: dict[str, deque[Span]] = {}

    @classmethod
    def of(cls, world: World) -> Ledger:
        """Return the ledger of a world; the first who asks opens it."""
        found: Any = world.named.setdefault(("ledger", "llm"), cls(world))
        return found  # type: ignore[no-any-return]

    def enter(self, message: Message | None, given: Budget | None = None) -> Budget:
        """Return the budget for what a message asks of a model, or, where there is none, what a call does.

        A call from within the work of a model shares the budget of that. Where one is `given`, what the message causes
        shares it.
        """
        if given is not None:
            if message is not None:
                self.keep(message.id, given)
            return given
        if message is None:
            around, worker = _spending.get() or (None, None)
            inside = worker is current_worker.get()  # another one works on a message, whatever woke it
            return Budget(around.usage, around.hops + 1) if around and inside else Budget()
        told = message.type is not MessageType.REQUEST
        known = self._origin(message)
        shared = self._budgets.get(("conversation", message.conversation)) if told else None
        before = known or shared
        budget = Budget() if before is None else Budget(before.usage, 1 + (known.hops if known else 0))
        self.keep(message.id, budget)
        if told and shared is None:
            self.keep(("conversation", message.conversation), budget)
        return budget

    def find(self, key: Hashable) -> Budget | None:
        """Return what was kept under a key, None where nothing was or it is long ago."""
        return self._budgets.get(key)

    def keep(self, key: Hashable, budget: Budget) -> None:
        """Keep a budget under a key: that of a message, a conversation, or a task of a team."""
        self._budgets[key] = budget
        while len(self._budgets) > REMEMBERED:
            del self._budgets[next(iter(self._budgets))]

    def _origin(self, message: Message | None) -> Budget | None:
        """Return the budget of what caused a message, or of what caused that, as far as it is still in hand."""
        while message is not None:
            found = self._budgets.get(message.cause) or self._budgets.get(message.id) or self._in_span(message)
            sender = self._world.bus.agent(message.sender)
            if found is not None or sender is None:
                return found
            message = sender.in_hand(message.cause)
        return None

    def _in_span(self, message: Message) -> Budget | None:
        """Return the budget of the tool that sent a message outside of any other."""
        spans = self.spans.get(message.sender, ()) if message.cause is None else ()
        return next((span.budget for span in reversed(spans) if span.begin <= message.id < span.end), None)


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Let an agent that is asked by a call from within the block, by a tool for example, share the budget."""
    token = _spending.set((budget, current_worker.get()))
    try:
        yield
    finally:
        _spending.reset(token)


@contextmanager
def sharing(agent: Agent) -> Iterator[None]:
    """Let what an agent sends in the block, asked by no message, share the budget that it is spending.

    Where a message is in hand, what is sent has it as its cause, and shares its budget anyway.
    """
    found = _spending.get()
    if found is None or agent.handling() is not None:
        yield
        return
    bus, spans = agent.world.bus, Ledger.of(agent.world).spans.setdefault(agent.name, deque(maxlen=SPANS))
    span = Span(found[0], bus.next_id)
    spans.append(span)
    try:
        yield
    finally:
        span.end = bus.next_id
