"""Does anything that makes answers faster change them?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/exactness.py
Prints: a table of equal answers, and one JSON object as its last line.

Method. One hundred prompts, a quarter of them under each of three schemas of DSPy programs and a
quarter free, are answered greedily by engines over the same weights:

    stepwise       one request at a time, one token per pass, nothing cached: the reference
    fast_forward   forced tokens are not sampled
    lookup         the same, and tokens are guessed from prompt and text
    prefix_cache   as stepwise, with the prompts' common beginnings reused
    batching       as stepwise, 16 requests at a time
    all            everything together, as it is by default

An answer is equal where its text and the number of its tokens are. Where one differs, the first
token that does is looked up in the reference: `gaps` are the differences of the two likeliest
tokens' log-probabilities there. In float32 rows of another shape differ by rounding, in the sixth
digit, so that a gap of 1e-4 or less is a tie and a larger one a fault.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from _common import add_count, finish, heading, parser, print_table, say
from _engine import Reply, ask_all, serving, sharing, without_prefix_cache
from _tasks import TASKS, chat_ids, greedy

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import Delta, GenerationRequest

REFERENCE = "stepwise"
BATCH = 16


@dataclass(frozen=True, slots=True)
class Arm:
    """An engine's settings, and how many requests it gets at a time."""

    config: EngineConfig
    num_at_once: int = 1


ARMS = {
    REFERENCE: Arm(without_prefix_cache(fast_forward=False)),
    "fast_forward": Arm(without_prefix_cache(prompt_lookup=False)),
    "lookup": Arm(without_prefix_cache()),
    "prefix_cache": Arm(EngineConfig(fast_forward=False)),
    "batching": Arm(without_prefix_cache(fast_forward=False), BATCH),
    "all": Arm(EngineConfig(), BATCH),
}


def make_requests(loaded: LoadedModel, count: int, max_tokens: int) -> list[GenerationRequest]:
    """Requests of the three tasks and of free text, by turns."""
    requests = []
    kinds = [*TASKS.values(), None]
    for number in range(count):
        row, kind = number // len(kinds), kinds[number % len(kinds)]
        if kind is not None:
            prompt = kind.prompt(loaded.tokenizer, row)
            requests.append(greedy(prompt, max_tokens, kind.constraint))
        else:
            question = TASKS["chain_of_thought"].user(row)
            requests.append(
                greedy(chat_ids(loaded.tokenizer, "Answer at length.", question), max_tokens)
            )
    return requests


def answer(
    engine: Engine[LoadedModel], requests: Sequence[GenerationRequest], num_at_once: int
) -> list[Reply]:
    """Replies in the order of the requests."""
    starts = range(0, len(requests), num_at_once)
    parts = [requests[start : start + num_at_once] for start in starts]
    return [reply for part in parts for reply in ask_all(engine, part)]


def is_equal(reply: Reply, expected: Reply) -> bool:
    """Text and number of tokens agree."""
    return reply.text == expected.text and reply.num_tokens == expected.num_tokens


def gap(engine: Engine[LoadedModel], request: GenerationRequest, other: str) -> float:
    """How much likelier the reference's token was where `other` leaves its text."""
    text = b""
    for event in engine.submit(replace(request, num_top_logprobs=2)):
        for logprob in event.logprobs if isinstance(event, Delta) else ():
            text += logprob.token_bytes
            if not other.encode().startswith(text):
                first, second = (entry[2] for entry in logprob.top)
                return first - second
    return 0.0  # one text is the beginning of the other


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown."""
    print_table(
        ("arm", "equal answers", "gaps where they differ", "seconds"),
        (
            (
                arm,
                f"{found['equal']} of {result['options']['prompts']}",
                ", ".join(f"{gap:.1g}" for gap in found["gaps"]) or "-",
                found["seconds"],
            )
            for arm, found in result["arms"].items()
        ),
    )


def main() -> None:
    """Answer, compare, print the table, print the JSON line."""
    options = parser(__doc__)
    add_count(options, "--prompts", 100, "how many")
    add_count(options, "--tokens", 64, "longest answer")
    options.set_defaults(repeats=1)
    given = options.parse_args()
    with ExitStack() as stack:
        reference = stack.enter_context(serving(given.model, ARMS[REFERENCE].config))
        loaded = reference.model()
        requests = make_requests(loaded, given.prompts, given.tokens)
        replies: dict[str, list[Reply]] = {}
        arms: dict[str, dict[str, Any]] = {}
        for name, arm in ARMS.items():
            with ExitStack() as own:
                engine = reference
                if name != REFERENCE:
                    engine = own.enter_context(sharing(reference, arm.config))
                start_s = time.perf_counter()
                replies[name] = answer(engine, requests, arm.num_at_once)
                seconds = time.perf_counter() - start_s
            differing = [
                gap(reference, request, reply.text)
                for request, reply, expected in zip(
                    requests, replies[name], replies[REFERENCE], strict=True
                )
                if not is_equal(reply, expected)
            ]
            arms[name] = {
                "equal": len(requests) - len(differing),
                "gaps": differing,
                "seconds": round(seconds, 1),
            }
            say(f"{name}: {arms[name]}", quiet=given.json)
        result = heading("exactness", loaded, given) | {"arms": arms}
    if not given.json:
        show(result)
    finish(result, given)


if __name__ == "__main__":
    main()
