"""Strings that run away are closed, and ordinary ones are left alone."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import numpy as np
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.runaway import StringLimits, StringWatch
from litellm_mlx.grammar.structure import (
    FreeText,
    Repeat,
    Seq,
    Text,
    json_part,
    structure_constraint,
)
from litellm_mlx.types import Constraint
from tests.grammar_sampling import byte_ids, small_vocabulary

VOCABULARY = small_vocabulary()
DEFAULTS = StringLimits.of(EngineConfig())
ANY_STRING = {"type": "string"}


def watched(text: str, constraint: Constraint, limits: StringLimits = DEFAULTS) -> set[int]:
    """The tokens that a watched guide allows after the beginning of a text."""
    index = compile_constraint(constraint, VOCABULARY)
    guide, watch = index.guide(), StringWatch(limits, constraint, VOCABULARY)
    row = np.zeros(VOCABULARY.num_bitmask_words, dtype=np.int32)
    for token in byte_ids(VOCABULARY, text):
        guide.fill_bitmask(row)
        watch.narrow(row, guide)
        assert row[token >> 5] >> (token & 31) & 1, "the text itself ran into a limit"
        guide.advance(token)
        watch.add(token, guide.json_place)
    guide.fill_bitmask(row)
    watch.narrow(row, guide)
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def allowed_after(text: str, limits: StringLimits = DEFAULTS, schema: Any = ANY_STRING) -> set[str]:
    """The texts of the tokens that are allowed after the beginning of a JSON text."""
    ids = watched(text, json_schema_constraint(schema), limits)
    return {VOCABULARY.token_bytes(i).decode(errors="replace") for i in ids}


def runs_away(text: str, limits: StringLimits = DEFAULTS) -> bool:
    """Whether a limit stops this string before its end."""
    try:
        allowed = allowed_after(json.dumps(text)[:-1], limits)
    except AssertionError:
        return True
    return "a" not in allowed or " " not in allowed


@pytest.mark.parametrize(
    "piece",
    ["x", "ab", "The answer is: ", "I am a cat. ", "\n", '"', "- milk\n", "é", "word " * 40],
)
def test_a_text_again_and_again_is_stopped(piece: str) -> None:
    assert runs_away("Well, then: " + piece * (400 // len(piece) + 5))


def test_a_string_that_repeats_itself_can_only_close() -> None:
    allowed = allowed_after('"' + ("no " * 88)[:263])  # looked at after every 8 tokens
    assert allowed and all('"' in token for token in allowed)


ORDINARY = {
    "ruler": "=" * 120 + "\nTitle\n" + "-" * 120,
    "dotted line": "Chapter 1 " + "." * 110 + " 7\nChapter 2 " + "." * 110 + " 19",
    "zeros": ", ".join(["0"] * 60),
    "matrix": "\n".join(", ".join(["0.0"] * 12) + f"  # row {i}" for i in range(40)),
    "numbered list": "\n".join(f"{i}. the same words again" for i in range(60)),
    "table": "\n".join(f"| {i:3} | {'yes' if i % 3 else 'no':5} |" for i in range(60)),
    "indented code": "".join(f"{' ' * 4 * depth}if x[{depth}]:\n" for depth in range(12)),
    "base64": base64.b64encode(random.Random(0).randbytes(600) + bytes(120)).decode(),
    "refrain": "Row, row, row your boat, gently down the stream. " * 3 + "Merrily, merrily.",
    "hexadecimal": " ".join(f"{byte:02x}" for byte in random.Random(1).randbytes(300)),
    "windows paths": "\\".join(["C:", *[f"folder{i}" for i in range(50)]]),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_texts_are_left_alone(kind: str) -> None:
    assert not runs_away(ORDINARY[kind])


def test_prose_is_left_alone() -> None:
    """2,000 words drawn from 30: four equal pieces of 64 bytes in a row are out of question."""
    rng = random.Random(4)
    words = [f"w{i:02}" for i in range(30)]
    assert not runs_away(" ".join(rng.choice(words) for _ in range(2_000)))


@pytest.mark.parametrize("white", [" ", "\n", "\t", " \n"])
def test_whitespace_does_not_go_on_for_ever(white: str) -> None:
    limits = StringLimits(max_whitespace_run=10)
    begin = json.dumps("x" + (white * 10)[:10])[:-1]
    allowed = allowed_after(begin, limits)
    assert {"x", '"'} <= allowed
    assert not any(token.startswith((" ", "\\")) for token in allowed)
    assert " " in allowed_after(begin + "y", limits)
    assert not runs_away("x" + white * 4 + "y" + white * 4, limits)


def test_a_string_may_be_bounded_in_tokens() -> None:
    limits = StringLimits(max_string_tokens=12)
    assert runs_away("one two three four", limits)
    schema = {"type": "array", "items": {"type": "string"}}
    assert "a" in allowed_after(json.dumps(["one two"] * 5)[:-2], limits, schema)


def test_what_the_grammar_wants_goes_before_every_limit() -> None:
    limits = StringLimits(max_whitespace_run=2, max_repetition=16, max_string_tokens=5)
    schema = {"type": "string", "pattern": "^[ \t]{40}[ab]{40}$"}
    assert allowed_after('"' + " " * 40 + "a" * 39, limits, schema) == {"a", "b"}


def test_zero_switches_each_limit_off() -> None:
    off = StringLimits()
    assert not runs_away(" " * 2_000, off)
    assert not runs_away("The answer is: " * 200, off)


def test_nothing_is_watched_outside_strings() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    allowed = allowed_after("[" + "1, " * 300, schema=schema)
    assert "1" in allowed


FIELDS = structure_constraint(
    Seq(
        (
            Text("[[ a ]]\n"),
            FreeText(("[[",)),
            Text("\n[[ b ]]\n"),
            json_part({"type": "boolean"}),
        )
    )
)
CALL_AT_WILL = structure_constraint(
    Seq((FreeText(("<call>",)), Repeat(Seq((Text("<call>"), json_part({}))), 0, 1)))
)


def repeated_to_the_limit(before: str, constraint: Constraint) -> str:
    """The text up to where its repetition is noticed, which is looked for now and then."""
    text = before + "no " * 99
    for end in range(len(before) + 250, len(text)):
        if len(watched(text[:end], constraint)) < len(VOCABULARY.stop_token_ids) + 1:
            return text[:end]
    raise AssertionError("repetition was never noticed")


def test_free_text_that_repeats_itself_goes_on_to_what_must_follow() -> None:
    repeated = repeated_to_the_limit("[[ a ]]\n", FIELDS)
    way_out = "\n[[ b ]]\n"
    for length in range(len(way_out)):
        (token,) = watched(repeated + way_out[:length], FIELDS)
        assert way_out[length:].encode().startswith(VOCABULARY.token_bytes(token))
    texts = {VOCABULARY.token_bytes(i) for i in watched(repeated + way_out, FIELDS)}
    assert {b"t", b"f"} <= texts


def test_free_text_that_repeats_itself_stops_where_it_may() -> None:
    repeated = repeated_to_the_limit("", CALL_AT_WILL)
    assert watched(repeated, CALL_AT_WILL) == set(VOCABULARY.stop_token_ids)
    assert len(watched("no " * 9, CALL_AT_WILL)) > 100


def test_free_text_may_be_long_and_have_tables() -> None:
    text = "".join(f"| {n} | {n * n} | of {n} |\n" for n in range(200))
    assert len(watched("[[ a ]]\n" + text, FIELDS)) > 100
