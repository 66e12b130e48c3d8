"""The dashboard, played without a browser: what it offers, what it shows, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import ipywidgets as widgets
import numpy
import pytest

from masbook import Agent, FaultPlan, World, capability, on, simulate
from masbook.errors import InvalidInput, InvalidValue, NotAsync, RequestTimeout
from masbook.lab import Dashboard
from masbook.lab.controls import parameter_widgets
from masbook.lab.frames import requests
from masbook.lab.live_view import Picture
from masbook.runtime.faults import Crash

LIVE = 20.0  # seconds of the wall clock after which a live world counts as hung


class Cook(Agent):
    @capability
    async def cook(self, dish: str) -> str:
        await self.sleep(1.0 + self.random.random())
        await self.publish("kitchen.ready", dish=dish)
        return dish


class Waiter(Agent):
    @on("kitchen.*")
    async def carry(self, message):
        await self.sleep(0.1)


async def kitchen(world, cooks=2, dishes=4, patience=30.0, dish="soup"):
    """Dishes are ordered all at once; returns how many were cooked."""
    team = [world.spawn(Cook(f"cook_{i}")) for i in range(cooks)]
    waiter = world.spawn(Waiter("waiter"))
    orders = (waiter.request(team[i % cooks].name, "cook", timeout=patience, dish=dish) for i in range(dishes))
    served = await asyncio.gather(*orders, return_exceptions=True)
    return sum(answer == dish for answer in served)


async def flawed(world):
    await world.spawn(Agent("agent")).sleep(1.0)
    raise ValueError("no <b>salt</b>")


async def endless(world):
    agent = world.spawn(Agent("agent"))
    while True:
        await agent.sleep(1.0)
        await agent.tell("agent", "tick")


def live(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on a loop of its own, which stands for the kernel's."""

    def run() -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIVE):
                await test()

        asyncio.run(limited())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the world's thread is about to do."""
    while not condition():
        await asyncio.sleep(0.005)


def fast(scenario: Any = kitchen, **options: Any) -> Dashboard:
    return Dashboard(scenario, speed=math.inf, **options)


def shown(dashboard: Dashboard, name: str) -> str:
    """Return the text of the piece of the dashboard that has the class, without its tags."""
    found = []

    def look(widget: widgets.Widget) -> None:
        if isinstance(widget, widgets.HTML) and name in widget._dom_classes:
            found.append(re.sub("<[^>]*>", " ", widget.value))
        for child in getattr(widget, "children", ()):
            look(child)

    look(dashboard.widget)
    return "".join(found)


def button(dashboard: Dashboard, name: str) -> widgets.Button:
    transport = next(child for child in dashboard.widget.children if "masbook-transport" in child._dom_classes)
    return next(child for child in transport.children if f"masbook-{name}" in child._dom_classes)


# Playing


@live
async def test_the_digest_is_that_of_the_same_run_without_a_dashboard():
    dashboard = fast(cooks=(1, 3), seed=7, faults=FaultPlan(drop=0.1))
    run = await dashboard.play()
    plain = simulate(kitchen, 7, faults=FaultPlan(drop=0.1), cooks=2, dishes=4, patience=30.0, dish="soup")
    assert (run.digest, run.result, run.params) == (plain.digest, plain.result, plain.params)
    assert dashboard.run is run and dashboard.phase == "finished"
    assert run.digest in shown(dashboard, "masbook-digest")


@live
async def test_pausing_stepping_and_resuming_change_nothing():
    dashboard = Dashboard(kitchen, speed=100.0, seed=3, dishes=40, patience=90.0)
    finished = dashboard.step()
    await until(lambda: dashboard.view.frame.get("agents"))
    assert dashboard.phase == "paused"
    before = dashboard.view.frame["time"]
    await until(lambda: dashboard.step() and dashboard.view.frame["time"] > before)
    assert not finished.done()
    assert dashboard.play() is finished
    dashboard.pause()
    dashboard.play()
    assert (await finished).digest == simulate(kitchen, 3, **finished.result().params).digest


@live
async def test_stop_ends_an_endless_run_and_shows_no_digest():
    dashboard = fast(endless)
    task = dashboard.play()
    await until(lambda: dashboard.view.frame.get("time", 0) > 10)
    dashboard.stop()
    run = await task
    assert dashboard.phase == "stopped" and run.result is None and run.error is None and run.time > 10
    assert run.digest not in shown(dashboard, "masbook-digest")
    assert "stopped" in shown(dashboard, "masbook-status")


