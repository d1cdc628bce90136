"""What other packages add: models, backends and tool formats, under the guarantees of our own."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from runpy import run_path
from typing import Any

import jsonschema
import litellm
import pytest

from litellm_mlx import network
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ConstraintError, ForbiddenModelError, ModelNotFoundError
from litellm_mlx.extend import (
    check_form,
    register_backend,
    register_loader,
    register_tool_format,
)
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import choice_constraint, json_schema_constraint
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.register import handler
from litellm_mlx.translate.tool_formats.form import Form, Tool
from litellm_mlx.translate.tool_formats.json_form import JsonForm
from litellm_mlx.types import Constraint
from tests.grammar_sampling import accepts, draw, small_vocabulary
from tests.programs import output_of_script, outputs_of
from tests.tiny_model import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model
from tests.tool_families import FAMILIES, OTHER_FORMS

EXAMPLES = Path(__file__).parents[2] / "examples" / "extensions"
USER = [{"role": "user", "content": "hello"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "words": {"type": "array", "items": {"enum": [1]}}},
    "required": ["ok", "words"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}


def ask(model: str, **options: Any) -> Any:
    return litellm.completion(model, USER, **{"max_tokens": 60, **options})


def text_of(response: Any) -> str:
    return str(response.choices[0].message.content)


# --- model loaders -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of `shelf:NAME` lie; a name that is none is an error of the loader's."""
    folder = tmp_path_factory.mktemp("shelf")
    make_tiny_model(folder / "a")
    make_tiny_adapter(folder / "adapter", folder / "a")
    (folder / "empty").mkdir()

    def locate(name: str) -> Path:
        bare = name.removeprefix("shelf:")
        asked.append(bare)
        if bare == "gone":
            raise ModelNotFoundError("the shelf has no such model")
        if bare == "broken":
            raise OSError("the shelf has fallen down")
        return folder / bare

    asked.clear()
    register_loader("shelf:", locate)
    return folder


asked: list[str] = []


def test_a_loaders_model_is_a_model_as_any(shelf: Path) -> None:
    response = ask("mlx/shelf:a", response_format=FORMAT, max_tokens=300)
    jsonschema.validate(json.loads(text_of(response)), SCHEMA)
    assert response.model.endswith("shelf:a")
    plain = ask(f"mlx/{shelf}/a", temperature=0)
    assert text_of(ask("mlx/shelf:a", temperature=0)) == text_of(plain)
    assert asked.count("a") == 1  # it is loaded once


