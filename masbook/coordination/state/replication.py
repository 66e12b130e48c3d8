"""Replicated state: a store whose entries are on several agents, reached over the bus, so that every fault applies.

Where the quorums overlap (read + write > replicas, the default), every key is linearizable. A write is a round of
CASPaxos (Rystsov 2018), which a read quorum promises and a write quorum accepts (two sizes are enough: Howard, Malkhi
and Spiegelman 2016); a read is that of Attiya, Bar-Noy and Dolev (1995), which gives what it saw to a write quorum
before it returns it. Where they do not overlap, both sides of a partition go on: `expected_version` is compared among
the replicas asked only, and writes that have not seen each other are kept side by side until one has seen them all.

What counts of such writes is the seam `resolve`: a function from their entries, by Lamport's clock, to one entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidValue, VersionConflict, WorldError
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.message import freeze
from ...runtime.world import World
from .replica import Call, Record, Replica, Replicas, Version, newest
from .store import Author, Entry, StateStore, author, text
from .watch import Watch

Resolve = Callable[[Sequence[Entry]], Entry]


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


class ReplicatedStore(StateStore):
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
        if not isinstance(world, World):
            raise InvalidValue(f"a store lives in a world, not in {world!r}: write ReplicatedStore(world, ...)")
        self.world, self.name = world, text("the name of a store", name)
        listed = replicas if isinstance(replicas, list | tuple) else None
        number = require.whole("replicas", replicas if listed is None else len(listed))
        self.replicas = require.names("replicas", listed or [f"{name}_{i}" for i in range(1, number + 1)])
        names = dict.fromkeys((name, *self.replicas))
        if len(names) <= number or any(map(world.bus.agent, names)):
            raise InvalidValue(f"the store {name!r} and its replicas are agents: give each a name that is free")
        for what, quorum in (("write_quorum", write_quorum), ("read_quorum", read_quorum)):
            if quorum is not None and require.whole(what, quorum) > number:
                raise InvalidValue(f"{what} is {quorum}, but there are {number} replicas: give {number} at most")
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
        self._wrote: dict[tuple[str, str], int] = {}  # the clock of the last write of each, where quorums may not meet
        self._watches: dict[Watch, Callable[[str], bool]] = {}

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
        answers = await self._replicas.ask(self._call("read", prefix, by), "keys", self.read_quorum)
        keys = sorted({key for keys in answers.values() for key in keys})
        entries = await asyncio.gather(*[self.get(key, by=by) for key in keys])
        return [entry for entry in entries if entry is not None]

    def watch(self, key: str | None = None, *, prefix: str = "", by: Author | None = None, limit: int = 1000) -> Watch:
        """Return the writes from now on that reach their quorum, to one key or to those that begin with a prefix."""
        watch = Watch(self.world, "a reader" if by is None else author(by), limit, self._watches.pop)
        self._watches[watch] = (lambda k: k.startswith(prefix)) if key is None else text("the key", key).__eq__
        return watch

    async def repair(self, *, by: Author | None = None) -> int:
        """Bring the replicas that can be reached to one state; return how many of their records were behind.

        This is anti-entropy: what one has accepted, deletions too, is given to the others, and nothing new is written.
        """
        listed = await self._replicas.ask(self._call("repair", "", by), "keys", 0)
        keys = sorted({key for keys in listed.values() for key in keys})
        return sum([await self._mend(self._call("repair", key, by), len(listed)) for key in keys])

    async def _mend(self, call: Call, number: int) -> int:
        """Give so many replicas what they have together; return how many had less.

        Where one refuses, because it has promised a higher ballot to a writer who came to nothing, all accept the same
        once more, under a ballot that is higher still.
        """
        higher: dict[str, Any] = {}
        while True:
            answers = await self._replicas.ask(call, "read", number, **higher)
            if answers:
                record, behind = self._join(answers)
                record = record._replace(settled=False, **higher) if higher else record
                taken = await self._replicas.ask(call, "write", number, record=record) if behind else answers
                if taken:
                    return sum(name in taken for name in behind)
            higher = {"ballot": (self._replicas.tick(call.who), call.who)}

    def copies(self, key: str) -> dict[str, Sequence[Entry]]:
        """Return what each replica holds, looked up without any message: for tables and tests, not for agents."""
        return {
            agent.name: [v.entry for v in agent.records.get(key, Record()).versions] for agent in self._replicas.agents
        }

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
            sure = record.settled or len(answers) - len(behind) >= self.write_quorum or not self.overlapping
            if self.read_repair and sure:
                self._replicas.settle(call, record, behind)
            elif (
                self.read_repair and record.versions
            ):  # whoever wrote it may be gone: complete the write, or look again
                sure = bool(await self._replicas.ask(call, "write", self.write_quorum, record=record))
            if sure or not self.read_repair or not record.versions:
                return self._present(record)

    async def _change(self, draft: Entry, by: Author, expected: int | None) -> Entry | None:
        """Write an entry, or return None where it deletes nothing; VersionConflict if another version is expected."""
        if expected is not None:
            require.whole("expected_version", expected, least=0)
        key, who, call = draft.key, draft.author, self._call("write", draft.key, by)
        writer = who
        while (key, writer) in self._writing:  # who writes twice at a time is two writers
            writer += "'"
        self._writing.add((key, writer))
        try:
            tried: dict[int, Entry] = {}
            while (outcome := await self._round(call, draft, writer, expected, tried)) is None:
                pass
        finally:
            self._writing.discard((key, writer))
        entry, found = outcome
        row, now = self.world.trace.append, self.world.now
        if entry is not None:
            row((now, "stored", who, self.name, key, entry.version, "deleted" if draft.deleted else "set"))
            for watch in [watch for watch, wants in self._watches.items() if wants(key)]:
                watch.put(entry)
        elif not _fits(found, expected):
            version = 0 if found is None else found.version
            row((now, "version_conflict", who, self.name, key, expected, version))
            last = "nobody wrote it" if found is None else f"{found.author} wrote it"
            raise VersionConflict(
                f"{key!r} has version {version}, not {expected}: {last}; read it again, or use `update`"
            )
        return entry

    async def _round(
        self, call: Call, draft: Entry, writer: str, expected: int | None, tried: dict[int, Entry]
    ) -> tuple[Entry | None, Entry | None] | None:
        """Return the entry written, if any, and the one it follows; None if somebody else came in between.

        Where nothing is to be written a quorum accepts what is there all the same, so that no earlier attempt, of this
        writer or another, comes to light after the answer.
        """
        ballot = (self._replicas.tick(call.who), writer)
        answers = await self._replicas.ask(call, "read", self.read_quorum, ballot=ballot)
        if not answers:
            return None
        record, _ = self._join(answers)
        found = self._present(record)
        seen = dict(sorted(pair for version in record.versions for pair in version.seen.items()))
        if not self.overlapping:
            writer = self._writer(draft.key, writer, seen, ballot[0])
            ballot = (ballot[0], writer)
        entry = tried.get(seen.get(writer, 0))  # an earlier attempt that somebody else has completed
        idle = draft.deleted and (found is None or found.deleted)
        if entry is None and not idle and _fits(found, expected):
            version = 1 if found is None else found.version + 1
            entry = tried[ballot[0]] = draft._replace(version=version, time=self.world.now)
            record = Record(versions=(Version(entry, ballot, {**seen, writer: ballot[0]}),))
        record = record._replace(ballot=ballot, settled=False)
        if not await self._replicas.ask(call, "write", self.write_quorum, record=record):
            return None
        if self.overlapping and self.read_quorum < self.write_quorum:  # so that a single reader can be sure
            self._replicas.settle(call, record, self.replicas)
        return entry, found

    def _writer(self, key: str, writer: str, seen: dict[str, int], clock: int) -> str:
        """Return who writes: one who has not seen its own last write is somebody else, or it would cover that."""
        while self._wrote.get((key, writer), 0) > seen.get(writer, 0):
            writer += "'"
        self._wrote[key, writer] = clock
        return writer

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


def _fits(found: Entry | None, expected: int | None) -> bool:
    version = 0 if found is None else found.version
    return expected in (None, version) or (expected == 0 and (found is None or found.deleted))
