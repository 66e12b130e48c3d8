"""Quality: the table says what was judged, the scores are those of the textbooks, the charts show both."""

from __future__ import annotations

import pandas as pd
import pytest

from masbook import World
from masbook.errors import InvalidValue
from masbook.lab import charts, quality, records
from masbook.lab.verdicts import wilson
from masbook.llm import AnalysisPanel, scripted

TICKETS = records("tickets.csv")


def evaluated(tickets, **options):
    with World(seed=5) as world:
        panel = world.spawn(AnalysisPanel("panel", **options))
        task = quality.dataset(tickets).evaluate(panel.analyse, progress=False, max_concurrency=5)
        return quality.judgements(world.run(task))


@pytest.fixture
def table():
    """Made up: `a` is right in three of four, at confidence .75 each; `b` never answers `t4`."""
    rows = [
        ("t1", "a", "low", "low", True, 0.75),
        ("t2", "a", "low", "low", True, 0.75),
        ("t3", "a", "high", "high", True, 0.75),
        ("t4", "a", "high", "low", False, 0.75),
        ("t1", "b", "negative", "positive", False, 0.95),
        ("t2", "b", "positive", "positive", True, 0.95),
        ("t3", "b", "neutral", "neutral", True, 0.55),
        ("t4", "b", "negative", None, None, None),
    ]
    found = pd.DataFrame(rows, columns=["ticket", "agent", "expected", "label", "right", "confidence"])
    return found.astype({"right": "boolean", "label": "str"}).assign(seconds=1.0, error=None)


def texts(chart):
    return [text.get_text() for text in chart.axes[0].texts]


def test_judgements_have_a_row_for_each_ticket_and_agent():
    table = evaluated(TICKETS[:6], model="offline:instant")
    assert list(table["ticket"]) == [row["id"] for row in TICKETS[:6] for _ in range(4)]
    assert list(table["agent"][:4]) == ["sentiment", "technical", "business", "risk"]
    assert list(table["expected"][:4]) == [TICKETS[0][name] for name in ("sentiment", "complexity", "impact", "risk")]
    assert (table["right"] == (table["label"] == table["expected"])).all()
    assert table["error"].isna().all()
    assert table["confidence"].between(0, 1).all()


def test_what_was_not_answered_is_neither_right_nor_wrong():
    table = evaluated(TICKETS[:3], model={"risk": scripted(matching={"": ValueError("no idea")})})
    lost = table[table["agent"] == "risk"]
    assert lost[["label", "right", "confidence"]].isna().all(axis=None)
    assert lost["error"].str.contains("no idea").all()
    scores = quality.scores(table).set_index("agent")
    assert scores.loc["risk", ["tickets", "answered"]].tolist() == [3, 0]
    assert scores.loc[["risk"], ["accuracy", "low", "high", "calibration_error"]].isna().sum(axis=None) >= 3
    assert scores.loc["business", "answered"] == 3


def test_a_ticket_without_a_label_is_refused():
    with pytest.raises(InvalidValue, match="'T0001' has no label for risk"):
        quality.dataset([TICKETS[0] | {"risk": None}])


def test_scores_are_shares_of_what_was_answered(table):
    scores = quality.scores(table).set_index("agent")
    assert scores["tickets"].tolist() == [4, 4]
    assert scores["answered"].tolist() == [4, 3]
    assert scores["accuracy"].tolist() == pytest.approx([3 / 4, 2 / 3])
    assert scores["majority"].tolist() == [0.5, 0.5]
    assert scores["confidence"].tolist() == pytest.approx([0.75, (0.95 + 0.95 + 0.55) / 3])
    assert scores["calibration_error"].tolist() == pytest.approx([0, (0.9 + 0.45) / 3])
    assert (scores["low"] < scores["accuracy"]).all()
    assert (scores["accuracy"] < scores["high"]).all()


def test_the_interval_is_wilsons():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # Newcombe 1998, table I, method 3
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert all(value != value for value in wilson(0, 0))


def test_the_cells_of_the_confusion_count_tickets(table):
    chart = charts.confusion(table, "a")
    assert texts(chart) == ["2", "0", "0", "0", "0", "0", "1", "0", "1"]
    assert [label.get_text() for label in chart.axes[0].get_yticklabels()] == ["low", "medium", "high"]
    assert chart.axes[0].get_title("left") == "Confusion of a: 75% of 4 right"
    with pytest.raises(InvalidValue, match="it has a, b"):
        charts.confusion(table, "c")


def test_the_points_of_the_calibration_are_accuracies(table):
    first, second = charts.calibration(table).axes
    assert [tuple(dots.get_offsets()[0]) for dots in first.collections[1::2]] == [(0.75, 0.75)]
    assert [tuple(dots.get_offsets()[0]) for dots in second.collections[1::2]] == [(0.55, 1.0), (0.95, 0.5)]
    (low, high) = (point[1] for point in first.collections[0].get_segments()[0])
    assert (low, high) == pytest.approx(wilson(3, 4))


def test_agreement_is_the_share_of_equal_levels(table):
    assert texts(charts.agreement(table)) == ["100%", "67%", "67%", "100%"]
    models = table[table["agent"] == "a"].assign(model="one")
    both = pd.concat([models, models.assign(model="two", label=["low", "high", "high", "low"])])
    assert texts(charts.agreement(both, by="model")) == ["100%", "75%", "75%", "100%"]
    assert texts(charts.agreement(models, by="model")) == ["it takes two to agree"]


def test_where_nothing_was_answered_the_charts_say_so(table):
    nothing = table.assign(label=pd.Series([None] * 8, dtype="str"))
    assert texts(charts.confusion(nothing, "a")) == texts(charts.calibration(nothing)) == ["no ticket was answered"]


def test_equal_tables_give_equal_bytes(table):
    for draw in (charts.calibration, charts.agreement, lambda table: charts.confusion(table, "a")):
        assert draw(table).png() == draw(table.copy()).png()
