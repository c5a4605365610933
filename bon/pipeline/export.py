"""A set on its way to disk: split, written in its form, its books closed before it appears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from bon.config import ExportSettings
from bon.exports.card import CardFacts
from bon.exports.formats import Format, Kind
from bon.exports.writer import DatasetWriter
from bon.pipeline.accounting import Accounting
from bon.pipeline.splits import in_test, without_last
from bon.places import Place

__all__ = ["NativeSet", "Written", "staged_set", "write_set"]


@dataclass
class Written:
    """What was written."""

    files: list[Place] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows by split, as the trainer counts them."""
    merged: dict[str, int] = field(default_factory=dict)
    """Native rows by split that became part of another, where the form has one of a kind."""


@dataclass(frozen=True, slots=True)
class NativeSet:
    """The rows of a set, before they have a trainer's form."""

    tables: Iterable[pa.Table]
    schema: pa.Schema
    kind: Kind
    books: Accounting
    """Of these rows; closed once the last one is written."""
    card: Callable[[], CardFacts] | None = None
    """What the dataset card says, asked for once the books are closed."""


@contextmanager
def staged_set(
    rows: NativeSet, output: Place, format: Format, settings: ExportSettings, *, seed: int
) -> Iterator[Written]:
    """Write native rows beside `output`; they appear there when the block ends without an error.

    Nothing appears either where the books are wrong.

    Raises:
        OutputError: it cannot be written.
        AccountingError: rows in and rows out plus drops disagree.
    """
    share = settings.train_test_split
    written = Written()
    with DatasetWriter(
        output,
        schema=rows.schema,
        kind=rows.kind,
        format=format,
        splits=settings.splits,
        shard_bytes=settings.shard_mb * 1_000_000,
    ) as writer:
        for table in rows.tables:
            if share is None:
                writer.write(table)
                continue
            is_test = _is_test(table, rows.kind, share, seed)
            writer.write(table.filter(pa.array(~is_test)), "train")
            writer.write(table.filter(pa.array(is_test)), "test")
        rows.books.close()
        writer.finish()
        written.rows, written.merged = writer.rows, writer.merged
        if rows.card is not None:
            writer.describe(rows.card())
        yield written
    written.files = list(writer.files)


def write_set(
    rows: NativeSet, output: Place, format: Format, settings: ExportSettings, *, seed: int
) -> Written:
    """Write native rows to `output`, as `staged_set` does; return what was written.

    Raises:
        OutputError: it cannot be written.
        AccountingError: rows in and rows out plus drops disagree.
    """
    with staged_set(rows, output, format, settings, seed=seed) as written:
        pass
    return written


def _is_test(table: pa.Table, kind: Kind, share: float, seed: int) -> np.ndarray:
    prompts = without_last(table["messages"]) if kind == "responses" else table["prompt"]
    return in_test(prompts, share, seed)
