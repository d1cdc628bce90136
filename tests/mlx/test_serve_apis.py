"""What clients of cloud APIs rely on holds in `serve`: their SDKs see what the cloud would say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import litellm
import openai
import pytest

from litellm_mlx.translate.params import HINTS
from tests.proxy_process import Proxy, asking, wait_until

USER: Any = [{"role": "user", "content": "hello"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "grow", "parameters": SCHEMA}}
RESPONSES_TOOL: Any = {"type": "function", "name": "grow", "parameters": SCHEMA}
TOO_LONG: Any = [
    {"role": "user", "content": "hello " * 400}
]  # the model "gpt-5.5" takes 512 tokens
# Of the served models' requests, one for each route.
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 4},
    "/v1/completions": {"prompt": "Once", "max_tokens": 4},
    "/v1/responses": {"input": "hello", "max_output_tokens": 4},
    "/v1/messages": {"messages": USER, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": USER},
}
STREAMED = [route for route in REQUESTS if "count" not in route]


@pytest.fixture(scope="module")
def claude(proxy: Proxy) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=proxy.url, api_key=proxy.key, max_retries=0)


# --- keys and names ----------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-no"}, {"x-api-key": "sk-no"}])
@pytest.mark.parametrize("route", [*REQUESTS, "/v1/embeddings", "/v1/models", "/model/info"])
def test_without_the_right_key_every_route_says_401_in_its_own_shape(
    proxy: Proxy, route: str, headers: dict[str, str]
) -> None:
    asks = route in REQUESTS or "embeddings" in route
    body = {"model": "tiny", **REQUESTS.get(route, {})}
    answer = httpx.request(
        "POST" if asks else "GET", proxy.url + route, headers=headers, json=body if asks else None
    )
    assert answer.status_code == 401
    error = answer.json()["error"]
    if "messages" in route:
        assert answer.json()["type"] == "error" and error["type"] == "authentication_error"
    else:
        assert error["code"] == "invalid_api_key"
    assert "key" in error["message"] and "database" not in error["message"]


def test_the_sdks_raise_their_own_errors_for_a_wrong_key(proxy: Proxy) -> None:
    stranger = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-no", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="tiny", messages=USER)
    claude = anthropic.Anthropic(base_url=proxy.url, api_key="sk-no", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model="tiny", messages=USER, max_tokens=4)


def test_a_browser_may_ask_whether_it_may_ask(proxy: Proxy) -> None:
    asked = {"Origin": "http://x", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{proxy.url}/v1/chat/completions", headers=asked)
    assert answer.status_code == 200 and "access-control-allow-methods" in answer.headers


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-litellm-api-key"])
def test_a_key_is_read_wherever_litellm_reads_it(proxy: Proxy, header: str) -> None:
    assert httpx.get(f"{proxy.url}/v1/models", headers={header: proxy.key}).status_code == 200


@pytest.mark.parametrize("route", [*REQUESTS, "/v1/embeddings"])
def test_an_unknown_model_is_a_404_with_the_names_that_there_are(proxy: Proxy, route: str) -> None:
    answer = proxy.post(route, {"model": "nope", "input": "x", **REQUESTS.get(route, {})})
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert error["type" if "messages" in route else "code"] in (
        "not_found_error",
        "model_not_found",
    )
    assert all(name in error["message"] for name in ("nope", "tiny", "gpt-5.5", "vectors"))


def test_no_message_at_all_is_a_400(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        claude.messages.create(model="tiny", messages=[], max_tokens=4)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("route", STREAMED)
def test_no_path_of_this_machine_leaves_it(
    proxy: Proxy, folder: Path, route: str, is_stream: bool
) -> None:
    for extra in ({}, {"temprature": 1}, {"model": "gpt-5.5", "max_tokens": 999_999}):
        body = {"model": "tiny", "stream": is_stream, **REQUESTS[route], **extra}
        answer = proxy.post(route, body)
        assert answer.status_code in (200, 400)
        assert str(folder) not in answer.text + repr(answer.headers)


@pytest.mark.parametrize("route", ["/v1/models", "/model/info", "/v1/model/info"])
def test_no_list_of_models_has_a_path(proxy: Proxy, folder: Path, route: str) -> None:
    answer = httpx.get(proxy.url + route, headers=proxy.headers)
    assert answer.status_code == 200 and "gpt-5.5" in answer.text
    assert str(folder) not in answer.text + repr(answer.headers)


# --- how long a prompt may be ------------------------------------------------------------------


@pytest.mark.parametrize("route", ["openai", "anthropic", "hosted_vllm", "litellm_proxy"])
def test_each_of_litellms_routes_knows_a_prompt_that_is_too_long(proxy: Proxy, route: str) -> None:
    base = proxy.url if route == "anthropic" else f"{proxy.url}/v1"
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            f"{route}/gpt-5.5", TOO_LONG, api_base=base, api_key=proxy.key, max_tokens=4
        )


def test_other_clients_know_it_too(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """By Claude Code's and OpenCode's patterns, and by OpenAI's code."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-5.5", messages=TOO_LONG)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    assert re.search(r"maximum context length is 512 tokens", str(caught.value))
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="gpt-5.5", input=TOO_LONG)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "input"
    with pytest.raises(anthropic.BadRequestError) as told:
        claude.messages.create(model="gpt-5.5", messages=TOO_LONG, max_tokens=4)
    found = re.search(
        r"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)", str(told.value), re.IGNORECASE
    )
    assert found is not None and int(found[1]) > int(found[2]) == 512


