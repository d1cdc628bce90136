"""Engines over tiny models, and what requests to them give."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams


def start(path: Path, **config: Any) -> Engine[LoadedModel]:
    """An engine over the model in `path`, loaded; `config` are fields of `EngineConfig`."""
    settings = EngineConfig(**config)
    spec = parse_model_name(str(path))
    engine = Engine(lambda: load_model(spec, settings), settings, name="tiny")
    engine.model(timeout_s=60)
    return engine


def request(number: int, constraint: Constraint | None, **options: Any) -> GenerationRequest:
    """A greedy request with a prompt of its own, unless `options` say otherwise."""
    sampling = options.pop("sampling", SamplingParams(temperature=0))
    prompt = options.pop("prompt", tuple(range(20 + number, 40 + 3 * number)))
    max_tokens = options.pop("max_tokens", 200)
    deadline_s = time.monotonic() + 60
    return GenerationRequest(
        prompt, max_tokens, sampling, constraint=constraint, deadline_s=deadline_s, **options
    )


def run(engine: Engine[LoadedModel], asked: GenerationRequest) -> tuple[str, Done]:
    """Text and closing event of one request."""
    return collect(engine.submit(asked))


def run_together(engine: Engine[LoadedModel], asked: Iterable[GenerationRequest]) -> list[str]:
    """Texts of requests that run at the same time."""
    return [collect(stream)[0] for stream in [engine.submit(one) for one in asked]]


def collect(stream: Any) -> tuple[str, Done]:
    """Text and closing event of a stream."""
    text, done = "", None
    for event in stream:
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Done):
            done = event
    assert done is not None
    return text, done
