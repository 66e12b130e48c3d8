"""Phases: nobody begins one before all have done the one before, and nobody who fails holds up the rest."""

from __future__ import annotations

import asyncio

import pytest

from masbook import Agent, Crash, FaultPlan, World, simulate
from masbook.coordination import Barrier
from masbook.errors import AgentCrashed, AgentOffline, InvalidValue, ModelTimeout, RequestTimeout, WorldError
from masbook.llm import LLMAgent, run_phases, scripted
from masbook.llm.outcomes import fan_out


def worker(world, name, *answers, latency=0.0, **options):
    model = scripted(*answers, latency=latency) if answers else "offline:instant"
    return world.spawn(LLMAgent(name, model=model, **options))


def statuses(phases):
    return [[one.status for one in outcomes] for outcomes in phases]


def review(agent, done):
    others = [one.output for one in done[-1] if one.agent != agent.name]
    return f"Review {', '.join(map(str, others))}"


def test_the_next_phase_uses_what_all_have_made(world):
    seen = []

    def reviewed(question):
        seen.append((question.earlier, question.prompt))
        return "fine"

    ann, bob = worker(world, "ann", "up", reviewed, latency=1.0), worker(world, "bob", "down", reviewed, latency=3.0)
    analyses, reviews = world.run(run_phases([ann, bob], [["Analyse sales.", "Analyse costs."], review]))
    assert (analyses.results, reviews.results) == (["up", "down"], ["fine", "fine"])
    assert sorted(seen) == [(("Analyse costs.",), "Review up"), (("Analyse sales.",), "Review down")]
    assert [one.seconds for one in (*analyses, *reviews)] == [1.0, 3.0, 1.0, 3.0]
    begun = [row.time for row in world.trace.events("sent") if row.facts["type"] == "request"]
    assert begun == [0.0, 0.0, 3.0, 3.0]
    assert [row.facts["status"] for row in world.trace.events("barrier")] == ["arrived", "arrived", "tripped"]
    assert not ann.conversations and not bob.conversations


def test_one_prompt_for_all_and_outcomes_in_the_order_of_the_agents(world):
    team = [worker(world, name) for name in "dacb"]
    phases = world.run(run_phases(iter(team), ("The risk is high.", "Say it again.", lambda agent, done: agent.name)))
    assert [[one.agent for one in outcomes] for outcomes in phases] == [list("dacb")] * 3
    assert phases[2].results == list("dacb")


def test_one_failure_does_not_hang_the_rest(world):
    """Seed defect 16: phases behind a barrier, one failure, and the rest wait for ever."""
    ann, bob = worker(world, "ann", "up", "fine"), worker(world, "bob", ModelTimeout("too slow"))
    cid = worker(world, "cid", "down", "fine", "good", latency=2.0)
    phases = world.run(
        run_phases([ann, bob, cid], ["Analyse.", ["Review.", "Review.", "Review."], [None, "?", "End."]])
    )
    assert statuses(phases) == [
        ["completed", "failed", "completed"],
        ["completed", "skipped", "completed"],
        ["skipped", "skipped", "completed"],
    ]
    assert isinstance(phases[0][1].error, ModelTimeout)
    assert world.now == 6.0


def test_fewer_tasks_than_agents_do_not_hang_either(world):
    """Seed defect 16: fewer tasks than agents, and those that have one wait for ever."""
    team = [worker(world, name, "done", "fine") for name in ("ann", "bob")] + [worker(world, "cid", "fine")]
    phases = world.run(run_phases(team, [["Analyse sales.", "Analyse costs."], "Review."]))
    assert statuses(phases) == [["completed", "completed", "skipped"], ["completed"] * 3]


def test_a_barrier_that_nobody_leaves_would_hang(world):
    """The violation of the two tests above, planted: whoever fails does not leave."""
    team = [worker(world, "ann", "up"), worker(world, "bob", ModelTimeout("too slow"))]
    barrier = Barrier(world, "analyses", len(team))

    async def walk(one):
        await one.ask("Analyse.")
        await barrier.wait(one)

    async def naive():
        await asyncio.gather(*map(walk, team), return_exceptions=True)

    with pytest.raises(WorldError, match="ann waits for the barrier 'analyses'"):
        world.run(naive())


def test_who_is_late_leaves_and_is_counted_no_more(world):
    """Seed defect 14: a party that timed out still counts, the barrier trips early, and it is not cyclic."""
    ann, bob = worker(world, "ann", *"1234", latency=1.0), worker(world, "bob", *"12", latency=5.0)
    cid = worker(world, "cid", *"1234", latency=2.0)
    bob.model.wrapped.check = bob.model.wrapped.unused = lambda: []
    phases = world.run(run_phases([ann, bob, cid], ["one", "two", "three", "four"], timeout=4.0))
    assert statuses(phases) == [["completed", "failed", "completed"]] + [["completed", "skipped", "completed"]] * 3
    assert isinstance(phases[0][1].error, RequestTimeout)
    begun = [row.time for row in world.trace.events("sent") if row.facts["type"] == "request"]
    assert begun == [0.0, 0.0, 0.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0]
    assert [row.time for row in world.trace.events("barrier") if row.facts["status"] == "tripped"] == [4.0, 6.0, 8.0]


def test_who_crashes_while_it_waits_has_done_its_phase_and_the_rest_go_on():
    async def course(world):
        quick, slow = worker(world, "quick", "done", latency=1.0), worker(world, "slow", "a", "b", latency=3.0)
        return await run_phases([quick, slow], ["one", "two"])

    for schedule in ("fifo", "shuffled"):
        run = simulate(course, faults=FaultPlan(appointments=[Crash("quick", at=2.0)]), schedule=schedule)
        assert run.error is None
        assert statuses(run.result) == [["completed", "completed"], ["failed", "completed"]]
        assert "left" in str(run.result[1][0].error)


