"""Would a draft model make answers faster here?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/draft.py [--draft NAME]
Prints: a table of speeds, and one JSON object as its last line.

Method. mlx-lm's own speculative decoding: a draft model writes K tokens, the model verifies them in
one pass. It completes the prompts of three DSPy programs greedily in free text, without a draft and
with K of 2 and 4; ratios are taken within a repeat. The draft is a model with the same tokenizer,
or, where none is named, the first layers of the model itself under its own output head, as in
early-exit drafting. `ceiling` is what pass times alone allow: the ratio if every draft were right,
from passes of 1 and of K + 1 tokens of the model and of 1 of the draft over the same prompt.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from _common import (
    Spread,
    add_count,
    finish,
    heading,
    over,
    parser,
    print_table,
    take_turns,
)
from _tasks import TASKS

from litellm_mlx.config import EngineConfig
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name

DRAFTS = (0, 2, 4)
NUM_PASSES = 9  # whose median is a pass's time


@dataclass(frozen=True, slots=True)
class Sample:
    """All prompts, completed once."""

    tokens_per_s: float
    right_share: float  # of the tokens, those that were drafted
    texts: tuple[tuple[int, ...], ...]


class Bench:
    """A model and its draft, on one thread.

    Args:
        loaded: the model.
        draft: with the same tokenizer.
        num_tokens: of each answer; stop tokens are switched off.
    """

    def __init__(self, loaded: LoadedModel, draft: Any, num_tokens: int) -> None:
        self._model = loaded.model
        self._draft = draft
        self._tokenizer = copy.copy(loaded.tokenizer)
        self._tokenizer.eos_token_ids = ()
        self._num_tokens = num_tokens
        self._prompts = [task.prompt(loaded.tokenizer) for task in TASKS.values()]

    def measure(self, num_drafted: int) -> Sample:
        """Complete every prompt."""
        answers = [self._complete(prompt, num_drafted) for prompt in self._prompts]
        num_right = sum(right for _, right, _ in answers)
        num_tokens = len(answers) * self._num_tokens
        decode_s = sum(seconds for seconds, _, _ in answers)
        return Sample(
            (num_tokens - len(answers)) / decode_s,
            num_right / num_tokens,
            tuple(text for _, _, text in answers),
        )

    def _complete(
        self, prompt: Sequence[int], num_drafted: int
    ) -> tuple[float, int, tuple[int, ...]]:
        """Seconds after the first token, drafted tokens that were right, and all tokens."""
        from mlx_lm import stream_generate

        options: dict[str, Any] = {}
        if num_drafted:
            options = {"draft_model": self._draft, "num_draft_tokens": num_drafted}
        times_s, tokens, num_right = [], [], 0
        for reply in stream_generate(
            self._model, self._tokenizer, list(prompt), max_tokens=self._num_tokens, **options
        ):
            times_s.append(time.perf_counter())
            tokens.append(reply.token)
            num_right += reply.from_draft
        return times_s[-1] - times_s[0], num_right, tuple(tokens)

    def ceiling(self, num_drafted: int) -> float:
        """The ratio if every drafted token were right."""
        one_s = self._pass_s(self._model, 1)
        draft_s = self._pass_s(self._draft, 1)
        verify_s = self._pass_s(self._model, num_drafted + 1)
        return (num_drafted + 1) * one_s / (num_drafted * draft_s + verify_s)

    def _pass_s(self, model: Any, width: int) -> float:
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

        prompt = mx.array([self._prompts[0]])
        cache = make_prompt_cache(model)
        mx.eval(model(prompt, cache=cache))
        times_s = []
        for _ in range(NUM_PASSES):
            start_s = time.perf_counter()
            mx.eval(model(prompt[:, :width], cache=cache))
            times_s.append(time.perf_counter() - start_s)
            trim_prompt_cache(cache, width)
        return statistics.median(times_s)


def first_layers(model: Any, count: int) -> Any:
    """The model with its first layers only; the weights are shared."""
    draft = copy.copy(model)
    draft.model = copy.copy(model.model)
    draft.model.layers = model.model.layers[:count]
    return draft


def load(name: str) -> LoadedModel:
    """A model by the name that the provider takes."""
    return load_model(parse_model_name(name.removeprefix("mlx/")), EngineConfig())


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown."""
    print_table(
        ("drafted", "tokens/s", "right", "over no draft", "ceiling", "same tokens"),
        (
            (
                name,
                f"{Spread(**arm['tokens_per_s']):.1f}",
                f"{arm['right_share']:.0%}",
                f"{Spread(**arm['over_no_draft']):.3f}",
                f"{arm['ceiling']:.2f}",
                arm["texts_are_equal"],
            )
            for name, arm in result["arms"].items()
        ),
    )


def measure(given: Any) -> dict[str, Any]:
    """Load, measure, summarise."""
    loaded = load(given.model)
    draft = load(given.draft).model if given.draft else first_layers(loaded.model, given.layers)
    bench = Bench(loaded, draft, given.tokens)
    arms = {str(count): partial(bench.measure, count) for count in DRAFTS}
    take_turns(arms, 1, quiet=True)  # the warm-up
    samples = take_turns(arms, given.repeats, quiet=given.json)
    speeds = {name: [sample.tokens_per_s for sample in found] for name, found in samples.items()}
    return heading("draft", loaded, given) | {
        "arms": {
            name: {
                "tokens_per_s": Spread.of(speeds[name]).as_json(1),
                "right_share": round(samples[name][-1].right_share, 3),
                "over_no_draft": over(speeds[name], speeds["0"]).as_json(),
                "ceiling": round(bench.ceiling(int(name)), 2),
                "texts_are_equal": samples[name][-1].texts == samples["0"][-1].texts,
            }
            for name in arms
        }
    }


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    options.add_argument("--draft", help="a model with the same tokenizer, name without mlx/")
    add_count(options, "--layers", 10, "of the model that draft, where no draft is named")
    add_count(options, "--tokens", 64, "length of every answer")
    options.set_defaults(repeats=3)
    given = options.parse_args()
    # Not on the main thread, see `MLXLM` in `_engine`.
    with ThreadPoolExecutor(1, "mlx-lm") as thread:
        result = thread.submit(measure, given).result()
    if not given.json:
        show(result)
    finish(result, given)


if __name__ == "__main__":
    main()
