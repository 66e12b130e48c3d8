"""The resolver of conflicts: it tries strategy after strategy, and asks a person at last.

An agent like any other: every operation is a capability and a method. Whoever is in a conflict reports it, or a
`ConflictDetector` does (see `detection`). A strategy is a function of a `Case` (see `strategies`): give the resolver
your own by name. What a conflict and a resolution are is in `claims`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import AgentOffline, InvalidValue, MasbookError, describe
from ..runtime import require
from ..runtime.agent import Agent
from ..runtime.capability import capability
from ..runtime.message import MessageType, freeze
from ..runtime.trace import KINDS
from .claims import Conflict, Outcome, Participant, Resolution
from .strategies import STRATEGIES, Case, Proposal, Strategy
from .voting import RULES

__all__ = ["Conflict", "ConflictResolver", "Participant", "Resolution"]

FIRST: dict[str, str] = {
    "resource_contention": "priority",
    "task_assignment": "load_balancing",
    "data_inconsistency": "consensus",
    "priority": "voting",
    "capability_overlap": "arbitration",
}
Person = Callable[[Conflict], Awaitable[str | Mapping[str, Any] | None]]


@dataclass(slots=True)
class _Entry:
    """A conflict that the resolver knows, and what becomes of it."""

    given: Conflict  # as it was handed over; `conflict` has an id
    conflict: Conflict
    deadline: float
    began: float
    done: asyncio.Future[Resolution]
    attempts: tuple[str, ...] = ()
    limit: asyncio.Timeout | None = None  # of the attempt that is going on
    answer: asyncio.Future[Any] | None = None  # of the person who is being asked

    @property
    def resolution(self) -> Resolution | None:
        return self.done.result() if self.done.done() else None


class ConflictResolver(Agent):
    """Settles conflicts; what is resolved stays resolved.

    A conflict goes to the strategy that FIRST names for its kind, then to the next two in the order of STRATEGIES, then
    to a person, for `patience` virtual seconds, then to the strategy `default`, if there is one, whose word is final. A
    strategy fails if it decides nothing, or if participants with more than half of the weight reject what it proposes
    (a common position: any of them). Agents have `deadline` virtual seconds for each question; in a vote, silence is
    an abstention, in everything else a no.

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
        arbiter: str | None = None,
        deadline: float = 5.0,
        ask_person: Person | None = None,
        patience: float = 60.0,
        default: str | None = None,
    ) -> None:
        """`strategies` are added to the five; `rule` is one of `voting.RULES`; `arbiter` the name of an agent.

        `ask_person` is a coroutine function that returns the choice of a person: the name of a participant, a decision
        of its own, or None. Whether or not there is one, anybody may `answer` what is `pending`; see there.
        """
        super().__init__(name, concurrency=1000)  # it mostly waits
        self.strategies = {**STRATEGIES, **(strategies or {})}
        self.rule = require.one_of("rule", rule, RULES)
        self.arbiter = arbiter
        self.deadline = require.positive("deadline", deadline)
        self.ask_person = ask_person
        self.patience = require.not_negative("patience", patience)
        self.default = None if default is None else require.one_of("default", default, self.strategies)
        self._entries: dict[str, _Entry] = {}
        self._given: dict[int, _Entry] = {}  # by identity, because equal conflicts are different conflicts
        self.waiting: Counter[str] = Counter()  # who waits for a resolution in the middle of a message

    @capability
    async def resolve(
        self, conflict: Conflict | str, strategy: str | list[str] | None = None, deadline: float | None = None
    ) -> Resolution:
        """Settle a conflict and return how; one that is resolved, given again or by its id, stays as it is.

        `strategy` is tried first instead of that for its kind; a list is all that is tried. InvalidValue at once for an
        unknown strategy or id, or a `deadline` (virtual seconds for each question) that is not positive.
        """
        entry, message = self._enter(conflict, strategy, deadline), self.handling()
        who = self.name if message is None else message.sender
        self.waiting[who] += message is not None and message.cause is not None
        try:
            what = f"the resolution of {entry.conflict.id}"
            resolution: Resolution = await self.world.wait(asyncio.shield(entry.done), who=who, what=what)
        finally:
            self.waiting[who] -= message is not None and message.cause is not None
        return resolution

    @capability
    async def report(self, conflict: Conflict, strategy: str | list[str] | None = None) -> str:
        """Begin to settle a conflict and return its id at once; the participants will hear of it."""
        return self._enter(conflict, strategy, None).conflict.id

    @capability
    async def escalate(self, conflict: str) -> Resolution:
        """Go on with the next strategy, and return the resolution; one that there is already does not change."""
        entry = self._entry(conflict)
        if entry.resolution is None and entry.limit is not None:
            entry.limit.reschedule(self.now)
        resolution: Resolution = await self.resolve(conflict)
        return resolution

    @capability
    async def answer(self, conflict: str, choice: str | dict[str, Any]) -> None:
        """Decide a pending conflict as a person: the name of a participant, or a decision of one's own.

        InvalidValue if nobody is asked about that conflict, or any more, or the participant is not in it.
        """
        entry = self._entry(conflict)
        if entry.answer is None or entry.answer.done():
            raise InvalidValue(f"{conflict} is not pending; those that are: {', '.join(self._pending()) or 'none'}")
        if isinstance(choice, str):
            entry.conflict.party(choice)
        entry.answer.set_result(choice)

    @capability(cost=0.0)
    async def status(self, conflict: str | None = None) -> dict[str, Any]:
        """Return how a conflict stands, or the resolver: its state, load, and the ids that are open and pending."""
        if conflict is None:
            waiting = [name for name, entry in self._entries.items() if entry.resolution is None]
            return {**await super().status(), "open": waiting, "pending": self._pending()}
        entry = self._entry(conflict)
        state = "resolved" if entry.done.done() else "pending" if conflict in self._pending() else "open"
        facts = {"conflict": conflict, "kind": entry.conflict.kind, "status": state, "attempts": entry.attempts}
        return {**facts, "resolution": entry.resolution}

    @capability(cost=0.0)
    async def statistics(self) -> dict[str, Any]:
        """Return how many conflicts there were, and resolutions by kind, strategy and outcome, counted in the trace."""
        rows = [event.facts for event in self.world.trace.events("resolved", self.name)]
        counts = {f"by_{name}": Counter(row[name] for row in rows) for name in ("type", "strategy", "outcome")}
        conflicts = self.world.trace.count("conflict", self.name)
        decided = sum(row["outcome"] != "unresolved" for row in rows)
        facts = {"conflicts": conflicts, "resolved": decided, "open": conflicts - len(rows)}
        return {**facts, **{name: dict(sorted(found.items())) for name, found in counts.items()}}

    @property
    def pending(self) -> list[Conflict]:
        """The conflicts that wait for a person; each was published on `conflict.pending`."""
        return [self._entries[name].conflict for name in self._pending()]

    def _pending(self) -> list[str]:
        return [name for name, entry in self._entries.items() if entry.answer is not None and not entry.answer.done()]

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise InvalidValue(f"no conflict {name!r} here: give an id that `report` has returned")
        return self._entries[name]

    def _enter(self, given: Conflict | str, strategy: str | list[str] | None, deadline: float | None) -> _Entry:
        """Return what is known of a conflict; begin to settle it, if it is new."""
        if deadline is not None:
            require.positive("deadline", deadline)
        for name in [strategy] if isinstance(strategy, str) else strategy or ():
            require.one_of("strategy", name, self.strategies)
        if isinstance(given, str):
            return self._entry(given)
        if not isinstance(given, Conflict):
            raise InvalidValue(f"{given!r} is no conflict: give Conflict(kind, description, participants)")
        entry = self._given.get(id(given)) or self._entries.get(given.id)
        if entry is None or entry.conflict.description != given.description:
            if not self.online:
                raise AgentOffline(f"{self.name} has stopped; {self.why_offline()}")
            conflict = replace(given, id=self.world.new_id("conflict"))
            done = self.world.loop.create_future()
            entry = _Entry(given, conflict, deadline or self.deadline, self.now, done)
            self._given[id(given)] = self._entries[conflict.id] = entry
            self._record_claims(conflict)
            self.background(self._settle(entry, self._chain(conflict.kind, strategy)))
        return entry

    def _chain(self, kind: str, strategy: str | list[str] | None) -> list[str]:
        """Return the strategies to try: the list given, or three, as the class says."""
        if isinstance(strategy, list):
            return strategy
        order, first = list(STRATEGIES), strategy or FIRST[kind]
        start = order.index(first if first in order else FIRST[kind])
        chain = [order[(start + step) % len(order)] for step in range(3)]
        return chain if first in order else [first, *chain[:2]]

    def _record_claims(self, conflict: Conflict) -> None:
        record, facts = self.world.trace.record, {"type": conflict.kind, "description": conflict.description}
        names = [party.name for party in conflict.participants]
        record("conflict", self.name, conflict=conflict.id, participants=names, **facts)
        for party in conflict.participants:
            record("position", party.name, conflict=conflict.id, round=0, position={"claim": party.claim})

    async def _settle(self, entry: _Entry, chain: Iterable[str]) -> None:
        try:
            for strategy in chain:
                if proposal := await self._attempt(entry, strategy):
                    return self._conclude(entry, "resolved" if len(entry.attempts) == 1 else "escalated", proposal)
            if proposal := await self._hear_person(entry):
                return self._conclude(entry, "person", proposal)
            if self.default and (proposal := await self._attempt(entry, self.default, final=True)):
                return self._conclude(entry, "default", proposal)
            del self._given[id(entry.given)]  # to give it again is to try again
            self._conclude(entry, "unresolved", Proposal(None, None, "nothing decided it"))
        finally:
            if not entry.done.done():
                entry.done.set_exception(AgentOffline(f"{self.name} stopped before {entry.conflict.id} was resolved"))
                entry.done.exception()  # perhaps nobody waits for it

    async def _attempt(self, entry: _Entry, name: str, final: bool = False) -> Proposal | None:
        """Return what a strategy proposes, unless that is nothing, or rejected; its error is an attempt that failed."""
        case = Case(self, entry.conflict, name, entry.deadline)
        outcome = "resolved"
        try:
            async with asyncio.timeout(None) as entry.limit:
                proposal = await self.strategies[name](case)
                reason = proposal.reason
                if proposal.decision is None:
                    outcome = "undecided"
                elif not final and (against := await self._rejections(case, proposal)):
                    outcome, reason = "rejected", f"rejected by {', '.join(against)}"
        except Exception as error:
            escalated = entry.limit is not None and entry.limit.expired()
            outcome = "escalated" if escalated else "error"
            reason = "given up on request" if escalated else f"{type(error).__name__}: {describe(error)}"
        entry.limit = None
        self._record_attempt(entry, name, outcome, reason)
        return proposal if outcome == "resolved" else None

    def _record_attempt(self, entry: _Entry, strategy: str, outcome: str, reason: str) -> None:
        entry.attempts += (strategy,)
        facts = {"conflict": entry.conflict.id, "strategy": strategy, "outcome": outcome, "reason": reason}
        self.world.trace.record("attempted", self.name, **facts)

    async def _rejections(self, case: Case, proposal: Proposal) -> list[str]:
        """Return who rejects a proposal, if that is enough to make it fall."""
        if proposal.veto >= 1:
            return []
        content: dict[str, Any] = {"winner": proposal.winner, "decision": proposal.decision}
        answers = await case.ask("accept", stated=lambda _: None, read=lambda _, answer: answer is True, **content)
        against = [name for name, accepted in answers.items() if not accepted]
        if not proposal.veto:
            against += case.silent
        weight = sum(case.conflict.party(name).weight for name in against)
        return against if weight > proposal.veto * case.conflict.weight else []

    async def _hear_person(self, entry: _Entry) -> Proposal | None:
        """Return the decision of a person, or None if there is none in time."""
        if not self.patience:
            return None
        conflict, loop = entry.conflict, self.world.loop
        entry.answer = loop.create_future()
        answers: list[asyncio.Future[Any]] = [entry.answer]
        if self.ask_person is not None:
            answers.append(loop.create_task(_awaited(self.ask_person(conflict)), name=self.name))
        await self.publish("conflict.pending", conflict=conflict, until=self.now + self.patience)
        first = asyncio.wait(answers, timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
        proposal, outcome, reason = None, "unanswered", f"no answer in {self.patience:g} s"
        try:
            await self.world.wait(first, who=self.name, what=f"a person to decide {conflict.id}")
            choice = next((answer.result() for answer in answers if answer.done()), None)
            if choice is not None:
                case, outcome, reason = Case(self, conflict, "person", self.patience), "resolved", "decided by a person"
                proposal = case.award(choice, reason) if isinstance(choice, str) else case.agree(choice, reason)
        except Exception as error:
            outcome, reason = "error", f"{type(error).__name__}: {describe(error)}"
        finally:
            for answer in answers:
                answer.cancel()
        self._record_attempt(entry, "person", outcome, reason)
        return proposal

    def _conclude(self, entry: _Entry, outcome: Outcome, proposal: Proposal) -> None:
        """Resolve the conflict for good, and tell its participants."""
        conflict, winner, decision = entry.conflict, proposal.winner, proposal.decision
        resolution = Resolution(
            conflict=conflict.id,
            kind=conflict.kind,
            winner=winner,
            strategy=entry.attempts[-1],
            decision=decision,
            outcome=outcome,
            reason=proposal.reason,
            satisfaction=conflict.satisfaction(winner, decision),
            attempts=entry.attempts,
            seconds=self.now - entry.began,
        )
        facts = {name: getattr(resolution, name) for name in KINDS["resolved"] if name != "type"}
        self.world.trace.record("resolved", self.name, type=conflict.kind, **facts)
        entry.done.set_result(resolution)
        for party in conflict.participants:
            if party.name in self.world.agents:
                with contextlib.suppress(MasbookError):  # a dead letter or a refusal: the trace has it
                    self.world.bus.post(self, MessageType.TELL, party.name, "conflict.resolved", freeze(resolution))


async def _awaited(choice: Awaitable[Any]) -> Any:
    return await choice
