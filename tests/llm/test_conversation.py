"""Conversations: everybody hears everybody, nothing leaks, nothing goes on for ever, and no failure is hidden."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import RunContext

from masbook import Agent, Crash, FaultPlan, World, capability, on, simulate
from masbook.errors import AgentCrashed, AgentOffline, InvalidValue, LimitReached, ScriptExhausted, WorldError
from masbook.lab import Transcript, frames
from masbook.llm import Conversation, LLMAgent, fan_out, offline, pipeline, scripted, tool_call
from masbook.llm.expert import Answer
from masbook.llm.outcomes import Outcomes


def team(world, *names, model="offline:instant", **options):
    return [world.spawn(LLMAgent(name, f"You are a {name}.", model=model, **options)) for name in names]


def heard(agent):
    return [said.content for said in agent.user]


def test_what_one_says_reaches_the_others_as_what_a_user_said(world):
    researcher, analyst, presenter = team(world, "researcher", "analyst", "presenter")

    async def meet():
        async with researcher | analyst | presenter as talk:
            await researcher.say("I collected data on market trends.")
            assert analyst.user[-1].content == presenter.user[-1].content == "I collected data on market trends."
            assert [said.content for said in researcher.assistant] == ["I collected data on market trends."]
            await analyst.say("The data shows 25% growth in Q3.")
            assert (len(researcher.user), len(analyst.user), len(presenter.user)) == (1, 1, 2)
            return talk

    talk = world.run(meet())
    assert talk.participants == (researcher | (analyst | presenter)).participants == (researcher, analyst, presenter)
    assert [(one.speaker, one.text) for one in talk.transcript] == [
        ("researcher", "I collected data on market trends."),
        ("analyst", "The data shows 25% growth in Q3."),
    ]
    sent = [event for event in world.trace.events("sent") if event.facts["topic"] == "hear"]
    requests = [(event.who, event.facts["to"]) for event in sent if event.facts["type"] == "request"]
    pairs = [
        ("researcher", "analyst"),
        ("researcher", "presenter"),
        ("analyst", "researcher"),
        ("analyst", "presenter"),
    ]
    assert requests == pairs


def test_a_reply_answers_what_was_heard_and_is_heard_itself(world):
    prompts = []

    def note(question):
        prompts.append((question.earlier, question.prompt))
        return "An answer."

    (alice,) = team(world, "alice")
    (bob,) = team(world, "bob", model=scripted(note, note))

    async def meet():
        async with alice | bob as talk:
            await alice.say("One.")
            await talk.say("alice", "Two.")
            assert await bob.reply() == "An answer."
            assert heard(alice) == ["An answer."]
            assert await talk.reply(bob, "Say more.") == "An answer."
            assert heard(alice) == ["An answer."] * 2
            assert heard(bob) == ["One.", "Two.", "Say more."]

    world.run(meet())
    assert prompts == [(("One.",), "Two."), (("One.", "Two."), "Say more.")]


def test_a_typed_reply_is_what_its_agent_promises_and_is_heard_as_json(world):
    class Verdict(BaseModel):
        level: Literal["low", "high"]

    (ann,) = team(world, "ann")
    (judge,) = team(world, "judge", output_type=Verdict)

    async def meet():
        async with ann | judge:
            await ann.say("The risk is high.")
            assert await judge.reply() == Verdict(level="high")
            assert heard(ann) == ['{"level": "high"}']
        outcomes = await fan_out([judge], "The risk is low.")
        assert outcomes.results == [Verdict(level="low")]

    world.run(meet())


def test_rounds_let_each_speak_in_turn_and_turns_yield_as_they_come(world):
    trio = team(world, "ann", "bob", "cid", model="offline:fast")

    async def meet():
        async with trio[0] | trio[1] | trio[2] as talk:
            await trio[2].say("Shall we begin?")
            outcomes = await talk.rounds(2)
            assert [one.agent for one in outcomes] == ["ann", "bob", "cid"] * 2
            assert outcomes.success_rate == 1.0
            begun = world.now
            async for outcome in talk.turns(3, lambda talk, turn: "bob"):
                assert outcome.agent == "bob"
                assert world.now == pytest.approx(begun + outcome.seconds)
                begun = world.now
            return talk

    talk = world.run(meet())
    assert [one.speaker for one in talk.transcript] == ["cid", *["ann", "bob", "cid"] * 2, "bob", "bob", "bob"]


def test_a_streamed_reply_is_heard_when_it_is_complete(world):
    ann, bob = team(world, "ann", "bob", model="offline:fast")

    async def meet():
        async with ann | bob as talk:
            await ann.say("Four words are enough.")
            parts, times = [], []
            async for part in bob.reply_in_parts():
                assert heard(ann) == []
                parts.append(part)
                times.append(world.now)
            assert len(set(times)) == 4
            assert heard(ann) == ["".join(parts)] == ["Four words are enough."]
            async with aclosing(talk.reply_in_parts("ann")) as stream:
                async for _ in stream:
                    break  # an answer broken off has not been said
            assert len(talk.transcript) == 2
            assert heard(bob) == ["Four words are enough."]

    world.run(meet())


@pytest.mark.parametrize("schedule", ["fifo", "shuffled"])
def test_history_does_not_leak_between_conversations(schedule):
    # Seed defect: history leaks from task to task. Here an agent is in two conversations at once, and has tasks.
    async def two(world):
        ann, bob, cid = team(world, "ann", "bob", "cid", model="offline:fast")

        async def talk(other, word):
            async with ann | other as talk:
                for number in range(3):
                    await ann.say(f"{word} {number}")
                    await other.reply()
                mine = ann.conversations[talk.name], other.conversations[talk.name]
                texts = [part.content for messages in mine for message in messages for part in message.parts]
                assert len(texts) == 12
                assert all(text.startswith(word) for text in texts)

        async def task():
            for _ in range(3):
                await ann.ask("Alone?")
                assert heard(ann) == ["Alone?"] or ann.conversations

        await asyncio.gather(talk(bob, "bees"), talk(cid, "cats"), task())
        assert not ann.conversations
        assert not ann.talks
        await ann.ask("Anything left?")
        assert heard(ann) == ["Anything left?"]
        async with ann | bob:
            await ann.say("Dogs.")
            assert heard(bob) == ["Dogs."]

    for seed in range(10):
        assert simulate(two, seed=seed, schedule=schedule).error is None


def test_a_shared_history_is_seen_to_leak(world):  # the violation of the test above, planted
    ann, bob = team(world, "ann", "bob")

    async def leak():
        async with ann | bob as first:
            await ann.say("Secret.")
            kept = bob.conversations[first.name]
        async with ann | bob as second:
            bob.messages = bob.conversations[second.name] = kept
            await ann.say("Hello.")
            assert heard(bob) == ["Secret.", "Hello."]

    world.run(leak())


def test_in_nested_blocks_the_innermost_is_meant(world):
    ann, bob, cid = team(world, "ann", "bob", "cid")

    async def nest():
        async with ann | bob as outer:
            async with ann | cid as inner:
                await ann.say("To cid.")
                await bob.say("To ann.")  # bob is in one only
            await ann.say("To bob.")
        assert [str(one) for one in outer.transcript] == ["bob: To ann.", "ann: To bob."]
        assert str(inner) == "ann: To cid."
        with pytest.raises(InvalidValue, match="no conversation"):
            await ann.say("To whom?")
        with pytest.raises(InvalidValue, match="not open"):
            await outer.say(ann, "Too late.")

    world.run(nest())


def test_two_polite_agents_stop():  # seed defect 15
    async def polite(world, hops, limits):
        ada, ben = team(world, "ada", "ben", model="offline:fast", hops=hops, limits=limits)
        async with ada | ben as talk:
            await ada.say("Thank you!")
            with pytest.raises(LimitReached):
                await talk.rounds(10_000)
        return len(talk.transcript)

    for hops, limits, least in ((20, 50, 20), (10_000, 50, 50), (10_000, 7, 7)):
        run = simulate(polite, seed=1, hops=hops, limits=limits)
        assert run.result == least + 1
        assert run.trace.count("model_called") == least <= 50
        (stop,) = run.trace.events("conversation_stopped")
        assert stop.facts["reason"] == ("hops" if hops == 20 else "usage")
        assert stop.facts["conversation"] == "talk-1"


def test_a_participant_that_crashes_in_the_middle_costs_the_others_nothing():
    async def meeting(world):
        trio = team(world, "ann", "bob", "cid", model="offline:fast")
        async with trio[0] | trio[1] | trio[2] as talk:
            await trio[0].say("Let us begin.")
            outcomes = await talk.rounds(2)
        assert [one.agent for one in outcomes.failures] == ["bob", "bob"]
        assert [type(one.error) for one in outcomes.failures] == [AgentCrashed, AgentOffline]
        assert {"bob"} == {name for said in talk.transcript for name in said.missed}
        return frames.transcript(talk)

    probe = simulate(meeting, seed=5)
    assert "bob" in str(probe.error) or probe.error is not None  # nobody crashes: the expectations above do not hold
    calls = frames.model_calls(probe)
    middle = calls.query("who == 'bob'")["started"].iloc[0] + 0.01
    for schedule in ("fifo", "shuffled"):
        faults = FaultPlan(appointments=[Crash("bob", at=middle)])
        run = simulate(meeting, seed=5, faults=faults, schedule=schedule)
        assert run.error is None
        table = frames.transcript(run)
        assert table["speaker"].tolist() == ["ann", "ann", "bob", "cid", "ann", "bob", "cid"]
        assert table["heard"].tolist() == [2, 2, 0, 1, 1, 0, 1]
        assert table["missed"].dropna().tolist() == ["bob"] * 3
        assert table["error"].dropna().str.partition(":")[0].tolist() == ["AgentCrashed", "offline"]


def test_who_restarts_is_in_it_again():
    async def meeting(world):
        ann = world.spawn(LLMAgent("ann", model="offline:fast"))
        bob = world.spawn(LLMAgent("bob", model="offline:fast"), restart="on_crash")
        async with ann | bob as talk:
            await ann.say("Let us begin.")
            outcomes = await talk.rounds(3)
            assert heard(bob) == [said.text for said in talk.transcript if said.speaker == "ann"]
        return outcomes.success_rate

    run = simulate(meeting, seed=5, faults=FaultPlan(appointments=[Crash("bob", at=0.5)]))
    assert run.error is None
    assert run.result == pytest.approx(5 / 6)


def test_nobody_left_to_hear_is_an_error(world):
    ann, bob = team(world, "ann", "bob")

    async def alone():
        async with ann | bob as talk:
            await bob.stop()
            with pytest.raises(AgentOffline, match="nobody has heard ann"):
                await ann.say("Hello?")
            with pytest.raises(AgentOffline, match="bob cannot speak"):
                await bob.say("I am here!")
            assert heard(ann) == []
            return talk

    talk = world.run(alone())
    assert talk.transcript[0].missed.keys() == {"bob"}


@pytest.mark.parametrize("seed", range(20))
def test_speakers_of_one_instant_are_heard_everywhere_in_one_order(seed):
    async def chorus(world):
        agents = team(world, *"abcdef")
        async with Conversation(*agents) as talk:
            await asyncio.gather(*[talk.say(agent, agent.name) for agent in agents])
            for agent in agents:
                assert heard(agent) == [said.text for said in talk.transcript if said.speaker != agent.name]
        return [said.text for said in talk.transcript]

    run = simulate(chorus, seed=seed, schedule="shuffled")
    assert run.error is None
    assert sorted(run.result) == list("abcdef")


def test_replies_side_by_side_do_not_wait_for_each_other(world):
    ann, bob, cid = team(world, "ann", "bob", "cid", model="offline:fast")

    async def meet():
        async with ann | bob | cid as talk:
            await ann.say("What do you think?")
            await asyncio.gather(bob.reply(), cid.reply())
            assert len(heard(ann)) == 2
            assert len(talk.transcript) == 3

    world.run(meet())


class Herald(LLMAgent):
    @on("news")
    async def pass_on(self, message):
        await self.say(message.content["text"])


@pytest.mark.parametrize("seed", range(5))
def test_agents_that_speak_while_they_handle_something_hear_each_other(seed):
    async def heralds(world):
        ann, bob, cid = [world.spawn(Herald(name, model="offline:instant")) for name in ("ann", "bob", "cid")]
        crier = world.spawn(Agent("crier"))
        async with ann | bob | cid as talk:
            await crier.publish("news", text="Peace!")
            await crier.sleep(1.0)
            assert [heard(one) for one in talk.participants] == [["Peace!"] * 2] * 3
        return [said.missed for said in talk.transcript]

    run = simulate(heralds, seed=seed, schedule="shuffled")
    assert run.result == [{}, {}, {}]
    assert frames.transcript(run)["heard"].tolist() == [2, 2, 2]


def test_what_is_told_when_a_conversation_is_over_is_a_failure_and_no_crash(world):
    (ann,) = team(world, "ann")
    client = world.spawn(Agent("client"))
    world.run(client.tell("ann", "hear", talk="talk-1", text="Hello?"))
    world.run(until=1)
    assert ann.state == "idle"
    assert world.trace.count("failed", "ann") == 1


def test_a_model_may_speak_in_the_conversation_by_a_tool(world):
    async def interrupt(ctx: RunContext[LLMAgent], text: str) -> str:
        """Say something."""
        await ctx.deps.say(text)
        return "said"

    (ann,) = team(world, "ann")
    (bob,) = team(world, "bob", model=scripted(tool_call("interrupt", text="Wait!"), "Now."), tools=[interrupt])

    async def meet():
        async with ann | bob as talk, Conversation(bob, ann):
            await talk.say(ann, "Ready?")
            assert await talk.reply(bob) == "Now."
            return str(talk)

    assert world.run(meet()) == "ann: Ready?\nbob: Wait!\nbob: Now."


def test_the_same_seed_gives_the_same_conversation():
    async def meeting(world):
        ann, bob, cid = team(world, "ann", "bob", "cid", model="offline")
        async with ann | bob | cid as talk:
            await ann.say("What is to be done about the outage? Customers wait.")
            await talk.rounds(2)
        await asyncio.gather(fan_out([ann, bob], "Why?"), pipeline([cid, bob], "When?"))

    for schedule in ("fifo", "shuffled"):
        digests = {simulate(meeting, seed=9, schedule=schedule).digest for _ in range(2)}
        assert len(digests) == 1


def test_a_pipeline_keeps_what_was_done_before_a_failure_and_names_what_was_not_done(world):
    extractor, summarizer = team(world, "extractor", "summarizer")
    (analyzer,) = team(world, "analyzer", model=scripted(ValueError("no facts"), lambda question: question.prompt))

    async def flow():
        broken = await pipeline([extractor, analyzer, summarizer], "Sales grew.")
        assert [one.status for one in broken] == ["completed", "failed", "skipped"]
        assert broken.results == ["Sales grew."]
        assert [one.agent for one in broken.failures] == ["analyzer", "summarizer"]
        assert broken.success_rate == pytest.approx(1 / 3)
        with pytest.raises(type(broken[1].error)):
            _ = broken.output
        whole = await pipeline([extractor, analyzer, summarizer], "Sales grew.")
        assert whole.output == "Sales grew."

    world.run(flow())


def test_a_fan_out_takes_as_long_as_its_slowest_and_hides_no_failure(world):
    quick, slow, late = (
        world.spawn(LLMAgent(name, model=scripted("done", latency=seconds)))
        for name, seconds in (("quick", 1.0), ("slow", 3.0), ("late", 9.0))
    )

    async def spread():
        outcomes = await fan_out([(quick, "a"), (slow, "b"), (late, "c")], timeout=5.0)
        assert [one.status for one in outcomes] == ["completed", "completed", "failed"]
        assert [one.seconds for one in outcomes] == [1.0, 3.0, 5.0]
        assert [one.agent for one in outcomes.failures] == ["late"]
        assert world.now == 5.0

    world.run(spread())


def test_a_mistake_in_one_branch_ends_the_others(world):
    slow = world.spawn(LLMAgent("slow", model=scripted("never", latency=100.0)))
    wrong = world.spawn(LLMAgent("wrong", model=scripted(matching={"hello": "ok"})))
    slow.model.wrapped.check = wrong.model.wrapped.check = lambda: None

    async def mistake():
        with pytest.raises(ScriptExhausted):
            await fan_out([slow, wrong], "Good-bye.")
        await slow.sleep(1)
        assert slow.state == "idle"

    world.run(mistake())
    assert math.isnan(Outcomes().success_rate)


def test_bad_input_is_refused_at_once(world):
    ann, bob = team(world, "ann", "bob")
    stranger = LLMAgent("stranger", model="offline:instant")
    for wrong in (
        lambda: Conversation(ann),
        lambda: ann | ann,
        Conversation,
        lambda: ann | "bob",
        lambda: ann | Agent("x"),
    ):
        with pytest.raises(InvalidValue):
            wrong()

    async def enter(talk):
        async with talk:
            raise AssertionError

    async def inside():
        async with ann | bob as talk:
            for mistake in (
                talk.say("cid", "hello"),
                talk.say(ann, None),
                talk.say(ann, ""),
                talk.reply(ann),
                talk.rounds(1),
                enter(talk),
                fan_out([], "x"),
                fan_out([ann]),
                fan_out([ann], ""),
                fan_out(ann, "x"),
                fan_out(None, "x"),
                fan_out([(ann,)], "x"),
                fan_out([(ann, "x", 7)], "x"),
                *(fan_out([ann], "x", timeout=wrong) for wrong in (0, -1.0, float("nan"), "soon", None)),
                *(pipeline([ann], "x", timeout=wrong) for wrong in (0, -1.0, float("nan"), "soon", None)),
                pipeline([ann], None),
                pipeline(ann, "x"),
                pipeline([], "x"),
                pipeline([Agent("y")], "x"),
            ):
                with pytest.raises(InvalidValue):
                    await mistake
            await ann.say("Hello.")
            with pytest.raises(InvalidValue):
                await talk.rounds(0)
        with pytest.raises(WorldError, match="spawn"):
            await enter(ann | stranger)
        with pytest.raises(WorldError, match="different worlds"):
            World(seed=1).spawn(stranger)
            await enter(ann | stranger)
        with pytest.raises(WorldError, match="different worlds"):
            await fan_out([ann, stranger], "Hello?")
        await bob.stop()
        with pytest.raises(AgentOffline):
            await enter(ann | bob)
        assert [one.status for one in await fan_out([bob, ann], "Hello?")] == ["failed", "completed"]

    world.run(inside())
    assert not ann.talks


def test_transcripts_are_typed_and_readable_and_escaped(world):
    ann, eve = team(world, "ann", "<eve>")

    async def meet():
        async with ann | eve as talk:
            await eve.say("<script>alert('*hi*')</script>\n# Title")
            await ann.say("I see.")
        async with ann | eve:
            await ann.say("Again.")
        return talk

    talk = world.run(meet())
    table = frames.transcript(world)
    assert table["talk"].tolist() == ["talk-1", "talk-1", "talk-2"]
    assert table["number"].tolist() == [0, 1, 0]
    dtypes = {name: str(dtype) for name, dtype in table.dtypes.items()}
    assert dtypes == {name: str(dtype) for name, dtype in frames.transcript(World(seed=1)).dtypes.items()}
    assert frames.transcript(talk)["text"].tolist() == [said.text for said in talk.transcript]
    page = Transcript(talk)
    assert "<script" not in page.html() + page.markdown()
    assert "<eve>" not in page.html() + page.markdown()
    assert page._repr_html_().count("border-left") == 2
    assert '<div style="white-space:pre-wrap">&lt;script' in page.html()  # a line of its own stays one
    assert "\n# Title" in page.html()
    assert "\\*hi\\*" in page.markdown()
    assert "\n# Title" not in page.markdown()
    assert repr(page).endswith("0.00 s ann: I see.")


def test_the_offline_expert_sees_who_it_is_and_what_was_said(world):
    def expert(question):
        return Answer(f"{question.instructions} {len(question.earlier)} {question.prompt}")

    ann, bob = team(world, "ann", "bob", model=offline("instant", expert=expert))

    async def meet():
        async with ann | bob:
            await ann.say("Hi.")
            return await bob.reply()

    assert world.run(meet()) == "You are a bob. 0 Hi."


def test_what_others_call_hearing_is_no_transcript(world):
    anna, _ = world.spawn(Agent("anna")), world.spawn(Agent("bert"))
    for content in ({"talk": ["x"], "text": "a"}, {"text": "no talk"}, {"talk": "t", "text": 5}, {"talk": "t"}):
        world.run(anna.tell("bert", "hear", content))
    world.run(anna.tell("bert", "hear", {"talk": "t", "text": "a", "number": "first"}))
    assert frames.transcript(world).empty
    with pytest.raises(InvalidValue, match="give a Run, a World or a Trace"):
        Transcript("t")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_message_that_comes_twice_is_heard_once_and_answered_once(seed, concurrency):
    async def meet(world):
        turns = {"ann": 2, "bob": 3, "cid": 2}
        models = {name: scripted(*(f"{name} {n}" for n in range(n)), latency=1.0) for name, n in turns.items()}
        ann, bob, cid = [world.spawn(LLMAgent(name, model=models[name], concurrency=concurrency)) for name in turns]
        async with ann | bob | cid as talk:
            await ann.say("Shall we begin?")
            await talk.rounds(2)
            assert "".join([part async for part in bob.reply_in_parts()]) == "bob 2"
            for one in talk.participants:
                told = [said.text for said in talk.transcript if said.speaker != one.name]
                own = [said.text for said in talk.transcript if said.speaker == one.name]
                assert [text for text in heard(one) if text != "Go on."] == told
                assert [said.content for said in one.assistant] == own

    run = simulate(meet, seed=seed, schedule="shuffled", faults=FaultPlan(duplicate=1.0))
    assert run.error is None
    table = frames.transcript(run)
    assert table["heard"].tolist() == [2] * 8
    assert table["missed"].isna().all()


def test_a_conversation_where_no_world_runs_says_so(world):
    """Opened in a cell of a notebook, it failed with a future of another loop."""
    ann, bob = team(world, "ann", "bob")

    async def meet():
        async with ann | bob:
            await ann.say("Hello.")
            return await bob.reply()

    with pytest.raises(WorldError, match=r"nothing runs here in which ann \| bob could talk: write world\.run"):
        asyncio.run(meet())
    assert not ann.talks and world.run(meet())


def test_who_takes_in_several_things_while_at_other_work_hears_all_of_them(world):
    class Reader(LLMAgent):
        @capability
        async def read(self, talk: str) -> None:
            for page in ("one", "two"):
                await self.hear(talk, page)

    reader, (ann,) = world.spawn(Reader("reader", model="offline:instant")), team(world, "ann")

    async def meet():
        async with reader | ann as talk:
            await ann.request("reader", "read", {"talk": talk.name})
            return heard(reader)

    assert world.run(meet()) == ["one", "two"]
