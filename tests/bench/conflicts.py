"""What a conflict costs: 10,000 by each strategy, between three participants who are no agents, so without messages."""

from __future__ import annotations

import time

from masbook import Conflict, ConflictResolver, Participant, World

STRATEGIES = ("voting", "priority", "load_balancing", "consensus", "arbitration")
PER_SECOND = 2000  # to reach, for each strategy


def dispute(number: int) -> Conflict:
    """Three who want a GPU, and would meet in the middle after a few rounds."""
    parties = [
        Participant(f"image_{i}", {"resource": "gpu_1", "hours": 2.0 * i}, i % 2, limits={"hours": 3.0}, load=i / 10)
        for i in range(1, 4)
    ]
    return Conflict("resource_contention", f"case {number}", parties)


def rate(strategy: str, count: int = 10_000) -> float:
    """Return how many conflicts a second of the thread's processor time are resolved, traced."""
    with World() as world:
        resolver = world.spawn(ConflictResolver("resolver"))
        disputes = [dispute(number) for number in range(count)]

        async def work() -> float:
            began = time.thread_time()
            for each in disputes:
                await resolver.resolve(each, [strategy])
            return count / (time.thread_time() - began)

        found: float = world.run(work())
        resolved = world.run(resolver.statistics())["by_outcome"]
        assert resolved == {"resolved": count}, resolved
        return found


if __name__ == "__main__":
    for name in STRATEGIES:
        found = rate(name)
        print(f"10,000 conflicts by {name}: {found:,.0f} a second (reach: {PER_SECOND:,}).", flush=True)
        assert found >= PER_SECOND, name
