"""The offline model: honest about what it is, fills any schema from what it reads, and costs what its profile says."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NotRequired
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Str,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    SecretStr,
    TypeAdapter,
    create_model,
)
from pydantic_ai import ModelRetry, NativeOutput, PromptedOutput, ToolOutput
from typing_extensions import TypeAliasType, TypedDict

from masbook import simulate
from masbook.errors import UnknownModel
from masbook.llm import LLMAgent, offline
from masbook.llm.expert import Answer, Question
from masbook.llm.forms import fill
from masbook.llm.offline_model import Profile, profiles
from masbook.llm.texts import points


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Rank(IntEnum):
    FIRST = 1
    SECOND = 2


class Step(BaseModel):
    title: str
    hours: int


class Plan(BaseModel):
    goal: str
    steps: list[Step]


class Tree(BaseModel):
    name: str
    children: list[Tree]


class Linked(BaseModel):
    value: int
    next: Linked | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


@dataclass
class Point:
    x: float
    y: float | None = None


class Mutual(BaseModel):
    others: list[Others] = Field(min_length=1)


class Others(BaseModel):
    back: Mutual | None = None
    by_name: dict[str, Mutual] = {}


class Typed(TypedDict):
    a: int
    b: NotRequired[str]


class NamedPoint(NamedTuple):
    x: int
    y: str = "a"


class Mixed(Enum):
    A = 1
    B = "b"
    C = None


class Own(BaseModel):
    model_config = ConfigDict(strict=True)
    from_: Annotated[str, Field(alias="from")]
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(min_length=2, max_length=2)


Anything = TypeAliasType("Anything", "dict[str, Anything] | list[Anything] | str | int | None")


TYPES: list[Any] = [
    *(int, float, bool, str, bytes, Any, None, list, dict, Path, Decimal, Colour, Rank, Plan, Tree, Linked, Pet, Point),
    *(Literal["a", "b"], Literal[1, 2], list[int], list[Plan], list[list[int]], dict[str, int], dict[str, list[str]]),
    *(tuple[int, str], tuple[int, ...], set[int], frozenset[str], set[Colour], int | None, int | str, Cat | Dog),
    *(date, datetime, time, timedelta, UUID, AnyUrl, Json),
    *(Annotated[int, Field(gt=5, lt=7)], Annotated[int, Field(ge=100)], Annotated[int, Field(le=-5)]),
    *(Annotated[float, Field(gt=0, lt=0.001)], Annotated[int, Field(multiple_of=7, ge=10, le=20)]),
    *(Annotated[str, Field(min_length=20, max_length=25)], Annotated[str, Field(max_length=3)]),
    *(Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{4}$")], Annotated[str, Field(pattern=r"^(?:on|off)[^x]+\.$")]),
    *(Annotated[list[int], Field(min_length=3, max_length=4)], Annotated[set[int], Field(min_length=3)]),
    *(Annotated[list[str], Field(min_length=5)], Annotated[list[str], Field(max_length=1)]),
    *(Annotated[set[Colour], Field(min_length=2)], Annotated[dict[str, int], Field(min_length=2)]),
    Annotated[Decimal, Field(max_digits=4, decimal_places=2)],
    *(Mutual, Typed, NamedPoint, Anything, Own, list[dict[str, tuple[int, date]]], Json[list[int]], Base64Str),
    *(AwareDatetime, UUID4, IPv4Address, IPv6Address, HttpUrl, SecretStr, Literal[1, "a", None, True], Mixed),
    *(Annotated[frozenset[int], Field(min_length=4, max_length=4)], Annotated[set[bool], Field(min_length=2)]),
    *(Annotated[set[Annotated[int, Field(ge=0, le=2)]], Field(min_length=3)], Annotated[float, Field(ge=0, le=0)]),
    *(Annotated[dict[Literal["a", "b"], int], Field(min_length=2)], dict[date, list[bool]], tuple[()], deque[int]),
    *(Annotated[int, Field(ge=10**18)], Annotated[int, Field(multiple_of=5, ge=-20, le=-11)]),
    *(Annotated[str, Field(pattern=r"^[a-z]+$", min_length=6, max_length=8)], Annotated[str, Field(pattern=r"^\D\W$")]),
    *(Annotated[str, Field(pattern=r"^[^a-zA-Z0-9 _-]$")], Annotated[str, Field(pattern=r"^[a-z]*$", max_length=2)]),
    *(Annotated[str, Field(pattern=r"^(ab|cd){2}\d?$")], Annotated[str, Field(pattern=r"^[^\d\s]+@\S+\.[a-z]{2,}$")]),
]
TEXTS = [
    "",
    "yes",
    "x" * 3000,
    "-5 and 12, or 3.5",
    "Order O00017 of 3 laptops for 1499.5 euro is late since 2025-03-04; we are angry, the risk is high! Ask ABC-1234.",
]


@pytest.mark.parametrize("output_type", TYPES, ids=str)
def test_any_schema_is_filled_from_any_text(output_type):
    adapter = TypeAdapter(output_type)
    for text in TEXTS:
        adapter.validate_json(json.dumps(fill(adapter.json_schema(), text)))


def test_a_pattern_that_python_does_not_read_is_no_crash():
    assert fill({"type": "string", "pattern": r"^\p{L}+$"}, "a") == ""


@given(st.text(max_size=200), st.sampled_from(TYPES))
def test_no_text_is_too_strange(text, output_type):
    adapter = TypeAdapter(output_type)
    filled = fill(adapter.json_schema(), text)
    adapter.validate_json(json.dumps(filled))
    assert filled == fill(adapter.json_schema(), text)


FORM = """Title: Rain, all day
Description: It pours: bring boots.
Priority: 4 of 5
Requires: boats 3, first_aid 2"""


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ({"a": float, "b": float}, "Please add 2 and 3.", {"a": 2, "b": 3}),
        ({"hours": int, "people": int}, "It takes 4 people 12 hours.", {"hours": 12, "people": 4}),
        ({"to": str, "text": str}, "Send a message to ada: 'It is ready.'", {"to": "ada", "text": "It is ready."}),
        ({"order": str, "customer": str}, "Find order O17 of customer C2.", {"order": "O17", "customer": "C2"}),
        ({"city": str}, "How warm is Lima?", {"city": "Lima"}),
        ({"key": str, "value": int}, "Set the key plan to 5.", {"key": "plan", "value": 5}),
        ({"title": str}, "title: Rain, all day", {"title": "Rain"}),
        ({"colour": Colour}, "I like blue more than any other", {"colour": "blue"}),
        ({"colours": list[Colour]}, "blue and red, red and blue", {"colours": ["red", "blue"]}),
        ({"urgent": bool}, "This is urgent.", {"urgent": True}),
        ({"urgent": bool}, "This is not urgent.", {"urgent": False}),
        ({"when": date}, "Come on 2026-03-04.", {"when": "2026-03-04"}),
        ({"code": Annotated[str, Field(pattern=r"^[A-Z]{2}\d$")]}, "It is XY7, I think.", {"code": "XY7"}),
        ({"title": str, "description": str}, FORM, {"title": "Rain, all day", "description": "It pours: bring boots."}),
        ({"issue": str, "reason": str}, FORM, {"issue": "Rain, all day", "reason": "It pours: bring boots."}),
        ({"priority": int}, FORM, {"priority": 4}),
        ({"requires": dict[str, int] | list[str] | None}, FORM, {"requires": {"boats": 3, "first_aid": 2}}),
        ({"requires": list[str]}, "Requires: boats, first_aid", {"requires": ["boats", "first_aid"]}),
        ({"skills": list[str] | None, "assignee": str | None}, FORM, {"skills": None, "assignee": None}),
        ({"city": str, "unit": (str, "degrees")}, "How warm is Lima?", {"city": "Lima", "unit": "degrees"}),
        ({"assignee": str | None, "city": str | None}, "assignee: ada, in Lima", {"assignee": "ada", "city": "Lima"}),
    ],
)
def test_what_the_text_says_is_read(fields, text, expected):
    given = {name: kind if isinstance(kind, tuple) else (kind, ...) for name, kind in fields.items()}
    assert fill(create_model("Form", **given).model_json_schema(), text) == expected


def test_each_item_of_a_list_has_a_sentence_of_its_own():
    filled = Plan.model_validate(fill(Plan.model_json_schema(), "Design in 3 hours.\nWrite in 5 hours."))
    assert [(step.title, step.hours) for step in filled.steps] == [("Design in 3 hours.", 3), ("Write in 5 hours.", 5)]


def test_its_name_says_what_it_is_in_every_output(world):
    agent = world.spawn(LLMAgent("agent", model="offline:fast"))
    world.run(agent.ask("Hello there."))
    name = "offline:fast (rule-based expert, no language model)"
    assert agent.messages[-1].model_name == name == next(world.trace.events("model_called")).facts["model"]


@pytest.mark.parametrize("form", [Plan, ToolOutput(Plan), NativeOutput(Plan), PromptedOutput(Plan)], ids=str)
def test_every_way_of_asking_for_data_is_understood(world, form):
    agent = world.spawn(LLMAgent("agent", model="offline:instant", output_type=form))
    assert isinstance(world.run(agent.ask("Build a house.")), Plan)


def test_the_member_of_a_union_that_the_prompt_speaks_of(world):
    agent = world.spawn(LLMAgent("agent", model="offline:instant", output_type=[Plan, Point]))
    assert isinstance(world.run(agent.ask("Which point is it, x and y?")), Point)
    assert isinstance(world.run(agent.ask("Make a plan with steps and a goal.")), Plan)


class TestTools:
    def ask(self, world, prompt):
        asked: list[tuple[str, Any]] = []

        def weather(city: str) -> str:
            """Return the weather of a city."""
            asked.append(("weather", city))
            return "rain"

        def add(a: float, b: float) -> float:
            """Return the sum of two numbers."""
            asked.append(("add", (a, b)))
            return a + b

        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[weather, add]))
        return world.run(agent.ask(prompt)), asked

    @pytest.mark.parametrize(
        ("prompt", "asked", "said"),
        [
            ("What is the weather in the city of Lima?", [("weather", "Lima")], "rain"),
            ("Use add for 2 and 3.", [("add", (2.0, 3.0))], "5"),
            ("What is the sum of the numbers 2 and 3?", [("add", (2.0, 3.0))], "5"),
            ("Tell me a joke.", [], "joke"),
        ],
    )
    def test_the_right_one_is_called_once_with_what_the_prompt_says(self, world, prompt, asked, said):
        answer, calls = self.ask(world, prompt)
        assert calls == asked and said in answer

    def test_what_a_tool_said_to_an_earlier_prompt_is_no_answer_to_this_one(self, world):
        def weather(city: str) -> str:
            """Return the weather of a city."""
            return "rain"

        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[weather]))
        assert "rain" in world.run(agent.ask("What is the weather in the city of Lima?", conversation="trip"))
        assert "rain" not in world.run(agent.ask("Tell me a joke.", conversation="trip"))

    def test_a_tool_that_fails_is_not_called_for_ever(self, world):
        def weather(city: str) -> str:
            """Return the weather of a city."""
            raise OSError("no network")

        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[weather]))
        assert "no network" in world.run(agent.ask("What is the weather in the city of Lima?"))
        assert world.trace.count("tool_called") == 1

    def test_one_that_asks_to_try_again_is_not_called_for_ever(self, world):
        def weather(city: str) -> str:
            """Return the weather of a city."""
            raise ModelRetry("name another city")

        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[weather]))
        assert "name another city" in world.run(agent.ask("What is the weather in the city of Lima?"))
        assert world.trace.count("tool_called") == 1

    @pytest.mark.parametrize(
        ("prompt", "instructions", "called"),
        [
            ("The tap drips, and it is urgent.", "", ["phone"]),
            ("Urgent: the tap drips.", "", ["phone"]),
            ("The house is on fire.", "", ["phone"]),
            ("A fire engine. It stands in the house.", "", []),
            ("Urgent: a parcel.", "Phone only when somebody is hurt.", []),
            ("A child is hurt badly.", "Phone only when somebody is hurt or a child is lost.", []),
            ("Somebody is hurt badly.", "Phone only when somebody is hurt or a child is lost.", ["phone"]),
            ("The lost child is in a cave.", "Phone only when somebody is hurt or a child is lost.", ["phone"]),
            ("It is urgent.", "Be kind. Never phone. Write letters for complaints.", []),
            ("There are complaints.", "If there are complaints, phone.", ["phone"]),
            ("Title: Urgent: the tap\nDescription: It drips.", "", ["phone"]),
            (
                "Is it dangerous? All data of our clients were leaked by a data breach.",
                "Phone if there is a high risk.",
                ["phone"],
            ),
            ("The colour of the logo is nice.", "Phone if there is a high risk.", []),
        ],
    )
    def test_what_it_is_meant_for_is_read_in_the_instructions_or_else_in_its_description(
        self, world, prompt, instructions, called
    ):
        done = []

        def letter(text: str) -> None:
            """Put it in writing, fire and house and all. Use it when patience is asked for."""
            done.append("letter")

        def phone(number: int) -> None:
            """Call the house. Use it when it is urgent or a house is on fire."""
            done.append("phone")

        agent = world.spawn(LLMAgent("agent", instructions, model="offline:instant", tools=[letter, phone]))
        world.run(agent.ask(prompt))
        assert done == called

    def test_a_tool_that_fails_may_name_another(self, world):
        done = []

        def email(text: str) -> None:
            """Send it. Use it when it is a letter."""
            raise OSError("the line is cut: use telegraph instead")

        def telegraph(text: str) -> None:
            """Morse it. Use it at sea."""
            done.append("telegraph")

        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[email, telegraph]))
        world.run(agent.ask("Here is a letter."))
        assert done == ["telegraph"]


class TestWhatToolsFound:
    def ask(self, world, found, **fields):
        async def forecast(city: str) -> dict[str, Any]:
            """Return the weather forecast of a city."""
            return found

        form = create_model("Form", **{name: (type_, ...) for name, type_ in fields.items()})
        agent = world.spawn(LLMAgent("agent", model="offline:instant", tools=[forecast], output_type=form))
        return world.run(agent.ask("What is the weather forecast for Oslo?")).model_dump()

    def test_it_goes_to_the_fields_of_the_same_names(self, world):
        found = {"city": "Oslo", "days": 2, "sky": "sunny", "wind": 14.5, "warm": False, "hours": [1, 2, 3, 4]}
        fields = {name: type(value) for name, value in found.items() if name != "hours"}
        assert self.ask(world, found, **fields, hours=list[int]) == found

    def test_in_the_form_that_is_wanted(self, world):
        found = {"where": {"city": "Oslo", "x": 7}, "sky": "It is blue", "days": "3", "wind": None}
        place = create_model("Place", x=(int, ...), city=(str, ...))
        wanted = {"where": {"x": 7, "city": "Oslo"}, "sky": Colour.BLUE, "days": 3}
        assert self.ask(world, found, where=place, sky=Colour, days=int) == wanted


class TestProfiles:
    def test_the_names_of_the_file_can_be_chosen(self):
        assert {"instant", "fast", "balanced", "strong"} <= profiles().keys()
        for name in profiles():
            assert offline(name).model_name.startswith(f"offline:{name} ")
        for name in ("huge", "", None, 7, []):
            with pytest.raises(UnknownModel, match="fast, balanced, strong"):
                offline(name)

    def test_the_fast_one_is_cheap_and_the_strong_one_is_right(self):
        fast, strong = profiles()["fast"], profiles()["strong"]
        assert fast.latency < strong.latency and fast.output_price < strong.output_price
        assert fast.slips > strong.slips

    def test_latencies_are_log_normal_with_the_median_of_the_profile(self):
        async def scenario(world):
            agent = world.spawn(LLMAgent("agent", model=offline(profile)))
            for _ in range(300):
                await agent.ask("Hi.")

        profile = Profile("own", 2.0, 0.5, 0.0, 1.0, 2.0, 0.0, "")
        run = simulate(scenario, seed=1)
        seconds = [event.facts["seconds"] for event in run.trace.events("model_called")]
        assert 1.8 < statistics.median(seconds) < 2.2
        assert 0.4 < statistics.stdev(map(math.log, seconds)) < 0.6

    def test_longer_answers_take_longer_and_cost_more(self, world):
        agent = world.spawn(LLMAgent("agent", model=offline(Profile("own", 0.0, 0.0, 0.1, 1.0, 2.0, 0.0, ""))))
        for prompt in ("Short.", "This is a much longer thing to say, with many more words than the other has."):
            world.run(agent.ask(prompt))
        short, long = [event.facts for event in world.trace.events("model_called")]
        assert long["seconds"] == pytest.approx(0.1 * long["output_tokens"]) and long["seconds"] > short["seconds"]
        assert long["cost"] == pytest.approx((long["input_tokens"] + 2 * long["output_tokens"]) / 1e6)
        assert long["cost"] > short["cost"]

    @pytest.mark.parametrize("name", ["instant", "strong", "fast"])
    def test_slips_are_as_frequent_as_the_profile_says(self, name):
        async def scenario(world):
            agent = world.spawn(
                LLMAgent("agent", model=f"offline:{name}", output_type=Literal["low", "medium", "high"])
            )
            return sum([await agent.ask("The level is low.") != "low" for _ in range(300)]) / 300

        assert simulate(scenario, seed=2).result == pytest.approx(profiles()[name].slips, abs=0.06)

    def test_a_history_is_read_again_and_costs_again(self, world):
        agent = world.spawn(LLMAgent("agent", model="offline:fast"))
        for _ in range(3):
            world.run(agent.ask("The mail server is down.", conversation="case"))
        tokens = [event.facts["input_tokens"] for event in world.trace.events("model_called")]
        assert tokens[0] < tokens[1] < tokens[2]


def test_the_rules_can_be_replaced(world):
    def parrot(question: Question) -> Answer:
        return Answer(f"{question.instructions} {question.prompt}!")

    agent = world.spawn(LLMAgent("agent", "Polly", model=offline("instant", expert=parrot)))
    assert world.run(agent.ask("wants a cracker")) == "Polly wants a cracker!"


class TestDiscussions:
    """What `reach_consensus` and `delegate` ask of a model."""

    HEARD = "- a says tea, because: it is hot\n- b says coffee, because: tea, tea, tea\n- c says coffee\n"
    AGREE: ClassVar = {"agree": bool, "answer": str, "reason": str}

    def fill(self, fields, text, **more):
        model = create_model("Form", **{name: (type_, ...) for name, type_ in fields.items()})
        return fill(model.model_json_schema(), text, **more)

    @pytest.mark.parametrize(
        ("question", "leaning", "answer"),
        [
            ("What shall we drink: tea, coffee or juice?", "You like juice.", "juice"),
            ("Tea or coffee?", "", "Tea"),
            (
                "Should we adopt a new AI technology for our product?",
                "You are a conservative who values stability.",
                "no",
            ),
            ("Should we adopt a new AI technology for our product?", "You embrace change.", "yes"),
            ("Name a drink.", "", "Name a drink."),
        ],
    )
    def test_an_answer_is_one_that_the_question_allows_and_the_instructions_incline_to(self, question, leaning, answer):
        assert self.fill({"answer": str}, question, leaning=leaning) == {"answer": answer}

    @pytest.mark.parametrize("fields", [{"answer": str}, {"answer": Literal["tea", "coffee"]}])
    def test_a_position_counts_once_whatever_its_reasons_say_and_the_most_win(self, fields):
        text = f"tea or coffee?\n\n{self.HEARD}"
        assert self.fill(fields, text, leaning="You like tea.") == {"answer": "coffee"}

    def test_who_hears_as_many_for_one_as_for_another_stays_with_its_own(self):
        text = "tea or coffee?\n\n- a says tea\n- b says coffee\n"
        for own in ("tea", "coffee"):
            assert self.fill({"answer": str}, text, leaning=f"You like {own}.") == {"answer": own}

    def test_the_reasoning_is_what_the_instructions_say(self):
        filled = self.fill({"answer": str, "reasoning": str}, f"tea or coffee?\n{self.HEARD}", leaning="You like tea.")
        assert filled["reasoning"] == "You like tea."

    def test_what_others_have_read_in_a_ticket_is_a_sign_like_others(self):
        fields = {
            "answer": Literal["low", "medium", "high"],
            "reasoning": str,
            "ranking": list[Literal["low", "medium", "high"]],
        }
        question = "What is the risk of this ticket?\nOur lawyer will write."
        alone = self.fill(fields, question)
        assert alone["answer"] == alone["ranking"][0] == "high" and "lawyer" in alone["reasoning"]
        heard = "".join(f"- {name} says low, because: I saw nothing\n" for name in "abcdef")
        swayed = self.fill(fields, f"{question}\n\n{heard}")
        assert swayed["answer"] == "low" and "a says low" in swayed["reasoning"]

    def test_a_statement_about_an_aspect_is_no_question_for_it(self):
        assert self.fill({"level": Literal["low", "medium", "high"]}, "The risk is high.") == {"level": "high"}

    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            (HEARD, {"agree": False, "answer": "coffee", "reason": "2 of 3 say coffee"}),
            ("- a says Tea.\n- b says tea\n", {"agree": True, "answer": "Tea.", "reason": "2 of 2 say Tea."}),
            (
                "- a b says yes, at once\n- c says yes, in a year, because: why not\n",
                {"agree": False, "answer": "yes, at once", "reason": "1 of 2 say yes, at once"},
            ),
            (
                "- a says tea (green)\n- b says tea (black), because: (it is strong)\n",
                {"agree": False, "answer": "tea (green)", "reason": "1 of 2 say tea (green)"},
            ),
        ],
    )
    def test_a_verdict_counts_the_positions(self, text, verdict):
        assert self.fill(self.AGREE, f"The question was: which?\n\n{text}\nDo they agree?") == verdict

    def test_an_option_is_chosen_by_its_name_or_its_description_or_it_is_the_default(self):
        about = Field("anybody", description="Who. ann: finds sources; bob: draws charts")
        schema = create_model("Job", who=(Literal["anybody", "ann", "bob"], about)).model_json_schema()
        texts = ("ann draws", "two charts", "nothing")
        found = [fill(schema, text, random=Random(1), slips=1.0)["who"] for text in texts]
        assert found == ["ann", "bob", "anybody"]

    def test_points_are_the_items_of_a_list_or_else_the_sentences_that_are_no_headings(self):
        assert points("Do this:\n1. Look. Twice.\n- Count") == ["Look. Twice.", "Count"]
        assert points("Do this:\nLook. Count.") == ["Look.", "Count."]

    def test_what_is_to_be_put_together_is_told_in_full(self, world):
        agent = world.spawn(LLMAgent("agent", model="offline:instant"))
        assert (
            world.run(agent.ask("Consolidate these into one answer:\n1. two bees\n2. a cat\n3. rain"))
            == "two bees; a cat; rain."
        )


def test_who_is_to_go_on_goes_by_what_it_has_heard(world):
    ann, bob = (world.spawn(LLMAgent(name, model="offline:instant")) for name in ("ann", "bob"))

    async def twice():
        async with ann | bob:
            await ann.say("The mail server fails every Monday.")
            return [await bob.reply(), await bob.reply()]

    assert world.run(twice()) == ["The mail server fails every Monday."] * 2
