"""The store in a file: what every store does is tested in test_state; here is what becomes of the file."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from masbook import World, simulate
from masbook.coordination import SQLiteStore
from masbook.errors import InvalidValue, MasbookError, VersionConflict, WorldError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def use(path, scenario, **options):
    """Run `scenario(world, store)` in a new world on the file, and close it."""
    with World(7) as world:
        return world.run(scenario(world, SQLiteStore(world, path, **options)))


def table(path, query):
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
        connection.commit()
    connection.close()
    return found


class TestReopened:
    def test_entries_versions_and_histories_are_kept(self, path):
        async def write(world, store):
            await asyncio.sleep(2.5)
            await store.set("plan", {"b": [1, None, 0.1], "a": "é"}, by="ann")
            await store.set("plan", {"b": 2, "a": 1}, by="bob")
            await store.set("gone", 1, by="ann")
            await store.delete("gone", by="ann")
            return await store.list(), await store.history("plan"), await store.history("gone")

        async def read(world, store):
            assert await store.get("gone") is None
            return await store.list(), await store.history("plan"), await store.history("gone")

        assert use(path, write) == use(path, read) == use(str(path), read)

    def test_the_order_of_keys_in_a_value_too(self, path):
        async def write(world, store):
            await store.set("plan", {"b": 1, "a": 2}, by="ann")

        async def read(world, store):
            return list((await store.get("plan")).value)

        use(path, write)
        assert use(path, read) == ["b", "a"]

    def test_versions_go_on_also_of_deleted_keys(self, path):
        async def first(world, store):
            await store.set("a", 1, by="ann")
            await store.set("b", 1, by="ann")
            await store.delete("b", by="ann")

        async def second(world, store):
            with pytest.raises(VersionConflict):
                await store.set("a", 2, by="ann", expected_version=0)
            return [
                (await store.set("a", 2, by="ann", expected_version=1)).version,
                (await store.set("b", 2, by="ann", expected_version=0)).version,
            ]

        use(path, first)
        assert use(path, second) == [2, 3]

    def test_times_to_live_begin_anew(self, path):
        async def first(world, store):
            await asyncio.sleep(100.0)
            await store.set("a", 1, by="ann", ttl=5.0)
            await asyncio.sleep(4.0)

        async def second(world, store):
            await asyncio.sleep(4.0)
            assert (await store.get("a")).value == 1
            await asyncio.sleep(1.0)
            assert await store.get("a") is None
            return [(e.time, e.facts["change"]) for e in world.trace.events("stored")]

        use(path, first)
        use(path, first)  # opened a second time, still five seconds
        assert use(path, second) == [(5.0, "expired")]

    def test_the_file_keeps_as_much_history_as_the_store(self, path):
        async def write(world, store):
            for number in range(20):
                await store.set("a", number, by="ann")

        async def read(world, store):
            return [entry.value for entry in await store.history("a")], (await store.get("a")).value

        use(path, write, history=5)
        assert len(table(path, "SELECT * FROM entries")) == 5
        assert use(path, read) == ([15, 16, 17, 18, 19], 19)
        use(path, write, history=0)
        assert use(path, read, history=0) == ([], 19)

    def test_in_memory_nothing_is_kept(self):
        async def write(world, store):
            return (await store.set("a", 1, by="ann")).version

        assert use(":memory:", write) == use(":memory:", write) == 1

    def test_the_same_run_on_the_same_file_is_the_same(self, path, tmp_path):
        async def scenario(world, path):
            store = SQLiteStore(world, path)
            await store.update("a", lambda n: (n or 0) + 1, by="ann", ttl=1.0)
            await asyncio.sleep(2.0)

        first, second = (simulate(scenario, path=str(tmp_path / name)) for name in ("one", "two"))
        again = simulate(scenario, path=str(tmp_path / "two"))
        assert first.digest == second.digest != again.digest


class TestShared:
    def test_neither_of_two_stores_loses_the_writes_of_the_other(self, path):
        """What one has written since both were opened the other does not see, and cannot write over."""

        async def scenario(world, store):
            await store.set("a", 1, by="ann")
            other = SQLiteStore(world, path, "other")
            assert (await other.get("a")).value == 1
            await store.set("a", 2, by="ann")
            for call in (other.set("a", 3, by="bob"), other.delete("a", by="bob")):
                with pytest.raises(WorldError, match="UNIQUE"):
                    await call
            assert (await other.get("a")).value == 1 and world.trace.count("stored", "bob") == 0
            await other.set("b", 1, by="bob")

        async def later(world, store):
            return [(entry.key, entry.value) for entry in await store.list()]

        use(path, scenario)
        assert use(path, later) == [("a", 2), ("b", 1)]


class TestFiles:
    @pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 100, b"x"])
    def test_what_is_no_database_is_refused_and_left_alone(self, path, content):
        path.write_bytes(content)
        with World() as world, pytest.raises(InvalidValue, match=r"state\.db cannot hold a store: .*give the path"):
            SQLiteStore(world, path)
        assert path.read_bytes() == content

    def test_a_database_of_somebody_else_is_refused_and_left_alone(self, path):
        table(path, "CREATE TABLE entries (key)")
        before = path.read_bytes()
        with World() as world, pytest.raises(InvalidValue, match="masbook has not made it"):
            SQLiteStore(world, path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("path", ["", None, 5])
    def test_what_is_no_path(self, path):
        with World() as world, pytest.raises(InvalidValue, match="path is"):
            SQLiteStore(world, path)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with World() as world, pytest.raises(InvalidValue, match="cannot hold a store"):
            SQLiteStore(world, tmp_path / "nowhere" / "state.db")

    def test_a_damaged_file_is_refused(self, path):
        async def write(world, store):
            for number in range(500):
                await store.set(f"key {number}", "x" * 50, by="ann")

        use(path, write)
        content = bytearray(path.read_bytes())
        content[4096:12288] = b"\xff" * 8192
        path.write_bytes(content)
        with World() as world, pytest.raises(MasbookError):
            SQLiteStore(world, path)

    def test_a_value_that_was_altered_is_noticed(self, path):
        async def write(world, store):
            await store.set("account", 100, by="ann")

        use(path, write)
        table(path, "UPDATE entries SET value = '1000000'")
        with World() as world, pytest.raises(WorldError, match="version 1 of 'account' was altered outside masbook"):
            SQLiteStore(world, path)

    def test_keys_that_sqlite_cannot_write(self, path):
        async def write(world, store):
            with pytest.raises(MasbookError, match="surrogates"):
                await store.set("a\ud800", 1, by="ann")
            return await store.keys(), world.trace.count("stored")

        assert use(path, write) == ([], 0)

    def test_a_write_that_fails_changes_nothing(self, path):
        async def write(world, store):
            watch = store.watch()
            blocker = sqlite3.connect(path, isolation_level=None)
            blocker.execute("BEGIN EXCLUSIVE")
            with pytest.raises(WorldError, match="locked"):
                await store.set("a", 1, by="ann", ttl=1.0)
            blocker.execute("ROLLBACK")
            blocker.close()
            await store.set("b", 1, by="ann")
            return (await anext(watch)).key, await store.keys(), world.trace.count("stored")

        assert use(path, write) == ("b", ["b"], 1)


class TestClosed:
    def test_with_its_world(self, path):
        with World() as world:
            store = SQLiteStore(world, path)
            world.run(store.set("a", 1, by="ann", ttl=5.0))
        assert [Path(file).name for file in path.parent.iterdir()] == ["state.db"]  # nothing beside it
        with World() as other, pytest.raises(WorldError, match="closed"):
            other.run(store.set("a", 2, by="ann"))

    def test_by_hand(self, path):
        async def scenario(world, store):
            await store.set("a", 1, by="ann", ttl=1.0)
            store.close()
            store.close()
            for call in (store.set("a", 2, by="ann"), store.delete("a", by="ann")):
                with pytest.raises(WorldError, match="closed"):
                    await call
            await asyncio.sleep(5.0)  # no timer of its looks at the file any more
            return world.trace.count("stored")

        assert use(path, scenario) == 1
