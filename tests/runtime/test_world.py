"""Worlds: running, stepping, pacing, interrupting and closing them; streams of randomness; runs as data."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from society import FAULTY, Calculator, Recorder, Slowpoke, gossip

from masbook import Agent, FaultPlan, Run, World, capability, simulate
from masbook.errors import (
    BlockedLoop,
    InvalidInput,
    InvalidName,
    InvalidValue,
    MasbookError,
    NestedRun,
    NotAsync,
    Stuck,
    UnknownCapability,
    UnknownRecipient,
    Unrecordable,
    WorldClosed,
)
from masbook.runtime.trace import Trace


def worlds_threads():
    return [thread for thread in threading.enumerate() if thread.name == "masbook"]


def test_the_example_of_the_design():
    class Calculator(Agent):
        """Adds numbers for whoever asks."""

        @capability(cost=1.0)
        async def add(self, a: float, b: float) -> float:
            """Return a + b."""
            await self.sleep(0.5)  # virtual seconds
            return a + b

    world = World(seed=7)
    world.spawn(Calculator("calc"))
    client = world.spawn(Agent("client"))
    assert world.run(client.request("calc", "add", a=2, b=3)) == 5.0
    assert world.now == 0.5
    world.close()


async def gpu_rush(world: World, agents: int = 3, patience: float = 5.0):
    """The design's scenario in small: several ask for one thing that is slow."""
    world.spawn(Calculator("gpu"))
    people = [world.spawn(Agent(f"p{i}")) for i in range(agents)]

    async def ask(person):
        try:
            return await person.request("gpu", "wait", seconds=2.0, timeout=patience)
        except TimeoutError:
            return "gave up"

    return await asyncio.gather(*(ask(person) for person in people))


class TestRun:
    def test_returns_the_result_and_raises_the_error(self, world):
        async def fails():
            await asyncio.sleep(1.0)
            raise KeyError("mine")

        assert world.run(asyncio.sleep(1.0, "result")) == "result"
        with pytest.raises(KeyError, match="mine"):
            world.run(fails())
        assert world.now == 2.0

    def test_until_is_exact(self, world):
        for until in (0.0, 0.1, 7.25, 7.25, 1e6):
            assert world.run(until=until) is None
            assert world.now == until

    def test_until_runs_what_is_due_at_that_instant_and_nothing_later(self, world):
        seen = []
        agent = world.spawn(Agent("a"))

        async def ticks():
            for i in range(10):
                await agent.sleep(1.0)
                seen.append(i + 1)

        agent.background(ticks())
        world.run(until=3.0)
        assert seen == [1, 2, 3]
        world.run(until=3.999)
        assert seen == [1, 2, 3]

    def test_a_coroutine_and_an_instant(self, world):
        with_time = world.run(asyncio.sleep(1.0, "done"), until=5.0)
        assert with_time == "done" and world.now == 1.0

    def test_a_coroutine_that_the_instant_cuts_short(self, world):
        """Whatever it returns, the world stands at the instant, and the coroutine does not go on behind our back."""
        went_on = []

        async def long():
            await asyncio.sleep(10.0)
            went_on.append(world.now)

        with contextlib.suppress(MasbookError):
            world.run(long(), until=5.0)
        assert world.now == 5.0
        world.run(until=20.0)
        assert went_on == []

    def test_to_the_end_of_all_activity(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 3.0)), world.spawn(Agent("sender"))
        world.run(sender.tell("slow", "t"))
        world.run()
        assert slow.topics == ["t"] and world.now == 3.0

    @pytest.mark.parametrize("until", [-1.0, float("nan"), "soon"])
    def test_a_bad_instant(self, world, until):
        with pytest.raises(InvalidValue, match="until"):
            world.run(until=until)
        world.run(until=1.0)

    def test_the_past(self, world):
        world.run(until=5.0)
        with pytest.raises(InvalidValue, match="until"):
            world.run(until=4.0)

    @pytest.mark.parametrize(
        "thing", [lambda: None, gpu_rush, 7, "x", [1]], ids=["function", "uncalled", "int", "str", "list"]
    )
    def test_what_is_not_a_coroutine(self, world, thing):
        with pytest.raises(NotAsync):
            world.run(thing)
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_a_future_made_by_gather_inside(self, world):
        async def scenario():
            return await asyncio.gather(asyncio.sleep(1.0, 1), asyncio.sleep(2.0, 2))

        assert world.run(scenario()) == [1, 2]

    def test_a_run_inside_a_run(self, world):
        async def outer():
            coroutine = asyncio.sleep(1.0)
            with pytest.raises(NestedRun, match="await"):
                world.run(coroutine)
            with pytest.raises(NestedRun):
                world.run(until=5.0)
            with pytest.raises(NestedRun):
                world.step()
            return "went on"

        assert world.run(outer()) == "went on"
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_another_world_inside_a_run(self, world):
        async def outer():
            with World(1) as other, pytest.raises(NestedRun):
                other.run(asyncio.sleep(1.0))

        with contextlib.suppress(NestedRun):  # closing a world inside a run may be refused as well
            world.run(outer())
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_simulate_inside_a_run(self, world):
        async def outer():
            simulate(gpu_rush)

        with pytest.raises(NestedRun):
            world.run(outer())

    def test_inside_a_running_loop(self):
        """As in a notebook, whose kernel runs a loop in the calling thread."""

        async def outer():
            with World(7) as world:
                world.spawn(Calculator("calc"))
                client = world.spawn(Agent("client"))
                result = world.run(client.request("calc", "add", a=2, b=3))
            return result, simulate(gpu_rush, 7).digest, asyncio.get_running_loop().is_running()

        assert asyncio.run(outer()) == (5.0, simulate(gpu_rush, 7).digest, True)

    def test_from_several_threads_each_with_a_world(self):
        digests = [""] * 4

        def work(i):
            digests[i] = simulate(gossip, 7, faults=FAULTY).digest

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(digests) == {simulate(gossip, 7, faults=FAULTY).digest}

    def test_stop_from_inside(self, world):
        async def scenario():
            await asyncio.sleep(1.0)
            world.stop()
            await asyncio.sleep(1.0)
            return "never"

        assert world.run(scenario()) is None
        assert world.now == 1.0
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_a_stopped_run_is_cancelled(self, world):
        ended = []

        async def scenario():
            try:
                await asyncio.sleep(1.0)
                world.stop()
                await asyncio.sleep(100.0)
            finally:
                ended.append(world.now)

        world.run(scenario())
        assert ended == [1.0]

    @pytest.mark.parametrize(
        "bad",
        [
            {"clock": "sundial"},
            {"schedule": "random"},
            {"seed": 1.5},
            {"seed": None},
            {"patience": 0},
            {"patience": -1.0},
        ],
        ids=str,
    )
    def test_options_are_checked(self, bad):
        with pytest.raises(InvalidValue, match=next(iter(bad))):
            World(**bad)


