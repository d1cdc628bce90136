"""State of one running completion: its tokens, its guide and the text that came of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from litellm_mlx.engine.budget import Budget
from litellm_mlx.engine.lookup import PromptLookup
from litellm_mlx.engine.stream import Channel
from litellm_mlx.engine.text import TextDecoder, TextPiece
from litellm_mlx.errors import BudgetError, LiteLLMMLXError
from litellm_mlx.grammar.runaway import StringWatch, keep_closing
from litellm_mlx.grammar.thinking import ThinkingGuide
from litellm_mlx.types import (
    Delta,
    Done,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Timings,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from litellm_mlx.grammar.guide import Bitmask, Guide

# One sampled token and those that it forces; of a row beside others, more wait for the next pass.
MAX_TOKENS_PER_PASS = 64


@dataclass(slots=True, eq=False)
class RunningRequest:
    """One accepted request: its sequences, its channel and its counters. Owned by the worker."""

    request: GenerationRequest
    channel: Channel
    sequences: list[Sequence] = field(default_factory=list)
    num_prefilled: int = 0
    num_left_to_decoding: int = 1  # of the prompt's tokens: its last, or more, see `PrefillBatch`
    num_cached: int = 0
    submitted_s: float = field(default_factory=time.monotonic)
    accepted_s: float | None = None
    admitted_s: float | None = None
    prefilled_s: float | None = None
    first_token_s: float | None = None
    # While it waits: sequences that were admitted before it, and whose prefix it waits for.
    num_overtaken: int = 0
    waits_for: RunningRequest | None = None

    @classmethod
    def resuming(cls, sequence: Sequence) -> RunningRequest:
        """What brings a sequence that left the batch back into it: all its tokens as a prompt."""
        running = sequence.running
        tokens = (*running.request.prompt_token_ids, *sequence.token_ids)
        sequence.waiting_token_ids = list(tokens[-1:])
        request = replace(running.request, prompt_token_ids=tokens, n=1)
        return cls(request, running.channel, [sequence])

    def fail(self, error: LiteLLMMLXError) -> None:
        """Tell the caller that nothing more will come."""
        self.channel.put(error)

    def note_prefilled(self, now_s: float) -> None:
        """The model has seen the prompt; what is said later does not count."""
        self.prefilled_s = self.prefilled_s or now_s

    @property
    def is_expired(self) -> bool:
        """The deadline has passed."""
        deadline_s = self.request.deadline_s
        return deadline_s is not None and time.monotonic() > deadline_s

    @property
    def is_done(self) -> bool:
        """Every completion has ended."""
        return all(sequence.finish_reason is not None for sequence in self.sequences)

    def done(self) -> Done:
        """The closing event, with what the request cost."""
        usage = Usage(
            prompt_tokens=len(self.request.prompt_token_ids),
            completion_tokens=sum(len(s.token_ids) for s in self.sequences),
            reasoning_tokens=sum(s.num_reasoning_tokens for s in self.sequences),
            cached_tokens=self.num_cached,
        )
        num_forced_tokens = sum(s.num_forced_tokens for s in self.sequences)
        return Done(
            usage,
            self._timings(),
            num_forced_tokens=num_forced_tokens,
            submitted_s=self.submitted_s,
        )

    def _timings(self) -> Timings:
        now_s, start_s = time.monotonic(), self.submitted_s
        accepted_s = self.accepted_s or start_s
        admitted_s = self.admitted_s or accepted_s
        prefilled_s = self.prefilled_s or admitted_s
        return Timings(
            queue_s=admitted_s - accepted_s,
            time_to_first_token_s=(self.first_token_s or now_s) - start_s,
            total_s=now_s - start_s,
            compile_s=accepted_s - start_s,
            prefill_s=prefilled_s - admitted_s,
            decode_s=now_s - prefilled_s,
            mask_s=sum(s.mask_s for s in self.sequences),
        )


class Sequence:
    """One completion in the engine: takes tokens, gives events, knows when it has ended.

    Args:
        running: the request that it belongs to.
        index: which of the request's `n` completions it is.
        guide: cursor over the constraint's index, or `None`.
        decoder: turns token bytes into text.
        token_bytes: the bytes that a token adds to the text.
        stop_token_ids: the model's stop tokens.
        budget: sees to it that a constrained text can end; `None` where nothing is constrained.
        strings: keeps the strings of a constrained text from running away.
        fast_forwards: tokens that must come next are taken without asking the model.
        looks_up: tokens are guessed; only where it fast-forwards, and under a constraint.
    """

    __slots__ = (
        "_budget",
        "_choices",
        "_decoder",
        "_fast_forwards",
        "_held_logprobs",
        "_looks_up",
        "_lookup",
        "_num_looked_up",
        "_stop_token_ids",
        "_strings",
        "_token_bytes",
        "finish_reason",
        "guide",
        "index",
        "mask_s",
        "num_forced_tokens",
        "num_reasoning_tokens",
        "running",
        "token_ids",
        "waiting_token_ids",
    )

    def __init__(
        self,
        running: RunningRequest,
        index: int,
        *,
        guide: Guide | None,
        decoder: TextDecoder,
        token_bytes: Callable[[int], bytes],
        stop_token_ids: frozenset[int],
        budget: Budget | None = None,
        strings: StringWatch | None = None,
        fast_forwards: bool = True,
        looks_up: bool = False,
    ) -> None:
        self.running = running
        self.index = index
        self.guide = guide
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.num_reasoning_tokens = 0
        self.num_forced_tokens = 0
        self.mask_s = 0.0
        # Tokens that the model has not seen yet: first the prompt's last one.
        self.waiting_token_ids = list(running.request.prompt_token_ids[-1:])
        self._fast_forwards = fast_forwards and not running.request.raw_logprobs
        self._decoder = decoder
        self._token_bytes = token_bytes
        self._stop_token_ids = stop_token_ids
        self._budget = budget
        self._strings = strings
        self._held_logprobs: list[TokenLogprob] = []
        self._looks_up = looks_up
        self._lookup: PromptLookup | None = None
        self._num_looked_up = 0  # tokens of the completion that `_lookup` has
        self._choices: list[int] = []  # places in the last guess that nothing forces

    @property
    def request(self) -> GenerationRequest:
        """What the caller asked."""
        return self.running.request

    @property
    def ends_with_next_token(self) -> bool:
        """Whatever the next token is, it is the last."""
        return len(self.token_ids) + 1 >= self.request.max_tokens

    @property
    def must_be_read(self) -> bool:
        """What comes after its next token may depend on that token's value."""
        return self.guide is not None and self._fast_forwards

    @property
    def can_guess(self) -> bool:
        """Its next tokens may be guessed."""
        return self._looks_up and self.must_be_read

    @property
    def is_ready(self) -> bool:
        """The model has seen all tokens so far: the next one can be drawn."""
        return not self.waiting_token_ids

    def take_waiting(self, at_most: int) -> list[int]:
        """Hand over the next tokens for the model."""
        taken = self.waiting_token_ids[:at_most]
        del self.waiting_token_ids[:at_most]
        return taken

    def guess(self, at_most: int, *, is_alone: bool) -> list[int]:
        """Tokens that may come next; the guide allows them.

        Args:
            at_most: how many.
            is_alone: nobody else waits for the pass that takes them.
        """
        if not self.can_guess:
            return []
        assert self.guide is not None
        if self._lookup is None:
            self._lookup = PromptLookup(self.request.prompt_token_ids)
        self._lookup.extend(self.token_ids[self._num_looked_up :])
        self._num_looked_up = len(self.token_ids)
        guess, max_choices = self._lookup.guess(is_alone=is_alone)
        followed, self._choices = _followed(guess, max_choices, self.guide)
        return followed[: min(at_most, self._num_left - 1)]

    def learn(self, num_right: int, num_guessed: int) -> None:
        """Hear how many of the tokens last guessed came."""
        if self._lookup is None or not num_guessed:
            return
        was_wrong = num_right < num_guessed and num_right in self._choices
        num_choices = sum(place < num_right for place in self._choices)
        self._lookup.learn(num_choices, was_wrong=was_wrong and self.finish_reason is None)

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`. Only for a row that has a guide.

        Raises:
            ConstraintError: see `Guide`.
        """
        assert self.guide is not None
        started_s = time.monotonic()
        self._fill_bitmask(row, self.guide)
        self.mask_s += time.monotonic() - started_s

    def _fill_bitmask(self, row: Bitmask, guide: Guide) -> None:
        guide.fill_bitmask(row)
        if self._strings is not None:
            self._strings.narrow(row, guide)
        if self._budget is not None and self._budget.is_tight(self._num_left):
            place = guide.json_place
            if place is not None and place.is_in_string:
                keep_closing(row, guide.vocabulary)

    def start(self) -> list[Event]:
        """Take the tokens that the text must begin with.

        Raises:
            EngineError, BudgetError: see `accept`.
        """
        return self._fast_forward([])

    def accept(self, token_id: int, logprob: TokenLogprob | None) -> list[Event]:
        """Append a sampled token, and those that must follow it; say what that means.

        Where the text could not be ended any more after it, the known ending comes in its place.

        Raises:
            EngineError: the guide had not allowed the token.
            BudgetError: the text is cut and does not satisfy its constraint.
        """
        return self._fast_forward(self._take(token_id, logprob))

    def _fast_forward(self, events: list[Event]) -> list[Event]:
        """Take what must follow, too."""
        if not self.must_be_read or self.finish_reason is not None:
            return events
        assert self.guide is not None
        for token_id in self.guide.fast_forward():
            self.num_forced_tokens += 1
            events += self._take(token_id, self._certain(token_id))
            if self.finish_reason is not None:
                break
        return events

    def _take(self, token_id: int, logprob: TokenLogprob | None) -> list[Event]:
        self.waiting_token_ids.append(token_id)
        if not self._advance(token_id):
            return self._close()
        if token_id in self._stop_token_ids:
            self.token_ids.append(token_id)
            return self._finish("stop", self._decoder.finish(is_complete=True))
        piece = self._append(token_id, logprob)
        if piece.is_stopped:
            del self._held_logprobs[-1:]  # the token that completed the stop sequence
            return self._finish("stop", piece)
        if self.guide is not None and self.guide.is_finished:
            return self._finish("stop", _join(piece, self._decoder.finish(is_complete=True)))
        if self._num_left == 0:
            return self._finish_cut(piece)
        return self._delta(piece)

    @property
    def _num_left(self) -> int:
        return self.request.max_tokens - len(self.token_ids)

    def _advance(self, token_id: int) -> bool:
        """Move the guide; false where the token leaves no room for an ending."""
        if self.guide is None:
            return True
        if self._budget is not None:
            if not self._budget.admits(self.guide, token_id, self._num_left - 1):
                return False
        self.guide.advance(token_id)
        if self._strings is not None:
            self._strings.add(token_id, self.guide.json_place)
        return True

    def _append(self, token_id: int, logprob: TokenLogprob | None) -> TextPiece:
        """Take a token that the guide has taken."""
        self.token_ids.append(token_id)
        if logprob is not None:
            self._held_logprobs.append(logprob)
        self.num_reasoning_tokens += self._decoder.is_reasoning
        return self._decode(token_id)

    def _close(self) -> list[Event]:
        """Append the known ending, without asking the model."""
        assert self.guide is not None and self._budget is not None
        piece = TextPiece()
        for token_id in self._budget.plan or ():
            self.guide.advance(token_id)
            piece = _join(piece, self._append(token_id, self._certain(token_id, is_only=False)))
        return self._finish_cut(piece, closed_by_budget=True)

    def _certain(self, token_id: int, *, is_only: bool = True) -> TokenLogprob | None:
        """The log-probability of a token that the model was not asked for, if any is wanted.

        With `is_only` nothing else was possible, which leaves no other to list.
        """
        num_top = self.request.num_top_logprobs
        if num_top is None:
            return None
        token = self._token_bytes(token_id)
        return TokenLogprob(
            token_id, token, 0.0, ((token_id, token, 0.0),) if num_top and is_only else ()
        )

    def _finish_cut(self, piece: TextPiece, *, closed_by_budget: bool = False) -> list[Event]:
        """End by the token budget; a constrained text must be complete then.

        Where the engine did not close it, it may still have been cut: free text, for one, may end
        anywhere.
        """
        is_constrained = self._budget is not None
        if is_constrained and self.guide is not None and not self.guide.is_accepting:
            raise BudgetError.cut(len(self.token_ids), self.request.max_tokens)
        tail = self._decoder.finish(is_complete=is_constrained)
        return self._finish("length", _join(piece, tail), closed_by_budget=closed_by_budget)

    def _decode(self, token_id: int) -> TextPiece:
        """The text that a token adds; the end of a thinking block adds none."""
        if isinstance(self.guide, ThinkingGuide) and self.guide.took_end:
            return self._decoder.end_thinking() if self._decoder.is_reasoning else TextPiece()
        return self._decoder.add(self._token_bytes(token_id))

    def _finish(
        self, reason: FinishReason, piece: TextPiece, *, closed_by_budget: bool = False
    ) -> list[Event]:
        self.finish_reason = reason
        finished = Finished(self.index, reason, closed_by_budget, piece.stop_sequence)
        events: list[Event] = [*self._delta(piece), finished]
        if self.running.is_done:
            events.append(self.running.done())
        return events

    def _delta(self, piece: TextPiece) -> list[Event]:
        if not (piece.text or piece.reasoning or self._held_logprobs):
            return []
        logprobs, self._held_logprobs = tuple(self._held_logprobs), []
        return [Delta(self.index, piece.text, piece.reasoning, logprobs)]


def _followed(guess: list[int], max_choices: int, guide: Guide) -> tuple[list[int], list[int]]:
    """A guess with what the grammar forces in it, as far as they agree; where its choices are."""
    if not guess:
        return [], []
    guide = guide.copy()
    followed: list[int] = []
    choices: list[int] = []
    while guess and len(choices) < max_choices and guide.allows(guess[:1]):
        choices.append(len(followed))
        guide.advance(guess[0])
        forced = guide.fast_forward()
        for token_id in forced:
            guide.advance(token_id)
        followed += [guess[0], *forced]
        guess = guess[1:]
        if guess[: len(forced)] != forced[: len(guess)]:
            break
        guess = guess[len(forced) :]
    return followed, choices


def _join(first: TextPiece, second: TextPiece) -> TextPiece:
    stop_sequence = first.stop_sequence or second.stop_sequence
    return TextPiece(first.text + second.text, first.reasoning + second.reasoning, stop_sequence)
