"""A small studio: agents that work on data, pictures and texts, for the workflows of chapter 04.

`hire` brings the agents of ROSTER to life. Data and texts are read from data/; pictures are only counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InvalidValue
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.world import World
from .data import DataProcessor, data_path, records

WARM = frozenset(("always", "glad", "gladly", "great", "happy", "pleasure", "recommend", "thanks", "wonderful"))
COLD = frozenset(
    ("angry", "cannot", "disappointed", "enough", "lost", "nothing", "patience", "still", "third", "wrong")
)
ROSTER = (  # name, speed: the five of the course, and one more
    ("data_1", 1.0),
    ("image_1", 1.0),
    ("text_1", 1.0),
    ("data_2", 0.8),
    ("image_2", 1.1),
    ("text_2", 0.8),
)


class ImageProcessor(Agent):
    """Looks for things in pictures: 0.06 virtual seconds each at speed 1, half of that or half as much again.

    How long a batch takes, and whether an attempt fails, with the probability `trouble`, is the luck of the batch,
    whoever works on it.
    """

    def __init__(self, name: str, speed: float = 1.0, trouble: float = 0.0) -> None:
        super().__init__(name, tags=["image"])
        self.speed = require.positive("speed", speed)
        self.trouble = require.probability("trouble", trouble)

    @capability(cost=3.0)
    async def process_image(self, count: int = 50, batch: str = "images") -> dict[str, Any]:
        """Return how many `images` and `objects` there are in a batch; ValueError if a picture is unreadable."""
        luck = self.world.random(f"batch {batch}")
        await self.sleep(0.06 * require.whole("count", count) * luck.uniform(0.5, 1.5) / self.speed)
        if luck.random() < self.trouble:
            raise ValueError(f"picture {luck.randrange(count)} of {batch} is unreadable")
        return {"images": count, "objects": sum(luck.choice((0, 1, 1, 2)) for _ in range(count))}


class TextProcessor(Agent):
    """Reads messages, 0.0075 virtual seconds each at speed 1, and writes reports."""

    def __init__(self, name: str, speed: float = 1.0) -> None:
        super().__init__(name, tags=["text"])
        self.speed = require.positive("speed", speed)

    @capability(cost=1.5)
    async def process_text(self, path: str = "tickets.csv", first: int = 0, count: int = 200) -> dict[str, Any]:
        """Return how many `texts` a part of a file has and how many are `negative` or `positive`, and their `topics`.

        A message is negative if it has more words of COLD than of WARM. Topics are the longer words of most subjects.
        InvalidValue for a file without messages.
        """
        rows = _texts(data_path(path))[first : first + count]
        await self.sleep(0.0075 * len(rows) / self.speed)
        moods = [_mood(row["message"]) for row in rows]
        words = Counter(word for row in rows for word in dict.fromkeys(_words(row["subject"])) if len(word) > 4)
        counts = {"negative": sum(mood < 0 for mood in moods), "positive": sum(mood > 0 for mood in moods)}
        return {"texts": len(rows), **counts, "topics": [word for word, _ in words.most_common(3)]}

    @capability(cost=0.5)
    async def write_report(self, text: str) -> str:
        """Return the text, as it goes to the printer."""
        await self.sleep(0.5 / self.speed)
        return text


@cache  # reading the file takes longer than all the rest
def _texts(path: Path) -> list[dict[str, Any]]:
    rows = records(path)
    if "message" not in rows[0]:
        raise InvalidValue(f"{path.name} has no column 'message': give a file such as tickets.csv")
    return rows


def _mood(text: str) -> int:
    """Return how many more warm words than cold ones a text has."""
    words = Counter(_words(text))
    return sum(words[word] for word in sorted(WARM)) - sum(words[word] for word in sorted(COLD))


def _words(text: str) -> Iterator[str]:
    return (word.lower() for word in re.findall(r"[A-Za-z']+", text))


def hire(world: World, agents: int = 5, trouble: float = 0.0) -> list[Agent]:
    """Bring the first of ROSTER to life and return them; InvalidValue for more than there are."""
    if not 1 <= agents <= len(ROSTER):
        raise InvalidValue(f"agents={agents!r}; the roster has 1 to {len(ROSTER)}")
    return [world.spawn(_make(name, speed, trouble)) for name, speed in ROSTER[:agents]]


def _make(name: str, speed: float, trouble: float) -> Agent:
    if name.startswith("data"):
        return DataProcessor(name, rows_per_second=1000 * speed)
    return ImageProcessor(name, speed, trouble) if name.startswith("image") else TextProcessor(name, speed)
