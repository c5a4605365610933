"""Text of models and data sets, safe to show on a terminal."""

from __future__ import annotations

import re

__all__ = ["printable"]

# ISO control codes, the marks that turn the direction of text, line separators, lone surrogates
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, keep_lines: bool = False) -> str:
    r"""Return a text with what a terminal would obey spelled out: an escape is `\x1b`.

    A line feed stays one where lines are kept, else it is `\n`.
    """
    return _CONTROL.sub(lambda one: _spelled(one[0], keep_lines), text)


def _spelled(character: str, keep_lines: bool) -> str:
    if character == "\n" and keep_lines:
        return character
    return character.encode("unicode_escape").decode("ascii")
