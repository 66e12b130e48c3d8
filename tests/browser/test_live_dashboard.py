"""The dashboard in a real browser: what a student does with the mouse, and what the page says then."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from masbook import Agent, FaultPlan, Run, simulate
from masbook.lab.servicedesk import service_desk

pytestmark = pytest.mark.browser
CHAPTER = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
SLIDER, SCENARIO = "clerks", service_desk
PATIENCE = 60_000  # milliseconds

RELAY = '''
async def relay(world, runners=3, laps=5):
    """A baton goes round; a runner takes up to a second."""
    team = [world.spawn(Agent(f"runner_{i}")) for i in range(runners)]
    for lap in range(laps):
        for i, runner in enumerate(team):
            await runner.sleep(runner.random.random())
            await runner.tell(team[(i + 1) % runners].name, "baton", lap=lap)
    return laps * runners
'''


class Played:
    """One dashboard on a page, as its user sees it."""

    def __init__(self, page: Page, number: int = 0) -> None:
        self.number = number
        self.root = page.locator(".masbook-dashboard").nth(number)

    def press(self, name: str) -> None:
        self.root.locator(f"button.masbook-{name}").click()

    def move(self, control: str, key: str) -> None:
        self.root.locator(f".masbook-{control} .noUi-handle").press(key)

    def says(self, phase: str) -> None:
        expect(self.root.locator(".masbook-status")).to_contain_text(phase, timeout=PATIENCE)

    @property
    def results(self) -> Locator:
        return self.root.locator(".masbook-digest")

    @property
    def time(self) -> float:
        return float(self.root.locator(".masbook-canvas").get_attribute("data-time") or 0)

    def wait_until_after(self, time: float) -> None:
        canvas = "document.querySelectorAll('.masbook-dashboard')[number].querySelector('.masbook-canvas')"
        self.root.page.wait_for_function(f"([number, time]) => +{canvas}.dataset.time > time", arg=[self.number, time])

    def digest(self) -> str:
        expect(self.results).to_contain_text(re.compile("[0-9a-f]{64}"), timeout=PATIENCE)
        return re.findall("[0-9a-f]{64}", self.results.inner_text())[0]

    def repeated(self, scenario: Any) -> Run:
        """Run the call that the page shows."""
        call = re.search(r"simulate\(.*\)", self.results.inner_text(), re.DOTALL)
        assert call, self.results.inner_text()
        return eval(call[0], {"simulate": simulate, "FaultPlan": FaultPlan, scenario.__name__: scenario})


def test_the_dashboard_of_chapter_00(lab: Any, run_notebook: Callable[[str], Page]) -> None:
    page = run_notebook(lab.copy(CHAPTER))
    dashboard = Played(page)
    dashboard.says("ready")

    dashboard.press("play")
    dashboard.says("running")
    dashboard.wait_until_after(0.0)
    assert dashboard.root.locator(".masbook-canvas g.agent").count() > 2

    dashboard.press("pause")
    dashboard.says("paused")
    held = dashboard.time
    steps = 0
    while dashboard.time == held and steps < 100:  # a step ends at the next event, which may be at the same instant
        dashboard.press("step")
        steps += 1
    assert dashboard.time > held
    dashboard.says("paused")

    dashboard.press("stop")
    dashboard.says("stopped")
    expect(dashboard.results).to_contain_text("no digest")

    readout = dashboard.root.locator(f".masbook-control-{SLIDER} .widget-readout")
    before = int(readout.inner_text())
    dashboard.move(f"control-{SLIDER}", "ArrowRight")
    expect(readout).to_have_text(str(before + 1))
    dashboard.move("speed", "End")
    dashboard.press("play")
    dashboard.says("finished")

    plain = dashboard.repeated(SCENARIO)
    assert plain.params[SLIDER] == before + 1 and plain.trace.count("handled") > 100
    assert dashboard.digest() == plain.digest
    expect(dashboard.root.locator(".masbook-chart img").first).to_be_visible(timeout=PATIENCE)
    assert dashboard.root.locator(".masbook-metric-handled").inner_text() == f"{plain.trace.count('handled'):,}"


def test_three_dashboards_at_once(lab: Any, run_notebook: Callable[[str], Page]) -> None:
    space: dict[str, Any] = {"Agent": Agent}
    exec(RELAY, space)
    dashboards = [f"Dashboard(relay, laps=(1, 9), seed={seed}, speed=5.0)" for seed in range(3)]
    setup = "from masbook import Agent\nfrom masbook.lab import Dashboard\n"
    page = run_notebook(lab.write("three.ipynb", setup + RELAY, *dashboards))
    expect(page.locator(".masbook-dashboard .masbook-canvas")).to_have_count(3)
    played = [Played(page, number) for number in range(3)]
    for dashboard in played:
        dashboard.press("play")
    for dashboard in played:
        dashboard.wait_until_after(0.0)
    for dashboard in played:
        dashboard.says("finished")
    digests = [dashboard.digest() for dashboard in played]
    assert digests == [simulate(space["relay"], seed, runners=3, laps=5).digest for seed in range(3)]
    assert len(set(digests)) == 3


def test_an_error_of_the_scenario_is_on_the_page(lab: Any, run_notebook: Callable[[str], Page]) -> None:
    flawed = "async def flawed(world):\n    raise ValueError('no <salt> left')"
    page = run_notebook(lab.write("flawed.ipynb", f"from masbook.lab import Dashboard\n{flawed}", "Dashboard(flawed)"))
    dashboard = Played(page)
    dashboard.press("play")
    dashboard.says("failed")
    expect(dashboard.root.locator(".masbook-error")).to_have_text("ValueError: no <salt> left\n")


def test_long_names_stay_within_the_picture(lab: Any, run_notebook: Callable[[str], Page]) -> None:
    setup = (
        "from masbook import Agent\nfrom masbook.lab import Dashboard\n"
        "async def crowd(world):\n    [world.spawn(Agent(f'consensus-{n}-judge')) for n in range(11)]"
    )
    page = run_notebook(lab.write("long.ipynb", setup, "Dashboard(crowd)"))
    dashboard = Played(page)
    dashboard.press("play")
    dashboard.says("finished")
    canvas = dashboard.root.locator(".masbook-canvas").bounding_box()
    labels = [label.bounding_box() for label in dashboard.root.locator(".masbook-canvas text.name").all()]
    assert canvas is not None and len(labels) == 11
    for label in labels:
        assert label is not None
        assert canvas["x"] <= label["x"] and label["x"] + label["width"] <= canvas["x"] + canvas["width"]
