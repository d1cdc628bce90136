"""DSPy's requests in OpenAI's shape, which the LiteLLM door has too."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dspy import lm15  # type: ignore[import-untyped]

PROVIDER = "mlx"

# lm15 writes its requests in OpenAI's shape for servers of many dialects; this one is ours.
_DIALECT = lm15.OpenAIChatLM(
    api_key="none",  # nothing is ever sent
    transport=None,
    compat=lm15.OpenAIChatCompat(
        instruction_role="system",
        max_tokens_field="max_tokens",
        thinking_replay="native",
        tool_result_name="include",
        cache_control="openai_implicit",
    ),
)


def bare_name(request: lm15.Request) -> str:
    """The model's name without `mlx/`."""
    return str(request.model).removeprefix(f"{PROVIDER}/")


def in_openai_shape(request: lm15.Request) -> tuple[list[Any], dict[str, Any]]:
    """Messages and parameters of a request, as the LiteLLM door has them."""
    body = json.loads(_DIALECT.build_request(_plain(request), stream=False).body)
    config = request.config
    if config.top_k is not None:
        body["top_k"] = config.top_k
    if config.reasoning is not None:
        body["reasoning_effort"] = "none" if config.reasoning.is_off else config.reasoning.effort
        if config.reasoning.thinking_budget is not None:
            body["thinking"] = {"budget_tokens": config.reasoning.thinking_budget}
    del body["model"]
    return body.pop("messages"), body


def adaptations(request: lm15.Request) -> tuple[Any, ...]:
    """Where the request is served otherwise than it was put, in lm15's own records."""
    records: tuple[Any, ...] = _DIALECT.plan(_plain(request))
    return records


def _plain(request: lm15.Request) -> lm15.Request:
    """The request without what lm15's dialect would leave out or change, and we need not."""
    return replace(request, config=replace(request.config, top_k=None, reasoning=None))
