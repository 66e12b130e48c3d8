"""The resolver: it asks by message with one deadline, escalates in order, and what it has resolved stays resolved."""

from __future__ import annotations

import asyncio
import math

import pytest

from masbook import Agent, Conflict, ConflictResolver, FaultPlan, Participant, Trace, World, capability, on, simulate
from masbook.coordination.conflict import FIRST, STRATEGIES, Negotiator, Proposal
from masbook.errors import AgentOffline, InvalidInput, InvalidValue, NotAsync, Unrecordable

GPU = {"resource": "gpu_1"}


def conflict(*names, kind="resource_contention", **options):
    """A conflict of equals, the first of whom has the lowest priority."""
    parties = [Participant(name, {**GPU, "duration": 60 * i}, priority=i) for i, name in enumerate(names or ("a", "b"))]
    return Conflict(kind, "several want gpu_1", parties, **options)


def facts(world, kind, **wanted):
    found = [event.facts for event in world.trace.events(kind)]
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def said(world, who, question):
    """What a participant was heard to say on a question, or how it failed to."""
    rows = [event.facts["position"] for event in world.trace.events("position", who)]
    return [row for row in rows if question in row or question in row.values()]


class Wedged(Negotiator):
    """Never answers anything."""

    async def vote(self, conflict, options):
        await self.sleep(1e9)

    async def accept(self, conflict, winner, decision):
        await self.sleep(1e9)

    async def concede(self, conflict, offers, round):
        await self.sleep(1e9)


class Sore(Negotiator):
    """Accepts nothing but its own victory."""

    async def accept(self, conflict, winner, decision):
        return winner == self.name


async def asleep(dispute):
    """A person who never answers."""
    await asyncio.sleep(1e9)


class Listener(Negotiator):
    """Remembers what it is told of the end."""

    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    @on("conflict.resolved")
    async def hear(self, message):
        self.heard.append(message.content)


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world


@pytest.fixture
def resolver(world):
    return world.spawn(ConflictResolver("resolver"))


class TestTheContract:
    def test_the_example_of_the_design(self, world):
        resolver = world.spawn(ConflictResolver("resolver"))
        resolution = world.run(
            resolver.resolve(
                Conflict(
                    "resource_contention",
                    "two want gpu_1",
                    [
                        Participant("image_1", {"resource": "gpu_1", "duration": 300}, priority=2),
                        Participant("image_2", {"resource": "gpu_1", "duration": 180}, priority=3),
                    ],
                )
            )
        )
        assert (resolution.winner, resolution.strategy) == ("image_2", "priority")
        assert resolution.decision == {"resource": "gpu_1", "duration": 180}
        assert resolution.outcome == "resolved" and resolution.resolved and resolution.attempts == ("priority",)
        assert resolution.satisfaction == {"image_1": 0.0, "image_2": 1.0}

    @pytest.mark.parametrize("kind", FIRST)
    def test_each_kind_goes_to_its_strategy_first(self, world, resolver, kind):
        parties = [Participant("a", GPU, load=1.0), Participant("b", GPU, load=0.5)]
        resolution = world.run(resolver.resolve(Conflict(kind, "a dispute", parties)))
        assert resolution.attempts[0] == FIRST[kind] == resolution.strategy

    def test_the_default_pairing_is_that_of_the_course(self):
        assert FIRST == {
            "resource_contention": "priority",
            "task_assignment": "load_balancing",
            "data_inconsistency": "consensus",
            "priority": "voting",
            "capability_overlap": "arbitration",
        }
        assert list(STRATEGIES) == ["voting", "priority", "load_balancing", "consensus", "arbitration"]

    def test_by_message_it_is_the_same(self, world, resolver):
        client = world.spawn(Agent("client"))
        by_message = world.run(client.request("resolver", "resolve", conflict=conflict()))
        by_call = world.run(resolver.resolve(conflict()))
        assert type(by_message) is type(by_call)
        for name in ("winner", "strategy", "decision", "outcome", "satisfaction"):
            assert getattr(by_message, name) == getattr(by_call, name)

    def test_a_report_returns_at_once_and_the_participants_hear_of_the_end(self, world, resolver):
        a, b = world.spawn(Listener("a")), world.spawn(Listener("b"))
        client = world.spawn(Agent("client"))
        number = world.run(client.request("resolver", "report", conflict=conflict(), strategy="voting"))
        assert number == "conflict-1"
        world.run(until=1.0)
        for agent in (a, b):
            (end,) = agent.heard
            assert end["conflict"] == number and end["winner"] == "b" and end["strategy"] == "voting"

    def test_participants_that_are_gone_are_no_hindrance_to_the_notification(self, world, resolver):
        world.spawn(Listener("a")).stop()
        b = world.spawn(Listener("b"))
        world.run(resolver.resolve(conflict()))
        world.run(until=1.0)
        assert len(b.heard) == 1

    def test_a_full_mailbox_does_not_hold_the_resolution_up(self, world, resolver):
        class Busy(Agent):
            async def on_message(self, message):
                await self.sleep(100.0)

        world.spawn(Busy("a", capacity=1))
        client = world.spawn(Agent("client"))

        async def main():
            for _ in range(2):
                await client.tell("a", "work")
            return await resolver.resolve(conflict())

        assert world.run(main()).seconds == 0.0


