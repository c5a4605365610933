"""A pool opened: its parts as tables, what is still to do, and commits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from bon.errors import PoolCorruptError
from bon.places import Place
from bon.pool.files import REDO, read_table, write_table
from bon.pool.footers import COVERS, Footer, Footers
from bon.pool.layout import PoolLayout
from bon.pool.manifest import GIVEN_ENGINE, Manifest, read_manifest, write_manifest
from bon.pool.notes import PartNote, content_digest, drops_digest, settings_digest
from bon.records import (
    CANDIDATES_SCHEMA,
    DROPS_SCHEMA,
    PROMPTS_SCHEMA,
    SCORES_SCHEMA,
    Drop,
    Prompt,
)

__all__ = [
    "CANDIDATES",
    "PROMPTS",
    "Pool",
    "as_prompts",
    "made_of_other",
    "misplaced",
    "scores_kind",
]

PROMPTS = "prompts"
CANDIDATES = "candidates"
_GIVEN = {"spec": GIVEN_ENGINE}
"""Settings of what an input brought, scores and verdicts."""


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
    _footers: Footers = field(default_factory=Footers, compare=False, repr=False)
    _digests: dict[str, str | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, root: Place) -> Pool:
        """Open an existing pool.

        Raises:
            PoolNotFoundError, PoolCorruptError: there is none, or not a readable one.
        """
        layout = PoolLayout(root)
        return cls(layout, read_manifest(layout.manifest))

    def opened_again(self) -> Pool:
        """Return the pool with what `pool.json` says now; footers that are the same stay known."""
        return Pool(self.layout, read_manifest(self.layout.manifest), self._footers)

    def save(self, manifest: Manifest) -> Pool:
        """Write a changed manifest and return the pool with it."""
        for path in (self.layout.manifest_copy, self.layout.manifest):
            write_manifest(manifest, path, self.layout.staging)
        return Pool(self.layout, manifest, self._footers)

    def read(self, kind: str, part: int, columns: list[str] | None = None) -> pa.Table:
        """Read one part, its checksums and its place verified, in the pool's order.

        Raises:
            PoolCorruptError: it is missing or damaged, or it is not the part that belongs here.
        """
        self.check_place(kind, part)
        return read_table(self.layout.part(kind, part), _schema(kind), columns)

    def commit(
        self,
        kind: str,
        part: int,
        table: pa.Table,
        drops: Sequence[Drop],
        covers: int,
        made_of: str | None = None,
    ) -> None:
        """Make one part durable: first what was dropped, then the part itself.

        `made_of` is the `content` that it was made of, by default that of what is there: whoever
        computes takes it before reading.
        """
        staging = self.layout.staging
        path = self.layout.drops(kind, part)
        if drops:
            dropped = pa.Table.from_pylist([asdict(d) for d in drops], DROPS_SCHEMA)
            write_table(dropped, path, staging, PartNote(f"drops/{kind}", part).as_metadata())
        elif path.is_file():
            path.unlink()
        table = table.cast(_schema(kind))
        note = PartNote(
            kind,
            part,
            len(drops),
            drops_digest(drops),
            content_digest(kind, table),
            made_of or self.content(_source(kind), part),
            self.settings(kind),
        )
        metadata = {COVERS.decode(): str(covers), **note.as_metadata()}
        write_table(table, self.layout.part(kind, part), staging, metadata)

    def covers(self, kind: str, part: int) -> int:
        """Return how many input rows (prompts) or prompts (other kinds) a part accounts for."""
        return self._covers(self._footer(kind, part), kind, part)

    def note(self, kind: str, part: int) -> PartNote | None:
        """Return what a part says of itself; none where an older version wrote it.

        Raises:
            PoolCorruptError: its footer is damaged, or it says that it is another part.
        """
        return self._footer(kind, part).note

    def check_place(self, kind: str, part: int) -> None:
        """Refuse a file that is whole, but not the one that belongs here.

        What prompts or candidates were made of is compared only where they account for all that is
        there: an input that grew changes the last part of prompts before that of candidates.

        Raises:
            PoolCorruptError: it is another part, of another pool, or made of other rows.
        """
        why = self._why_other(kind, part)
        if why is not None:
            raise misplaced(self.layout.part(kind, part), why)

    def _why_other(self, kind: str, part: int) -> str | None:
        """Say why a part is not the one that belongs here; none: it is."""
        note = self.note(kind, part)
        if note is None:
            return None
        if not self.allows(kind, note.settings):
            return "it was made with other settings than pool.json says"
        return made_of_other(_source(kind)) if self.is_stale(kind, part) else None

    def allows(self, kind: str, settings: str | None) -> bool:
        """Tell whether `settings`, by their digest, are those that `pool.json` says of a kind.

        Parts of older versions, and what an input brought, have none.
        """
        wanted, name = self.settings(kind), kind.removeprefix("scores/")
        same = (None, wanted, *self.manifest.same.get(name, ()))
        return wanted is None or settings in same

    def is_stale(self, kind: str, part: int) -> bool:
        """Tell whether a part was made of other rows than those that are there now.

        Raises:
            PoolCorruptError: a footer is damaged, or the rows that are there do not belong here.
        """
        footer, source = self._footer(kind, part), _source(kind)
        note = footer.note
        if note is None or note.made_of is None or not self.layout.part(source, part).is_file():
            return False
        before = self._footer(source, part)
        said = before.note
        rows = before.num_rows if source == PROMPTS else self._covers(before, source, part)
        covers = self._covers(footer, kind, part)
        # an input grew; or what it brought is there before the prompts, which come last
        is_before = rows > covers or (rows < covers and self.manifest.is_given)
        if said is None or is_before or said.content == note.made_of:
            return False
        self.check_place(source, part)  # or it is these rows that do not belong here
        return True

    def prompts_digest(self) -> str | None:
        """Return a digest of all prompts that are there; none where a part does not say its own.

        `pool.json` holds it once an input has been read to its end: a part of another pool that
        differs in its texts alone is seen by it.

        Raises:
            PoolCorruptError: a footer is damaged.
        """
        parts = self.layout.numbers(PROMPTS)
        contents = [self.content(PROMPTS, part) for part in parts]
        return (
            None if None in contents else settings_digest(dict(zip(parts, contents, strict=True)))
        )

    def content(self, kind: str, part: int) -> str | None:
        """Return the digest of a part's rows that it says of itself; none where it says none."""
        if not kind or not self.layout.part(kind, part).is_file():
            return None
        note = self.note(kind, part)
        return None if note is None else note.content

    def settings(self, kind: str) -> str | None:
        """Return the digest of what `pool.json` says of a kind; none where it decides no rows."""
        if kind == PROMPTS:
            return None
        if kind not in self._digests:
            scorer = self.manifest.scorers.get(kind.removeprefix("scores/"))
            said = self.manifest.generation if kind == CANDIDATES else scorer
            # scores of the input itself are written before pool.json names them
            self._digests[kind] = None if said == _GIVEN else settings_digest(said)
        return self._digests[kind]

    def _footer(self, kind: str, part: int) -> Footer:
        footer = self._footers.known(f"{self.layout.root}/{self.layout.name_of_part(kind, part)}")
        if footer is None:
            footer = self._footers.read(self.layout.part(kind, part))
        self._note(footer, kind, part)
        return footer

    def _note(self, footer: Footer, kind: str, part: int) -> PartNote | None:
        if footer.fault is not None:
            raise _bad_footer(self.layout.part(kind, part), footer.fault)
        note = footer.note
        if note is not None and (note.kind, note.part) != (kind, part):
            why = f"it says that it is part {note.part} of {note.kind}"
            raise misplaced(self.layout.part(kind, part), why)
        return note

    def _covers(self, footer: Footer, kind: str, part: int) -> int:
        if not footer.covers.isdigit():
            why = f"{COVERS.decode()} is {footer.covers!r}"
            raise _bad_footer(self.layout.part(kind, part), why)
        return int(footer.covers)

    def num_prompts(self, part: int) -> int:
        """Return how many prompts a part holds."""
        return self.num_rows(PROMPTS, part)

    def num_rows(self, kind: str, part: int) -> int:
        """Return how many rows a part holds, from its footer."""
        return self._footer(kind, part).num_rows

    def num_bytes(self, kind: str, part: int) -> int:
        """Return how large a part is once it is read, all columns, from its footer."""
        return self._footer(kind, part).num_bytes

    def pending(self, kind: str, limit: int | None = None) -> list[int]:
        """List the parts of `candidates` or of a scorer that are missing or grew since.

        So are scores of candidates that were sampled again since, and came out otherwise.
        """
        done = set(self.layout.numbers(kind))
        return [part for part in self.parts(limit) if part not in done or self._is_old(kind, part)]

    def is_done(self, kind: str, part: int) -> bool:
        """Tell whether whoever has one part of `candidates` or of a scorer to make may leave it.

        One with other settings, or of other rows, is none that was there when it was found to be
        `pending`: a worker that was taken for dead has written it since.
        """
        if not self.layout.part(kind, part).is_file() or self._is_old(kind, part):
            return False
        return self._why_other(kind, part) is None

    def _is_old(self, kind: str, part: int) -> bool:
        if self.covers(kind, part) < self.num_prompts(part):
            return True
        return kind != CANDIDATES and self.is_stale(kind, part)

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

        Raises:
            PoolCorruptError: the file is missing or damaged, or not the one that belongs here.
        """
        note, path = self.note(kind, part), self.layout.drops(kind, part)
        stored = self.stored_drops(kind, part)
        if note is None:  # an older version's
            end = part * self.manifest.part_size + self.covers(kind, part)
            return [drop for drop in stored if kind != PROMPTS or drop.row < end]
        drops = stored[: note.num_drops]
        if len(drops) < note.num_drops or drops_digest(drops) != note.drops:
            why = "the part says that it has {} dropped rows, here are {}"
            raise misplaced(path, why.format(note.num_drops, len(stored)))
        return drops

    def stored_drops(self, kind: str, part: int) -> list[Drop]:
        """Return all that a file of dropped rows holds, which may be more than its part's.

        Drops are renamed into place before their part. So a run that was killed while it extended
        a part leaves drops of rows, behind the old ones, which the old part does not cover yet.
        """
        path = self.layout.drops(kind, part)
        if not path.is_file():
            return []
        self._footer(f"drops/{kind}", part)
        return [Drop(**row) for row in read_table(path, DROPS_SCHEMA).to_pylist()]


def as_prompts(table: pa.Table) -> list[Prompt]:
    """Return rows of `PROMPTS_SCHEMA` as records."""
    return [
        Prompt(r["prompt_id"], tuple(r["prompt"]), json.loads(r["extra"]), r["row"], r["where"])
        for r in table.to_pylist()
    ]


def made_of_other(source: str) -> str:
    """Say why a part does not belong to those of another kind."""
    return f"it was made of other {source} than those that are there"


def misplaced(path: Place, why: str) -> PoolCorruptError:
    """Return the error of a file that is whole, but does not belong where it lies."""
    what = f"{path.name} is not the one that belongs here"
    return PoolCorruptError(what, where=str(path), why=why, next_step=REDO)


def _bad_footer(path: Place, why: str) -> PoolCorruptError:
    what = f"cannot read the footer of {path.name}"
    return PoolCorruptError(what, where=str(path), why=why, next_step=REDO)


def _source(kind: str) -> str:
    """Return the kind that another is made of, or nothing."""
    return {PROMPTS: "", CANDIDATES: PROMPTS}.get(kind, CANDIDATES)


def _schema(kind: str) -> pa.Schema:
    return {PROMPTS: PROMPTS_SCHEMA, CANDIDATES: CANDIDATES_SCHEMA}.get(kind, SCORES_SCHEMA)
