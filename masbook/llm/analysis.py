"""Four agents read a support ticket at the same time: its mood, its difficulty, its consequences, its risk.

Whoever has a ticket calls `panel.analyse`, or asks the panel by message. Each of the four has a time-out, and what the
others found is a result all the same: the report says who failed and why. `Analyst` is a worker that takes tickets to a
panel, for the pools of a `PriorityQueues`. Replace the model of one agent with `model={"risk": "offline:strong"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic_ai.models import Model

from ..coordination.dispatch import Worker
from ..errors import InvalidName, InvalidValue, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from .agent import LLMAgent
from .opinions import (
    INSTRUCTIONS,
    KINDS,
    Analysis,
    BusinessAnalysis,
    RiskAnalysis,
    SentimentAnalysis,
    TechnicalAnalysis,
)
from .outcomes import together

if TYPE_CHECKING:
    from ..runtime.supervision import Supervision
    from ..runtime.world import World

Priority = Literal["high", "normal", "low"]
URGENCY: dict[str, Priority] = {"high": "high", "negative": "normal", "medium": "normal"}  # of an action; else low


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done, by how urgent that is, and the analysis that says so."""

    priority: Priority
    by: str
    action: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result: `timed_out` or `failed`, with the error."""

    reason: Literal["timed_out", "failed"]
    error: str


@dataclass(frozen=True, slots=True)
class AnalysisReport:
    """What the panel found out about a ticket.

    `results` and `failures` are by agent: each of them is in exactly one of the two. `success_rate` is the share of the
    agents that gave a result, `seconds` the virtual seconds each one took, `actions` the most urgent first.
    """

    ticket: str
    results: dict[str, SentimentAnalysis | TechnicalAnalysis | BusinessAnalysis | RiskAnalysis]
    failures: dict[str, Failure]
    success_rate: float
    seconds: dict[str, float]
    summary: str
    actions: list[Action]


class AnalysisPanel(Agent):
    """Four agents that analyse tickets side by side, each with a time-out.

    `model` is one for all, or a mapping from agents (`sentiment`, `technical`, `business`, `risk`) to models. The
    agents are called PANEL_sentiment and so on. They work on up to `concurrency` tickets at once. What is asked by
    message waits for its turn before its time begins; what is called waits for the agents, and that counts.

        panel = world.spawn(AnalysisPanel("panel", model="offline"))
        report = world.run(panel.analyse("Nobody answers. Our lawyer will write.", timeout=10.0))
        report.results["risk"].label, report.success_rate
    """

    def __init__(
        self,
        name: str,
        model: str | Model | Mapping[str, str | Model | None] | None = None,
        *,
        concurrency: int = 100,
        model_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        """Make the four agents; `model_timeout` is that of `LLMAgent`, in seconds, `options` are those of Agent."""
        super().__init__(name, concurrency=concurrency, **options)
        models = dict(model) if isinstance(model, Mapping) else dict.fromkeys(KINDS, model)
        for asked in models:
            require.one_of("an agent in `model`", asked, KINDS)
        self.agents = {
            kind: LLMAgent(
                f"{name}_{kind}",
                INSTRUCTIONS[kind],
                model=models.get(kind),
                output_type=output,
                concurrency=concurrency,
                timeout=model_timeout,
                tags=["analysis"],
            )
            for kind, output in KINDS.items()
        }

    def check_place(self, world: World) -> None:
        """Refuse a world in which one of the four would have a namesake, before anything is recorded; InvalidName."""
        super().check_place(world)
        for agent in self.agents.values():
            namesake = world.bus.agent(agent.name)
            if namesake is not None and namesake.online:
                raise InvalidName(f"there is already an agent called {agent.name!r}; give the panel another name")
            agent.check_place(world)

    def enter(self, world: World, parent: Agent | None, supervision: Supervision) -> None:
        """Come into a world together with the four agents."""
        super().enter(world, parent, supervision)
        for agent in self.agents.values():
            world.spawn(agent, parent=self, restart="on_crash")

    async def on_start(self) -> None:
        """Bring those back that stopped with the panel."""
        for agent in self.agents.values():
            agent.restart()

    async def on_stop(self) -> None:
        """Stop the four agents."""
        for agent in self.agents.values():
            agent.stop(f"{self.name} has stopped")

    @capability(cost=4.0)
    async def analyse(self, ticket: str | dict[str, Any], timeout: float = 10.0) -> AnalysisReport:
        """Have a ticket analysed by all four at once and return what they found in `timeout` virtual seconds each.

        A ticket is a text, or a row of tickets.csv: a mapping with `message`, and perhaps `id`, `subject`, and `name`,
        `tier`, `status` and `interactions` of the customer. InvalidValue for a ticket without a message.
        """
        require.positive("timeout", timeout)
        number, prompt = _written(ticket)
        number = number or self.world.new_id("ticket")
        asked = await together(self._ask(kind, prompt, timeout) for kind in self.agents)
        results: dict[str, Any] = {kind: found for kind, found, _ in asked if isinstance(found, Analysis)}
        failures = {kind: found for kind, found, _ in asked if isinstance(found, Failure)}
        seconds = {kind: spent for kind, _, spent in asked}
        rate, summary = len(results) / len(asked), _summary(results, failures)
        return AnalysisReport(number, results, failures, rate, seconds, summary, _actions(results))

    async def _ask(self, kind: str, prompt: str, timeout: float) -> tuple[str, Analysis | Failure, float]:
        """Return what one agent found, or why it did not, and how many virtual seconds that took."""
        began = self.now
        try:
            options: dict[str, Any] = {"timeout": timeout, "on_timeout": "cancel"}
            answer = await self.request(self.agents[kind].name, "ask", {"prompt": prompt}, **options)
            return kind, KINDS[kind].model_validate(answer), self.now - began
        except Exception as error:  # of whatever kind: the others' results stand, and the report says it
            reason: Literal["timed_out", "failed"] = "timed_out" if isinstance(error, TimeoutError) else "failed"
            return kind, Failure(reason, f"{type(error).__name__}: {describe(error)}"), self.now - began


class Analyst(Worker):
    """A worker that takes one ticket at a time to a panel; its tag says which queue of a PriorityQueues it serves.

    Its analyses have `timeout` virtual seconds each; for its turn at the panel it waits up to `patience`.

    queues = world.spawn(PriorityQueues("queues"))
    world.spawn(Analyst("analyst_1", "panel", tags=["high"]))
    outcome = world.run(queues.execute("analyse_ticket", {"ticket": ticket}, priority="high"))
    """

    def __init__(
        self, name: str, panel: str | AnalysisPanel, *, timeout: float = 10.0, patience: float = 300.0, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.panel = panel.name if isinstance(panel, AnalysisPanel) else require.text("panel", panel)
        self.patience = require.positive("patience", patience)
        self.timeout = require.positive("timeout", timeout)

    @capability(cost=4.0)
    async def analyse_ticket(self, ticket: str | dict[str, Any]) -> AnalysisReport:
        """Return the panel's report about a ticket."""
        content = {"ticket": ticket, "timeout": self.timeout}
        report: AnalysisReport = await self.request(self.panel, "analyse", content, timeout=self.patience)
        return report


