"""Chat templates in the manner of many families, for the law that no part of a chat is lost.

None is copied: each imitates a family's markers and its demands (which roles, in which order, what
it prints of tools and calls, what it raises or passes over), and nothing else of its template.
"""
# ruff: noqa: E501, RUF001  # templates are one-liners; DeepSeek's markers have full-width bars

from __future__ import annotations

import ast
import importlib.util
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.grammar_sampling import byte_tokenizer
from tests.tool_families import TEMPLATES as FOLDER

ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
CHATML_END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINK_SPLIT = (
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}{% set text = m.content %}"
    "{% elif '</think>' in m.content %}{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% else %}{% set thought = '' %}{% set text = m.content %}{% endif %}"
)
HERMES_CALLS = (
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
HERMES_TOOLS = "# Tools\n<tools>\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}</tools>"


def header(text: str, start: str, end: str) -> str:
    """Every message between two texts around its role."""
    return f"{{% for m in messages %}}{start}{text}{end}{{% endfor %}}"


TEMPLATES: dict[str, str] = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.jinja")}
TEMPLATES |= {
    "chatml": header("{{ m.role }}\n{{ m.content }}", "<|im_start|>", "<|im_end|>\n") + CHATML_END,
    # The first system message or a default one, and no tools: Qwen1.5, SmolLM2, Yi.
    "smollm2": "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + CHATML_END,
    "smollm3": "{% if messages[0].role == 'system' %}{% set own = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set own = 'You are SmolLM.' %}{% set rest = messages %}{% endif %}"
    "<|im_start|>system\n{{ own.replace('/no_think', '').rstrip() }}\n"
    "{% if xml_tools %}{{ xml_tools }}{% endif %}{% if tools %}### Tools\n<tools>{% for t in tools %}{{ t.function | tojson }}\n{% endfor %}</tools>{% endif %}<|im_end|>\n"
    "{% for m in rest %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content.lstrip('\n') }}<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    + CHATML_END,
    "llama2": "{% if messages[0].role == 'system' %}{% set own = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set own = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    + ALTERNATE
    + "{% if m.role == 'user' %}<s>[INST] {{ (own if loop.first else '') + m.content.strip() }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content.strip() }} </s>{% endif %}{% endfor %}",
    "llama3": "{% for m in messages %}{% set text = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    # Tools stand in the first user message, one call a message, results from "ipython".
    "llama3.1": "{% if messages[0].role == 'system' %}{% set own = messages[0].content | trim %}{% set messages = messages[1:] %}{% else %}{% set own = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n{{ own }}<|eot_id|>"
    "{% if tools %}{% if messages | length == 0 %}{{ raise_exception('no first user message') }}{% endif %}"
    "<|start_header_id|>user<|end_header_id|>\n\nRespond with a call for:\n{% for t in tools %}{{ t | tojson(indent=4) }}\n\n{% endfor %}{{ messages[0].content | trim }}<|eot_id|>{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if not (m.role in ['ipython', 'tool'] or 'tool_calls' in m) %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}{{ raise_exception('single tool-calls only') }}{% endif %}"
    '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>'
    "{% else %}<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content | tojson if m.content is mapping else m.content }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "llama4": "{% if tools %}<|header_start|>system<|header_end|>\n\n{{ tools | tojson }}<|eot|>{% endif %}{% for m in messages %}"
    "<|header_start|>{{ 'ipython' if m.role == 'tool' else m.role }}<|header_end|>\n\n{% if m.content is string %}{{ m.content | tojson if m.role == 'tool' else m.content }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    '{% for c in m.tool_calls or [] %}<|python_start|>{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}<|python_end|>{% endfor %}'
    "<|eot|>{% endfor %}{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}",
    "mistral_v1": "{% for m in messages %}"
    + ALTERNATE
    + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %}{{ m.content }}</s>"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}",
    # The system message stands before the last user message, as Mistral 7B v0.3 has it.
    "mistral_v3": "{% if messages[0].role == 'system' %}{% set own = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% set users = rest | selectattr('role', 'equalto', 'user') | list %}{% set ns = namespace(n=0) %}"
    "{% for m in rest %}{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('after the optional system message, roles must alternate') }}{% endif %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}"
    "{% for m in rest %}{% if m.role == 'user' %}{% if tools and m == users[-1] %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ own + '\n\n' + m.content if loop.last and own is defined else m.content }}[/INST]"
    '{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception("call IDs should be alphanumeric strings with length 9!") }}{% endif %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{{ ", " if not loop.last }}{% endfor %}]</s>'
    '{% elif m.role == \'assistant\' %} {{ m.content }}</s>{% elif m.role == \'tool\' %}[TOOL_RESULTS] {"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]{% endif %}{% endfor %}',
    "mistral_v7": "{% for m in messages %}{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('only the first') }}{% endif %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.tool_call_id }}[TOOL_CONTENT]{{ m.content }}[/TOOL_RESULTS]"
    "{% else %}{{ m.content }}{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>{% endif %}{% endfor %}",
    # Strict turns (calls and results do not count), nothing but the first system message.
    "devstral": "{% set ns = namespace(n=0) %}{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"
    "[SYSTEM_PROMPT]{{ messages[0].content if messages[0].role == 'system' else 'You are Devstral.' }}[/SYSTEM_PROMPT]{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% set ns.n = ns.n + 1 %}{% endif %}"
    "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.role == 'assistant' %}{{ m.content }}{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% else %}{{ raise_exception('Only user, assistant and tool roles') }}{% endif %}{% endfor %}",
    "gemma1": "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    + ALTERNATE
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "gemma3": "{% if messages[0].role == 'system' %}{% set own = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set own = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}"
    + ALTERNATE
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ own if loop.first }}{% if m.content is string %}{{ m.content | trim }}{% else %}{% for p in m.content %}{{ p.text | trim if p.type == 'text' }}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "phi2": "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n{% elif m.role == 'user' %}Instruct: {{ m.content }}\n{% elif m.role == 'assistant' %}Output: {{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Output:{% endif %}",
    "phi3": "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "phi4": "{% for m in messages %}{% if m.role == 'system' %}<|im_start|>system<|im_sep|>{{ m.content }}<|im_end|>{% elif m.role == 'user' %}<|im_start|>user<|im_sep|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant<|im_sep|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    # Tools come as a key of the system message, which nobody sends; calls are not printed.
    "phi4_mini": "{% for m in messages %}{% if m.role == 'system' and 'tools' in m and m.tools is not none %}<|system|>{{ m.content }}<|tool|>{{ m.tools }}<|/tool|><|end|>{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "qwen2.5": "{% if tools %}<|im_start|>system\n{{ messages[0].content if messages[0].role == 'system' else 'You are Qwen.' }}\n\n"
    + HERMES_TOOLS
    + "<|im_end|>\n{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == 'assistant' and not m.tool_calls) %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant{% if m.content %}\n{{ m.content }}{% endif %}"
    + HERMES_CALLS
    + "<|im_end|>\n"
    "{% elif m.role == 'tool' %}{% if loop.previtem.role != 'tool' %}<|im_start|>user{% endif %}\n<tool_response>\n{{ m.content }}\n</tool_response>{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>\n{% endif %}{% endif %}{% endfor %}"
    + CHATML_END,
    # Thoughts after the last question only, from their field or from the text.
    "qwen3": "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' and not (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% if tools %}<|im_start|>system\n{{ messages[0].content + '\n\n' if messages[0].role == 'system' }}"
    + HERMES_TOOLS
    + "<|im_end|>\n{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}"
    + THINK_SPLIT
    + "<|im_start|>assistant\n{% if thought and loop.index0 > ns.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{{ text.lstrip('\n') }}{% else %}{{ text }}{% endif %}"
    + HERMES_CALLS
    + "<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "qwen3.5": "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% if messages[0].role == 'system' %}\n\n{{ messages[0].content | trim }}{% endif %}<|im_end|>\n{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content | trim }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('System message must be at the beginning.') }}{% endif %}{% elif m.role == 'user' %}<|im_start|>user\n{{ m.content | trim }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}"
    + THINK_SPLIT
    + "<|im_start|>assistant\n{{ '<think>\n' + thought | trim + '\n</think>\n\n' if thought and loop.last }}{{ text | trim }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n{% else %}{{ raise_exception('Unexpected message role.') }}{% endif %}{% endfor %}"
    + CHATML_END
    + "{% if add_generation_prompt %}<think>\n{% endif %}",
    # Drops what stands before a thought's end from every past answer.
    "qwq": "{% if tools %}<|im_start|>system\n"
    + HERMES_TOOLS
    + "<|im_end|>\n{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}"
    + HERMES_CALLS
    + "<|im_end|>\n{% endif %}{% endfor %}"
    + CHATML_END
    + "{% if add_generation_prompt %}<think>\n{% endif %}",
    "deepseek_v2": "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n\n{% elif m.role == 'assistant' %}Assistant: {{ m.content }}<｜end▁of▁sentence｜>{% elif m.role == 'system' %}{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
    # All system messages first; a call's head and JSON in a code block; arguments are text.
    "deepseek_v3": "{% set ns = namespace(own='', is_tool=false) %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.own = ns.own + m.content + '\n\n' %}{% endif %}{% endfor %}<｜begin▁of▁sentence｜>{{ ns.own }}"
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}"
    "{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}<｜tool▁call▁begin｜>{{ c.type + '<｜tool▁sep｜>' + c.function.name + '\n```json\n' + c.function.arguments + '\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>"
    "{% elif m.role == 'tool' %}<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜><｜tool▁outputs▁end｜>{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
    "deepseek_r1": "{% set ns = namespace(own='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.own = m.content %}{% endif %}{% endfor %}<｜begin▁of▁sentence｜>{{ ns.own }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'assistant' and m.content %}{% set text = m.content %}{% if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}<｜Assistant｜>{{ text }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
    "glm4": "[gMASK]<sop>{% if tools %}<|system|>\n# Tools{% for t in tools %}\n## {{ t.function.name }}\n{{ t.function | tojson(indent=4) }}{% endfor %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'assistant' and m.tool_calls %}{% for c in m.tool_calls %}<|assistant|>{{ c.function.name }}\n{{ c.function.arguments | tojson(ensure_ascii=False) }}{% endfor %}{% else %}<|{{ 'observation' if m.role == 'tool' else m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "gpt_oss": "<|start|>system<|message|>You are ChatGPT.<|end|>{% if messages[0].role in ['developer', 'system'] %}{% set own = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set own = '' %}{% set rest = messages %}{% endif %}"
    "{% if own or tools %}<|start|>developer<|message|># Instructions\n\n{{ own }}{% if tools %}\n\n# Tools\nnamespace functions {{ '{' }}{% for t in tools %}\n// {{ t.function.description }}\ntype {{ t.function.name }} = (_: { {% for k, v in t.function.parameters.properties.items() %}{{ k }}: {{ v.type }}, {% endfor %} }) => any;{% endfor %}\n{{ '}' }}{% endif %}<|end|>{% endif %}"
    "{% set ns = namespace(name=none) %}{% for m in rest %}{% if m.role == 'assistant' %}{% if '<|channel|>' in m.content %}{{ raise_exception('markup belongs in the thinking field') }}{% endif %}"
    "{% if 'tool_calls' in m %}{% set c = m.tool_calls[0].function %}{% if m.content %}<|start|>assistant<|channel|>analysis<|message|>{{ m.content }}<|end|>{% elif m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary json<|message|>{{ c.arguments | tojson }}<|call|>{% set ns.name = c.name %}"
    "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% set ns.name = none %}{% endif %}"
    "{% elif m.role == 'tool' %}{% if ns.name is none %}{{ raise_exception('a result without a call before it') }}{% endif %}<|start|>functions.{{ ns.name }} to=assistant<|channel|>commentary<|message|>{{ m.content | tojson }}<|end|>"
    "{% elif m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    "granite3": "{% if messages[0].role == 'system' %}{% set own = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set own = 'You are Granite.' %}{% set rest = messages %}{% endif %}<|start_of_role|>system<|end_of_role|>{{ own }}{% if thinking %} Write your thoughts between <think></think>.{% endif %}<|end_of_text|>\n"
    "{% if tools %}<|start_of_role|>tools<|end_of_role|>{{ tools | tojson(indent=4) }}<|end_of_text|>\n{% endif %}{% for m in rest %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}{% if m.tool_calls %}<|tool_call|>{{ m.tool_calls | map(attribute='function') | list | tojson }}{% endif %}<|end_of_text|>\n{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
    "granite4": "{% if tools %}<|start_of_role|>system<|end_of_role|>{{ messages[0].content if messages[0].role == 'system' }}\n"
    + HERMES_TOOLS
    + "<|end_of_text|>\n{% elif messages[0].role == 'system' %}<|start_of_role|>system<|end_of_role|>{{ messages[0].content }}<|end_of_text|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% elif m.role == 'assistant' %}<|start_of_role|>assistant<|end_of_role|>{{ m.content }}"
    + HERMES_CALLS
    + "<|end_of_text|>\n"
    "{% elif m.role == 'tool' %}<|start_of_role|>user<|end_of_role|>\n<tool_response>\n{{ m.content }}\n</tool_response><|end_of_text|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
    "nemotron": "<extra_id_0>System\n{{ messages[0].content if messages[0].role == 'system' }}{% for t in tools or [] %}\n<tool> {{ t.function | tojson }} </tool>{% endfor %}\n{% for m in messages %}{% if m.role == 'user' %}<extra_id_1>User\n{{ m.content.strip() }}\n{% elif m.role == 'assistant' %}<extra_id_1>Assistant\n{{ m.content.split('</think>')[-1].strip() }}"
    '{% if m.tool_calls %}\n<TOOLCALL>[{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{{ \', \' if not loop.last }}{% endfor %}]</TOOLCALL>{% endif %}\n{% elif m.role == \'tool\' %}<extra_id_1>Tool\n<TOOL_RESPONSE>[{{ m.content | tojson }}]</TOOL_RESPONSE>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<extra_id_1>Assistant\n{% endif %}',
    "lfm2": "{% set own = messages[0].content if messages[0].role == 'system' else '' %}{% if own or tools %}<|im_start|>system\n{{ own }}{% if tools %}\nList of tools: <|tool_list_start|>[{% for t in tools %}{{ t | tojson }}{{ ', ' if not loop.last }}{% endfor %}]<|tool_list_end|>{% endif %}<|im_end|>\n{% endif %}"
    "{% for m in (messages[1:] if messages[0].role == 'system' else messages) %}<|im_start|>{{ m.role }}\n{{ '<|tool_response_start|>' + m.content + '<|tool_response_end|>' if m.role == 'tool' else m.content }}<|im_end|>\n{% endfor %}"
    + CHATML_END,
    "hermes2": "{% if tools %}<|im_start|>system\nYou are a function calling AI. <tools>{% for t in tools %}{{ t.function | tojson }} {% endfor %}</tools><|im_end|>\n{% endif %}{% for m in messages %}{% if m.role in ['user', 'system'] or (m.role == 'assistant' and m.tool_calls is not defined) %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    '{% elif m.role == \'assistant\' %}<|im_start|>assistant{% for c in m.tool_calls %}\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n'
    "{% elif m.role == 'tool' %}<|im_start|>tool\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n{% endif %}{% endfor %}"
    + CHATML_END,
    "command_r": "{% if messages[0].role == 'system' %}{% set own = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set own = '' %}{% set rest = messages %}{% endif %}{% if own %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ own }}<|END_OF_TURN_TOKEN|>{% endif %}"
    "{% for m in rest %}"
    + ALTERNATE
    + "{% if m.role == 'user' %}<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>{% elif m.role == 'assistant' %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
    # Ids become numbers; a call's list is JSON; results are documents.
    "command_a": '{% set ns = namespace(n=0) %}{% if tools %}<|SYSTEM_TOKEN|># Available Tools\n{{ tools | tojson }}<|END_OF_TURN_TOKEN|>{% endif %}{% for m in messages %}{% if m.role == \'tool\' %}<|START_TOOL_RESULT|>[{"tool_call_id": "{{ ns.n }}", "results": {"0": {{ m.content | tojson }}}}]<|END_TOOL_RESULT|>{% set ns.n = ns.n + 1 %}'
    '{% elif m.tool_calls %}<|CHATBOT_TOKEN|><|START_THINKING|>{{ m.tool_plan or m.content }}<|END_THINKING|><|START_ACTION|>[{% for c in m.tool_calls %}{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{{ \', \' if not loop.last }}{% endfor %}]<|END_ACTION|>'
    "{% else %}<|{{ {'user': 'USER', 'assistant': 'CHATBOT', 'system': 'SYSTEM'}[m.role] }}_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|CHATBOT_TOKEN|>{% endif %}",
    # Names of calls are in their ids alone.
    "kimi_ids": "{% if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{% endif %}{% for m in messages %}<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>{% if m.role == 'tool' %}## Return of {{ m.tool_call_id }}\n{% endif %}{{ m.content }}{% if m.tool_calls %}<|tool_calls_section_begin|>"
    "{% for c in m.tool_calls %}<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}{{ c.function.arguments | tojson }}{% endif %}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}",
    # Names of results are looked up by id, and must be found.
    "minimax_m2": "]~!b[]~b]system\n{{ messages[0].content if messages[0].role == 'system' else 'You are MiniMax.' }}{% if tools %}\n<tools>\n{% for t in tools %}<tool>{{ t.function | tojson }}</tool>\n{% endfor %}</tools>{% endif %}[e~[\n{% set ns = namespace(calls=none) %}{% for m in (messages[1:] if messages[0].role == 'system' else messages) %}"
    '{% if m.role == \'assistant\' %}]~b]ai\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}{% if m.tool_calls %}{% set ns.calls = m.tool_calls %}\n<minimax:tool_call>{% for c in m.tool_calls %}\n<invoke name="{{ c.function.name }}">{% for k, v in c.function.arguments.items() %}<parameter name="{{ k }}">{{ v if v is string else v | tojson }}</parameter>{% endfor %}</invoke>{% endfor %}\n</minimax:tool_call>{% endif %}[e~[\n'
    "{% elif m.role == 'tool' %}{% if ns.calls is none %}{{ raise_exception('a result without calls') }}{% endif %}]~b]tool\n<response>{{ m.content }}</response>[e~[\n{% elif m.role == 'user' %}]~b]user\n{{ m.content }}[e~[\n{% endif %}{% endfor %}{% if add_generation_prompt %}]~b]ai\n<think>\n{% endif %}",
    "hunyuan": "{% if messages[0].role == 'system' %}{% set own = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set own = '' %}{% set rest = messages %}{% endif %}<｜hy_begin▁of▁sentence｜>{{ own }}{{ '<｜hy_place▁holder▁no▁3｜>' if own }}{% for m in rest %}{% if m.role == 'user' %}<｜hy_User｜>{{ m.content }}{% elif m.role == 'assistant' %}<｜hy_Assistant｜>{{ m.content.split('<answer>')[-1].replace('</answer>', '') }}<｜hy_place▁holder▁no▁2｜>{% endif %}{% endfor %}{% if add_generation_prompt %}<｜hy_Assistant｜>{% endif %}",
    "ernie": "<|begin_of_sentence|>{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n{% elif m.role == 'assistant' %}Assistant: {{ m.content }}<|end_of_sentence|>{% elif m.role == 'system' %}{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}",
    "olmo": "{% for m in messages %}{% if m.role == 'system' %}<|system|>\n{{ m.content }}\n{% elif m.role == 'user' %}<|user|>\n{{ m.content }}\n{% elif m.role == 'assistant' %}{% if not loop.last %}<|assistant|>\n{{ m.content }}</s>\n{% else %}<|assistant|>\n{{ m.content }}</s>{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}<|assistant|>\n{% endif %}{% endfor %}",
    "internlm": "<s>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + CHATML_END,
    "vicuna": "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set rest = messages[1:] %}{% else %}A chat between a user and an assistant.{% set rest = messages %}{% endif %}{% for m in rest %}"
    + ALTERNATE
    + "{% if m.role == 'user' %} USER: {{ m.content }}{% else %} ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}",
    "alpaca": "{% for m in messages %}{% if loop.first and m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n{% elif m.role == 'assistant' %}### Response:\n{{ m.content }}</s>\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
    "zephyr": "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content + '</s>' }}\n{% elif m.role == 'system' %}{{ '<|system|>\n' + m.content + '</s>' }}\n{% elif m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + '</s>' }}\n{% endif %}{% if loop.last and add_generation_prompt %}<|assistant|>\n{% endif %}{% endfor %}",
    "falcon": "{% for m in messages %}{% if not loop.first %}\n{% endif %}{% if m.role == 'system' %}System: {% elif m.role == 'user' %}User: {% elif m.role == 'assistant' %}Falcon: {% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}\nFalcon:{% endif %}",
    # Python's notation of arguments unless they are text; documents and tools before the chat.
    "jamba": "{% set ns = namespace(own=(messages[0].content if messages[0].role == 'system' else '')) %}<|bom|><|system|> {{ ns.own }}{% if tools %}\n<tool_definitions>\n{{ tools | tojson }}\n</tool_definitions>{% endif %}<|eom|>{% for m in messages %}{% if m.role == 'user' %}<|bom|><|user|> {{ m.content }}<|eom|>{% elif m.role == 'assistant' %}<|bom|><|assistant|> {{ m.content }}"
    '{% if m.tool_calls %}<tool_calls>[{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}{{ \', \' if not loop.last }}{% endfor %}]</tool_calls>{% endif %}<|eom|>{% elif m.role == \'tool\' %}<|bom|><|tool|> {{ m.content }}<|eom|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|bom|><|assistant|>{% endif %}',
    "exaone": "{% for m in messages %}{% if loop.first and m.role != 'system' %}[|system|][|endofturn|]\n{% endif %}{{ '[|' + m.role + '|]' + m.content }}{% if m.role == 'user' %}\n{% else %}[|endofturn|]\n{% endif %}{% endfor %}{% if add_generation_prompt %}[|assistant|]{% endif %}",
    "seed_oss": "{% if tools %}<seed:bos>system\n{% for t in tools %}{{ t.function | tojson }}\n{% endfor %}<seed:eos>{% endif %}{% for m in messages %}<seed:bos>{{ m.role }}\n{% if m.reasoning_content is defined and m.reasoning_content %}<seed:think>{{ m.reasoning_content | trim }}</seed:think>{% endif %}{{ m.content | trim }}{% for c in m.tool_calls or [] %}\n<seed:tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>{{ v }}</parameter>\n{% endfor %}</function>\n</seed:tool_call>{% endfor %}<seed:eos>{% endfor %}{% if add_generation_prompt %}<seed:bos>assistant\n{% endif %}",
    "apertus": "{% for m in messages %}{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('System message must be first') }}{% endif %}<|system_start|>{{ m.content }}<|system_end|>{% elif m.role == 'user' %}<|user_start|>{{ m.content }}<|user_end|>{% elif m.role == 'assistant' %}<|assistant_start|>{{ m.content }}{% if m.tool_calls %}<|tools_prefix|>[{% for c in m.tool_calls %}{\"{{ c.function.name }}\": {{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}}{{ ', ' if not loop.last }}{% endfor %}]<|tools_suffix|>{% endif %}<|assistant_end|>"
    "{% elif m.role == 'tool' %}[{{ m.content }}]{% else %}{{ raise_exception('Invalid message role') }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant_start|>{% endif %}",
    # What no family does on purpose: parts alone, one call alone, whole messages, the last turn.
    "parts_only": "{% for m in messages %}<|{{ m.role }}|>{% for p in m.content %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "first_call": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{{ m.tool_calls[0].function.arguments | tojson(ensure_ascii=True) }}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "names_only": "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "whole_messages": '{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}{{ m | tojson }}\n{% endfor %}{% if add_generation_prompt %}{"role": "assistant", "content": "{% endif %}',
    "escapes": "{% for m in messages %}<message role='{{ m.role }}'>{{ m.content | e }}{% for c in m.tool_calls or [] %}<call name='{{ c.function.name | e }}'>{{ c.function.arguments | tojson | e }}</call>{% endfor %}</message>{% endfor %}{% if add_generation_prompt %}<message role='assistant'>{% endif %}",
}
# Templates that cannot show a whole chat in any shape.
LOSING = {
    "last_user": "{% set u = messages | selectattr('role', 'equalto', 'user') | list %}<|user|>{{ u[-1].content }}<|assistant|>",
    "first_50": "{% for m in messages %}<|{{ m.role }}|>{{ m.content[:3] }}{% endfor %}<|assistant|>",
    "backwards": "{% for m in messages | reverse %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>",
    "answers_apart": "{% for m in messages if m.role == 'user' %}<|user|>{{ m.content }}{% endfor %}{% for m in messages if m.role == 'assistant' %}<|assistant|>{{ m.content }}{% endfor %}<|assistant|>",
}


@cache
def tokenizer_with(template: str) -> Any:
    """mlx-lm's own wrapper of a byte tokenizer with a template."""
    from mlx_lm.tokenizer_utils import load

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.chat_template = template
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return load(Path(folder))


def installed_templates() -> dict[str, str]:
    """The chat templates that installed packages have as text in their code, by file and number."""
    places = {
        "litellm": "constants.py",
        "transformers": "models/*/processing_*.py",
        "mlx_vlm": "models/*/process*.py",
    }
    found = {}
    for package, pattern in places.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        for path in sorted(Path(spec.origin).parent.glob(pattern)):
            for number, text in enumerate(_templates_in(path)):
                found[f"{package}/{path.stem}/{number}"] = text
    return found


def _templates_in(path: Path) -> Iterator[str]:
    code = path.read_text("utf-8")
    if "add_generation_prompt %}" not in code and "for message in" not in code:
        return
    for node in ast.walk(ast.parse(code)):
        text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and "{%" in text and "messages" in text and "endfor" in text:
            yield text
