"""Capabilities: schemas from annotations, descriptions from docstrings, input that is validated, three ways to call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from society import Calculator, Recorder

from masbook import Agent, Message, capability, on
from masbook.errors import InvalidInput, InvalidValue, NotAsync, Unrecordable


class Order(BaseModel):
    number: int
    items: list[str] = []


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Receipt:
    total: float
    lines: list[str]


class Shop(Agent):
    """Sells things."""

    @capability(cost=3.5)
    async def order(self, order: Order, size: Size = Size.SMALL, urgent: bool = False) -> Receipt:
        """Take an order.

        A second paragraph.
        """
        assert isinstance(order, Order) and isinstance(size, Size)
        return Receipt(float(order.number), [*order.items, size.value])

    @capability
    async def model(self) -> Order:
        return Order(number=1, items=["a"])

    @capability
    async def pick(self, how: Literal["first", "last"], at_most: Annotated[int, Field(ge=1)] = 1) -> str:
        return how * at_most

    @capability
    async def anything(self, **fields: Any) -> dict[str, Any]:
        return fields

    @capability
    async def loose(self, value):
        return value

    @capability
    async def liar(self) -> Order:
        return "seven"  # type: ignore[return-value]

    @capability
    async def unrecordable(self):
        return {1, 2}

    @capability
    async def pieces(self, n: int):
        for i in range(n):
            yield i


@pytest.fixture
def shop(world):
    world.spawn(Shop("shop"))
    return world.spawn(Agent("client"))


class TestSchemas:
    def test_input_schema_from_the_signature(self):
        schema = Calculator.offers["add"].input_schema
        assert schema["properties"] == {
            "a": {"title": "A", "type": "number"},
            "b": {"title": "B", "type": "number"},
        }
        assert schema["required"] == ["a", "b"]
        assert Calculator.offers["add"].output_schema == {"type": "number"}

    def test_models_enums_and_defaults(self):
        schema = Shop.offers["order"].input_schema
        assert schema["required"] == ["order"]
        assert schema["$defs"]["Order"]["properties"]["number"]["type"] == "integer"
        assert schema["$defs"]["Size"]["enum"] == ["small", "large"]
        assert Shop.offers["order"].output_schema["properties"]["total"]["type"] == "number"

    def test_description_and_cost(self):
        assert Shop.offers["order"].description.startswith("Take an order.")
        assert Shop.offers["order"].cost == 3.5
        assert Shop.offers["model"].cost == 1.0
        assert Shop.offers["model"].description == ""

    def test_streams_say_so(self):
        assert Shop.offers["pieces"].streams and not Shop.offers["order"].streams

    def test_capabilities_are_inherited_and_replaced(self):
        class Better(Shop):
            @capability(cost=1.0)
            async def model(self) -> Order:
                """Better."""
                return Order(number=2)

        assert set(Better.offers) == set(Shop.offers)
        assert Better.offers["model"].description == "Better."
        assert Shop.offers["model"].description == ""

    def test_what_replaces_a_capability_keeps_the_annotations_of_its_parameters(self, world):
        """But not the promise of a result: that it must make itself."""

        class Other(Shop):
            async def order(self, order, size: str = "large"):
                return [order.number, size]

        world.spawn(Other("other"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("other", "order", order={"number": 3})) == [3, "large"]
        with pytest.raises(InvalidInput, match=r"order\.number"):
            world.run(client.request("other", "order", order={"number": "three"}))
        assert Other.offers["order"].output_schema == {}


class TestCalls:
    def test_by_message_directly_and_from_itself(self, world, shop):
        by_message = world.run(shop.request("shop", "pick", how="first", at_most=2))
        direct = world.run(world.agents["shop"].pick(how="first", at_most=2))
        assert by_message == direct == "firstfirst"

    def test_typed_inputs_and_results_travel_as_plain_data(self, world, shop):
        receipt = world.run(shop.request("shop", "order", order={"number": 3, "items": ["a"]}, size="large"))
        assert receipt == Receipt(3.0, ["a", "large"])
        assert world.run(shop.request("shop", "model")) == Order(number=1, items=["a"])
        receipt = world.run(shop.request("shop", "order", order=Order(number=4)))
        assert receipt.total == 4.0
        sent = [event.facts["content"] for event in world.trace.events("sent") if event.facts["type"] == "reply"]
        assert sent[0] == {"result": {"total": 3.0, "lines": ["a", "large"]}}

    @pytest.mark.parametrize(
        ("name", "inputs", "field"),
        [
            ("order", {}, "'order'"),
            ("order", {"order": {"number": "x"}}, "'order.number'"),
            ("order", {"order": {"number": 1}, "size": "huge"}, "'size'"),
            ("order", {"order": {"number": 1}, "colour": "red"}, "'colour'"),
            ("pick", {"how": "middle"}, "'how'"),
            ("pick", {"how": "last", "at_most": 0}, "'at_most'"),
            ("loose", {}, "'value'"),
        ],
    )
    def test_bad_input_names_the_field(self, world, shop, name, inputs, field):
        with pytest.raises(InvalidInput, match=field):
            world.run(shop.request("shop", name, **inputs))

    def test_every_wrong_field_is_named(self, world, shop):
        with pytest.raises(InvalidInput) as caught:
            world.run(shop.request("shop", "pick", how="middle", at_most=0, extra=1))
        assert all(f"'{field}'" in str(caught.value) for field in ("how", "at_most", "extra"))

    def test_free_fields(self, world, shop):
        assert world.run(shop.request("shop", "anything", a=1, b=[2])) == {"a": 1, "b": [2]}

    def test_a_result_of_the_wrong_type_is_a_typed_error(self, world, shop):
        with pytest.raises(InvalidInput, match="promised"):
            world.run(shop.request("shop", "liar"))

    def test_a_result_that_cannot_be_recorded_is_a_typed_error(self, world, shop):
        with pytest.raises(Unrecordable):
            world.run(shop.request("shop", "unrecordable"))
        assert world.agents["shop"].state == "idle"
        assert world.run(shop.request("shop", "ping")) == "pong"

    def test_inputs_that_have_the_names_of_options(self, world, shop):
        assert world.run(shop.request("shop", "anything", {"timeout": 3, "priority": "x"})) == {
            "timeout": 3,
            "priority": "x",
        }

    def test_a_told_capability_runs_without_an_answer(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        world.run(client.tell("calc", "add", a=1, b=2))
        world.run(until=2.0)
        assert calc.metrics["handled"] == 1
        assert world.trace.count("sent") == 1

    def test_bad_input_to_a_told_capability_is_recorded_and_crashes_nobody(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        world.run(client.tell("calc", "add", a="x"))
        world.run(until=2.0)
        assert calc.state == "idle" and calc.metrics["failed"] == 1
        (failed,) = world.trace.events("failed")
        assert "InvalidInput" in failed.facts["error"]


class TestDeclaring:
    def test_a_capability_must_be_async(self):
        with pytest.raises(NotAsync, match="async def add"):

            class _(Agent):
                @capability
                def add(self, a: int) -> int:
                    return a

    def test_a_handler_must_be_async(self):
        with pytest.raises(NotAsync, match="async def hear"):

            class _(Agent):
                @on("t")
                def hear(self, message: Message) -> None: ...

    @pytest.mark.parametrize("cost", [-1.0, float("nan")])
    def test_a_cost_is_not_negative(self, cost):
        with pytest.raises(InvalidValue, match="cost"):
            capability(cost=cost)

    @pytest.mark.parametrize("topic", ["", None, 3])
    def test_a_topic_is_text(self, topic):
        with pytest.raises(InvalidValue, match="topic"):
            on(topic)

    def test_positional_parameters_are_refused_at_spawn(self, world):
        class Bad(Agent):
            @capability
            async def add(self, *numbers: float) -> float:
                return sum(numbers)

        with pytest.raises(InvalidValue, match="numbers"):
            world.spawn(Bad("bad"))
        assert "bad" not in world.agents and world.trace.count("spawned") == 0

    def test_annotations_without_a_schema_are_refused_at_spawn(self, world):
        class Bad(Agent):
            @capability
            async def add(self, socket: Recorder) -> None: ...

        with pytest.raises(InvalidValue, match="Recorder"):
            world.spawn(Bad("bad"))

    def test_annotations_that_do_not_exist_are_refused_at_spawn(self, world):
        class Bad(Agent):
            @capability
            async def add(self, a: Nowhere) -> None: ...  # noqa: F821

        with pytest.raises(InvalidValue, match="Nowhere"):
            world.spawn(Bad("bad"))

    @pytest.mark.parametrize(
        "name", ["stop", "crash", "publish", "stream", "restart", "sleep", "tell", "request", "state", "name"]
    )
    def test_a_capability_cannot_take_the_name_of_what_every_agent_has(self, world, name):
        async def method(self) -> None: ...

        method.__name__ = name
        with pytest.raises(InvalidValue, match=name):
            world.spawn(type("Bad", (Agent,), {name: capability(method)})("bad"))

    def test_a_query_may_be_replaced(self, world):
        class Loud(Agent):
            @capability
            async def ping(self) -> str:
                return "PONG"

        world.spawn(Loud("loud"))
        assert world.run(world.spawn(Agent("client")).request("loud", "ping")) == "PONG"


class TestSubscriptions:
    def test_one_method_may_hear_several_topics(self, world):
        class Listener(Recorder):
            @on("a")
            @on("b.*")
            async def hear(self, message: Message) -> None:
                self.got.append(message)

        listener, sender = world.spawn(Listener("listener")), world.spawn(Agent("sender"))

        async def scenario():
            for topic in ("a", "b.1", "c"):
                await sender.publish(topic)

        world.run(scenario())
        world.run(until=1.0)
        assert listener.topics == ["a", "b.1"]

    def test_handlers_of_a_base_class_are_inherited(self, world):
        class Base(Recorder):
            @on("t")
            async def hear(self, message: Message) -> None:
                self.got.append(message)

        class Derived(Base):
            pass

        derived, sender = world.spawn(Derived("derived")), world.spawn(Agent("sender"))
        world.run(sender.publish("t"))
        world.run(until=1.0)
        assert derived.topics == ["t"]

    def test_a_direct_message_reaches_the_handler_of_its_topic(self, world):
        class Listener(Recorder):
            @on("t.*")
            async def hear(self, message: Message) -> None:
                self.got.append("heard")

        listener, sender = world.spawn(Listener("listener")), world.spawn(Agent("sender"))
        world.run(sender.tell("listener", "t.1"))
        world.run(until=1.0)
        assert listener.got == ["heard"]
