"""Rows that follow each other and answer the same prompt, joined into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bon.records import Drop, GivenResponse, Message
from bon.sources.rows import Fault

__all__ = ["ReadRow", "join_rows"]


@dataclass(frozen=True, slots=True)
class ReadRow:
    """One input row, or several joined, before it has its final id and number."""

    own_id: str | None
    """The row's own id, none where ids are made from content."""
    messages: tuple[Message, ...]
    responses: tuple[GivenResponse, ...]
    extra: dict[str, Any]
    where: str
    can_join: bool = False
    """Whether the next row may belong to the same prompt."""
    faults: tuple[Fault, ...] = ()
    """Why single responses are missing."""
    num_rows: int = 1


def join_rows(rows: Iterable[ReadRow | Drop]) -> Iterator[ReadRow | Drop]:
    """Join consecutive rows of one id (without ids: of the same messages) into one row each.

    A drop between two rows does not part them, and is yielded first. A row that repeats the id
    with another prompt is a drop `prompt_differs`.
    """
    group: list[ReadRow] = []
    for row in rows:
        if isinstance(row, Drop) or not row.can_join:
            yield row
        elif not group or not _is_same(group[0], row):
            if group:
                yield _joined(group)
            group = [row]
        elif row.messages != group[0].messages:
            detail = f"the rows before it with this id ask something else ({group[0].where})"
            yield Drop("prompt_differs", detail, where=row.where, id=row.own_id or "")
        else:
            group.append(row)
    if group:
        yield _joined(group)


def _is_same(one: ReadRow, other: ReadRow) -> bool:
    if one.own_id is None and other.own_id is None:
        return one.messages == other.messages
    return one.own_id == other.own_id


def _joined(group: Sequence[ReadRow]) -> ReadRow:
    """Join rows; a column that differs between them becomes a list, one value a response."""
    if len(group) == 1:
        return group[0]
    names = dict.fromkeys(name for row in group for name in row.extra)
    extra = {name: _value(group, name) for name in names}
    return replace(
        group[0],
        responses=tuple(response for row in group for response in row.responses),
        extra=extra,
        faults=tuple(fault for row in group for fault in row.faults),
        num_rows=len(group),
    )


def _value(group: Sequence[ReadRow], name: str) -> Any:
    first = group[0].extra.get(name)
    if all(name in row.extra and _is_equal(first, row.extra[name]) for row in group):
        return first
    return [row.extra.get(name) for row in group for _ in row.responses]


def _is_equal(one: Any, other: Any) -> bool:
    return one is other or (one == other and repr(one) == repr(other))  # True == 1 == 1.0
