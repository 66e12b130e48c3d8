"""Write the recording of this folder, byte for byte the same each time: `python data/record.py`.

Chapter 17 replays it. It is made with the offline model, by rules: no language model was asked. With a real one, its
key in the environment: `python data/record.py openai:gpt-5-mini`, and another name for the file if you like.
"""

import csv
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from masbook import World
from masbook.llm import LLMAgent, find_model, record

HERE = Path(__file__).parent
SEED = 17
TICKETS = 12
Level = Literal["low", "medium", "high"]


class Triage(BaseModel):
    """What the desk has to know of a ticket."""

    impact: Level = Field(description="What it costs the customer.")
    risk: Level = Field(description="What it may cost us.")


def write(folder: Path, model: str = "offline:strong", name: str = "triage") -> Path:
    """Write the recording of a model into `folder`; real models are asked by the wall clock."""
    path = folder / f"{name}.json"
    found = find_model(model)
    with World(SEED, clock="virtual" if found.provider is None else "real") as world:
        desk = world.spawn(LLMAgent("desk", "You read support tickets.", model=record(found, path), output_type=Triage))
        with (HERE / "tickets.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for ticket in world.random("desk").sample(rows, TICKETS):
            world.run(desk.ask(ticket["message"]))
    return path


if __name__ == "__main__":
    write(HERE / "recordings", *sys.argv[1:])