class TestStep:
    def test_steps_give_the_run(self, make_world):
        """Stepping to the end gives, row by row, the trace of the run."""
        stepped, run = make_world(), make_world()
        for world in (stepped, run):
            calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))
            for i in range(3):
                client.background(client.request("calc", "add", a=i, b=i))
            assert calc.state == "idle"
        run.run()
        steps = 0
        while stepped.step():
            steps += 1
        assert stepped.trace.digest == run.trace.digest and stepped.now == run.now
        assert steps >= 6

    def test_a_step_moves_the_clock_to_at_most_the_next_instant(self, world):
        agent = world.spawn(Agent("a"))

        async def ticks():
            for _ in range(3):
                await agent.sleep(1.0)

        agent.background(ticks())
        instants = []
        while world.step():
            instants.append(world.now)
        assert sorted(set(instants) - {0.0}) == [1.0, 2.0, 3.0]

    def test_a_step_shows_something_new(self, world):
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        client.background(client.request("calc", "add", a=1, b=1))
        before = (len(world.trace), world.now)
        while world.step():
            after = (len(world.trace), world.now)
            assert after > before
            before = after

    def test_nothing_to_do(self, world):
        assert world.step() is False
        assert world.step() is False
        assert world.now == 0.0

    def test_run_goes_on_after_steps(self, make_world):
        stepped, run = make_world(), make_world()
        for world in (stepped, run):
            world.spawn(Slowpoke("slow"))
            sender = world.spawn(Agent("sender"))
            for i in range(4):
                sender.background(sender.tell("slow", str(i)))
        for _ in range(3):
            stepped.step()
        stepped.run()
        run.run()
        assert stepped.trace.digest == run.trace.digest

    def test_shuffled_worlds_step_as_they_run(self, make_world):
        stepped, run = make_world(schedule="shuffled"), make_world(schedule="shuffled")
        for world in (stepped, run):
            people = [world.spawn(Recorder(f"a{i}")) for i in range(4)]
            for person in people:
                person.background(person.broadcast("t"))
        while stepped.step():
            pass
        run.run()
        assert stepped.trace.digest == run.trace.digest


