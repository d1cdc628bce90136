"""`litellm-mlx chat`: a conversation in the terminal."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.argument("model")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of an answer.")
@click.option("--temperature", type=click.FloatRange(0, 2))
def chat(model: str, system: str | None, max_tokens: int | None, temperature: float | None) -> None:
    """Talk to MODEL. An empty line or Ctrl-D ends it, Ctrl-C an answer."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    given = {"max_tokens": max_tokens, "temperature": temperature}
    options = {name: value for name, value in given.items() if value is not None}
    while question := _ask():
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": _answer(model, messages, options)})


def _ask() -> str:
    try:
        return str(click.prompt("you", prompt_suffix="> ", default="", show_default=False))
    except click.Abort:
        return ""


def _answer(model: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    """Print an answer as it comes; what there was of it when it was stopped."""
    import litellm
    import openai

    import litellm_mlx  # noqa: F401  # registers mlx/

    text = ""
    try:
        stream: Any = litellm.completion(
            f"mlx/{model.removeprefix('mlx/')}", messages, stream=True, **options
        )
        for chunk in stream:
            piece = chunk.choices[0].delta.content or ""
            text += piece
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        pass
    except openai.APIError as error:  # the root of LiteLLM's
        raise click.ClickException(str(error)) from error
    click.echo()
    return text
