"""Replicas: the agents that keep the entries of a `ReplicatedStore`, what they keep, and how they are asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...errors import QuorumMissed, Refused, Undeliverable
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import capability
from ...runtime.message import MessageType
from ...runtime.world import World
from .store import Entry

Ballot = tuple[int, str]  # a clock of Lamport's, and who writes: an order in which no two writes are level
NEVER: Ballot = (0, "")


class Version(NamedTuple):
    """An entry, its place in the order, and what it comes after: by writer, the clock of the last one, its own too."""

    entry: Entry
    ballot: Ballot
    seen: dict[str, int]  # a version vector


class Record(NamedTuple):
    """What a replica has of a key; several versions are concurrent, and only where quorums do not overlap."""

    ballot: Ballot = NEVER  # under which the versions were accepted
    versions: tuple[Version, ...] = ()
    settled: bool = False  # known to have reached its quorum
    promised: Ballot = NEVER  # nothing below is accepted any more

    @property
    def seen(self) -> dict[str, int]:
        """What whoever reads this has seen: by writer, the clock of the last version."""
        return dict(sorted(pair for version in self.versions for pair in version.seen.items()))

    def then(self, entry: Entry, ballot: Ballot) -> Record:
        """Return the record of one entry that comes after all of these."""
        return Record(ballot, (Version(entry, ballot, {**self.seen, ballot[1]: ballot[0]}),))


class Replica(Agent):
    """Keeps records, as if on disk: what it has promised and accepted survives its crashes. Deletions stay for ever."""

    service = True

    def __init__(self, name: str, overlapping: bool, history: int) -> None:
        super().__init__(name, capacity=1_000_000)
        self.records: dict[str, Record] = {}
        self._past: dict[str, deque[Version]] = {}
        self._overlapping, self._history = overlapping, require.whole("history", history, least=0)

    @capability
    async def read(self, key: str, ballot: Ballot = NEVER) -> Record:
        """Return the record of a key, and promise to accept nothing below the ballot any more."""
        record = self.records.get(key, Record())
        if ballot > record.promised:
            record = self.records[key] = record._replace(promised=ballot)
        return record

    @capability
    async def write(self, key: str, record: Record) -> Ballot:
        """Accept a record and return its ballot, or return the higher one that has been promised."""
        old = self.records.get(key, Record())
        same = record.ballot == old.ballot
        if self._overlapping and not same and record.ballot < old.promised:
            return old.promised
        versions = record.versions if self._overlapping else newest((*old.versions, *record.versions))
        past = self._past.setdefault(key, deque(maxlen=self._history))
        past.extend(version for version in versions if version not in old.versions)
        ballot, promised = max(record.ballot, old.ballot), max(record.ballot, old.promised)
        self.records[key] = Record(ballot, versions, record.settled or (same and old.settled), promised)
        return record.ballot

    @capability
    async def past(self, key: str) -> list[Version]:
        """Return the versions of a key that are kept."""
        return [*self._past.get(key, ())]

    @capability
    async def keys(self, key: str) -> list[str]:
        """Return the keys that begin with this one, deleted ones too."""
        return [each for each in self.records if each.startswith(key)]


class Call(NamedTuple):
    """An operation under way: what it does to which key, who asks in whose name, and since when."""

    action: str
    key: str
    who: str
    sender: Agent
    since: float


class Replicas:
    """The replicas of one store, as those see them who ask: all at once, and waiting for no more than they need."""

    def __init__(self, world: World, store: str, agents: Sequence[Replica], timeout: float) -> None:
        self.world, self.store, self.agents = world, store, agents
        self.timeout = require.positive("timeout", timeout)
        self._clocks: dict[str, int] = {}  # Lamport's, by who asks

    def tick(self, who: str) -> int:
        """Return the next instant of somebody's clock: later than all that its answers have told it of."""
        self._clocks[who] = self._clocks.get(who, 0) + 1
        return self._clocks[who]

    async def ask(self, call: Call, what: str, needed: int, **content: Any) -> dict[str, Any]:
        """Return so many answers, by replica, as soon as they have come; for 0, all that can be had.

        None if somebody else is writing: a replica has promised a higher ballot. QuorumMissed where too few answer.
        """
        answers: dict[str, Any] = {}
        waiting = [agent.name for agent in self.agents]
        ballot: Ballot | None = content["record"].ballot if "record" in content else content.get("ballot")
        done = self.world.loop.create_future()

        def heard() -> dict[str, Any]:
            return {name: each for name, each in answers.items() if ballot is None or _promised(each) <= ballot}

        async def ask(name: str) -> None:
            with suppress(Exception):  # a replica that fails or is not heard is one answer less; the trace says why
                timeout = call.since + self.timeout - self.world.now
                answers[name] = await call.sender.request(name, what, {"key": call.key, **content}, timeout=timeout)
            waiting.remove(name)
            if not done.done() and (not waiting or len(heard()) < len(answers) or len(answers) >= needed > 0):
                done.set_result(None)

        for name in waiting.copy():
            self.world.loop.create_task(ask(name), name=call.sender.name)
        await done
        clocks = [_promised(answer)[0] for answer in answers.values() if isinstance(answer, tuple)]
        self._clocks[call.who] = max(self._clocks.get(call.who, 0), *clocks, 0)
        if len(heard()) >= needed:
            return heard()
        took = self.world.now - call.since
        if len(heard()) == len(answers) or took >= self.timeout:
            raise self.missed(call, len(heard()), needed)
        if what == "write":  # leave the other one alone for a while; a promise is asked for again at once
            await asyncio.sleep(self.world.random(self.store).uniform(0, took + 0.01))
        return {}

    def missed(self, call: Call, reached: int, needed: int) -> QuorumMissed:
        """Tell the trace that too few have answered; return the error that says so."""
        row = (self.world.now, "quorum_missed", call.who, self.store, call.key, call.action, reached, needed)
        self.world.trace.append(row)
        fate = "; what was to be written may yet be seen by some readers" if call.action == "write" else ""
        return QuorumMissed(
            f"{call.action} of {call.key!r} in {self.store!r}: {reached} of {needed} replicas have answered "
            f"{call.sender.name} in {self.timeout:g} s{fate}"
        )

    def settle(self, call: Call, record: Record, names: Iterable[str]) -> None:
        """Tell replicas, without waiting, what has reached its quorum."""
        content = {"key": call.key, "record": record._replace(settled=True)}
        for name in names:
            with suppress(Undeliverable, Refused):
                self.world.bus.post(call.sender, MessageType.TELL, name, "write", content)


def newest(versions: Iterable[Version]) -> tuple[Version, ...]:
    """Return the versions that no other one comes after, in order."""
    each = {version.ballot: version for version in versions}
    seen = {ballot: [v.seen.get(ballot[1], 0) for v in each.values() if v.ballot != ballot] for ballot in each}
    return tuple(each[ballot] for ballot in sorted(each) if max(seen[ballot], default=0) < ballot[0])


def _promised(answer: Record | Ballot) -> Ballot:
    return answer.promised if isinstance(answer, Record) else answer
