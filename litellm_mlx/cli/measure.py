"""Requests through LiteLLM, as any program sends them, and what they took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from litellm_mlx.cli.common import usage_errors

if TYPE_CHECKING:
    from litellm_mlx.models.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Measured:
    """What requests that were sent at once gave, and what they took, all together.

    Attributes:
        texts: of the answers.
        prefilled_tokens: of the prompts; what was cached is not among them.
        completion_tokens: of the answers.
        forced_tokens: those of them that the schema left no choice about.
        passes: of the model while it decoded; one may give tokens to several answers.
        prefill_s: of all prompts, one after another.
        decode_s: of the answer that took longest.
        total_s: from the first request to the last answer.
    """

    texts: tuple[str, ...]
    prefilled_tokens: int
    completion_tokens: int
    forced_tokens: int
    passes: int
    prefill_s: float
    decode_s: float
    total_s: float

    @property
    def decode_tokens_per_s(self) -> float:
        """Of one answer, whose first token comes of the prompt's last pass."""
        return (self.completion_tokens - 1) / self.decode_s

    @property
    def forced_share(self) -> float:
        """Of the answers' tokens."""
        return self.forced_tokens / self.completion_tokens

    @property
    def passes_per_token(self) -> float:
        """1 where each token takes a pass of its own."""
        return self.passes / self.completion_tokens


def load(model: str) -> LoadedModel:
    """Load a model, with or without `mlx/`, and say so; its errors are click's."""
    import litellm_mlx

    click.echo(f"loading {model} ...", err=True)  # no spinner: fetching shows a bar of its own
    with usage_errors():
        litellm_mlx.load(model)
        return litellm_mlx.handler.registry.engine(model.removeprefix("mlx/")).model()


def ask(model: str, requests: Sequence[dict[str, Any]]) -> Measured:
    """Send requests to a model that is loaded, at once, each on a thread of its own.

    Args:
        model: with or without `mlx/`.
        requests: arguments of `litellm.completion` beside it.

    Raises:
        click.ClickException: what LiteLLM raised, as one line.
    """
    import litellm
    import openai

    from litellm_mlx.register import handler
    from litellm_mlx.translate.response import TIMINGS_KEY

    bare = model.removeprefix("mlx/")
    engine = handler.registry.engine(bare)
    before, start_s = engine.stats(), time.perf_counter()
    try:
        with ThreadPoolExecutor(len(requests)) as threads:
            answers: list[Any] = list(
                threads.map(lambda request: litellm.completion(f"mlx/{bare}", **request), requests)
            )
    except openai.APIError as error:  # the root of LiteLLM's
        raise click.ClickException(str(error)) from error
    total_s, after = time.perf_counter() - start_s, engine.stats()
    usages = [answer.usage for answer in answers]
    timings = [answer._hidden_params[TIMINGS_KEY] for answer in answers]
    return Measured(
        texts=tuple(answer.choices[0].message.content for answer in answers),
        prefilled_tokens=sum(
            usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens for usage in usages
        ),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        forced_tokens=after.num_forced_tokens - before.num_forced_tokens,
        passes=after.num_passes - before.num_passes,
        prefill_s=sum(timing.prefill_s for timing in timings),
        decode_s=max(timing.decode_s for timing in timings),
        total_s=total_s,
    )
