"""What an answer says beside its text, whichever front door it leaves by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litellm_mlx.types import Done, Finished, FinishReason, Tier


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """What an answer says beside its text.

    Attributes:
        model: as it was asked.
        fingerprint: of the model.
        wants_logprobs: the caller asked for them.
        tier: how its constraint held; `None` for free text.
        repairs: what was mended of the request's schema.
        budget_finish_reason: reported where the token budget closed the text.
        is_function_call: the caller sent the older `functions`.
    """

    model: str
    fingerprint: str
    wants_logprobs: bool = False
    tier: Tier | None = None
    repairs: tuple[str, ...] = ()
    budget_finish_reason: FinishReason = "length"
    is_function_call: bool = False

    def finish_reason(self, finished: Finished) -> str:
        """The reason as this caller wants it."""
        if finished.closed_by_budget:
            return self.budget_finish_reason
        if finished.reason == "tool_calls" and self.is_function_call:
            return "function_call"
        return finished.reason

    def extras(self, done: Done, finished: Finished) -> dict[str, Any] | None:
        """What goes into `provider_specific_fields`, which LiteLLM's proxy passes on."""
        extras: dict[str, Any] = {}
        if self.tier is not None:
            extras = {
                "tier": self.tier,
                "tries": done.num_tries,
                "closed_by_budget": finished.closed_by_budget,
                "repairs": list(self.repairs),
            }
        if finished.stop_sequence is not None:
            extras["stop_sequence"] = finished.stop_sequence
        return extras or None
