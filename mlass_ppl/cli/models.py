"""`mlass models`: the bundles on this machine and what their cards say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..errors import BundleError
from ._common import console, say, sentences


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the bundles that `--bundle` takes by name, with the facts of their cards."""
    with sentences():
        from ..bundle import list_bundles

        cards = {folder: _card(folder) for folder in list_bundles()}
        if as_json:
            listed = [{"path": str(folder), **card} for folder, card in cards.items()]
            typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
            return
        if not cards:
            say("There are no bundles here. Train one: mlass train mnist")
            return
        for folder, card in cards.items():
            say(f"{card.get('name', folder.name)}  ({folder})", style="bold")
            _print(card)


def _print(card: Mapping[str, Any]) -> None:
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in card_facts(card):
        table.add_row(escape(key), escape(value))
    console().print(Padding(table, (0, 0, 1, 2)))


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"name": folder.name, "problem": f"its card cannot be read: {error}"}
    if not isinstance(card, dict):
        raise BundleError(
            f"{folder / 'bundle.json'} is no model card: expected a JSON object, got "
            f"{type(card).__name__}. Restore it."
        )
    return card


def card_facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A card as lines (fact, value): nested facts joined, one line a table, no checksums."""
    facts: list[tuple[str, str]] = []
    for key, value in card.items():
        if key in ("name", "format"):
            continue
        if key == "tables" and isinstance(value, list):
            facts += [(f"table {place}", _table(entry)) for place, entry in enumerate(value, 1)]
        elif isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            facts += [(f"{key} {name}", _short(inner)) for name, inner in value.items()]
        else:
            facts.append((key, _short(value)))
    return [(key, " ".join(value.split())) for key, value in facts if value]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        skipped = ("sha256", "file", "codec", "kind")
        shown = {key: _short(inner) for key, inner in value.items() if key not in skipped}
        return ", ".join(f"{key} {inner}" for key, inner in shown.items() if inner)
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return "" if value is None else str(value)


def _table(entry: Any) -> str:
    from ..tables import Recipe

    try:
        return f"{Recipe.from_json(entry['recipe'])}: {entry.get('coverage', 'coverage unknown')}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"damaged entry: {entry}"
