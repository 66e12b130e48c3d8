"""The reader's end of a stream: parts arrive here and wait until the reader asks for the next one."""

from __future__ import annotations

import asyncio
from collections import deque

from .message import Message, MessageType

WINDOW = 16  # parts a producer may be ahead of its reader


class StreamBuffer:
    """Parts of one stream. It stands where a request's future would, and ends with END, an error, or a time-out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parts: deque[Message] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._reader: asyncio.Future[None] | None = None
        self._producer: asyncio.Future[None] | None = None

    def put(self, message: Message) -> None:
        """Take in a part, or the end."""
        if message.type is MessageType.PART:
            self._parts.append(message)
        else:
            self._ended = True
        _wake(self._reader)

    def set_exception(self, error: Exception) -> None:
        """End the stream with an error, after the parts that are already here."""
        self._ended, self._error = True, error
        _wake(self._reader)

    def done(self) -> bool:
        """Return whether nothing more is expected."""
        return self._ended

    def close(self) -> None:
        """Let go of both ends: the reader has gone."""
        self._ended = True
        _wake(self._producer)

    async def next(self) -> Message | None:
        """Return the next part, or None at the end; raise the error that ended the stream."""
        while not self._parts and not self._ended:
            self._reader = self._loop.create_future()
            await self._reader
        if self._parts:
            part = self._parts.popleft()
            _wake(self._producer)
            return part
        if self._error is not None:
            raise self._error
        return None

    async def room(self) -> bool:
        """Wait until the reader has caught up; return whether it is still there."""
        while len(self._parts) >= WINDOW and not self._ended:
            self._producer = self._loop.create_future()
            await self._producer
        return not self._ended


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
