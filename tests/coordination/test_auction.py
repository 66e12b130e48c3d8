"""Auctions and the contract net: who wins at what price, who is truthful, and what becomes of those who fail."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masbook import (
    Agent,
    Conflict,
    ConflictResolver,
    Crash,
    FaultPlan,
    OnMessage,
    Participant,
    Partition,
    World,
    capability,
    on,
    simulate,
)
from masbook.coordination.conflict.auction import (
    CHEAPEST,
    VICKREY,
    Award,
    auction,
    contract_net,
    first_price,
    second_price,
)
from masbook.errors import InvalidValue, TaskFailed, UnknownRecipient, Unrecordable
from masbook.runtime.message import freeze


class TestSealedBids:
    @pytest.mark.parametrize(
        ("rule", "options", "winner", "price"),
        [
            (first_price, {}, "c", 9),
            (second_price, {}, "c", 6),
            (first_price, {"lowest_wins": True}, "a", 2),
            (second_price, {"lowest_wins": True}, "a", 6),
        ],
    )
    def test_winner_and_price(self, rule, options, winner, price):
        award = rule({"a": 2, "b": 6, "c": 9}, **options)
        assert (award.winner, award.price, award.bids) == (winner, price, {"a": 2, "b": 6, "c": 9})

    def test_alone(self):
        assert second_price({"a": 5}).price == 0
        assert second_price({"a": 5}, lowest_wins=True).price == 5

    @pytest.mark.parametrize("rule", [first_price, second_price])
    def test_no_bids(self, rule):
        assert rule({}) == Award(None, None)

    @pytest.mark.parametrize("lowest", [False, True])
    def test_ties(self, lowest):
        """The first bidder given wins; the second price is then the bid itself."""
        bids = {"z": 4, "a": 4, "m": 5 if lowest else 3}
        for rule in (first_price, second_price):
            award = rule(bids, lowest_wins=lowest)
            assert (award.winner, award.price, award.tied) == ("z", 4, ("z", "a"))
            assert rule(dict(reversed(bids.items())), lowest_wins=lowest).winner == "a"

    @pytest.mark.parametrize("rule", [first_price, second_price])
    @pytest.mark.parametrize("bid", [-1, float("nan"), float("inf"), "3", None, True])
    def test_bad_bids(self, rule, bid):
        with pytest.raises(InvalidValue, match="bid of b"):
            rule({"a": 1, "b": bid})

    @given(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 5), min_size=1))
    def test_like_sorting(self, bids):
        """Both rules against a sorted list, selling and buying."""
        for lowest in (False, True):
            order = sorted(bids.values(), reverse=not lowest)
            first, second = (rule(bids, lowest_wins=lowest) for rule in (first_price, second_price))
            assert first.winner == second.winner and bids[first.winner] == first.price == order[0]
            assert second.price == (order[1] if len(order) > 1 else order[0] if lowest else 0)


def regrets(rule, lowest, bidders, grid=range(5)):
    """Return the cases on the grid in which a lie pays: value, lie, the others' bids."""

    def gain(value, bid, others):
        award = rule({"me": bid, **others}, lowest_wins=lowest)
        return 0 if award.winner != "me" else (award.price - value if lowest else value - award.price)

    cases = product(grid, grid, *[grid] * (bidders - 1))
    named = [(value, lie, dict(zip("xyz", others, strict=False))) for value, lie, *others in cases]
    return [case for case in named if gain(case[0], case[1], case[2]) > gain(case[0], case[0], case[2])]


class TestTruth:
    @pytest.mark.parametrize(("bidders", "lowest"), [(1, False), (2, False), (3, False), (2, True), (3, True)])
    def test_in_a_second_price_auction_no_lie_pays(self, lowest, bidders):
        assert regrets(second_price, lowest, bidders) == []

    @pytest.mark.parametrize("lowest", [False, True])
    def test_in_a_first_price_auction_lies_pay(self, lowest):
        """The planted violation: the same check finds the bidder who shades its bid."""
        lies = regrets(first_price, lowest, 2)
        assert lies and all((lie > value) == lowest for value, lie, _ in lies)


