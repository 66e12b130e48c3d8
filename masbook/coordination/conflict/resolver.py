"""The resolver of conflicts: it tries strategy after strategy, and asks a person at last.

An agent like any other: every operation is a capability and a method. Whoever is in a conflict reports it, or a
`ConflictDetector` does (see `detection`). A strategy is a function of a `Case` (see `strategies`): give the resolver
your own by name. What a conflict and a resolution are is in `claims`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from ...errors import AgentOffline, InvalidValue, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability, require_async
from ...runtime.message import freeze
from ...runtime.trace import KINDS
from ...runtime.worker import current_worker
from .case import Case, Proposal, Strategy, notify
from .claims import Conflict, Outcome, Resolution
from .strategies import STRATEGIES, person
from .voting import RULES

FIRST: dict[str, str] = {
    "resource_contention": "priority",
    "task_assignment": "load_balancing",
    "data_inconsistency": "consensus",
    "priority": "voting",
    "capability_overlap": "arbitration",
}
Person = Callable[[Conflict], Awaitable[str | Mapping[str, Any] | None]]


class ConflictResolver(Agent):
    """Settles conflicts; what is resolved stays resolved.

    A conflict goes to the strategy that FIRST names for its kind, then to the next two in the order of STRATEGIES, then
    to a person, for `patience` virtual seconds, then to the strategy `default`, if there is one, whose word is final. A
    strategy fails if it decides nothing, or if participants with more than half of the weight reject what it proposes
    (a common position: any of them). Agents have `deadline` virtual seconds for each question; silence is an abstention
    where they vote or accept a winner, and a no to a common position.

        resolver = world.spawn(ConflictResolver("resolver", default="arbitration"))
        resolution = await resolver.resolve(Conflict("priority", "what comes first", participants))
    """

    service = True

    def __init__(
        self,
        name: str = "resolver",
        *,
        strategies: Mapping[str, Strategy] | None = None,
        rule: str = "plurality",
        deadline: float = 5.0,
        ask_person: Person | None = None,
        patience: float = 60.0,
        default: str | None = None,
    ) -> None:
        """`strategies` are added to the five; `rule` is one of `voting.RULES`.

        `ask_person` is a coroutine function that returns the choice of a person: the name of a participant, a decision
        of its own, or None.
        """
        super().__init__(name, concurrency=1000)  # it mostly waits
        if not isinstance(strategies or {}, Mapping):
            raise InvalidValue(f"strategies is {strategies!r}: give functions by name, such as {{'lottery': lottery}}")
        for label, strategy in (strategies or {}).items():
            require_async(strategy, f"the strategy {label!r}")
        if ask_person is not None:
            require_async(ask_person, "ask_person")
        self.strategies = {**STRATEGIES, "person": person, **(strategies or {})}
        self.rule = require.one_of("rule", rule, RULES)
        self.ask_person = ask_person
        self.deadline = require.positive("deadline", deadline)
        self.patience = require.not_negative("patience", patience)
        self.default = default and require.one_of("default", default, self.strategies)
        self.waiting: Counter[str] = Counter()  # who waits for a resolution in the middle of a message
        self._cases: dict[str, Case] = {}
        self._given: dict[int, Case] = {}  # by the identity of the conflict: equal conflicts are different conflicts

    @capability
    async def resolve(
        self, conflict: Conflict | str, strategy: str | list[str] | None = None, deadline: float | None = None
    ) -> Resolution:
        """Settle a conflict and return how; one that is resolved, given again or by its id, stays as it is.

        `strategy` is tried first instead of that for its kind; a list is all that is tried. InvalidValue at once for an
        unknown strategy or id, or a `deadline` (virtual seconds for each question) that is not positive.
        """
        case, (who, at_work) = self._enter(conflict, strategy, deadline), self._asker()
        self.waiting[who] += at_work
        try:
            what = f"the resolution of {case.conflict.id}"
            resolution: Resolution = await self.world.wait(asyncio.shield(case.done), who=who, what=what)
        finally:
            self.waiting[who] -= at_work
        return resolution

    @capability
    async def report(self, conflict: Conflict, strategy: str | list[str] | None = None) -> str:
        """Begin to settle a conflict and return its id at once; the participants will hear of it."""
        return self._enter(conflict, strategy, None).conflict.id

    @capability
    async def escalate(self, conflict: str) -> Resolution:
        """Go on with the next strategy, and return the resolution; one that there is already does not change."""
        case = self._case(conflict)
        if case.limit is not None and case.limit.when() is None:  # nobody else has in this instant
            case.limit.reschedule(self.now)
        resolution: Resolution = await self.resolve(conflict)
        return resolution

    @capability(cost=0.0)
    async def status(self, conflict: str | None = None) -> dict[str, Any]:
        """Return how a conflict stands, or the resolver: its state, load, and the ids of conflicts that are open."""
        if conflict is None:
            waiting = [name for name, case in self._cases.items() if not case.done.done()]
            return {**await super().status(), "open": waiting}
        case = self._case(conflict)
        resolution = case.done.result() if case.done.done() else None
        state = "open" if resolution is None else "resolved"
        return {"conflict": conflict, "status": state, "attempts": case.attempts, "resolution": resolution}

    @capability(cost=0.0)
    async def statistics(self) -> dict[str, Any]:
        """Return how many conflicts there were and how they ended, by kind, strategy and outcome, from the trace."""
        rows = [event.facts for event in self.world.trace.events("resolved", self.name)]
        conflicts = self.world.trace.count("conflict", self.name)
        resolved = sum(row["outcome"] != "unresolved" for row in rows)
        by = {"by_kind": "type", "by_strategy": "strategy", "by_outcome": "outcome"}
        counts = {name: Counter(sorted(row[field] for row in rows)) for name, field in by.items()}
        return {"conflicts": conflicts, "resolved": resolved, "open": conflicts - len(rows), **counts}

    def _case(self, name: str) -> Case:
        if name not in self._cases:
            raise InvalidValue(f"no conflict {name!r} here: give an id that `report` has returned")
        return self._cases[name]

    def _enter(self, given: Conflict | str, strategy: str | list[str] | None, deadline: float | None) -> Case:
        """Return the case of a conflict; begin to settle it, if it is new."""
        deadline = self.deadline if deadline is None else require.positive("deadline", deadline)
        for name in [strategy] if isinstance(strategy, str) else require.names("strategy", strategy or ()):
            require.one_of("strategy", name, self.strategies)
        if strategy is not None and not strategy:
            raise InvalidValue(f"strategy is {strategy!r}: give at least one, or leave it out")
        if isinstance(given, str):
            return self._case(given)
        if not isinstance(given, Conflict):
            raise InvalidValue(f"{given!r} is no conflict: give Conflict(kind, description, participants)")
        return self._given.get(id(given)) or self._cases.get(given.id) or self._take_up(given, strategy, deadline)

    def _take_up(self, given: Conflict, strategy: str | list[str] | None, deadline: float) -> Case:
        """Begin to settle a conflict."""
        if not self.online:
            raise AgentOffline(f"{self.name} settles nothing: {self.why_offline()}")
        conflict = replace(given, id=self.world.new_id("conflict"))
        case = Case(self, conflict, given, deadline, self.now, self.world.loop.create_future())
        self._given[id(given)] = self._cases[conflict.id] = case
        names = [party.name for party in conflict.participants]
        facts = {"type": conflict.kind, "participants": names, "description": conflict.description}
        self.world.trace.record("conflict", self.name, conflict=conflict.id, **facts)
        for party in conflict.participants:
            case.record(party.name, {"claim": party.claim}, round=0)
        self.background(self._settle(case, self._chain(conflict.kind, strategy)))
        return case

    def _asker(self) -> tuple[str, bool]:
        """Return who asks for a resolution, and whether in the middle of the handling of a message."""
        worker = current_worker.get()
        if worker is None or worker.message is None:
            return self.name, False
        if worker.agent is not self:
            return worker.agent.name, True
        return worker.message.sender, worker.message.cause is not None

    def _chain(self, kind: str, strategy: str | list[str] | None) -> list[tuple[str, Outcome]]:
        """Return the strategies to try, each with the outcome if it succeeds."""
        last: list[tuple[str, Outcome]] = []
        if strategy is None or isinstance(strategy, str):
            last += [("person", "person")] if self.patience and strategy != "person" else []
            last += [(self.default, "default")] if self.default else []
            order, first = list(STRATEGIES), strategy or FIRST[kind]
            start = order.index(first if first in STRATEGIES else FIRST[kind])
            strategy = list(dict.fromkeys([first, *order[start:], *order[:start]]))[:3]
        return [(strategy[0], "resolved"), *[(name, "escalated") for name in strategy[1:]], *last]

    async def _settle(self, case: Case, chain: list[tuple[str, Outcome]]) -> None:
        """Try one strategy after the other until one succeeds."""
        try:
            for name, outcome in chain:
                if proposal := await self._attempt(case, name, final=outcome == "default"):
                    return self._conclude(case, outcome, proposal)
            self._given.pop(id(case.given))  # to give it again is to try again
            return self._conclude(case, "unresolved", case.undecided("no strategy decided it"))
        finally:
            if not case.done.done():
                self._given.pop(id(case.given), None)
                del self._cases[case.conflict.id]
                case.done.set_exception(AgentOffline(f"{self.name} stopped before {case.conflict.id} was resolved"))
                case.done.exception()  # perhaps nobody waits for it

    async def _attempt(self, case: Case, name: str, final: bool) -> Proposal | None:
        """Return what a strategy proposes, unless that is nothing, or rejected; its error is an attempt that failed."""
        case.strategy, outcome = name, "resolved"
        case.silent.clear()
        case.attempts.append(name)
        try:
            async with asyncio.timeout(None) as case.limit:
                proposal = await self.strategies[name](case)
                if not isinstance(proposal, Proposal):
                    raise InvalidValue(f"{name} returned {proposal!r}: return case.award(...), agree or undecided")
                reason = proposal.reason
                if proposal.decision is None:
                    outcome = "undecided"
                elif not final and (against := await self._rejections(case, proposal)):
                    outcome, reason = "rejected", f"rejected by {', '.join(against)}"
        except Exception as error:
            outcome, reason = "error", f"{type(error).__name__}: {describe(error)}"
            if case.limit is not None and case.limit.expired():
                outcome, reason = "escalated", "given up on request"
        case.limit = None
        facts = {"conflict": case.conflict.id, "strategy": name, "outcome": outcome, "reason": reason}
        self.world.trace.record("attempted", self.name, **facts)
        return proposal if outcome == "resolved" else None

    async def _rejections(self, case: Case, proposal: Proposal) -> list[str]:
        """Return who rejects a proposal, if that is enough to make it fall."""
        if proposal.veto >= 1:
            return []
        content: dict[str, Any] = {"winner": proposal.winner, "decision": proposal.decision}
        answers = await case.ask("accept", stated=lambda _: None, read=lambda _, answer: answer is True, **content)
        against = [name for name, accepted in answers.items() if not accepted]
        if not proposal.veto:
            return [*against, *case.silent]
        weight = sum(case.conflict.party(name).weight for name in against)
        return against if weight > proposal.veto * case.conflict.weight else []

    def _conclude(self, case: Case, outcome: Outcome, proposal: Proposal) -> None:
        """Resolve the conflict for good, and tell its participants."""
        conflict, winner, decision = case.conflict, proposal.winner, proposal.decision
        resolution = Resolution(
            conflict=conflict.id,
            kind=conflict.kind,
            winner=winner,
            strategy=case.strategy,
            decision=decision,
            outcome=outcome,
            reason=proposal.reason,
            satisfaction=conflict.satisfaction(winner, decision),
            attempts=tuple(case.attempts),
            seconds=self.now - case.began,
        )
        facts = {name: getattr(resolution, name) for name in KINDS["resolved"] if name != "type"}
        self.world.trace.record("resolved", self.name, type=conflict.kind, **facts)
        case.done.set_result(resolution)
        there = [party.name for party in conflict.participants if party.name in self.world.agents]
        notify(self, there, "conflict.resolved", freeze(resolution))