def test_an_adapter_goes_on_top_and_shares_the_weights(shelf: Path) -> None:
    name = f"shelf:a?adapter={shelf}/adapter"
    changed = ask(f"mlx/{name}", temperature=0)
    assert text_of(changed) != text_of(ask("mlx/shelf:a", temperature=0))
    base = handler.registry.engine("shelf:a").model().base
    assert handler.registry.engine(name).model().base is base


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("gone", litellm.NotFoundError, "no such model"),
        ("broken", litellm.BadRequestError, "OSError: the shelf has fallen down"),
        ("empty", litellm.NotFoundError, "holds no config.json"),
        ("nowhere", litellm.NotFoundError, "no model directory"),
    ],
)
def test_what_a_loader_cannot_give_is_a_typed_error(
    shelf: Path, name: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(f"mlx/shelf:{name}")


def test_a_predicate_takes_names_but_no_alias(tiny_model_dir: Path) -> None:
    def is_meant(name: str) -> bool:
        return name in ("the-tiny-one", "smollm2-135m")

    register_loader(is_meant, lambda name: tiny_model_dir)
    assert text_of(ask("mlx/the-tiny-one", temperature=0))
    assert parse_model_name("smollm2-135m").source == "embedded"


def test_a_prefix_is_taken_once(shelf: Path) -> None:
    with pytest.raises(ValueError, match="shelf:"):
        register_loader("shelf:", lambda name: shelf)
    with pytest.raises(ValueError, match="empty"):
        register_loader("", lambda name: shelf)


def test_a_proxys_client_names_a_loaders_model_only_where_that_is_allowed(shelf: Path) -> None:
    with pytest.raises(ForbiddenModelError):
        network.check_model("shelf:a", EngineConfig())
    network.check_model("shelf:a", EngineConfig(allowed_models=("shelf:*",)))
    num_asked = len(asked)
    with pytest.raises(litellm.NotFoundError, match="not served here"):
        ask("mlx/shelf:other", proxy_server_request={"url": "http://proxy/v1/chat/completions"})
    assert len(asked) == num_asked  # the loader was not even asked


# --- constraint backends -------------------------------------------------------------------------


class OverTokens:
    """An automaton whose state is the text so far; subclasses say what may come."""

    start = b""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        self.constraint = constraint
        self.vocabulary = vocabulary

    def text_tokens(self, text: bytes) -> Iterator[int]:
        ids = range(self.vocabulary.tokenizer_vocab_size)
        yield from (i for i in ids if self.vocabulary.token_bytes(i) == text)

    def allowed(self, state: bytes) -> Iterable[int]:
        raise NotImplementedError

    def advance(self, state: bytes, token_id: int) -> bytes:
        return state + self.vocabulary.token_bytes(token_id)

    def is_accepting(self, state: bytes) -> bool:
        return bool(state)


class Loose(OverTokens):
    """Gives one of the letters a to d, whatever was asked for."""

    def allowed(self, state: bytes) -> Iterable[int]:
        letters = [b"a", b"b", b"c", b"d"] if not state else []
        return itertools.chain(*map(self.text_tokens, letters))


class Failing(OverTokens):
    """Fails at the second token."""

    def allowed(self, state: bytes) -> Iterable[int]:
        if state:
            raise RuntimeError("the automaton is out of order")
        return self.text_tokens(b"a")

    def is_accepting(self, state: bytes) -> bool:
        return False


class DeadEnd(Failing):
    def allowed(self, state: bytes) -> Iterable[int]:
        return () if state else self.text_tokens(b"a")


class Core:
    """outlines_core's own automaton, here as any other package's; it writes JSON."""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        from litellm_mlx.grammar.core_compiler import core_index

        self.index = core_index(constraint, vocabulary)
        self.start = self.index.get_initial_state()

    def allowed(self, state: int) -> Iterable[int]:
        tokens: list[int] = self.index.get_allowed_tokens(state) or []
        return tokens

    def advance(self, state: int, token_id: int) -> int:
        after: int = self.index.get_next_state(state, token_id)
        return after

    def is_accepting(self, state: int) -> bool:
        return bool(self.index.is_final_state(state))


def refuses(constraint: Constraint, vocabulary: Vocabulary) -> OverTokens:
    raise LookupError(f"no {constraint.kind} in this shop")


@pytest.fixture(scope="module", autouse=True)
def backends() -> None:
    run_path(str(EXAMPLES / "choice_backend.py"))  # "trie"
    register_backend("loose", Loose)
    register_backend("failing", Failing, is_exact=True)
    register_backend("dead-end", DeadEnd, is_exact=True)
    register_backend("core", Core)
    register_backend("refuses", refuses)


def test_an_exact_backend_holds_and_streams(tiny: str) -> None:
    colours = ["red", "green", "blue", "greenish blue"]
    options = {"guided_choice": colours, "guided_decoding_backend": "trie", "temperature": 1.0}
    texts = {text_of(ask(tiny, seed=seed, **options)) for seed in range(20)}
    assert texts <= set(colours) and len(texts) > 1
    chunks = list(ask(tiny, stream=True, seed=2, **options))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == text_of(ask(tiny, seed=2, **options))
    assert sum(map(bool, pieces)) > 1
    response = ask(tiny, **options)
    assert response.choices[0].message.provider_specific_fields["tier"] == "grammar"


def test_a_text_ends_within_its_budget_or_is_refused_before_it_begins(tiny: str) -> None:
    choices = ["no", "yes, and for the following reasons, which are many"]
    options = {"guided_choice": choices, "guided_decoding_backend": "trie", "temperature": 1.0}
    for seed in range(10):
        assert text_of(ask(tiny, seed=seed, max_tokens=4, **options)) in choices
    with pytest.raises(litellm.BadRequestError, match="max_tokens leaves 3"):
        options["guided_choice"] = choices[1:]
        ask(tiny, max_tokens=3, **options)


def test_a_backend_that_is_not_exact_never_gets_a_wrong_text_out(tiny: str) -> None:
    options = {"guided_decoding_backend": "loose", "temperature": 1.0}
    wishes: list[dict[str, Any]] = [{"guided_choice": ["a", "x"]}, {"guided_regex": "[a-b]"}]
    for seed, wish in itertools.product(range(10), wishes):
        try:
            response = ask(tiny, seed=seed, **wish, **options)
        except litellm.JSONSchemaValidationError:
            continue
        assert text_of(response) in ("a", "b")
        fields = response.choices[0].message.provider_specific_fields
        assert fields["tier"] == "grammar+check" and 1 <= fields["tries"] <= 6
    with pytest.raises(litellm.JSONSchemaValidationError):
        ask(tiny, response_format=FORMAT, **options)
    with pytest.raises(litellm.BadRequestError, match="cannot be checked"):
        ask(tiny, guided_regex="(?=a)a", **options)


@pytest.mark.parametrize("max_tokens", [20, 26, 40, 300])
def test_json_of_a_backend_closes_within_every_budget(tiny: str, max_tokens: int) -> None:
    for seed in range(6):
        options = {"guided_decoding_backend": "core", "seed": seed, "temperature": 1.0}
        response = ask(tiny, response_format=FORMAT, max_tokens=max_tokens, **options)
        jsonschema.validate(json.loads(text_of(response)), SCHEMA)
        assert response.usage.completion_tokens <= max_tokens + 1  # a stop token


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("failing", "RuntimeError: the automaton is out of order"),
        ("dead-end", "neither a token may come nor the text may end"),
        ("refuses", "refuses cannot enforce this list of choices: LookupError: no choice"),
    ],
)
def test_a_backend_that_fails_takes_its_own_request_with_it_only(
    tiny: str, backend: str, said: str
) -> None:
    num_loads = handler.registry.num_loads
    other = ask(tiny, stream=True, max_tokens=200, temperature=0)
    next(iter(other))
    with pytest.raises(litellm.BadRequestError, match=said):
        ask(tiny, guided_choice=["aa"], guided_decoding_backend=backend)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in other)
    assert handler.registry.num_loads == num_loads


