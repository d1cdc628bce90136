"""Grammars made wrong on purpose: what they let through reaches nobody, or ends with the error."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
import litellm
import pytest
from litellm.exceptions import JSONSchemaValidationError
from prometheus_client import CollectorRegistry

from litellm_mlx import metrics, observe
from litellm_mlx.extend import register_backend
from litellm_mlx.grammar import tiers
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import (
    choice_constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.json_schema import Schema, map_subschemas
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.types import Constraint
from tests.grammar_sampling import small_vocabulary

SECRET = "the prompt that nobody else may read"
USER = [{"role": "user", "content": SECRET}]
SMALL = {"type": "integer", "minimum": 0, "maximum": 4}
# The texts of these are single digits for an honest backend, and half of the digits are right.
HALF_RIGHT: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SMALL}}},
    {"guided_json": SMALL},
    {"guided_regex": "[0-4]"},
    {"guided_choice": ["0", "1", "2", "3", "4"]},
    {"guided_grammar": "start: /[0-4]/"},
]
IDS = [next(iter(wish)) for wish in HALF_RIGHT]
NEVER = {"guided_choice": ["ten"]}
LIES = {"guided_decoding_backend": "liar", "temperature": 1.0}


class Liar:
    """Any digit, whatever was asked for; it is registered as exact."""

    start = ""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        digits = {str(digit).encode(): str(digit) for digit in range(10)}
        ids = range(vocabulary.tokenizer_vocab_size)
        texts = {i: digits.get(vocabulary.token_bytes(i)) for i in ids}
        self.texts = {token_id: text for token_id, text in texts.items() if text is not None}

    def allowed(self, state: str) -> Iterable[int]:
        return [] if state else self.texts

    def advance(self, state: str, token_id: int) -> str:
        return self.texts[token_id]

    def is_accepting(self, state: str) -> bool:
        return bool(state)


@pytest.fixture(scope="module", autouse=True)
def liar() -> None:
    register_backend("liar", Liar, is_exact=True)


@pytest.fixture
def loose_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """llguidance gets schemas without their bounds, and says that it enforces all of them."""

    def without_bounds(schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        kept = {k: v for k, v in schema.items() if k not in ("minimum", "maximum", "maxLength")}
        return map_subschemas(kept, without_bounds)

    monkeypatch.setattr(tiers, "narrow_schema", without_bounds)


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    observers = list(observe._observers)
    registry = CollectorRegistry()
    metrics.install(registry)
    yield registry
    for observer in set(observe._observers) - set(observers):
        observe.remove_observer(observer)


def ask(model: str, **options: Any) -> Any:
    return litellm.completion(model, USER, **{"max_tokens": 60, **options})


def text_of(response: Any) -> str:
    return str(response.choices[0].message.content)


def faults(registry: CollectorRegistry, model: str) -> float:
    labels = {"model": model.removeprefix("mlx/")}
    return registry.get_sample_value("litellm_mlx_grammar_faults_total", labels) or 0.0


@pytest.mark.parametrize("wish", HALF_RIGHT, ids=IDS)
def test_a_whole_answer_that_fails_is_drawn_again(
    tiny: str, wish: dict[str, Any], registry: CollectorRegistry
) -> None:
    """Each kind of constraint; the tier is still "grammar", and each fault is counted."""
    num_faults = num_given_up = 0
    for seed in range(12):
        try:
            response = ask(tiny, seed=seed, **wish, **LIES)
        except JSONSchemaValidationError:  # one request of 64
            num_given_up += 1
            continue
        fields = response.choices[0].message.provider_specific_fields
        assert text_of(response) in "01234" and fields["tier"] == "grammar"
        num_faults += fields["tries"] > 1
    assert num_given_up < 6 and 0 < num_faults <= faults(registry, tiny)


def test_each_of_n_answers_is_valid(tiny: str) -> None:
    response = ask(tiny, n=5, seed=3, guided_regex="[0-7]", **LIES)
    assert all(choice.message.content in "01234567" for choice in response.choices)
    assert len(response.choices) == 5


def test_what_never_passes_is_a_typed_error_and_every_try_is_counted(
    tiny: str, registry: CollectorRegistry
) -> None:
    with pytest.raises(JSONSchemaValidationError, match="no text of 6 tries") as caught:
        ask(tiny, **NEVER, **LIES)
    assert caught.value.status_code == 422
    assert faults(registry, tiny) == 6
    assert observe.recent_errors()[0].error == "ConstraintViolationError"


def test_the_log_has_the_hash_and_no_word_of_prompt_or_answer(
    tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "litellm_mlx"), pytest.raises(JSONSchemaValidationError):
        ask(tiny, **NEVER, **LIES)
    records = [r for r in caplog.records if "a grammar is at fault" in r.getMessage()]
    assert len(records) == 6
    for record in records:
        said = record.getMessage()
        assert record.levelno == logging.WARNING
        assert choice_constraint(["ten"]).digest in said and "backend liar" in said
        assert SECRET not in said and not re.search(r"\b\d\b", said)


def test_a_stream_comes_as_it_is_written_and_ends_with_the_error(
    tiny: str, registry: CollectorRegistry
) -> None:
    pieces, reasons = [], []
    with pytest.raises(JSONSchemaValidationError) as caught:
        for chunk in ask(tiny, stream=True, **NEVER, **LIES):
            pieces.append(chunk.choices[0].delta.content or "")
            reasons.append(chunk.choices[0].finish_reason)
    assert "".join(pieces).isdigit() and set(reasons) == {None}
    assert type(caught.value) is JSONSchemaValidationError and caught.value.status_code == 422
    assert caught.value.raw_response == "".join(pieces)
    assert faults(registry, tiny) == 1


def test_a_stream_that_passes_ends_as_ever(tiny: str) -> None:
    wish = {"guided_regex": "[0-9]", **LIES}
    *_, last = ask(tiny, stream=True, seed=5, **wish)
    assert last.choices[0].finish_reason == "stop"


def test_async_answers_and_streams_are_validated_too(tiny: str) -> None:
    async def run() -> None:
        options: dict[str, Any] = {"model": tiny, "messages": USER, "max_tokens": 60, **LIES}
        for seed in range(4):
            answer = await litellm.acompletion(**options, guided_regex="[0-7]", seed=seed)
            assert text_of(answer) in "01234567"
        with pytest.raises(JSONSchemaValidationError):
            await litellm.acompletion(**options, **NEVER)
        pieces: list[str] = []
        with pytest.raises(JSONSchemaValidationError):
            async for chunk in await litellm.acompletion(**options, **NEVER, stream=True):
                pieces.append(chunk.choices[0].delta.content or "")
                assert chunk.choices[0].finish_reason is None
        assert "".join(pieces).isdigit()

    asyncio.run(run())


ARGUMENTS = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": -(10**9), "maximum": 10**9}},
    "required": ["n"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "pick", "parameters": ARGUMENTS}}
CALL = {"tools": [TOOL], "tool_choice": "required", "temperature": 1.0, "max_tokens": 120}


@pytest.mark.usefixtures("loose_engine")
def test_arguments_of_tools_are_validated(tiny: str, registry: CollectorRegistry) -> None:
    """Whole answers are drawn again or given up, streams end with the error; none is invalid."""
    num_valid = num_failed = 0
    for seed in range(12):
        try:
            response = ask(tiny, seed=seed, stream=seed % 2 == 1, **CALL)
            if seed % 2:
                response = litellm.stream_chunk_builder(list(response))
        except JSONSchemaValidationError as error:
            assert "arguments of pick" in str(error)
            num_failed += 1
            continue
        for call in response.choices[0].message.tool_calls:
            jsonschema.validate(json.loads(call.function.arguments), ARGUMENTS)
            num_valid += 1
    assert num_valid and num_failed and faults(registry, tiny)


@pytest.mark.usefixtures("loose_engine")
def test_an_answer_beside_tools_is_validated(tiny: str) -> None:
    """In one grammar with the calls, the answer's own schema is held against it."""
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": ARGUMENTS}}
    num_answers = num_failed = 0
    for seed in range(12):
        try:
            options = {**CALL, "tool_choice": "auto", "response_format": form}
            message = ask(tiny, seed=seed, **options).choices[0].message
        except JSONSchemaValidationError:
            num_failed += 1
            continue
        texts = [call.function.arguments for call in message.tool_calls or ()]
        texts += [] if message.content is None else [message.content]
        for text in texts:
            jsonschema.validate(json.loads(text), ARGUMENTS)
            num_answers += 1
    assert num_answers and num_answers + num_failed >= 12


