"""Detection of conflicts: who claims what somebody else claims or has, found in the trace.

A `ConflictDetector` is spawned beside a resolver and hands it what it finds. Agents announce a claim by publishing
`resource.claimed`, `task.claimed`, `data.claimed` or `capability.claimed`, and give it up with `.released`; locks,
writes and tasks need no announcement. To detect more, override `_see`, which gets every row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ...errors import AgentCrashed, InvalidValue, RequestTimeout, Undeliverable, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.trace import Event
from .claims import EXCLUSIVE, Conflict, Kind, Participant, Resolution

SUBJECTS: dict[str, Kind] = {
    "resource": "resource_contention",
    "task": "task_assignment",
    "data": "data_inconsistency",
    "capability": "capability_overlap",
}
SHARED = ("semaphore", "read")  # what several may hold at once
WRITES = 1000  # that are remembered: a write that comes later than that finds nobody to be in conflict with
PATIENCE = 600.0  # virtual seconds for a resolution; what nobody has resolved by then counts as unresolved
_Subject = tuple[Kind, str]


class ConflictDetector(Agent):
    """Reports each conflict once: two open claims of different agents on one subject.

    Claims are messages such as `publish("resource.claimed", resource="gpu_1", duration=300, priority=2)`; `priority`,
    `weight` and `limits` are those of the Participant. For data, only different claims are a conflict. In the trace, it
    sees two holders of a lock, two writes on top of one version, and two agents at a task that they took themselves.
    Claims that come within `gather` virtual seconds join the conflict. Those of the losers end with it, and those of an
    agent with the agent. A detector that is restarted begins anew.
    """

    service = True

    def __init__(self, name: str = "detector", *, resolver: str = "resolver", gather: float = 0.1) -> None:
        super().__init__(name)
        self.resolver = resolver
        self.gather = require.not_negative("gather", gather)
        self._forget()

    def _forget(self) -> None:
        self._claims: dict[_Subject, dict[str, Participant]] = {}
        self._busy: set[_Subject] = set()  # being reported
        self._known: dict[_Subject, set[str]] = {}  # who was in a conflict that nobody has resolved
        self._writes: deque[_Subject] = deque()
        self._handed: set[str] = set()  # tasks that a service hands out, to as many as it likes

    async def on_start(self) -> None:
        """Read every row of the trace from now on, and those of this instant."""
        self._forget()
        for event in self.world.trace:
            if event.time == self.now:
                self._see(event)
        self.when_gone(self.world.trace.observe(self._see))

    def _see(self, event: Event) -> None:
        """Read a row of the trace; it must not raise."""
        facts, who = event.facts, event.who
        match event.kind:
            case "sent" if facts["topic"].endswith((".claimed", ".released")):
                self._see_claim(who, facts)
            case "acquired" | "released" if not (resource := str(facts["resource"])).startswith(SHARED):
                claim = {"resource": resource, "token": facts["token"]}
                self._move(("resource_contention", resource), who, claim, event.kind == "acquired")
            case "stored" | "version_conflict":
                self._see_write(who, facts)
            case "stopped" | "crashed":
                for subject in [subject for subject in self._claims if subject[0] in EXCLUSIVE]:
                    self._drop(subject, who)
            case "task_added" | "task_started" | "task_failed" | "task_ended":
                self._see_task(event.kind, who, f"{facts['workflow']}/{facts['task']}")

    def _see_claim(self, who: str, facts: Mapping[str, Any]) -> None:
        """Read a message that claims something, or gives it up; what cannot be understood is recorded as refused."""
        (what, _, change), claim = facts["topic"].partition("."), dict(facts["content"])
        if what not in SUBJECTS:
            return
        subject = SUBJECTS[what], str(claim.get(what))
        if change == "released":
            return self._drop(subject, who)
        try:
            if claim.get(what) is None:
                raise InvalidValue(f"say what is claimed, as in {what}='name'")
            own = {name: claim.pop(name) for name in ("priority", "weight", "limits") if name in claim}
            self._add(subject, Participant(who, claim, **{"priority": facts["priority"], **own}))
        except InvalidValue as error:
            self.world.trace.record("refused", who, action="claim", target=subject[1], reason=describe(error))

    def _see_write(self, who: str, facts: Mapping[str, Any]) -> None:
        """Read that a version was written, or that somebody wanted to write the same one."""
        version = facts["expected"] + 1 if facts.get("expected") else facts["version"]
        subject: _Subject = ("data_inconsistency", f"version {version} of {facts['key']} in {facts['store']}")
        self._writes.append(subject)
        if len(self._writes) > WRITES:
            self._claims.pop(self._writes.popleft(), None)
        self._add(subject, Participant(who, {"key": facts["key"], "version": version, "author": who}))

    def _see_task(self, kind: str, who: str, task: str) -> None:
        keeper = self.world.agents.get(who)
        if kind == "task_added" and keeper is not None and keeper.service:
            self._handed.add(task)
        elif kind == "task_ended":
            self._handed.discard(task)
            self._claims.pop(("task_assignment", task), None)
        elif task not in self._handed:
            self._move(("task_assignment", task), who, {"task": task}, kind == "task_started")

    # Claims

    def _move(self, subject: _Subject, who: str, claim: dict[str, Any], begins: bool) -> None:
        self._add(subject, Participant(who, claim)) if begins else self._drop(subject, who)

    def _add(self, subject: _Subject, party: Participant) -> None:
        self._claims.setdefault(subject, {})[party.name] = party
        self._look(subject)

    def _drop(self, subject: _Subject, who: str) -> None:
        self._claims.get(subject, {}).pop(who, None)
        self._known.pop(subject, None)

    def _disputants(self, subject: _Subject) -> dict[str, Participant]:
        """Return the claims on a subject, if they cannot all be met, and somebody is new among those who make them."""
        claims = self._claims.get(subject, {})
        differ = any(party.claim != other.claim for party, other in pairwise(claims.values()))
        disputed = len(claims) > 1 and (differ or subject[0] in EXCLUSIVE)
        return dict(claims) if disputed and not claims.keys() <= self._known.get(subject, set()) else {}

    def _look(self, subject: _Subject) -> None:
        if subject not in self._busy and self._disputants(subject):
            self._busy.add(subject)
            self.background(self._report(subject))

    async def _report(self, subject: _Subject) -> None:
        """Hand over the conflict, if there still is one when all claims have been gathered."""
        await self.sleep(self.gather)
        if parties := self._disputants(subject):
            conflict = Conflict(subject[0], f"{len(parties)} claim {subject[1]}", tuple(parties.values()))
            resolution = await self._hand_over(conflict)
            if resolution is None or not resolution.resolved:
                self._known[subject] = set(parties)
            else:
                for name, party in parties.items():
                    if name != resolution.winner and self._claims.get(subject, {}).get(name) is party:
                        del self._claims[subject][name]
        self._busy.discard(subject)
        self._look(subject)

    async def _hand_over(self, conflict: Conflict) -> Resolution | None:
        """Return how the conflict ended; None if the resolver does not answer."""
        try:
            number = await self.request(self.resolver, "report", conflict=conflict)
            resolution: Resolution = await self.request(self.resolver, "resolve", conflict=number, timeout=PATIENCE)
        except (AgentCrashed, RequestTimeout, Undeliverable):  # the trace has it; a new claim is reported anew
            return None
        return resolution
