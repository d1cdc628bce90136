"""What the commands share: `--json`, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from litellm_mlx.errors import LiteLLMMLXError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def as_json_option(command: CommandT) -> CommandT:
    """Give a command `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Our errors as click shows them, with exit code 2."""
    try:
        yield
    except LiteLLMMLXError as error:
        raise click.UsageError(str(error)) from error
