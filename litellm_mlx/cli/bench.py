"""`litellm-mlx bench`: how fast a model is on this machine, as programs get it through LiteLLM.

A short measurement for users; `benchmarks/` in the repository compares, and takes its time.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from litellm_mlx.cli.common import as_json_option
from litellm_mlx.cli.demo import PARAGRAPH, free_request, graph_request
from litellm_mlx.cli.doctor import PACKAGES
from litellm_mlx.models.names import EMBEDDED_ALIAS

if TYPE_CHECKING:
    from litellm_mlx.cli.measure import Measured
    from litellm_mlx.models.loader import LoadedModel

_STORY = "Write a long story about a fox that learns to read."
_PROMPT = "the " * 500  # a token each, in most vocabularies
_count = click.IntRange(min=1)


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of work.

    Attributes:
        label: for people.
        requests: what is sent at once; made anew each time.
        tokens_per_s: the speed that it shows.
        note: what else a person should know.
    """

    label: str
    requests: Callable[[], list[dict[str, Any]]]
    tokens_per_s: Callable[[Measured], float]
    note: Callable[[Measured], str]


@click.command()
@click.option("--model", default=EMBEDDED_ALIAS, show_default=True, help="With or without mlx/.")
@click.option("--rows", type=_count, default=8, show_default=True, help="Texts written at once.")
@click.option("--tokens", type=_count, default=100, show_default=True, help="Of a free text.")
@click.option("--repeats", type=_count, default=3, show_default=True, help="After a warm-up.")
@as_json_option
def bench(model: str, rows: int, tokens: int, repeats: int, as_json: bool) -> None:
    """Measure how fast a model takes in prompts and writes on this machine.

    Requests go through litellm.completion, so these are the figures that a program gets: medians
    of the repeats, with the least and the greatest.
    """
    from litellm_mlx.cli.measure import load

    loaded = load(model)
    arms = _arms(rows, tokens)
    samples = _measure(model, arms, repeats)
    told = {
        "model": model,
        "weights": loaded.dtype,
        "machine": _machine(loaded),
        "versions": _versions(),
        "rows": rows,
        "max_tokens": tokens,
        "repeats": repeats,
        "figures": {name: _figures(arm, samples[name]) for name, arm in arms.items()},
    }
    if as_json:
        click.echo(json.dumps(told))
    else:
        _show(told, arms, samples)


def _arms(rows: int, tokens: int) -> dict[str, Arm]:
    def unseen(text: str) -> str:
        """A prompt of which nothing lies in the prefix cache."""
        return f"{secrets.token_hex(4)} {text}"

    return {
        "prefill": Arm(
            "taking in a prompt",
            lambda: [free_request(unseen(_PROMPT), max_tokens=1)],
            lambda took: took.prefilled_tokens / took.prefill_s,
            lambda took: f"{took.prefilled_tokens} tokens",
        ),
        "free": Arm(
            "writing free text",
            lambda: [free_request(_STORY, tokens)],
            lambda took: took.decode_tokens_per_s,
            lambda took: f"{took.completion_tokens} tokens",
        ),
        "schema": Arm(
            "writing JSON under a schema",
            lambda: [graph_request(PARAGRAPH)],
            lambda took: took.decode_tokens_per_s,
            lambda took: (
                f"{took.completion_tokens} tokens, {took.forced_share:.0%} forced, "
                f"{took.passes_per_token:.2f} passes per token"
            ),
        ),
        "batch": Arm(
            f"{rows} free texts at once",
            lambda: [free_request(unseen(_STORY), tokens) for _ in range(rows)],
            lambda took: took.completion_tokens / took.total_s,
            lambda took: f"{took.completion_tokens} tokens, prefill included",
        ),
    }


def _measure(model: str, arms: dict[str, Arm], repeats: int) -> dict[str, list[Measured]]:
    """Let the arms take turns, so that a drift of the machine meets all of them."""
    from rich.console import Console
    from rich.progress import track

    from litellm_mlx.cli.measure import ask

    turns = [(name, repeat) for repeat in range(repeats + 1) for name in arms]
    samples: dict[str, list[Measured]] = {name: [] for name in arms}
    shown = Console(stderr=True)
    for name, repeat in track(turns, "measuring", console=shown, transient=True):
        measured = ask(model, arms[name].requests())
        if repeat > 0:
            samples[name].append(measured)
    return samples


def _figures(arm: Arm, samples: Sequence[Measured]) -> dict[str, Any]:
    speeds, last = [arm.tokens_per_s(sample) for sample in samples], samples[-1]
    return {
        "tokens_per_s": round(statistics.median(speeds), 2),
        "min": round(min(speeds), 2),
        "max": round(max(speeds), 2),
        "prefilled_tokens": last.prefilled_tokens,
        "completion_tokens": last.completion_tokens,
        "forced_share": round(last.forced_share, 3),
        "passes_per_token": round(last.passes_per_token, 3),
    }


def _show(told: dict[str, Any], arms: dict[str, Arm], samples: dict[str, list[Measured]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("mlx/" + told["model"].removeprefix("mlx/"), "tokens/s", "", box=None)
    for name, arm in arms.items():
        found = told["figures"][name]
        speed = f"{found['tokens_per_s']:.1f} ({found['min']:.1f}-{found['max']:.1f})"
        table.add_row(arm.label, speed, arm.note(samples[name][-1]))
    out = Console(highlight=False)
    out.print(table)
    machine = ", ".join(str(value) for value in told["machine"].values() if value is not None)
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    out.print(f"{machine}; weights in {told['weights']}; {versions}", soft_wrap=True)


def _machine(loaded: LoadedModel) -> dict[str, str | int | None]:
    hardware = loaded.hardware
    return {
        "device": hardware.device,
        "device_name": hardware.device_name,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "blas": Path(hardware.blas).name if hardware.blas else None,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
