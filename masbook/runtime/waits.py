"""Who waits for whom: requests, locks and barriers are entered here, so that a stuck world can explain itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

On = str | Callable[[], str | None] | None  # a name, or a function that gives the one of the moment


class Wait(NamedTuple):
    """`who` has waited for `what` since the instant `since`; `on` is the agent it depends on, if that is known."""

    who: str
    what: str  # for a request, the capability
    on: On
    since: float
    future: Any = None  # resolved when the wait is over: a future, or the buffer of a stream
    timer: asyncio.Handle | None = None

    def blocker(self) -> str | None:
        """Return the agent it depends on at this moment: locks pass from hand to hand."""
        return self.on() if callable(self.on) else self.on


class Waits(dict[Any, Wait]):
    """All waits of a world, by a key of the waiter's choice."""

    def end(self, key: Any) -> None:
        """Take a wait out: it is over, or given up."""
        wait = self.pop(key)
        if wait.timer is not None:
            wait.timer.cancel()

    def cycle(self) -> list[str]:
        """Return the agents of one cycle of waits, first and last the same; empty where there is none."""
        graph: dict[str, set[str]] = {}
        for wait in self.values():
            graph.setdefault(wait.who, set())
            blocker = wait.blocker()
            if blocker is not None:
                graph[wait.who].add(blocker)
        try:
            TopologicalSorter({who: sorted(graph[who]) for who in sorted(graph)}).prepare()
        except CycleError as error:
            path: list[str] = error.args[1]
            start = path.index(min(path))
            path = [*path[start:-1], *path[:start]]
            return [*path[:1], *path[:0:-1], path[0]]  # graphlib names dependents after what they depend on
        return []

    def explain(self) -> list[str]:
        """Return one line a wait, and the cycle if there is one."""
        lines = [f"{wait.who} waits for {_describe(key, wait)}, since {wait.since:g} s" for key, wait in self.items()]
        cycle = self.cycle()
        return [*lines, "cycle: " + " -> ".join(cycle)] if cycle else lines


def _describe(key: Any, wait: Wait) -> str:
    if isinstance(key, int):
        return f"{wait.on} to answer {wait.what!r} (message {key})"
    blocker = wait.blocker()
    return wait.what + (f", held by {blocker}" if blocker else "")
