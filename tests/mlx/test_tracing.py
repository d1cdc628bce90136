"""Spans of requests: inside their caller's trace, with numbers and names only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm
import pytest
from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from litellm_mlx import observe, tracing
from tests.proxy_process import wait_until

SECRET = "the prompt that nobody else may read"
USER = [{"role": "user", "content": SECRET}]
STAGES = ["mlx.compile", "mlx.queue", "mlx.prefill", "mlx.decode"]
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["sad", "happy"]}}}
ENDLESS: Any = {"max_tokens": 1000, "logit_bias": {"0": -100, "2": -100}}


class Spans:
    """What an OpenTelemetry SDK has got, and a way to make spans of one's own."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The children of a span, in the same trace, in order of time."""
        found = [
            span
            for span in self.exporter.get_finished_spans()
            if span.parent is not None and span.parent == parent.context
        ]
        return sorted(found, key=lambda span: span.start_time or 0)

    def request_below(self, name: str) -> ReadableSpan:
        """Our only span below the caller's only one of that name."""
        (caller,) = self.named(name)
        (request,) = self.below(caller)
        assert request.name == "mlx.request"
        return request


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    tracing.install(spans.provider)
    tracing.install(spans.provider)
    yield spans
    assert tracing._tracing is not None
    observe.remove_follower(tracing._tracing)


def check_stages(spans: Spans, request: ReadableSpan) -> None:
    """The stages follow one another and lie within their request."""
    stages = spans.below(request)
    assert [stage.name for stage in stages] == STAGES
    times = [time_ns for stage in stages for time_ns in (stage.start_time, stage.end_time)]
    whole = [request.start_time, *times, request.end_time]
    assert whole == sorted(whole, key=lambda time_ns: time_ns or 0)
    assert times[1:-1:2] == times[2::2]
    for stage in stages:
        assert stage.attributes == request.attributes


def test_a_whole_answer(tiny: str, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("mine"):
        litellm.completion(tiny, USER, max_tokens=4)
        answer = litellm.completion(tiny, USER, response_format=FORM)
    (caller,) = spans.named("mine")
    _, request = spans.below(caller)
    check_stages(spans, request)
    told, usage = request.attributes, answer.usage
    assert told is not None
    assert told["mlx.model"] == tiny.removeprefix("mlx/")
    assert told["mlx.tier"] == "grammar"
    assert told["mlx.prompt_tokens"] == usage.prompt_tokens
    assert told["mlx.completion_tokens"] == usage.completion_tokens
    assert told["mlx.cached_tokens"] == usage.prompt_tokens_details.cached_tokens > 0
    assert told["mlx.forced_tokens"] > 0
    shown = "".join(span.to_json() for span in spans.exporter.get_finished_spans())
    assert SECRET not in shown and "happy" not in shown


def test_a_stream_that_is_read_elsewhere(tiny: str, spans: Spans) -> None:
    """Its parent is the span in which it began, whatever is current where it ends."""
    with spans.tracer.start_as_current_span("mine"):
        stream = litellm.completion(tiny, USER, max_tokens=6, stream=True)
    with ThreadPoolExecutor(1) as pool, spans.tracer.start_as_current_span("other"):
        pool.submit(list, stream).result()
    check_stages(spans, spans.request_below("mine"))
    assert not spans.below(*spans.named("other"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_two_at_once_on_one_loop(tiny: str, spans: Spans, is_stream: bool) -> None:
    async def ask(name: str) -> None:
        with spans.tracer.start_as_current_span(name):
            answer = await litellm.acompletion(tiny, USER, max_tokens=8, stream=is_stream)
            if is_stream:
                async for _ in answer:
                    pass

    async def main() -> None:
        await asyncio.gather(ask("one"), ask("two"))

    asyncio.run(main())
    requests = [spans.request_below(name) for name in ("one", "two")]
    for request in requests:
        check_stages(spans, request)
    assert requests[0].context.trace_id != requests[1].context.trace_id


def test_two_at_once_in_threads(tiny: str, spans: Spans) -> None:
    def ask(name: str) -> None:
        with spans.tracer.start_as_current_span(name):
            litellm.completion(tiny, USER, max_tokens=8)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, ("one", "two")))
    for name in ("one", "two"):
        check_stages(spans, spans.request_below(name))


def test_without_a_caller_a_request_is_a_trace_of_its_own(tiny: str, spans: Spans) -> None:
    litellm.completion(tiny, USER, max_tokens=4)
    (request,) = spans.named("mlx.request")
    assert request.parent is None
    check_stages(spans, request)


def test_a_failed_request_is_an_error_without_stages(tiny: str, spans: Spans) -> None:
    with (
        spans.tracer.start_as_current_span("mine"),
        pytest.raises(litellm.BadRequestError),
    ):
        litellm.completion(tiny, USER, response_format=FORM, max_tokens=1)
    request = spans.request_below("mine")
    assert request.status.status_code.name == "ERROR"
    assert request.attributes == {
        "mlx.model": tiny.removeprefix("mlx/"),
        "mlx.http_status": 400,
        "error.type": "BudgetError",
    }
    assert not spans.below(request)


def test_a_caller_that_leaves_is_no_error(tiny: str, spans: Spans) -> None:
    async def main() -> None:
        with spans.tracer.start_as_current_span("mine"):
            task = asyncio.create_task(litellm.acompletion(tiny, USER, **ENDLESS))
            await asyncio.sleep(0.1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    request = spans.request_below("mine")
    assert request.attributes is not None
    assert request.attributes["error.type"] == "RequestCancelled"
    assert request.status.status_code.name == "UNSET"


@pytest.fixture
def litellms_own(spans: Spans) -> Iterator[None]:
    """LiteLLM's `otel` callback, which here exports to the same place."""
    config = OpenTelemetryConfig(exporter=spans.exporter)
    litellm.callbacks.append(OpenTelemetry(config=config, tracer_provider=spans.provider))
    yield
    litellm.logging_callback_manager._reset_all_callbacks()


@pytest.mark.usefixtures("litellms_own")
def test_beside_litellms_own_spans_in_a_program(tiny: str, spans: Spans) -> None:
    """LiteLLM writes what it knows on the caller's span; ours lie below it."""
    with spans.tracer.start_as_current_span("mine") as caller:
        litellm.completion(tiny, USER, max_tokens=4)
        assert isinstance(caller, ReadableSpan)
        # LiteLLM writes in threads of its own.
        wait_until(lambda: "gen_ai.request.model" in (caller.attributes or {}))
    (request,) = [span for span in spans.below(caller) if span.name == "mlx.request"]
    check_stages(spans, request)


@pytest.mark.usefixtures("litellms_own")
def test_below_litellms_span_of_a_proxys_request(tiny: str, spans: Spans) -> None:
    """LiteLLM's proxy sends its span along; that comes before any current one."""
    asked = spans.tracer.start_span("Received Proxy Server Request")
    with spans.tracer.start_as_current_span("another"):
        litellm.completion(tiny, USER, max_tokens=4, metadata={"litellm_parent_otel_span": asked})
    wait_until(lambda: bool(spans.named("litellm_request")))
    (caller,) = spans.named("Received Proxy Server Request")
    below = {span.name: span for span in spans.below(caller)}
    assert {"mlx.request", "litellm_request"} <= below.keys()
    check_stages(spans, below["mlx.request"])
