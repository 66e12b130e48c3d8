"""The virtual loop: order, exactness, ordinary asyncio on top, and what it says when nothing can happen any more."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import simpy
from pydantic import BaseModel
from society import Calculator

from masbook import Agent, Message, World, capability, simulate
from masbook.errors import BlockedLoop, InvalidValue, NeedsRealClock, RequestTimeout, Stuck


class TestOrder:
    def test_equal_deadlines_run_first_in_first_out(self, world):
        seen = []

        async def scenario():
            loop = asyncio.get_running_loop()
            for i in range(50):
                loop.call_at(5.0, seen.append, i)
            await asyncio.sleep(1.0)
            for i in range(50, 100):
                loop.call_at(5.0, seen.append, i)
            await asyncio.sleep(10.0)

        world.run(scenario())
        assert seen == list(range(100))

    def test_equal_deadlines_reached_from_different_starts(self, world):
        seen = []

        async def sleeper(name, *delays):
            for delay in delays:
                await asyncio.sleep(delay)
            seen.append((world.now, name))

        async def scenario():
            async with asyncio.TaskGroup() as group:
                group.create_task(sleeper("in two", 1.0, 1.0))
                group.create_task(sleeper("at once", 2.0))
                group.create_task(sleeper("in four", 0.5, 0.5, 0.5, 0.5))

        world.run(scenario())
        assert seen == [(2.0, "at once"), (2.0, "in two"), (2.0, "in four")]  # by when each last deadline was set

    @pytest.mark.parametrize("seed", range(5))
    def test_same_order_as_simpy(self, make_world, seed):
        draw = random.Random(seed)
        plans = [[draw.choice([0.1, 0.25, 0.5, 1.0, draw.random()]) for _ in range(20)] for _ in range(30)]
        plain, ours = [], []

        def process(environment, name, delays):
            for delay in delays:
                yield environment.timeout(delay)
                plain.append((environment.now, name))

        environment = simpy.Environment()
        for name, delays in enumerate(plans):
            environment.process(process(environment, name, delays))
        environment.run()
        world = make_world()

        async def task(name, delays):
            for delay in delays:
                await asyncio.sleep(delay)
                ours.append((world.now, name))

        async def scenario():
            await asyncio.gather(*(task(name, delays) for name, delays in enumerate(plans)))

        world.run(scenario())
        assert ours == plain

    def test_same_order_as_simpy_with_joins_and_a_shared_resource(self, world):
        """Five customers, one counter: the times of service are those of SimPy's Resource."""
        draw = random.Random(3)
        customers = [(draw.choice([0.5, 1.0, 1.5]), draw.choice([0.5, 1.0])) for _ in range(20)]
        plain, ours = [], []
        environment = simpy.Environment()
        counter = simpy.Resource(environment, capacity=2)

        def customer(name, arrival, service):
            yield environment.timeout(arrival)
            with counter.request() as turn:
                yield turn
                plain.append((environment.now, name, "served"))
                yield environment.timeout(service)
            plain.append((environment.now, name, "left"))

        def everybody():
            yield simpy.AllOf(environment, [environment.process(customer(i, *c)) for i, c in enumerate(customers)])
            plain.append((environment.now, "all", "left"))

        environment.process(everybody())
        environment.run()

        async def visit(name, arrival, service, counter):
            await asyncio.sleep(arrival)
            async with counter:
                ours.append((world.now, name, "served"))
                await asyncio.sleep(service)
            ours.append((world.now, name, "left"))

        async def scenario():
            counter = asyncio.Semaphore(2)
            await asyncio.gather(*(visit(i, *c, counter) for i, c in enumerate(customers)))
            ours.append((world.now, "all", "left"))

        world.run(scenario())
        # the order of service and every instant are the same; within one instant a SimPy resource is handed over
        # before the others of that instant go on, an asyncio one after
        assert [row for row in ours if row[2] == "served"] == [row for row in plain if row[2] == "served"]
        assert sorted(ours, key=str) == sorted(plain, key=str)

    def test_a_cancelled_timer_never_runs(self, world):
        seen = []

        async def scenario():
            loop = asyncio.get_running_loop()
            handles = [loop.call_later(1.0, seen.append, i) for i in range(5000)]
            for handle in handles[::2]:
                handle.cancel()
            assert handles[0].cancelled() and not handles[1].cancelled()
            await asyncio.sleep(2.0)

        world.run(scenario())
        assert seen == list(range(1, 5000, 2))


