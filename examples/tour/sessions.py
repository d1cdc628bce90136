"""Sessions: a conversation whose past is not computed again, also after a restart.

Idea:   of the early designs, stateful sessions that hold a worker for as long as they last.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/sessions.py
Prints: of each turn's prompt, how many tokens there were and how many were cached.

A `prompt_cache_key` names the session and holds no worker: it keeps what the model has seen before
other requests' in the prefix cache. `save_cache` and `load_cache` carry it to another process.
"""

import tempfile
from pathlib import Path
from typing import Any

import litellm

import litellm_mlx

MODEL = "mlx/smollm2-135m"
QUESTIONS = ["Who wrote Hamlet?", "When did he live?", "Name another play of his."]


def ask(messages: list[dict[str, Any]], question: str) -> None:
    """One turn; the answer becomes part of the conversation."""
    messages.append({"role": "user", "content": question})
    answer = litellm.completion(
        MODEL, messages, prompt_cache_key="guest-7", temperature=0, max_tokens=32
    )
    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    usage = answer.usage
    cached = usage.prompt_tokens_details.cached_tokens
    print(f"{question} {usage.prompt_tokens} prompt tokens, {cached} of them cached")


def main() -> None:
    """Talk, save, forget, load, and go on."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You know the theatre well."}]
    for question in QUESTIONS:
        ask(messages, question)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.safetensors"
        litellm_mlx.save_cache(MODEL, "guest-7", path)
        litellm_mlx.unload(MODEL)  # as the end of this process would
        print("went on with:", litellm_mlx.load_cache(MODEL, path))
    ask(messages, "Which one is the shortest?")


if __name__ == "__main__":
    main()
