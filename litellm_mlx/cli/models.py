"""`litellm-mlx models`: what there is, on the hub's side and on this disk."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from litellm_mlx.cli.common import as_json_option, usage_errors
from litellm_mlx.models.hardware import GIB, hardware_profile
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.models.shelf import ShelfModel, fetch, remove, shelf


@click.group()
def models() -> None:
    """List, fetch and delete models."""


@models.command("list")
@as_json_option
@click.option("--here", is_flag=True, help="Only those whose files are on this disk.")
def list_models(as_json: bool, here: bool) -> None:
    """Name the models that mlx/ knows, and others of the hub that are on this disk."""
    found = shelf(hardware_profile())
    if here:
        found = [model for model in found if model.disk_bytes is not None]
    if as_json:
        click.echo(json.dumps({"models": [asdict(model) for model in found]}))
        return
    _show(found)


@models.command()
@click.argument("model")
@as_json_option
def info(model: str, as_json: bool) -> None:
    """Say what MODEL stands for, and whether it is here."""
    with usage_errors():
        spec = parse_model_name(model.removeprefix("mlx/"))
    listed = next((m for m in shelf(hardware_profile()) if m.repository == spec.location), None)
    told = {
        "name": spec.name,
        "source": spec.source,
        "location": spec.location,
        "revision": spec.revision,
        "adapter": spec.adapter,
        "context_tokens": spec.context_tokens,
        "licence": listed.licence if listed else None,
        "disk_bytes": listed.disk_bytes if listed else None,
        "fits": listed.fits if listed else None,
    }
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        if value is not None:
            click.echo(f"{name}: {value}")


@models.command()
@click.argument("model")
@as_json_option
def pull(model: str, as_json: bool) -> None:
    """Fetch the files of MODEL, so that its first use needs no network."""
    with usage_errors():
        path = fetch(parse_model_name(model.removeprefix("mlx/")))
    click.echo(json.dumps({"path": str(path)}) if as_json else path)


@models.command("remove")
@click.argument("model")
@as_json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_model(model: str, as_json: bool, yes: bool) -> None:
    """Delete the files of MODEL from this disk."""
    if not yes:
        click.confirm(f"delete the files of {model}?", abort=True)
    with usage_errors():
        num_bytes = remove(model.removeprefix("mlx/"))
    freed = {"freed_bytes": num_bytes}
    click.echo(json.dumps(freed) if as_json else f"freed {_gib(num_bytes)}")


def _show(found: list[ShelfModel]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "mlx/…", "makes", "licence", "context", "on this disk", "fits in memory", box=None
    )
    for model in found:
        here = model.disk_bytes is not None
        table.add_row(
            model.name,
            "vectors" if model.embeds else "text",
            model.licence or "?",
            f"{model.context_tokens:,}" if model.context_tokens else "?",
            _gib(model.disk_bytes) if model.disk_bytes is not None else "-",
            ("yes" if model.fits else "no") if here else "?",
        )
    Console().print(table)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"
