"""Facts of `bon inspect` as text, on stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bon.shown import printable

__all__ = ["show"]

_SHOWN_CHARACTERS = 200
_SHOWN_COLUMNS = ("prompt", "response", "chosen", "rejected", "reward", "margin", "answer")


def show(facts: dict[str, Any]) -> None:
    """Print facts for a person, on stdout."""
    console = Console(soft_wrap=True, highlight=False)
    for key, value in facts.items():
        if key == "rows":
            _show_rows(console, value)
        elif isinstance(value, list) and value:
            console.print(Text(key, style="bold"))
            for item in value:
                console.print(Text("  " + _short(item)))
        elif isinstance(value, dict):
            console.print(Text(key, style="bold"))
            for name, item in value.items():
                console.print(Text(f"  {printable(name)}: {_short(item)}"))
        else:
            console.print(Text(f"{key}: {_short(value)}"))


def _show_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    wanted = [name for name in _SHOWN_COLUMNS if rows and name in rows[0]]
    if not wanted:
        for row in rows:
            console.print(Text("  " + _short(row)))
        return
    table = Table(title="first rows", title_justify="left")
    for name in wanted:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_short(row[name], keep_lines=True)) for name in wanted))
    Console(width=None if console.is_terminal else 120).print(table)


def _short(value: object, *, keep_lines: bool = False) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if value == []:
        return "none"
    if isinstance(value, dict):
        items = (f"{printable(str(key))} {_short(item)}" for key, item in value.items())
        return ", ".join(items) or "none"
    text = _conversation(value) if _is_conversation(value) else str(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    return printable(text, keep_lines=keep_lines)


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and item.keys() >= {"role", "content"} for item in value
    )


def _conversation(messages: Any) -> str:
    """The content alone where one person speaks, else each turn with its role."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
