"""Model names: the alias table, and what a name after `mlx/` stands for.

Stdlib only and cheap, since importing the package imports it. Whether a repository or a file
exists is found out by `loader`; only a bare name that is no alias is refused here.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qsl

from litellm_mlx.errors import ModelNotFoundError, UnsupportedParameterError
from litellm_mlx.models.custom import custom_loader
from litellm_mlx.types import SamplingDefaults

ModelSource = Literal["embedded", "hub", "directory", "gguf", "registered"]
BaseKey = tuple[ModelSource, str, str | None]
ModelKey = tuple[BaseKey, str | None, bool]

EMBEDDED_ALIAS = "smollm2-135m"

# Parts of a name that send a call to another provider before LiteLLM looks at custom ones, or
# that it handles by name wherever they stand (litellm 1.106: main.py takes every model with
# `replicate` or `clarifai` in its name). No alias may hold one of them.
DIVERTED_BY_LITELLM: tuple[str, ...] = (
    "replicate",
    "clarifai",
    "ft:",
    "petals",
    "gpt-4",
    "gpt-3.5-turbo-16k",
)

ACCEPTED_FORMS = (
    "an alias, org/repo, org/repo@revision, /absolute/dir, ./relative/dir or a .gguf file, "
    "each with an optional ?adapter=PATH"
)

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_PATH_PREFIXES = ("/", "./", "../", "~")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Alias:
    """One line of `aliases.json`: a short name and the published model that it means.

    `repository` is a hub repository, or a PyPI requirement for the embedded model. `thinks` says
    that the model can write a thinking block before it answers, `embeds` that it makes vectors of
    texts and no answers.
    """

    name: str
    repository: str
    context_tokens: int
    licence: str
    revision: str | None = None
    thinks: bool = False
    embeds: bool = False
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Where a named model lies.

    `name` is the name as it was asked, without `mlx/`; `location` a repository id, an absolute
    path, or the name that a registered loader takes. `context_tokens` and `sampling` are what the
    alias table says; the model's own files come first where they speak, but for the embedded
    model, whose file holds no sampling. `embeds` says that it is wanted for its vectors.
    """

    name: str
    source: ModelSource
    location: str
    revision: str | None = None
    adapter: str | None = None
    context_tokens: int | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    embeds: bool = False

    @property
    def key(self) -> ModelKey:
        """What makes it this model: equal for every spelling of its name."""
        return (self.base_key, self.adapter, self.embeds)

    @property
    def base_key(self) -> BaseKey:
        """What its weights go by, whatever adapter is on them."""
        return (self.source, self.location, self.revision)


@cache
def aliases() -> Mapping[str, Alias]:
    """The alias table, by name, in the order of the data file."""
    text = resources.files(__package__).joinpath("aliases.json").read_text(encoding="utf-8")
    return MappingProxyType({name: _alias(name, row) for name, row in json.loads(text).items()})


def _alias(name: str, row: Mapping[str, object]) -> Alias:
    values = {key: row[key] for key in ("repository", "context_tokens", "licence")}
    sampling = row.get("sampling", {})
    assert isinstance(sampling, dict), name
    return Alias(
        name=name,
        revision=row.get("revision"),  # type: ignore[arg-type]  # text or absent in our own file
        thinks=bool(row.get("thinks")),
        embeds=bool(row.get("embeds")),
        sampling=SamplingDefaults(**sampling),
        **values,  # type: ignore[arg-type]  # our own data file, held by a test
    )


def parse_model_name(name: str) -> ModelSpec:
    """What `name` (without `mlx/`) stands for; reads no file but the alias table.

    An alias comes first, then what a registered loader takes.

    Raises:
        ModelNotFoundError: a name of no known form; the message holds the nearest aliases.
        UnsupportedParameterError: a query other than `?adapter=PATH`.
    """
    base, _, query = name.partition("?")
    adapter = _parse_query(name, query)
    if alias := aliases().get(base.lower()):
        return _alias_spec(name, alias, adapter)
    if custom_loader(base) is not None:
        return ModelSpec(name, "registered", base, adapter=adapter)
    if _is_path(base):
        return _path_spec(name, base, adapter)
    repository, at, revision = base.partition("@")
    if _REPOSITORY.fullmatch(repository) and bool(at) == bool(revision):
        return _hub_spec(name, repository, revision or None, adapter)
    raise ModelNotFoundError(_unknown_name_message(name, base))


