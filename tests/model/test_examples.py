"""Every example runs as its first lines say, and does what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# example -> texts that its output must hold
EXPECTED = {
    "demo.py": ["Knowledge graph of:", "node ", "reasoning: ", "completion tokens", "tokens/s"],
    "quickstart.py": ["Person(name=", "age="],
    "knowledge_graph.py": ["node ", "edge "],
    "five_threads.py": [f"What is {n} plus {n}?" for n in range(1, 6)],
    "async_and_stream.py": ["Paris", "Tokyo"],
    "tools_and_schema.py": ["called: get_weather {'city': 'Paris', 'unit':", "answered: {'city':"],
    "agent_without_adapter.py": ["tool_name_0: population", "tool_args_0: {'city':", "ages: {'"],
    "router.py": ["asked small, answered by smollm2", "asked large, answered by smollm2"],
    "partial_objects.py": ["None | None | 0", '"minutes": '],
}
ELSEWHERE = {"embeddings.py"}  # test_minilm.py runs it


def test_every_example_is_listed_here() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(EXPECTED) | ELSEWHERE


@pytest.mark.model
@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    environ = {**os.environ, "DSPY_CACHEDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=environ,
    )
    assert result.returncode == 0, result.stderr
    for text in EXPECTED[name]:
        assert text in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {"demo.py"}))
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 60
    assert f"python examples/{name}" in text.split('"""')[1]


@pytest.mark.model
def test_the_readmes_first_block_prints_what_it_says(tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    block = readme.split("```python")[1].split("```")[0]
    shown = readme.split("```python")[1].split("```")[2].strip()
    environ = {**os.environ, "DSPY_CACHEDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=400, env=environ
    )
    assert (result.returncode, result.stdout.strip()) == (0, shown), result.stderr
