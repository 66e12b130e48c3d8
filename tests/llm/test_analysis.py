"""The panel of four: at once, each with a time-out, partial results kept, and a success rate that says what was."""

from __future__ import annotations

import asyncio
from dataclasses import fields

import pandas as pd
import pytest

from masbook import Agent, Crash, FaultPlan, ModelFault, Partition, World, simulate
from masbook.coordination import PriorityQueues
from masbook.errors import InvalidInput, InvalidName, InvalidValue, ModelUnavailable, UnknownModel
from masbook.lab import frames, load, records
from masbook.llm import AnalysisPanel, AnalysisReport, Analyst, offline, scripted
from masbook.llm.opinions import KINDS, RiskAnalysis
from masbook.llm.reading import aspects

AGENTS = ["sentiment", "technical", "business", "risk"]
TICKETS = records("tickets.csv")
SCENARIOS = {  # of the course
    "emergency": {
        "message": "URGENT: Our entire email system is down! All 500 employees can't access email and we have critical"
        " client communications waiting. This is costing us thousands per hour!",
        "customer_info": {
            "name": "Tech Corp Inc", "tier": "enterprise", "status": "active", "interaction_count": 12,
        },
    },
    "laptop": {
        "message": "I'm having trouble with my laptop battery. It seems to drain faster than usual lately.",
        "customer_info": {"name": "John Smith", "tier": "basic", "status": "active", "interaction_count": 2},
    },
    "dispute": {
        "message": "I was overcharged $500 on my last invoice and nobody is responding to my emails. I'm considering"
        " switching to your competitor if this isn't resolved immediately!",
        "customer_info": {"name": "Sarah Wilson", "tier": "premium", "status": "active", "interaction_count": 8},
    },
}  # fmt: skip


def slow(seconds):
    """Return a model that takes so many virtual seconds for a good answer."""
    return offline(offline("instant").rates.__class__("slow", seconds, 0.0, 0.0, 0.0, 0.0, 0.0, "a test"))


def labels(report):
    return [result.label for result in report.results.values()]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("emergency", ["negative", "high", "high", "medium"]),
        ("laptop", ["neutral", "low", "low", "low"]),
        ("dispute", ["negative", "low", "medium", "medium"]),
    ],
)
def test_the_three_scenarios_of_the_course(world, scenario, expected):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    report = world.run(panel.analyse(SCENARIOS[scenario]))
    assert list(report.results) == AGENTS
    assert labels(report) == expected
    assert report.success_rate == 1.0
    assert report.failures == {}
    assert "4 of 4 analyses completed" in report.summary
    assert all(0 < result.confidence <= 1 and result.analysis for result in report.results.values())


def test_the_scenarios_run_concurrently(world):
    panel = world.spawn(AnalysisPanel("panel", model=slow(2.0)))

    async def all_at_once():
        return await asyncio.gather(*[panel.analyse(ticket) for ticket in SCENARIOS.values()])

    assert [report.success_rate for report in world.run(all_at_once())] == [1.0] * 3
    assert world.now == pytest.approx(2.0)  # twelve calls of two seconds each


def test_a_call_and_a_message_give_the_same_report():
    async def scenario(world, by_message):
        panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
        client = world.spawn(Agent("client"))
        asked = client.request("panel", "analyse", ticket=TICKETS[4]) if by_message else panel.analyse(TICKETS[4])
        report = await asked
        assert isinstance(report, AnalysisReport)
        assert isinstance(report.results["risk"], RiskAnalysis)
        return repr(report)

    first, second = (simulate(scenario, seed=1, by_message=way) for way in (False, True))
    assert first.error is second.error is None
    assert first.result == second.result


def test_the_same_seed_gives_the_same_digest_in_shuffled_schedules_too():
    async def scenario(world):
        panel = world.spawn(AnalysisPanel("panel", model="offline:fast"))
        return await asyncio.gather(*[panel.analyse(ticket) for ticket in TICKETS[:5]])

    for schedule in ("fifo", "shuffled"):
        runs = [simulate(scenario, seed=3, schedule=schedule) for _ in range(2)]
        assert runs[0].error is None
        assert runs[0].digest == runs[1].digest


