"""The error tree: what can go wrong inside, before any front door translates it.

Only the front doors know LiteLLM's (or another library's) exceptions; they map each class here
to one of theirs by `http_status`. Stdlib only.
"""

from __future__ import annotations


class LiteLLMMLXError(Exception):
    """Base of every error that this package raises on purpose."""

    http_status: int = 500


class RequestError(LiteLLMMLXError):
    """The request itself cannot be served; sending it again cannot help."""

    http_status = 400


class UnsupportedParameterError(RequestError):
    """A parameter, or its value, that this package does not honour."""


class ConstraintError(RequestError):
    """A schema, regex or grammar that cannot be compiled, and why."""


class ConstraintViolationError(RequestError):
    """No try gave a text that passes the schema's check; LiteLLM's JSONSchemaValidationError.

    `text` is the last one; `num_grammar_faults` of them a grammar was to hold alone.
    """

    def __init__(self, message: str, text: str, num_grammar_faults: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.num_grammar_faults = num_grammar_faults


class PromptTooLongError(RequestError):
    """The prompt does not fit the model's context.

    Its words are those that clients look for, to shorten a conversation and go on: Anthropic's
    (Claude Code, OpenCode), then OpenAI's (LiteLLM's routes to a server, too).
    """

    def __init__(
        self,
        prompt_tokens: int,
        context_tokens: int,
        advice: str = "shorten the messages or use a model with a longer context",
    ) -> None:
        super().__init__(
            f"prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum (This model's "
            f"maximum context length is {context_tokens} tokens); {advice}"
        )


class BudgetError(RequestError):
    """The token budget has no room for any text that satisfies the constraint."""

    @classmethod
    def too_small(cls, minimum: int, max_tokens: int) -> BudgetError:
        """Refuse a request before its first token."""
        return cls(
            f"the shortest answer that was found for this constraint has {minimum:,} tokens, and "
            f"max_tokens leaves {max_tokens:,}; raise max_tokens"
        )

    @classmethod
    def cut(cls, num_tokens: int, max_tokens: int) -> BudgetError:
        """Withhold a text that was cut before it satisfied the constraint."""
        return cls(
            f"after {num_tokens:,} of max_tokens={max_tokens:,} tokens the text does not satisfy "
            "the constraint yet, and no way to end it was found in time; raise max_tokens"
        )


class KVBudgetError(RequestError):
    """The request's layer caches would not fit in memory even if it ran alone."""


class PromptCacheError(RequestError):
    """A session's cache that is not there, cannot be written or read, or is of another model."""


class ModelNotFoundError(LiteLLMMLXError):
    """No model of that name, or its files are not there."""

    http_status = 404


class ForbiddenModelError(ModelNotFoundError):
    """A model that a client on the network may not name, whether or not it exists."""


class ModelLoadError(RequestError):
    """The model's files are there but cannot be served on this machine; a retry cannot help."""


class ModelBusyError(RequestError):
    """A model that was to be unloaded answers requests."""


class OverloadedError(LiteLLMMLXError):
    """The queue is full; the same request may succeed later."""

    http_status = 429


class WorkerError(LiteLLMMLXError):
    """Another process of the same server owns the models."""

    http_status = 503


class EngineError(LiteLLMMLXError):
    """The engine failed while it served the request."""


class EngineStoppedError(EngineError):
    """The engine was shut down before the request ended."""


class RequestTimeoutError(LiteLLMMLXError):
    """The request's deadline passed."""

    http_status = 504


class RequestCancelled(LiteLLMMLXError):
    """The caller gave up; nobody waits for this result."""

    http_status = 499
