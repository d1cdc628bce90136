"""A program that talks to a cloud model changes its base URL; what it may ask for is bounded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import anthropic
import httpx
import openai
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field

from tests.proxy_process import Proxy, serving, wait_until

USER: Any = [{"role": "user", "content": "hello"}]


class Answer(BaseModel):
    name: str = Field(max_length=12)
    mood: Literal["happy", "sad"]


PERSON = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "grow",
        "parameters": {**PERSON, "required": ["age"], "additionalProperties": False},
    },
}


# --- the surfaces ------------------------------------------------------------------------------


def test_the_served_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "gpt-5.5", "vectors"]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=USER, max_tokens=8)
    assert answer.usage is not None and 0 < answer.usage.completion_tokens <= 8


def test_a_stream_tells_its_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=8, stream=True, stream_options=options, seed=1
    )
    usage = [chunk.usage for chunk in stream if chunk.usage is not None]
    assert len(usage) == 1 and 0 < usage[0].completion_tokens <= 8


def test_parse_gives_the_object(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="tiny", messages=USER, response_format=Answer, max_tokens=300
    )
    assert isinstance(parsed.choices[0].message.parsed, Answer)


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools(client: openai.OpenAI, is_stream: bool) -> None:
    asked: Any = {
        "messages": USER,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 300,
        "seed": 1,
    }
    if is_stream:
        with client.chat.completions.stream(model="tiny", **asked) as stream:
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model="tiny", **asked).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "grow"
    assert json.loads(call.function.arguments)["age"] <= 99


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.parse(
        model="tiny", input="hello", text_format=Answer, max_output_tokens=300
    )
    assert isinstance(answer.output_parsed, Answer)


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="Once", max_tokens=8)
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vectors", input=["true", "the value"])
    assert [(item.index, len(item.embedding)) for item in answer.data] == [(0, 64), (1, 64)]
    assert answer.usage.prompt_tokens > 1
    own = {"output_dimensions": 8}
    short = client.embeddings.create(model="vectors", input="true", extra_body=own)
    assert len(short.data[0].embedding) == 8
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="vectors", input="true", dimensions=8)


@pytest.mark.parametrize("is_stream", [False, True])
def test_anthropics_messages(proxy: Proxy, is_stream: bool) -> None:
    client = anthropic.Anthropic(base_url=proxy.url, api_key=proxy.key, max_retries=0)
    asked: Any = {"model": "tiny", "max_tokens": 8, "messages": USER}
    if is_stream:
        with client.messages.stream(**asked) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    assert 0 < message.usage.output_tokens <= 8


def test_anthropics_tools(proxy: Proxy) -> None:
    client = anthropic.Anthropic(base_url=proxy.url, api_key=proxy.key, max_retries=0)
    function = TOOL["function"]
    tool: Any = {"name": function["name"], "input_schema": function["parameters"]}
    choice: Any = {"type": "tool", "name": "grow"}
    message = client.messages.create(
        model="tiny", max_tokens=200, messages=USER, tools=[tool], tool_choice=choice
    )
    (used,) = [block for block in message.content if block.type == "tool_use"]
    assert isinstance(used.input, dict) and used.input["age"] <= 99


# --- what a client may not ---------------------------------------------------------------------


def refused(proxy: Proxy, **body: Any) -> httpx.Response:
    """The answer to a request that loads nothing."""
    before = proxy.loaded()
    answer = proxy.post("/v1/chat/completions", {"messages": USER, "max_tokens": 4, **body})
    assert 400 <= answer.status_code < 500, answer.text
    assert proxy.loaded() == before
    return answer


@pytest.mark.parametrize("name", ["smollm2-135m", "mlx/{folder}/other", "org/repo", "mlx/org/repo"])
def test_an_unlisted_model_is_refused(proxy: Proxy, folder: Path, name: str) -> None:
    refused(proxy, model=name.format(folder=folder))


def test_an_adapter_is_refused(proxy: Proxy, folder: Path) -> None:
    refused(proxy, model=f"tiny?adapter={folder}/adapter")
    refused(proxy, model="tiny", adapter=f"{folder}/adapter")
    refused(proxy, model="tiny", adapter_path=f"{folder}/adapter")


@pytest.mark.parametrize(
    "options",
    [
        {"fallbacks": ["mlx/{folder}/other"], "mock_testing_fallbacks": True},
        {"trust_remote_code": True},
        {"chat_template": "{{ messages }}"},
        {"extra_body": {"trust_remote_code": True}},
        {"max_tokens": 20_001},
        {"n": 5},
    ],
)
def test_other_ways_round_are_refused(proxy: Proxy, folder: Path, options: dict[str, Any]) -> None:
    text = json.dumps(options).replace("{folder}", str(folder))
    refused(proxy, model="tiny", **json.loads(text))


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "mlx/{folder}/hidden", "mlx/org/repo"])
def test_an_unlisted_embedding_model_is_refused(proxy: Proxy, folder: Path, name: str) -> None:
    before = proxy.loaded()
    body = {"model": name.format(folder=folder), "input": "true"}
    assert 400 <= proxy.post("/v1/embeddings", body).status_code < 500
    assert proxy.loaded() == before


def test_a_large_body_is_refused_unread(proxy: Proxy) -> None:
    message = [{"role": "user", "content": "x" * 3_000_000}]
    assert refused(proxy, model="tiny", messages=message).status_code == 413


def test_a_large_schema_is_refused(proxy: Proxy) -> None:
    schema = {"type": "string", "enum": [f"{i:09}" for i in range(100_000)]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = refused(proxy, model="tiny", response_format=form)
    assert "the limit is 1,000,000" in answer.text


def test_without_the_key_nothing_is_told(proxy: Proxy) -> None:
    for path in ("status", "metrics"):
        assert httpx.get(f"{proxy.url}/mlx/{path}").status_code == 401
    assert "Master key" in httpx.get(f"{proxy.url}/mlx").text


@pytest.fixture(scope="module")
def operators_config(folder: Path) -> str:
    """A configuration with a wildcard and a listed model, as an operator writes it."""
    config = {
        "model_list": [
            {"model_name": "mlx/*", "litellm_params": {"model": "mlx/*"}},
            {"model_name": "mine", "litellm_params": {"model": f"mlx/{folder}/model"}},
        ],
        "litellm_settings": {
            "custom_provider_map": [{"provider": "mlx", "custom_handler": "litellm_mlx.handler"}]
        },
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    path = folder / "operators.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_behind_a_wildcard_a_client_names_aliases_and_what_is_allowed(
    folder: Path, operators_config: str
) -> None:
    allowed = {"LITELLM_MLX_ALLOWED_MODELS": f"{folder}/oth*"}
    with serving(folder, "--config", operators_config, "--strict", **allowed) as proxy:
        for name in (f"mlx/{folder}/model?adapter={folder}/adapter", "mlx/org/repo", "mlx//etc"):
            assert "not served here" in refused(proxy, model=name).text
        vectors = proxy.post("/v1/embeddings", {"model": f"mlx/{folder}/embedder", "input": "x"})
        assert vectors.status_code == 404 and "not served here" in vectors.text
        assert proxy.loaded() == set()
        for name in ("mine", f"mlx/{folder}/other"):
            body = {"model": name, "messages": USER, "max_tokens": 4}
            assert proxy.post("/v1/chat/completions", body).status_code == 200
        assert proxy.loaded() == {f"{folder}/model", f"{folder}/other"}
        assert_strict_and_discreet(proxy, folder)


def assert_strict_and_discreet(proxy: Proxy, folder: Path) -> None:
    """Hints are refused, a key is asked for, and where the models lie is nowhere to be read."""
    body = {"model": "mine", "messages": USER, "max_tokens": 4}
    for hint in ({"speed": "fast"}, {"reasoning_effort": "low"}, {"verbosity": "low"}):
        refused = proxy.post("/v1/chat/completions", {**body, **hint})
        assert refused.status_code == 400, hint
    assert httpx.post(f"{proxy.url}/v1/chat/completions", json=body).status_code == 401
    told = proxy.post("/v1/responses", {"model": "mine", "input": "hello", "stream": True})
    assert told.status_code == 200 and "response.created" in told.text
    assert str(folder) not in told.text + repr(told.headers)


# --- figures -----------------------------------------------------------------------------------


def counted(proxy: Proxy) -> Counter[str]:
    """Sums of our figures over models and tiers, as Prometheus reads them; errors by kind."""
    shown = httpx.get(f"{proxy.url}/mlx/metrics", headers=proxy.headers).text
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            name = sample.name.removeprefix("litellm_mlx_")
            sums[sample.labels.get("error", name)] += int(sample.value)
    return sums


def test_metrics_and_status_count_what_was_asked(proxy: Proxy) -> None:
    """Of requests one after another, and what their callers were told of them."""
    before = counted(proxy)
    const = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["one way"]}}}
    bogus = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "bogus"}}}
    asked = [*[{"max_tokens": 5}] * 3, {"max_tokens": 5, "n": 2}, *[{"response_format": const}] * 2]
    usages = [chat(proxy, **body).json()["usage"] for body in asked]
    told = {"stream": True, "stream_options": {"include_usage": True}}
    usages.append(json.loads(chat(proxy, max_tokens=5, **told).text.split("data: ")[-2])["usage"])
    refused = [chat(proxy, **b).status_code for b in ({"response_format": bogus}, {"n": 5})]

    since = counted(proxy) - before
    assert since["requests_total"] == len(usages) == 7
    for name in ("prompt_tokens", "completion_tokens"):
        assert since[f"{name}_total"] == sum(usage[name] for usage in usages)
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert since["cached_tokens_total"] == sum(cached) > 0
    # All of the constant is forced, and nothing of the free texts.
    forced = [usage["completion_tokens"] for usage in usages[4:6]]
    assert since["forced_tokens_total"] == sum(forced) > 0
    assert refused == [400, 400]
    assert (since["ConstraintError"], since["UnsupportedParameterError"]) == (1, 1)
    assert sum(since[kind] for kind in since if kind.endswith("Error")) == 2

    now, totals = counted(proxy), proxy.status()["totals"]
    assert totals == {name: now[f"{name}_total"] for name in totals}
    assert totals["requests"] == now["requests_total"]


def chat(proxy: Proxy, **body: Any) -> httpx.Response:
    return proxy.post("/v1/chat/completions", {"model": "tiny", "messages": USER, **body})


# --- clients that leave ------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_frees_its_row(proxy: Proxy, is_stream: bool) -> None:
    bias = {"0": -100, "2": -100}  # it would go on for minutes
    body = {"model": "tiny", "messages": USER, "max_tokens": 20_000, "logit_bias": bias}
    sent: Any = {
        "url": f"{proxy.url}/v1/chat/completions",
        "json": {**body, "stream": is_stream},
        "headers": proxy.headers,
    }
    if is_stream:
        with httpx.stream("POST", **sent, timeout=60) as stream:
            assert stream.status_code == 200, stream.read()
            lines = stream.iter_lines()
            next(lines)
            assert proxy.num_live() == 1
            (row,) = proxy.status()["models"][0]["live"]
            assert row["completion_tokens"] > 0 and not row["is_constrained"]
            lines.close()  # type: ignore[attr-defined]  # a generator
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(**sent, timeout=1.0)
    wait_until(lambda: proxy.num_live() == 0)