class TestTime:
    def test_a_year_of_hours_is_exact(self, world):
        async def year():
            for _ in range(365 * 24):
                await asyncio.sleep(3600.0)
            return world.now

        assert world.run(year()) == 365 * 24 * 3600.0

    def test_a_second_after_a_year_is_exact(self, world):
        world.run(until=365 * 86400.0)
        assert world.now == 365 * 86400.0
        stamps = []

        async def seconds():
            for _ in range(1000):
                await asyncio.sleep(1.0)
                stamps.append(world.now)

        world.run(seconds())
        assert stamps == [365 * 86400.0 + i for i in range(1, 1001)]

    def test_uneven_steps_land_where_the_sums_do(self, world):
        """Each wake-up is at exactly the instant that floating-point addition gives, also late in the year."""
        world.run(until=300 * 86400.0)
        expected, stamps = [], []
        now = 300 * 86400.0
        for _ in range(500):
            now += 1.0001
            expected.append(now)

        async def steps():
            for _ in range(500):
                await asyncio.sleep(1.0001)
                stamps.append(world.now)

        world.run(steps())
        assert stamps == expected

    def test_tiny_steps_after_a_year_still_move(self, world):
        world.run(until=365 * 86400.0)
        started = world.now

        async def tiny():
            for _ in range(100):
                await asyncio.sleep(1e-6)

        world.run(tiny())
        assert world.now > started

    def test_an_hour_costs_nothing(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
        assert world.run(client.request("calc", "wait", seconds=3600.0, timeout=7200.0)) == "waited"
        assert world.now == 3600.0
        assert calc.state == "idle"

    @pytest.mark.parametrize("delay", [-1.0, -1e-9, math.nan])
    def test_call_later_refuses_to_go_back(self, world, delay):
        async def scenario():
            asyncio.get_running_loop().call_later(delay, print)

        with pytest.raises(InvalidValue, match="0 or more"):
            world.run(scenario())
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    @pytest.mark.parametrize("sleep", [asyncio.sleep, anyio.sleep])
    def test_sleeping_for_ever_does_not_move_the_clock_to_infinity(self, world, sleep):
        with pytest.raises(Stuck):
            world.run(sleep(math.inf))
        assert world.now == 0.0
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"
        assert world.now == 1.0


class TestOrdinaryAsyncio:
    def test_task_group_and_queue(self, world):
        async def scenario():
            queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
            got = []

            async def produce():
                for i in range(6):
                    await queue.put(i)
                    await asyncio.sleep(0.1)

            async def consume():
                for _ in range(6):
                    got.append(await queue.get())
                    await asyncio.sleep(0.3)

            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                group.create_task(consume())
            return got

        assert world.run(scenario()) == list(range(6))
        assert world.now == pytest.approx(1.8)

    def test_task_group_cancels_siblings(self, world):
        ended = []

        async def sibling(name):
            try:
                await asyncio.sleep(100.0)
            finally:
                ended.append(name)

        async def failing():
            await asyncio.sleep(1.0)
            raise KeyError("first")

        async def scenario():
            async with asyncio.TaskGroup() as group:
                for i in range(10):
                    group.create_task(sibling(i))
                group.create_task(failing())

        with pytest.raises(ExceptionGroup) as caught:
            world.run(scenario())
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        assert ended == list(range(10))  # in the order in which they were made, not by address
        assert world.now == 1.0

    def test_timeout(self, world):
        async def scenario():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await asyncio.sleep(10.0)
            return world.now

        assert world.run(scenario()) == 2.5

    def test_wait_for_event_and_condition(self, world):
        async def scenario():
            event, condition = asyncio.Event(), asyncio.Condition()
            asyncio.get_running_loop().call_later(1.0, event.set)
            await asyncio.wait_for(event.wait(), 5.0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 3.0)
            async with condition:
                condition.notify_all()
            return world.now

        assert world.run(scenario()) == 4.0

    def test_gather_wait_and_as_completed(self, world):
        async def scenario():
            gathered = await asyncio.gather(*(asyncio.sleep(3 - i, i) for i in range(3)), return_exceptions=True)
            tasks = [asyncio.create_task(asyncio.sleep(i + 1, i)) for i in range(3)]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == [0] and len(pending) == 2
            return gathered, [await part for part in asyncio.as_completed(pending)], world.now

        assert world.run(scenario()) == ([0, 1, 2], [1, 2], 6.0)

    def test_shield_and_cancel(self, world):
        async def scenario():
            inner = asyncio.create_task(asyncio.sleep(2.0, "kept"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(inner)
            return await inner, world.now

        assert world.run(scenario()) == ("kept", 2.0)

    def test_run_in_executor_is_inline(self, world):
        async def scenario():
            loop = asyncio.get_running_loop()
            here = await loop.run_in_executor(None, threading.get_ident)
            there = await asyncio.to_thread(threading.get_ident)
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(None, lambda: 1 / 0)
            return here == there == threading.get_ident(), world.now

        before = threading.active_count()
        assert world.run(scenario()) == (True, 0.0)
        assert threading.active_count() == before

    def test_call_soon_threadsafe_from_another_thread(self, world):
        async def scenario():
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(done.set))
            thread.start()
            thread.join()
            await done.wait()
            return world.now

        assert world.run(scenario()) == 0.0

    def test_contextvars_follow_tasks(self, world):
        import contextvars

        var = contextvars.ContextVar("var", default="outer")

        async def child():
            await asyncio.sleep(1.0)
            return var.get()

        async def scenario():
            var.set("inner")
            task = asyncio.create_task(child())
            var.set("later")
            return await task, var.get()

        assert world.run(scenario()) == ("inner", "later")

    def test_an_error_in_a_callback_does_not_end_the_world(self, world):
        reported = []

        async def scenario():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
            loop.call_soon(lambda: 1 / 0)
            await asyncio.sleep(1.0)

        world.run(scenario())
        assert [type(error) for error in reported] == [ZeroDivisionError]


class TestAnyio:
    def test_task_group_and_sleep(self, world):
        async def scenario():
            order = []

            async def work(name, seconds):
                await anyio.sleep(seconds)
                order.append(name)

            async with anyio.create_task_group() as group:
                group.start_soon(work, "slow", 2.0)
                group.start_soon(work, "fast", 1.0)
            return order, anyio.current_time()

        assert world.run(scenario()) == (["fast", "slow"], 2.0)

    def test_cancel_scopes(self, world):
        async def scenario():
            with anyio.move_on_after(1.5) as scope:
                await anyio.sleep(10.0)
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError), anyio.fail_after(1.0):
                await anyio.sleep_forever()
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 50.0)
                group.cancel_scope.cancel()
            return world.now

        assert world.run(scenario()) == 2.5

    def test_events_streams_and_threads(self, world):
        async def scenario():
            sender, receiver = anyio.create_memory_object_stream(1)
            got = []

            async def send():
                async with sender:
                    for i in range(3):
                        await sender.send(i)
                        await anyio.sleep(1.0)

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                async with receiver:
                    async for item in receiver:
                        got.append(item)
            return got, world.now

        assert world.run(scenario()) == ([0, 1, 2], 3.0)


