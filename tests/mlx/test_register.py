"""Registration and the capabilities that clients read before their first call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import litellm
import litellm.utils
import pytest
from litellm.litellm_core_utils.fallback_generalizations import (
    get_fallback_generalization_rules,
    set_fallback_generalizations,
)

import litellm_mlx
from litellm_mlx.models.names import aliases
from tests.programs import output_of
from tests.tiny_model import make_tiny_model

NAMES = [
    "mlx/qwen3-4b",
    "mlx/smollm2-135m",
    "mlx/mlx-community/Some-Model-4bit",
    "mlx/org/repo@v1",
    "mlx//abs/path/model",
    "mlx/./relative",
    "mlx/qwen3-4b?adapter=/some/where",
    "mlx/gpt-4o-mini",
    "mlx/deepseek-chat",
    "mlx/gpt-5",
]


@pytest.fixture
def restored_price_map() -> Iterator[None]:
    price_map, rules = litellm.model_cost, list(get_fallback_generalization_rules())
    yield
    litellm.model_cost = price_map
    set_fallback_generalizations(rules)


def assert_advertised(name: str) -> None:
    assert litellm.supports_response_schema(name)
    assert litellm.supports_response_schema(model=name, custom_llm_provider="mlx")
    assert litellm.supports_function_calling(name)
    assert not litellm.supports_reasoning(name)
    assert not litellm.supports_vision(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_advertised_before_the_first_call(name: str) -> None:
    assert_advertised(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_or_reset_price_map_changes_nothing(name: str, restored_price_map: None) -> None:
    litellm.model_cost = litellm.get_model_cost_map(url="")
    assert_advertised(name)
    set_fallback_generalizations([])
    litellm.model_cost = dict(litellm.model_cost)
    assert_advertised(name)


def test_registering_twice_changes_nothing() -> None:
    before = list(litellm.custom_provider_map)
    answer = litellm.utils._get_model_info_from_generalization
    litellm_mlx.register()
    assert litellm.custom_provider_map == before
    assert litellm.utils._get_model_info_from_generalization is answer
    assert "response_format" in litellm.get_supported_openai_params("mlx/x", "mlx")


def test_other_custom_providers_stay() -> None:
    other = {"provider": "other", "custom_handler": litellm.CustomLLM()}
    litellm.custom_provider_map.append(other)
    try:
        litellm_mlx.register()
        assert other in litellm.custom_provider_map
    finally:
        litellm.custom_provider_map.remove(other)


def test_model_info_gives_the_context_and_costs_nothing(tiny: str, tmp_path: Path) -> None:
    for alias, facts in aliases().items():
        info = litellm.get_model_info(f"mlx/{alias}")
        assert info["max_input_tokens"] == facts.context_tokens
        assert info["input_cost_per_token"] == info["output_cost_per_token"] == 0
        assert info["mode"] == ("embedding" if facts.embeds else "chat")
        assert litellm.supports_response_schema(f"mlx/{alias}") is not facts.embeds
    assert litellm.get_model_info("mlx/org/unknown")["max_input_tokens"] is None
    for name in ("gpt-5.5", "gpt-4o-mini"):  # a cloud model's name, of which nothing is taken over
        make_tiny_model(tmp_path / name, config={"max_position_embeddings": 333})
        assert litellm.get_model_info(f"mlx/{tmp_path}/{name}")["max_input_tokens"] == 333
    litellm_mlx.load(tiny)
    assert litellm.get_model_info(tiny)["max_input_tokens"] == 2048


def test_other_providers_models_are_answered_as_before() -> None:
    assert litellm.get_model_info("gpt-4o-mini")["litellm_provider"] == "openai"
    assert litellm.supports_vision("gpt-4o-mini")


def test_the_import_is_light_and_starts_nothing() -> None:
    code = (
        "import sys, litellm; before = set(sys.modules); import litellm_mlx, threading;"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'outlines', 'llguidance', 'dspy', 'numpy'};"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "threads = [t.name for t in threading.enumerate() if 'mlx' in t.name];"
        "print(sorted(new & heavy), threads)"
    )
    assert output_of("-c", code).strip() == "[] []"


def test_the_interpreter_exits_cleanly_in_mid_generation(tiny_model_dir: object) -> None:
    code = (
        "import litellm, litellm_mlx;"
        f"s = litellm.completion(model='mlx/{tiny_model_dir}', stream=True, max_tokens=1900,"
        "messages=[{'role': 'user', 'content': 'x'}], logit_bias={'2': -100, '0': -100});"
        "next(s); print('bye')"
    )
    assert output_of("-c", code).strip() == "bye"
