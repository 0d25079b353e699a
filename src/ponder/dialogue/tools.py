"""Tools as they are declared to a model: a name, what it does, and a JSON schema of its arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ponder.types import FormatError

NO_PARAMETERS = '{"type": "object", "properties": {}}'


class Arguments(StrEnum):
    """What the arguments of a call must be that no request demands.

    FREE: whatever it writes. STRICT: JSON that the tool's schema accepts.
    """

    FREE = "free"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    parameters: a JSON schema of its arguments, as JSON text.
    """

    name: str
    description: str = ""
    parameters: str = NO_PARAMETERS
    arguments: Arguments = Arguments.FREE


def check_tools(tools: Sequence[Tool]) -> None:
    """Raises FormatError, naming the tool, for what no format can declare."""
    names: set[str] = set()
    for number, tool in enumerate(tools):
        if not tool.name:
            raise FormatError(f"tool {number}: the name is empty")
        if tool.name in names:
            raise FormatError(
                f"tool {number}: an earlier tool is called {tool.name!r} too: give each tool its own name"
            )
        names.add(tool.name)
        declaration_line(tool)


def declaration(tool: Tool) -> dict[str, Any]:
    """`name`, where there is one `description`, and `parameters` as an object. Raises FormatError naming the tool."""
    try:
        parameters = json.loads(tool.parameters, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"tool {tool.name!r}: its parameters are not valid JSON: {str(error)[:200]}") from error
    if not isinstance(parameters, dict):
        raise FormatError(f"tool {tool.name!r}: its parameters must be a JSON schema, which is an object")
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parameters": parameters}


def declaration_line(tool: Tool) -> str:
    """The declaration as JSON on one line. Raises as `declaration`, and for text that is not Unicode."""
    return _line(tool, declaration(tool))


def function_line(tool: Tool) -> str:
    """The declaration as chat templates are given it, as JSON on one line."""
    return _line(tool, tool_dict(tool))


def tool_dict(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates and OpenAI-style APIs have it: `{"type": "function", "function": {…}}`."""
    return {"type": "function", "function": declaration(tool)}


def tools_from_dicts(entries: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The inverse of `tool_dict`, with `strict` beside the function's other keys where it is asked for. Raises
    FormatError naming the tool and the key; unknown keys are refused."""
    return tuple(_tool(number, entry) for number, entry in enumerate(entries))


def _tool(number: int, entry: Mapping[str, Any]) -> Tool:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or entry.get("type") != "function" or set(entry) != {"type", "function"}:
        raise FormatError(f'tool {number}: must be {{"type": "function", "function": …}}')
    unknown = sorted(set(function) - {"name", "description", "parameters", "strict"})
    if unknown:
        raise FormatError(f"tool {number}: unknown key {unknown[0]!r}; known: name, description, parameters, strict")
    name, description, strict = function.get("name"), function.get("description") or "", function.get("strict")
    if not isinstance(name, str) or not isinstance(description, str):
        raise FormatError(f"tool {number}: its name and its description must be strings")
    if strict not in (None, False, True):
        raise FormatError(f"tool {number}: 'strict' must be true or false")
    parameters = function.get("parameters")
    written = NO_PARAMETERS if parameters is None else json.dumps(parameters, ensure_ascii=False)
    return Tool(name, description, written, Arguments.STRICT if strict else Arguments.FREE)


def _line(tool: Tool, value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"tool {tool.name!r}: its declaration holds a lone surrogate, which is not text") from error
    return line


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
