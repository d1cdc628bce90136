"""The only code on a model's MLX thread: admit, prefill, decode, emit, fail.

Requests join and leave between steps. The forward pass is dispatched first; tokens are read, events
delivered and token bitmasks filled while it runs; only sampling waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.admission import KVBudget, WaitingRequests, age_of
from litellm_mlx.engine.batch import DecodeBatch, Flight
from litellm_mlx.engine.model import ServedModel
from litellm_mlx.engine.pacing import Load, Pacer
from litellm_mlx.engine.prefill import PrefillBatch
from litellm_mlx.engine.sampling import (
    RowSampler,
    process_rows,
    sample,
    token_ids,
    token_logprobs,
)
from litellm_mlx.engine.sequence import RunningRequest, Sequence
from litellm_mlx.engine.stream import Channel, cancelled_error, timeout_error
from litellm_mlx.errors import LiteLLMMLXError, PromptCacheError
from litellm_mlx.grammar.mask import apply_token_bitmask
from litellm_mlx.kvcache.cost import measure_cost
from litellm_mlx.kvcache.packing import enable_packing
from litellm_mlx.kvcache.prefix_cache import PrefixCache
from litellm_mlx.kvcache.probe import find_batching
from litellm_mlx.kvcache.session_file import read_session, write_session
from litellm_mlx.types import Delta, Event, TokenLogprob

logger = logging.getLogger("litellm_mlx")

# mlx-lm returns the allocator's free buffers to the system at the same interval.
_CLEAR_CACHE_STEPS = 512
# Of the memory beside the weights: caches grow by making a larger copy, and the prefix cache has
# a share of its own.
_KV_BUDGET_SHARE = 0.5
_MIN_KV_BUDGET_BYTES = 128 << 20
# Of the memory beside the weights; the rest is for rows that run, and for the machine.
_PREFIX_CACHE_SHARE = 0.25


@dataclass(slots=True)
class Counts:
    """What a worker has done since it started, see `EngineStats`."""

    num_steps: int = 0
    num_passes: int = 0
    num_prefilled_tokens: int = 0
    num_completion_tokens: int = 0
    num_forced_tokens: int = 0
    num_guessed_tokens: int = 0
    num_right_guesses: int = 0


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A completion that is being written, in numbers only.

    Attributes:
        age_s: since its request was sent.
        prompt_tokens: of its prompt.
        cached_tokens: of these, not prefilled again.
        prefilled_tokens: of these, that the model has seen so far, cached ones included.
        completion_tokens: so far.
        tokens_per_s: of them, since the first one; 0 before.
        is_constrained: it follows a grammar.
    """

    age_s: float
    prompt_tokens: int
    cached_tokens: int
    prefilled_tokens: int
    completion_tokens: int
    tokens_per_s: float
    is_constrained: bool

    @classmethod
    def of(cls, sequence: Sequence, now_s: float, *, is_prefilling: bool = False) -> LiveRow:
        """The numbers of a sequence."""
        running, num_tokens = sequence.running, len(sequence.token_ids)
        prompt_tokens = len(running.request.prompt_token_ids)
        since_s = now_s - (running.first_token_s or now_s)
        return cls(
            age_s=now_s - running.submitted_s,
            prompt_tokens=prompt_tokens,
            cached_tokens=running.num_cached,
            prefilled_tokens=running.num_prefilled if is_prefilling else prompt_tokens,
            completion_tokens=num_tokens,
            tokens_per_s=num_tokens / since_s if since_s > 0 else 0.0,
            is_constrained=sequence.guide is not None,
        )