class Answer(BaseModel):
    value: int


def test_pydantic_ai_runs_in_virtual_time(world, monkeypatch):
    import pydantic_ai
    from pydantic_ai.models.test import TestModel

    monkeypatch.setattr(pydantic_ai.models, "ALLOW_MODEL_REQUESTS", False)
    thinker = pydantic_ai.Agent(TestModel(custom_output_args={"value": 42}), output_type=Answer)
    calls = []

    @thinker.tool_plain
    async def look_up(word: str) -> str:
        await asyncio.sleep(5.0)
        calls.append(word)
        return word

    async def scenario():
        result = await thinker.run("what is it?")
        return result.output.value

    assert world.run(scenario()) == 42
    assert len(calls) == 1
    assert world.now == 5.0


def test_a_sync_tool_of_pydantic_ai_runs_inline(world, monkeypatch):
    import pydantic_ai
    from pydantic_ai.models.test import TestModel

    monkeypatch.setattr(pydantic_ai.models, "ALLOW_MODEL_REQUESTS", False)
    thinker = pydantic_ai.Agent(TestModel())
    calls = []

    @thinker.tool_plain
    def look_up(word: str) -> str:
        calls.append(threading.current_thread().name)
        return word

    async def scenario():
        with ThreadPoolExecutor(1) as executor, thinker.using_thread_executor(executor):
            return (await thinker.run("what is it?")).output

    assert "look_up" in world.run(scenario())
    assert calls == ["masbook"]