# Seed defect 8: all four analyses time out, and the success rate is 100 %


def test_when_all_four_time_out_the_success_rate_is_0(world):
    panel = world.spawn(AnalysisPanel("panel", model=slow(60.0)))
    report = world.run(panel.analyse("help", timeout=5.0))
    assert report.success_rate == 0.0
    assert report.results == {}
    assert {name: failure.reason for name, failure in report.failures.items()} == dict.fromkeys(AGENTS, "timed_out")
    assert report.actions == []
    assert "0 of 4 analyses completed" in report.summary
    assert world.now == 5.0
    assert report.seconds == dict.fromkeys(AGENTS, 5.0)


def test_the_check_sees_a_panel_that_counts_time_outs_as_completed(world):
    """The defect itself, in the course's terms: whatever came back without raising counts."""

    class Generous(AnalysisPanel):
        async def analyse(self, ticket: str, timeout: float = 10.0) -> float:
            asked = await asyncio.gather(*[self._ask(kind, ticket, timeout) for kind in KINDS], return_exceptions=True)
            return sum(not isinstance(one, Exception) for one in asked) / len(asked)

    panel = world.spawn(Generous("panel", model=slow(60.0)))
    assert world.run(panel.analyse("help", timeout=5.0)) == 1.0


@pytest.mark.parametrize("late", range(1, 4))
def test_partial_results_are_results(world, late):
    models = dict.fromkeys(AGENTS, slow(1.0)) | dict.fromkeys(AGENTS[:late], slow(60.0))
    panel = world.spawn(AnalysisPanel("panel", model=models))
    report = world.run(panel.analyse(SCENARIOS["emergency"], timeout=5.0))
    assert list(report.failures) == AGENTS[:late]
    assert list(report.results) == AGENTS[late:]
    assert report.success_rate == (4 - late) / 4
    assert report.actions
    assert f"{4 - late} of 4" in report.summary


def test_what_nobody_waits_for_is_cancelled(world):
    panel = world.spawn(AnalysisPanel("panel", model=slow(60.0)))
    world.run(panel.analyse("help", timeout=5.0))
    world.run(until=100.0)
    assert [event.facts["outcome"] for event in world.trace.events("model_called")] == ["cancelled"] * 4
    assert {event.time for event in world.trace.events("model_called")} == {5.0}


def test_a_model_that_fails_costs_only_its_own_analysis(world):
    broken = scripted(matching={"": ModelUnavailable("the provider is down")}, latency=0.1)
    panel = world.spawn(AnalysisPanel("panel", model={"technical": broken}))
    report = world.run(panel.analyse(SCENARIOS["laptop"]))
    assert set(report.results) == set(AGENTS) - {"technical"}
    assert report.failures["technical"].reason == "failed"
    assert report.failures["technical"].error.startswith("ModelUnavailable: ")
    assert report.success_rate == 0.75


def test_an_expert_with_an_error_is_a_failure_with_its_reason(world):
    def wrong(question):
        raise KeyError("the wrong key")

    panel = world.spawn(AnalysisPanel("panel", model={"risk": offline("instant", expert=wrong)}))
    report = world.run(panel.analyse("help"))
    assert report.failures["risk"].reason == "failed"
    assert "the wrong key" in report.failures["risk"].error


def test_planned_faults_of_models_are_reported():
    async def scenario(world):
        panel = world.spawn(AnalysisPanel("panel", model="offline:fast"))
        report = await panel.analyse(TICKETS[0], timeout=5.0)
        return {"rate": report.success_rate, "failures": report.failures}

    plan = FaultPlan(appointments=[ModelFault("timeout", agent="panel_risk")])
    run = simulate(scenario, seed=1, faults=plan)
    assert run.error is None
    assert run.result["rate"] == 0.75
    assert run.result["failures"]["risk"].reason == "timed_out"


