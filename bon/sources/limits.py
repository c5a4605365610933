"""What an input may be at most, so that none can exhaust the memory: a row, and an archive."""

from __future__ import annotations

import io
import re
from typing import Any

from bon.errors import InputError
from bon.sources.locate import InputFile
from bon.sources.rows import RowFault

__all__ = [
    "MAX_RATIO",
    "MAX_ROW_BYTES",
    "MAX_UNPACKED_BYTES",
    "Unpacked",
    "has_too_many_values",
    "row_too_large",
]

MAX_ROW_BYTES = 1 << 26
"""Largest row: of lines in bytes, of text that is read as a stream in characters (64 Mi)."""
_MAX_VALUES = 1 << 21
"""Most values of a row, its lists, objects and keys counted twice: the least of them takes ten to
fifty times what it takes on disk."""
_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([,:\[{])', re.DOTALL)
"""A string (its end may be missing), or what begins or separates values."""
_SMALL_CHARS = 1 << 22
"""A row of so much text may have as many as it likes."""
MAX_UNPACKED_BYTES = 1 << 30
"""An archive may always unpack to so much, ..."""
MAX_RATIO = 200
"""... and beyond it to so many times its own size: real text is below 50."""


def row_too_large() -> RowFault:
    """Return the fault of a row that is not read to its end."""
    size = f"{MAX_ROW_BYTES >> 20} MiB, or millions of values"
    return RowFault("row_too_large", f"the row has more than {size}")


def has_too_many_values(text: str, start: int = 0) -> bool:
    """Tell JSON that would take far more memory than its text."""
    if len(text) - start <= _SMALL_CHARS:
        return False
    if sum(text.count(mark, start) for mark in ",:[{") <= _MAX_VALUES:
        return False
    num_marks = 0
    for found in _MARK.finditer(text, start):  # prose has commas too
        num_marks += found[1] is not None
        if num_marks > _MAX_VALUES:
            return True
    return False


class Unpacked(io.RawIOBase):
    """The unpacked bytes of an archive, as long as they are no bomb.

    Raises:
        InputError: on reading, more came out than `MAX_UNPACKED_BYTES` and `MAX_RATIO` allow.
    """

    def __init__(self, stream: Any, file: InputFile) -> None:
        self._stream, self._file = stream, file
        self._num_packed = file.path.stat().st_size
        self._num_unpacked = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or less, and return how much."""
        count = int(self._stream.readinto(buffer))
        self._num_unpacked += count
        most = max(MAX_UNPACKED_BYTES, MAX_RATIO * self._num_packed)
        if self._num_unpacked > most:
            raise self._bomb()
        return count

    def _bomb(self) -> InputError:
        name = self._file.path.name
        return InputError(
            f"{name} unpacks to more than {MAX_RATIO} times its size",
            where=str(self._file.path),
            why=f"its {self._num_packed:,} bytes have become {self._num_unpacked:,} and more, as "
            "those of a decompression bomb do",
            next_step=f"if it is what you want, unpack it yourself and give the file without "
            f"{self._file.path.suffix}",
        )
