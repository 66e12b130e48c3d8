"""Models by name, over real HTTP on the loopback address, and under the faults of a plan in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from pydantic import BaseModel
from pydantic_ai import models
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage
from server import Server, call, completion, cut, hang, hang_up, raw, say, send, stall, status

from masbook import Agent, FaultPlan, ModelFault, World, simulate
from masbook.errors import (
    InvalidValue,
    MissingKey,
    ModelMisbehaved,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    NeedsRealClock,
    ScriptUnused,
    UnknownModel,
)
from masbook.llm import LLMAgent, find_model, offline, scripted
from masbook.llm.model import cost
from masbook.llm.problems import redact

KEY = "sk-verysecretkey1234567890"


class Weather(BaseModel):
    city: str
    degrees: float


@pytest.fixture
def real(monkeypatch):
    """A world on the wall clock, in which requests to the loopback server are allowed."""
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
    with World(clock="real") as world:
        yield world


def thinker(world, server, **options):
    return world.spawn(LLMAgent("thinker", model=f"openai:tiny-1@{server.address}", **options))


def outcomes(world):
    return [event.facts["outcome"] for event in world.trace.events("model_called")]


class TestNames:
    def test_the_offline_model_is_the_default(self):
        assert find_model().model_name == find_model("offline").model_name == find_model("offline:balanced").model_name

    def test_the_environment_variable_chooses_for_whoever_does_not(self, monkeypatch):
        monkeypatch.setenv("MASBOOK_MODEL", "offline:fast")
        assert find_model().model_name.startswith("offline:fast ")
        assert find_model("offline:strong").model_name.startswith("offline:strong ")

    def test_a_model_is_taken_as_it_is(self):
        model = offline("fast")
        assert find_model(model) is model

    @pytest.mark.parametrize("name", ["", "offline:huge", "nonsense", "replay:nobody", "openai:x@nowhere"])
    def test_a_bad_name_in_the_environment_says_where_it_stands(self, name, monkeypatch):
        monkeypatch.setenv("MASBOOK_MODEL", name)
        if not name:
            assert find_model().model_name.startswith("offline:balanced ")
            return
        with pytest.raises(InvalidValue, match="MASBOOK_MODEL: "):
            LLMAgent("agent")

    @pytest.mark.parametrize(
        "name",
        [
            "gpt",
            "nobody:nothing",
            "offline:huge",
            "offline:",
            "",
            " ",
            7,
            "openai",
            "OFFLINE",
            "openai:",
            "openai:@http://a",
        ],
    )
    def test_an_unknown_name_lists_what_there_is(self, name):
        with pytest.raises(UnknownModel, match=r"offline|balanced"):
            find_model(name)

    @pytest.mark.parametrize(
        ("name", "variable"),
        [("openai:gpt-4o", "OPENAI_API_KEY"), ("anthropic:claude-opus-4-5", "ANTHROPIC_API_KEY")],
    )
    def test_a_missing_key_says_which_variable_to_set(self, name, variable, monkeypatch):
        monkeypatch.delenv(variable, raising=False)
        with pytest.raises(MissingKey, match=rf"{variable}.*'offline' or a recording"):
            find_model(name)

    def test_a_provider_whose_package_is_not_installed_lacks_no_key(self, monkeypatch):
        def infer(name):
            raise ImportError("Please install `boto3`")

        monkeypatch.setattr("masbook.llm.model.infer_model", infer)
        with pytest.raises(ModelUnavailable, match="install `boto3`"):
            find_model("bedrock:nova")

    def test_names_of_pydantic_ai_are_known_with_a_key(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert find_model("openai:gpt-4o").model_name == "gpt-4o"

    @pytest.mark.parametrize(
        "address", ["localhost", "", "http://", "http:///v1", "ftp://a", "http://a:123456", "http://a/v1?x=1", 7]
    )
    def test_an_address_must_be_one(self, address):
        with pytest.raises(InvalidValue, match="http://127"):
            find_model("openai:tiny", base_url=address)
        with pytest.raises(InvalidValue, match="http://127"):
            find_model(f"openai:tiny@{address}")

    def test_a_key_in_an_address_is_refused_and_not_repeated(self):
        with pytest.raises(InvalidValue, match="without a key") as caught:
            find_model("openai:tiny@http://me:correct-horse@127.0.0.1:8000/v1")
        assert "horse" not in str(caught.value)

    def test_what_would_be_ignored_is_refused(self):
        with pytest.raises(InvalidValue, match="base_url"):
            find_model("openai:gpt-4o", api_key=KEY)
        with pytest.raises(InvalidValue, match="leave base_url out"):
            find_model("offline", base_url="http://127.0.0.1:8000/v1")

    def test_neither_a_model_nor_an_agent_shows_its_key(self):
        model = find_model("openai:tiny", base_url="http://127.0.0.1:8000/v1", api_key=KEY)
        agent = LLMAgent("agent", model=model)
        assert KEY not in f"{model!r} {vars(model)} {agent!r} {agent.model!r} {vars(agent)}"

    def test_bad_options_are_refused_at_once(self):
        for options in ({"timeout": 0}, {"timeout": float("nan")}, {"attempts": 0}, {"limits": 0}, {"hops": 0}):
            with pytest.raises(InvalidValue):
                LLMAgent("agent", **options)


class TestOverHttp:
    def test_an_answer(self, real):
        with Server(say("Hello there.")) as server:
            agent = thinker(real, server, instructions="Be kind.")
            assert real.run(agent.ask("Hi!")) == "Hello there."
        (request,) = server.requests
        assert [message["role"] for message in request["messages"]] == ["system", "user"]
        (row,) = real.trace.events("model_called")
        assert (row.facts["input_tokens"], row.facts["output_tokens"], row.facts["cost"]) == (11, 3, None)

    def test_by_base_url(self, real):
        with Server(say("Hello.")) as server:
            agent = real.spawn(LLMAgent("a", model=find_model("openai:tiny", base_url=server.address, api_key=KEY)))
            assert real.run(agent.ask("Hi!")) == "Hello."
        assert server.requests[0]["model"] == "tiny" and KEY in server.headers[0]["authorization"]

    def test_a_server_of_ones_own_has_no_known_price_whatever_it_calls_its_model(self, real):
        def namesake(handler, body):
            send(handler, completion({"content": "Hello."}).replace("tiny-1", "gpt-4o"))

        with Server(namesake) as server:
            real.run(real.spawn(LLMAgent("agent", model=f"openai:gpt-4o@{server.address}")).ask("Hi!"))
        (row,) = real.trace.events("model_called")
        assert row.facts["outcome"] == "answered" and row.facts["cost"] is None

    def test_the_same_answer_of_openai_has_one(self):
        answer = ModelResponse([], usage=RequestUsage(input_tokens=1000), model_name="gpt-4o", provider_name="openai")
        assert cost(replace(answer, provider_url="https://api.openai.com/v1/")) > 0
        assert cost(replace(answer, provider_url="http://127.0.0.1:8000/v1/")) is None
        uncounted = RequestUsage(unmeasured_requests=1)
        assert cost(replace(answer, provider_url="https://api.openai.com/v1/", usage=uncounted)) is None

    def test_the_key_of_openai_is_not_sent_to_other_servers(self, real, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with Server(say("Hello.")) as server:
            real.run(thinker(real, server).ask("Hi!"))
            monkeypatch.setenv("MASBOOK_API_KEY", "for-this-server")
            real.run(real.spawn(LLMAgent("other", model=f"openai:tiny@{server.address}")).ask("Hi!"))
        assert [headers["authorization"] for headers in server.headers] == ["Bearer none", "Bearer for-this-server"]

    def test_one_model_serves_several_worlds(self, monkeypatch):
        monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
        with Server(say("Hello.")) as server:
            model = find_model(f"openai:tiny@{server.address}")
            for _ in range(2):
                with World(clock="real") as world:
                    assert world.run(world.spawn(LLMAgent("a", model=model)).ask("Hi!")) == "Hello."

    def test_a_tool_and_a_typed_output(self, real):
        def degrees(city: str) -> float:
            return 21.5

        answer = {"city": "Lima", "degrees": 21.5}
        with Server(call("degrees", {"city": "Lima"}), call("final_result", answer)) as server:
            agent = thinker(real, server, tools=[degrees], output_type=Weather)
            assert real.run(agent.ask("How warm is Lima?")) == Weather(**answer)
        assert server.requests[1]["messages"][-1]["content"] == "21.5"
        (row,) = real.trace.events("tool_called")
        assert (row.facts["tool"], row.facts["outcome"]) == ("degrees", "answered")

    def test_a_stream(self, real):
        with Server(say("Hello there friend")) as server:
            agent = thinker(real, server)

            async def listen():
                return [text async for text in agent.ask_in_parts("Hi!")]

            assert real.run(listen()) == ["Hello", "there", "friend"]
        (row,) = real.trace.events("model_called")
        assert (row.facts["outcome"], row.facts["output_tokens"]) == ("answered", 3)

    def test_a_typo_of_the_model_is_mended(self, real):
        behaviours = [call("nope", {}), call("final_result", '{"city": "Li'), call("final_result", {"city": "Lima"})]
        with Server(*behaviours, call("final_result", {"city": "Lima", "degrees": 1})) as server:
            agent = thinker(real, server, output_type=Weather)
            assert real.run(agent.ask("?")) == Weather(city="Lima", degrees=1)
        assert len(server.requests) == 4


HTML = raw("<html><body>Bad gateway</body></html>", content_type="text/html")
FAULTS = {
    "rate limit": (status(429, retry_after="0"), ModelRateLimited, 2),
    "server error": (status(500), ModelUnavailable, 2),
    "overloaded": (status(503), ModelUnavailable, 2),
    "slow": (hang, ModelTimeout, 1),
    "cut": (cut, ModelUnavailable, 2),
    "truncated JSON": (raw('{"id": "cmpl-1", "choices": [{"index"'), ModelMisbehaved, 2),
    "HTML": (HTML, ModelMisbehaved, 2),
    "empty choices": (raw('{"id": "x", "object": "chat.completion", "model": "m", "choices": []}'), ModelMisbehaved, 2),
    "no choices": (raw("{}"), ModelMisbehaved, 2),
    "null": (raw("null"), ModelMisbehaved, 2),
    "wrong types": (raw('{"id": 7, "choices": [{"message": "hello"}]}'), ModelMisbehaved, 2),
    "wrong schema": (call("final_result", {"town": "Lima"}), ModelMisbehaved, None),
    "wrong key": (status(401, f"Incorrect API key provided: {KEY}"), MissingKey, 1),
    "wrong model": (status(404, "no such model"), UnknownModel, 1),
    "too long": (status(400, "too long"), ModelRefused, 1),
    "too large": (status(413, "too large"), ModelRefused, 1),
    "conflict": (status(409), ModelUnavailable, 2),
    "redirect": (status(302, location="http://127.0.0.1:9/v1"), ModelMisbehaved, 2),
    "error with status 200": (raw('{"error": {"message": "no quota", "code": 429}}'), ModelMisbehaved, 2),
    "no words": (raw(completion({"content": None})), ModelMisbehaved, None),
    "refusal": (raw(completion({"content": None, "refusal": "no"})), ModelMisbehaved, None),
    "endless nesting": (raw("[" * 100_000), ModelMisbehaved, 2),
}


class TestFaultsOverHttp:
    """Every fault ends in one typed error within the deadline."""

    @pytest.mark.parametrize("fault", FAULTS)
    def test_ends_in_one_typed_error_within_the_deadline(self, fault, real, monkeypatch):
        monkeypatch.setattr("masbook.llm.model.BACKOFF", 0.01)
        behaviour, error, attempts = FAULTS[fault]
        with Server(behaviour) as server:
            agent = thinker(real, server, output_type=Weather, timeout=0.5 if fault == "slow" else 5.0, attempts=2)
            with pytest.raises(error) as caught:
                real.run(agent.ask("How warm is Lima?"))
            assert real.now < 5.0
        assert type(caught.value) is error
        assert attempts is None or len(server.requests) == attempts
        assert KEY not in str(caught.value) and all(KEY not in str(event) for event in real.trace)
        assert "answered" not in outcomes(real) or attempts is None

    @pytest.mark.parametrize("fault", [name for name in FAULTS if name != "wrong schema"])
    def test_ends_a_stream_in_one_typed_error(self, fault, real, monkeypatch):
        monkeypatch.setattr("masbook.llm.model.BACKOFF", 0.01)
        behaviour, error, _ = FAULTS[fault]
        with Server(behaviour) as server:
            agent = thinker(real, server, timeout=0.5 if fault == "slow" else 5.0, attempts=2)

            async def listen():
                return [text async for text in agent.ask_in_parts("Hi!")]

            with pytest.raises((error, ModelMisbehaved, ModelUnavailable)):
                real.run(listen())
        assert outcomes(real)[-1] != "answered"

    def test_a_stream_that_stalls_ends_at_the_deadline(self, real):
        with Server(stall) as server:
            agent = thinker(real, server, timeout=0.5)

            async def listen():
                return [text async for text in agent.ask_in_parts("Hi!")]

            with pytest.raises(ModelTimeout):
                real.run(listen())
        assert outcomes(real) == ["timed_out"]

    def test_a_stream_that_ends_before_the_answer_does(self, real):
        """The connection is closed as it would be at the end, and only the missing reason to finish tells."""
        heard = []
        with Server(hang_up) as server:
            agent = thinker(real, server)

            async def listen():
                async for text in agent.ask_in_parts("Hi!"):
                    heard.append(text)

            with pytest.raises(ModelMisbehaved, match="finish_reason"):
                real.run(listen())
        assert heard == ["Once upon"] and outcomes(real) == ["misbehaved"]

    def test_nobody_listens(self, real, monkeypatch):
        monkeypatch.setattr("masbook.llm.model.BACKOFF", 0.01)
        with Server(say("x")) as server:
            address = server.address
        agent = real.spawn(LLMAgent("agent", model=f"openai:tiny@{address}"))
        with pytest.raises(ModelUnavailable):
            real.run(agent.ask("Hi!"))
        assert outcomes(real) == ["unavailable"] * 3

    @pytest.mark.parametrize("fault", ["rate limit", "server error", "cut", "HTML", "empty choices"])
    def test_a_fault_that_passes_is_tried_again(self, fault, real, monkeypatch):
        monkeypatch.setattr("masbook.llm.model.BACKOFF", 0.01)
        with Server(FAULTS[fault][0], say("Hello.")) as server:
            assert real.run(thinker(real, server).ask("Hi!")) == "Hello."
        assert outcomes(real)[1] == "answered" and len(outcomes(real)) == 2

    def test_retry_after_is_honoured(self, real):
        with Server(status(429, retry_after_ms="200"), say("Hello.")) as server:
            real.run(thinker(real, server).ask("Hi!"))
        assert real.now > 0.2

    def test_retry_after_beyond_the_deadline_ends_at_once(self, real):
        with Server(status(429, retry_after="60")) as server, pytest.raises(ModelRateLimited) as caught:
            real.run(thinker(real, server).ask("Hi!"))
        assert caught.value.retry_after == 60 and real.now < 5

    def test_a_key_given_by_hand_is_not_shown_either(self, real):
        with Server(status(400, "not with correct-horse-battery")) as server:
            model = find_model("openai:tiny", base_url=server.address, api_key="correct-horse-battery")
            with pytest.raises(ModelRefused) as caught:
                real.run(real.spawn(LLMAgent("agent", model=model)).ask("Hi!"))
        assert "horse" not in f"{caught.value}{list(real.trace)}"

    def test_an_error_shows_neither_key_nor_the_way_it_took(self, real):
        with Server(status(401, f"Incorrect API key provided: {KEY}")) as server:
            agent = thinker(real, server)
            with pytest.raises(MissingKey) as caught:
                real.run(agent.ask("Hi!"))
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        assert "[key]" in str(caught.value) and "MASBOOK_API_KEY" in str(caught.value)

    @pytest.mark.parametrize("fault", ["server error", "empty choices"])
    def test_models_that_fall_back_keep_the_rules(self, fault, real):
        with Server(FAULTS[fault][0]) as server:
            models_there = [find_model(f"openai:{name}@{server.address}") for name in ("one", "other")]
            agent = real.spawn(LLMAgent("agent", model=FallbackModel(*models_there), attempts=1))
            with pytest.raises(FAULTS[fault][1]):
                real.run(agent.ask("Hi!"))
        assert len(server.requests) <= 2  # no attempts but those that the trace has


class TestRedact:
    @pytest.mark.parametrize(
        "text",
        [
            *(
                "sk-ant-api03-abcdef",
                "sk_live_abcdef",
                "AIzaSyD-1234567890",
                "xai-12345678",
                "hf_abcdefghij",
                "ghp_abcdef12",
            ),
            *("Authorization: Bearer abcdef123456", "basic dXNlcjpwYXNzd29yZA==", "http://me:hunter22@host/v1"),
            *("https://host/v1?key=abcdefgh&x=1", "https://host/v1?x=1&api_key=abcdefgh"),
        ],
    )
    def test_what_looks_like_a_key_is_taken_out(self, text):
        found = redact(f"It says {text} here.")
        assert "[key]" in found and found.endswith(" here.")
        assert not any(secret in found for secret in ("abcdef", "SyD", "345678", "dXNl", "hunter"))

    @pytest.mark.parametrize(
        "text",
        [
            "a skeleton, skilful and sceptical",
            "basic knowledge, basic questions",
            "the bearer instruments",
            "risk-taking",
        ],
    )
    def test_plain_words_are_left_alone(self, text):
        assert redact(text) == text

    def test_the_keys_of_the_environment_are_known(self, monkeypatch):
        monkeypatch.setenv("SOME_API_KEY", "correct-horse")
        assert redact("It is correct-horse.") == "It is [key]."


class TestVirtualWorlds:
    def test_a_model_over_the_network_needs_the_real_clock(self, world, monkeypatch):
        monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
        agent = world.spawn(LLMAgent("agent", model="openai:tiny@http://127.0.0.1:9/v1"))
        with pytest.raises(NeedsRealClock, match='World\\(clock="real"\\)'):
            world.run(agent.ask("Hi!"))

    def test_real_requests_are_blocked_in_the_suite(self):
        with World(clock="real") as world:
            agent = world.spawn(LLMAgent("agent", model="openai:tiny@http://127.0.0.1:9/v1"))
            with pytest.raises(RuntimeError, match="not allowed"):
                world.run(agent.ask("Hi!"))

    def test_a_model_of_ones_own_fails_with_its_own_error(self, world):
        async def think(messages, info):
            raise ZeroDivisionError("oops")

        agent = world.spawn(LLMAgent("agent", model=FunctionModel(think)))
        with pytest.raises(ZeroDivisionError, match="oops"):
            world.run(agent.ask("Hi!"))
        assert outcomes(world) == ["failed"]

    def test_a_slow_model_ends_at_the_deadline(self, world):
        async def think(messages, info):
            await asyncio.sleep(1000)

        agent = world.spawn(LLMAgent("agent", model=FunctionModel(think)))
        with pytest.raises(ModelTimeout, match="within 30 s"):
            world.run(agent.ask("Hi!"))
        assert world.now == 30.0 and outcomes(world) == ["timed_out"]

    def test_pauses_count_towards_the_deadline(self, world):
        answers = [ModelRateLimited("slowly", 20.0)] * 2 + ["never"]
        agent = world.spawn(LLMAgent("agent", model=scripted(*answers)))
        with pytest.raises(ModelRateLimited):
            world.run(agent.ask("Hi!"))
        assert world.now == 20.0
        with pytest.raises(ScriptUnused, match="never"):
            world.close()

    def test_back_off_doubles(self, world):
        model = scripted(ModelUnavailable("a"), ModelUnavailable("b"), ModelUnavailable("c"), "d")
        agent = world.spawn(LLMAgent("agent", model=model, attempts=4))
        assert world.run(agent.ask("Hi!")) == "d"
        times = [event.time for event in world.trace.events("model_called")]
        assert times == [0.0, 0.5, 1.5, 3.5]

    def test_a_request_that_is_given_up_is_a_row(self, world):
        agent = world.spawn(LLMAgent("agent", model=scripted("late", latency=10)))
        client = world.spawn(Agent("client"))

        async def hurry():
            with pytest.raises(TimeoutError):
                await client.request("agent", "ask", prompt="Hi!", timeout=1.0, on_timeout="cancel")
            await client.sleep(1)

        world.run(hurry())
        assert outcomes(world) == ["cancelled"] and agent.state == "idle"

    def test_models_that_wrap_others_keep_the_world(self, world):
        async def fail(messages, info):
            raise ModelHTTPError(503, "first", "down")

        agent = world.spawn(LLMAgent("agent", model=FallbackModel(FunctionModel(fail), offline("fast"))))
        assert world.run(agent.ask("Hello there!")) == "Hello there!"
        assert world.now > 0
        lost = world.spawn(LLMAgent("lost", model=FallbackModel(FunctionModel(fail), FunctionModel(fail)), attempts=1))
        with pytest.raises(ModelUnavailable, match="down"):
            world.run(lost.ask("Hello!"))


async def asked(world, times=1, agents=("ada",), **options):
    """Agents that are asked one thing after the other; what each answer was, or the name of the error."""

    async def one(name):
        agent = world.spawn(LLMAgent(name, model="offline:fast", **options))
        found = []
        for number in range(times):
            try:
                found.append(await agent.ask(f"Say {number}."))
            except Exception as error:
                found.append(type(error).__name__)
        return found

    return await asyncio.gather(*map(one, agents))


def planned(*faults, **options):
    return simulate(asked, seed=5, faults=FaultPlan(appointments=faults), **options)


class TestPlannedFaults:
    @pytest.mark.parametrize(
        ("fault", "error", "outcome", "seconds"),
        [
            ("rate_limit", "ModelRateLimited", "rate_limited", 1.5),
            ("unavailable", "ModelUnavailable", "unavailable", 1.5),
            ("malformed", "ModelMisbehaved", "misbehaved", 1.5),
            ("timeout", "ModelTimeout", "timed_out", 30.0),
        ],
    )
    def test_every_call_struck_ends_in_a_typed_error_in_virtual_time(self, fault, error, outcome, seconds):
        run = planned(ModelFault(fault))
        assert run.result == [[error]] and run.time == seconds
        rows = [event.facts["outcome"] for event in run.trace.events("model_called")]
        assert rows == [outcome] * (1 if fault == "timeout" else 3)
        assert [event.facts["fault"] for event in run.trace.events("fault")] == [f"model {fault}"] * len(rows)

    def test_the_nth_call_alone_is_tried_again_and_succeeds(self):
        run = planned(ModelFault("rate_limit", nth=2, retry_after=3.0), times=3)
        assert "Error" not in str(run.result)
        rows = [event.facts["outcome"] for event in run.trace.events("model_called")]
        assert rows == ["answered", "rate_limited", "answered", "answered"] and run.time > 3.0

    def test_only_the_agents_named_are_struck(self):
        run = planned(ModelFault("malformed", agent="a*"), agents=("ada", "ben", "anna"))
        assert [found[0].endswith("Misbehaved") for found in run.result] == [True, False, True]

    def test_only_while_it_lasts(self):
        run = planned(ModelFault("unavailable", start=1.0, end=1000.0), times=30, attempts=1)
        assert "ModelUnavailable" not in run.result[0][:2] and run.result[0][-1] == "ModelUnavailable"

    def test_a_higher_probability_strikes_the_same_calls_and_more(self):
        def struck(probability):
            run = planned(ModelFault("malformed", probability=probability), times=100, attempts=1)
            return {number for number, found in enumerate(run.result[0]) if found == "ModelMisbehaved"}

        low, high = struck(0.2), struck(0.5)
        assert 5 < len(low) < len(high) < 70 and low < high

    def test_without_faults_the_plan_changes_nothing(self):
        run = planned(ModelFault("malformed", probability=0.0), times=5)
        assert run.digest == simulate(asked, seed=5, times=5).digest

    @pytest.mark.parametrize(
        "options", [{"fault": "sulk"}, {"nth": 0}, {"probability": 2}, {"start": 2, "end": 1}, {"retry_after": -1}]
    )
    def test_bad_faults_are_refused(self, options):
        with pytest.raises(InvalidValue):
            ModelFault(**{"fault": "timeout", **options})