class Mover(Agent):
    """Asks `cost` for any task after `thinking` seconds, and does it in `working` seconds."""

    def __init__(self, name, cost, thinking=0.0, working=1.0, **options):
        super().__init__(name, **options)
        self.cost, self.thinking, self.working = cost, thinking, working
        self.heard = []

    @capability
    async def bid(self, task: dict) -> float | None:
        await self.sleep(self.thinking)
        if isinstance(self.cost, Exception):
            raise self.cost
        return self.cost

    @capability
    async def perform(self, task: dict, price: float) -> str:
        await self.sleep(self.working)
        if self.working > 50:
            raise RuntimeError("too heavy")
        return f"{self.name} did {task['what']} for {price:g}"

    @on("awarded")
    @on("rejected")
    async def hear(self, message):
        self.heard.append((message.topic, message.content.get("price")))


def society(*movers, **options):
    world = World(**options)
    return world, world.spawn(Agent("manager")), [world.spawn(mover).name for mover in movers]


TASK = {"what": "piano"}


def at_most_five(bids):
    """A rule of one's own: what is dearer is not good enough."""
    return CHEAPEST({name: bid for name, bid in bids.items() if bid <= 5})


class TestAuction:
    def test_the_cheapest_gets_the_task_at_the_second_price(self):
        movers = [Mover("a", 7), Mover("b", 4), Mover("c", 5)]
        world, manager, names = society(*movers)
        award = world.run(auction(manager, TASK, names, deadline=2.0))
        assert (award.winner, award.price, award.bids, award.out) == ("b", 5, {"a": 7, "b": 4, "c": 5}, {})
        world.run()
        assert [mover.heard for mover in movers] == [[("rejected", None)], [("awarded", 5)], [("rejected", None)]]

    def test_a_strategy_of_five_lines_settles_who_gets_a_task(self):
        async def bidding(case):
            names = [party.name for party in case.conflict.participants]
            award = await auction(case.resolver, case.conflict.context["task"], names, deadline=case.deadline)
            won = award.winner is not None
            return case.award(award.winner, f"for {award.price:g}", veto=1.0) if won else case.undecided("no bids")

        world, _, names = society(Mover("a", 7), Mover("b", 4))
        resolver = world.spawn(ConflictResolver(strategies={"bidding": bidding}))
        dispute = Conflict("task_assignment", "a piano", [Participant(name) for name in names], {"task": TASK})
        resolution = world.run(resolver.resolve(dispute, "bidding"))
        assert (resolution.winner, resolution.strategy, resolution.reason) == ("b", "bidding", "for 7")

    def test_everybody_thinks_at_the_same_time(self):
        world, manager, names = society(*[Mover(f"m{i}", i, thinking=1.5) for i in range(10)])
        assert world.run(auction(manager, TASK, names, deadline=2.0)).winner == "m0"
        assert world.now == 1.5

    def test_who_is_late_refuses_fails_or_talks_nonsense_is_out(self):
        world, manager, names = society(
            Mover("late", 1, thinking=9.0),
            Mover("shy", None),
            Mover("sick", ValueError("no lorry")),
            Mover("odd", float("nan")),
            Mover("generous", -3),
            Agent("deaf"),
            Mover("fair", 4, thinking=1.9),
        )
        award = world.run(auction(manager, TASK, names, deadline=2.0, rule=CHEAPEST))
        assert (award.winner, award.price, award.bids) == ("fair", 4, {"fair": 4})
        assert list(award.out) == ["late", "shy", "sick", "odd", "generous", "deaf"]
        reasons = ["RequestTimeout", "refused", "no lorry", "nan", "-3", "cannot 'bid'"]
        assert all(reason in why for reason, why in zip(reasons, award.out.values(), strict=True))
        assert world.now == 2.0
        assert world.trace.count("failed", "sick") == 1  # its own affair, but not swallowed
        world.run()
        assert world.agents["late"].heard == [] and world.bus.accounting()["missing"] == 0

    def test_nobody_good_enough(self):
        """No award is a result, not an error; who bid is told."""
        world, manager, names = society(Mover("a", 7), Mover("b", None))
        award = world.run(auction(manager, TASK, names, deadline=2.0, rule=at_most_five))
        assert (award.winner, award.price, award.out) == (None, None, {"b": "refused"})
        world.run()
        assert world.agents["a"].heard == [("rejected", None)] and world.agents["b"].heard == []

    def test_selling(self):
        world, manager, names = society(Mover("a", 7), Mover("b", 4))
        award = world.run(auction(manager, TASK, names, deadline=2.0, rule=second_price))
        assert (award.winner, award.price) == ("a", 4)

    def test_a_rule_of_ones_own(self):
        world, manager, names = society(Mover("a", 7), Mover("b", 4))
        award = world.run(auction(manager, TASK, names, deadline=1.0, rule=lambda bids: Award("a", sum(bids.values()))))
        assert (award.winner, award.price) == ("a", 11)

    def test_behind_a_partition_and_offline(self):
        plan = FaultPlan(appointments=[Partition(["manager"], ["a"])])
        world, manager, names = society(Mover("a", 1), Mover("b", 2), Mover("c", 3), faults=plan)
        world.agents["b"].stop()
        award = world.run(auction(manager, TASK, names, deadline=2.0))
        assert award.winner == "c" and "RequestTimeout" in award.out["a"] and "AgentOffline" in award.out["b"]

    def test_a_full_mailbox_of_a_loser_delays_nobody(self):
        class Hog(Mover):
            @capability
            async def bid(self, task: dict) -> float | None:
                await self.tell(self.name, "perform", task=task, price=1.0)  # its mailbox holds one message
                self.suspend(100.0)
                return 9.0

        world, manager, names = society(Hog("hog", 9, capacity=1), Mover("winner", 1))
        assert world.run(auction(manager, TASK, names, deadline=2.0)).winner == "winner"
        assert world.now == 0.0 and world.trace.count("blocked", "manager") == 1
        world.run()
        assert world.agents["hog"].heard == [("rejected", None)]

    def test_from_inside_a_handler_of_an_agent_that_does_one_thing_at_a_time(self):
        class Desk(Agent):
            @capability
            async def order(self, task: dict) -> str:
                return (await contract_net(self, task, ["a", "b"], deadline=1.0)).result

        world, manager, _ = society(Mover("a", 3), Mover("b", 2))
        world.spawn(Desk("desk"))
        assert world.run(manager.request("desk", "order", task=TASK)) == "b did piano for 2"