class TestResolvedIsFinal:
    def test_resolving_again_returns_the_same(self, world, resolver):
        dispute = conflict()
        first = world.run(resolver.resolve(dispute))
        assert world.run(resolver.resolve(dispute, strategy="arbitration")) is first
        assert world.run(resolver.resolve(first.conflict)) is first
        assert len(facts(world, "resolved")) == 1

    def test_escalating_a_resolved_conflict_changes_nothing(self, world, resolver):
        """Seed defect of 001: escalating a resolved conflict gave another winner."""
        client = world.spawn(Agent("client"))
        first = world.run(resolver.resolve(conflict("a", "b", "c")))
        for _ in range(5):
            assert world.run(resolver.escalate(first.conflict)) is first
        assert world.run(client.request("resolver", "escalate", conflict=first.conflict)) == first
        assert len(facts(world, "resolved")) == len(facts(world, "attempted")) == 1

    def test_equal_conflicts_are_different_conflicts(self, world, resolver):
        one, other = world.run(resolver.resolve(conflict())), world.run(resolver.resolve(conflict()))
        assert one.conflict != other.conflict and len(facts(world, "resolved")) == 2

    def test_two_who_ask_for_one_conflict_get_one_resolution(self, world, resolver):
        dispute = conflict()

        async def main():
            return await asyncio.gather(*[resolver.resolve(dispute, strategy="voting") for _ in range(5)])

        resolutions = world.run(main())
        assert all(resolution is resolutions[0] for resolution in resolutions)

    def test_one_that_nothing_decided_may_be_tried_again(self, world, resolver):
        dispute = conflict()
        first = world.run(resolver.resolve(dispute, strategy=["load_balancing"]))
        assert not first.resolved and first.decision is None and set(first.satisfaction.values()) == {0.0}
        again = world.run(resolver.resolve(dispute, strategy=["priority"]))
        assert again.winner == "b" and again.conflict != first.conflict

    def test_a_conflict_of_another_world_is_a_new_one_here(self, world, resolver):
        dispute = conflict()
        first = world.run(resolver.resolve(dispute))
        with World(seed=7) as elsewhere:
            assert elsewhere.run(elsewhere.spawn(ConflictResolver()).resolve(dispute)) == first
            assert elsewhere.trace.count("resolved") == 1

    @pytest.mark.parametrize("seed", range(20))
    def test_every_conflict_ends_exactly_once_whatever_the_order(self, seed):
        async def scenario(world):
            resolver = world.spawn(ConflictResolver("resolver", patience=2.0, deadline=1.0))
            for name in "abc":
                world.spawn((Sore, Wedged, Negotiator)["abc".index(name)](name))
            disputes = [conflict("a", "b", "c", kind=kind) for kind in FIRST]
            numbers = await asyncio.gather(*[resolver.report(dispute) for dispute in disputes])
            return await asyncio.gather(*[resolver.escalate(number) for number in numbers for _ in range(2)])

        run = simulate(scenario, seed, schedule="shuffled")
        assert run.ok, run.error
        ends = [event.facts["conflict"] for event in run.trace.events("resolved")]
        assert sorted(ends) == [f"conflict-{i}" for i in range(1, 6)]
        assert run.digest == simulate(scenario, seed, schedule="shuffled").digest

    def test_that_check_would_see_a_second_end(self):
        """Plant: a resolver that concludes twice."""

        class Forgetful(ConflictResolver):
            def _conclude(self, case, outcome, proposal):
                for _ in range(2):
                    case.done = self.world.loop.create_future()
                    super()._conclude(case, outcome, proposal)

        with World() as world:
            world.run(world.spawn(Forgetful("resolver")).report(conflict()))
            world.run(until=1.0)
            assert len(facts(world, "resolved")) == 2