def parse_chat_name(name: str) -> ModelSpec:
    """As `parse_model_name`, of a model that is to write.

    Raises:
        ModelNotFoundError, UnsupportedParameterError: see there; an alias of an embedding model
            is none.
    """
    spec = parse_model_name(name)
    if spec.embeds:
        raise ModelNotFoundError(f"{name!r} makes vectors and no answers; call litellm.embedding()")
    return spec


def parse_embedding_name(name: str) -> ModelSpec:
    """As `parse_model_name`, of a model that is to make vectors.

    Raises:
        ModelNotFoundError, UnsupportedParameterError: see there; an alias of a model that writes
            is none, nor is what has an adapter.
    """
    spec = parse_model_name(name)
    writes = name.lower() in aliases() and not spec.embeds
    if writes or spec.adapter is not None or spec.source == "gguf":
        known = ", ".join(alias.name for alias in aliases().values() if alias.embeds)
        raise ModelNotFoundError(
            f"{name!r} is no embedding model. Name one of {known}, org/repo, or a directory"
        )
    return replace(spec, embeds=True)


def _parse_query(name: str, query: str) -> str | None:
    """Absolute path of the adapter that the query names, if it names one."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    for key in given:
        if key != "adapter":
            raise UnsupportedParameterError(
                f"model name {name!r} has the option {key!r}; the only one is ?adapter=PATH"
            )
    if query and not given.get("adapter"):
        raise UnsupportedParameterError(
            f"model name {name!r} ends in {query!r}; write ?adapter=PATH, or leave it out"
        )
    return _absolute(given["adapter"]) if given else None


def _is_path(base: str) -> bool:
    return (
        base.startswith(_PATH_PREFIXES)
        or base in (".", "..")
        or base.lower().endswith(".gguf")
        or _WINDOWS_DRIVE.match(base) is not None
    )


def _absolute(path: str) -> str:
    """`path` with one spelling.

    Links are followed up to the last part only: a hub cache links `x.gguf` to a file without
    that ending, which MLX goes by.
    """
    parent, last = os.path.split(os.path.abspath(os.path.expanduser(path)))
    return os.path.join(os.path.realpath(parent), last)


def _alias_spec(name: str, alias: Alias, adapter: str | None) -> ModelSpec:
    return ModelSpec(
        name=name,
        source="embedded" if alias.name == EMBEDDED_ALIAS else "hub",
        location=alias.repository,
        revision=alias.revision,
        adapter=adapter,
        context_tokens=alias.context_tokens,
        sampling=alias.sampling,
        embeds=alias.embeds,
    )


def _path_spec(name: str, base: str, adapter: str | None) -> ModelSpec:
    location = _absolute(base)
    is_gguf = location.lower().endswith(".gguf")
    return ModelSpec(name, "gguf" if is_gguf else "directory", location, adapter=adapter)


def _hub_spec(name: str, repository: str, revision: str | None, adapter: str | None) -> ModelSpec:
    """A hub repository; an alias of the same one lends its context length."""
    known = (alias for alias in aliases().values() if alias.repository == repository)
    alias = next(known, None)
    return ModelSpec(
        name=name,
        source="hub",
        location=repository,
        revision=revision or (alias.revision if alias else None),
        adapter=adapter,
        context_tokens=alias.context_tokens if alias else None,
    )


def _unknown_name_message(name: str, base: str) -> str:
    near = difflib.get_close_matches(base.lower(), aliases(), n=3, cutoff=0.4)
    nearest = f"; nearest aliases: {', '.join(near)}" if near else ""
    return (
        f"no model {name!r}{nearest}. A name is {ACCEPTED_FORMS}. Aliases: {', '.join(aliases())}"
    )