def test_dspys_own_engine_door_is_the_same_path(tiny: str) -> None:
    from dspy import lm15  # type: ignore[import-untyped]

    from litellm_mlx.dspy import AsyncMLXEngine, MLXEngine

    request = lm15.Request(tiny, (lm15.Message.user("hello"),), config=lm15.Config(max_tokens=60))
    with pytest.raises(lm15.InvalidRequestError, match="no text of 6 tries"):
        MLXEngine(**NEVER, **LIES).complete(request)
    with pytest.raises(lm15.InvalidRequestError, match="no text of 6 tries"):
        asyncio.run(AsyncMLXEngine(**NEVER, **LIES).complete(request))
    with pytest.raises(lm15.InvalidRequestError, match="the text does not satisfy"):
        list(MLXEngine(**NEVER, **LIES).stream(request))


# --- what is checked, and how --------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["llguidance", "outlines_core"])
@pytest.mark.parametrize(
    ("constraint", "valid", "invalid"),
    [
        (choice_constraint(["a", "né"]), ["a", "né"], ["", "n", "aa"]),
        (regex_constraint(r"[a-c]+\d?"), ["a", "abc1"], ["", "d", "a11"]),
        (json_schema_constraint({"enum": [1, "a"]}), ["1", '"a"'], ["2", "x"]),
    ],
)
def test_every_kind_is_checked_whatever_compiles_it(
    backend: str, constraint: Constraint, valid: list[str], invalid: list[str]
) -> None:
    chosen = Constraint(constraint.kind, constraint.source, backend)
    check = compile_constraint(chosen, small_vocabulary()).check
    assert [check(text) for text in valid] == [None] * len(valid)
    assert all(check(text) is not None for text in invalid)


