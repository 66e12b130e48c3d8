"""Members that think: what they hand to whom, that a model's typo costs nothing, and what becomes of their tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from pydantic import BaseModel
from teams import PLACES, Scripted, rows, submit_all, violations

from masbook import Agent, FaultPlan, ModelFault, simulate
from masbook.coordination import Member, TaskBoard, TeamTask
from masbook.errors import InvalidValue, Refused
from masbook.lab import frames
from masbook.llm import LLMAgent, ThinkingMember, record, replay, scripted, tool_call
from masbook.llm.toolset import hierarchy_tools
from masbook.runtime.faults import Crash

ANYTHING = {"": "done"}


def staff(
    world, model="offline:instant", *, models=(), member=ThinkingMember, only=tuple(PLACES), capacity=1, **options
):
    """Spawn a board and the organisation of the course, thinking; `models` are those of some of them."""
    board = world.spawn(TaskBoard(**options))
    for name in only:
        role, superior, skills = PLACES[name]
        superior = superior if superior in only else None
        places = {"superior": superior, "capacity": capacity, "model": dict(models).get(name, model)}
        world.spawn(member(name, role, skills, **places), restart="on_crash", backoff=0.5)
    return board


def using(*calls, then="done"):
    """Return a model that calls tools one after the other, and then answers."""
    return scripted(*calls, then)


def tried(world, *calls, who="tess", task=None, **options):
    """Let a member use tools for a task; return the task, and what each tool told its model."""
    board = staff(world, models={who: using(*calls)}, **options)
    [done] = world.run(submit_all(board, task or TeamTask("cable", assignee=who)))
    return done, [(row["outcome"], row["error"]) for row in rows(world.trace, "tool_called", who=who)]


def handed(trace):
    return [(row["who"], row["to"], row["how"]) for row in rows(trace, "handover")]


class TestTheTools:
    def test_what_is_delegated_is_a_subtask_that_somebody_with_the_skills_does(self, world):
        call = tool_call("delegate", title="invoice", description="who pays?", requires={"billing": 3}, priority=4)
        task, told = tried(world, call)
        assert told == [("answered", None)] and task.status == "completed"
        part = world.run(world.agents["board"].task("task-1.1"))
        assert (part.title, part.description, part.priority, dict(part.levels)) == (
            "invoice",
            "who pays?",
            4,
            {"billing": 3},
        )
        assert (part.worker, part.by, part.result) == ("bill", "tess", "who pays?")
        assert handed(world.trace) == [("tess", None, "delegated")] and not violations(world.trace)

    def test_the_model_hears_the_id_and_for_whom_it_is(self, world):
        heard = []

        def listening(question):
            heard.extend(result for _, result, _ in question.results)
            return "done"

        calls = [
            [
                tool_call("delegate", title="a", requires=["inquiries"]),
                tool_call("delegate", title="b", assignee="wim"),
            ],
            [tool_call("ask_for_help", what="c"), tool_call("ask_for_help", what="d", skills={"billing": 1})],
            [tool_call("escalate", issue="e", reason="f")],
        ]
        board = staff(world, models={"tess": scripted(*calls, listening)})
        world.run(submit_all(board, TeamTask("cable", assignee="tess")))
        assert heard == [
            "'a' is task-1.1 now; it is for wim or wanda",
            "'b' is task-1.2 now; it is for wim",
            "'Help: c' is task-1.3 now; it is for carl",
            "'Help: d' is task-1.4 now; it is for bill",
            "'Escalation: e' is task-1.5 now; it is for carl",
        ]

    def test_team_status_tells_who_is_there_and_who_can_do_what(self, world):
        heard = []

        def listening(question):
            heard.extend(result for _, result, _ in question.results)
            return "done"

        board = staff(world, models={"tess": scripted(tool_call("team_status"), listening)}, only=["carl", "tess"])
        world.run(submit_all(board, TeamTask("cable", assignee="tess")))
        assert heard[0]["tasks"]["in_progress"] == 1 and heard[0]["members"]["present"] == 2
        assert heard[0]["skills"]["tess"] == {"technical": 4, "hardware": 4, "network": 4}

    def test_who_asks_nobody_in_particular_asks_the_next_level(self, world):
        _, told = tried(world, tool_call("ask_for_help", what="a hand", urgent=True))
        assert told == [("answered", None)] and handed(world.trace) == [("tess", "carl", "assistance")]
        assert world.run(world.agents["board"].task("task-1.1")).priority == 4

    def test_asked_outside_of_a_task_the_handover_is_a_task_of_its_own(self, world):
        board = staff(world, models={"carl": using(tool_call("delegate", title="x"))})
        assert world.run(world.agents["carl"].ask("Have x done.")) == "done"
        assert world.run(board.outcome("task-1")).parent is None

    @pytest.mark.parametrize(
        ("call", "outcome", "hint"),
        [
            (
                tool_call("delegate", title="x", assignee="bob"),
                "failed",
                "no 'bob' can do what takes work: there is sue or",
            ),
            (
                tool_call("delegate", title="x", assignee="tess"),
                "failed",
                "you cannot hand it to yourself: there is sue or",
            ),
            (
                tool_call("delegate", title="x", requires=["rocketry"]),
                "failed",
                "nobody else can do what takes rocketry 1",
            ),
            (tool_call("delegate", title="x", requires={"billing": 5}), "failed", "others have accounts 4, billing 4"),
            (tool_call("delegate", title="x", requires={"billing": 9}), "failed", "give a whole number from 1 to 5"),
            (tool_call("delegate", title="x", requires=["network"]), "failed", "do what you can, or escalate it"),
            (tool_call("delegate", title="x", requires=["billing"], assignee="wim"), "failed", "there is bill"),
            (
                tool_call("delegate", title="x", priority=9),
                "refused",
                "priority: Input should be less than or equal to 5",
            ),
            (tool_call("delegate", title="x", priority="high"), "refused", "priority: Input should be a valid integer"),
            (tool_call("delegate", title=" "), "failed", "say in a few words what is to be done"),
            (tool_call("delegate"), "refused", "title: Field required"),
            (
                tool_call("ask_for_help", what="x", skills=["rocketry"]),
                "failed",
                "nobody else can do what takes rocketry",
            ),
            (tool_call("delegate_task", title="x"), "unknown", "'ask_for_help', 'delegate', 'escalate', 'team_status'"),
        ],
    )
    def test_a_typo_is_told_and_ends_neither_the_run_nor_the_task(self, world, call, outcome, hint):
        """Seed defect of 000 and 004: a model's typo aborted the run."""
        task, [(was, told)] = tried(world, call)
        assert (task.status, task.result, task.children) == ("completed", "done", ())
        assert was == outcome and hint in told
        assert not rows(world.trace, "handover", "task_failed") and not violations(world.trace)

    def test_a_team_whose_member_hands_on_without_a_look_would_fail_the_task(self, world):
        """The counterpart: what the tools refuse does fail a task, where a member does it unchecked."""

        class Careless(ThinkingMember):
            async def work(self, task):
                await self.delegate("x", requires=["rocketry"])
                return await super().work(task)

        board = staff(world, member=Careless)
        [task] = world.run(submit_all(board, TeamTask("cable", assignee="tess")))
        assert task.status == "failed" and "impossible" in task.error

    def test_who_may_not_delegate_is_told_so(self, world):
        class Strict(ThinkingMember):
            async def delegate(
                self, title, description="", requires=None, priority=1, *, to=None, on_failure="fail", data=None
            ):
                raise Refused("a specialist may not delegate: escalate instead")

        call = tool_call("delegate", title="x")
        task, told = tried(world, call, tool_call("escalate", issue="x"), member=Strict)
        assert told == [("failed", "Refused: a specialist may not delegate: escalate instead"), ("answered", None)]
        assert task.status == "completed" and handed(world.trace) == [("tess", "carl", "escalated")]

    def test_who_has_left_cannot_be_given_anything(self, world):
        call = tool_call("delegate", title="x", requires=["billing"])
        board = staff(world, models={"tess": using(call)})
        world.run(world.agents["bill"].stop())
        [task] = world.run(submit_all(board, TeamTask("cable", assignee="tess")))
        assert task.status == "completed" and rows(world.trace, "tool_called")[0]["outcome"] == "failed"

    def test_who_will_be_back_gets_it_then(self):
        async def scenario(world):
            board = staff(world, models={"tess": using(tool_call("delegate", title="x", requires=["billing"]))})
            await asyncio.sleep(1.5)
            return (await submit_all(board, TeamTask("cable", assignee="tess")))[0]

        run = simulate(scenario, seed=7, faults=FaultPlan(appointments=[Crash("bill", 1.0, 5.0)]))
        assert (run.result.status, run.result.ended) == ("completed", 6.0)

    def test_an_agent_that_is_no_member_is_told_at_once(self, world):
        agent = world.spawn(LLMAgent("loner", model="offline:instant", toolsets=[hierarchy_tools()]))
        with pytest.raises(InvalidValue, match="LLMAgent\\('loner'\\) is in no team"):
            world.run(agent.ask("Escalate this."))

    def test_who_is_alone_is_told_so(self, world):
        _, [(_, told)] = tried(world, tool_call("delegate", title="x"), only=["tess"])
        assert "nobody else can do what takes work; others have no skills: do what you can" in told

    @pytest.mark.parametrize(
        "options",
        [
            {"toolsets": None},
            {"toolsets": "all"},
            {"instructions": 3},
            {"limits": 0},
            {"role": "king"},
            {"skills": {"x": 9}},
        ],
    )
    def test_bad_input_is_refused_at_once(self, options):
        with pytest.raises(InvalidValue):
            ThinkingMember("ada", **options)

    def test_a_place_that_is_none_is_refused(self, world):
        with pytest.raises(InvalidValue, match="no task board called 'board'"):
            world.spawn(ThinkingMember("ada"))

    def test_a_member_of_another_make_can_have_them(self, world):
        class Mine(Member, LLMAgent):
            async def work(self, task):
                return await self.ask(f"Please delegate this: {task.title}")

        world.spawn(TaskBoard())
        world.spawn(Mine("ann", "coordinator", model="offline:instant", toolsets=[hierarchy_tools()]))
        world.spawn(Member("bob"))
        [task] = world.run(submit_all(world.agents["board"], TeamTask("x", assignee="ann")))
        assert task.status == "completed" and handed(world.trace) == [("ann", None, "delegated")]