class TestContractNet:
    def test_the_cheapest_does_it(self):
        movers = [Mover("a", 7), Mover("b", 4), Mover("c", 5)]
        world, manager, names = society(*movers)
        award = world.run(contract_net(manager, TASK, names, deadline=2.0))
        assert (award.winner, award.price, award.result) == ("b", 4, "b did piano for 4")
        world.run()
        assert [mover.heard for mover in movers] == [[("rejected", None)], [], [("rejected", None)]]

    @pytest.mark.parametrize(
        ("options", "faults", "why"),
        [
            ({}, FaultPlan(appointments=[Crash("best", at=0.5)]), "AgentCrashed"),
            ({"working": 60.0}, None, "RuntimeError: too heavy"),
            ({"working": 45.0}, None, "RequestTimeout"),
            ({}, FaultPlan(appointments=[Partition(["best"], ["manager"], 0.0001)]), "RequestTimeout"),
        ],
    )
    def test_a_winner_that_fails_gives_the_task_to_the_next_best(self, options, faults, why):
        best = Mover("best", 1, **options)
        patience = 61.0 if "heavy" in why else 30.0
        world, manager, names = society(Mover("third", 6), best, Mover("second", 3), faults=faults)
        award = world.run(contract_net(manager, TASK, names, deadline=2.0, patience=patience))
        assert (award.winner, award.price, award.result) == ("second", 3, "second did piano for 3")
        assert why in award.out["best"] and award.bids == {"third": 6, "best": 1, "second": 3}
        world.run(until=world.now + 1)
        assert world.agents["third"].heard == [("rejected", None)] and best.heard == []

    def test_the_price_of_the_next_best_is_reckoned_anew(self):
        world, manager, names = society(
            Mover("a", 6), Mover("best", 1), Mover("b", 3), faults=FaultPlan(appointments=[Crash("best", at=0.5)])
        )
        award = world.run(contract_net(manager, TASK, names, deadline=2.0, rule=VICKREY))
        assert (award.winner, award.price) == ("b", 6)

    def test_nobody_left(self):
        world, manager, names = society(Mover("a", None), Mover("b", 2, working=40.0))
        with pytest.raises(TaskFailed, match=r"a.*refused.*b.*RequestTimeout"):
            world.run(contract_net(manager, TASK, names, deadline=2.0))

    def test_rejected_also_where_nobody_was_good_enough(self):
        world, manager, names = society(Mover("a", 9))
        with pytest.raises(TaskFailed, match="a"):
            world.run(contract_net(manager, TASK, names, deadline=2.0, rule=at_most_five))
        world.run()
        assert world.agents["a"].heard == [("rejected", None)]

    @pytest.mark.parametrize("seed", range(10))
    def test_losing_messages(self, seed):
        """Whatever is lost: one winner with a result, or TaskFailed; the same for the same seed."""

        async def scenario(world):
            manager = world.spawn(Agent("manager"))
            names = [world.spawn(Mover(f"m{i}", i)).name for i in range(4)]
            award = await contract_net(manager, TASK, names, deadline=2.0, patience=5.0)
            assert award.result.startswith(f"{award.winner} did") and set(award.bids) | set(award.out) == set(names)
            return award.winner

        runs = [simulate(scenario, seed, faults=FaultPlan(drop=0.3), schedule="shuffled") for _ in range(2)]
        assert runs[0].ok or isinstance(runs[0].error, TaskFailed)
        assert runs[0].digest == runs[1].digest

    def test_a_late_bid_changes_nothing(self):
        plan = FaultPlan(appointments=[OnMessage("delay", to="manager", sender="best", seconds=3.0)])
        world, manager, names = society(Mover("best", 1), Mover("b", 2), faults=plan)
        award = world.run(contract_net(manager, TASK, names, deadline=2.0))
        world.run()
        assert award.winner == "b" and world.agents["best"].heard == []
        assert [letter.facts["reason"] for letter in world.bus.dead_letters] == ["late"]


