"""The charts of conflicts and of teams, by what is drawn in them."""

from __future__ import annotations

import pandas as pd
import pytest
from fabricated import Book, report, rush, team
from test_charts import legend, overlapping, texts, title

from masbook.errors import InvalidValue
from masbook.lab import charts, frames
from masbook.lab.style import ENDS
from masbook.runtime.trace import Trace


def shares(axes):
    """Row, left end and width of the bars that are there."""
    found = [(round(bar.get_y() + bar.get_height() / 2), bar.get_x(), bar.get_width()) for bar in axes.patches]
    return [tuple(round(value, 2) for value in bar) for bar in found if bar[2]]


def names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def marks(axes):
    return [
        tuple(round(float(data[0]), 3) for data in line.get_data()) for line in axes.lines if len(line.get_xdata()) == 1
    ]


def test_where_there_is_nothing_the_charts_say_so():
    assert texts(charts.conflicts(Trace.full())) == ["there was no conflict"]
    assert texts(charts.hierarchy(Trace.full())) == ["nobody has joined a team"]


def test_conflicts_by_strategy():
    figure = charts.conflicts(rush(4))
    ends, times, satisfied = figure.axes
    assert title(figure) == "Conflicts by strategy"
    assert names(figure) == ["none", "person", "voting"]
    assert shares(ends) == [(0, 0, 100), (1, 0, 100), (2, 0, 100)]
    assert legend(figure) == ["resolved", "person", "open", "mean satisfaction", "mean fairness"]
    assert marks(satisfied)[2:] == [(1.0, 1.0), (1.0, 1.0), (0.5, 2.0), (0.6, 2.0)]
    assert [text.get_text() for text in satisfied.texts] == ["n = 1", "n = 1", "n = 2"]
    assert [times.get_xlabel(), times.get_xlim()[0]] == ["time to the end (virtual seconds)", 0]


def test_conflicts_joined_from_many_runs_by_a_column_of_ones_own():
    joined = pd.concat([frames.conflicts(rush(n)).assign(asked=f"rule {n}") for n in (6, 3)])
    figure = charts.conflicts(joined, by="asked")
    assert names(figure) == ["rule 3", "rule 6"]
    assert shares(figure.axes[0]) == [
        (0, 0, 66.67),
        (0, 66.67, 33.33),
        (1, 0, 66.67),
        (1, 66.67, 16.67),
        (1, 83.33, 16.67),
    ]
    assert "1" not in names(charts.conflicts(joined, by="type"))


def test_what_is_no_frame_of_conflicts_is_refused():
    with pytest.raises(InvalidValue, match="no column 'outcome'"):
        charts.conflicts(frames.tasks(report()))
    with pytest.raises(InvalidValue, match="no column 'colour'"):
        charts.conflicts(rush(), by="colour")
    with pytest.raises(InvalidValue, match="give a Run"):
        charts.conflicts(17)


def test_outcomes_keep_their_colours():
    assert list(ENDS) == ["resolved", "escalated", "person", "default", "unresolved", "open"]
    assert len(set(ENDS.values())) == len(ENDS)


@pytest.mark.parametrize("number", [1, 2, 60])
def test_labels_of_conflicts_never_meet(number):
    figure = charts.conflicts(rush(number))
    assert overlapping(figure) == [] and figure.png() == charts.conflicts(rush(number)).png()


def test_hierarchy_is_a_tree_from_the_top_down():
    figure = charts.hierarchy(team())
    tree, bars = figure.axes
    assert texts(figure, "member") == ["lead", "ann", "worker_0", "bob", "worker_1"]
    depth = [text.xy[0] for text in tree.texts if text.get_gid() == "member"]
    assert depth[0] < depth[1] == depth[3] < depth[2] == depth[4]
    assert texts(figure, "role") == ["supervisor", "specialist", "worker", "specialist", "worker"]
    assert shares(bars) == [(0, 0, 1), (1, 0, 1), (1, 1, 1), (2, 0, 1)]
    assert legend(figure) == ["completed", "failed", "running"]
    assert [text.get_text() for text in bars.texts] == (
        ["15% of capacity", "30% of capacity", "10% of capacity, 1 escalated", "0% of capacity", "0% of capacity"]
    )


def test_a_team_that_has_done_nothing_yet_is_drawn():
    book = Book()
    book.at(0.0, "joined", "ann", team="t", role="worker", superior="somebody elsewhere", skills={}, capacity=1)
    figure = charts.hierarchy(book.trace)
    assert texts(figure, "member") == ["ann"] and legend(figure) == []


@pytest.mark.parametrize("workers", [1, 40])
def test_labels_of_members_never_meet(workers):
    figure = charts.hierarchy(team(workers))
    assert len(texts(figure, "member")) == 3 + workers
    assert overlapping(figure) == [] and figure.png() == charts.hierarchy(team(workers)).png()
