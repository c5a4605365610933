"""Where each file of a pool lies; the only place that spells their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bon.durable import local_stand_in
from bon.places import Place, is_local

__all__ = ["PoolLayout"]

_PART = re.compile(r"part-(\d{5,})\.parquet")


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """Paths inside one pool. `kind` is `prompts`, `candidates` or `scores/NAME`."""

    root: Place

    @property
    def manifest(self) -> Place:
        """`pool.json`."""
        return self.root / "pool.json"

    @property
    def manifest_copy(self) -> Place:
        """A second `pool.json`, for the day on which the first one is damaged."""
        return self.root / ".bon" / "pool.json"

    @property
    def damaged(self) -> Place:
        """Where `--repair` moves files that cannot be used."""
        return self.root / ".bon" / "damaged"

    @property
    def is_pool(self) -> bool:
        """Whether a pool lies here; its `pool.json` may have been lost since."""
        return self.manifest.is_file() or self.manifest_copy.is_file()

    @property
    def staging(self) -> Place:
        """Files that are being written; nothing outside this folder is ever half-written."""
        return self.root / ".bon" / "staging"

    @property
    def lock(self) -> Place:
        """The lock that names the one writer; on an object store, where each run's word lies.

        Another name there: a pool may be copied to a disk, where a name is a file or a folder.
        """
        return self.root / ".bon" / ("lock" if is_local(self.root) else "locks")

    @property
    def log(self) -> Path:
        """What the model's process printed; of a pool on an object store, on this machine."""
        return local_stand_in(self.root / ".bon" / "worker.log")

    @property
    def run_log(self) -> Place:
        """What runs did to the pool, as JSON lines."""
        return self.root / ".bon" / "run.log"

    def part(self, kind: str, number: int) -> Place:
        """Return the path of one part's file."""
        # One join, not three: reading a large pool asks for a hundred thousand paths.
        return self.root / self.name_of_part(kind, number)

    def name_of_part(self, kind: str, number: int) -> str:
        """Return the name of one part's file below the pool's folder."""
        return f"{kind}/part-{number:05d}.parquet"

    def drops(self, kind: str, number: int) -> Place:
        """Return the path of the rows that were dropped while one part was made."""
        return self.root / f"drops/{kind}/part-{number:05d}.parquet"

    def numbers(self, kind: str) -> list[int]:
        """List the parts of a kind that exist, in order; they exist, so they are complete."""
        found = map(_PART.fullmatch, _names_in(self.root / kind))
        return sorted(int(match[1]) for match in found if match)

    def scorer_names(self) -> list[str]:
        """List the scorers that have at least one part."""
        return [name for name in self.scorer_folders() if self._has_parts(f"scores/{name}")]

    def scorer_folders(self) -> list[str]:
        """List the scorers that may have parts, by one look."""
        return sorted(_names_in(self.root / "scores"))

    def has_part(self, kind: str, number: int) -> bool:
        """Tell whether a part exists, without listing all of them."""
        return self.part(kind, number).is_file()

    def _has_parts(self, kind: str) -> bool:
        return self.has_part(kind, 0) or bool(self.numbers(kind))


def _names_in(folder: Place) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
