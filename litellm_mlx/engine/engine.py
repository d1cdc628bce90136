"""Thread-safe handle of one model that generates: submit requests, read what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.model import ServedModel
from litellm_mlx.engine.stream import Channel, EventStream
from litellm_mlx.engine.thread import ModelThread
from litellm_mlx.grammar.index_cache import IndexCache
from litellm_mlx.types import Constraint, GenerationRequest

if TYPE_CHECKING:
    from litellm_mlx.engine.budget import Budget
    from litellm_mlx.engine.sequence import RunningRequest, Sequence
    from litellm_mlx.engine.worker import LiveRow, Worker
    from litellm_mlx.grammar.compiler import Index
    from litellm_mlx.grammar.guide import Guide
    from litellm_mlx.grammar.runaway import StringWatch
    from litellm_mlx.kvcache.layers import Batching

ModelT = TypeVar("ModelT", bound=ServedModel)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine holds now, and what it has done since it started.

    `num_passes` counts forward passes of decoding, over however many rows; forced tokens are the
    completion tokens that were taken without asking the model. Guessed ones went through it, see
    `lookup`, and those that were right came of no pass of their own; a forced token inside a guess
    counts among both. Of the prompts that wait or are being prefilled, `prefill_done_tokens` are
    through the model, or were cached, and `prefill_total_tokens` are all. `batching` says how rows
    of the model may run together; `None` while it loads.
    """

    num_live: int = 0
    num_waiting: int = 0
    num_steps: int = 0
    kv_bytes: int = 0
    prefix_bytes: int = 0
    num_passes: int = 0
    num_prefilled_tokens: int = 0
    num_completion_tokens: int = 0
    num_forced_tokens: int = 0
    num_guessed_tokens: int = 0
    num_right_guesses: int = 0
    prefill_done_tokens: int = 0
    prefill_total_tokens: int = 0
    batching: Batching | None = None


class Engine(ModelThread[ModelT, "Worker", "RunningRequest"]):
    """One model that generates, on a thread of its own.

    Args:
        load: called on the engine's thread; gives the model.
        config: how to run.
        name: of the model, for the thread's name and for messages.
    """

    def __init__(self, load: Callable[[], ModelT], config: EngineConfig, *, name: str) -> None:
        self._config = config
        self._indexes = IndexCache()

        def make_worker(loaded: ModelT) -> Worker:
            from litellm_mlx.engine.worker import Worker

            return Worker(loaded, config)

        super().__init__(load, make_worker, name=name, max_queued=config.max_queued)

    def submit(self, request: GenerationRequest) -> EventStream:
        """Queue a request. Compiles its constraint first, on the calling thread.

        Raises:
            ConstraintError: the constraint cannot be compiled.
            BudgetError: `max_tokens` has no room for the shortest text that satisfies it.
            KVBudgetError: its layer caches can never fit in memory.
            OverloadedError: too many requests wait already.
            EngineError: the engine has failed or was shut down.
        """
        from litellm_mlx.engine.sequence import RunningRequest

        loaded = self.model()
        worker = self._worker
        if worker is not None:
            worker.budget.refuse_what_never_fits(request)
        running = RunningRequest(request, Channel())
        running.sequences = self._make_sequences(running, loaded)
        self._accept(running, request.n)
        return EventStream(running.channel, request.deadline_s, self._wake)

    def index(self, constraint: Constraint) -> Index:
        """The compiled constraint; compiles it on the calling thread unless it is cached.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        return self._indexes.get(constraint, self.model().vocabulary)

    def stats(self) -> EngineStats:
        """What the engine holds now; a reading between two steps may be one step old."""
        worker = self._worker
        if worker is None:
            return EngineStats(num_waiting=self._num_waiting())
        counts = worker.counts
        prefill_done_tokens, prefill_total_tokens = worker.prefill_progress
        return EngineStats(
            num_live=worker.num_live,
            num_waiting=self._num_waiting(),
            num_steps=counts.num_steps,
            kv_bytes=worker.kv_bytes,
            prefix_bytes=worker.prefix_bytes,
            num_passes=counts.num_passes,
            num_prefilled_tokens=counts.num_prefilled_tokens,
            num_completion_tokens=counts.num_completion_tokens,
            num_forced_tokens=counts.num_forced_tokens,
            num_guessed_tokens=counts.num_guessed_tokens,
            num_right_guesses=counts.num_right_guesses,
            prefill_done_tokens=prefill_done_tokens,
            prefill_total_tokens=prefill_total_tokens,
            batching=worker.batching,
        )

    def live(self) -> list[LiveRow]:
        """The completions in the batch now."""
        worker = self._worker
        return worker.live() if worker is not None else []

    def _make_sequences(self, running: RunningRequest, loaded: ModelT) -> list[Sequence]:
        """The completions of a request, before their first tokens."""
        from litellm_mlx.engine.budget import Budget
        from litellm_mlx.grammar.closing import first_ending
        from litellm_mlx.grammar.runaway import StringLimits, StringWatch
        from litellm_mlx.grammar.thinking import ThinkingGuide

        request, vocabulary = running.request, loaded.vocabulary
        constraint = request.constraint
        index = None if constraint is None else self._indexes.get(constraint, vocabulary)
        made = []
        for number in range(request.n):
            guide = None if index is None else index.guide()
            if request.thinking is not None:
                guide = ThinkingGuide(guide, request.thinking, vocabulary)
            budget = strings = None
            if index is not None and constraint is not None and guide is not None:
                ending = first_ending(index, constraint, limit=request.max_tokens)
                budget = Budget(guide, constraint, request.max_tokens, ending)
                limits = StringLimits.of(self._config)
                strings = StringWatch(limits, constraint, vocabulary)
            made.append(
                _make_sequence(
                    running,
                    number,
                    loaded,
                    guide,
                    budget,
                    strings,
                    fast_forwards=self._config.fast_forward,
                    looks_up=self._config.prompt_lookup,
                )
            )
        return made


def _make_sequence(
    running: RunningRequest,
    index: int,
    model: ServedModel,
    guide: Guide | None,
    budget: Budget | None = None,
    strings: StringWatch | None = None,
    *,
    fast_forwards: bool = True,
    looks_up: bool = False,
) -> Sequence:
    """One completion of a request, before its first token."""
    from litellm_mlx.engine.sequence import Sequence
    from litellm_mlx.engine.text import TextDecoder

    request, vocabulary = running.request, model.vocabulary
    decoder = TextDecoder(
        stop=request.stop,
        # Inside constrained text a marker is the caller's data.
        thinking_markers=model.thinking_markers if guide is None else None,
        opens_reasoning=request.opens_reasoning,
        trims_leading_space=model.trims_leading_space and guide is None,
    )
    return Sequence(
        running,
        index,
        guide=guide,
        decoder=decoder,
        token_bytes=vocabulary.token_bytes,
        stop_token_ids=frozenset(vocabulary.stop_token_ids),
        budget=budget,
        strings=strings,
        fast_forwards=fast_forwards,
        looks_up=looks_up,
    )
