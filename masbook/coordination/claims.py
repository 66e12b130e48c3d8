"""What is disputed and by whom: `Conflict`, its participants and what they claim, and the `Resolution` it ends in.

Plain frozen data, which travels in messages. Everything that a strategy compares is defined here: the order that breaks
ties, the options to choose from, how far a participant would go, and how content it is with a decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ..errors import InvalidValue
from ..runtime import require
from ..runtime.message import FrozenDict, freeze

Kind = Literal["resource_contention", "task_assignment", "data_inconsistency", "priority", "capability_overlap"]
Outcome = Literal["resolved", "escalated", "person", "default", "unresolved"]
EXCLUSIVE = ("resource_contention", "task_assignment", "capability_overlap")  # only one can have what it claims
ROUNDS = 10  # of concessions, from the claim to the limit


@dataclass(frozen=True, slots=True)
class Participant:
    """A party to a conflict: what it claims, how far it would go, and how much it counts.

    `limits` says how far by key of the claim: for a number the last value it would take, for anything else a list of
    alternatives, best first; a key without a limit is not negotiable. `load` and `capabilities` are what it states
    about itself; an agent of that name is asked instead.
    """

    name: str
    claim: Mapping[str, Any] = field(default_factory=FrozenDict)
    priority: float = 0
    weight: float = 1.0
    limits: Mapping[str, Any] = field(default_factory=FrozenDict)
    load: float | None = None
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        who = f"of participant {self.name!r}"
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidValue(f"a participant called {self.name!r}: give the name of an agent")
        for what in ("claim", "limits"):
            if not isinstance(getattr(self, what), Mapping):
                raise InvalidValue(f"the {what} {who}: give named values, such as {{'resource': 'gpu_1'}}")
            object.__setattr__(self, what, freeze(getattr(self, what), what))
        if not math.isfinite(require.number(f"the priority {who}", self.priority)):
            raise InvalidValue(f"the priority {who} is infinite: give a finite number")
        if require.not_negative(f"the weight {who}", self.weight) == math.inf:
            raise InvalidValue(f"the weight {who} is infinite: give a finite number")
        if self.load is not None:
            require.not_negative(f"the load {who}", self.load)
        object.__setattr__(self, "capabilities", require.names(f"the capabilities {who}", self.capabilities))
        for key, limit in self.limits.items():
            require.one_of(f"a limit {who}", key, self.claim)
            if is_number(self.claim[key]):
                require.number(f"the limit for {key!r} {who}", limit)
            elif not isinstance(limit, list):
                raise InvalidValue(f"the limit for {key!r} {who} is {limit!r}: give a list of alternatives, best first")

    def offer(self, round: int) -> dict[str, Any]:
        """Return what it offers in a round of concessions, from 1 to ROUNDS: from its claim evenly to its limits."""
        return {key: _conceded(ideal, self.limits.get(key), round) for key, ideal in self.claim.items()}

    def value(self, position: Mapping[str, Any]) -> float:
        """Return how much of its claim a position gives it, the mean over its keys.

        1 is all of it; a number counts less the nearer it is to the limit, an alternative the later it is in the list.
        """
        values = [self._value(key, _own(position.get(key), self.name)) for key in self.claim]
        return sum(values) / len(values) if values else 1.0

    def _value(self, key: str, value: Any) -> float:
        ideal, limit = self.claim[key], self.limits.get(key)
        if value == ideal:
            return 1.0
        if isinstance(limit, list):
            return 1 - (limit.index(value) + 1) / (len(limit) + 1) if value in limit else 0.0
        if limit is None or limit == ideal or not is_number(value):
            return 0.0
        return max(0.0, 1 - float(abs(value - ideal) / abs(limit - ideal)))


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is disputed, and by whom; the order of the participants is the last tie-break.

    `context` holds what strategies look at: `capacity`, how much there is of a number that is to be divided, by key;
    `required_capabilities` for arbitration. The resolver gives the `id`.
    """

    kind: Kind
    description: str
    participants: Sequence[Participant]
    context: Mapping[str, Any] = field(default_factory=FrozenDict)
    id: str = ""

    def __post_init__(self) -> None:
        require.one_of("the kind of conflict", self.kind, get_args(Kind))
        parties = self.participants
        if not isinstance(parties, Iterable) or isinstance(parties, str | Mapping):
            raise InvalidValue(f"participants is {parties!r}: give a list of Participant(name, claim)")
        object.__setattr__(self, "participants", tuple(parties))
        if not self.participants:
            raise InvalidValue("a conflict has no participants: give those who are in it")
        for party in self.participants:
            if not isinstance(party, Participant):
                raise InvalidValue(f"{party!r} is no participant: give Participant(name, claim)")
        names = [party.name for party in self.participants]
        if len(set(names)) < len(names):
            raise InvalidValue(f"a participant is named twice in {names}: give each once, with all that it claims")
        object.__setattr__(self, "context", freeze(self.context, "context"))
        for key, room in self.context.get("capacity", {}).items():
            require.not_negative(f"the capacity for {key!r}", room)

    def party(self, name: str) -> Participant:
        """Return the participant of that name; InvalidValue if there is none."""
        found = next((party for party in self.participants if party.name == name), None)
        if found is None:
            raise InvalidValue(f"{name!r} is not in the conflict; {', '.join(p.name for p in self.participants)} are")
        return found

    @property
    def weight(self) -> float:
        """The weight of all participants."""
        return math.fsum(party.weight for party in self.participants)

    def by_rank(self) -> list[Participant]:
        """Return the participants in the order that breaks every tie: priority, then weight, then as they are named."""
        return sorted(self.participants, key=lambda party: (-party.priority, -party.weight))

    def options(self) -> dict[str, Mapping[str, Any]]:
        """Return the claims to choose from, by who makes them, in order of rank.

        Where several can have what they claim, as with data, equal claims are one option, that of the first.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for party in self.by_rank():
            if self.kind in EXCLUSIVE or party.claim not in found.values():
                found[party.name] = party.claim
        return found

    def option(self, name: str) -> str:
        """Return the option that a participant's claim is; InvalidValue if it is not in the conflict."""
        claim, options = self.party(name).claim, self.options()
        return name if name in options else next(other for other in options if options[other] == claim)

    def seen_by(self, name: str) -> Conflict:
        """Return the conflict as a participant may see it: without the limits of the others."""
        parties = [party if party.name == name else replace(party, limits={}) for party in self.participants]
        return replace(self, participants=tuple(parties))

    def ballot(self, name: str) -> list[str]:
        """Return the options that are worth something to a participant, best first: its own, if only one can win."""
        party, options = self.party(name), self.options()
        if self.kind in EXCLUSIVE:
            return [name]
        worth = {option: party.value(claim) for option, claim in options.items()}
        return sorted((option for option in worth if worth[option] > 0), key=lambda option: -worth[option])

    def satisfaction(self, winner: str | None, decision: Mapping[str, Any] | None) -> dict[str, float]:
        """Return how content each participant is with a decision, from 0 to 1."""
        if decision is None:
            return {party.name: 0.0 for party in self.participants}
        if winner is not None and self.kind in EXCLUSIVE:
            return {party.name: float(party.name == winner) for party in self.participants}
        return {party.name: party.value(decision) for party in self.participants}


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a conflict ended, for good.

    `decision` is the claim of the `winner`, or a common position, with no winner; neither if it is `unresolved`.
    `outcome` says who decided: the first strategy (`resolved`), a later one (`escalated`), a `person` or the `default`.
    `attempts` are the strategies tried, `satisfaction` is from 0 to 1 by participant, `seconds` the virtual time taken.
    """

    conflict: str
    kind: Kind
    winner: str | None
    strategy: str
    decision: Mapping[str, Any] | None
    outcome: Outcome
    reason: str
    satisfaction: Mapping[str, float]
    attempts: tuple[str, ...]
    seconds: float

    @property
    def resolved(self) -> bool:
        """Whether anything was decided."""
        return self.outcome != "unresolved"


def is_number(value: Any) -> bool:
    """Return whether the value can be halved and added; True and False cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _conceded(ideal: Any, limit: Any, round: int) -> Any:
    """Return what is offered in a round for one key: a number on its way, or the next alternative."""
    if isinstance(limit, list):
        return [ideal, *limit][min(len(limit), round)]
    return ideal if limit is None else limit if round >= ROUNDS else ideal + (limit - ideal) * round / ROUNDS


def _own(value: Any, name: str) -> Any:
    """Return the share of a participant in what has been divided, or else the value."""
    return value[name] if isinstance(value, Mapping) and name in value else value
