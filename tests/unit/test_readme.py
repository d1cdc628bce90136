"""The README's names are real: aliases, files, parameters."""

from __future__ import annotations

import re
from pathlib import Path

from litellm_mlx.models.names import DIVERTED_BY_LITELLM, aliases
from litellm_mlx.translate.params import HARMLESS, RequestParams

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_alias_is_named() -> None:
    for alias in aliases():
        assert alias in README, alias


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_honoured_and_harmless_parameters_are_parameters() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `temperature top_p")]
    for name in row.split("`")[1].split():
        assert name in RequestParams.model_fields or name == "timeout", name
    (row,) = [line for line in README.splitlines() if line.startswith("| `user`, `metadata`")]
    for name in re.findall(r"`(\w+)`", row.split("|")[1]):
        assert name in HARMLESS, name


def test_diverted_names_are_listed() -> None:
    for name in DIVERTED_BY_LITELLM:
        assert name.split("-team")[0].rstrip("/") in README, name


def test_the_first_python_block_is_the_demo_of_the_quickstart() -> None:
    block = README.split("```python")[1].split("```")[0]
    compile(block, "README.md", "exec")
    assert "Person(name='Maria', age=34, mood='happy')" in README