class TestLive:
    """Paced against the wall clock: the same run, only slower. Speeds are high, so that the tests are not."""

    def live(self, scenario, seed=7, speed=1000.0, control=None, **options):
        """Run a scenario live in a loop of its own; `control(world)` runs beside it."""

        async def outer():
            with World(seed, **options) as world:
                steering = asyncio.ensure_future(control(world)) if control else None
                try:
                    result = await world.live(scenario(world), speed=speed)
                finally:
                    if steering:
                        steering.cancel()
                return result, world.now, world.trace.digest

        return asyncio.run(outer())

    def headless(self, scenario, seed=7, **options):
        with World(seed, **options) as world:
            result = world.run(scenario(world))
            return result, world.now, world.trace.digest

    @pytest.mark.parametrize("options", [{}, {"faults": FAULTY}, {"schedule": "shuffled"}], ids=str)
    def test_the_same_digest_as_headless(self, options):
        assert self.live(gossip, **options) == self.headless(gossip, **options)

    def test_the_callers_loop_goes_on_meanwhile(self):
        beats = []

        async def control(world):
            while True:
                beats.append(world.now)
                await asyncio.sleep(0.005)

        async def scenario(world):
            for _ in range(100):
                await asyncio.sleep(0.1)

        self.live(scenario, speed=100.0, control=control)
        assert len(beats) > 5 and beats == sorted(beats) and beats[-1] > beats[0]

    def test_pause_step_resume(self):
        """Paused, the clock stands; a step moves it to the next instant; the digest stays that of the headless run."""

        async def scenario(world):
            agent = world.spawn(Agent("a"))
            for i in range(20):
                await agent.sleep(1.0)
                agent.note(str(i))
            return "done"

        held: list[tuple[float, float]] = []

        async def until(condition):
            while not condition():
                await asyncio.sleep(0.002)

        async def control(world):
            await until(lambda: world.now >= 3.0)
            world.pause()
            await asyncio.sleep(0.05)
            before = world.now
            await asyncio.sleep(0.05)
            held.append((before, world.now))
            rows = len(world.trace)
            world.advance()
            await until(lambda: len(world.trace) > rows or world.now > before)
            await asyncio.sleep(0.03)
            held.append((before, world.now))
            world.set_speed(1000.0)
            world.resume()
            await asyncio.sleep(60.0)

        outcome = self.live(scenario, speed=50.0, control=control)
        assert outcome == self.headless(scenario)
        assert held[0][0] == held[0][1]
        assert held[1][1] - held[1][0] <= 1.0

    def test_resuming_what_is_not_paused_does_not_undo_a_later_pause(self):
        instants = []

        async def control(world):
            world.resume()
            world.resume()
            world.pause()
            await asyncio.sleep(0.05)
            instants.append(world.now)
            await asyncio.sleep(0.1)
            instants.append(world.now)
            world.set_speed(100_000.0)
            world.resume()
            await asyncio.sleep(60.0)

        async def scenario(world):
            for _ in range(1000):
                await asyncio.sleep(0.1)

        self.live(scenario, speed=10.0, control=control)
        assert instants[0] == instants[1]

    def test_stop_ends_it_promptly(self):
        async def control(world):
            await asyncio.sleep(0.03)
            world.stop()

        began = time.monotonic()
        result, now, _ = self.live(lambda world: asyncio.sleep(3600.0, "never"), speed=1.0, control=control)
        assert result is None and now < 3600.0
        assert time.monotonic() - began < 2.0  # a bound on a hang, not a measurement

    def test_stop_while_paused(self):
        async def control(world):
            world.pause()
            await asyncio.sleep(0.05)
            world.stop()

        result, _, _ = self.live(lambda world: asyncio.sleep(3600.0, "never"), speed=1.0, control=control)
        assert result is None

    def test_a_paused_world_is_not_blocked(self):
        async def control(world):
            world.pause()
            await asyncio.sleep(0.4)
            world.set_speed(100_000.0)
            world.resume()
            await asyncio.sleep(60.0)

        result, _, _ = self.live(lambda world: asyncio.sleep(100.0, "done"), speed=100.0, control=control, patience=0.2)
        assert result == "done"

    def test_cancelling_the_caller_stops_the_world(self):
        async def outer():
            with World(7) as world:
                running = asyncio.ensure_future(world.live(asyncio.sleep(3600.0), speed=1.0))
                await asyncio.sleep(0.05)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                return worlds_threads()

        assert asyncio.run(outer()) == []

    @pytest.mark.parametrize("speed", [0, -1.0, float("nan")])
    def test_a_bad_speed(self, world, speed):
        async def outer():
            await world.live(asyncio.sleep(1.0), speed=speed)

        with pytest.raises(InvalidValue, match="speed"):
            asyncio.run(outer())
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_an_error_comes_out(self, world):
        async def fails():
            await asyncio.sleep(1.0)
            raise KeyError("mine")

        async def outer():
            await world.live(fails(), speed=1000.0)

        with pytest.raises(KeyError, match="mine"):
            asyncio.run(outer())

    def test_stuck_comes_out(self, world):
        async def outer():
            await world.live(asyncio.Event().wait(), speed=1000.0)

        with pytest.raises(Stuck):
            asyncio.run(outer())

    def test_one_run_at_a_time(self, world):
        async def outer():
            running = asyncio.ensure_future(world.live(asyncio.sleep(1.0, "first"), speed=10.0))
            await asyncio.sleep(0.02)
            with pytest.raises(NestedRun):
                world.run(until=5.0)
            return await running

        assert asyncio.run(outer()) == "first"

    def test_three_worlds_at_once(self):
        async def outer():
            worlds = [World(7) for _ in range(3)]
            try:
                await asyncio.gather(*(world.live(gossip(world), speed=1000.0) for world in worlds))
                return {world.trace.digest for world in worlds}
            finally:
                for world in worlds:
                    world.close()

        assert asyncio.run(outer()) == {self.headless(gossip)[2]}


async def _spin():
    while True:
        await asyncio.sleep(1.0)  # virtual: a runaway world that never ends


async def _block():
    while True:
        pass


@contextlib.contextmanager
def pressing(interrupt):
    """Interrupt the main thread, and again each second until the block is left."""
    presses, over = [], threading.Event()

    def press():
        wait = 0.15
        while not over.wait(wait):
            wait = 1.0
            presses.append(time.monotonic())
            interrupt()

    # whoever starts the tests in the background may have told the process to ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield presses
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


class TestInterrupt:
    @pytest.mark.parametrize("runaway", [_spin, _block])
    @pytest.mark.parametrize(
        "interrupt", [_thread.interrupt_main, lambda: signal.raise_signal(signal.SIGINT)], ids=["kernel", "signal"]
    )
    def test_a_runaway_world_stops_within_half_a_second(self, make_world, runaway, interrupt):
        world = make_world(patience=60.0)
        with pressing(interrupt) as interrupted, pytest.raises(KeyboardInterrupt):
            world.run(runaway())
        assert time.monotonic() - interrupted[-1] < 0.6
        assert worlds_threads() == []
        assert world.run(asyncio.sleep(1.0, "usable")) == "usable"

    def test_simulate_leaves_nothing_behind(self):
        async def runaway(world: World):
            world.spawn(Agent("a", heartbeat=1.0))
            await _spin()

        with pressing(_thread.interrupt_main), pytest.raises(KeyboardInterrupt):
            simulate(runaway)
        assert worlds_threads() == []
        assert simulate(gpu_rush, 7).ok