class TestThinking:
    def test_the_model_reads_all_there_is_to_know(self, world):
        read = []

        def reading(question):
            read.append(question)
            return "done"

        board = staff(world, models={"sue": reading_model(reading)})
        task = TeamTask(
            "Disputed invoice", "50,000 too much.", 4, {"billing": 3}, assignee=None, on_failure="escalate",
            data={"tier": "enterprise", "amount": 50000},
        )  # fmt: skip
        world.run(world.agents["bill"].stop())
        world.run(submit_all(board, task))
        assert read[0].prompt.splitlines() == [
            "Title: Disputed invoice", "Description: 50,000 too much.", "Priority: 4 of 5", "Requires: billing 3",
            "tier: enterprise", "amount: 50000",
        ]  # fmt: skip
        assert read[0].instructions.startswith("You are sue, a supervisor, good at management 5 + oversight 5")
        assert [tool.name for tool in read[0].tools] == ["delegate", "ask_for_help", "team_status", "escalate"]

    @pytest.mark.parametrize(
        ("task", "lines"),
        [
            (TeamTask("Invoice", "A question of billing, for the network."), ["Requires: network 1, billing 1"]),
            (TeamTask("Hardware"), ["Requires: hardware 1", "You lack skills that it requires; ask: tess"]),
            (TeamTask("Routing"), ["Requires: routing 1"]),
            (TeamTask("Tickets of billing", requires=["routing"]), ["Requires: routing 1"]),
            (TeamTask("Lunch"), []),
        ],
    )
    def test_what_it_requires_is_read_and_who_has_what_the_member_lacks(self, world, task, lines):
        read = []
        board = staff(world, models={"carl": reading_model(lambda question: read.append(question.prompt) or "done")})
        world.run(submit_all(board, replace(task, assignee="carl")))
        assert [line for line in read[0].splitlines() if "equires" in line] == lines

    def test_results_of_subtasks_are_read_when_the_work_begins_again(self, world):
        read = []

        def reading(question):
            read.append(question.prompt)
            return ValueError("not yet") if len(read) == 1 else "both"

        board = staff(world, models={"carl": reading_model(reading, 2.0), "tess": scripted("it is broken")})
        sub = TeamTask("check", requires=["network"])
        [task] = world.run(submit_all(board, TeamTask("report", assignee="carl", subtasks=[sub], retries=1)))
        assert task.result == "both" and read[1].splitlines()[-1] == "check, completed: it is broken"

    def test_typed_outputs_are_results(self, world):
        class Verdict(BaseModel):
            grant: bool
            why: str

        world.spawn(TaskBoard())
        world.spawn(ThinkingMember("ada", output_type=Verdict, model=scripted({"grant": True, "why": "fair"})))
        [task] = world.run(submit_all(world.agents["board"], TeamTask("refund")))
        assert task.result == {"grant": True, "why": "fair"}

    def test_nothing_leaks_from_task_to_task_nor_between_two_at_once(self, world):
        """Seed defect of 002: history leaks from task to task."""
        read = []

        def reading(question):
            read.append((question.prompt, question.earlier, question.results))
            return tool_call("team_status") if not question.results else question.prompt.splitlines()[0]

        board = staff(world, models={"tess": reading_model(reading, 1.0)}, only=["tess"], capacity=3)
        done = world.run(submit_all(board, *[TeamTask(f"secret {n}") for n in range(6)]))
        assert [task.result for task in done] == [f"Title: secret {n}" for n in range(6)]
        assert all(not earlier and len(results) < 2 for _, earlier, results in read)
        assert all(prompt.count("secret") == 1 for prompt, *_ in read) and not world.agents["tess"].conversations

    def test_it_talks_besides_working(self, world):
        board = staff(world, scripted("yes", "done"), only=["tess"])
        client = world.spawn(Agent("client"))
        assert world.run(client.request("tess", "ask", prompt="Are you there?")) == "yes"
        assert world.run(submit_all(board, TeamTask("cable")))[0].result == "done"

    def test_two_who_delegate_to_each_other_for_ever_stop(self, world):
        """Seed defect 15, for tasks: two agents that hand on whatever comes."""
        pass_on = reading_model(
            lambda q: "passed on" if q.results else tool_call("delegate", title="do it", assignee=None)
        )
        board = staff(world, pass_on, only=["tess", "bill"])
        [task] = world.run(submit_all(board, TeamTask("cable")))
        assert task.status == "failed" and "LimitReached" in task.error
        assert len(rows(world.trace, "model_called")) <= 50 and not violations(world.trace)
        [stop] = rows(world.trace, "conversation_stopped")
        assert stop["reason"] == "hops" and stop["limit"] == "20 hops"

    def test_a_plain_member_between_them_does_not_make_it_endless(self, world):
        class Passing(Member):
            async def work(self, task):
                await self.delegate("go on")

        world.spawn(TaskBoard())
        world.spawn(Passing("plain"))
        go_on = reading_model(lambda q: "passed on" if q.results else tool_call("delegate", title="go on"))
        world.spawn(ThinkingMember("thinking", model=go_on, limits=9))
        [task] = world.run(submit_all(world.agents["board"], TeamTask("x")))
        assert task.status == "failed" and len(rows(world.trace, "model_called")) == 9
        assert rows(world.trace, "conversation_stopped")[0]["reason"] == "usage"

    def test_tasks_that_have_nothing_to_do_with_each_other_share_no_limit(self, world):
        board = staff(world, scripted(matching=ANYTHING), only=["tess"])
        done = world.run(submit_all(board, *[TeamTask(f"{n}") for n in range(120)]))
        assert {task.status for task in done} == {"completed"}

    def test_each_attempt_at_a_task_has_the_whole_limit(self, world):
        calls = [tool_call("team_status")] * 3
        world.spawn(TaskBoard())
        world.spawn(ThinkingMember("ada", model=scripted(*calls, *calls[:1], "done"), limits=3))
        [task] = world.run(submit_all(world.agents["board"], TeamTask("x", retries=1)))
        assert (task.status, task.attempts, task.result) == ("completed", 2, "done")


