"""`litellm-mlx schema`: how a schema would be enforced."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import IO

import click

from litellm_mlx.cli.common import as_json_option
from litellm_mlx.grammar.explain import SchemaReport, explain_schema

REFUSED = 1


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@as_json_option
@click.pass_context
def schema(context: click.Context, file: IO[str], as_json: bool) -> None:
    """Say how the JSON schema in FILE would be enforced ("-" reads standard input).

    Exits with 0 if it would be, with 1 if it would be refused, and with 2 if FILE holds no JSON.
    """
    try:
        value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from error
    report = explain_schema(value)
    click.echo(json.dumps(asdict(report)) if as_json else _readable(report))
    if report.tier == "refused":
        context.exit(REFUSED)


def _readable(report: SchemaReport) -> str:
    lines = [f"tier: {report.tier}" + (f" ({report.reason})" if report.reason else "")]
    width = max((len(item.pointer) for item in report.keywords), default=0)
    for item in report.keywords:
        why = f": {item.reason}" if item.reason else ""
        lines.append(f"  {item.pointer:{width}}  {item.enforced}{why}")
    return "\n".join(lines)
