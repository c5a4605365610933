"""What is asked of a server, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from bon.records import Drop

__all__ = ["UNEXPECTED", "Check", "ServerReply", "ServerRequest"]

Check = Callable[[Any], object]
"""Raises one of `UNEXPECTED` where a body is not what was promised."""
UNEXPECTED = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One request; `body` is sent as JSON by POST, none: it is a GET."""

    key: Hashable
    path: str
    body: Any = None
    check: Check | None = None
    """Of this one's body; none: the stream's."""


@dataclass(frozen=True, slots=True)
class ServerReply:
    """The parsed JSON of an answer, or why there is none."""

    key: Hashable
    body: Any = None
    drop: Drop | None = None
