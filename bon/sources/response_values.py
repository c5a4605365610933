"""From one stored value (a text, an object, a conversation) to the response that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bon.records import GivenResponse, Message
from bon.sources.messages import read_turns, refuse_bytes
from bon.sources.notes import Notes
from bon.sources.rows import RowFault

__all__ = [
    "TEXT_KEYS",
    "Found",
    "is_conversation",
    "read_response",
]

TEXT_KEYS = (
    "response",
    "text",
    "content",
    "solution",
    "completion",
    "generated_text",
    "generation",
)
"""Keys of an object under which its text may be."""


@dataclass(frozen=True, slots=True)
class Found:
    """One response, and what its value held besides."""

    response: GivenResponse
    before: tuple[Message, ...] = ()
    """Turns before it, where the value is a conversation."""
    rest: dict[str, Any] = field(default_factory=dict)
    """Keys of its object that are not in the response."""
    is_whole: bool = True
    """Whether response, turns and rest say all that the value said."""


def is_conversation(value: Any) -> bool:
    """Tell a list of messages by its first item (role/content or from/value)."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return "role" in value[0] or "from" in value[0]


def read_response(value: Any, where: str, notes: Notes | None = None) -> Found:
    """Read a text, an object with a text, one message, or a conversation that ends with one.

    An object may say its score, a verdict, a finish reason and a number of tokens, where `notes`
    takes them; its other keys are the rest.

    Raises:
        RowFault: `missing_response` or `wrong_type`, and those of messages.
    """
    if value is None:
        raise RowFault("missing_response", f"{where} is null or missing")
    if isinstance(value, str):
        refuse_bytes(value, where)
        return Found(GivenResponse(value))
    if isinstance(value, list):
        return _last_turn(value, where)
    if isinstance(value, dict):
        return _from_object(value, where, notes)
    raise RowFault("wrong_type", f"{where} must be a text, an object or messages")


def _last_turn(value: list[Any], where: str) -> Found:
    turns, is_whole = read_turns(value, where)
    if not turns or turns[-1]["role"] != "assistant":
        last = f"ends with a {turns[-1]['role']} turn" if turns else "has no messages"
        raise RowFault("missing_response", f"{where} {last}, not with the assistant's")
    return Found(GivenResponse(turns[-1]["content"]), turns[:-1], {}, is_whole)


def _from_object(value: dict[str, Any], where: str, notes: Notes | None) -> Found:
    is_message = "role" in value or "from" in value
    if is_message:
        found = _last_turn([value], where)
        used = {"role", "content"} if "role" in value else {"from", "value"}
    else:
        key = next((key for key in TEXT_KEYS if value.get(key) is not None), None)
        if key is None:
            raise RowFault("missing_response", f"{where} has no text under {', '.join(TEXT_KEYS)}")
        if isinstance(value[key], dict):
            raise RowFault("wrong_type", f"{key!r} of {where} must be a text or messages")
        found, used = read_response(value[key], where), {key}
    said, noted = notes.read_object(value) if notes is not None else ({}, set())
    response = GivenResponse(found.response.response, **said)
    rest = {key: item for key, item in value.items() if key not in used | noted}
    return Found(response, found.before, rest, found.is_whole or is_message)
