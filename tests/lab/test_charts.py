"""Charts by what is drawn in them: titles, labels, arrows, bars; and the same bytes for the same run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from itertools import combinations

import matplotlib
import matplotlib.pyplot
import pytest
from matplotlib.colors import same_color, to_hex
from matplotlib.patches import FancyArrowPatch, Rectangle

from masbook import Agent, FaultPlan, MasbookError, capability, on, simulate
from masbook.errors import InvalidValue
from masbook.lab import charts, frames
from masbook.lab.style import OUTCOMES, PALETTE
from masbook.runtime.faults import Crash, OnMessage

CHARTS = [charts.sequence, charts.timeline, charts.health, charts.latency, charts.success, charts.topology]


class Clerk(Agent):
    @capability
    async def stamp(self, number: int = 0) -> int:
        if number == 2:
            raise ValueError("no such form")
        await self.sleep(1.0)
        return number

    @on("bell")
    async def bell(self, message):
        await self.sleep(0.25)


async def office(world, clerks=2, forms=3):
    """A client gives forms to clerks in turn, then rings a bell that all of them hear."""
    team = [world.spawn(Clerk(f"clerk_{i}"), restart="on_crash") for i in range(clerks)]
    client = world.spawn(Agent("client"))
    for number in range(forms):
        with suppress(MasbookError, ValueError):
            await client.request(team[number % clerks].name, "stamp", number=number, timeout=3.0)
    await client.publish("bell")
    await client.sleep(1.0)


async def nothing(world):
    pass


async def even(world):
    clerk, client = world.spawn(Clerk("clerk")), world.spawn(Agent("client"))
    for _ in range(4):
        await client.request(clerk.name, "stamp", number=1)


def trouble():
    plan = [OnMessage("drop", sender="client", topic="stamp"), Crash("clerk_1", at=3.5, restart_after=0.25)]
    return simulate(office, faults=FaultPlan(appointments=plan))


def title(figure):
    return figure.axes[0].get_title("left")


def legend(figure):
    key = figure.axes[0].get_legend()
    return [] if key is None else [text.get_text() for text in key.get_texts()]


def texts(figure, gid=None):
    found = [text for text in figure.axes[0].texts if gid is None or (text.get_gid() or "").startswith(gid)]
    return [text.get_text() for text in found]


def arrows(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def overlapping(figure):
    """Pairs of texts that meet, as drawn."""
    figure.draw_without_rendering()
    axes = figure.axes[0]
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()] if axes.axison else []
    drawn = [text for text in [*axes.texts, *ticks, axes.title, axes._left_title] if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn if not text.get_rotation() % 90]
    return [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.parametrize("chart", CHARTS)
def test_where_there_is_nothing_the_chart_says_so(chart):
    (said,) = texts(chart(simulate(nothing)))
    assert said.startswith(("no messages", "nobody", "no requests"))


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_stay_out_of_pyplot_and_leave_its_settings_alone(chart):
    before = dict(matplotlib.rcParams)
    chart(simulate(office))
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("clerks", [1, 19])
@pytest.mark.parametrize("chart", CHARTS)
def test_labels_never_meet(chart, clerks):
    assert overlapping(chart(simulate(office, clerks=clerks, forms=2 * clerks))) == []


def test_overlapping_labels_would_be_noticed():
    figure = charts.timeline(simulate(office))
    figure.axes[0].text(0, 0, "one upon the other")
    figure.axes[0].text(0, 0, "one under the other")
    assert overlapping(figure) == [("one upon the other", "one under the other")]


def test_sequence_draws_an_arrow_for_each_copy():
    figure = charts.sequence(simulate(office))
    assert title(figure) == "Message sequence: 7 of 7 messages shown"
    assert texts(figure, "agent") == ["clerk_0", "clerk_1", "client"]
    assert texts(figure, "label") == ["stamp"] * 6 + ["bell"]
    assert [arrow.get_gid() for arrow in arrows(figure)] == [f"message-{i}" for i in (1, 2, 3, 4, 5, 6, 7, 7)]
    assert legend(figure) == ["request", "reply", "error", "publish"]
    assert figure.axes[0].get_ylabel() == "time (virtual seconds), not to scale"
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_replies_are_dashed_and_go_back():
    request, reply, *_ = arrows(charts.sequence(simulate(office)))
    (start, end), (back, home) = request._posA_posB, reply._posA_posB
    assert (start[0], end[0]) == (2, 0) and (back[0], home[0]) == (0, 2)
    assert home[1] > start[1]  # time runs downwards
    assert (request.get_linestyle(), reply.get_linestyle()) == ("-", "--")


def test_what_is_lost_ends_in_a_cross():
    run = trouble()
    figure = charts.sequence(run)
    crosses = [line.get_gid() for line in figure.axes[0].lines if (line.get_gid() or "").startswith("lost")]
    lost = frames.deliveries(run).query("outcome in ('dropped', 'dead')")["message"]
    assert crosses == [f"lost-{message}" for message in lost] and len(crosses) == 1
    assert "lost" in legend(figure)


def test_a_message_that_waited_slants_to_when_it_was_handled():
    async def queue(world):
        world.spawn(Clerk("clerk"))
        client = world.spawn(Agent("client"))
        await client.tell("clerk", "stamp")
        await client.tell("clerk", "stamp")
        await client.sleep(3.0)

    figure = charts.sequence(simulate(queue))
    at_once, later = (arrow._posA_posB for arrow in arrows(figure))
    assert at_once[0][1] == at_once[1][1]
    assert later[1][1] > later[0][1]
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_width() < 0.2]
    assert len(bars) == 2


def test_sequence_says_how_much_it_leaves_out():
    run = simulate(office, clerks=3, forms=30)
    figure = charts.sequence(run, limit=5)
    total = len(frames.messages(run))
    assert title(figure) == f"Message sequence: 5 of {total} messages shown"
    assert len(texts(figure, "label")) == 5
    with pytest.raises(InvalidValue, match="whole number"):
        charts.sequence(run, limit=0)


def test_timeline_has_a_bar_for_each_agent_in_the_order_of_spawning():
    figure = charts.timeline(trouble())
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["clerk_0", "clerk_1", "client"]
    assert axes.get_xlabel() == "time (virtual seconds)"
    assert legend(figure) == ["idle", "busy", "error", "crash"]
    states = frames.states(trouble())
    assert sum(len(bars.get_paths()) for bars in axes.collections) == len(states)
    assert list(axes.lines[0].get_xdata()) == [3.5]


async def watched(world):
    silent, client = world.spawn(Agent("silent", heartbeat=1.0)), world.spawn(Agent("client"))
    await client.sleep(2.5)
    silent.suspend(20.0)
    await client.sleep(27.5)
    client.stop()


def test_health_is_what_the_registry_said():
    run = simulate(watched)
    rows = run.trace.events("health", "silent")
    said = {event.facts["health"]: event.time for event in rows}
    spans = frames.health(run)
    assert spans["who"].tolist() == ["silent"] * 5 + ["client"]
    assert spans["health"].tolist() == ["healthy", "degraded", "unhealthy", "removed", "healthy", "healthy"]
    assert spans["start"].tolist()[:3] == [0.0, said["degraded"], said["unhealthy"]]
    assert spans["end"].tolist()[4:] == [30.0, 30.0] and (spans["duration"] == spans["end"] - spans["start"]).all()
    figure = charts.health(run)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["silent", "client"]
    assert legend(figure) == ["healthy", "degraded", "unhealthy", "removed"]
    assert sum(len(bars.get_paths()) for bars in figure.axes[0].collections) == len(spans)


def test_a_stop_ends_the_health_of_an_agent():
    async def leaving(world):
        leaver, client = world.spawn(Agent("leaver")), world.spawn(Agent("client"))
        await client.sleep(1.0)
        leaver.stop()
        await client.sleep(1.0)

    spans = frames.health(simulate(leaving)).set_index("who")
    assert spans["end"].to_dict() == {"leaver": 1.0, "client": 2.0} and set(spans["health"]) == {"healthy"}


def test_latency_marks_the_median_and_the_95th_percentile():
    figure = charts.latency(simulate(office, forms=3))
    assert title(figure) == "Request latency: 3 of 3 requests answered"
    assert legend(figure) == ["median 1 s", "95th percentile 1 s"]  # 1, 1, and an error at once
    assert figure.axes[0].get_xlabel() == "latency (virtual seconds)"
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 3


def test_latency_is_legible_when_all_are_equal():
    figure = charts.latency(simulate(even))
    (bar,) = figure.axes[0].patches
    low, high = figure.axes[0].get_xlim()
    assert low < bar.get_x() < 1.0 < bar.get_x() + bar.get_width() < high
    assert bar.get_height() == 4


def test_success_by_agent_counts_the_outcomes():
    figure = charts.success(trouble())
    axes = figure.axes[0]
    assert title(figure) == "Success of requests by agent asked"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["clerk_0", "clerk_1"]
    assert texts(figure) == ["0%  (0 of 2)", "0%  (0 of 1)"]
    assert legend(figure) == ["error", "timed out"]
    first = [bar for bar in axes.patches if bar.get_y() < 0 and bar.get_width()]
    colours = [OUTCOMES[outcome].lower() for outcome in ("error", "timed_out")]
    assert [(to_hex(bar.get_facecolor()), bar.get_width()) for bar in first] == [(colour, 50.0) for colour in colours]


def test_topology_draws_pairs_as_wide_as_they_talk():
    figure = charts.topology(simulate(office))
    assert title(figure) == "Who talks to whom: 8 messages"
    assert texts(figure, "agent") == ["clerk_0", "clerk_1", "client"]
    numbers = [int(number) for number in texts(figure, "number")]
    assert numbers == [2, 1, 3, 2]  # from each clerk to the client and from the client to each clerk, as they began
    thickness = dict(zip(numbers, (arrow.get_linewidth() for arrow in arrows(figure)), strict=True))
    assert thickness[1] < thickness[2] < thickness[3]
    assert legend(figure) == ["Clerk", "Agent"]


def test_a_hub_stands_inside_the_circle():
    figure = charts.topology(simulate(office, clerks=7, forms=14))
    places = {text.get_text(): text.get_position() for text in figure.axes[0].texts if text.get_gid() == "agent"}
    assert abs(places["client"][0]) < 0.1 and abs(places["client"][1]) < 0.2
    assert all(x * x + y * y > 1 for name, (x, y) in places.items() if name != "client")


def test_the_palette_keeps_its_order():
    assert [to_hex(colour) for colour in PALETTE[:4]] == ["#0072b2", "#e69f00", "#009e73", "#d55e00"]
    figure = charts.topology(simulate(office))
    assert same_color(figure.axes[0].lines[0].get_color(), PALETTE[0])


@pytest.mark.parametrize("chart", CHARTS)
def test_the_same_run_gives_the_same_bytes(chart):
    first, second = chart(trouble()), chart(trouble())
    assert first.png() == second.png() == first.png()
    with matplotlib.rc_context({"font.family": "serif", "axes.facecolor": "black", "lines.linewidth": 9}):
        assert chart(trouble()).png() == first.png()
        assert first.png() == second.png()


def test_another_run_gives_other_bytes():
    assert charts.timeline(trouble()).png() != charts.timeline(simulate(office)).png()


def digests():
    return [hashlib.sha256(chart(trouble()).png()).hexdigest() for chart in CHARTS]


def test_a_fresh_process_gives_the_same_bytes():
    here = os.path.dirname(__file__)
    command = f"import sys; sys.path.insert(0, {here!r}); import test_charts; print(test_charts.digests())"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(digests())


def test_a_faulty_crowd_can_be_drawn():
    plan = FaultPlan(drop=0.1, delay=0.2, duplicate=0.1, reorder=0.1)
    run = simulate(office, clerks=6, forms=20, faults=plan)
    for chart in CHARTS:
        assert chart(run).png().startswith(b"\x89PNG")
