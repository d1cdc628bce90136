"""LiteLLM's Router: one name, a local model first, another where that one fails.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/router.py
Prints: which model answered each of two requests.

The first choice here is a model that is not on this machine; with a cloud model as the second
entry the same lines send what fails locally to the cloud.
"""

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

MODELS = [
    {"model_name": "large", "litellm_params": {"model": "mlx//models/that/is/not/here"}},
    {"model_name": "small", "litellm_params": {"model": "mlx/smollm2-135m"}},
]
QUESTION = [{"role": "user", "content": "Name a colour."}]


def main() -> list[str]:
    """Ask by both names and print who answered."""
    router = litellm.Router(model_list=MODELS, fallbacks=[{"large": ["small"]}], num_retries=0)
    answered = []
    for name in ("small", "large"):
        answer = router.completion(name, QUESTION, max_tokens=16, temperature=0)
        answered.append(answer.model)
        print(f"asked {name}, answered by {answer.model}: {answer.choices[0].message.content}")
    return answered


if __name__ == "__main__":
    main()
