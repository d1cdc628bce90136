"""Whatever a model's layers are: text in a batch, from the cache and alone is mlx-lm's own."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import litellm
import mlx.core as mx
import pytest

import litellm_mlx
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.sequence import RunningRequest
from litellm_mlx.engine.stream import Channel
from litellm_mlx.engine.worker import Worker
from litellm_mlx.errors import ModelLoadError, PromptCacheError
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.probe import find_batching
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams
from tests.tiny_architectures import ARCHITECTURES, make_architecture
from tests.tiny_engine import collect, run, start
from tests.tiny_model import CHAT_TEMPLATE, VOCAB_SIZE, make_tiny_model

NO_STOP = ((0, -100.0), (2, -100.0))
MAX_TOKENS = 16
FORM = Constraint("regex", '\\{"name": "[a-z]{3,9}", "label": "[a-z]{3,9}", "value": [0-9]{1,4}\\}')

Tokens = tuple[int, ...]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model_dir(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_architecture(tmp_path_factory.mktemp("architecture") / "model", kind)


def prompt(num_tokens: int, seed: int) -> Tokens:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 300) for _ in range(num_tokens))


def request(tokens: Tokens, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(temperature=0, logit_bias=NO_STOP)
    deadline_s = time.monotonic() + 120
    options = {"max_tokens": MAX_TOKENS, "num_top_logprobs": 0, **options}
    return GenerationRequest(tokens, sampling=sampling, deadline_s=deadline_s, **options)


def answers(engine: Engine[LoadedModel], prompts: list[Tokens], **options: Any) -> list[Tokens]:
    """The tokens of requests that run at the same time."""
    streams = [engine.submit(request(tokens, **options)) for tokens in prompts]
    return [
        tuple(lp.token_id for e in stream if isinstance(e, Delta) for lp in e.logprobs)
        for stream in streams
    ]


def expected(model_dir: Path, tokens: Tokens) -> Tokens:
    """mlx-lm's own greedy continuation."""
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(model_dir)
    bias = mx.zeros(VOCAB_SIZE)
    bias[mx.array([0, 2])] = -100.0
    steps = generate_step(
        mx.array(tokens),
        model,
        max_tokens=MAX_TOKENS,
        logits_processors=[lambda _, logits: logits + bias],
    )
    return tuple(int(token) for token, _ in steps)


def test_the_probe_finds_how_rows_may_run_together(model_dir: Path, kind: str) -> None:
    from mlx_lm.utils import load_model

    assert find_batching(load_model(model_dir)[0]) == ARCHITECTURES[kind][2]


def test_together_and_from_the_cache_the_text_is_mlx_lms_own(model_dir: Path) -> None:
    """Prompts of one token to many, in one burst; then each again, with what the burst stored."""
    prompts = [prompt(length, length) for length in (1, 2, 33, 60, 61, 130)]
    wanted = [expected(model_dir, tokens) for tokens in prompts]
    engine = start(model_dir, prefill_step_tokens=48)
    try:
        assert answers(engine, prompts) == wanted
        assert [answers(engine, [tokens])[0] for tokens in prompts] == wanted
        assert answers(engine, prompts) == wanted
    finally:
        engine.shutdown()


def test_forced_tokens_beside_a_free_row_change_nothing(model_dir: Path) -> None:
    """A constrained row is left alone with several waiting tokens when the free one ends."""
    prompts = [prompt(length, length) for length in (9, 40, 52, 66)]
    free = prompt(90, 1)
    engine = start(model_dir, prefix_cache_bytes=0)
    slow = start(model_dir, prefix_cache_bytes=0, fast_forward=False)
    try:
        for number, tokens in enumerate(prompts):
            wanted, _ = collect(slow.submit(request(tokens, constraint=FORM, max_tokens=80)))
            beside = engine.submit(request(free, max_tokens=8 + 3 * number))
            got, _ = collect(engine.submit(request(tokens, constraint=FORM, max_tokens=80)))
            collect(beside)
            assert got == wanted
    finally:
        engine.shutdown()
        slow.shutdown()


