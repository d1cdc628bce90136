"""Settings of the package: read once from `LITELLM_MLX_*` variables, validated, frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from litellm_mlx.registered import check_backend
from litellm_mlx.types import Backend

DeviceChoice = Literal["auto", "cpu"]

ENV_PREFIX = "LITELLM_MLX_"
KV_BITS = (4, 8)
MAY_BE_ZERO = (
    "max_whitespace_run",
    "max_repetition",
    "max_string_tokens",
    "prefix_cache_bytes",
    "idle_unload_s",
    "client_max_tokens",
    "client_max_n",
    "client_keep_alive_s",
    "client_stored_responses",
    "client_stored_bytes",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How each engine runs.

    Attributes:
        max_batch_size: sequences decoded together; more wait.
        max_queued: sequences that may wait for a place; one more is refused with a 429.
        prefill_batch_size: prompts that are prefilled together.
        prefill_step_tokens: of one prompt in one forward pass; fewer while others decode.
        prefill_pause_steps: how many decode steps' time streams may stand still for a part of a
            prompt; less makes them smoother, more gets prompts through sooner.
        default_max_tokens: completion limit of a request that names none; the context still rules.
        default_timeout_s: deadline of a request that names none.
        max_whitespace_run: characters of whitespace in a row in a JSON string; 0 is no limit.
        max_repetition: bytes at the end of a JSON string that may be one text again and again;
            then the string is closed; 0 is no limit.
        max_string_tokens: length of a JSON string; then it is closed; 0 is no limit.
        max_tries: how often a completion is drawn at most where a check follows the grammar.
        kv_budget_bytes: what the layer caches of running requests may take; more wait. Not given,
            half of the memory that the weights leave.
        kv_bits: 4 or 8 quantise the keys and values of plain attention: less memory per token,
            slower attention, other text. Not given, they have the model's precision.
        prefix_cache_bytes: what may be kept of prompts and answers for requests that begin alike;
            0 is off. Not given, a quarter of the memory that the weights leave.
        fast_forward: take tokens that the grammar forces without asking the model.
        prompt_lookup: guess tokens of constrained completions from their prompt and text, and let
            a pass verify several; the text is the same. Not without `fast_forward`.
        prompt_repair: read in the prompts of DSPy and instructor what their requests leave out.
        models_budget_bytes: what all models may take together, weights and caches; the one that was
            used longest ago is unloaded where another needs its place. Not given, nine tenths of
            the memory that was free when the first one was loaded.
        idle_unload_s: a model that nobody has used for so long is unloaded; 0 is never.
        allowed_models: patterns of model names, as in a shell, that a proxy's clients may use
            besides those that its configuration lists and the aliases; a variable separates them
            by commas.
        client_max_tokens: longest completion that a proxy's client gets; 0 is no limit.
        client_max_n: most completions of one request; 0 is no limit.
        client_hints: a proxy's clients may send hints that cannot change what the answer must be
            (`reasoning_effort` to a model that does not think, `speed`, `cache_control`, ...); else
            they are refused, as they are in process.
        client_keep_alive_s: `serve` begins a stream with comments where nothing else has come for
            so long, and repeats them; 0 is never.
        client_stored_responses: how many responses `serve` keeps of one key for
            `previous_response_id`; 0 is none.
        client_stored_bytes: what they may take together, as JSON.
        device: "cpu" computes there although there is a GPU, as after a failure of it; "auto" on
            the best that MLX has. It holds for the whole process.
        backend: compiles constraints, unless a request chooses another.
        expand_weights: expand quantised weights to float32 on the CPU when memory allows.
        trust_remote_code: let a model's repository run its own Python code.
    """

    max_batch_size: int = 32
    max_queued: int = 1024
    prefill_batch_size: int = 8
    prefill_step_tokens: int = 512
    # With the decode step itself 2.5 times the usual gap between tokens, where the device is quick
    # enough for the smallest chunk; on 2 cores beside 4,000 tokens it was 3.5 at the median.
    prefill_pause_steps: float = 1.5
    default_max_tokens: int = 8192
    default_timeout_s: float = 600.0
    # Deeper than code is indented, wider than most tables; 64 tokens of a budget at most.
    max_whitespace_run: int = 64
    # Rulers and dotted lines end at 120 characters, and a list of 60 zeros at 180.
    max_repetition: int = 256
    max_string_tokens: int = 0
    max_tries: int = 6
    kv_budget_bytes: int | None = None
    kv_bits: int | None = None
    prefix_cache_bytes: int | None = None
    fast_forward: bool = True
    prompt_lookup: bool = True
    prompt_repair: bool = True
    models_budget_bytes: int | None = None
    idle_unload_s: float = 0.0
    allowed_models: tuple[str, ...] = ()
    client_max_tokens: int = 0
    client_max_n: int = 0
    client_hints: bool = True
    client_keep_alive_s: float = 10.0
    client_stored_responses: int = 1000
    client_stored_bytes: int = 256 * 2**20
    device: DeviceChoice = "auto"
    backend: Backend = "llguidance"
    expand_weights: bool = True
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Check every value once, so that nothing downstream has to."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if value < 0 or (value == 0 and field.name not in MAY_BE_ZERO):
                raise ValueError(f"{field.name} must be positive, not {value!r}")
        if self.kv_bits not in (None, *KV_BITS):
            raise ValueError(f"kv_bits must be one of {KV_BITS}, not {self.kv_bits!r}")
        if self.device not in get_args(DeviceChoice):
            raise ValueError(f"device must be one of {get_args(DeviceChoice)}, not {self.device!r}")
        check_backend(self.backend)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> EngineConfig:
        """Read the settings from `LITELLM_MLX_<NAME>` variables, upper case.

        Raises:
            ValueError: a value does not parse or is out of range; the message names it.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, object] = {}
        for field in fields(cls):
            text = environ.get(ENV_PREFIX + field.name.upper())
            if text is not None:
                given[field.name] = _parse(field.name, text, field.default)
        return cls(**given)  # type: ignore[arg-type]  # each value has its default's type


def _parse(name: str, text: str, default: object) -> object:
    """Parse `text` as the type of `default`; as a whole number where that is `None`."""
    kind: Any = int if default is None else type(default)
    try:
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if isinstance(default, bool):
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"{ENV_PREFIX}{name.upper()}={text!r} is not a {kind.__name__}") from None
