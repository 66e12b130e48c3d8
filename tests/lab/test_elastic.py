"""Pools over time: the areas are the tasks, the line the agents."""

from __future__ import annotations

import asyncio

from masbook import Agent, World, capability, simulate
from masbook.lab import charts
from masbook.llm import Pool


class Clerk(Agent):
    """Takes a second for anything."""

    @capability
    async def ask(self, prompt: str) -> str:
        """Return the prompt."""
        await self.sleep(1.0)
        return prompt


async def rush(world):
    pool = world.spawn(Pool("pool", lambda n: Clerk(f"clerk_{n}"), size=1, most=2, cooldown=2.0))
    world.spawn(Pool("other", [Clerk("only")]))
    await pool.batch(["x"] * 5)
    await asyncio.sleep(5.0)


def test_the_line_is_the_size_and_the_areas_are_the_load():
    axes = charts.pool(simulate(rush)).axes[0]
    (line,) = axes.lines
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(0, 1), (0, 2), (4, 1), (8, 1)]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["agents", "at work", "waiting"]
    tops = [max(area.get_paths()[0].vertices[:, 1]) for area in axes.collections]
    assert tops == [2, 5] and axes.get_title("left") == "Size and load of pool"


def test_a_pool_is_chosen_by_name_and_may_have_nothing_to_do():
    assert charts.pool(simulate(rush), "other").axes[0].get_title("left") == "Size and load of other"


def test_no_pool_is_said():
    assert "no such pool" in charts.pool(World(seed=1)).axes[0].texts[0].get_text()
    assert "no such pool" in charts.pool(simulate(rush), "third").axes[0].texts[0].get_text()
