"""The Gantt chart and the graph of tasks, by what is drawn in them: bars, colours, the critical path, lines, names."""

from __future__ import annotations

import pytest
from fabricated import Book, layers, report
from matplotlib.colors import to_hex
from test_charts import legend, overlapping, texts, title

from masbook.errors import InvalidValue
from masbook.lab import charts, frames
from masbook.lab.style import BLACK, PALE, TASKS
from masbook.runtime.trace import Trace

CHARTS = [charts.gantt, charts.dag]


def bars(figure, colour):
    """The bars of that colour: left end, row, width."""
    found = [bar for bar in figure.axes[0].patches if to_hex(bar.get_facecolor()) == colour.lower()]
    return [(bar.get_x(), round(bar.get_y() + bar.get_height() / 2, 3), bar.get_width()) for bar in found]


def rows(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def framed(figure):
    """How many bars have the black edge of the critical path."""
    return sum(to_hex(bar.get_edgecolor(), keep_alpha=True) == f"{BLACK}ff" for bar in figure.axes[0].patches)


@pytest.mark.parametrize("chart", CHARTS)
def test_where_there_are_no_tasks_the_chart_says_so(chart):
    assert texts(chart(Trace.full())) == ["no task was added"]


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("trace", [report(), layers(30, 5, 3), layers(200, 20, 8)], ids=["5", "30", "200"])
def test_labels_never_meet_and_equal_traces_give_equal_bytes(chart, trace):
    figure = chart(trace)
    assert overlapping(figure) == []
    assert figure.png() == chart(trace).png()


def test_gantt_has_a_row_for_each_task_in_the_order_of_beginning():
    figure = charts.gantt(report())
    assert rows(figure) == ["ingest", "images", "texts", "summary", "archive"]
    assert title(figure) == "Tasks over time: 3 of 5 completed"
    assert figure.axes[0].get_xlim() == (0.0, 7.0) and figure.axes[0].get_xlabel() == "time (virtual seconds)"
    assert bars(figure, TASKS["completed"]) == [(0.0, 0.0, 2.0), (0.5, 1.0, 3.5), (3.5, 2.0, 1.5)]
    assert bars(figure, TASKS["failed"]) == [(2.5, 2.0, 0.5)]
    assert bars(figure, TASKS["timed_out"]) == [(5.0, 3.0, 2.0)]
    assert legend(figure) == ["completed", "failed", "timed out", "waiting", "critical path"]
    assert texts(figure) == ["data_1", "image_1", "text_1, text_2", "data_1", "skipped: summary timed_out"]


def test_gantt_shows_waiting_pale_from_when_a_task_was_ready():
    assert bars(charts.gantt(report()), PALE)[:4] == [
        (0.0, 0.0, 2.0),
        (0.0, 1.0, 4.0),
        (2.0, 2.0, 3.0),
        (5.0, 3.0, 2.0),
    ]


def test_gantt_frames_the_critical_path_and_links_it():
    figure = charts.gantt(report())
    assert framed(figure) == 4  # ingest, both attempts at texts, summary
    links = [list(zip(*line.get_data(), strict=True)) for line in figure.axes[0].lines]
    assert links == [[(2.0, 0), (2.0, 2), (2.5, 2)], [(5.0, 2), (5.0, 3), (5.0, 3)]]


def test_a_critical_path_that_is_not_there_is_not_drawn():
    book = Book()
    book.add("a", "b")
    book.work("a", "x", 0.0, 1.0)
    for chart in CHARTS:
        figure = chart(book.trace)
        assert framed(figure) == 0 and "critical path" not in legend(figure)


def test_gantt_of_many_tasks_has_a_row_for_each_agent_and_one_for_those_that_wait():
    figure = charts.gantt(layers(200, 20, 8))
    assert rows(figure) == [f"a{i}" for i in range(8)] + ["waiting"]
    assert texts(figure) == ["at most 14", *["30 tasks"] * 4, *["20 tasks"] * 4]
    drawn = bars(figure, TASKS["completed"]) + bars(figure, TASKS["failed"])
    assert len(drawn) == 200 and {row for _, row, _ in drawn} == set(range(8))
    assert figure.get_figheight() < 6
    assert framed(figure) == frames.tasks(layers(200, 20, 8))["critical"].sum() == 10


def test_gantt_can_be_asked_for_either():
    assert len(rows(charts.gantt(layers(50, 5, 2), by="task"))) == 50
    assert rows(charts.gantt(report(), by="agent")) == ["data_1", "image_1", "text_1", "text_2", "waiting"]
    with pytest.raises(InvalidValue, match="choose 'task' or 'agent'"):
        charts.gantt(report(), by="colour")


def test_an_agent_that_does_several_at_a_time_has_several_rows():
    book = Book()
    book.add("a", "b", "c")
    for task, start in (("a", 0.0), ("b", 0.5)):
        book.at(start, "task_started", "x", workflow="w", task=task, attempt=1)
    book.at(1.0, "task_ended", "boss", workflow="w", task="a", status="completed")
    book.at(1.0, "task_started", "x", workflow="w", task="c", attempt=1)
    book.at(2.0, "task_ended", "boss", workflow="w", task="b", status="completed")
    book.at(3.0, "note", "boss", text="c runs on")
    figure = charts.gantt(book.trace, by="agent")
    assert rows(figure) == ["x", "", "waiting"]
    assert bars(figure, TASKS["completed"]) == [(0.0, 0.0, 1.0), (0.5, 1.0, 1.5)]
    assert bars(figure, TASKS["running"]) == [(1.0, 0.0, 2.0)]


def test_gantt_of_an_instant_is_drawn():
    book = Book()
    book.add("a")
    book.work("a", "x", 0.0, 0.0)
    assert charts.gantt(book.trace).axes[0].get_xlim() == (0.0, 1.0)


def test_dag_puts_each_task_to_the_right_of_what_it_comes_after():
    figure = charts.dag(report())
    assert sorted(texts(figure, "task")) == ["archive", "images", "ingest", "summary", "texts"]
    left = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert left["ingest"] == left["images"] < left["texts"] < left["summary"] < left["archive"]
    assert legend(figure) == ["completed", "timed out", "skipped", "critical path"]
    assert len(bars(figure, TASKS["skipped"])) == 1 and framed(figure) == 3
    plain, critical = figure.axes[0].collections
    assert (len(plain.get_segments()), len(critical.get_segments())) == (3, 2)


def test_a_line_of_the_graph_passes_between_the_boxes_of_the_layers_it_crosses():
    figure = charts.dag(report())
    long = [line for line in figure.axes[0].collections[0].get_segments() if len(line) == 4]
    assert len(long) == 2  # from ingest and images past texts to summary
    for _, (x, y), (_, same), _ in long:
        boxes = [bar for bar in figure.axes[0].patches if bar.get_x() == x]
        assert y == same and boxes and all(abs(bar.get_y() + bar.get_height() / 2 - y) >= 0.5 for bar in boxes)


def test_a_task_after_one_that_nobody_knows_is_drawn_all_the_same():
    book = Book()
    book.add("a", after=["elsewhere"])
    assert texts(charts.dag(book.trace), "task") == ["a"]
    assert charts.gantt(book.trace).png().startswith(b"\x89PNG")


@pytest.mark.parametrize("after", [[], ["elsewhere"]])
def test_many_tasks_that_nobody_has_begun_are_drawn(after):
    book = Book()
    book.add(*[f"t{i}" for i in range(50)], after=after)
    book.at(5.0, "note", "boss", text="the end")
    assert texts(charts.gantt(book.trace)) == ["at most 0" if after else "at most 50"]
    assert len(texts(charts.dag(book.trace), "task")) == 50


def test_tasks_of_no_workflow_with_long_names_and_odd_endings_are_drawn():
    book = Book()
    book.add("a" * 60, "b", workflow=None)
    book.at(1.0, "task_started", "x" * 60, workflow=None, task="b", attempt=1)
    book.at(2.0, "task_ended", "boss", workflow=None, task="b", status="of its own")
    assert texts(charts.gantt(book.trace)) == [f"{'x' * 39}…", "waiting: no agent yet"]
    assert f"{'a' * 29}…" in texts(charts.dag(book.trace), "task")


def test_names_are_left_out_where_they_would_be_illegible():
    figure = charts.dag(layers(400, 10, 5))
    assert texts(figure) == [] and title(figure) == "What comes after what: 400 tasks"
    sizes = [text.get_fontsize() for text in charts.dag(layers(200, 20, 5)).axes[0].texts]
    assert len(sizes) == 200 and min(sizes) >= 5


def test_two_workflows_with_the_same_names_stand_apart():
    book = Book()
    for name in ("one", "two"):
        book.add("a", workflow=name)
        book.add("b", workflow=name, after=["a"])
    figure = charts.dag(book.trace)
    assert sorted(texts(figure, "task")) == ["one a", "one b", "two a", "two b"]
    assert len(figure.axes[0].collections[0].get_segments()) == 2
    assert rows(charts.gantt(book.trace)) == ["one a", "one b", "two a", "two b"]
