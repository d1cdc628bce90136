"""The embedded model's own template keeps all of a conversation, in order."""

from __future__ import annotations

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.models.loader import load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.translate.messages import render_chat
from tests.mlx.test_chat_law import SHAPES, TOOLS, violations

pytestmark = pytest.mark.model


def test_nothing_of_a_conversation_is_lost() -> None:
    tokenizer = load_model(parse_model_name("smollm2-135m"), EngineConfig()).tokenizer
    wrong = []
    for shape, chat in SHAPES.items():
        for tools in ((), TOOLS):
            prompt = render_chat(tokenizer, chat, {}, tools=tools)
            wrong += [(shape, found) for found in violations(chat, prompt)]
            wrong += [(shape, name) for name in ("d1z", "call_off") if tools and name not in prompt]
    assert wrong == []