def reading_model(function, latency=0.0):
    """Return a model that answers with what a function makes of the question."""
    return scripted(matching={"": function}, latency=latency)


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("rate_limit", "ModelRateLimited: too many calls (a planned fault)"),
            (
                "timeout",
                "ModelTimeout: offline:instant (rule-based expert, no language model) gave no answer within 30 s",
            ),
            ("malformed", "ModelMisbehaved: the answer cannot be read (a planned fault)"),
            ("unavailable", "ModelUnavailable: the provider failed (a planned fault)"),
        ],
    )
    @pytest.mark.parametrize(
        ("policy", "follows", "status"), [("fail", ["end"], "failed"), ("retry", ["retry", "retry", "end"], "failed"),
                                          ("escalate", ["escalate"], "completed")]
    )  # fmt: skip
    def test_a_model_that_fails_fails_the_task_and_its_policy_holds(self, fault, error, policy, follows, status):
        async def scenario(world):
            board = staff(world)
            return (await submit_all(board, TeamTask("cable", requires=["network"], on_failure=policy)))[0]

        run = simulate(scenario, seed=7, faults=FaultPlan(appointments=[ModelFault(fault, agent="tess")]))
        failed = rows(run.trace, "task_failed")
        assert [row["next"] for row in failed] == follows and {row["error"] for row in failed} == {error}
        assert run.result.status == status and not violations(run.trace)
        if policy == "escalate":
            assert (run.result.worker, handed(run.trace)) == ("carl", [("tess", "carl", "escalated")])
        else:
            assert run.result.error == error

    def test_one_that_fails_once_is_tried_again(self):
        async def scenario(world):
            return (await submit_all(staff(world), TeamTask("cable", requires=["network"], on_failure="retry")))[0]

        faults = FaultPlan(appointments=[ModelFault("malformed", agent="tess", nth=n) for n in (1, 2, 3)])
        run = simulate(scenario, seed=7, faults=faults)
        assert (run.result.status, run.result.attempts) == ("completed", 2)

    def test_a_limit_fails_the_task_with_its_reason_and_escalates(self, world):
        busy = reading_model(lambda question: tool_call("team_status"))
        board = staff(world, models={"tess": busy})
        [task] = world.run(submit_all(board, TeamTask("cable", requires=["network"], on_failure="escalate")))
        assert (task.status, task.worker) == ("completed", "carl")
        [failed] = rows(world.trace, "task_failed")
        assert failed["error"].startswith("LimitReached: tess ends the conversation") and failed["next"] == "escalate"
        assert len(rows(world.trace, "model_called", who="tess")) == 50

    def test_a_supervisor_never_escalates_to_itself(self, world):
        """Seed defect of 004: the first of the supervisors was found, which was often oneself."""
        board = staff(
            world, models={"sue": using(tool_call("escalate", issue="a lawsuit"))}, default="settle it", patience=5.0
        )
        [task] = world.run(submit_all(board, TeamTask("lawsuit", assignee="sue")))
        assert handed(world.trace) == [("sue", "person", "escalated")] and not violations(world.trace)
        assert (task.status, task.ended) == ("completed", 5.0)
        assert world.run(board.task("task-1.1")).result == "settle it"

    def test_a_task_handed_over_is_really_worked_on(self, world):
        """Seed defect of 004: assigned tasks had no consumer."""
        task, _ = tried(world, tool_call("delegate", title="x", assignee="wim"))
        assert task.status == "completed"
        assert [row["who"] for row in rows(world.trace, "task_started")] == ["tess", "wim"]

    def test_failed_tasks_keep_no_slot(self, world):
        """Seed defect of 004: a member was full after its third failure."""
        board = staff(world, reading_model(lambda question: ValueError("no idea")), only=["tess"], capacity=3)
        done = world.run(submit_all(board, *[TeamTask(f"{n}") for n in range(10)]))
        assert {task.status for task in done} == {"failed"} and world.agents["tess"].workload == 0

    def test_a_parent_ends_after_its_parts_and_once(self, world):
        """Seed defect of 004: a parent completed with the first of its subtasks, three times."""
        parts = [tool_call("delegate", title=f"part {n}", requires=["inquiries"]) for n in range(3)]
        board = staff(world, scripted(matching=ANYTHING, latency=2.0), models={"carl": using(*parts)})
        [task] = world.run(submit_all(board, TeamTask("report", assignee="carl")))
        ends = {row["task"]: row["time"] for row in rows(world.trace, "task_ended")}
        assert list(ends)[-1] == task.id and len(rows(world.trace, "task_ended")) == 4 and task.ended == 4.0
        assert not violations(world.trace)

    def test_a_part_that_fails_blocks_nobody(self, world):
        """Seed defect of 004: a failed child left its parent waiting for ever."""
        failing = reading_model(lambda question: ValueError("no idea"))
        board = staff(world, failing, models={"carl": using(tool_call("delegate", title="part", assignee="wim"))})
        [task] = world.run(submit_all(board, TeamTask("report", assignee="carl")))
        assert (task.status, task.error) == ("failed", "task-1.1, 'part', has failed: ValueError: no idea")
        assert not violations(world.trace)

    def test_who_crashes_in_the_middle_of_a_thought_gives_the_task_back(self):
        async def scenario(world):
            board = staff(world, "offline:balanced", only=["carl", "tess"])
            return (await submit_all(board, TeamTask("cable", requires=["network"])))[0]

        run = simulate(scenario, seed=7, faults=FaultPlan(appointments=[Crash("tess", 0.2, 1.0)]))
        assert (run.result.status, run.result.worker, run.result.attempts) == ("completed", "tess", 2)
        assert rows(run.trace, "task_failed")[0]["error"] == "tess has crashed" and not violations(run.trace)
        assert [row["outcome"] for row in rows(run.trace, "model_called")] == ["cancelled", "answered"]

    def test_a_deadline_stops_the_thought(self, world):
        board = staff(world, scripted(matching=ANYTHING, latency=20.0), only=["carl", "tess"])
        [task] = world.run(submit_all(board, TeamTask("cable", assignee="tess", timeout=3.0)))
        world.run(until=4.0)
        assert (task.status, task.ended) == ("timed_out", 3.0)
        assert rows(world.trace, "model_called")[0]["outcome"] == "cancelled" and not violations(world.trace)


