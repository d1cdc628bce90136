"""`litellm-mlx serve`: LiteLLM's proxy with local models in it."""

from __future__ import annotations

from pathlib import Path

import click

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.serving.run import ServeOptions
from litellm_mlx.serving.run import serve as run_proxy


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4000, show_default=True)
@click.option("--max-body-mb", default=10.0, show_default=True, help="Of a request.")
@click.option("--strict", is_flag=True, help="Refuse hints that this model cannot follow.")
@click.option(
    "--preload/--no-preload", default=True, help="Load the first model at once (the default)."
)
def serve(
    models: tuple[str, ...],
    config: Path | None,
    host: str,
    port: int,
    max_body_mb: float,
    strict: bool,
    preload: bool,
) -> None:
    """Serve MODELs through LiteLLM's proxy: the OpenAI and Anthropic APIs, with one key.

    A MODEL is what stands behind mlx/, or NAME=MODEL to call it NAME. Clients can use these and no
    others. --config takes a LiteLLM proxy configuration of your own instead.

    The key is LITELLM_MASTER_KEY; where that is not set, one is made up and printed.
    """
    if bool(models) == (config is not None):
        raise click.UsageError("name one or more models, or a file by --config")
    options = ServeOptions(models, config, host, port, max_body_mb, preload, strict)
    try:
        run_proxy(options)
    except ImportError as error:
        raise click.ClickException(f"{error}; pip install 'litellm-mlx[proxy]'") from error
    except LiteLLMMLXError as error:
        raise click.UsageError(str(error)) from error
