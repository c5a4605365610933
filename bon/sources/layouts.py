"""The shapes of rows that people have, recognised by their columns.

To add a layout, write a function from a row to a `Conversation` and add a line to `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bon.config import InputSettings
from bon.errors import (
    SettingsError,
    UnknownChoiceError,
    UnknownLayoutError,
    did_you_mean,
    listed,
)
from bon.sources.messages import (
    Conversation,
    read_column,
    read_conversation,
    read_prompt,
    read_text_prompt,
)
from bon.sources.rows import RowFault

__all__ = [
    "LAYOUTS",
    "Layout",
    "choose",
    "choose_layout",
    "column_layout",
    "named_layout",
    "recognise",
    "refuse_unknown_column",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row of one shape becomes a prompt."""

    name: str
    required: tuple[str, ...]
    """Columns by which it is recognised."""
    read: Callable[[Mapping[str, Any]], Conversation]
    """From a row to its messages; raises `RowFault`."""
    prompt_from: str
    """Where the prompt is, for a person."""
    consumes: frozenset[str] = frozenset()
    """Columns whose whole content is in the messages, so that no one misses them afterwards."""


def _prompt(values: Mapping[str, Any]) -> Conversation:
    return read_prompt(read_column(values, "prompt"), "prompt")


def _messages(values: Mapping[str, Any]) -> Conversation:
    return read_conversation(read_column(values, "messages"), "messages")


def _conversations(values: Mapping[str, Any]) -> Conversation:
    return read_conversation(read_column(values, "conversations"), "conversations")


def _instruction(values: Mapping[str, Any]) -> Conversation:
    return read_text_prompt(read_column(values, "instruction"), "instruction")


def _alpaca(values: Mapping[str, Any]) -> Conversation:
    conversation, context = _instruction(values), values.get("input")
    if context is None or context == "":
        return conversation
    if not isinstance(context, str):
        raise RowFault("wrong_type", "'input' must be a string")
    if not context.strip():
        return conversation
    text = f"{conversation.messages[0]['content']}\n\n{context}"
    return read_text_prompt(text, "instruction")


def _turns(values: Mapping[str, Any]) -> Conversation:
    turns = read_column(values, "turns")
    if not isinstance(turns, list):
        raise RowFault("wrong_type", "'turns' must be a list of strings")
    if not turns or turns[0] is None:
        raise RowFault("missing_prompt", "'turns' has no first turn")
    return read_text_prompt(turns[0], "turns")


def _question(values: Mapping[str, Any]) -> Conversation:
    return read_text_prompt(read_column(values, "question"), "question")


def _body(values: Mapping[str, Any]) -> Conversation:
    body = read_column(values, "body")
    if not isinstance(body, dict):
        raise RowFault("wrong_type", "'body' must be an object with 'messages'")
    return read_conversation(read_column(body, "messages"), "body.messages")


LAYOUTS: tuple[Layout, ...] = (
    Layout("openai-batch", ("custom_id", "body"), _body, "`body.messages`"),
    Layout(
        "ultrafeedback",
        ("prompt", "chosen", "rejected"),
        _prompt,
        "`prompt`",
        frozenset({"prompt"}),
    ),
    Layout(
        "argilla",
        ("instruction", "chosen_response"),
        _instruction,
        "`instruction`",
        frozenset({"instruction"}),
    ),
    Layout("prompt", ("prompt",), _prompt, "`prompt`", frozenset({"prompt"})),
    Layout("messages", ("messages",), _messages, "`messages` up to the last user turn"),
    Layout(
        "conversations",
        ("conversations",),
        _conversations,
        "`conversations` up to the last human turn",
    ),
    Layout(
        "alpaca",
        ("instruction",),
        _alpaca,
        "`instruction` and `input`",
        frozenset({"instruction", "input"}),
    ),
    Layout("mt-bench", ("turns",), _turns, "the first of `turns`"),
    Layout("gsm8k", ("question",), _question, "`question`", frozenset({"question"})),
)
"""Every known layout, in the order in which they are tried: those that ask for more columns first,
then a column that is called the prompt, then whole conversations, then single questions."""


def recognise(columns: Collection[str]) -> Layout:
    """Return the first of `LAYOUTS` whose required columns are all there.

    Raises:
        UnknownLayoutError: there is none; lists the columns, the layouts and the flags.
    """
    for layout in LAYOUTS:
        if set(layout.required) <= set(columns):
            return layout
    known = "; ".join(f"{layout.name} ({', '.join(layout.required)})" for layout in LAYOUTS)
    raise UnknownLayoutError(
        f"no known layout has the columns {listed(sorted(columns)) or '(none)'}",
        why=f"known layouts and the columns they need: {known}",
        next_step="name the column that holds the prompt with --prompt-column NAME, "
        "or a layout with --layout NAME",
    )


def choose(name: str) -> Layout:
    """Return the layout of that name.

    Raises:
        UnknownChoiceError: there is none.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UnknownChoiceError(
        f"unknown layout {name!r}",
        where="--layout",
        next_step=did_you_mean(name, [layout.name for layout in LAYOUTS]),
    )


def column_layout(column: str) -> Layout:
    """Return the layout that takes a string or a list of messages from one column."""

    def read(values: Mapping[str, Any]) -> Conversation:
        return read_prompt(read_column(values, column), column)

    return Layout("prompt-column", (column,), read, f"`{column}`", frozenset({column}))


def named_layout(settings: InputSettings) -> Layout | None:
    """Return the layout that --layout names, none where it names none.

    Raises:
        SettingsError: a prompt column is named too.
        UnknownChoiceError: there is no such layout.
    """
    if settings.layout is None:
        return None
    if settings.prompt_column is not None:
        raise SettingsError(
            "--layout and --prompt-column cannot be used together",
            why="both say where the prompt is",
            next_step="leave one of them out",
        )
    return choose(settings.layout)


def choose_layout(
    values: Collection[str], layout: Layout | None, column: str | None, where: str
) -> Layout:
    """Return the layout of rows with these columns: a prompt column, a named layout, or the first.

    Raises:
        UnknownChoiceError: there is no such column.
        UnknownLayoutError: the named layout needs other columns, or none is known.
    """
    if column is not None:
        refuse_unknown_column(values, column, f"--prompt-column; {where}")
        return column_layout(column)
    try:
        chosen = layout or recognise(values)
    except UnknownLayoutError as error:
        error.where = where
        raise
    missing = [name for name in chosen.required if name not in values]
    if missing:
        raise UnknownLayoutError(
            f"layout {chosen.name} needs the column {', '.join(missing)}",
            where=where,
            why=f"the columns are {listed(sorted(values)) or '(none)'}",
            next_step="leave --layout out, or name the column with --prompt-column NAME",
        )
    return chosen


def refuse_unknown_column(values: Collection[str], column: str, where: str) -> None:
    """Raise `UnknownChoiceError` where the input has no column of that name."""
    if column not in values:
        raise UnknownChoiceError(
            f"the input has no column {column!r}",
            where=where,
            next_step=did_you_mean(column, values),
        )