def test_models_are_listed_with_their_own_context_whatever_their_name(
    proxy: Proxy, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert listed["tiny"]["max_input_tokens"] == 65536
    assert listed["gpt-5.5"]["max_input_tokens"] == listed["gpt-5.5"]["max_output_tokens"] == 512
    of_claude = {model.id: model.model_dump() for model in claude.models.list()}
    assert of_claude["gpt-5.5"]["max_input_tokens"] == of_claude["gpt-5.5"]["max_tokens"] == 512
    info = httpx.get(f"{proxy.url}/model/info", headers=proxy.headers).json()["data"]
    known = {item["model_name"]: item["model_info"]["max_input_tokens"] for item in info}
    assert known["tiny"] == 65536 and known["gpt-5.5"] == 512


@pytest.mark.parametrize("tools", [[], [CHAT_TOOL]])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_count_is_what_the_request_then_has(
    proxy: Proxy, client: openai.OpenAI, claude: anthropic.Anthropic, tools: Any, system: Any
) -> None:
    asked: Any = {"model": "tiny", "messages": USER}
    if system:
        asked["system"] = system
    if tools:
        asked["tools"] = [{"name": "grow", "input_schema": SCHEMA}]
    usage = claude.messages.create(**asked, max_tokens=50).usage
    num_tokens = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert claude.messages.count_tokens(**asked).input_tokens == num_tokens
    own: Any = {"model": "tiny", "input": "hello", "instructions": system or openai.omit}
    own["tools"] = [RESPONSES_TOOL] if tools else openai.omit
    responded = client.responses.create(**own, max_output_tokens=50).usage
    assert responded is not None
    assert client.responses.input_tokens.count(**own).input_tokens == responded.input_tokens
    messages = ([{"role": "system", "content": system}] if system else []) + USER
    body = {"model": "tiny", "messages": messages, **({"tools": tools} if tools else {})}
    counted = proxy.post("/utils/token_counter", body).json()
    chatted = client.chat.completions.create(**body, max_tokens=50).usage
    assert chatted is not None and counted["total_tokens"] == chatted.prompt_tokens


def test_what_is_too_long_can_be_counted(claude: anthropic.Anthropic) -> None:
    assert claude.messages.count_tokens(model="gpt-5.5", messages=TOO_LONG).input_tokens > 512


# --- hints -------------------------------------------------------------------------------------

EFFORTS: dict[str, Any] = {
    "reasoning_effort": "high",
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "thinking ": {"type": "adaptive"},
    "service_tier": "auto",
    "prompt_cache_key": "a",
    "prompt_cache_retention": "24h",
    "safety_identifier": "a",
}


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/messages"])
def test_hints_are_accepted_of_a_model_that_does_not_think(proxy: Proxy, route: str) -> None:
    hints = {**dict.fromkeys(sorted(HINTS), "x"), **EFFORTS}
    hints |= {"context_management": {"edits": []}, "reasoning": {"effort": "high"}}
    for name, value in hints.items():
        body = {"model": "tiny", **REQUESTS[route], "max_tokens": 8, name.strip(): value}
        answer = proxy.post(route, body)
        assert answer.status_code == 200, (name, answer.text)


@pytest.mark.parametrize(
    "hint",
    [
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"text": {"verbosity": "low"}},
        {"max_tool_calls": 3},
        {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
        {"include": ["reasoning.encrypted_content"]},
    ],
)
def test_hints_are_accepted_of_a_response(client: openai.OpenAI, hint: dict[str, Any]) -> None:
    answer = client.responses.create(
        model="tiny", input="hello", max_output_tokens=4, extra_body=hint
    )
    assert answer.output


@pytest.mark.parametrize(
    "wanted",
    [
        {"mcp_servers": [{"type": "url", "url": "http://x", "name": "y"}]},
        {"web_search_options": {}},
        {"modalities": ["audio"]},
        {"temprature": 1},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    ],
)
def test_what_would_change_the_answer_is_still_refused(
    client: openai.OpenAI, wanted: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=USER, extra_body=wanted)


def test_a_billing_header_is_no_part_of_the_prompt(claude: anthropic.Anthropic) -> None:
    def ask(build: str) -> anthropic.types.Usage:
        header: Any = {
            "type": "text",
            "text": f"x-anthropic-billing-header: cc_version=2.1.197.{build}; cc_entrypoint=cli;",
        }
        rules: Any = {"type": "text", "text": "You are a careful helper. " * 8}
        return claude.messages.create(
            model="tiny", system=[header, rules], messages=USER, max_tokens=4
        ).usage

    ask("8a5")
    again = ask("c41")
    assert again.input_tokens == 1 and (again.cache_read_input_tokens or 0) > 200


# --- conversations that the server remembers ---------------------------------------------------


def respond(client: openai.OpenAI, is_stream: bool, **asked: Any) -> Any:
    fixed = {"model": "tiny", "max_output_tokens": 4, **asked}
    if not is_stream:
        return client.responses.create(**fixed)
    events = list(client.responses.create(**fixed, stream=True))
    assert events[0].type == "response.created"
    assert events[0].response.previous_response_id == asked.get("previous_response_id")
    assert events[0].response.model == "tiny"
    (last,) = [e for e in events if e.type in ("response.completed", "response.incomplete")]
    return last.response


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_follow_up_has_its_whole_history(client: openai.OpenAI, is_stream: bool) -> None:
    """Held against the same conversation sent whole."""
    sent: list[Any] = []
    previous_id = None
    for text in ("My name is Bob.", "What is it?", "Thanks."):
        sent.append({"role": "user", "content": text})
        options = {} if previous_id is None else {"previous_response_id": previous_id}
        answer = respond(client, is_stream, input=text, **options)
        whole = client.responses.create(model="tiny", input=sent, max_output_tokens=4, store=False)
        assert answer.usage.input_tokens == whole.usage.input_tokens
        assert answer.previous_response_id == previous_id
        sent.extend(item.model_dump() for item in answer.output)
        previous_id = answer.id


def test_a_tools_result_meets_its_call(client: openai.OpenAI) -> None:
    asked: Any = {"tools": [RESPONSES_TOOL], "max_output_tokens": 200, "parallel_tool_calls": False}
    called = respond(client, False, input="grow", tool_choice="required", **asked)
    (call,) = [item for item in called.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    items = [{"role": "user", "content": "grow"}, call.model_dump(), result]
    after = respond(client, False, input=[result], previous_response_id=called.id, **asked)
    whole = respond(client, False, input=items, **asked)
    assert after.usage.input_tokens == whole.usage.input_tokens


def test_a_stored_response_is_read_listed_and_deleted(client: openai.OpenAI) -> None:
    first = respond(client, False, input="one")
    second = respond(client, True, input="two", previous_response_id=first.id)
    assert client.responses.retrieve(second.id).output_text == second.output_text
    listed = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    texts = [item.content[0].text for item in listed]  # type: ignore[union-attr]
    assert texts == ["one", first.output_text, "two"]
    client.responses.delete(second.id)
    for ask in (client.responses.retrieve, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, False, input="three", previous_response_id=second.id)
    assert caught.value.code == "previous_response_not_found"


def test_what_is_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    answer = respond(client, False, input="one", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_an_item_may_be_named_by_its_id(client: openai.OpenAI) -> None:
    first = respond(client, False, input="one")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    question = {"role": "user", "content": "two"}
    by_id = respond(client, False, input=[reference, question])
    whole = respond(client, False, input=[first.output[0].model_dump(), question])
    assert by_id.usage.input_tokens == whole.usage.input_tokens


@pytest.mark.parametrize(
    "wanted",
    [
        {"previous_response_id": "resp_unknown"},
        {"input": [{"type": "item_reference", "id": "msg_unknown"}]},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"conversation": "conv_1"},
        *[
            {"tools": [{"type": kind}]}
            for kind in ("image_generation", "local_shell", "shell", "web_search", "mcp")
        ],
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_nothing_of_a_request_is_passed_over(
    client: openai.OpenAI, wanted: dict[str, Any], is_stream: bool
) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.responses.create(
            model="tiny", input="hello", max_output_tokens=4, stream=is_stream, extra_body=wanted
        )
    named = json.dumps(wanted)
    assert any(word in str(caught.value) for word in re.findall(r"\w+", named))


def test_codex_offers_web_search_with_every_request_and_is_answered(client: openai.OpenAI) -> None:
    """LiteLLM's proxy sets `drop_params` for it, by its name."""
    client.responses.create(
        model="tiny",
        input="hello",
        max_output_tokens=4,
        tools=[{"type": "web_search"}],
        extra_headers={"User-Agent": "codex_exec/0.171.0"},
    )


# --- answers that are long in coming -----------------------------------------------------------


@contextmanager
def full(proxy: Proxy) -> Iterator[None]:
    """Every place of the batch is taken, so that a request waits."""
    bias = {"0": -100, "2": -100}  # it would go on for minutes
    body = {"model": "tiny", "messages": USER, "max_tokens": 20_000, "n": 4, "logit_bias": bias}
    with asking(proxy, body):
        wait_until(lambda: proxy.num_live() == 4)
        yield
    wait_until(lambda: proxy.num_live() == 0)


def late(route: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "stream": True, **REQUESTS[route], **more}


def test_a_stream_begins_before_its_first_token(proxy: Proxy) -> None:
    with ExitStack() as open_streams:
        with full(proxy):
            begun = []
            for route in STREAMED:
                asked: Any = {"json": late(route), "headers": proxy.headers, "timeout": 60}
                stream = open_streams.enter_context(
                    httpx.stream("POST", proxy.url + route, **asked)
                )
                assert stream.status_code == 200
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = stream.iter_lines()
                assert next(lines).startswith(":")
                begun.append(lines)
        for lines in begun:
            events = [line for line in lines if line and not line.startswith(":")]
            assert events and all(line.startswith(("data:", "event:")) for line in events)


def test_an_error_after_the_headers_is_the_last_event(
    proxy: Proxy, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    soon: Any = {"timeout": 0.6}
    with full(proxy):
        with pytest.raises(openai.APIError, match="deadline"):
            list(client.chat.completions.create(**late("/v1/chat/completions"), extra_body=soon))
        with pytest.raises(anthropic.APIError, match="deadline"):
            list(claude.messages.create(**late("/v1/messages"), extra_body=soon))
        *_, last = client.responses.create(**late("/v1/responses"), extra_body=soon)
    assert last.type == "response.failed" and last.response.error is not None
    assert "deadline" in last.response.error.message


@pytest.mark.parametrize("route", STREAMED)
def test_an_error_at_once_keeps_its_status(proxy: Proxy, route: str) -> None:
    assert proxy.post(route, late(route, model="nope")).status_code == 404
