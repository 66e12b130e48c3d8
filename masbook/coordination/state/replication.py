"""Replicated state: a store whose entries are on several agents, reached over the bus, so that every fault applies.

Where the quorums overlap (read + write > replicas, the default), every key is linearizable. A write is a round of
CASPaxos (Rystsov 2018), which a read quorum promises and a write quorum accepts (two sizes are enough: Howard, Malkhi
and Spiegelman 2016); a read is that of Attiya, Bar-Noy and Dolev (1995), which gives what it saw to a write quorum
before it returns it. Where they do not overlap, both sides of a partition go on: `expected_version` is compared among
the replicas asked only, and a write replaces what its author has read and nothing else: writes that have not seen each
other are kept side by side until one has seen them all.

What counts of such writes is the seam `resolve`: a function from their entries, by Lamport's clock, to one entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidValue, WorldError
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.message import freeze
from ...runtime.world import World
from .replica import Call, Record, Replica, Replicas, newest
from .store import Author, Entry, WatchedStore, author, fits, text

Resolve = Callable[[Sequence[Entry]], Entry]
Written = tuple[Entry | None, Entry | None]  # what was written, if anything, and what it follows


def last_writer(entries: Sequence[Entry]) -> Entry:
    """Return the last entry by Lamport's clock, then by its author's name; the others are lost."""
    return entries[-1]


def merged(function: Callable[[list[Any]], Any]) -> Resolve:
    """Return a resolution that makes one value of a list of several; deleted ones have none."""

    def resolve(entries: Sequence[Entry]) -> Entry:
        values = [entry.value for entry in entries if not entry.deleted]
        return entries[-1]._replace(value=freeze(function(values)), deleted=False) if values else entries[-1]

    return resolve


siblings: Resolve = merged(list)  # the value is the list of all


class ReplicatedStore(WatchedStore):
    """A store on several replicas, agents called `store_1`, `store_2` ..., or by the names given.

    Messages come from the agent that acts (`by=`), so that it reaches its side of a partition only; where `by` is a
    name or nobody, from the store's own agent. A quorum that is not given is the smallest that overlaps the other one.
    What misses its quorum within `timeout` virtual seconds raises QuorumMissed. A write that does is neither there nor
    gone: a reader may see it, and once one has, all do; or a later write buries it. A value whose time is over counts
    as deleted, without a row of the trace.

        store = ReplicatedStore(world, replicas=3, write_quorum=2)
        await store.set("plan", {"step": 1}, by=agent)
    """

    def __init__(
        self,
        world: World,
        name: str = "store",
        *,
        replicas: int | Sequence[str] = 3,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
        resolve: Resolve = last_writer,
        read_repair: bool = True,
        timeout: float = 5.0,
        history: int = 100,
    ) -> None:
        super().__init__(world, name)
        listed = replicas if isinstance(replicas, list | tuple) else None
        if isinstance(replicas, str):
            raise InvalidValue(f"replicas is {replicas!r}: give their number, or a list of names")
        number = require.whole("replicas", replicas if listed is None else len(listed))
        self.replicas = require.names("replicas", listed or [f"{name}_{i}" for i in range(1, number + 1)])
        names = dict.fromkeys((name, *self.replicas))
        if len(names) <= number or any(map(world.bus.agent, names)):
            raise InvalidValue(f"the store {name!r} and its replicas are agents: give each a name that is free")
        for what, quorum in (("write_quorum", write_quorum), ("read_quorum", read_quorum)):
            if quorum is not None and require.whole(what, quorum) > number:
                raise InvalidValue(f"{what} is {quorum}, but there are {number} replicas: give {number} at most")
        if not callable(resolve):
            raise InvalidValue(f"resolve is {resolve!r}: give a function of several entries, such as last_writer")
        self.write_quorum = write_quorum or (number - read_quorum + 1 if read_quorum else number // 2 + 1)
        self.read_quorum = read_quorum or number - self.write_quorum + 1
        self.overlapping = self.read_quorum + self.write_quorum > number
        self.resolve, self.read_repair = resolve, read_repair
        agents = [Replica(replica, self.overlapping, history) for replica in self.replicas]
        self._replicas = Replicas(world, name, agents, timeout)
        self._door = Agent(name)
        self._door.service = True
        for agent in (self._door, *agents):
            world.spawn(agent)
        self._writing: set[tuple[str, str]] = set()
        self._wrote: dict[tuple[str, str], int] = {}  # where quorums may not meet: the clock of the last write of each
        self._known: dict[tuple[str, str], Record] = {}  # and what each has read last

    async def get(self, key: str, *, by: Author | None = None) -> Entry | None:
        """Return the entry of a key; None where there is none, or no more."""
        entry = await self._read(self._call("read", text("the key", key), by))
        return None if entry is None or entry.deleted else entry

    async def set(
        self, key: str, value: Any, *, by: Author, expected_version: int | None = None, ttl: float | None = None
    ) -> Entry:
        """Write a value and return its entry; VersionConflict where the key has another version than expected."""
        expires = None if ttl is None else self.world.now + require.positive("ttl", ttl)
        draft = Entry(text("the key", key), freeze(value, "value"), 0, author(by), 0.0, expires)
        entry = await self._change(draft, by, expected_version)
        assert entry is not None  # nothing but deleting can find nothing to do
        return entry

    async def delete(self, key: str, *, by: Author, expected_version: int | None = None) -> Entry | None:
        """Delete a key; return the entry that marks the deletion, None where there was nothing to delete."""
        draft = Entry(text("the key", key), None, 0, author(by), 0.0, deleted=True)
        return await self._change(draft, by, expected_version)

    async def history(self, key: str, limit: int | None = None, *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of a key that the replicas asked have kept, oldest first, deletions too."""
        call = self._call("read", text("the key", key), by)
        last = await self._read(call)
        answers = await self._replicas.ask(call, "past", self.read_quorum)
        versions = sorted((version for past in answers.values() for version in past), key=lambda v: v.ballot)
        # where quorums overlap there is one of each number: the last by ballot, others have missed their quorum
        past = {v.entry.version if self.overlapping else v.ballot: v.entry for v in versions}
        kept = [entry for entry in past.values() if last is not None and entry.version <= last.version]
        return kept if limit is None else kept[-require.whole("limit", limit) :]

    async def list(self, prefix: str = "", *, by: Author | None = None) -> Sequence[Entry]:
        """Return the entries of the keys that begin with a prefix, sorted by key, each as `get` returns it."""
        call = self._call("read", text("the prefix", prefix, empty=True), by)
        answers = await self._replicas.ask(call, "keys", self.read_quorum)
        keys = sorted({key for keys in answers.values() for key in keys})
        entries = await asyncio.gather(*[self.get(key, by=by) for key in keys])
        return [entry for entry in entries if entry is not None]

    async def repair(self, *, by: Author | None = None) -> int:
        """Bring the replicas that can be reached to one state; return how many of their records were behind.

        This is anti-entropy: what one has accepted, deletions too, is given to the others, and nothing new is written.
        QuorumMissed where a quorum cannot be reached: a minority cannot know what the others have agreed on.
        """
        call = self._call("repair", "", by)
        listed = await self._replicas.ask(call, "keys", 0)
        needed = max(self.read_quorum, self.write_quorum) if self.overlapping else 1
        if len(listed) < needed:
            raise self._replicas.missed(call, len(listed), needed)
        keys = sorted({key for keys in listed.values() for key in keys})
        return sum([await self._mend(self._call("repair", key, by), len(listed)) for key in keys])

    async def _mend(self, call: Call, number: int) -> int:
        """Give so many replicas what they have together, under a new ballot; return how many had something else."""
        while True:
            ballot = (self._replicas.tick(call.who), call.who)
            answers = await self._replicas.ask(call, "read", number, ballot=ballot)
            if not answers:
                continue
            record, behind = self._join(answers)
            record = record._replace(ballot=ballot, settled=False)
            if not behind or await self._replicas.ask(call, "write", number, record=record):
                return len(behind)

    def copies(self, key: str) -> dict[str, Sequence[Entry]]:
        """Return what each replica holds, looked up without any message: for tables and tests, not for agents."""
        records = {agent.name: agent.records.get(key, Record()) for agent in self._replicas.agents}
        return {name: [version.entry for version in record.versions] for name, record in records.items()}

    # One operation

    def _call(self, action: str, key: str, by: Author | None) -> Call:
        if asyncio.get_running_loop() is not self.world.loop:
            raise WorldError("nothing runs here that could answer: write world.run(store.get(...))")
        sender = by if isinstance(by, Agent) else self._door
        if sender.world is not self.world:
            raise InvalidValue(f"{sender.name} lives in another world than the store {self.name!r}")
        return Call(action, key, self.name if by is None else author(by), sender, self.world.now)

    async def _read(self, call: Call) -> Entry | None:
        """Return what counts of a key, a deletion too, once it has its quorum."""
        while True:
            answers = await self._replicas.ask(call, "read", self.read_quorum)
            record, behind = self._join(answers)
            if not self.overlapping:
                self._known[call.key, call.who] = record
            if not self.read_repair or not record.versions:
                break
            if record.settled or not self.overlapping or len(answers) - len(behind) >= self.write_quorum:
                self._replicas.settle(call, record, behind)
                break
            # whoever wrote it may be gone: complete the write, or look again
            if await self._replicas.ask(call, "write", self.write_quorum, record=record):
                break
        return self._present(record)

    async def _change(self, draft: Entry, by: Author, expected: int | None) -> Entry | None:
        """Write an entry, or return None where it deletes nothing; VersionConflict if another version is expected."""
        if expected is not None:
            require.whole("expected_version", expected, least=0)
        write = self._agree if self.overlapping else self._add
        entry, found = await write(self._call("write", draft.key, by), draft, expected)
        if entry is not None:
            self._tell(entry, "deleted" if draft.deleted else "set")
        elif expected is not None and not fits(found, expected):
            raise self._conflict(draft.key, found, expected, draft.author)
        return entry

    async def _agree(self, call: Call, draft: Entry, expected: int | None) -> Written:
        """Write where quorums overlap: rounds of CASPaxos, until nobody comes in between.

        Where nothing is to be written a quorum accepts what is there all the same, so that no earlier attempt, of this
        writer or another, comes to light after the answer.
        """
        writer = call.who
        while (call.key, writer) in self._writing:  # who writes twice at a time is two writers
            writer += "'"
        self._writing.add((call.key, writer))
        tried: dict[int, Entry] = {}  # by clock
        try:
            while True:
                ballot = (self._replicas.tick(call.who), writer)
                answers = await self._replicas.ask(call, "read", self.read_quorum, ballot=ballot)
                if not answers:
                    continue
                record, _ = self._join(answers)
                found = self._present(record)
                entry = tried.get(record.seen.get(writer, 0))  # an earlier attempt that somebody else has completed
                if entry is None and _due(draft, found, expected):
                    entry = tried[ballot[0]] = self._after(found, draft)
                    record = record.then(entry, ballot)
                record = record._replace(ballot=ballot, settled=False)
                if await self._replicas.ask(call, "write", self.write_quorum, record=record):
                    break
        finally:
            self._writing.discard((call.key, writer))
        if self.read_quorum < self.write_quorum:  # so that a single reader can be sure
            self._replicas.settle(call, record, self.replicas)
        return entry, found

    async def _add(self, call: Call, draft: Entry, expected: int | None) -> Written:
        """Write where quorums may not meet: beside all that the writer does not know of.

        A version that is expected is the one that the writer has read, whatever else is there under that number.
        """
        record, _ = self._join(await self._replicas.ask(call, "read", self.read_quorum))
        found = self._present(record)
        if not _due(draft, found, expected):
            return None, found
        known = self._known.get((call.key, call.who))
        if expected and known and fits(self._present(known), expected):
            record = known
        writer, clock = call.who, self._replicas.tick(call.who)
        while self._wrote.get((call.key, writer), 0) > record.seen.get(writer, 0):
            writer += "'"  # who does not know of its own last write is somebody else, or it would cover that
        self._wrote[call.key, writer] = clock
        entry = self._after(found, draft)
        await self._replicas.ask(call, "write", self.write_quorum, record=record.then(entry, (clock, writer)))
        return entry, found

    def _after(self, found: Entry | None, draft: Entry) -> Entry:
        return draft._replace(version=1 if found is None else found.version + 1, time=self.world.now)

    def _join(self, answers: dict[str, Record]) -> tuple[Record, Sequence[str]]:
        """Return what the replicas have together, the last or all that are concurrent, and who has something else."""
        records = answers.values()
        record = max(records, key=lambda record: (record.ballot, record.settled))
        if not self.overlapping:
            record = record._replace(versions=newest(version for each in records for version in each.versions))
        return record, [name for name, answer in answers.items() if answer[:2] != record[:2]]

    def _present(self, record: Record) -> Entry | None:
        """Return the entry that counts. Where its time is over that is a deletion, which nobody had to write."""
        entries = [entry if entry.expires is None else self._expired(entry) for entry, _, _ in record.versions]
        if len(entries) < 2:
            return entries[0] if entries else None
        return self.resolve(entries)._replace(version=max(entry.version for entry in entries))

    def _expired(self, entry: Entry) -> Entry:
        gone = entry.expires is not None and entry.expires <= self.world.now
        return Entry(entry.key, None, entry.version + 1, "world", entry.expires or 0.0, None, True) if gone else entry


def _due(draft: Entry, found: Entry | None, expected: int | None) -> bool:
    """Return whether the draft is to be written after what was found."""
    idle = draft.deleted and (found is None or found.deleted)
    return not idle and (expected is None or fits(found, expected))
