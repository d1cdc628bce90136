"""Every name under which a request can say what its text must be, on random weights."""

from __future__ import annotations

import json
import re
from typing import Any

import litellm
import pytest
from litellm.exceptions import BadRequestError, UnsupportedParamsError

USER = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"level": {"enum": ["low", "high"]}},
    "required": ["level"],
    "additionalProperties": False,
}
LARK = 'start: "a" b+\nb: "b" | "c"\n'
GBNF = 'root ::= "a" b+\nb ::= "b" | "c"\n'
TAG = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {"type": "const_string", "value": "<f>"},
            {"type": "json_schema", "json_schema": SCHEMA},
            {"type": "or", "elements": [{"type": "regex", "pattern": "[xy]{3}"}]},
        ],
    },
}


def ask(model: str, **options: Any) -> str:
    response = litellm.completion(model=model, messages=USER, **{"max_tokens": 40, **options})
    return str(response.choices[0].message.content)


def is_level(text: str) -> bool:
    return json.loads(text) in ({"level": "low"}, {"level": "high"})


def matches(pattern: str) -> Any:
    return re.compile(pattern, re.DOTALL).fullmatch


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"json": SCHEMA}, is_level),
    ({"json": json.dumps(SCHEMA)}, is_level),
    ({"regex": "[ab]{2,4}"}, matches("[ab]{2,4}")),
    ({"choice": ["yes", "no"]}, matches("yes|no")),
    ({"grammar": LARK}, matches("a[bc]+")),
    ({"grammar": GBNF}, matches("a[bc]+")),
    ({"structural_tag": TAG}, matches(r'<f>\{"level": "(low|high)"\}[xy]{3}')),
    ({"structural_tag": json.dumps(TAG)}, matches(r'<f>\{"level": "(low|high)"\}[xy]{3}')),
]


@pytest.mark.parametrize(("given", "holds"), CASES)
def test_structured_outputs_hold_at_the_top_and_in_extra_body(
    tiny: str, given: dict[str, Any], holds: Any
) -> None:
    for options in ({"structured_outputs": given}, {"extra_body": {"structured_outputs": given}}):
        for seed in range(3):
            text = ask(tiny, seed=seed, **options)
            assert holds(text), text


@pytest.mark.parametrize(("given", "holds"), CASES[:6])
def test_the_older_names_hold_too(tiny: str, given: dict[str, Any], holds: Any) -> None:
    ((name, value),) = given.items()
    text = ask(tiny, **{f"guided_{name}": value})
    assert holds(text), text


def test_a_structural_tag_is_a_response_format(tiny: str) -> None:
    assert re.match(r'<f>\{"level": "', ask(tiny, response_format=TAG))


def test_a_triggered_tag_leaves_the_text_around_it_free(tiny: str) -> None:
    tag = {
        "structures": [{"begin": "{tool:", "schema": SCHEMA, "end": "}"}],
        "triggers": ["{"],
    }
    for seed in range(10):
        text = ask(tiny, structured_outputs={"structural_tag": tag}, seed=seed, max_tokens=80)
        for found in re.finditer(r"\{", re.sub(r'\{tool:\{"level": "(low|high)"\}\}', "", text)):
            raise AssertionError(f"a stray trigger at {found.start()} of {text!r}")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"structured_outputs": {}}, "names no constraint"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "send one of them"),
        ({"structured_outputs": {"regexp": "a"}}, "regexp"),
        ({"structured_outputs": {"structural_tag": {"format": {"type": "xml"}}}}, "format"),
        ({"structured_outputs": {"structural_tag": "{"}}, "not JSON"),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "response_format and guided_regex",
        ),
        ({"guided_choice": []}, "at least one choice"),
        ({"guided_grammar": "start: ("}, "grammar"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tiny: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises((BadRequestError, UnsupportedParamsError)) as caught:
        ask(tiny, **options)
    assert named in str(caught.value)


def logprobs(model: str, **options: Any) -> Any:
    response = litellm.completion(
        model=model,
        messages=USER,
        guided_choice=["yes", "no"],
        logprobs=True,
        top_logprobs=3,
        max_tokens=10,
        temperature=0,
        **options,
    )
    return response.choices[0].logprobs.content


def test_logprobs_are_of_the_constrained_distribution_unless_raw_ones_are_asked(tiny: str) -> None:
    constrained, raw = logprobs(tiny), logprobs(tiny, logprobs_mode="raw")
    assert [t.token for t in constrained] == [t.token for t in raw]
    forced = constrained[-1]  # only one letter can follow
    assert (forced.logprob, len(forced.top_logprobs)) == (0, 1)
    assert all(r.logprob < c.logprob for r, c in zip(raw, constrained, strict=True))
    assert all(len(t.top_logprobs) == 3 for t in raw)
    assert json.loads(json.dumps([t.model_dump() for t in raw], allow_nan=False))