def test_unknown_backends_are_refused_by_name(tiny: str) -> None:
    with pytest.raises(litellm.UnsupportedParamsError, match=r"nonesuch.*llguidance.*trie"):
        ask(tiny, guided_choice=["a"], guided_decoding_backend="nonesuch")
    with pytest.raises(ValueError, match="nonesuch"):
        EngineConfig(backend="nonesuch")
    assert EngineConfig(backend="trie").backend == "trie"


@pytest.mark.parametrize("name", ["trie", "llguidance", ""])
def test_a_backend_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError):
        register_backend(name, Loose)


def test_tools_go_to_llguidance_whatever_backend_was_chosen(tiny: str) -> None:
    parameters = {**SCHEMA, "type": "object"}
    tool = {"type": "function", "function": {"name": "set", "parameters": parameters}}
    options: dict[str, Any] = {"tools": [tool], "tool_choice": "required", "max_tokens": 300}
    for seed in range(3):
        response = ask(tiny, guided_decoding_backend="loose", seed=seed, **options)
        for call in response.choices[0].message.tool_calls:
            jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_the_guide_of_an_automaton_keeps_the_laws_of_guides() -> None:
    vocabulary = small_vocabulary()
    choices = ["true", "truest", "tr", "né"]
    index = compile_constraint(choice_constraint(choices, "trie"), vocabulary)
    rng = random.Random(3)
    drawn = {draw(index, vocabulary, rng) for _ in range(60)}  # asserts on stop tokens as it goes
    assert drawn == {choice.encode() for choice in choices}
    for text in (*choices, "t", "trues", "", "nex"):
        assert accepts(index, vocabulary, text) == (text in choices)
    guide = index.guide()
    ids = {vocabulary.token_bytes(i): i for i in range(vocabulary.vocab_size)}
    copied = guide.copy()
    guide.advance(ids[b"t"])
    assert copied.ends_with([ids[b"tr"]]) and not guide.ends_with([ids[b"tr"]])
    assert guide.ends_with([ids[b"r"]]) and not guide.is_accepting
    assert not guide.allows([vocabulary.stop_token_ids[0]])
    assert (guide.forced(), guide.fast_forward(), guide.json_place) == ([], [], None)


