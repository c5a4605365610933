"""Open a text file, plain or compressed, as a stream that never holds all of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

import pyarrow as pa

from bon.sources.locate import InputFile
from bon.sources.rows import RowFault

__all__ = ["decode_line", "numbered_lines", "open_bytes", "open_text", "refuse_broken_utf8"]

_UTF8_BOM = b"\xef\xbb\xbf"
_BUFFER_BYTES = 1 << 18


@contextmanager
def open_bytes(file: InputFile) -> Iterator[BinaryIO]:
    """Give the file's unpacked bytes; a broken archive raises `OSError` where it breaks."""
    with (
        pa.input_stream(str(file.path), compression=file.compression) as stream,
        io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES) as buffered,
    ):
        yield buffered


@contextmanager
def open_text(file: InputFile) -> Iterator[TextIO]:
    """Give the file's text without a byte order mark, line ends untouched.

    Bytes that are not UTF-8 become lone surrogates, so that a reader can still find where the row
    ends; `refuse_broken_utf8` then tells them.
    """
    with (
        open_bytes(file) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        yield text


def numbered_lines(file: InputFile) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number from 1, the first without a byte order mark."""
    with open_bytes(file) as stream:
        for number, line in enumerate(stream, start=1):
            yield number, line.removeprefix(_UTF8_BOM) if number == 1 else line


def decode_line(line: bytes) -> str:
    """Decode one line, without its end; raises the fault `invalid_utf8`."""
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        raise RowFault(
            "invalid_utf8",
            f"the line is not UTF-8: {error.reason} 0x{line[error.start]:02x} "
            f"at byte {error.start + 1}",
        ) from None


def refuse_broken_utf8(text: str) -> None:
    """Raise the fault `invalid_utf8` where `open_text` met bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise RowFault(
            "invalid_utf8", f"the row has a byte that is not UTF-8: 0x{byte:02x}"
        ) from None
