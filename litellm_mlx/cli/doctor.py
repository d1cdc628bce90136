"""`litellm-mlx doctor`: does it work here, and what is to be done where it does not?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

import click

from litellm_mlx.cli.common import as_json_option
from litellm_mlx.models.names import EMBEDDED_ALIAS

if TYPE_CHECKING:
    from litellm_mlx.kvcache.layers import Batching

Verdict = Literal["ok", "warning", "failed"]
PACKAGES = ("litellm-mlx", "litellm", "mlx", "mlx-lm", "llguidance", "outlines", "dspy")
_MARKS: dict[Verdict, str] = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}
_BATCHING: dict[Batching, str] = {
    "padded": "rows run together",
    "unpadded": "rows run together, without padding",
    "alone": "rows run one at a time",
}
_HUB_TIMEOUT_S = 5.0
_TEST_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what helps where it is not well."""

    check: str
    verdict: Verdict
    detail: str
    fix: str = ""


@click.command()
@click.option("--model", default=EMBEDDED_ALIAS, show_default=True, help="For the one-token test.")
@as_json_option
@click.pass_context
def doctor(context: click.Context, model: str, as_json: bool) -> None:
    """Check this installation. Exits with 1 if something does not work."""
    checks: list[Callable[[], Finding]] = [
        _versions,
        _registration,
        _device,
        _blas,
        _hub,
        lambda: _one_token(model),
    ]
    findings = []
    for check in checks:
        findings.append(check())
        if not as_json:
            _show(findings[-1])
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    if any(finding.verdict == "failed" for finding in findings):
        context.exit(1)


def _show(finding: Finding) -> None:
    click.echo(f"{_MARKS[finding.verdict]} {finding.check}: {finding.detail}")
    if finding.fix:
        click.echo(f"     {finding.fix}")


def _versions() -> Finding:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            if package != "dspy":
                fix = "pip install --force-reinstall litellm-mlx"
                return Finding("versions", "failed", f"{package} is missing", fix)
    return Finding("versions", "ok", ", ".join(found))


def _registration() -> Finding:
    import litellm

    import litellm_mlx  # noqa: F401  # registers mlx/

    if litellm.supports_response_schema("mlx/x"):
        return Finding("registration", "ok", "LiteLLM knows mlx/")
    fix = "another package has replaced litellm.custom_provider_map: call litellm_mlx.register()"
    return Finding("registration", "failed", "LiteLLM does not know mlx/", fix)


def _device() -> Finding:
    from litellm_mlx.errors import ModelLoadError
    from litellm_mlx.models.hardware import GIB, hardware_profile

    try:
        hardware = hardware_profile()
    except ModelLoadError as error:
        return Finding("device", "failed", str(error), "see the README's table of installs")
    free, whole = hardware.available_bytes / GIB, hardware.memory_bytes / GIB
    text = f"{hardware.device}, {hardware.device_name}, {free:.1f} of {whole:.1f} GiB free"
    return Finding("device", "ok", text)


def _blas() -> Finding:
    from litellm_mlx.models.blas import INSTALL_HINT, choose_blas
    from litellm_mlx.models.hardware import hardware_profile

    choice = choose_blas()
    if choice.library is not None or hardware_profile().device != "cpu":
        return Finding("BLAS", "ok", choice.note)
    return Finding("BLAS", "warning", f"{choice.note}: slow on this CPU", INSTALL_HINT)


def _hub() -> Finding:
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "warning", "HF_HUB_OFFLINE is set: only what is cached can be used")
    try:
        answer = httpx.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        fix = "only cached models can be used; check the connection, or set HF_ENDPOINT"
        return Finding("hub", "warning", f"{constants.ENDPOINT}: {error}", fix)
    return Finding("hub", "ok", constants.ENDPOINT)


def _one_token(model: str) -> Finding:
    import litellm

    name = f"mlx/{model.removeprefix('mlx/')}"
    try:
        answer = litellm.completion(
            name, [{"role": "user", "content": "Hi"}], max_tokens=1, timeout=_TEST_TIMEOUT_S
        )
    except Exception as error:  # whatever it is, the user is to read it
        fix = f"litellm-mlx models pull {model}, or name another one by --model"
        return Finding("one token", "failed", str(error), fix)
    wrote = f"{name} wrote {answer.usage.completion_tokens}"
    return Finding("one token", "ok", wrote + _how_rows_run(model.removeprefix("mlx/")))


def _how_rows_run(model: str) -> str:
    """What the probe found at load; nothing where the model was unloaded meanwhile."""
    from litellm_mlx.register import handler

    registry = handler.registry_if_used
    models = registry.models() if registry is not None else []
    batching = next((status.batching for status in models if status.name == model), None)
    return "" if batching is None else f"; {_BATCHING[batching]}"
