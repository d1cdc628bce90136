"""What a request to the Responses API must not ask for, since nobody here would do it.

LiteLLM turns such a request into a chat completion and passes over these without a word (1.110).
What `serve` itself keeps, histories and items, is in the request's input by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_mlx.errors import UnsupportedParameterError

_REFUSED = {
    "previous_response_id": "no response is stored under it; send the history as input",
    "background": "answers are not made in the background; leave it out, or stream",
    "prompt": "no prompts are stored; send their text as `instructions` and `input`",
}
# All others are run by OpenAI, or have no form among chat completions. `tool_search` only says when
# the other tools are shown to a model, and here they always are.
_TOOLS = ("function", "custom", "namespace", "tool_search")


def check_responses_request(
    request: Mapping[str, Any], given: Any, *, drops_tools: bool = False
) -> None:
    """Refuse what would be lost on the way.

    Args:
        request: its parameters.
        given: its input.
        drops_tools: LiteLLM's `drop_params`: tools that nobody here runs are left out instead. Its
            proxy sets it for Codex, which offers OpenAI's web search with every request.

    Raises:
        UnsupportedParameterError: it names the parameter, the tool or the item.
    """
    for name, reason in _REFUSED.items():
        if request.get(name):
            raise UnsupportedParameterError(f"{name}: {reason}")
    for index, tool in enumerate(() if drops_tools else request.get("tools") or ()):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind not in _TOOLS:
            raise UnsupportedParameterError(
                f"tools[{index}]: {kind!r} is not run here; leave it out"
            )
    for index, item in enumerate(given if isinstance(given, list) else ()):
        if is_reference(item):
            raise UnsupportedParameterError(
                f"input[{index}]: no item is stored under {item['id']!r}; send the item itself"
            )


def is_reference(item: Any) -> bool:
    """Whether an item of the input is an id instead; OpenAI lets its type be left out."""
    if not isinstance(item, Mapping) or "id" not in item:
        return False
    return item.get("type") == "item_reference" or set(item) <= {"id", "type"}