class TestClose:
    def test_who_still_waits_for_an_answer_is_not_reported(self, make_world, caplog):
        class Slow(Agent):
            @capability
            async def work(self) -> None:
                await self.sleep(100.0)

        world = make_world()
        client = world.spawn(Agent("client"))
        world.spawn(Slow("slow"))

        async def scenario():
            asyncio.create_task(client.request("slow", "work"))  # noqa: RUF006
            await client.sleep(1.0)

        world.run(scenario())
        world.close()
        gc.collect()
        assert "never retrieved" not in caplog.text

    def test_everything_it_started_ends(self):
        ended = []

        class Busy(Agent):
            async def on_start(self):
                self.background(self.forever("background"))

            async def on_message(self, message):
                await self.forever("handler")

            async def forever(self, what):
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(what)

            async def on_stop(self):
                ended.append("on_stop")

        async def loose():
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append("task")

        async def generator():
            try:
                yield 1
                yield 2
            finally:
                ended.append("generator")

        async def scenario():
            asyncio.get_running_loop().loose = asyncio.ensure_future(loose())
            numbers = generator()
            asyncio.get_running_loop().kept = numbers
            await anext(numbers)
            await sender.tell("busy", "t")
            await sender.sleep(1.0)

        before = threading.active_count()
        world = World(7)
        world.spawn(Busy("busy"))
        sender = world.spawn(Agent("sender"))
        world.run(scenario())
        assert ended == []
        world.close()
        assert sorted(ended) == ["background", "generator", "handler", "on_stop", "task"]
        assert threading.active_count() == before and worlds_threads() == []

    def test_who_asked_to_hear_of_it_does_once_after_everything_else(self):
        ended = []

        class Busy(Agent):
            async def on_stop(self):
                ended.append("on_stop")

        world = World(7)
        world.spawn(Busy("busy"))
        world.when_closed(lambda: ended.append("farewell"))
        world.close()
        world.close()
        assert ended == ["on_stop", "farewell"]

    def test_twice_is_harmless(self):
        world = World(7)
        world.close()
        closed = world.trace.digest
        world.close()
        assert world.trace.digest == closed

    @pytest.mark.parametrize(
        "use",
        [
            lambda w: w.run(until=1.0),
            lambda w: w.run(asyncio.sleep(1.0)),
            lambda w: w.step(),
            lambda w: w.spawn(Agent("a")),
            lambda w: asyncio.run(w.live(asyncio.sleep(1.0))),
        ],
        ids=["until", "run", "step", "spawn", "live"],
    )
    def test_a_closed_world_says_so(self, use):
        world = World(7)
        world.close()
        with pytest.raises(WorldClosed, match="new"):
            use(world)

    def test_what_happened_can_still_be_read(self):
        with World(7) as world:
            world.spawn(Recorder("a"))
            world.run(until=5.0)
        assert world.now >= 5.0 and world.trace.count("spawned") == 1 and len(world.trace.digest) == 64

    def test_close_inside_the_world_is_refused_or_harmless(self):
        async def scenario(world: World):
            try:
                world.close()
            except MasbookError:
                return "refused"
            return "closed"

        run = simulate(scenario)
        assert run.ok and run.result == "refused"
        assert worlds_threads() == []

    def test_an_on_stop_that_never_ends_does_not_hang_the_close(self):
        class Endless(Agent):
            async def on_stop(self):
                while True:
                    await self.sleep(1.0)

        class Blocking(Agent):
            async def on_stop(self):
                await asyncio.Event().wait()

        world = World(7)
        world.spawn(Endless("endless"))
        world.spawn(Blocking("blocking"))
        world.close()
        assert worlds_threads() == []

    def test_closing_while_a_live_run_goes_on(self):
        async def outer():
            world = World(7)
            running = asyncio.ensure_future(world.live(asyncio.sleep(3600.0), speed=1.0))
            await asyncio.sleep(0.05)
            world.close()
            await asyncio.gather(running, return_exceptions=True)
            return worlds_threads()

        assert asyncio.run(outer()) == []

    def test_a_world_that_is_forgotten_warns_of_nothing(self):
        """filterwarnings is `error`: pending tasks and coroutines must go without a word."""
        import gc

        world = World(7)
        world.spawn(Slowpoke("slow", 100.0))
        sender = world.spawn(Agent("sender", heartbeat=1.0))
        world.run(sender.tell("slow", "t"))
        world.run(until=5.0)
        del world, sender
        gc.collect()
        assert worlds_threads() == []


class TestRandomness:
    def test_streams_do_not_depend_on_other_agents(self):
        async def few(world: World):
            a = world.spawn(Agent("a"))
            return [a.random.random() for _ in range(5)]

        async def many(world: World):
            others = [world.spawn(Agent(f"x{i}")) for i in range(10)]
            a = world.spawn(Agent("a"))
            draws = []
            for _ in range(5):
                for other in others:
                    other.random.random()
                draws.append(a.random.random())
            return draws

        assert simulate(few, 3).result == simulate(many, 3).result

    def test_owners_and_seeds_differ(self, make_world):
        draws = {make_world(seed).random(owner).random() for seed in (1, 2, "one") for owner in ("a", "b", "a ", "ab")}
        assert len(draws) == 12

    def test_an_agent_with_an_odd_name_does_not_share_the_worlds_own_streams(self):
        """Whoever is called `schedule` draws for itself: the order of events is the same whether it draws or not."""

        async def scenario(world: World, draws: int):
            agent = world.spawn(Agent("schedule"))
            for _ in range(draws):
                agent.random.random()
            return await gossip(world)

        plain, drawing = (simulate(scenario, 3, schedule="shuffled", draws=draws) for draws in (0, 100))
        assert plain.digest == drawing.digest

    def test_the_same_owner_goes_on(self, world):
        assert world.random("a") is world.random("a")
        assert world.spawn(Agent("a")).random is world.random("a")

    def test_text_seeds(self):
        assert (
            simulate(gossip, "monday").digest == simulate(gossip, "monday").digest != simulate(gossip, "tuesday").digest
        )


