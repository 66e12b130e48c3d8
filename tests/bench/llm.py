"""How many calls of the offline model an agent answers over the bus, traced, in a second; `run.py` prints it.

The reference is a bare pydantic-ai agent that calls a function: what an answer costs before masbook adds anything.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent as Thinker
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from masbook import Agent, World
from masbook.llm import LLMAgent

PER_SECOND = 250  # at the least
PROMPT = "The mail server has been down since noon. All twelve of us cannot work, and a customer waits for an offer."


class Risk(BaseModel):
    level: Literal["low", "medium", "high"]
    reasons: list[str]


def offline(count: int = 500) -> float:
    """Seconds an answer takes, from the request on the bus to its reply."""
    world = World()
    world.spawn(LLMAgent("analyst", "You judge risks.", output_type=Risk, model="offline:balanced"))
    client = world.spawn(Agent("client"))

    async def main() -> float:
        await client.request("analyst", "ask", prompt=PROMPT)
        began = time.thread_time()
        for _ in range(count):
            await client.request("analyst", "ask", prompt=PROMPT)
        return (time.thread_time() - began) / count

    try:
        return world.run(main())
    finally:
        assert world.trace.count("model_called") == count + 1
        world.close()


def bare(count: int = 500) -> float:
    """Seconds an answer of pydantic-ai alone takes."""

    async def think(messages: list[object], info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"level": "low", "reasons": ["none"]})])

    thinker = Thinker(FunctionModel(think), output_type=Risk, instructions="You judge risks.")

    async def main() -> float:
        await thinker.run(PROMPT)
        began = time.thread_time()
        for _ in range(count):
            await thinker.run(PROMPT)
        return (time.thread_time() - began) / count

    return asyncio.run(main())


if __name__ == "__main__":
    print(f"{1 / offline():.0f} answers a second; pydantic-ai alone: {1 / bare():.0f}")
