"""The ids of prompts: read from a column, or made from the prompt's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from bon.errors import UnknownChoiceError, did_you_mean
from bon.records import Message
from bon.sources.rows import RowFault

__all__ = ["ID_COLUMNS", "Ids", "choose_id_column", "content_id", "read_id"]

ID_COLUMNS = ("prompt_id", "id", "question_id", "custom_id", "uid", "uuid", "idx")


def choose_id_column(
    columns: Collection[str], wanted: str | None, taken: Collection[str]
) -> str | None:
    """Return the id column: the wanted one, or the first of `ID_COLUMNS` that is not `taken`.

    Raises:
        UnknownChoiceError: the input has no such column as the one wanted.
    """
    if wanted is None:
        return next((name for name in ID_COLUMNS if name in columns and name not in taken), None)
    if wanted not in columns:
        raise UnknownChoiceError(
            f"the input has no column {wanted!r}",
            where="--id-column",
            next_step=did_you_mean(wanted, columns),
        )
    return wanted


def read_id(values: Mapping[str, Any], column: str) -> str:
    """Return a row's id: a string as it is, an integer as its digits.

    Raises:
        RowFault: `missing_id` or `wrong_type`.
    """
    value = values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault("missing_id", f"the id column {column!r} is missing, null or empty")
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = type(value).__name__
        raise RowFault("wrong_type", f"the id in {column!r} must be a string or an integer: {kind}")
    return str(value)


def content_id(messages: tuple[Message, ...]) -> str:
    """Return an id made from the content alone, so it stays when rows are re-ordered.

    It is the first 16 hex digits of the SHA-256 of the messages as canonical JSON.
    """
    canonical = json.dumps(
        messages, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    ).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]


class Ids:
    """The ids given so far, as 64-bit hashes (among 10⁷ ids, chance of a clash 3·10⁻⁶)."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._repeats: dict[int, int] = {}

    def claim(self, prompt_id: str) -> None:
        """Take an id from the input; raises the fault `duplicate_id` where it is taken."""
        digest = hashlib.blake2b(prompt_id.encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big")
        if key in self._seen:
            raise RowFault("duplicate_id", f"an earlier row has the id {prompt_id!r} too")
        self._seen.add(key)

    def make(self, messages: tuple[Message, ...]) -> str:
        """Return the messages' `content_id`; the second row with the same messages gets `-2`, …."""
        digest = content_id(messages)
        key = int(digest, 16)
        if key not in self._seen:
            self._seen.add(key)
            return digest
        self._repeats[key] = self._repeats.get(key, 1) + 1
        return f"{digest}-{self._repeats[key]}"