class TestIds:
    def test_sequential_per_kind(self, world):
        assert [world.new_id("task") for _ in range(3)] == ["task-1", "task-2", "task-3"]
        assert world.new_id("vote") == "vote-1"
        assert world.new_id("task") == "task-4"

    def test_the_same_in_every_world(self, make_world):
        assert make_world().new_id("task") == make_world().new_id("task") == "task-1"


class TestSimulate:
    def test_a_run_is_data(self):
        run = simulate(gpu_rush, seed=7, agents=5)
        assert (run.scenario, run.seed, dict(run.params), run.ok, run.error) == (
            "gpu_rush",
            7,
            {"agents": 5},
            True,
            None,
        )
        assert run.result == ["waited", "waited", "gave up", "gave up", "gave up"]
        assert run.time == 5.0 and run.digest == run.trace.digest and run.schedule == "fifo" and run.faults is None

    def test_frozen(self):
        run = simulate(gpu_rush, 7)
        with pytest.raises(dataclasses.FrozenInstanceError):
            run.seed = 8
        with pytest.raises(TypeError):
            run.params["agents"] = 8

    @pytest.mark.parametrize("trace", [Trace.full, Trace.counts, lambda: Trace.ring(3)], ids=["full", "counts", "ring"])
    def test_picklable(self, trace):
        run = simulate(gossip, 7, faults=FAULTY, schedule="shuffled", trace=trace(), agents=4)
        again = pickle.loads(pickle.dumps(run))
        assert isinstance(again, Run) and again == run
        assert again.trace.digest == run.digest and again.faults == FAULTY and dict(again.params) == {"agents": 4}

    def test_an_error_is_part_of_the_run(self):
        async def fails(world: World):
            await asyncio.sleep(2.5)
            raise KeyError("mine")

        run = simulate(fails, 7)
        assert not run.ok and isinstance(run.error, KeyError) and run.result is None and run.time == 2.5
        again = pickle.loads(pickle.dumps(run))
        assert repr(again.error) == repr(run.error)

    def test_errors_that_cannot_be_pickled_are_still_errors(self):
        class Odd(Exception):
            def __init__(self, a, b):
                super().__init__(f"{a} and {b}")

        async def fails(world: World):
            raise Odd(1, lambda: 2)

        run = simulate(fails, 7)
        again = pickle.loads(pickle.dumps(run))
        assert not again.ok and "Odd" in repr(again.error) and "1 and" in str(again.error)

    def test_groups_of_errors(self):
        async def fails(world: World):
            async with asyncio.TaskGroup() as group:
                group.create_task(world.spawn(Agent("a")).request("nobody", "ping"))

        run = pickle.loads(pickle.dumps(simulate(fails, 7)))
        assert isinstance(run.error, ExceptionGroup)

    @pytest.mark.parametrize("value", [lambda: None, (i for i in "ab")], ids=["function", "generator"])
    def test_a_result_that_is_not_data(self, value):
        """A run is data: what cannot be pickled is refused or replaced, not discovered by the sweep's workers."""

        async def scenario(world: World):
            return value

        run = pickle.loads(pickle.dumps(simulate(scenario)))
        assert run.result is None and isinstance(run.error, Unrecordable)

    def test_a_forgotten_await(self):
        async def scenario(world: World):
            return world.spawn(Agent("a")).sleep(1.0)

        assert str(simulate(scenario).error) == "the scenario returned a coroutine: did you forget `await`?"

    @pytest.mark.filterwarnings("error")
    def test_a_scenario_that_has_been_called(self):
        async def scenario(world: World):
            return 1

        with pytest.raises(NotAsync, match=r"give scenario itself, not scenario\(\.\.\.\)"):
            simulate(scenario(None))

    @pytest.mark.parametrize("error", [Stuck, BlockedLoop])
    def test_worlds_that_end_badly(self, error):
        async def stuck(world: World):
            await asyncio.Event().wait()

        async def blocked(world: World):
            time.sleep(60.0)

        run = simulate(stuck if error is Stuck else blocked)
        assert isinstance(run.error, error)
        assert isinstance(pickle.loads(pickle.dumps(run)).error, error)

    def test_not_async(self):
        def scenario(world: World):
            return 1

        async def generator(world: World):
            yield 1

        for thing in (scenario, lambda world: None, generator, 7, None):
            with pytest.raises(NotAsync, match="async def"):
                simulate(thing)

    @pytest.mark.parametrize("params", [{"agnets": 3}, {"agents": 3, "world": 1}])
    def test_wrong_parameters(self, params):
        with pytest.raises(InvalidValue, match="gpu_rush"):
            simulate(gpu_rush, 7, **params)

    def test_missing_parameters(self):
        async def scenario(world: World, needed: int):
            return needed

        with pytest.raises(InvalidValue, match="needed"):
            simulate(scenario)
        assert simulate(scenario, needed=3).result == 3

    def test_callable_objects_and_partials(self):
        class Scenario:
            async def __call__(self, world: World):
                return world.seed

        assert simulate(functools.partial(gpu_rush, agents=1), 7).result == ["waited"]
        with contextlib.suppress(NotAsync):
            assert simulate(Scenario(), 7).result == 7

    def test_asyncio_run_inside_a_scenario(self):
        async def scenario(world: World):
            coroutine = asyncio.sleep(1.0)
            try:
                asyncio.run(coroutine)
            finally:
                coroutine.close()

        run = simulate(scenario)
        assert isinstance(run.error, NestedRun) and "await" in str(run.error)

    def test_run_until_complete_inside_a_scenario(self):
        async def scenario(world: World):
            coroutine = asyncio.sleep(1.0)
            try:
                asyncio.get_running_loop().run_until_complete(coroutine)
            finally:
                coroutine.close()

        run = simulate(scenario)
        assert isinstance(run.error, NestedRun)

    def test_nothing_outlives_it(self):
        before = threading.active_count()
        for seed in range(20):
            simulate(gossip, seed)
        assert threading.active_count() == before

    def test_what_the_scenario_left_running_ends_with_it(self):
        ended = []

        async def forever():
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append("ended")

        async def scenario(world: World):
            world.left = asyncio.ensure_future(forever())
            await asyncio.sleep(1.0)

        run = simulate(scenario)
        assert run.time == 1.0 and ended == ["ended"]

    def test_repr_is_short_and_says_what_matters(self):
        text = repr(simulate(gpu_rush, 7))
        assert "gpu_rush" in text and "seed=7" in text and len(text) < 300

    def test_security_and_faults_reach_the_world(self):
        run = simulate(gossip, 7, faults=FaultPlan(drop=1.0))
        assert run.trace.count("dropped") > 0