@live
async def test_stop_works_at_once_and_while_paused():
    for prepare in (lambda dashboard: None, Dashboard.pause):
        dashboard = fast(endless)
        task = dashboard.play()
        prepare(dashboard)
        dashboard.stop()
        assert (await task).error is None and dashboard.phase == "stopped"


@live
async def test_an_error_of_the_scenario_is_shown_with_its_type():
    dashboard = fast(flawed)
    run = await dashboard.play()
    assert isinstance(run.error, ValueError) and dashboard.phase == "failed"
    assert "ValueError: no &lt;b&gt;salt&lt;/b&gt;" in shown(dashboard, "masbook-error")
    assert run.digest in shown(dashboard, "masbook-digest")


@live
async def test_it_can_be_played_again_with_other_settings():
    dashboard = fast(seed=1)
    first = await dashboard.play()
    dashboard.controls.seed.value = 2
    dashboard.controls.params["dishes"].value = 6
    dashboard.controls.rates["drop"].value = 0.5
    dashboard.controls.schedule.value = "shuffled"
    second = await dashboard.play()
    plain = simulate(kitchen, 2, faults=FaultPlan(drop=0.5), schedule="shuffled", **{**first.params, "dishes": 6})
    assert second.digest == plain.digest != first.digest


@live
async def test_three_run_at_once():
    dashboards = [fast(seed=seed) for seed in range(3)]
    runs = await asyncio.gather(*(dashboard.play() for dashboard in dashboards))
    assert [run.digest for run in runs] == [simulate(kitchen, seed, **runs[0].params).digest for seed in range(3)]


@live
async def test_a_second_play_does_not_start_a_second_run():
    dashboard = fast()
    assert dashboard.play() is dashboard.play()


@live
async def test_appointed_faults_stay_when_the_rates_change():
    dashboard = fast(faults=FaultPlan(appointments=[Crash("cook_0", at=0.5)]))
    dashboard.controls.rates["duplicate"].value = 1.0
    run = await dashboard.play()
    assert run.trace.count("crashed", "cook_0") == 1 and run.trace.count("duplicated") > 0


@live
async def test_buttons_work_from_any_thread_and_follow_the_phase():
    dashboard = fast(endless)
    enabled = lambda: [not button(dashboard, name).disabled for name in ("play", "pause", "step", "stop")]  # noqa: E731
    assert enabled() == [True, False, True, False]
    for name, phase, active in (
        ("play", "running", [False, True, True, True]),
        ("pause", "paused", [True, False, True, True]),
        ("stop", "stopped", [True, False, True, False]),
    ):
        thread = threading.Thread(target=button(dashboard, name).click)
        thread.start()
        thread.join()
        await until(lambda phase=phase: dashboard.phase == phase)
        assert enabled() == active
    assert dashboard.run is not None


@live
async def test_controls_are_locked_during_a_run():
    dashboard = fast(endless)
    task = dashboard.play()
    assert dashboard.controls.seed.disabled
    dashboard.stop()
    await task
    assert not dashboard.controls.seed.disabled


@live
async def test_the_speed_can_change_while_it_plays():
    dashboard = Dashboard(kitchen, speed=0.1)
    task = dashboard.play()
    await until(lambda: dashboard.view.frame.get("agents"))
    speed = next(child for child in dashboard.widget.children[1].children if "masbook-speed" in child._dom_classes)
    speed.value = math.inf
    assert (await task).ok


@live
async def test_progress_is_measured_against_what_is_expected_or_was():
    dashboard = fast(endless, expected=100.0)
    bar = next(child for child in dashboard.widget.children[1].children if "masbook-progress" in child._dom_classes)
    task = dashboard.play()
    await until(lambda: bar.value > 0.2)
    dashboard.stop()
    await task
    learns = fast()
    assert "expected" not in learns.view.frame
    await learns.play()
    again = learns.play()
    await until(lambda: learns.view.frame.get("expected"))
    assert learns.view.frame["expected"] == (await again).time


# What is shown


