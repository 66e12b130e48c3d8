"""Messages: immutable, made of plain data, and chosen by filters that never match a part of a name."""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
import pickle
from collections.abc import Sequence
from decimal import Decimal

import pytest
from pydantic import BaseModel, ConfigDict
from society import Recorder

from masbook import Agent, Filter, MessageType, capability
from masbook.errors import Unrecordable
from masbook.runtime.message import freeze, matches


def receive(world, **content):
    """Send the content and return the message that arrives."""
    recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

    async def scenario():
        await sender.tell("recorder", "t", content)
        await sender.sleep(1.0)

    world.run(scenario())
    return recorder.got[0]


class TestImmutable:
    def test_fields_cannot_be_set(self, world):
        message = receive(world, a=1)
        for field in ("content", "sender", "topic", "priority"):
            with pytest.raises(AttributeError):
                setattr(message, field, "other")

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c.update(a=1),
            lambda c: c.__setitem__("a", 1),
            lambda c: c.pop("list"),
            lambda c: c.popitem(),
            lambda c: c.clear(),
            lambda c: c.setdefault("new", 1),
            lambda c: c.__delitem__("list"),
            lambda c: c.__ior__({"a": 1}),
            lambda c: c["list"].append(4),
            lambda c: c["list"].sort(),
            lambda c: c["list"].__setitem__(0, 9),
            lambda c: c["list"].__iadd__([1]),
            lambda c: c["list"].__imul__(2),
            lambda c: c["list"].__delitem__(0),
            lambda c: c["list"].extend([1]),
            lambda c: c["list"].insert(0, 1),
            lambda c: c["list"].pop(),
            lambda c: c["list"].remove(1),
            lambda c: c["list"].reverse(),
            lambda c: c["list"].clear(),
            lambda c: c["deep"]["er"][0].update(x=2),
            lambda c: c["deep"]["er"].append(2),
        ],
    )
    def test_content_cannot_be_changed_at_any_depth(self, world, change):
        message = receive(world, list=[1, 2, 3], deep={"er": [{"x": 1}]})
        with pytest.raises(TypeError, match="immutable"):
            change(message.content)
        assert message.content == {"list": [1, 2, 3], "deep": {"er": [{"x": 1}]}}

    def test_what_the_sender_changes_later_does_not_arrive(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))
        items, plan = [1], {"steps": {"first": "a"}}

        async def scenario():
            await sender.tell("recorder", "t", items=items, plan=plan)
            items.append(2)
            plan["steps"]["first"] = "changed"
            await sender.sleep(1.0)

        world.run(scenario())
        assert recorder.got[0].content == {"items": [1], "plan": {"steps": {"first": "a"}}}

    def test_the_trace_keeps_what_was_sent(self, world):
        items = [1]
        sender = world.spawn(Agent("sender"))
        world.spawn(Recorder("recorder"))
        world.run(sender.tell("recorder", "t", items=items))
        digest = world.trace.digest
        items.append(2)
        (sent,) = world.trace.events("sent", who="sender")
        assert sent.facts["content"] == {"items": [1]}
        assert world.trace.digest == digest

    def test_copies_can_be_changed(self, world):
        content = receive(world, list=[1], plan={"a": 1}).content
        assert [*content["list"], 2] == [1, 2]
        assert dict(content["plan"], b=2) == {"a": 1, "b": 2}

    def test_pickle_and_copy_keep_messages_equal(self, world):
        message = receive(world, list=[1, {"a": None}], number=1.5)
        assert pickle.loads(pickle.dumps(message)) == message
        again = copy.deepcopy(message)
        assert again == message
        with pytest.raises(TypeError):
            again.content["list"].append(1)

    def test_replace_freezes_new_content(self, world):
        changed = receive(world, a=1).replace(content={"a": [2]})
        with pytest.raises(TypeError):
            changed.content["a"].append(3)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    tags: list[str]


