"""DSPy without LiteLLM: the same models behind DSPy's own engine contract.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/dspy_engine.py
Prints: an answer, three samples, a stream, and an answer of the program after it was saved.

The engines are handles: no weights are in them, so programs are copied and saved as with any LM.
"""

import asyncio
import tempfile
from pathlib import Path

import dspy
from dspy.streaming import StreamListener, StreamResponse

from litellm_mlx.dspy import AsyncMLXEngine, MLXEngine

SIGNATURE = "text -> mood: Literal['happy', 'sad'], reason: str"
TEXT = "Maria laughed all evening."


async def stream(program: dspy.Module) -> str:
    """Print one field as it is written."""
    ask = dspy.streamify(program, stream_listeners=[StreamListener("reason")])
    pieces = []
    async for piece in ask(text=TEXT):
        if isinstance(piece, StreamResponse):
            pieces.append(piece.chunk)
            print(piece.chunk, end="|", flush=True)
    print()
    return "".join(pieces)


def main() -> None:
    """Ask, sample, stream, save and load."""
    lm = dspy.LM(
        "mlx/smollm2-135m",
        engine=MLXEngine(min_p=0.05),  # what dspy.LM does not take with an engine
        async_engine=AsyncMLXEngine(min_p=0.05),
        max_tokens=120,
        cache=False,
    )
    dspy.configure(adapter=dspy.JSONAdapter())
    program = dspy.Predict(SIGNATURE)
    program.set_lm(lm)
    print("mood:", program(text=TEXT).mood)
    print("samples:", [lm("Say a colour.", n=3, temperature=1.0, max_tokens=5)])
    asyncio.run(stream(program))
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "program.json")
        again = dspy.Predict(SIGNATURE)
        again.load(Path(folder) / "program.json", allow_unsafe_lm_state=True)
    print("loaded:", again(text=TEXT).mood)


if __name__ == "__main__":
    main()
