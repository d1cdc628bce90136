"""The tour runs as its first lines say: asserted are forms and counts, never wisdom or time."""

from __future__ import annotations

import ast
import importlib.util
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from tests.programs import TIMEOUT_S, output_of_script

TOUR = Path(__file__).parents[2] / "examples" / "tour"
RUN = {
    "routing.py",
    "fallback.py",
    "pooling.py",
    "sessions.py",
    "pipelines.py",
    "telemetry.py",
    "long_job.py",
    "react_agent.py",
}
SERVED = {"fastapi_app.py"}


def matches(pattern: str, shown: str) -> list[Any]:
    """What the groups of a pattern matched, over all lines; there must be some."""
    found = re.findall(pattern, shown, re.MULTILINE)
    assert found, shown
    return found


def test_every_file_is_run_here() -> None:
    assert {path.name for path in TOUR.glob("*.py")} == RUN | SERVED


@pytest.mark.parametrize("name", sorted(RUN | SERVED))
def test_an_example_is_short_and_says_what_it_shows(name: str) -> None:
    text = (TOUR / name).read_text()
    documented = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) < 60
    assert "\nIdea:   " in documented and "\nPrints: " in documented
    module = name.removesuffix(".py")
    assert f"examples/tour/{name}" in documented or f"examples/tour {module}:app" in documented


@pytest.mark.model
def test_a_prompt_is_routed_by_kind_and_difficulty() -> None:
    shown = output_of_script(TOUR / "routing.py")
    assert matches(r"^(quick|careful): (\w+)", shown) == [
        ("quick", "What"),
        ("careful", "Translate"),
        ("careful", "Think"),
    ]


@pytest.mark.model
def test_what_fails_is_answered_elsewhere() -> None:
    answers = dict(
        matches(r"^(local|missing|unreachable): (.+)", output_of_script(TOUR / "fallback.py"))
    )
    assert answers["missing"] == repr("Blue, says the cloud.")
    assert answers["unreachable"] == answers["local"] != answers["missing"]


@pytest.mark.model
def test_deployments_share_the_weights_and_the_batch() -> None:
    shown = output_of_script(TOUR / "pooling.py")
    # Which deployments are asked is chance, and that it is one alone all but impossible.
    assert matches(r"^16 answers from 8 threads, by (w\d(?:, w\d)+)$", shown)
    assert "1 model in memory, " in shown
    ((num_tokens, num_passes),) = matches(r"^(\d+) tokens in (\d+) passes", shown)
    assert int(num_tokens) > 2 * int(num_passes)


@pytest.mark.model
def test_a_session_grows_and_survives() -> None:
    shown = output_of_script(TOUR / "sessions.py")
    assert "went on with: guest-7" in shown
    turns = matches(r" (\d+) prompt tokens, (\d+) of them cached", shown)
    num_prompt, num_cached = zip(*((int(a), int(b)) for a, b in turns), strict=True)
    assert len(turns) == 4 and num_cached[0] == 0
    # All of the turn before, also where its cache came from a file.
    assert all(cached >= before for cached, before in zip(num_cached[1:], num_prompt, strict=False))


@pytest.mark.model
def test_a_pipeline_goes_on_when_a_step_fails() -> None:
    steps = dict(matches(r"^(\w+): (.+)", output_of_script(TOUR / "pipelines.py")))
    assert ast.literal_eval(steps["errors"]) == ["LMUnsupportedModelError"]
    branch = {"complaint": "apology", "question": "answer"}[ast.literal_eval(steps["kind"])]
    assert list(steps) == ["kind", "subject", branch, "errors"]


@pytest.mark.model
def test_all_counts_of_tokens_agree() -> None:
    shown = output_of_script(TOUR / "telemetry.py")
    answered = matches(r"^answered: smollm2-135m grammar, (\d+) prompt .*, (\d+) completion", shown)
    num_prompt, num_completion = (sum(map(int, column)) for column in zip(*answered, strict=True))
    assert len(answered) == 2
    assert "failed: /no/such/model ModelNotFoundError 404" in shown
    assert f"DSPy: mlx/smollm2-135m {num_prompt} + {num_completion} tokens" in shown
    labels = '{model="smollm2-135m"}'
    assert f"litellm_mlx_prompt_tokens_total{labels} {num_prompt}.0" in shown
    assert f"litellm_mlx_completion_tokens_total{labels} {num_completion}.0" in shown


