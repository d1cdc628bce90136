"""What the running proxy's own configuration says: its keys, and which models are ours.

Reads LiteLLM's proxy module and changes nothing there.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.network import has_database, served
from litellm_mlx.serving.api_errors import ApiError

PREFIX = "mlx/"
# Where clients put a key, in the order in which LiteLLM looks.
_KEY_HEADERS = (
    *("x-litellm-api-key", "authorization", "api-key", "x-api-key", "x-goog-api-key"),
    "ocp-apim-subscription-key",
)
# Other ways than a key by which an operator lets clients in.
_OTHER_WAYS = ("enable_jwt_auth", "enable_oauth2_auth", "enable_oauth2_proxy_auth")


def check_key(path: str, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
    """Refuse a request without the key where that key is all that LiteLLM could accept.

    LiteLLM itself looks for other keys in its database: without one, a wrong key is a 400 that
    speaks of the database, and a missing one a 500 (1.110). Where the operator has a database,
    keys of another kind or routes that pass through, it is left to LiteLLM.

    Raises:
        ApiError: 401.
    """
    master_key = _only_key()
    if master_key is None or not _needs_key(path) or _has_odd_key(headers):
        return
    key = presented_key(headers, query)
    if hmac.compare_digest(key.encode(), master_key.encode()):
        return
    if key:
        raise ApiError(401, "the API key is not right", code="invalid_api_key")
    raise ApiError(
        401, "no API key was sent; send it as `Authorization: Bearer KEY`", code="invalid_api_key"
    )


def presented_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The key that LiteLLM goes by where a request brings several; empty where it brings none."""
    own_header = _settings().get("litellm_key_header_name")
    for name in (*([own_header] if own_header else []), *_KEY_HEADERS):
        if value := headers.get(name.lower(), "").strip():
            scheme, _, rest = value.partition(" ")
            return rest.strip() if scheme.lower() in ("bearer", "basic") else value
    return query.get("key") or ""


def names_for_everyone() -> list[str] | None:
    """The models that clients may name; `None` where that depends on their key."""
    proxy = _proxy()
    if has_database() or proxy.user_custom_auth is not None:
        return None
    router = proxy.llm_router
    return sorted(router.get_model_names()) if router is not None else []


def is_served(name: object) -> bool:
    """Whether anything stands behind a model's name."""
    router = _proxy().llm_router
    if router is None or not isinstance(name, str):
        return False
    return bool(router.get_model_list(model_name=name))


def our_models(name: object) -> list[str]:
    """What stands behind a model's name, without `mlx/`; empty unless all of it is ours."""
    router = _proxy().llm_router
    if router is None or not isinstance(name, str):
        return []
    found = router.get_model_list(model_name=name) or []
    models = [str(entry["litellm_params"]["model"]) for entry in found]
    if all(model.startswith(PREFIX) for model in models):
        return [model.removeprefix(PREFIX) for model in models]
    return []


def serves_only_ours() -> bool:
    """No other provider stands behind any name."""
    router = _proxy().llm_router
    listed = router.get_model_list() if router is not None else None
    return all(str(entry["litellm_params"]["model"]).startswith(PREFIX) for entry in listed or ())


def hidden_paths() -> dict[str, str]:
    """Where models of this machine's disk lie, and by which name clients know each."""
    router = _proxy().llm_router
    listed = router.get_model_list() if router is not None else None
    found: dict[str, str] = {}
    for entry in listed or ():
        model = served(str(entry["litellm_params"]["model"]).removeprefix(PREFIX)).model
        with suppress(LiteLLMMLXError):
            spec = parse_model_name(model)
            if spec.source in ("directory", "gguf") or spec.adapter is not None:
                paths = (model, spec.location, spec.adapter)
                found |= {path: entry["model_name"] for path in paths if path}
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _only_key() -> str | None:
    proxy, settings = _proxy(), _settings()
    has_other_way = (
        has_database()
        or proxy.user_custom_auth is not None
        or any(settings.get(name) for name in _OTHER_WAYS)
    )
    key = proxy.master_key
    return key if isinstance(key, str) and not has_other_way else None


def _has_odd_key(headers: Mapping[str, str]) -> bool:
    """It comes inside a signature, or beside another provider's: LiteLLM's to read."""
    is_signed = headers.get("authorization", "").startswith("AWS4-HMAC-SHA256")
    return is_signed or "litellm_user_api_key" in headers


def _needs_key(path: str) -> bool:
    from litellm.proxy.auth.route_checks import RouteChecks

    passed = [item.get("path") for item in _settings().get("pass_through_endpoints") or ()]
    if path in passed:
        return False
    return RouteChecks.is_llm_api_route(path) or RouteChecks.is_info_route(path)


def _settings() -> Mapping[str, Any]:
    return _proxy().general_settings or {}


def _proxy() -> Any:
    return import_module("litellm.proxy.proxy_server")
