"""Write the CSV files of this folder, byte for byte the same each time: `python data/generate.py`.

Standard library only. Each file draws from a random stream of its own, so that a change to one leaves the others alone
(tickets speak about orders, so they follow them). README.md is the data dictionary and lists what is planted here.
"""

from __future__ import annotations

import csv
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

Row = dict[str, Any]
HERE = Path(__file__).parent
PHRASES = tomllib.loads((HERE / "phrases.toml").read_text(encoding="utf-8"))
LEVELS = ("low", "medium", "high")
MOODS = ("negative", "neutral", "positive")
LAST_DAY = date(2025, 12, 31)


def write(folder: Path) -> None:
    """Write every CSV file into `folder`."""
    customers = make_customers(Random("customers"))
    orders = make_orders(customers, Random("orders"))
    write_csv(folder / "orders.csv", orders)
    write_csv(folder / "tickets.csv", make_tickets(customers, orders, Random("tickets")))
    write_csv(folder / "weather.csv", make_weather(Random("weather")))
    write_csv(folder / "stocks.csv", make_stocks(Random("stocks")))
    write_csv(folder / "model_profiles.csv", make_profiles())


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows with the same keys; None becomes an empty field."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def pick(rng: Random, weights: dict[str, float]) -> str:
    """Return a key, drawn by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


# Customers


def make_customers(rng: Random) -> list[Row]:
    """Return 180 customers: 25 enterprises, 55 premium, 100 basic; the basic ones are persons."""
    names = PHRASES["names"]
    companies = [f"{place} {trade}" for place in names["place"] for trade in names["trade"]]
    persons = [f"{first} {last}" for first in names["first"] for last in names["last"]]
    tiers = ["enterprise"] * 25 + ["premium"] * 55 + ["basic"] * 100
    chosen = rng.sample(companies, 80) + rng.sample(persons, 100)
    rows = [make_customer(rng, tier, name) for tier, name in zip(tiers, chosen, strict=True)]
    rng.shuffle(rows)
    return [{"customer": f"C{number:03}", **row} for number, row in enumerate(rows, 1)]


def make_customer(rng: Random, tier: str, name: str) -> Row:
    """Return a customer; `interactions` is how often they wrote before the day of the tickets."""
    return {
        "customer_name": name,
        "tier": tier,
        "account_status": pick(rng, {"active": 86, "overdue": 7, "trial": 5, "suspended": 2}),
        "region": pick(rng, {"North": 34, "South": 28, "East": 23, "West": 15}),
        "interactions": int(rng.expovariate(1 / {"basic": 2, "premium": 6, "enterprise": 12}[tier])),
    }


# Orders


def make_orders(customers: list[Row], rng: Random) -> list[Row]:
    """Return the orders of 2025 by date, with the planted anomalies of README.md."""
    weights = [{"basic": 1, "premium": 3, "enterprise": 7}[customer["tier"]] for customer in customers]
    rows = []
    for day in (date(2025, 1, 1) + timedelta(days) for days in range(365)):
        for _ in range(round(orders_expected(day) * rng.uniform(0.75, 1.25))):
            rows.append(make_order(rng, day, rng.choices(customers, weights)[0]))
    rows = plant_in_orders(rows, rng)
    return [{"id": f"O{number:05}", **row} for number, row in enumerate(rows, 1)]


def orders_expected(day: date) -> float:
    """Return how many orders a day brings: more each month, most in autumn, few at weekends."""
    growth = 1 + 0.3 * day.timetuple().tm_yday / 365
    season = sum(shares[day.month - 1] for shares in PHRASES["categories"].values()) / 46
    return 6.1 * growth * season * (0.45 if day.weekday() >= 5 else 1.15)


def make_order(rng: Random, day: date, customer: Row) -> Row:
    """Return one order; money is reckoned in whole cents, so that totals are exact."""
    seasonal = {
        product: weight * PHRASES["categories"][category][day.month - 1]
        for product, (category, _, weight) in PHRASES["products"].items()
    }
    product = pick(rng, seasonal)
    category, cents, _ = PHRASES["products"][product]
    cents = round(cents * (1 + 0.03 * (day.month > 6)))  # prices rose by 3 % in July
    row = {"date": day, "customer": customer["customer"], "region": customer["region"], "product": product}
    row |= {"category": category, "quantity": draw_quantity(rng, customer["tier"], category), "unit_price": cents}
    return row | {"discount": draw_discount(rng, row["quantity"]), "total": 0} | draw_delivery(rng, day, row["region"])


def draw_quantity(rng: Random, tier: str, category: str) -> int:
    """Return how many pieces: companies and supplies come in larger numbers."""
    usual = {"basic": 0.6, "premium": 2.0, "enterprise": 5.0}[tier] * (2.0 if category == "Supplies" else 1.0)
    return min(1 + int(rng.expovariate(1 / usual)), 40)


def draw_discount(rng: Random, quantity: int) -> int:
    """Return a discount in percent, at most 25; from ten pieces on there always is one."""
    if quantity >= 10:
        return rng.choice((10, 15, 20, 25))
    return rng.choices((0, 5, 10), (78, 14, 8))[0]


def draw_delivery(rng: Random, day: date, region: str) -> Row:
    """Return status and days to deliver; what is still on its way at the end of the year is `shipped`."""
    days = {"North": 2, "South": 3, "East": 3, "West": 4}[region] + int(rng.expovariate(0.8)) + (day.month == 12)
    if region == "West" and date(2025, 3, 10) <= day <= date(2025, 3, 23):
        days += 7  # planted: two weeks of strike
    if (LAST_DAY - day).days <= 1:
        return {"status": "processing", "delivery_days": None}
    if rng.random() < 0.03:
        return {"status": "cancelled", "delivery_days": None}
    if day + timedelta(days) > LAST_DAY or (day.month > 10 and rng.random() < 0.05):  # planted: lost parcels
        return {"status": "shipped", "delivery_days": None}
    return {"status": "returned" if rng.random() < 0.06 else "delivered", "delivery_days": days}


def plant_in_orders(rows: list[Row], rng: Random) -> list[Row]:
    """Plant slips, impossible and missing values, wrong totals and duplicates; then turn cents into money."""
    chosen = iter(rng.sample([row for row in rows if row["delivery_days"] is not None], 80))
    for row in islice(chosen, 3):
        row["quantity"] *= 100
    for row in islice(chosen, 3):
        row["delivery_days"] = -1
    for row in islice(chosen, 24):
        row["delivery_days"] = None
    for row in islice(chosen, 40):
        row["region"] = None
    for row in rows:
        row["discount"] = 40 if row["customer"] == "C042" else row["discount"]
        row["total"] = (row["quantity"] * row["unit_price"] * (100 - row["discount"]) + 50) // 100
    for number, row in enumerate(islice(chosen, 6)):
        row["total"] = row["total"] * 10 if number < 3 else row["total"] + 900
    for row in islice(chosen, 4):
        rows.insert(rows.index(row), dict(row))
    return [{**row, **{name: f"{row[name] / 100:.2f}" for name in ("unit_price", "discount", "total")}} for row in rows]


# Tickets


def make_tickets(customers: list[Row], orders: list[Row], rng: Random) -> list[Row]:
    """Return the tickets of one working day, the one after the last order, by arrival."""
    issues = {issue["name"]: issue for issue in PHRASES["issues"]}
    written = {customer["customer"]: customer["interactions"] for customer in customers}
    matters: list[Row] = []
    tickets: list[Row] = []
    for arrival, name in schedule(rng, issues):
        open_matters = [m for m in matters if m["sentiment"] == "negative" and arrival - m["arrival"] > 3600]
        if open_matters and rng.random() < 0.05:
            matter = rng.choice(open_matters)  # the customer writes again
        else:
            matter = make_matter(rng, issues[name], customers, orders)
        ticket = {"id": f"T{len(tickets) + 1:04}", "arrival": arrival}
        tickets.append(ticket | make_ticket(rng, matter, written[matter["customer"]["customer"]]))
        matters.append(matter | ticket)
        written[matter["customer"]["customer"]] += 1
    return tickets


def schedule(rng: Random, issues: dict[str, Row]) -> list[tuple[float, str]]:
    """Return arrivals, in seconds after 8:00, and issues: rush hours, an outage from 10:20 to 11:00, and phishing."""
    usual = {name: issue["weight"] for name, issue in issues.items()}
    arrivals = [(draw_arrival(rng), pick(rng, usual)) for _ in range(440)]
    arrivals += [(round(rng.uniform(8400, 10800), 1), "outage") for _ in range(32)]
    arrivals += [(round(rng.uniform(0, 32400), 1), "phishing") for _ in range(8)]
    return sorted(arrivals)


def draw_arrival(rng: Random) -> float:
    """Return a moment between 8:00 and 17:00, in seconds after 8:00; most fall around 9:30 and 14:00."""
    while True:
        second = rng.uniform(0, 32400)
        rush = math.exp(-(((second - 5400) / 3000) ** 2)) + math.exp(-(((second - 21600) / 3600) ** 2))
        if rng.random() < 0.25 + 0.75 * rush:
            return round(second, 1)


def make_matter(rng: Random, issue: Row, customers: list[Row], orders: list[Row]) -> Row:
    """Return what has happened: issue, customer, order, the facts to mention, and how bad it really is."""
    order = draw_order(rng, issue.get("order"), orders)
    customer = draw_customer(rng, issue, customers, order)
    tilt = {"basic": (1.5, 1, 0.4), "premium": (1, 1, 1), "enterprise": (0.5, 1, 2)}[customer["tier"]]
    impact = draw_level(rng, [w * t for w, t in zip(issue["impact"], tilt, strict=True)])
    negative, neutral, positive = issue["mood"]
    mood = [negative * (1 + 0.5 * LEVELS.index(impact)), neutral, positive]
    return {
        "issue": issue,
        "customer": customer,
        "order": order["id"] if order else None,
        "slots": draw_slots(rng, customer, order),
        "sentiment": rng.choices(MOODS, mood)[0],
        "complexity": draw_level(rng, issue["complexity"]),
        "impact": impact,
        "risk": draw_level(rng, issue["risk"]),
    }


def draw_level(rng: Random, weights: list[float]) -> str:
    """Return low, medium or high."""
    return rng.choices(LEVELS, weights)[0]


def draw_order(rng: Random, kind: str | None, orders: list[Row]) -> Row | None:
    """Return an order that such a ticket can be about: of the last 60 days, in that state."""
    if kind is None:
        return None
    statuses = ("shipped", "processing") if kind == "open" else (kind,)
    since = LAST_DAY - timedelta(60)
    return rng.choice([order for order in orders if order["status"] in statuses and order["date"] >= since])


def draw_customer(rng: Random, issue: Row, customers: list[Row], order: Row | None) -> Row:
    """Return who writes: who placed the order, else anybody, those with a history more often."""
    if order:
        return next(customer for customer in customers if customer["customer"] == order["customer"])
    able = [customer for customer in customers if issue["name"] != "outage" or customer["tier"] != "basic"]
    return rng.choices(able, [1 + 0.3 * customer["interactions"] for customer in able])[0]


def draw_slots(rng: Random, customer: Row, order: Row | None) -> dict[str, str]:
    """Return what fills the {slots} of the phrases; persons say "I" and have few users."""
    slots = {name: rng.choice(values) for name, values in PHRASES["slots"].items()}
    slots |= {"item": rng.choice(list(PHRASES["products"])), "name": customer["customer_name"]}
    if customer["tier"] == "basic":
        slots |= {"we": "I", "our": "my", "us": "me", "we_are": "I am", "users": rng.choice("234")}
    else:
        slots |= {"we": "we", "our": "our", "us": "us", "we_are": "we are"}
    if order:
        slots |= {"order": order["id"], "product": order["product"], "date": f"{order['date'].day} {order['date']:%B}"}
    return slots


def make_ticket(rng: Random, matter: Row, interactions: int) -> Row:
    """Return the ticket about a matter, without its number and arrival."""
    customer, issue = matter["customer"], matter["issue"]
    channel = pick(rng, {"email": 40, "chat": 25, "form": 22, "phone": 13})
    subject, problem = rng.choice(list(zip(issue["subjects"], issue["problems"], strict=True)))
    labels = {name: matter[name] for name in ("sentiment", "complexity", "impact", "risk")}
    return {
        "customer": customer["customer"],
        **{name: customer[name] for name in ("customer_name", "tier", "account_status")},
        "interactions": interactions,
        "channel": channel,
        "category": issue["category"],
        "priority": draw_priority(rng, matter),
        "order": matter["order"],
        "subject": polish([subject], matter["slots"]),
        "message": polish(compose(rng, matter, channel, problem), matter["slots"]),
        **labels,
    }


def draw_priority(rng: Random, matter: Row) -> str:
    """Return what the intake desk thought: mostly impact and risk, one time in eight a guess; phishing is missed."""
    if matter["issue"]["name"] == "phishing" or rng.random() < 0.125:
        return rng.choice(("normal", "low"))
    score = LEVELS.index(matter["impact"]) + LEVELS.index(matter["risk"]) + 0.5 * (matter["sentiment"] == "negative")
    score += 0.5 * (matter["customer"]["tier"] == "enterprise")
    return "high" if score >= 2.5 else "normal" if score >= 1 else "low"


def compose(rng: Random, matter: Row, channel: str, problem: str) -> list[str]:
    """Return the sentences of a message, in order and with their {slots}."""
    issue, person = matter["issue"], "person" if matter["customer"]["tier"] == "basic" else "company"
    details = PHRASES["details"].get(issue["name"]) or PHRASES["details"][issue["category"]]
    mood = say(rng, PHRASES["mood"], matter["sentiment"], MOODS)
    if matter["sentiment"] == "negative" and rng.random() < 0.08:
        mood = rng.choice(PHRASES["mood"]["sarcastic"])
    body = [
        problem,
        say(rng, details, matter["complexity"], LEVELS),
        say(rng, PHRASES["impact"][person], matter["impact"], LEVELS),
        say(rng, PHRASES["risk"][issue["threat"]] | {"low": [""]}, matter["risk"], LEVELS),
    ]
    body = [mood, *body] if rng.random() < 0.25 else [*body, mood]
    if "id" in matter:
        body.insert(0, rng.choice(PHRASES["frame"]["again"]).replace("{ticket}", matter["id"]))
    return frame(rng, body, channel)


def say(rng: Random, pool: dict[str, list[str]], level: str, scale: tuple[str, ...]) -> str:
    """Return a sentence for the level; one time in eight nothing, one in sixteen what fits a neighbouring level."""
    chance = rng.random()
    if chance < 1 / 8:
        return ""
    if chance < 3 / 16:
        place = scale.index(level)
        level = rng.choice([scale[near] for near in (place - 1, place + 1) if 0 <= near < len(scale)])
    return rng.choice(pool[level])


def frame(rng: Random, body: list[str], channel: str) -> list[str]:
    """Return the message with what its channel adds: mail is polite, calls are noted down, chats are bare."""
    parts = PHRASES["frame"]
    if channel == "phone":
        return [rng.choice(parts["caller"]), *body]
    if channel == "chat":
        return body
    greeting = [rng.choice(parts["greeting"])] if channel == "email" else []
    return [*greeting, *body, rng.choice(parts["signature"])]


def polish(sentences: list[str], slots: dict[str, str]) -> str:
    """Fill the slots, join the sentences and give each its capital letter."""
    filled = [sentence.format(**slots) for sentence in sentences if sentence]
    text = " ".join(sentence[0].upper() + sentence[1:] for sentence in filled)
    return re.sub(r"[.?!] [a-z]", lambda found: found[0].upper(), text)


# Weather and stocks

CLIMATES = {  # city: mean temperature and daily swing in C, humidity in %, pressure in hPa, wind in km/h
    "Bergen": (11.0, 3.0, 78, 1008, 22),
    "Cairo": (27.0, 7.0, 38, 1013, 14),
    "Lima": (19.0, 2.5, 83, 1014, 12),
    "Nairobi": (20.0, 6.0, 62, 1018, 10),
    "Osaka": (23.0, 4.5, 66, 1012, 13),
}


def make_weather(rng: Random) -> Iterator[Row]:
    """Yield two days of hourly observations, hour by hour."""
    for hour in range(48):
        for city in CLIMATES:
            yield plant_in_weather({"hour": hour, "city": city, **observe(rng, city, hour)})


def observe(rng: Random, city: str, hour: int) -> Row:
    """Return an observation: warmest at 15 h, drier when warmer; Bergen has a storm on the second day."""
    mean, swing, humidity, pressure, wind = CLIMATES[city]
    warmth = swing * math.cos(2 * math.pi * (hour - 15) / 24) + rng.gauss(0, 0.5)
    storm = math.exp(-(((hour - 31) / 3) ** 2)) if city == "Bergen" else 0.0
    return {
        "temperature": round(mean + warmth - 3 * storm, 1),
        "humidity": round(min(max(humidity - 2.2 * warmth + 15 * storm + rng.gauss(0, 2), 5), 100)),
        "pressure": round(pressure + 1.5 * math.sin(hour / 5) - 24 * storm + rng.gauss(0, 0.4), 1),
        "wind": round(max(wind + 45 * storm + rng.gauss(0, 3), 0.0), 1),
        "rain": round(max(9 * storm + rng.gauss(-0.5, 0.4), 0.0), 1),
    }


def plant_in_weather(row: Row) -> Row:
    """Plant a spike of a thermometer, a stuck hygrometer and an hour without wind readings."""
    match row["city"], row["hour"]:
        case "Cairo", 41:
            row["temperature"] = round(row["temperature"] + 25, 1)
        case "Lima", hour if 20 <= hour <= 27:
            row["humidity"] = 99
        case _, 10:
            row["wind"] = None
    return row


STOCKS = {  # symbol: first price, share of the market's moves, own moves in % a minute, shares a minute
    "ALDER": (84.0, 1.0, 0.03, 900),
    "BRAMBLE": (41.5, 0.9, 0.04, 1400),
    "COPPER": (152.0, 0.2, 0.12, 500),
    "JUNIPER": (23.8, 0.1, 0.09, 2600),
    "KESTREL": (310.0, 0.5, 0.08, 300),
}


def make_stocks(rng: Random) -> Iterator[Row]:
    """Yield four hours of minute prices, minute by minute; with a flash crash and a halt."""
    prices = {symbol: stock[0] for symbol, stock in STOCKS.items()}
    for minute in range(240):
        market = rng.gauss(0.002, 0.08)
        for symbol, (_, share, own, shares) in STOCKS.items():
            move, volume = share * market + rng.gauss(0, own), busyness(minute) * shares * rng.uniform(0.6, 1.4)
            if symbol == "KESTREL" and 120 <= minute < 130:  # planted: down by a tenth in two minutes, back in eight
                move, volume = move + (-5.2 if minute < 122 else 1.35), volume * 6
            if symbol == "JUNIPER" and 60 <= minute < 80:  # planted: trading is halted
                move = volume = 0
            prices[symbol] *= 1 + move / 100
            yield {"minute": minute, "symbol": symbol, "price": f"{prices[symbol]:.2f}", "volume": round(volume)}


def busyness(minute: int) -> float:
    """Return how busy a minute of trading is: most at opening and closing."""
    return 0.6 + 1.2 * ((minute - 120) / 120) ** 2


# Model profiles: latency (s), its spread, seconds a token, dollars for a million tokens in and out, share of slips

PROFILES: dict[str, tuple[float, float, float, float, float, float, str]] = {
    "instant": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "no latency, no price, no slips: the rules alone"),
    "fast": (0.35, 0.25, 0.002, 0.1, 0.4, 0.18, "fast and cheap, misjudges more often"),
    "balanced": (0.9, 0.35, 0.006, 0.6, 2.4, 0.08, "between the two"),
    "strong": (2.4, 0.45, 0.015, 3.0, 15.0, 0.02, "slow and expensive, seldom misjudges"),
}


def make_profiles() -> Iterator[Row]:
    """Yield the profiles of the offline model, which are chosen, not drawn."""
    columns = ("latency", "spread", "per_token", "input_price", "output_price", "slips", "about")
    for name, values in PROFILES.items():
        yield {"profile": name, **dict(zip(columns, values, strict=True))}


if __name__ == "__main__":
    write(HERE)
