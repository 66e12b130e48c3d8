"""What a dashboard shows when a run has ended: its result, its digest, the call that repeats it, and its charts."""

from __future__ import annotations

import base64
import html
import traceback

import ipywidgets as widgets
import numpy

from ..runtime.run import Run
from . import charts
from .controls import Settings

CHARTS = ("sequence", "timeline", "latency", "success", "topology")
SPECIAL = {"gantt": "task_added", "dag": "task_added", "conflicts": "conflict", "hierarchy": "joined"}  # by kind of row


class Results:
    """What a finished run gives: its digest, the call that repeats it, and its charts, drawn when looked at."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._digest = panel("masbook-digest")
        self._charts = {name: panel("masbook-chart") for name in (*CHARTS, *SPECIAL)}
        self._names = list(CHARTS)
        self._tabs = widgets.Tab()
        self._tabs.observe(lambda _: self._draw(), "selected_index")
        self.widget = widgets.VBox([self._digest, self._tabs])
        self.widget.add_class("masbook-results")
        self.clear()

    def clear(self) -> None:
        """Show nothing, until the next run has ended."""
        self._run = None
        self.widget.layout.display = "none"
        for panel in (self._digest, *self._charts.values()):
            panel.value = ""

    def show(self, run: Run, settings: Settings, complete: bool) -> None:
        """Show a run; one that was stopped cannot be repeated, so that it has no digest to compare."""
        self._run = run
        facts = {"result": _plainly(run.result)} if run.ok else {}
        facts |= {"digest": run.digest, "repeat it with": settings.call(run.scenario)}
        if not complete:
            facts = {"stopped by hand": "so there is no digest to compare"}
        rows = "".join(f"<dt>{name}</dt><dd><code>{html.escape(text)}</code></dd>" for name, text in facts.items())
        self._digest.value = f"<dl>{rows}</dl>"
        self.widget.layout.display = ""
        self._names = [*CHARTS, *(name for name, kind in SPECIAL.items() if run.trace.count(kind))]
        self._tabs.children = [self._charts[name] for name in self._names]
        self._tabs.titles = [name.capitalize() for name in self._names]
        self._draw()

    def _draw(self) -> None:
        name = self._names[self._tabs.selected_index or 0]
        if self._run is None or self._charts[name].value:
            return
        try:
            picture = getattr(charts, name)(self._run).png()
        except Exception as error:  # a run without its chart is still a run
            self._charts[name].value = as_text(error)
        else:
            data = base64.b64encode(picture).decode()
            self._charts[name].value = f'<img alt="{name}" src="data:image/png;base64,{data}">'


def as_text(error: Exception) -> str:
    """Return the error as HTML: its type and what it says."""
    return f"<pre>{html.escape(''.join(traceback.format_exception_only(error)))}</pre>"


def panel(name: str) -> widgets.HTML:
    """Return an empty piece of HTML of that class."""
    panel = widgets.HTML()
    panel.add_class(name)
    return panel


def _plainly(result: object) -> str:
    """Return the result as text; numbers of NumPy as any other."""
    with numpy.printoptions(legacy="1.25"):
        return repr(result)
