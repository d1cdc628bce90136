"""How soon does the second call of a DSPy program begin, when its demos are already in the cache?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/prefix.py
Prints: a table of times to the first token, and one JSON object as its last line.

Method. Prompts are those of a DSPy program with 4 demos, as dspy.ChatAdapter writes them; every
repeat has a program of its own, whose very first field description no other has, so that nothing
of it is cached. Per repeat, one after the other, greedy free text:

    cold   the program's first call
    warm   its second call, with another text: instructions and demos are shared
    again  the second call once more: all but the last token is shared
    chat   that call's answer and a further question: the next turn of a conversation
    off    a first call with the prefix cache off, on the same weights

Time to the first token is the caller's, from submit to the first text. What was really prefilled is
counted by the engine: for n = 8 completions of one new prompt, and for 8 calls of one new program
that come at once, beside the tokens of their prompts. Ratios are taken within a repeat. The text of
the warm call is compared with that of the engine without a prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from _common import (
    Spread,
    add_count,
    add_plot,
    finish,
    heading,
    over,
    parser,
    print_table,
    say,
)
from _engine import Reply, Work, ask, ask_all, serving, sharing, without_prefix_cache
from _plots import Bar, bars
from _tasks import NAMES, PLACES, endless

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import GenerationRequest

ARMS = ("cold", "warm", "again", "chat", "off")
LABELS = {
    "off": "prefix cache off",
    "cold": "first call",
    "warm": "second call, another text",
    "again": "the same call again",
    "chat": "next turn of a chat",
}
FACTS = (
    "was born in {place} and studied there for {years} years before the first paper appeared.",
    "wrote many letters to {other}, and most of them are kept in a library in {place} today.",
    "won a prize {years} years later and gave the money to a school for children in {place}.",
    "said once that a question is worth more than its answer, and {other} did not agree at all.",
)


class Summarise(dspy.Signature):
    """Say in one sentence what the text is about, who is in it, and where it takes place.

    Keep to what the text says. Do not add what you know from elsewhere, and leave out the years.
    """

    text: str = dspy.InputField()
    people: list[str] = dspy.OutputField(desc="everyone that the text names, in order")
    summary: str = dspy.OutputField(desc="one sentence of at most twenty words")


def story(number: int) -> str:
    """A text of four sentences."""
    name, other = NAMES[number % len(NAMES)], NAMES[(number + 3) % len(NAMES)]
    place = PLACES[number % len(PLACES)]
    facts = [fact.format(place=place, other=other, years=number % 7 + 2) for fact in FACTS]
    return " ".join(f"{name} {fact}" for fact in facts)


class Program:
    """Prompts of one DSPy program with demos.

    Args:
        number: makes it unlike every other program, from its first line on.
        loaded: whose chat template.
        num_demos: answered examples in the prompt.
    """

    def __init__(self, number: int, loaded: LoadedModel, num_demos: int) -> None:
        self._tokenizer = loaded.tokenizer
        self._signature = Summarise.with_updated_fields("text", desc=f"text {number} of the series")
        self._demos = [
            {
                "text": story(100 * number + demo),
                "people": [NAMES[demo], NAMES[demo + 3]],
                "summary": f"{NAMES[demo]} studied, won a prize and wrote letters to a friend.",
            }
            for demo in range(num_demos)
        ]

    def messages(self, call: int) -> list[dict[str, Any]]:
        """The chat of one call."""
        inputs = {"text": f"{NAMES[call % len(NAMES)]} lives in {PLACES[call % len(PLACES)]}."}
        return list(dspy.ChatAdapter().format(self._signature, self._demos, inputs))

    def prompt(self, call: int, turns: Sequence[dict[str, str]] = ()) -> tuple[int, ...]:
        """The token ids of one call, with further turns behind it."""
        chat = [*self.messages(call), *turns]
        if not self._tokenizer.has_chat_template:
            text = "\n\n".join(message["content"] for message in chat)
            return tuple(self._tokenizer.encode(text))
        return tuple(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True))


@dataclass(frozen=True, slots=True)
class Sample:
    """One program's calls."""

    first_token_s: dict[str, float]
    cached: dict[str, int]
    prompt_tokens: dict[str, int]
    is_text_equal: bool
    n8_prefilled: float  # over the tokens of one prompt
    together_prefilled: float  # over the tokens of all prompts


