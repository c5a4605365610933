"""Find where a JSON value ends without holding it."""

from __future__ import annotations

import re

__all__ = ["ValueSkipper"]

_MARK = re.compile(r'["{}\[\]]')
_REST_OF_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MAX_MARKS = 1 << 22


class ValueSkipper:
    """Goes past one object, array or string that comes in pieces."""

    def __init__(self) -> None:
        self._depth = self._num_marks = 0
        self._in_string = self._is_escaped = False

    def end_in(self, text: str, at: int) -> int | None:
        """Return where in this piece, read from `at`, the value ends; none: not in this one.

        Raises:
            ValueError: it has millions of brackets or strings; to go past them would take hours.
        """
        if self._is_escaped and at < len(text):
            self._is_escaped, at = False, at + 1
        while at < len(text):
            if self._in_string:
                rest = _REST_OF_STRING.match(text, at)
                at = rest.end() if rest is not None else at
                if at == len(text):
                    return None
                self._is_escaped = text[at] == "\\"  # the last character: what follows is not here
                self._in_string = self._is_escaped
                at += 1
            elif mark := _MARK.search(text, at):
                self._enter(mark[0])
                at = mark.end()
            else:
                return None
            if not self._depth and not self._in_string:
                return at
        return None

    def _enter(self, mark: str) -> None:
        self._num_marks += 1
        if self._num_marks > _MAX_MARKS:
            raise ValueError("the next row is too large, and has too many values to be skipped")
        if mark == '"':
            self._in_string = True
        else:
            self._depth += 1 if mark in "{[" else -1