class TestNoNetwork:
    @pytest.mark.parametrize(
        "attempt",
        [
            lambda loop: asyncio.open_connection("127.0.0.1", 9),
            lambda loop: asyncio.start_server(lambda r, w: None, "127.0.0.1", 0),
            lambda loop: loop.getaddrinfo("localhost", 80),
            lambda loop: asyncio.create_subprocess_exec("true"),
            lambda loop: asyncio.create_subprocess_shell("true", stdout=subprocess.DEVNULL),
            lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0)),
            lambda loop: loop.create_unix_connection(asyncio.Protocol, "/nowhere"),
            lambda loop: loop.create_unix_server(asyncio.Protocol, "/nowhere"),
        ],
    )
    def test_refused_with_what_to_do(self, world, attempt):
        async def scenario():
            await attempt(asyncio.get_running_loop())

        with pytest.raises(NeedsRealClock, match='clock="real"'):
            world.run(scenario())
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    @pytest.mark.parametrize("method", ["sock_recv", "sock_sendall", "sock_connect", "add_reader"])
    def test_sockets_are_refused(self, world, method):
        async def scenario():
            loop = asyncio.get_running_loop()
            with socket.socket() as raw:
                raw.setblocking(False)
                second = {"sock_recv": 1, "sock_sendall": b"x", "sock_connect": ("127.0.0.1", 9), "add_reader": print}
                outcome = getattr(loop, method)(raw, second[method])
                if asyncio.iscoroutine(outcome):
                    await outcome

        with pytest.raises(NeedsRealClock):
            world.run(scenario())


class Polite(Agent):
    """Answers every `hello` with a `hello`."""

    async def on_message(self, message: Message) -> None:
        await self.tell(message.sender, "hello")


class TestStuck:
    def test_deadlock_names_who_waits_for_what_from_whom_since_when(self, world):
        class Silent(Agent):
            @capability
            async def answer(self) -> str:
                await asyncio.get_running_loop().create_future()
                return "never"

        world.spawn(Silent("sphinx"))
        client = world.spawn(Agent("client"))

        async def scenario():
            await client.sleep(2.5)
            return await client.request("sphinx", "answer", timeout=None)

        with pytest.raises(Stuck) as caught:
            world.run(scenario())
        lines = str(caught.value).splitlines()[1:]
        (line,) = (line for line in lines if line.split()[0] == "client")
        assert all(word in line for word in ("sphinx", "answer", "since 2.5 s"))
        assert any(line.split()[0] == "sphinx" for line in lines)  # the callee's own wait is named too
        assert "cycle" not in str(caught.value)

    def test_deadlock_names_the_cycle(self, world):
        """Three agents, each waiting for a lock that the next one holds."""

        async def take(who, holder):
            await asyncio.sleep(1.5)
            await world.wait(asyncio.get_running_loop().create_future(), who=who, what="the lock", on=holder)

        async def scenario():
            async with asyncio.TaskGroup() as group:
                for who, holder in [("bob", "cid"), ("ann", "bob"), ("cid", "ann"), ("dan", "ann")]:
                    group.create_task(take(who, holder))

        with pytest.raises(Stuck) as caught:
            world.run(scenario())
        assert "cycle: ann -> bob -> cid -> ann" in str(caught.value)
        assert "dan waits for the lock" in str(caught.value) and "since 1.5 s" in str(caught.value)

    def test_deadlock_names_the_line_of_a_bare_wait(self, world):
        async def waits_for_nothing():
            await asyncio.Event().wait()

        with pytest.raises(Stuck, match="waits_for_nothing, line"):
            world.run(waits_for_nothing())

    def test_two_polite_agents_are_a_livelock(self):
        with World(7) as world:  # not the fixture's: counting half a million messages takes its time
            ann = world.spawn(Polite("ann"))
            world.spawn(Polite("bob"))

            async def scenario():
                await ann.tell("bob", "hello")
                await asyncio.get_running_loop().create_future()

            with pytest.raises(Stuck, match="time stands still"):
                world.run(scenario())

    @pytest.mark.parametrize("kind", ["deadlock", "livelock"])
    def test_the_world_is_usable_after_stuck(self, world, kind):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))

        async def dead():
            await asyncio.Event().wait()

        async def live():
            while True:
                await asyncio.sleep(0)

        said = {"deadlock": "nothing can happen any more at 0 s", "livelock": "time stands still at 0 s"}[kind]
        with pytest.raises(Stuck, match=said):
            world.run(dead() if kind == "deadlock" else live())
        assert world.run(client.request("calc", "add", a=2, b=3)) == 5.0
        assert world.now == 0.5

    def test_a_long_computation_in_steps_is_not_a_livelock(self, world):
        async def busy():
            for _ in range(10_000):
                await asyncio.sleep(0)
            return "done"

        assert world.run(busy()) == "done"

    def test_a_pending_time_out_is_not_a_deadlock(self, world):
        class Silent(Agent):
            @capability
            async def answer(self) -> str:
                await asyncio.get_running_loop().create_future()
                return "never"

        world.spawn(Silent("sphinx"))
        client = world.spawn(Agent("client"))
        with pytest.raises(RequestTimeout):
            world.run(client.request("sphinx", "answer", timeout=4.0))
        assert world.now == 4.0

    def test_an_infinite_time_out_is_no_time_out(self, world):
        class Silent(Agent):
            @capability
            async def answer(self) -> str:
                await asyncio.get_running_loop().create_future()
                return "never"

        world.spawn(Silent("sphinx"))
        client = world.spawn(Agent("client"))
        with pytest.raises((Stuck, InvalidValue)):
            world.run(client.request("sphinx", "answer", timeout=math.inf))
        assert world.now == 0.0


