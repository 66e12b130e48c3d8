"""The files of data/ and the agent that reads them, against numbers computed with csv and plain Python."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from statistics import correlation, fmean, pstdev, stdev

import pandas as pd
import pytest

from masbook import Agent, World, simulate
from masbook.errors import InvalidInput, InvalidValue
from masbook.lab import DataProcessor, data_path, load
from masbook.lab.data import records
from masbook.lab.insights import analyze

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def world():
    with_agents = World(seed=7)
    with_agents.spawn(DataProcessor("data"))
    with_agents.spawn(Agent("client"))
    yield with_agents
    with_agents.close()


@pytest.fixture
def ask(world):
    """Ask by message; returns the answer."""

    def ask(path, **inputs):
        return world.run(world.agents["client"].request("data", "process_data", path=str(path), **inputs))

    return ask


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture(scope="module")
def orders():
    with (DATA / "orders.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows, column):
    return [float(row[column]) for row in rows if row[column]]


def quantile(values, share):
    """Linear interpolation between the closest ranks."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def insights(answer, kind):
    return [insight for insight in answer["insights"] if insight["kind"] == kind]


close = pytest.approx


class TestFiles:
    @pytest.mark.parametrize("name", ["tickets.csv", "data/tickets.csv", DATA / "tickets.csv"])
    def test_a_file_is_found_by_name_from_anywhere(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert data_path(name).samefile(DATA / "tickets.csv")

    def test_a_data_folder_above_comes_before_that_of_the_project(self, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        (tmp_path / "notebooks").mkdir()
        own = tmp_path / "data" / "tickets.csv"
        own.write_text("id\n1\n")
        monkeypatch.chdir(tmp_path / "notebooks")
        assert data_path("tickets.csv") == data_path("data/tickets.csv") == own
        assert data_path("orders.csv").samefile(DATA / "orders.csv")

    @pytest.mark.parametrize("name", ["ticket.csv", "", "data", "data/../nothing.csv"])
    def test_a_missing_file_is_an_error_that_lists_those_there_are(self, name):
        with pytest.raises(InvalidValue, match=r"orders\.csv, stocks\.csv, tickets\.csv, weather\.csv"):
            data_path(name)

    @pytest.mark.parametrize("name", ["tickets.csv", "orders.csv", "weather.csv", "stocks.csv"])
    def test_tables_have_the_rows_and_columns_of_the_file(self, name):
        with (DATA / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        frame = load(name)
        assert len(frame) == len(rows) and list(frame) == list(rows[0])
        assert {column: int(frame[column].isna().sum()) for column in frame} == {
            column: sum(not row[column] for row in rows) for column in rows[0]
        }

    def test_columns_have_sensible_types(self):
        frame = load("orders.csv")
        assert frame["date"].dt.month.max() == 12
        assert frame["delivery_days"].dtype == "Int64" and frame["quantity"].dtype == "int64"
        tickets = load("tickets.csv")
        assert list(tickets["priority"].cat.categories) == ["low", "normal", "high"]
        assert (tickets["risk"] > "low").sum() == (tickets["risk"].isin(["medium", "high"])).sum() > 0

    def test_what_only_looks_like_a_date_stays_text(self, write):
        frame = load(write("day,level\n2025-02-30,low\n2025-03-01,enormous\n"))
        assert list(frame["day"]) == ["2025-02-30", "2025-03-01"] and list(frame["level"]) == ["low", "enormous"]

    def test_records_are_plain_data_with_none_for_what_is_missing(self, orders):
        rows = records("orders.csv")
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows
        assert [row["date"] for row in rows] == [row["date"] for row in orders]
        assert [row["total"] for row in rows] == [float(row["total"]) for row in orders]
        assert [row["region"] for row in rows] == [row["region"] or None for row in orders]
        assert {type(row["quantity"]) for row in rows} == {int}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (b"", "is empty"),
            (b"a,b\n", "no rows"),
            (b"a,b\n1,2,3\n4,5,6\n", "more fields"),
            (b"a,b\n1,2\n3,4,5\n", "not a CSV"),
            (b"\xff\xfe\x00\x01", "not a CSV"),
        ],
    )
    def test_what_is_not_a_table_is_an_error_that_says_why(self, write, text, problem):
        with pytest.raises(InvalidValue, match=rf"table\.csv .*{problem}"):
            load(write(text))


class TestSummarize:
    def test_numbers_equal_those_of_plain_python(self, ask, orders):
        answer = ask("orders.csv")
        assert (answer["file"], answer["operation"], answer["rows"]) == ("orders.csv", "summarize", len(orders))
        for column in ("quantity", "unit_price", "discount", "total", "delivery_days"):
            values = numbers(orders, column)
            assert answer["numbers"][column] == {
                "count": len(values),
                "mean": close(fmean(values), abs=1e-4),
                "std": close(stdev(values), abs=1e-4),
                "min": min(values),
                "q1": close(quantile(values, 0.25), abs=1e-4),
                "median": close(quantile(values, 0.5), abs=1e-4),
                "q3": close(quantile(values, 0.75), abs=1e-4),
                "max": max(values),
            }

    def test_missing_texts_and_dates_equal_those_of_plain_python(self, ask, orders):
        answer = ask("orders.csv")
        assert answer["missing"] == {
            column: sum(not row[column] for row in orders) for column in ("region", "delivery_days")
        }
        products = Counter(row["product"] for row in orders)
        assert answer["texts"]["product"] == {"distinct": len(products), "most": dict(products.most_common(5))}
        assert answer["texts"]["id"] == {"distinct": len(orders), "most": {}}
        assert answer["dates"] == {"date": {"first": "2025-01-01", "last": "2025-12-31"}}

    def test_columns_narrow_it_down(self, ask):
        answer = ask("orders.csv", columns=["region", "total", "region"])
        assert answer["columns"] == ["region", "total"]
        assert (list(answer["numbers"]), list(answer["texts"]), answer["dates"]) == (["total"], ["region"], {})

    def test_values_of_equal_frequency_are_in_order_of_their_names(self, ask, write):
        answer = ask(write("name\nb\na\nb\nc\na\n"))
        assert list(answer["texts"]["name"]["most"].items()) == [("a", 2), ("b", 2)]

    @pytest.mark.parametrize("cell", ["", "inf"])
    def test_a_column_without_a_finite_number_has_no_mean(self, ask, write, cell):
        numbers = ask(write(f"x,y\n1,{cell}\n2,{cell}\n"))["numbers"]
        assert numbers["y"]["count"] == 0 and numbers["y"]["mean"] is None and numbers["x"]["mean"] == 1.5


class TestAnalyze:
    def test_the_strongest_correlation(self, ask, orders):
        [found] = insights(ask("orders.csv", operation="analyze"), "correlation")
        quantity, total = numbers(orders, "quantity"), numbers(orders, "total")
        assert found["columns"] == ["quantity", "total"]
        assert found["r"] == close(correlation(quantity, total), abs=1e-4)
        for other in ("unit_price", "discount"):
            assert abs(correlation(numbers(orders, other), total)) < found["r"]

    def test_outliers_by_tukeys_fences(self, ask, orders):
        found = {insight["column"]: insight for insight in insights(ask("orders.csv", operation="analyze"), "outliers")}
        values = numbers(orders, "quantity")
        q1, q3 = quantile(values, 0.25), quantile(values, 0.75)
        low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
        largest = max(orders, key=lambda row: int(row["quantity"]))
        quantity = found["quantity"]
        assert quantity["rule"] == "Tukey's fences"
        assert (quantity["low"], quantity["high"]) == (close(low), close(high))
        assert quantity["rows"] == sum(not low <= value <= high for value in values)
        assert quantity["extreme"] == {"row": largest["id"], "value": float(largest["quantity"])}

    def test_the_planted_faults_of_the_weather_station_stand_out(self, ask):
        found = {
            insight["column"]: insight for insight in insights(ask("weather.csv", operation="analyze"), "outliers")
        }
        rows = records("weather.csv")
        spike, storm = rows[found["temperature"]["extreme"]["row"]], rows[found["pressure"]["extreme"]["row"]]
        assert (spike["city"], spike["hour"]) == ("Cairo", 41)
        assert (storm["city"], storm["hour"]) == ("Bergen", 31)

    def test_missing_values_and_largest_groups(self, ask, orders):
        answer = ask("orders.csv", operation="analyze")
        gaps = {insight["column"]: insight["rows"] for insight in insights(answer, "missing")}
        assert gaps == {column: sum(not row[column] for row in orders) for column in ("region", "delivery_days")}
        groups = {insight["column"]: (insight["value"], insight["rows"]) for insight in insights(answer, "group")}
        for column in ("region", "product", "category", "status"):
            assert groups.pop(column) == Counter(row[column] for row in orders).most_common(1)[0]
        assert not groups

    def test_the_number_that_differs_most_between_groups(self, ask, orders):
        [found] = insights(ask("orders.csv", operation="analyze", by="region"), "difference")
        rows = [row for row in orders if row["region"] and row["delivery_days"]]
        by_region = {}
        for row in rows:
            by_region.setdefault(row["region"], []).append(float(row["delivery_days"]))
        spread = [fmean(values) for values in by_region.values() for _ in values]
        share = pstdev(spread) ** 2 / pstdev(numbers(rows, "delivery_days")) ** 2
        assert found["column"] == "delivery_days" and found["share"] == close(share, abs=1e-4)

    @pytest.mark.parametrize("text", ["x\n1\n", "x,y\n1,1\n1,1\n1,1\n", "x,y\n,a\n,b\n", "a,b\nTrue,x\nFalse,y\n"])
    def test_tables_with_little_in_them_have_few_insights(self, ask, write, text):
        answer = ask(write(text), operation="analyze", by=text[0])
        assert {insight["kind"] for insight in answer["insights"]} <= {"missing"}

    def test_values_within_the_fences_are_no_outliers(self):
        even = pd.DataFrame({"x": [1, 2, 3, 4, 5, 6]})
        assert not [insight for insight in analyze(even) if insight["kind"] == "outliers"]
        odd = pd.DataFrame({"x": [1, 2, 3, 4, 5, 60]})
        [found] = [insight for insight in analyze(odd) if insight["kind"] == "outliers"]
        assert found["extreme"] == {"row": 60, "value": 60.0}


class TestAgent:
    @pytest.mark.parametrize("inputs", [{}, {"operation": "analyze"}, {"operation": "analyze", "by": "region"}])
    def test_a_direct_call_and_a_message_get_the_same_plain_data(self, world, ask, inputs):
        direct = world.run(world.agents["data"].process_data("orders.csv", **inputs))
        assert json.loads(json.dumps(direct, allow_nan=False)) == direct
        assert ask("orders.csv", **inputs) == direct

    def test_the_work_takes_virtual_time_by_the_rows(self, world, ask, orders):
        ask("orders.csv", columns=["total"])
        assert world.now == close(len(orders) / 1000)
        slow = world.spawn(DataProcessor("slow", rows_per_second=100))
        before = world.now
        world.run(slow.process_data("weather.csv"))
        assert world.now - before == close(2.4)

    def test_the_same_seed_gives_the_same_digest(self):
        first, second = (simulate(consult, seed=3) for _ in range(2))
        assert first.ok and first.digest == second.digest and first.result == second.result

    def test_the_schema_lists_the_operations(self):
        schema = DataProcessor.offers["process_data"].input_schema
        assert schema["properties"]["operation"]["enum"] == ["summarize", "analyze"]
        assert schema["required"] == ["path"]

    @pytest.mark.parametrize("speed", [0, -1.0, math.nan, "fast", None])
    def test_a_speed_that_is_not_above_0_is_refused(self, speed):
        with pytest.raises(InvalidValue, match="rows_per_second"):
            DataProcessor("data", rows_per_second=speed)

    @pytest.mark.parametrize(
        ("inputs", "error", "problem"),
        [
            ({"path": "order.csv"}, InvalidValue, r"'order\.csv'.*orders\.csv"),
            ({"operation": "explode"}, InvalidInput, "'operation'.*summarize.*analyze"),
            ({"columns": ["totals"]}, InvalidInput, "'columns'.*'totals'.*quantity"),
            ({"columns": []}, InvalidInput, "'columns'.*at least one"),
            ({"operation": "analyze", "by": "regions"}, InvalidInput, "'by'.*'regions'.*region"),
            ({"by": "region"}, InvalidInput, "'by'.*analyze looks at groups"),
        ],
    )
    def test_bad_input_is_a_typed_error_by_call_and_by_message(self, world, ask, inputs, error, problem):
        inputs = {"path": "orders.csv", **inputs}
        with pytest.raises(error, match=problem):
            world.run(world.agents["data"].process_data(**inputs))
        with pytest.raises(error, match=problem):
            ask(**inputs)
        assert ask("weather.csv")["rows"] == 240  # nothing broke

    @pytest.mark.parametrize(("text", "problem"), [("", "is empty"), ("a,b\n", "no rows")])
    def test_an_empty_file_is_a_typed_error_and_crashes_nobody(self, world, ask, write, text, problem):
        with pytest.raises(InvalidValue, match=problem):
            ask(write(text))
        assert world.trace.count("crashed") == 0


async def consult(world):
    world.spawn(DataProcessor("data"))
    client = world.spawn(Agent("client"))
    return await client.request("data", "process_data", path="stocks.csv", operation="analyze", by="symbol")
