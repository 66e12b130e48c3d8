"""Voting rules: each equals an independent brute force, the textbook's paradoxes come out, bad ballots are refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masbook import World
from masbook.coordination.conflict.voting import (
    RULES,
    Ballot,
    Tally,
    approval,
    borda,
    copeland,
    instant_runoff,
    plurality,
)
from masbook.errors import InvalidValue
from masbook.runtime.message import freeze


def election(*groups):
    """Return the ballots of groups such as (3, "abc"): three voters rank a before b before c."""
    return [Ballot(list(ranking), number) for number, ranking in groups]


# An independent oracle: each rule in another way than the package's, with whole weights, by the definition.


def oracle_plurality(votes, options):
    return {o: sum(w for r, w in votes if r[:1] == (o,)) for o in options}


def oracle_approval(votes, options):
    counted = Counter(o for r, w in votes for o in r for _ in range(w))
    return {o: counted[o] for o in options}


def oracle_borda(votes, options):
    """The points of an option are the options below it, and half of those level with it."""

    def points(ranking, option):
        place = {o: i for i, o in enumerate(ranking)}
        mine = place.get(option, len(options))
        others = [place.get(o, len(options)) for o in options if o != option]
        return Fraction(sum(2 * (mine < other) + (mine == other) for other in others), 2)

    return {o: sum(w * points(r, o) for r, w in votes) for o in options}


def oracle_copeland(votes, options):
    """Fill the matrix of preferences ballot by ballot, then compare it with its transpose."""
    prefer = dict.fromkeys(product(options, options), 0)
    for ranking, weight in votes:
        for i, better in enumerate(ranking):
            for worse in set(options) - set(ranking[: i + 1]):
                prefer[better, worse] += weight
    rivals = {o: [p for p in options if p != o] for o in options}
    return {
        o: Fraction(sum(2 * (prefer[o, p] > prefer[p, o]) + (prefer[o, p] == prefer[p, o]) for p in rivals[o]), 2)
        for o in options
    }


def oracle_runoff(votes, options):
    """Strike the loser off every ballot and hold the election again; returns the winner and the rounds."""
    count = oracle_plurality(votes, options)
    best = max(count.values())
    if 2 * best > sum(count.values()) or len(options) <= 2:
        return next(o for o in options if count[o] == best), [count]
    loser = [o for o in options if count[o] == min(count.values())][-1]
    left = [(tuple(o for o in r if o != loser), w) for r, w in votes]
    winner, rounds = oracle_runoff(left, [o for o in options if o != loser])
    return winner, [count, *rounds]


SCORES = {
    plurality: oracle_plurality,
    approval: oracle_approval,
    borda: oracle_borda,
    copeland: oracle_copeland,
}


def check(votes, options):
    """Assert that every rule gives what its oracle does."""
    ballots = [Ballot(ranking, weight) for ranking, weight in votes]
    for rule, oracle in SCORES.items():
        tally, scores = rule(ballots, options), oracle(votes, options)
        best = [o for o in options if scores[o] == max(scores.values())]
        assert tally.scores == scores and list(tally.scores) == list(options)
        assert (tally.winner, tally.tied) == (best[0], tuple(best))
        supporters = sum(w for r, w in votes if (tally.winner in r if rule is approval else r[:1] == (tally.winner,)))
        assert tally.share == pytest.approx(supporters / sum(w for _, w in votes))
        assert tally.majority == (2 * supporters > sum(w for _, w in votes))
    winner, rounds = oracle_runoff(votes, list(options))
    tally = instant_runoff(ballots, options)
    assert (tally.winner, list(tally.rounds)) == (winner, rounds)


def rankings(options, truncated=True):
    shortest = 1 if truncated else len(options)
    return [r for n in range(shortest, len(options) + 1) for r in permutations(options, n)]


class TestAgainstBruteForce:
    @pytest.mark.parametrize(
        ("options", "voters", "truncated"),
        [("a", 3, True), ("ab", 4, True), ("abc", 3, True), ("abc", 5, False), ("abcd", 2, False)],
    )
    def test_exhaustive(self, options, voters, truncated):
        for cast in combinations_with_replacement(rankings(options, truncated), voters):
            check([(ranking, 1) for ranking in cast], tuple(options))

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_up_to_five_voters_and_four_options(self, data):
        options = tuple("abcd"[: data.draw(st.integers(1, 4))])
        ballot = st.tuples(st.sampled_from([(), *rankings(options)]), st.integers(0, 5))
        votes = data.draw(st.lists(ballot, min_size=1, max_size=5).filter(lambda votes: any(w for _, w in votes)))
        check(votes, options)

    def test_a_broken_rule_is_seen(self, monkeypatch):
        """Planted: Borda that gives what a ballot leaves out no points."""

        def stingy(votes, options):
            return {o: sum(w * (len(options) - 1 - r.index(o)) for r, w in votes if o in r) for o in options}

        monkeypatch.setitem(SCORES, borda, stingy)
        check([(("a", "b", "c"), 1)], ("a", "b", "c"))  # the same on full rankings
        with pytest.raises(AssertionError):
            check([(("a",), 1)], ("a", "b", "c"))

    @settings(max_examples=50, deadline=None)
    @given(st.permutations(range(4)), st.sampled_from(list(RULES)))
    def test_the_order_of_the_voters_changes_nothing(self, order, rule):
        ballots = election((3, "abc"), (2, "bca"), (2, "cb"), (1, ""))
        shuffled = [ballots[i] for i in order]
        assert RULES[rule](shuffled, ["a", "b", "c"]) == RULES[rule](ballots, ["a", "b", "c"])


class TestParadoxes:
    def test_condorcet_cycle(self):
        """a beats b beats c beats a, two to one: nobody wins all duels, and the rule says so."""
        tally = copeland(election((1, "abc"), (1, "bca"), (1, "cab")))
        assert tally.scores == {"a": 1, "b": 1, "c": 1}
        assert tally.tied == ("a", "b", "c") and not tally.majority

    def test_condorcet_winner(self):
        """b is nobody's worst and wins every duel, though most rank another first."""
        ballots = election((4, "abc"), (3, "cba"), (2, "bca"))
        assert copeland(ballots).winner == "b" and copeland(ballots).scores["b"] == 2
        assert plurality(ballots).winner == "a"

    def test_bordas_spoiler(self):
        """c can win no duel, but where it stands decides between a and b."""
        without, spoilt = election((3, "ab"), (2, "ba")), election((3, "abc"), (2, "bca"))
        assert borda(without).winner == "a" and borda(spoilt).winner == "b"
        assert copeland(spoilt).winner == "a" and copeland(spoilt).scores["c"] == 0
        assert plurality(spoilt).winner == "a" and plurality(spoilt).majority

    def test_run_off_is_not_monotonic(self):
        """Two voters raise the winner a to the top of their ballots, and a loses."""
        before = election((6, "abc"), (5, "cab"), (4, "bca"), (2, "bac"))
        after = election((6, "abc"), (5, "cab"), (4, "bca"), (2, "abc"))
        assert instant_runoff(before).winner == "a" and instant_runoff(before).majority
        assert instant_runoff(after).winner == "c"
        assert instant_runoff(after).rounds == ({"a": 8, "c": 5, "b": 4}, {"a": 8, "c": 9})

    def test_five_options_and_each_rule_elects_another(self):
        """The 55 voters of Malkevitch (The mathematical theory of elections, 1985)."""
        ballots = election((18, "adecb"), (12, "bedca"), (10, "cbeda"), (9, "dceba"), (4, "ebdca"), (2, "ecdba"))
        winners = {name: rule(ballots).winner for name, rule in RULES.items() if name != "approval"}
        assert winners == {"plurality": "a", "instant_runoff": "c", "borda": "d", "copeland": "e"}
        assert copeland(ballots).scores["e"] == 4  # the Condorcet winner


