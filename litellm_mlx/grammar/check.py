"""Validates a finished JSON text against the whole schema, whatever its grammar has let through.

Owns the border to the validator (jsonschema_rs), how a text is read, what `format` means to it (the
drafts' formats as their RFCs have them, of which `formats` writes a part, and ours), and where the
work is done: the validator holds the interpreter, so what may take long goes to another process.
Nothing is ever fetched.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check_cost import is_cheap_to_build, is_cheap_to_run
from litellm_mlx.grammar.child import ChildError, run_in_child
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.grammar.json_schema import Schema
from litellm_mlx.grammar.metaschema import DRAFTS

logger = logging.getLogger("litellm_mlx")

Judge = Callable[[str], str | None]

# A regex with look-around may go back and forth; a text that makes it do so more often is invalid.
# 100,000 steps took 4 ms (2 cores of an AMD EPYC, jsonschema_rs 0.60.3, 2026-11-21).
BACKTRACK_LIMIT = 100_000
# Of a regex as compiled; 3 ms to reach on that machine. `\w{1,300}` is within it.
REGEX_BYTES = 2 * 2**20
# For another process, which takes 40 ms to start.
LIMIT_S = 1.0
LIMIT_BYTES = 2**30
# To read and validate them took 0.12 ms at most, see benchmarks/RESULTS.md, 2026-11-28.
QUICK_CHARACTERS = 8_000
MAX_MESSAGE = 500  # characters of the validator's message that a caller gets to read


class Check(Protocol):
    """Holds finished texts against what their caller asked for. Any thread may call it."""

    def __call__(self, text: str) -> str | None:
        """Say what is wrong with a text; `None` where it is valid."""
        ...

    def prepare(self) -> None:
        """Build what a first call would have to build."""
        ...

    def is_quick(self, text: str) -> bool:
        """Whether the answer comes at once, so that an event loop can wait for it."""
        ...


class SchemaCheck:
    """The check of one schema as its caller wrote it, here or in a process of its own.

    Args:
        schema: as the caller wrote it.
        draft: its draft, as `metaschema` names it.
        settled: what `drafts.settle` made of it, by which its cost is judged.
        is_vouched_for: a grammar holds the whole schema, so that a text passes where the validator
            cannot judge it: it lacks something, or it takes too long. Else such a text fails. An
            object that has a key twice, which a grammar cannot exclude, is taken then as readers
            take it, with the last value; else it fails.
    """

    def __init__(
        self, schema: Schema, draft: str, settled: Schema, *, is_vouched_for: bool
    ) -> None:
        self._schema = schema
        self._draft = draft
        self.settled = settled
        self._is_vouched_for = is_vouched_for

    def build(self) -> None:
        """Build the validator.

        Raises:
            ConstraintError: it cannot judge the schema, see `make_check`, or building it takes
                longer than `LIMIT_S`, or too much memory; never for one that is vouched for.
        """
        _ = self._validator

    def prepare(self) -> None:
        """Build the validator, and see where it may run; see `Check`."""
        _ = self._judge

    def is_quick(self, text: str) -> bool:
        """Whether it takes some 0.2 ms at most; see `Check`."""
        is_here = self._judge is not self._judge_elsewhere
        return is_here and len(text) <= QUICK_CHARACTERS

    def __call__(self, text: str) -> str | None:
        """Say what is wrong with a JSON text, or `None`; see `Check`."""
        return self._judge(text)

    @cached_property
    def _validator(self) -> Judge | None:
        """The validator in this process; `None` where it must be in another."""
        try:
            if is_cheap_to_build(self.settled):
                return make_check(self._schema, self._draft, takes_repeats=self._is_vouched_for)
            if not self._is_vouched_for:
                self._run_in_child(None)
        except ConstraintError as error:
            if not self._is_vouched_for:
                raise
            return self._pass_unjudged(error)
        return None

    @cached_property
    def _judge(self) -> Judge:
        here = self._validator
        if here is not None and is_cheap_to_run(self.settled):
            return here
        return self._judge_elsewhere

    @cached_property
    def _judge_elsewhere(self) -> Judge:
        def judge(text: str) -> str | None:
            try:
                return self._run_in_child(text)
            except ConstraintError as error:
                return self._pass_unjudged(error)(text) if self._is_vouched_for else str(error)

        return judge

    def _run_in_child(self, text: str | None) -> str | None:
        payload = self._schema, self._draft, self._is_vouched_for, text
        try:
            said: str | None = run_in_child(
                "check", payload, limit_s=LIMIT_S, limit_bytes=LIMIT_BYTES
            )
        except ChildError as error:
            raise ConstraintError(f"the schema is too costly to validate: {error}") from error
        except ValueError as error:
            raise ConstraintError(str(error)) from error
        return said

    def _pass_unjudged(self, error: ConstraintError) -> Judge:
        logger.warning("a text is not validated, the grammar alone holds its schema: %s", error)
        return lambda text: None


def make_check(schema: Schema, draft: str, *, takes_repeats: bool = False) -> Judge:
    """Build the validator of a schema in this process.

    Args:
        schema: as the caller wrote it.
        draft: its draft, as `metaschema` names it.
        takes_repeats: of a key that an object has twice, the last value counts.

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
            value = read_json(text, takes_repeats=takes_repeats)
        except (ValueError, RecursionError) as error:
            return f"the text is not JSON: {error}"[:MAX_MESSAGE]
        first = next(validator.iter_errors(value), None)
        return None if first is None else _message(first)

    return check


def read_json(text: str, *, takes_repeats: bool = False) -> Any:
    """Parse a JSON text as strictly as any reader may.

    Raises:
        ValueError: not JSON, a number that is not finite, or, unless `takes_repeats`, a key twice
            in one object.
        RecursionError: nested deeper than Python's parser goes.
    """
    return json.loads(
        text,
        object_pairs_hook=None if takes_repeats else _object,
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
