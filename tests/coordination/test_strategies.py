"""The five strategies: what the participants say is what decides, and every tie is broken by a rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masbook import Agent, Conflict, ConflictResolver, Participant, World, capability, simulate
from masbook.coordination.conflict import FIRST, RULES, STRATEGIES, Negotiator
from masbook.coordination.conflict.claims import EXCLUSIVE


def resolve(parties, strategy, *agents, kind="priority", context=None, seed=7, schedule="fifo", **options):
    """Return the resolution by one strategy alone, and what was said, in a world of its own."""
    with World(seed, schedule=schedule) as world:
        resolver = world.spawn(ConflictResolver("resolver", **options))
        for agent in agents:
            world.spawn(agent)
        dispute = Conflict(kind, "a dispute", parties, context or {})
        resolution = world.run(resolver.resolve(dispute, strategy=[strategy]))
        return resolution, [(event.who, event.facts["position"]) for event in world.trace.events("position")]


def party(name, value=None, **options):
    return Participant(name, {"value": name if value is None else value}, **options)


class Voter(Negotiator):
    """Votes as it is told."""

    def __init__(self, name, *ballot, after=0.0):
        super().__init__(name)
        self.ballot, self.after = list(ballot), after

    @capability
    async def vote(self, conflict: Conflict, options: dict) -> object:
        await self.sleep(self.after)
        return self.ballot


class Loaded(Agent):
    """Has so much to do."""

    def __init__(self, name, load):
        super().__init__(name)
        self.own = load

    @capability
    async def report_load(self) -> float:
        return self.own


class Stubborn(Negotiator):
    """Never moves."""

    async def concede(self, conflict, offers, round):
        return {}


class Erratic(Negotiator):
    """Takes back in each second round what it offered in the first."""

    async def concede(self, conflict: Conflict, offers: dict, round: int):
        return conflict.party(self.name).offer(round if round % 2 else round - 2)


class TestVoting:
    def test_votes_are_counted(self):
        """Seed defect of 001: votes were collected and never read."""
        parties = [party("a", priority=9), party("b"), party("c")]
        agents = [Voter("a", "c"), Voter("b", "c"), Voter("c", "b")]
        resolution, said = resolve(parties, "voting", *agents)
        assert resolution.winner == "c" and resolution.decision == {"value": "c"}
        assert ("a", {"vote": ["c"]}) in said and resolution.reason == "plurality, 67% of the weight"

    def test_a_vote_by_message_changes_the_outcome(self):
        """Plant: with the votes thrown away, the highest rank would win."""
        parties = [party("a", priority=9), party("b"), party("c")]
        without, _ = resolve(parties, "voting")
        with_votes, _ = resolve(parties, "voting", Voter("a", "b"))
        assert (without.winner, with_votes.winner) == ("a", "b")

    def test_votes_are_weighted(self):
        parties = [party("a", weight=1.5), party("b"), party("c")]
        assert resolve(parties, "voting", Voter("b", "c"))[0].winner == "c"
        parties[0] = party("a", weight=2.5)
        assert resolve(parties, "voting", Voter("b", "c"))[0].winner == "a"

    def test_who_does_not_answer_in_time_abstains(self):
        parties = [party("a"), party("b"), party("c"), party("d")]
        agents = [Voter("a", "b"), Voter("b", "a", after=4.0), Voter("c", "a", after=6.0), Voter("d", "b", after=6.0)]
        resolution, said = resolve(parties, "voting", *agents, deadline=5.0)
        assert resolution.winner == "a"  # one each; a comes first
        assert [who for who, position in said if position.get("silent") == "vote"] == ["c", "d"]

    def test_fewer_than_half_of_the_weight_decide_nothing(self):
        parties = [party("a"), party("b"), party("c")]
        agents = [Voter(name, name, after=99.0) for name in "ab"]
        resolution, _ = resolve(parties, "voting", *agents)
        assert not resolution.resolved
        assert resolve([party("a", weight=0.0)], "voting")[0].outcome == "unresolved"

    @pytest.mark.parametrize("ballot", [["nobody"], [5], ["a", "nobody"], 7, None])
    def test_a_vote_for_what_is_no_option_is_invalid_and_recorded(self, ballot):
        class Odd(Voter):
            @capability
            async def vote(self, conflict: Conflict, options: dict) -> object:
                return ballot

        resolution, said = resolve([party("a"), party("b")], "voting", Odd("b"))
        assert resolution.winner == "a"
        (invalid,) = [position for who, position in said if position.get("invalid") == "vote"]
        assert invalid["reason"]

    def test_one_name_will_do_for_a_vote(self):
        class One(Negotiator):
            @capability
            async def vote(self, conflict: Conflict, options: dict) -> str:
                assert options == {"a": {"value": "a"}, "b": {"value": "b"}}
                return "b"

        assert resolve([party("a"), party("b")], "voting", One("a"))[0].winner == "b"

    def test_ties_go_to_priority_then_weight_then_order(self):
        assert resolve([party("a"), party("b"), party("c", priority=1)], "voting")[0].winner == "c"
        tied = [party("a"), party("b", weight=2.0), party("c", weight=2.0)]
        assert resolve(tied, "voting")[0].winner == "b"
        assert resolve([party("z"), party("a")], "voting")[0].winner == "z"

    def test_who_makes_equal_claims_about_data_votes_alike(self):
        parties = [party("a", 5, priority=1), party("b", 7), party("c", 7)]
        resolution, said = resolve(parties, "voting", kind="data_inconsistency")
        assert resolution.decision == {"value": 7} and resolution.winner == "b"
        assert resolution.satisfaction == {"a": 0.0, "b": 1.0, "c": 1.0}
        assert [position["vote"] for _, position in said if "vote" in position] == [["a"], ["b", "c"], ["b", "c"]]

    def test_where_only_one_can_have_it_equal_claims_are_rivals(self):
        parties = [party("a", 5), party("b", 7), party("c", 7)]
        assert resolve(parties, "voting", kind="resource_contention")[0].winner == "a"

    @pytest.mark.parametrize("rule", RULES)
    def test_the_rule_is_one_of_five(self, rule):
        """Nine voters: the plurality, the run-off and the duels have different winners."""
        kinds = [(4, "abc"), (3, "bca"), (2, "cba")]
        voters = [(f"v{i}{n}", ranking) for i, (count, ranking) in enumerate(kinds) for n in range(count)]
        parties = [*map(party, "abc"), *(party(name, "none of these") for name, _ in voters)]
        agents = [*(Voter(name) for name in "abc"), *(Voter(name, *ranking) for name, ranking in voters)]
        resolution, _ = resolve(parties, "voting", *agents, rule=rule)
        cast = [list(ranking) for _, ranking in voters]
        assert (
            resolution.winner
            == RULES[rule](cast, [party.name for party in Conflict("priority", "x", parties).by_rank()]).winner
        )
        assert resolution.winner == {"plurality": "a"}.get(rule, resolution.winner)
        assert resolution.winner == {"copeland": "b", "instant_runoff": "b"}.get(rule, resolution.winner)

    def test_who_sees_the_conflict_without_a_word_about_types_sees_it_whole(self):
        class Kind(Negotiator):
            async def vote(self, conflict, options):
                return next(party.name for party in conflict.participants if party.name != self.name)

        assert resolve([party("a", priority=1), party("b")], "voting", Kind("a"), Kind("b"))[1][2][1] == {"vote": ["b"]}


class TestPriority:
    def test_the_highest_wins_and_ties_are_broken(self):
        assert (
            resolve([party("a", priority=1), party("b", priority=3), party("c", priority=3)], "priority")[0].winner
            == "b"
        )
        tied = [party("a", weight=1.0), party("b", weight=2.0)]
        assert resolve(tied, "priority")[0].winner == "b"


class TestLoadBalancing:
    def test_the_least_loaded_of_those_who_say_so(self):
        """Seed defect of 001: every load was 0.5 by default, so the first participant won."""
        parties = [party("a"), party("b"), party("c")]
        resolution, said = resolve(parties, "load_balancing", Loaded("a", 0.9), Loaded("b", 0.4), Loaded("c", 0.1))
        assert resolution.winner == "c" and ("b", {"report_load": 0.4}) in said

    def test_a_load_that_is_not_known_is_not_made_up(self):
        """Plant: with 0.5 for whoever says nothing, the first would win."""
        assert resolve([party("a"), party("b", load=0.8)], "load_balancing")[0].winner == "b"
        resolution, _ = resolve([party("a"), party("b")], "load_balancing")
        assert not resolution.resolved

    def test_the_load_of_a_busy_agent_is_measured(self):
        class Worker(Agent):
            @capability
            async def work(self) -> None:
                await self.sleep(100.0)

        async def scenario(world):
            resolver, client = world.spawn(ConflictResolver("resolver")), world.spawn(Agent("client"))
            for name in "ab":
                world.spawn(Worker(name))
            for _ in range(3):
                await client.tell("a", "work")
            await client.tell("b", "work")
            await client.sleep(1.0)
            return (await resolver.resolve(Conflict("task_assignment", "x", [party("a"), party("b")]))).winner

        run = simulate(scenario)
        assert run.result == "b"
        loads = [event.facts["position"] for event in run.trace.events("position", "a")]
        assert {"report_load": 3.0} in loads

    @pytest.mark.parametrize("load", [-1.0, math.nan, "much", None])
    def test_a_load_that_is_no_load_does_not_count(self, load):
        class Odd(Agent):
            @capability
            async def report_load(self) -> object:
                return load

        assert resolve([party("a"), party("b", load=9.0)], "load_balancing", Odd("a"))[0].winner == "b"

    def test_ties_are_broken_by_rank(self):
        parties = [party("a", load=0.5), party("b", load=0.5, priority=2), party("c", load=0.6, priority=9)]
        assert resolve(parties, "load_balancing")[0].winner == "b"


def talks(parties, *agents, kind="data_inconsistency", **options):
    return resolve(parties, "consensus", *agents, kind=kind, **options)[0]


class TestConsensus:
    def test_the_one_undisputed_key_is_no_consensus(self):
        """Seed defect of 001: agreement on what nobody disputes counted as consensus."""
        parties = [
            Participant("image_1", {"resource": "gpu_1", "duration": 300}),
            Participant("image_2", {"resource": "gpu_1", "duration": 180}),
        ]
        for kind in FIRST:
            resolution = talks(parties, kind=kind)
            assert not resolution.resolved and resolution.decision is None

    def test_the_same_claim_of_what_one_can_have_is_no_consensus(self):
        parties = [party("a", "gpu_1"), party("b", "gpu_1")]
        for kind in FIRST:
            assert talks(parties, kind=kind).resolved == (kind not in EXCLUSIVE)

    def test_numbers_meet_between_the_claims(self):
        parties = [party("a", 300, limits={"value": 100}), party("b", 180, limits={"value": 280})]
        resolution = talks(parties)
        assert 180 <= resolution.decision["value"] <= 280 and resolution.winner is None
        assert resolution.satisfaction["a"] == pytest.approx(1 - (300 - resolution.decision["value"]) / 200)

    def test_a_range_that_just_touches_is_enough_and_one_that_does_not_is_not(self):
        assert talks([party("a", 1.0, limits={"value": 0.3}), party("b", 0.1, limits={"value": 0.3})]).decision == {
            "value": 0.3
        }
        assert not talks([party("a", 1.0, limits={"value": 0.31}), party("b", 0.1, limits={"value": 0.3})]).resolved

    def test_several_keys_all_have_to_be_settled(self):
        def parties(limit):
            return [
                Participant("a", {"x": 0, "y": 0, "z": 1}, limits={"x": 10, "y": 10}),
                Participant("b", {"x": 10, "y": 20}, limits={"x": 0, "y": limit}),
            ]

        assert not talks(parties(11)).resolved
        resolution = talks(parties(5))
        assert resolution.decision.keys() == {"x", "y", "z"} and resolution.decision["z"] == 1
        assert 5 <= resolution.decision["y"] <= 10

    def test_alternatives_are_named_one_after_the_other(self):
        parties = [
            party("a", "red", limits={"value": ["blue", "green"]}),
            party("b", "green", limits={"value": ["blue"]}),
        ]
        resolution = talks(parties)
        assert resolution.decision == {"value": "blue"} and resolution.reason == "after 1 rounds of concessions"
        assert resolution.satisfaction == {"a": pytest.approx(2 / 3), "b": 0.5}
        assert not talks([party("a", "red", limits={"value": ["blue"]}), party("b", "green")]).resolved

    def test_what_is_to_be_divided_is_divided(self):
        def parties(least):
            return [Participant(name, {"share": 0.6}, limits={"share": least}) for name in "abc"]

        context = {"capacity": {"share": 1.0}}
        resolution = talks(parties(0.2), kind="resource_contention", context=context)
        shares = resolution.decision["share"]
        assert shares.keys() == {"a", "b", "c"} and math.fsum(shares.values()) <= 1.0
        assert resolution.satisfaction == pytest.approx({name: 1 - (0.6 - shares[name]) / 0.4 for name in "abc"})
        assert not talks(parties(0.5), kind="resource_contention", context=context).resolved
        claims = [
            Participant(name, {**claim, "resource": "gpu_1"}, limits={"share": 0.2})
            for name, claim in {"a": {"share": 0.6}, "b": {"share": 0.6}}.items()
        ]
        halves = talks(claims, kind="resource_contention", context=context)  # what nobody disputes pleases nobody more
        assert halves.satisfaction == pytest.approx(
            {name: 1 - (0.6 - halves.decision["share"][name]) / 0.4 for name in "ab"}
        )
        modest = [Participant(name, {"share": 0.3}) for name in "abc"]
        fits = talks(modest, kind="resource_contention", context=context)
        assert fits.decision == {"share": dict.fromkeys("abc", 0.3)} and set(fits.satisfaction.values()) == {1.0}

    def test_agents_concede_by_message(self):
        parties = [party("a", 0, limits={"value": 10}), party("b", 10, limits={"value": 0})]
        resolution, said = resolve(parties, "consensus", Negotiator("a"), Negotiator("b"), kind="data_inconsistency")
        assert resolution.decision == {"value": 5.0}
        offers = [position["concede"]["value"] for who, position in said if who == "a" and "concede" in position]
        assert offers == [1, 2, 3, 4, 5]

    def test_nobody_sees_the_limits_of_others(self):
        seen = {}

        class Curious(Negotiator):
            async def concede(self, conflict: Conflict, offers: dict, round: int):
                seen.setdefault(self.name, {p.name: dict(p.limits) for p in conflict.participants})
                return await super().concede(conflict, offers, round)

        parties = [party(name, i, limits={"value": 9 - i}) for i, name in enumerate("abc")]
        talks(parties, *map(Curious, "abc"))
        assert seen == {
            own: {name: {"value": 9 - i} if name == own else {} for i, name in enumerate("abc")} for own in "abc"
        }

    def test_one_who_does_not_move_is_met_where_it_stands(self):
        parties = [party("a", 0), party("b", 10, limits={"value": 0})]
        assert talks(parties, Stubborn("a")).decision == {"value": 0}
        parties = [party("a", 0, limits={"value": 10}), party("b", 10, limits={"value": 0})]
        assert not talks(parties, Stubborn("a"), Stubborn("b")).resolved

    def test_it_ends_at_once_when_nobody_moves(self):
        _, said = resolve([party("a", 0), party("b", 1)], "consensus", kind="data_inconsistency")
        assert sum("concede" in position for _, position in said) == 2

    def test_what_was_offered_stays_offered(self):
        parties = [party("a", 0, limits={"value": 10}), party("b", 10, limits={"value": 0})]
        resolution = talks(parties, Erratic("a"))
        assert resolution.resolved and 0 <= resolution.decision["value"] <= 10

    def test_an_offer_that_cannot_be_one_is_recorded_and_left_out(self):
        class Odd(Negotiator):
            async def concede(self, conflict, offers, round):
                return {"value": "much"}

        parties = [party("a", 0, limits={"value": 9}), party("b", 9, limits={"value": 0})]
        resolution, said = resolve(parties, "consensus", Odd("a"), kind="data_inconsistency")
        assert resolution.decision == {"value": 0}
        assert any(position.get("invalid") == "concede" for who, position in said if who == "a")

    def test_one_no_is_enough(self):
        class No(Negotiator):
            async def accept(self, conflict, winner, decision):
                return False

        parties = [party("a", 0, limits={"value": 9}), party("b", 9, limits={"value": 0}, weight=100.0)]
        assert not talks(parties, No("a")).resolved

    def test_the_no_of_who_has_no_weight_is_one_too(self):
        class No(Negotiator):
            async def accept(self, conflict, winner, decision):
                return False

        parties = [party("a", 0, limits={"value": 9}, weight=0.0), party("b", 9, limits={"value": 0})]
        assert not talks(parties, No("a")).resolved
        assert talks(parties).resolved

    def test_silence_ends_it_after_the_deadline(self):
        class Wedged(Negotiator):
            async def concede(self, conflict, offers, round):
                await self.sleep(1e9)

        parties = [party(name, i, limits={"value": 9 - i}) for i, name in enumerate("ab")]
        resolution, said = resolve(parties, "consensus", Wedged("a"), kind="data_inconsistency", deadline=3.0)
        assert not resolution.resolved and resolution.seconds == 3.0
        assert [who for who, position in said if "concede" in position] == ["b"]  # nobody concedes to who is not there

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=5))
    def test_there_is_a_consensus_on_a_number_exactly_if_the_ranges_overlap(self, ranges):
        parties = [party(f"p{i}", ideal, limits={"value": limit}) for i, (ideal, limit) in enumerate(ranges)]
        low, high = max(min(pair) for pair in ranges), min(max(pair) for pair in ranges)
        resolution = talks(parties)
        assert resolution.resolved == (low <= high)
        if resolution.resolved:
            assert low <= resolution.decision["value"] <= high
            assert all(0.0 <= value <= 1.0 for value in resolution.satisfaction.values())

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.lists(st.sampled_from("uvwxyz"), min_size=1, unique=True), min_size=2, max_size=4))
    def test_there_is_a_consensus_on_an_alternative_exactly_if_the_lists_share_one(self, lists):
        parties = [party(f"p{i}", own[0], limits={"value": own[1:]}) for i, own in enumerate(lists)]
        shared = set.intersection(*map(set, lists))
        resolution = talks(parties)
        assert resolution.resolved == bool(shared)
        assert not resolution.resolved or resolution.decision["value"] in shared


class TestArbitration:
    def test_random_choices_come_from_the_world(self):
        """Seed defect of 001: random arbitration was unseeded."""
        parties = [party(name) for name in "abcdef"]
        winners = [resolve(parties, "arbitration", seed=seed)[0].winner for seed in range(40)]
        assert winners == [resolve(parties, "arbitration", seed=seed)[0].winner for seed in range(40)]
        assert len(set(winners)) > 3

    def test_the_best_match_of_capabilities_wins(self):
        class Reader(Agent):
            @capability
            async def ocr(self) -> str:
                return "text"

        context = {"required_capabilities": ["ocr", "layout"]}
        parties = [party("a"), party("b", capabilities=["ocr", "layout"]), party("c", capabilities=["ocr"])]
        assert resolve(parties, "arbitration", context=context)[0].winner == "b"
        assert resolve(parties[::2], "arbitration", Reader("a"), Agent("c"), context=context)[0].winner == "a"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5),
    st.sampled_from(list(STRATEGIES)),
    st.sampled_from(list(FIRST)),
)
def test_whatever_is_decided_was_claimed_and_is_the_same_again(terms, strategy, kind):
    parties = [
        Participant(f"p{i}", {"value": value}, priority=priority, weight=float(weight), load=float(value))
        for i, (value, priority, weight) in enumerate(terms)
    ]
    resolution, said = resolve(parties, strategy, kind=kind)
    again, said_again = resolve(parties, strategy, kind=kind, schedule="shuffled")
    assert resolution == again and said == said_again  # nobody is asked, so no order matters
    if resolution.resolved and resolution.winner is not None:
        assert resolution.decision == parties[int(resolution.winner[1:])].claim
        assert resolution.satisfaction[resolution.winner] == 1.0