async def spawns(world, client):
    world.spawn(Agent("client"))


async def nameless(world, client):
    Agent("")


async def unknown_recipient(world, client):
    await client.tell("ghost", "t")


async def unknown_capability(world, client):
    await client.request("calc", "multiply", a=1, b=2)


async def wrong_type(world, client):
    await client.request("calc", "add", a="one", b=2)


async def missing_field(world, client):
    await client.request("calc", "add", a=1)


async def unrecordable(world, client):
    await client.request("calc", "add", a={1, 2}, b=2)


async def unrecordable_note(world, client):
    client.note("x", what=object())


async def negative_sleep(world, client):
    await client.sleep(-1.0)


async def negative_call_later(world, client):
    asyncio.get_running_loop().call_later(-1.0, print)


async def negative_timeout(world, client):
    await client.request("calc", "add", a=1, b=2, timeout=-1.0)


async def scenario_that_is_not_async(world, client):
    simulate(lambda world: None)


async def run_inside_a_run(world, client):
    world.run(until=100.0)


async def time_sleep(world, client):
    time.sleep(60.0)


async def never_yields(world, client):
    while True:
        pass


async def asyncio_run(world, client):
    coroutine = asyncio.sleep(1.0)
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()


class TestBadInput:
    """A typed error that says what to do, at once; the world and its trace stay usable."""

    @pytest.mark.parametrize(
        ("act", "error", "says"),
        [
            (spawns, InvalidName, "choose another"),
            (nameless, InvalidName, "give it a name"),
            (unknown_recipient, UnknownRecipient, "there are: calc, client"),
            (unknown_capability, UnknownCapability, "it can .*add"),
            (wrong_type, InvalidInput, "'a'"),
            (missing_field, InvalidInput, "'b'"),
            (unrecordable, Unrecordable, "send numbers, text"),
            (unrecordable_note, Unrecordable, "send numbers, text"),
            (negative_sleep, InvalidValue, "0 or more"),
            (negative_call_later, InvalidValue, "0 or more"),
            (negative_timeout, InvalidValue, "more than 0"),
            (scenario_that_is_not_async, NotAsync, "async def"),
            (run_inside_a_run, NestedRun, "await"),
            (time_sleep, BlockedLoop, "await agent.sleep"),
            (never_yields, BlockedLoop, "await agent.sleep"),
            (asyncio_run, NestedRun, "await"),
        ],
    )
    def test_typed_at_once_and_nothing_breaks(self, make_world, act, error, says):
        world = make_world(patience=0.3)
        world.spawn(Calculator("calc"))
        client = world.spawn(Agent("client"))
        with pytest.raises(error, match=says) as caught:
            world.run(act(world, client))
        assert isinstance(caught.value, MasbookError)
        assert world.now == 0.0
        assert world.bus.accounting()["missing"] == 0
        assert world.run(client.request("calc", "add", a=2, b=3)) == 5.0
        assert world.now == 0.5 and client.state == "idle"
        world.trace.record("note", "test", text="usable")
        assert len(world.trace.digest) == 64 and list(world.trace)[-1].facts["text"] == "usable"

    @pytest.mark.parametrize("act", [time_sleep, never_yields, run_inside_a_run, asyncio_run, negative_sleep])
    def test_in_a_handler_it_goes_to_who_asked(self, make_world, act):
        class Clumsy(Agent):
            @capability
            async def act(self) -> None:
                await act(self.world, self)

        world = make_world(patience=0.3)
        clumsy, client = world.spawn(Clumsy("clumsy")), world.spawn(Agent("client"))
        with pytest.raises(MasbookError):
            world.run(client.request("clumsy", "act"))
        assert clumsy.state == "idle" and world.trace.count("failed", "clumsy") == 1
        assert world.run(client.request("clumsy", "ping")) == "pong"


