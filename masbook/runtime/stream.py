"""The reader's end of a stream: parts arrive here and wait, in order, until the reader asks for the next one."""

from __future__ import annotations

import asyncio
from collections import deque

from .message import Message, MessageType

WINDOW = 16  # parts a producer may be ahead of its reader


class StreamBuffer:
    """Parts of one stream. It stands where a request's future would, and ends with the last part or an error.

    Parts are numbered and the end says how many there were, so that a network that loses, doubles or reorders
    messages can make a stream late, but never wrong.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[Message] = deque()
        self._early: dict[int, Message] = {}  # arrived before their turn
        self._arrived = 0  # parts that have had their turn
        self._total: int | None = None
        self._error: Exception | None = None
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._producers: list[asyncio.Future[None]] = []  # more than one if the request was doubled on its way
        self._taken = 0  # parts that the reader has had

    def put(self, message: Message) -> None:
        """Take in a part, or the end."""
        if message.type is MessageType.END:
            self._total = message.content["parts"]
        elif message.content["number"] >= self._arrived:
            self._early[message.content["number"]] = message
        while self._arrived in self._early:
            self._ready.append(self._early.pop(self._arrived))
            self._arrived += 1
        _wake(self._reader)

    def set_exception(self, error: Exception) -> None:
        """End the stream with an error, after the parts that are already here."""
        self._error, self._closed = error, True
        _wake(self._reader)

    def done(self) -> bool:
        """Return whether nothing more is expected."""
        return self._closed or self._arrived == self._total

    def close(self) -> None:
        """Let go of both ends: the reader has gone."""
        self._closed = True
        self._wake_producers()

    def _wake_producers(self) -> None:
        producers, self._producers = self._producers, []
        for producer in producers:
            _wake(producer)

    async def next(self) -> Message | None:
        """Return the next part, or None at the end; raise the error that ended the stream."""
        while not self._ready and not self.done():
            self._reader = self._loop.create_future()
            await self._reader
        if self._ready:
            self._taken += 1
            self._wake_producers()
            return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return None

    async def room(self, sent: int) -> bool:
        """Wait until the reader is less than a window behind the parts sent; return whether it is still there."""
        while sent - self._taken >= WINDOW and not self._closed:
            producer = self._loop.create_future()
            self._producers.append(producer)
            await producer
        return not self._closed


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
