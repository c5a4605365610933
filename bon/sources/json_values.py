"""JSON as the standard means it, decoded value by value from a line or from a stream of text.

The standard library's decoder does the work. A streaming parser would be the obvious tool, but
ijson (yajl2_c, 3.6) turns lone surrogates into `?`, ends the file at an integer above 64 bits, and
takes memory with the square of the nesting: 100 KB of `[` kill the process.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, TextIO

from bon.sources.json_skip import ValueSkipper
from bon.sources.limits import MAX_ROW_BYTES, has_too_many_values, row_too_large
from bon.sources.rows import RowFault
from bon.sources.streams import refuse_broken_utf8

__all__ = ["MAX_DEPTH", "JsonDecoder", "JsonStream"]

MAX_DEPTH = 100
"""Deepest nesting of a row, far below where Python's own recursion ends."""
_CHUNK_CHARS = 1 << 18
_MOST_CHUNK_CHARS = 1 << 23
_LONGEST_TOKEN = 64
"""Characters in which a number or literal cut off at the end of a chunk must begin."""
_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class JsonDecoder:
    """Decodes rows.

    NaN, infinities, lone surrogates, endless nesting and an object that has a key twice are faults.
    """

    def __init__(self) -> None:
        self._bad_number = ""
        repeated: list[list[tuple[str, Any]]] = []
        self._repeated = repeated

        def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(pairs)
            if len(value) != len(pairs):  # one would hide the other
                repeated.append(pairs)
            return value

        self._decoder = json.JSONDecoder(
            parse_constant=self._note,
            parse_float=self._to_float,
            object_pairs_hook=to_object,
        )

    def _note(self, text: str) -> None:
        self._bad_number = text

    def _to_float(self, text: str) -> float:
        value = float(text)
        if math.isinf(value):
            self._note(text if len(text) <= 20 else text[:20] + "…")
        return value

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """Return the value that begins at `start` and where it ends.

        Raises:
            ValueError: the text is not JSON (`json.JSONDecodeError`), or a number has too many
                digits.
            RecursionError: it is nested too deeply for Python.
        """
        self._bad_number = ""
        self._repeated.clear()
        return self._decoder.raw_decode(text, start)

    def row(self, value: Any, text: str) -> dict[str, Any]:
        """Return the value last decoded (from `text`) as a row.

        Raises:
            RowFault: `not_an_object`, `malformed_json`, `invalid_unicode`, `duplicate_key`.
        """
        if not isinstance(value, dict):
            kind = _KINDS.get(type(value), "a number")
            raise RowFault("not_an_object", f"the row is {kind}, not an object with columns")
        if self._bad_number:
            raise RowFault("malformed_json", f"JSON has no number {self._bad_number}")
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise RowFault("malformed_json", f"nested more than {MAX_DEPTH} levels deep")
        if "\\" in text and _SURROGATE_ESCAPE.search(text):
            _refuse_lone_surrogates(value)
        if self._repeated:
            counts = Counter(key for key, _ in self._repeated[0])
            ((key, count),) = counts.most_common(1)
            raise RowFault("duplicate_key", f"an object has the key {key!r} {count} times")
        return value

    def line(self, text: str) -> dict[str, Any]:
        """Return the row that is the whole of `text`.

        Raises:
            RowFault: as `row`, `row_too_large`, and `malformed_json` with the parser's message and
                column.
        """
        if has_too_many_values(text):
            raise row_too_large()
        start = len(text) - len(text.lstrip(" \t\r\n"))
        try:
            value, end = self.decode(text, start)
            if end < len(text) and (after := text[end:].lstrip(" \t\r\n")):
                raise json.JSONDecodeError("Extra data", text, len(text) - len(after))
        except json.JSONDecodeError as error:
            raise RowFault("malformed_json", f"{_said(error)} at column {error.colno}") from None
        except ValueError as error:
            raise RowFault("malformed_json", str(error)) from None
        except RecursionError:
            raise RowFault("malformed_json", "nested too deeply to be read") from None
        return self.row(value, text)


class JsonStream:
    """Values one after the other from a stream of text; holds little more than one value."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._decoder = stream, JsonDecoder()
        self._text, self._at = "", 0

    def peek(self) -> str:
        """Return the next character that is not blank, or an empty string at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Go past the character that `peek` returned."""
        self._at += 1

    def next_row(self) -> dict[str, Any]:
        """Return the next value as a row and go past it.

        Raises:
            RowFault: the value is JSON but no row, or too large; the stream can go on.
            ValueError, RecursionError: the text is not JSON; the stream cannot go on.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error):
                    self._refuse_too_large()
                    if self._fill():
                        continue
                snippet = self._text[error.pos : error.pos + 20]
                said = f"{_said(error)}, at {snippet!r}" if snippet else "it ends"
                raise ValueError(said) from None
            if end + _LONGEST_TOKEN > len(self._text) and self._fill():
                continue
            text, self._at = self._text[self._at : end], end
            if has_too_many_values(text):
                raise row_too_large()
            row = self._decoder.row(value, text)
            refuse_broken_utf8(text)
            return row

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        near_end = error.pos + _LONGEST_TOKEN > len(self._text)
        return near_end or error.msg.startswith("Unterminated string")

    def _refuse_too_large(self) -> None:
        """Go past a value that is too large to be held, and raise its fault."""
        is_large = len(self._text) - self._at > MAX_ROW_BYTES
        if not is_large and not has_too_many_values(self._text, self._at):
            return
        skipper = ValueSkipper()
        while (end := skipper.end_in(self._text, self._at)) is None:
            self._text, self._at = self._stream.read(_CHUNK_CHARS), 0
            if not self._text:
                break
        self._at = end or 0
        raise row_too_large()

    def _fill(self) -> bool:
        rest = self._text[self._at :]
        # twice as much as before, so that little is read again, but no huge step
        chunk = self._stream.read(max(_CHUNK_CHARS, min(len(rest), _MOST_CHUNK_CHARS)))
        if chunk:
            self._text, self._at = rest + chunk, 0
        return bool(chunk)


def _said(error: json.JSONDecodeError) -> str:
    return error.msg.removesuffix(" at").removesuffix(" starting")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            inner += item.values() if isinstance(item, dict) else item
        level = [item for item in inner if isinstance(item, dict | list)]
    return depth


def _refuse_lone_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise RowFault(
            "invalid_unicode", f"half of a surrogate pair, \\u{half:04x}, is no character"
        ) from None
