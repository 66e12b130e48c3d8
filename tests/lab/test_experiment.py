"""Sweeps and paired comparisons, against numbers computed by hand and by SciPy's own functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import pytest

from masbook import Agent, FaultPlan, MasbookError, simulate
from masbook.errors import InvalidValue, NotAsync
from masbook.lab import compare, sweep
from masbook.lab.experiment import interval


class Echo(Agent):
    async def on_message(self, message):
        await self.sleep(0.1)


async def rush(world, agents=2, work=1.0, fragile=False):
    """Agents greet each other; returns what a policy would be judged by."""
    team = [world.spawn(Echo(f"echo_{i}")) for i in range(agents)]
    for agent in team:
        await agent.tell(team[0].name, "hello", n=1)
    await team[0].sleep(work * agents + world.random("luck").random())
    if fragile and world.seed == 3:
        raise MasbookError("seed 3 is unlucky")
    return {"lasted": world.now, "handled": world.trace.count("handled")}


async def scalar(world, n=1):
    return world.seed * n


@dataclass
class Outcome:
    won: int
    lost: int


async def structured(world):
    return Outcome(3, 4)


async def clashing(world):
    return {"time": 1.0}


def test_one_row_a_run_in_the_order_of_the_grid():
    table = sweep(rush, {"agents": [2, 3], "work": [1.0, 2.0]}, seeds=[5, 1])
    assert list(table.columns) == ["agents", "work", "seed", "lasted", "handled", "time", "error", "digest"]
    order = [(a, w, s) for a in (2, 3) for w in (1.0, 2.0) for s in (5, 1)]
    assert list(table[["agents", "work", "seed"]].itertuples(index=False, name=None)) == order
    run = simulate(rush, 1, agents=3, work=2.0)
    last = table.iloc[-1]
    assert (last.digest, last.time, last.handled) == (run.digest, run.time, run.result["handled"])
    assert table["error"].isna().all()


def test_a_run_that_fails_is_a_row():
    table = sweep(rush, {"fragile": [True]}, seeds=range(5))
    failed = table[table["error"].notna()]
    assert failed["seed"].tolist() == [3]
    assert failed["error"].tolist() == ["MasbookError: seed 3 is unlucky"]
    assert failed["lasted"].isna().all() and failed["digest"].notna().all()
    assert table["error"].iloc[0] is None


def test_scalars_and_structures_become_columns():
    assert sweep(scalar, {"n": [2]}, seeds=[4, 5])["result"].tolist() == [8, 10]
    assert sweep(structured, seeds=[0])[["won", "lost"]].values.tolist() == [[3, 4]]
    assert sweep(scalar, seeds=[1]).columns.tolist() == ["seed", "result", "time", "error", "digest"]


def test_fault_plans_are_an_axis_when_they_are_named():
    table = sweep(rush, faults={"none": None, "all lost": FaultPlan(drop=1.0)}, seeds=[1, 2])
    assert table["faults"].tolist() == ["none", "none", "all lost", "all lost"]
    assert table["handled"].tolist() == [2, 2, 0, 0]
    plain = sweep(rush, faults=FaultPlan(drop=1.0), seeds=[1, 2])
    assert "faults" not in plain and plain["digest"].tolist() == table["digest"].tolist()[2:]


def test_there_is_no_bar_but_in_a_terminal(capsys):
    sweep(scalar, seeds=range(3))
    assert capsys.readouterr() == ("", "")


async def first(values):
    return values[0]


async def last(values):
    return values[-1]


async def chosen(world, rule=first):
    return await rule([world.seed, 10])


def test_functions_are_shown_by_their_names_and_called():
    table = sweep(chosen, {"rule": [first, last]}, seeds=[1, 2])
    assert table["rule"].tolist() == ["first", "first", "last", "last"]
    assert table["result"].tolist() == [1, 2, 10, 10]
    assert compare(table, "result", by="rule")["difference"].tolist() == [8.5]
    with pytest.raises(InvalidValue, match="two functions have one name among first, first"):
        sweep(chosen, {"rule": [first, first]}, seeds=[1])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: sweep(rush, {"agents": 3}), "agents=3"),
        (lambda: sweep(rush, {"agents": []}), "agents"),
        (lambda: sweep(rush, seeds="123"), "seeds='123'"),
        (lambda: sweep(rush, {"agent": [3]}), "agent"),
        (lambda: sweep(rush, {"seed": [3]}), "seed"),
        (lambda: sweep(rush, faults={}), "faults"),
        (lambda: sweep(clashing, seeds=[1]), "'time'"),
    ],
)
def test_bad_sweeps_are_refused(call, named):
    with pytest.raises(InvalidValue, match=named):
        call()


def test_scenarios_are_checked_before_the_first_run():
    with pytest.raises(NotAsync, match="async def"):
        sweep(lambda world: None)


def paired_table(**changes):
    rows = {"agents": [2, 2, 2, 4, 4, 4], "seed": [0, 1, 2, 2, 0, 1], "score": [1.0, 2.0, 4.0, 7.0, 2.0, 4.0]}
    return pd.DataFrame({**rows, "error": [None] * 6, **changes})


def test_the_interval_by_hand():
    # mean 2, standard deviation 1, standard error 1/sqrt(3), t(0.975, 2) = 4.302653
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)
    assert math.isnan(interval([5.0]).low) and interval([5.0]).mean == 5.0
    assert interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    for bad in ([], [1.0, float("nan")]):
        with pytest.raises(InvalidValue):
            interval(bad)


def test_pairs_are_made_by_seed_not_by_position():
    row = compare(paired_table(), "score", by="agents").iloc[0]
    # by seed: 2-1, 4-2, 7-4 = 1, 2, 3; by position it would be 6, 0, 0
    assert (row.agents, row.baseline, row.pairs, row.dropped) == (4, 2, 3, 0)
    assert (row["mean"], row.baseline_mean, row.difference) == pytest.approx((13 / 3, 7 / 3, 2.0))
    assert (row.low, row.high) == pytest.approx(interval([1.0, 2.0, 3.0])[1:])


def test_the_same_as_scipys_paired_test():
    from scipy import stats  # here, because it is slow to load

    table = sweep(rush, {"agents": [2, 5], "work": [1.0]}, seeds=range(12))
    table["lasted"] += table["agents"] * [0.1 * i % 0.7 for i in range(24)]
    row = compare(table, "lasted", by="agents").iloc[0]
    groups = [table[table["agents"] == n].sort_values("seed")["lasted"] for n in (5, 2)]
    test = stats.ttest_rel(*groups)
    assert (row.low, row.high) == pytest.approx(tuple(test.confidence_interval()))
    assert row.p_value == pytest.approx(test.pvalue)


def test_the_baseline_can_be_chosen_and_every_other_level_gets_a_row():
    table = sweep(scalar, {"n": [1, 2, 3]}, seeds=range(4))
    rows = compare(table, "result", by="n", baseline=2)
    assert rows["n"].tolist() == [1, 3] and rows["difference"].tolist() == [-1.5, 1.5]


def test_failed_runs_drop_their_pair_and_are_counted():
    table = paired_table(error=[None, "Stuck: x", None, None, None, None])
    row = compare(table, "score", by="agents").iloc[0]
    assert (row.pairs, row.dropped, row.difference) == (2, 1, 2.0)
    missing = compare(paired_table(score=[1.0, None, 4.0, 7.0, 2.0, 4.0]), "score", by="agents").iloc[0]
    assert (missing.pairs, missing.dropped) == (2, 1)
    none = compare(paired_table(error=["x"] * 6), "score", by="agents").iloc[0]
    assert (none.pairs, none.dropped) == (0, 3) and math.isnan(none.difference)


def test_no_spread_has_no_p_value():
    row = compare(paired_table(score=[1.0, 2.0, 4.0, 5.0, 2.0, 3.0]), "score", by="agents").iloc[0]
    assert (row.difference, row.low, row.high) == (1.0, 1.0, 1.0) and math.isnan(row.p_value)


def test_a_table_that_is_not_paired_is_refused():
    planted = paired_table(seed=[0, 1, 2, 2, 0, 9])
    with pytest.raises(InvalidValue, match=r"agents=2 has no run of seed = 9"):
        compare(planted, "score", by="agents")
    with pytest.raises(InvalidValue, match=r"agents=4 has no run of seed = 2"):
        compare(paired_table().drop(index=3), "score", by="agents")
    twice = pd.concat([paired_table().assign(work=w) for w in (1, 2)])
    with pytest.raises(InvalidValue, match="choose a part of the table"):
        compare(twice, "score", by="agents")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metric": "skore"}, "skore"),
        ({"by": "agent"}, "agent"),
        ({"baseline": 7}, "no level 7"),
        ({"metric": "policy"}, "not a number"),
    ],
)
def test_bad_comparisons_are_refused(change, named):
    table = paired_table(policy="first come")
    with pytest.raises(InvalidValue, match=named):
        compare(table, **{"metric": "score", "by": "agents", **change})


def test_one_level_alone_has_nothing_to_be_compared_with():
    with pytest.raises(InvalidValue, match="nothing to compare"):
        compare(paired_table().query("agents == 2"), "score", by="agents")


@pytest.mark.parametrize("grid", [["n"], "n", [("n", [1])], 3])
def test_a_grid_that_is_no_dict(grid):
    with pytest.raises(InvalidValue, match="give a dict from parameters to their values"):
        sweep(scalar, grid, seeds=[1])
