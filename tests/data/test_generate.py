"""The files of data/: reproduced by their generator, described by their dictionary, sound except where planted."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections import Counter
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import correlation, mean

import pytest

DATA = Path(__file__).parents[2] / "data"
NAMES = ["model_profiles.csv", "orders.csv", "stocks.csv", "tickets.csv", "weather.csv"]
LABELS = {
    "tier": {"basic", "premium", "enterprise"},
    "account_status": {"active", "overdue", "trial", "suspended"},
    "channel": {"email", "chat", "form", "phone"},
    "category": {"technical", "billing", "delivery", "account", "sales"},
    "priority": {"low", "normal", "high"},
    "sentiment": {"negative", "neutral", "positive"},
    "complexity": {"low", "medium", "high"},
    "impact": {"low", "medium", "high"},
    "risk": {"low", "medium", "high"},
}


@cache
def rows(name):
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def dictionary(name):
    """The section of README.md about a file: its text and the names in its table."""
    text = (DATA / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    return section, re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def planted(word):
    """The order ids in the README's line that contains the word."""
    line = next(line for line in dictionary("orders.csv")[0].splitlines() if word in line)
    return re.findall(r"O\d{5}", line)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("generate", DATA / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    folder = tmp_path_factory.mktemp("data")
    generate.write(folder)
    return folder


def expected_total(row):
    exact = Decimal(row["quantity"]) * Decimal(row["unit_price"]) * (1 - Decimal(row["discount"]))
    return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)


def wrong_totals(orders):
    return [row["id"] for row in orders if expected_total(row) != Decimal(row["total"])]


