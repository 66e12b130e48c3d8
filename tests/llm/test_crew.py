"""Orchestrator and workers: no subtask is dropped, each ends once, and the manager hears of every failure."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest

from masbook import Crash, FaultPlan, ModelFault, Partition, World, simulate
from masbook.errors import InvalidValue, MasbookError, ModelMisbehaved, ModelUnavailable, TaskFailed, WorldError
from masbook.lab import charts, frames
from masbook.llm import LLMAgent, delegate, scripted
from masbook.llm.crew import Subtask
from masbook.llm.expert import Answer
from masbook.llm.offline_model import Profile, offline

GOAL = (
    "Collect sources on bees. Compute the growth. Draw a chart after 2. Check the sources after 1. Book a room. "
    "Write a summary after 1 and 3. Invite the board."
)
ROLES = {
    "ann": "You are a researcher: you collect and check sources.",
    "bob": "You are an analyst: you compute growth and draw charts.",
    "cid": "You are a writer: you write summaries.",
}


def plan(*subtasks):
    return {"subtasks": [task if isinstance(task, dict) else {"title": task} for task in subtasks]}


def always(answer, latency=0.0):
    """Return a model that always answers the same: text, what a function makes of the question, or an error."""

    def expert(question):
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer if isinstance(answer, str) else answer(question))

    return offline(Profile("own", latency, 0.0, 0.0, 0.0, 0.0, 0.0, ""), expert=expert)


def crew(world, *answers, done="done", latency=0.0, **workers):
    """Return a manager with a script, and workers who always answer the same."""
    manager = world.spawn(LLMAgent("boss", model=scripted(*answers), attempts=1))
    models = {name: always(answer, latency) for name, answer in (workers or dict.fromkeys(ROLES, done)).items()}
    return manager, [world.spawn(LLMAgent(name, model=model, attempts=1)) for name, model in models.items()]


def offline_crew(world, model="offline:fast"):
    manager = world.spawn(LLMAgent("boss", "You plan and consolidate.", model=model))
    return manager, [world.spawn(LLMAgent(name, role, model=model)) for name, role in ROLES.items()]


def check(run, report):
    """Raise AssertionError unless each subtask of the plan has exactly one outcome, in the report and in the trace."""
    added = [event.facts["task"] for event in run.trace.events("task_added")]
    ended = Counter(event.facts["task"] for event in run.trace.events("task_ended"))
    assert ended == Counter(added)
    assert len(report.outcomes) == len(report.subtasks) == len(added)


def test_the_manager_plans_the_workers_work_and_the_manager_consolidates(world):
    prompts = []

    def consolidate(question):
        prompts.append(question.prompt)
        return "All in one."

    subtasks = plan({"title": "Look.", "worker": "ann"}, {"title": "Count.", "worker": "bob"})
    manager, workers = crew(world, subtasks, consolidate, ann="ten bees", bob="10")
    report = world.run(delegate(manager, workers, "Count the bees."))
    assert report.output == "All in one."
    assert [(one.agent, one.status, one.output) for one in report.outcomes] == [
        ("ann", "completed", "ten bees"),
        ("bob", "completed", "10"),
    ]
    assert prompts[0].splitlines()[-2:] == ["1. Look (ann): ten bees", "2. Count (bob): 10"]
    check(world, report)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_more_subtasks_than_workers_are_none_dropped(world, workers):
    # Seed defect: the plan is cut to as many lines as there are workers.
    titles = [f"Do {number}." for number in range(20)]
    manager, team = crew(world, plan(*titles), "All.")
    report = world.run(delegate(manager, team[:workers], "Much."))
    assert [one.title for one in report.subtasks] == titles
    assert report.outcomes.success_rate == 1.0
    assert max(Counter(one.agent for one in report.outcomes).values()) == math.ceil(20 / workers)
    check(world, report)


def test_a_plan_that_is_cut_is_seen(world):  # the violation of the test above, planted
    manager, workers = crew(world, plan("One.", "Two.", "Three.", "Four."), "All.")
    report = world.run(delegate(manager, workers, "Much."))
    object.__setattr__(report, "outcomes", report.outcomes[:3])
    with pytest.raises(AssertionError):
        check(world, report)


def test_an_outcome_that_comes_twice_is_seen(world):
    manager, workers = crew(world, plan("One."), "All.")
    report = world.run(delegate(manager, workers, "Little."))
    world.trace.record("task_ended", "crew-1", workflow="crew-1", task="1 One", status="completed")
    with pytest.raises(AssertionError):
        check(world, report)


def test_a_worker_has_as_many_in_hand_as_its_concurrency_and_waiting_costs_no_time_of_its_own(world):
    async def scenario():
        manager = world.spawn(LLMAgent("boss", model=scripted(plan(*"abcdef"), "All.")))
        slow = always("done", latency=4.0)
        ann, bob = world.spawn(LLMAgent("ann", model=slow)), world.spawn(LLMAgent("bob", model=slow, concurrency=2))
        return await delegate(manager, [ann, bob], "Six.", timeout=5.0)

    report = world.run(scenario())
    assert report.outcomes.success_rate == 1.0 and world.now == 12.0
    started = frames.tasks(world)
    assert started[started["agent"] == "ann"]["begun"].tolist() == [0.0, 4.0, 8.0]
    assert started[started["agent"] == "bob"]["begun"].tolist() == [0.0, 0.0, 4.0]


def test_a_long_list_of_things_to_do_is_not_cut(world):
    manager, team = offline_crew(world, "offline:instant")
    report = world.run(delegate(manager, team, "\n".join(f"- thing {number}" for number in range(150))))
    assert [one.title for one in report.subtasks] == [f"thing {number}" for number in range(150)]
    check(world, report)


def test_subtasks_that_are_called_the_same_are_not_the_same(world):
    manager, team = crew(world, plan(*["Look."] * 5), "All.")
    report = world.run(delegate(manager, team, "Look five times."))
    assert len(frames.tasks(world)) == len(report.outcomes.results) == 5
    assert frames.tasks(world)["task"].is_unique
    check(world, report)


class TestOrder:
    def test_who_comes_after_others_knows_their_results(self, world):
        prompts = []

        def note(question):
            prompts.append(question.prompt)
            return f"done {len(prompts)}"

        subtasks = plan("One.", {"title": "Two.", "after": [1]}, {"title": "Three.", "after": [2, 1]})
        manager, workers = crew(world, subtasks, "All.", done=note)
        world.run(delegate(manager, workers, "Three."))
        known = "Result of One (ann): done 1"
        assert prompts == ["One.", f"Two.\n{known}", f"Three.\nResult of Two (bob): done 2\n{known}"]

    @pytest.mark.parametrize("after", [[2], [1, 1, 2], [5], [0], [-1]])
    def test_what_cannot_be_before_it_is_left_out_and_that_is_said(self, world, after):
        manager, workers = crew(world, plan("One.", {"title": "Two.", "after": after}), "All.")
        report = world.run(delegate(manager, workers, "Two."))
        assert report.outcomes.success_rate == 1.0
        assert report.subtasks[1].after == [n for n in dict.fromkeys(after) if n == 1]
        assert report.notes[0].startswith(f"2 cannot come after {after}")

    def test_what_needs_a_result_that_is_not_there_is_skipped_and_the_rest_goes_on(self, world):
        broken = ModelUnavailable("no line")
        subtasks = plan(
            {"title": "One.", "worker": "bob"},
            {"title": "Two.", "worker": "ann", "after": [1]},
            {"title": "Three.", "worker": "ann", "after": [2]},
            {"title": "Four.", "worker": "ann"},
        )
        told = []
        manager, workers = crew(
            world, subtasks, lambda asked: told.append(asked.prompt) or "Some.", ann="done", bob=broken
        )
        report = world.run(delegate(manager, workers, "Four."))
        assert [one.status for one in report.outcomes] == ["failed", "skipped", "skipped", "completed"]
        assert isinstance(report.outcomes[0].error, ModelUnavailable)
        assert told[0].splitlines()[2:] == [
            "1. One (bob) failed: no line",
            "2. Two (ann) skipped",
            "3. Three (ann) skipped",
            "4. Four (ann): done",
        ]
        table = frames.tasks(world)
        assert table["status"].tolist() == ["failed", "skipped", "skipped", "completed"]
        assert table["error"].tolist()[1:3] == ["it lacks the results of [1]", "it lacks the results of [2]"]
        check(world, report)


class TestWhoDoesIt:
    @pytest.mark.parametrize(("said", "who"), [("ann", "ann"), ("bob", "bob"), ("anybody", "bob")])
    def test_is_whom_the_plan_names_or_else_the_one_with_the_fewest(self, world, said, who):
        subtasks = plan({"title": "One.", "worker": "ann"}, {"title": "Two.", "worker": said})
        manager, workers = crew(world, subtasks, "All.", ann="done", bob="done")
        report = world.run(delegate(manager, workers, "Two."))
        assert report.subtasks[1].worker == report.outcomes[1].agent == who
        assert not report.notes

    @pytest.mark.parametrize("said", ["dora", "ann and bob", "annabel", "?", "Ann", "", "boss"])
    def test_is_a_worker_of_the_crew_or_the_manager_has_to_mend_its_plan(self, world, said):
        wrong, right = (plan({"title": "One.", "worker": worker}) for worker in (said, "bob"))
        manager, workers = crew(world, wrong, right, "All.", ann="done", bob="done")
        report = world.run(delegate(manager, workers, "One."))
        assert [one.agent for one in report.outcomes] == ["bob"]

    def test_whom_the_plan_names_later_has_no_less_for_it(self, world):
        subtasks = plan("One.", *({"title": f"{number}.", "worker": "ann"} for number in range(3)))
        manager, workers = crew(world, subtasks, "All.", ann="done", bob="done")
        report = world.run(delegate(manager, workers, "Four."))
        assert [one.agent for one in report.outcomes] == ["bob", "ann", "ann", "ann"]

    def test_is_another_one_if_the_worker_is_gone(self, world):
        subtasks = plan(*({"title": f"{number}.", "worker": "ann"} for number in range(4)))
        manager, workers = crew(world, subtasks, "All.", ann="done", bob="done")
        world.run(workers[0].stop())
        report = world.run(delegate(manager, workers, "Four."))
        assert [one.agent for one in report.outcomes] == ["bob"] * 4 and report.outcomes.success_rate == 1.0
        assert report.notes[0] == "1 goes to bob: ann is gone"

    def test_is_nobody_where_all_are_gone_and_each_outcome_says_so(self, world):
        manager, workers = crew(world, plan("One.", "Two."), "Nothing.", ann="done", bob="done")
        for one in workers:
            world.run(one.stop())
        report = world.run(delegate(manager, workers, "Two."))
        assert [type(one.error).__name__ for one in report.outcomes] == ["AgentOffline"] * 2
        assert report.output == "Nothing."

    def test_crashes_and_loses_one_subtask_not_the_rest(self):
        async def scenario(world):
            slow = always("done", latency=2.0)
            manager = world.spawn(LLMAgent("boss", model=scripted(plan(*"abcdef"), "All.")))
            workers = [world.spawn(LLMAgent(name, model=slow)) for name in ROLES]
            report = await delegate(manager, workers, "Six.")
            check(world, report)
            return [(one.agent, one.status) for one in report.outcomes]

        run = simulate(scenario, seed=1, faults=FaultPlan(appointments=[Crash("ann", at=1.0)]))
        assert run.error is None
        assert [status for _, status in run.result] == ["failed", *["completed"] * 5]
        assert Counter(agent for agent, _ in run.result)["ann"] == 1

    @pytest.mark.parametrize("restart", ["never", "on_crash"])
    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_crashes_between_subtasks_and_nothing_is_lost_but_what_it_had_in_hand(self, restart, schedule):
        async def scenario(world):
            manager = world.spawn(LLMAgent("boss", model=scripted(plan(*map(str, range(12))), "All.")))
            workers = [world.spawn(LLMAgent(name, model="offline:fast"), restart=restart) for name in ROLES]
            report = await delegate(manager, workers, "Twelve.")
            check(world, report)
            return [one.status for one in report.outcomes]

        for seed in range(8):
            plan_of_faults = FaultPlan(appointments=[Crash("ann", at=0.3 + seed / 10)])
            run = simulate(scenario, seed=seed, schedule=schedule, faults=plan_of_faults)
            assert Counter(run.result)["completed"] >= 11

    def test_is_cut_off_and_times_out_while_the_others_go_on(self):
        async def scenario(world):
            manager, workers = crew(world, plan(*"abcd"), "All.", ann="done", bob="done")
            report = await delegate(manager, workers, "Four.", timeout=5.0)
            check(world, report)
            return frames.tasks(world)["status"].tolist()

        cut = Partition(["ann"], ["boss", "bob", "crew-1"])
        run = simulate(scenario, seed=1, faults=FaultPlan(appointments=[cut]))
        assert run.result == ["timed_out", "completed", "timed_out", "completed"]

    def test_is_too_slow_and_times_out(self, world):
        manager, workers = crew(world, plan("One."), "Nothing.", ann="done", latency=9.0)
        report = world.run(delegate(manager, workers, "One.", timeout=5.0))
        assert frames.tasks(world)["status"].tolist() == ["timed_out"]
        assert report.outcomes[0].status == "failed"


class TestTheManager:
    def test_that_cannot_plan_is_an_error(self, world):
        manager, workers = crew(world, ModelUnavailable("no line"))
        with pytest.raises(TaskFailed, match="boss could not plan: ModelUnavailable: no line") as caught:
            world.run(delegate(manager, workers, "Much."))
        assert isinstance(caught.value.__cause__, ModelUnavailable)
        assert not world.trace.count("task_added")

    def test_that_cannot_consolidate_is_an_error_after_all_has_been_done(self, world):
        manager, workers = crew(world, plan("One.", "Two."), ModelUnavailable("no line"))
        with pytest.raises(TaskFailed, match="boss could not put the results together"):
            world.run(delegate(manager, workers, "Two."))
        assert frames.tasks(world)["status"].tolist() == ["completed"] * 2

    def test_has_to_mend_an_empty_plan_and_one_that_stays_empty_is_an_error(self, world):
        manager, workers = crew(world, plan(), plan("One."), "All.")
        assert len(world.run(delegate(manager, workers, "One.")).outcomes) == 1
        with pytest.raises(TaskFailed, match="could not plan") as caught:
            world.run(delegate(world.spawn(LLMAgent("lazy", model=scripted(*[plan()] * 4))), workers, "One."))
        assert isinstance(caught.value.__cause__, ModelMisbehaved)

    @pytest.mark.parametrize("title", ["", "  "])
    def test_has_to_mend_a_subtask_that_says_nothing(self, world, title):
        manager, workers = crew(world, plan(title), plan("One."), "All.")
        assert [one.title for one in world.run(delegate(manager, workers, "One.")).subtasks] == ["One."]

    def test_that_crashes_while_the_others_work_is_an_error_after_all_has_been_done(self):
        async def scenario(world):
            await delegate(*offline_crew(world), GOAL)

        run = simulate(scenario, seed=1, faults=FaultPlan(appointments=[Crash("boss", at=1.0)]))
        assert isinstance(run.error, TaskFailed) and "boss could not put the results together" in str(run.error)
        assert frames.tasks(run)["status"].tolist() == ["completed"] * 7

    def test_may_have_an_output_type_of_its_own(self, world):
        answers = scripted(plan("Count."), {"title": "Ten bees."})
        editor = world.spawn(LLMAgent("editor", model=answers, output_type=Subtask))
        report = world.run(delegate(editor, crew(world)[1], "Count."))
        assert report.output == Subtask(title="Ten bees.")


class TestOffline:
    def test_a_plan_has_a_subtask_for_each_sentence_for_whom_it_suits(self, world):
        report = world.run(delegate(*offline_crew(world), GOAL))
        assert [one.title for one in report.subtasks] == [f"{text}." for text in GOAL.rstrip(".").split(". ")]
        assert [one.after for one in report.subtasks] == [[], [], [2], [1], [], [1, 3], []]
        assert [one.worker for one in report.subtasks][:4] == ["ann", "bob", "bob", "ann"]
        assert report.subtasks[5].worker == "cid" and not report.notes
        assert all(one.title.rstrip(".") in report.output for one in report.subtasks)
        assert charts.gantt(world) is not None

    def test_a_list_has_a_subtask_for_each_item(self, world):
        report = world.run(
            delegate(*offline_crew(world), "We need:\n1. sources on bees\n2. a chart. In colour.\n- a room")
        )
        assert [one.title for one in report.subtasks] == ["sources on bees", "a chart. In colour.", "a room"]

    @pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
    def test_under_faults_each_subtask_has_one_outcome(self, schedule):
        async def scenario(world):
            report = await delegate(*offline_crew(world), GOAL, timeout=5.0)
            check(world, report)
            return report.outcomes.success_rate

        rates = []
        for seed in range(15):
            struck = [ModelFault("unavailable", "bob", probability=0.3), Crash("ann", at=1.0 + seed / 20)]
            plan = FaultPlan(drop=0.03, appointments=struck)
            run = simulate(scenario, seed=seed, schedule=schedule, faults=plan)
            if run.error is not None:
                assert isinstance(run.error, TaskFailed) and str(run.error).startswith("boss could not")
                continue
            rates.append(run.result)
            assert run.digest == simulate(scenario, seed=seed, schedule=schedule, faults=plan).digest
        assert len(rates) > 5 and 0 < min(rates) < 1

    def test_two_goals_at_once_do_not_mix(self, world):
        async def both():
            manager, workers = offline_crew(world)
            goals = ["Collect sources on bees. Draw a chart.", "Write about cats."]
            return await asyncio.gather(*(delegate(manager, workers, goal) for goal in goals))

        bees, cats = world.run(both())
        assert (len(bees.outcomes), len(cats.outcomes)) == (2, 1)
        assert "cats" in cats.output and "cats" not in bees.output

    def test_two_crews_at_once_have_forms_of_their_own(self, world):
        async def both():
            boss = world.spawn(LLMAgent("boss", model="offline:instant"))
            ann, bob, cid = (world.spawn(LLMAgent(name, role, model="offline:fast")) for name, role in ROLES.items())
            goal = "Draw a chart. Write a summary."
            return await asyncio.gather(delegate(boss, [ann, bob], goal), delegate(boss, [cid, bob], goal))

        first, second = world.run(both())
        assert first.subtasks[0].worker == "bob"
        assert [one.worker for one in second.subtasks] == ["bob", "cid"]
        assert not first.notes and not second.notes


@pytest.mark.parametrize("after", [[], [1]])
def test_what_nobody_waits_for_any_more_is_cancelled_and_ends_all_the_same(world, after):
    async def impatient():
        manager, workers = crew(world, plan("One.", {"title": "Two.", "after": after}), done="done", latency=9.0)
        async with asyncio.timeout(5.0):
            await delegate(manager, workers[:1], "Two.")

    with pytest.raises(TimeoutError):
        world.run(impatient())
    assert frames.tasks(world)["status"].tolist() == ["cancelled"] * 2
    assert world.trace.count("task_ended") == 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"workers": []}, "give one LLMAgent at least"),
            ({"workers": "twice"}, "somebody twice"),
            ({"workers": "boss"}, "somebody twice"),
            ({"workers": "text"}, "it is no LLMAgent"),
            ({"manager": "boss"}, "it is no LLMAgent"),
            ({"goal": ""}, "the goal is ''"),
            ({"timeout": -1}, "timeout is -1"),
        ],
    )
    def test_is_refused_at_once(self, world, change, message):
        manager, workers = crew(world)
        teams = {"twice": [*workers, workers[0]], "boss": [*workers, manager], "text": [*workers, "dora"]}
        given = {"manager": manager, "workers": workers, "goal": "Work."} | change
        given["workers"] = teams.get(str(given["workers"]), given["workers"])
        with pytest.raises(InvalidValue, match=message):
            world.run(delegate(**given))
        assert not world.trace.count("sent")

    def test_agents_of_two_worlds_or_outside_of_a_run(self, world):
        manager, workers = crew(world)
        with World(seed=1) as other, pytest.raises(WorldError, match="different worlds"):
            world.run(delegate(manager, [other.spawn(LLMAgent("z"))], "Work."))
        with pytest.raises(MasbookError, match=r"world\.run"):
            asyncio.run(delegate(manager, workers, "Work."))
