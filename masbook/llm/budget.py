"""Budgets: what ends conversations that would go on for ever.

Every message that an `LLMAgent` answers with its model is entered here. What a message causes shares its budget and is
one hop further; messages told in one conversation share one budget, whoever passes them on. `LLMAgent` asks; nobody
else does.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_ai.usage import RunUsage

from ..runtime.message import Message, MessageType

if TYPE_CHECKING:
    from ..runtime.world import World

REMEMBERED = 10_000  # messages and conversations; older ones are forgotten


@dataclass(slots=True)
class Budget:
    """What a task or conversation has used so far, and how many hops the message in hand is from its first."""

    usage: RunUsage = field(default_factory=RunUsage)
    hops: int = 1


class Ledger:
    """The budgets of a world, by message and by conversation."""

    def __init__(self) -> None:
        self._budgets: dict[Hashable, Budget] = {}

    @classmethod
    def of(cls, world: World) -> Ledger:
        """Return the ledger of a world; the first who asks opens it."""
        found: Any = world.named.setdefault(("ledger", "llm"), cls())
        return found  # type: ignore[no-any-return]

    def enter(self, message: Message | None, given: Budget | None = None) -> Budget:
        """Return the budget for what a message asks of a model; one of its own where no message does.

        Where it is `given`, what the message causes shares that one.
        """
        if given is not None:
            if message is not None:
                self._keep(message.id, given)
            return given
        if message is None:
            return Budget()
        told = message.type is not MessageType.REQUEST
        known = self._budgets.get(message.cause)
        shared = self._budgets.get(("conversation", message.conversation)) if told else None
        before = known or shared
        budget = Budget() if before is None else Budget(before.usage, 1 + (known.hops if known else 0))
        self._keep(message.id, budget)
        if told and shared is None:
            self._keep(("conversation", message.conversation), budget)
        return budget

    def _keep(self, key: Hashable, budget: Budget) -> None:
        self._budgets[key] = budget
        while len(self._budgets) > REMEMBERED:
            del self._budgets[next(iter(self._budgets))]
