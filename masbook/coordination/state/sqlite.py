"""A store in a file: shared state that outlives its world, in SQLite, without a server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InvalidValue, WorldError
from ...runtime.message import freeze
from ...runtime.world import World
from .store import Entry, MemoryStore, text

_MARK = 0x6D617362  # "masb", by which we know our own files
_TABLE = """CREATE TABLE IF NOT EXISTS entries (key TEXT, value TEXT, version INTEGER, author TEXT, time REAL,
    expires REAL, deleted INTEGER, checksum TEXT, PRIMARY KEY (key, version))"""


class SQLiteStore(MemoryStore):
    """A store in an SQLite file, or in ":memory:"; it is read when it is opened, and each write goes to both.

    A file that is opened again has its versions and histories. The clock of the new world begins at 0: what was to
    live for five seconds has five seconds again. Two stores may have one file open, but neither sees what the other
    has written since, nor can it write over that: WorldError. A store is closed with its world.
    """

    def __init__(self, world: World, path: str | Path = ":memory:", name: str = "store", *, history: int = 100) -> None:
        super().__init__(world, name, history=history)
        self.path = text("path", str(path) if isinstance(path, Path) else path)
        self._db = _open(self.path)
        world.when_closed(self.close)
        with self._checked():
            rows = self._db.execute("SELECT * FROM entries ORDER BY rowid").fetchall()
        for key, value, version, author, time, expires, deleted, checksum in rows:
            ends = None if expires is None else world.now + expires - time
            entry = Entry(key, freeze(json.loads(value)), version, author, time, ends, bool(deleted))
            if entry.checksum != checksum:
                raise WorldError(f"{self.path}: version {version} of {key!r} was altered outside masbook")
            super()._keep(entry)

    def close(self) -> None:
        """Close the file; WorldError for whoever writes after that."""
        for timer in self._timers.values():
            timer.cancel()
        self._db.close()

    def _keep(self, entry: Entry) -> None:
        kept = entry.version - max(self._kept, 1)
        row = (entry.key, json.dumps(entry.value), *entry[2:], entry.checksum)
        with self._checked(), self._db:  # one transaction: both or neither
            self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute("DELETE FROM entries WHERE key = ? AND version <= ?", (entry.key, kept))
        super()._keep(entry)

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Raise what SQLite raises as an error of masbook's."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            raise WorldError(f"the store {self.name!r} cannot use {self.path}: {error}") from error


def _open(path: str) -> sqlite3.Connection:
    """Return a connection to one of our files, made if there is none; InvalidValue for a file of another kind."""
    there = Path(path).is_file() and Path(path).stat().st_size > 0
    db = None
    try:
        db = sqlite3.connect(path, timeout=0.2, check_same_thread=False)  # the world has a thread of its own
        if there and db.execute("PRAGMA application_id").fetchone() != (_MARK,):
            raise sqlite3.DatabaseError("masbook has not made it")
        for pragma in (f"application_id = {_MARK}", "journal_mode = WAL", "synchronous = NORMAL"):
            db.execute(f"PRAGMA {pragma}")
        db.execute(_TABLE)
    except sqlite3.Error as error:
        if db is not None:
            db.close()
        raise InvalidValue(f"{path} cannot hold a store: {error}; give the path of a new file") from error
    return db
