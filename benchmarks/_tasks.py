"""What the benchmarks ask for: three schemas of real DSPy programs, and a string without end.

The knowledge graph, the reflection and the chain of thought have the fields of programs that people
run. Their strings and lists are bounded, because a model of 135 million parameters does not know
when to stop; the bounds leave room for the sentences that such fields hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.types import Constraint, GenerationRequest, SamplingParams

NAMES = (
    *("Marie Curie", "Ada Lovelace", "Alan Turing", "Emmy Noether", "Niels Bohr", "Lise Meitner"),
    *("Isaac Newton", "Rosalind Franklin", "Max Planck", "Grace Hopper", "Carl Gauss"),
    *("Sofia Kovalevskaya", "Paul Dirac", "Dorothy Hodgkin", "Euclid", "Mary Anning"),
)
PLACES = ("Warsaw", "London", "Paris", "Vienna", "Berlin", "Rome", "Oslo", "Lisbon", "Prague")


class _Closed(BaseModel):
    """No further fields, as DSPy's JSON adapter asks for."""

    model_config = ConfigDict(extra="forbid")


Name = Annotated[str, Field(max_length=30)]
Sentence = Annotated[str, Field(max_length=80)]


class Node(_Closed):
    """A thing that the text names."""

    id: Name
    label: Name
    type: Name


class Edge(_Closed):
    """What one node has to do with another."""

    source: Name
    target: Name
    relation: Name


class KnowledgeGraph(_Closed):
    """The nodes of a text and the edges between them."""

    nodes: list[Node] = Field(max_length=2)
    edges: list[Edge] = Field(max_length=2)


class Reflection(_Closed):
    """What an agent learns from a task, as its chain of thought writes it."""

    reasoning: Sentence
    rationale: Sentence
    proposed_change_what: Sentence
    proposed_change_why: Sentence
    proposed_change_how: Sentence
    supporting_metrics: Sentence
    impact_assessment: Sentence


class Thought(_Closed):
    """A chain of thought with one string for its answer."""

    reasoning: Annotated[str, Field(max_length=150)]
    answer: Sentence


class Person(_Closed):
    """A record of the kind that extraction programs fill by the thousand."""

    name: Name
    born_in: Name
    worked_with: Name
    years: Annotated[int, Field(ge=0, le=99)]
    field: Literal["mathematics", "physics", "chemistry", "other"]


class Story(_Closed):
    """One string that goes on until the token budget ends it: nothing is forced for long."""

    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """A schema, and prompts that fit it.

    Attributes:
        answer: model of the answer.
        system: what to do.
        user: gives the text of row `i`; no two rows have the same.
    """

    answer: type[BaseModel]
    system: str
    user: Callable[[int], str]

    @property
    def constraint(self) -> Constraint:
        """The schema as the engine takes it."""
        return json_schema_constraint(self.answer.model_json_schema())

    def prompt(self, tokenizer: Any, row: int = 0) -> tuple[int, ...]:
        """The token ids of one row's prompt."""
        return chat_ids(tokenizer, self.system, self.user(row))


def _person(row: int) -> str:
    name, other = NAMES[row % len(NAMES)], NAMES[(row + 5) % len(NAMES)]
    place = PLACES[row % len(PLACES)]
    return f"{name} was born in {place} and worked with {other} for {row + 2} years."


TASKS = {
    "knowledge_graph": Task(
        KnowledgeGraph, "Extract the knowledge graph of the text as JSON.", _person
    ),
    "reflection": Task(
        Reflection,
        "Generate a structured reflection on the task to propose improvements, as JSON.",
        lambda row: (
            f"user_message: {_person(row)} Sum that up.\ntrace_id: t-{row}\n"
            f"steps_count: {row + 3}\nfinal_state: completed\nreply_length: {100 + 7 * row}"
        ),
    ),
    "chain_of_thought": Task(
        Thought,
        "Think step by step, then answer the question, as JSON.",
        lambda row: f"{_person(row)} Where was {NAMES[row % len(NAMES)]} born?",
    ),
}
PERSON = Task(Person, "Extract the person of the text as JSON.", _person)
LONG_STRING = Task(Story, "Tell a long story, as JSON.", lambda row: f"A story: {_person(row)}")


def chat_ids(tokenizer: Any, system: str, user: str) -> tuple[int, ...]:
    """A chat of two messages by the model's template; plain text where it has none."""
    if not tokenizer.has_chat_template:
        return tuple(tokenizer.encode(f"{system}\n\n{user}\n\n"))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def greedy(
    prompt: tuple[int, ...], max_tokens: int, constraint: Constraint | None = None, **options: Any
) -> GenerationRequest:
    """A request at temperature 0."""
    sampling = SamplingParams(temperature=0)
    return GenerationRequest(prompt, max_tokens, sampling, constraint=constraint, **options)


def endless(
    prompt: tuple[int, ...], num_tokens: int, stop_token_ids: frozenset[int]
) -> GenerationRequest:
    """A free greedy request that no stop token ends: its length is known beforehand."""
    bias = tuple((token_id, -1e9) for token_id in sorted(stop_token_ids))
    return GenerationRequest(prompt, num_tokens, SamplingParams(temperature=0, logit_bias=bias))
