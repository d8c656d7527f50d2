"""Chat templates rendered by transformers' apply_chat_template (Jinja2), for tests/fixtures/chat_template.json.

Three templates of our own that use what published ones use: whitespace control, namespaces, loop variables, slices,
macros, Python string methods, `tojson` in Python's spelling (", " and ": ", insertion order, no escapes for non-ASCII
or HTML), generation prompts and `raise_exception`.
"""

import json

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

PLAIN = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
    {{- '[' + message['role'] | upper + ']' }}
    {%- if loop.first %}{{ ' ' ~ loop.length }}{% endif %}
    {{- '\\n' + message['content'] | trim + ('' if loop.last and message.role == 'assistant' else eos_token) + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[ASSISTANT]\\n' }}
{%- endif %}
"""

THINKING = """\
{%- set ns = namespace(last_user=-1, system='') %}
{%- if messages[0].role == 'system' %}
    {%- set ns.system = messages[0].content.strip() %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages[::-1] %}
    {%- set index = messages | length - 1 - loop.index0 %}
    {%- if message.role == 'user' and ns.last_user < 0 %}{% set ns.last_user = index %}{% endif %}
{%- endfor %}
{{- bos_token ~ ns.system }}
{% for message in messages %}
    {% set content = message.content if message.content is string else '' %}
    {% if message.role == 'user' %}
<|user|>{{ content }}
    {% else %}
        {% set reasoning = '' %}
        {% if message.reasoning_content is defined and message.reasoning_content is not none %}
            {% set reasoning = message.reasoning_content %}
        {% elif '</think>' in content %}
            {% set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {% set content = content.split('</think>')[-1].lstrip('\\n') %}
        {% endif %}
        {% if loop.index0 > ns.last_user and reasoning %}
<|assistant|><think>
{{ reasoning.strip() }}
</think>
{{ content }}{{ eos_token }}
        {% else %}
<|assistant|>{{ content }}{{ eos_token }}
        {% endif %}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>{{ '<think>\\n' if enable_thinking is not defined or enable_thinking else '<think>\\n\\n</think>\\n' }}
{%- endif %}
"""

TOOLS = """\
{%- macro call(function) -%}
    <call>{"name": {{ function.name | tojson }}, "arguments": {{ function.arguments | tojson }}}</call>
{%- endmacro %}
{%- if tools %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
{{ tool | tojson }}
{{ tool.function.parameters | tojson(indent=4) }}{{ '' if loop.last else ',' }}
    {% endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is none or not message.content %}
        {%- for tool_call in message.tool_calls %}
            {{- '\\n' if not loop.first }}{{ call(tool_call.function) }}
        {%- endfor %}
    {%- else %}
        {{- message.role }}: {{ message.content | tojson }}
        {%- for key, value in message.items() if key not in ('role', 'content') %} {{ key }}={{ value | tojson }}{% endfor %}
    {%- endif %}
    {{- eos_token ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'assistant:' }}{% endif %}
"""

USER = {"role": "user", "content": "  What is 2 < 3 & 'x' > \"y\"?\n"}
SYSTEM = {"role": "system", "content": "\nBe brief.\n "}
THOUGHT = {"role": "assistant", "content": "<think>\nTwo is less.\nYes.\n</think>\n\nTrue — 是"}
AGAIN = {"role": "user", "content": "Again, in 中文: a\\b\tc </think>?"}
WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Wetter für eine Stadt <heute>",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "also": {"type": "array"}},
                   "required": ["city"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "it's \"now\"", "parameters": {}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "also": [1, 2.5, None, True]}}},
    {"type": "function", "function": {"name": "clock", "arguments": {}}}]}

# (template, [(name, messages, keyword arguments of apply_chat_template)])
CASES = {
    "plain": (PLAIN, [
        ("user", [USER], {"add_generation_prompt": True}),
        ("system_user", [SYSTEM, USER], {"add_generation_prompt": True}),
        ("no_generation_prompt", [SYSTEM, USER, THOUGHT], {"add_generation_prompt": False}),
        ("two_turns", [USER, THOUGHT, AGAIN], {"add_generation_prompt": True}),
        ("unknown_role", [USER, {"role": "critic", "content": "no"}], {"add_generation_prompt": True}),
    ]),
    "thinking": (THINKING, [
        ("user", [USER], {"add_generation_prompt": True}),
        ("thinking_off", [SYSTEM, USER], {"add_generation_prompt": True, "enable_thinking": False}),
        ("history_loses_thought", [SYSTEM, USER, THOUGHT, AGAIN], {"add_generation_prompt": True}),
        ("last_turn_keeps_thought", [SYSTEM, USER, THOUGHT], {"add_generation_prompt": False}),
        ("reasoning_content", [USER, {"role": "assistant", "reasoning_content": " Why? ", "content": "So."}],
         {"add_generation_prompt": False}),
    ]),
    "tools": (TOOLS, [
        ("without_tools", [SYSTEM, USER, THOUGHT, AGAIN], {"add_generation_prompt": True}),
        ("with_tools", [USER, CALLS, {"role": "tool", "content": "18 °C", "name": "weather"}],
         {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]}),
    ]),
}


def write(path):
    vocabulary = {token: index for index, token in enumerate(("<unk>", "<s>", "</s>"))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), bos_token="<s>", eos_token="</s>")
    templates = []
    for template_name, (template, cases) in CASES.items():
        entry = {"name": template_name, "template": template, "cases": []}
        for name, messages, arguments in cases:
            record = {"name": name, "messages": messages, **arguments}
            try:
                record["rendered"] = tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, **arguments)
            except Exception as error:  # raise_exception() in a template: the message has to reach the user
                record["error"] = str(error)
            entry["cases"].append(record)
        templates.append(entry)
    errors = [c["name"] for t in templates for c in t["cases"] if "error" in c]
    assert errors == ["unknown_role"], f"templates that failed: {errors}"
    golden = {"bos_token": "<s>", "eos_token": "</s>", "templates": templates}
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