@pytest.mark.model
def test_a_job_is_polled_until_it_is_done() -> None:
    ((num_polls, status),) = matches(
        r"^resp_\w+ after (\d+) polls: (\w+)\n.+", output_of_script(TOUR / "long_job.py")
    )
    assert status in ("completed", "incomplete")  # at its limit of tokens
    assert int(num_polls) > 0


@pytest.mark.model
def test_an_agents_cost_is_told() -> None:
    shown = output_of_script(TOUR / "react_agent.py")
    assert matches(r"^\('tool_name_0', '(\w+)'\)", shown)[0] in ("population", "ratio", "finish")
    figures = matches(
        r"^(plain|agent): [\d.]+ s, ([\d.]+) calls, ([\d.]+) tokens, ([\d.]+) passes", shown
    )
    (plain, agent) = ([float(number) for number in numbers] for _, *numbers in figures)
    assert plain[0] == 1 and 2 <= agent[0] <= 3  # two steps at most, and the answer
    assert all(more > less > 0 for more, less in zip(agent, plain, strict=True))
    assert matches(r"^agent over plain: [+-]\d+% \([+-]\d+% to [+-]\d+%\)$", shown)


@contextmanager
def serving(name: str) -> Iterator[str]:
    """An example's FastAPI app behind a real server, in this process; gives its URL."""
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), TOUR / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = uvicorn.Server(uvicorn.Config(module.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end_s = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end_s
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.model
def test_openais_client_polls_a_job() -> None:
    # Its release 2.54 stumbles over httpx2 while another thread imports that for the first time, as
    # LiteLLM does with its first response.
    import litellm.types.mcp  # noqa: F401

    with serving("long_job.py") as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        jobs = [
            client.responses.create(input=text, background=True, max_output_tokens=24)
            for text in ("Name a colour.", "word " * 9000)
        ]
        assert [job.status for job in jobs] == ["in_progress"] * 2
        end_s = time.monotonic() + TIMEOUT_S
        while any(job.status == "in_progress" for job in jobs):
            assert time.monotonic() < end_s
            time.sleep(0.1)
            jobs = [client.responses.retrieve(job.id) for job in jobs]
    done, failed = jobs
    assert done.status in ("completed", "incomplete") and done.output_text
    assert failed.status == "failed" and failed.error is not None
    assert "ContextWindowExceeded" in failed.error.message


@pytest.fixture(scope="module")
def app_url() -> Iterator[str]:
    with serving("fastapi_app.py") as url:
        yield url


@pytest.mark.model
def test_the_app_answers_whole_and_streamed(app_url: str) -> None:
    body = {"text": "Maria, 34, laughed all evening."}
    whole = httpx.post(f"{app_url}/person", json=body, timeout=TIMEOUT_S)
    assert whole.status_code == 200 and list(whole.json()) == ["name", "age", "mood"]
    with httpx.stream("POST", f"{app_url}/person/stream", json=body, timeout=TIMEOUT_S) as stream:
        states = [httpx.Response(200, text=line).json() for line in stream.iter_lines()]
    assert states[-1] == whole.json()
    assert len(states) > 2 and set(states[0]) < set(states[-1])
    shown = httpx.get(f"{app_url}/openapi.json").json()["paths"]["/person"]["post"]["responses"]
    assert shown["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Person")


@pytest.mark.model
def test_the_app_passes_an_errors_status_on(app_url: str) -> None:
    refused = httpx.post(f"{app_url}/person", json={"text": "word " * 9000}, timeout=TIMEOUT_S)
    assert refused.status_code == 400 and "8192" in refused.json()["error"].replace(",", "")
