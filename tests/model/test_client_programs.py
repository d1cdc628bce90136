"""Programs of other people's clients, as the README lists them, on the real model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy_process import Proxy, serving

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
README = (CLIENTS.parents[1] / "README.md").read_text()

# example -> texts that its output must hold
IN_PROCESS = {
    "instructor_client.py": ["Person(name="],
    "litellm_sdk.py": ['whole: {"capital": "', "stream: ", 'batch: {"capital": "'],
}
SERVED = {
    "openai_sdk.py": ["Person(name=", "streamed: ", 'called: {"city": "'],
    "anthropic_sdk.py": ["streamed: ", "called: {'city': '"],
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with serving(tmp_path_factory.mktemp("proxy"), "smollm2-135m") as proxy:
        yield proxy


def output(name: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, CLIENTS / name],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.model
@pytest.mark.parametrize("name", IN_PROCESS)
def test_in_process(name: str) -> None:
    shown = output(name)
    assert all(text in shown for text in IN_PROCESS[name]), shown


@pytest.mark.model
@pytest.mark.parametrize("name", SERVED)
def test_served(name: str, proxy: Proxy) -> None:
    shown = output(
        name,
        OPENAI_BASE_URL=f"{proxy.url}/v1",
        OPENAI_API_KEY=proxy.key,
        ANTHROPIC_BASE_URL=proxy.url,
        ANTHROPIC_API_KEY=proxy.key,
    )
    assert all(text in shown for text in SERVED[name]), shown


@pytest.mark.parametrize("path", sorted(CLIENTS.glob("*.py")), ids=lambda path: path.name)
def test_a_client_is_run_short_and_listed(path: Path) -> None:
    text = path.read_text()
    assert path.name in IN_PROCESS or path.name in SERVED
    assert len(text.splitlines()) < 60
    assert f"examples/clients/{path.name}" in text.split('"""')[1]
    assert f"examples/clients/{path.name}" in README