def test_import_masbook_is_light():
    heavy = ["pandas", "matplotlib", "ipywidgets", "pydantic_ai", "numpy", "scipy", "networkx"]
    code = f"import sys, masbook; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_pinned():
    import masbook

    assert masbook.__all__ == sorted(masbook.__all__)
    assert set(masbook.__all__) >= {
        "Agent", "FaultPlan", "Filter", "MasbookError", "Message", "MessageType", "Run", "World",
        "capability", "on", "simulate",
    }  # fmt: skip
    assert all(hasattr(masbook, name) for name in masbook.__all__)


def test_the_tree_of_errors_has_one_root_and_says_what_to_do():
    import masbook.errors as errors

    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(value, MasbookError) and value.__doc__ for value in classes)
    assert issubclass(errors.RequestTimeout, TimeoutError) and issubclass(errors.InvalidValue, ValueError)
    assert issubclass(errors.UnknownRecipient, LookupError)
    assert all(value.__name__ in errors.__doc__ for value in classes)


def bounded(work, seconds=5.0):
    """Return what `work()` returns or raises, in a thread of its own; TimeoutError if it hangs."""
    outcome: list[Callable[[], object]] = []

    def target():
        try:
            result = work()
            outcome.append(lambda: result)
        except BaseException as raised:
            error = raised
            outcome.append(lambda: _raise(error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"still at work after {seconds:g} s")
    return outcome[0]()


def _raise(error):
    raise error


async def soon(condition, seconds=2.0):
    """Wait until the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def notes(world: World):
    """Twenty notes, one a second."""
    agent = world.spawn(Agent("a"))
    for i in range(20):
        await agent.sleep(1.0)
        agent.note(str(i))
    return "done"


class TestCommandsOutsideARun:
    """A command that comes too early or too late spoils no later run, and nothing hangs."""

    @pytest.fixture
    def steered(self):
        """Return a world that is let go of at the end, also when a test finds it hanging."""
        world = World(7, patience=2)
        yield world
        world.resume()
        world.stop()
        world.close()
        assert worlds_threads() == []

    @pytest.mark.parametrize("commands", [["stop"], ["stop", "stop"], ["advance", "resume", "stop"]], ids="-".join)
    def test_after_a_run(self, steered, commands):
        steered.run(asyncio.sleep(1.0))
        for command in commands:
            getattr(steered, command)()
        assert bounded(lambda: steered.run(asyncio.sleep(1.0, 42))) == 42
        assert steered.now == 2.0

    def test_stop_after_a_run_does_not_end_the_next_live_one(self, steered):
        steered.run(asyncio.sleep(1.0))
        steered.stop()
        assert bounded(lambda: asyncio.run(steered.live(asyncio.sleep(1.0, 42), speed=None))) == 42

    def test_pausing_before_a_run_that_is_not_live(self, steered):
        steered.pause()
        assert bounded(lambda: steered.run(asyncio.sleep(1.0, 42))) == 42

    def test_pausing_inside_a_run_that_is_not_live(self, steered):
        async def scenario():
            steered.pause()
            return await asyncio.sleep(1.0, 42)

        assert bounded(lambda: steered.run(scenario())) == 42

    def test_pausing_inside_simulate(self):
        worlds = []

        async def scenario(world):
            worlds.append(world)
            world.pause()
            return await asyncio.sleep(1.0, 42)

        try:
            assert bounded(lambda: simulate(scenario, 7)).result == 42
        finally:
            worlds[0].stop()

    def test_cancelling_a_paused_run(self, steered):
        async def outer():
            running = asyncio.ensure_future(steered.live(notes(steered), speed=20.0))
            await soon(lambda: steered.now >= 1.0)
            steered.pause()
            await asyncio.sleep(0.05)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await soon(lambda: worlds_threads() == [])

        bounded(lambda: asyncio.run(outer()))
        assert bounded(lambda: steered.run(asyncio.sleep(1.0, 42))) == 42

    def test_closing_a_paused_world(self):
        world = World(7, patience=2)

        async def outer():
            running = asyncio.ensure_future(world.live(notes(world), speed=20.0))
            await soon(lambda: world.now >= 1.0)
            world.pause()
            await asyncio.sleep(0.05)
            world.close()
            with contextlib.suppress(asyncio.CancelledError):
                await running

        bounded(lambda: asyncio.run(outer()))
        assert worlds_threads() == []

    def test_pause_resume_pause_in_one_go_is_a_pause(self, steered):
        async def outer():
            running = asyncio.ensure_future(steered.live(notes(steered), speed=20.0))
            await soon(lambda: steered.now >= 1.0)
            steered.pause()
            steered.resume()
            steered.pause()
            await asyncio.sleep(0.05)
            held = steered.now
            steered.set_speed(None)
            await asyncio.sleep(0.1)
            assert (steered.now, running.done()) == (held, False)
            steered.resume()
            return await asyncio.wait_for(running, 2.0)

        assert bounded(lambda: asyncio.run(outer())) == "done"

    def test_a_resumed_run_can_be_paused_again(self, steered):
        async def outer():
            running = asyncio.ensure_future(steered.live(notes(steered), speed=20.0))
            for _ in range(3):
                await soon(lambda before=steered.now: steered.now > before)
                steered.pause()
                steered.resume()
                steered.resume()
                steered.pause()
                await asyncio.sleep(0.05)
                held = steered.now
                await asyncio.sleep(0.05)
                assert steered.now == held
                steered.resume()
            steered.set_speed(None)
            return await asyncio.wait_for(running, 2.0)

        assert bounded(lambda: asyncio.run(outer())) == "done"

    def test_pause_before_live_then_advance_twice_then_resume(self, steered):
        rows = []

        async def outer():
            steered.pause()
            rows.append(len(steered.trace))
            running = asyncio.ensure_future(steered.live(notes(steered), speed=None))
            await asyncio.sleep(0.05)
            rows.append(len(steered.trace))
            for _ in range(2):
                steered.advance()
                await soon(lambda before=rows[-1]: len(steered.trace) > before)
                await asyncio.sleep(0.02)
                rows.append(len(steered.trace))
            await asyncio.sleep(0.02)
            rows.append(len(steered.trace))
            assert not running.done()
            steered.resume()
            return await asyncio.wait_for(running, 2.0)

        assert bounded(lambda: asyncio.run(outer())) == "done"
        start, held, first, second, still = rows
        assert start == held < first < second == still
        with World(7) as unpaused:
            unpaused.run(notes(unpaused))
            assert steered.trace.digest == unpaused.trace.digest

    def test_a_pause_does_not_outlive_its_run(self, steered):
        async def outer():
            running = asyncio.ensure_future(steered.live(notes(steered), speed=20.0))
            await soon(lambda: steered.now >= 1.0)
            steered.pause()
            await asyncio.sleep(0.02)
            steered.stop()
            assert await asyncio.wait_for(running, 2.0) is None
            return await asyncio.wait_for(steered.live(asyncio.sleep(1.0, 42), speed=None), 2.0)

        assert bounded(lambda: asyncio.run(outer())) == 42


class TestRunningWhatIsAwaitable:
    def test_the_future_of_stop(self, world):
        agent = world.spawn(Agent("a"))
        assert world.run(agent.stop()) is None
        assert agent.state == "offline"

    def test_a_task_and_an_object_with_await(self, world):
        class Later:
            def __await__(self):
                return asyncio.sleep(1.0, 42).__await__()

        agent = world.spawn(Agent("a"))
        assert world.run(agent.background(asyncio.sleep(1.0, 7))) == 7
        assert world.run(Later()) == 42
        assert world.now == 2.0


class TestRunsAreData:
    @pytest.mark.parametrize("value", [lambda: 3, threading.Lock()], ids=["function", "lock"])
    def test_a_parameter_that_is_not_data(self, value):
        async def scenario(world, policy):
            return 3

        try:
            run = simulate(scenario, 7, policy=value)
        except MasbookError:
            return
        copy = pickle.loads(pickle.dumps(run))
        assert (copy.result, copy.digest) == (3, run.digest) and list(copy.params) == ["policy"]

    def test_a_plan_that_is_not_data(self):
        async def scenario(world):
            return 3

        try:
            run = simulate(scenario, 7, faults=FaultPlan(only=lambda message: True))
        except MasbookError:
            return
        assert pickle.loads(pickle.dumps(run)).digest == run.digest

    def test_a_scenario_that_ends_cancelled(self):
        closed = []

        async def scenario(world):
            agent = world.spawn(Agent("a"))
            closed.append(agent)
            raise asyncio.CancelledError

        run = bounded(lambda: simulate(scenario, 7))
        assert not run.ok and closed[0].state == "offline"
        assert pickle.loads(pickle.dumps(run)).digest == run.digest


class TestOneThing:
    def test_a_step_in_a_livelock_says_so(self):
        world = World(7)
        agent = world.spawn(Agent("a"))

        async def spin():
            while True:
                await asyncio.sleep(0)

        agent.background(spin())
        with pytest.raises(Stuck, match="time stands still"):
            while world.step():
                pass
        agent.stop()
        world.close()

    def test_seeds_of_another_type_are_other_seeds(self, make_world):
        assert make_world(1).random("a").random() != make_world("1").random("a").random()

    @pytest.mark.parametrize("name", ["schedule", "faults", "faults/a/b", "faults/drop/a/b"])
    def test_no_agent_draws_from_the_worlds_own_streams(self, name):
        async def scenario(world, draws):
            agent = world.spawn(Agent(name))
            for _ in range(draws):
                agent.random.random()
            await gossip(world)

        runs = [simulate(scenario, 7, schedule="shuffled", faults=FAULTY, draws=draws) for draws in (0, 5)]
        assert runs[0].digest == runs[1].digest

    def test_the_collector_is_left_as_it_was(self):
        before = gc.get_threshold()
        doors = [threading.Event(), threading.Event()]

        async def scenario(world, door):
            while not door.is_set():
                await asyncio.sleep(1.0)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = (pool.submit(simulate, scenario, 7, trace=Trace.counts(), door=door) for door in doors)
            doors[0].set()
            first.result(5.0)
            doors[1].set()
            second.result(5.0)
        assert gc.get_threshold() == before


class TestTheWallClock:
    """A world on the wall clock keeps the promises of `run` too."""

    def real(self, work):
        world = World(7, clock="real", patience=0.5)
        try:
            return bounded(lambda: work(world), 4.0)
        finally:
            world.stop()
            bounded(world.close)

    def test_a_handler_that_never_waits_is_broken_into(self):
        async def runaway():
            while True:
                pass

        with pytest.raises(BlockedLoop):
            self.real(lambda world: world.run(runaway()))

    def test_stop_after_a_run_does_not_end_the_next(self):
        def twice(world):
            world.run(asyncio.sleep(0.01))
            world.stop()
            return world.run(asyncio.sleep(0.01, 42))

        assert self.real(twice) == 42
