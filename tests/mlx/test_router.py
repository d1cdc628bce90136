"""LiteLLM's Router over local models: fallbacks, cooldown, limits, caching: nothing of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import litellm
import pytest
import respx
from litellm import Router
from litellm.caching.caching import Cache

from tests.tiny_model import make_tiny_model

USER: Any = [{"role": "user", "content": "hello, how are you today?"}]
CLOUD = "https://cloud.example/v1"
CLOUDS_ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "cloud",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "from the cloud"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
}


def deployment(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def cloud(name: str = "cloud") -> dict[str, Any]:
    return deployment(name, "openai/any", api_base=CLOUD, api_key="sk-test")


@pytest.fixture
def clouds_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[respx.Route]:
    """A cloud that answers; the route counts how often."""
    monkeypatch.setattr(litellm, "disable_aiohttp_transport", True)
    with respx.mock(assert_all_called=False) as mocked:
        yield mocked.post(f"{CLOUD}/chat/completions").mock(
            return_value=httpx.Response(200, json=CLOUDS_ANSWER)
        )


def text(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_local_first_and_the_cloud_where_that_fails(tiny: str, clouds_answers: respx.Route) -> None:
    broken = "mlx//no/such/model"
    for local, from_cloud in ((tiny, 0), (broken, 1)):
        router = Router(
            model_list=[deployment("main", local), cloud()],
            fallbacks=[{"main": ["cloud"]}],
            num_retries=0,
        )
        answer = router.completion("main", USER, max_tokens=4)
        assert clouds_answers.call_count == from_cloud
        assert (text(answer) == "from the cloud") == bool(from_cloud)


def test_a_prompt_too_long_goes_to_a_larger_model(tiny: str, tmp_path: Path) -> None:
    small = make_tiny_model(tmp_path / "small", config={"max_position_embeddings": 64})
    router = Router(
        model_list=[deployment("small", f"mlx/{small}"), deployment("large", tiny)],
        context_window_fallbacks=[{"small": ["large"]}],
        num_retries=0,
    )
    long: Any = [{"role": "user", "content": "word " * 60}]
    assert router.completion("small", USER, max_tokens=4).model.endswith("small")
    assert router.completion("small", long, max_tokens=4).model == tiny.removeprefix("mlx/")
    stream = router.completion("small", long, max_tokens=4, stream=True)
    assert len(list(stream)) > 0
    again = asyncio.run(router.acompletion("small", long, max_tokens=4))
    assert again.model == tiny.removeprefix("mlx/")


def test_one_name_for_two_models(tiny: str, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=9)
    router = Router(model_list=[deployment("any", tiny), deployment("any", f"mlx/{other}")])
    seen = {router.completion("any", USER, max_tokens=2).model for _ in range(40)}
    assert seen == {tiny.removeprefix("mlx/"), str(other)}  # one of 2**39 runs fails by chance


def test_what_fails_cools_down_and_the_other_answers(
    tiny: str, clouds_answers: respx.Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is full is a 429: the deployment rests, and its neighbour takes over."""
    clouds_answers.mock(return_value=httpx.Response(429, json={"error": {"message": "full"}}))
    router = Router(
        model_list=[deployment("main", tiny), cloud("main")],
        allowed_fails=0,
        cooldown_time=60,
        num_retries=3,
        retry_after=0,
    )
    answers = [router.completion("main", USER, max_tokens=2) for _ in range(12)]
    assert {answer.model for answer in answers} == {tiny.removeprefix("mlx/")}
    assert clouds_answers.call_count <= 1


def test_requests_per_minute(tiny: str) -> None:
    limited = deployment("main", tiny, rpm=2)
    router = Router(model_list=[limited], routing_strategy="usage-based-routing-v2", num_retries=0)
    asyncio.run(router.acompletion("main", USER, max_tokens=2))
    with pytest.raises(litellm.RateLimitError):
        for _ in range(2):  # LiteLLM counts the one that asks, too
            asyncio.run(router.acompletion("main", USER, max_tokens=2))


def test_answers_are_cached_for_a_while(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "cache", Cache(type="local", ttl=1.0))  # type: ignore[arg-type]
    router = Router(model_list=[deployment("main", tiny)], cache_responses=True)
    ids = [router.completion("main", USER, max_tokens=4).id for _ in range(2)]
    assert len(set(ids)) == 1
    time.sleep(1.2)
    assert router.completion("main", USER, max_tokens=4).id not in ids
