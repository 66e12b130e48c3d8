"""Budgets: what ends conversations that would go on for ever.

Every message that an `LLMAgent` answers with its model is entered here. What a message causes shares its budget and is
one hop further; messages told in one conversation share one budget, whoever passes them on. `LLMAgent` asks, and
`ThinkingMember`, which keeps what a task has for those below it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_ai.usage import RunUsage

from ..runtime.message import Message, MessageType

if TYPE_CHECKING:
    from ..runtime.agent import Agent
    from ..runtime.world import World

REMEMBERED = 10_000  # messages and conversations; older ones are forgotten


@dataclass
class Spent(RunUsage):
    """What has been used of a model; calls that are under way have not been counted yet."""

    under_way: int = 0


@dataclass(slots=True)
class Budget:
    """What a task or conversation has used so far, and how many hops the message in hand is from its first."""

    usage: Spent = field(default_factory=Spent)
    hops: int = 1


class Ledger:
    """The budgets of a world, by message and by conversation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._budgets: dict[Hashable, Budget] = {}

    @classmethod
    def of(cls, world: World) -> Ledger:
        """Return the ledger of a world; the first who asks opens it."""
        found: Any = world.named.setdefault(("ledger", "llm"), cls(world))
        return found  # type: ignore[no-any-return]

    def enter(self, message: Message | None, given: Budget | None = None) -> Budget:
        """Return the budget for what a message asks of a model; one of its own where no message does.

        Where it is `given`, what the message causes shares that one.
        """
        if given is not None:
            if message is not None:
                self.keep(message.id, given)
            return given
        if message is None:
            return Budget()
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

    def drop(self, key: Hashable) -> None:
        """Forget a budget."""
        self._budgets.pop(key, None)

    def _origin(self, message: Message | None) -> Budget | None:
        """Return the budget of what caused a message, or of what caused that, as far as it is still in hand."""
        while message is not None:
            found = self._budgets.get(message.cause) or self._budgets.get(message.id)
            sender = self._world.bus.agent(message.sender)
            if found is not None or sender is None:
                return found
            message = sender.in_hand(message.cause)
        return None


@contextmanager
def sharing(agent: Agent, usage: Any) -> Iterator[None]:
    """Let the message that an agent sends at the beginning of the block, asked by no message, share what it has used.

    Where a message is in hand, what is sent has it as its cause, and shares its budget anyway.
    """
    ledger, number = Ledger.of(agent.world), agent.world.bus.next_id
    alone = agent.handling() is None
    if alone:
        ledger.keep(number, Budget(usage))
    try:
        yield
    finally:
        if alone and agent.world.bus.next_id == number:  # it was not sent
            ledger.drop(number)