class TestEscalation:
    def test_strategy_after_strategy_in_the_order_of_the_course(self, world, resolver):
        for name in ("a", "b", "c"):
            world.spawn(Sore(name))
        resolution = world.run(resolver.resolve(conflict("a", "b", "c")))
        assert resolution.attempts == ("priority", "load_balancing", "consensus", "person")
        assert resolution.outcome == "unresolved" and resolution.strategy == "person"
        attempts = [(row["strategy"], row["outcome"]) for row in facts(world, "attempted")]
        assert attempts[:2] == [("priority", "rejected"), ("load_balancing", "rejected")]
        assert attempts[2:] == [("consensus", "undecided"), ("person", "undecided")]

    def test_the_strategy_asked_for_comes_first_and_a_list_is_all(self, world, resolver):
        for name in ("a", "b", "c"):
            world.spawn(Sore(name))
        three = conflict("a", "b", "c")
        chain = world.run(resolver.resolve(three, strategy="arbitration")).attempts
        assert chain == ("arbitration",)
        listed = world.run(resolver.resolve(conflict("a", "b", "c"), strategy=["voting", "priority"]))
        assert listed.attempts == ("voting", "priority") and listed.seconds == 0.0

    def test_a_later_strategy_is_an_escalation(self, world, resolver):
        resolution = world.run(resolver.resolve(conflict(kind="data_inconsistency")))
        assert resolution.attempts == ("consensus", "arbitration") and resolution.outcome == "escalated"

    def test_a_majority_of_the_weight_must_reject(self, world, resolver):
        for name in ("a", "b"):
            world.spawn(Sore(name))
        parties = [Participant("a", GPU), Participant("b", GPU), Participant("c", GPU, priority=1)]
        rejected = world.run(resolver.resolve(Conflict("resource_contention", "x", parties), strategy=["priority"]))
        assert not rejected.resolved and facts(world, "attempted")[0]["reason"] == "rejected by a, b"
        parties[2] = Participant("c", GPU, priority=1, weight=2.0)
        accepted = world.run(resolver.resolve(Conflict("resource_contention", "x", parties), strategy=["priority"]))
        assert accepted.winner == "c"  # half of the weight is not more than half

    def test_escalate_gives_the_present_strategy_up(self, world, resolver):
        world.spawn(Wedged("a"))

        async def main():
            number = await resolver.report(conflict(kind="priority"))
            await asyncio.sleep(1.0)
            return await resolver.escalate(number)

        resolution = world.run(main())
        assert resolution.strategy == "priority" and resolution.attempts == ("voting", "priority")
        assert facts(world, "attempted")[0]["outcome"] == "escalated"
        assert resolution.seconds == 1.0 + resolver.deadline  # a does not answer whether it accepts, either

    def test_many_who_escalate_in_one_instant_give_one_strategy_up(self, world, resolver):
        world.spawn(Wedged("a"))

        async def main():
            number = await resolver.report(conflict(kind="priority"))
            await asyncio.sleep(1.0)
            asked = []
            for _ in range(5):
                asked.append(asyncio.ensure_future(resolver.escalate(number)))
                await asyncio.sleep(0)
            return await asyncio.gather(*asked)

        for resolution in world.run(main()):
            assert resolution.attempts[0] == "voting" and resolution.resolved
        assert facts(world, "attempted", strategy="voting")[0]["outcome"] == "escalated"

    def test_an_error_in_a_strategy_is_recorded_and_the_next_one_tries(self, world):
        async def broken(case):
            return case.conflict.nonsense

        async def forgetful(case):
            case.award("a")

        resolver = world.spawn(ConflictResolver(strategies={"broken": broken, "forgetful": forgetful}))
        resolution = world.run(resolver.resolve(conflict(), strategy=["broken", "forgetful", "priority"]))
        assert resolution.winner == "b" and resolution.outcome == "escalated"
        errors = [row["reason"] for row in facts(world, "attempted", outcome="error")]
        assert "AttributeError" in errors[0] and "return case.award" in errors[1]

    def test_a_strategy_of_ones_own_comes_before_those_for_the_kind(self, world):
        async def lottery(case):
            return case.award(
                case.resolver.random.choice([party.name for party in case.conflict.participants]), "by lot"
            )

        async def never(case):
            return case.undecided("not me")

        resolver = world.spawn(ConflictResolver(strategies={"lottery": lottery, "never": never}))
        assert world.run(resolver.resolve(conflict(), strategy="lottery")).strategy == "lottery"
        assert world.run(resolver.resolve(conflict(), strategy="never")).attempts == ("never", "priority")