@live
async def test_the_metrics_are_those_of_the_trace():
    dashboard = fast(faults=FaultPlan(drop=0.2, duplicate=0.2), patience=5.0, dishes=30)
    run = await dashboard.play()
    metrics, count = dashboard.view.frame["metrics"], run.trace.count
    assert metrics["sent"] == count("copies")
    for kind in ("delivered", "handled", "failed", "dropped", "dead", "timed_out"):
        assert metrics[kind] == count(kind), kind
    assert metrics["dropped"] > 0
    arrived = count("delivered") + count("dropped") + count("dead")
    assert metrics["in_flight"] == count("copies") + count("duplicated") - arrived


def test_a_frame_shows_who_works_on_what_and_what_flies():
    world = World(seed=1)
    picture = Picture(world)
    cook, waiter = world.spawn(Cook("cook")), world.spawn(Waiter("waiter"))
    orders = [waiter.request("cook", "cook", dish="soup") for _ in range(3)]

    async def order():
        await asyncio.gather(*orders)

    world.run(until=0.0)
    task = world.loop.create_task(order())
    world.run(until=0.5)
    frame = picture.frame()
    assert frame["agents"] == [["cook", "busy", 2, "cook", ""], ["waiter", "idle", 0, "", ""]]
    assert frame["flights"] == [[1, 0, "request", "cook"]] * 3 and frame["edges"] == [[0, 1, 3]]
    assert picture.frame()["flights"] == []
    assert json.loads(json.dumps(frame)) == frame
    world.run(until=10.0)
    styles = [style for _, _, style, _ in picture.frame()["flights"]]
    assert styles.count("reply") == styles.count("publish") == 3
    assert task.done() and picture.metrics()["mean_latency"] == pytest.approx(_mean_latency(world), abs=1e-9)
    cook.crash(RuntimeError("burnt"))
    assert picture.frame()["agents"][0][:2] == ["cook", "error"]
    world.close()


def _mean_latency(world: World) -> float:
    sent = {event.facts["message"]: event for event in world.trace.events("sent")}
    answers = [event for event in sent.values() if event.facts["reply_to"] is not None]
    return sum(event.time - sent[event.facts["reply_to"]].time for event in answers) / len(answers)


def test_what_is_lost_is_drawn_as_lost():
    world = World(faults=FaultPlan(drop=1.0))
    picture = Picture(world)
    sender = world.spawn(Agent("a"))
    world.spawn(Agent("b"))
    world.run(sender.tell("b", "hello"))
    assert picture.frame()["flights"] == [[0, 1, "lost", "hello"]]
    world.close()


def test_only_answers_settle_requests():
    world = World()
    picture = Picture(world)
    world.spawn(Cook("cook"))
    waiter = world.spawn(Waiter("waiter"))

    async def order():
        assert await waiter.request("cook", "cook", dish="soup") == "soup"
        with suppress(RequestTimeout):
            await waiter.request("cook", "cook", dish="stew", timeout=0.5, on_timeout="cancel")
        with suppress(InvalidInput):
            await waiter.request("cook", "cook")

    world.run(order())
    taken = [request.latency for request in requests(world).itertuples() if request.outcome in ("reply", "error")]
    numbers, styles = picture.metrics(), [style for _, _, style, _ in picture.frame()["flights"]]
    assert (numbers["answered"], numbers["mean_latency"]) == (
        None,
        None,
    )  # nothing is folded before a frame is asked for
    numbers = picture.metrics()
    assert numbers["answered"] == pytest.approx(1 / 3) and numbers["timed_out"] == 1
    assert numbers["mean_latency"] == pytest.approx(sum(taken) / 2)
    assert styles.count("tell") == 1 and styles.count("publish") == 1  # the cancel; the dish that was ready
    world.close()


def test_who_is_not_healthy_shows_and_heartbeats_have_a_style():
    world = World()
    picture = Picture(world)
    agent = world.spawn(Agent("agent", heartbeat=1.0))
    agent.suspend(8.0)
    seen, styles = [], set()
    for time in range(1, 16):
        world.run(until=float(time))
        frame = picture.frame()
        seen.append(frame["agents"][0][4])
        styles |= {style for _, _, style, _ in frame["flights"]}
    assert list(dict.fromkeys(seen)) == ["", "degraded", "unhealthy"] and seen[-1] == ""
    assert styles == {"heartbeat"}
    world.close()


