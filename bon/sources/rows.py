"""One row of an input, or the reason why it cannot be used.

The reasons, whoever finds them:

    the text    invalid_utf8 invalid_unicode nul_character row_too_large malformed_json
                duplicate_key not_an_object malformed_csv wrong_field_count unsupported_value
    the id      missing_id duplicate_id
    the prompt  missing_prompt empty_prompt no_user_turn unknown_role unsupported_content
    responses   missing_response no_responses wrong_length not_a_pair no_preference
                prompt_differs diverges_before_last_turn
    any         wrong_type
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bon.errors import InputError, listed

__all__ = ["Bytes", "Fault", "RowFault", "SourceRow", "read_row", "refuse_repeated_columns"]

_MAX_DETAIL_CHARS = 400


class Bytes(str):
    """Bytes of an input as base64: they may be kept, but are no prompt and no response."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row becomes a drop."""

    reason: str
    """A short stable name that is counted, such as `malformed_json`."""
    detail: str
    """One sentence for a person."""


class RowFault(Exception):
    """Raised where a row turns out to be unusable; `bon.sources` turns it into a drop."""

    def __init__(self, reason: str, detail: str) -> None:
        if len(detail) > _MAX_DETAIL_CHARS:  # it may quote the row
            detail = detail[:_MAX_DETAIL_CHARS] + "…"
        super().__init__(reason, detail)
        self.fault = Fault(reason, detail)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input row: its columns as JSON values, or its fault."""

    where: str
    """`file:line` or `file:row n`, for messages."""
    values: dict[str, Any] | None
    fault: Fault | None = None


def read_row(where: str, parse: Callable[..., dict[str, Any]], *args: Any) -> SourceRow:
    """Make the row that `parse(*args)` returns, or the faulty row that it raises."""
    try:
        return SourceRow(where, parse(*args))
    except RowFault as error:
        return SourceRow(where, None, error.fault)


def refuse_repeated_columns(columns: Iterable[str], where: str) -> None:
    """Raise `InputError` where two columns have one name: one would hide the other."""
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise InputError(
            f"two columns have one name: {listed(map(repr, repeated))}",
            where=where,
            why="one of them would be lost without a word",
            next_step="rename or remove one of them",
        )