def test_numbers_of_a_backend_keep_to_what_parsers_take() -> None:
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint({"type": "integer"}, "core"), vocabulary)
    rng = random.Random(4)
    for _ in range(40):
        text = draw(index, vocabulary, rng, max_tokens=60)
        assert text is None or len(text) <= 22


def test_a_wide_state_space_does_not_fill_the_memory() -> None:
    vocabulary = small_vocabulary()

    class Counting(OverTokens):
        def allowed(self, state: bytes) -> Iterable[int]:
            return self.text_tokens(b"a")

    register_backend("counting", Counting, is_exact=True)
    index = compile_constraint(choice_constraint(["a"], "counting"), vocabulary)
    guide = index.guide()
    (a,) = Counting(choice_constraint(["a"]), vocabulary).text_tokens(b"a")
    for _ in range(1500):
        guide.advance(a)
    assert len(index._bitmasks) <= 1024  # type: ignore[attr-defined]


# --- tool formats --------------------------------------------------------------------------------

OWL = JsonForm(head="@@owl NAME with ", tail=" @@done", between="\n")
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": PARAMETERS}}


def with_template(path: Path, marker: str) -> str:
    template = "{# " + marker + " #}" + CHAT_TEMPLATE
    return f"mlx/{make_tiny_model(path, chat_template=template)}"


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> str:
    register_tool_format("owl", "@@owl", OWL)
    return with_template(tmp_path_factory.mktemp("owl") / "m", "@@owl")


def calls_of(response: Any) -> list[Any]:
    return [call.function for call in response.choices[0].message.tool_calls or []]


@pytest.mark.parametrize("seed", range(4))
def test_calls_in_a_registered_format_arrive_as_calls(owl: str, seed: int) -> None:
    options = {"tools": [TOOL], "tool_choice": "required", "seed": seed, "max_tokens": 300}
    response = ask(owl, **options)
    for function in calls_of(response):
        assert function.name == "forecast"
        jsonschema.validate(json.loads(function.arguments), PARAMETERS)
    assert calls_of(response) and response.choices[0].finish_reason == "tool_calls"
    chunks = list(ask(owl, stream=True, **options))
    deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
    streamed = "".join(d.function.arguments or "" for d in deltas if d.index == 0)
    assert streamed == calls_of(response)[0].arguments


def test_the_prompt_shows_the_format(owl: str) -> None:
    from litellm_mlx.translate.messages import render_chat

    tokenizer = handler.registry.engine(owl.removeprefix("mlx/")).model().tokenizer
    prompt = render_chat(tokenizer, USER, {}, tools=[TOOL])
    assert "@@owl FUNCTION_NAME with " in prompt


class Shouting(Form):
    """Writes arguments as JSON in capitals' company, and lets any object through."""

    def arguments_part(self, tool: Tool) -> Any:
        from litellm_mlx.grammar.structure import json_part

        return json_part({"type": "object"})

    def arguments_reader(self, tool: Tool) -> Any:
        return JsonForm.arguments_reader(self, tool)  # type: ignore[arg-type]

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, ensure_ascii=False)