class TestBlocking:
    def test_time_sleep_is_refused_at_once(self, world):
        async def scenario():
            time.sleep(30.0)

        with pytest.raises(BlockedLoop, match=r"await agent\.sleep\(30"):
            world.run(scenario())
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_a_handler_that_never_yields_is_broken_into(self, make_world):
        world = make_world(patience=0.2)

        class Spinner(Agent):
            @capability
            async def spin(self) -> None:
                while True:
                    pass

        world.spawn(Spinner("spinner"))
        client = world.spawn(Agent("client"))
        with pytest.raises(BlockedLoop, match=r"await agent\.sleep\(0\)"):
            world.run(client.request("spinner", "spin"))
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_long_work_with_progress_is_not_blocked(self, make_world):
        world = make_world(patience=0.2)

        async def scenario():
            for _ in range(200_000):
                await asyncio.sleep(0.001)
            return "done"

        assert world.run(scenario()) == "done"


class TestRealClock:
    def test_the_same_face_on_the_wall_clock(self):
        with World(1, clock="real") as world:
            calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

            async def scenario():
                await asyncio.sleep(0.01)
                return await client.request("calc", "divide", a=6, b=2)

            assert world.run(scenario()) == 3.0
            assert world.now >= 0.01
            assert calc.metrics["handled"] == 1

    def test_run_until(self):
        with World(1, clock="real") as world:
            world.run(until=0.02)
            assert world.now >= 0.02

    def test_network_is_there(self):
        async def scenario():
            async def serve(reader, writer):
                writer.write(await reader.readline())
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello\n")
                line = await reader.readline()
                writer.close()
                await writer.wait_closed()
            return line

        with World(1, clock="real") as world:
            assert world.run(scenario()) == b"hello\n"


def test_a_thousand_sleepers_cost_no_thread():
    async def scenario(world: World):
        await asyncio.gather(*(asyncio.sleep(i) for i in range(1000)))

    before = threading.active_count()
    run = simulate(scenario)
    assert run.time == 999.0
    assert threading.active_count() == before


def test_as_completed_begins_in_the_order_given(world):
    agent = world.spawn(Agent("a"))

    async def nap(i):
        agent.note(str(i))
        return await asyncio.sleep(1.0 + i % 3, i)

    async def scenario():
        _kept = [bytearray(i * 37 % 101) for i in range(50)]
        return [await first for first in asyncio.as_completed([nap(i) for i in range(30)])]

    assert world.run(scenario()) == sorted(range(30), key=lambda i: (i % 3, i))
    assert [event.facts["text"] for event in world.trace.events("note")] == [str(i) for i in range(30)]
