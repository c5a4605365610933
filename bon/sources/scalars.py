"""From one stored value to the score, verdict, name or count that it says."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["is_empty", "to_count", "to_name", "to_score", "to_verdict"]

_LARGEST_FLOAT32 = 3.4028234e38
_LARGEST_INT32 = (1 << 31) - 1


def is_empty(value: Any) -> bool:
    """Tell null, and the empty text: a table has no other way to say null."""
    return value is None or value == ""


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
