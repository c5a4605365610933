"""Open a text file, plain or compressed, as a stream that never holds all of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, TextIO, cast

import pyarrow as pa

from bon.sources.limits import MAX_ROW_BYTES, Unpacked
from bon.sources.locate import InputFile
from bon.sources.rows import RowFault
from bon.sources.sniff import refuse_other_content

__all__ = ["decode_line", "numbered_lines", "open_bytes", "open_text", "refuse_broken_utf8"]

_UTF8_BOM = b"\xef\xbb\xbf"
_BUFFER_BYTES = 1 << 18


@contextmanager
def open_bytes(file: InputFile) -> Iterator[BinaryIO]:
    """Give the file's unpacked bytes; a broken archive raises `OSError` where it breaks.

    Raises:
        InputError: it begins like something else than text, or is a decompression bomb.
    """
    with pa.input_stream(str(file.path), compression=file.compression) as stream:
        raw = stream if file.compression is None else Unpacked(stream, file)
        with io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER_BYTES) as buffered:
            refuse_other_content(buffered.peek(1), file)
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


def numbered_lines(file: InputFile) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number from 1, the first without a byte order mark.

    A line that has more than `MAX_ROW_BYTES` is skipped, never held, and yielded as none.
    """
    with open_bytes(file) as stream:
        next_line = partial(stream.readline, MAX_ROW_BYTES + 1)
        for number, line in enumerate(iter(next_line, b""), start=1):
            if len(line) > MAX_ROW_BYTES:
                if not line.endswith(b"\n"):
                    _skip_line(stream)
                yield number, None
            else:
                yield number, line.removeprefix(_UTF8_BOM) if number == 1 else line


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_BUFFER_BYTES)) and not piece.endswith(b"\n"):
        pass


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
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise RowFault(
            "invalid_utf8", f"the row has a byte that is not UTF-8: 0x{byte:02x}"
        ) from None
