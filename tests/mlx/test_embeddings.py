"""`litellm.embedding("mlx/…")` on random-weight embedding models, through LiteLLM's own doors."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import litellm
import numpy as np
import pytest

import litellm_mlx
from litellm_mlx import observe
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import EngineError, RequestTimeoutError
from litellm_mlx.models.registry import ModelRegistry
from tests.tiny_model import make_tiny_embedder

DIMENSIONS = 64


@pytest.fixture(scope="module")
def embedder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("embedder") / "model")


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> Iterator[str]:
    yield f"mlx/{embedder_dir}"
    litellm_mlx.unload(str(embedder_dir))


def vectors_of(response: Any) -> np.ndarray:
    assert [item["index"] for item in response.data] == list(range(len(response.data)))
    return np.array([item["embedding"] for item in response.data])


def embed(model: str, texts: str | list[str], **kwargs: Any) -> np.ndarray:
    return vectors_of(litellm.embedding(model, input=texts, **kwargs))


def some_texts(number: int, *, longest: int = 20) -> list[str]:
    chance = random.Random(number)
    words = ["Paris", "the", "value", "Maria", "12", "laughed"]
    return [" ".join(chance.choices(words, k=chance.randint(1, longest))) for _ in range(number)]


def test_vectors_have_length_1_and_the_usage_counts_tokens(embedder: str) -> None:
    response = litellm.embedding(embedder, input=["true", "the value", "the value"])
    vectors = vectors_of(response)
    assert vectors.shape == (3, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[1], vectors[2]) and not np.allclose(vectors[0], vectors[1])
    assert response.model == embedder.removeprefix("mlx/")
    # "true" is one token of this tokenizer, "the value" is "t", "h", "e", a space and "value".
    assert response.usage.prompt_tokens == response.usage.total_tokens == 1 + 5 + 5


def test_a_batch_of_mixed_lengths_gives_what_each_text_gives_alone(embedder: str) -> None:
    texts = some_texts(700)  # more than one window, and several passes in each
    together = embed(embedder, texts)
    for index in range(0, len(texts), 50):
        np.testing.assert_allclose(embed(embedder, texts[index])[0], together[index], atol=1e-5)


def test_threads_and_tasks_at_once_each_get_their_own(embedder: str) -> None:
    batches = [some_texts(number) for number in range(1, 25)]
    expected = [embed(embedder, texts) for texts in batches]
    with ThreadPoolExecutor(8) as pool:
        for got, wanted in zip(
            pool.map(lambda texts: embed(embedder, texts), batches), expected, strict=True
        ):
            np.testing.assert_allclose(got, wanted, atol=1e-5)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            *(litellm.aembedding(embedder, input=texts) for texts in batches)
        )

    for response, wanted in zip(asyncio.run(all_at_once()), expected, strict=True):
        np.testing.assert_allclose(vectors_of(response), wanted, atol=1e-5)


def test_vectors_are_shortened_and_have_length_1_again(embedder: str) -> None:
    whole, short = embed(embedder, "true"), embed(embedder, "true", output_dimensions=16)
    assert short.shape == (1, 16)
    cut = whole[:, :16] / np.linalg.norm(whole[:, :16])
    np.testing.assert_allclose(short, cut, atol=1e-5)


def test_a_prompt_of_the_model_stands_before_each_text(embedder: str) -> None:
    named = embed(embedder, ["true", "value"], prompt_name="query")
    written = embed(embedder, ["query: true", "query: value"])
    assert np.array_equal(named, written)


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"output_dimensions": 65}, "exceeds the model's 64"),
        ({"output_dimensions": 0}, "positive"),
        ({"output_dimensions": "8"}, "positive"),
        ({"prompt_name": "passage"}, "query"),
        ({"dimension": 8}, "output_dimensions"),
        ({"dimensions": 8}, "dimensions"),  # LiteLLM's own refusal; it never reaches us
    ],
)
def test_what_cannot_be_honoured_is_refused(
    embedder: str, kwargs: dict[str, Any], what: str
) -> None:
    with pytest.raises(litellm.UnsupportedParamsError, match=what):
        litellm.embedding(embedder, input="true", **kwargs)


@pytest.mark.parametrize("texts", [[], [[1, 2, 3]], [1, 2, 3]])
def test_only_texts_are_embedded(embedder: str, texts: Any) -> None:
    with pytest.raises(litellm.BadRequestError, match="text or a list of texts"):
        litellm.embedding(embedder, input=texts)


def test_a_text_over_the_models_length_is_refused_with_both_counts(embedder: str) -> None:
    assert embed(embedder, ["true" * 128]).shape == (1, DIMENSIONS)
    with pytest.raises(
        litellm.ContextWindowExceededError, match=r"129 tokens > 128 maximum.*split text 1"
    ):
        litellm.embedding(embedder, input=["true", "true" * 129])


def test_an_empty_text_is_refused_where_the_model_puts_nothing_around_it(embedder: str) -> None:
    with pytest.raises(litellm.BadRequestError, match="text 1 is empty"):
        litellm.embedding(embedder, input=["true", ""])


def test_models_of_the_other_kind_are_refused_by_name(tiny: str) -> None:
    with pytest.raises(litellm.NotFoundError, match=r"no embedding model.*all-minilm-l6-v2"):
        litellm.embedding("mlx/qwen3-4b", input="x")
    with pytest.raises(litellm.NotFoundError, match="makes vectors"):
        litellm.completion("mlx/all-minilm-l6-v2", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(litellm.BadRequestError, match="to embed"):
        litellm.embedding(tiny, input="x")  # a llama that writes, by its path


@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
def test_pooling_is_what_the_models_files_say(tmp_path: Path, model_type: str) -> None:
    got = {}
    for pooling in ("mean_tokens", "cls_token", "lasttoken"):
        path = make_tiny_embedder(tmp_path / pooling, model_type=model_type, pooling=pooling)
        got[pooling] = embed(f"mlx/{path}", "the value")[0]
        litellm_mlx.unload(str(path))
    assert not np.allclose(got["mean_tokens"], got["cls_token"])
    assert not np.allclose(got["lasttoken"], got["cls_token"])


def break_modules(path: Path) -> None:
    modules = json.loads((path / "modules.json").read_text())
    modules.insert(2, {"idx": 3, "name": "3", "path": "3_Dense", "type": "models.Dense"})
    (path / "modules.json").write_text(json.dumps(modules))


def break_pooling(path: Path) -> None:
    settings = {"pooling_mode": "weightedmean"}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def break_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"no weights")


@pytest.mark.parametrize("damage", [break_modules, break_pooling, break_weights])
def test_a_model_whose_vectors_would_be_wrong_is_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = make_tiny_embedder(tmp_path / "model")
    damage(path)
    with pytest.raises(litellm.BadRequestError, match="cannot load"):
        litellm.embedding(f"mlx/{path}", input="x")


def test_observers_are_told_of_vectors_and_of_errors(embedder: str) -> None:
    told: list[observe.Outcome] = []
    observe.add_observer(told.append)
    try:
        litellm.embedding(embedder, input=["true", "the value"])
        asyncio.run(litellm.aembedding(embedder, input="true"))
        with pytest.raises(litellm.UnsupportedParamsError):
            litellm.embedding(embedder, input="true", output_dimensions=65)
    finally:
        observe.remove_observer(told.append)
    first, second, failed = told
    assert isinstance(first, observe.Embedded) and (first.num_texts, first.num_tokens) == (2, 6)
    assert isinstance(second, observe.Embedded) and (second.num_texts, second.num_tokens) == (1, 1)
    assert isinstance(failed, observe.Failed) and failed.http_status == 400
    assert {outcome.model for outcome in told} == {embedder.removeprefix("mlx/")}


def test_dspys_embedder_works_on_it(embedder: str) -> None:
    texts = some_texts(30)
    stock = dspy.Embedder(embedder, batch_size=8, caching=False)
    np.testing.assert_allclose(stock(texts), embed(embedder, texts), atol=1e-5)
    np.testing.assert_allclose(asyncio.run(stock.acall(texts)), embed(embedder, texts), atol=1e-5)
    assert stock("true").shape == (DIMENSIONS,)


def test_a_late_request_gets_a_timeout_and_leaves_the_queue(embedder_dir: Path) -> None:
    registry = ModelRegistry(EngineConfig())
    with registry.lease_embedder(str(embedder_dir)) as lease:
        engine = lease.engine
        request = engine.submit(some_texts(2000), deadline_s=0.0)
        with pytest.raises(RequestTimeoutError, match="of 2,000 texts"):
            request.result()
        assert engine.submit(["true"]).result().shape == (1, DIMENSIONS)
        assert len(request.vectors) < 2000 and engine.stats().num_waiting == 0
    registry.unload_all()


def test_the_registry_counts_and_unloads_it(embedder_dir: Path, tiny_model_dir: Path) -> None:
    registry = ModelRegistry(EngineConfig())
    with registry.lease_embedder(str(embedder_dir)) as lease:
        lease.engine.model(timeout_s=60)
        (status,) = registry.models()
        assert status.embeds and status.state == "ready" and status.num_in_use == 1
        weights = (embedder_dir / "model.safetensors").stat().st_size
        assert 0.9 * weights < status.weights_bytes <= weights
        engine = lease.engine
    with registry.lease(str(tiny_model_dir)) as lease_of_writer:
        lease_of_writer.engine.model(timeout_s=60)
    assert [status.embeds for status in registry.models()] == [False, True]
    registry.unload(str(embedder_dir))
    with pytest.raises(EngineError, match="shut down"):
        engine.submit(["true"])
    assert [status.embeds for status in registry.models()] == [False]
    registry.unload_all()
