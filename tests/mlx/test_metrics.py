"""Figures of requests: what Prometheus reads is what was asked and answered, and no word of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from litellm_mlx import metrics, observe
from litellm_mlx.register import handler

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana_dashboard.json"
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
    for held in ("weights_bytes", "prefix_cache_bytes"):
        assert value(registry, held, model=model) > 0


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


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_caller_that_leaves_is_counted_and_is_no_recent_error(
    tiny: str, registry: CollectorRegistry, is_stream: bool
) -> None:
    endless: Any = {"max_tokens": 1000, "logit_bias": {"0": -100, "2": -100}}
    errors = observe.recent_errors()

    async def ask() -> None:
        answer = await litellm.acompletion(tiny, USER, **endless, stream=is_stream)
        if is_stream:
            await anext(answer)
            await answer.aclose()

    async def main() -> None:
        task = asyncio.create_task(ask())
        if not is_stream:
            await asyncio.sleep(0.1)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    labels = {"model": tiny.removeprefix("mlx/"), "error": "RequestCancelled"}
    assert value(registry, "errors_total", **labels) == 1
    assert observe.recent_errors() == errors


def test_a_stream_that_is_read_to_its_end_ends_once(tiny: str, registry: CollectorRegistry) -> None:
    stream = litellm.completion(tiny, USER, max_tokens=4, stream=True)
    own = stream.completion_stream  # LiteLLM 1.108 lets go of it at the end
    for _ in stream:
        pass
    own.close()
    model = tiny.removeprefix("mlx/")
    assert value(registry, "requests_total", model=model, tier="free") == 1
    assert value(registry, "errors_total", model=model, error="RequestCancelled") == 0


def test_the_dashboard_shows_every_figure_and_no_other(
    tiny: str, registry: CollectorRegistry
) -> None:
    litellm.completion(tiny, USER, max_tokens=4)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(tiny, USER, response_format=FORM, max_tokens=1)
    observe.Asked("vectors", {}).embedded(num_texts=2, num_tokens=3)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    samples = {sample.name: family.name for family in families for sample in family.samples}
    samples = {name: family for name, family in samples.items() if not name.endswith("_created")}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    shown = {name for query in queries for name in re.findall(r"litellm_mlx_\w+", query)}
    assert shown <= samples.keys()
    assert {samples[name] for name in shown} == set(samples.values())


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Each panel has a place of its own and asks the data source that is chosen above."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36  # data sources by uid
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = dashboard["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken = [cell for panel in panels for cell in cells(**panel["gridPos"])]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24
    for panel in panels:
        assert panel["title"] and panel["type"] in ("timeseries", "stat")
        for query in (panel, *panel["targets"]):
            assert query["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all("$model" in t["expr"] or "{" not in t["expr"] for t in panel["targets"])


def cells(*, x: int, y: int, w: int, h: int) -> Iterator[tuple[int, int]]:
    return ((column, row) for column in range(x, x + w) for row in range(y, y + h))


def test_an_observer_that_fails_harms_nobody(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: observe.Outcome) -> None:
        raise RuntimeError("mine")

    observe.add_observer(failing)
    try:
        assert litellm.completion(tiny, USER, max_tokens=4).usage.completion_tokens > 0
    finally:
        observe.remove_observer(failing)
    assert "an observer of requests failed" in caplog.text