def test_who_talks_to_most_is_a_hub():
    world = World()
    picture = Picture(world)
    hub, *others = [world.spawn(Agent(name)) for name in "abcdefg"]
    for number, other in enumerate(others):
        assert picture.frame()["hubs"] == ([0] if number > 3 else [])
        world.run(hub.tell(other.name, "hello"))
    for agent in others:
        world.run(agent.broadcast("hello"))
    assert picture.frame()["hubs"] == []  # where everybody is one, nobody is
    world.close()


@live
async def test_numbers_of_numpy_show_as_numbers():
    async def counting(world):
        return {"share": numpy.float64(0.5), "all": [numpy.int64(20)]}

    dashboard = fast(counting)
    await dashboard.play()
    assert "{&#x27;share&#x27;: 0.5, &#x27;all&#x27;: [20]}" in shown(dashboard, "masbook-digest")


# Controls


def test_parameters_become_widgets_by_the_rules_of_interact():
    made = parameter_widgets(kitchen, {"cooks": (1, 9), "dish": ["soup", "stew"], "patience": (0.5, 4.0, 0.5)})
    kinds = {name: type(widget) for name, widget in made.items()}
    assert kinds == {
        "cooks": widgets.IntSlider,
        "dishes": widgets.IntSlider,
        "patience": widgets.FloatSlider,
        "dish": widgets.Dropdown,
    }
    assert made["cooks"].value == 2 and (made["cooks"].min, made["cooks"].max) == (1, 9)
    own = widgets.BoundedIntText(value=3, min=1, max=5)
    assert parameter_widgets(kitchen, {"cooks": own})["cooks"] is own


@live
async def test_fixed_values_have_no_widget_but_are_passed():
    dashboard = fast(dish=widgets.fixed("stew"), dishes=1)
    run = await dashboard.play()
    assert run.params["dish"] == "stew" and run.result == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Dashboard(kitchen, cook=(1, 3)), "cook"),
        (lambda: Dashboard(kitchen, cooks=object()), "cooks|transformed"),
        (lambda: Dashboard(kitchen, cooks=(9, 1)), "min"),
        (lambda: Dashboard(kitchen, cooks=(1, 3, 0)), "step"),
        (lambda: Dashboard(kitchen, seed=object()), "seed"),
        (lambda: Dashboard(kitchen, seed=1.5), "seed"),
        (lambda: Dashboard(kitchen, speed=0), "speed=0"),
        (lambda: Dashboard(kitchen, expected=-1.0), "expected=-1"),
        (lambda: Dashboard(kitchen, schedule="random"), "schedule"),
        (lambda: Dashboard(kitchen, faults="all"), "faults"),
        (lambda: Dashboard("kitchen"), "kitchen"),
    ],
)
def test_what_makes_no_control_is_refused(call, named):
    with pytest.raises(InvalidValue, match=named):
        call()


def test_the_scenario_must_be_async():
    with pytest.raises(NotAsync, match="async def"):
        Dashboard(lambda world: None)


def test_it_renders_without_running():
    dashboard = Dashboard(kitchen, cooks=(1, 3), seed=7, faults=FaultPlan(drop=0.1))
    bundle = dashboard._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    text = "Dashboard(kitchen, seed=7, faults=FaultPlan(drop=0.1), cooks=2, dishes=4, patience=30.0, dish='soup')"
    assert bundle["text/plain"] == repr(dashboard) == text
    assert dashboard.phase == "ready" and dashboard.run is None


async def booked(world):
    world.trace.record("task_added", "boss", workflow="w", task="a", capability="work", after=[], priority=0)
    world.trace.record("task_ended", "boss", workflow="w", task="a", status="cancelled")


@live
async def test_a_run_with_tasks_has_their_charts_too():
    def tabs(dashboard: Dashboard) -> widgets.Tab:
        (found,) = [child for child in dashboard.widget.children[-1].children if isinstance(child, widgets.Tab)]
        return found

    plain, tasks = fast(), fast(booked)
    await plain.play()
    await tasks.play()
    assert tabs(plain).titles == ("Sequence", "Timeline", "Latency", "Success", "Topology")
    assert tabs(tasks).titles[5:] == ("Gantt", "Dag")
    tabs(tasks).selected_index = 5
    assert 'alt="gantt"' in tabs(tasks).children[5].value