TASKS = [
    TeamTask("Outage", "All mail servers are down.", 5, {"network": 4}),
    TeamTask("Dispute", "The customer's lawyer threatens legal action.", 4, ["billing"]),
    TeamTask("Laptops", "Which models are there?", 2, ["inquiries"]),
    TeamTask("Risk", "Moving the data is risky.", 3, ["network"], on_failure="escalate"),
    TeamTask("Fibre", "The cable is cut.", 3, {"network": 5}, on_failure="escalate"),
    TeamTask("Stuck", "I am stuck with the guide.", 1, ["documentation"]),
]


class TestOffline:
    def outcome(self, world, task, **options):
        board = staff(world, **options)
        [done] = world.run(submit_all(board, task))
        return done

    def test_what_it_can_do_it_does(self, world):
        task = self.outcome(world, TASKS[0])
        assert (task.worker, task.result) == ("tess", "All mail servers are down.")
        assert not rows(world.trace, "tool_called")

    @pytest.mark.parametrize(
        "text", ["This is urgent.", "The repair is risky.", "It is a legal matter.", "A risky, urgent one."]
    )
    def test_what_is_urgent_risky_or_legal_it_escalates_to_the_top_where_it_is_decided(self, world, text):
        task = self.outcome(world, TeamTask("cable", text, 3, ["network"]))
        assert handed(world.trace) == [("tess", "carl", "escalated"), ("carl", "sue", "escalated")]
        assert (task.status, task.worker) == ("completed", "tess") and rows(world.trace, "handover")[0][
            "reason"
        ] == text

    def test_what_is_unlawful_goes_to_a_person(self, world):
        self.outcome(world, TeamTask("books", "What is asked for is unlawful.", 3, ["billing"]), default="no")
        assert [to for _, to, _ in handed(world.trace)] == ["carl", "sue", "person"]

    def test_what_takes_a_skill_that_it_lacks_it_delegates_with_all_that_is_known(self, world):
        cable = TeamTask("Cable", "It is cut, the network is down.", 3, assignee="carl")
        task = self.outcome(world, cable)
        assert handed(world.trace) == [("carl", None, "delegated")]
        part = world.run(world.agents["board"].task("task-1.1"))
        assert (part.title, part.description, part.priority) == ("Cable", "It is cut, the network is down.", 3)
        assert (part.worker, dict(part.levels), task.status) == ("tess", {"network": 1}, "completed")

    def test_who_is_stuck_asks_for_help_and_who_helps_does_not(self, world):
        self.outcome(world, TASKS[5])
        assert handed(world.trace) == [("wim", "carl", "assistance")]

    def test_the_policy_in_the_instructions_replaces_that_of_the_tools(self, world):
        world.spawn(TaskBoard())
        told = "Escalate refunds of an enterprise. Never ask for help. Delegate the drawings."
        world.spawn(ThinkingMember("boss", "supervisor", {"management": 5}, model="offline:instant"))
        world.spawn(ThinkingMember("ada", instructions=told, superior="boss", model="offline:instant"))
        texts = ["It is urgent.", "A refund.", "Refunds for an enterprise.", "I am stuck.", "The drawings are missing."]
        for text in texts:
            world.run(submit_all(world.agents["board"], TeamTask("x", text, assignee="ada")))
        assert handed(world.trace) == [("ada", "boss", "escalated"), ("ada", None, "delegated")]
        assert [row["reason"] for row in rows(world.trace, "handover")] == [texts[2], texts[4]]

    def test_the_status_of_the_team_is_told_to_who_asks(self, world):
        task = self.outcome(world, TeamTask("report", "Tell us the team status.", assignee="carl"))
        assert task.result.startswith("team_status: {'members'")

    @pytest.mark.parametrize("schedule", ["steady", "shuffled"])
    def test_the_same_seed_gives_the_same_day(self, schedule):
        async def day(world):
            return [task.status for task in await submit_all(staff(world, "offline:balanced"), *TASKS)]

        options = {} if schedule == "steady" else {"schedule": schedule}
        first, second = simulate(day, seed=3, **options), simulate(day, seed=3, **options)
        assert first.digest == second.digest and first.digest != simulate(day, seed=4, **options).digest
        assert set(first.result) == {"completed"}

    @pytest.mark.parametrize("seed", range(12))
    def test_whatever_goes_wrong_each_task_ends_once(self, seed):
        async def day(world):
            return await submit_all(staff(world, "offline:fast", capacity=2, patience=5.0), *TASKS)

        faults = FaultPlan(
            appointments=[Crash("tess", 0.3, 1.0), Crash("carl", 1.0, 0.5), ModelFault("malformed", probability=0.4)]
        )
        run = simulate(day, seed=seed, schedule="shuffled", faults=faults)
        assert run.error is None and not violations(run.trace)

    def test_messages_that_are_lost_or_come_twice_lose_no_task(self):
        async def day(world):
            late = [replace(task, timeout=60.0) for task in TASKS]
            return await submit_all(staff(world, "offline:fast", patience=5.0), *late)

        for seed in range(5):
            run = simulate(day, seed=seed, schedule="shuffled", faults=FaultPlan(drop=0.1, duplicate=0.1, delay=0.5))
            assert run.error is None and not violations(run.trace)

    def test_a_day_can_be_recorded_and_replayed(self, tmp_path):
        path = str(tmp_path / "day.json")

        async def day(world, model):
            return [task.result for task in await submit_all(staff(world, model), *TASKS)]

        recorder = record("offline:balanced", path)
        first = simulate(partial(day, model=recorder), seed=3)
        again = simulate(partial(day, model=replay(path)), seed=3)
        assert first.result == again.result and handed(first.trace) == handed(again.trace)
        assert first.time == pytest.approx(again.time)

    def test_thinking_and_plain_members_work_side_by_side(self, world):
        world.spawn(TaskBoard())
        world.spawn(Scripted("sue", "supervisor", {"management": 5}))
        world.spawn(ThinkingMember("tess", "specialist", {"network": 4}, superior="sue", model="offline:instant"))
        [task] = world.run(submit_all(world.agents["board"], TeamTask("cable", "It is risky.", 3, ["network"])))
        assert task.status == "completed" and handed(world.trace) == [("tess", "sue", "escalated")]

    def test_what_it_costs_is_in_the_trace(self):
        async def day(world):
            await submit_all(staff(world, "offline:strong"), *TASKS)

        calls = frames.model_calls(simulate(day, seed=3))
        assert calls["cost"].gt(0).all() and set(calls["who"]) <= set(PLACES)


def test_while_it_thinks_it_answers_other_messages(world):
    board = staff(world, scripted("done", latency=5.0), only=["tess"])

    async def scenario():
        task = await board.submit(TeamTask("cable"))
        await asyncio.sleep(1.0)
        pong = await world.spawn(Agent("client")).request("tess", "team_status", timeout=1.0)
        return pong["tasks"]["in_progress"], (await board.outcome(task.id)).ended

    assert world.run(scenario()) == (1, 5.0)
