"""One call of one model: from its arguments to the events of its answer.

Every front door goes through here, `provider` for LiteLLM and `dspy` for DSPy's own engines, and
nothing here knows either. What a door's arguments and errors are called is the door's business.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litellm_mlx import observe
from litellm_mlx.engine.checked import CheckedEvents, Events, StreamedEvents
from litellm_mlx.engine.counted import Counted
from litellm_mlx.errors import BudgetError, ConstraintError
from litellm_mlx.translate.answer_facts import AnswerFacts
from litellm_mlx.translate.read_answer import AnswerReader
from litellm_mlx.translate.request import Call, PreparedRequest, build_request
from litellm_mlx.types import Done, Event, Tier

if TYPE_CHECKING:
    from litellm_mlx.config import EngineConfig
    from litellm_mlx.engine.engine import Engine
    from litellm_mlx.models.loader import LoadedModel
    from litellm_mlx.models.registry import Lease, ModelRegistry
    from litellm_mlx.translate.tools import ToolPlan


@dataclass(frozen=True, slots=True)
class StartedCall:
    """A call that the engine has accepted: its events, and how its answer is to look."""

    n: int
    events: Events
    reader: AnswerReader
    facts: AnswerFacts
    # The model stays in memory until this is released, or dropped with the answer.
    lease: Lease[Engine[LoadedModel]]

    def read(self, event: Event, asked: observe.Asked) -> Iterable[Event]:
        """What an event of the engine's is to the caller; its last one is noted."""
        if isinstance(event, Done):
            asked.answered(self.facts.tier, event)
        return self.reader.read(event)

    def close(self) -> None:
        """Cancel the call unless it has ended, and let go of the model. Safe to call twice."""
        self.events.close()
        self.lease.release()


def start_call(
    registry: ModelRegistry,
    model: str,
    call: Call,
    config: EngineConfig,
    *,
    shown_as: str | None = None,
) -> StartedCall:
    """Load the model if need be, translate, compile, submit. Blocks; not for event loops.

    Args:
        registry: whose engine serves it.
        model: without the `mlx/` prefix.
        call: its arguments.
        config: settings of this call, which may be narrower than the registry's.
        shown_as: what the answer calls the model; else its name.

    Raises:
        LiteLLMMLXError: it cannot be served.
    """
    lease = registry.lease(model)
    try:
        return _start_on(lease, shown_as or model, call, config)
    except BaseException:
        lease.release()  # the error's traceback would keep it
        raise


def _start_on(
    lease: Lease[Engine[LoadedModel]], name: str, call: Call, config: EngineConfig
) -> StartedCall:
    engine = lease.engine
    model = engine.model(timeout_s=max(call.deadline_s - time.monotonic(), 0))
    prepared = build_request(call, model, config)
    try:
        tier, events = _submit(engine, prepared, config)
    except (BudgetError, ConstraintError):
        if not prepared.repairs:
            raise
        # A repair is ours: where it cannot be enforced, the request counts as it was sent.
        as_sent = dataclasses.replace(call, repairs_prompt=False)
        prepared = build_request(as_sent, model, config)
        tier, events = _submit(engine, prepared, config)
    facts = AnswerFacts(
        model=name,
        fingerprint=model.fingerprint,
        wants_logprobs=prepared.generation.num_top_logprobs is not None,
        tier=tier,
        repairs=prepared.repairs,
        budget_finish_reason=prepared.budget_finish_reason,
        is_function_call=prepared.tools is not None and prepared.tools.is_function_call,
    )
    n = prepared.generation.n
    return StartedCall(n, events, AnswerReader(prepared.tools, n), facts, lease)


def _submit(
    engine: Engine[LoadedModel], prepared: PreparedRequest, config: EngineConfig
) -> tuple[Tier | None, Events]:
    """Hand a request to the engine, with the check of its finished texts around it.

    Validators that are not needed before are built while the engine takes in the prompt.
    """
    request, tools = prepared.generation, prepared.tools
    if prepared.count_only:
        return None, Counted(request)
    if request.constraint is None:
        return None, engine.submit(request)
    try:
        index = engine.index(request.constraint)
    except ConstraintError as error:
        raise _naming_the_tool(error, engine, tools) from error
    tier, check = index.tier, index.check
    if tools is not None:
        check = tools.check_of_answer(tier, check)
        tier = tier if tools.is_held else "grammar+check"
    events: Events
    if tier == "grammar" and request.is_streamed:
        events = StreamedEvents(request, engine.submit(request), check)
    else:
        events = CheckedEvents(request, engine.submit, check, tier=tier, max_tries=config.max_tries)
    check.prepare()
    return tier, events


def _naming_the_tool(
    error: ConstraintError, engine: Engine[LoadedModel], tools: ToolPlan | None
) -> ConstraintError:
    """Say which tool it is that cannot be enforced, so that the caller can do without it."""
    for name, constraint in [] if tools is None else tools.constraints():
        try:
            engine.index(constraint)
        except ConstraintError as own:
            return ConstraintError(f"tool {name!r}: {own}")
    return error