PADDED = [kind for kind, (_, _, batching) in ARCHITECTURES.items() if batching == "padded"]


@pytest.mark.parametrize("kind", PADDED)
def test_rows_that_go_on_alone_give_mlx_lms_logits(kind: str, tmp_path: Path) -> None:
    """Rows of two lengths, padded where that is right, a while together; then several tokens."""
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(make_architecture(tmp_path / "model", kind))
    for num_short, num_long, num_steps in ((30, 44, 10), (20, 60, 3), (47, 48, 60)):
        rows = [prompt(num_short, 1), prompt(num_long, 2)]
        steps = [prompt(num_steps, seed) for seed in (3, 4)]
        more = prompt(6, 5)
        batch = BatchCache.new(model, 2)
        padded = [[*row, *[0] * (num_long - len(row))] for row in rows]
        batch.run(model, mx.array(padded), [num_short, num_long])
        for pair in zip(*steps, strict=True):
            batch.run(model, mx.array(pair)[:, None], [1, 1])
        batch.keep([0])
        got = batch.run(model, mx.array([more]), [6])[0]
        cache = make_prompt_cache(model)
        for chunk in (rows[0], *([token] for token in steps[0]), more):
            wanted = model(mx.array([chunk]), cache=cache)[0]
        assert mx.max(mx.abs(got - wanted)) < 1e-4 * mx.std(wanted)


def test_all_completions_of_a_request_are_equal_when_greedy(model_dir: Path) -> None:
    engine = start(model_dir)
    try:
        texts = ["", "", ""]
        for event in engine.submit(request(prompt(40, 5), n=3)):
            if isinstance(event, Delta):
                texts[event.index] += event.text
        assert len(set(texts)) == 1
    finally:
        engine.shutdown()


def test_a_prompt_whose_caller_left_is_not_prefilled_again(model_dir: Path) -> None:
    """Sent again, it begins where the first was left, and its text is that of a cold start."""
    asked = request(prompt(300, 7))
    engine = start(model_dir, prefill_step_tokens=64)

    def leave_in_prefill(worker: Worker) -> int:
        running = RunningRequest(asked, Channel())
        running.sequences = engine._make_sequences(running, engine.model())
        worker.add(running)
        worker.step()
        worker.step()
        running.channel.is_cancelled = True
        worker.step()
        assert worker.is_idle
        return running.num_prefilled

    try:
        assert engine.call(leave_in_prefill) == 128
        events = list(engine.submit(asked))
        assert [e.usage.cached_tokens for e in events if isinstance(e, Done)] == [128]
        got = [lp.token_id for e in events if isinstance(e, Delta) for lp in e.logprobs]
        assert tuple(got) == expected(model_dir, asked.prompt_token_ids)
    finally:
        engine.shutdown()


@pytest.mark.parametrize("kind", ["nemotron-nas", "llama4", "afm7"])
def test_a_session_of_any_kind_goes_to_disk_and_back(kind: str, tmp_path: Path) -> None:
    path, file = make_architecture(tmp_path / "model", kind), tmp_path / "session.safetensors"
    tokens = prompt(100, 3)
    first = start(path)
    (answer,) = answers(first, [tokens], cache_key="mine")
    first.call(lambda worker: worker.save_session("mine", file))
    first.shutdown()
    second = start(path)
    try:
        assert second.call(lambda worker: worker.load_session(file)) == "mine"
        following = (*tokens, *answer, *prompt(20, 4))
        _, done = run(second, request(following))
        assert done.usage.cached_tokens >= len(tokens) + MAX_TOKENS - 1
        assert answers(second, [following]) == [expected(path, following)]
    finally:
        second.shutdown()


