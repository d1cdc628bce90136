"""Values that cross module borders: what a caller asks of the engine and what comes back.

Stdlib only, and nothing here knows LiteLLM, so that another front door can be put on the engine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls"]
ConstraintKind = Literal["json_schema", "regex", "choice", "grammar", "structure"]
Tier = Literal["grammar", "grammar+check"]
# One of these, or a name given to `extend.register_backend`.
Backend = str
BUILT_IN_BACKENDS = ("llguidance", "outlines_core")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the completion's text must satisfy, in canonical form.

    `source` is a JSON schema, a JSON list of choices or a structure (see `grammar.structure`), each
    as JSON text, a regex, or a grammar (Lark or GBNF), by `kind`. Equal constraints have equal
    fields, so the value is its own cache key.
    """

    kind: ConstraintKind
    source: str
    backend: Backend = "llguidance"

    @property
    def digest(self) -> str:
        """A short hash of `source`, by which logs name it."""
        return hashlib.blake2b(self.source.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    Temperature is applied first, then `top_k`, `top_p`, `min_p`. `repetition_penalty` counts the
    prompt and the completion, the presence and frequency penalties the completion only.
    `logit_bias` holds (token id, bias) pairs. Without `seed` every request draws afresh.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a model's own generation config says; `None` where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a completion's thinking block ends, whatever follows it.

    `end_token_ids` are the closing marker and the line breaks that the model writes after it. The
    block is closed after `budget_tokens`; `None` leaves that to the model.
    """

    end_token_ids: tuple[int, ...]
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to an engine: `n` completions of one prompt.

    `num_top_logprobs` is `None` when no logprobs are wanted; `raw_logprobs` asks for those of the
    model's own distribution, before any constraint. `deadline_s` is a time on the monotonic clock.
    `opens_reasoning` says that the prompt ends inside a thinking block; with `thinking` the engine
    ends it, and the constraint begins after it. `cache_key` names a session whose prompts and
    answers stay cached as long as there is room, see `kvcache.prefix_cache`. `is_streamed` says
    that someone reads along, see `engine.pacing`.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    stop: tuple[str, ...] = ()
    num_top_logprobs: int | None = None
    raw_logprobs: bool = False
    constraint: Constraint | None = None
    deadline_s: float | None = None
    opens_reasoning: bool = False
    thinking: Thinking | None = None
    cache_key: str | None = None
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One completion token with its natural-log probability, see `GenerationRequest`.

    `top` holds (token id, token bytes, logprob) of the likeliest tokens, best first.
    """

    token_id: int
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call: its id and name come once, at its start, then text of its arguments.

    `position` counts the calls of one completion; `arguments` joined are a JSON object.
    """

    position: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of completion `index`; `reasoning` is text inside the model's thinking block.

    All tokens that a step of the engine gives the completion come in one, which may be several.
    """

    index: int
    text: str = ""
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __add__(self, other: Delta) -> Delta:
        """The text of both, of the same completion."""
        return Delta(
            self.index,
            self.text + other.text,
            self.reasoning + other.reasoning,
            self.logprobs + other.logprobs,
            self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds of one request went, on the monotonic clock.

    One after another they are compiling the constraint, the queue, the prefill of the prompt, and
    decoding until the last completion ends: together `total_s`. `mask_s` is the part of decoding
    in which allowed tokens were computed for it, most of it while the device worked.
    `time_to_first_token_s` counts from submit.
    """

    queue_s: float
    time_to_first_token_s: float
    total_s: float
    compile_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    mask_s: float = 0.0

    def followed_by(self, other: Timings) -> Timings:
        """Two runs, one after the other, as one; the first token is that of the first."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Timings(**{**sums, "time_to_first_token_s": self.time_to_first_token_s})


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request, over all its completions.

    Completion tokens are the tokens that the model produced, its stop token included; cached
    tokens are prompt tokens that were not prefilled again.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Completion `index` has ended.

    `closed_by_budget` says that the engine chose the last tokens of a constrained text, so that it
    was complete before the token budget ran out. The reason is "length" then. `stop_sequence` is
    the caller's text that ended it, if one did.
    """

    index: int
    reason: FinishReason
    closed_by_budget: bool = False
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The whole request has ended well; always the last event.

    `num_tries` is how often the completion that needed most was drawn before it passed its check;
    `num_grammar_faults` of the texts drawn failed though a grammar was to hold them alone;
    `num_forced_tokens` of the completion tokens were taken without asking the model. `submitted_s`
    is when the timings begin, on the monotonic clock.
    """

    usage: Usage
    timings: Timings
    num_tries: int = 1
    num_grammar_faults: int = 0
    num_forced_tokens: int = 0
    submitted_s: float = 0.0


Event = Delta | Finished | Done
