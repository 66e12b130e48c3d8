"""Workers: agents that reject what they have no hands for, so that whoever asks can turn to another.

A `Coordinator` gives them parts of its tasks; anybody else may ask them too. To have requests wait instead, use a plain
`Agent`.
"""

from __future__ import annotations

from ...errors import WorkerBusy
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import Message


class Worker(Agent):
    """An agent that rejects requests for which it has no hands, with WorkerBusy, instead of letting them wait.

    It has one pair of hands, or as many as its `concurrency` says; its work are its capabilities.

        class Adder(Worker):
            @capability
            async def add(self, a: float, b: float) -> float:
                return a + b
    """

    _accepted = 0  # the last request taken: a network may deliver it twice

    @capability(cost=0.0)
    async def when_free(self) -> None:
        """Return once there is a free pair of hands."""

    def answers_at_once(self, message: Message) -> bool:
        """Reject a request if the hands are full; the bus asks before it puts one into the mailbox."""
        if super().answers_at_once(message):
            return True
        if message.to != self.name or message.topic == "when_free":
            return False
        if message.id == self._accepted:
            self.world.trace.record("dead", self.name, message=message.id, reason="duplicate")
        elif not self.responsive or self.load < 1:
            self._accepted = message.id
            return False
        else:
            error = WorkerBusy(f"{self.name} has its hands full; ask another, or ask it 'when_free'")
            self.world.trace.record("delivered", self.name, message=message.id)
            self.world.trace.record("failed", self.name, message=message.id, error=f"WorkerBusy: {error}")
            self.world.bus.requests.answer_error(self, message, error)
        return True
