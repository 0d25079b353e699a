"""Docstrings as Markdown, for the reference (an extension of mkdocstrings).

Our docstrings are plain text. A parameter or a field stands on a line, `name: what it is, unit, default.`, with further
lines indented; a module's contents are lines of a name, spaces and a text. Markdown would join all of these, so they
become lists; square brackets stay brackets, and an enum names its members.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

FIELD = re.compile(r"^([a-z_*][\w*.]*(?:, [a-z_*][\w*.]*)*): (?=\S)")
ENTRY = re.compile(r"^([a-z_]\w*/?) {2,}(?=\S)")
CODE = re.compile(r"(`+.*?`+|^ {4}.*$)", re.MULTILINE | re.DOTALL)


def as_markdown(text: str) -> str:
    """The docstring with its fields as list items."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        found = FIELD.match(line) or ENTRY.match(line)
        if found:
            if not inside and lines and lines[-1]:
                lines.append("")
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            lines.append(f"- {names}: {line[found.end() :]}")
            inside = True
        elif inside and line.startswith("  "):
            lines.append(f"  {line.strip()}")
        else:
            if inside and line:
                lines.append("")
            inside = False
            lines.append(line)
    parts = CODE.split("\n".join(lines))
    return "".join(part if number % 2 else part.replace("[", r"\[") for number, part in enumerate(parts))


class PlainDocstrings(griffe.Extension):
    """Rewrites every docstring when it is collected."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        if cls.docstring is not None and any(str(base).endswith("Enum") for base in cls.bases):
            members = ", ".join(f"`{name}`" for name, each in cls.members.items() if each.is_attribute)
            cls.docstring.value += f"\n\nOne of {members}."
