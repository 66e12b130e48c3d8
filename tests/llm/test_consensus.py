"""Consensus: verdicts are typed, one vote is no majority, and nobody who fails takes the others along."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from masbook import Crash, FaultPlan, ModelFault, World, simulate
from masbook.coordination.conflict.voting import RULES, plurality
from masbook.errors import InvalidValue, ModelUnavailable, ScriptExhausted, ScriptUnused, WorldError
from masbook.lab import charts, frames
from masbook.llm import LLMAgent, reach_consensus, record, replay, scripted
from masbook.llm.expert import Answer
from masbook.llm.offline_model import offline

DRINKS = ["tea", "coffee", "juice"]


def says(*answers, **more):
    return scripted(*({"answer": answer, "reasoning": f"I like {answer}", **more} for answer in answers))


def group(world, *models):
    return [
        world.spawn(LLMAgent(name, model=model, attempts=1)) for name, model in zip("abcdefg", models, strict=False)
    ]


def judge(world, *verdicts):
    return world.spawn(LLMAgent("judge", model=scripted(*verdicts), attempts=1))


def drinkers(world, *likes, model="offline:instant"):
    return [world.spawn(LLMAgent("abcdefg"[n], f"You like {like}.", model=model)) for n, like in enumerate(likes)]


YES = {"agree": True, "answer": "tea", "reason": "all say so"}
NO = {"agree": False, "answer": "tea", "reason": "one says coffee"}


def test_they_discuss_until_the_judge_finds_that_they_agree(world):
    prompts = []

    def change(question):
        prompts.append(question.prompt)
        return {"answer": "tea", "reasoning": "they convinced me"}

    team = group(world, says("tea", "tea"), says("tea", "tea"), scripted({"answer": "coffee"}, change))
    found = world.run(reach_consensus(team, "What shall we drink?", judge=judge(world, NO, YES)))
    assert (found.reached, found.method, found.answer, found.reason) == (True, "consensus", "tea", "all say so")
    assert [[(one.agent, one.answer) for one in said] for said in found.rounds] == [
        [("a", "tea"), ("b", "tea"), ("c", "coffee")],
        [("a", "tea"), ("b", "tea"), ("c", "tea")],
    ]
    assert found.rounds[1][2].reasoning == "they convinced me"
    assert [verdict.agree for verdict in found.verdicts] == [False, True]
    assert (found.tally, found.absent) == (None, {})
    (prompt,) = prompts  # what it knows of the others is what they said in the round before
    assert "- a says tea, because: I like tea\n- b says tea, because: I like tea\n- c says coffee\n" in prompt
    assert prompt.startswith("What shall we drink?") and "You are c." in prompt


def test_what_they_hear_is_what_was_said_in_the_round_before_and_no_earlier(world):
    prompts = []

    def note(question):
        prompts.append(question.prompt)
        return {"answer": "juice"}

    team = group(world, says("tea", "coffee", "coffee"), scripted({"answer": "juice"}, note, note))
    world.run(reach_consensus(team, "Which?", judge=judge(world, NO, NO, NO)))
    assert ["a says tea" in prompt for prompt in prompts] == [True, False]
    assert ["a says coffee" in prompt for prompt in prompts] == [False, True]


@pytest.mark.parametrize(
    ("reason", "agree"),
    [("NO_CONSENSUS: tea", False), ("CONSENSUS: tea", False), ("there is no consensus", True)],
)
def test_no_consensus_is_not_read_as_consensus(world, reason, agree):
    # Seed defect: "NO_CONSENSUS:" contains "CONSENSUS:". Here the verdict is a field; no text is searched.
    team = group(world, says("tea"), says("coffee"))
    verdict = {"agree": agree, "answer": "tea", "reason": reason}
    found = world.run(reach_consensus(team, "What shall we drink?", rounds=1, judge=judge(world, verdict)))
    assert found.reached is agree
    assert found.method == ("consensus" if agree else "none")


def test_a_search_in_the_text_would_read_it_wrongly(world):  # the violation of the test above, planted
    def text_search(verdict):
        return "CONSENSUS:" in verdict.reason

    team = group(world, says("tea"), says("coffee"))
    verdict = {"agree": False, "reason": "NO_CONSENSUS: they differ"}
    found = world.run(reach_consensus(team, "What shall we drink?", rounds=1, judge=judge(world, verdict)))
    assert text_search(found.verdicts[0]) and not found.reached


class TestTheVote:
    def vote(self, world, *answers, **more):
        no = {"agree": False, "answer": answers[0]}
        team = group(world, *map(says, answers))
        return world.run(reach_consensus(team, "Which?", rounds=1, judge=judge(world, no), **more))

    def test_a_majority_decides_and_is_no_consensus(self, world):
        found = self.vote(world, "tea", "Tea.", "coffee")
        assert (found.reached, found.method, found.answer) == (False, "vote", "tea")
        assert found.tally.majority and found.tally.scores == {"tea": 2, "coffee": 1}

    @pytest.mark.parametrize(
        "answers", [("tea", "coffee", "juice"), ("tea", "tea", "coffee", "juice"), ("tea", "coffee")]
    )
    def test_one_vote_is_no_majority(self, world, answers):
        # Seed defect: the most common answer wins by `most_common(1)`, be it one vote of many.
        found = self.vote(world, *answers)
        assert (found.reached, found.method, found.answer) == (False, "none", None)
        assert found.reason.startswith("no majority: ") and not found.tally.majority

    def test_the_most_common_answer_would_win_with_one_vote(self, world):  # the violation, planted as a rule
        def most_common(ballots, options=None):
            tally = plurality(ballots, options)
            return replace(tally, tied=(tally.winner,))

        found = self.vote(world, "tea", "coffee", "juice", rule=most_common)
        assert (found.method, found.answer, found.tally.majority) == ("vote", "tea", False)

    def test_other_rules_need_no_majority_but_a_tie_decides_nothing(self, world):
        found = self.vote(world, "tea", "tea", "coffee", "juice", rule="plurality")
        assert (found.method, found.answer, found.tally.majority) == ("vote", "tea", False)

    def test_a_tie_decides_nothing(self, world):
        found = self.vote(world, "tea", "coffee", rule="plurality")
        assert (found.method, found.reason) == ("none", "plurality: a tie of tea, coffee")

    def test_answers_that_differ_in_writing_alone_count_together(self, world):
        found = self.vote(world, "Green  tea.", "green tea", "black tea")
        assert (found.answer, found.tally.scores) == ("Green  tea.", {"Green  tea.": 2, "black tea": 1})

    def test_options_that_begin_alike_are_not_the_same(self, world):
        options = ["yes, at once", "yes, in a year", "no"]
        assert self.vote(world, *options, options=options).method == "none"

    def test_c_plus_plus_is_not_c_sharp(self, world):
        assert self.vote(world, "C++", "C#", "C").method == "none"

    @pytest.mark.parametrize("rule", RULES)
    def test_rankings_count_where_the_rule_reads_them(self, world, rule):
        rankings = [["tea", "juice", "coffee"]] * 2 + [["coffee", "juice", "tea"]] * 2 + [["juice", "tea", "coffee"]]
        team = group(world, *(says(ranking[0], ranking=ranking) for ranking in rankings))
        no = judge(world, {"agree": False})
        found = world.run(reach_consensus(team, "Which?", options=DRINKS, rounds=1, judge=no, rule=rule))
        votes = [ranking[:1] if rule == "plurality" else ranking for ranking in rankings]
        assert found.tally == RULES[rule](votes, DRINKS)
        assert found.answer == (found.tally.winner if len(found.tally.tied) == 1 else None)

    def test_a_rule_of_ones_own(self, world):
        def dictator(ballots, options=None):
            return plurality(list(ballots)[:1], options)

        assert self.vote(world, "coffee", "tea", "tea", rule=dictator).answer == "coffee"

    def test_a_rule_that_returns_something_else_is_told_what_to_return(self, world):
        with pytest.raises(InvalidValue, match="return a Tally"):
            self.vote(world, "coffee", "tea", rule=lambda ballots, options: "tea")


class TestOptions:
    def test_what_is_no_option_has_to_be_mended(self, world):
        team = group(world, says("beer", "tea"), says("tea"))
        found = world.run(reach_consensus(team, "Which?", options=DRINKS, judge=judge(world, YES)))
        assert found.answer == "tea"
        assert world.trace.count("model_called", "a") == 2

    def test_may_be_anything_that_gives_its_names_once(self, world):
        team = drinkers(world, "tea (green)", "tea (black)", "tea (green)")
        options = (f"tea ({kind})" for kind in ("green", "black"))
        found = world.run(reach_consensus(team, "Which?", options=options))
        assert (found.method, found.answer, len(found.rounds)) == ("consensus", "tea (green)", 2)

    def test_an_answer_of_spaces_has_to_be_mended(self, world):
        team = group(world, says("  ", " tea "), says("tea"))
        found = world.run(reach_consensus(team, "Which?", judge=judge(world, YES)))
        assert [one.answer for one in found.rounds[0]] == ["tea", "tea"]

    def test_a_judge_who_agrees_on_nothing_has_to_mend_that(self, world):
        team = group(world, says("tea"), says("tea"))
        found = world.run(reach_consensus(team, "Which?", judge=judge(world, {"agree": True}, YES)))
        assert found.answer == "tea"

    def test_what_they_answer_is_plain_data_that_a_run_can_keep(self):
        async def scenario(world):
            return await reach_consensus(drinkers(world, "tea", "juice"), "Tea or juice?", options=DRINKS)

        run = simulate(scenario, seed=1)
        assert run.error is None and run.result.method == "none"


class TestWhoFails:
    def test_is_absent_and_the_others_go_on(self, world):
        team = group(world, says("tea", "tea"), says("coffee", "tea"), scripted(ModelUnavailable("no line")))
        found = world.run(reach_consensus(team, "Which?", judge=judge(world, NO, YES)))
        assert found.answer == "tea" and found.absent == {"c": "ModelUnavailable: no line"}
        assert [len(said) for said in found.rounds] == [2, 2]
        silent = [event.facts for event in world.trace.events("position", "c")]
        assert [facts["position"]["silent"] for facts in silent] == ["answer"]

    def test_abstains_so_that_half_of_the_group_is_no_majority(self, world):
        broken = scripted(ModelUnavailable("no line"))
        team = group(world, says("tea"), says("tea"), says("juice"), broken)
        found = world.run(reach_consensus(team, "Which?", rounds=1, judge=judge(world, NO)))
        assert (found.method, found.tally.share) == ("none", 0.5)

    def test_one_of_three_who_is_left_agrees_with_nobody(self, world):
        # Seed defect, in another form: one voice is neither a majority nor a consensus.
        team = group(world, says("tea"), *(scripted(ModelUnavailable("no line")) for _ in "bc"))
        found = world.run(reach_consensus(team, "Which?", judge=judge(world)))
        assert (found.method, found.answer, found.reason) == ("none", None, "only 1 of 3 agents are left")
        assert len(found.rounds) == 1 and not found.verdicts

    def test_two_of_four_who_are_left_agree_for_nobody_else(self, world):
        broken = [scripted(ModelUnavailable("no line")) for _ in "cd"]
        found = world.run(reach_consensus(group(world, says("tea"), says("tea"), *broken), "Which?"))
        assert (found.method, found.reason) == ("none", "only 2 of 4 agents are left")

    def test_nobody_left_decides_nothing_and_it_is_said_why(self, world):
        team = group(world, *(scripted(ModelUnavailable("no line")) for _ in "ab"))
        found = world.run(reach_consensus(team, "Which?"))
        assert (found.method, found.answer, found.reason) == ("none", None, "only 0 of 2 agents are left")
        assert found.absent == dict.fromkeys("ab", "ModelUnavailable: no line")
        assert frames.conflicts(world)["outcome"].tolist() == ["unresolved"]

    def test_who_has_stopped_or_takes_too_long_is_absent(self, world):
        slow = scripted({"answer": "tea"}, latency=9.0)
        team = group(world, says("tea"), says("tea"), says("tea"), slow, says())
        world.run(team[4].stop())
        found = world.run(reach_consensus(team, "Which?", timeout=5.0, judge=judge(world, YES)))
        assert {name: error.split(":")[0] for name, error in found.absent.items()} == {
            "d": "RequestTimeout",
            "e": "AgentOffline",
        }
        assert world.now == 5.0

    def test_a_judge_who_fails_is_replaced_by_counting_and_that_is_reported(self, world):
        team = group(world, says("tea", "tea"), says("coffee", "Tea"), says("tea", "tea"))
        broken = judge(world, *[ModelUnavailable("no line")] * 2)
        found = world.run(reach_consensus(team, "Which?", judge=broken))
        assert found.reached and found.answer == "tea"
        assert found.verdicts[0].reason == "judge failed (ModelUnavailable: no line); 2 of 3 say tea"
        assert [verdict.agree for verdict in found.verdicts] == [False, True]

    @pytest.mark.parametrize(
        ("answers", "why"),
        [(["NO_CONSENSUS"] * 4, "ModelMisbehaved"), ([{"agree": True, "answer": ""}] * 4, "ModelMisbehaved")],
    )
    @pytest.mark.parametrize(("second", "method"), [("tea", "consensus"), ("coffee", "none")])
    def test_what_a_garbled_judge_says_is_not_searched_for_a_verdict(self, world, answers, why, second, method):
        team = group(world, says("tea"), says(second))
        found = world.run(reach_consensus(team, "Which?", rounds=1, judge=judge(world, *answers)))
        assert found.method == method and found.verdicts[0].reason.startswith(f"judge failed ({why}")

    def test_a_judge_who_has_stopped_or_takes_too_long_is_replaced_too(self, world):
        slow = world.spawn(LLMAgent("judge", model=scripted({**YES, "answer": "beer"}, latency=99.0)))
        found = world.run(reach_consensus(group(world, says("tea"), says("tea")), "Which?", timeout=5.0, judge=slow))
        assert (found.answer, world.now) == ("tea", 5.0) and "RequestTimeout" in found.reason
        world.run(slow.stop())
        others = [world.spawn(LLMAgent(name, model=says("tea"))) for name in "xy"]
        assert "AgentOffline" in world.run(reach_consensus(others, "Which?", judge=slow)).reason

    def test_a_judge_may_be_one_of_them(self, world):
        team = drinkers(world, "tea", "tea")
        assert world.run(reach_consensus(team, "Tea or juice?", judge=team[0])).reached

    def test_who_fails_in_the_second_round_abstains_in_the_vote(self, world):
        late = scripted({"answer": "tea"}, ModelUnavailable("no line"))
        team = group(world, says("tea", "tea"), says("juice", "juice"), says("coffee", "coffee"), late)
        found = world.run(reach_consensus(team, "Which?", rounds=2, rule="plurality", judge=judge(world, NO, NO)))
        assert found.reason == "plurality: a tie of tea, juice, coffee"
        assert [len(said) for said in found.rounds] == [4, 3]

    def test_a_script_that_runs_out_is_a_mistake_and_no_absence(self, world):
        with pytest.raises(ScriptExhausted):
            world.run(reach_consensus(group(world, says("tea"), says()), "Which?"))

    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_under_faults_it_ends_and_everybody_is_accounted_for(self, schedule):
        async def scenario(world):
            team = drinkers(world, "tea", "tea", "coffee", "juice", "tea", model="offline:fast")
            return await reach_consensus(team, "Which?", options=DRINKS, timeout=5.0)

        ends = set()
        for seed in range(12):
            struck = [ModelFault("rate_limit", probability=0.2), Crash("c", at=0.5)]
            plan = FaultPlan(drop=0.05, appointments=struck)
            run = simulate(scenario, seed=seed, schedule=schedule, faults=plan)
            found = run.result
            ends.add(found.method)
            for number, said in enumerate(found.rounds):
                assert len({one.agent for one in said}) == len(said)
                assert number == 0 or {one.agent for one in said} <= {one.agent for one in found.rounds[number - 1]}
            assert {one.agent for one in found.rounds[-1]} | found.absent.keys() == {
                name for name in frames.conflicts(run)["participants"][0]
            }
            assert not found.absent.keys() & {one.agent for one in found.rounds[-1]}
            assert (found.answer is None) == (found.method == "none")
            again = simulate(scenario, seed=seed, schedule=schedule, faults=plan)
            assert again.digest == run.digest
        assert len(ends) >= 2


class TestHistory:
    def test_nothing_leaks_from_one_question_to_the_next(self, world):
        # Seed defect: history leaks from task to task.
        seen = []

        def note(question):
            seen.append((question.earlier, question.prompt))
            return Answer(calls=((question.outputs[0].name, {"answer": "tea"}),))

        team = group(world, *[offline("instant", expert=note)] * 2)
        for question in ("The first?", "The second?"):
            world.run(
                reach_consensus(
                    team, question, judge=world.spawn(LLMAgent(question[:-1].split()[1], model=scripted(YES)))
                )
            )
        assert seen == [((), "The first?")] * 2 + [((), "The second?")] * 2
        assert not any(one.conversations for one in team)

    def test_two_questions_at_once_do_not_mix(self, world):
        async def both():
            team = drinkers(world, "tea", "coffee", "tea", model="offline:instant")
            return await asyncio.gather(
                *(reach_consensus(team, f"Which {what}?", options=["tea", "coffee"]) for what in ("now", "later"))
            )

        now, later = world.run(both())
        assert now.answer == later.answer == "tea"
        assert frames.conflicts(world)["conflict"].tolist() == ["consensus-1", "consensus-2"]


def test_when_nobody_waits_for_it_any_more_nobody_goes_on_thinking(world):
    async def impatient():
        team = group(world, *(scripted({"answer": "tea"}, latency=50.0) for _ in "ab"))
        async with asyncio.timeout(5.0):
            await reach_consensus(team, "Which?")

    with pytest.raises(TimeoutError):
        world.run(impatient())
    world.run(asyncio.sleep(100.0))
    assert [event.facts["outcome"] for event in world.trace.events("model_called")] == ["cancelled"] * 2
    assert [agent.name for agent in world.agents.values() if agent.online] == ["a", "b"]


def test_the_recording_of_a_discussion_goes_as_the_discussion_went(tmp_path):
    async def scenario(world, model):
        team = drinkers(world, "tea", "coffee", "tea", model=model)
        judge = world.spawn(LLMAgent("judge", model=model))
        return await reach_consensus(team, "Which?", options=DRINKS, judge=judge)

    path = tmp_path / "discussion.json"
    live = simulate(scenario, seed=1, model=record(offline("fast"), path))
    again = simulate(scenario, seed=1, model=replay(path))
    assert live.error is None and again.result == live.result and again.result.reached


class TestTheTrace:
    def test_has_the_discussion_as_a_conflict(self, world):
        team = drinkers(world, "tea", "tea", "coffee")
        found = world.run(reach_consensus(team, "Coffee or tea?", options=DRINKS[:2]))
        (row,) = frames.conflicts(world).to_dict("records")
        assert row["type"] == "question" and row["description"] == "Coffee or tea?"
        assert row["tried"] == ("discussion",) * len(found.rounds)
        assert (row["outcome"], row["strategy"], row["decision"]) == ("resolved", "discussion", {"answer": "tea"})
        assert row["satisfaction"] == 1.0
        positions = frames.events(world, "position")
        assert positions["position"][0] == {"answer": "tea", "reasoning": "You like tea."}
        assert positions["round"].tolist() == [1, 1, 1, 2, 2, 2]
        assert charts.conflicts(world) is not None

    def test_has_a_vote_and_the_want_of_a_majority(self, world):
        team = drinkers(world, "tea", "juice", "coffee")
        world.run(reach_consensus(team, "Which?", options=DRINKS, rounds=1))
        world.run(reach_consensus(team, "Which?", options=DRINKS, rounds=1, rule="borda"))
        table = frames.conflicts(world)
        assert table["outcome"].tolist() == ["unresolved", "unresolved"]
        assert table["tried"].tolist() == [("discussion", "plurality"), ("discussion", "borda")]
        assert table["satisfaction"].tolist() == [0.0, 0.0]

    def test_the_judge_made_for_the_occasion_has_the_default_model_and_is_gone_afterwards(self, world, monkeypatch):
        monkeypatch.setenv("MASBOOK_MODEL", "offline:strong")
        found = world.run(reach_consensus(group(world, says("tea"), says("tea")), "Which?"))
        assert found.reached and found.answer == "tea"  # no answer of a script is spent on the judge
        (call,) = world.trace.events("model_called", "consensus-1-judge")
        assert call.facts["model"].startswith("offline:strong")
        assert world.agents["consensus-1-judge"].online is False

    def test_an_answer_of_a_script_that_nobody_hears_is_reported(self):
        with pytest.raises(ScriptUnused), World(seed=1) as world:
            world.run(reach_consensus(group(world, says("tea", "juice"), says("tea")), "Which?"))


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"agents": []}, "give one LLMAgent at least"),
            ({"agents": "one"}, "two or more different agents"),
            ({"agents": "twice"}, "two or more different agents"),
            ({"agents": "text"}, "it is no LLMAgent"),
            ({"rounds": 0}, "rounds is 0"),
            ({"rounds": 1.5}, "rounds is 1.5"),
            ({"rule": "lottery"}, "rule is 'lottery': choose one of majority, plurality"),
            ({"rule": None}, "rule is None"),
            ({"options": ["tea"]}, "two or more different ones"),
            ({"options": ["tea", "Tea "]}, "two or more different ones"),
            ({"options": ["tea", ""]}, "two or more different ones"),
            ({"options": "tea"}, "give a list of names"),
            ({"options": [1, 2]}, "give a list of names"),
            ({"options": {"tea", "juice"}}, "give a list"),
            ({"rule": ["majority"]}, "rule is"),
            ({"rounds": True}, "rounds is True"),
            ({"timeout": float("nan")}, "timeout is nan"),
            ({"judge": False}, "it is no LLMAgent"),
            ({"question": " "}, "the question is ' '"),
            ({"timeout": 0}, "timeout is 0"),
            ({"judge": "ann"}, "it is no LLMAgent"),
        ],
    )
    def test_is_refused_at_once(self, world, change, message):
        a, b = group(world, "offline", "offline")
        agents = {"one": [a], "twice": [a, b, a], "text": [a, "b"]}
        given = {"agents": [a, b], "question": "Which?"} | change
        given["agents"] = agents.get(str(given["agents"]), given["agents"])
        with pytest.raises(InvalidValue, match=message):
            world.run(reach_consensus(**given))
        assert not world.trace.count("conflict") and not world.trace.count("sent")

    def test_agents_of_two_worlds(self, world):
        with World(seed=1) as other:
            agents = [*group(world, "offline"), other.spawn(LLMAgent("z"))]
            with pytest.raises(WorldError, match="different worlds"):
                world.run(reach_consensus(agents, "Which?"))
            with pytest.raises(WorldError, match="different worlds"):
                world.run(reach_consensus([*agents[:1], world.spawn(LLMAgent("y"))], "Which?", judge=agents[1]))

    def test_agents_that_live_nowhere(self, world):
        with pytest.raises(WorldError, match="spawn"):
            world.run(reach_consensus([LLMAgent("x"), LLMAgent("y")], "Which?"))

    def test_outside_of_a_run(self, world):
        with pytest.raises(WorldError, match=r"world\.run"):
            asyncio.run(reach_consensus(group(world, "offline", "offline"), "Which?"))


def test_a_form_that_nobody_has_made_known_is_refused_by_name(world):
    (agent,) = group(world, "offline")
    with pytest.raises(InvalidValue, match=r"no form 'Letter'; put a type into world\.named"):
        world.run(agent.fill_in("Dear sir", form="Letter"))
    with pytest.raises(InvalidValue, match="the prompt is ' '"):
        world.run(agent.fill_in(" ", form="Letter"))