class TestMajority:
    def test_most_votes_are_not_a_majority(self):
        tally = plurality(election((4, "a"), (3, "b"), (3, "c")))
        assert (tally.winner, tally.share, tally.majority) == ("a", 0.4, False)

    def test_half_is_not_more_than_half(self):
        assert not plurality(election((1, "a"), (1, "b"))).majority
        assert plurality(election((2, "a"), (1, "b"))).majority

    def test_abstentions_count(self):
        """Two of five are for a, nobody is against it: that is no majority of all."""
        tally = plurality(election((2, "a"), (3, "")))
        assert (tally.winner, tally.share, tally.majority) == ("a", 0.4, False)

    def test_exhausted_ballots_count(self):
        """The last round of a run-off has a winner without a majority of all who voted."""
        tally = instant_runoff(election((4, "ab"), (3, "b"), (2, "c")))
        assert (tally.winner, tally.majority) == ("a", False)
        assert tally.rounds == ({"a": 4, "b": 3, "c": 2}, {"a": 4, "b": 3})
        assert tally.scores == {"a": 4, "b": 3, "c": 2}

    def test_a_run_off_ends_as_soon_as_there_is_a_majority(self):
        tally = instant_runoff(election((4, "abc"), (2, "bca"), (1, "cab")))
        assert tally.rounds == ({"a": 4, "b": 2, "c": 1},)

    def test_one_heavy_voter(self):
        tally = plurality(election((1, "a"), (1, "a"), (2.5, "b")))
        assert (tally.winner, tally.majority) == ("b", True)


