"""From the conversations people store to one checked list of messages that ends with the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bon.records import Message
from bon.sources.rows import Bytes, RowFault

__all__ = [
    "Conversation",
    "read_column",
    "read_conversation",
    "read_prompt",
    "read_text_prompt",
    "read_turns",
    "refuse_bytes",
]

_ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})
_SPEAKERS = {role: role for role in _ROLES} | {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
}
_UNSTORABLE = ("tool_calls", "function_call")


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a prompt."""

    messages: tuple[Message, ...]
    is_whole: bool = True
    """Whether the messages say all that the input said: nothing was cut, no key left out."""


def read_column(values: Mapping[str, Any], column: str) -> Any:
    """Return a column's value; raises the fault `missing_prompt` where it is absent or null."""
    value = values.get(column)
    if value is None:
        state = "is null" if column in values else "is missing"
        raise RowFault("missing_prompt", f"the column {column!r} {state}")
    return value


def read_text_prompt(value: Any, column: str) -> Conversation:
    """Make one user turn of a string; raises the faults `wrong_type` and `empty_prompt`."""
    if not isinstance(value, str):
        raise RowFault("wrong_type", f"{column!r} must be a string, not {_kind(value)}")
    refuse_bytes(value, repr(column))
    if not value.strip():
        raise RowFault("empty_prompt", f"{column!r} is empty")
    return Conversation((Message(role="user", content=value),))


def read_prompt(value: Any, column: str) -> Conversation:
    """Read a string or a list of messages, as `read_text_prompt` and `read_conversation` do."""
    if isinstance(value, str):
        return read_text_prompt(value, column)
    if not isinstance(value, list):
        message = f"{column!r} must be a string or a list of messages, not {_kind(value)}"
        raise RowFault("wrong_type", message)
    return read_conversation(value, column)


def read_conversation(value: Any, column: str) -> Conversation:
    """Read a list of messages (role/content or from/value), cut after its last user turn.

    Raises:
        RowFault: `wrong_type`, `unknown_role`, `unsupported_content`, `no_user_turn` or
            `empty_prompt` (the last user turn is blank).
    """
    turns, is_whole = read_turns(value, column)
    users = [i for i, message in enumerate(turns) if message["role"] == "user"]
    if not users:
        raise RowFault("no_user_turn", f"{column!r} has no user turn among {len(turns)} messages")
    end = users[-1] + 1
    if not turns[end - 1]["content"].strip():
        raise RowFault("empty_prompt", f"the last user turn of {column!r} is empty")
    return Conversation(turns[:end], end == len(turns) and is_whole)


def read_turns(value: Any, column: str) -> tuple[tuple[Message, ...], bool]:
    """Read a list of messages uncut; also tell whether no message had a key that is left out.

    Raises:
        RowFault: `wrong_type`, `unknown_role` or `unsupported_content`.
    """
    if not isinstance(value, list):
        raise RowFault("wrong_type", f"{column!r} must be a list of messages, not {_kind(value)}")
    turns = [_read_message(item, f"message {i} of {column!r}") for i, item in enumerate(value, 1)]
    return tuple(message for message, _ in turns), all(whole for _, whole in turns)


def _read_message(item: Any, where: str) -> tuple[Message, bool]:
    if not isinstance(item, dict):
        raise RowFault("wrong_type", f"{where} must be an object, not {_kind(item)}")
    is_sharegpt = "from" in item and "role" not in item
    role_key, content_key = ("from", "value") if is_sharegpt else ("role", "content")
    speaker = item.get(role_key)
    known = _SPEAKERS if is_sharegpt else {role: role for role in _ROLES}
    if not isinstance(speaker, str) or speaker not in known:
        detail = f"{where} has the {role_key} {speaker!r}, known are {', '.join(sorted(known))}"
        raise RowFault("unknown_role", detail)
    for key in _UNSTORABLE:
        if item.get(key):
            raise RowFault("unsupported_content", f"{where} has {key}, only text can be kept")
    content = _read_content(item.get(content_key), where)
    left_out = [key for key in item if key not in (role_key, content_key)]
    whole = all(item[key] is None for key in left_out)
    return Message(role=known[speaker], content=content), whole


def _read_content(content: Any, where: str) -> str:
    if isinstance(content, str):
        refuse_bytes(content, f"the content of {where}")
        return content
    if not isinstance(content, list):
        detail = f"the content of {where} must be text, not {_kind(content)}"
        raise RowFault("unsupported_content", detail)
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else _kind(part)
            raise RowFault("unsupported_content", f"{where} has a part that is no text: {kind}")
        texts.append(text)
    return "".join(texts)


def refuse_bytes(value: str, where: str) -> None:
    """Raise the fault `wrong_type` where the input has bytes instead of a text."""
    if isinstance(value, Bytes):
        raise RowFault("wrong_type", f"{where} holds bytes, not text: make it a string column")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
