"""A format of tool calls: how an imaginary family of models writes them.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/extensions/tool_format.py
Prints: how the family writes a call, then a call that a model wrote so, as its caller gets it.

The grammar that the model is held to and the reader of what it wrote both come from the texts
around a call. Here every model with ChatML's template is taken for one of the family.
"""

import sys

import litellm

from litellm_mlx.extend import register_tool_format
from litellm_mlx.translate.tool_formats.form import Tool
from litellm_mlx.translate.tool_formats.json_form import JsonForm

OWL = JsonForm(head="@@call NAME with ", tail=" @@done", between="\n")
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
}

register_tool_format("owl", "<|im_start|>", OWL)

if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else "mlx/smollm2-135m"
    print(OWL.call_text(Tool("forecast", "", PARAMETERS), {"city": "Rome", "days": 3}))
    function = {"name": "forecast", "description": "Tell the weather.", "parameters": PARAMETERS}
    answer = litellm.completion(
        model,
        [{"role": "user", "content": "What will the weather in Oslo be tomorrow?"}],
        tools=[{"type": "function", "function": function}],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (call,) = answer.choices[0].message.tool_calls
    print(call.function.name, call.function.arguments)
