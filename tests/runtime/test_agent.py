"""Agents: states, hooks, queries, stopping, concurrency, background work, heartbeats, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from functools import partial
from pathlib import Path

import pandas
import pytest
from society import Breakable, Calculator, Recorder, Slowpoke, missing

from masbook import Agent, Message, MessageType, World, capability, on
from masbook.errors import (
    AgentCrashed,
    AgentOffline,
    InvalidName,
    InvalidValue,
    MasbookError,
    NestedRun,
    NotAsync,
    Refused,
    Unrecordable,
    WorldError,
)


class TestNames:
    @pytest.mark.parametrize("name", ["", "   ", None, 7, b"a"])
    def test_a_name_is_text(self, name):
        with pytest.raises(InvalidName, match="name"):
            Agent(name)

    def test_a_name_is_taken_once(self, world):
        world.spawn(Agent("ann"))
        with pytest.raises(InvalidName, match="'ann'"):
            world.spawn(Agent("ann"))
        with pytest.raises(InvalidName):
            world.spawn(Agent("registry"))
        assert world.trace.count("spawned") == 1

    def test_the_same_agent_is_spawned_once(self, world):
        ann = world.spawn(Agent("ann"))
        with pytest.raises(InvalidName):
            world.spawn(ann)

    def test_an_agent_lives_in_one_world(self, make_world):
        first, second = make_world(), make_world()
        ann = first.spawn(Agent("ann"))
        with pytest.raises(MasbookError):
            second.spawn(ann)
        assert ann.world is first

    def test_one_that_refuses_its_place_leaves_nothing_behind(self, world):
        class Choosy(Agent):
            def check_place(self, world):
                raise InvalidValue("no board: spawn one first")

        before = len(world.trace)
        with pytest.raises(InvalidValue, match="no board"):
            world.spawn(Choosy("ann"))
        assert len(world.trace) == before and "ann" not in world.agents
        world.spawn(Agent("ann"))

    def test_only_agents_are_spawned(self, world):
        for thing in (Agent, "ann", None):
            with pytest.raises(InvalidValue, match="Agent"):
                world.spawn(thing)

    def test_before_spawn(self):
        agent = Agent("ann")
        assert agent.state == "offline"
        for attempt in (lambda: agent.now, lambda: agent.random, lambda: agent.note("x"), lambda: agent.world):
            with pytest.raises(WorldError, match=r"world\.spawn"):
                attempt()

    @pytest.mark.parametrize(
        "options",
        [{"concurrency": 0}, {"concurrency": 1.5}, {"heartbeat": 0}, {"heartbeat": -1.0}, {"heartbeat": float("nan")}],
    )
    def test_options_are_checked(self, options):
        with pytest.raises(InvalidValue, match=next(iter(options))):
            Agent("ann", **options)


class TestStates:
    def test_idle_busy_idle_offline(self, world):
        slow = Slowpoke("slow", 2.0)
        assert slow.state == "offline"
        world.spawn(slow)
        sender = world.spawn(Agent("sender"))

        async def scenario():
            states = [slow.state]
            await sender.tell("slow", "t")
            await sender.sleep(1.0)
            states.append(slow.state)
            await sender.sleep(2.0)
            states.append(slow.state)
            await slow.stop()
            return [*states, slow.state]

        assert world.run(scenario()) == ["idle", "busy", "idle", "offline"]

    def test_error_after_a_crash(self, world):
        agent, sender = world.spawn(Breakable("a")), world.spawn(Agent("sender"))
        world.run(sender.tell("a", "boom"))
        world.run(until=1.0)
        assert agent.state == "error"
        agent.restart()
        assert agent.state == "idle"

    def test_stopped_after_a_crash_is_offline(self, world):
        agent, sender = world.spawn(Breakable("a"), restart="on_crash", backoff=10.0), world.spawn(Agent("sender"))
        world.run(sender.tell("a", "boom"))
        world.run(until=1.0)
        assert agent.state == "error"
        agent.stop()
        assert agent.state == "offline"

    def test_load_counts_work_and_mail_for_each_slot(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 10.0, concurrency=2)), world.spawn(Agent("sender"))

        async def scenario():
            assert slow.load == 0.0
            for _ in range(5):
                await sender.tell("slow", "t")
            await sender.sleep(1.0)
            return slow.load

        assert world.run(scenario()) == 2.5


class Hooked(Recorder):
    """Writes down its life."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.life: list[tuple[float, str]] = []

    async def on_start(self):
        await self.sleep(1.0)
        self.life.append((self.now, "start"))

    async def on_stop(self):
        await self.sleep(0.5)
        self.life.append((self.now, "stop"))

    async def on_message(self, message):
        self.life.append((self.now, message.topic))


