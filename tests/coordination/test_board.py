"""The task board: every task ends once, parents after their subtasks, and nothing starves, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from teams import Scripted, busy_day, rows, staff, submit_all, violations

from masbook import Agent, FaultPlan, World, simulate
from masbook.coordination import Member, TaskBoard, TeamTask
from masbook.errors import AgentOffline, InvalidInput, InvalidValue, Stuck, Unrecordable
from masbook.runtime.faults import Crash

CRASHES = FaultPlan(
    appointments=[Crash("tess", 1.2, 2.0), Crash("carl", 2.0, 1.0), Crash("sue", 3.0, 4.0), Crash("wim", 0.5)]
)
LOSSES = FaultPlan(drop=0.05, delay=0.1, duplicate=0.05, appointments=[Crash("tess", 1.2, 2.0)])


@pytest.fixture
def world():
    with World(seed=7) as world:
        yield world


def ended(world, status=None):
    return [row["task"] for row in rows(world.trace, "task_ended") if status in (None, row["status"])]


class TestGivingOut:
    def test_an_assigned_task_is_really_worked_on(self, world):
        """Seed defect of 004: assigned tasks had no consumer."""
        board = staff(world)
        [task] = world.run(submit_all(board, TeamTask("cable", assignee="tess", duration=2.5)))
        assert (task.status, task.worker, task.result) == ("completed", "tess", "tess did cable")
        assert (task.added, task.ended, task.attempts) == (0.0, 2.5, 1)

    def test_the_most_urgent_first_then_who_came_first(self, world):
        board = staff(world, only=["tess"])
        tasks = [TeamTask(f"{n}", priority=p) for n, p in enumerate([1, 3, 5, 3, 2])]
        done = world.run(submit_all(board, *tasks))
        assert [task.title for task in sorted(done, key=lambda task: task.ended)] == ["2", "1", "3", "4", "0"]

    def test_a_task_at_the_head_that_must_wait_starves_nobody(self, world):
        """Seed defect of 004: whoever could not do the task at the head of the queue put it back and got nothing."""
        board = staff(world)
        urgent = [TeamTask(f"cable {n}", priority=5, requires={"network": 4}) for n in range(3)]
        *_, bill = world.run(submit_all(board, *urgent, TeamTask("invoice", requires={"billing": 4})))
        assert (bill.worker, bill.ended) == ("bill", 1.0)
        waiting = rows(world.trace, "task_waiting")
        assert [(row["task"], row["reason"]) for row in waiting] == [("task-2", "busy: tess"), ("task-3", "busy: tess")]

    def test_an_impossible_task_is_reported_at_once_and_holds_up_nobody(self, world):
        """Seed defect of 004: a task that nobody could do stayed at the head of the queue for ever."""
        board = staff(world)
        task = world.run(board.submit(TeamTask("rocket", priority=5, requires={"network": 5})))
        assert task.status == "failed" and task.error == "impossible: nobody can do it who has network 5"
        assert (task.added, task.ended, task.attempts) == (0.0, 0.0, 0)
        [other] = world.run(submit_all(board, TeamTask("cable", requires={"network": 4})))
        assert other.status == "completed" and not violations(world.trace)

    def test_a_task_that_waits_for_another_than_who_gave_it_holds_up_nobody(self, world):
        board = staff(world, only=["carl", "tess"])
        world.spawn(Scripted("nina", "specialist", {"network": 4}, capacity=1))

        async def scenario():
            await board.submit(TeamTask("long", assignee="nina", duration=9.0))
            await asyncio.sleep(1.0)
            await world.agents["tess"].delegate("cable", requires=["network"], priority=5)
            return (await submit_all(board, TeamTask("plug", requires=["network"])))[0].ended

        assert world.run(scenario()) == 2.0

    def test_what_the_board_adds_to_a_task_cannot_be_given(self, world):
        board = staff(world, only=["tess"])
        given = {"status": "completed", "worker": "x", "result": 1, "ended": 1.0, "by": "tess", "attempts": 3}
        [task] = world.run(submit_all(board, TeamTask("a", **given, subtasks=[TeamTask("b", **given)])))
        assert (task.status, task.by, world.run(board.task("task-1.1")).result) == ("completed", None, "tess did b")

    def test_all_skills_are_needed_not_any(self, world):
        board = staff(world)
        task = world.run(board.submit(TeamTask("both", requires=["network", "billing"])))
        assert task.status == "failed" and "network 1 + billing 1" in task.error

    def test_a_thousand_tasks_of_one_instant_are_a_thousand(self, world):
        """Seed defect 13: ids were made of milliseconds, and 8 of 1,000 tasks were kept."""
        board = staff(world)
        done = world.run(submit_all(board, *[TeamTask("t", duration=0.0)] * 1000))
        assert len({task.id for task in done}) == 1000 and {task.status for task in done} == {"completed"}

    def test_what_waits_costs_nothing(self, world):
        board = staff(world, only=["tess"])

        async def scenario():
            for n in range(5):
                await board.submit(TeamTask(f"{n}", duration=1000.0))
            await asyncio.sleep(0.5)
            before = len(world.trace)
            await asyncio.sleep(900.0)
            return len(world.trace) - before

        assert world.run(scenario()) == 0

    def test_nobody_has_more_in_hand_than_its_capacity_and_workload_is_right_at_all_times(self, world):
        """Seed defect of 004: workload was 0 while tasks were running, and failed ones kept their slots."""
        board = world.spawn(TaskBoard())
        member = world.spawn(Scripted("m", capacity=2))
        tasks = [TeamTask(f"{n}", data={"fail": n % 2}) for n in range(5)]

        async def scenario():
            everything = asyncio.ensure_future(submit_all(board, *tasks))
            seen = []
            await asyncio.sleep(0.5)
            for _ in range(4):
                seen.append((member.workload, len(await board.tasks("in_progress"))))
                await asyncio.sleep(1.0)
            return seen, [task.status for task in everything.result()]

        seen, statuses = world.run(scenario())
        assert seen == [(2, 2), (2, 2), (1, 1), (0, 0)]
        assert statuses == ["completed", "failed", "completed", "failed", "completed"]
        assert not violations(world.trace) and member.workload == 0

    def test_results_and_orders_travel_by_message(self, world):
        board, client = staff(world), world.spawn(Agent("client"))
        ask = lambda operation, **inputs: world.run(client.request("board", operation, **inputs))  # noqa: E731
        task = ask("submit", task={"title": "cable", "requires": ["network"], "subtasks": [{"title": "plug"}]})
        assert isinstance(task, TeamTask) and task.children == ("task-1.1",)
        assert ask("outcome", task=task.id).result == "tess did cable"
        assert ask("task", task=task.id) == world.run(board.task(task.id))
        assert [one.id for one in ask("tasks", status="completed")] == ["task-1", "task-1.1"]
        assert ask("cancel", task=task.id).status == "completed"
        assert ask("team_status") == world.run(board.team_status())
        with pytest.raises(InvalidInput, match="priority"):
            ask("submit", task={"title": "cable", "priority": 7})

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ({"title": ""}, InvalidValue),
            ({"title": None}, InvalidValue),
            ({"priority": 0}, InvalidValue),
            ({"priority": 6}, InvalidValue),
            ({"priority": 2.5}, InvalidValue),
            ({"requires": {"network": 6}}, InvalidValue),
            ({"requires": "network"}, InvalidValue),
            ({"on_failure": "panic"}, InvalidValue),
            ({"retries": -1}, InvalidValue),
            ({"timeout": 0}, InvalidValue),
            ({"timeout": -1.0}, InvalidValue),
            ({"duration": -1.0}, InvalidValue),
            ({"subtasks": ["a"]}, InvalidValue),
            ({"subtasks": None}, InvalidValue),
            ({"subtasks": TeamTask("a")}, InvalidValue),
            ({"requires": {"network": float("nan")}}, InvalidValue),
            ({"timeout": float("nan")}, InvalidValue),
            ({"priority": True}, InvalidValue),
            ({"id": 5}, InvalidValue),
            ({"data": [1]}, InvalidValue),
            ({"data": {"file": open}}, Unrecordable),
        ],
    )
    def test_bad_tasks(self, bad, error):
        with pytest.raises(error):
            TeamTask(**{"title": "t", **bad})

    @pytest.mark.parametrize(
        ("task", "options", "hint"),
        [
            (TeamTask("t"), {"parent": "task-9"}, "no task 'task-9'"),
            (TeamTask("t"), {"parent": "over"}, "takes no more subtasks"),
            (TeamTask("t", id="over"), {}, "choose another id"),
            (TeamTask("t", id="a", subtasks=[TeamTask("u", id="b"), TeamTask("v", id="b")]), {}, "choose another id"),
            ("t", {}, "submit takes a task, not 't'"),
            (TeamTask("t", assignee="ghost"), {}, "'ghost' is not in the team"),
            (TeamTask("t", assignee="bill", requires=["network"]), {}, "'bill' lacks network 1"),
            (TeamTask("t", subtasks=[TeamTask("u"), TeamTask("v", assignee="ghost")]), {}, "ghost"),
        ],
    )
    def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(self, world, task, options, hint):
        board = staff(world)
        world.run(submit_all(board, TeamTask("over", id="over")))
        with pytest.raises(InvalidValue, match=hint):
            world.run(board.submit(task, **options))
        assert len(world.run(board.tasks())) == 1 and world.run(board.task("over")).children == ()

    @pytest.mark.parametrize(
        "bad",
        [
            {"patience": 0},
            {"patience": -1},
            {"patience": float("nan")},
            {"default": open},
            {"choose": "best"},
            {"ask_person": print},
        ],
    )
    def test_bad_boards(self, bad):
        with pytest.raises(InvalidValue):
            TaskBoard(**bad)

    @pytest.mark.parametrize("operation", ["task", "outcome", "cancel"])
    def test_unknown_tasks(self, world, operation):
        board = staff(world)
        with pytest.raises(InvalidValue, match="no task 'ghost' on board"):
            world.run(getattr(board, operation)("ghost"))
        with pytest.raises(InvalidValue):
            board.when_done("ghost", print)

    def test_what_cannot_be_called_back_is_refused(self, world):
        board = staff(world)
        task = world.run(board.submit(TeamTask("a")))
        with pytest.raises(InvalidValue, match="when_done cannot call None"):
            board.when_done(task.id, None)


class TestParents:
    PARTS = (TeamTask("a", duration=1.0), TeamTask("b", duration=3.0), TeamTask("c", duration=2.0))

    def test_a_parent_completes_exactly_when_all_its_children_have(self, world):
        """Seed defect of 004: the parent completed with the first child, and again with each other one."""
        told = []

        async def scenario():
            board = staff(world)
            parent = await board.submit(TeamTask("move", subtasks=self.PARTS))
            board.when_done(parent.id, told.append)
            return await board.outcome(parent.id)

        parent = world.run(scenario())
        assert ended(world) == ["task-1.1", "task-1.3", "task-1.2", "task-1"] and parent.ended == 3.0
        assert parent.result == {"task-1.1": "wim did a", "task-1.2": "wanda did b", "task-1.3": "tess did c"}
        world.run(until=10.0)
        assert told == [parent]

    def test_a_parent_with_work_of_its_own_needs_that_too(self, world):
        board = staff(world)
        task = TeamTask("move", requires=["routing"], duration=5.0, subtasks=self.PARTS)
        [parent] = world.run(submit_all(board, task))
        assert parent.ended == 5.0 and parent.result == "carl did move"

    def test_children_may_be_added_as_long_as_it_is_open(self, world):
        async def scenario():
            board = staff(world)
            parent = await board.submit(TeamTask("move", subtasks=self.PARTS))
            await asyncio.sleep(2.5)
            await board.submit(TeamTask("d", duration=4.0), parent=parent.id)
            return await board.outcome(parent.id)

        parent = world.run(scenario())
        assert parent.ended == 6.5 and parent.children[-1] == "task-1.4"

    def test_a_child_is_at_least_as_urgent_as_its_parent(self, world):
        board = staff(world)
        task = TeamTask(
            "a", priority=4, subtasks=[TeamTask("b", priority=1, subtasks=[TeamTask("c")]), TeamTask("d", priority=5)]
        )
        world.run(submit_all(board, task))
        priorities = {row["task"]: row["priority"] for row in rows(world.trace, "task_added")}
        assert priorities == {"task-1": 4, "task-1.1": 4, "task-1.1.1": 4, "task-1.2": 5}

    def test_a_failed_child_fails_its_parent_and_the_rest_is_called_off(self, world):
        """Seed defect of 004: a failed child blocked its parent for ever."""
        board = staff(world)
        parts = [TeamTask("a", data={"fail": 9}), TeamTask("b", duration=9.0), TeamTask("c", duration=1.5)]
        [parent] = world.run(submit_all(board, TeamTask("move", subtasks=parts)))
        assert parent.status == "failed" and parent.ended == 1.0
        assert parent.error == "task-1.1, 'a', has failed: ValueError: no luck"
        assert [world.run(board.task(child)).status for child in parent.children] == [
            "failed",
            "cancelled",
            "cancelled",
        ]
        assert not violations(world.trace)
        world.run(until=20.0)
        assert world.run(board.team_status())["workload"] == dict.fromkeys(board.team, 0)

    def test_a_failed_child_may_be_ignored(self, world):
        board = staff(world)
        parts = [TeamTask("a", data={"fail": 9}, on_failure="ignore"), TeamTask("b", duration=2.0)]
        [parent] = world.run(submit_all(board, TeamTask("move", subtasks=parts)))
        assert parent.status == "completed" and parent.result == {"task-1.1": None, "task-1.2": "wanda did b"}

    def test_an_impossible_child_fails_its_parent_at_once(self, world):
        board = staff(world)
        parent = world.run(board.submit(TeamTask("m", subtasks=[TeamTask("a", requires=["magic"]), TeamTask("b")])))
        assert parent.status == "failed" and "impossible" in parent.error
        assert ended(world) == ["task-1.1", "task-1.2", "task-1"] and not rows(world.trace, "task_started")

    def test_a_cancelled_child_fails_its_parent(self, world):
        async def scenario():
            board = staff(world)
            parent = await board.submit(TeamTask("move", subtasks=self.PARTS))
            await board.cancel(parent.children[1])
            return await board.outcome(parent.id)

        assert world.run(scenario()).status == "failed"


class TestFailures:
    def test_retry_tries_again_then_fails(self, world):
        board = staff(world)
        lucky, unlucky = world.run(
            submit_all(
                board,
                TeamTask("a", on_failure="retry", data={"fail": 2}),
                TeamTask("b", on_failure="retry", retries=1, data={"fail": 9}),
            )
        )
        assert (lucky.status, lucky.attempts) == ("completed", 3)
        assert (unlucky.status, unlucky.attempts, unlucky.error) == ("failed", 2, "ValueError: no luck")
        assert [row["next"] for row in rows(world.trace, "task_failed", task=unlucky.id)] == ["retry", "end"]

    def test_a_retry_does_not_make_good_for_a_subtask_that_failed(self, world):
        board = staff(world)
        parts = [TeamTask("a", data={"fail": 9})]
        task = TeamTask("move", requires=["routing"], retries=1, duration=5.0, subtasks=parts)
        [parent] = world.run(submit_all(board, task))
        assert (parent.status, parent.ended) == ("failed", 1.0) and not violations(world.trace)

    def test_what_was_delegated_may_come_back_to_who_delegated_it(self, world):
        board = staff(world)

        async def scenario():
            task = await world.agents["carl"].delegate("a", to="wim", on_failure="escalate", data={"fail": 1})
            return await board.outcome(task.id)

        task = world.run(scenario())
        assert (task.worker, task.status) == ("carl", "completed")

    def test_an_escalation_that_fails_goes_further_up(self, world):
        class Overtaxed(Scripted):
            async def work(self, task):
                if self.name == "carl":
                    raise ValueError("beyond me too")
                return await super().work(task)

        board = staff(world, Overtaxed)
        [task] = world.run(submit_all(board, TeamTask("a", assignee="wim", data={"escalate": "policy"})))
        above = world.run(board.task(task.children[0]))
        assert (above.worker, above.status, task.status) == ("sue", "completed", "completed")

    def test_an_escalation_to_one_who_leaves_goes_further_up(self, world):
        async def scenario():
            board = staff(world)
            await board.submit(TeamTask("long", assignee="carl", duration=9.0, on_failure="escalate"))
            asked = await world.agents["wim"].escalate("policy")
            await asyncio.sleep(1.0)
            world.agents["carl"].stop()
            return [(task.worker, task.status) for task in [await board.outcome(id) for id in ("task-1", asked.id)]]

        assert world.run(scenario()) == [("sue", "completed")] * 2

    def test_an_escalation_policy_that_errs_when_a_task_is_late_is_seen(self, world):
        board = staff(world, escalation=lambda member, team: member)
        task = TeamTask("a", assignee="wim", duration=9.0, timeout=1.0, on_failure="escalate")
        [task] = world.run(submit_all(board, task))
        [crash] = rows(world.trace, "crashed")
        assert crash["who"] == "board" and "not above wim" in crash["message"] and task.status == "cancelled"

    def test_what_was_delegated_in_a_failed_attempt_is_given_up(self, world):
        class Wavering(Scripted):
            async def work(self, task):
                if task.title == "plan":
                    await self.delegate("survey", to="tess")
                    if task.attempts == 1:
                        raise ValueError("second thoughts")

        board = staff(world, Wavering)
        [task] = world.run(submit_all(board, TeamTask("plan", assignee="carl", on_failure="retry")))
        assert [world.run(board.task(child)).status for child in task.children] == ["cancelled", "completed"]
        assert task.status == "completed" and not violations(world.trace)

    def test_escalate_hands_a_failed_task_to_the_next_level(self, world):
        board = staff(world, default="write it off")
        [task] = world.run(submit_all(board, TeamTask("a", assignee="wim", on_failure="escalate", data={"fail": 2})))
        assert (task.worker, task.status, task.attempts) == ("sue", "completed", 3)
        [last] = world.run(submit_all(board, TeamTask("b", assignee="wim", on_failure="escalate", data={"fail": 9})))
        assert (last.worker, last.result, last.attempts) == ("person", "write it off", 4)
        assert last.ended - last.added == 3 * 1.0 + 60.0
        assert rows(world.trace, "task_ended", task=last.id)[0]["reason"] == "by default: no answer in 60 s"

    def test_what_nobody_can_do_goes_to_the_top_if_it_is_to_be_escalated(self, world):
        board = staff(world)
        [task] = world.run(submit_all(board, TeamTask("rocket", requires={"magic": 5}, on_failure="escalate")))
        assert (task.worker, task.status) == ("sue", "completed")

    def test_a_parent_that_is_escalated_is_done_by_the_next_level_itself(self, world):
        board = staff(world)
        parts = [TeamTask("a", data={"fail": 9}), TeamTask("b", duration=9.0)]
        [task] = world.run(submit_all(board, TeamTask("move", on_failure="escalate", subtasks=parts)))
        assert (task.worker, task.result, task.ended) == ("sue", "sue did move", 2.0)
        assert world.run(board.task("task-1.2")).status == "cancelled" and not violations(world.trace)

    def test_a_result_that_cannot_be_recorded_fails_the_task(self, world):
        class Odd(Scripted):
            async def work(self, task):
                return {1, 2}

        board = staff(world, Odd)
        [task] = world.run(submit_all(board, TeamTask("a")))
        assert task.status == "failed" and task.error.startswith("Unrecordable")
        assert world.agents["wim"].workload == 0

    def test_a_time_out_ends_a_task_frees_the_hand_and_stops_the_work(self, world):
        board = staff(world, only=["tess"])
        slow, next_ = world.run(submit_all(board, TeamTask("a", duration=50.0, timeout=2.0), TeamTask("b")))
        assert (slow.status, slow.ended, slow.error) == ("timed_out", 2.0, "not done in 2 s")
        assert next_.ended == 3.0 and world.now == 3.0

    def test_a_time_out_counts_while_it_waits_too(self, world):
        board = staff(world, only=["tess"])
        _, late = world.run(submit_all(board, TeamTask("a", duration=9.0), TeamTask("b", timeout=2.0)))
        assert (late.status, late.ended, late.attempts) == ("timed_out", 2.0, 0)

    def test_an_overdue_task_may_escalate_level_by_level(self, world):
        board = staff(world, default="done", patience=5.0)
        task = TeamTask("a", assignee="wim", duration=50.0, timeout=2.0, on_failure="escalate")
        [task] = world.run(submit_all(board, task))
        assert (task.worker, task.ended) == ("person", 11.0)

    def test_cancelled_is_final(self, world):
        async def scenario():
            board = staff(world)
            task = await board.submit(TeamTask("a", assignee="tess", data={"delegate": [{"title": "b"}]}))
            await asyncio.sleep(1.5)
            cancelled = await board.cancel(task.id)
            await asyncio.sleep(5.0)
            return cancelled, await board.task(task.id)

        cancelled, later = world.run(scenario())
        assert cancelled == later and later.status == "cancelled"
        assert ended(world, "cancelled") == ["task-1.1", "task-1"] and not violations(world.trace)


class TestPersons:
    def test_nobody_answers_so_the_default_counts(self, world):
        board = staff(world, default={"grant": False}, patience=30.0)
        [task] = world.run(submit_all(board, TeamTask("a", assignee="sue", data={"escalate": "budget"})))
        assert task.ended == 31.0 and world.run(board.task(task.children[0])).result == {"grant": False}

    def test_a_hook_that_fails_fails_the_task(self, world):
        async def nobody(task):
            raise LookupError("no such person")

        board = staff(world, ask_person=nobody)
        asked = world.run(world.agents["sue"].escalate("budget"))
        assert world.run(board.outcome(asked.id)).error == "LookupError: no such person"


class TestAbsence:
    def test_a_member_that_crashes_gives_its_tasks_back(self):
        async def scenario(world):
            board = staff(world)
            world.spawn(Member("nina", "specialist", {"network": 3}, superior="carl"))
            return await submit_all(board, TeamTask("a", requires=["network"], duration=4.0))

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("tess", 1.0, 60.0)]))
        [task] = run.result
        assert (task.worker, task.attempts, task.ended) == ("nina", 2, 5.0)
        [failed] = rows(run.trace, "task_failed")
        assert (failed["who"], failed["next"], failed["error"]) == ("tess", "given back", "tess has crashed")
        assert not violations(run.trace)

    def test_what_is_given_back_keeps_its_place(self):
        async def scenario(world):
            board = staff(world, only=["tess"])
            tasks = [await board.submit(TeamTask("a", duration=4.0))]
            await asyncio.sleep(0.5)
            tasks += [await board.submit(TeamTask(title)) for title in "bc"]
            return [(await board.outcome(task.id)).ended for task in tasks]

        crashes = [Crash("tess", 1.0, 1.0), Crash("tess", 3.0, 1.0)]
        assert simulate(scenario, faults=FaultPlan(appointments=crashes)).result == [8.0, 9.0, 10.0]

    def test_what_ends_while_its_member_gives_back_another_stays_ended(self, world):
        class Asking(Scripted):
            async def work(self, task):
                if task.title == "plan":
                    part = TeamTask("survey", subtasks=[TeamTask("map", assignee="ann", duration=9.0)])
                    await self.request("board", "submit", task=part, parent=task.id, by=self.name)
                await super().work(task)

        async def scenario():
            board = world.spawn(TaskBoard())
            world.spawn(Asking("ann", capacity=2), restart="on_crash")
            await board.submit(TeamTask("plan", duration=2.0))
            await asyncio.sleep(1.0)
            world.agents["ann"].crash(ValueError("x"))
            await asyncio.sleep(1.0)
            return [task.status for task in await board.tasks()]

        assert world.run(scenario())[:3] == ["in_progress", "cancelled", "cancelled"]
        assert not violations(world.trace, all_ended=False)

    def test_what_only_it_can_do_waits_until_it_is_back(self):
        async def scenario(world):
            return await submit_all(staff(world), TeamTask("a", requires=["network"], duration=4.0))

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("tess", 1.0, 10.0)]))
        assert run.result[0].ended == 15.0
        assert rows(run.trace, "task_waiting")[0]["reason"] == "busy: tess (away)"

    def test_who_leaves_for_good_takes_its_skills_along(self, world):
        async def scenario():
            board = staff(world)
            tasks = [await board.submit(TeamTask(f"{n}", requires=["network"])) for n in range(3)]
            other = await board.submit(TeamTask("x", assignee="wim", duration=3.0))
            await asyncio.sleep(0.5)
            world.agents["tess"].stop()
            return [await board.outcome(task.id) for task in (*tasks, other)]

        *tasks, other = world.run(scenario())
        assert {task.error for task in tasks} == {"impossible: nobody is left who has network 1"}
        assert other.status == "completed" and not violations(world.trace)

    def test_stopping_the_board_ends_every_task(self, world):
        """Seed defect of 004: stopping the system lost the tasks."""
        board = staff(world, only=["tess"])

        async def scenario():
            tasks = [await board.submit(TeamTask(f"{n}", duration=9.0)) for n in range(3)]
            waiting = [asyncio.ensure_future(board.outcome(task.id)) for task in tasks]
            await asyncio.sleep(1.0)
            await board.stop()
            return [(await one).status for one in waiting]

        assert world.run(scenario()) == ["cancelled"] * 3 and not violations(world.trace)
        world.run(until=20.0)
        assert world.agents["tess"].workload == 0 and world.agents["tess"].state == "idle"

    def test_a_board_that_crashes_ends_its_tasks_and_takes_others_when_it_is_back(self):
        async def scenario(world):
            board = staff(world)
            first = await board.submit(TeamTask("a", duration=2.0))
            await asyncio.sleep(1.5)
            with pytest.raises(AgentOffline, match="takes no more tasks: it crashed"):
                await board.submit(TeamTask("b"))
            await asyncio.sleep(1.0)
            return [await board.outcome(first.id), *await submit_all(board, TeamTask("c"))]

        run = simulate(scenario, faults=FaultPlan(appointments=[Crash("board", 1.0, 1.0)]))
        assert [(task.status, task.ended) for task in run.result] == [("cancelled", 1.0), ("completed", 3.5)]
        assert run.result[0].error.startswith("board is gone: it crashed (InjectedCrash: ")
        assert run.result[1].worker == "wim" and not violations(run.trace)  # whose hand was free again

    def test_a_board_may_crash_again_and_in_the_instant_of_a_new_task(self, world):
        board = staff(world)

        async def scenario():
            statuses = []
            for _ in range(3):
                task = await board.submit(TeamTask("a"))
                board.crash(ValueError("x"), restart_after=1.0)
                statuses.append((await board.outcome(task.id)).status)
                await asyncio.sleep(2.0)
            return [*statuses, (await submit_all(board, TeamTask("b")))[0].status]

        assert world.run(scenario()) == ["cancelled"] * 3 + ["completed"]

    def test_a_board_that_has_stopped_takes_no_more_tasks(self, world):
        board = staff(world)
        world.run(board.submit(TeamTask("a")))
        board.stop()
        with pytest.raises(AgentOffline, match="board takes no more tasks"):
            world.run(board.submit(TeamTask("b")))

    def test_a_stuck_world_names_the_task(self):
        async def scenario(world):
            board = staff(world, only=["tess"])
            await submit_all(board, TeamTask("cable"))

        class Lazy(Scripted):
            async def work(self, task):
                await self.world.wait(asyncio.Future(), who=self.name, what="inspiration")

        async def lazy(world):
            await submit_all(staff(world, Lazy, only=["tess"]), TeamTask("cable"))

        error = simulate(lazy).error
        assert isinstance(error, Stuck)
        assert "board waits for task-1, 'cable', to end" in str(error) and "tess waits for inspiration" in str(error)
        assert simulate(scenario).ok


class TestCallbacks:
    def test_it_is_called_once_whatever_becomes_of_the_task(self, world):
        told = []

        async def scenario():
            board = staff(world)
            for data in ({}, {"fail": 9}):
                task = await board.submit(TeamTask("a", data=data))
                board.when_done(task.id, lambda task: told.append(task.status))
                await board.outcome(task.id)
                board.when_done(task.id, lambda task: told.append("late"))
                await asyncio.sleep(1.0)

        world.run(scenario())
        assert told == ["completed", "late", "failed", "late"]

    def test_it_is_called_too_when_the_board_stops_or_crashes(self):
        async def scenario(world, crash):
            told = []
            board = staff(world)
            task = await board.submit(TeamTask("a"))
            board.when_done(task.id, lambda task: told.append(task.status))
            await asyncio.sleep(0.5)
            board.crash(ValueError("x")) if crash else board.stop()
            await asyncio.sleep(1.0)
            return told

        assert [simulate(scenario, crash=crash).result for crash in (True, False)] == [["cancelled"]] * 2

    def test_it_may_be_a_coroutine_function_and_submit_more(self, world):
        async def scenario():
            board = staff(world)
            task = await board.submit(TeamTask("a"))
            board.when_done(task.id, lambda task: board.submit(TeamTask("b")))
            await asyncio.sleep(5.0)
            return await board.tasks("completed")

        assert [task.title for task in world.run(scenario())] == ["a", "b"]

    def test_one_that_fails_is_seen_and_stops_nobody(self, world):
        def broken(task):
            raise ValueError("typo")

        async def scenario():
            board = staff(world)
            task = await board.submit(TeamTask("a"))
            board.when_done(task.id, broken)
            await asyncio.sleep(5.0)
            return (await submit_all(board, TeamTask("b")))[0].status

        assert world.run(scenario()) == "completed"
        [failure] = rows(world.trace, "reaction_failed")
        assert (failure["event"], failure["reaction"], failure["error"]) == ("task-1", "broken", "ValueError: typo")


class TestStatus:
    def test_ten_of_ten_done_is_a_success_rate_of_one(self, world):
        """Seed defect of 004: work that took less than a minute did not count, so that the rate was 0."""
        board = staff(world)
        assert world.run(board.team_status())["success_rate"] is None
        world.run(submit_all(board, *[TeamTask(f"{n}", duration=0.0) for n in range(10)]))
        status = world.run(board.team_status())
        assert status["success_rate"] == 1.0 and status["mean_time"] == 0.0
        assert status["tasks"] == {"total": 10, "completed": 10}

    def test_who_is_there_and_what_is_to_be_done(self, world):
        board = staff(world)

        async def scenario():
            await board.submit(TeamTask("a", requires=["network"], duration=9.0))
            await board.submit(TeamTask("b", requires=["network"]))
            await board.submit(TeamTask("c", requires=["magic"]))
            await asyncio.sleep(1.0)
            world.agents["wim"].stop()
            return await world.agents["sue"].team_status()

        status = world.run(scenario())
        assert status["members"] == {
            "total": 6, "present": 5, "supervisor": 1, "coordinator": 1, "specialist": 2, "worker": 1
        }  # fmt: skip
        assert status["tasks"] == {"total": 3, "in_progress": 1, "pending": 1, "failed": 1}
        assert status["workload"] == {"sue": 0, "carl": 0, "tess": 1, "bill": 0, "wim": 0, "wanda": 0}
        assert status["success_rate"] == 0.0 and json.dumps(status)


class TestInvariants:
    """What must hold on any day, told from the trace, and proof that a board without it would be caught."""

    @pytest.mark.parametrize(
        ("faults", "patience"), [(None, None), (CRASHES, None), (LOSSES, 15.0)], ids=["calm", "crashes", "losses"]
    )
    def test_they_hold_over_many_seeds(self, faults, patience):
        for seed in range(50):
            run = simulate(busy_day, seed, schedule="shuffled", faults=faults, patience=patience)
            assert run.ok, (seed, run.error)
            told, status = run.result
            assert violations(run.trace) == [], seed
            assert set(told.values()) == {1} and len(told) == 12, seed
            assert set(status["workload"].values()) == {0}, seed

    def test_a_day_is_repeatable(self):
        for schedule in ("fifo", "shuffled"):
            digests = {simulate(busy_day, 3, schedule=schedule, faults=CRASHES).digest for _ in range(2)}
            assert len(digests) == 1

    def caught(self, board=TaskBoard, member=Scripted):
        def broken(world):
            return staff(world, member, board=board, patience=3.0)

        found = set()
        for seed in range(20):
            run = simulate(busy_day, seed, faults=CRASHES, team=broken)
            found |= {*violations(run.trace), *([] if run.ok else [repr(run.error)])}
        return " / ".join(sorted(found))

    def test_the_violations_are_planted_in_a_team_that_keeps_them(self):
        assert self.caught() == ""

    def test_a_parent_that_completes_with_its_first_child_is_caught(self):
        class Hasty(TaskBoard):
            def _open_below(self, task):
                return []

        assert "completed before" in self.caught(Hasty)

    def test_a_parent_that_ends_before_its_children_is_caught(self):
        class Careless(TaskBoard):
            def _end(self, id, status, reason=None):
                children, self._book[id] = self._book[id].children, self._put(id, children=())
                super()._end(id, status, reason)
                self._put(id, children=children)

        assert "ended before" in self.caught(Careless)

    def test_a_task_that_ends_twice_is_caught(self):
        class Stuttering(TaskBoard):
            def _end(self, id, status, reason=None):
                super()._end(id, status, reason)
                self._record("task_ended", self._book[id], status=status, reason=reason)

        assert "task_ended after its end" in self.caught(Stuttering)

    def test_tasks_lost_in_a_crash_are_caught(self):
        class Forgetful(TaskBoard):
            def _lose(self, member):
                for id in list(member.hand):
                    self._release(self._book[id])

        assert "Stuck" in self.caught(Forgetful)

    def test_too_much_in_hand_is_caught(self):
        class Eager(Scripted):
            @property
            def free(self):
                return self.present

        assert "tasks in hand" in self.caught(member=Eager)

    def test_work_without_the_skill_is_caught(self):
        class Impostor(Scripted):
            def can(self, task):
                return True

        class Anybody(TaskBoard):
            def __init__(self, name, **options):
                super().__init__(name, choose=lambda task, members, random: members[0], **options)

        assert "lacks the skills" in self.caught(Anybody, Impostor)

    def test_the_least_urgent_first_is_caught(self):
        class Contrary(TaskBoard):
            def _queue(self, task):
                super()._queue(replace(task, priority=6 - task.priority))

        assert "overtakes" in self.caught(Contrary)

    def test_an_escalation_to_oneself_is_caught(self):
        class Vain(TaskBoard):
            def _above(self, who):
                return who

            def _check(self, plan):
                """Let anything pass."""

        async def scenario(world):
            board = world.spawn(Vain())
            sue = world.spawn(Member("sue", "supervisor"))
            await board.outcome((await sue.escalate("x")).id)

        assert "sue hands task-1 to itself" in violations(simulate(scenario).trace)
