"""LiteLLM's surface on a tiny random-weight model: SDK calls as a client makes them."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from pathlib import Path
from typing import Any, Literal

import jsonschema
import litellm
import pytest

import litellm_mlx
from litellm_mlx.provider import MLXProvider
from litellm_mlx.register import handler
from tests.tiny_model import make_tiny_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
    "required": ["ok", "level"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "set", "parameters": SCHEMA}}
USER = [{"role": "user", "content": "hello"}]


def ask(model: str, **options: Any) -> Any:
    return litellm.completion(model=model, messages=USER, **{"max_tokens": 30, **options})


def live_rows(model: str) -> int:
    return handler.registry.engine(model.removeprefix("mlx/")).stats().num_live


def wait_until_free(model: str) -> bool:
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s and live_rows(model):
        time.sleep(0.01)
    return live_rows(model) == 0


def test_a_schema_is_enforced_on_random_weights(tiny: str) -> None:
    response = ask(tiny, response_format=FORMAT)
    choice = response.choices[0]
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    assert choice.finish_reason == "stop"
    assert response.usage.prompt_tokens > 0
    assert 0 <= response.usage.prompt_tokens_details.cached_tokens < response.usage.prompt_tokens
    assert response._hidden_params["response_cost"] == 0
    assert response.system_fingerprint.startswith("mlx-")


def test_json_object_gives_an_object(tiny: str) -> None:
    for seed in range(5):
        response = ask(tiny, response_format={"type": "json_object"}, seed=seed, max_tokens=300)
        if response.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(response.choices[0].message.content), dict)


def test_the_other_backend_can_be_chosen(tiny: str) -> None:
    response = ask(tiny, response_format=FORMAT, guided_decoding_backend="outlines_core")
    jsonschema.validate(json.loads(response.choices[0].message.content), SCHEMA)


def test_an_outlines_type_is_a_response_format(tiny: str) -> None:
    from outlines.types import Regex

    code = ask(tiny, response_format=litellm_mlx.response_format(Regex("[A-Z]{3}-[0-9]{2}")))
    assert re.fullmatch("[A-Z]{3}-[0-9]{2}", code.choices[0].message.content)
    choice = ask(tiny, response_format=litellm_mlx.response_format(Literal["yes", "no"]))
    assert choice.choices[0].message.content in ("yes", "no")
    numbers = ask(tiny, response_format=litellm_mlx.response_format(list[bool]), max_tokens=500)
    assert isinstance(json.loads(numbers.choices[0].message.content), list)


def test_sync_async_stream_and_astream_give_one_text(tiny: str) -> None:
    options = {"temperature": 0, "max_tokens": 25}
    whole = ask(tiny, **options).choices[0].message.content

    async def use_async() -> tuple[str, str]:
        response = await litellm.acompletion(model=tiny, messages=USER, **options)
        stream = await litellm.acompletion(model=tiny, messages=USER, stream=True, **options)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return response.choices[0].message.content, "".join(parts)

    parts = [c.choices[0].delta.content or "" for c in ask(tiny, stream=True, **options)]
    assert len(parts) > 3  # real deltas
    assert (whole, whole) == asyncio.run(use_async())
    assert "".join(parts) == whole


def test_a_stream_ends_with_exact_usage_and_the_finish_reason(tiny: str) -> None:
    whole = ask(tiny, temperature=0)
    options = {"stream_options": {"include_usage": True}, "temperature": 0}
    chunks = list(ask(tiny, stream=True, **options))
    usage = next(c.usage for c in reversed(chunks) if getattr(c, "usage", None))
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == whole.usage.completion_tokens
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [r for r in reasons if r] == [whole.choices[0].finish_reason]
    assert len({c.id for c in chunks}) == 1


def test_n_gives_that_many_different_choices(tiny: str) -> None:
    choices = ask(tiny, n=3, temperature=1.0).choices
    assert [c.index for c in choices] == [0, 1, 2]
    assert len({c.message.content for c in choices}) == 3


def test_logprobs_arrive_in_openais_shape(tiny: str) -> None:
    content = ask(tiny, logprobs=True, top_logprobs=3, max_tokens=5).choices[0].logprobs.content
    assert 1 <= len(content) <= 5
    assert all(len(token.top_logprobs) == 3 for token in content)
    json.dumps(json.loads(ask(tiny, logprobs=True).model_dump_json()), allow_nan=False)


def test_logprobs_are_of_the_constrained_distribution(tiny: str) -> None:
    content = ask(tiny, response_format=FORMAT, logprobs=True).choices[0].logprobs.content
    assert content[0].token.startswith("{")
    assert content[1].logprob > -1e4


def test_stop_is_not_in_the_text(tiny: str) -> None:
    whole = ask(tiny, temperature=0).choices[0].message.content
    stop = whole[4:6]
    cut = ask(tiny, temperature=0, stop=[stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": FORMAT},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    ],
    ids=["JSON", "a call"],
)
def test_stop_cuts_neither_json_nor_a_call_that_must_come(
    tiny: str, options: dict[str, Any]
) -> None:
    asked = {"max_tokens": 200, "seed": 1, **options}
    whole, other = (ask(tiny, **asked, **s).choices[0] for s in ({}, {"stop": ['"', ":"]}))
    assert other.finish_reason == whole.finish_reason != "length"
    assert other.message.content == whole.message.content
    calls = [[c.function for c in m.message.tool_calls or []] for m in (whole, other)]
    assert calls[0] == calls[1]
    assert whole.message.content or calls[0]


def test_max_completion_tokens_limits_the_answer(tiny: str) -> None:
    response = ask(tiny, max_tokens=None, max_completion_tokens=3)
    assert response.usage.completion_tokens <= 3


def test_text_completion_sends_the_raw_prompt(tiny: str) -> None:
    response = litellm.text_completion(model=tiny, prompt="abc", max_tokens=5, temperature=0)
    engine_model = handler.registry.engine(tiny.removeprefix("mlx/")).model()
    assert response.usage.prompt_tokens == len(engine_model.tokenizer.encode("abc"))
    assert isinstance(response.choices[0].text, str)
    parts = litellm.text_completion(
        model=tiny, prompt="abc", max_tokens=5, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text or "" for c in parts) == response.choices[0].text


def test_a_list_of_prompts_is_refused(tiny: str) -> None:
    with pytest.raises(litellm.BadRequestError, match="one prompt"):
        litellm.text_completion(model=tiny, prompt=["a", "b"])


def test_batch_completion_answers_each(tiny: str) -> None:
    responses = litellm.batch_completion(model=tiny, messages=[USER] * 4, max_tokens=4)
    assert len(responses) == 4
    assert all(isinstance(r, litellm.ModelResponse) for r in responses)


def test_a_last_assistant_message_is_continued(tiny: str) -> None:
    engine_model = handler.registry.engine(tiny.removeprefix("mlx/")).model()
    messages = [*USER, {"role": "assistant", "content": "Well"}]
    response = litellm.completion(model=tiny, messages=messages, max_tokens=3)
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nWell"
    num_tokens = len(engine_model.tokenizer.encode(text, add_special_tokens=False))
    assert response.usage.prompt_tokens == num_tokens


def test_the_event_loop_is_never_blocked(tiny: str) -> None:
    async def longest_gap_s() -> float:
        async def tick() -> float:
            longest, last = 0.0, time.monotonic()
            while not done.is_set():
                await asyncio.sleep(0.005)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            return longest

        done = asyncio.Event()
        ticking = asyncio.ensure_future(tick())
        slow = [litellm.acompletion(model=tiny, messages=USER, max_tokens=400) for _ in range(4)]
        await asyncio.gather(*slow)
        done.set()
        return await ticking

    # Generation takes seconds; a blocked loop would show them whole.
    assert asyncio.run(longest_gap_s()) < 1.0


def unending(model: str) -> dict[str, Any]:
    """Options of a call that runs to the end of the context: its stop tokens are biased away."""
    ids = handler.registry.engine(model.removeprefix("mlx/")).model().vocabulary.stop_token_ids
    return {"logit_bias": {str(i): -100 for i in ids}, "max_tokens": 1900, "temperature": 1}


def test_cancelling_a_task_frees_the_row_whenever_it_comes(tiny: str) -> None:
    rng = random.Random(3)

    async def cancel() -> None:
        call = litellm.acompletion(model=tiny, messages=USER, **unending(tiny))
        task = asyncio.ensure_future(call)
        while not live_rows(tiny):
            await asyncio.sleep(0.001)
        await asyncio.sleep(rng.uniform(0, 0.03))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for _ in range(30):
        asyncio.run(cancel())
        assert wait_until_free(tiny)


def test_leaving_a_stream_early_frees_the_row(tiny: str) -> None:
    async def leave() -> None:
        stream = await litellm.acompletion(model=tiny, messages=USER, stream=True, **unending(tiny))
        await anext(stream)
        await stream.aclose()

    stream = ask(tiny, stream=True, **unending(tiny))
    next(stream)
    del stream
    assert wait_until_free(tiny)
    asyncio.run(leave())
    assert wait_until_free(tiny)


def test_a_timeout_is_ours_to_enforce_and_frees_the_row(tiny: str) -> None:
    with pytest.raises(litellm.Timeout):
        ask(tiny, timeout=0.3, **unending(tiny))
    assert wait_until_free(tiny)

    async def time_out() -> None:
        with pytest.raises(litellm.Timeout):
            await litellm.acompletion(model=tiny, messages=USER, timeout=0.3, **unending(tiny))

    asyncio.run(time_out())
    assert wait_until_free(tiny)


class CountingProvider(MLXProvider):
    """The real provider; counts how often LiteLLM or DSPy comes back with the same request."""

    num_calls = 0

    def completion(self, *args: Any, **kwargs: Any) -> Any:
        self.num_calls += 1
        return super().completion(*args, **kwargs)


BAD_INPUTS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("n=0", {"n": 0}, litellm.BadRequestError, "n=0"),
    ("temperature", {"temperature": -1}, litellm.BadRequestError, "temperature=-1"),
    ("max_tokens", {"max_tokens": 0}, litellm.BadRequestError, "max_tokens=0"),
    ("stop type", {"stop": 5}, litellm.BadRequestError, "stop=5"),
    (
        "top_logprobs",
        {"logprobs": True, "top_logprobs": 50},
        litellm.BadRequestError,
        "top_logprobs=50",
    ),
    (
        "unknown response_format",
        {"response_format": {"type": "yaml"}},
        litellm.BadRequestError,
        "'yaml'",
    ),
    (
        "bad schema",
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}},
        litellm.BadRequestError,
        "type",
    ),
    (
        "remote reference",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"$ref": "https://example.com/schema.json"}},
            }
        },
        litellm.BadRequestError,
        "example.com",
    ),
    ("unknown parameter", {"temprature": 1}, litellm.UnsupportedParamsError, "temprature"),
    (
        "tools",
        {"tools": [{"type": "function", "function": {"parameters": {}}}]},
        litellm.UnsupportedParamsError,
        "tools",
    ),
    (
        "stop with the beginning of a call",
        {"stop": ["<tool"], "tools": [TOOL]},
        litellm.UnsupportedParamsError,
        "stop '<tool'",
    ),
]


@pytest.mark.parametrize(
    ("options", "error", "named"), [b[1:] for b in BAD_INPUTS], ids=[b[0] for b in BAD_INPUTS]
)
def test_a_bad_input_is_a_typed_error_that_names_it(
    tiny: str, options: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error) as caught:
        ask(tiny, **options)
    assert named in str(caught.value)
    assert caught.value.llm_provider == "mlx"  # type: ignore[attr-defined]
    assert "Traceback" not in str(caught.value)


def test_stream_with_n_is_refused_at_the_call(tiny: str) -> None:
    with pytest.raises(litellm.BadRequestError, match="n=2"):
        ask(tiny, stream=True, n=2)


def test_a_prompt_beyond_the_context_says_both_counts(tiny: str) -> None:
    with pytest.raises(litellm.ContextWindowExceededError, match=r"\d{4,} tokens.*2048"):
        litellm.completion(model=tiny, messages=[{"role": "user", "content": "word " * 3000}])


def test_unknown_models_name_what_works(tmp_path: Any) -> None:
    with pytest.raises(litellm.NotFoundError, match="qwen3-4b"):
        ask("mlx/qwen3-4bb")
    with pytest.raises(litellm.NotFoundError, match="no model directory"):
        ask(f"mlx/{tmp_path}/missing")


def test_a_model_that_cannot_load_is_a_400(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(litellm.BadRequestError, match="cannot load"):
        ask(f"mlx/{tmp_path}")


def test_images_are_refused_on_a_text_model(tiny: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(litellm.BadRequestError, match="image_url"):
        litellm.completion(model=tiny, messages=[{"role": "user", "content": [image]}])


@pytest.mark.parametrize(
    ("options", "num_calls"),
    [
        # DSPy refuses n=0 itself, before LiteLLM
        *((b[1], 0 if b[0] == "n=0" else 1) for b in BAD_INPUTS),
        ({"model": "nope"}, 1),
        ({"long": True}, 1),
    ],
    ids=[*(b[0] for b in BAD_INPUTS), "unknown model", "too long"],
)
def test_through_dspy_a_request_that_cannot_succeed_costs_one_call(
    tiny: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], num_calls: int
) -> None:
    import dspy

    counting = CountingProvider()
    counting._registry = handler.registry
    monkeypatch.setattr(
        litellm, "custom_provider_map", [{"provider": "mlx", "custom_handler": counting}]
    )
    options = dict(options)
    name = f"mlx/{options.pop('model', tiny.removeprefix('mlx/'))}"
    prompt = "word " * 3000 if options.pop("long", False) else "hello"
    lm = dspy.LM(name, cache=False, **{"max_tokens": 10, **options})
    with pytest.raises(Exception, match=r"."):
        lm(prompt)
    assert counting.num_calls == num_calls


def test_after_a_failure_the_next_request_starts_a_new_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm.models.llama import Model

    model = f"mlx/{make_tiny_model(tmp_path / 'm')}"
    litellm_mlx.load(model)
    with monkeypatch.context() as broken:

        def lose_device(*_: Any, **__: Any) -> None:
            raise RuntimeError("device lost")

        broken.setattr(Model, "__call__", lose_device)
        with pytest.raises(litellm.InternalServerError, match="device lost"):
            ask(model)
    assert ask(model).choices[0].message.content


@pytest.mark.parametrize("is_async", [False, True])
def test_every_chunk_of_a_text_completion_holds_a_string(tiny: str, is_async: bool) -> None:
    options: dict[str, Any] = {"model": tiny, "prompt": "Once", "max_tokens": 5, "stream": True}

    async def atexts() -> list[Any]:
        stream: Any = await litellm.atext_completion(**options)
        return [chunk.choices[0].text async for chunk in stream]

    if is_async:
        texts = asyncio.run(atexts())
    else:
        texts = [chunk.choices[0].text for chunk in litellm.text_completion(**options)]
    assert len(texts) > 1
    assert all(isinstance(text, str) for text in texts)
