"""The look that all charts share: one palette in a fixed order, one font, one resolution.

`drawing` gives a chart its canvas and fixes its layout afterwards, so that the same data always give the same bytes,
however the user's matplotlib is set up. Charts never enter pyplot: they leave no state behind and are shown once.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib.style
import pandas as pd
from IPython.display import publish_display_data
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# The palette of Okabe and Ito, which people with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW, BLACK)
INK, GREY, PALE = "#333333", "#8A8A8A", "#E3E3E3"  # text; what matters less; what is merely there

# What has which colour, in the order of the legend: agents, their health, who holds, requests, tasks, conflicts.
STATES = {"idle": PALE, "busy": BLUE, "error": VERMILLION, "offline": "#FFFFFF"}
HEALTH = {"healthy": GREEN, "degraded": ORANGE, "unhealthy": VERMILLION, "removed": PALE}
HOLDS = {"waiting": ORANGE, "holding": BLUE}
OUTCOMES = {"reply": GREEN, "error": VERMILLION, "timed_out": ORANGE, "dead": BLACK, "cancelled": SKY, "pending": PALE}
TASKS = {"completed": GREEN, "failed": VERMILLION, "timed_out": ORANGE, "cancelled": SKY, "skipped": PURPLE}
TASKS |= {"running": BLUE, "waiting": PALE}
ENDS = {
    "resolved": GREEN,
    "escalated": ORANGE,
    "person": SKY,
    "default": PURPLE,
    "unresolved": VERMILLION,
    "open": PALE,
}

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": PALE,
}
DPI = 100
TIME = "time (virtual seconds)"


class Chart(Figure):
    """A figure that a notebook shows by itself, in the same bytes with and without `%matplotlib inline`."""

    def png(self) -> bytes:
        """Return the picture as PNG; equal data give equal bytes."""
        file = BytesIO()
        with matplotlib.style.context(["default", STYLE]):
            self.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        return file.getvalue()

    def _ipython_display_(self) -> None:
        """Show the picture. IPython asks for this before it asks what `%matplotlib inline` has set up for figures."""
        picture = base64.b64encode(self.png()).decode()
        publish_display_data({"text/plain": repr(self), "image/png": picture})  # type: ignore[no-untyped-call]


@contextmanager
def drawing(title: str, width: float, height: float) -> Iterator[tuple[Chart, Axes]]:
    """Give an empty chart of that size in inches and its axes to draw on; its layout is fixed afterwards."""
    with panels(title, width, height, (1,)) as (chart, (axes,)):
        yield chart, axes


@contextmanager
def panels(title: str, width: float, height: float, ratios: Sequence[float]) -> Iterator[tuple[Chart, list[Axes]]]:
    """Give an empty chart with axes side by side, which have these shares of its width and the same rows."""
    with matplotlib.style.context(["default", STYLE]):
        chart = Chart(figsize=(width, height), dpi=DPI, layout="constrained")
        (row,) = chart.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)
        row[0].set_title(title)
        yield chart, list(row)
        for legend in (axes.get_legend() for axes in row if len(row) > 1):
            if legend is not None:  # it may reach over its neighbours, above which there is nothing
                legend.set_in_layout(False)
        chart.draw_without_rendering()
        chart.set_layout_engine("none")


def blank(title: str, why: str) -> Chart:
    """Return a chart that has nothing to show, and says why."""
    with drawing(title, 7, 1.6) as (chart, axes):
        axes.set_axis_off()
        axes.text(0.5, 0.5, why, ha="center", va="center", color=GREY, fontsize=11, transform=axes.transAxes)
    return chart


def key(axes: Axes, handles: Sequence[Artist]) -> None:
    """Write the legend between the title and the chart, where it hides nothing, on as few lines as it needs."""
    if handles:
        columns = max(1, int(axes.get_figure(root=True).get_figwidth() / 1.1))  # type: ignore[union-attr]
        lines = -(-len(handles) // columns)
        spacing: dict[str, Any] = {"handlelength": 1.6, "handletextpad": 0.5, "columnspacing": 1.4, "borderpad": 0.2}
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1, "frameon": False}
        axes.legend(handles=handles, ncols=columns, **place, **spacing)
        axes.set_title(axes.get_title("left"), pad=7 + 17 * lines)


def swatches(colours: dict[str, str], seen: Sequence[str]) -> list[Artist]:
    """Return a patch for the legend for each of the names that was seen, in the order of the colours."""
    return [
        Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=name.replace("_", " "))
        for name, colour in colours.items()
        if name in seen
    ]


def stack(axes: Axes, row: int, parts: pd.Series[Any], colours: dict[str, str]) -> None:
    """Draw a bar of parts in a row, in the order of their colours."""
    left = 0.0
    for name, colour in colours.items():
        axes.barh(row, parts.get(name, 0), 0.72, left, color=colour)
        left += parts.get(name, 0)


def row_size(rows: int) -> tuple[float, float]:
    """Return the height of a row in inches and the size of its text in points; both shrink where rows are many."""
    height = min(0.34, max(0.13, 14 / max(rows, 1)))
    return height, min(9.0, height * 72 * 0.7)


def label_rows(axes: Axes, names: Sequence[str], size: float) -> None:
    """Name the rows from top to bottom, without an axis."""
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def note_row(axes: Axes, row: int, text: str, size: float) -> None:
    """Write a remark to the right of a row."""
    axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=size)


def shortened(text: str, length: int) -> str:
    """Return the text, cut with an ellipsis where it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def text_width(text: str, size: float) -> float:
    """Return about how many inches a text takes at a size in points."""
    return 0.62 * size * len(text) / 72