class Bench:
    """Programs, one after the other, on an engine and on the same one without a prefix cache."""

    def __init__(
        self,
        engine: Engine[LoadedModel],
        uncached: Engine[LoadedModel],
        *,
        num_demos: int,
        num_tokens: int,
        num_together: int,
    ) -> None:
        self.loaded = engine.model()
        self._engine = engine
        self._uncached = uncached
        self._num_demos = num_demos
        self._num_tokens = num_tokens
        self._num_together = num_together
        self._num_programs = 0

    def program(self) -> Program:
        """A program that nothing has seen."""
        self._num_programs += 1
        return Program(self._num_programs, self.loaded, self._num_demos)

    def measure(self) -> Sample:
        """All calls of one repeat."""
        program = self.program()
        off = ask(self._uncached, self._request(program.prompt(1)))
        cold = ask(self._engine, self._request(program.prompt(0)))
        warm = ask(self._engine, self._request(program.prompt(1)))
        again = ask(self._engine, self._request(program.prompt(1)))
        turns = [
            {"role": "assistant", "content": again.text},
            {"role": "user", "content": "Now say it in three words."},
        ]
        chat = ask(self._engine, self._request(program.prompt(1, turns)))
        replies = {"cold": cold, "warm": warm, "again": again, "chat": chat, "off": off}
        return Sample(
            {arm: reply.first_token_s for arm, reply in replies.items()},
            {arm: reply.usage.cached_tokens for arm, reply in replies.items()},
            {arm: reply.usage.prompt_tokens for arm, reply in replies.items()},
            is_text_equal=off.text == warm.text == again.text,
            n8_prefilled=self._prefilled([self._request(self.program().prompt(0), n=8)]),
            together_prefilled=self._prefilled(self._together()),
        )

    def _together(self) -> list[GenerationRequest]:
        program = self.program()
        return [self._request(program.prompt(call)) for call in range(self._num_together)]

    def _prefilled(self, requests: list[GenerationRequest]) -> float:
        """Tokens prefilled for requests that come at once, over those of their prompts."""
        before = self._engine.stats()
        replies: list[Reply] = ask_all(self._engine, requests)
        work = Work.between(before, self._engine.stats())
        return work.num_prefilled_tokens / sum(reply.usage.prompt_tokens for reply in replies)

    def _request(self, prompt: tuple[int, ...], n: int = 1) -> GenerationRequest:
        request = endless(prompt, self._num_tokens, self.loaded.stop_token_ids)
        return GenerationRequest(prompt, self._num_tokens, request.sampling, n=n)


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """The figures of all repeats."""
    times_s = {arm: [sample.first_token_s[arm] for sample in samples] for arm in ARMS}
    last = samples[-1]
    return {
        "prompt_tokens": last.prompt_tokens,
        "cached_tokens": last.cached,
        "shared": {arm: round(last.cached[arm] / last.prompt_tokens[arm], 3) for arm in ARMS},
        "time_to_first_token_ms": {
            arm: Spread.of([1e3 * time_s for time_s in times_s[arm]]).as_json(1) for arm in ARMS
        },
        "ratios": {
            f"{arm} over cold": over(times_s[arm], times_s["cold"]).as_json() for arm in ARMS[1:]
        },
        "prefilled_share": {
            "n of 8": Spread.of([sample.n8_prefilled for sample in samples]).as_json(),
            "calls at once": Spread.of([sample.together_prefilled for sample in samples]).as_json(),
        },
        "text_is_equal": all(sample.is_text_equal for sample in samples),
    }


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    print_table(
        ("call", "prompt tokens", "cached", "first token ms", "over cold"),
        (
            (
                LABELS[arm],
                result["prompt_tokens"][arm],
                f"{result['shared'][arm]:.1%}",
                f"{Spread(**result['time_to_first_token_ms'][arm]):.0f}",
                "-" if arm == "cold" else f"{Spread(**result['ratios'][f'{arm} over cold']):.3f}",
            )
            for arm in ARMS
        ),
    )
    for name, share in result["prefilled_share"].items():
        print(f"prefilled of the prompts' tokens, {name}: {Spread(**share):.3f}")
    print(f"same text with and without the cache: {result['text_is_equal']}\n")


def plot(result: dict[str, Any], path: Path) -> None:
    """Time to the first token, cold and warm."""
    times_ms = result["time_to_first_token_ms"]
    shown = ("cold", "warm", "again", "chat")
    gain = 1 / result["ratios"]["warm over cold"]["median"]
    tokens = result["prompt_tokens"]["cold"]
    bars(
        path,
        f"The second call of a DSPy program begins {gain:.1f} times sooner",
        [
            (
                f"time to the first token, 4 demos, {tokens:,} tokens",
                [Bar(LABELS[arm], times_ms[arm]["median"], arm != "cold") for arm in shown],
            )
        ],
        "ms",
    )


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    add_count(options, "--demos", 4, "answered examples in the prompt")
    add_count(options, "--tokens", 8, "length of every completion")
    add_count(options, "--together", 8, "calls of one program that come at once")
    options.set_defaults(repeats=5)
    given = options.parse_args()
    with ExitStack() as stack:
        engine = stack.enter_context(serving(given.model, EngineConfig()))
        uncached = stack.enter_context(sharing(engine, without_prefix_cache()))
        bench = Bench(
            engine,
            uncached,
            num_demos=given.demos,
            num_tokens=given.tokens,
            num_together=given.together,
        )
        samples = []
        for repeat in range(given.repeats + 1):  # the first is the warm-up
            samples.append(bench.measure())
            say(f"{repeat}/{given.repeats} {samples[-1].first_token_s}", quiet=given.json)
        result = heading("prefix", bench.loaded, given) | summarise(samples[1:])
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
