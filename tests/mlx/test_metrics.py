"""Figures of requests: what Prometheus reads is what was asked and answered, and no word of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import litellm
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from litellm_mlx import metrics, observe
from litellm_mlx.register import handler

SECRET = "the prompt that nobody else may read"
USER = [{"role": "user", "content": SECRET}]
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["happy", "sad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
UNIQUE = {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "maxItems": 2}
CHECKED = {"type": "json_schema", "json_schema": {"name": "x", "schema": UNIQUE}}


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    observers = list(observe._observers)
    registry = CollectorRegistry()
    metrics.install(registry)
    metrics.install(registry)
    yield registry
    for observer in set(observe._observers) - set(observers):
        observe.remove_observer(observer)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(f"litellm_mlx_{name}", labels) or 0.0


def test_what_is_counted_is_what_was_answered(tiny: str, registry: CollectorRegistry) -> None:
    model = tiny.removeprefix("mlx/")
    asked: list[dict[str, Any]] = [
        {"max_tokens": 6},
        {"response_format": FORM, "max_tokens": 100},
        {"response_format": CHECKED, "max_tokens": 100},
    ]
    answers = [litellm.completion(tiny, USER, **options) for options in asked]
    told = {"include_usage": True}
    *_, last = litellm.completion(tiny, USER, max_tokens=6, stream=True, stream_options=told)
    usages = [*(answer.usage for answer in answers), last.usage]
    for tier, number in (("free", 2), ("grammar", 1), ("grammar+check", 1)):
        assert value(registry, "requests_total", model=model, tier=tier) == number
    for name in ("prompt_tokens", "completion_tokens"):
        whole = sum(getattr(usage, name) for usage in usages)
        assert value(registry, f"{name}_total", model=model) == whole
    assert 0 < value(registry, "forced_tokens_total", model=model)
    assert 0 < value(registry, "cached_tokens_total", model=model)
    for stage in ("queue", "prefill", "decode", "compile", "mask", "time_to_first_token", "total"):
        assert value(registry, f"{stage}_seconds_count", model=model) == 4
    parts = sum(
        value(registry, f"{stage}_seconds_sum", model=model)
        for stage in ("queue", "prefill", "decode", "compile")
    )
    assert parts == pytest.approx(value(registry, "total_seconds_sum", model=model))
    assert handler.registry_if_used is not None
    assert value(registry, "model_loads_total") == handler.registry_if_used.num_loads > 0
    assert value(registry, "weights_bytes", model=model) > 0


def test_errors_are_counted_by_kind(tiny: str, registry: CollectorRegistry) -> None:
    model = tiny.removeprefix("mlx/")
    for _ in range(2):
        with pytest.raises(litellm.BadRequestError):
            litellm.completion(tiny, USER, response_format=FORM, max_tokens=1)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion("mlx/no-such-model", USER)
    assert value(registry, "errors_total", model=model, error="BudgetError") == 2
    assert value(registry, "errors_total", model="no-such-model", error="ModelNotFoundError") == 1
    newest, *others = observe.recent_errors()
    assert (newest.model, newest.http_status) == ("no-such-model", 404)
    assert [error.error for error in others[:2]] == ["BudgetError"] * 2


def test_nothing_of_a_prompt_is_shown(tiny: str, registry: CollectorRegistry) -> None:
    litellm.completion(tiny, USER, max_tokens=4)
    shown = generate_latest(registry).decode()
    assert "litellm_mlx_requests_total" in shown and SECRET not in shown


def test_an_observer_that_fails_harms_nobody(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: observe.Outcome) -> None:
        raise RuntimeError("mine")

    observe.add_observer(failing)
    try:
        assert litellm.completion(tiny, USER, max_tokens=4).usage.completion_tokens > 0
    finally:
        observe.remove_observer(failing)
    assert "an observer of requests failed" in caplog.text
