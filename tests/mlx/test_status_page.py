"""The status page in a browser: who has the key reads what goes on, nobody else reads anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import Page, browsing
from tests.proxy_process import Proxy, asking, serving, wait_until
from tests.tiny_model import make_tiny_model

USER: Any = [{"role": "user", "content": "hello, tell me a long story about a lake and a boat"}]
ASKED: Any = {"model": "tiny", "messages": USER}
# What the model would end with; without it an answer goes on to its limit, which takes minutes.
ENDLESS: Any = {**ASKED, "max_tokens": 100_000, "logit_bias": {"0": -100, "2": -100}}
PLACES = 3
NUM_ASKED = 5


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


LONG_LIST: Any = {
    **ASKED,
    "max_tokens": 100_000,
    "response_format": schema_format(
        {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 5000}
    ),
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that has answered two requests and refused one, and writes three while two wait."""
    folder = tmp_path_factory.mktemp("status")
    make_tiny_model(folder / "model", config={"max_position_embeddings": 131_072})
    settings = {
        "LITELLM_MLX_MAX_BATCH_SIZE": str(PLACES),
        "LITELLM_MLX_CLIENT_MAX_TOKENS": "100000",
    }
    with serving(folder, f"tiny={folder}/model", **settings) as proxy:
        mood = {"response_format": schema_format({"enum": ["as happy as can be", "sad"]})}
        for body in (mood, mood, {"response_format": schema_format({"type": "bogus"})}):
            proxy.post("/v1/chat/completions", {**ASKED, **body, "max_tokens": 100})
        with asking(proxy, LONG_LIST):
            wait_until(lambda: proxy.num_live() == 1)
            streamed = [{**ENDLESS, "stream": True}] * 2
            with asking(proxy, *streamed, ENDLESS, ENDLESS):
                wait_until(lambda: proxy.status()["models"][0]["num_waiting"] == 2)
                yield proxy


@pytest.fixture
def page(proxy: Proxy) -> Iterator[Page]:
    with browsing() as page:
        page.open(f"{proxy.url}/mlx")
        yield page


def figure(page: Page, name: str) -> str:
    """The large figure above its name."""
    found = re.search(rf"^(.+)\n{name}$", page.text, re.MULTILINE)
    assert found, page.text
    return found[1]


def test_with_the_key_a_person_sees_what_goes_on(proxy: Proxy, page: Page) -> None:
    page.type_into("#key", proxy.key)
    page.wait_for(f"document.querySelectorAll('#live tr').length == 1 + {PLACES}")
    assert "Master key" not in page.text

    assert figure(page, "being written") == str(PLACES)
    assert figure(page, "waiting") == str(NUM_ASKED - PLACES)
    assert float(figure(page, "tokens/s now").replace(",", "")) > 0
    assert figure(page, "answered") == "2"
    for name in ("of prompts cached", "of answers forced"):
        assert 0 < int(figure(page, name).removesuffix("%")) <= 100

    status = proxy.status()
    assert re.search(r"Memory [\d.]+ MiB of [\d.]+ [MG]iB", page.text)
    header, model = page.table("#models")
    shown = dict(zip(header, model, strict=True))
    assert shown["model"] == "…/model" and shown["state"] == "ready"
    assert shown["weights"] == f"{status['models'][0]['weights_bytes'] / 2**20:.1f} MiB"
    assert float(shown["KV caches"].removesuffix(" MiB")) > 0
    assert (shown["being written"], shown["waiting"]) == (str(PLACES), str(NUM_ASKED - PLACES))

    header, *rows = page.table("#live")
    live = [dict(zip(header, row, strict=True)) for row in rows]
    assert sorted(row["schema"] for row in live) == ["no", "no", "yes"]
    assert all(float(row["tokens/s"]) > 0 for row in live)
    assert all(row["read"] == "100%" for row in live)
    assert all(row["prompt tokens"] == live[0]["prompt tokens"] for row in live)

    _, error = page.table("#errors")
    assert error[1:] == ["…/model", "ConstraintError", "400"]
    assert page.problems == []


def test_the_page_follows_what_goes_on(proxy: Proxy, page: Page) -> None:
    page.type_into("#key", proxy.key)
    written = "document.querySelectorAll('#live td:nth-child(6)')[0]"
    page.wait_for(f"{written} != undefined")
    before = page.evaluate(f"{written}.innerText")
    page.wait_for(f"{written}.innerText != '{before}'")
    assert page.problems == []


@pytest.mark.parametrize("key", [None, "sk-wrong"])
def test_without_the_right_key_nothing_is_shown(page: Page, key: str | None) -> None:
    if key is not None:
        page.type_into("#key", key)
        page.wait_for("document.body.innerText.includes('the key is not right')")
    assert "Master key" in page.text
    for shown in ("model", "tokens", "Memory", "errors", "%"):
        assert shown not in page.text
    assert not any(page.table(f"#{name}") for name in ("models", "live", "errors"))
    assert all("401" in problem for problem in page.problems)
