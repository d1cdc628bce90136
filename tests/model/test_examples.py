"""Every example runs as its first lines say, and does what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.programs import output_of, output_of_script

EXAMPLES = Path(__file__).parents[2] / "examples"

# example -> patterns that its output must hold
EXPECTED = {
    "demo.py": ["Knowledge graph of:", "node ", "reasoning: ", "completion tokens", "tokens/s"],
    "quickstart.py": [r"Person\(name=.+, age=\d+, mood='(happy|sad|neutral)'\)"],
    "knowledge_graph.py": ["node ", "edge "],
    "five_threads.py": [rf"What is {n} plus {n}\? -?\d+" for n in range(1, 6)],
    "async_and_stream.py": ["Paris", "Tokyo"],
    "tools_and_schema.py": [
        r"called: get_weather \{'city': 'Paris', 'unit':",
        r"answered: \{'city':",
    ],
    "agent_without_adapter.py": [
        "tool_name_0: population",
        r"tool_args_0: \{'city':",
        r"ages: \{'",
    ],
    "router.py": ["asked small, answered by smollm2", "asked large, answered by smollm2"],
    "dspy_engine.py": ["mood: ", r"samples: \[", r"\|", "loaded: "],
    "partial_objects.py": [r"None \| None \| 0", r'"minutes": \d+'],
    "mlflow_autolog.py": [
        *("span: Predict.forward LLM", "span: LM.__call__ CHAT_MODEL mlx/smollm2-135m\n"),
        r"tokens: [1-9]\d* in, [1-9]\d* out",
    ],
}
# In an interpreter that has imported nothing, as a user's is.
COLD = {"quickstart.py"}
ELSEWHERE = {"embeddings.py"}  # test_minilm.py runs it


def test_every_example_is_listed_here() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(EXPECTED) | ELSEWHERE


@pytest.mark.model
@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_runs(name: str) -> None:
    run = output_of if name in COLD else output_of_script
    shown = run(EXAMPLES / name)
    for pattern in EXPECTED[name]:
        assert re.search(pattern, shown), shown


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {"demo.py"}))
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 60
    assert f"python examples/{name}" in text.split('"""')[1]


@pytest.mark.model
def test_the_readmes_first_block_prints_what_it_says() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    block = readme.split("```python")[1].split("```")[0]
    shown = readme.split("```python")[1].split("```")[2].strip()
    assert output_of("-c", block).strip() == shown
