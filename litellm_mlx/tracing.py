"""Spans for OpenTelemetry: where the time of each request went, inside its caller's own trace.

`install()` once. A request is a span `mlx.request` with a child for each stage: `mlx.compile`,
`mlx.queue`, `mlx.prefill`, `mlx.decode`. Its parent is LiteLLM's span of a proxy's request, else
the caller's current span. They are made when the request has ended, of the timings that the engine
takes anyway, and hold numbers and names only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from litellm_mlx import __version__
from litellm_mlx.observe import (
    Answered,
    Embedded,
    Failed,
    Observer,
    Outcome,
    add_follower,
    remove_follower,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

PREFIX = "mlx"
_STAGES = ("compile", "queue", "prefill", "decode")
# Not OpenTelemetry's `gen_ai.usage` names: LiteLLM's span has those, and whoever sums them over a
# trace would count every token twice.
_ATTRIBUTES: dict[str, Callable[[Answered], str | int | float]] = {
    "tier": lambda a: a.tier or "free",
    "prompt_tokens": lambda a: a.done.usage.prompt_tokens,
    "cached_tokens": lambda a: a.done.usage.cached_tokens,
    "completion_tokens": lambda a: a.done.usage.completion_tokens,
    "forced_tokens": lambda a: a.done.num_forced_tokens,
    "tries": lambda a: a.done.num_tries,
    "grammar_faults": lambda a: a.done.num_grammar_faults,
    "mask_s": lambda a: a.done.timings.mask_s,
    "time_to_first_token_s": lambda a: a.done.timings.time_to_first_token_s,
}
_tracing: _Tracing | None = None


def install(provider: TracerProvider | None = None) -> None:
    """Begin to make spans; a second call takes the place of the first.

    Args:
        provider: of OpenTelemetry; its global one where none is given, whenever that is set.

    Raises:
        ImportError: OpenTelemetry is not installed (extra `otel`).
    """
    from opentelemetry import trace

    global _tracing
    if _tracing is not None:
        remove_follower(_tracing)
    _tracing = _Tracing(trace.get_tracer("litellm_mlx", __version__, provider))
    add_follower(_tracing)


class _Tracing:
    """Makes the spans of requests as they end."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, litellm_params: Mapping[str, Any]) -> Observer:
        """Take down where and when a request starts: it may end on any thread."""
        return partial(self._make_spans, _parent(litellm_params), time.time_ns())

    def _make_spans(self, parent: Context, start_ns: int, outcome: Outcome) -> None:
        from opentelemetry import trace

        attributes = _attributes(outcome)
        request = self._tracer.start_span(
            f"{PREFIX}.request", parent, start_time=start_ns, attributes=attributes
        )
        if isinstance(outcome, Answered):
            self._make_stages(trace.set_span_in_context(request, parent), outcome, attributes)
        elif isinstance(outcome, Failed) and not outcome.is_cancelled:
            request.set_status(trace.StatusCode.ERROR, outcome.error)
        request.end()

    def _make_stages(
        self, request: Context, answered: Answered, attributes: dict[str, str | int | float]
    ) -> None:
        done = answered.done
        at_ns = time.time_ns() - _ns(time.monotonic() - done.submitted_s)
        for stage in _STAGES:
            span = self._tracer.start_span(
                f"{PREFIX}.{stage}", request, start_time=at_ns, attributes=attributes
            )
            at_ns += _ns(getattr(done.timings, f"{stage}_s"))
            span.end(at_ns)


def _attributes(outcome: Outcome) -> dict[str, str | int | float]:
    told: dict[str, str | int | float]
    if isinstance(outcome, Answered):
        told = {f"{PREFIX}.{name}": read(outcome) for name, read in _ATTRIBUTES.items()}
    elif isinstance(outcome, Embedded):
        told = {f"{PREFIX}.texts": outcome.num_texts, f"{PREFIX}.tokens": outcome.num_tokens}
    else:
        told = {"error.type": outcome.error, f"{PREFIX}.http_status": outcome.http_status}
    return {f"{PREFIX}.model": outcome.model, **told}


def _parent(litellm_params: Mapping[str, Any]) -> Context:
    """The context of LiteLLM's span where its proxy has begun one, else the caller's."""
    from opentelemetry import context, trace

    for key in ("metadata", "litellm_metadata"):
        span: Span | None = (litellm_params.get(key) or {}).get("litellm_parent_otel_span")
        if isinstance(span, trace.Span):
            return trace.set_span_in_context(span)
    return context.get_current()


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
