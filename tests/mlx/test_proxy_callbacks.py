"""LiteLLM's own callbacks in its proxy: its figures and spans with ours among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy_process import Proxy, serving, wait_until
from tests.tiny_model import make_tiny_model

SECRET = "the prompt that nobody else may read"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callbacks")


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[Proxy]:
    """A proxy that has answered one request, with a client's trace."""
    model = make_tiny_model(folder / "model")
    config = {
        "model_list": [{"model_name": "tiny", "litellm_params": {"model": f"mlx/{model}"}}],
        "litellm_settings": {
            "custom_provider_map": [{"provider": "mlx", "custom_handler": "litellm_mlx.handler"}],
            "callbacks": ["prometheus", "otel"],
        },
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    told = {"OTEL_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(folder, "--config", str(path), **told) as proxy:
        body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 5}
        headers = {**proxy.headers, "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        answer = httpx.post(
            f"{proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        )
        assert answer.status_code == 200, answer.text
        yield proxy


def scraped(proxy: Proxy) -> dict[str, float]:
    """Figures of `/metrics`, summed over their labels."""
    answer = httpx.get(f"{proxy.url}/metrics", headers=proxy.headers, follow_redirects=True)
    assert answer.status_code == 200
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def test_litellms_metrics_and_ours_are_on_one_page(proxy: Proxy) -> None:
    litellms = "litellm_proxy_total_requests_metric_total"
    wait_until(lambda: litellms in scraped(proxy))
    figures = scraped(proxy)
    assert figures[litellms] == figures["litellm_mlx_requests_total"] == 1
    assert (
        figures["litellm_output_tokens_metric_total"]
        == figures["litellm_mlx_completion_tokens_total"]
    )


def test_litellms_metrics_want_the_key(proxy: Proxy) -> None:
    assert httpx.get(f"{proxy.url}/metrics", follow_redirects=True).status_code == 401


def spans_of(log: Path) -> list[dict[str, Any]]:
    """What OpenTelemetry's console exporter has written among the other lines."""
    text, decoder, spans = log.read_text(), json.JSONDecoder(), []
    at = text.find("\n{\n")
    while at >= 0:
        span, at = decoder.raw_decode(text, at + 1)
        spans.append(span)
        at = text.find("\n{\n", at)
    return spans


def test_our_spans_lie_in_litellms_which_lie_in_the_clients(proxy: Proxy, folder: Path) -> None:
    log = folder / "proxy.log"
    wait_until(lambda: '"name": "Received Proxy Server Request"' in log.read_text())
    spans = spans_of(log)
    ours = {span["name"]: span for span in spans if span["name"].startswith("mlx.")}
    request = ours.pop("mlx.request")
    (parent,) = [s for s in spans if s["context"]["span_id"] == request["parent_id"]]
    assert parent["name"] == "Received Proxy Server Request"
    assert ours.keys() == {f"mlx.{stage}" for stage in ("compile", "queue", "prefill", "decode")}
    assert {s["parent_id"] for s in ours.values()} == {request["context"]["span_id"]}
    traces = {span["context"]["trace_id"] for span in (parent, request, *ours.values())}
    assert traces == {f"0x{TRACE_ID}"}
    assert SECRET not in json.dumps([request, *ours.values()])
