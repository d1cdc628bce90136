"""The continuous batch: alone or among others, cancelled, timed out or killed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.errors import (
    ConstraintError,
    EngineError,
    EngineStoppedError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
    RequestTimeoutError,
)
from litellm_mlx.grammar.guide import LLGuide
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams
from tests.tiny_engine import start

PROMPT = tuple(range(20, 60))


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


def request(max_tokens: int = 40, *, timeout_s: float = 60, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(**options.pop("sampling", {"temperature": 0}))
    return GenerationRequest(
        options.pop("prompt", PROMPT),
        max_tokens,
        sampling=sampling,
        deadline_s=time.monotonic() + timeout_s,
        **options,
    )


def texts(stream: EventStream, n: int = 1) -> list[str]:
    parts = [""] * n
    for event in stream:
        if isinstance(event, Delta):
            parts[event.index] += event.text
    return parts


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.005)
    return False


def endless(**options: Any) -> GenerationRequest:
    """A request that runs until it is stopped: its only stop tokens are biased away."""
    bias = ((0, -100.0), (2, -100.0))
    return request(2000, sampling={"temperature": 1.0, "logit_bias": bias}, **options)


@pytest.mark.parametrize("seed", range(20))
def test_a_seeded_request_is_the_same_alone_and_among_fifteen_others(
    engine: Engine[LoadedModel], seed: int
) -> None:
    seeded = {"temperature": 1.0, "top_p": 0.95, "seed": seed}
    alone = texts(engine.submit(request(sampling=seeded)))
    rng = random.Random(seed)
    others = [
        engine.submit(
            request(
                rng.randrange(5, 60),
                prompt=tuple(rng.randrange(3, 300) for _ in range(rng.randrange(1, 90))),
                sampling={"temperature": 1.0, "top_k": rng.choice((0, 30))},
            )
        )
        for _ in range(15)
    ]
    among = texts(engine.submit(request(sampling=seeded)))
    for other in others:
        texts(other)
    assert among == alone


def test_greedy_rows_that_join_and_leave_match_one_by_one_runs(
    engine: Engine[LoadedModel],
) -> None:
    rng = random.Random(5)
    requests = [
        request(
            rng.randrange(1, 50),
            prompt=tuple(rng.randrange(3, 300) for _ in range(rng.randrange(1, 700))),
        )
        for _ in range(24)
    ]
    one_by_one = [texts(engine.submit(r)) for r in requests]
    streams = [engine.submit(r) for r in requests]
    assert [texts(stream) for stream in streams] == one_by_one


def test_the_n_completions_differ_and_equal_requests_differ_without_a_seed(
    engine: Engine[LoadedModel],
) -> None:
    free = {"temperature": 1.0}
    three = texts(engine.submit(request(n=3, sampling=free)), 3)
    assert len(set(three)) == 3
    assert texts(engine.submit(request(sampling=free))) != texts(
        engine.submit(request(sampling=free))
    )


def test_seeded_completions_of_one_request_repeat(engine: Engine[LoadedModel]) -> None:
    seeded = {"temperature": 1.0, "seed": 7}
    first = texts(engine.submit(request(n=3, sampling=seeded)), 3)
    assert texts(engine.submit(request(n=3, sampling=seeded)), 3) == first
    assert len(set(first)) == 3


def test_more_completions_than_rows_in_the_batch_are_served(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir, max_batch_size=2)
    try:
        assert len(texts(engine.submit(request(5, n=5)), 5)) == 5
    finally:
        engine.shutdown()


def test_closing_a_stream_frees_its_row_within_one_step(engine: Engine[LoadedModel]) -> None:
    stream = engine.submit(endless())
    next(stream)
    assert engine.stats().num_live == 1
    steps_before = engine.stats().num_steps
    stream.close()
    assert wait_until(lambda: engine.stats().num_live == 0)
    # one step may be under way when the stream is closed, and the next one drops the row
    assert engine.stats().num_steps - steps_before <= 2


def test_a_dropped_stream_frees_its_row(engine: Engine[LoadedModel]) -> None:
    stream = engine.submit(endless())
    next(stream)
    del stream
    assert wait_until(lambda: engine.stats().num_live == 0)


def test_a_deadline_ends_the_request_and_frees_its_row(engine: Engine[LoadedModel]) -> None:
    with pytest.raises(RequestTimeoutError, match="max_tokens"):
        texts(engine.submit(endless(timeout_s=0.2)))
    assert wait_until(lambda: engine.stats().num_live == 0)


def test_the_rest_of_the_batch_goes_on_when_a_row_leaves(engine: Engine[LoadedModel]) -> None:
    alone = texts(engine.submit(request(60)))
    leaving = engine.submit(endless())
    staying = engine.submit(request(60))
    next(leaving)
    leaving.close()
    assert texts(staying) == alone


class BreaksAfter:
    """A model whose forward pass fails at a given call, as a device does that runs out."""

    def __init__(self, model: Any, num_calls: int) -> None:
        self._model = model
        self._num_left = num_calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._num_left -= 1
        if self._num_left < 0:
            raise RuntimeError("device lost")
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def gives_up_after(num_masks: int) -> Callable[..., None]:
    """What fills a bitmask until the grammar engine meets a limit."""
    fill, calls = LLGuide.fill_bitmask, itertools.count()

    def fill_or_give_up(guide: LLGuide, row: Any) -> None:
        if next(calls) == num_masks:
            raise ConstraintError("too complex")
        fill(guide, row)

    return fill_or_give_up


def test_a_guide_that_gives_up_fails_its_own_request_only(
    engine: Engine[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = texts(engine.submit(request(60)))
    neighbour = engine.submit(request(60))
    with monkeypatch.context() as patched:
        patched.setattr(LLGuide, "fill_bitmask", gives_up_after(5))
        giving_up = engine.submit(endless(constraint=Constraint("regex", "[a-z]{1,900}")))
        with pytest.raises(ConstraintError, match="too complex"):
            texts(giving_up)
    assert texts(neighbour) == alone
    assert engine.is_alive
    assert wait_until(lambda: engine.stats().num_live == 0)


def _end_of(engine: Engine[LoadedModel]) -> Callable[[], object]:
    """Submit a request and give what waits for its end; a refusal at once is an end too."""
    try:
        stream = engine.submit(endless())
    except EngineError as error:
        refusal = error

        def refuse() -> None:
            raise refusal

        return refuse
    return lambda: texts(stream)


# The first twelve calls are the engine's own, to find out what the model can do.
@pytest.mark.parametrize("num_calls", [12, 13, 14, 23])
def test_a_failing_engine_answers_every_request_and_refuses_new_ones(
    tiny_model_dir: Path, num_calls: int
) -> None:
    import dataclasses

    config = EngineConfig(max_batch_size=4, prefill_batch_size=2, prefill_step_tokens=16)
    spec = parse_model_name(str(tiny_model_dir))

    def load() -> LoadedModel:
        loaded = load_model(spec, config)
        return dataclasses.replace(loaded, model=BreaksAfter(loaded.model, num_calls))

    engine = Engine(load, config, name="breaking")
    engine.model(timeout_s=60)
    num_answered = 0
    for ending in [_end_of(engine) for _ in range(7)]:
        with pytest.raises(EngineError, match="device lost"):
            ending()
        num_answered += 1
    assert num_answered == 7
    assert not engine.is_alive
    with pytest.raises(EngineError):
        engine.submit(request())


def test_shutdown_ends_live_and_waiting_requests(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir, max_batch_size=1)
    streams = [engine.submit(endless()) for _ in range(3)]
    next(streams[0])
    engine.shutdown()
    for stream in streams:
        with pytest.raises(EngineStoppedError):
            texts(stream)
    assert not any(
        t.name == "litellm-mlx tiny" and t is engine._thread for t in threading.enumerate()
    )


def test_a_full_queue_is_a_429(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir, max_batch_size=1, max_queued=2)
    try:
        running = engine.submit(endless())
        next(running)
        waiting = [engine.submit(endless()) for _ in range(2)]
        with pytest.raises(OverloadedError, match="limit is 2"):
            engine.submit(endless())
        for stream in (running, *waiting):
            stream.close()
    finally:
        engine.shutdown()


def test_a_model_that_cannot_be_loaded_is_an_error_for_everyone_who_waits(tmp_path: Path) -> None:
    config = EngineConfig()
    spec = parse_model_name(str(tmp_path / "nothing"))
    engine = Engine(lambda: load_model(spec, config), config, name="nothing")
    for _ in range(2):
        with pytest.raises(ModelNotFoundError):
            engine.model(timeout_s=30)
    assert not engine.is_alive


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), ValueError("odd file")])
def test_whatever_a_load_raises_nobody_waits_for_ever(raised: BaseException) -> None:
    def load() -> LoadedModel:
        raise raised

    engine = Engine(load, EngineConfig(), name="odd")
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=f"cannot load 'odd': {type(raised).__name__}"):
            engine.model(timeout_s=30)
    with pytest.raises(ModelLoadError):
        engine.submit(request())
    assert not engine.is_alive


def test_a_call_that_ends_the_process_fails_alone(engine: Engine[LoadedModel]) -> None:
    def leave(worker: object) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        engine.call(leave)
    assert texts(engine.submit(request(5)))


def test_usage_and_timings_are_counted(engine: Engine[LoadedModel]) -> None:
    done = list(engine.submit(request(9, n=2)))[-1]
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == len(PROMPT)
    assert 2 <= done.usage.completion_tokens <= 18
    assert 0 <= done.timings.queue_s <= done.timings.time_to_first_token_s <= done.timings.total_s


def test_a_stop_sequence_ends_the_text_before_it(engine: Engine[LoadedModel]) -> None:
    (whole,) = texts(engine.submit(request(60)))
    stop = whole[5:8]
    (cut,) = texts(engine.submit(request(60, stop=(stop,))))
    assert cut == whole[: whole.index(stop)]


def test_logit_bias_decides_a_greedy_token(engine: Engine[LoadedModel]) -> None:
    biased = {"temperature": 0, "logit_bias": ((40, 100.0),)}
    (text,) = texts(engine.submit(request(5, sampling=biased)))
    assert text == engine.model().vocabulary.token_bytes(40).decode() * 5


def test_penalties_change_what_repeats(engine: Engine[LoadedModel]) -> None:
    plain = texts(engine.submit(request(60)))
    for name, value in (
        ("repetition_penalty", 5.0),
        ("presence_penalty", 2.0),
        ("frequency_penalty", 2.0),
    ):
        assert texts(engine.submit(request(60, sampling={"temperature": 0, name: value}))) != plain


def test_logprobs_are_sorted_finite_and_of_the_tokens_sent(engine: Engine[LoadedModel]) -> None:
    events = list(engine.submit(request(10, num_top_logprobs=5)))
    tokens = [t for e in events if isinstance(e, Delta) for t in e.logprobs]
    text = "".join(e.text for e in events if isinstance(e, Delta))
    assert b"".join(t.token_bytes for t in tokens).decode(errors="replace") == text
    for token in tokens:
        values = [p for _, _, p in token.top]
        assert values == sorted(values, reverse=True) and len(values) == 5
        assert token.logprob == pytest.approx(values[0])  # greedy
        assert all(-1e4 < p <= 0 for p in values)
