"""A pool opened: its parts as tables, what is still to do, and commits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bon.errors import PoolCorruptError, first_line
from bon.pool.files import read_table, write_table
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest, read_manifest, write_manifest
from bon.records import (
    CANDIDATES_SCHEMA,
    DROPS_SCHEMA,
    PROMPTS_SCHEMA,
    SCORES_SCHEMA,
    Drop,
    Prompt,
)

__all__ = ["CANDIDATES", "PROMPTS", "Pool", "as_prompts", "scores_kind"]

PROMPTS = "prompts"
CANDIDATES = "candidates"
_COVERS = b"bon.covers"


def scores_kind(name: str) -> str:
    """Return the kind of one scorer's parts."""
    return f"scores/{name}"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool on disk; holds no rows itself.

    A part of `prompts` covers so many input rows; a part of `candidates` or scores covers so many
    prompts. The number is in the file's footer, so a last part that grew with its input is seen
    to be incomplete.
    """

    layout: PoolLayout
    manifest: Manifest

    @classmethod
    def open(cls, root: Path) -> Pool:
        """Open an existing pool.

        Raises:
            PoolNotFoundError, PoolCorruptError: there is none, or not a readable one.
        """
        layout = PoolLayout(root)
        return cls(layout, read_manifest(layout.manifest))

    def save(self, manifest: Manifest) -> Pool:
        """Write a changed manifest and return the pool with it."""
        write_manifest(manifest, self.layout.manifest, self.layout.staging)
        return Pool(self.layout, manifest)

    def read(self, kind: str, part: int, columns: list[str] | None = None) -> pa.Table:
        """Read one part, its checksums verified, in the pool's order."""
        return read_table(self.layout.part(kind, part), _schema(kind), columns)

    def commit(
        self, kind: str, part: int, table: pa.Table, drops: Sequence[Drop], covers: int
    ) -> None:
        """Make one part durable: first what was dropped, then the part itself."""
        staging = self.layout.staging
        path = self.layout.drops(kind, part)
        if drops:
            write_table(
                pa.Table.from_pylist([asdict(d) for d in drops], DROPS_SCHEMA), path, staging
            )
        elif path.exists():
            path.unlink()
        metadata = {_COVERS.decode(): str(covers)}
        write_table(table.cast(_schema(kind)), self.layout.part(kind, part), staging, metadata)

    def covers(self, kind: str, part: int) -> int:
        """Return how many input rows (prompts) or prompts (other kinds) a part accounts for."""
        path = self.layout.part(kind, part)
        text = (_footer(path).metadata or {}).get(_COVERS, b"")
        if not text.isdigit():
            raise _bad_footer(path, f"{_COVERS.decode()} is {text!r}")
        return int(text)

    def num_prompts(self, part: int) -> int:
        """Return how many prompts a part holds."""
        return self.num_rows(PROMPTS, part)

    def num_rows(self, kind: str, part: int) -> int:
        """Return how many rows a part holds, from its footer."""
        return int(_footer(self.layout.part(kind, part)).num_rows)

    def num_bytes(self, kind: str, part: int) -> int:
        """Return how large a part is once it is read, all columns, from its footer."""
        footer = _footer(self.layout.part(kind, part))
        return sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))

    def pending(self, kind: str, limit: int | None = None) -> list[int]:
        """List the parts of `candidates` or of a scorer that are missing or grew since."""
        done = set(self.layout.numbers(kind))
        return [
            part
            for part in self.parts(limit)
            if part not in done or self.covers(kind, part) < self.num_prompts(part)
        ]

    def parts(self, limit: int | None = None) -> list[int]:
        """List the parts that the first `limit` input rows lie in; without a limit, all."""
        size = self.manifest.part_size
        return [n for n in self.layout.numbers(PROMPTS) if limit is None or n * size < limit]

    def prompts(self, part: int, limit: int | None = None) -> list[Prompt]:
        """Read a part's prompts as records, those of the first `limit` input rows."""
        prompts = as_prompts(self.read(PROMPTS, part))
        return [prompt for prompt in prompts if limit is None or prompt.row < limit]

    def read_drops(self, kind: str) -> Iterator[Drop]:
        """Yield what was dropped while the parts of a kind were made."""
        for part in self.layout.numbers(kind):
            yield from self.drops(kind, part)

    def drops(self, kind: str, part: int) -> list[Drop]:
        """Return what was dropped while one part that exists was made.

        Drops are renamed into place before their part. So a run that was killed while it extended
        a part of `prompts` leaves drops of rows which the old part does not cover yet.
        """
        path = self.layout.drops(kind, part)
        if not path.exists():
            return []
        try:
            drops = [Drop(**row) for row in read_table(path, DROPS_SCHEMA).to_pylist()]
        except PoolCorruptError as error:
            error.next_step = (
                f"delete this file and {self.layout.part(kind, part)}, and run the same command "
                "again: only this part is redone"
            )
            raise
        if kind != PROMPTS:
            return drops
        end = part * self.manifest.part_size + self.covers(kind, part)
        return [drop for drop in drops if drop.row < end]


def as_prompts(table: pa.Table) -> list[Prompt]:
    """Return rows of `PROMPTS_SCHEMA` as records."""
    return [
        Prompt(r["prompt_id"], tuple(r["prompt"]), json.loads(r["extra"]), r["row"], r["where"])
        for r in table.to_pylist()
    ]


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _bad_footer(path, first_line(error)) from error


def _bad_footer(path: Path, why: str) -> PoolCorruptError:
    return PoolCorruptError(
        f"cannot read the footer of {path.name}",
        where=str(path),
        why=why,
        next_step="delete this file and run the same command again: only this part is redone",
    )


def _schema(kind: str) -> pa.Schema:
    return {PROMPTS: PROMPTS_SCHEMA, CANDIDATES: CANDIDATES_SCHEMA}.get(kind, SCORES_SCHEMA)
