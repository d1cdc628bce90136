"""The command line: every command says what it does, and prints one JSON object when asked to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from litellm_mlx.cli import main
from litellm_mlx.cli.demo import KnowledgeGraph
from litellm_mlx.models.embedded import SMOLLM2
from litellm_mlx.models.names import aliases
from tests.tiny_model import make_tiny_model


def call(*arguments: str, code: int = 0, **options: Any) -> Result:
    result = CliRunner().invoke(main, arguments, **options)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def as_json(*arguments: str, code: int = 0) -> Any:
    (line,) = call(*arguments, "--json", code=code).stdout.splitlines()
    return json.loads(line)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_help_says_what_a_command_does(path: tuple[str, ...]) -> None:
    shown = call(*path, "--help").output
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help is not None
    assert command.help.split("\n")[0].split(".")[0] in " ".join(shown.split())


@pytest.fixture
def empty_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No model is on this disk."""
    monkeypatch.setenv("LITELLM_MLX_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "own").mkdir()
    return tmp_path


def cache_repository(shelf: Path, name: str, num_bytes: int) -> None:
    """A repository as the hub's client keeps it."""
    commit = "0" * 40
    folder = shelf / "hub" / f"models--{name.replace('/', '--')}"
    for part in ("blobs", f"snapshots/{commit}", "refs"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "blobs" / "x").write_bytes(bytes(num_bytes))
    (folder / "snapshots" / commit / "model.safetensors").symlink_to(folder / "blobs" / "x")


def test_models_are_listed_with_what_is_here(empty_shelf: Path) -> None:
    alias = aliases()["qwen3-4b"]
    cache_repository(empty_shelf, alias.repository, 1000)
    cache_repository(empty_shelf, "org/other", 2000)
    models = {model["name"]: model for model in as_json("models", "list")["models"]}
    assert list(models) == [*aliases(), "org/other"]
    assert models["qwen3-4b"]["disk_bytes"] == 1000 and models["qwen3-4b"]["fits"] is True
    assert models["qwen3-4b"]["licence"] == alias.licence
    assert models["qwen3-8b"]["disk_bytes"] is None and models["qwen3-8b"]["fits"] is None
    here = as_json("models", "list", "--here")["models"]
    assert [model["name"] for model in here] == ["qwen3-4b", "org/other"]
    shown = call("models", "list").output
    assert "qwen3-4b" in shown and "0.00 GiB" in shown


def test_removing_a_model_deletes_its_files_and_no_others(empty_shelf: Path) -> None:
    for name in ("org/one", "org/two"):
        cache_repository(empty_shelf, name, 1000)
    (empty_shelf / "own" / SMOLLM2.file_name).write_bytes(bytes(10))
    assert as_json("models", "remove", "org/one", "--yes") == {"freed_bytes": 1000}
    assert as_json("models", "remove", "smollm2-135m", "--yes") == {"freed_bytes": 10}
    here = as_json("models", "list", "--here")["models"]
    assert [model["name"] for model in here] == ["org/two"]
    for name in ("org/one", "smollm2-135m", "/some/path"):
        call("models", "remove", name, "--yes", code=2)
    call("models", "remove", "org/two", input="n\n", code=1)
    assert as_json("models", "list", "--here")["models"] == here


def test_info_says_what_a_name_stands_for(empty_shelf: Path) -> None:
    told = as_json("models", "info", "mlx/qwen3-4b")
    assert told["location"] == aliases()["qwen3-4b"].repository
    assert told["licence"] == aliases()["qwen3-4b"].licence and told["disk_bytes"] is None
    assert "location: " in call("models", "info", "org/repo@v1").output
    assert "nearest aliases" in call("models", "info", "qwen3-4", code=2).output


def test_pull_says_where_the_files_are(tiny_model_dir: Path) -> None:
    assert as_json("models", "pull", str(tiny_model_dir)) == {"path": str(tiny_model_dir)}


def test_doctor_finds_everything_well_or_says_what_is_not(tiny: str) -> None:
    found = as_json("doctor", "--model", tiny)["findings"]
    verdicts = {finding["check"]: finding["verdict"] for finding in found}
    assert list(verdicts) == ["versions", "registration", "device", "BLAS", "hub", "one token"]
    assert verdicts.pop("hub") == "warning"  # the tests are offline
    verdicts.pop("BLAS")
    assert set(verdicts.values()) == {"ok"}
    shown = call("doctor", "--model", "no-such-model", code=1).output
    assert "FAIL one token" in shown and "models pull no-such-model" in shown


def test_chat_goes_on_until_nothing_is_said(tiny: str) -> None:
    talk = call("chat", tiny, "--max-tokens", "5", input="hello\nand you?\n\n").output
    assert talk.count("you> ") == 3
    assert len(talk.splitlines()) >= 4
    call("chat", "no-such-model", input="hello\n", code=1)


def test_demo_shows_an_object_and_what_it_took(tiny: str) -> None:
    told = as_json("demo", "--model", tiny)
    assert list(told) == ["model", "free", "graph"]
    assert told["free"]["answer"] and told["free"]["forced_share"] == 0
    KnowledgeGraph.model_validate({name: told["graph"][name] for name in ("nodes", "edges")})
    assert 0 < told["graph"]["forced_share"] < 1
    assert 0 < told["graph"]["passes_per_token"] < told["free"]["passes_per_token"]
    shown = call("demo", "--model", tiny).stdout
    assert shown.count("tokens/s") == 2 and "  node " in shown
    assert "passes of the model per token" in " ".join(shown.split())


def test_bench_measures_four_kinds_of_work(tiny: str) -> None:
    sizes = ("--rows", "3", "--tokens", "60", "--repeats", "2")
    told = as_json("bench", "--model", tiny, *sizes)
    assert (told["rows"], told["max_tokens"], told["repeats"]) == (3, 60, 2)
    assert told["machine"]["cores"] > 0 and told["versions"]["litellm-mlx"]
    figures = told["figures"]
    assert list(figures) == ["prefill", "free", "schema", "batch"]
    for found in figures.values():
        assert 0 < found["min"] <= found["tokens_per_s"] <= found["max"]
    assert figures["prefill"]["prefilled_tokens"] > 500 >= figures["free"]["prefilled_tokens"]
    assert 60 < figures["batch"]["completion_tokens"] <= 3 * 60
    assert figures["schema"]["forced_share"] > 0 == figures["free"]["forced_share"]
    shown = call("bench", "--model", tiny, *sizes).stdout
    assert "3 free texts at once" in shown and "litellm-mlx " in shown


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_what_goes_wrong_is_said_in_a_line(command: str, tiny: str) -> None:
    (*_, error) = call(command, "--model", "qwen3-4", code=2).output.splitlines()
    assert error.startswith("Error: ") and "nearest aliases" in error


def test_bench_says_what_cannot_be_measured(tmp_path: Path) -> None:
    small = make_tiny_model(tmp_path / "small", config={"max_position_embeddings": 256})
    failed = call("bench", "--model", str(small), code=1)
    assert "Error: litellm.ContextWindowExceededError" in failed.output
    call("bench", "--rows", "0", code=2)


def test_serve_wants_models_or_a_configuration(tmp_path: Path) -> None:
    assert "--config" in call("serve", code=2).output
    call("serve", "smollm2-135m", "--config", str(tmp_path / "none"), code=2)
    assert "nearest aliases" in call("serve", "qwen3-4", code=2).output
