"""Imports point one way and libraries stay at their borders, read from the import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "litellm_mlx"

# Lower layers first; a module may import its own layer and those before it.
LAYERS = [
    {"types", "errors", "registered", "config"},
    {"grammar", "kvcache"},
    {"engine"},
    {"models"},
    {"translate"},
    {"network", "observe"},
    {"serve_call"},
    {"provider", "litellm_mends"},
    {"register", "loading", "partial", "proxy", "__init__"},
    {"metrics", "tracing", "dspy", "extend"},
    {"serving", "startup"},
    {"cli", "__main__"},
]
BORDERS = {
    "litellm": {
        *("translate/response.py", "provider.py", "register.py", "litellm_mends.py"),
        *("serving/app.py", "serving/running.py"),
        *("cli/chat.py", "cli/doctor.py", "cli/measure.py"),
    },
    "mlx_lm": {
        *("kvcache/layers.py", "kvcache/packing.py", "kvcache/row_state.py"),
        *("kvcache/session_file.py", "kvcache/probe.py"),
        *("engine/sampling.py", "engine/text.py"),
        *("models/adapters.py", "models/base.py", "models/gguf.py"),
        "models/weights.py",
        *("models/facts.py", "models/hub.py"),
    },
    "mlx_vlm": {"models/embedder.py"},
    "outlines": {"grammar/output_types.py"},
    "dspy": {f"dspy/{name}.py" for name in ("engine", "lm15_events", "lm15_requests")},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def imported(tree: ast.AST, *, at_top: bool = False) -> set[str]:
    nodes = tree.body if at_top and isinstance(tree, ast.Module) else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def test_imports_point_one_way() -> None:
    wrong = []
    for name, tree in modules():
        own = layer_of(name.split("/")[0].removesuffix(".py"))
        for target in imported(tree):
            parts = target.split(".")
            if parts[0] == "litellm_mlx" and len(parts) > 1 and layer_of(parts[1]) > own:
                wrong.append((name, target))
    assert not wrong


def test_translate_knows_neither_engine_nor_models() -> None:
    for name, tree in modules():
        if name.startswith("translate/"):
            own = {t.split(".")[1] for t in imported(tree) if t.startswith("litellm_mlx.")}
            assert own <= {"types", "errors", "registered", "config", "grammar", "translate"}, name


@pytest.mark.parametrize("library", BORDERS)
def test_a_library_stays_at_its_border(library: str) -> None:
    users = {n for n, tree in modules() if library in {t.split(".")[0] for t in imported(tree)}}
    assert users == BORDERS[library]


def test_what_the_package_import_pulls_in_is_light_at_the_top() -> None:
    heavy = {"mlx", "mlx_lm", "transformers", "outlines", "llguidance", "numpy", "huggingface_hub"}
    light = ("__init__.py", "register.py", "provider.py", "loading.py", "translate/response.py")
    for name, tree in modules():
        if name in (*light, "models/names.py"):
            tops = {target.split(".")[0] for target in imported(tree, at_top=True)}
            assert not tops & heavy, name
