"""`tools` and `tool_choice` to a grammar of the whole answer, and what reads the answer back.

Owns what a request says of tools: names, schemas, who may be called how often. How calls are
written is the model's form, see `tool_formats`; finding them in the text is `tool_reader`.

A tool's arguments are always constrained to its schema, `strict` or not; what is added to the
schema for that is `tool_schema`. `tool_choice` "none" leaves the tools out of the prompt too, as
vLLM does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.escaped_lark import escaped_lark, text_check
from litellm_mlx.grammar.metaschema import check_is_json_schema
from litellm_mlx.grammar.structure import (
    FreeText,
    JsonPart,
    OneOf,
    Part,
    Repeat,
    Text,
    structure_constraint,
)
from litellm_mlx.translate.custom_tools import CONTENT, text_format
from litellm_mlx.translate.params import RequestParams
from litellm_mlx.translate.tool_check import BothChecks, CallsCheck, arguments_check
from litellm_mlx.translate.tool_formats.families import LLAMA, LLAMA_TAGGED
from litellm_mlx.translate.tool_formats.form import Form, Tool, one_of, seq
from litellm_mlx.translate.tool_formats.gemma_form import GemmaForm
from litellm_mlx.translate.tool_formats.json_form import JsonForm
from litellm_mlx.translate.tool_formats.markup_form import MarkupForm
from litellm_mlx.translate.tool_formats.values import is_exact
from litellm_mlx.translate.tool_reader import ToolReader
from litellm_mlx.translate.tool_schema import (
    NO_ARGUMENTS,
    arguments_schema,
    without_contradictions,
)
from litellm_mlx.types import Constraint, Tier

# OpenAI's names, and the marks that MCP servers and other clients put into theirs.
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$"


class _Function(BaseModel):
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    type: Literal["function"] = "function"
    function: _Function


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether a call may, must or must not come; `name` is the only tool then."""

    mode: Literal["none", "auto", "required"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """How one request's tools are served.

    Attributes:
        root: the grammar of the whole answer.
        form: how the model writes calls.
        tools: those that may be called.
        template_tools: what the chat template is given as `tools`.
        must_call: the answer is a call and nothing else.
        may_begin_with_text: free text may stand before a call.
        stops: the caller's texts that end a free answer; none within a call, or JSON.
        is_function_call: the request used the older `functions`; so must the answer.
        is_held: the structure's own grammar and checks say all that the tools' schemas say.
        is_answer_free: an answer that is no call is free text.
        check: of the calls in a finished text, against the schemas that were sent.
        repairs: what is left out of the tools' schemas.
    """

    root: Part
    form: Form
    tools: tuple[Tool, ...]
    template_tools: tuple[Mapping[str, Any], ...]
    must_call: bool
    may_begin_with_text: bool
    stops: tuple[str, ...]
    is_function_call: bool
    is_held: bool
    is_answer_free: bool
    check: CallsCheck
    repairs: tuple[str, ...]

    def check_of_answer(self, index_tier: Tier, of_structure: Check) -> Check:
        """Give the check of a whole answer, given the tier and the check of `root`'s index.

        The latter finds nothing more where all JSON is arguments and the grammar holds it.
        """
        if index_tier == "grammar" and self.is_held and self.is_answer_free:
            return self.check
        return BothChecks(self.check, of_structure)

    def reader(self) -> ToolReader:
        """Give a new reader for one completion."""
        return ToolReader(
            self.form,
            self.tools,
            may_begin_with_text=self.may_begin_with_text,
            stops=self.stops,
        )

    def constraints(self) -> Iterator[tuple[str, Constraint]]:
        """Each tool's name, and what asks for one call of it."""
        for tool in self.tools:
            call = self.form.calls_part((tool,), at_most_one=True)
            yield tool.name, structure_constraint(call)


def plan_tools(params: RequestParams, response_part: Part | None, form: Form) -> ToolPlan | None:
    """Plan how a request's tools are served; `None` where no call may come.

    Args:
        params: the request's parameters.
        response_part: what an answer that is no call must be; `None` for free text.
        form: how the model writes calls.

    Raises:
        UnsupportedParameterError: a tool or a choice in a shape that is not known, a name twice
            or unknown.
        ConstraintError: a tool's parameters are not a JSON schema of an object; names the tool.
    """
    tools, template_tools, is_older = _tools_in(params)
    choice = _choice_in(params, is_older=is_older)
    if choice.name is not None and choice.name not in {tool.name for tool in tools}:
        raise UnsupportedParameterError(
            f"tool_choice names {choice.name!r}, which is none of the tools: "
            f"{', '.join(tool.name for tool in tools) or 'there are none'}"
        )
    if choice.mode == "required" and not tools:
        raise UnsupportedParameterError("tool_choice asks for a call and there are no tools")
    if not tools or choice.mode == "none":
        return None
    if choice.name is not None:
        tools = tuple(tool for tool in tools if tool.name == choice.name)
    if form == LLAMA and response_part is not None:
        form = LLAMA_TAGGED
    tools, repairs = _repaired(tools)
    at_most_one = is_older or choice.name is not None or params.parallel_tool_calls is False
    must_call = choice.mode == "required" or _says_nothing(response_part)
    has_text = not must_call and response_part is None and not form.leads_answer
    calls = form.calls_part(tools, at_most_one=at_most_one)
    is_free = response_part is None or isinstance(response_part, FreeText)
    stops = () if must_call or response_part is not None else _stops(params, form)
    root = calls if must_call else _answer_or(calls, response_part, form, stops)
    reader = partial(ToolReader, form, tools, may_begin_with_text=has_text, stops=stops)
    held = {tool.name: _is_held(tool, form) for tool in tools}
    checks = {t.name: arguments_check(t, is_vouched_for=held[t.name]) for t in tools}
    return ToolPlan(
        root=_with_thought(root, form),
        form=form,
        tools=tools,
        template_tools=template_tools,
        must_call=must_call,
        may_begin_with_text=has_text,
        stops=stops,
        is_function_call=is_older,
        is_held=all(held.values()),
        is_answer_free=must_call or is_free,
        check=CallsCheck(reader, checks),
        repairs=repairs,
    )


def _repaired(tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools without optional properties that no value can satisfy, and what was left out."""
    repaired: list[Tool] = []
    repairs: list[str] = []
    for tool in tools:
        parameters, dead = without_contradictions(tool.parameters)
        if dead:
            tool = replace(tool, parameters=parameters, own=tool.own_schema)
        repaired.append(tool)
        repairs += [f"tool {tool.name!r}: no value can satisfy {name!r}" for name in dead]
    return tuple(repaired), tuple(repairs)


def _with_thought(root: Part, form: Form) -> Part:
    if form.thought is None:
        return root
    opening, closing = (form.parts(text) for text in form.thought)
    thought = seq(*opening, FreeText((form.thought[1],)), *closing)
    return seq(Repeat(thought, 0, 1), root)


def _answer_or(calls: Part, response_part: Part | None, form: Form, stops: tuple[str, ...]) -> Part:
    """An answer, or calls; free text may come before them where the form allows it.

    A stop text ends the free text and with it the whole, so that it never cuts a call.
    """
    head = form.parts(form.answer_head)
    if response_part is not None:
        return OneOf((seq(*head, response_part), calls))
    ends = [Text(stop) for stop in stops]
    if not form.leads_answer:
        return seq(FreeText((form.trigger, *stops)), Repeat(one_of([*ends, calls]), 0, 1))
    free = FreeText(stops, begins_not="" if head else form.trigger)
    return OneOf((seq(*head, free, *([Repeat(one_of(ends), 0, 1)] if ends else ())), calls))


def _stops(params: RequestParams, form: Form) -> tuple[str, ...]:
    """The texts that end a free answer.

    Raises:
        UnsupportedParameterError: one would cut what a call begins with.
    """
    for stop in () if form.answer_head else params.stop:
        if _touch(stop, form.trigger):
            raise UnsupportedParameterError(
                f"stop {stop!r} would cut {form.trigger!r}, with which this model begins a call; "
                "leave it out"
            )
    return tuple(dict.fromkeys(params.stop))


def _touch(stop: str, trigger: str) -> bool:
    """One of them holds the other, or the trigger can begin before the stop text is over."""
    is_inside = stop in trigger or trigger in stop
    return is_inside or any(trigger.startswith(stop[at:]) for at in range(1, len(stop)))


def _says_nothing(part: Part | None) -> bool:
    """The answer could only be `{}`, as DSPy asks when every output field is a call."""
    if not isinstance(part, JsonPart):
        return False
    schema = json.loads(part.source)
    return (
        isinstance(schema, dict)
        and schema.get("type") == "object"
        and not schema.get("properties")
        and schema.get("additionalProperties") is False
        and not schema.get("patternProperties")
    )


def _tools_in(
    params: RequestParams,
) -> tuple[tuple[Tool, ...], tuple[Mapping[str, Any], ...], bool]:
    """The tools, what templates see of them, and whether the older `functions` named them."""
    if params.tools and params.functions:
        raise UnsupportedParameterError("tools and the older functions exclude each other")
    is_older = bool(params.functions)
    given = [{"function": f} for f in params.functions] if is_older else params.tools
    _check_kinds(given)
    tools: list[Tool] = []
    shown: list[Mapping[str, Any]] = []
    for place, item in enumerate(given):
        where = f"{'functions' if is_older else 'tools'}[{place}]"
        function = _validated(item, where)
        if function.name in {tool.name for tool in tools}:
            raise UnsupportedParameterError(f"{where}: two tools are named {function.name!r}")
        tools.append(_tool(function))
        shown.append(_shown(function))
    return tuple(tools), tuple(shown), is_older


def _validated(item: Any, where: str) -> _Function:
    try:
        return _Tool.model_validate(item).function
    except ValidationError as error:
        first = error.errors()[0]
        steps = ".".join((where, *map(str, first["loc"])))
        raise UnsupportedParameterError(f"{steps}: {first['msg']}") from None


def _check_kinds(given: Sequence[Any]) -> None:
    """Refuse, all in one, what is no function: nothing here runs it or knows its arguments.

    Raises:
        UnsupportedParameterError: names each.
    """
    others = [named for place, item in enumerate(given) if (named := _other_kind(item, place))]
    if others:
        raise UnsupportedParameterError(
            f"only tools of type 'function' are served here, not {', '.join(others)}; leave them "
            "out, or describe each as a function of your own with its parameters"
        )


def _other_kind(item: Any, place: int) -> str | None:
    """What a tool is that is no function, in the caller's words."""
    if not isinstance(item, Mapping):
        return None
    kind, function = item.get("type", "function"), item.get("function")
    if kind == "function" and isinstance(function, Mapping):
        # LiteLLM writes Anthropic's computer tool as a function, its display among the parameters.
        parameters = function.get("parameters")
        is_computer = isinstance(parameters, Mapping) and "display_width_px" in parameters
        return f"'computer' (tools[{place}])" if is_computer else None
    if kind == "function" or not isinstance(kind, str):
        return None
    nested = item.get(kind)
    name = item.get("name") or (nested.get("name") if isinstance(nested, Mapping) else None)
    own = f" {name!r}" if isinstance(name, str) and name != kind else ""
    return f"{kind!r}{own} (tools[{place}])"


def _tool(function: _Function) -> Tool:
    description = function.description or ""
    custom = text_format(function.name, description, function.parameters)
    try:
        own = json.loads(json_schema_constraint(function.parameters or NO_ARGUMENTS).source)
        check_is_json_schema(own)
        if custom is not None and custom.regex is not None:
            own["properties"][CONTENT]["pattern"] = f"^(?:{custom.regex})$"
        if custom is not None and custom.lark is not None:
            text_check(custom.lark)  # refuses a grammar that is not usable
        parameters = arguments_schema(own)
    except ConstraintError as error:
        raise ConstraintError(f"tool {function.name!r}: {error}") from error
    lark = None if custom is None else custom.lark
    return Tool(function.name, description, parameters, own, lark)


def _shown(function: _Function) -> Mapping[str, Any]:
    """A tool as templates expect it: they read all three names without asking."""
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        },
    }


