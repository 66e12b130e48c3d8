"""Agents that take part in conflicts: what a resolver asks them, with answers that follow from what they claim.

Subclass `Negotiator` and replace the answers that your agent should decide for itself; any agent with a capability of
that name is asked in the same way. `report_load()`, if there is one, replaces the load that the runtime measures.
"""

from __future__ import annotations

from typing import Any

from ..runtime.agent import Agent
from ..runtime.capability import capability
from .claims import Conflict


class Negotiator(Agent):
    """An agent that votes for what it claims, concedes evenly to its limits, and accepts whatever comes out.

    It is told of the end by a message `conflict.resolved`, whose content is the Resolution as plain data.

        class Stubborn(Negotiator):
            @capability
            async def accept(self, conflict: Conflict, winner: str | None, decision: dict) -> bool:
                return winner == self.name
    """

    @capability
    async def vote(self, conflict: Conflict, options: dict[str, Any]) -> list[str]:
        """Return the options it votes for, the best first; options are claims by who makes them."""
        return conflict.ballot(self.name)

    @capability
    async def concede(self, conflict: Conflict, offers: dict[str, Any], round: int) -> dict[str, Any]:
        """Return what it offers in this round; what it has offered before stays offered."""
        return conflict.party(self.name).offer(round)

    @capability
    async def accept(self, conflict: Conflict, winner: str | None, decision: dict[str, Any]) -> bool:
        """Return whether it accepts what a strategy proposes."""
        return True