def test_arguments_of_a_form_of_a_new_class_are_validated(tmp_path: Path) -> None:
    register_tool_format("shouting", "@@shout", Shouting(head="@@SHOUT NAME ", tail=" @@END"))
    model = with_template(tmp_path / "m", "@@shout")
    options = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    for seed in range(3):
        try:
            response = ask(model, seed=seed, **options)
        except (litellm.JSONSchemaValidationError, litellm.BadRequestError):
            continue  # random weights hit the schema by chance only
        for function in calls_of(response):
            jsonschema.validate(json.loads(function.arguments), PARAMETERS)


class Deaf(JsonForm):
    """Reads nothing of what it writes."""

    def arguments_reader(self, tool: Tool) -> Any:
        class Reader:
            def read(self, text: str) -> tuple[int, str, bool]:
                return len(text), "{}", True

        return Reader()


class Mute(JsonForm):
    """Its grammar knows another way to write arguments than it has itself."""

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, indent=2)


@pytest.mark.parametrize("kind", [Deaf, Mute])
def test_a_form_that_contradicts_itself_is_refused(kind: type[JsonForm]) -> None:
    with pytest.raises(ValueError, match="the form"):
        register_tool_format(kind.__name__, "@@never", kind(head="@@NAME "))


@cache
def built_in_forms() -> dict[str, Form]:
    return {**{family.name: family.form for family in FAMILIES}, **OTHER_FORMS}


@pytest.mark.parametrize("name", built_in_forms())
def test_our_own_forms_pass_what_others_have_to(name: str) -> None:
    check_form(built_in_forms()[name])


# --- entry points and examples -------------------------------------------------------------------

PACKAGE = """
from litellm_mlx import extend

def register():
    print("registered")
    extend.register_loader("entry:", lambda name: MODEL)

def fail():
    raise RuntimeError("this extension is broken")
"""
PROGRAM = """
import logging, litellm, litellm_mlx
logging.basicConfig()
print("imported")
for _ in range(2):
    answer = litellm.completion("mlx/entry:x", [{"role": "user", "content": "hi"}], max_tokens=3)
print("answered", answer.usage.completion_tokens)
"""


def test_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    (tmp_path / "acme.py").write_text(PACKAGE.replace("MODEL", repr(str(tiny_model_dir))))
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    points = "[litellm_mlx.extensions]\nbroken = acme:fail\nmine = acme:register\n"
    (info / "entry_points.txt").write_text(points)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    shown, told = outputs_of("-c", PROGRAM, environ={"PYTHONPATH": path})
    # at the first use, and once
    assert shown.split()[:3] == ["imported", "registered", "answered"]
    assert "the extension broken (acme:fail) is left out" in told


EXPECTED = {
    "tiny_loader.py": [r"(\{'n': -?\d+\}\n){3}"],
    "choice_backend.py": [r"^(red|green|blue)$", "the backend trie cannot enforce this regex"],
    "tool_format.py": [
        r'^@@call forecast with {"city": "Rome", "days": 3} @@done$',
        r'^forecast {"city": "(Oslo|Rome)", "days": [123]}$',
    ],
}


def test_every_example_of_an_extension_is_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_runs(name: str, tiny: str) -> None:
    arguments = [] if name == "tiny_loader.py" else [tiny]
    shown = output_of_script(EXAMPLES / name, *arguments)
    for pattern in EXPECTED[name]:
        assert re.search(pattern, shown, re.MULTILINE), shown


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 60
    assert f"python examples/extensions/{name}" in text.split('"""')[1]


def test_a_backend_without_a_name_is_the_compilers_error_too() -> None:
    with pytest.raises(ConstraintError, match="nonesuch"):
        compile_constraint(choice_constraint(["a"], "nonesuch"), small_vocabulary())
