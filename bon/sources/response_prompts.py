"""The prompt of a row with responses: from its own column, from their conversations, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bon.errors import UnknownLayoutError
from bon.records import Message
from bon.sources.layouts import Layout, choose_layout, column_layout
from bon.sources.messages import Conversation, read_turns
from bon.sources.rows import RowFault
from bon.sources.shapes import Given, Shape

__all__ = ["choose_prompt", "read_prompt_before"]

_CONVERSATION_LAYOUTS = frozenset({"messages", "conversations"})


def choose_prompt(
    values: Mapping[str, Any], shape: Shape, layout: Layout | None, column: str | None, where: str
) -> Layout | None:
    """Return where the prompt is said, none where only the responses' conversations say it.

    Raises:
        UnknownChoiceError, UnknownLayoutError: as `choose_layout`.
    """
    try:
        return choose_layout(values, layout, column, where)
    except UnknownLayoutError:
        if layout is not None:
            raise
        if shape.prompt_column is not None and shape.prompt_column in values:
            return column_layout(shape.prompt_column)
        if not _may_carry_prompt(shape, values):
            raise
        return None


def _may_carry_prompt(shape: Shape, values: Mapping[str, Any]) -> bool:
    try:
        return bool(shape.read(values).before)
    except RowFault:
        return True  # a bad row tells nothing of the others


def read_prompt_before(
    values: Mapping[str, Any], given: Given, layout: Layout | None, is_named: bool
) -> tuple[tuple[Message, ...], frozenset[str]]:
    """Return a row's prompt, and the columns that prompt and responses say in full.

    Raises:
        RowFault: `missing_prompt`, `no_user_turn`, `empty_prompt`, and those of messages.
    """
    said = _read_said(values, given, layout)
    messages = _join(said.messages if said is not None else (), given.before, is_named)
    if not messages:
        raise RowFault(
            "missing_prompt",
            "no column holds the prompt, and the responses are no conversations that begin with it",
        )
    if not any(message["role"] == "user" for message in messages):
        raise RowFault("no_user_turn", "no user turn comes before the responses")
    if messages[-1]["role"] == "user" and not messages[-1]["content"].strip():
        raise RowFault("empty_prompt", "the last user turn before the responses is empty")
    gone = given.consumed
    if given.before and messages[-len(given.before) :] != given.before:
        gone -= given.carriers
    if said is not None and layout is not None and _contains(messages, said):
        is_conversation = layout.name in _CONVERSATION_LAYOUTS
        gone |= set(layout.required) if is_conversation else layout.consumes
    return messages, gone


def _read_said(
    values: Mapping[str, Any], given: Given, layout: Layout | None
) -> Conversation | None:
    if layout is None:
        return None
    try:
        return _uncut(layout.read(values), values.get(layout.required[0]), layout)
    except RowFault:
        if given.before:
            return None
        raise


def _uncut(said: Conversation, value: Any, layout: Layout) -> Conversation:
    """Return a column's conversation to its end, where that is a tool's turn.

    A prompt to sample for ends with the user; a response that is there may answer a tool.
    """
    if said.is_whole or not isinstance(value, list):
        return said
    turns, is_whole = read_turns(value, layout.required[0])
    return Conversation(turns, is_whole) if turns[-1]["role"] == "tool" else said


def _join(
    said: tuple[Message, ...], before: tuple[Message, ...], is_named: bool
) -> tuple[Message, ...]:
    """Return the prompt that the prompt's column and the turns before the responses make.

    Turns that begin with the assistant's go on from the column. Otherwise the longer one is the
    prompt, if it contains the other; if they differ, a column that was named, else the turns.
    """
    if not before:
        return said
    if before[0]["role"] in ("assistant", "tool"):
        return said + before
    if said[-len(before) :] == before or (is_named and said and not _holds(before, said)):
        return said
    return before


def _contains(messages: tuple[Message, ...], said: Conversation) -> bool:
    return said.is_whole and _holds(messages, said.messages)


def _holds(messages: tuple[Message, ...], part: tuple[Message, ...]) -> bool:
    size = len(part)
    return any(messages[i : i + size] == part for i in range(len(messages) - size + 1))