class TestAPersonDecides:
    def test_a_function_is_asked_last_and_its_word_is_final(self, world):
        async def boss(dispute):
            await asyncio.sleep(3.0)
            return dispute.participants[0].name

        resolver = world.spawn(ConflictResolver(ask_person=boss))
        for name in ("a", "b"):
            world.spawn(Sore(name))
        resolution = world.run(resolver.resolve(conflict("a", "b"), strategy="person"))
        assert resolution.winner == "a" and resolution.outcome == "resolved" and resolution.seconds == 3.0
        escalated = world.run(resolver.resolve(conflict("x", "y"), strategy="consensus", deadline=1.0))
        assert escalated.outcome == "escalated"  # arbitration decides before anybody is asked

    def test_the_person_is_asked_when_nothing_else_helps(self, world):
        async def boss(dispute):
            return {"duration": 90}

        resolver = world.spawn(ConflictResolver(ask_person=boss))
        for name in "abc":
            world.spawn(Sore(name))
        resolution = world.run(resolver.resolve(conflict(*"abc")))
        assert resolution.outcome == "person" == resolution.strategy
        assert resolution.winner is None and resolution.decision == {"duration": 90}

    def test_the_person_may_be_asked_by_message(self, world):
        class Operator(Agent):
            @capability
            async def decide(self, conflict: Conflict) -> str:
                await self.sleep(10.0)
                return conflict.participants[0].name

        async def by_message(dispute):
            return await resolver.request("operator", "decide", conflict=dispute)

        resolver = world.spawn(ConflictResolver(ask_person=by_message, patience=30.0))
        world.spawn(Operator("operator"))
        resolution = world.run(resolver.resolve(conflict(), strategy="person"))
        assert resolution.winner == "a" and resolution.seconds == 10.0

    def test_without_an_answer_in_time_the_default_decides(self, world):
        resolver = world.spawn(ConflictResolver(ask_person=asleep, patience=30.0, default="priority"))
        for name in ("a", "b", "c"):
            world.spawn(Sore(name))
        resolution = world.run(resolver.resolve(conflict("a", "b", "c")))
        assert resolution.outcome == "default" and resolution.winner == "c" and resolution.seconds == 30.0

    def test_without_patience_nobody_is_asked(self, world):
        resolver = world.spawn(ConflictResolver(patience=0.0))
        for name in ("a", "b", "c"):
            world.spawn(Sore(name))
        resolution = world.run(resolver.resolve(conflict("a", "b", "c")))
        assert "person" not in resolution.attempts and resolution.seconds == 0.0

    @pytest.mark.parametrize("choice", ["nobody", 5, RuntimeError("the person has left")])
    def test_a_person_who_answers_nonsense_is_no_answer(self, world, choice):
        async def boss(dispute):
            if isinstance(choice, Exception):
                raise choice
            return choice

        resolver = world.spawn(ConflictResolver(ask_person=boss, default="priority"))
        resolution = world.run(resolver.resolve(conflict(), strategy=["person", "priority"]))
        assert resolution.strategy == "priority"
        assert facts(world, "attempted")[0]["outcome"] == "error"

    def test_where_there_is_nobody_to_ask_nobody_is_waited_for(self, world, resolver):
        resolution = world.run(resolver.resolve(conflict(), strategy=["person"]))
        assert not resolution.resolved and resolution.seconds == 0.0
        assert facts(world, "attempted")[0]["reason"] == "there is nobody to ask"

    def test_a_person_is_asked_no_longer_when_the_conflict_is_escalated(self, world):
        resolver = world.spawn(ConflictResolver(ask_person=asleep, patience=100.0, default="priority"))

        async def main():
            number = await resolver.report(conflict(kind="data_inconsistency"), strategy="person")
            await asyncio.sleep(3.0)
            return await resolver.escalate(number)

        resolution = world.run(main())
        assert resolution.seconds == 3.0 and resolution.attempts[0] == "person"