@pytest.mark.parametrize("seed", range(20))
def test_every_agent_is_in_exactly_one_of_results_and_failures(seed):
    async def scenario(world):
        panel = world.spawn(AnalysisPanel("panel", model="offline:balanced"))
        reports = await asyncio.gather(*[panel.analyse(ticket, timeout=1.2) for ticket in TICKETS[:6]])
        for report in reports:
            assert sorted([*report.results, *report.failures]) == sorted(AGENTS)
            assert report.success_rate == len(report.results) / 4
            assert all(seconds <= 1.2 + 1e-9 for seconds in report.seconds.values())

    assert simulate(scenario, seed=seed, schedule="shuffled").error is None


def test_actions_are_prioritised_and_said_once(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    text = "Our lawyer will write the next letter. The whole office stands still. I am very disappointed."
    report = world.run(panel.analyse(text))
    order = [["high", "normal", "low"].index(action.priority) for action in report.actions]
    assert order == sorted(order)
    assert order[0] == 0
    assert len({action.action for action in report.actions}) == len(report.actions)
    assert {action.by for action in report.actions} <= set(AGENTS)
    by_confidence = [report.results[action.by].confidence for action in report.actions if action.priority == "high"]
    assert by_confidence == sorted(by_confidence, reverse=True)


@pytest.mark.parametrize(
    "ticket", ["", "  \n", {}, {"message": ""}, {"message": None}, {"text": "hello"}, None, 7, ["a"], {"message": 3}]
)
def test_a_ticket_without_a_message_is_refused_at_once(world, ticket):
    panel = world.spawn(AnalysisPanel("panel"))
    with pytest.raises(InvalidValue, match="'message'"):
        world.run(panel.analyse(ticket))
    assert world.trace.count("model_called") == 0


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "soon", None])
def test_a_timeout_that_is_none_is_refused_at_once(world, timeout):
    panel = world.spawn(AnalysisPanel("panel"))
    with pytest.raises(InvalidValue, match="timeout"):
        world.run(panel.analyse("help", timeout=timeout))
    client = world.spawn(Agent("client"))
    with pytest.raises((InvalidValue, InvalidInput), match="timeout"):
        world.run(client.request("panel", "analyse", {"ticket": "help", "timeout": timeout}))
    assert world.trace.count("model_called") == 0


def test_a_panel_that_cannot_be_is_refused():
    with pytest.raises(UnknownModel):
        AnalysisPanel("panel", model="offline:wise")
    with pytest.raises(InvalidValue, match="sentiment, technical, business, risk"):
        AnalysisPanel("panel", model={"mood": "offline"})
    with pytest.raises(InvalidValue, match="concurrency"):
        AnalysisPanel("panel", concurrency=0)


