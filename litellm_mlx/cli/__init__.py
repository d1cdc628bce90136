"""The command `litellm-mlx`: each group of commands has a module."""

from __future__ import annotations

import click

from litellm_mlx.cli import bench, chat, demo, doctor, models, schema, serve, startup


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="litellm-mlx")
def main() -> None:
    """Local MLX models behind LiteLLM's mlx/ prefix."""


for command in (
    demo.demo,
    serve.serve,
    models.models,
    chat.chat,
    schema.schema,
    bench.bench,
    doctor.doctor,
    startup.enable,
    startup.disable,
    startup.status,
    startup.run,
):
    main.add_command(command)
