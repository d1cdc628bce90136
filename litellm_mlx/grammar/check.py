"""Validates a finished JSON text against the whole schema, where the grammar is looser than it.

Owns the border to the validator (jsonschema_rs), how a text is read, what `format` means to it (the
drafts' formats as their RFCs have them, of which `formats` writes a part, and ours), and where the
work is done: the validator holds the interpreter, so what may take long goes to another process.
Nothing is ever fetched.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check_cost import is_cheap_to_build, is_cheap_to_run
from litellm_mlx.grammar.child import ChildError, run_in_child
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.grammar.json_schema import Schema
from litellm_mlx.grammar.metaschema import DRAFTS

Check = Callable[[str], str | None]

# A regex with look-around may go back and forth; a text that makes it do so more often is invalid.
# 100,000 steps took 4 ms (2 cores of an AMD EPYC, jsonschema_rs 0.60.3, 2026-11-21).
BACKTRACK_LIMIT = 100_000
# Of a regex as compiled; 3 ms to reach on that machine. `\w{1,300}` is within it.
REGEX_BYTES = 2 * 2**20
# For another process, which takes 40 ms to start.
LIMIT_S = 1.0
LIMIT_BYTES = 2**30
MAX_MESSAGE = 500  # characters of the validator's message that a caller gets to read


def bounded_check(schema: Schema, draft: str, settled: Schema) -> Check:
    """Build the validator of a schema, here or in a process of its own.

    Args:
        schema: as the caller wrote it.
        draft: its draft, as `metaschema` names it.
        settled: what `drafts.settle` made of it, by which its cost is judged.

    Returns:
        As `make_check`; what takes over `LIMIT_S` in another process is invalid.

    Raises:
        ConstraintError: see `make_check`, or it took longer than `LIMIT_S`, or too much memory.
    """
    here: Check | None = None
    if is_cheap_to_build(settled):
        here = make_check(schema, draft)
    else:
        _check_in_child(schema, draft, None)

    @cache
    def may_run_here() -> bool:  # asked at the first text, which takes longer to write
        return is_cheap_to_run(settled)

    def check(text: str) -> str | None:
        if here is not None and may_run_here():
            return here(text)
        try:
            return _check_in_child(schema, draft, text)
        except ConstraintError as error:
            return str(error)

    return check


def _check_in_child(schema: Schema, draft: str, text: str | None) -> str | None:
    try:
        said: str | None = run_in_child(
            "check", (schema, draft, text), limit_s=LIMIT_S, limit_bytes=LIMIT_BYTES
        )
    except ChildError as error:
        raise ConstraintError(f"the schema is too costly to validate: {error}") from error
    except ValueError as error:
        raise ConstraintError(str(error)) from error
    return said


def make_check(schema: Schema, draft: str) -> Check:
    """Build the validator of a schema in this process.

    Args:
        schema: as the caller wrote it.
        draft: its draft, as `metaschema` names it.

    Returns:
        A function that says what is wrong with a JSON text, or None; any thread may call it.

    Raises:
        ConstraintError: the validator cannot judge it: a reference to another document or to
            nothing, or a regex over its size limit.

    Cost: holds the interpreter; 70 ms for 900 kB of plain schema.
    """
    import jsonschema_rs

    if isinstance(schema, bool):
        validator = jsonschema_rs.validator_for(schema)
    else:
        try:
            validator = jsonschema_rs.validator_for(
                {**schema, "$schema": DRAFTS[draft]},
                validate_formats=True,
                formats=_own_formats(),
                pattern_options=jsonschema_rs.FancyRegexOptions(
                    backtrack_limit=BACKTRACK_LIMIT, size_limit=REGEX_BYTES
                ),
                offline=True,
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ConstraintError(_build_message(error)) from error

    def check(text: str) -> str | None:
        try:
            value = read_json(text)
        except (ValueError, RecursionError) as error:
            return f"the text is not JSON: {error}"[:MAX_MESSAGE]
        first = next(validator.iter_errors(value), None)
        return None if first is None else _message(first)

    return check


def read_json(text: str) -> Any:
    """Parse a JSON text as strictly as any reader may.

    Raises:
        ValueError: not JSON, a key twice in one object, or a number that is not finite.
        RecursionError: nested deeper than Python's parser goes.
    """
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_not_a_number,
        parse_float=_finite,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has a key twice")
    return made


def _not_a_number(name: str) -> Any:
    raise ValueError(f"JSON has no number {name}")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits:.40} is too large for a float")
    return value


def _message(error: Any) -> str:
    where = "/".join(str(part) for part in error.instance_path)
    message = str(error.message)
    return (message if not where else f"{message} (at {where!r})")[:MAX_MESSAGE]


def _build_message(error: Exception) -> str:
    message = str(getattr(error, "message", error))
    if "not present in a registry" in message:
        return f"a reference leads out of the schema, and nothing is fetched: {message:.300}"
    return f"the schema cannot be checked: {message:.300}"


def _own_formats() -> dict[str, Callable[[str], bool]]:
    """Checks of the formats that no draft has, by the patterns that the grammar uses."""
    return {name: _matcher(FORMATS[name].pattern) for name in OWN_FORMATS}


def _matcher(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern.removesuffix("$") + r"\Z", re.ASCII)

    def is_valid(value: object) -> bool:
        return not isinstance(value, str) or compiled.search(value) is not None

    return is_valid


# Where the draft has no format of the name.
OWN_FORMATS = tuple(
    name
    for name in FORMATS
    if name.startswith(("ipv4n", "ipv4i", "ipv6n", "ipv6i", "ipvany", "uuid", "base64"))
    or name in ("name-email", "http-url", "duration")
)