class TestHooks:
    def test_nothing_is_handled_before_on_start_is_done(self, world):
        hooked, sender = world.spawn(Hooked("hooked")), world.spawn(Agent("sender"))
        world.run(sender.tell("hooked", "t"))
        world.run(until=3.0)
        assert hooked.life == [(1.0, "start"), (1.0, "t")]

    def test_on_stop_comes_last_and_can_be_awaited(self, world):
        hooked, sender = world.spawn(Hooked("hooked")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.sleep(2.0)
            await hooked.stop()
            return world.now

        assert world.run(scenario()) == 2.5
        assert hooked.life == [(1.0, "start"), (2.5, "stop")]

    def test_an_error_in_on_start_is_a_crash(self, world):
        class Stillborn(Agent):
            async def on_start(self):
                raise OSError("no disk")

        agent = world.spawn(Stillborn("agent"))
        world.run(until=1.0)
        assert agent.state == "error"
        assert [event.facts["error"] for event in world.trace.events("crashed")] == ["OSError"]

    def test_an_error_in_on_stop_is_in_the_trace_and_the_agent_stays_stopped(self, world):
        class Clumsy(Agent):
            async def on_stop(self):
                raise OSError("no disk")

        agent = world.spawn(Clumsy("agent"))

        async def scenario():
            await agent.stop()

        world.run(scenario())
        assert agent.state == "offline"
        assert [event.facts["message"] for event in world.trace.events("crashed")] == ["no disk"]

    def test_on_stop_runs_when_the_world_closes(self):
        world = World(7)
        hooked = world.spawn(Hooked("hooked"))
        world.run(until=2.0)
        world.close()
        assert hooked.life[-1] == (2.5, "stop")

    def test_hooks_run_again_after_a_stop_and_a_restart(self, world):
        hooked, sender = world.spawn(Hooked("hooked")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.sleep(2.0)
            await hooked.stop()
            hooked.restart()
            await sender.sleep(2.0)

        world.run(scenario())
        assert [what for _, what in hooked.life] == ["start", "stop", "start"]
        assert hooked.state == "idle"


class TestStop:
    def test_stop_in_the_middle_of_a_handler(self, world):
        """The rest of the handler does not run, and `finally` does not bring the agent back to life."""
        steps = []

        class Worker(Agent):
            async def on_message(self, message):
                try:
                    steps.append("begin")
                    await self.sleep(10.0)
                    steps.append("end")
                finally:
                    steps.append("finally")

        worker, sender = world.spawn(Worker("worker")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("worker", "t")
            await sender.sleep(1.0)
            await worker.stop()
            assert worker.state == "offline"
            await sender.sleep(20.0)

        world.run(scenario())
        assert steps == ["begin", "finally"]
        assert worker.state == "offline"
        (failed,) = world.trace.events("failed")
        assert (failed.who, failed.time) == ("worker", 1.0)

    def test_waiting_messages_become_dead_letters(self, world):
        slow, sender = world.spawn(Slowpoke("slow", 10.0)), world.spawn(Agent("sender"))

        async def scenario():
            for _ in range(3):
                await sender.tell("slow", "t")
            await sender.sleep(1.0)
            await slow.stop()

        world.run(scenario())
        assert [(event.who, event.facts["reason"]) for event in world.bus.dead_letters] == [("slow", "stopped")] * 2

    def test_who_waits_for_an_answer_learns_it_at_once(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            in_work = asyncio.ensure_future(client.request("calc", "wait", seconds=50.0, timeout=100.0))
            waiting = asyncio.ensure_future(client.request("calc", "wait", seconds=50.0, timeout=100.0))
            await client.sleep(1.0)
            calc.stop()
            return await asyncio.gather(in_work, waiting, return_exceptions=True), world.now

        errors, now = world.run(scenario())
        assert now == 1.0
        assert isinstance(errors[0], AgentOffline)
        assert isinstance(errors[1], MasbookError) and not isinstance(errors[1], TimeoutError)

    def test_an_agent_that_stops_itself_in_a_handler(self, world):
        after = []

        class Quitter(Agent):
            async def on_message(self, message):
                self.stop()
                await self.sleep(0)
                after.append("went on")

        quitter, sender = world.spawn(Quitter("quitter")), world.spawn(Agent("sender"))
        world.run(sender.tell("quitter", "t"))
        world.run(until=5.0)
        assert quitter.state == "offline" and after == []

    def test_an_agent_that_swallows_its_cancellation_stays_stopped(self, world):
        class Stubborn(Agent):
            async def on_message(self, message):
                try:
                    await self.sleep(100.0)
                except asyncio.CancelledError:
                    await self.sleep(1.0)

        stubborn, sender = world.spawn(Stubborn("stubborn")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("stubborn", "one")
            await sender.sleep(1.0)
            await stubborn.stop()
            with pytest.raises(AgentOffline):
                await sender.tell("stubborn", "two")
            await sender.sleep(10.0)

        world.run(scenario())
        assert stubborn.state == "offline"
        assert world.trace.count("handled", "stubborn") == 0

    def test_stopping_twice_is_harmless(self, world):
        agent = world.spawn(Agent("agent"))

        async def scenario():
            await agent.stop()
            await agent.stop()

        world.run(scenario())
        assert world.trace.count("stopped", "agent") == 1

    def test_a_stopped_agent_sends_nothing_more(self, world):
        """What outlives the stop, such as a task of the handler's own making, cannot speak for it."""

        class Sleeper(Agent):
            async def on_start(self):
                self.background(self.chatter())

            async def chatter(self):
                while True:
                    await self.sleep(1.0)
                    await self.publish("chatter")

        agent = world.spawn(Sleeper("agent"))
        world.run(until=3.5)
        agent.stop()
        world.run(until=10.0)
        assert world.trace.count("sent", "agent") == 3

    def test_stop_then_spawn_another_of_the_same_name(self, world):
        first = world.spawn(Recorder("a"))
        first.subscribe("t", first.on_message)
        first.stop()
        second, sender = world.spawn(Recorder("a")), world.spawn(Agent("sender"))
        world.run(sender.tell("a", "direct"))
        world.run(sender.publish("t"))
        world.run(until=1.0)
        assert first.got == [] and second.topics == ["direct"]
        assert world.agents["a"] is second

    def test_a_restart_makes_one_message_loop(self, world):
        """Stopped and restarted within an instant, an agent still handles each message once, one at a time."""
        slow, sender = world.spawn(Slowpoke("slow")), world.spawn(Agent("sender"))

        async def scenario():
            await sender.tell("slow", "lost")
            await sender.sleep(0.5)
            for _ in range(3):
                slow.stop()
                slow.restart()
            for i in range(3):
                await sender.tell("slow", str(i))
            await sender.sleep(10.0)

        world.run(scenario())
        assert slow.topics == ["0", "1", "2"]
        assert slow.times == [1.5, 2.5, 3.5]


class TestConcurrency:
    @pytest.mark.parametrize(("concurrency", "lasts"), [(1, 6.0), (2, 3.0), (3, 2.0), (6, 1.0), (10, 1.0)])
    def test_n_at_a_time(self, world, concurrency, lasts):
        class Counter(Agent):
            now_at, most = 0, 0

            @capability
            async def work(self) -> None:
                self.now_at += 1
                self.most = max(self.most, self.now_at)
                await self.sleep(1.0)
                self.now_at -= 1

        counter = world.spawn(Counter("counter", concurrency=concurrency))
        client = world.spawn(Agent("client"))

        async def scenario():
            await asyncio.gather(*(client.request("counter", "work") for _ in range(6)))

        world.run(scenario())
        assert world.now == lasts
        assert counter.most == min(concurrency, 6)

    def test_one_at_a_time_means_no_interleaving(self, world):
        log = []

        class Worker(Agent):
            async def on_message(self, message):
                log.append((message.topic, "begin"))
                await self.sleep(1.0)
                log.append((message.topic, "end"))

        world.spawn(Worker("worker"))
        sender = world.spawn(Agent("sender"))

        async def scenario():
            for topic in "abc":
                await sender.tell("worker", topic)

        world.run(scenario())
        world.run(until=10.0)
        assert log == [(topic, step) for topic in "abc" for step in ("begin", "end")]


class TestQueries:
    def test_ping_status_capabilities_info(self, world):
        world.spawn(Calculator("calc", tags=("maths", "fast")))
        client = world.spawn(Agent("client"))
        ask = lambda query: world.run(client.request("calc", query))  # noqa: E731
        assert ask("ping") == "pong"
        status = ask("status")
        assert status["name"] == "calc" and status["state"] in ("idle", "busy") and status["waiting"] == 0
        assert status["metrics"]["received"] >= 1
        offers = ask("capabilities")
        assert set(offers) == {"add", "count", "divide", "wait"}
        assert offers["add"]["cost"] == 2.0
        assert offers["add"]["description"] == "Return a + b."
        assert offers["add"]["input_schema"]["required"] == ["a", "b"]
        assert offers["add"]["output_schema"] == {"type": "number"}
        info = ask("info")
        assert info["name"] == "calc" and info["type"] == "Calculator" and info["tags"] == ["fast", "maths"]
        assert info["description"] == "Adds, counts, divides and waits."
        assert set(info["capabilities"]) == set(offers)

    def test_a_busy_agent_answers_queries_at_once(self, world):
        world.spawn(Slowpoke("slow", 1000.0))
        client = world.spawn(Agent("client"))

        async def scenario():
            await client.tell("slow", "t")
            await client.sleep(1.0)
            return await client.request("slow", "status"), world.now

        status, now = world.run(scenario())
        assert status["state"] == "busy" and now == 1.0

    def test_an_idle_agent_says_idle(self, world):
        world.spawn(Recorder("idle"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("idle", "status"))["state"] == "idle"

    def test_a_stopped_agent_answers_nothing(self, world):
        agent, client = world.spawn(Recorder("agent")), world.spawn(Agent("client"))
        agent.stop()
        with pytest.raises(AgentOffline):
            world.run(client.request("agent", "ping"))


class TestBackground:
    def test_runs_beside_the_mailbox_and_ends_with_the_agent(self, world):
        ticks = []

        class Clock(Recorder):
            async def on_start(self):
                self.background(self.tick())

            async def tick(self):
                while True:
                    await self.sleep(1.0)
                    ticks.append(self.now)

        clock = world.spawn(Clock("clock"))
        world.run(until=3.5)
        assert ticks == [1.0, 2.0, 3.0] and clock.state == "idle"
        clock.stop()
        world.run(until=10.0)
        assert ticks == [1.0, 2.0, 3.0]

    def test_its_error_crashes_the_agent(self, world):
        agent = world.spawn(Agent("agent"))

        async def fails():
            await agent.sleep(1.0)
            raise KeyError("lost")

        agent.background(fails())
        world.run(until=2.0)
        assert agent.state == "error"
        assert [event.facts["error"] for event in world.trace.events("crashed", "agent")] == ["KeyError"]

    def test_its_result_can_be_awaited(self, world):
        agent = world.spawn(Agent("agent"))

        async def scenario():
            return await agent.background(asyncio.sleep(2.0, "done"))

        assert world.run(scenario()) == "done"


class TestPause:
    def test_takes_no_messages_until_it_is_over(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            recorder.suspend(5.0)
            await sender.tell("recorder", "t")
            await sender.sleep(10.0)

        world.run(scenario())
        assert recorder.times == [5.0]
        (row,) = world.trace.events("paused")
        assert row.who == "recorder" and row.facts["seconds"] == 5.0

    def test_a_second_pause_does_not_shorten_the_first(self, world):
        recorder, sender = world.spawn(Recorder("recorder")), world.spawn(Agent("sender"))

        async def scenario():
            recorder.suspend(5.0)
            recorder.suspend(1.0)
            await sender.tell("recorder", "t")
            await sender.sleep(10.0)

        world.run(scenario())
        assert recorder.times == [5.0]

    @pytest.mark.parametrize("seconds", [-1.0, float("nan")])
    def test_a_bad_pause_is_refused(self, world, seconds):
        recorder = world.spawn(Recorder("recorder"))
        with pytest.raises(InvalidValue):
            recorder.suspend(seconds)
        assert world.trace.count("paused") == 0


class TestHeartbeats:
    def test_they_go_to_the_registry_only(self, world):
        for i in range(5):
            world.spawn(Recorder(f"a{i}", heartbeat=10.0))
        world.run(until=100.5)
        beats = [event for event in world.trace.events("sent") if event.facts["type"] == "heartbeat"]
        assert len(beats) == 5 * 10
        assert {(event.facts["to"], event.facts["copies"]) for event in beats} == {("registry", 1)}
        assert {event.who for event in world.trace.events("delivered")} == {"registry"}

    def test_at_exact_multiples_of_the_interval(self, world):
        world.spawn(Agent("a", heartbeat=0.1))
        world.run(until=100.0)
        beats = [event.time for event in world.trace.events("sent")]
        assert beats == [pytest.approx((i + 1) * 0.1, abs=1e-12) for i in range(len(beats))]
        assert len(beats) in (999, 1000)

    def test_a_stopped_agent_sends_none(self, world):
        agent = world.spawn(Agent("a", heartbeat=1.0))
        world.run(until=3.5)
        agent.stop()
        world.run(until=10.0)
        assert world.trace.count("sent", "a") == 3

    def test_agents_without_a_heartbeat_send_none(self, world):
        world.spawn(Agent("a"))
        world.run(until=1000.0)
        assert world.trace.count("sent") == 0


class TestMetricsAndNotes:
    def test_per_agent_from_the_trace(self, world):
        calc, client = world.spawn(Calculator("calc")), world.spawn(Agent("client"))

        async def scenario():
            await client.request("calc", "add", a=1, b=1)
            with pytest.raises(ZeroDivisionError):
                await client.request("calc", "divide", a=1, b=0)

        world.run(scenario())
        assert calc.metrics == {"sent": 2, "received": 2, "handled": 1, "failed": 1, "crashes": 0, "restarts": 0}
        assert client.metrics["sent"] == 2 and client.metrics["received"] == 2

    def test_notes_are_rows(self, world):
        agent = world.spawn(Agent("agent"))
        agent.note("found it", where=[1, 2], who="me")
        (row,) = world.trace.events("note")
        assert row.who == "agent" and row.facts == {"text": "found it", "data": {"where": [1, 2], "who": "me"}}

    def test_handling_gives_the_message_in_hand(self, world):
        seen = []

        class Looker(Agent):
            async def on_message(self, message):
                seen.append(self.handling() is message)

        looker, sender = world.spawn(Looker("looker")), world.spawn(Agent("sender"))
        world.run(sender.tell("looker", "t"))
        world.run(until=1.0)
        assert seen == [True] and looker.handling() is None and sender.handling() is None


class TestMistakes:
    @pytest.mark.parametrize("seconds", [-1.0, -1e-9, float("nan")])
    def test_a_negative_sleep(self, world, seconds):
        agent = world.spawn(Agent("agent"))
        with pytest.raises(InvalidValue, match="0 or more"):
            world.run(agent.sleep(seconds))
        world.run(agent.sleep(1.0))
        assert world.now == 1.0

    def test_a_sleep_that_is_no_number(self, world):
        agent = world.spawn(Agent("agent"))
        with pytest.raises(InvalidValue):
            world.run(agent.sleep("long"))

    def test_asyncio_run_in_a_handler_crashes_it_with_the_reason(self, world):
        class Nester(Agent):
            @capability
            async def nest(self) -> None:
                coroutine = asyncio.sleep(1.0)
                try:
                    asyncio.run(coroutine)
                finally:
                    coroutine.close()

        world.spawn(Nester("nester"))
        client = world.spawn(Agent("client"))
        with pytest.raises(NestedRun, match="await"):
            world.run(client.request("nester", "nest"))

    def test_a_run_in_a_handler(self, world):
        class Nester(Agent):
            @on("t")
            async def nest(self, message: Message) -> None:
                self.world.run(until=100.0)

        nester, sender = world.spawn(Nester("nester")), world.spawn(Agent("sender"))
        world.run(sender.publish("t"))
        world.run(until=1.0)
        assert nester.state == "error"
        assert [event.facts["error"] for event in world.trace.events("crashed")] == ["NestedRun"]
        assert world.run(sender.sleep(1.0)) is None

    def test_an_unhandled_error_is_never_swallowed(self, world):
        agent, sender = world.spawn(Breakable("a")), world.spawn(Agent("sender"))
        world.run(sender.tell("a", "boom"))
        world.run(until=1.0)
        kinds = [event.kind for event in world.trace if event.who == "a"]
        assert [kind for kind in kinds if kind in ("failed", "crashed")] == ["failed", "crashed"]
        assert agent.state == "error"


class Reader(Agent):
    """Summarises a CSV with pandas: section 4's data-processing agent, with the file as an input."""

    @capability
    async def summarise(self, path: str) -> dict[str, float]:
        table = pandas.read_csv(path)
        return {"rows": len(table), "mean": float(table["value"].mean())}


def test_an_agent_that_reads_a_csv(world, tmp_path: Path):
    file = tmp_path / "numbers.csv"
    file.write_text("value\n1\n2\n6\n")
    world.spawn(Reader("reader"))
    client = world.spawn(Agent("client"))
    assert world.run(client.request("reader", "summarise", path=str(file))) == {"rows": 3, "mean": 3.0}
    with pytest.raises(FileNotFoundError):
        world.run(client.request("reader", "summarise", path=str(tmp_path / "none.csv")))


class TestQueriesAtTheEnd:
    """A question that has been taken up is answered or fails, whatever happens to the agent in that instant."""

    @pytest.mark.parametrize("query", ["ping", "status"])
    @pytest.mark.parametrize(
        ("end", "error"),
        [(lambda agent: agent.stop(), AgentOffline), (lambda agent: agent.crash(ValueError("x")), AgentCrashed)],
        ids=["stop", "crash"],
    )
    def test_the_agent_ends_in_that_instant(self, world, query, end, error):
        agent, client = world.spawn(Agent("a")), world.spawn(Agent("client"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("a", query, timeout=30.0))
            await asyncio.sleep(0)
            assert missing(world) == 0
            end(agent)
            with pytest.raises(error):
                await asking

        world.run(scenario())
        assert world.now == 0.0 and world.bus.in_flight == 0
        gc.collect()  # a coroutine that was never awaited would warn now

    def test_accounting_holds_at_every_step_of_a_query(self, world):
        world.spawn(Agent("a"))
        client = world.spawn(Agent("client"))
        client.background(client.request("a", "ping"))
        while world.step():
            assert missing(world) == 0
            assert world.bus.accounting()["missing"] == 0
        assert world.trace.count("handled", "a") == 1


class TestPlainFunctions:
    """What must be `async def` says so when it is declared, not when it is first called."""

    @pytest.mark.parametrize("hook", ["on_start", "on_stop", "on_message"])
    def test_hooks(self, hook):
        with pytest.raises(NotAsync, match=hook):
            type("Plain", (Agent,), {hook: lambda self, *message: None})

    @pytest.mark.parametrize("hook", ["on_start", "on_stop", "on_message"])
    def test_hooks_of_a_base_that_is_no_agent(self, hook):
        mixin = type("Mixin", (), {hook: lambda self, *message: None})
        with pytest.raises(NotAsync, match=hook):
            type("Plain", (mixin, Agent), {})

    def test_subscribed_handlers(self, world):
        agent, client = world.spawn(Agent("a")), world.spawn(Agent("client"))
        with pytest.raises(NotAsync, match="async def"):
            agent.subscribe("t", lambda message: None)
        world.run(client.publish("t"))
        world.run(until=1.0)
        assert agent.state == "idle" and world.trace.count("delivered") == 0

    def test_a_partial_of_a_coroutine_function_is_a_handler(self, world):
        agent, client, heard = world.spawn(Agent("a")), world.spawn(Agent("client")), []

        async def hear(message, book):
            book.append(message.topic)

        agent.subscribe("t", partial(hear, book=heard))
        world.run(client.publish("t"))
        world.run(until=1.0)
        assert heard == ["t"]
        with pytest.raises(NotAsync):
            agent.subscribe("t", partial(print, "x"))

    @pytest.mark.parametrize("topic", ["", None, 7])
    def test_an_empty_topic(self, world, topic):
        recorder = world.spawn(Recorder("a"))
        with pytest.raises(InvalidValue, match="topic"):
            recorder.subscribe(topic, recorder.on_message)


class TestCancelledAtBirth:
    """What is cancelled before its first step ends without a warning from Python."""

    def test_spawn_then_close(self):
        world = World(7)
        world.spawn(Hooked("a"))
        world.close()
        gc.collect()
        assert world.agents["a"].state == "offline"

    @pytest.mark.parametrize(
        "end", [lambda agent: agent.stop(), lambda agent: agent.crash(ValueError("x"))], ids=["stop", "crash"]
    )
    def test_background_work(self, world, end):
        agent = world.spawn(Agent("a"))
        agent.background(agent.sleep(1.0))
        end(agent)
        world.run(until=5.0)
        gc.collect()
        assert world.trace.count("crashed") <= 1


class TestTheRestOfAHandler:
    @pytest.mark.parametrize("end", ["stop", "crash"])
    def test_the_second_handler_does_not_run_after_the_first_has_ended_the_agent(self, world, end):
        class Twice(Agent):
            @on("t")
            async def first(self, message):
                self.stop() if end == "stop" else self.crash(ValueError("x"))

            @on("t")
            async def second(self, message):
                self.note("second")

        world.spawn(Twice("twice"))
        client = world.spawn(Agent("client"))
        world.run(client.publish("t"))
        world.run(until=1.0)
        assert world.trace.count("note") == 0


class TestPausedLoad:
    def test_a_paused_agent_with_one_message_waiting_is_idle_with_load_one(self, world):
        agent, client = world.spawn(Recorder("a")), world.spawn(Agent("client"))
        agent.suspend(50.0)
        world.run(client.tell("a", "t"))
        world.run(until=1.0)
        assert (agent.state, agent.load, len(agent.mailbox)) == ("idle", 1.0, 1)
        world.run(until=60.0)
        assert (agent.state, agent.load, agent.times) == ("idle", 0.0, [50.0])


class TestStopMeansStopped:
    def test_a_handler_that_swallows_its_cancellation_sends_nothing(self, world):
        class Stubborn(Agent):
            @capability
            async def work(self) -> None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self.sleep(100.0)
                await self.tell("client", "hello")

        stubborn, client = world.spawn(Stubborn("stubborn")), world.spawn(Recorder("client"))

        async def scenario():
            asking = asyncio.ensure_future(client.request("stubborn", "work"))
            await client.sleep(1.0)
            stubborn.stop()
            with pytest.raises(AgentOffline):
                await asking
            await client.sleep(5.0)

        world.run(scenario())
        assert client.got == [] and stubborn.state == "offline"
        sent = [event for event in world.trace.events("sent", "stubborn") if event.facts["type"] == "tell"]
        assert sent == [] and world.trace.count("crashed") == 0

    def test_an_agent_without_its_base_says_what_to_call(self, world):
        class Forgetful(Agent):
            def __init__(self):
                self.patience = 1

        with pytest.raises(MasbookError, match="super"):
            world.spawn(Forgetful())


class TestHeartbeatsGoOn:
    def test_one_that_is_refused_is_not_the_last(self, world):
        agent = world.spawn(Agent("a", heartbeat=1.0))
        refused = []

        def once(message):
            if message.type is MessageType.HEARTBEAT and not refused:
                refused.append(message)
                raise Refused("not now")

        world.bus.check(once)
        world.run(until=30.5)
        assert refused and agent.state == "idle"
        assert world.run(world.registry.find("a")).health == "healthy"
        sent = [event.time for event in world.trace.events("sent", "a")]
        assert sent == [float(i) for i in range(2, 31)]


class TestBeginners:
    """What a first afternoon brings: the error says what to write instead."""

    def test_an_init_that_forgets_the_base(self, world):
        class Forgetful(Agent):
            def __init__(self, name: str) -> None:
                self.name = name

        with pytest.raises(InvalidValue, match=r"super\(\).__init__"):
            world.spawn(Forgetful("f"))
        with pytest.raises(WorldError, match="spawn"):
            asyncio.run(Forgetful("f").request("x", "y"))

    def test_a_forgotten_await(self, world):
        client = world.spawn(Agent("client"))
        forgotten = client.sleep(1.0)
        with pytest.raises(Unrecordable, match="forget `await`"):
            world.run(client.broadcast("news", value=forgotten))
        forgotten.close()

    def test_awaiting_outside_a_run(self, world):
        client = world.spawn(Agent("client"))
        world.spawn(Agent("other"))
        with pytest.raises(WorldError, match=r"world\.run"):
            asyncio.run(client.request("other", "ping"))
        assert world.bus.accounting()["missing"] == 0

    def test_a_handler_without_room_for_the_message(self):
        with pytest.raises(InvalidValue, match="self and the message"):

            class Deaf(Agent):
                @on("news")
                async def hear(self) -> None: ...


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_who_waits_for_the_end_of_an_agent_hears_of_it_once(end):
    with World() as world:
        agent, heard = world.spawn(Agent("agent"), restart="on_crash"), []
        called_off = agent.when_gone(lambda: heard.append("called off"))
        agent.when_gone(lambda: heard.append(world.now))
        called_off()

        async def life():
            await agent.sleep(2.0)
            agent.stop() if end == "stop" else agent.crash(ValueError("gone"))
            await asyncio.sleep(5.0)
            agent.restart()
            agent.stop()

        world.run(life())
        assert heard == [2.0]


class Careless(Agent):
    @capability
    async def wait_for_nothing(self) -> int:
        job = asyncio.ensure_future(self.sleep(9.0))
        await self.sleep(0)
        job.cancel()
        return await job


def test_who_awaits_something_cancelled_fails_like_anybody_else():
    with World() as world:
        careless, client = world.spawn(Careless("careless")), world.spawn(Agent("client"))
        for _ in range(2):  # its worker is still there
            with pytest.raises(MasbookError, match="careless awaited something that was cancelled"):
                world.run(client.request("careless", "wait_for_nothing", timeout=None))
        world.run(client.tell("careless", "wait_for_nothing"))
        world.run(until=1.0)
        assert careless.state == "error"
        assert [event.who for event in world.trace.events("failed")] == ["careless"] * 3
