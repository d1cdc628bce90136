"""A FastAPI app: an endpoint that returns a Pydantic model, and one that streams it as it grows.

Idea:   of the early designs, structured answers inside a web application with many users.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True uvicorn --app-dir examples/tour fastapi_app:app
        curl -N localhost:8000/person/stream -H 'Content-Type: application/json' \
            -d '{"text": "Maria, 34, laughed all evening."}'
Prints: (curl) a line of JSON for each state of the object; /docs shows its schema.

No lock, no threads: requests are awaited on the event loop and share the model's batch.
"""

from typing import Annotated, Any, Literal

import litellm
import openai
from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

import litellm_mlx

MODEL = "mlx/smollm2-135m"
app = FastAPI()
litellm_mlx.load(MODEL)  # before the first request


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int = Field(ge=0, le=130)
    mood: Literal["happy", "sad", "neutral"]


async def extract(text: str, **options: Any) -> Any:
    """Ask for a person."""
    messages = [{"role": "user", "content": f"Extract the person: {text}"}]
    options |= {"response_format": Person, "temperature": 0, "max_tokens": 100}
    return await litellm.acompletion(MODEL, messages, **options)


@app.post("/person")
async def whole(text: Annotated[str, Body(embed=True)]) -> Person:
    """The whole object."""
    return Person.model_validate_json((await extract(text)).choices[0].message.content)


@app.post("/person/stream")
async def stream(text: Annotated[str, Body(embed=True)]) -> StreamingResponse:
    """The object so far, each time that it has grown."""
    people = litellm_mlx.apartial_objects(await extract(text, stream=True), Person)
    lines = (f"{one.model_dump_json(exclude_none=True, warnings=False)}\n" async for one in people)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@app.exception_handler(openai.APIError)  # the root of LiteLLM's errors
async def refused(_: Request, error: openai.APIError) -> JSONResponse:
    """An error with the status that it carries."""
    return JSONResponse({"error": error.message}, getattr(error, "status_code", 500))