def _written(ticket: Any) -> tuple[str | None, str]:
    """Return the id of a ticket, if it has one, and what the agents get to read: the labels are not in it."""
    facts: dict[str, Any] = dict(ticket) if hasattr(ticket, "keys") else {"message": ticket}  # so has a row of pandas
    customer: Any = facts.get("customer_info")
    facts = {**(customer if isinstance(customer, Mapping) else {}), **facts}
    message = facts.get("message")
    if not isinstance(message, str) or not message.strip():
        raise InvalidValue(f"the ticket {ticket!r}: give a text, or a mapping with the text as its 'message'")
    lines = [f"Subject: {facts['subject']}"] if isinstance(facts.get("subject"), str) else []
    known = {name: value for name, value in facts.items() if isinstance(value, str | Real) and value == value}  # no NaN
    about = "; ".join(
        f"{label}: {next(known[name] for name in names if name in known)}"
        for label, names in _CUSTOMER.items()
        if known.keys() & names
    )
    number = facts.get("id")
    return None if number is None else str(number), "\n".join([*lines, f"Message: {message.strip()}", about]).strip()


_CUSTOMER = {
    "customer": ("name", "customer_name"),
    "tier": ("tier",),
    "account": ("status", "account_status"),
    "earlier messages": ("interactions", "interaction_count"),
}


def _summary(results: Mapping[str, Analysis], failures: Mapping[str, Failure]) -> str:
    """Return what was found and what was not, in a sentence."""
    found = [f"{kind} {result.label} ({result.confidence:.0%})" for kind, result in results.items()]
    lost = [f"{kind} {failure.reason.replace('_', ' ')}" for kind, failure in failures.items()]
    urgent = [kind for kind, result in results.items() if result.requires_action]
    count = f"{len(results)} of {len(results) + len(failures)} analyses completed: "
    return count + ", ".join(found + lost) + (f"; action required: {', '.join(urgent)}" if urgent else "")


def _actions(results: Mapping[str, Analysis]) -> list[Action]:
    """Return what the agents recommend, each thing once: the most urgent first, then the most certain."""
    found: dict[str, Action] = {}
    for kind, result in sorted(results.items(), key=_rank):
        for text in result.recommendations:
            found.setdefault(text, Action(_urgency(result), kind, text))
    return list(found.values())


def _urgency(result: Analysis) -> Priority:
    return URGENCY.get(result.label, "low")


def _rank(found: tuple[str, Analysis]) -> tuple[int, float]:
    """Return what results are sorted by."""
    return get_args(Priority).index(_urgency(found[1])), -found[1].confidence