class Ticket(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    number: int
    extra: object = None


class TestRecordable:
    def test_models_dataclasses_and_enums_travel_as_plain_data(self, world):
        content = receive(
            world, point=Point(1, ["a"]), ticket=Ticket(number=7), colour=Colour.RED, level=Level.HIGH
        ).content
        assert content == {
            "point": {"x": 1, "tags": ["a"]},
            "ticket": {"number": 7, "extra": None},
            "colour": "red",
            "level": 3,
        }
        assert type(content["level"]) is int

    def test_models_in_a_sequence_that_arrived_travel_on_as_plain_data(self, world):
        """pydantic makes of a frozen list a list of the same class, with models in it: `Sequence` keeps the class."""

        class Relay(Agent):
            @capability
            async def pass_on(self, points: Sequence[Point], rows: Sequence[Sequence[Point]]) -> Sequence[Point]:
                await self.tell("recorder", "t", points=points, rows=rows)
                return points

        recorder, relay, client = (world.spawn(it) for it in (Recorder("recorder"), Relay("relay"), Agent("client")))
        point = {"x": 1, "tags": ["a"]}
        answer = world.run(client.request("relay", "pass_on", points=[point], rows=[[point]]))
        assert list(answer) == [Point(1, ["a"])] and relay.metrics["handled"] == 1
        world.run(until=1.0)
        assert recorder.got[0].content == {"points": [point], "rows": [[point]]}
        assert world.trace.digest and freeze(answer) == [point]

    def test_tuples_become_lists_and_numpy_scalars_numbers(self):
        numpy = pytest.importorskip("numpy")
        assert freeze((1, (2, 3))) == [1, [2, 3]]
        value = freeze(numpy.float64(1.5))
        assert value == 1.5 and type(value) is float

    @pytest.mark.parametrize(
        "value",
        [
            {1, 2},
            frozenset("ab"),
            object(),
            lambda: None,
            b"bytes",
            Decimal("1.5"),
            1j,
            range(3),
            print,
            {1: "a"},
            {"deep": [{"er": {1, 2}}]},
            {None: 1},
            Point(1, [object()]),  # type: ignore[list-item]
            Point(1, {"b", "a"}),  # type: ignore[arg-type]
            Ticket(number=1, extra=object()),
            Ticket(number=1, extra={"b", "a"}),
            Point,
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.filterwarnings("error")
    def test_what_cannot_be_recorded_is_refused_at_once(self, world, value):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        rows = len(world.trace)
        with pytest.raises(Unrecordable, match="value"):
            world.run(sender.tell("recorder", "t", value=value))
        assert len(world.trace) == rows
        assert len(world.trace.digest) == 64
        world.run(sender.tell("recorder", "t", value=1))
        assert world.trace.count("sent", "sender") == 1

    def test_a_list_that_contains_itself_is_refused(self, world):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        loop: list = []
        loop.append(loop)
        with pytest.raises(Unrecordable):
            world.run(sender.tell("recorder", "t", value=loop))

    def test_keys_of_positional_content_are_text(self, world):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        with pytest.raises(Unrecordable, match="keys are text"):
            world.run(sender.tell("recorder", "t", {1: "one"}))

    def test_numbers_beyond_what_json_writes_do_not_break_the_digest(self, world):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        with pytest.raises(Unrecordable):
            world.run(sender.tell("recorder", "t", value=10**5000))
        assert len(world.trace.digest) == 64

    def test_the_place_is_named(self):
        with pytest.raises(Unrecordable, match=r"content\.plan\.steps\[1\]"):
            freeze({"plan": {"steps": [1, {1, 2}]}})

    @pytest.mark.parametrize("value", [math.inf, -math.inf, "\ud800", "naïve ☃", 2**63, None, True, ""])
    def test_odd_but_plain_values_are_recorded(self, world, value):
        assert receive(world, value=value).content["value"] == value
        assert len(world.trace.digest) == 64

    def test_content_must_be_named_fields(self, world):
        world.spawn(Recorder("recorder"))
        sender = world.spawn(Agent("sender"))
        with pytest.raises(ValueError, match="named fields"):
            world.run(sender.tell("recorder", "t", "hello"))

    def test_content_may_use_the_names_of_options(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("recorder", "t", {"priority": "low", "to": "x", "topic": "y"}, priority=2)
            await sender.sleep(0.0)

        world.run(scenario())
        world.run(until=1.0)
        assert recorder.got[0].content == {"priority": "low", "to": "x", "topic": "y"}
        assert recorder.got[0].priority == 2


class TestMatching:
    @pytest.mark.parametrize(
        ("value", "pattern", "expected"),
        [
            ("agent1", "agent1", True),
            ("agent10", "agent1", False),
            ("my agent1", "agent1", False),
            ("agent10", "agent1*", True),
            ("agent10", "agent?", False),
            ("Agent1", "agent1", False),
            ("weather.rome", "weather.*", True),
            ("weather", "weather.*", False),
            ("weather.rome.today", "weather.*", True),
            ("b", "[abc]", True),
            (1, 1, True),
            (1, 1.0, True),
            (1, True, False),
            (True, True, True),
            (False, 0, False),
            (None, None, True),
            (1, "1", False),
            ("1", 1, False),
            ([1], [1], True),
            ("", "*", True),
        ],
    )
    def test_exact_or_glob_over_the_whole_text(self, value, pattern, expected):
        assert bool(matches(value, pattern)) is expected

    def message(self, world, **content):
        return receive(world, **content)

    def test_filter_by_type(self, world):
        message = self.message(world)
        assert Filter(type=MessageType.TELL).matches(message)
        assert Filter(type=(MessageType.PUBLISH, MessageType.TELL)).matches(message)
        assert not Filter(type=MessageType.PUBLISH).matches(message)

    def test_filter_by_sender(self, world):
        message = self.message(world)
        assert Filter(sender="sender").matches(message)
        assert Filter(sender="sen*").matches(message)
        assert not Filter(sender="send").matches(message)
        assert not Filter(sender="ender").matches(message)

    def test_filter_by_content(self, world):
        message = self.message(world, city="Rome", degrees=21, note=None)
        assert Filter(content={"city": "Ro*", "degrees": 21}).matches(message)
        assert not Filter(content={"city": "Rom"}).matches(message)
        assert not Filter(content={"city": "Rome", "degrees": 22}).matches(message)
        assert not Filter(content={"country": "*"}).matches(message)
        assert Filter(content={"note": None}).matches(message)
        assert not Filter(content={"missing": None}).matches(message)

    def test_filter_by_function(self, world):
        message = self.message(world, degrees=21)
        assert Filter(accept=lambda m: m.content["degrees"] > 20).matches(message)
        assert not Filter(accept=lambda m: m.content["degrees"] > 30).matches(message)

    def test_everything_must_fit(self, world):
        message = self.message(world, a=1)
        assert Filter().matches(message)
        assert not Filter(type=MessageType.TELL, sender="other").matches(message)


@pytest.mark.parametrize("name", ["data[0]", "agent[1]", "a?[!b]*", "[", "]", "[]", "[a-z]"])
def test_every_name_matches_itself(name):
    assert matches(name, name)


def test_a_topic_with_brackets_is_heard(world):
    listener, sender = world.spawn(Recorder("listener")), world.spawn(Agent("sender"))
    listener.subscribe("data[0]", listener.on_message)
    world.run(sender.publish("data[0]"))
    world.run(sender.publish("data0"))
    world.run(until=1.0)
    assert listener.topics == ["data[0]", "data0"]  # itself, and as a glob
