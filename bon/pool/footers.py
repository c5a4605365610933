"""What the footers of a pool's files say, each read once as long as its file stays the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bon.object_store import Place
from bon.pool.files import read_footer

__all__ = ["Footer", "Footers"]

_ARROW_SCHEMA = b"ARROW:schema"


class Footer(NamedTuple):
    """One file's footer, in short."""

    num_rows: int
    num_bytes: int
    """Of all columns, once they are read."""
    metadata: dict[bytes, bytes]
    """What `bon` wrote into it."""


@dataclass(slots=True)
class Footers:
    """Reads footers; a pool of sixteen million candidates has 24,000 of them."""

    _known: dict[str, tuple[tuple[int, ...], Footer]] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Footers], tuple[()]]:
        """Send none to another process: it reads those of the files that it reads."""
        return Footers, ()

    def read(self, path: Place) -> Footer:
        """Return a file's footer.

        Raises:
            PoolCorruptError: it cannot be read.
        """
        name, stamp = str(path), _stamp(path)
        known = self._known.get(name)
        if known is None or stamp is None or known[0] != stamp:
            known = stamp or (), _read(path)
            self._known[name] = known
        return known[1]


def _stamp(path: Place) -> tuple[int, ...] | None:
    """Tell one state of a file from another; none where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _read(path: Place) -> Footer:
    footer = read_footer(path)
    num_bytes = sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))
    said = {name: text for name, text in (footer.metadata or {}).items() if name != _ARROW_SCHEMA}
    return Footer(int(footer.num_rows), int(num_bytes), said)