def test_every_file_of_the_folder_is_generated_and_described(generated):
    assert sorted(path.name for path in DATA.glob("*.csv")) == NAMES
    assert sorted(path.name for path in generated.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_reproduces_the_file_byte_for_byte(generated, name):
    assert (generated / name).read_bytes() == (DATA / name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_dictionary_names_the_columns_in_order(name):
    assert dictionary(name)[1] == list(rows(name)[0])


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_small(name):
    assert (DATA / name).stat().st_size < 400_000


@pytest.mark.parametrize(("name", "least"), [("tickets.csv", 400), ("orders.csv", 2000)])
def test_ids_are_many_unique_and_count_up(name, least):
    ids = [row["id"] for row in rows(name)]
    assert ids == sorted(set(ids)) and len(ids) >= least
    assert f"{len(ids)} " in dictionary(name)[0] and ids[-1] in dictionary(name)[0]


def test_tickets_arrive_in_order_within_the_day_and_mostly_in_the_rush_hours():
    arrivals = [float(row["arrival"]) for row in rows("tickets.csv")]
    assert arrivals == sorted(arrivals) and arrivals[0] >= 0 and arrivals[-1] <= 32400
    by_hour = Counter(int(arrival // 3600) for arrival in arrivals)
    assert min(by_hour[1], by_hour[6]) > 1.5 * max(by_hour[3], by_hour[8])


def test_messages_read_as_sentences_and_are_not_repeated():
    messages = [row["message"] for row in rows("tickets.csv")]
    assert len(set(messages)) == len(messages)
    for text in messages + [row["subject"] for row in rows("tickets.csv")]:
        assert text[0].isupper() or not text[0].isalpha(), text
        assert not re.search(r"[{}]|  |\bNone\b|[.?!] [a-z]", text), text


def test_labels_have_only_the_values_that_the_dictionary_allows_and_all_but_one_of_them():
    for column, allowed in LABELS.items():
        found = {row[column] for row in rows("tickets.csv")}
        assert found <= allowed and len(allowed - found) <= (column == "account_status")
        described = next(line for line in dictionary("tickets.csv")[0].splitlines() if f"`{column}`" in line)
        assert all(value in described for value in allowed)


def test_a_customer_is_the_same_on_every_ticket_and_every_ticket_is_an_interaction_more():
    seen = {}
    for row in rows("tickets.csv"):
        facts = (row["customer_name"], row["tier"], row["account_status"])
        count = int(row["interactions"])
        assert seen.get(row["customer"], (facts, count - 1)) == (facts, count - 1)
        seen[row["customer"]] = (facts, count)


def test_tickets_speak_of_orders_of_the_same_customer():
    customers = {row["id"]: row["customer"] for row in rows("orders.csv")}
    about = [row for row in rows("tickets.csv") if row["order"]]
    assert len(about) > 100
    assert all(customers[row["order"]] == row["customer"] for row in about)
    for row in rows("tickets.csv"):
        assert set(re.findall(r"O\d{5}", row["subject"] + row["message"])) <= {row["order"]}


def test_follow_ups_name_a_ticket_that_the_same_customer_wrote_an_hour_before():
    tickets = {row["id"]: row for row in rows("tickets.csv")}
    pairs = [(row, tickets[name]) for row in tickets.values() for name in re.findall(r"T\d{4}", row["message"])]
    assert len(pairs) == 26
    for later, earlier in pairs:
        assert later["customer"] == earlier["customer"]
        assert float(later["arrival"]) - float(earlier["arrival"]) > 3600


def test_labels_can_be_read_from_the_text_but_not_without_error():
    cross = re.compile("fed up|disappointed|unacceptable|patience|waste|not good enough|Nobody answers")
    found = [row["sentiment"] for row in rows("tickets.csv") if cross.search(row["message"])]
    negative = sum(row["sentiment"] == "negative" for row in rows("tickets.csv"))
    hits = found.count("negative")
    assert 0.8 < hits / len(found) < 1.0 and 0.3 < hits / negative < 0.9


def test_the_outage_and_the_phishing_are_there():
    tickets = rows("tickets.csv")
    mail = re.compile("10:20|twenty past ten|Mail|mail", re.ASCII)
    window = [
        row
        for row in tickets
        if 8400 <= float(row["arrival"]) <= 10800 and row["category"] == "technical" and mail.search(row["subject"])
    ]
    assert len(window) > 25
    lures = [row for row in tickets if "billing@brightdesk-invoices.example" in row["message"]]
    assert len(lures) == 8 and all(row["priority"] != "high" for row in lures)


def test_orders_are_by_date_and_busier_in_late_autumn():
    dates = [row["date"] for row in rows("orders.csv")]
    assert dates == sorted(dates) and dates[0] >= "2025-01-01" and dates[-1] == "2025-12-31"
    months = Counter(day[5:7] for day in dates)
    assert months["11"] > 1.4 * months["06"]
    weekend = sum(date.fromisoformat(day).weekday() >= 5 for day in dates)
    assert weekend / len(dates) < 0.2


def test_totals_follow_the_formula_except_where_planted():
    assert sorted(wrong_totals(rows("orders.csv"))) == sorted(planted("do not follow"))


def test_a_wrong_total_would_be_noticed():
    first, *rest = rows("orders.csv")[:5]
    assert wrong_totals([{**first, "total": str(Decimal(first["total"]) + 1)}, *rest]) == [first["id"]]


def test_slips_and_impossible_deliveries_are_those_of_the_dictionary():
    orders = rows("orders.csv")
    assert [row["id"] for row in orders if int(row["quantity"]) > 40] == planted("zeros too many")
    assert [row["id"] for row in orders if row["delivery_days"].startswith("-")] == planted("before the order")


def test_orders_entered_twice_are_those_of_the_dictionary():
    seen, repeated = {}, []
    for row in rows("orders.csv"):
        facts = tuple(value for column, value in row.items() if column != "id")
        repeated += [row["id"], seen[facts]] if facts in seen else []
        seen[facts] = row["id"]
    assert repeated == planted("entered twice")


def test_only_one_customer_is_above_the_highest_discount():
    generous = [row for row in rows("orders.csv") if Decimal(row["discount"]) > Decimal("0.25")]
    assert {row["customer"] for row in generous} == {"C042"}
    assert len(generous) == sum(row["customer"] == "C042" for row in rows("orders.csv"))


def test_the_strike_and_the_lost_parcels_are_there():
    west = [row for row in rows("orders.csv") if row["region"] == "West" and row["delivery_days"]]
    strike = [int(row["delivery_days"]) for row in west if "2025-03-10" <= row["date"] <= "2025-03-23"]
    others = [int(row["delivery_days"]) for row in west if not "2025-03-10" <= row["date"] <= "2025-03-23"]
    assert mean(strike) > mean(others) + 5
    lost = [row for row in rows("orders.csv") if row["status"] == "shipped" and row["date"] < "2025-12-20"]
    assert len(lost) == 19


def test_missing_values_of_orders_are_those_of_the_dictionary():
    orders = rows("orders.csv")
    assert sum(not row["region"] for row in orders) == 40
    arrived = {"delivered", "returned"}
    assert sum(not row["delivery_days"] for row in orders if row["status"] in arrived) == 24
    assert not any(row["delivery_days"] for row in orders if row["status"] not in arrived)
    assert {column for row in orders for column, value in row.items() if not value} == {"region", "delivery_days"}


def test_nothing_is_delivered_after_the_end_of_the_year():
    for row in rows("orders.csv"):
        if row["delivery_days"]:
            assert date.fromisoformat(row["date"]) + timedelta(int(row["delivery_days"])) <= date(2025, 12, 31)


def test_weather_is_hourly_for_each_city_with_the_planted_faults():
    weather = rows("weather.csv")
    keys = [(int(row["hour"]), row["city"]) for row in weather]
    cities = sorted({city for _, city in keys})
    assert keys == [(hour, city) for hour in range(48) for city in cities]
    by_key = dict(zip(keys, weather, strict=True))
    cairo = {hour: float(by_key[hour, "Cairo"]["temperature"]) for hour in (40, 41, 42)}
    assert cairo[41] > max(cairo[40], cairo[42]) + 20
    assert {by_key[hour, "Lima"]["humidity"] for hour in range(20, 28)} == {"99"}
    assert {hour for (hour, _), row in by_key.items() if not row["wind"]} == {10}
    bergen = {hour: float(by_key[hour, "Bergen"]["pressure"]) for hour in range(48)}
    assert min(bergen, key=bergen.get) == 31
    assert all(5 <= int(row["humidity"]) <= 100 and float(row["rain"]) >= 0 for row in weather)


def test_stocks_have_a_row_a_minute_and_symbol_and_two_that_move_together():
    stocks = rows("stocks.csv")
    prices = {}
    for row in stocks:
        prices.setdefault(row["symbol"], []).append(float(row["price"]))
    assert [int(row["minute"]) for row in stocks] == [minute for minute in range(240) for _ in range(5)]
    assert {symbol: len(series) for symbol, series in prices.items()} == dict.fromkeys(sorted(prices), 240)
    moves = {symbol: [b / a - 1 for a, b in pairwise(p)] for symbol, p in prices.items()}
    assert correlation(moves["ALDER"], moves["BRAMBLE"]) > 0.7 > correlation(moves["ALDER"], moves["COPPER"])
    assert min(range(240), key=prices["KESTREL"].__getitem__) == 121
    quiet = [int(row["minute"]) for row in stocks if row["volume"] == "0"]
    assert quiet == list(range(60, 80)) and len(set(prices["JUNIPER"][59:80])) == 1
