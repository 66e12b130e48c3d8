"""Detection: each conflict is found once, from claims on the bus and from the trace, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from masbook import Agent, ConflictResolver, FaultPlan, Partition, World, simulate
from masbook.coordination import ConflictDetector, Lock, MemoryStore, Semaphore
from masbook.coordination.sync import ReadWriteLock
from masbook.errors import InvalidValue, VersionConflict


class Society:
    """A world with a detector, a resolver and three agents."""

    def __init__(self, world, **options):
        self.world = world
        self.resolver = world.spawn(ConflictResolver("resolver", patience=0.0))
        self.detector = world.spawn(ConflictDetector("detector", **options))
        self.a, self.b, self.c = (world.spawn(Agent(name)) for name in "abc")

    def found(self):
        """Each conflict: its kind and who is in it."""
        return [
            (event.facts["type"], tuple(event.facts["participants"])) for event in self.world.trace.events("conflict")
        ]

    def claims(self, conflict):
        rows = [event for event in self.world.trace.events("position") if event.facts["conflict"] == conflict]
        return {event.who: event.facts["position"]["claim"] for event in rows if "claim" in event.facts["position"]}

    def run(self, main):
        """Run what the society does, and a while longer."""

        async def whole():
            await asyncio.sleep(0)
            await main
            await asyncio.sleep(5.0)

        self.world.run(whole())
        return self.found()


@pytest.fixture
def society():
    with World(seed=7) as world:
        yield Society(world)


class TestClaimsOnTheBus:
    def test_two_claims_on_a_resource_are_a_conflict(self, society):
        async def main():
            await society.a.publish("resource.claimed", resource="gpu_1", duration=300, priority=2)
            await society.b.publish("resource.claimed", resource="gpu_1", duration=180, priority=3)

        assert society.run(main()) == [("resource_contention", ("a", "b"))]
        assert society.claims("conflict-1")["b"] == {"resource": "gpu_1", "duration": 180}
        (end,) = society.world.trace.events("resolved")
        assert end.facts["winner"] == "b"

    @pytest.mark.parametrize(
        ("what", "kind"),
        [
            ("resource", "resource_contention"),
            ("task", "task_assignment"),
            ("data", "data_inconsistency"),
            ("capability", "capability_overlap"),
        ],
    )
    def test_each_kind_of_claim(self, society, what, kind):
        async def main():
            for i, agent in enumerate((society.a, society.b)):
                await agent.publish(f"{what}.claimed", {what: "x", "value": i})

        assert society.run(main()) == [(kind, ("a", "b"))]

    def test_claims_that_come_together_are_one_conflict(self, society):
        async def main():
            await asyncio.gather(
                *[agent.publish("resource.claimed", resource="x") for agent in (society.a, society.b, society.c)]
            )

        assert society.run(main()) == [("resource_contention", ("a", "b", "c"))]

    def test_the_winner_keeps_its_claim_and_the_losers_do_not(self, society):
        async def main():
            await society.a.publish("resource.claimed", resource="x", priority=5)
            await society.b.publish("resource.claimed", resource="x")
            await asyncio.sleep(1.0)
            await society.c.publish("resource.claimed", resource="x")
            await asyncio.sleep(1.0)
            await society.a.publish("resource.released", resource="x")
            await society.b.publish("resource.claimed", resource="x")

        assert society.run(main()) == [("resource_contention", ("a", "b")), ("resource_contention", ("a", "c"))]

    def test_a_loser_who_claims_again_is_in_a_new_conflict(self, society):
        async def main():
            for _ in range(2):
                await society.a.publish("resource.claimed", resource="x", priority=5)
                await society.b.publish("resource.claimed", resource="x")
                await asyncio.sleep(1.0)

        assert society.run(main()) == [("resource_contention", ("a", "b"))] * 2

    def test_nothing_false(self, society):
        async def main():
            await society.a.publish("resource.claimed", resource="x")
            await society.a.publish("resource.claimed", resource="x", duration=5)  # again, by the same
            await society.b.publish("resource.claimed", resource="y")
            await society.a.publish("resource.released", resource="x")
            await society.b.publish("resource.claimed", resource="x")  # after a has given it up
            await society.a.publish("data.claimed", data="t", value=5)
            await society.b.publish("data.claimed", data="t", value=5)  # they agree
            await society.a.publish("weather.claimed", weather="x")
            await society.b.publish("weather.claimed", weather="x")  # not a subject
            await society.c.publish("resource.claimed", resource="z")
            await society.a.publish("resource.claimed", resource="z")
            await society.a.publish("resource.released", resource="z")  # before anybody has looked

        assert society.run(main()) == []

    def test_an_unresolved_conflict_is_not_reported_again_until_something_changes(self, society):
        async def main():
            for _ in range(3):
                for agent in (society.a, society.b):
                    await agent.publish("task.claimed", task="t")
                await asyncio.sleep(1.0)
            await society.c.publish("task.claimed", task="t")

        async def undecided(case):
            return case.undecided("nobody knows")

        society.resolver.strategies.update(dict.fromkeys(society.resolver.strategies, undecided))

        assert society.run(main()) == [("task_assignment", ("a", "b")), ("task_assignment", ("a", "b", "c"))]

    def test_who_has_gone_claims_nothing_any_more(self, society):
        async def main():
            await society.a.publish("resource.claimed", resource="x")
            await society.a.publish("task.claimed", task="t")
            await asyncio.sleep(0)
            await society.a.stop()
            await society.b.publish("resource.claimed", resource="x")
            society.b.crash(RuntimeError("gone"))
            await society.c.publish("resource.claimed", resource="x")
            await society.c.publish("task.claimed", task="t")

        assert society.run(main()) == []

    def test_a_claim_on_nothing_is_none(self, society):
        async def main():
            for agent in (society.a, society.b):
                await agent.publish("resource.claimed", duration=5)

        assert society.run(main()) == []
        assert "resource='name'" in next(society.world.trace.events("refused")).facts["reason"]

    @pytest.mark.parametrize("terms", [{"weight": -1}, {"priority": "high"}, {"limits": {"other": 1}}, {"limits": 5}])
    def test_a_claim_that_is_none_is_refused_and_harms_nobody(self, society, terms):
        async def main():
            await society.a.publish("resource.claimed", {"resource": "x", **terms})
            await society.b.publish("resource.claimed", resource="x")

        assert society.run(main()) == []
        (refusal,) = society.world.trace.events("refused", "a")
        assert refusal.facts["action"] == "claim" and refusal.facts["target"] == "x"

    @pytest.mark.parametrize("trouble", ["partition", "stop"])
    def test_a_resolver_that_does_not_answer_is_no_end_to_detection(self, trouble):
        """What could not be handed over is known; with a new claim it is handed over again."""
        torn = FaultPlan(appointments=[Partition(["detector"], ["resolver"], 0.0, 20.0)] * (trouble == "partition"))
        with World(faults=torn) as world:
            society = Society(world)

            async def main():
                if trouble == "stop":
                    await society.resolver.stop()
                for agent in (society.a, society.b):
                    await agent.publish("resource.claimed", resource="x")
                await asyncio.sleep(60.0)
                society.resolver.restart()
                await society.c.publish("resource.claimed", resource="x")

            assert society.run(main()) == [("resource_contention", ("a", "b", "c"))]

    def test_bad_options(self):
        with pytest.raises(InvalidValue, match="gather"):
            ConflictDetector(gather=-1.0)


class TestTheTrace:
    def test_two_holders_of_a_lock(self, society):
        """A broken lock says that it was acquired twice; see defect 10 of the sixteen."""

        async def main():
            for agent in (society.a, society.b):
                society.world.trace.record("acquired", agent.name, resource="gpu", token=1, waited=0.0)

        assert society.run(main()) == [("resource_contention", ("a", "b"))]

    def test_a_lock_that_works_is_no_conflict(self, society):
        lock, rooms = Lock(society.world, "gpu"), Semaphore(society.world, "rooms", 3)
        plan = ReadWriteLock(society.world, "plan")

        async def use(agent):
            async with lock.hold(agent), rooms.hold(agent), plan.read(agent):
                await agent.sleep(1.0)
            async with rooms.hold(agent):
                await agent.sleep(1.0)
            async with plan.write(agent):
                await agent.sleep(1.0)

        async def main():
            await asyncio.gather(*[use(agent) for agent in (society.a, society.b, society.c)])

        assert society.run(main()) == []

    def test_contradictory_writes(self, society):
        store = MemoryStore(society.world)

        async def main():
            await store.set("plan", "mine", by=society.a, expected_version=0)
            with pytest.raises(VersionConflict):
                await store.set("plan", "no, mine", by=society.b, expected_version=0)
            for _ in range(2):
                await store.set("plan", "later", by=society.c)
            with pytest.raises(VersionConflict):
                await store.set("plan", "from what I read", by=society.b, expected_version=1)

        kind = "data_inconsistency"
        assert society.run(main()) == [(kind, ("a", "b")), (kind, ("c", "b"))]
        assert society.claims("conflict-2")["b"] == {"key": "plan", "version": 2, "author": "b"}

    def test_writes_one_after_the_other_are_no_conflict(self, society):
        store = MemoryStore(society.world)

        async def main():
            for agent in (society.a, society.b, society.c) * 5:
                await store.update("count", lambda n: (n or 0) + 1, by=agent)
                await store.set(agent.name, 1, by=agent)
            await store.delete("count", by=society.a)
            with pytest.raises(VersionConflict):
                await store.set("a", 2, by=society.a, expected_version=1)  # with itself

        assert society.run(main()) == []

    def test_two_agents_that_take_one_task(self, society):
        record = society.world.trace.record

        async def main():
            for task in ("t1", "t2"):
                record("task_started", "a", workflow="w", task=task, attempt=1)
            record("task_failed", "a", workflow="w", task="t1", attempt=1, error="x", next="another")
            for task in ("t1", "t2"):
                record("task_started", "b", workflow="w", task=task, attempt=1)
            record("task_ended", "a", workflow="w", task="t1", status="completed")
            record("task_started", "c", workflow="w", task="t1", attempt=1)

        assert society.run(main()) == [("task_assignment", ("a", "b"))]
        assert society.claims("conflict-1") == {"a": {"task": "w/t2"}, "b": {"task": "w/t2"}}

    def test_tasks_that_a_service_gives_to_several_are_no_conflict(self, society):
        record = society.world.trace.record

        async def main():
            record("task_added", "resolver", workflow="w", task="t", capability="add")
            for agent in "abc":
                record("task_started", agent, workflow="w", task="t", attempt=1)

        assert society.run(main()) == []

    def test_a_detector_that_was_away_begins_anew(self, society):
        def record(kind, who, resource):
            society.world.trace.record(kind, who, resource=resource, token=1)

        async def main():
            record("acquired", "a", "gpu")
            await society.detector.stop()
            await society.a.sleep(1.0)
            record("released", "a", "gpu")
            await society.a.sleep(1.0)
            society.detector.restart()
            record("acquired", "b", "gpu")  # a has given it back meanwhile
            await society.b.publish("resource.claimed", resource="disk")
            await society.c.publish("resource.claimed", resource="disk")

        assert society.run(main()) == [("resource_contention", ("b", "c"))]

    def test_what_was_before_its_time_is_not_its_business(self):
        with World() as world:
            for agent in "ab":
                world.trace.record("acquired", agent, resource="gpu", token=1)
            world.run(until=1.0)
            assert Society(world).run(asyncio.sleep(1.0)) == []

    def test_what_is_claimed_in_the_instant_of_its_birth_is(self):
        with World() as world:
            society = Society(world)
            for agent in (society.a, society.b):
                world.run(agent.publish("resource.claimed", resource="gpu"))
            assert society.run(asyncio.sleep(1.0)) == [("resource_contention", ("a", "b"))]

    def test_a_row_that_names_no_resource_harms_nobody(self, society):
        async def main():
            society.world.trace.record("acquired", "a")
            await society.b.publish("resource.claimed", resource="gpu")
            await society.c.publish("resource.claimed", resource="gpu")

        assert society.run(main()) == [("resource_contention", ("b", "c"))]

    def test_what_is_remembered_of_writes_is_bounded(self, society):
        store = MemoryStore(society.world)

        async def main():
            for i in range(3000):
                await store.set("k", i, by=society.a)
            with pytest.raises(VersionConflict):
                await store.set("k", 0, by=society.b, expected_version=1)
            with pytest.raises(VersionConflict):
                await store.set("k", 0, by=society.b, expected_version=2999)

        assert society.run(main()) == [("data_inconsistency", ("a", "b"))]


async def rush(world, gather=0.1):
    """Agents that claim, hold and release five resources at random; return who claimed while somebody else did."""
    society = Society(world, gather=gather)
    open_claims, rivals = {}, 0

    async def live(agent):
        nonlocal rivals
        for _ in range(10):
            await agent.sleep(agent.random.uniform(1.0, 3.0))
            name = f"gpu_{agent.random.randint(1, 3)}"
            holders = open_claims.setdefault(name, set())
            rivals += bool(holders)
            holders.add(agent.name)
            await agent.publish("resource.claimed", resource=name)
            await agent.sleep(0.5)
            holders.discard(agent.name)
            await agent.publish("resource.released", resource=name)

    await asyncio.gather(*[live(agent) for agent in (society.a, society.b, society.c)])
    return rivals


@pytest.mark.parametrize("seed", range(30))
def test_no_more_conflicts_than_rival_claims_in_any_order(seed):
    run = simulate(rush, seed, schedule="shuffled", gather=0.0)
    found = [event.facts["participants"] for event in run.trace.events("conflict")]
    assert run.ok and len(found) <= run.result
    assert all(len(set(names)) == len(names) >= 2 for names in found)
    assert len(found) == run.trace.count("resolved")
    assert run.digest == simulate(rush, seed, schedule="shuffled", gather=0.0).digest


def test_rival_claims_are_found():
    found = [simulate(rush, seed, gather=0.0) for seed in range(20)]
    assert sum(run.trace.count("conflict") for run in found) >= 0.9 * sum(run.result for run in found) > 10


def test_lost_claims_make_no_conflicts_up():
    for seed in range(10):
        run = simulate(rush, seed, faults=FaultPlan(drop=0.2), gather=0.0)
        assert run.ok and all(len(set(row.facts["participants"])) >= 2 for row in run.trace.events("conflict"))
