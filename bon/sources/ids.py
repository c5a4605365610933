"""The ids of prompts: read from a column, or made from the prompt's content."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

from bon.errors import UnknownChoiceError, did_you_mean
from bon.records import GIVEN_ID, Message
from bon.sources.digests import NUM_BYTES, Digests
from bon.sources.rows import RowFault
from bon.sources.scalars import is_empty

__all__ = [
    "ID_COLUMNS",
    "IdColumn",
    "Ids",
    "choose_id_column",
    "content_id",
    "free_given_id",
    "id_columns_gone",
    "read_id",
]

_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
ID_COLUMNS = ("prompt_id", "id", "question_id", "custom_id", "uid", "uuid", "idx")


@dataclass(frozen=True, slots=True)
class IdColumn:
    """Where rows have their ids."""

    name: str
    is_named: bool
    """Whether a person named it; else a row that has no id there gets one from its content."""


def choose_id_column(
    values: Mapping[str, Any], wanted: str | None, taken: Collection[str]
) -> IdColumn | None:
    """Return the id column: the wanted one, or the first of `ID_COLUMNS` that is not `taken`.

    `values` are the first good row's; a column in which it has no id is no id column.

    Raises:
        UnknownChoiceError: the input has no such column as the one wanted.
    """
    if wanted is None:
        known = (name for name in ID_COLUMNS if name not in taken)
        name = next((name for name in known if _is_id(values.get(name))), None)
        return None if name is None else IdColumn(name, is_named=False)
    if wanted not in values:
        raise UnknownChoiceError(
            f"the input has no column {wanted!r}",
            where="--id-column",
            next_step=did_you_mean(wanted, values),
        )
    return IdColumn(wanted, is_named=True)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int) and not isinstance(value, bool)


def read_id(values: Mapping[str, Any], id_column: IdColumn) -> str | None:
    """Return a row's id: a string as it is, an integer as its digits.

    Where it has none in a column that nobody named, it is none: its content makes the id, and what
    the column holds instead stays there.

    Raises:
        RowFault: `missing_id` or `wrong_type`, in a column that was named.
    """
    column = id_column.name
    value = values.get(column)
    if _is_id(value):
        return str(value)
    if not id_column.is_named:
        return None
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault("missing_id", f"the id column {column!r} is missing, null or empty")
    kind = type(value).__name__
    raise RowFault("wrong_type", f"the id in {column!r} must be a string or an integer: {kind}")


def id_columns_gone(
    values: Mapping[str, Any], id_column: IdColumn | None, own_id: str | None
) -> set[str]:
    """Return the columns that say nothing besides a row's id."""
    if id_column is None or (own_id is None and not is_empty(values.get(id_column.name))):
        return set()
    return {id_column.name}


def free_given_id(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with another name for one that is called like the key `GIVEN_ID`."""
    if GIVEN_ID not in extra:
        return extra
    free = f"input_{GIVEN_ID}"
    while free in extra:
        free = f"input_{free}"
    return {free if name == GIVEN_ID else name: value for name, value in extra.items()}


def content_id(messages: tuple[Message, ...]) -> str:
    """Return an id made from the content alone, so it stays when rows are re-ordered.

    It is the first 16 hex digits of the SHA-256 of the messages as canonical JSON.
    """
    return sha256(_CANONICAL.encode(messages).encode()).hexdigest()[:16]


class Ids:
    """The ids given so far, as 128-bit hashes (among 10⁹ ids, chance of a clash 10⁻²¹)."""

    def __init__(self) -> None:
        self._seen = Digests()
        self._repeats: dict[str, int] = {}
        self.num_repeats = 0
        """How often an id came that was taken."""

    def claim(self, prompt_id: str) -> None:
        """Take an id from the input; raises the fault `duplicate_id` where it is taken."""
        if not self._take(prompt_id):
            raise RowFault("duplicate_id", f"an earlier row has the id {prompt_id!r} too")

    def make(self, messages: tuple[Message, ...]) -> str:
        """Return the messages' `content_id`; the second row with the same messages gets `-2`, …."""
        made = digest = content_id(messages)
        number = 1
        while not self._take(made):  # an id of the input may look like one that was made
            number = max(number, self._repeats.get(digest, 1)) + 1
            self._repeats[digest] = number
            made = f"{digest}-{number}"
        return made

    def _take(self, prompt_id: str) -> bool:
        is_new = self._seen.add(blake2b(prompt_id.encode(), digest_size=NUM_BYTES).digest())
        self.num_repeats += not is_new
        return is_new
