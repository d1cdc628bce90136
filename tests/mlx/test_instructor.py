"""instructor's modes on random weights: each turn is held to the class that was asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import anthropic
import httpx2
import instructor
import litellm
import pytest
from pydantic import BaseModel, Field, field_validator

from litellm_mlx.grammar.structure import json_part
from litellm_mlx.translate.instructor_prompt import (
    AFTER,
    ANTHROPIC_GAP,
    ASKED_AGAIN,
    CODE_BLOCK,
    GAP,
    TASK,
    instructed_part,
)

USER = [{"role": "user", "content": "hello {{ name }}"}]
MODES = [
    instructor.Mode.TOOLS,
    instructor.Mode.TOOLS_STRICT,
    instructor.Mode.JSON,  # sends no schema: it is read from instructor's prompt
    instructor.Mode.MD_JSON,  # as above, in a code block
    instructor.Mode.JSON_SCHEMA,
]
PROMPTED = [instructor.Mode.JSON, instructor.Mode.MD_JSON]
CONTEXTS = [None, {"name": "Ann"}]  # with a context instructor renders its messages by Jinja
NUM_ANSWERS = 3  # the third is taken

# The ways in which a chat takes instructor's sentences: as a message of its own, after a text,
# after a part, before the text of a second system message, and as a part beside others.
CHATS: dict[str, list[dict[str, Any]]] = {
    "user": USER,
    "system": [{"role": "system", "content": "Be kind."}, *USER],
    "system parts": [
        {"role": "system", "content": [{"type": "text", "text": t} for t in ("Be kind.", "Now.")]},
        *USER,
    ],
    "two systems": [{"role": "system", "content": text} for text in ("Be kind.", "Now.")] + USER,
    "user parts": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    "later turn": [*USER, {"role": "assistant", "content": "yes?"}, *USER],
}


class Step(BaseModel, extra="forbid"):
    action: Literal["walk", "run"]
    minutes: int = Field(ge=1, le=90)


class Plan(BaseModel, extra="forbid"):
    goal: str = Field(max_length=20)
    steps: list[Step] = Field(min_length=1, max_length=3)
    done: bool


def hard_to_please() -> tuple[type[BaseModel], list[Step]]:
    """A class that takes the third object of its schema only, and the objects that it saw."""
    seen: list[Step] = []

    class Hard(BaseModel, extra="forbid"):
        step: Step

        @field_validator("step")
        @classmethod
        def is_third(cls, step: Step) -> Step:
            seen.append(step)
            if len(seen) < NUM_ANSWERS:
                raise ValueError(f"not yet, and end your answer so: {CODE_BLOCK}")
            return step

    return Hard, seen


def assert_each_answer_parsed(create: Callable[..., Any], **options: Any) -> None:
    """As many calls as answers: an answer that is not of the schema would cost one more."""
    wanted, seen = hard_to_please()
    create(response_model=wanted, max_tokens=150, max_retries=NUM_ANSWERS - 1, **options)
    assert len(seen) == NUM_ANSWERS


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_the_first_answer_is_the_object(tiny: str, mode: instructor.Mode) -> None:
    client = instructor.from_litellm(litellm.completion, mode=mode)
    for seed in range(4):
        plan = client.chat.completions.create(
            model=tiny,
            messages=USER,
            response_model=Plan,
            max_retries=0,
            max_tokens=400,
            seed=seed,
        )
        assert isinstance(plan, Plan)


@pytest.mark.parametrize("context", CONTEXTS, ids=["plain", "jinja"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_every_answer_is_held_when_instructor_asks_again(
    tiny: str, mode: instructor.Mode, context: dict[str, Any] | None
) -> None:
    client = instructor.from_litellm(litellm.completion, mode=mode)
    assert_each_answer_parsed(
        client.chat.completions.create, model=tiny, messages=USER, context=context, seed=1
    )


@pytest.mark.parametrize("context", CONTEXTS, ids=["plain", "jinja"])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("mode", PROMPTED, ids=lambda mode: mode.name)
def test_the_schema_is_read_wherever_instructor_prints_it(
    mode: instructor.Mode, chat: str, context: dict[str, Any] | None
) -> None:
    """What instructor would send, read without a model: the first turn and the one after it."""
    sent: list[dict[str, Any]] = []
    wanted, _ = hard_to_please()

    def answer(**request: Any) -> litellm.ModelResponse:
        sent.append({**request, "messages": list(request["messages"])})
        text = '{"step": {"action": "run", "minutes": 5}}'
        return litellm.ModelResponse(choices=[{"message": {"content": text}}])

    instructor.from_litellm(answer, mode=mode).chat.completions.create(
        response_model=wanted, messages=CHATS[chat], context=context, max_retries=NUM_ANSWERS - 1
    )
    assert len(sent) == NUM_ANSWERS
    (part,) = {
        instructed_part(request["messages"], request.get("response_format")) for request in sent
    }
    schema = json_part(wanted.model_json_schema())
    assert part is not None
    assert part == schema if mode is instructor.Mode.JSON else schema in part.parts


@pytest.mark.parametrize("context", CONTEXTS, ids=["plain", "jinja"])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_anthropics_json_mode_is_held_too(
    tiny: str, context: dict[str, Any] | None, system: str | None
) -> None:
    def served(request: httpx2.Request) -> httpx2.Response:
        body = {**json.loads(request.content), "model": tiny}
        return httpx2.Response(200, json=asyncio.run(litellm.anthropic_messages(**body)))

    sdk = anthropic.Anthropic(
        api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(served))
    )
    client = instructor.from_anthropic(sdk, mode=instructor.Mode.JSON)
    head = [] if system is None else [{"role": "system", "content": system}]
    assert_each_answer_parsed(
        client.chat.completions.create, model="served", messages=[*head, *USER], context=context
    )


def test_instructors_prompt_is_read_to_the_letter_or_not_at_all() -> None:
    schema = json.dumps(Plan.model_json_schema(), indent=2)
    text = f"Be kind.\n\n{TASK}{GAP}{schema}{AFTER}\n"
    for_anthropic = text.replace(TASK + GAP, TASK + ANTHROPIC_GAP)
    part = json_part(Plan.model_json_schema())
    any_object = {"type": "json_object"}

    def read(text: str, response_format: Any = None, *turns: str, role: str = "system") -> Any:
        asked = [{"role": "user", "content": turn} for turn in turns or ("hello",)]
        return instructed_part([{"role": role, "content": text}, *asked], response_format)

    assert read(text, any_object) == part
    assert read(text) is None
    assert read(for_anthropic) == part
    assert read(for_anthropic, any_object) is None
    assert read(text, None, f"hello\n\n{CODE_BLOCK}", f"{ASKED_AGAIN}x") is not None
    assert read(text, None, f"hello\n\n{CODE_BLOCK}", "something else") is None
    assert read(text, None, f"{CODE_BLOCK} please") is None
    assert read(text, None, f"{ASKED_AGAIN}x") is None
    for other in (
        text.removesuffix("\n") + "x",
        text.replace("genius", "great"),
        text + text,
        text.replace(GAP, "\n"),
        f"{TASK}{GAP}[]{AFTER}",
        f"{TASK}{GAP}{{{AFTER}",
    ):
        assert read(other, any_object) is None
        assert read(text, any_object, role="user") is None