class Worker:
    """Runs the continuous batch of one model. Its methods are for the engine's thread only.

    Args:
        loaded: the model.
        config: limits of the batch.
    """

    def __init__(self, loaded: ServedModel, config: EngineConfig) -> None:
        self._config = config
        self._loaded = loaded
        # Every accepted request until its last event, in order of arrival, wherever its rows are.
        self._requests: dict[RunningRequest, None] = {}
        self.batching = find_batching(loaded.model)
        logger.info("rows run together: %s", self.batching)
        self._prefixes = PrefixCache(
            loaded.model,
            _prefix_cache_bytes(config, loaded.free_bytes),
            {*loaded.vocabulary.stop_token_ids, *loaded.message_end_ids},
            self.batching,
        )
        self._prefill = PrefillBatch(loaded.model, self._prefixes)
        can_pack = self.batching == "padded" and enable_packing(loaded.model)
        self._decode = DecodeBatch(loaded.model, can_pack=can_pack)
        self.budget = KVBudget(
            _kv_budget_bytes(config, loaded.free_bytes), measure_cost(loaded.model)
        )
        self._waiting = WaitingRequests(
            config.max_batch_size,
            self.budget,
            shared_tokens=self._prefixes.shared_length,
            cached_tokens=self._prefixes.match_length,
        )
        self._pacer = Pacer(config.prefill_step_tokens, config.prefill_pause_steps)
        self._samplers: dict[Sequence, RowSampler] = {}
        self._unstored: Sequence | None = None  # a row whose prompt is not in the prefix cache yet
        self._outbox: dict[Channel, list[Event]] = {}
        self.counts = Counts()

    @property
    def is_idle(self) -> bool:
        """Nothing to do until a request comes."""
        return not (self._waiting or self._prefill.rows or self._decode.rows)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a place in the batch. Any thread may ask: the copy is atomic."""
        return self._waiting.num_sequences

    @property
    def num_live(self) -> int:
        """Sequences in the batch, prefilling ones included. Any thread may ask."""
        return len(self._decode.rows) + sum(len(r.sequences) for r in tuple(self._prefill.rows))

    def live(self) -> list[LiveRow]:
        """What is in the batch now. Any thread may ask."""
        now_s = time.monotonic()
        prefilling = [s for r in tuple(self._prefill.rows) for s in r.sequences]
        rows = [LiveRow.of(s, now_s, is_prefilling=True) for s in prefilling]
        return rows + [LiveRow.of(s, now_s) for s in tuple(self._decode.rows)]

    @property
    def prefill_progress(self) -> tuple[int, int]:
        """Tokens that are through and all, of the prompts under way. Any thread may ask.

        Prompts under way are those that wait and those that are being prefilled.
        """
        prefilling = tuple(self._prefill.rows)
        prompts = [r.request.prompt_token_ids for r in (*prefilling, *self._waiting)]
        return sum(r.num_prefilled for r in prefilling), sum(map(len, prompts))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV caches of all live sequences. Any thread may ask."""
        return self._prefill.num_bytes + self._decode.num_bytes

    @property
    def prefix_bytes(self) -> int:
        """Bytes of the prefix cache. Any thread may ask."""
        return self._prefixes.num_bytes

    def add(self, running: RunningRequest) -> None:
        """Queue an accepted request."""
        self._requests[running] = None
        self._waiting.add(running)

    def resize(self, free_bytes: int) -> None:
        """Keep the caches within another amount of memory, but for what the config fixes.

        Where running rows do not fit any more, the youngest wait until they do.
        """
        self.budget.max_bytes = _kv_budget_bytes(self._config, free_bytes)
        self._prefixes.resize(_prefix_cache_bytes(self._config, free_bytes))

    def save_session(self, key: str, path: Path) -> None:
        """Write what is cached of a session to a file, see `session_file`.

        Raises:
            PromptCacheError: nothing is held of the session, or the file cannot be written.
        """
        session = self._prefixes.session(key)
        if session is None:
            raise PromptCacheError(
                f"nothing is held of prompt_cache_key {key!r}: no request with it has ended here, "
                "or its tokens do not fit into half of prefix_cache_bytes"
            )
        tokens, match = session
        fingerprint = self._loaded.fingerprint
        write_session(path, self._loaded.model, fingerprint, key=key, tokens=tokens, match=match)

    def load_session(self, path: Path) -> str:
        """Take up a session from a file; returns its key.

        Raises:
            PromptCacheError: see `read_session`; or the prefix cache has no room for it.
        """
        session = read_session(path, self._loaded.model, self._loaded.fingerprint)
        if not self._prefixes.add_session(session):
            raise PromptCacheError(
                f"{path} holds {session.num_bytes:,} bytes, and sessions may have half of the "
                f"{self._prefixes.max_bytes:,} that prefix_cache_bytes allows"
            )
        return session.key

    def step(self) -> None:
        """Free the rows of callers that left, admit, prefill a little, decode one token per row."""
        started_s = time.monotonic()
        has_pass_in_flight = self._decode.flight is not None
        self._drop_dead_rows()
        self._make_room()
        self._admit()
        prefill_s = self._prefill_step()
        if self._decode.rows:
            self._decode_step()
        self._deliver()  # while the device runs
        if has_pass_in_flight:
            self._pacer.note_decode(time.monotonic() - started_s - prefill_s)
        self.counts.num_steps += 1
        if self.counts.num_steps % _CLEAR_CACHE_STEPS == 0:
            mx.clear_cache()

    def fail(self, error: LiteLLMMLXError) -> None:
        """End every live and waiting request with `error`."""
        self._deliver()
        for running in self._requests:
            running.channel.put(error)
        self._requests.clear()
        self._waiting.clear()
        self._prefill.rows.clear()
        self._decode.rows.clear()

    def finish_device_work(self) -> None:
        """Wait for the forward pass in flight, which nobody will read."""
        self._decode.flight = None
        mx.synchronize()

    # admission -------------------------------------------------------------------------------

    def _drop_dead_rows(self) -> None:
        """Cancelled and expired requests leave; the second kind is told so."""
        self._waiting.keep(lambda running: not self._end_if_dead(running))
        dead = [i for i, r in enumerate(self._prefill.rows) if self._end_if_dead(r)]
        if dead:
            self._prefill.abandon(dead)
        alive = [i for i, s in enumerate(self._decode.rows) if not self._end_if_dead(s.running)]
        self._keep_decoding(alive)

    def _end_if_dead(self, running: RunningRequest) -> bool:
        if running.channel.is_cancelled:
            running.channel.put(cancelled_error())
        elif running.is_expired:
            self._fail_request(running, timeout_error())
        else:
            return False
        for sequence in running.sequences:
            self._samplers.pop(sequence, None)
            self._requests.pop(sequence.running, None)
        return True

    def _admit(self) -> None:
        """Move waiting requests into prefill while there is room."""
        if self._waiting:
            self._store_prompt()  # they may share it
        num_rows = self._pacer.num_rows(self._config.prefill_batch_size, self._load)
        admitted = self._waiting.admit(
            num_rows - len(self._prefill.rows), self._prefill.rows, self._decode.rows
        )
        if not admitted:
            return
        now_s = time.monotonic()
        for running in admitted:
            running.admitted_s = now_s
        self._prefill.add(admitted)

    def _make_room(self) -> None:
        """Let the youngest rows wait where the next tokens of all would not fit in memory."""
        rows = self._decode.rows
        staying = self.budget.staying(rows, self.num_live - len(rows))
        leaving = sorted({*range(len(rows))} - {*staying}, key=lambda i: age_of(rows[i]))
        if not leaving:
            return
        for i in leaving:
            self._decode.store(i, self._prefixes)
        self._waiting.add_first(RunningRequest.resuming(rows[i]) for i in leaving)
        self._decode.keep(staying)

    @property
    def _load(self) -> Load:
        rows = self._decode.rows
        num_prefilling = self.num_live - len(rows)
        places = self._config.max_batch_size - len(rows)
        return Load(
            num_decoding=len(rows),
            num_pending=min(num_prefilling + self.num_waiting, places),
            is_streamed=any(row.request.is_streamed for row in rows),
        )

    def _prefill_step(self) -> float:
        """Prefill one chunk per prompt; sequences whose prompts are through begin to decode.

        Returns:
            The seconds that the model took, while the others stood still.
        """
        if not self._prefill.rows:
            return 0.0
        seconds = self._prefill_chunk()
        self._join_prefilled()
        return seconds

    def _prefill_chunk(self) -> float:
        num_rows = len(self._prefill.rows)
        limit = self._pacer.chunk_tokens(num_rows, self._load)
        if self._decode.flight is not None:
            mx.eval(self._decode.flight.logits)  # else the pass in flight would count as prefill
        started_s = time.monotonic()
        num_tokens = self._prefill.leave_rest(limit) if self._is_alone else 0
        num_tokens = num_tokens or self._prefill.step(limit)
        seconds = time.monotonic() - started_s
        self.counts.num_prefilled_tokens += num_tokens
        if self._decode.rows:
            self._pacer.note_prefill(num_tokens, limit * num_rows, seconds)
        return seconds

    @property
    def _is_alone(self) -> bool:
        """One prompt for one completion is all there is."""
        rows = self._prefill.rows
        has_one = len(rows) == 1 and len(rows[0].sequences) == 1
        return has_one and not self._decode.rows and self._decode.can_pack

    def _join_prefilled(self) -> None:
        sequences, cache = self._prefill.take_finished()
        if cache is None:
            return
        now_s = time.monotonic()
        for sequence in sequences:
            if sequence.running.num_left_to_decoding == 1:
                sequence.running.note_prefilled(now_s)
        started = [i for i, sequence in enumerate(sequences) if self._start(sequence)]
        if not started:
            return
        if len(started) < len(sequences):
            cache.keep(started)
        self._decode.join([sequences[i] for i in started], cache)

    def _start(self, sequence: Sequence) -> bool:
        """Take the tokens that the text must begin with; false if that was all."""
        if sequence in self._samplers:  # it comes back
            return True
        request = sequence.request
        self._take(sequence, sequence.start)
        if sequence.finish_reason is not None or sequence.running.channel.is_cancelled:
            return False
        self._samplers[sequence] = RowSampler.for_sequence(
            request.sampling, request.prompt_token_ids, sequence.index
        )
        return True

    # decoding --------------------------------------------------------------------------------

    def _decode_step(self) -> None:
        """Sample from the pass in flight and start the next one.

        Where no row's next tokens depend on the value of the one that was sampled, the next pass
        starts before anyone has read it, and the device never waits for Python.
        """
        rows = list(self._decode.rows)
        flight = self._decode.flight
        if flight is None:  # all have just joined
            self._dispatch()
            if rows[0].running.num_left_to_decoding > 1:  # its prompt went through just now
                self._unstored = rows[0]
            return
        # A first token does not wait for the second: on the CPU starting a pass takes most of it.
        must_read = any(row.must_be_read or not row.token_ids for row in rows)
        num_right = [0] * len(flight.guesses)
        drawing = list(range(len(flight.guesses)))
        while drawing:
            drawing = self._draw(rows, flight, drawing, num_right, must_read=must_read)
        if must_read:
            self._land(rows, flight, num_right)
        self._drop_ended()
        if must_read:
            self._deliver()  # a caller's next request may be what fills the batch
            self._store_prompt()
            if self._decode.rows:
                self._dispatch()

    def _store_prompt(self) -> None:
        """Keep the prompt that went through last; its first token did not wait for the copies."""
        if self._unstored in self._decode.rows:
            self._decode.store(self._decode.rows.index(self._unstored), self._prefixes)
        self._unstored = None

    def _draw(
        self,
        rows: list[Sequence],
        flight: Flight,
        drawing: list[int],
        num_right: list[int],
        *,
        must_read: bool,
    ) -> list[int]:
        """Draw the next token of some rows.

        Args:
            rows: of the batch.
            flight: whose logits are drawn from; it has guesses only where `must_read`.
            drawing: indexes of the rows.
            num_right: how many guessed tokens have come, by row; the new ones are added.
            must_read: the next pass has to wait for the tokens.

        Returns:
            Those of the rows that went as guessed, and can draw once more.
        """
        drawn = [rows[i] for i in drawing]
        raw = flight.logits_after(drawing, num_right)
        masked = self._masked_logits(drawn, raw)
        lengths = [len(row.token_ids) for row in drawn]
        tokens = sample(masked, [self._samplers[row] for row in drawn], lengths)
        has_joined = len(rows) > len(flight.guesses)
        if not must_read and (has_joined or not all(row.ends_with_next_token for row in rows)):
            self._dispatch(tokens)
        self._accept(drawn, token_ids(tokens), masked, raw, is_read_first=must_read)
        again = []
        for i, length in zip(drawing, lengths, strict=True):
            new = rows[i].token_ids[length:]
            same = _num_equal(new, flight.guesses[i][num_right[i] :])
            rows[i].take_waiting(same)
            num_right[i] += same
            is_alive = rows[i].finish_reason is None and not rows[i].running.channel.is_cancelled
            if 0 < same == len(new) and is_alive:
                again.append(i)
        return again

    def _land(self, rows: list[Sequence], flight: Flight, num_right: list[int]) -> None:
        """All is drawn from the pass in flight that can be."""
        self._decode.land(num_right)
        for row, guess, right in zip(rows, flight.guesses, num_right, strict=False):
            row.learn(right, len(guess))
        self.counts.num_guessed_tokens += sum(map(len, flight.guesses))
        self.counts.num_right_guesses += sum(num_right)

    def _dispatch(self, sampled: mx.array | None = None) -> None:
        self._decode.dispatch(sampled)
        self.counts.num_passes += 1

    def _masked_logits(self, rows: list[Sequence], logits: mx.array) -> mx.array:
        """Logits (B, V) of rows with bias, penalties and constraints applied."""
        bitmask = self._fill_bitmask(rows)  # the device works on the logits meanwhile
        samplers = [self._samplers[row] for row in rows]
        logits = process_rows(logits, samplers, [row.token_ids for row in rows])
        return logits if bitmask is None else apply_token_bitmask(logits, mx.array(bitmask))

    def _fill_bitmask(self, rows: list[Sequence]) -> np.ndarray | None:
        """The allowed tokens of every row, (B, W) int32; `None` when no row is constrained."""
        if all(row.guide is None for row in rows):
            return None
        num_words = self._loaded.vocabulary.num_bitmask_words
        bitmask = np.full((len(rows), num_words), -1, dtype=np.int32)
        for row, words in zip(rows, bitmask, strict=True):
            if row.guide is not None and row.is_ready and not row.running.channel.is_cancelled:
                try:
                    row.fill_bitmask(words)
                except LiteLLMMLXError as error:
                    self._fail_request(row.running, error)
        return bitmask

    def _accept(
        self,
        rows: list[Sequence],
        sampled: list[int],
        masked: mx.array,
        raw: mx.array,
        *,
        is_read_first: bool,
    ) -> None:
        """Give each row its token.

        Args:
            rows: B sequences.
            sampled: their tokens.
            masked: (B, V) logits that the tokens were drawn from.
            raw: (B, V) logits as the model gave them.
            is_read_first: the next pass has not taken the tokens yet.
        """
        for i, (row, token_id) in enumerate(zip(rows, sampled, strict=True)):
            if row.running.channel.is_cancelled or not row.is_ready:
                continue
            logits = raw if row.request.raw_logprobs else masked
            logprob = self._logprob(row, logits[i], token_id)
            row.running.note_prefilled(time.monotonic())
            self._take(row, partial(row.accept, token_id, logprob))
            if not is_read_first:
                row.take_waiting(1)

    def _drop_ended(self) -> None:
        """Rows that ended leave the batch."""
        alive = [
            i
            for i, row in enumerate(self._decode.rows)
            if row.finish_reason is None and not self._end_if_dead(row.running)
        ]
        self._keep_decoding(alive)

    def _take(self, row: Sequence, take: Callable[[], list[Event]]) -> None:
        """Let a row take tokens, and note what that means for its caller."""
        num_before, num_forced_before = len(row.token_ids), row.num_forced_tokens
        try:
            events = take()
        except LiteLLMMLXError as error:
            self._fail_request(row.running, error)
            return
        self.counts.num_completion_tokens += len(row.token_ids) - num_before
        self.counts.num_forced_tokens += row.num_forced_tokens - num_forced_before
        if row.token_ids:
            row.running.first_token_s = row.running.first_token_s or time.monotonic()
        if events:
            self._outbox.setdefault(row.running.channel, []).extend(events)
        if row.running.is_done:
            self._requests.pop(row.running, None)

    def _logprob(self, row: Sequence, logits: mx.array, token_id: int) -> TokenLogprob | None:
        num_top = row.request.num_top_logprobs
        if num_top is None:
            return None
        return token_logprobs(logits, token_id, num_top, self._loaded.vocabulary.token_bytes)

    def _fail_request(self, running: RunningRequest, error: LiteLLMMLXError) -> None:
        """End one request with its own error; the others of the batch go on."""
        running.channel.put(error)
        running.channel.is_cancelled = True
        self._requests.pop(running, None)

    def _keep_decoding(self, alive: list[int]) -> None:
        rows = self._decode.rows
        if len(alive) == len(rows):
            return
        for i in sorted({*range(len(rows))} - {*alive}):
            if rows[i].finish_reason is not None:
                self._decode.store(i, self._prefixes)
            self._samplers.pop(rows[i], None)
        self._decode.keep(alive)

    def _deliver(self) -> None:
        """Hand the events of the last step to their callers."""
        outbox, self._outbox = self._outbox, {}
        for channel, events in outbox.items():
            for event in _joined_deltas(events):
                channel.put(event)


def _num_equal(first: list[int], second: list[int]) -> int:
    """With how many equal tokens both begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _joined_deltas(events: list[Event]) -> list[Event]:
    """One event for all that a step adds to a completion: each costs its caller as much as a token.

    What ends a completion stays behind its text.
    """
    joined: list[Event] = []
    places: dict[int, int] = {}
    for event in events:
        if not isinstance(event, Delta):
            joined.append(event)
        elif event.index in places:
            before = joined[places[event.index]]
            assert isinstance(before, Delta)
            joined[places[event.index]] = before + event
        else:
            places[event.index] = len(joined)
            joined.append(event)
    return joined


def _kv_budget_bytes(config: EngineConfig, free_bytes: int) -> int:
    if config.kv_budget_bytes is not None:
        return config.kv_budget_bytes
    return max(int(_KV_BUDGET_SHARE * free_bytes), _MIN_KV_BUDGET_BYTES)


def _prefix_cache_bytes(config: EngineConfig, free_bytes: int) -> int:
    if config.prefix_cache_bytes is not None:
        return config.prefix_cache_bytes
    return int(_PREFIX_CACHE_SHARE * free_bytes)
