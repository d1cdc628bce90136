"""Search by meaning: stock `dspy.Embedder` and DSPy's retriever on a local embedding model.

Run:    pip install 'litellm-mlx[cpu,dspy,embeddings]'   (macOS: without `cpu`)
        python examples/embeddings.py [MODEL]
Prints: the passage that answers each question best.

MODEL is `mlx/all-minilm-l6-v2` unless given: 90 MB from the Hugging Face hub, at the first run.
"""

import sys

import dspy

import litellm_mlx  # noqa: F401  # registers mlx/

PASSAGES = [
    "The Seine runs through Paris and meets the sea at Le Havre.",
    "A sourdough loaf rests overnight before it is baked.",
    "The heart pumps blood through the arteries of the body.",
    "Oslo lies at the end of a fjord.",
]
QUESTIONS = ["Which river flows in the French capital?", "How does one make bread?"]


def main() -> None:
    """Embed the passages once, then look each question up."""
    model = sys.argv[1] if len(sys.argv) > 1 else "mlx/all-minilm-l6-v2"
    embedder = dspy.Embedder(model, batch_size=32)
    search = dspy.retrievers.Embeddings(corpus=PASSAGES, embedder=embedder, k=1)
    for question in QUESTIONS:
        print(question, "->", search(question).passages[0])


if __name__ == "__main__":
    main()
