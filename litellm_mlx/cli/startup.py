"""`litellm-mlx enable`, `disable`, `status` and `run`: `mlx/` without an import."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import click

from litellm_mlx.cli.common import as_json_option
from litellm_mlx.startup.environment import HookFiles, environment_with_hook


@click.command()
def enable() -> None:
    """Let every program of this environment use mlx/ without an import.

    Writes two files into site-packages, which Python reads at start; "disable" removes them.
    """
    files = HookFiles.here()
    files.enable()
    click.echo(f"enabled: {files.line}\n         {files.hook}")


@click.command()
def disable() -> None:
    """Take back what "enable" did."""
    HookFiles.here().disable()
    click.echo("disabled")


@click.command()
@as_json_option
def status(as_json: bool) -> None:
    """Say whether programs of this environment know mlx/ without an import."""
    files = HookFiles.here()
    found = {"enabled": files.is_enabled, "files": [str(files.line), str(files.hook)]}
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("enabled" if files.is_enabled else "not enabled")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(context: click.Context, program: tuple[str, ...]) -> None:
    """Run PROGRAM, which then knows mlx/ without an import: litellm-mlx run -- python app.py."""
    with tempfile.TemporaryDirectory(prefix="litellm-mlx-") as folder:
        environ = environment_with_hook(dict(os.environ), Path(folder))
        try:
            context.exit(subprocess.run(program, env=environ, check=False).returncode)
        except FileNotFoundError as error:
            raise click.UsageError(f"no program {program[0]!r}") from error
