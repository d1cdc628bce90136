"""Routing: each prompt goes to a quick or a careful local model, by its kind and difficulty.

Idea:   of the early designs, a router in front of several back ends that decides per operation.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/routing.py
Prints: for each prompt, the name that LiteLLM's complexity router chose.

Both names stand for one small model here; mlx/qwen3-0.6b and mlx/qwen3-8b would be a real pair.
The router counts words that tell of difficulty, without a model; `keyword_tier_rules` send a kind
of task where it belongs. LiteLLM decides so in async calls only.
"""

import asyncio

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

TIERS = {"SIMPLE": "quick", "MEDIUM": "quick", "COMPLEX": "careful", "REASONING": "careful"}
RULES = [{"keywords": ["translate"], "tier": "COMPLEX"}]
PROMPTS = [
    "What is the capital of France?",
    "Translate 'good morning' to French.",
    "Think through this step by step and explain your reasoning: 3 cats catch 3 mice in 3 hours.",
]


def local(name: str, max_tokens: int) -> dict[str, object]:
    """A deployment of the small model; its id tells who answered."""
    params = {"model": "mlx/smollm2-135m", "max_tokens": max_tokens, "temperature": 0}
    return {"model_name": name, "litellm_params": params, "model_info": {"id": name}}


def make_router() -> litellm.Router:
    """Two local names, and one that chooses between them."""
    config = {"tiers": TIERS, "keyword_tier_rules": RULES}
    params = {"model": "auto_router/complexity_router", "complexity_router_config": config}
    chooser = {"model_name": "any", "litellm_params": params}
    return litellm.Router(model_list=[local("quick", 16), local("careful", 48), chooser])


async def main() -> None:
    """Ask all at once and print who answered."""
    router = make_router()
    asked = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    answers = await asyncio.gather(*(router.acompletion("any", messages) for messages in asked))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        name = answer._hidden_params["model_id"]
        print(f"{name}: {prompt}\n  {answer.choices[0].message.content!r}")


if __name__ == "__main__":
    asyncio.run(main())
