"""Every benchmark runs at its smallest size and ends with one JSON object of sound figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import output_of_script
from tests.tiny_model import make_tiny_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PNG = b"\x89PNG"

# script -> its smallest sizes, and the keys that its result must have
SMALLEST: dict[str, tuple[list[str], list[str]]] = {
    "decode": (
        ["--rows", "2", "--tokens", "512", "--long-string-tokens", "16"],
        ["arms", "ratios", "equal_texts", "mask_us_per_token", "compile_ms"],
    ),
    "batch": (
        ["--rows", "1", "2", "--locked", "2", "--tokens", "160"],
        ["tokens_per_s", "ratios"],
    ),
    "prefix": (
        ["--demos", "1", "--together", "2", "--tokens", "2"],
        ["time_to_first_token_ms", "ratios", "cached_tokens", "prefilled_share", "text_is_equal"],
    ),
    "overhead": (["--calls", "4", "--chunks", "8"], ["per_call", "per_chunk"]),
    "mixed": (
        ["--streams", "2", "--prompt-tokens", "300", "--quiet-tokens", "8"],
        ["inter_token_ms", "p99 during over p50 before", "time_to_first_token_s"],
    ),
    "dspy_eval": (
        ["--examples", "2", "--threads", "1", "2", "--tokens", "160"],
        ["examples_per_min", "over 1 thread", "failed_examples"],
    ),
    "memory": (
        ["--requests", "24", "--warm-up", "12", "--threads", "2"],
        ["resident_mib", "growth", "peak_mib", "prefix_cache"],
    ),
}
MAY_BE_ZERO_OR_LESS = (
    *("growth", "growth_mib", "live_kv_mib", "most_mib", "device_mib", "resident_mib"),
    *("above_mock_ms", "cpu_above_mock_ms", "rest_ms", "caller_cpu_ms", "failed_examples"),
    *("cached_tokens", "shared", "forced_share", "right_share", "wrong_share"),
    *("answers_closed_by_budget", "calls"),
    *("prefilled_share", "prefilled_tokens_per_example", "tokens_during", "memory_gib"),
)


@pytest.fixture(scope="module")
def long_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for DSPy's prompts, which are long in bytes."""
    path = tmp_path_factory.mktemp("tiny") / "model"
    return make_tiny_model(path, config={"max_position_embeddings": 16384})


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a result that must be positive, with the names of their places."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in MAY_BE_ZERO_OR_LESS:
                yield from numbers(inner, f"{name}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def test_every_benchmark_with_a_plot_is_listed_here() -> None:
    scripts = {p.stem for p in BENCHMARKS.glob("[!_]*.py") if "add_plot(" in p.read_text()}
    assert scripts == set(SMALLEST)


def result_of(name: str, options: list[str]) -> dict[str, Any]:
    """The JSON object that a benchmark prints."""
    shown = output_of_script(BENCHMARKS / f"{name}.py", "--repeats", "1", "--json", *options)
    lines = shown.splitlines()
    assert len(lines) == 1, "--json prints the JSON line only"
    result: dict[str, Any] = json.loads(lines[0])
    assert result["benchmark"] == name
    assert result["repeats"] == 1
    assert {"versions", "machine", "model", "options"} <= result.keys()
    return result


@pytest.mark.parametrize("name", SMALLEST)
def test_the_benchmark_measures_and_draws(name: str, long_tiny: Path, tmp_path: Path) -> None:
    sizes, keys = SMALLEST[name]
    options = ["--model", str(long_tiny), "--plot", str(tmp_path), *sizes]
    result = result_of(name, options)
    assert set(keys) <= result.keys()
    for place, number in numbers(result):
        assert math.isfinite(number) and number > 0, place
    assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_nothing_that_makes_answers_faster_changes_them(long_tiny: Path) -> None:
    options = ["--model", str(long_tiny), "--prompts", "8", "--tokens", "400"]
    arms = result_of("exactness", options)["arms"]
    assert len(arms) == 6
    for arm, found in arms.items():
        assert found["equal"] + len(found["gaps"]) == 8
        assert max(found["gaps"], default=0) <= 1e-4, arm


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_benchmark_opens_with_its_question_and_its_command(path: Path) -> None:
    opening = path.read_text().split('"""')[1]
    assert opening.splitlines()[0].endswith("?")
    assert f"python benchmarks/{path.name}" in opening
