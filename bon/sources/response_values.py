"""From one stored value (a text, an object, a conversation) to the response that it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bon.records import GivenResponse, Message
from bon.sources.messages import read_turns
from bon.sources.rows import RowFault

__all__ = [
    "SCORE_NAMES",
    "TEXT_KEYS",
    "Found",
    "is_conversation",
    "read_response",
    "to_count",
    "to_name",
    "to_score",
    "to_verdict",
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
SCORE_NAMES = ("score", "reward")
_LARGEST_FLOAT32 = 3.4028234e38
_LARGEST_INT32 = (1 << 31) - 1


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


def to_score(value: Any) -> float | None:
    """Return a number, or a text that is one (as in a table); none for all that float32 lacks."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= _LARGEST_FLOAT32 else None


def to_verdict(value: Any) -> bool | None:
    """Return a boolean, none for anything else: a 0 or 1 may as well be a class."""
    return value if isinstance(value, bool) else None


def to_name(value: Any) -> str | None:
    """Return a text, none for anything else."""
    return value if isinstance(value, str) else None


def to_count(value: Any) -> int | None:
    """Return a count that int32 holds, or a text that is one; none for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _LARGEST_INT32 else None


def is_conversation(value: Any) -> bool:
    """Tell a list of messages by its first item (role/content or from/value)."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return "role" in value[0] or "from" in value[0]


def read_response(value: Any, where: str, score_key: str | None = None) -> Found:
    """Read a text, an object with a text, one message, or a conversation that ends with one.

    An object may say its score (under `score_key`, `score` or `reward`), a verdict, a finish
    reason and a number of tokens; its other keys are the rest.

    Raises:
        RowFault: `missing_response` or `wrong_type`, and those of messages.
    """
    if value is None:
        raise RowFault("missing_response", f"{where} is null or missing")
    if isinstance(value, str):
        return Found(GivenResponse(value))
    if isinstance(value, list):
        return _last_turn(value, where)
    if isinstance(value, dict):
        return _from_object(value, where, score_key)
    raise RowFault("wrong_type", f"{where} must be a text, an object or messages")


def _last_turn(value: list[Any], where: str) -> Found:
    turns, is_whole = read_turns(value, where)
    if not turns or turns[-1]["role"] != "assistant":
        last = f"ends with a {turns[-1]['role']} turn" if turns else "has no messages"
        raise RowFault("missing_response", f"{where} {last}, not with the assistant's")
    return Found(GivenResponse(turns[-1]["content"]), turns[:-1], {}, is_whole)


def _from_object(value: dict[str, Any], where: str, score_key: str | None) -> Found:
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
    notes, noted = _notes(value, score_key)
    response = GivenResponse(found.response.response, **notes)
    rest = {key: item for key, item in value.items() if key not in used | noted}
    return Found(response, found.before, rest, found.is_whole or is_message)


def _notes(value: Mapping[str, Any], score_key: str | None) -> tuple[dict[str, Any], set[str]]:
    names: tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...] = (
        ("score", SCORE_NAMES if score_key is None else (score_key,), to_score),
        ("is_correct", ("is_correct", "correct", "label"), to_verdict),
        ("finish_reason", ("finish_reason",), to_name),
        ("num_tokens", ("num_tokens",), to_count),
    )
    notes: dict[str, Any] = {}
    used = set()
    for said, keys, convert in names:
        for key in keys:
            if said not in notes and (number := convert(value.get(key))) is not None:
                notes[said] = number
                used.add(key)
    return notes, used
