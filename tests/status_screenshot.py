"""Draws examples/status.png, the page of a proxy at work: python -m tests.status_screenshot."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.browser import browsing
from tests.proxy_process import asking, serving, wait_until

PICTURE = Path(__file__).parents[1] / "examples" / "status.png"
MODEL = "smollm2-135m"
PLACES = 4
TOPICS = ("a lake", "a boat", "the moon", "a violin", "an old map", "a fox")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "mood": {"enum": ["happy", "sad", "neutral"]}},
    "required": ["name", "mood"],
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 40}


def request(topic: str, schema: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    told = "You answer at length, in plain words, and with many names of people."
    messages = [
        {"role": "system", "content": told},
        {"role": "user", "content": f"Tell me a story about {topic}."},
    ]
    body: dict[str, Any] = {"model": MODEL, "messages": messages, **options}
    if schema is not None:
        form = {"type": "json_schema", "json_schema": {"name": "people", "schema": schema}}
        body["response_format"] = form
    return body


def main() -> None:
    settings = {"LITELLM_MLX_MAX_BATCH_SIZE": str(PLACES)}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MODEL, **settings) as proxy,
        browsing() as page,
    ):
        for body in (
            *(request(topic, PERSON, max_tokens=60) for topic in TOPICS[:3]),
            request("a lake", {"type": "bogus"}),
            request("a lake", PEOPLE, max_tokens=20),
        ):
            proxy.post("/v1/chat/completions", body)
        long = [
            request(topic, PEOPLE if number % 2 else None, max_tokens=1500)
            for number, topic in enumerate(TOPICS)
        ]
        with asking(proxy, *long):
            wait_until(lambda: proxy.num_live() == PLACES)
            time.sleep(4)
            page.open(f"{proxy.url}/mlx")
            page.type_into("#key", proxy.key)
            page.wait_for(f"document.querySelectorAll('#live tr').length == 1 + {PLACES}")
            page.screenshot(PICTURE)


if __name__ == "__main__":
    main()