def test_rows_of_pandas_and_records_are_tickets_and_labels_are_not_in_the_prompt(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    rows = [load("tickets.csv").iloc[4], TICKETS[4]]
    reports = [world.run(panel.analyse(row)) for row in rows]
    assert reports[0] == reports[1]
    assert reports[0].ticket == "T0005"
    prompt = panel.agents["risk"].user[-1].content
    assert "T0005" not in prompt
    assert set(prompt.splitlines()[-1].split("; ")) == {
        "customer: Bramble Design", "tier: premium", "account: active", "earlier messages: 0",
    }  # fmt: skip
    changed = TICKETS[4] | {name: "low" for name in (*aspects(), "priority")}
    assert world.run(panel.analyse(changed)) == reports[0]


def test_the_ids_of_texts_are_counted(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    assert [world.run(panel.analyse("help")).ticket for _ in range(3)] == ["ticket-1", "ticket-2", "ticket-3"]


def test_the_four_are_agents_that_stop_and_return_with_the_panel(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    assert [agent.parent for agent in panel.agents.values()] == [panel] * 4
    names = [agent.name for agent in panel.agents.values()]
    assert names == [f"panel_{kind}" for kind in AGENTS]
    world.run(asyncio.sleep(0))
    panel.stop()
    world.run(asyncio.sleep(1))
    assert [world.agents[name].state for name in names if name in world.agents] in ([], ["offline"] * 4)
    panel.restart()
    world.run(asyncio.sleep(1))
    assert world.run(panel.analyse("help")).success_rate == 1.0


def test_a_panel_whose_agent_would_have_a_namesake_is_refused_whole(world):
    world.spawn(Agent("panel_risk"))
    rows = len(world.trace.rows)
    with pytest.raises(InvalidName, match="'panel_risk'"):
        world.spawn(AnalysisPanel("panel", model="offline:instant"))
    assert len(world.trace.rows) == rows
    assert set(world.agents) == {"panel_risk"}


def test_an_agent_that_is_gone_is_a_failure_at_once(world):
    panel = world.spawn(AnalysisPanel("panel", model=slow(1.0)))
    world.run(asyncio.sleep(0))
    panel.agents["business"].stop()
    report = world.run(panel.analyse("help"))
    assert report.failures["business"].reason == "failed"
    assert "panel_business" in report.failures["business"].error
    assert report.seconds["business"] == 0.0
    assert report.success_rate == 0.75


def test_an_agent_that_crashes_is_a_failure_and_returns_for_the_next_ticket():
    async def scenario(world):
        panel = world.spawn(AnalysisPanel("panel", model=slow(1.0)))
        first = await panel.analyse("help")
        await asyncio.sleep(5.0)
        return [first.failures["risk"].error, first.success_rate, (await panel.analyse("help")).success_rate]

    run = simulate(scenario, seed=1, faults=FaultPlan(appointments=[Crash("panel_risk", at=0.5)]))
    assert run.error is None
    assert run.result[0].startswith("AgentCrashed: panel_risk")
    assert list(run.result[1:]) == [0.75, 1.0]


def test_an_agent_that_cannot_be_reached_is_too_late():
    async def scenario(world):
        panel = world.spawn(AnalysisPanel("panel", model=slow(1.0)))
        return {kind: failure.reason for kind, failure in (await panel.analyse("help")).failures.items()}

    cut = Partition(["panel"], ["panel_risk"], end=30.0)
    assert simulate(scenario, seed=1, faults=FaultPlan(appointments=[cut])).result == {"risk": "timed_out"}


def test_whoever_gives_up_on_a_ticket_cancels_what_was_asked_for_it(world):
    panel = world.spawn(AnalysisPanel("panel", model=slow(2.0)))

    async def give_up():
        async with asyncio.timeout(0.5):
            await panel.analyse("help")

    with pytest.raises(TimeoutError):
        world.run(give_up())
    assert world.run(panel.analyse("help")).success_rate == 1.0
    outcomes = [(event.time, event.facts["outcome"]) for event in world.trace.events("model_called")]
    assert outcomes == [(0.5, "cancelled")] * 4 + [(2.5, "answered")] * 4


@pytest.mark.parametrize(
    "text", ["Unser Server ist ausgefallen!", "サーバーが落ちました", "\U0001f642", "?", "no " * 20_000]
)
def test_what_the_expert_cannot_read_is_analysed_with_little_confidence(world, text):
    report = world.run(world.spawn(AnalysisPanel("panel", model="offline:instant")).analyse(text))
    assert report.success_rate == 1.0
    assert all(result.confidence < 0.9 for result in report.results.values())


def test_what_is_missing_in_a_row_is_not_in_the_prompt(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:instant"))
    world.run(panel.analyse({"message": "help", "tier": float("nan"), "status": None, "interactions": 0}))
    assert panel.agents["risk"].user[-1].content == "Message: help\nearlier messages: 0"


def test_an_analyst_takes_a_panel_or_its_name():
    assert [Analyst("analyst", panel).panel for panel in ("panel", AnalysisPanel("panel"))] == ["panel", "panel"]
    for panel in ("", None, 5):
        with pytest.raises(InvalidValue, match="panel"):
            Analyst("analyst", panel)


def test_latency_by_agent_and_the_calls_are_in_the_trace(world):
    panel = world.spawn(AnalysisPanel("panel", model="offline:fast"))
    world.run(panel.analyse(TICKETS[0]))
    requests = frames.requests(world)
    assert list(requests["to"]) == [f"panel_{kind}" for kind in AGENTS]
    assert set(requests["outcome"]) == {"reply"}
    assert frames.events(world, "model_called")["seconds"].tolist() == sorted(requests["latency"])


# The whole of a day through queues of three priorities


async def day(world, tickets, pools, timeout=10.0, model="offline:fast"):
    """Every ticket through the queue of its priority; return what became of it."""
    world.spawn(AnalysisPanel("panel", model=model))
    queues = world.spawn(PriorityQueues("queues"))
    for level, size in pools.items():
        for number in range(size):
            world.spawn(Analyst(f"{level}_{number}", "panel", timeout=timeout, tags=[level]))
    tasks = [await queues.submit("analyse_ticket", {"ticket": row}, priority=row["priority"]) for row in tickets]
    return [await queues.result(task) for task in tasks]


def test_a_backlog_goes_through_priority_queues_and_nothing_is_lost():
    async def scenario(world):
        outcomes = await day(world, TICKETS[:60], {"high": 2, "normal": 1, "low": 1})
        return [(outcome.status, outcome.value["ticket"], outcome.value["success_rate"]) for outcome in outcomes]

    run = simulate(scenario, seed=2)
    assert run.error is None
    assert [tuple(row) for row in run.result] == [("completed", row["id"], 1.0) for row in TICKETS[:60]]
    tasks = frames.tasks(run)
    assert set(tasks["status"]) == {"completed"}
    served = tasks["agent"].str.partition("_")[0]
    assert list(served) == [row["priority"] for row in TICKETS[:60]]


@pytest.mark.parametrize("patience", [300.0, 6.0])
def test_who_waits_for_a_turn_at_the_panel_loses_no_time_of_its_analyses(patience):
    async def scenario(world):
        world.spawn(AnalysisPanel("panel", model=slow(2.0), concurrency=1))
        queues = world.spawn(PriorityQueues("queues"))
        for number in range(5):
            world.spawn(Analyst(f"analyst_{number}", "panel", timeout=3.0, patience=patience, tags=["normal"]))
        asked = [queues.execute("analyse_ticket", {"ticket": row}) for row in TICKETS[:5]]
        return [outcome.status for outcome in await asyncio.gather(*asked)]

    run = simulate(scenario, seed=1)
    assert run.error is None
    assert list(run.result) == (["completed"] * 5 if patience > 10 else ["completed"] * 2 + ["failed"] * 3)


def test_stopping_the_workers_loses_nothing():
    """Seed defect: stopping the workers loses nine of ten tasks. A shutdown lets them end, or returns them."""

    async def scenario(world):
        world.spawn(AnalysisPanel("panel", model="offline:fast"))
        queues = world.spawn(PriorityQueues("queues"))
        world.spawn(Analyst("analyst", "panel", tags=["normal"]))
        tasks = [await queues.submit("analyse_ticket", {"ticket": row}) for row in TICKETS[:10]]
        await asyncio.sleep(1.0)
        back = await queues.shutdown(drain=False)
        done = [await queues.result(task) for task in tasks]
        return {"back": len(back), "completed": sum(one.status == "completed" for one in done), "asked": len(tasks)}

    run = simulate(scenario, seed=2)
    assert run.error is None
    assert run.result["back"] + run.result["completed"] == run.result["asked"] == 10
    assert run.result["completed"] >= 1


def test_the_typed_outputs_have_a_label_each():
    for kind, output in KINDS.items():
        assert output.judges in output.model_fields
        assert output.model_fields[output.judges].annotation.__args__ == aspects()[output.judges].labels, kind
    assert {field.name for field in fields(AnalysisReport)} >= {"results", "success_rate", "summary", "actions"}


def test_it_is_documented_by_its_schema(world):
    world.spawn(AnalysisPanel("panel", model="offline:instant"))
    client = world.spawn(Agent("client"))
    offers = world.run(client.request("panel", "capabilities"))
    assert set(offers) == {"analyse"}
    assert set(offers["analyse"]["input_schema"]["properties"]) == {"ticket", "timeout"}


def test_a_panel_needs_no_world_of_its_own():
    world = World(seed=1)
    first, second = (world.spawn(AnalysisPanel(name, model="offline:instant")) for name in ("a", "b"))
    assert world.run(first.analyse("help")).results == world.run(second.analyse("help")).results
    assert isinstance(load("tickets.csv"), pd.DataFrame)
