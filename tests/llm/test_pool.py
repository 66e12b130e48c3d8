"""Pools: every task ends once, nobody is out twice, who fails fast gets nothing, and the size keeps its bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from masbook import Agent, Crash, FaultPlan, ModelFault, Pause, World, capability, simulate
from masbook.errors import (
    AgentCrashed,
    AgentOffline,
    InvalidName,
    InvalidValue,
    LockTimeout,
    MasbookError,
    ModelUnavailable,
    RequestTimeout,
    Stuck,
    WorldError,
)
from masbook.lab import charts, frames
from masbook.llm import LLMAgent, Pool, fan_out, pipeline, scripted
from masbook.llm.strategies import Candidate, fastest, least_loaded, round_robin


class Clerk(Agent):
    """Answers after some seconds, or fails; the prompt `crash` crashes it."""

    def __init__(self, name, seconds=1.0, *, fails=False, **options):
        super().__init__(name, **options)
        self.seconds, self.fails, self.began, self.ended = seconds, fails, 0, 0

    @capability
    async def ask(self, prompt: str) -> str:
        """Return who has answered what."""
        self.began += 1
        await self.sleep(self.seconds)
        if self.fails:
            raise ModelUnavailable(f"{self.name} cannot")
        if prompt == "crash":
            self.crash(RuntimeError("out of memory"))
            await self.sleep(1.0)
        self.ended += 1
        return f"{self.name}: {prompt}"


def clerks(*seconds, **options):
    return [Clerk(f"clerk_{n}", each, **options) for n, each in enumerate(seconds, 1)]


def make(n):
    return Clerk(f"clerk_{n}")


def prompts(number):
    return [f"task {n}" for n in range(number)]


def who(outcomes):
    return [one.agent for one in outcomes]


def sizes(run):
    return [event.facts["size"] for event in run.trace.events("pool") if event.facts["change"] != "opened"]


def changes(run):
    return [event.facts["change"] for event in run.trace.events("pool")]


def all_ended_once(trace):
    """Return whether each task that was added has ended exactly once, and none before it was started."""
    added = [event.facts["task"] for event in trace.events("task_added")]
    ended = Counter(event.facts["task"] for event in trace.events("task_ended"))
    return len(added) == len(set(added)) and ended == Counter(added)


def never_twice(trace):
    """Return whether nobody was checked out twice at a time, nor given a task meanwhile."""
    out, busy, doing = {}, Counter(), {}
    for event in trace:
        if event.kind == "acquired":
            name = event.facts["resource"].partition(":")[2]
            if name in out or busy[name]:
                return False
            out[name] = event.who
        elif event.kind == "released":
            del out[event.facts["resource"].partition(":")[2]]
        elif event.kind == "task_started":
            if event.who in out:
                return False
            busy[event.who] += 1
            doing[event.facts["task"]] = event.who
        elif event.kind == "task_ended" and event.facts["task"] in doing:
            busy[doing.pop(event.facts["task"])] -= 1
    return True


class TestAsAList:
    def test_it_has_a_length_places_slices_and_an_order(self, world):
        agents = clerks(1, 1, 1)
        pool = world.spawn(Pool("pool", agents))
        assert len(pool) == 3
        assert pool[0] is agents[0] and pool[-1] is agents[2]
        assert pool[1:] == agents[1:]
        assert list(pool) == pool.agents == agents
        assert agents[1] in pool and Clerk("other") not in pool
        with pytest.raises(IndexError):
            pool[3]

    def test_it_spawns_its_agents_as_children_and_takes_those_that_live_as_they_are(self, world):
        old = world.spawn(Clerk("old"))
        pool = world.spawn(Pool("pool", [old, Clerk("new")]))
        assert [one.parent for one in pool] == [None, pool]
        world.run(pool.batch(prompts(2)))
        world.run(_stop(pool))
        assert [one.state for one in pool] == ["idle", "offline"]

    def test_a_pool_of_llm_agents_answers_by_call_by_message_and_in_pipelines(self, world):
        class Verdict(BaseModel):
            level: str

        models = [scripted({"level": f"by {n}"}, {"level": f"by {n}"}) for n in (1, 2)]
        made = [LLMAgent(f"judge_{n}", model=model, output_type=Verdict) for n, model in enumerate(models, 1)]
        pool, client = world.spawn(Pool("pool", made)), world.spawn(Agent("client"))
        assert world.run(pool.ask("Judge.")) == Verdict(level="by 1")
        assert Verdict.model_validate(world.run(client.request("pool", "ask", prompt="Judge."))).level == "by 2"
        assert world.run(pipeline([pool], "Judge.")).output == Verdict(level="by 1")
        assert world.run(fan_out([pool], "Judge.")).results == [Verdict(level="by 2")]


class TestStrategies:
    def test_round_robin_goes_round_also_where_one_is_slow(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 5, 2)))
        outcomes = world.run(pool.batch(prompts(7)))
        assert who(outcomes) == [f"clerk_{n % 3 + 1}" for n in range(7)]
        assert world.now == 10.0

    def test_round_robin_does_not_owe_anything_to_who_was_away_or_is_new(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 1)))

        async def scenario():
            async with pool.checkout():
                await pool.batch(prompts(10))
            return await pool.batch(prompts(4))

        assert Counter(who(world.run(scenario()))) == {"clerk_1": 2, "clerk_2": 2}

    def test_round_robin_does_not_make_a_newcomer_catch_up(self, world):
        pool = world.spawn(Pool("pool", make, size=1, most=2))
        world.run(pool.batch(prompts(20), limit=1))
        assert Counter(who(world.run(pool.batch(prompts(20))))) == {"clerk_1": 10, "clerk_2": 10}

    def test_least_loaded_leaves_the_slow_one_alone(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 10, 1), choose="least_loaded"))
        outcomes = world.run(pool.batch(prompts(12)))
        assert Counter(who(outcomes))["clerk_2"] == 1
        assert world.now == 10.0

    def test_least_loaded_counts_tasks_for_each_hand(self, world):
        one, many = Clerk("one", 5.0), Clerk("many", 5.0, concurrency=4)
        pool = world.spawn(Pool("pool", [one, many], choose="least_loaded"))
        world.run(pool.batch(prompts(5)))
        assert (one.ended, many.ended) == (1, 4)
        assert world.now == 5.0

    def test_fastest_prefers_the_fast_and_uses_the_slow_when_that_is_sooner(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 3), choose="fastest"))
        world.run(pool.batch(prompts(2)))
        one_by_one = world.run(pool.batch(prompts(5), limit=1))
        at_once = world.run(pool.batch(prompts(8)))
        assert set(who(one_by_one)) == {"clerk_1"}
        assert Counter(who(at_once)) == {"clerk_1": 6, "clerk_2": 2}

    def test_one_slow_task_does_not_make_an_agent_slow(self, world):
        steady, jumpy = Clerk("steady", 2.0), Clerk("jumpy", 1.0)
        pool = world.spawn(Pool("pool", [steady, jumpy], choose="fastest"))

        async def scenario():
            await pool.batch(prompts(10))
            jumpy.seconds = 30.0
            await pool.batch(prompts(2))
            jumpy.seconds = 1.0
            return await pool.batch(prompts(5), limit=1)

        assert set(who(world.run(scenario()))) == {"jumpy"}

    def test_what_others_have_asked_of_an_agent_counts_as_its_load(self):
        async def scenario(world, choose):
            pool, client = world.spawn(Pool("pool", clerks(1, 1), choose=choose)), world.spawn(Agent("client"))
            await pool.batch(prompts(2))
            busy = [asyncio.ensure_future(client.request("clerk_1", "ask", prompt="x")) for _ in range(3)]
            await asyncio.sleep(0.1)
            assert (pool.candidates()[0].tasks, pool.candidates()[0].load) == (0, 3)
            outcomes = await pool.batch(prompts(2))
            await asyncio.gather(*busy)
            return who(outcomes)

        for choose in ("least_loaded", "fastest"):
            assert simulate(scenario, seed=1, choose=choose).result == ["clerk_2", "clerk_2"]

    def test_one_of_whom_nothing_is_known_is_tried_also_while_it_works_for_others(self):
        async def scenario(world):
            pool, client = world.spawn(Pool("pool", clerks(1), choose="fastest")), world.spawn(Agent("client"))
            busy = asyncio.ensure_future(client.request("clerk_1", "ask", prompt="x"))
            await asyncio.sleep(0.1)
            answer = await pool.ask("y")
            await busy
            return answer

        assert simulate(scenario, seed=1).result == "clerk_1: y"

    def test_one_that_gets_slow_is_left_after_some_tasks(self, world):
        agents = clerks(1, 2)
        pool = world.spawn(Pool("pool", agents, choose="fastest"))
        world.run(pool.batch(prompts(30), limit=1))
        agents[0].seconds = 20.0
        assert Counter(who(world.run(pool.batch(prompts(30), limit=1))))["clerk_1"] <= 6

    def test_own_strategies_see_the_agents_and_may_let_a_task_wait(self, world):
        seen = []

        def mine(candidates, random):
            seen.append(candidates)
            random.random()
            return next((one for one in candidates if one.name == "clerk_2" and not one.load), None)

        pool = world.spawn(Pool("pool", clerks(1, 1, 1), choose=mine))
        outcomes = world.run(pool.batch(prompts(3)))
        assert set(who(outcomes)) == {"clerk_2"} and world.now == 3.0
        assert [one.name for one in seen[0]] == ["clerk_1", "clerk_2", "clerk_3"]
        found = pool.candidates()[1]
        assert (found.load, found.concurrency, found.turn, found.latency) == (0, 1, 3, 1.0)
        assert (found.failures, found.health) == (0.0, "healthy")
        with pytest.raises(AttributeError):
            found.load = 1

    @pytest.mark.parametrize("wrong", ["clerk_1", 3, lambda: None])
    def test_a_strategy_that_returns_something_else_fails_the_task_and_says_what_to_return(self, world, wrong):
        pool = world.spawn(Pool("pool", clerks(1), choose=lambda candidates, random: wrong))
        with pytest.raises(InvalidValue, match="return one of the candidates"):
            world.run(pool.ask("x"))
        pool.choose = round_robin
        assert world.run(pool.ask("x")) == "clerk_1: x"

    def test_an_error_in_a_strategy_reaches_who_asked(self, world):
        pool = world.spawn(Pool("pool", clerks(1), choose=lambda candidates, random: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            world.run(pool.ask("x"))
        assert pool.state == "idle" and all_ended_once(world.trace)


class TestBlackHole:
    """Seed defect 12: the agent that fails fastest looks fastest, and attracts the traffic."""

    @staticmethod
    async def traffic(world, choose="fastest", limit=1, tasks=100):
        agents = [Clerk("healthy_1", 1.0), Clerk("broken", 0.01, fails=True), Clerk("healthy_2", 1.2)]
        pool = world.spawn(Pool("pool", agents, choose=choose))
        outcomes = await pool.batch(prompts(tasks), limit=limit)
        return len(outcomes.failures), Counter(who(outcomes))["broken"]

    @pytest.mark.parametrize("limit", [1, 3, 10, None])
    def test_who_fails_fast_attracts_no_traffic(self, limit):
        failures, given = simulate(self.traffic, seed=1, limit=limit).result
        assert failures == given <= 3

    def test_the_planted_estimator_of_the_course_loses_nearly_everything(self):
        def by_mean_seconds(candidates, random):
            """Let failures look like quick work."""
            latency = {"healthy_1": 1.0, "broken": 0.01, "healthy_2": 1.2}
            return min(candidates, key=lambda one: latency[one.name] + 0.1 * one.load)

        assert simulate(self.traffic, seed=1, choose=by_mean_seconds).result[0] >= 98

    def test_who_fails_half_the_time_is_no_bargain_either(self):
        async def traffic(world):
            plan = ModelUnavailable("no")
            flaky = LLMAgent("flaky", model=scripted(*[plan, "yes"] * 50, latency=0.1), attempts=1)
            pool = world.spawn(Pool("pool", [flaky, Clerk("sound", 1.0)], choose="fastest"))
            return await pool.batch(prompts(60), limit=1)

        run = simulate(traffic, seed=1)
        assert len(run.result.failures) <= 3

    def test_who_has_recovered_gets_traffic_again(self):
        async def traffic(world):
            agents = [Clerk("broken", 0.01, fails=True), Clerk("sound", 1.0)]
            pool = world.spawn(Pool("pool", agents, choose="fastest"))
            await pool.batch(prompts(30), limit=1)
            agents[0].fails = False
            await asyncio.sleep(60)
            return who(await pool.batch(prompts(30), limit=1))

        assert Counter(simulate(traffic, seed=1).result)["broken"] >= 28

    def test_where_all_fail_all_get_their_share(self):
        async def traffic(world):
            agents = [Clerk(f"c{n}", 0.1, fails=True) for n in range(3)]
            pool = world.spawn(Pool("pool", agents, choose="fastest"))
            outcomes = await pool.batch(prompts(30), limit=3)
            return outcomes.success_rate, Counter(who(outcomes))

        rate, counts = simulate(traffic, seed=1).result
        assert rate == 0.0 and set(counts.values()) == {10}

    def test_the_candidates_say_it(self):
        def seen(name, latency, failures=0.0, load=0, turn=0):
            return Candidate(name, load, load, 1, turn, latency, failures, "healthy")

        assert fastest([seen("a", 1.0), seen("b", 0.5, 0.5)], None).name == "a"
        assert fastest([seen("a", 1.0), seen("b", None)], None).name == "b"
        assert fastest([seen("a", None, load=1)], None) is None
        assert least_loaded([seen("a", 1.0, load=1), seen("b", 9.0)], None).name == "b"
        assert round_robin([seen("a", 1.0, turn=2), seen("b", 9.0, turn=1)], None).name == "b"


class TestBatch:
    def test_outcomes_come_in_the_order_of_the_prompts_with_every_failure(self, world):
        agents = [Clerk("good", 2.0), Clerk("bad", 0.5, fails=True), Clerk("slow", 50.0)]
        pool = world.spawn(Pool("pool", agents))
        outcomes = world.run(pool.batch(prompts(6), timeout=20.0))
        assert [one.status for one in outcomes] == ["completed", "failed", "failed"] * 2
        assert who(outcomes) == ["good", "bad", "slow", "good", "bad", "pool"]
        assert outcomes.results == ["good: task 0", "good: task 3"]
        assert [type(one.error) for one in outcomes[1:3]] == [ModelUnavailable, RequestTimeout]
        assert isinstance(outcomes[5].error, LockTimeout)
        assert outcomes.success_rate == pytest.approx(1 / 3)
        assert outcomes[0].seconds == 2.0 and outcomes[3].seconds == 4.0

    @pytest.mark.parametrize("limit", [1, 2, 4, 9])
    def test_no_more_than_the_limit_at_the_same_time(self, world, limit):
        pool = world.spawn(Pool("pool", clerks(1, 2, 3, 4, 5, concurrency=3)))
        outcomes = world.run(pool.batch(prompts(20), limit=limit))
        tasks = frames.tasks(world)
        at_once = max(sum((tasks.added <= t) & (tasks.ended > t)) for t in tasks.added)
        assert at_once == limit and outcomes.success_rate == 1.0

    def test_an_empty_batch_has_no_outcomes(self, world):
        pool = world.spawn(Pool("pool", clerks(1)))
        assert world.run(pool.batch([])) == ()

    def test_a_batch_that_is_given_up_leaves_nobody_busy(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 5)))

        async def hurry():
            with suppress(TimeoutError):
                async with asyncio.timeout(2.5):
                    await pool.batch(prompts(30))
            return await pool.ask("after")

        assert world.run(hurry()).endswith("after") and world.now == 7.5
        assert all_ended_once(world.trace)

    def test_a_task_that_is_given_up_says_nothing_of_its_agent(self, world):
        pool = world.spawn(Pool("pool", clerks(5)))

        async def hurry():
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await pool.ask("x")

        world.run(hurry())
        assert (pool.candidates()[0].latency, pool.candidates()[0].failures) == (None, 0.0)

    def test_the_tasks_can_be_seen_like_those_of_a_workflow(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 2)))
        world.run(pool.batch(prompts(4)))
        tasks = frames.tasks(world)
        assert list(tasks["agents"]) == [("clerk_1",), ("clerk_2",)] * 2
        assert list(tasks["waited"]) == [0.0, 0.0, 1.0, 2.0]
        assert charts.gantt(world, by="agent").axes


class TestCheckout:
    def test_an_agent_that_is_out_gets_no_tasks_and_has_none(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1, 1, concurrency=2)))
            waiting = [asyncio.ensure_future(pool.ask(prompt)) for prompt in prompts(8)]
            await asyncio.sleep(0.5)
            async with pool.checkout() as agent:
                assert agent in pool and agent.load == 0 and world.now == 2.0
                done = await pool.batch(prompts(4))
                assert agent.name not in who(done)
            await asyncio.gather(*waiting)
            return who(await pool.batch(prompts(4)))

        run = simulate(scenario, seed=3)
        assert set(run.result) == {"clerk_1", "clerk_2"}
        assert never_twice(run.trace) and all_ended_once(run.trace)
        assert list(frames.holds(run)["status"]) == ["released"]

    def test_tasks_that_keep_coming_do_not_starve_who_wants_an_agent_alone(self, world):
        pool = world.spawn(Pool("pool", clerks(2, concurrency=2)))

        async def scenario():
            asked = []
            for n in range(12):  # one is always at work
                asked.append(asyncio.ensure_future(pool.ask(f"task {n}")))
                if n == 3:
                    alone = asyncio.ensure_future(borrow())
                await asyncio.sleep(1.0)
            await asyncio.gather(*asked)
            return await alone

        async def borrow():
            async with pool.checkout():
                return world.now

        assert world.run(scenario()) == 5.0

    def test_who_waits_for_one_that_is_out_and_stops_learns_it_at_once(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1)))
            async with pool.checkout() as agent:
                asked = asyncio.ensure_future(pool.ask("x"))
                await asyncio.sleep(1.0)
                agent.stop()
                with pytest.raises(AgentOffline):
                    await asked
                return world.now

        assert simulate(scenario, seed=1).result == 1.0

    def test_a_planted_second_checkout_is_caught(self, world):
        world.trace.record("acquired", "a", resource="agent:x", token=1, waited=0.0)
        assert never_twice(world.trace)
        world.trace.record("acquired", "b", resource="agent:x", token=2, waited=0.0)
        assert not never_twice(world.trace)

    def test_a_planted_lost_task_is_caught(self, world):
        world.trace.record("task_added", "pool", workflow="pool", task="task-9")
        assert not all_ended_once(world.trace)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_waiter_that_is_cancelled_or_late_in_the_very_instant_loses_no_agent(self, seed):
        """Seed defects 2 and 3: a cancelled waiter is handed the lock, and a release meets a time-out."""

        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1)))
            client = world.spawn(Agent("client"))

            async def use(timeout=None):
                async with pool.checkout(timeout):
                    await client.sleep(2.0)

            async def late():
                with suppress(LockTimeout):
                    await use(timeout=2.0)

            waiters = [asyncio.ensure_future(use()), asyncio.ensure_future(late()), asyncio.ensure_future(use())]
            await client.sleep(2.0)
            waiters[2].cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
            await use(timeout=1.0)
            assert never_twice(world.trace)
            return await pool.ask("x")

        assert simulate(scenario, seed=seed, schedule="shuffled").result == "clerk_1: x"

    def test_who_waits_too_long_is_told_and_who_waits_at_all_is_seen(self, world):
        pool, ann = world.spawn(Pool("pool", clerks(1))), world.spawn(_User("ann"))

        async def scenario():
            async with pool.checkout():
                asked = asyncio.ensure_future(client.request("ann", "use_one", seconds=3.0))
                await asyncio.sleep(1.0)
                said = world.explain()
                with pytest.raises(LockTimeout, match="no agent of pool was free for ann in 3 s"):
                    await asked
                return said

        client = world.spawn(Agent("client"))
        ann.pool = pool
        assert "ann waits for an agent of pool, held by pool, since 0 s" in world.run(scenario())

    def test_two_that_want_two_each_are_stuck_and_the_cycle_is_named(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1, 1)))
            users = [world.spawn(_User(name)) for name in ("ann", "bob")]
            client = world.spawn(Agent("client"))
            for user in users:
                user.pool = pool
            await asyncio.gather(*(client.request(user.name, "use_two", timeout=None) for user in users))

        error = simulate(scenario, seed=1).error
        assert isinstance(error, Stuck) and "ann -> bob -> ann" in str(error)

    def test_one_that_crashes_while_it_is_out_does_not_come_back_as_healthy(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", [Clerk("a"), Clerk("b")]))
            async with pool.checkout() as agent:
                for _ in range(4):  # its world restarts it three times
                    agent.crash(RuntimeError("boom"))
                    await asyncio.sleep(2.0)
            return agent.state, who(await pool.batch(prompts(4)))

        state, done = simulate(scenario, seed=1).result
        assert state == "error" or state == "offline"
        assert set(done) == {"b"}


class TestElastic:
    @staticmethod
    async def rush(world, tasks=40, rest=100.0, **options):
        options = {"size": 1, "least": 1, "most": 4, "cooldown": 5.0} | options
        pool = world.spawn(Pool("pool", make, **options))
        outcomes = await pool.batch(prompts(tasks))
        await asyncio.sleep(rest)
        return outcomes.success_rate, len(pool)

    def test_it_grows_when_work_waits_and_shrinks_when_it_is_idle(self):
        run = simulate(self.rush, seed=1)
        assert run.result == (1.0, 1)
        assert sizes(run) == [2, 3, 4, 3, 2, 1]

    @pytest.mark.parametrize("choose", ["round_robin", "least_loaded", "fastest"])
    def test_changes_are_a_cool_down_apart_and_within_bounds(self, choose):
        run = simulate(self.rush, seed=1, choose=choose, least=2, most=5, size=2, tasks=80)
        times = [event.time for event in run.trace.events("pool") if event.facts["change"] in ("grown", "shrunk")]
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))
        assert {2, 3, 4, 5} >= set(sizes(run)) and run.result == (1.0, 2)

    def test_a_load_that_comes_and_goes_makes_it_no_flutter(self):
        async def waves(world):
            pool = world.spawn(Pool("pool", make, size=1, most=4, cooldown=10.0))
            for _ in range(40):
                await pool.batch(prompts(4))
                await asyncio.sleep(1.0)

        assert changes(simulate(waves, seed=1)) == ["opened", "grown", "grown", "grown"]

    def test_an_agent_in_the_middle_of_work_is_not_ended(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 40.0), size=3, least=1, most=3, cooldown=1.0))
            long = [asyncio.ensure_future(pool.ask(prompt)) for prompt in prompts(2)]
            async with pool.checkout() as agent:
                await asyncio.sleep(10.0)
                assert agent.state == "idle" and len(pool) == 3
            found = await asyncio.gather(*long)
            return found, [one.name for one in pool]

        run = simulate(scenario, seed=1)
        assert run.result == (["c2: task 0", "c3: task 1"], ["c2", "c3"])
        assert next(event.time for event in run.trace.events("stopped")) == 11.0

    def test_work_that_waits_for_one_although_another_is_free_is_no_reason_to_grow(self, world):
        pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 10.0 if n == 1 else 1.0), size=2, most=3))
        world.run(pool.batch(prompts(3), limit=2))
        assert world.now == 20.0 and changes(world) == ["opened", "opened"]

    def test_nor_one_to_shrink(self, world):
        options = {"size": 2, "least": 1, "most": 2, "cooldown": 2.0}
        pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 10.0 if n == 1 else 1.0), **options))
        world.run(pool.batch(prompts(3), limit=2))
        shrunk = [event.time for event in world.trace.events("pool") if event.facts["change"] == "shrunk"]
        assert shrunk == [10.0]

    def test_who_has_given_up_waiting_is_no_reason_to_grow_or_to_stay(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 5.0), size=2, least=1, most=2, cooldown=2.0))
            asked = [asyncio.ensure_future(pool.ask("x")) for _ in range(2)]
            await asyncio.sleep(0.5)
            with pytest.raises(LockTimeout):
                await pool.ask("y", timeout=1.0)
            await asyncio.gather(*asked)
            await asyncio.sleep(5.0)
            return len(pool)

        assert simulate(scenario, seed=1).result == 1

    @pytest.mark.parametrize("seed", [12, 66, 88, 101])
    def test_work_that_is_given_up_does_not_keep_the_pool_large(self, seed):
        """An agent told to stop has its hands free in the same instant, but not at once."""

        async def scenario(world):
            pool = world.spawn(Pool("pool", make, size=4, least=1, most=4, cooldown=3.0))
            asked = asyncio.ensure_future(pool.batch(prompts(20)))
            await asyncio.sleep(1.5)
            asked.cancel()
            await asyncio.sleep(30.0)
            return len(pool)

        assert simulate(scenario, seed=seed, schedule="shuffled").result == 1

    def test_who_works_for_others_is_not_stopped(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 20.0), size=2, least=1, most=2, cooldown=5.0))
            answer = await world.spawn(Agent("client")).request("c1", "ask", prompt="x")
            return answer, [one.name for one in pool]

        assert simulate(scenario, seed=1).result == ("c1: x", ["c1"])

    def test_a_time_out_that_is_not_needed_leaves_no_timer(self, world):
        pool = world.spawn(Pool("pool", clerks(1)))
        world.run(pool.ask("x", timeout=50.0))
        world.run()
        assert world.now == 1.0

    def test_a_pool_of_one_size_has_no_timers(self, world):
        pool = world.spawn(Pool("pool", make, size=3))
        world.run(pool.batch(prompts(9)))
        assert world.now == 3.0
        world.run()
        assert world.now == 3.0

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0, 20), st.integers(1, 6)), min_size=1, max_size=6),
        st.sampled_from(["round_robin", "least_loaded", "fastest"]),
        st.integers(0, 1000),
    )
    def test_no_task_is_lost_nobody_out_twice_and_the_size_within_bounds(self, waves, choose, seed):
        async def scenario(world):
            pool = world.spawn(Pool("pool", make, size=2, least=1, most=4, cooldown=2.0, choose=choose))
            random = world.random("scenario")

            async def wave(start, tasks):
                await asyncio.sleep(start)
                with suppress(TimeoutError, MasbookError):
                    if random.random() < 0.4:
                        async with pool.checkout(timeout=3.0) as agent:
                            await asyncio.sleep(random.choice([0.0, 1.0, 3.0]))
                            if random.random() < 0.3:
                                agent.crash(RuntimeError("boom"))
                    else:
                        words = ["crash" if random.random() < 0.2 else "x" for _ in range(tasks)]
                        await pool.batch(words, limit=random.choice([None, 2]))

            await asyncio.gather(*(wave(start, tasks) for start, tasks in waves))
            return True

        run = simulate(scenario, seed=seed, schedule="shuffled")
        assert run.error is None
        assert all_ended_once(run.trace) and never_twice(run.trace)
        assert all(1 <= size <= 4 for size in sizes(run))
        assert run.digest == simulate(scenario, seed=seed, schedule="shuffled").digest


class TestHealth:
    def test_a_crash_comes_back_to_who_asked_and_the_agent_is_restarted(self, world):
        pool = world.spawn(Pool("pool", clerks(1, 1)))
        outcomes = world.run(pool.batch(["crash", "x", "y", "z"]))
        assert [type(one.error) for one in outcomes] == [AgentCrashed, type(None), type(None), type(None)]
        assert world.trace.count("restarted", "clerk_1") == 1
        assert sorted(who(world.run(pool.batch(prompts(2))))) == ["clerk_1", "clerk_2"]

    @pytest.mark.parametrize("agents", [lambda: clerks(1), lambda: make])
    def test_who_waits_for_the_last_one_is_served_when_it_is_restarted_or_replaced(self, world, agents):
        pool = world.spawn(Pool("pool", agents()))
        outcomes = world.run(pool.batch(["crash", "x"]))
        assert [one.status for one in outcomes] == ["failed", "completed"]
        assert world.now == pytest.approx(2.1)

    def test_a_made_one_that_fails_is_replaced_by_a_new_one(self, world):
        pool = world.spawn(Pool("pool", make, size=2))
        outcomes = world.run(pool.batch(["crash", "x", "y", "z"]))
        assert [one.status for one in outcomes].count("failed") == 1
        assert [one.name for one in pool] == ["clerk_3", "clerk_2"]
        rows = [event.facts for event in world.trace.events("pool") if event.facts["change"] == "replaced"]
        assert [(row["member"], row["size"]) for row in rows] == [("clerk_3", 2)]
        assert "clerk_1" in rows[0]["reason"]

    def test_a_made_one_that_was_stopped_is_replaced_one_of_a_list_stays_away(self, world):
        made, listed = world.spawn(Pool("made", make, size=2)), world.spawn(Pool("listed", [Clerk("a"), Clerk("b")]))

        async def scenario():
            for pool in (made, listed):
                pool[0].stop()
            await asyncio.sleep(1.0)
            return [who(await pool.batch(prompts(4))) for pool in (made, listed)]

        assert [set(names) for names in world.run(scenario())] == [{"clerk_3", "clerk_2"}, {"b"}]
        listed[0].restart()
        assert set(who(world.run(listed.batch(prompts(4))))) == {"a", "b"}

    def test_one_that_crashes_at_every_start_is_replaced_three_times_and_then_no_more(self):
        class Stillborn(Clerk):
            async def on_start(self):
                await self.sleep(0.1)
                raise RuntimeError("cannot start")

        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Stillborn(f"c{n}") if n != 2 else Clerk("c2"), size=2))
            outcomes = await pool.batch(prompts(4))
            await asyncio.sleep(30)
            return set(who(outcomes)), outcomes.success_rate

        run = simulate(scenario, seed=1)
        assert changes(run).count("replaced") == 3
        assert run.result[0] == {"c2"} or run.result[1] < 1.0

    def test_who_waits_learns_at_once_that_nobody_is_left(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(5, 5)))
            asked = asyncio.ensure_future(pool.batch(prompts(6)))
            await asyncio.sleep(1.0)
            for agent in pool:
                agent.stop()
            outcomes = await asked
            return world.now, {type(one.error) for one in outcomes}

        assert simulate(scenario, seed=1).result == (1.0, {AgentOffline})

    def test_nobody_left_is_an_error_at_once_for_new_tasks_and_checkouts(self, world):
        pool = world.spawn(Pool("pool", clerks(1)))
        pool[0].stop()
        with pytest.raises(AgentOffline, match="nobody left: clerk_1"):
            world.run(pool.ask("x"))

        async def check_out():
            async with pool.checkout():
                pass

        with pytest.raises(AgentOffline):
            world.run(check_out())
        assert world.now == 0.0

    def test_one_that_says_that_it_is_not_ok_is_healthy(self, world):
        """What a model says is no health check: in the course, "NOT OK" was healthy and "fine" was not."""
        agents = [LLMAgent(f"w{n}", model=scripted(*["NOT OK"] * 3)) for n in (1, 2)]
        pool = world.spawn(Pool("pool", agents))
        assert who(world.run(pool.batch(prompts(6)))) == ["w1", "w2"] * 3
        assert world.trace.count("model_called") == 6

    def test_one_that_falls_silent_gets_no_work_until_it_is_back(self):
        async def scenario(world):
            agents = [Clerk("silent", heartbeat=1.0), Clerk("well", heartbeat=1.0)]
            pool = world.spawn(Pool("pool", agents))
            await asyncio.sleep(10)
            away = await pool.batch(prompts(4))
            health = [one.health for one in pool.candidates()]
            await asyncio.sleep(20)
            return who(away), health, who(await pool.batch(prompts(4)))

        faults = FaultPlan(appointments=[Pause("silent", at=2.0, seconds=15.0)])
        away, health, back = simulate(scenario, seed=1, faults=faults).result
        assert set(away) == {"well"} and health == ["unhealthy", "healthy"]
        assert Counter(back) == {"silent": 2, "well": 2}

    def test_a_made_one_that_falls_silent_is_replaced_and_who_has_asked_it_learns_it(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Clerk(f"c{n}", 12.0, heartbeat=1.0), size=2))
            asked = await pool.batch(prompts(2))
            more = await pool.batch(prompts(4))
            return [one.status for one in asked], who(more), [one.name for one in pool], asked[0]

        faults = FaultPlan(appointments=[Pause("c1", at=0.5, seconds=20.0)])
        statuses, more, names, lost = simulate(scenario, seed=1, faults=faults).result
        assert statuses == ["failed", "completed"] and names == ["c3", "c2"] and set(more) == {"c2", "c3"}
        assert isinstance(lost.error, AgentOffline) and lost.seconds == pytest.approx(4.1)

    @pytest.mark.parametrize("fault", [Pause("clerk_1", at=2.0, seconds=60.0), Crash("clerk_1", at=2.0)])
    def test_a_made_one_that_fails_is_replaced_also_where_nothing_is_asked(self, fault):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: Clerk(f"clerk_{n}", heartbeat=1.0), size=2))
            await asyncio.sleep(20.0)
            return [one.name for one in pool]

        assert simulate(scenario, seed=1, faults=FaultPlan(appointments=[fault])).result == ["clerk_3", "clerk_2"]

    def test_faults_of_models_are_failures_of_tasks_and_nothing_else(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", lambda n: LLMAgent(f"w{n}", attempts=1), size=3))
            return await pool.batch(prompts(12), limit=4)

        faults = FaultPlan(appointments=[ModelFault("unavailable", agent="w2"), Crash("w3", at=1.0)])
        run = simulate(scenario, seed=1, faults=faults)
        errors = {one.agent: type(one.error) for one in run.result.failures}
        assert errors == {"w2": ModelUnavailable, "w3": AgentCrashed}
        assert all_ended_once(run.trace)


class TestEnd:
    def test_a_pool_that_stops_tells_those_that_wait_and_those_in_hand(self):
        async def scenario(world):
            pool, client = world.spawn(Pool("pool", clerks(5, 5))), world.spawn(Agent("client"))
            asked = asyncio.ensure_future(pool.batch(prompts(6)))
            sent = asyncio.ensure_future(client.request("pool", "ask", prompt="x"))
            await asyncio.sleep(1.0)
            await pool.stop()
            outcomes = await asked
            with pytest.raises(AgentOffline):
                await sent
            with pytest.raises(AgentOffline, match="takes no tasks"):
                await pool.ask("later")
            return world.now, {type(one.error) for one in outcomes}, [one.state for one in pool]

        run = simulate(scenario, seed=1)
        assert run.result == (1.0, {AgentOffline}, ["offline", "offline"])
        assert all_ended_once(run.trace)

    @pytest.mark.parametrize("agents", [lambda: clerks(1, 1), lambda: make])
    def test_a_pool_that_is_restarted_works_again_with_its_agents_or_new_ones(self, world, agents):
        pool = world.spawn(Pool("pool", agents()))
        world.run(_stop(pool))
        pool.restart()
        if agents() is not make:
            with pytest.raises(AgentOffline, match="nobody left: clerk_1"):
                world.run(pool.ask("x"))
            for one in pool:
                one.restart()
        assert world.run(pool.batch(prompts(4))).success_rate == 1.0

    @pytest.mark.parametrize("seed", range(20))
    def test_nor_does_one_that_stops_before_it_has_begun(self, seed):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1)))
            asked = asyncio.ensure_future(pool.batch(prompts(3)))
            await asyncio.sleep(0)
            await pool.stop()
            return (await asked).success_rate

        assert simulate(scenario, seed=seed, schedule="shuffled").result == 0.0

    def test_a_pool_that_crashes_hangs_nobody(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(5)), restart="on_crash")
            asked = asyncio.ensure_future(pool.batch(prompts(3)))
            await asyncio.sleep(1.0)
            pool.crash(RuntimeError("boom"))
            outcomes = await asked
            await asyncio.sleep(1.0)
            return [one.status for one in outcomes], await pool.ask("again")

        assert simulate(scenario, seed=1).result == (["completed", "failed", "failed"], "clerk_1: again")

    def test_a_strategy_that_never_chooses_leaves_a_world_that_says_so(self):
        async def scenario(world):
            pool = world.spawn(Pool("pool", clerks(1), choose=lambda candidates, random: None))
            await pool.ask("x")

        error = simulate(scenario, seed=1).error
        assert isinstance(error, Stuck) and "waits for an agent of pool" in str(error)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"agents": []}, "nobody to ask"),
            ({}, "nobody to ask"),
            ({"agents": make, "size": 0}, "from 1 up"),
            ({"agents": make, "least": 3, "most": 2}, "ascending"),
            ({"agents": make, "size": 5, "most": 2}, "ascending"),
            ({"agents": make, "least": 0, "most": 2, "size": 1}, "from 1 up"),
            ({"agents": make, "size": 1.5}, "whole number"),
            ({"agents": make, "cooldown": 0}, "more than 0"),
            ({"agents": make, "cooldown": float("inf")}, "finite"),
            ({"agents": make, "timeout": -1}, "more than 0"),
            ({"agents": make, "choose": "quickest"}, "round_robin, least_loaded, fastest"),
            ({"agents": [Agent("mute")]}, "no LLMAgent"),
            ({"agents": "ab"}, "list of LLMAgents"),
            ({"agents": None}, "list of LLMAgents"),
            ({"agents": Clerk("a")}, "list of LLMAgents"),
            ({"agents": lambda n: "worker"}, "no LLMAgent"),
            ({"agents": [Clerk("a"), Clerk("a")]}, "same name"),
            ({"agents": lambda n: Clerk("a"), "size": 2}, "same name"),
            ({"agents": [Clerk("a")], "size": 3}, "which has its size"),
            ({"agents": [Clerk("a")], "most": 0}, "from 1 up"),
        ],
    )
    def test_it_is_refused_at_once_and_says_what_to_do(self, options, says):
        with pytest.raises(InvalidValue, match=says):
            Pool("pool", **options)

    def test_agents_of_two_worlds_make_no_pool(self, world):
        with World(seed=1) as other:
            ann, bob = world.spawn(Clerk("ann")), other.spawn(Clerk("bob"))
            for agents in ([ann, bob], [bob]):
                with pytest.raises(WorldError, match="bob lives in another world"):
                    world.spawn(Pool("pool", agents))

    def test_a_namesake_keeps_the_whole_pool_out(self, world):
        world.spawn(Clerk("b"))
        rows = len(world.trace)
        with pytest.raises(InvalidName, match="'b'"):
            world.spawn(Pool("pool", [Clerk("a"), Clerk("b")]))
        assert len(world.trace) == rows

    @pytest.mark.parametrize(
        "call",
        [
            lambda pool: pool.batch(["x"], limit=0),
            lambda pool: pool.batch(["x"], limit=-1),
            lambda pool: pool.batch("x"),
            lambda pool: pool.batch([1]),
            lambda pool: pool.batch(["x"], timeout=0),
            lambda pool: pool.ask(""),
            lambda pool: pool.ask(3),
            lambda pool: pool.ask("x", timeout=-2),
        ],
    )
    def test_so_are_calls(self, world, call):
        pool = world.spawn(Pool("pool", clerks(1)))
        with pytest.raises(InvalidValue):
            world.run(call(pool))
        assert world.trace.count("task_added") == 0

    def test_a_pool_that_was_not_spawned_says_so(self, world):
        with pytest.raises(WorldError, match="spawn"):
            world.run(Pool("pool", clerks(1)).ask("x"))


@pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
def test_the_same_seed_gives_the_same_trace(schedule):
    async def scenario(world):
        pool = world.spawn(Pool("pool", lambda n: LLMAgent(f"w{n}"), size=2, most=4, choose="fastest", cooldown=2.0))
        return (await pool.batch(prompts(20), limit=7)).success_rate

    first, second = (simulate(scenario, seed=5, schedule=schedule) for _ in range(2))
    assert first.digest == second.digest and first.result == 1.0


class _User(Agent):
    """Checks agents out, in its own name."""

    @capability
    async def use_one(self, seconds: float) -> None:
        """Wait for one."""
        async with self.pool.checkout(seconds):
            pass

    @capability
    async def use_two(self) -> None:
        """Take one, and then another."""
        async with self.pool.checkout():
            await self.sleep(1.0)
            async with self.pool.checkout():
                pass


async def _stop(agent):
    await agent.stop()
