"""Trends: the points are the means, the bars the intervals, whatever has been measured."""

from __future__ import annotations

import pandas as pd
import pytest

from masbook.errors import InvalidValue
from masbook.lab import charts
from masbook.lab.experiment import interval


@pytest.fixture
def table():
    rows = [
        {"seed": seed, "writers": writers, "way": way, "conflicts": writers * seed + (way == "line"), "note": "x"}
        for seed in range(5)
        for writers in (8, 2, 4)
        for way in ("version", "line")
    ]
    return pd.DataFrame(rows)


def test_the_points_are_the_means(table):
    chart = charts.trend(table, "conflicts", over="writers", by="way")
    lines = [line for line in chart.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in lines] == [[2, 4, 8]] * 2
    assert [list(line.get_ydata()) for line in lines] == [[4.0, 8.0, 16.0], [5.0, 9.0, 17.0]]
    assert [text.get_text() for text in chart.axes[0].get_legend().get_texts()] == ["version", "line"]


def test_the_bars_are_the_intervals(table):
    chart = charts.trend(table.query("way == 'line'"), "conflicts", over="writers")
    (bars,) = chart.axes[0].collections
    wanted = interval([8.0 * seed + 1 for seed in range(5)])
    (_, low), (_, high) = bars.get_segments()[2]
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert chart.axes[0].get_legend() is None


def test_one_run_has_no_interval(table):
    chart = charts.trend(table.query("seed == 3"), "conflicts", over="writers", by="way")
    assert not any(len(segment) for bars in chart.axes[0].collections for segment in bars.get_segments())
    assert [len(line.get_xdata()) for line in chart.axes[0].lines] == [3, 3]


def test_runs_without_the_number_are_counted(table):
    table.loc[0, "conflicts"] = None
    assert "(1 of 30 runs left out)" in charts.trend(table, "conflicts", over="writers").axes[0].get_title("left")
    nothing = charts.trend(table.iloc[:1], "conflicts", over="writers")
    assert "no run gave such a number" in [text.get_text() for text in nothing.axes[0].texts]


def test_equal_tables_give_equal_bytes(table):
    draw = lambda: charts.trend(table, "conflicts", over="writers", by="way").png()  # noqa: E731
    assert draw() == draw() != charts.trend(table, "conflicts", over="writers").png()


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "nothing"},
        {"over": "nothing"},
        {"by": "nothing"},
        {"metric": "note"},
        {"over": "way"},
    ],
)
def test_bad_input(table, wrong):
    with pytest.raises(InvalidValue):
        charts.trend(table, **{"metric": "conflicts", "over": "writers", "by": "way", **wrong})


def test_a_spread_has_a_row_for_each_group(table):
    chart = charts.spread(table, "conflicts", by=["way", "writers"])
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == ["version · 8", "line · 8", "version · 2", "line · 2", "version · 4", "line · 4"]
    medians = [line.get_xdata()[0] for line in chart.axes[0].lines]
    assert medians == [16.0, 17.0, 4.0, 5.0, 8.0, 9.0]
    middle = chart.axes[0].collections[1].get_segments()[0]
    assert [point[0] for point in middle] == [8.0, 24.0]
    assert charts.spread(table, "conflicts", "way").png() == charts.spread(table, "conflicts", ["way"]).png()


def test_a_spread_of_nothing_says_so_and_of_texts_is_refused(table):
    nothing = charts.spread(table.iloc[:0], "conflicts", by="way")
    assert "there are no numbers to show" in [text.get_text() for text in nothing.axes[0].texts]
    with pytest.raises(InvalidValue, match="no column 'where'"):
        charts.spread(table, "conflicts", by="where")
    with pytest.raises(InvalidValue, match="'note' has to be a number"):
        charts.spread(table, "note", by="way")