class TestBadInput:
    @pytest.mark.parametrize("ask", [auction, contract_net])
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"deadline": 0}, InvalidValue),
            ({"deadline": -1.0}, InvalidValue),
            ({"deadline": float("nan")}, InvalidValue),
            ({"bidders": []}, InvalidValue),
            ({"bidders": ["a", "a"]}, InvalidValue),
            ({"bidders": "a"}, InvalidValue),
            ({"bidders": ["a", "ghost"]}, UnknownRecipient),
            ({"task": {"what": {1, 2}}}, Unrecordable),
        ],
    )
    def test_refused_before_anybody_is_asked(self, ask, changes, error):
        world, manager, names = society(Mover("a", 1))
        options = {"task": TASK, "bidders": names, "deadline": 1.0, **changes}
        with pytest.raises(error):
            world.run(ask(manager, **options))
        assert world.trace.count("sent") == 0

    @pytest.mark.parametrize("patience", [0, -1, float("nan")])
    def test_patience(self, patience):
        world, manager, names = society(Mover("a", 1))
        with pytest.raises(InvalidValue, match="patience"):
            world.run(contract_net(manager, TASK, names, deadline=1.0, patience=patience))
        assert world.trace.count("sent") == 0

    def test_an_award_can_be_sent(self):
        assert Award(**freeze(second_price({"a": 2, "b": 3}))).winner == "b"
