"""Mailboxes: where an agent's messages wait, in order of priority, then of arrival.

A mailbox is bounded. What happens when one is full is its policy: `block` makes the sender of a direct message wait,
`reject` refuses the message, `drop_oldest` gives up the oldest message of the lowest priority.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import Literal, get_args

from . import require
from .message import Message

Policy = Literal["block", "reject", "drop_oldest"]


class Mailbox:
    """Messages waiting for one agent.

    `usual` holds those of priority 0, which is nearly all, and takes up to `room` of them; the bus puts them there
    itself, and while nothing is `special` the agent takes them from there. Other priorities wait in a heap, and
    messages that found no room in a line of their own.
    """

    __slots__ = ("_heap", "_line", "_number", "capacity", "policy", "room", "special", "usual")

    def __init__(self, capacity: int, policy: Policy) -> None:
        self.capacity = require.whole("capacity", capacity)
        self.policy = require.one_of("policy", policy, get_args(Policy))
        self.usual: deque[Message] = deque()
        self.room = capacity
        self.special = False
        self._heap: list[tuple[int, int, Message]] = []
        self._number = 0
        self._line: deque[tuple[Message, asyncio.Future[None] | None]] = deque()

    def put(self, message: Message) -> None:
        """Add a message of any priority, whether there is room or not."""
        if message.priority:
            self._number += 1
            heapq.heappush(self._heap, (-message.priority, self._number, message))
            self._measure()
        else:
            self.usual.append(message)

    def take(self) -> Message | None:
        """Remove and return the next message, or None; who is first in line gets its place."""
        message = None
        if self._heap and (self._heap[0][0] < 0 or not self.usual):
            message = heapq.heappop(self._heap)[2]
        elif self.usual:
            message = self.usual.popleft()
        self._admit()
        return message

    def wait_in_line(self, message: Message, room: asyncio.Future[None] | None) -> None:
        """Let a message wait until there is room; `room` is resolved then."""
        self._line.append((message, room))
        if message.priority:
            self._line = deque(sorted(self._line, key=lambda entry: -entry[0].priority))
        self._measure()

    def drop_oldest(self) -> Message:
        """Remove and return the oldest message of the lowest priority."""
        if not self._heap or (self.usual and max(self._heap)[0] < 0):
            return self.usual.popleft()
        lowest = max(entry[0] for entry in self._heap)
        oldest = min(entry for entry in self._heap if entry[0] == lowest)
        self._heap.remove(oldest)
        heapq.heapify(self._heap)
        self._measure()
        return oldest[2]

    def remove(self, number: int | None, sender: str) -> list[Message]:
        """Remove and return the message with that id from that sender, wherever it waits."""
        key = (number, sender)
        waiting = [*self.usual, *(entry[2] for entry in self._heap), *(message for message, _ in self._line)]
        kept = [message for message in self.usual if (message.id, message.sender) != key]
        self.usual.clear()
        self.usual.extend(kept)
        self._heap = [entry for entry in self._heap if (entry[2].id, entry[2].sender) != key]
        heapq.heapify(self._heap)
        self._line = deque(entry for entry in self._line if (entry[0].id, entry[0].sender) != key)
        self._admit()
        return [message for message in waiting if (message.id, message.sender) == key]

    def empty(self, error: Exception) -> list[Message]:
        """Remove and return every message, also those in line; their senders get `error`."""
        left = []
        line, self._line = self._line, deque()
        while (message := self.take()) is not None:
            left.append(message)
        for message, room in line:
            left.append(message)
            if room is not None and not room.done():
                room.set_exception(error)
        self._measure()
        return left

    def _admit(self) -> None:
        """Let in who waits in line, as far as there is room."""
        while self._line and len(self.usual) + len(self._heap) < self.capacity:
            message, room = self._line.popleft()
            self.put(message)
            if room is not None and not room.done():
                room.set_result(None)
        self._measure()

    def _measure(self) -> None:
        self.room = 0 if self._line else self.capacity - len(self._heap)
        self.special = bool(self._heap or self._line)

    def __len__(self) -> int:
        """Return how many messages wait, with those in line."""
        return len(self.usual) + len(self._heap) + len(self._line)
