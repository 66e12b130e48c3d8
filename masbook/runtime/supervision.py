"""Supervision: what becomes of an agent that crashed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from . import require

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
    _crashes: list[float] = field(default_factory=list)  # when those crashes were that a restart followed

    def __post_init__(self) -> None:
        require.one_of("restart", self.restart, get_args(Restart))
        for name in ("max_restarts", "within", "backoff"):
            require.not_negative(name, getattr(self, name))

    def next_restart(self, now: float) -> tuple[int, float | None]:
        """Return which restart in a row a crash at `now` is due, and its back-off; None if there is to be none."""
        self._crashes = [time for time in self._crashes if time > now - self.within]
        if self.restart == "never" or len(self._crashes) >= self.max_restarts:
            return 0, None
        self._crashes.append(now)
        return len(self._crashes), self.backoff * 2 ** (len(self._crashes) - 1)
