"""DeepSeek's call syntaxes, for which mlx-lm has no parsers."""
# ruff: noqa: RUF001  # DeepSeek's markers are written with full-width bars

from __future__ import annotations

from litellm_mlx.translate.tool_formats.json_form import JsonForm
from litellm_mlx.translate.tool_formats.markup_form import MarkupForm

V3_CALLS = "<｜tool▁calls▁begin｜>"
DSML = "｜DSML｜"

DEEPSEEK_V3 = JsonForm(
    opens=V3_CALLS,
    head="<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n",
    tail="\n```<｜tool▁call▁end｜>",
    between="\n",
    closes="<｜tool▁calls▁end｜>",
    markers=(
        *(V3_CALLS, "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>"),
        *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
    ),
)

DEEPSEEK_V32 = MarkupForm(
    opens="<｜DSML｜function_calls>\n",
    head='<｜DSML｜invoke name="NAME">\n',
    value_head='<｜DSML｜parameter name="KEY" string="STRING">',
    value_tail="</｜DSML｜parameter>\n",
    value_end="</｜DSML｜parameter>",
    tail="</｜DSML｜invoke>\n",
    closes="</｜DSML｜function_calls>",
    markers=(DSML,),
)
