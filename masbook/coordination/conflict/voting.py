"""Voting rules: pure functions from ballots to a `Tally`.

Resolvers and panels of agents call them; `RULES` finds one by name. A rule of your own is a function with the same
signature. Weights are added as exact fractions: 0.1 + 0.2 and 0.3 tie. Ballots may be truncated: each rule says what
it makes of the options left out. An empty one abstains: it supports nobody, but a majority is a majority of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

from ...errors import InvalidValue
from ...runtime import require


@dataclass(frozen=True, slots=True)
class Ballot:
    """The options a voter ranks, best first; for approval, those it approves of, in any order."""

    ranking: Sequence[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranking", require.names("a ballot", self.ranking))
        require.amount("the weight of a ballot", self.weight)
        if len(set(self.ranking)) < len(self.ranking):
            raise InvalidValue(f"{self!r}: name each option once")


@dataclass(frozen=True, slots=True)
class Tally:
    """What a rule makes of the ballots."""

    rule: str
    winner: str
    scores: Mapping[str, float]  # in the order of the options; the rule says of what
    tied: tuple[str, ...]  # who was level at the top before the tie was broken; only the winner where there was no tie
    share: float  # of all weight, that ranks the winner first (approval: approves; run-off: in the last round)
    majority: bool  # whether that is more than half
    rounds: tuple[Mapping[str, float], ...] = ()  # the counts of a run-off


Ballots = Iterable[Ballot | Sequence[str]]  # a plain list is a ranking of weight 1
Rule = Callable[[Ballots, Sequence[str] | None], Tally]
Cast = list[tuple[Sequence[str], Fraction]]
Count = dict[str, Fraction]


def plurality(ballots: Ballots, options: Sequence[str] | None = None) -> Tally:
    """Elect the option that most weight ranks first; scores: that weight.

    For every rule, `options` are all there are, by default those on the ballots as they come, and a tie goes to the one
    that comes first: shuffle them for a draw by lot. InvalidValue where no weight votes, or for other options.
    """
    cast, names = _valid(ballots, options)
    scores = _first_choices(cast, names)
    return _elect("plurality", cast, scores, scores)


def approval(ballots: Ballots, options: Sequence[str] | None = None) -> Tally:
    """Elect the option that most weight approves of; scores: that weight. What is left out is not approved of."""
    cast, names = _valid(ballots, options)
    scores = {name: sum((weight for ranking, weight in cast if name in ranking), Fraction()) for name in names}
    return _elect("approval", cast, scores, scores)


def borda(ballots: Ballots, options: Sequence[str] | None = None) -> Tally:
    """Elect by points: of n options the first gets n - 1, the last 0; those left out share the rest. Scores: points."""
    cast, names = _valid(ballots, options)
    scores, last = dict.fromkeys(names, Fraction()), len(names) - 1
    for ranking, weight in cast:
        for name in names:
            points = last - ranking.index(name) if name in ranking else Fraction(last - len(ranking), 2)
            scores[name] += weight * points
    return _elect("borda", cast, scores, _first_choices(cast, names))


def copeland(ballots: Ballots, options: Sequence[str] | None = None) -> Tally:
    """Elect by duels (Copeland 1951); scores: duels won, and half of those that are even.

    A ballot prefers what it names to what it leaves out, and has no preference among the latter. An option with a
    score of n - 1 wins all its duels: it is the Condorcet winner. Where the best score is lower, there is none.
    """
    cast, names = _valid(ballots, options)
    scores = dict.fromkeys(names, Fraction())
    for one, other in permutations(names, 2):
        duel = _first_choices(cast, (one, other))
        scores[one] += Fraction(1 + (duel[one] > duel[other]) - (duel[one] < duel[other]), 2)
    return _elect("copeland", cast, scores, _first_choices(cast, names))


def instant_runoff(ballots: Ballots, options: Sequence[str] | None = None) -> Tally:
    """Drop the option that least weight ranks first, until one has more than half of what is left, or two are left.

    Of several with the least, the one that comes last drops. A ballot counts until all its options have dropped.
    Scores: the weight of each option in its last round.
    """
    cast, names = _valid(ballots, options)
    rounds = [_first_choices(cast, names)]
    while len(count := rounds[-1]) > 2 and 2 * max(count.values()) <= sum(count.values()):
        *_, last = (name for name in count if count[name] == min(count.values()))
        rounds.append(_first_choices(cast, [name for name in count if name != last]))
    scores = {name: next(count[name] for count in reversed(rounds) if name in count) for name in names}
    return _elect("instant_runoff", cast, scores, rounds[-1], *rounds)


RULES: dict[str, Rule] = {rule.__name__: rule for rule in (plurality, approval, borda, copeland, instant_runoff)}


def _valid(ballots: Ballots, options: Sequence[str] | None) -> tuple[Cast, tuple[str, ...]]:
    papers = [ballot if isinstance(ballot, Ballot) else Ballot(ballot) for ballot in ballots]
    ranked = [name for paper in papers for name in paper.ranking]
    names = tuple(dict.fromkeys(ranked if options is None else require.names("options", options)))
    for name in ranked:
        require.one_of("an option on a ballot", name, names)
    if not names or not any(paper.weight for paper in papers):
        raise InvalidValue("nobody votes: give at least one option, and one ballot with a weight above 0")
    return [(paper.ranking, Fraction(str(paper.weight))) for paper in papers], names


def _first_choices(cast: Cast, names: Sequence[str]) -> Count:
    """Return the weight that ranks each of the names before the others."""
    firsts = [(next((name for name in ranking if name in names), None), weight) for ranking, weight in cast]
    return {name: sum((weight for first, weight in firsts if first == name), Fraction()) for name in names}


def _elect(rule: str, cast: Cast, scores: Count, support: Count, *rounds: Count) -> Tally:
    """Return the tally: the best of the scores wins, or of the last round where there are rounds."""
    contest = rounds[-1] if rounds else scores
    tied = tuple(name for name in contest if contest[name] == max(contest.values()))
    share = support[tied[0]] / sum(weight for _, weight in cast)
    plain = [{name: float(value) for name, value in count.items()} for count in (scores, *rounds)]
    return Tally(rule, tied[0], plain[0], tied, float(share), 2 * share > 1, tuple(plain[1:]))
