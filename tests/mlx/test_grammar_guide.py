"""Vocabularies, indexes and guides: what a token may do, at the edges."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError, EngineError, ModelLoadError
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import (
    JSON_OBJECT,
    choice_constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.index_cache import IndexCache
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.types import Backend
from tests.grammar_sampling import (
    SPECIAL_TOKENS,
    STOP_TOKEN_IDS,
    accepts,
    allowed_tokens,
    byte_ids,
    byte_tokenizer,
    small_vocabulary,
)

BACKENDS: tuple[Backend, ...] = ("llguidance", "outlines_core")
OBJECT = {
    "type": "object",
    "properties": {"b": {"type": "string"}, "a": {"type": "integer"}, "c": {"type": "null"}},
    "required": ["b", "a", "c"],
    "additionalProperties": False,
}


@pytest.fixture
def vocabulary() -> Vocabulary:
    return small_vocabulary()


def _accepts(vocabulary: Vocabulary, constraint: Any, text: str) -> bool:
    index = compile_constraint(constraint, vocabulary)
    return accepts(index, vocabulary, text)


# --- vocabulary -------------------------------------------------------------------------------


def test_token_bytes_are_what_the_tokenizer_writes(vocabulary: Vocabulary) -> None:
    tokenizer = byte_tokenizer()
    text = 'naïve 😀 {"a": 12}\n'
    ids = tokenizer.encode(text)
    assert b"".join(map(vocabulary.token_bytes, ids)) == text.encode()
    assert [vocabulary.token_bytes(i) for i in STOP_TOKEN_IDS] == [b"", b""]
    assert vocabulary.token_bytes(3) == b"<think>"
    for beyond in (-1, len(tokenizer), vocabulary.vocab_size - 1, vocabulary.vocab_size + 99):
        assert vocabulary.token_bytes(beyond) == b""


def test_byte_fallback_tokens_are_their_bytes() -> None:
    tokenizer = byte_tokenizer(byte_fallback=True)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, vocab_size=len(tokenizer), stop_token_ids=[2])
    text = "é 😀 a"
    ids = tokenizer.encode(text)
    assert b"".join(map(vocabulary.token_bytes, ids)) == text.encode()
    index = compile_constraint(json_schema_constraint({"const": text}), vocabulary)
    quoted = json.dumps(text, ensure_ascii=False)
    assert accepts(index, vocabulary, quoted, tokenizer.encode(quoted))


def test_mlx_lms_wrapper_is_unwrapped(vocabulary: Vocabulary) -> None:
    class Wrapper:
        _tokenizer = byte_tokenizer()

    wrapped = Vocabulary.from_tokenizer(
        Wrapper(), vocab_size=vocabulary.vocab_size, stop_token_ids=STOP_TOKEN_IDS
    )
    assert wrapped.fingerprint == vocabulary.fingerprint


def test_fingerprint_depends_on_stop_tokens_and_width(vocabulary: Vocabulary) -> None:
    tokenizer, width = byte_tokenizer(), vocabulary.vocab_size
    others = [
        Vocabulary.from_tokenizer(tokenizer, vocab_size=width, stop_token_ids=[2]),
        Vocabulary.from_tokenizer(tokenizer, vocab_size=width + 1, stop_token_ids=STOP_TOKEN_IDS),
    ]
    assert len({vocabulary.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_tokenizers_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="fast tokenizer"):
        Vocabulary.from_tokenizer(object(), vocab_size=9, stop_token_ids=[1])
    with pytest.raises(ModelLoadError, match="no stop token"):
        Vocabulary.from_tokenizer(byte_tokenizer(), vocab_size=9, stop_token_ids=[99, -1])


def test_logits_narrower_than_the_tokenizer_still_work() -> None:
    tokenizer = byte_tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer, vocab_size=270, stop_token_ids=[2])
    assert vocabulary.num_bitmask_words == 9 and len(tokenizer) > 290
    guide = compile_constraint(json_schema_constraint({"type": "string"}), vocabulary).guide()
    guide.advance(byte_ids(vocabulary, '"')[0])
    assert 200 < max(allowed_tokens(guide, vocabulary)) < 270


# --- what may never come ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_strings_admit_no_control_token_no_padding_and_no_stop(
    vocabulary: Vocabulary, backend: Backend
) -> None:
    index = compile_constraint(json_schema_constraint({"type": "string"}, backend), vocabulary)
    guide = index.guide()
    guide.advance(byte_ids(vocabulary, '"')[0])
    allowed = allowed_tokens(guide, vocabulary)
    assert set(allowed).isdisjoint(range(len(SPECIAL_TOKENS)))
    assert max(allowed) < vocabulary.tokenizer_vocab_size
    # The same text may still be spelled.
    text = '"<think><|im_end|>"'
    assert accepts(index, vocabulary, text, byte_ids(vocabulary, text))


def test_a_grammar_may_name_a_control_token(vocabulary: Vocabulary) -> None:
    index = compile_constraint(grammar_constraint('start: "<think>" /[a-z]/'), vocabulary)
    assert 3 in allowed_tokens(index.guide(), vocabulary)


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_tokens_are_all_allowed_at_the_end_and_none_before(
    vocabulary: Vocabulary, backend: Backend
) -> None:
    guide = compile_constraint(regex_constraint("a+b?", backend), vocabulary).guide()
    a, b = byte_ids(vocabulary, "ab")
    assert not guide.is_accepting and not guide.is_finished
    assert allowed_tokens(guide, vocabulary) == [a]
    guide.advance(a)
    assert guide.is_accepting and not guide.is_finished
    assert allowed_tokens(guide, vocabulary) == sorted([*STOP_TOKEN_IDS, a, b])
    guide.advance(b)
    assert guide.is_accepting and guide.is_finished
    assert allowed_tokens(guide, vocabulary) == list(STOP_TOKEN_IDS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stop", STOP_TOKEN_IDS)
def test_any_stop_token_finishes_an_accepting_text(
    vocabulary: Vocabulary, backend: Backend, stop: int
) -> None:
    guide = compile_constraint(regex_constraint("a+", backend), vocabulary).guide()
    with pytest.raises(EngineError):
        compile_constraint(regex_constraint("a+", backend), vocabulary).guide().advance(stop)
    guide.advance(byte_ids(vocabulary, "a")[0])
    guide.advance(stop)
    assert guide.is_accepting and guide.is_finished
    assert allowed_tokens(guide, vocabulary) == list(STOP_TOKEN_IDS)
    with pytest.raises(EngineError):
        guide.advance(byte_ids(vocabulary, "a")[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_that_was_not_allowed_is_our_error(
    vocabulary: Vocabulary, backend: Backend
) -> None:
    for constraint in (regex_constraint("a+", backend), json_schema_constraint(OBJECT, backend)):
        guide = compile_constraint(constraint, vocabulary).guide()
        with pytest.raises(EngineError, match="does not continue"):
            guide.advance(byte_ids(vocabulary, "b")[0])


# --- what comes through ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_separators_and_property_order_are_those_of_json_dumps(
    vocabulary: Vocabulary, backend: Backend
) -> None:
    index = compile_constraint(json_schema_constraint(OBJECT, backend), vocabulary)
    good = json.dumps({"b": "x: y, z", "a": 1, "c": None})
    assert accepts(index, vocabulary, good)
    for bad in (
        good.replace('", ', '","'),
        good.replace('": ', '":'),
        good.replace("{", "{ "),
        good.replace(", ", ",  "),
        good.replace(", ", ",\n"),
        json.dumps({"a": 1, "b": "x", "c": None}),
    ):
        assert not accepts(index, vocabulary, bad), bad


@pytest.mark.parametrize("backend", BACKENDS)
def test_characters_cut_into_tokens_of_bytes_come_through(
    vocabulary: Vocabulary, backend: Backend
) -> None:
    text = "naïve 😀"
    quoted = json.dumps(text, ensure_ascii=False)
    assert _accepts(vocabulary, json_schema_constraint({"const": text}, backend), quoted)
    assert _accepts(vocabulary, regex_constraint("na.ve 😀", backend), text)
    index = compile_constraint(json_schema_constraint({"type": "string"}, backend), vocabulary)
    assert accepts(index, vocabulary, quoted, byte_ids(vocabulary, quoted))


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_choice_and_nothing_else(vocabulary: Vocabulary, backend: Backend) -> None:
    choices = ["yes", "no", "a|b", 'qu"ote\\', "line\nbreak", "😀", "\x01", "(.*)", "/x/ // y"]
    index = compile_constraint(choice_constraint(choices, backend), vocabulary)
    for text in choices:
        assert accepts(index, vocabulary, text), text
    for text in ("ye", "yesno", "a", "x", "b"):
        assert not accepts(index, vocabulary, text), text


def test_json_object_takes_objects_only(vocabulary: Vocabulary) -> None:
    assert _accepts(vocabulary, JSON_OBJECT, '{"a": [1, {"b": null}], "": {}}')
    assert not _accepts(vocabulary, JSON_OBJECT, "[1]")
    assert not _accepts(vocabulary, JSON_OBJECT, '{"a":1}')


def test_engine_options_in_a_schema_change_nothing(vocabulary: Vocabulary) -> None:
    schema = {**OBJECT, "x-guidance": {"whitespace_flexible": True, "item_separator": ";"}}
    good = json.dumps({"b": "x", "a": 1, "c": None})
    assert _accepts(vocabulary, json_schema_constraint(schema), good)
    for bad in (good.replace(", ", ",  "), good.replace(", ", ";")):
        assert not _accepts(vocabulary, json_schema_constraint(schema), bad)


def test_a_property_named_as_the_engines_options_is_a_property(vocabulary: Vocabulary) -> None:
    schema = {**OBJECT, "properties": {"x-guidance": {"type": "null"}}, "required": ["x-guidance"]}
    assert _accepts(vocabulary, json_schema_constraint(schema), '{"x-guidance": null}')


def test_gbnf_and_lark_grammars_compile(vocabulary: Vocabulary) -> None:
    for grammar in ('start: "a" "b"*', 'root ::= "a" "b"*'):
        assert _accepts(vocabulary, grammar_constraint(grammar), "abb")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "strin"}, "strin"),
        ({"type": "string", "pattern": "(" * 3 + "a" + ")" * 2}, "regex"),
        ({"$ref": "http://example.com/x"}, "http://example.com/x"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "integer", "exclusiveMinimum": -1, "maximum": -0.5}, "Unsatisfiable"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(
    vocabulary: Vocabulary, schema: Any, names: str
) -> None:
    with pytest.raises(ConstraintError, match=names) as caught:
        compile_constraint(json_schema_constraint(schema), vocabulary)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_regexes_are_refused(vocabulary: Vocabulary, backend: Backend) -> None:
    with pytest.raises(ConstraintError, match="regex"):
        compile_constraint(regex_constraint("(a", backend), vocabulary)


def test_bad_grammars_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(ConstraintError, match="grammar"):
        compile_constraint(grammar_constraint("start: nothing"), vocabulary)
    with pytest.raises(ConstraintError, match="llguidance"):
        compile_constraint(grammar_constraint("start: A", "outlines_core"), vocabulary)


@pytest.mark.parametrize("wrap", [lambda ref: {"items": ref}, lambda ref: {"allOf": [ref, {}]}])
def test_long_chains_of_references_do_not_end_the_process(
    vocabulary: Vocabulary, wrap: Any
) -> None:
    num_links = 3_000
    definitions: dict[str, Any] = {
        f"a{i}": wrap({"$ref": f"#/$defs/a{i + 1}"}) for i in range(num_links)
    }
    definitions[f"a{num_links}"] = {"type": "null"}
    schema = {"$ref": "#/$defs/a0", "$defs": definitions}
    allowed_tokens(
        compile_constraint(json_schema_constraint(schema), vocabulary).guide(), vocabulary
    )


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"anyOf": [{"$ref": "#/$defs/a"}] * 1_001}, "1,001 entries in one `anyOf`"),
        ({"properties": {f"p{i}": {} for i in range(1_001)}}, "1,001 entries in one `properties`"),
        ({"patternProperties": {f"^{i}$": {} for i in range(101)}}, "`patternProperties`"),
        ({"enum": [[i] for i in range(2_000)]}, "2,001 parts in one `enum`"),
        ({"properties": {f"p{i}": {"items": {}} for i in range(999)}, "x": [{}] * 9_000}, "parts"),
        (
            {
                "$defs": {
                    f"a{k}": {"properties": {str(i): {} for i in range(900)}} for k in range(3)
                }
            },
            "pairs",
        ),
    ],
)
def test_more_than_the_engine_does_in_a_second_is_refused(
    vocabulary: Vocabulary, schema: Any, says: str
) -> None:
    with pytest.raises(ConstraintError, match=says):
        compile_constraint(json_schema_constraint(schema), vocabulary)


def test_ten_thousand_texts_are_served(vocabulary: Vocabulary) -> None:
    texts = [f"value {i} {i * 7919}" for i in range(10_000)]
    assert _accepts(vocabulary, json_schema_constraint({"enum": texts}), json.dumps(texts[-1]))


# --- sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_guides_of_one_index_are_independent(vocabulary: Vocabulary, backend: Backend) -> None:
    index = compile_constraint(json_schema_constraint(OBJECT, backend), vocabulary)
    fresh = allowed_tokens(index.guide(), vocabulary)
    first, second = index.guide(), index.guide()
    for token_id in vocabulary.ll_tokenizer.tokenize_str('{"b": "'):
        first.advance(token_id)
    assert allowed_tokens(second, vocabulary) == fresh == allowed_tokens(index.guide(), vocabulary)
    assert allowed_tokens(first, vocabulary) != fresh
    assert index.compile_s > 0


def test_threads_share_one_compile_and_use_its_guides_at_once(vocabulary: Vocabulary) -> None:
    cache, constraint = IndexCache(), json_schema_constraint(OBJECT)
    text = json.dumps({"b": "x", "a": 12, "c": None})
    accepted: list[bool] = []

    def run() -> None:
        for _ in range(20):
            index = cache.get(constraint, vocabulary)
            accepted.append(accepts(index, vocabulary, text))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert accepted == [True] * 160
    assert cache.stats().misses == 1
