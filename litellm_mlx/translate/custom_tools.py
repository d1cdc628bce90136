"""Custom tools, whose one argument is a text of the caller's own format.

LiteLLM's Responses API writes such a tool as a function of one string, `content`, with the grammar
behind its description (`responses/litellm_completion_transformation/custom_tools.py`), and makes a
custom call of the answer. The grammar is read back here, so that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import UnsupportedParameterError

CONTENT = "content"
_FORMAT = re.compile(r"\n\nFormat:\n```(?P<syntax>[^\n]*)\n(?P<definition>.*)\n```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TextFormat:
    """What the text of a custom tool must be: a Lark grammar, or a regex of the whole."""

    lark: str | None = None
    regex: str | None = None


def text_format(name: str, description: str, parameters: Any) -> TextFormat | None:
    """The format of a custom tool's text; `None` for a function, and for text without a format.

    Raises:
        UnsupportedParameterError: the format is in no syntax that is known here.
    """
    if parameters != _parameters(name) or (found := _FORMAT.search(description)) is None:
        return None
    syntax, definition = found["syntax"], found["definition"]
    if syntax == "lark":
        return TextFormat(lark=definition)
    if syntax == "regex":
        return TextFormat(regex=definition)
    raise UnsupportedParameterError(
        f"the format of the custom tool {name!r} is in the syntax {syntax!r}; use lark or regex"
    )


def _parameters(name: str) -> Mapping[str, Any]:
    """What LiteLLM writes for every custom tool."""
    described = f"The {name} content following the specified format"
    content = {"type": "string", "description": described}
    return {"type": "object", "properties": {CONTENT: content}, "required": [CONTENT]}
