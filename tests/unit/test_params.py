"""Every parameter is honoured, known to be harmless, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.translate.params import HARMLESS, HINTS, RequestParams, parse_params
from litellm_mlx.types import SamplingDefaults

NO_DEFAULTS = SamplingDefaults()


def parse(**given: Any) -> RequestParams:
    return parse_params(given, drops_unsupported=False)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"n": 0}, "n=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop": 5}, "stop=5"),
        ({"stop": [""]}, "stop.0"),
        ({"top_logprobs": 50, "logprobs": True}, "top_logprobs=50"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"presence_penalty": 3}, "presence_penalty=3"),
        ({"seed": "x"}, "seed='x'"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"temprature": 0.5}, "did you mean 'temperature'"),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"tools": "get_weather"}, "tools='get_weather': input should be a valid list"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls='no': input should be a valid bool"),
        ({"echo": True}, "echo=True"),
        ({"suffix": "x"}, "suffix='x'"),
        ({"extra_body": {"top_k": -5}}, "top_k=-5"),
    ],
)
def test_a_bad_value_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=r".") as caught:
        parse(**given)
    assert named in str(caught.value)


def test_top_logprobs_alone_is_refused() -> None:
    with pytest.raises(UnsupportedParameterError, match="needs logprobs=True"):
        _ = parse(top_logprobs=3).num_top_logprobs


def test_harmless_parameters_and_none_change_nothing() -> None:
    given: dict[str, Any] = dict.fromkeys(HARMLESS, 1) | {"temperature": None, "tools": []}
    assert parse(**given) == parse()


def test_drop_params_leaves_out_what_we_do_not_know_and_keeps_checking_the_rest() -> None:
    params = parse_params({"verbosity": "low", "tools": [{}], "top_k": 3}, drops_unsupported=True)
    assert (params.top_k, params.tools) == (3, [{}])
    with pytest.raises(UnsupportedParameterError):
        parse_params({"n": 0}, drops_unsupported=True)


def test_extra_body_is_opened() -> None:
    assert parse(extra_body={"top_k": 7, "min_p": 0.1}).top_k == 7


def test_logit_bias_keys_come_as_strings() -> None:
    assert parse(logit_bias={"7": -100}).logit_bias == {7: -100.0}


def test_one_stop_text_is_a_list_of_one() -> None:
    assert parse(stop="END").stop == ["END"]


def test_the_model_decides_what_the_caller_does_not_name() -> None:
    own = SamplingDefaults(temperature=0.6, top_p=0.95, top_k=20, min_p=0.1)
    free = parse().sampling(own)
    assert (free.temperature, free.top_p, free.top_k, free.min_p) == (0.6, 0.95, 20, 0.1)
    named = parse(temperature=0.1, top_k=-1).sampling(own)
    assert (named.temperature, named.top_p, named.top_k) == (0.1, 0.95, 0)
    assert parse().sampling(NO_DEFAULTS).temperature == 1.0  # OpenAI's default


@pytest.mark.parametrize("given", [{"temperature": 0}, {"temperature": 1e-9}, {"top_p": 0}])
def test_no_randomness_left_is_greedy(given: dict[str, float]) -> None:
    assert parse(**given).sampling(NO_DEFAULTS).temperature == 0.0


def test_logprobs_of_both_apis() -> None:
    assert parse().num_top_logprobs is None
    assert parse(logprobs=True).num_top_logprobs == 0
    assert parse(logprobs=True, top_logprobs=4).num_top_logprobs == 4
    assert parse(logprobs=2).num_top_logprobs == 2  # text completion's count


@pytest.mark.parametrize("name", sorted(HINTS))
def test_a_hint_is_taken_where_hints_are_and_refused_elsewhere(name: str) -> None:
    assert parse_params({name: "x"}, drops_unsupported=False, takes_hints=True) == parse()
    with pytest.raises(UnsupportedParameterError, match=name):
        parse(**{name: "x"})


def test_hints_that_a_thinking_model_can_follow_reach_it() -> None:
    given = {"enable_thinking": False, "reasoning": {"effort": "none"}, "temperature": 0.5}
    params = parse_params(given, drops_unsupported=False, takes_hints=True)
    assert params.chat_template_kwargs == {"enable_thinking": False}
    assert params.reasoning_effort == "none" and params.temperature == 0.5


def test_what_changes_an_answer_is_no_hint() -> None:
    told_of = {"mcp_servers": "mcp_serv", "web_search_options": "web_search", "temprature": "temp"}
    for name, told in told_of.items():
        with pytest.raises(UnsupportedParameterError, match=told):
            parse_params({name: {}}, drops_unsupported=False, takes_hints=True)
