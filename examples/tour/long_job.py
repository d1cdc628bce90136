"""A long job: submit it, get an id, poll that; as OpenAI's SDK does with `background=True`.

Idea:   of the early designs, OpenAI's responses in the background, which no local model had.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/long_job.py
Prints: how often the job was polled, how it ended, and the text.

LiteLLM's proxy has this for mlx/ too, where it has a Redis (`polling_via_cache: [mlx]`). In process
1.106 has nothing: `litellm.responses(background=True)` drops the flag and returns the whole answer,
`litellm.get_responses` refuses mlx. So tasks hold the jobs here, behind OpenAI's two routes.
"""

import asyncio
import uuid
from typing import Any

import httpx
import litellm
from fastapi import FastAPI

import litellm_mlx  # noqa: F401  # registers mlx/

app = FastAPI()  # uvicorn --app-dir examples/tour long_job:app serves it to others
jobs: dict[str, asyncio.Task[Any]] = {}


@app.post("/responses")
async def submit(job: dict[str, Any]) -> dict[str, Any]:
    """Begin, and answer at once."""
    key, limit = f"resp_{uuid.uuid4().hex}", min(job.get("max_output_tokens", 400), 400)
    work = litellm.aresponses(model="mlx/smollm2-135m", input=job["input"], max_output_tokens=limit)
    jobs[key] = asyncio.create_task(work)
    return await poll(key)


@app.get("/responses/{key}")
async def poll(key: str) -> dict[str, Any]:
    """The answer once it is there."""
    if not jobs[key].done():
        return {"id": key, "status": "in_progress"}
    if error := jobs[key].exception():
        return {"id": key, "status": "failed", "error": {"message": str(error)}}
    return jobs[key].result().model_dump() | {"id": key}


async def main() -> None:
    """Submit a job and poll it until it has ended."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://jobs") as client:
        asked = {"input": "Tell a story about a fox.", "max_output_tokens": 100}
        job, num_polls = (await client.post("/responses", json=asked)).json(), 0
        while job["status"] == "in_progress":
            await asyncio.sleep(0.2)
            job, num_polls = (await client.get(f"/responses/{job['id']}")).json(), num_polls + 1
    print(f"{job['id']} after {num_polls} polls: {job['status']}")
    print(job["output"][0]["content"][0]["text"])


if __name__ == "__main__":
    asyncio.run(main())
