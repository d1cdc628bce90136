"""A proxy in a process of its own, as `litellm-mlx serve` starts it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import start_blocking_portal

START_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens, and its key."""

    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}{path}", json=body, headers=self.headers, timeout=60, **options
        )

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/mlx/status", headers=self.headers)
        answer.raise_for_status()
        status: dict[str, Any] = answer.json()
        return status

    def loaded(self) -> set[str]:
        return {model["name"] for model in self.status()["models"]}

    def num_live(self) -> int:
        return sum(model["num_live"] for model in self.status()["models"])


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[Proxy]:
    """Start a proxy, wait until it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = f"sk-{secrets.token_urlsafe(32)}"
    command = [sys.executable, "-m", "litellm_mlx", "serve", *arguments, "--port", str(port)]
    environ = {**os.environ, "LITELLM_MASTER_KEY": key, **environ}
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environ, cwd=folder
        )
    proxy = Proxy(f"http://127.0.0.1:{port}", key)
    try:
        _wait_until_up(proxy, process, log)
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def asking(proxy: Proxy, *bodies: dict[str, Any]) -> Iterator[None]:
    """Send chat requests and wait for none; their client leaves when the block ends."""

    async def ask(body: dict[str, Any]) -> None:
        async with httpx.AsyncClient(headers=proxy.headers, timeout=None) as client:
            await client.post(f"{proxy.url}/v1/chat/completions", json=body)

    with start_blocking_portal() as portal:
        asked = [portal.start_task_soon(ask, body) for body in bodies]
        try:
            yield
        finally:
            for request in asked:
                request.cancel()


def _wait_until_up(proxy: Proxy, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"{proxy.url}/health/liveliness").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None and time.monotonic() < end_s, log.read_text()[-4000:]
        time.sleep(0.2)
