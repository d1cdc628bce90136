"""What is said about a schema before it is used: in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import litellm_mlx
from litellm_mlx import explain_schema
from litellm_mlx.cli import main
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.tiers import plan_schema
from tests.grammar_sampling import small_vocabulary

SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "T",
    "type": "object",
    "properties": {
        "tags": {"type": "array", "uniqueItems": True, "items": {"format": "email"}},
        "a/b": {"not": {"type": "null"}},
        "r": {"$ref": "#/definitions/x", "minLength": 3},
        "f": {"format": "odd", "x-own": 1},
        "o": {"oneOf": [{"type": "string"}, {"maxLength": 3}]},
        "shared": {"$ref": "#/own/place"},
    },
    "required": ["tags"],
    "if": {"required": ["f"]},
    "definitions": {"x": {"type": "string"}},
    "own": {"place": {"contains": {"const": 1}}},
}


def enforced(schema: Any) -> dict[str, str]:
    return {item.pointer: item.enforced for item in explain_schema(schema).keywords}


def test_each_keyword_is_named_with_who_enforces_it() -> None:
    assert enforced(SCHEMA) == {
        "/$schema": "annotation",
        "/title": "annotation",
        "/type": "by grammar",
        "/properties": "by grammar",
        "/required": "by grammar",
        "/if": "annotation",
        "/own": "annotation",
        "/properties/tags/type": "by grammar",
        "/properties/tags/uniqueItems": "by check",
        "/properties/tags/items": "by grammar",
        "/properties/tags/items/format": "by grammar",
        "/properties/a~1b/not": "by check",
        "/properties/a~1b/not/type": "by check",
        "/properties/r/$ref": "by grammar",
        "/properties/r/minLength": "annotation",
        "/properties/f/format": "annotation",
        "/properties/f/x-own": "annotation",
        "/properties/o/oneOf": "by check",
        "/properties/o/oneOf/0/type": "by grammar",
        "/properties/o/oneOf/1/maxLength": "by grammar",
        "/properties/shared/$ref": "by grammar",
        "/if/required": "annotation",
        "/definitions/x/type": "by grammar",
        "/own/place/contains": "by check",
    }


def test_the_tier_and_the_reason_are_told() -> None:
    report = explain_schema(SCHEMA)
    assert report.tier == "grammar+check"
    assert report.reason == "checked after generation: `uniqueItems`, `not`, `oneOf`, `contains`"
    assert explain_schema({"type": "string"}).tier == "grammar"
    assert explain_schema(True).keywords == ()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "not a valid JSON Schema"),
        ({"$ref": "https://example.com/x"}, "nothing is fetched"),
        ({"enum": []}, "Unsatisfiable"),
        ({"properties": {f"p{i}": {} for i in range(2_000)}}, "the limit is 1,000"),
        (False, "accepts no text"),
        ([1], "not list"),
    ],
)
def test_a_refusal_says_why(schema: Any, says: str) -> None:
    report = explain_schema(schema)
    assert report.tier == "refused" and says in report.reason


def test_the_reference_to_blame_is_named() -> None:
    report = explain_schema({"properties": {"a": {"$ref": "https://example.com/x"}}})
    assert [(item.pointer, item.enforced) for item in report.keywords] == [
        ("/properties/a/$ref", "refused")
    ]


def test_the_vocabulary_does_not_decide_the_tier() -> None:
    path = Path(__file__).parents[1] / "data" / "schemas.jsonl"
    for line in path.read_text().splitlines():
        schema = json.loads(line)["schema"]
        plan = plan_schema(json_schema_constraint(schema).source, small_vocabulary())
        assert explain_schema(schema).tier == plan.tier, schema


def test_the_report_is_part_of_the_package() -> None:
    assert {"explain_schema", "SchemaReport", "KeywordReport"} <= set(litellm_mlx.__all__)


# --- the command ----------------------------------------------------------------------------------


def run(*arguments: str, text: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(main, ["schema", *arguments], input=text)
    return result.exit_code, result.output


def test_the_command_prints_a_line_for_each_keyword(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    code, output = run(str(path))
    assert code == 0
    first, *lines = output.splitlines()
    assert first.startswith("tier: grammar+check (checked after generation: `uniqueItems`")
    assert len(lines) == len(enforced(SCHEMA))
    assert any(
        line.split()[:3] == ["/properties/tags/uniqueItems", "by", "check:"] for line in lines
    )


def test_the_command_prints_json(tmp_path: Path) -> None:
    code, output = run("-", "--json", text='{"type": "string", "minLength": 2}')
    assert code == 0
    assert json.loads(output) == {
        "tier": "grammar",
        "reason": "",
        "keywords": [
            {"pointer": f"/{keyword}", "keyword": keyword, "enforced": "by grammar", "reason": ""}
            for keyword in ("type", "minLength")
        ],
    }


def test_exit_codes_tell_refused_from_misused() -> None:
    assert run("-", text='{"enum": []}')[0] == 1
    assert run("-", text="{")[0] == 2
    assert run("/no/such/file")[0] == 2
    assert run()[0] == 2


def test_help_text() -> None:
    assert CliRunner().invoke(main, ["schema", "--help"]).output == (
        "Usage: main schema [OPTIONS] FILE\n\n"
        '  Say how the JSON schema in FILE would be enforced ("-" reads standard input).\n\n'
        "  Exits with 0 if it would be, with 1 if it would be refused, and with 2 if FILE\n"
        "  holds no JSON.\n\n"
        "Options:\n"
        "  --json      Print one JSON object.\n"
        "  -h, --help  Show this message and exit.\n"
    )


def test_the_readme_shows_what_the_command_prints() -> None:
    root = Path(__file__).parents[2]
    command, _, shown = (
        (root / "README.md").read_text().partition("```console\n$ litellm-mlx ")[2].partition("\n")
    )
    arguments = [str(root / a) if a.endswith(".json") else a for a in command.split()]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert result.output == shown.partition("```")[0]
