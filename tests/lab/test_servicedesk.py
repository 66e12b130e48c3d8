"""The service desk of chapter 00: its agents one by one, its routing rules, and what a crash makes of them."""

from __future__ import annotations

import pandas as pd
import pytest

from masbook import Agent, FaultPlan, World, simulate
from masbook.errors import InvalidValue, RequestTimeout
from masbook.lab import frames, load
from masbook.lab.servicedesk import ROUTING, UNFAMILIAR, Channel, Clerk, Dispatcher, Ticket, service_desk
from masbook.runtime.faults import Crash


def ticket(number=1, category="technical", priority="normal", complexity="medium"):
    return Ticket(f"T{number:04}", category, priority, complexity)


def seconds_of_work(task, speed=1.0, skills=("technical",), seed=7):
    with World(seed) as world:
        world.spawn(Clerk("Ada", speed, skills))
        assert world.run(world.spawn(Agent("client")).request("Ada", "solve", ticket=task, timeout=None)) == "Ada"
        return world.now


def desk_of(world, routing, **skills):
    clerks = [world.spawn(Clerk(name, 1.0, known)) for name, known in skills.items()]
    return world.spawn(Dispatcher("dispatcher", clerks, ROUTING[routing]))


def named(desk, task):
    return desk.world.run(desk.routing(desk, task))


def requests(run):
    asked = frames.requests(run)
    return asked[asked["to"] == "dispatcher"]


class TestClerk:
    def test_speed_skill_and_complexity_make_the_work_and_the_ticket_its_luck(self):
        usual = seconds_of_work(ticket())
        assert 120 <= usual <= 360
        assert seconds_of_work(ticket(), speed=2.0) == pytest.approx(usual / 2)
        assert seconds_of_work(ticket(), skills=("sales",)) == pytest.approx(usual * UNFAMILIAR)
        assert seconds_of_work(ticket(complexity="high")) == pytest.approx(usual * 2)
        assert seconds_of_work(ticket(2)) != usual
        assert seconds_of_work(ticket(), seed=8) != usual

    def test_the_most_urgent_first(self):
        with World() as world:
            world.spawn(Clerk("Ada", 1.0, ["technical"]))
            desk = world.spawn(Dispatcher("dispatcher", [world.agents["Ada"]], ROUTING["in_turn"]))
            mail = world.spawn(Channel("email"))

            async def morning():
                for number, priority in enumerate(["normal", "low", "normal", "high"], start=1):
                    mail.background(mail.ask(ticket(number, priority=priority), patience=9000.0))
                await desk.sleep(8000)

            world.run(morning())
            solved = frames.deliveries(world).query("to == 'Ada' and topic == 'solve'").sort_values("delivered")
            order = {e.facts["message"]: e.facts["content"] for e in world.trace.events("sent")}
            urgency = [order[message]["ticket"]["priority"] for message in solved["message"]]
            assert urgency == ["high", "normal", "normal", "low"]


class TestDispatcher:
    def test_in_turn(self):
        with World() as world:
            desk = desk_of(world, "in_turn", Ada=(), Ben=())
            assert [named(desk, ticket()) for _ in range(3)] == ["Ada", "Ben", "Ada"]

    def test_shortest_queue(self):
        with World() as world:
            desk = desk_of(world, "shortest_queue", Ada=(), Ben=(), Chen=())
            desk.open.update(Ada=2, Ben=1, Chen=1)
            assert named(desk, ticket()) == "Ben"

    def test_by_skill(self):
        with World() as world:
            desk = desk_of(world, "by_skill", Ada=("sales",), Ben=("technical",), Chen=("technical",))
            desk.open.update(Ada=0, Ben=5, Chen=4)
            assert named(desk, ticket(category="technical")) == "Chen"
            assert named(desk, ticket(category="billing")) == "Ada"

    def test_a_customer_who_gives_up_frees_the_clerk(self):
        with World() as world:
            desk = desk_of(world, "in_turn", Ada=("technical",))
            client = world.spawn(Agent("client"))
            asking = client.request("dispatcher", "answer", ticket=ticket(), timeout=10.0, on_timeout="cancel")
            with pytest.raises(RequestTimeout):
                world.run(asking)
            world.run(until=11.0)
            assert (desk.open, desk.state, world.agents["Ada"].state) == ({"Ada": 0}, "idle", "idle")
            assert [(e.time, e.who) for e in world.trace.events("cancelled")] == [(10.0, "dispatcher"), (10.0, "Ada")]


class TestScenario:
    def test_every_ticket_of_the_day_is_asked_once_at_its_time(self):
        run = simulate(service_desk, 7, hours=24.0)
        day = load("tickets.csv")
        asked = requests(run)
        assert run.ok
        assert run.result["tickets"] == len(asked) == len(day) >= 400
        assert asked["sent"].tolist() == pytest.approx(day["arrival"].tolist())
        assert asked["sender"].tolist() == day["channel"].tolist()

    def test_the_result_is_what_the_trace_says(self):
        run = simulate(service_desk, 7, clerks=4)
        asked = requests(run)
        assert set(asked["outcome"]) == {"reply", "timed_out"}
        assert run.result["in_time"] == round((asked["outcome"] == "reply").mean(), 3)
        assert run.result["waited"] == round(asked.loc[asked["outcome"] == "reply", "latency"].mean(), 1)
        assert asked["latency"].max() <= 900.0
        assert run.trace.count("timed_out") == (asked["outcome"] == "timed_out").sum() > 0

    def test_the_same_seed_the_same_day(self):
        assert simulate(service_desk, 7).digest == simulate(service_desk, 7).digest
        assert simulate(service_desk, 7).digest != simulate(service_desk, 8).digest

    def test_a_rule_of_your_own(self):
        async def always_ben(desk, ticket):
            return "Ben"

        run = simulate(service_desk, 7, routing=always_ben, hours=0.5)
        solved = frames.requests(run).query("capability == 'solve'")
        assert set(solved["to"]) == {"Ben"}

    def test_more_clerks_and_skill_pay(self):
        share = {n: simulate(service_desk, 7, clerks=n).result["in_time"] for n in (2, 5, 8)}
        assert share[2] < share[5] < share[8]
        assert simulate(service_desk, 7, clerks=5, routing="by_skill").result["in_time"] > share[5]

    @pytest.mark.parametrize("bad", [{"clerks": 0}, {"clerks": 9}, {"routing": "by_luck"}])
    def test_bad_parameters_say_what_to_give(self, bad):
        error = simulate(service_desk, **bad).error
        assert isinstance(error, InvalidValue)
        assert next(iter(bad)) in str(error)

    def test_nobody_comes(self):
        result = simulate(service_desk, hours=0.0).result
        assert result["tickets"] == 0 and pd.isna(result["in_time"]) and pd.isna(result["waited"])


def test_who_fails_at_once_has_the_shortest_queue_and_gets_all_the_work():
    """Seed defect: the agent that fails fastest looks fastest and attracts the traffic."""
    lunch = FaultPlan(appointments=[Crash("Ada", at=1800.0)])
    result = {rule: simulate(service_desk, 7, faults=lunch, routing=rule).result for rule in ROUTING}
    assert result["shortest_queue"]["in_time"] < 0.25 < 0.5 < result["in_turn"]["in_time"]
    assert result["shortest_queue"]["waited"] < result["in_turn"]["waited"]  # and it looks fast, too
