"""Programs of other people's clients, as the README lists them, on the real model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import output_of_script
from tests.proxy_process import Proxy, serving

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
README = (CLIENTS.parents[1] / "README.md").read_text()

PERSON = r"Person\(name=.{0,60}, age=-?\d+, mood='(happy|sad)'\)"
CAPITAL = r'\{"capital": ".{0,40}"\}'
CITY = r"\{['\"]city['\"]: ['\"](Paris|Oslo|Rome)['\"]\}"

# example -> what it prints, line by line, where free text may have further lines
IN_PROCESS = {
    "instructor_client.py": [PERSON],
    "litellm_sdk.py": [f"whole: {CAPITAL}", "stream: .+", *[f"batch: {CAPITAL}"] * 3],
    "langchain_client.py": [
        *("answered: .+", "streamed: .+", PERSON),
        f"called: get_weather {CITY} rain in (Paris|Oslo|Rome)",
    ],
    "llama_index_client.py": [
        *("completed: .+", "answered: .+", "streamed: .+"),
        *(PERSON, f"called: get_weather {CITY}"),
    ],
    "smolagents_client.py": [
        r"(called: (get_weather \{'city': |final_answer \{'answer': ).+\}",
        ")+answered: .+",
        PERSON,
    ],
}
SERVED = {
    "openai_sdk.py": [PERSON, "streamed: .+", f"called: {CITY}"],
    "anthropic_sdk.py": ["streamed: .+", f"called: {CITY}"],
    "pydantic_ai_client.py": [f"by a call: {PERSON}", f"by a schema: {PERSON}", "streamed: .+"],
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with serving(tmp_path_factory.mktemp("proxy"), "smollm2-135m") as proxy:
        yield proxy


def assert_prints(shown: str, lines: list[str]) -> None:
    assert re.fullmatch("\n".join(lines), shown.strip(), re.DOTALL), shown


@pytest.mark.model
@pytest.mark.parametrize("name", IN_PROCESS)
def test_in_process(name: str) -> None:
    assert_prints(output_of_script(CLIENTS / name), IN_PROCESS[name])


@pytest.mark.model
@pytest.mark.parametrize("name", SERVED)
def test_served(name: str, proxy: Proxy) -> None:
    served = {
        "OPENAI_BASE_URL": f"{proxy.url}/v1",
        "OPENAI_API_KEY": proxy.key,
        "ANTHROPIC_BASE_URL": proxy.url,
        "ANTHROPIC_API_KEY": proxy.key,
    }
    assert_prints(output_of_script(CLIENTS / name, environ=served), SERVED[name])


@pytest.mark.parametrize("path", sorted(CLIENTS.glob("*.py")), ids=lambda path: path.name)
def test_a_client_is_run_short_and_listed(path: Path) -> None:
    text = path.read_text()
    assert path.name in IN_PROCESS or path.name in SERVED
    assert len(text.splitlines()) < 60
    assert f"examples/clients/{path.name}" in text.split('"""')[1]
    assert f"examples/clients/{path.name}" in README
