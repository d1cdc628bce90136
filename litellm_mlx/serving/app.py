"""The ASGI layer before LiteLLM's own application: a limit on size, and what goes on, to look at.

The page holds nothing; it asks for the figures with the key that its reader types in.
"""

from __future__ import annotations

import hmac
import os
from contextlib import suppress
from dataclasses import asdict
from importlib import resources
from typing import Any

from litellm_mlx import metrics, tracing
from litellm_mlx.observe import recent_errors
from litellm_mlx.register import handler
from litellm_mlx.serving.config import KEY_VARIABLE
from litellm_mlx.serving.front import Front

PAGE_PATH = "/mlx"
STATUS_PATH = "/mlx/status"
METRICS_PATH = "/mlx/metrics"


def make_app(*, max_body_mb: float) -> Any:
    """LiteLLM's application with ours before it.

    LiteLLM has the limit, too, but counts it among its enterprise features.

    Args:
        max_body_mb: of a request; a longer one is a 413, read no further than up to there.
    """
    from litellm.proxy.middleware.request_size_limit_middleware import RequestSizeLimitMiddleware
    from litellm.proxy.proxy_server import app
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Mount, Route

    metrics.install()
    with suppress(ImportError):  # no OpenTelemetry, no LiteLLM callback that would want spans
        tracing.install()
    page = resources.files(__package__).joinpath("status.html").read_text(encoding="utf-8")
    limited = RequestSizeLimitMiddleware(
        Front(app, handler.registry.config),
        get_max_request_size_mb=lambda: max_body_mb,
        is_request_size_limit_enabled=lambda: True,
    )

    def lifespan(_: Any) -> Any:
        """Start and end are LiteLLM's, which reads its configuration then."""
        return app.router.lifespan_context(app)

    async def show_page(_: Any) -> Any:
        return HTMLResponse(page)

    async def show_status(request: Any) -> Any:
        if not _has_key(request):
            return JSONResponse({"error": "send the master key as a bearer token"}, 401)
        return JSONResponse(status())

    async def show_metrics(request: Any) -> Any:
        if not _has_key(request):
            return PlainTextResponse("send the master key as a bearer token", 401)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    routes = [
        Route(PAGE_PATH, show_page),
        Route(STATUS_PATH, show_status),
        Route(METRICS_PATH, show_metrics),
        Mount("/", limited),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def status() -> dict[str, Any]:
    """What is in memory, what is going on and what has been; nothing of any prompt."""
    registry = handler.registry_if_used
    models = registry.models() if registry is not None else []
    return {
        "budget_bytes": registry.budget_bytes if registry is not None else None,
        "models": [asdict(model) for model in models],
        "totals": metrics.totals(),
        "recent_errors": [asdict(error) for error in recent_errors()],
    }


def _has_key(request: Any) -> bool:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(key.encode(), os.environ[KEY_VARIABLE].encode())
    return is_right and scheme.lower() == "bearer"
