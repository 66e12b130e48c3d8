"""Consensus: agents discuss a question in rounds, a judge says whether they agree, and if they do not, they vote.

Scenarios call `reach_consensus`. The judge is an agent whose verdict is typed; the vote follows a rule of
`coordination.conflict.voting`, or a function of your own with the same signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..coordination.conflict.voting import RULES, Ballot, Rule, Tally, plurality
from ..errors import InvalidValue, describe
from ..runtime import require
from .agent import LLMAgent
from .outcomes import PATIENCE, Chair, Outcome, Text, chaired, filled, outcome_of, talkers, together, world_of
from .positions import Position, gist, leading

Method = Literal["consensus", "vote", "none"]
Round = tuple[Position, ...]
A = TypeVar("A")  # what can be answered
_JUDGE = "You judge whether the members of a group agree. You have no opinion of your own."


class Stance(BaseModel, Generic[A]):
    """Your position on the question."""

    answer: A = Field(description="Your answer, in as few words as possible.")
    reasoning: str = Field("", description="Why, in a sentence.")


class Ranking(Stance[A]):
    """Your position on the question, where there are options."""

    ranking: list[A] = Field([], description="The options that you could live with, the best first.")


class Verdict(BaseModel, Generic[A]):
    """Whether the members of a group agree."""

    model_config = ConfigDict(frozen=True)
    agree: bool = Field(description="Whether all of them give the same answer, in whatever words.")
    answer: A | Literal[""] = Field("", description="What they agree on; else what most of them say.")
    reason: str = Field("", description="Why you think so, in a sentence.")

    @model_validator(mode="after")
    def _say_on_what(self) -> Verdict[A]:
        if self.agree and not str(self.answer).strip():
            raise ValueError("say in `answer` what they agree on")
        return self


@dataclass(frozen=True, slots=True)
class Consensus:
    """How a discussion ended: by `consensus`, by a `vote`, or with `none`; then there is no answer.

    `rounds` have the positions of all who were there, `verdicts` what the judge made of each round. `tally` is that of
    the vote, if there was one, and says whether it was a majority. `absent` are those who failed, each with its error.
    """

    question: str
    method: Method
    answer: str | None
    reason: str
    rounds: tuple[Round, ...]
    verdicts: tuple[Verdict[str], ...]
    tally: Tally | None
    absent: Mapping[str, str]

    @property
    def reached(self) -> bool:
        """Whether they came to agree; a vote decides, but is no consensus."""
        return self.method == "consensus"


async def reach_consensus(
    agents: Iterable[LLMAgent],
    question: str,
    *,
    options: Sequence[str] | None = None,
    rounds: int = 3,
    judge: LLMAgent | None = None,
    rule: str | Rule = "majority",
    timeout: float = PATIENCE,
) -> Consensus:
    """Let agents discuss a question until a judge finds that they agree, for some rounds at the most; else they vote.

    In each round all answer at once, and know what was answered in the round before. With `options` they choose one of
    those, and rank them. `rule` is `majority`, more than half of all agents, or the name of one of `voting.RULES`, or
    such a function; a tie decides nothing. Who fails, or takes longer than `timeout` virtual seconds, is absent from
    then on; unless more than half are left, nothing is decided. Without a `judge`, an agent with the default model is
    one for the occasion (see `find_model`); where the judge fails, answers are counted.

        outcome = await reach_consensus([ann, bob, cid], "Tea or coffee?", options=["tea", "coffee"])
        outcome.reached, outcome.answer, outcome.method
    """
    members: list[Any] = talkers(agents)
    names = [one.name for one in members]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InvalidValue(f"a consensus needs two or more different agents, not {names}")
    if options is not None:
        unordered = isinstance(options, Set)
        options = require.names("options", options)
        if unordered or len({gist(option) for option in options} - {""}) < max(2, len(options)):
            raise InvalidValue(f"options is {options!r}: give a list of two or more different ones, or None")
    if not callable(rule):
        require.one_of("rule", rule, ("majority", *RULES))
    require.text("the question", question)
    require.whole("rounds", rounds)
    require.positive("timeout", timeout)
    world_of([*members, *(talkers([judge]) if judge is not None else [])])
    async with chaired(members, "consensus") as chair:
        chosen = judge or chair.world.spawn(LLMAgent(f"{chair.name}-judge", _JUDGE))
        try:
            return await _Debate(chair, members, question, options, rule, timeout, chosen).run(rounds)
        finally:
            if chosen is not judge:
                await chosen.stop("the question is settled")


@dataclass(eq=False)
class _Debate:
    """A discussion under way."""

    chair: Chair
    members: list[LLMAgent]
    question: str
    options: tuple[str, ...] | None
    rule: str | Rule
    timeout: float
    judge: LLMAgent
    rounds: list[Round] = field(default_factory=list)
    verdicts: list[Verdict[str]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    async def run(self, most: int) -> Consensus:
        """Discuss, and vote if they do not agree."""
        names = [one.name for one in self.members]
        self._record("conflict", type="question", participants=names, description=self.question)
        while len(self.rounds) < most:
            self.rounds.append(await self._hear())
            if 2 * (there := len(self.rounds[-1])) <= len(names):
                return self._end("none", None, f"only {there} of {len(names)} agents are left")
            self.verdicts.append(verdict := await self._verdict())
            outcome = "resolved" if verdict.agree else "undecided"
            self._record("attempted", strategy="discussion", outcome=outcome, reason=verdict.reason)
            if verdict.agree:
                return self._end("consensus", verdict.answer, verdict.reason)
        return self._vote()

    async def _hear(self) -> Round:
        """Ask everybody who is there for a position; record it, or that there is none, and why."""
        there = [one for one in self.members if one.name not in self.absent]
        form = Ranking if self.options else Stance
        said = []
        for outcome in await together(self._ask(one, form, self._prompt(one)) for one in there):
            if outcome.error is None:
                said.append(position := Position(outcome.agent, **outcome.output.model_dump()))
                facts = {"answer": position.answer, "reasoning": position.reasoning}
            else:
                self.absent[outcome.agent] = f"{type(outcome.error).__name__}: {describe(outcome.error)}"
                facts = {"silent": "answer", "reason": self.absent[outcome.agent]}
            number = len(self.rounds) + 1
            self._record("position", outcome.agent, strategy="discussion", round=number, position=facts)
        return tuple(said)

    async def _ask(self, agent: LLMAgent, form: Any, prompt: str) -> Outcome:
        """Have an agent fill in a form, its answers among the options if there are any."""
        answers = Literal[self.options] if self.options else Text
        return await outcome_of(agent, filled(self.chair, agent, form[answers], prompt, self.timeout))

    def _prompt(self, one: LLMAgent) -> str:
        if not self.rounds:
            return self.question
        heard = "\n".join(map(str, self.rounds[-1]))
        advice = f"You are {one.name}. Keep your answer, or change it if another one convinces you."
        return f"{self.question}\n\nAnswers so far:\n{heard}\n\n{advice}"

    async def _verdict(self) -> Verdict[str]:
        """Return the verdict of the judge on the last round; one that is counted, if the judge fails."""
        said = self.rounds[-1]
        prompt = f"The question was: {self.question}\n\n" + "\n".join(map(str, said)) + "\n\nDo all of them agree?"
        found = await self._ask(self.judge, Verdict, prompt)
        if found.error is None:
            return Verdict(**found.output.model_dump())
        answer, count = leading(one.answer for one in said)
        why = f"{self.judge.name} failed ({type(found.error).__name__}: {describe(found.error)})"
        return Verdict(agree=count == len(said), answer=answer, reason=f"{why}; {count} of {len(said)} say {answer}")

    def _vote(self) -> Consensus:
        """Count the last positions; who is absent abstains."""
        first: dict[str, str] = {}  # how each answer was first written
        said = [(first.setdefault(gist(one.answer), one.answer), *one.ranking) for one in self.rounds[-1]]
        ballots = [Ballot(tuple(dict.fromkeys(ranking))) for ranking in said] + [Ballot(())] * len(self.absent)
        rule = self.rule if callable(self.rule) else RULES.get(self.rule, plurality)
        tally = rule(ballots, self.options)
        if not isinstance(tally, Tally):
            raise InvalidValue(f"the rule returned {tally!r}: return a Tally, as those in voting.RULES do")
        support = f"{tally.share:.0%} of {len(self.members)} agents for {tally.winner}"
        if self.rule == "majority" and not tally.majority:
            return self._end("none", None, f"no majority: {support}", tally)
        if len(tally.tied) > 1:
            return self._end("none", None, f"{tally.rule}: a tie of {', '.join(tally.tied)}", tally)
        return self._end("vote", tally.winner, f"{tally.rule}: {support}", tally)

    def _end(self, method: Method, answer: str | None, reason: str, tally: Tally | None = None) -> Consensus:
        """Record how it ended, and return that."""
        strategy = "discussion" if tally is None else tally.rule
        if tally is not None:
            outcome = "undecided" if answer is None else "resolved"
            self._record("attempted", strategy=strategy, outcome=outcome, reason=reason)
        same = None if answer is None else gist(answer)
        content = [one.agent for one in self.rounds[-1] if method == "consensus" or gist(one.answer) == same]
        self._record(
            "resolved",
            type="question",
            strategy=strategy,
            outcome={"consensus": "resolved", "vote": "escalated", "none": "unresolved"}[method],
            decision=None if answer is None else {"answer": answer},
            satisfaction={one.name: float(one.name in content) for one in self.members},
        )
        rounds, verdicts = tuple(self.rounds), tuple(self.verdicts)
        return Consensus(self.question, method, answer, reason, rounds, verdicts, tally, self.absent)

    def _record(self, kind: str, who: str | None = None, **facts: Any) -> None:
        self.chair.world.trace.record(kind, who or self.chair.name, conflict=self.chair.name, **facts)
