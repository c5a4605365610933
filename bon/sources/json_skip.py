"""Find where a JSON value ends without holding it."""

from __future__ import annotations

import re

__all__ = ["ValueSkipper"]

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')


class ValueSkipper:
    """Goes past one object, array or string that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def end_in(self, text: str, at: int) -> int | None:
        """Return where in this piece, read from `at`, the value ends; none: not in this one."""
        if self._is_escaped and at < len(text):
            self._is_escaped, at = False, at + 1
        while mark := (_INSIDE if self._in_string else _OUTSIDE).search(text, at):
            at = mark.end()
            if mark[0] == "\\":
                if at == len(text):
                    self._is_escaped = True
                    return None
                at += 1
                continue
            if mark[0] == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if mark[0] in "{[" else -1
            if not self._depth and not self._in_string:
                return at
        return None
