"""Whether a text file is text at all, told by how it begins."""

from __future__ import annotations

import re

from bon.errors import InputError
from bon.sources.locate import InputFile

__all__ = ["refuse_other_content"]

_BINARY = (
    (b"\x1f\x8b", "a gzip archive", "give it a name that ends in .gz"),
    (b"[\x28]\xb5\x2f\xfd", "a zstd archive", "give it a name that ends in .zst"),
    (b"PAR1[\x00-\x08\x0e-\x1f]", "a Parquet file", "give it a name that ends in .parquet"),
    (b"ARROW1\x00", "an Arrow file", "write it as Parquet"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unpack it, or save it as CSV"),
    (b"BZh[1-9](1AY&SY|\x17rE8P)", "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it"),
    (b"SQLite format 3\x00", "an SQLite database", "write its table as CSV or Parquet"),
)
"""How they begin, as patterns: words of a text may begin with the same letters."""
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_LOOKED_AT_BYTES = 1024
_LONE_CR = {
    ".jsonl": re.compile(rb"}[ \t]*\r\s*{"),
    ".ndjson": re.compile(rb"}[ \t]*\r\s*{"),
    ".txt": re.compile(rb"\r\S.*\r\S", re.DOTALL),
}
"""Carriage returns between rows of a format whose rows are lines; a single one may be a text's."""


def refuse_other_content(head: bytes, file: InputFile) -> None:
    """Look at the first bytes of a file that is to be read as UTF-8 text.

    Raises:
        InputError: it is an archive, a binary file, UTF-16 or UTF-32, or lines that end in a lone
            carriage return: every row would be a drop, or all rows one.
    """
    for magic, kind, advice in _BINARY:
        if re.match(magic, head):
            raise _refused(file, f"it is {kind}", advice)
    start = head[:_LOOKED_AT_BYTES]
    if start.startswith(_WIDE) or start.count(0) * 4 > len(start):
        raise _refused(
            file,
            "it begins like UTF-16, UTF-32 or a binary file: with a byte order mark of theirs, or "
            "every fourth byte a NUL",
            "write it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW",
        )
    lone = _LONE_CR.get(file.format)
    if lone is not None and b"\n" not in head and lone.search(head):
        raise _refused(
            file,
            "its lines end in a lone carriage return (CR), so all would be one",
            r"write it with line feeds: tr '\r' '\n' < OLD > NEW",
        )


def _refused(file: InputFile, why: str, advice: str) -> InputError:
    return InputError(
        f"{file.path.name} is not the text that its name says",
        where=str(file.path),
        why=why,
        next_step=advice,
    )