def test_a_grammar_is_checked_unless_it_names_tokens() -> None:
    check = compile_constraint(grammar_constraint("start: /a+/"), small_vocabulary()).check
    assert check("aa") is None and check("b") is not None
    marked = grammar_constraint("start: <think> /a+/")
    assert compile_constraint(marked, small_vocabulary()).check("anything") is None


def test_a_key_twice_counts_with_its_last_value_where_the_grammar_holds_the_rest() -> None:
    """No grammar can exclude it where names are free, and readers take the last value."""
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    check = compile_constraint(json_schema_constraint(schema), small_vocabulary()).check
    assert check('{"a": 1, "a": 2}') is None
    assert check('{"a": 1, "a": "x"}') is not None


def test_a_check_is_quick_once_it_is_prepared_and_for_texts_of_usual_length() -> None:
    check = compile_constraint(json_schema_constraint({"type": "string"}), small_vocabulary()).check
    check.prepare()
    assert check.is_quick('"x"') and not check.is_quick('"' + "x" * 100_000 + '"')


def test_what_a_schema_holds_but_no_validator_can_judge_passes_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A validator's limit is no fault of the answer: the grammar's word counts."""
    monkeypatch.setattr("litellm_mlx.grammar.check.REGEX_BYTES", 10)
    schema = {"type": "string", "pattern": "^[a-z]{3}$"}
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    assert index.tier == "grammar" and index.check('"abc"') is None
    assert "not validated" in caplog.text
