"""The desk of a person: what is pending is shown, a click decides, and nobody is waited for in vain."""

from __future__ import annotations

import asyncio

import ipywidgets as widgets
import pytest

from masbook import Conflict, ConflictResolver, Participant, World, simulate
from masbook.lab import Desk


def dispute(text="two want <gpu_1>"):
    parties = [Participant("a", {"resource": "gpu_1"}), Participant("b", {"resource": "gpu_1"}, priority=2)]
    return Conflict("resource_contention", text, parties)


def shown(desk, kind):
    """All widgets of a kind on the desk, from the top down."""
    found, open_ = [], [desk.widget]
    while open_:
        widget = open_.pop(0)
        found += [widget] if isinstance(widget, kind) else []
        open_ = [*getattr(widget, "children", ()), *open_]
    return found


async def pending(desk):
    while not (buttons := shown(desk, widgets.Button)):
        await asyncio.sleep(0.005)
    return {button.description: button for button in buttons}


def test_a_click_decides():
    async def main():
        desk = Desk("no answer: the default")
        with World() as world:
            resolver = world.spawn(ConflictResolver(ask_person=desk, patience=1e6))
            live = asyncio.create_task(world.live(resolver.resolve(dispute(), ["person"]), speed=10.0))
            buttons = await pending(desk)
            assert list(buttons) == ["b", "a"]  # by rank
            text = "".join(line.value for line in shown(desk, widgets.HTML))
            assert "two want &lt;gpu_1&gt;" in text and "priority 2" in text and "no answer: the default" in text
            while world.now < 0.5:
                await asyncio.sleep(0.005)
            buttons["a"].click()
            resolution = await live
            assert resolution.winner == "a" and resolution.seconds >= 0.5
            await asyncio.sleep(0)
            assert not shown(desk, widgets.Button)

    asyncio.run(main())


def test_a_click_that_comes_too_late_decides_nothing():
    async def main():
        desk = Desk()
        with World() as world:
            resolver = world.spawn(ConflictResolver(ask_person=desk, patience=0.5))
            live = asyncio.create_task(world.live(resolver.resolve(dispute(), ["person", "priority"]), speed=10.0))
            buttons = await pending(desk)
            resolution = await live
            buttons["a"].click()
            assert resolution.winner == "b" and world.run(resolver.resolve(resolution.conflict)) is resolution

    asyncio.run(main())


async def nobody_there(world, desk):
    resolver = world.spawn(ConflictResolver(ask_person=desk, patience=20.0, default="priority"))
    parties = [Participant(name, {"n": i}) for i, name in enumerate("abc")]
    ends = [await resolver.resolve(Conflict("priority", "x", parties), "person") for _ in range(3)]
    return [end.seconds for end in ends]


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_run_that_nobody_watches_goes_on_and_is_the_same(looked_at):
    async def made():
        return Desk()

    desk = asyncio.run(made()) if looked_at else Desk()
    run = simulate(nobody_there, desk=desk)
    assert run.ok and run.result == [20.0] * 3
    assert run.digest == simulate(nobody_there, desk=Desk()).digest


def test_it_shows_itself():
    desk = Desk("a note")
    assert "nothing is pending" in "".join(line.value for line in shown(desk, widgets.HTML))
    bundle = desk._repr_mimebundle_()
    assert bundle["text/plain"] == repr(desk) == "Desk('a note')"
