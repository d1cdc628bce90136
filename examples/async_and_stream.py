"""Async: several calls on one event loop, then one answer as a stream.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/async_and_stream.py
Prints: three answers in the order asked, then a story piece by piece.
"""

import asyncio

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

MODEL = "mlx/smollm2-135m"


async def ask(country: str) -> str:
    """One whole answer."""
    response = await litellm.acompletion(
        model=MODEL,
        messages=[{"role": "user", "content": f"What is the capital of {country}?"}],
        temperature=0,
        max_tokens=40,
    )
    return str(response.choices[0].message.content)


async def tell() -> int:
    """Print a story as it comes; returns the number of pieces."""
    stream = await litellm.acompletion(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell a very short story about a fox."}],
        temperature=0,
        max_tokens=60,
        stream=True,
    )
    num_pieces = 0
    async for chunk in stream:
        piece = chunk.choices[0].delta.content or ""
        num_pieces += bool(piece)
        print(piece, end="", flush=True)
    print()
    return num_pieces


async def main() -> tuple[list[str], int]:
    """Gather three answers, then stream one."""
    answers = await asyncio.gather(*(ask(c) for c in ("France", "Japan", "Italy")))
    print("\n".join(answers))
    return list(answers), await tell()


if __name__ == "__main__":
    asyncio.run(main())
