"""Whatever a model's layers are: text in a batch, from the cache and alone is mlx-lm's own."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.errors import ModelLoadError
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.probe import find_batching
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, GenerationRequest, SamplingParams
from tests.tiny_architectures import ARCHITECTURES, make_architecture
from tests.tiny_engine import collect, start
from tests.tiny_model import VOCAB_SIZE, make_tiny_model

NO_STOP = ((0, -100.0), (2, -100.0))
MAX_TOKENS = 24
FORM = Constraint("regex", '\\{"name": "[a-z]{3,9}", "label": "[a-z]{3,9}", "value": [0-9]{1,4}\\}')

Tokens = tuple[int, ...]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model_dir(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_architecture(tmp_path_factory.mktemp("architecture") / "model", kind)


def prompt(num_tokens: int, seed: int) -> Tokens:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 300) for _ in range(num_tokens))


def request(tokens: Tokens, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(temperature=0, logit_bias=NO_STOP)
    deadline_s = time.monotonic() + 120
    options = {"max_tokens": MAX_TOKENS, "num_top_logprobs": 0, **options}
    return GenerationRequest(tokens, sampling=sampling, deadline_s=deadline_s, **options)


def answers(engine: Engine[LoadedModel], prompts: list[Tokens], **options: Any) -> list[Tokens]:
    """The tokens of requests that run at the same time."""
    streams = [engine.submit(request(tokens, **options)) for tokens in prompts]
    return [
        tuple(lp.token_id for e in stream if isinstance(e, Delta) for lp in e.logprobs)
        for stream in streams
    ]


def expected(model_dir: Path, tokens: Tokens) -> Tokens:
    """mlx-lm's own greedy continuation."""
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(model_dir)
    bias = mx.zeros(VOCAB_SIZE)
    bias[mx.array([0, 2])] = -100.0
    steps = generate_step(
        mx.array(tokens),
        model,
        max_tokens=MAX_TOKENS,
        logits_processors=[lambda _, logits: logits + bias],
    )
    return tuple(int(token) for token, _ in steps)


def test_the_probe_finds_how_rows_may_run_together(model_dir: Path, kind: str) -> None:
    from mlx_lm.utils import load_model

    assert find_batching(load_model(model_dir)[0]) == ARCHITECTURES[kind][2]


def test_together_and_from_the_cache_the_text_is_mlx_lms_own(model_dir: Path) -> None:
    """Prompts of one token to many, in one burst; then each again, with what the burst stored."""
    prompts = [prompt(length, length) for length in (1, 2, 7, 33, 60, 61, 130)]
    wanted = [expected(model_dir, tokens) for tokens in prompts]
    engine = start(model_dir, prefill_step_tokens=48)
    try:
        assert answers(engine, prompts) == wanted
        assert [answers(engine, [tokens])[0] for tokens in prompts] == wanted
        assert answers(engine, prompts) == wanted
    finally:
        engine.shutdown()


def test_forced_tokens_beside_a_free_row_change_nothing(model_dir: Path) -> None:
    """A constrained row is left alone with several waiting tokens when the free one ends."""
    prompts = [prompt(length, length) for length in (9, 40, 52, 66)]
    free = prompt(90, 1)
    engine = start(model_dir, prefix_cache_bytes=0)
    slow = start(model_dir, prefix_cache_bytes=0, fast_forward=False)
    try:
        for number, tokens in enumerate(prompts):
            wanted, _ = collect(slow.submit(request(tokens, constraint=FORM, max_tokens=80)))
            beside = engine.submit(request(free, max_tokens=8 + 3 * number))
            got, _ = collect(engine.submit(request(tokens, constraint=FORM, max_tokens=80)))
            collect(beside)
            assert got == wanted
    finally:
        engine.shutdown()
        slow.shutdown()


def test_all_completions_of_a_request_are_equal_when_greedy(model_dir: Path) -> None:
    engine = start(model_dir)
    try:
        texts = ["", "", ""]
        for event in engine.submit(request(prompt(40, 5), n=3)):
            if isinstance(event, Delta):
                texts[event.index] += event.text
        assert len(set(texts)) == 1
    finally:
        engine.shutdown()
