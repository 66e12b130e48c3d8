"""Supervision: what becomes of an agent that crashed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import InvalidValue

if TYPE_CHECKING:
    from .agent import Agent

Restart = Literal["never", "on_crash", "always"]


@dataclass(slots=True)
class Supervision:
    """Restart a crashed agent, at most `max_restarts` times within `within` virtual seconds; then escalate.

    The k-th restart in a row comes after `backoff * 2 ** (k - 1)` virtual seconds. `always` also restarts an agent
    that stops itself; one that others stop stays stopped.
    """

    restart: Restart = "never"
    max_restarts: int = 3
    within: float = 60.0
    backoff: float = 0.1
    _restarts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.restart not in get_args(Restart):
            raise InvalidValue(f"restart={self.restart!r}; choose one of {', '.join(get_args(Restart))}")
        for name in ("max_restarts", "within", "backoff"):
            if not getattr(self, name) >= 0:
                raise InvalidValue(f"{name}={getattr(self, name)!r}: give 0 or more")

    def schedule(self, agent: Agent, restart: Callable[[int, float], None]) -> bool:
        """Schedule the restart and return True, or return False where there is to be none."""
        now = agent.now
        self._restarts = [time for time in self._restarts if time > now - self.within]
        if self.restart == "never" or len(self._restarts) >= self.max_restarts:
            return False
        self._restarts.append(now)
        attempt = len(self._restarts)
        delay = self.backoff * 2 ** (attempt - 1)
        agent.world.loop.call_later(delay, restart, attempt, delay)
        return True
