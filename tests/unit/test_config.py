"""Settings are read from the environment once, and a wrong one is named."""

from __future__ import annotations

import pytest

from litellm_mlx.config import EngineConfig


def test_settings_come_from_the_environment() -> None:
    environ = {
        "LITELLM_MLX_MAX_BATCH_SIZE": "4",
        "LITELLM_MLX_DEFAULT_TIMEOUT_S": "2.5",
        "LITELLM_MLX_EXPAND_WEIGHTS": "false",
        "LITELLM_MLX_BACKEND": "outlines_core",
        "LITELLM_MLX_BLAS": "off",  # not one of these settings
    }
    config = EngineConfig.from_env(environ)
    assert (config.max_batch_size, config.default_timeout_s) == (4, 2.5)
    assert (config.expand_weights, config.backend) == (False, "outlines_core")
    assert EngineConfig.from_env({}) == EngineConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BATCH_SIZE", "many"),
        ("MAX_BATCH_SIZE", "0"),
        ("EXPAND_WEIGHTS", "perhaps"),
        ("BACKEND", "xgrammar"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"(?i){name}.*{value}"):
        EngineConfig.from_env({f"LITELLM_MLX_{name}": value})


def test_limits_of_strings_may_be_switched_off_and_others_may_not() -> None:
    environ = {"LITELLM_MLX_MAX_REPETITION": "0", "LITELLM_MLX_MAX_WHITESPACE_RUN": "9"}
    config = EngineConfig.from_env(environ)
    assert (config.max_repetition, config.max_whitespace_run) == (0, 9)
    with pytest.raises(ValueError, match="max_string_tokens must be positive"):
        EngineConfig(max_string_tokens=-1)