class TestTies:
    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    def test_the_first_given_wins(self, rule):
        ballots = [["b"], ["a"]]
        assert rule(ballots).winner == "b"
        assert rule(ballots, ["a", "b", "c"]).winner == "a"
        assert rule(ballots, ["a", "b", "c"]).tied == ("a", "b")

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    def test_by_lot_from_the_world(self, rule):
        """The seed decides, and every option has a chance."""

        def drawn(seed):
            options = ["a", "b"]
            World(seed).random("lots").shuffle(options)
            return rule([["a"], ["b"]], options).winner

        winners = [drawn(seed) for seed in range(20)]
        assert winners == [drawn(seed) for seed in range(20)]
        assert set(winners) == {"a", "b"}

    def test_who_drops_out_of_a_run_off(self):
        """b and c are last; the first of them stays."""
        ballots = election((3, "abc"), (2, "bca"), (2, "cba"))
        assert instant_runoff(ballots).winner == "b"
        assert instant_runoff(ballots, ["a", "c", "b"]).winner == "c"

    def test_where_there_is_no_tie_only_the_winner_is_level(self):
        for rule in RULES.values():
            assert rule(election((2, "ab"), (1, "a"))).tied == ("a",)

    def test_tenths_add_up(self):
        """As floats 0.1 + 0.2 is more than 0.3; as weights it is a tie."""
        tally = plurality([Ballot(["a"], 0.1), Ballot(["a"], 0.2), Ballot(["b"], 0.3)])
        assert tally.tied == ("a", "b") and not tally.majority


class TestTallies:
    def test_plain_lists_are_ballots_of_weight_one(self):
        assert borda([["a", "b"], ["b", "a"], ["a", "b"]]) == borda(election((2, "ab"), (1, "ba")))

    def test_a_ballot_is_what_arrives_by_message(self):
        sent = freeze(Ballot(["a", "b"], 2.0))
        assert Ballot(**sent) == Ballot(["a", "b"], 2.0)

    def test_a_tally_can_be_sent_and_recorded(self):
        tally = instant_runoff(election((4, "ab"), (3, "b"), (2, "c")))
        assert freeze(tally)["rounds"] == [dict(count) for count in tally.rounds]
        assert Tally(**freeze(tally)).scores == tally.scores == asdict(tally)["scores"]

    def test_an_option_nobody_names(self):
        assert plurality([["a"]], ["a", "b"]).scores == {"a": 1.0, "b": 0.0}

    def test_everybody_abstains(self):
        tally = plurality([[], []], ["a", "b"])
        assert (tally.tied, tally.share, tally.majority) == (("a", "b"), 0.0, False)


class TestBadInput:
    @pytest.mark.parametrize("weight", [-1, -0.1, float("nan"), float("inf"), "2", None, True])
    def test_weights(self, weight):
        with pytest.raises(InvalidValue, match="weight"):
            Ballot(["a"], weight)

    def test_an_option_named_twice(self):
        with pytest.raises(InvalidValue, match="once"):
            Ballot(["a", "b", "a"])

    def test_text_is_not_a_ranking(self):
        with pytest.raises(InvalidValue, match=r"\['gpu_1'\]"):
            Ballot("gpu_1")

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    @pytest.mark.parametrize(
        ("ballots", "options", "said"),
        [
            ([], ["a"], "nobody votes"),
            ([], None, "nobody votes"),
            ([["a"]], [], "option"),
            ([[]], None, "nobody votes"),
            ([Ballot(["a"], 0.0)], None, "nobody votes"),
            ([["a", "x"]], ["a", "b"], "'x'.*a, b"),
        ],
    )
    def test_nothing_to_count(self, rule, ballots, options, said):
        with pytest.raises(InvalidValue, match=said):
            rule(ballots, options)