class TestOneDeadline:
    def test_all_are_asked_at_the_same_time(self, world, resolver):
        class Thinker(Negotiator):
            async def vote(self, conflict, options):
                await self.sleep(4.0)
                return [self.name]

        for name in "abcd":
            world.spawn(Thinker(name))
        assert world.run(resolver.resolve(conflict(*"abcd"), strategy=["voting"])).seconds == 4.0

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_who_is_wedged_costs_at_most_the_deadline_once_a_strategy(self, world, resolver, strategy):
        for name in "ab":
            world.spawn(Negotiator(name))
        world.spawn(Wedged("c"))
        resolution = world.run(resolver.resolve(conflict(*"abc"), strategy=[strategy], deadline=2.0))
        assert resolution.seconds <= 2.0
        if strategy in ("voting", "consensus"):
            assert resolution.seconds == 2.0
            (silence,) = [row for row in said(world, "c", "reason") if "silent" in row]
            assert "RequestTimeout" in silence["reason"]

    def test_the_deadline_of_the_resolver_or_of_the_call(self, world):
        resolver = world.spawn(ConflictResolver(deadline=3.0))
        world.spawn(Wedged("a"))
        assert world.run(resolver.resolve(conflict(), strategy=["voting"])).seconds == 3.0
        assert world.run(resolver.resolve(conflict(), strategy=["voting"], deadline=0.5)).seconds == 0.5

    def test_silence_is_a_no_to_a_common_position_but_not_to_a_winner(self, world, resolver):
        class Hesitant(Negotiator):
            async def accept(self, conflict, winner, decision):
                await self.sleep(1e9)

        world.spawn(Hesitant("a"))
        world.spawn(Negotiator("b"))
        parties = [Participant(name, {"t": i}, limits={"t": 1 - i}, weight=1 + i) for i, name in enumerate("ab")]
        dispute = [Conflict("data_inconsistency", "t", parties) for _ in range(2)]
        assert not world.run(resolver.resolve(dispute[0], strategy=["consensus"])).resolved
        assert world.run(resolver.resolve(dispute[1], strategy=["priority"])).winner == "b"

    def test_a_crashed_participant_costs_no_time(self, world, resolver):
        world.spawn(Negotiator("a")).crash(RuntimeError("gone"))
        resolution = world.run(resolver.resolve(conflict(), strategy=["voting"]))
        assert resolution.winner == "b" and resolution.seconds == 0.0
        assert "silent" in said(world, "a", "vote")[0]

    def test_who_asks_in_the_middle_of_its_work_has_said_what_it_claims(self, world, resolver):
        """A participant that waits for the resolver cannot answer it: nobody waits for that in vain."""

        class Worker(Negotiator):
            @capability
            async def work(self) -> str:
                resolution = await self.request("resolver", "resolve", conflict=conflict("a", "b"), strategy=["voting"])
                return resolution.winner

        world.spawn(Worker("a"))
        world.spawn(Negotiator("b"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("a", "work")) == "b" and world.now == 0.0

    def test_nor_for_who_calls_in_the_middle_of_its_work(self, world, resolver):
        class Worker(Negotiator):
            @capability
            async def work(self) -> str:
                return (await resolver.resolve(conflict("a", "b"), strategy=["voting"])).winner

        world.spawn(Worker("a"))
        world.spawn(Negotiator("b"))
        client = world.spawn(Agent("client"))
        assert world.run(client.request("a", "work")) == "b" and world.now == 0.0

    def test_a_lossy_network_delays_but_decides(self):
        async def scenario(world):
            resolver = world.spawn(ConflictResolver("resolver", patience=0.0))
            for name in "abc":
                world.spawn(Negotiator(name))
            ends = [await resolver.resolve(conflict(*"abc", kind=kind)) for kind in FIRST]
            return [end.resolved for end in ends]

        for seed in range(30):
            run = simulate(scenario, seed, faults=FaultPlan(drop=0.2, delay=0.2, duplicate=0.1))
            assert run.ok and run.time <= 5 * 4 * 2 * 5.0
            assert run.trace.count("resolved") == 5


class TestWhatCanBeRead:
    def test_statistics_come_from_the_trace(self, world, resolver):
        for kind in FIRST:
            world.run(resolver.resolve(conflict(kind=kind)))
        world.run(resolver.resolve(conflict(), strategy=["load_balancing"]))
        found = world.run(world.spawn(Agent("client")).request("resolver", "statistics"))
        assert found["conflicts"] == 6 and found["resolved"] == 5 and found["open"] == 0
        assert found["by_kind"]["resource_contention"] == 2
        assert found["by_strategy"] == {"arbitration": 3, "load_balancing": 1, "priority": 1, "voting": 1}
        assert found["by_outcome"] == {"escalated": 2, "resolved": 3, "unresolved": 1}

    def test_statistics_are_those_of_one_resolver(self, world, resolver):
        other = world.spawn(ConflictResolver("other"))
        world.run(resolver.resolve(conflict()))
        assert world.run(other.statistics())["conflicts"] == 0

    def test_status_of_a_conflict_and_of_the_resolver(self, world, resolver):
        world.spawn(Wedged("a"))
        client = world.spawn(Agent("client"))

        async def main():
            number = await resolver.report(conflict(kind="priority"))
            await asyncio.sleep(1.0)
            return number, await client.request("resolver", "status"), await resolver.status(number)

        number, whole, one = world.run(main())
        assert whole["open"] == [number] and whole["state"] == "idle"
        assert one["status"] == "open" and one["attempts"] == ["voting"] and one["resolution"] is None
        world.run(resolver.resolve(number))
        assert world.run(resolver.status(number))["status"] == "resolved"

    def test_every_claim_and_answer_is_in_the_trace(self, world, resolver):
        for name in "ab":
            world.spawn(Negotiator(name))
        world.run(resolver.resolve(conflict(kind="priority")))
        (opened,) = facts(world, "conflict")
        assert opened["participants"] == ["a", "b"] and opened["type"] == "priority"
        assert said(world, "a", "claim") == [{"claim": {"resource": "gpu_1", "duration": 0}}]
        assert said(world, "a", "vote") and said(world, "b", "accept") == [{"accept": True}]

    def test_a_stuck_world_says_who_waits_for_a_person(self, world):
        resolver = world.spawn(ConflictResolver(ask_person=asleep, patience=math.inf))
        world.run(resolver.report(conflict(), strategy=["person"]))
        world.run(until=1.0)
        assert "resolver waits for a person to decide conflict-1" in world.explain()

    def test_the_trace_may_keep_no_rows(self):
        with World(trace=Trace.counts()) as world:
            resolver = world.spawn(ConflictResolver())
            assert world.run(resolver.resolve(conflict())).winner == "b"
            assert world.run(resolver.statistics())["conflicts"] == 1


class TestWhenTheResolverStops:
    def test_who_waits_is_told(self, world, resolver):
        world.spawn(Wedged("a"))
        client = world.spawn(Agent("client"))

        async def main(ask):
            waiting = asyncio.ensure_future(ask)
            await asyncio.sleep(1.0)
            await resolver.stop()
            return await waiting

        with pytest.raises(AgentOffline, match="resolver"):
            world.run(main(resolver.resolve(conflict(kind="priority"))))
        with pytest.raises(AgentOffline, match="resolver"):
            world.run(resolver.resolve(conflict()))
        resolver.restart()
        assert world.run(resolver.status())["open"] == []
        with pytest.raises(AgentOffline, match="resolver"):
            world.run(main(client.request("resolver", "resolve", conflict=conflict(kind="priority"))))


class TestBadInput:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: Conflict("resource_contention", "nobody", []),
            lambda: Conflict("quarrel", "unknown kind", [Participant("a")]),
            lambda: Conflict("priority", "twice", [Participant("a"), Participant("a")]),
            lambda: Conflict("priority", "no participants", ["a", "b"]),
            lambda: Conflict("priority", "no list", Participant("a")),
            lambda: Conflict("priority", "context", [Participant("a")], context=[1]),
            lambda: Conflict("priority", "capacity", [Participant("a")], context={"capacity": {"t": -1}}),
            lambda: Conflict("priority", "capacity", [Participant("a")], context={"capacity": 5}),
            lambda: Conflict("priority", "skills", [Participant("a")], context={"required_capabilities": "ocr"}),
            lambda: Participant("", {}),
            lambda: Participant(3, {}),
            lambda: Participant("a", ["gpu_1"]),
            lambda: Participant("a", {}, weight=-1.0),
            lambda: Participant("a", {}, weight=math.nan),
            lambda: Participant("a", {}, weight=math.inf),
            lambda: Participant("a", {}, weight=True),
            lambda: Participant("a", {}, weight=10**400),
            lambda: Participant("a", {}, priority=math.nan),
            lambda: Participant("a", {}, priority=10**400),
            lambda: Participant("a", {}, load=math.inf),
            lambda: Participant("a", {"t": math.inf}, limits={"t": 0}),
            lambda: Participant("a", {"t": 0}, limits={"t": -math.inf}),
            lambda: Participant("a", {}, priority="high"),
            lambda: Participant("a", {}, load=-0.1),
            lambda: Participant("a", {}, load=math.nan),
            lambda: Participant("a", {"t": math.nan}),
            lambda: Participant("a", {"t": math.nan}, limits={"t": 1}),
            lambda: Participant("a", {"t": 1}, limits={"u": 2}),
            lambda: Participant("a", {"t": 1}, limits={"t": "far"}),
            lambda: Participant("a", {"t": 1}, limits={"t": math.nan}),
            lambda: Participant("a", {"t": "x"}, limits={"t": 3}),
            lambda: Participant("a", {}, capabilities="ocr"),
            lambda: ConflictResolver(rule="coin"),
            lambda: ConflictResolver(deadline=0.0),
            lambda: ConflictResolver(deadline=-1.0),
            lambda: ConflictResolver(deadline=math.nan),
            lambda: ConflictResolver(patience=-1.0),
            lambda: ConflictResolver(default="luck"),
            lambda: ConflictResolver(ask_person=lambda conflict: "a"),
            lambda: Proposal(None, "gpu_1", "no mapping"),
        ],
    )
    def test_it_is_refused_at_once(self, make):
        with pytest.raises(InvalidValue):
            make()

    def test_what_cannot_be_recorded_is_refused_at_once(self):
        with pytest.raises(Unrecordable, match="claim"):
            Participant("a", {"file": object()})

    def test_a_strategy_must_be_a_coroutine_function(self):
        with pytest.raises(NotAsync, match="lottery"):
            ConflictResolver(strategies={"lottery": lambda case: case.award("a")})

    @pytest.mark.parametrize(
        "options",
        [
            {"strategy": "luck"},
            {"strategy": ["voting", "luck"]},
            {"strategy": []},
            {"strategy": 5},
            {"deadline": -1.0},
            {"deadline": 0.0},
            {"deadline": math.nan},
        ],
    )
    def test_a_call_with_bad_options_leaves_nothing_behind(self, world, resolver, options):
        before = len(world.trace)
        with pytest.raises(InvalidValue):
            world.run(resolver.resolve(conflict(), **options))
        assert len(world.trace) == before

    @pytest.mark.parametrize("ask", ["resolve", "escalate", "status"])
    def test_an_unknown_conflict(self, world, resolver, ask):
        with pytest.raises(InvalidValue, match="conflict-9"):
            world.run(getattr(resolver, ask)("conflict-9"))
        with pytest.raises(InvalidValue, match="no conflict"):
            world.run(resolver.resolve({"kind": "priority"}))

    def test_bad_input_by_message_names_the_field(self, world, resolver):
        client = world.spawn(Agent("client"))
        bad = {"kind": "quarrel", "description": "x", "participants": [{"name": "a", "claim": {}}]}
        with pytest.raises(InvalidInput, match="conflict"):
            world.run(client.request("resolver", "resolve", conflict=bad))
        with pytest.raises(InvalidValue, match="strategy"):
            world.run(client.request("resolver", "resolve", conflict=conflict(), strategy="luck"))


def test_strategies_without_names_are_refused():
    async def lottery(case):
        return case.award("a")

    with pytest.raises(InvalidValue, match="give functions by name"):
        ConflictResolver("resolver", strategies=[lottery])
