"""Docstrings for the site: `name: what it is` in running text becomes an item of a list.

Docstrings here say arguments and fields in prose, "tables: by factor name. infer: the engine"; on
a page one line each is easier to find. Only names that the object has are taken for such.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class ArgumentLists(griffe.Extension):
    """Set arguments and fields apart, in every docstring that is loaded."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _itemise(func, {parameter.name.lstrip("*") for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        names = {name for name, member in cls.members.items() if member.is_attribute}
        first = cls.members.get("__init__")
        if isinstance(first, griffe.Function):
            names |= {parameter.name for parameter in first.parameters}
        _itemise(cls, names)


def _itemise(thing: griffe.Object, names: set[str]) -> None:
    if thing.docstring is None or not names:
        return
    name = "|".join(map(re.escape, names))
    start = re.compile(rf"(?:^|(?<=[.;)]\s))((?:{name})(?:, (?:{name}))*):\s")
    paragraphs = thing.docstring.value.split("\n\n")
    for place, paragraph in enumerate(paragraphs):
        before, *rest = start.split(" ".join(paragraph.split()))
        if rest and not paragraph.startswith((" ", "-", "|")):
            items = [
                f"- `{key.replace(', ', '`, `')}`: {text.strip().rstrip(';')}"
                for key, text in zip(rest[::2], rest[1::2], strict=True)
            ]
            paragraphs[place] = "\n".join([*([f"{before.strip()}\n"] if before else []), *items])
    thing.docstring.value = "\n\n".join(paragraphs)