def test_who_crashes_at_work_and_restarts_is_out(world):
    slow = world.spawn(LLMAgent("slow", model=scripted("lost", latency=5.0)), restart="on_crash")
    ann = worker(world, "ann", "a", "b", latency=1.0)
    world.loop.call_later(2.0, slow.crash, ValueError("burnt"))
    phases = world.run(run_phases([slow, ann], ["one", "two"]))
    assert statuses(phases) == [["failed", "completed"], ["skipped", "completed"]]
    assert isinstance(phases[0][0].error, AgentCrashed)


def test_nobody_left_is_an_outcome_too(world):
    gone = worker(world, "gone")
    gone.stop()
    phases = world.run(run_phases([gone], ["one", "two"]))
    assert statuses(phases) == [["failed"], ["skipped"]]
    assert isinstance(phases[0][0].error, AgentOffline)


def test_crashes_at_any_moment_lose_nothing_and_hang_nobody():
    async def course(world, restart):
        names = ("ann", "bob", "cid", "dan")
        team = [world.spawn(LLMAgent(one, model="offline:fast"), restart=restart) for one in names]
        when = world.random("crashes")
        for one in team[:3]:
            world.loop.call_later(when.uniform(0.0, 4.0), one.crash, ValueError("burnt"))
        world.loop.call_later(when.uniform(0.0, 4.0), team[2].stop)
        begun = {}

        def note(agent, done):
            assert all(one.status != "completed" or one.output for outcomes in done for one in outcomes)
            begun.setdefault(len(done), set()).add(world.now)
            return "Go on, please."

        phases = await run_phases(team, [["Begin.", "Begin.", None, "Begin."], note, note, note])
        assert all(len(instants) == 1 for instants in begun.values())
        return [[[one.agent, one.status] for one in outcomes] for outcomes in phases]

    seen = set()
    for seed in range(60):
        run = simulate(course, seed, schedule="shuffled", restart=("never", "on_crash")[seed % 2])
        assert run.error is None, (seed, run.error)
        for number, outcomes in enumerate(run.result):
            assert [name for name, _ in outcomes] == ["ann", "bob", "cid", "dan"]
            assert outcomes[3][1] == "completed"
            seen |= {(number, status) for _, status in outcomes}
    assert seen >= {(1, "completed"), (1, "failed"), (2, "skipped"), (3, "completed")}


def test_the_same_seed_gives_the_same_course():
    async def course(world):
        team = [world.spawn(LLMAgent(name, model="offline")) for name in ("ann", "bob", "cid")]
        await run_phases(team, ["What is the risk of the outage?", review, review])

    for schedule in ("fifo", "shuffled"):
        digests = {simulate(course, 3, schedule=schedule).digest for _ in range(2)}
        assert len(digests) == 1


def test_courses_side_by_side_do_not_meet_each_other(world):
    team = [worker(world, name) for name in ("ann", "bob")]

    async def both():
        return await asyncio.gather(run_phases(team, ["a", "b"]), run_phases(team, ["c", "d"]), fan_out(team, "e"))

    first, second, _ = world.run(both())
    assert [one.results for one in (*first, *second)] == [[word, word] for word in "abcd"]


def test_a_mistake_in_a_phase_is_raised_and_ends_it(world):
    team = [worker(world, name) for name in ("ann", "bob")]

    def wrong(agent, done):
        return done[7] if agent.name == "bob" else "Go on."

    with pytest.raises(IndexError):
        world.run(run_phases(team, ["one", wrong, "three"]))
    assert not [agent.name for agent in world.agents.values() if agent.name.startswith("phases") and agent.online]
    with pytest.raises(InvalidValue, match="no prompt"):
        world.run(run_phases(team, ["one", lambda agent, done: 7]))
    world.run(until=world.now + 200)
    assert not world.waits and not team[0].conversations


def test_cancelled_in_the_middle_it_leaves_nothing_behind(world):
    team = [worker(world, "quick", "done", latency=1.0), worker(world, "slow", "never", latency=20.0)]

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await run_phases(team, ["one", "two"])

    world.run(give_up())
    assert not world.waits and not team[0].conversations
    world.run(until=100)


@pytest.mark.parametrize(
    "phases", ["one", [], [7], [""], [["a", " "]], [["a", 7]], [["a", "b", "c"]], [None], [{"ann": "x"}], None]
)
def test_phases_that_are_none_are_refused_at_once(world, phases):
    team = [worker(world, name) for name in ("ann", "bob")]
    with pytest.raises(InvalidValue):
        world.run(run_phases(team, phases))
    assert not world.trace.count("sent")


def test_agents_that_are_none_are_refused_at_once(world):
    ann = worker(world, "ann")
    for team in ([], [ann, ann], ["ann"], [world.spawn(Agent("x"))]):
        with pytest.raises(InvalidValue):
            world.run(run_phases(team, ["one"]))
    for timeout in (0, -1.0, float("nan"), "soon"):
        with pytest.raises(InvalidValue, match="timeout"):
            world.run(run_phases([ann], ["one"], timeout=timeout))
    stranger = World(seed=1).spawn(LLMAgent("stranger", model="offline:instant"))
    with pytest.raises(WorldError):
        world.run(run_phases([ann, stranger], ["one"]))
    assert not world.trace.count("sent")
