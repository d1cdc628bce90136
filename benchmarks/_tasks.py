"""What the benchmarks ask for: three schemas of real DSPy programs, and a string without end.

The knowledge graph, the reflection and the chain of thought have the fields of programs that people
run, and one worked example each, as optimised programs have several: without it a model of 135
million parameters does not know what a node is. The sentences of the last two are bounded as well,
because it does not know when to stop either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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

    id: str
    label: str
    type: str


class Edge(_Closed):
    """What one node has to do with another."""

    source: str
    target: str
    relation: str


class KnowledgeGraph(_Closed):
    """The nodes of a text and the edges between them."""

    nodes: list[Node]
    edges: list[Edge]


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
        example: a worked one, about nobody of the rows.
    """

    answer: type[BaseModel]
    system: str
    user: Callable[[int], str]
    example: tuple[str, BaseModel] | None = None

    @property
    def constraint(self) -> Constraint:
        """The schema as the engine takes it."""
        return json_schema_constraint(self.answer.model_json_schema())

    def prompt(self, tokenizer: Any, row: int = 0) -> tuple[int, ...]:
        """The token ids of one row's prompt."""
        examples = []
        if self.example is not None:
            text, answer = self.example
            examples.append((text, json.dumps(answer.model_dump(), ensure_ascii=False)))
        return chat_ids(tokenizer, self.system, self.user(row), examples)


def _person(row: int) -> str:
    name, other = NAMES[row % len(NAMES)], NAMES[(row + 5) % len(NAMES)]
    place = PLACES[row % len(PLACES)]
    return f"{name} was born in {place} and worked with {other} for {row + 2} years."


EXAMPLE = "Galileo Galilei was born in Pisa and worked with Benedetto Castelli for 20 years."
GRAPH = KnowledgeGraph(
    nodes=[
        Node(id="1", label="Galileo Galilei", type="person"),
        Node(id="2", label="Pisa", type="city"),
        Node(id="3", label="Benedetto Castelli", type="person"),
    ],
    edges=[
        Edge(source="1", target="2", relation="was born in"),
        Edge(source="1", target="3", relation="worked with"),
    ],
)
TRACE = "trace_id: t-99\nsteps_count: 4\nfinal_state: completed\nreply_length: 120"
REFLECTION = Reflection(
    reasoning="The reply left out the years that the two worked together.",
    rationale="A summary that drops a number cannot be checked against its text.",
    proposed_change_what="Copy every number of the text into the summary.",
    proposed_change_why="Readers compare numbers first.",
    proposed_change_how="List the numbers before writing, and tick them off.",
    supporting_metrics="One of two facts was missing in this trace.",
    impact_assessment="Summaries grow by a few words and lose no fact.",
)
THOUGHT = Thought(reasoning="The text says that Galileo Galilei was born in Pisa.", answer="Pisa")

TASKS = {
    "knowledge_graph": Task(
        KnowledgeGraph,
        "Extract the knowledge graph of the text as JSON.",
        _person,
        (EXAMPLE, GRAPH),
    ),
    "reflection": Task(
        Reflection,
        "Generate a structured reflection on the task to propose improvements, as JSON.",
        lambda row: (
            f"user_message: {_person(row)} Sum that up.\ntrace_id: t-{row}\n"
            f"steps_count: {row + 3}\nfinal_state: completed\nreply_length: {100 + 7 * row}"
        ),
        (f"user_message: {EXAMPLE} Sum that up.\n{TRACE}", REFLECTION),
    ),
    "chain_of_thought": Task(
        Thought,
        "Think step by step, then answer the question, as JSON.",
        lambda row: f"{_person(row)} Where was {NAMES[row % len(NAMES)]} born?",
        (f"{EXAMPLE} Where was Galileo Galilei born?", THOUGHT),
    ),
}
PERSON = Task(Person, "Extract the person of the text as JSON.", _person)
LONG_STRING = Task(Story, "Tell a long story, as JSON.", lambda row: f"A story: {_person(row)}")


def chat_ids(
    tokenizer: Any, system: str, user: str, examples: Sequence[tuple[str, str]] = ()
) -> tuple[int, ...]:
    """A chat by the model's template, examples first; plain text where it has none."""
    turns = [text for example in examples for text in example] + [user]
    if not tokenizer.has_chat_template:
        return tuple(tokenizer.encode("\n\n".join([system, *turns, ""])))
    messages = [{"role": "system", "content": system}]
    for i, text in enumerate(turns):
        messages.append({"role": "assistant" if i % 2 else "user", "content": text})
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
