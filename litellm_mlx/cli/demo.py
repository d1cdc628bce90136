"""`litellm-mlx demo`: free text and a knowledge graph from a small model, and what they took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import BaseModel, ConfigDict, Field

from litellm_mlx.cli.common import as_json_option
from litellm_mlx.models.names import EMBEDDED_ALIAS

if TYPE_CHECKING:
    from litellm_mlx.cli.measure import Measured

QUESTION = "Why is the sky blue?"
PARAGRAPH = "Marie Curie was born in Warsaw and worked in Paris, where she discovered radium."
# A model of 135 million parameters does not know what a node is until it has seen one.
_EXAMPLE = "Alexander Fleming was born in Darvel and worked in London, where he found penicillin."
_EXAMPLE_GRAPH = """\
{"nodes": [{"id": 1, "label": "Alexander Fleming", "type": "person"}, \
{"id": 2, "label": "Darvel", "type": "place"}, {"id": 3, "label": "London", "type": "place"}, \
{"id": 4, "label": "penicillin", "type": "thing"}], \
"edges": [{"source": 1, "target": 2, "relation": "born in"}, \
{"source": 1, "target": 3, "relation": "worked in"}, \
{"source": 1, "target": 4, "relation": "discovered"}]}"""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Node(_Closed):
    """Something that the text names."""

    id: int
    label: str = Field(max_length=40)
    type: Literal["person", "place", "thing"]


class Edge(_Closed):
    """What one node has to do with another, by their ids."""

    source: int
    target: int
    relation: Literal["born in", "worked in", "discovered"]


class KnowledgeGraph(_Closed):
    """What the model fills in."""

    nodes: list[Node] = Field(min_length=1, max_length=5)
    edges: list[Edge] = Field(max_length=4)


@click.command()
@click.option("--model", default=EMBEDDED_ALIAS, show_default=True, help="With or without mlx/.")
@as_json_option
def demo(model: str, as_json: bool) -> None:
    """Show free text and structured output, with their speed; needs nothing but this package."""
    from rich.console import Console

    from litellm_mlx.cli.measure import ask, load

    load(model)
    with Console(stderr=True).status("writing free text ...") as status:
        free = ask(model, [free_request(QUESTION)])
        status.update("extracting a knowledge graph ...")
        structured = ask(model, [graph_request(PARAGRAPH)])
    graph = KnowledgeGraph.model_validate_json(structured.texts[0])
    if as_json:
        told = {
            "model": model,
            "free": {"question": QUESTION, "answer": free.texts[0], **_figures(free)},
            "graph": {"text": PARAGRAPH, **graph.model_dump(), **_figures(structured)},
        }
        click.echo(json.dumps(told))
        return
    _show(free, structured, graph)


def free_request(question: str, max_tokens: int = 60) -> dict[str, Any]:
    """A question with a free answer, as arguments of `litellm.completion`."""
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "max_tokens": max_tokens, "temperature": 0}


def graph_request(text: str) -> dict[str, Any]:
    """The extraction of a knowledge graph, after a worked example."""
    asked = "Extract the knowledge graph of this text: "
    messages = [
        {"role": "user", "content": asked + _EXAMPLE},
        {"role": "assistant", "content": _EXAMPLE_GRAPH},
        {"role": "user", "content": asked + text},
    ]
    return {
        "messages": messages,
        "response_format": KnowledgeGraph,
        "max_tokens": 300,
        "temperature": 0,
    }


def _figures(measured: Measured) -> dict[str, Any]:
    return {
        "completion_tokens": measured.completion_tokens,
        "tokens_per_s": round(measured.decode_tokens_per_s, 2),
        "forced_share": round(measured.forced_share, 3),
        "passes_per_token": round(measured.passes_per_token, 3),
    }


def _show(free: Measured, structured: Measured, graph: KnowledgeGraph) -> None:
    from rich.console import Console

    out = Console(highlight=False)
    out.print(f"[bold]{QUESTION}[/bold]")
    out.print(free.texts[0].strip(), markup=False)
    out.print(f"[dim]{_speed(free)}[/dim]\n")
    out.print(f"[bold]The knowledge graph of:[/bold] {PARAGRAPH}")
    for node in graph.nodes:
        out.print(f"  node {node.id}: {node.label} ({node.type})", markup=False)
    for edge in graph.edges:
        out.print(f"  edge {edge.source} -> {edge.target}: {edge.relation}", markup=False)
    forced = f"{structured.forced_share:.0%} of the tokens forced by the schema"
    passes = f"{structured.passes_per_token:.2f} passes of the model per token"
    out.print(f"[dim]{_speed(structured)}; {forced}, {passes}[/dim]")


def _speed(measured: Measured) -> str:
    return f"{measured.completion_tokens} tokens, {measured.decode_tokens_per_s:.1f} tokens/s"
