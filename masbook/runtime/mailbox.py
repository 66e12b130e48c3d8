"""Mailboxes: where an agent's messages wait, in order of priority, then of arrival.

A mailbox is bounded. What happens when one is full is its policy: `block` makes the sender of a direct message wait,
`reject` refuses the message, `drop_oldest` gives up the oldest message of the lowest priority.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal, get_args

from ..errors import InvalidValue
from .message import Message

Policy = Literal["block", "reject", "drop_oldest"]


class Mailbox:
    """Messages waiting for one agent; `size` is how many, without those whose senders wait for room."""

    __slots__ = ("_by_priority", "_lanes", "_line", "capacity", "policy", "size")

    def __init__(self, capacity: int, policy: Policy) -> None:
        if not isinstance(capacity, int) or capacity < 1:
            raise InvalidValue(f"a mailbox for {capacity!r} messages: capacity is a whole number from 1 up")
        if policy not in get_args(Policy):
            raise InvalidValue(f"no mailbox policy {policy!r}; choose one of {', '.join(get_args(Policy))}")
        self.capacity = capacity
        self.policy = policy
        self.size = 0
        self._by_priority: dict[int, deque[Message]] = {0: deque()}
        self._lanes = [self._by_priority[0]]  # highest priority first
        self._line: deque[tuple[Message, asyncio.Future[None] | None]] = deque()

    def put(self, message: Message) -> None:
        """Add a message, whether there is room or not."""
        lane = self._by_priority.get(message.priority)
        if lane is None:
            lane = self._by_priority[message.priority] = deque()
            self._lanes = [self._by_priority[priority] for priority in sorted(self._by_priority, reverse=True)]
        lane.append(message)
        self.size += 1

    def take(self) -> Message | None:
        """Remove and return the next message, or None; let in who waits once the mailbox is half empty."""
        if self._line and self.size <= self.capacity // 2:
            self._admit()
        for lane in self._lanes:
            if lane:
                self.size -= 1
                return lane.popleft()
        return None

    def wait_in_line(self, message: Message, room: asyncio.Future[None] | None) -> None:
        """Let a message wait until there is room; `room` is resolved then."""
        self._line.append((message, room))

    def _admit(self) -> None:
        while self._line and self.size < self.capacity:
            message, room = self._line.popleft()
            self.put(message)
            if room is not None and not room.done():
                room.set_result(None)

    def drop_oldest(self) -> Message:
        """Remove and return the oldest message of the lowest priority."""
        lane = next(lane for lane in reversed(self._lanes) if lane)
        self.size -= 1
        return lane.popleft()

    def empty(self, error: Exception) -> list[Message]:
        """Remove and return every message, also those in line; their senders get `error`."""
        left = [message for lane in self._lanes for message in lane]
        for lane in self._lanes:
            lane.clear()
        self.size = 0
        for message, room in self._line:
            left.append(message)
            if room is not None and not room.done():
                room.set_exception(error)
        self._line.clear()
        return left

    def __len__(self) -> int:
        """Return how many messages wait, with those in line."""
        return self.size + len(self._line)

    def __bool__(self) -> bool:
        return bool(self.size or self._line)
