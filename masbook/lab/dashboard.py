"""The dashboard: a scenario to play with, live, in a notebook.

The world runs in a thread of its own, paced; a task on the kernel's loop shows the newest frame about ten times a
second, and nothing else touches a widget. What is played has the digest of the same run without a dashboard.
"""

from __future__ import annotations

import asyncio
import html
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal

import ipywidgets as widgets

from ..errors import InvalidValue, MasbookError
from ..runtime.faults import FaultPlan
from ..runtime.run import Run, conclude
from ..runtime.world import Schedule, World
from .controls import Controls, Settings
from .live_view import LiveView, Picture
from .results import Results, as_text, panel

Phase = Literal["ready", "running", "paused", "stopping", "finished", "stopped", "failed"]

REFRESH = 0.1  # seconds of the wall clock between two frames
SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 1000.0, math.inf)


class Dashboard:
    """A scenario with controls, a live view, metrics, and at the end its charts and its digest.

    Each parameter of the scenario becomes a control by the rules of `ipywidgets.interact`. `speed` is how many virtual
    seconds pass in one of the wall clock. `expected` is how many virtual seconds a run is thought to last; the progress
    bar is measured against it, or else against the dashboard's last complete run; it is striped while neither is known.

        Dashboard(gpu_rush, agents=(2, 12), patience=(0.5, 10.0), seed=7)
    """

    def __init__(
        self,
        scenario: Callable[..., Coroutine[Any, Any, Any]],
        *,
        seed: int | str = 0,
        schedule: Schedule = "fifo",
        faults: FaultPlan | None = None,
        speed: float = 1.0,
        expected: float | None = None,
        **abbreviations: Any,
    ) -> None:
        for name, value in (("speed", speed), ("expected", expected)):
            if value is not None and not value > 0:
                raise InvalidValue(f"{name}={value!r}: give more than 0")
        self.scenario = scenario
        self.controls = Controls(scenario, seed, schedule, faults, abbreviations)
        self.phase: Phase = "ready"
        self.run: Run | None = None
        self._given = self._expected = expected
        self._world: World | None = None
        self._task: asyncio.Task[Run] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # built outside a loop, it can be looked at
            self._loop = asyncio.get_running_loop()
        self._build(speed)
        self._show("ready")

    # What can be done with it, from the kernel's loop

    def play(self) -> asyncio.Task[Run]:
        """Start a run, or go on with a paused one; return the task that ends with the Run."""
        if not self._active or self._task is None or self._world is None:
            return self._start(paused=False)
        if self.phase == "paused":
            self._show("running")
            self._world.resume()
        return self._task

    def pause(self) -> None:
        """Hold the run before its next event."""
        if self.phase == "running" and self._world is not None:
            self._world.pause()
            self._show("paused")

    def step(self) -> asyncio.Task[Run]:
        """Take one step, to the next event, of a paused run; pause a running one, or begin one, first."""
        if not self._active or self._task is None or self._world is None:
            return self._start(paused=True)
        self.pause()
        if self.phase == "paused":
            self._world.advance()
        return self._task

    def stop(self) -> None:
        """End the run; `run` is what there was of it."""
        if self._active and self._world is not None:
            self._show("stopping")
            self._world.stop()

    @property
    def _active(self) -> bool:
        return self.phase in ("running", "paused", "stopping")

    # One run

    def _start(self, paused: bool) -> asyncio.Task[Run]:
        settings = self.controls.settings()
        self._world = World(settings.seed, schedule=settings.schedule, faults=settings.faults)
        self.run = None
        self._error.value = ""
        self._results.clear()
        self._show("paused" if paused else "running")
        if paused:
            self._world.pause()
        self._task = asyncio.get_running_loop().create_task(self._live(self._world, settings, paused))
        return self._task

    async def _live(self, world: World, settings: Settings, paused: bool) -> Run:
        picture = Picture(world)
        follow = asyncio.create_task(self._follow(world, picture, paused))
        result, error = None, None
        with world:  # closed also when this task is cancelled
            try:
                if self.phase != "stopping":  # stopped before it began
                    result = await world.live(self.scenario(world, **settings.params), speed=self._speed.value)
            except Exception as raised:
                error = raised
                self._error.value = as_text(raised)
            finally:
                follow.cancel()
            seen = picture.frame()  # closing the world sends everybody home: show them as they were
            self.run = conclude(world, self.scenario, settings.params, result, error)
        self._draw({**picture.frame(), **{key: seen[key] for key in ("agents", "flights", "serial")}})
        self._show("failed" if error else "stopped" if self.phase == "stopping" else "finished")
        if self.phase == "finished":
            self._expected = self._given or self.run.time
            self._progress.value = 1.0
        self._results.show(self.run, settings, complete=self.phase != "stopped")
        return self.run

    async def _follow(self, world: World, picture: Picture, paused: bool) -> None:
        """Draw the newest frame again and again; begin a paused run with its first step."""
        if paused:
            world.advance()
        while True:
            self._draw(picture.frame())
            await asyncio.sleep(REFRESH)

    # What is shown

    def _build(self, speed: float) -> None:
        self.view = LiveView()
        self._status, self._error = panel("masbook-status"), panel("masbook-error")
        self._buttons = {
            "play": self._button("play", "Play", self.play),
            "pause": self._button("pause", "Pause", self.pause),
            "step": self._button("step-forward", "Step", self.step),
            "stop": self._button("stop", "Stop", self.stop),
        }
        self._speed = _speed_slider(speed)
        self._speed.observe(self._change_speed, "value")
        self._progress = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(flex="1 1 80px", width="auto"))
        self._progress.add_class("masbook-progress")
        self._results = Results()
        title = widgets.HTML(f'<b class="title">{html.escape(self.scenario.__name__)}</b>')
        self.widget = widgets.VBox(
            [
                _row("masbook-head", title, self._status),
                _row("masbook-transport", *self._buttons.values(), self._speed, self._progress),
                _row("masbook-body", self.controls.widget, self.view),
                self._error,
                self._results.widget,
            ]
        )
        self.widget.add_class("masbook-dashboard")

    def _button(self, icon: str, label: str, action: Callable[[], object]) -> widgets.Button:
        button = widgets.Button(description=label, icon=icon, layout=widgets.Layout(width="auto", flex="0 0 auto"))
        button.add_class(f"masbook-{label.lower()}")
        button.on_click(lambda _: self._soon(action))
        return button

    def _soon(self, action: Callable[[], object]) -> None:
        """Do what a button says on the kernel's loop: some kernels call buttons back in another thread."""
        loop = self._loop or asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._attempt, action)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it; what cannot be done is shown."""
        try:
            action()
        except MasbookError as error:
            self._error.value = as_text(error)

    def _change_speed(self, change: dict[str, Any]) -> None:
        if self._active and self._world is not None:
            self._world.set_speed(change["new"])

    def _draw(self, frame: dict[str, Any]) -> None:
        """Show a frame, and how far the run has come."""
        self.view.frame = {**frame, "expected": self._expected}
        if self._expected:
            self._progress.value = min(1.0, frame["time"] / self._expected)

    def _show(self, phase: Phase) -> None:
        """Enter a phase: say so, and enable what can be done in it."""
        self.phase = phase
        self._buttons["play"].disabled = phase in ("running", "stopping")
        self._buttons["pause"].disabled = phase != "running"
        self._buttons["step"].disabled = phase == "stopping"
        self._buttons["stop"].disabled = phase not in ("running", "paused")
        self.controls.enable(not self._active)
        striped = phase == "running" and not self._expected
        (self._progress.add_class if striped else self._progress.remove_class)("unknown")
        when = f" at {self.run.time:,.2f} s" if self.run is not None else ""
        self._status.value = f'<span class="masbook-chip {phase}">{phase}{when}</span>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Show the widget in a notebook, and the same text everywhere else."""
        return {**self.widget._repr_mimebundle_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return self.controls.settings().call(self.scenario.__name__).replace("simulate", "Dashboard", 1)


def _row(name: str, *children: widgets.Widget) -> widgets.HBox:
    row = widgets.HBox(children)
    row.add_class(name)
    return row


def _speed_slider(speed: float) -> widgets.SelectionSlider:
    options = [("max" if math.isinf(value) else f"{value:g}x", value) for value in sorted({*SPEEDS, speed})]
    layout = widgets.Layout(flex="0 1 230px", margin="0 8px")
    slider = widgets.SelectionSlider(options=options, value=speed, description="speed", layout=layout)
    slider.style.description_width = "48px"
    slider.add_class("masbook-speed")
    return slider
