"""What a part's footer says of itself: which part it is, what it was made of, what was dropped.

A file may be whole and yet not the one that belongs here: part 3 under the name of part 4, a part
of another pool, scores of other candidates. The notes of files that belong together fit.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bon.records import Drop

__all__ = ["NOTE", "PartNote", "content_digest", "drops_digest", "settings_digest"]

NOTE = "bon.part"
"""Key of the note in a file's footer; parts of older versions have none, and are not compared."""

_CONTENT = {
    "prompts": ["prompt_id", "prompt", "extra", "row"],  # a renamed file changes `where` alone
    "candidates": ["prompt_id", "candidate", "response", "token_ids"],  # not logprob's last bits
}
"""What the digest of a part is made of, where other parts are made from it."""
_FORM = 1
"""Version of the form in which a digest takes the values; every digest begins with it."""


@dataclass(frozen=True, slots=True)
class PartNote:
    """One file's note."""

    kind: str
    """`prompts`, `candidates`, `scores/NAME`; with `drops/` before it for what was dropped."""
    part: int
    num_drops: int = 0
    """How many rows were dropped while the part was made."""
    drops: str | None = None
    """Digest of these rows, none where there are none."""
    content: str | None = None
    """Digest of the part's own rows, where others are made of them."""
    made_of: str | None = None
    """`content` of the part that this one was made of: prompts, or candidates."""
    settings: str | None = None
    """Digest of the settings in `pool.json` that decide the rows."""

    def as_metadata(self) -> dict[str, str]:
        """Return what goes into the footer."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return {NOTE: json.dumps(said, sort_keys=True)}

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes] | None) -> PartNote | None:
        """Read it from a footer; none where an older version wrote the file.

        Raises:
            ValueError: there is one that nobody can read.
        """
        text = (metadata or {}).get(NOTE.encode())
        return None if text is None else _parsed(text)


def _parsed(text: bytes) -> PartNote:
    try:
        said = json.loads(text)
        for name in ("kind", "settings"):  # the same in all parts of a kind: kept once
            if name in said:
                said[name] = sys.intern(said[name])
        return PartNote(**said)
    except TypeError as error:
        raise ValueError(f"{NOTE} is {text!r}") from error


def content_digest(kind: str, table: pa.Table) -> str | None:
    """Return a digest of a part's values, however they lie in memory; none for scores.

    It is made in a form of our own, so no version of Arrow changes it.
    """
    columns = _CONTENT.get(kind)
    if columns is None:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for name in columns:
        digest.update(f"{name} {table.num_rows};".encode())
        # only more text than one array holds stays in several chunks
        for chunk in table.select([name]).combine_chunks().column(0).chunks:
            _add_values(digest, chunk)
    return f"{_FORM}:{digest.hexdigest()}"


def _add_values(digest: hashlib.blake2b, array: pa.Array) -> None:
    """Add how many values there are, which of them are null, and the lengths and bytes of others.

    What lies in memory under a null, or outside of a slice, is none of them.
    """
    digest.update(f"{len(array)},{array.null_count};".encode())
    if array.null_count:
        digest.update(np.packbits(_numpy(pc.is_valid(array))).data)
        array = array.drop_null()
    if not len(array):
        return
    if pa.types.is_struct(array.type):
        for field in array.flatten():
            _add_values(digest, field)
    elif pa.types.is_list(array.type):
        _add_values(digest, pc.list_value_length(array))
        _add_values(digest, array.flatten())
    elif pa.types.is_string(array.type):
        _add_values(digest, pc.binary_length(array))
        _, offsets, text = array.buffers()
        ends = np.frombuffer(offsets, np.int32)
        digest.update(text[ends[array.offset] : ends[array.offset + len(array)]] if text else b"")
    else:
        values = _numpy(array)
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)


def _numpy(array: pa.Array) -> np.ndarray[Any, Any]:
    return np.asarray(array.to_numpy(zero_copy_only=False))


def drops_digest(drops: Sequence[Drop]) -> str | None:
    """Return a digest of rows that were dropped; none where there are none."""
    if not drops:
        return None
    text = json.dumps([asdict(drop) for drop in drops])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def settings_digest(settings: Mapping[Any, Any] | None) -> str | None:
    """Return a digest of settings as `pool.json` holds them; none where it holds none."""
    if settings is None:
        return None
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
