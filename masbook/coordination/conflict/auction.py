"""Auctions: who pays most, or does a task for least, and the contract net.

`first_price` and `second_price` are pure functions over sealed bids. `auction` and `contract_net` gather the bids by
message, for any agent; a `rule` of your own, from bids to an `Award`, replaces how they choose. Bidders have the
capability `bid(task) -> float | None`: what they ask for the task, or None to refuse. Those of a contract net also
have `perform(task, price)`, which does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ...errors import InvalidValue, TaskFailed, UnknownRecipient, WorldError, describe
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.message import freeze
from .case import notify

Bids = Mapping[str, float]
Price = float | None


@dataclass(frozen=True, slots=True)
class Award:
    """How an auction ended; `winner` is None where no bid was good enough."""

    winner: str | None
    price: Price  # what the winner pays; with `lowest_wins`, what it is paid
    tied: tuple[str, ...] = ()  # who made the best bid, before the tie was broken
    bids: Bids = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)  # who made no bid, or failed after the award, and why
    result: Any = None  # of the task, in a contract net


def first_price(bids: Bids, *, lowest_wins: bool = False) -> Award:
    """Award to the highest bid, or with `lowest_wins`, for tasks, to the lowest, at its own price.

    A tie goes to who comes first: shuffle the bidders for a draw by lot. InvalidValue for bids that are negative or not
    finite.
    """
    for name, bid in bids.items():
        require.amount(f"the bid of {name}", bid)
    choose = min if lowest_wins else max
    best = choose(bids.values()) if bids else None
    tied = tuple(name for name in bids if bids[name] == best)
    return Award(tied[0] if tied else None, best, tied, dict(bids))


def second_price(bids: Bids, *, lowest_wins: bool = False) -> Award:
    """Award as `first_price` does, at the price of the best other bid, so that nobody gains by lying (Vickrey 1961).

    Who bids alone pays nothing, or with `lowest_wins` is paid what it bids.
    """
    award = first_price(bids, lowest_wins=lowest_wins)
    others = {name: bid for name, bid in bids.items() if name != award.winner}
    alone = award.price if lowest_wins or award.winner is None else 0.0
    return replace(award, price=first_price(others, lowest_wins=lowest_wins).price if others else alone)


Rule = Callable[[Bids], Award]
CHEAPEST: Rule = partial(first_price, lowest_wins=True)
VICKREY: Rule = partial(second_price, lowest_wins=True)


async def auction(manager: Agent, task: Any, bidders: Sequence[str], *, deadline: float, rule: Rule = VICKREY) -> Award:
    """Ask all bidders at once, and award what the rule says, after `deadline` virtual seconds at the latest.

    Who refuses, fails, bids nonsense or is late is out. The winner is told `awarded` (task, price), the other bidders
    `rejected` (task). UnknownRecipient, before anybody is asked, for a bidder that is not there.
    """
    bids, out = await _call(manager, task, bidders, deadline)
    award = rule(bids)
    notify(manager, [name for name in bids if name == award.winner], "awarded", {"task": task, "price": award.price})
    notify(manager, [name for name in bids if name != award.winner], "rejected", {"task": task})
    return replace(award, out=out)


async def contract_net(
    manager: Agent, task: Any, bidders: Sequence[str], *, deadline: float, patience: float = 30.0, rule: Rule = CHEAPEST
) -> Award:
    """Have the task done by whom the rule chooses, and return the award with the result (Smith 1980).

    A winner that crashes, fails, or takes longer than `patience` virtual seconds (though it may have done its work) is
    out, and the next best gets the task; the others are told `rejected` in the end. TaskFailed if nobody is left.
    """
    require.positive("patience", patience)
    bids, out = await _call(manager, task, bidders, deadline)
    left = dict(bids)
    while (winner := (award := rule(left)).winner) is not None:
        del left[winner]
        order = {"task": task, "price": award.price}
        result, why = await _attempt(manager.request(winner, "perform", order, timeout=patience, on_timeout="cancel"))
        if why is None:
            break
        out[winner] = why
    notify(manager, left, "rejected", {"task": task})
    if winner is None:
        raise TaskFailed(f"nobody did the task, of {', '.join(bidders)}: {out}")
    return replace(award, bids=bids, out=out, result=result)


async def _call(manager: Agent, task: Any, bidders: Sequence[str], deadline: float) -> tuple[Bids, dict[str, str]]:
    """Return the bids that come in time, and why the others are out."""
    names, task = require.names("bidders", bidders), freeze(task, "task")
    require.positive("deadline", deadline)
    if not names or len(set(names)) < len(names):
        raise InvalidValue(f"the bidders are {list(names)}: give at least one, and each once")
    for name in names:
        if manager.world.bus.agent(name) is None:
            raise UnknownRecipient(f"nobody called {name!r} is there to bid; spawn it first")

    async def bid(name: str) -> Price:
        price = await manager.request(name, "bid", task=task, timeout=deadline, on_timeout="cancel")
        return price if price is None else require.amount("the bid", price)

    answers = dict(zip(names, await asyncio.gather(*[_attempt(bid(name)) for name in names]), strict=True))
    bids = {name: price for name, (price, _) in answers.items() if price is not None}
    return bids, {name: why or "refused" for name, (_, why) in answers.items() if name not in bids}


async def _attempt(work: Awaitable[Any]) -> tuple[Any, str | None]:
    """Return the result, or why there is none; an error of whom is asked is its own affair, and in the trace."""
    try:
        return await work, None
    except WorldError:
        raise
    except Exception as error:
        return None, f"{type(error).__name__}: {describe(error)}"
