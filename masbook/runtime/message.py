"""Messages: what agents send each other, immutable and made of plain data.

The bus makes them; `freeze` turns what a sender hands over into data that nobody can change afterwards, so that one
message can be shared by all its recipients and written into the trace.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Coroutine, Mapping
from datetime import date
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from ..errors import InvalidValue, Unrecordable


class MessageType(StrEnum):
    """What kind of message it is; the bus treats each in its own way."""

    TELL = "tell"  # direct, no answer expected
    REQUEST = "request"  # direct, answered by REPLY, ERROR, or PART ... END
    REPLY = "reply"
    ERROR = "error"
    PART = "part"  # one value of a stream
    END = "end"  # the stream is complete
    CANCEL = "cancel"  # the requester no longer wants the answer
    PUBLISH = "publish"  # to the subscribers of a topic
    BROADCAST = "broadcast"  # to everybody
    SYSTEM = "system"  # from the world to everybody
    HEARTBEAT = "heartbeat"  # to the registry


class Message(NamedTuple):
    """One message. It is a row of the trace as it stands, which is why it begins like one and is a named tuple.

    `id` counts up from 1; `to` is the recipient's name, or None for publications and broadcasts; `topic` is the
    capability asked for or the subject; `time` is when it was sent and `expires` when it is no longer worth
    delivering, both in virtual seconds; a higher `priority` is handled first. `reply_to` is the id of the request
    that this one answers, `cause` that of the message being handled when this one was sent, and `conversation` that
    of the message that began the exchange. The fields behind `content` are not recorded; `delay` is extra time in
    transit, in virtual seconds.
    """

    time: float
    kind: str  # "sent"
    sender: str
    id: int
    type: MessageType
    to: str | None
    topic: str
    copies: int  # recipients
    priority: int
    cause: int | None
    reply_to: int | None
    conversation: int
    content: Mapping[str, Any]
    expires: float = math.inf
    delay: float = 0.0
    signature: str | None = None

    def replace(self, **changes: Any) -> Message:
        """Return a copy with some fields changed; new content is frozen."""
        if "content" in changes:
            changes["content"] = freeze(changes["content"])
        return self._replace(**changes)


def _refuse(self: object, *args: Any, **options: Any) -> Any:
    raise TypeError("messages are immutable: copy the value first, with dict(...) or list(...)")


class FrozenDict(dict):  # type: ignore[type-arg]
    """A dict that refuses to change."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class FrozenList(list):  # type: ignore[type-arg]
    """A list that refuses to change."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)


SCALARS = frozenset({str, int, float, bool, type(None)})
LARGEST = 10**4000  # Python writes no longer numbers
LEAST = -LARGEST  # once: to negate it costs more than the rest of `is_plain`


def freeze(value: Any, path: str = "content") -> Any:
    """Return `value` as plain immutable data: models and dataclasses become dicts, enums their values.

    Raises Unrecordable, naming the place, for anything else: sets (their order is not repeatable), functions,
    open files, DataFrames, keys that are not text, lists that contain themselves.
    """
    try:
        return _freeze(value, path)
    except RecursionError:
        raise Unrecordable(f"{path} contains itself, or is nested too deeply to be recorded") from None


def is_plain(value: Any) -> bool:
    """Return whether the value can be recorded as it is: text, None, or a number that is not absurdly long."""
    kind = value.__class__
    return kind in SCALARS and (kind is not int or LEAST < value < LARGEST)


def _freeze(value: Any, path: str) -> Any:
    kind = type(value)
    if is_plain(value) or kind is FrozenDict:  # a FrozenList may be pydantic's, with models in it: see its Sequence
        return value
    if isinstance(value, Mapping):
        return FrozenDict({check_key(key, path): _freeze(item, f"{path}.{key}") for key, item in value.items()})
    if hasattr(kind, "_asdict"):  # a named tuple
        return _freeze(value._asdict(), path)
    if isinstance(value, list | tuple):
        return FrozenList(_freeze(item, f"{path}[{i}]") for i, item in enumerate(value))
    if hasattr(kind, "item") and hasattr(kind, "dtype"):  # a number of numpy's
        return _freeze(value.item(), path)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return _freeze(value.value, path)
    if hasattr(kind, "model_dump"):  # a pydantic model
        return _freeze(value.model_dump(warnings=False), path)
    if dataclasses.is_dataclass(kind):
        return _freeze({field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}, path)
    if isinstance(value, str | int | float):  # subclasses, such as numpy's float64
        plain = next(plain for plain in (str, int, float) if isinstance(value, plain))(value)
        if is_plain(plain):
            return plain
    hint = "did you forget `await`?" if isinstance(value, Coroutine) else "send numbers, text, lists, dicts or models"
    raise Unrecordable(f"{path} is a {kind.__name__}, which the trace cannot record; {hint}")


def check_key(key: Any, path: str = "content") -> str:
    """Return the key, or raise Unrecordable if it is not text."""
    if type(key) is not str:
        raise Unrecordable(f"{path} has the key {key!r}: keys are text")
    return key


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which messages a subscriber wants: by type, by sender, and by content; what is not given matches everything.

    `type` is one MessageType or several; `sender` a name or glob; `content` maps keys to the value expected, where
    text may be a glob. A glob matches the whole text, never a part: `agent1` is not `agent10`.
    """

    type: MessageType | tuple[MessageType, ...] | None = None
    sender: str | None = None
    content: Mapping[str, Any] | None = None
    accept: Callable[[Message], bool] | None = None

    def __post_init__(self) -> None:
        known = [str(type) for type in MessageType]
        for type in self.types():
            if type not in known:
                raise InvalidValue(f"there are no messages of type {type!r}; choose among {', '.join(known)}")

    def matches(self, message: Message) -> bool:
        """Return whether the message passes."""
        if self.type is not None and message.type not in self.types():
            return False
        if self.sender is not None and not matches(message.sender, self.sender):
            return False
        wanted = self.content or {}
        if not all(key in message.content and matches(message.content[key], wanted[key]) for key in wanted):
            return False
        return self.accept is None or self.accept(message)

    def types(self) -> tuple[MessageType, ...]:
        """Return the message types wanted; empty where any will do."""
        return (self.type,) if isinstance(self.type, str) else tuple(self.type or ())


def matches(value: Any, pattern: Any) -> bool:
    """Return whether `value` equals `pattern`, or is text that the glob `pattern` matches as a whole."""
    if isinstance(value, str) and isinstance(pattern, str):
        return value == pattern or fnmatch.fnmatchcase(value, pattern)
    return (type(value) is not bool and type(pattern) is not bool and value == pattern) or value is pattern
