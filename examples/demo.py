"""The main job: stock DSPy, a stock JSONAdapter, a local model, validated objects.

Run:    scripts/demo (sets everything up first), or python examples/demo.py
Prints: a knowledge graph, a reasoned answer with several typed outputs, and what it cost.
"""

import logging
from typing import Literal

import dspy
from pydantic import BaseModel, Field

import litellm_mlx
from litellm_mlx.types import Timings

PARAGRAPH = "Marie Curie was born in Warsaw and worked in Paris, where she discovered radium."


class Node(BaseModel):
    id: int
    label: str = Field(max_length=40)
    type: Literal["person", "place", "thing"]


class Edge(BaseModel):
    source: int
    target: int
    relation: Literal["born in", "worked in", "discovered"]


class KnowledgeGraph(BaseModel):
    nodes: list[Node] = Field(max_length=5)
    edges: list[Edge] = Field(max_length=4)


class ExtractGraph(dspy.Signature):
    """Extract the people, places and things of the text, and how they are related."""

    text: str = dspy.InputField()
    graph: KnowledgeGraph = dspy.OutputField()


def extract_graph() -> KnowledgeGraph:
    """A Predict with nested models, lists and a Literal."""
    graph: KnowledgeGraph = dspy.Predict(ExtractGraph)(text=PARAGRAPH).graph
    for node in graph.nodes:
        print(f"  node {node.id}: {node.label} ({node.type})")
    for edge in graph.edges:
        print(f"  edge {edge.source} -> {edge.target}: {edge.relation}")
    return graph


def answer_with_reasons() -> dspy.Prediction:
    """A ChainOfThought with several typed outputs."""
    signature = "question -> answer: str, year: int, sure: bool"
    prediction = dspy.ChainOfThought(signature)(question="When did people first walk on the Moon?")
    for name, value in prediction.items():
        print(f"  {name}: {value!r}")
    return prediction


def print_cost(lm: dspy.LM) -> None:
    """One line over both calls; tokens per second while decoding, after the first token."""
    responses = [entry["response"] for entry in lm.history]
    timings: list[Timings] = [r._hidden_params["litellm_mlx_timings"] for r in responses]
    num_prompt = sum(r.usage.prompt_tokens for r in responses)
    num_completion = sum(r.usage.completion_tokens for r in responses)
    decode_s = sum(t.total_s - t.time_to_first_token_s for t in timings)
    ttft_s = timings[0].time_to_first_token_s
    print(
        f"{num_prompt} prompt + {num_completion} completion tokens, time to first token "
        f"{ttft_s:.2f} s, {num_completion / decode_s:.1f} tokens/s"
    )


def main() -> None:
    """Load the model with progress, then do both jobs."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("litellm_mlx").setLevel(logging.INFO)
    print("Loading mlx/smollm2-135m ...", flush=True)
    litellm_mlx.load("mlx/smollm2-135m")
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    dspy.configure(lm=dspy.LM("mlx/smollm2-135m"), adapter=dspy.JSONAdapter())
    print(f"\nKnowledge graph of: {PARAGRAPH}", flush=True)
    extract_graph()
    print("\nChain of thought:", flush=True)
    answer_with_reasons()
    print()
    print_cost(dspy.settings.lm)


if __name__ == "__main__":
    main()
