"""Whether a value is a JSON schema at all, judged by the drafts' own meta-schemas."""

from __future__ import annotations

from typing import Any

from litellm_mlx.errors import ConstraintError

_DRAFTS = {
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "7": "http://json-schema.org/draft-07/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "4": "http://json-schema.org/draft-04/schema#",
}
# Most schemas name no draft. The newest comes first, since its complaint is the one to show; the
# others accept what it gave up, as `items` with a list and `exclusiveMinimum: true`.
_UNNAMED = ("2020-12", "7", "4")


def check_is_json_schema(schema: dict[str, Any] | bool) -> None:
    """Refuse what no meta-schema accepts.

    Nothing is fetched: a `$schema` that is none of the drafts from 4 to 2020-12 is not looked up.

    Raises:
        ConstraintError: the schema is malformed; says where and how.
    """
    from jsonschema_rs import ValidationError, meta

    if isinstance(schema, bool):
        return
    first: ValidationError | None = None
    for uri in _candidates(schema.get("$schema")):
        try:
            meta.validate({**schema, "$schema": uri})
        except ValidationError as error:
            first = first or error
        else:
            return
    assert first is not None
    where = "/".join(str(part) for part in first.instance_path)
    raise ConstraintError(
        f"response_format is not a valid JSON Schema at {where!r}: {first.message}"
    )


def _candidates(declared: object) -> list[str]:
    """The drafts that may judge a schema: the declared one, or those that unnamed ones use."""
    if isinstance(declared, str):
        named = [uri for uri in _DRAFTS.values() if uri.rstrip("#") == declared.rstrip("#")]
        if named:
            return named
    return [_DRAFTS[name] for name in _UNNAMED]
