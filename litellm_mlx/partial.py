"""Partial objects from a stream of JSON text: what is there so far, as the caller's own model.

The JSON is read by pydantic-core's partial parser; what it gives is put into instances of the
model without the fields that have not come yet.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

ModelT = TypeVar("ModelT", bound=BaseModel)


def partial_objects(stream: Iterable[Any], model: type[ModelT]) -> Iterator[ModelT]:
    """Give the object so far after every chunk that adds to it; the last one is validated.

    Until then an object is an instance of `model` whose missing fields are `None` and whose last
    string may be incomplete; parts that are valid already have their fields' types.

    Args:
        stream: chunks of `litellm.completion(..., stream=True)`, or pieces of text.
        model: what the whole text is to become.

    Raises:
        pydantic.ValidationError: the whole text is not such an object.
    """
    reader = _Reader(model)
    for chunk in stream:
        if (partial := reader.add(chunk)) is not None:
            yield partial
    yield reader.finish()


async def apartial_objects(
    stream: AsyncIterable[Any], model: type[ModelT]
) -> AsyncIterator[ModelT]:
    """As `partial_objects`, from `await litellm.acompletion(..., stream=True)`."""
    reader = _Reader(model)
    async for chunk in stream:
        if (partial := reader.add(chunk)) is not None:
            yield partial
    yield reader.finish()


class _Reader(Generic[ModelT]):
    """The text so far and the object that it makes."""

    def __init__(self, model: type[ModelT]) -> None:
        self._model = model
        self._text = ""
        self._last: Any = None

    def add(self, chunk: Any) -> ModelT | None:
        """Take a chunk; `None` where it changes nothing that can be seen."""
        new = chunk if isinstance(chunk, str) else (chunk.choices[0].delta.content or "")
        self._text += new
        if not new or not self._text.strip():
            return None
        data = from_json(self._text, allow_partial="trailing-strings")
        if data == self._last or not isinstance(data, dict):
            return None
        self._last = data
        return _build_model(self._model, data)

    def finish(self) -> ModelT:
        return self._model.model_validate_json(self._text)


def _build_model(model: type[ModelT], data: dict[str, Any]) -> ModelT:
    try:
        return model.model_validate(data)
    except ValidationError:
        pass
    values = {}
    for name, field in model.model_fields.items():
        key = next((k for k in (field.validation_alias, field.alias, name) if k in data), None)
        values[name] = None if key is None else _build(field.annotation, data[str(key)])
    return model.model_construct(set(values), **values)


def _build(annotation: Any, value: Any) -> Any:
    """`value` as far as it can be made what `annotation` says."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        pass
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(value, dict):
        models = [kind for kind in _members(annotation) if issubclass(kind, BaseModel)]
        if len(models) == 1:
            return _build_model(models[0], value)
        if origin is dict:
            return {key: _build(args[1], item) for key, item in value.items()}
    if isinstance(value, list) and origin in (list, set, tuple, frozenset) and args:
        return [_build(args[0], item) for item in value]
    return value


def _members(annotation: Any) -> list[type]:
    """The classes that an annotation names: itself, or the members of a union."""
    is_union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if is_union else (annotation,)
    return [member for member in members if isinstance(member, type)]