def test_a_kind_that_mlx_lm_cannot_read_back_is_not_written(tmp_path: Path) -> None:
    engine = start(make_architecture(tmp_path / "model", "deepseek-v4.1"))
    file = tmp_path / "session.safetensors"
    try:
        run(engine, request(prompt(50, 3), cache_key="mine"))
        with pytest.raises(PromptCacheError, match="cannot read a LayerCache back"):
            engine.call(lambda worker: worker.save_session("mine", file))
    finally:
        engine.shutdown()
    assert not file.exists()


def test_a_model_whose_logits_are_no_numbers_is_refused(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    model, _ = load_model(make_architecture(tmp_path / "model", "llama"))
    weight = model.model.layers[1].mlp.up_proj.weight
    weight[3, 4] = float("nan")
    with pytest.raises(ModelLoadError, match="not numbers"):
        find_batching(model)


# What a template writes around messages; and the tokens that end one, or open the next.
TEMPLATES: dict[str, tuple[str, set[str]]] = {
    "chatml": (CHAT_TEMPLATE, {"<|im_end|>"}),
    "harmony": (
        "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] }}"
        "{% if m['role'] == 'system' %}{{ '\n\n' }}{% endif %}{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        {"<|end|>"},
    ),
    "no end of a user's, no system": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user'"
        " else ' ' + m['content'] + '<|im_end|>' }}{% endfor %}",
        {"[/INST]", "<|im_end|>"},
    ),
    "what opens the next": (
        "{% for m in messages %}{{ ('' if m['role'] == 'system' else '<|' + m['role'] + '|>')"
        " + m['content'] }}{% endfor %}",
        {"<|user|>", "<|assistant|>"},
    ),
    "no markup": (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}",
        set(),
    ),
}
MARKUP = (
    *("<|start|>", "<|message|>", "<|end|>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>"),
)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokens_that_end_messages_are_read_from_the_template(name: str, tmp_path: Path) -> None:
    template, wanted = TEMPLATES[name]
    path = make_tiny_model(tmp_path / "model", chat_template=template, added_tokens=MARKUP)
    engine = start(path)
    model = engine.model()
    engine.shutdown()
    found = {model.tokenizer.convert_ids_to_tokens(index) for index in model.message_end_ids}
    assert found == wanted


@pytest.mark.parametrize("name", ["chatml", "harmony", "what opens the next"])
def test_a_system_prompt_is_reused_by_the_second_question(name: str, tmp_path: Path) -> None:
    """Where layers' state cannot be cut, though its marker is no stop token."""
    model_type, config, _ = ARCHITECTURES["gpt-oss"]
    path = make_tiny_model(
        tmp_path / "model",
        model_type=model_type,
        config={**config, "vocab_size": VOCAB_SIZE + len(MARKUP)},
        chat_template=TEMPLATES[name][0],
        added_tokens=MARKUP,
    )
    system = {"role": "system", "content": "You name cities. " * 12}
    cached = [
        litellm.completion(
            f"mlx/{path}",
            [system, {"role": "user", "content": question}],
            max_tokens=4,
            temperature=0,
        ).usage.prompt_tokens_details.cached_tokens
        for question in ("Where is the tower?", "Who lives there?")
    ]
    assert cached[0] == 0
    assert cached[1] > 12 * 10
    litellm_mlx.unload(f"mlx/{path}")


def test_a_third_prompt_begins_where_the_first_two_part(tmp_path: Path) -> None:
    """Also where no marker stands there, as in examples inside one message."""
    engine = start(make_architecture(tmp_path / "model", "gpt-oss"))
    shared = prompt(90, 1)
    try:
        cached = [
            run(engine, request((*shared, seed, *prompt(30, seed)), max_tokens=1))[1].usage
            for seed in (11, 12, 13)
        ]
    finally:
        engine.shutdown()
    assert [usage.cached_tokens for usage in cached] == [0, 0, 90]
