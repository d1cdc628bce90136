"""Figures for Prometheus, through its own client library: of every request, and of the engines now.

`install()` once; they appear wherever the process shows the client's registry, as LiteLLM's own
`prometheus` callback does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from litellm_mlx.observe import Answered, Embedded, Failed, Outcome, add_observer
from litellm_mlx.register import handler

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from litellm_mlx.models.registry import ModelStatus

PREFIX = "litellm_mlx"
# From a mask to a long answer on a slow machine.
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_STAGES: dict[str, str] = {
    "compile_s": "compiling the constraint",
    "queue_s": "waiting for a place in the batch",
    "prefill_s": "taking in the prompt",
    "decode_s": "writing the answer",
    "mask_s": "computing which tokens are allowed, while the device worked or not",
    "time_to_first_token_s": "from submit to the first token",
    "total_s": "from submit to the end",
}
_COUNTS: dict[str, tuple[str, Callable[[Answered], int]]] = {
    "prompt_tokens": ("Tokens of prompts.", lambda a: a.done.usage.prompt_tokens),
    "cached_tokens": (
        "Tokens of prompts, not prefilled again.",
        lambda a: a.done.usage.cached_tokens,
    ),
    "completion_tokens": ("Tokens of answers.", lambda a: a.done.usage.completion_tokens),
    "forced_tokens": (
        "Tokens of answers, taken without asking the model.",
        lambda a: a.done.num_forced_tokens,
    ),
    "resamples": ("Answers drawn again after a check.", lambda a: a.done.num_tries - 1),
}
FAULTS = "grammar_faults"
_GAUGES: dict[str, tuple[str, Callable[[ModelStatus], int]]] = {
    "live_sequences": ("Completions in the batch.", lambda model: model.num_live),
    "waiting_sequences": ("Completions that wait.", lambda model: model.num_waiting),
    "weights_bytes": ("Bytes of weights.", lambda model: model.weights_bytes),
    "kv_bytes": ("Bytes of the KV caches of the batch.", lambda model: model.kv_bytes),
    "prefix_cache_bytes": ("Bytes of the prefix cache.", lambda model: model.prefix_bytes),
}
_installed: WeakSet[CollectorRegistry] = WeakSet()


def install(registry: CollectorRegistry | None = None) -> None:
    """Begin to count; a second call changes nothing.

    Args:
        registry: of prometheus_client; its own default where none is given.

    Raises:
        ImportError: prometheus_client is not installed (extra `metrics`).
    """
    from prometheus_client import REGISTRY

    registry = REGISTRY if registry is None else registry
    if registry in _installed:
        return
    _installed.add(registry)
    add_observer(_Requests(registry))
    registry.register(_Engines())


def totals() -> dict[str, int]:
    """The counts of all requests so far over all models, by name; `install` has been called."""
    from prometheus_client import REGISTRY

    names = {f"{PREFIX}_{name}_total": name for name in ("requests", *_COUNTS, FAULTS)}
    sums = dict.fromkeys(names.values(), 0)
    for family in REGISTRY.restricted_registry(names).collect():
        for sample in family.samples:
            if sample.name in names:
                sums[names[sample.name]] += int(sample.value)
    return sums


class _Requests:
    """Counts requests as they end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        def named(name: str) -> str:
            return f"{PREFIX}_{name}"

        self._requests = Counter(
            named("requests"), "Requests answered.", ("model", "tier"), registry=registry
        )
        self._errors = Counter(
            named("errors"), "Requests that failed.", ("model", "error"), registry=registry
        )
        self._counts = {
            name: Counter(named(name), text, ("model",), registry=registry)
            for name, (text, _) in _COUNTS.items()
        }
        self._faults = Counter(
            named(FAULTS),
            "Texts that failed validation though a grammar was to hold them alone.",
            ("model",),
            registry=registry,
        )
        self._seconds = {
            name: Histogram(
                named(f"{name.removesuffix('_s')}_seconds"),
                f"Seconds {text}.",
                ("model",),
                registry=registry,
                buckets=_SECONDS,
            )
            for name, text in _STAGES.items()
        }
        self._per_token = Histogram(
            named("inter_token_seconds"),
            "Mean seconds between two tokens of an answer.",
            ("model",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._embedded_texts, self._embedded_tokens = (
            Counter(named(f"embedded_{what}"), f"{what.title()}.", ("model",), registry=registry)
            for what in ("texts", "tokens")
        )
        self._embedding_seconds = Histogram(
            named("embedding_seconds"),
            "Seconds of a request for vectors.",
            ("model",),
            registry=registry,
            buckets=_SECONDS,
        )

    def __call__(self, outcome: Outcome) -> None:
        """Take in how a request went."""
        if isinstance(outcome, Failed):
            self._errors.labels(outcome.model, outcome.error).inc()
            self._faults.labels(outcome.model).inc(outcome.num_grammar_faults)
            return
        if isinstance(outcome, Embedded):
            self._embedded_texts.labels(outcome.model).inc(outcome.num_texts)
            self._embedded_tokens.labels(outcome.model).inc(outcome.num_tokens)
            self._embedding_seconds.labels(outcome.model).observe(outcome.total_s)
            return
        model, done = outcome.model, outcome.done
        self._requests.labels(model, outcome.tier or "free").inc()
        self._faults.labels(model).inc(done.num_grammar_faults)
        for name, (_, count) in _COUNTS.items():
            self._counts[name].labels(model).inc(count(outcome))
        for name in _STAGES:
            self._seconds[name].labels(model).observe(getattr(done.timings, name))
        if done.usage.completion_tokens > 1:
            per_token_s = done.timings.decode_s / (done.usage.completion_tokens - 1)
            self._per_token.labels(model).observe(per_token_s)


class _Engines:
    """Reads the engines whenever someone looks."""

    def describe(self) -> list[Any]:
        """Nothing, so that registering reads no engine."""
        return []

    def collect(self) -> Iterator[Any]:
        """One family per figure."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        registry = handler.registry_if_used
        models = registry.models() if registry is not None else []
        for name, (text, read) in _GAUGES.items():
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["model"])
            for model in models:
                family.add_metric([model.name], read(model))
            yield family
        for name, number in (
            ("model_loads", registry.num_loads if registry is not None else 0),
            ("model_unloads", registry.num_unloads if registry is not None else 0),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", "Of models.", value=number)
