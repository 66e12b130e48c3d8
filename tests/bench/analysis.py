"""What an analysis costs: 400 tickets through the panel of four, on the offline model, over the bus, traced."""

from __future__ import annotations

import asyncio
import time

from masbook import World
from masbook.lab import records
from masbook.llm import AnalysisPanel

TICKETS = 400
SECONDS = 10.0  # to stay under, of the thread's processor time


def panel_of_four(count: int = TICKETS, at_once: int = 20) -> float:
    """Return the seconds that the panel takes for so many tickets, some of them at the same time."""
    with World() as world:
        panel = world.spawn(AnalysisPanel("panel", model="offline:fast"))
        tickets = records("tickets.csv")[:count]

        async def work() -> float:
            began = time.thread_time()
            for first in range(0, count, at_once):
                reports = await asyncio.gather(*[panel.analyse(ticket) for ticket in tickets[first : first + at_once]])
                assert all(report.success_rate == 1.0 for report in reports)
            return time.thread_time() - began

        return world.run(work())  # type: ignore[no-any-return]


if __name__ == "__main__":
    found = panel_of_four()
    print(f"{TICKETS} tickets through the panel of four take {found:.1f} s (reach: {SECONDS:g} s).")
    assert found <= SECONDS
