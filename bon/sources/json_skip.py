"""Find where a JSON value ends without holding it."""

from __future__ import annotations

import re

__all__ = ["ValueSkipper"]

_MARK = re.compile(r'"|[{\[]+|[}\]]+')
_PLAIN = r'[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"'
_INSIDE = re.compile(rf"(?:{_PLAIN}|[\[{{](?:{_PLAIN})*+[\]}}])*+", re.DOTALL)
"""What changes no depth, innermost lists and objects too: C goes past it, not mark by mark."""
_REST_OF_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)


class ValueSkipper:
    """Goes past one object, array or string that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def end_in(self, text: str, at: int) -> int | None:
        """Return where in this piece, read from `at`, the value ends; none: not in this one."""
        if self._is_escaped and at < len(text):
            self._is_escaped, at = False, at + 1
        while at < len(text):
            if self._in_string:
                at = _end(_REST_OF_STRING, text, at)
                if at == len(text):
                    return None
                self._is_escaped = text[at] == "\\"  # the last character: what follows is not here
                self._in_string = self._is_escaped
                at += 1
            elif mark := _MARK.search(text, _end(_INSIDE, text, at) if self._depth else at):
                at = mark.start() + self._enter(mark[0])
            else:
                return None
            if not self._depth and not self._in_string:
                return at
        return None

    def _enter(self, mark: str) -> int:
        """Take a quote or brackets of one kind; return how many characters are the value's."""
        if mark == '"':
            self._in_string = True
        elif mark[0] in "{[":
            self._depth += len(mark)
        else:
            closed = min(len(mark), self._depth)
            self._depth -= closed
            return closed
        return len(mark)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
