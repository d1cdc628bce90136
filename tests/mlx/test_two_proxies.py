"""Two machines behind one name of LiteLLM's Router: both serve, and one may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litellm import Router
from litellm.router_utils.cooldown_handlers import get_cooldown_deployments

from tests.proxy_process import Proxy, serving
from tests.tiny_model import make_tiny_model

ASKED: Any = {
    "model": "both",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 4,
}


@contextmanager
def machine(folder: Path) -> Iterator[Proxy]:
    """A proxy with files of its own, as on a machine of its own."""
    with serving(folder, f"tiny={make_tiny_model(folder / 'model')}") as proxy:
        yield proxy


def deployment(name: str, proxy: Proxy) -> dict[str, Any]:
    params = {"model": "litellm_proxy/tiny", "api_base": proxy.url, "api_key": proxy.key}
    return {"model_name": "both", "litellm_params": params, "model_info": {"id": name}}


def num_answered(proxy: Proxy) -> int:
    return int(proxy.status()["totals"]["requests"])


def ask(router: Router, times: int) -> None:
    """Ask whole, async and streamed, so often each; every request is answered."""

    async def ask_async() -> None:
        for answer in await asyncio.gather(*(router.acompletion(**ASKED) for _ in range(times))):
            assert answer.usage.completion_tokens > 0

    for _ in range(times):
        assert router.completion(**ASKED).usage.completion_tokens > 0
        chunks = list(router.completion(**ASKED, stream=True))
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    asyncio.run(ask_async())


def test_requests_go_to_both_and_to_the_one_that_stays(tmp_path: Path) -> None:
    with machine(tmp_path / "stays") as stays:
        with machine(tmp_path / "leaves") as leaves:
            router = Router(
                model_list=[deployment("stays", stays), deployment("leaves", leaves)],
                allowed_fails=0,
                cooldown_time=600,
                num_retries=3,
                retry_after=0,
            )
            ask(router, 10)
            shares = num_answered(stays), num_answered(leaves)
            assert sum(shares) == 30 and all(shares)  # one of 2**29 runs fails by chance
            assert get_cooldown_deployments(router, None) == []
        ask(router, 10)
        assert num_answered(stays) == shares[0] + 30
        assert get_cooldown_deployments(router, None) == ["leaves"]