def _choice_in(params: RequestParams, *, is_older: bool) -> ToolChoice:
    given = params.function_call if is_older else params.tool_choice
    parameter = "function_call" if is_older else "tool_choice"
    if given is None:
        return ToolChoice("auto")
    if isinstance(given, str):
        return _by_word(given, parameter)
    if isinstance(given, Mapping):
        nested = given.get("function")
        name = nested.get("name") if isinstance(nested, Mapping) else given.get("name")
        if isinstance(name, str) and given.get("type", "function") in ("function", "tool"):
            return ToolChoice("required", name)
        if name is None and isinstance(given.get("type"), str):
            return _by_word(given["type"], parameter)
    raise _unknown_choice(given, parameter)


def _by_word(word: str, parameter: str) -> ToolChoice:
    if word == "none":
        return ToolChoice("none")
    if word == "auto":
        return ToolChoice("auto")
    if word in ("required", "any"):
        return ToolChoice("required")
    raise _unknown_choice(word, parameter)


def _unknown_choice(given: object, parameter: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"{parameter}={given!r:.80} is not known; use 'none', 'auto', 'required' or "
        "{'type': 'function', 'function': {'name': ...}}"
    )


def _is_held(tool: Tool, form: Form) -> bool:
    """The structure's own grammar and checks say all that the tool's schema says.

    A form of a class that is not ours may write arguments in ways of its own. For
    `unevaluatedProperties` see `arguments_schema`.
    """
    if tool.lark is not None:
        return type(form) is JsonForm and escaped_lark(tool.lark) is not None
    if type(form) is JsonForm:
        return "unevaluatedProperties" not in tool.own_schema
    return type(form) in (MarkupForm, GemmaForm) and is_exact(tool)
