"""Which draft of JSON Schema a value is written in, judged by the drafts' own meta-schemas."""

from __future__ import annotations

from typing import Any

from litellm_mlx.errors import ConstraintError

DRAFTS = {
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "7": "http://json-schema.org/draft-07/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "4": "http://json-schema.org/draft-04/schema#",
}
# Most schemas name no draft. The newest comes first, since its complaint is the one to show; the
# others accept what it gave up, as `items` with a list and `exclusiveMinimum: true`.
_UNNAMED = ("2020-12", "7", "4")


def check_is_json_schema(schema: dict[str, Any] | bool) -> str:
    """Give the draft that a schema is written in, by its name here; refuse what none accepts.

    Nothing is fetched: a `$schema` that is none of the drafts from 4 to 2020-12 is not looked up.

    Raises:
        ConstraintError: the schema is malformed; says where and how.
    """
    from jsonschema_rs import ValidationError, meta

    if isinstance(schema, bool):
        return _UNNAMED[0]
    first: ValidationError | None = None
    for name in _candidates(schema):
        try:
            meta.validate({**schema, "$schema": DRAFTS[name]})
        except ValidationError as error:
            first = first or error
        else:
            return name
    assert first is not None
    where = "/".join(str(part) for part in first.instance_path)
    raise ConstraintError(
        f"response_format is not a valid JSON Schema at {where!r}: {first.message:.300}"
    )


def declared_draft(schema: dict[str, Any] | bool) -> str | None:
    """Give the name of the draft that `$schema` declares; None where it declares no known one."""
    declared = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(declared, str):
        return None
    found = (name for name, uri in DRAFTS.items() if uri.rstrip("#") == declared.rstrip("#"))
    return next(found, None)


def _candidates(schema: dict[str, Any]) -> tuple[str, ...]:
    """The drafts that may judge a schema: the declared one, or those that unnamed ones use."""
    declared = declared_draft(schema)
    return _UNNAMED if declared is None else (declared,)
