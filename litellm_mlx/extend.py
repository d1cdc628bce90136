"""What another package can add: a model loader, a constraint backend, a format of tool calls.

Each is one function, called once per process. A package whose users should need no import names a
function that calls them under an entry point; it runs at the first look at a model, a backend or a
format:

    [project.entry-points."litellm_mlx.extensions"]
    mine = "my_package:register"

What is registered runs as the program's own code, and what it gives is not trusted further than
need be: files are loaded as any directory's, texts of a backend are checked, and a format must read
what it writes. Clients of a proxy get at a loader's models as at any other, see `network`.
Examples are in `examples/extensions`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litellm_mlx.models.custom import CustomLoader, loaders
from litellm_mlx.registered import backends
from litellm_mlx.types import BUILT_IN_BACKENDS

if TYPE_CHECKING:
    from litellm_mlx.grammar.automaton import Automaton
    from litellm_mlx.grammar.vocabulary import Vocabulary
    from litellm_mlx.translate.tool_formats.form import Form
    from litellm_mlx.types import Constraint

__all__ = ["register_backend", "register_loader", "register_tool_format"]

# Arguments of every kind, with what a careless syntax trips over.
_PROBE: dict[str, Any] = {"text": 'say "}" and \\', "number": -1.5, "is_on": True, "list": [1, 2]}
_PROBE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "number": {"type": "number"},
        "is_on": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["text", "number", "is_on", "list"],
    "additionalProperties": False,
}


def register_loader(
    prefix_or_predicate: str | Callable[[str], bool], loader: Callable[[str], str | Path]
) -> None:
    """Serve models whose names another package reads: `mlx/acme:large` by the prefix `acme:`.

    The names come before paths and repositories and after the aliases. `?adapter=` behind one,
    budgets of memory, unloading and all else are as for every model.

    Args:
        prefix_or_predicate: what the names begin with, or a function that says whether a name is
            meant; it is asked for every name that is no alias, so it should be quick.
        loader: gives the directory or `.gguf` file of a name, as mlx-lm reads it, and may fetch or
            make it. It gets the name without `mlx/` and `?adapter=`, runs on the model's thread,
            and raises what it likes: `FileNotFoundError` and the like reach the caller as a 400,
            `litellm_mlx.errors.ModelNotFoundError` as a 404.

    Raises:
        ValueError: the prefix is empty or taken.
    """
    if isinstance(prefix_or_predicate, str):
        prefix = prefix_or_predicate
        if not prefix:
            raise ValueError("a loader's prefix is empty, which would take every name")
        loaders.add(prefix, CustomLoader(lambda name: name.startswith(prefix), _as_path(loader)))
    else:
        name = f"{prefix_or_predicate.__module__}.{prefix_or_predicate.__qualname__}"
        loaders.add(name, CustomLoader(prefix_or_predicate, _as_path(loader)))


def register_backend(
    name: str,
    compile: Callable[[Constraint, Vocabulary], Automaton],
    *,
    is_exact: bool = False,
) -> None:
    """Let requests choose a constraint backend: `guided_decoding_backend=name`.

    `LITELLM_MLX_BACKEND=name` chooses it for all. Only tokens that it allows are drawn, and texts
    end within their token budget where an ending is found, else with a `BudgetError`. Nothing is
    fast-forwarded. Tools, structural tags and DSPy's formats without a schema always go to
    llguidance, which can hold what they are made of.

    Args:
        name: of the backend.
        compile: makes an automaton of a constraint (`kind` says of which sort, `source` is its
            text) over the tokens of a vocabulary, or raises: any error is a 400. Runs on the
            calling thread; what it gives is cached by constraint and vocabulary.
        is_exact: its automata admit the texts of the constraint and no others. Else streams come
            at the end, since texts that fail are to be expected, and a regex or grammar that
            llguidance cannot read is refused. Finished texts are checked either way.

    Raises:
        ValueError: the name is taken.
    """
    from litellm_mlx.grammar.automaton import RegisteredBackend

    if not name or name in BUILT_IN_BACKENDS:
        raise ValueError(f"a constraint backend needs a name of its own, not {name!r}")
    backends.add(name, RegisteredBackend(compile, is_exact))


def register_tool_format(name: str, matches: str | Callable[[str], bool], form: Form) -> None:
    """Teach how a model family writes tool calls.

    Args:
        name: of the format.
        matches: a text that only the chat templates of the family have, or a function that says
            whether a template is one of them. Registered formats are asked before ours.
        form: the texts around a call and its arguments: a `tool_formats.json_form.JsonForm`, a
            `markup_form.MarkupForm`, or a `form.Form` of your own, whose arguments are then
            validated in every finished text.

    Raises:
        ValueError: the name is taken, or the form does not read what it writes.
        ConstraintError: its grammar cannot be compiled.
    """
    from litellm_mlx.translate.tool_formats.families import CustomForm, custom_forms

    check_form(form)
    is_meant = (lambda template: matches in template) if isinstance(matches, str) else matches
    custom_forms.add(name, CustomForm(is_meant, form))


def check_form(form: Form) -> None:
    """See to it that a form's grammar admits what it writes, and that its reader reads it.

    Raises:
        ValueError: one of them does not.
        ConstraintError: its grammar cannot be compiled.
    """
    from litellm_mlx.grammar.structure import structure_constraint
    from litellm_mlx.grammar.structure_compiler import compile_structure
    from litellm_mlx.grammar.vocabulary import byte_vocabulary
    from litellm_mlx.translate.tool_formats.form import Tool
    from litellm_mlx.translate.tool_reader import ToolReader, read_calls

    tool = Tool("probe", "", _PROBE_SCHEMA)
    calls = [form.call_text(tool, _PROBE, index) for index in range(2 if form.is_parallel else 1)]
    text = form.opens + form.between.join(calls) + form.closes
    root = form.calls_part((tool,), at_most_one=False)
    guide = compile_structure(structure_constraint(root), byte_vocabulary()).guide()
    if not guide.ends_with(list(text.encode())):
        raise ValueError(f"the form's grammar does not admit what the form writes: {text!r}")
    reader = ToolReader(form, (tool,), may_begin_with_text=False)
    read = [json.loads(call.arguments) for call in read_calls(reader, text)[1]]
    if read != [_PROBE] * len(calls):
        raise ValueError(f"the form writes {text!r} and reads {read!r}")


def _as_path(loader: Callable[[str], str | Path]) -> Callable[[str], Path]:
    return lambda name: Path(loader(name))
