"""A knowledge graph: lists of nested models with a Literal type, out of a paragraph.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/knowledge_graph.py
Prints: the nodes, then the edges between them.
"""

from typing import Literal

import dspy
from pydantic import BaseModel, Field

import litellm_mlx  # noqa: F401  # registers mlx/

PARAGRAPH = "Marie Curie was born in Warsaw. She worked at the University of Paris."


class Node(BaseModel):
    id: int
    label: str = Field(max_length=40)
    type: Literal["person", "place", "organisation"]


class Edge(BaseModel):
    source: int
    target: int
    relation: str = Field(max_length=40)


class KnowledgeGraph(BaseModel):
    nodes: list[Node] = Field(max_length=5)
    edges: list[Edge] = Field(max_length=5)


class ExtractGraph(dspy.Signature):
    """Extract the knowledge graph of the text."""

    text: str = dspy.InputField()
    graph: KnowledgeGraph = dspy.OutputField()


def main() -> KnowledgeGraph:
    """Extract one graph and print it."""
    dspy.configure(lm=dspy.LM("mlx/smollm2-135m", temperature=0), adapter=dspy.JSONAdapter())
    graph = dspy.Predict(ExtractGraph)(text=PARAGRAPH).graph
    for node in graph.nodes:
        print(f"node {node.id}: {node.label} ({node.type})")
    for edge in graph.edges:
        print(f"edge {edge.source} -[{edge.relation}]-> {edge.target}")
    return graph


if __name__ == "__main__":
    main()
