"""An input with responses, as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bon.records import Drop, GivenResponses

__all__ = ["GivenPlan", "GivenSource"]


class GivenSource(Protocol):
    """What the pipeline needs of a reader of responses."""

    def __iter__(self) -> Iterator[GivenResponses | Drop]:
        """Start again from the first row."""
        ...

    @property
    def kind(self) -> str | None:
        """What a row is, responses or pairs, once a good one has been read."""
        ...

    @property
    def is_scattered(self) -> bool:
        """Whether rows so far answer a prompt of rows before, with others between them."""
        ...

    def gather(self, beside: Path) -> None:
        """From the next reading on, make one prompt of all rows that answer it."""
        ...

    def describe(self) -> str:
        """Say how the rows are read, once they have been."""
        ...


@dataclass(frozen=True, slots=True)
class GivenPlan:
    """An input with responses, and how it becomes a pool."""

    name: str
    rows: GivenSource
    fingerprint: dict[str, Any]
    """What decides how rows are read; grouping belongs to it."""
    digest: str | None
    """Hash of the input's bytes, none where it has no files."""
    limit: int | None
    part_size: int | None
