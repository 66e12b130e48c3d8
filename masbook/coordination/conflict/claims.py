"""What is disputed and by whom: `Conflict`, its participants and what they claim, and the `Resolution` it ends in.

Plain frozen data, which travels in messages. What all strategies share is defined here: the order that breaks ties, the
options to choose from, how far a participant would go, and how content it is with a decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ...errors import InvalidValue
from ...runtime import require
from ...runtime.message import FrozenDict, freeze

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
    capabilities: Sequence[str] = ()

    def __post_init__(self) -> None:
        require.text("the name of a participant", self.name)
        for what in ("claim", "limits"):
            _freeze(self, f"the {what} of {self.name}", what)
        require.finite(f"the priority of {self.name}", self.priority)
        require.amount(f"the weight of {self.name}", self.weight)
        require.amount(f"the load of {self.name}", 0 if self.load is None else self.load)
        object.__setattr__(self, "capabilities", require.names(f"the capabilities of {self.name}", self.capabilities))
        for key in self.limits:
            require.one_of(f"a limit of {self.name}", key, self.claim)
        for key, value in self.claim.items():
            limit = self.limits.get(key, value)
            if require.is_number(value):
                require.finite(f"the claim of {self.name} for {key!r}", value)
                require.finite(f"the limit of {self.name} for {key!r}", limit)
            elif key in self.limits and not isinstance(limit, list):
                raise InvalidValue(f"the limit of {self.name} for {key!r} is {limit!r}: give a list, best first")

    def offer(self, round: float) -> dict[str, Any]:
        """Return what it offers in a round of concessions, from 1 to ROUNDS: from its claim evenly to its limits.

        In between the rounds, an offer lies between theirs; only an alternative is named in its own round.
        """
        return {key: _conceded(self.claim[key], limit, round) for key, limit in self.limits.items()}

    def worth(self, key: str, value: Any) -> float:
        """Return what a value of one key is worth to it: 1 what it claims, 0 its limit, in between in proportion.

        Alternatives are worth the less the later they are in the list, and what it would not take, nothing.
        """
        ideal, limit = self.claim[key], self.limits.get(key)
        value = value[self.name] if isinstance(value, Mapping) and self.name in value else value  # its share
        if value == ideal:
            return 1.0
        if isinstance(limit, list):
            return 1 - (limit.index(value) + 1) / (len(limit) + 1) if value in limit else 0.0
        if limit is None or limit == ideal or not require.is_number(value):
            return 0.0
        return max(0.0, 1 - float(abs(value - ideal) / abs(limit - ideal)))


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is disputed, and by whom.

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
        if not isinstance(parties, list | tuple) or not all(isinstance(party, Participant) for party in parties):
            raise InvalidValue(f"participants is {parties!r}: give a list of Participant(name, claim)")
        names = [party.name for party in parties]
        if not names or len(set(names)) < len(names):
            raise InvalidValue(f"the participants are {names}: give at least one, and each of them once")
        object.__setattr__(self, "participants", tuple(parties))
        _freeze(self, "the context", "context")
        require.names("required_capabilities", self.context.get("required_capabilities", ()))
        if not isinstance(self.capacity, Mapping):
            raise InvalidValue(f"the capacity is {self.capacity!r}: give how much there is by key: {{'minutes': 10}}")
        for key, room in self.capacity.items():
            require.amount(f"the capacity for {key!r}", room)

    @property
    def capacity(self) -> Mapping[str, float]:
        """How much there is to divide, by key."""
        return self.context.get("capacity", {})  # type: ignore[no-any-return]

    @property
    def weight(self) -> float:
        """The weight of all participants."""
        return math.fsum(party.weight for party in self.participants)

    def party(self, name: str) -> Participant:
        """Return the participant of that name; InvalidValue if there is none."""
        parties = {party.name: party for party in self.participants}
        return parties[require.one_of("a participant of the conflict", name, parties)]

    def by_rank(self) -> list[Participant]:
        """Return the participants in the order that breaks ties: priority, then weight, then as they are named."""
        return sorted(self.participants, key=lambda party: (-party.priority, -party.weight))

    def worth(self, name: str, position: Mapping[str, Any]) -> float:
        """Return what a position is worth to a participant, from 0 to 1: the mean over the keys that are disputed."""
        party, claims = self.party(name), [party.claim for party in self.participants]
        shared = {key for key, value in party.claim.items() if all(claim.get(key) == value for claim in claims)}
        disputed = [key for key in party.claim if key in self.capacity or key not in shared]
        worth = [party.worth(key, position.get(key)) for key in disputed or party.claim]
        return sum(worth) / len(worth) if worth else 1.0

    def ballot(self, name: str) -> list[str]:
        """Return whose claims are worth something to a participant, best first: its own, if only one can win.

        Among equal claims that of the highest rank comes first, so that those who agree vote for the same.
        """
        if self.kind in EXCLUSIVE:
            return [self.party(name).name]
        worth = {party.name: self.worth(name, party.claim) for party in self.by_rank()}
        return sorted(filter(worth.get, worth), key=lambda option: -worth[option])

    def seen_by(self, name: str) -> Conflict:
        """Return the conflict as a participant may see it: without the limits of the others."""
        parties = [party if party.name == name else replace(party, limits={}) for party in self.participants]
        return replace(self, participants=parties)

    def satisfaction(self, winner: str | None, decision: Mapping[str, Any] | None) -> dict[str, float]:
        """Return how content each participant is with a decision, from 0 to 1."""
        if decision is None or (winner is not None and self.kind in EXCLUSIVE):
            return {party.name: float(party.name == winner) for party in self.participants}
        return {party.name: self.worth(party.name, decision) for party in self.participants}


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


def _freeze(data: Any, what: str, name: str) -> None:
    if not isinstance(getattr(data, name), Mapping):
        raise InvalidValue(f"{what} is {getattr(data, name)!r}: give named values, such as {{'resource': 'gpu_1'}}")
    object.__setattr__(data, name, freeze(getattr(data, name), name))


def _conceded(ideal: Any, limit: Any, round: float) -> Any:
    """Return what is offered in a round for one key: a number on its way, or the next alternative."""
    if isinstance(limit, list):
        return [ideal, *limit][min(len(limit), int(round))]
    return limit if round >= ROUNDS else ideal + (limit - ideal) * round / ROUNDS
