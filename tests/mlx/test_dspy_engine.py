"""DSPy's own engine contract on random weights: the same guarantees, and LiteLLM takes no part."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import dspy
import jsonschema
import litellm
import pytest
from dspy import lm15
from dspy.utils import exceptions
from pydantic import BaseModel, Field

from litellm_mlx import observe
from litellm_mlx.dspy import AsyncMLXEngine, MLXEngine
from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.register import handler
from tests.signatures import CASES
from tests.tiny_model import CHAT_TEMPLATE, make_tiny_model

JSON = dspy.JSONAdapter()
SHORT = "question -> mood: Literal['happy', 'sad'], n: Literal[1, 2, 3]"
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "schema": CITY, "name": "city"}
NEVER = {
    "type": "object",
    "properties": {"a": {"const": 1}, "b": {"const": 1}},
    "required": ["a", "b"],
    "additionalProperties": False,
    "not": {"required": ["a"]},
}
TOOL = lm15.FunctionTool("forecast", "Tell the weather.", CITY)
NO_STOP = {str(token_id): -100.0 for token_id in range(3)}
IMAGE = lm15.Message("user", (lm15.ImagePart(data="aGVsbG8=", media_type="image/png"),))


class Place(BaseModel):
    city: Literal["Oslo", "Rome"]
    days: int = Field(ge=0, le=9)


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    context = {"max_position_embeddings": 16384}
    return f"mlx/{make_tiny_model(tmp_path_factory.mktemp('engine') / 'm', config=context)}"


def make_lm(name: str, *, options: dict[str, Any] | None = None, **settings: Any) -> dspy.LM:
    given = options or {}
    engines = {"engine": MLXEngine(**given), "async_engine": AsyncMLXEngine(**given)}
    return dspy.LM(name, **engines, **{"cache": False, "max_tokens": 400, **settings})


@pytest.fixture
def lm(name: str) -> dspy.LM:
    return make_lm(name)


def request(name: str, text: str = "hello", **settings: Any) -> lm15.Request:
    tools = settings.pop("tools", ())
    config = lm15.Config(**{"max_tokens": 100, **settings})
    return lm15.Request(name, (lm15.Message.user(text),), tools=tools, config=config)


def predict(lm: dspy.LM, signature: Any, adapter: dspy.Adapter, **inputs: str) -> dspy.Prediction:
    with dspy.context(lm=lm, adapter=adapter):
        return dspy.Predict(signature)(**inputs)


def last(lm: dspy.LM) -> lm15.Response:
    response = lm.history[-1]["response"]
    return response if isinstance(response, lm15.Response) else response[-1]


def num_live(name: str) -> int:
    return handler.registry.engine(name.removeprefix("mlx/")).stats().num_live


def is_free(name: str) -> bool:
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s and num_live(name):
        time.sleep(0.01)
    return num_live(name) == 0


# --- structured output ---------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [JSON, dspy.ChatAdapter()], ids=["json", "chat"])
def test_every_kind_of_output_comes_in_form_at_the_first_call(
    lm: dspy.LM, adapter: dspy.Adapter
) -> None:
    def run(case: tuple[Any, dict[str, str]]) -> dspy.LM:
        own = lm.copy(max_tokens=500)
        predict(own, case[0], adapter, **case[1])  # a parse failure would raise
        return own

    with ThreadPoolExecutor(len(CASES)) as pool:
        lms = list(pool.map(run, CASES.values()))
    assert {len(own.history) for own in lms} == {1}
    assert all(last(own).provider_data["tier"].startswith("grammar") for own in lms)


def test_the_answer_says_how_it_came_about(lm: dspy.LM, name: str) -> None:
    with dspy.track_usage() as tracker:
        predict(lm, SHORT, JSON, question="?")
    response = last(lm)
    assert (response.model, response.finish_reason) == (name, "stop")
    data = response.provider_data
    assert (data["tier"], data["tries"], data["closed_by_budget"]) == ("grammar", 1, False)
    assert data["system_fingerprint"].startswith("mlx-") and data["timings"]["total_s"] > 0
    usage = tracker.get_total_tokens()[name]
    assert usage["prompt_tokens"] == response.usage.input_tokens > 0
    assert usage["completion_tokens"] == response.usage.output_tokens > 0
    assert usage["prompt_tokens_details"]["cached_tokens"] == response.usage.cache_read_tokens


def test_an_object_closes_before_the_budget_ends(name: str) -> None:
    lm = make_lm(name, max_tokens=24, options={"budget_finish_reason": "length"})
    text = predict(lm, "question -> answer: str", JSON, question="?").answer
    assert isinstance(text, str)
    response = last(lm)
    if response.provider_data["closed_by_budget"]:
        assert response.finish_reason == "length"
    assert response.usage.output_tokens <= 24


def test_both_doors_give_one_text_for_one_seed(name: str) -> None:
    there = dspy.LM(name, cache=False, temperature=1.0, seed=7, max_tokens=300)
    here = make_lm(name, temperature=1.0, seed=7, max_tokens=300)
    for adapter in (JSON, dspy.ChatAdapter()):
        answers = [predict(lm, SHORT, adapter, question="?").toDict() for lm in (there, here)]
        assert answers[0] == answers[1]
        assert there.history[-1]["outputs"] == here.history[-1]["outputs"]


# --- the surfaces --------------------------------------------------------------------------------


def test_sync_async_stream_and_astream_give_one_text(lm: dspy.LM, name: str) -> None:
    asked = request(name, temperature=0.0, max_tokens=25)

    async def use_async() -> tuple[str, str]:
        engine = AsyncMLXEngine()
        whole = await engine.complete(asked)
        return whole.text, texts([event async for event in engine.stream(asked)])

    def texts(events: list[Any]) -> str:
        assert (events[0].type, events[-1].type) == ("start", "end")
        return "".join(e.delta.text for e in events if e.type == "delta")

    whole = MLXEngine().complete(asked).text
    events = list(MLXEngine().stream(asked))
    assert len(events) > 5 and texts(events) == whole
    assert (whole, whole) == asyncio.run(use_async())
    assert lm(asked).text == whole


def test_a_listener_hears_a_field_as_it_is_written(lm: dspy.LM) -> None:
    words = (("red", "blue"), ("sky", "sea"), ("now", "later"), ("here", "there"))
    choices = tuple(map(" ".join, itertools.product(*words)))  # no long tail that is forced
    answer = (Literal[choices], dspy.OutputField())
    signature = dspy.Signature({"question": (str, dspy.InputField()), "answer": answer})
    program = dspy.Predict(signature)
    listener = dspy.streaming.StreamListener("answer")
    ask = dspy.streamify(program, stream_listeners=[listener], async_streaming=False)
    with dspy.context(lm=lm, adapter=JSON):
        *pieces, prediction = list(ask(question="?"))
    assert isinstance(prediction, dspy.Prediction)
    heard = "".join(piece.chunk for piece in pieces)
    assert prediction.answer in heard and len(pieces) > 1


def test_n_asks_n_times(name: str) -> None:
    lm = make_lm(name, temperature=1.0, max_tokens=12)
    texts = lm("hello", n=3)
    assert len(set(texts)) == 3
    assert len(lm.history[-1]["response"]) == 3


def test_acall_on_one_loop_runs_in_one_batch(lm: dspy.LM) -> None:
    async def ask() -> list[dspy.Prediction]:
        with dspy.context(lm=lm, adapter=JSON):
            program = dspy.Predict(SHORT)
            return await asyncio.gather(*(program.acall(question=str(i)) for i in range(6)))

    answers = asyncio.run(ask())
    assert {a.mood for a in answers} <= {"happy", "sad"} and {a.n for a in answers} <= {1, 2, 3}


def test_logprobs_seed_stop_and_top_k_arrive(lm: dspy.LM, name: str) -> None:
    engine = MLXEngine()
    scored = engine.complete(request(name, logprobs=2, max_tokens=5, seed=3, temperature=1.0))
    assert len(scored.logprobs) == scored.usage.output_tokens
    assert all(len(token.top) == 2 for token in scored.logprobs)
    again = engine.complete(request(name, max_tokens=5, seed=3, temperature=1.0))
    assert again.text == scored.text
    greedy = engine.complete(request(name, temperature=0.0)).text
    assert engine.complete(request(name, temperature=1.0, top_k=1)).text == greedy
    cut = engine.complete(request(name, temperature=0.0, stop=(greedy[4:6],)))
    assert (cut.text, cut.finish_reason) == (greedy[: greedy.index(greedy[4:6])], "stop")


# --- tools and thoughts --------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_that_must_come_has_the_tools_arguments(name: str, is_stream: bool) -> None:
    choice = lm15.ToolChoice("required", parallel=False)
    asked = request(name, tools=(TOOL,), tool_choice=choice, max_tokens=300)
    if is_stream:
        response = lm15.materialize_response(MLXEngine().stream(asked), asked)
    else:
        response = MLXEngine().complete(asked)
    (call,) = response.tool_calls
    assert (call.name, response.finish_reason) == ("forecast", "tool_call")
    jsonschema.validate(call.input, CITY)
    assert response.text is None


def test_past_calls_and_results_are_in_the_prompt(name: str) -> None:
    call = lm15.ToolCallPart("call_1", "forecast", {"city": "Oslo", "days": 1})
    result = lm15.ToolResultPart("call_1", (lm15.TextPart("snowfall"),))
    messages = (
        lm15.Message.user("hello"),
        lm15.Message("assistant", (call,)),
        lm15.Message("tool", (result,)),
    )
    bare = lm15.Request(name, messages[:1], config=lm15.Config(max_tokens=4))
    long = lm15.Request(name, messages, config=lm15.Config(max_tokens=4))
    engine = MLXEngine()
    num_more = engine.complete(long).usage.input_tokens - engine.complete(bare).usage.input_tokens
    assert num_more > len("forecastOslosnowfall") // 4


def test_dspys_tool_calls_come_with_fields_or_alone(lm: dspy.LM) -> None:
    def forecast(city: Literal["Oslo", "Rome"]) -> str:
        """Tell the weather."""
        return city

    class Agent(dspy.Signature):
        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    with dspy.context(lm=lm, adapter=JSON):
        answer = dspy.Predict(Agent)(question="?", tools=[dspy.Tool(forecast)])
    assert answer.calls.tool_calls
    assert {call.name for call in answer.calls.tool_calls} == {"forecast"}
    assert {call.args["city"] for call in answer.calls.tool_calls} <= {"Oslo", "Rome"}


@pytest.mark.parametrize("adapter", [JSON, dspy.ChatAdapter()], ids=["json", "chat"])
def test_react_calls_its_tools_as_they_want_it(name: str, adapter: dspy.Adapter) -> None:
    asked: list[tuple[str, int]] = []

    def forecast(city: Literal["Oslo", "Rome"], days: int) -> str:
        """Tell the weather."""
        asked.append((city, days))
        return "rain"

    lm = make_lm(name, max_tokens=300)
    agent = dspy.ReAct("question -> answer: Literal['yes', 'no']", tools=[forecast], max_iters=3)
    with dspy.context(lm=lm, adapter=adapter):
        result = agent(question="Will it rain?")
    names = {v for k, v in result.trajectory.items() if k.startswith("tool_name")}
    assert names <= {"forecast", "finish"} and result.answer in ("yes", "no")
    observed = [v for k, v in result.trajectory.items() if k.startswith("observation")]
    assert observed.count("rain") == len(asked)
    assert all(city in ("Oslo", "Rome") and isinstance(days, int) for city, days in asked)


def test_a_model_that_thinks_gives_its_thought_as_reasoning(tmp_path: Path) -> None:
    always = CHAT_TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    markers = ("<think>", "</think>")
    path = make_tiny_model(tmp_path / "m", chat_template=always, added_tokens=markers)
    lm = make_lm(f"mlx/{path}", max_tokens=300, seed=5, options={"thinks": True})
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "reasoning": (dspy.Reasoning, dspy.OutputField()),
            "sure": (bool, dspy.OutputField()),
        }
    )
    answer = predict(lm, signature, dspy.ChatAdapter(), question="?")
    assert isinstance(answer.sure, bool) and str(answer.reasoning)
    response = last(lm)
    assert response.message.parts[0].type == "thinking"
    assert 0 < response.usage.reasoning_tokens < response.usage.output_tokens
    budgeted = lm15.Reasoning("low", thinking_budget=9)
    short = MLXEngine().complete(request(f"mlx/{path}", reasoning=budgeted))
    assert short.usage.reasoning_tokens <= 10


# --- options -------------------------------------------------------------------------------------


def test_options_that_dspy_does_not_know_go_with_the_engine(name: str) -> None:
    lm = make_lm(name, options={"structured_outputs": {"regex": "[A-C]{3}"}, "min_p": 0.01})
    (text,) = lm("hello")
    assert re.fullmatch("[A-C]{3}", text)


def test_a_requests_own_word_comes_before_the_engines(name: str) -> None:
    engine = MLXEngine(max_tokens=3)
    assert engine.complete(request(name, max_tokens=9, temperature=0.0)).usage.output_tokens > 3


@pytest.mark.parametrize("option", [{"min_b": 0.1}, {"temperature": 9}, {"n": 2}])
def test_an_option_that_is_none_is_refused_when_the_engine_is_made(option: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match=next(iter(option))):
        MLXEngine(**option)


# --- a handle ------------------------------------------------------------------------------------


def test_copies_hold_no_weights_and_use_the_same_engine(lm: dspy.LM, name: str) -> None:
    program = dspy.ChainOfThought("question -> sure: bool")
    program.set_lm(lm)
    lm("hello")
    num_loads = handler.registry.num_loads
    pickled = program.deepcopy()
    pickled.set_lm(pickle.loads(pickle.dumps(lm)))
    for other in (program.deepcopy(), copy.deepcopy(program), pickled):
        with dspy.context(adapter=JSON):
            assert isinstance(other(question="?").sure, bool)
    assert handler.registry.num_loads == num_loads
    assert len(pickle.dumps(lm.engine)) < 500


def test_a_saved_program_brings_its_engine_back(name: str, tmp_path: Path) -> None:
    program = dspy.Predict(SHORT)
    program.set_lm(make_lm(name, temperature=0, options={"min_p": 0.02, "timeout": 60}))
    program.save(tmp_path / "program.json")
    loaded = dspy.Predict(SHORT)
    with pytest.raises(ValueError, match="allow_unsafe_lm_state"):
        loaded.load(tmp_path / "program.json")
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert loaded.lm.dump_state() == program.lm.dump_state()
    assert isinstance(loaded.lm.engine, MLXEngine)
    with dspy.context(adapter=JSON):
        assert loaded(question="?").toDict() == program(question="?").toDict()


def test_dspys_cache_answers_the_second_time(name: str) -> None:
    lm = make_lm(name, cache=True, temperature=1.0)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    first = lm("a question for the cache")
    assert lm("a question for the cache") == first
    assert lm.history[-1]["usage"] == {}


# --- errors --------------------------------------------------------------------------------------


@pytest.fixture
def failures() -> Iterator[list[observe.Failed]]:
    seen: list[observe.Failed] = []

    def note(outcome: observe.Outcome) -> None:
        if isinstance(outcome, observe.Failed):
            seen.append(outcome)

    observe.add_observer(note)
    yield seen
    observe.remove_observer(note)


@pytest.mark.parametrize(
    ("expected", "ask"),
    [
        (exceptions.LMUnsupportedModelError, lambda lm: lm.copy(model="mlx/nonesuch")("hello")),
        (exceptions.ContextWindowExceededError, lambda lm: lm("word " * 40_000)),
        (exceptions.LMUnsupportedFeatureError, lambda lm: lm(lm15.Request(lm.model, (IMAGE,)))),
        (exceptions.LMUnsupportedFeatureError, lambda lm: lm("hello", reasoning_effort="low")),
        (
            exceptions.LMInvalidRequestError,
            lambda lm: lm("hello", response_format=schema_of({"type": "nonesuch"})),
        ),
        (
            exceptions.LMInvalidRequestError,  # the budget has no room for it
            lambda lm: lm("hello", max_tokens=1, response_format=schema_of(CITY)),
        ),
        (
            exceptions.LMInvalidRequestError,  # the check after the grammar never passes
            lambda lm: lm("hello", response_format=schema_of(NEVER)),
        ),
    ],
    ids=["model", "context", "image", "reasoning", "schema", "budget", "check"],
)
def test_what_cannot_succeed_later_is_dspys_error_and_asked_once(
    lm: dspy.LM,
    failures: list[observe.Failed],
    expected: type[Exception],
    ask: Callable[[dspy.LM], Any],
) -> None:
    with pytest.raises(expected) as caught:
        ask(lm)
    assert len(failures) == 1
    assert not exceptions.is_retryable_lm_error(caught.value)


def test_a_deadline_is_a_timeout_that_dspy_may_retry(
    name: str, failures: list[observe.Failed]
) -> None:
    lm = make_lm(name, options={"timeout": 0.001}, num_retries=1, max_tokens=4000)
    with pytest.raises(exceptions.LMTimeoutError):
        lm("hello")
    assert [f.error for f in failures] == ["RequestTimeoutError"] * 2


def test_an_error_inside_a_stream_is_typed_too(name: str) -> None:
    with pytest.raises(lm15.InvalidRequestError):
        list(MLXEngine().stream(request(name, max_tokens=1, response_format=FORMAT)))


# --- who leaves early ----------------------------------------------------------------------------


def test_closing_a_stream_frees_its_row(name: str) -> None:
    endless = {"logit_bias": NO_STOP}
    events = MLXEngine().stream(request(name, max_tokens=8000, extensions=endless))
    assert [next(events).type for _ in range(3)] == ["start", "delta", "delta"]
    events.close()
    assert is_free(name)


def test_cancelling_a_task_frees_its_row(lm: dspy.LM, name: str) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(lm.acall("hello", max_tokens=8000, logit_bias=NO_STOP))
        while not num_live(name):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert is_free(name)


# --- LiteLLM's part ------------------------------------------------------------------------------


def litellm_files_run_by(work: Callable[[], Any]) -> set[str]:
    """Files of LiteLLM that `work` runs code of, on this thread and on new ones."""
    root = str(Path(litellm.__file__).parent)
    found: set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            found.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def test_no_line_of_litellm_runs_on_this_door(lm: dspy.LM, name: str) -> None:
    signature = dspy.Signature(
        {"question": (str, dspy.InputField()), "place": (Place, dspy.OutputField())}
    )

    async def use_async() -> None:
        with dspy.context(lm=lm, adapter=JSON):
            await dspy.Predict(signature).acall(question="?")

    def use_all() -> None:
        assert predict(lm, signature, JSON, question="?").place.city in ("Oslo", "Rome")
        with pytest.raises(exceptions.LMUnsupportedModelError):
            lm.copy(model="mlx/nonesuch")("hello")
        asyncio.run(use_async())

    lm("hello", max_tokens=2)  # the model is loaded before, and modules are imported
    assert litellm_files_run_by(use_all) == set()
    other_door = dspy.LM(name, cache=False, max_tokens=2)
    assert litellm_files_run_by(lambda: other_door("hello"))  # the probe sees it where it is used


def test_choices_come_as_lm15s_data(name: str) -> None:
    (part,) = MLXEngine().complete(request(name, response_format=FORMAT)).message.parts
    assert part.type == "data"  # since the schema lists what `city` can be
    jsonschema.validate(part.value, CITY)
