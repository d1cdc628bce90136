"""What a model's files say of it, as far as it can be told without MLX."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.models.facts import context_tokens, sampling_defaults, stop_token_ids
from litellm_mlx.models.hardware import GIB, HardwareProfile
from litellm_mlx.models.memory import refuse_unless_fits
from litellm_mlx.models.names import ModelSpec
from litellm_mlx.types import SamplingDefaults

SPEC = ModelSpec("m", "hub", "org/m", context_tokens=777)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 40960}, 40960),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"n_positions": 1024}, 1024),
        (
            {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
            16384,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 32.0},
            },
            131072,
        ),
        ({"max_position_embeddings": 40960, "rope_scaling": None}, 40960),
        ({}, 777),
    ],
)
def test_the_context_is_what_the_config_states(config: dict[str, Any], expected: int) -> None:
    assert context_tokens(config, SPEC) == expected


def test_an_unstated_context_is_assumed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="litellm_mlx"):
        assert context_tokens({}, ModelSpec("m", "hub", "org/m")) == 4096
    assert "states no context length" in caplog.text


def test_every_stop_token_that_any_file_names_counts() -> None:
    tokenizer = SimpleNamespace(eos_token_ids={1})
    config = {"eos_token_id": 2, "text_config": {"eos_token_id": [3, 4]}}
    assert stop_token_ids(tokenizer, config, {"eos_token_id": [4, 5]}) == {1, 2, 3, 4, 5}
    assert stop_token_ids(tokenizer, {"eos_token_id": None}, {}) == {1}


@pytest.mark.parametrize(
    ("generation_config", "expected"),
    [
        ({}, SamplingDefaults()),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
            SamplingDefaults(temperature=0.6, top_k=20, top_p=0.95),
        ),
        ({"min_p": 0.15, "temperature": 1}, SamplingDefaults(temperature=1.0, min_p=0.15)),
        (
            {"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.05},
            SamplingDefaults(temperature=0.0, repetition_penalty=1.05),
        ),
        ({"temperature": None, "top_p": "high"}, SamplingDefaults()),
    ],
)
def test_the_generation_config_decides_sampling(
    generation_config: dict[str, Any], expected: SamplingDefaults
) -> None:
    assert sampling_defaults(generation_config) == expected


def test_a_model_that_cannot_fit_is_refused_with_both_figures() -> None:
    hardware = HardwareProfile("cpu", "a machine", 8 * GIB, 5 * GIB)
    with pytest.raises(ModelLoadError, match=r"needs 20\.25 GiB .* 5\.00 GiB of 8\.00 GiB"):
        refuse_unless_fits("big", 20 * GIB, hardware)
    refuse_unless_fits("small", 4 * GIB, hardware)
