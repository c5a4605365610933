"""Text of models, files, servers and libraries, safe to show on a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

from bon.redaction import redacted

__all__ = ["encodable", "json_text", "printable", "shown"]

# ISO control codes, the marks that turn the direction of text, line separators, annotation marks
# and tags, which are not seen, lone surrogates
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def encodable(text: str) -> str:
    """Return a text as UTF-8 can hold it: what is half of a character becomes U+FFFD.

    JSON may hold such halves (lone surrogates), and Arrow takes none.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def printable(text: str, *, keep_lines: bool = False) -> str:
    r"""Return a text with what a terminal would obey spelled out: an escape is `\x1b`.

    A line feed stays one where lines are kept, else it is `\n`.
    """
    return _CONTROL.sub(lambda one: _spelled(one[0], keep_lines), text)


def shown(text: str, *, keep_lines: bool = False) -> str:
    """Return a text without secrets, and printable: what is said to a person."""
    return printable(redacted(text), keep_lines=keep_lines)


def json_text(value: Any, *, is_ascii: bool = True) -> str:
    """Return JSON for a person or a program, in which nothing that a terminal would obey is raw.

    ASCII alone, or with letters of all scripts; what JSON has no form for is given as its text.
    """
    text = json.dumps(value, indent=2, ensure_ascii=is_ascii, default=str)
    # dumps escapes all below a space but for its own line breaks
    return _CONTROL.sub(lambda one: one[0] if one[0] == "\n" else _json_escape(one[0]), text)


def _spelled(character: str, keep_lines: bool) -> str:
    if character == "\n" and keep_lines:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) != 0x7F else "\\u007f"
