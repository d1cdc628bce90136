"""Compiles constraints with outlines_core, in a process that can be stopped.

The library turns a schema into one regex and that into an automaton over all tokens. Either may
take minutes and tens of gigabytes (120 schemas of MaskBench: killed at 24 GB), and neither can be
interrupted, so both happen in `child_main`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.child import ChildError, run_in_child
from litellm_mlx.grammar.core_support import refuse_unsupported
from litellm_mlx.grammar.json_schema import narrow_schema
from litellm_mlx.grammar.matcher import NotCompiledError
from litellm_mlx.types import Constraint

if TYPE_CHECKING:
    from litellm_mlx.grammar.vocabulary import Vocabulary

LIMIT_S = 30.0
LIMIT_BYTES = 4 * 2**30

_WHITESPACE = "\ue000"  # stands for whitespace in the library's regex until it is placed


def core_index(constraint: Constraint, vocabulary: Vocabulary) -> Any:
    """Build the library's index of a constraint. The calling thread waits, others run on.

    Raises:
        ConstraintError: the library has no such constraint, or a limit was met.
        NotCompiledError: the library refused it, in its own words.
    """
    _refuse_early(constraint)
    tokens = vocabulary.derived("core_tokens", _core_tokens)
    payload = (constraint, vocabulary.stop_token_ids[0], tokens)
    try:
        return run_in_child("core_index", payload, limit_s=LIMIT_S, limit_bytes=LIMIT_BYTES)
    except ChildError as error:
        raise ConstraintError(
            f"outlines_core cannot build an index of this constraint: {error}; "
            "choose the backend llguidance"
        ) from error
    except ValueError as error:
        raise NotCompiledError(str(error)) from error


def _refuse_early(constraint: Constraint) -> None:
    """Refuse what needs no building to be known.

    Raises:
        ConstraintError: the library has no such constraint, or gets it wrong.
    """
    if constraint.kind not in ("json_schema", "regex", "choice"):
        raise ConstraintError("outlines_core has no grammars; choose the backend llguidance")
    if constraint.kind == "json_schema":
        if _WHITESPACE in constraint.source:
            raise ConstraintError(
                "outlines_core cannot serve U+E000; choose the backend llguidance"
            )
        refuse_unsupported(narrow_schema(json.loads(constraint.source)))


def core_regex(constraint: Constraint) -> str:
    """Give the one regex that stands for a constraint."""
    from outlines_core.json_schema import build_regex_from_schema

    if constraint.kind == "regex":
        return constraint.source
    if constraint.kind == "choice":
        return "|".join(f"(?:{re.escape(choice)})" for choice in json.loads(constraint.source))
    schema = narrow_schema(json.loads(constraint.source))
    regex = build_regex_from_schema(json.dumps(schema, ensure_ascii=False), _WHITESPACE)
    for after in ":,":
        regex = regex.replace(after + _WHITESPACE, after + " ")
    return str(regex).replace(_WHITESPACE, "")


def _core_tokens(vocabulary: Vocabulary) -> list[tuple[bytes, int]]:
    """Tokens as bytes, so that those of half a character work."""
    unusable = frozenset(vocabulary.control_token_ids)
    tokens = ((vocabulary.token_bytes(i), i) for i in range(vocabulary.tokenizer_vocab_size))
    return [(token, i) for token, i in tokens if token and i not in unusable]
