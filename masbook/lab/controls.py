"""The controls of a dashboard: widgets for everything a run depends on, and the settings read from them.

The scenario's parameters become widgets by the rules of `ipywidgets.interact`, with ipywidgets' own machinery.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

import ipywidgets as widgets
from traitlets import TraitError

from ..errors import InvalidValue
from ..runtime.faults import FaultPlan
from ..runtime.run import prepare
from ..runtime.world import Schedule

RATES = ("drop", "delay", "duplicate", "reorder")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What one run depends on: the arguments of `simulate`."""

    params: dict[str, Any]
    seed: int | str
    schedule: Schedule
    faults: FaultPlan | None

    def call(self, scenario: str) -> str:
        """Return the Python call that repeats the run without a dashboard."""
        parts = [scenario, f"seed={self.seed!r}"]
        if self.schedule != "fifo":
            parts.append(f"schedule={self.schedule!r}")
        if self.faults is not None:
            parts.append(f"faults={_terse(self.faults)}")
        return f"simulate({', '.join([*parts, *(f'{name}={value!r}' for name, value in self.params.items())])})"


def _terse(plan: FaultPlan) -> str:
    """Return the call that makes the plan, with the fields only that are not at their defaults."""
    changed = [f for f in dataclasses.fields(plan) if getattr(plan, f.name) != f.default]
    return f"FaultPlan({', '.join(f'{f.name}={getattr(plan, f.name)!r}' for f in changed)})"


class Controls:
    """Widgets for the scenario's parameters, the seed, the schedule and the rates of faults.

    Raises InvalidValue for an abbreviation that fits no parameter or gives no widget, NotAsync for a scenario that is
    no coroutine function.
    """

    def __init__(
        self,
        scenario: Callable[..., Any],
        seed: int | str,
        schedule: Schedule,
        faults: FaultPlan | None,
        abbreviations: Mapping[str, Any],
    ) -> None:
        if schedule not in get_args(Schedule):
            raise InvalidValue(f"schedule={schedule!r}; choose one of {', '.join(get_args(Schedule))}")
        if not isinstance(faults, FaultPlan | None):
            raise InvalidValue(f"faults={faults!r}: give a FaultPlan, such as FaultPlan(drop=0.05)")
        self.params = parameter_widgets(scenario, abbreviations)
        self.seed = _seed_widget(seed)
        self.schedule = widgets.Dropdown(options=get_args(Schedule), value=schedule, description="order")
        self._plan = faults or FaultPlan()
        self.rates = {name: _rate_slider(name, getattr(self._plan, name)) for name in RATES}
        for name, widget in {**self.params, "seed": self.seed, "schedule": self.schedule, **self.rates}.items():
            if isinstance(widget, widgets.DOMWidget):
                _fit(widget, name)
        self.widget = widgets.VBox(self._rows())
        self.widget.add_class("masbook-controls")

    def settings(self) -> Settings:
        """Return what the widgets say now."""
        plan = dataclasses.replace(self._plan, **{name: widget.value for name, widget in self.rates.items()})
        return Settings(
            {name: widget.get_interact_value() for name, widget in self.params.items()},
            self.seed.value,
            self.schedule.value,
            None if plan == FaultPlan() else plan,
        )

    def enable(self, enabled: bool) -> None:
        """Let the widgets be changed, or not, as during a run."""
        for widget in (*self.params.values(), self.seed, self.schedule, *self.rates.values()):
            if isinstance(widget, widgets.DOMWidget) and widget.has_trait("disabled"):
                widget.disabled = not enabled

    def _rows(self) -> list[widgets.Widget]:
        shown = [widget for widget in self.params.values() if isinstance(widget, widgets.DOMWidget)]
        scenario = [_heading("Scenario"), *shown] if shown else []
        faults = [_heading("Faults"), *self.rates.values()]
        if self._plan.appointments:
            faults.append(_heading(f"and {len(self._plan.appointments)} by appointment"))
        return [*scenario, _heading("Luck"), self.seed, self.schedule, *faults]


def parameter_widgets(scenario: Callable[..., Any], abbreviations: Mapping[str, Any]) -> dict[str, Any]:
    """Return a widget for each parameter of the scenario after the world, as `ipywidgets.interact` would make it."""

    def stand_in(**params: Any) -> None:
        """Take the scenario's place: `interactive` wants something to call, which is never called here."""

    name = getattr(scenario, "__name__", repr(scenario))
    try:
        stand_in.__signature__ = inspect.Signature(_parameters(scenario))  # type: ignore[attr-defined]
        made = widgets.interactive(stand_in, {"manual": True}, **abbreviations).kwargs_widgets
    except (ValueError, TypeError, TraitError) as error:
        hint = "give it a value, (min, max), a list, a widget, or ipywidgets.fixed(value)"
        raise InvalidValue(f"{name}: {error}; {hint}") from error
    found = {widget._kwarg: widget for widget in made}
    prepare(scenario, {key: value for key, value in abbreviations.items() if key not in found} | dict.fromkeys(found))
    return found


def _parameters(scenario: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters after the world; annotations written as text are evaluated where that is possible."""
    try:
        signature = inspect.signature(scenario, eval_str=True)
    except NameError:
        signature = inspect.signature(scenario)
    return list(signature.parameters.values())[1:]


def _seed_widget(seed: int | str) -> Any:
    if isinstance(seed, bool) or not isinstance(seed, int | str):
        raise InvalidValue(f"seed={seed!r}: give a whole number or text")
    return (widgets.Text if isinstance(seed, str) else widgets.IntText)(value=seed, description="seed")


def _rate_slider(name: str, value: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(value=value, min=0, max=1, step=0.01, readout_format=".0%", description=name)


def _fit(widget: widgets.DOMWidget, name: str) -> None:
    """Line a control up with the others."""
    widget.add_class(f"masbook-control-{name}")
    widget.layout.width = "auto"
    if hasattr(widget, "style") and widget.style.has_trait("description_width"):
        widget.style.description_width = "86px"


def _heading(text: str) -> widgets.HTML:
    return widgets.HTML(f'<span class="masbook-heading">{text}</span>')
