"""The ASGI layer before LiteLLM's own application: a limit on size, and what the engines do now."""

from __future__ import annotations

import hmac
import os
from dataclasses import asdict
from typing import Any

from litellm_mlx.register import handler
from litellm_mlx.serving.config import KEY_VARIABLE

STATUS_PATH = "/mlx/status"


def make_app(*, max_body_mb: float) -> Any:
    """LiteLLM's application with ours before it.

    LiteLLM has the limit, too, but counts it among its enterprise features.

    Args:
        max_body_mb: of a request; a longer one is a 413, read no further than up to there.
    """
    from litellm.proxy.middleware.request_size_limit_middleware import RequestSizeLimitMiddleware
    from litellm.proxy.proxy_server import app
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route

    limited = RequestSizeLimitMiddleware(
        app,
        get_max_request_size_mb=lambda: max_body_mb,
        is_request_size_limit_enabled=lambda: True,
    )

    def lifespan(_: Any) -> Any:
        """Start and end are LiteLLM's, which reads its configuration then."""
        return app.router.lifespan_context(app)

    routes = [Route(STATUS_PATH, _status), Mount("/", limited)]
    return Starlette(routes=routes, lifespan=lifespan)


def status() -> dict[str, Any]:
    """What is in memory and how much is going on; nothing of any prompt."""
    registry = handler.registry_if_used
    models = registry.models() if registry is not None else []
    return {
        "budget_bytes": registry.budget_bytes if registry is not None else None,
        "models": [asdict(model) for model in models],
    }


async def _status(request: Any) -> Any:
    from starlette.responses import JSONResponse

    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    is_known = hmac.compare_digest(key.encode(), os.environ[KEY_VARIABLE].encode())
    if scheme.lower() != "bearer" or not is_known:
        return JSONResponse({"error": "send the master key as a bearer token"}, status_code=401)
    return JSONResponse(status())
