"""Ponder's own format as a Jinja chat template, for tools that only know templates (transformers, vLLM, llama.cpp)."""

from __future__ import annotations

from ponder.dialogue import control
from ponder.dialogue.messages import Role
from ponder.dialogue.tools import NO_PARAMETERS


def ponder_template() -> str:
    """The template. Variables: `messages`, `add_generation_prompt`; `tools` (default none); `enable_thinking` (default
    true) opens the thinking in the generation prompt; `all_turns` (default false) keeps old reasoning
    (`ReasoningPolicy.ALL_TURNS`).

    Messages are dictionaries as `to_dicts` writes them, tools as `tool_dict` does; folded thinking (`reasoning_content`
    is a list) is refused. A template joins text before it is encoded, so it has not `PonderFormat`'s guarantee that
    text cannot become control tokens.
    """
    names = {name.lower(): getattr(control, name.upper()) for name in _TOKENS}
    roles = "".join(
        f"{{%- {'if' if role is Role.SYSTEM else 'elif'} message.role == '{role.value}' -%}}{token}"
        for role, token in control.ROLE_TOKENS.items()
    )
    text = _TEMPLATE.replace("ROLES", roles).replace("NO_PARAMETERS", NO_PARAMETERS)
    for name, token in names.items():
        text = text.replace(f"[{name}]", token)
    return text.replace("\n", "")


# llama.cpp goes by names: it ends every answer at a token called <|call|> (gpt-oss ends there), whatever the file says.
# Ids are what a model knows, so for llama.cpp that one gets another name, in the vocabulary and in the template.
LLAMA_CPP_NAMES = {control.CALL: "<|tool_call|>"}


def llama_cpp_template(template: str) -> str:
    """A template of Ponder's format with control tokens under the names they have in llama.cpp."""
    for name, renamed in LLAMA_CPP_NAMES.items():
        template = template.replace(name, renamed)
    return template


_TOKENS = (
    *("end", "name", "body", "think", "end_think", "assistant"),
    *("call", "args", "end_call", "result", "end_result"),
    *("system", "tool"),
)
# Every literal outside tags is output, so the line breaks, which are only for reading, are taken out again.
_TEMPLATE = """\
{%- set ns = namespace(last_user=-1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- set declared = namespace(text='') -%}
{%- for tool in tools or [] -%}
{%- set f = tool.function -%}
{%- set described = ', "description": ' ~ (f.description | tojson) if f.description else '' -%}
{%- set parameters = f.parameters | tojson if f.parameters is defined and f.parameters is not none
 else 'NO_PARAMETERS' -%}
{%- set declared.text = declared.text ~ ('\\n' if declared.text else '[tool]')
 ~ '{"name": ' ~ (f.name | tojson) ~ described ~ ', "parameters": ' ~ parameters ~ '}' -%}
{%- endfor -%}
{%- if declared.text and (not messages or messages[0].role not in ['system', 'developer']) -%}
[system]{{- declared.text -}}[end]
{%- endif -%}
{%- for message in messages -%}
ROLES
{%- else -%}{{- raise_exception('unknown role: ' ~ message.role) -}}{%- endif -%}
{%- if message.role == 'tool' -%}
[result]{{- message.name -}}[body]{{- message.content -}}[end_result]
{%- else -%}
{%- if message.name is defined and message.name is not none -%}[name]{{- message.name -}}[body]{%- endif -%}
{%- if message.reasoning_content is defined and message.reasoning_content is not none and
 (all_turns | default(false) or loop.index0 > ns.last_user) -%}
{%- if message.reasoning_content is not string -%}
{{- raise_exception('reasoning_content must be a string: this template cannot express folded thinking') -}}
{%- endif -%}
[think]{{- message.reasoning_content -}}[end_think]
{%- endif -%}
{%- if message.content is defined and message.content is not none -%}{{- message.content -}}{%- endif -%}
{%- if message.tool_calls is defined and message.tool_calls is not none -%}
{%- for call in message.tool_calls -%}
[call]{{- call.function.name -}}[args]
{%- if call.function.arguments is string -%}{{- call.function.arguments -}}
{%- else -%}{{- call.function.arguments | tojson -}}{%- endif -%}
[end_call]
{%- endfor -%}
{%- endif -%}
{%- endif -%}
{%- if loop.first and message.role in ['system', 'developer'] -%}{{- declared.text -}}{%- endif -%}
[end]
{%- endfor -%}
{%- if add_generation_prompt -%}[assistant]
{%- if enable_thinking is not defined or enable_thinking -%}[think]{%- endif -%}
{%- endif -%}
"""
