"""The final answer of a response, and whether it is the right one.

No mathematics is done: numbers are compared in one canonical spelling, everything else as text.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from bon.errors import SettingsError

__all__ = ["compile_answer_pattern", "extract_answer", "is_correct", "reference_answer"]

# The sign is the number's own only where it does not follow an operand: "16-3" holds 16 and 3.
# Thousands are parted by "," or, in LaTeX, by "{,}" or ",\!".
_NUMBER = r"""
    (?: (?<![\w)\]}.]) (?P<sign>[-−+]) )?  (?: \\?[$£€] )?
    (?P<digits>
        [0-9]{1,3} (?: (?: \{,\} | ,(?:\\!)? ) [0-9]{3} )+ (?![0-9]) (?: \.[0-9]+ )?
      | [0-9]+ (?: \.[0-9]+ )?
      | (?<![0-9.]) \.[0-9]+
    )
"""
_NUMBER_IN_TEXT = re.compile(_NUMBER, re.VERBOSE)
# In prose "1e3" may be a name. An exponent of more digits would fill the memory with zeros.
_NUMBER_ALONE = re.compile(
    rf"\s* \$? {_NUMBER} (?: [eE] (?P<exponent>[-+]?[0-9]{{1,4}}) )? (?: \s | \\?[%$] | [.£€] )*",
    re.VERBOSE,
)
_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
# Markdown may make a heading of the line, and wrap its mark alone or the answer with it
_ANSWER_LINE = re.compile(
    r"\s*(?:\#+\s*)?(?P<opened>[*_`]*)(?:A|(?i:(?:the\ )?(?:final\ )?answer))"
    r"(?P<closed>[*_`]*)\s*:(?P<answer>.*)",
    re.VERBOSE,
)
_WRAPPER = re.compile(r"\*{1,3}|_{1,3}|`{1,3}|\${1,2}")
_MAX_WRAPPERS = 4
_DIGITS = "0123456789"


def compile_answer_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compile the regular expression of `--answer-pattern`; none stays none.

    Raises:
        SettingsError: not a regular expression.
    """
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"bad value for --answer-pattern: {pattern!r}",
            why=f"not a regular expression: {error}",
            next_step="write it as Python's re takes it, such as --answer-pattern 'Answer: (.+)'",
        ) from None


def extract_answer(text: str, pattern: re.Pattern[str] | None = None) -> str | None:
    """Return the last match of the pattern in a response, by default its last number.

    Of a match the first group counts, where there is one, else the whole; an empty match is none.
    A number comes in canonical spelling ("$1,234.50" is "1234.5"), so that equal answers are equal
    strings; a fraction is not a number, so of "3/4" the last one is "4". An exponent ("1e3") is
    read only where the number stands alone.
    """
    if pattern is None:
        alone = _number(text)
        if alone is not None:
            return alone
        return _last_number(text)
    last = None
    for match in pattern.finditer(text):
        group = match.group(1) if pattern.groups else None
        last = _unwrapped(match.group() if group is None else group) or last
    return None if last is None else _number(last) or last


def reference_answer(value: Any, pattern: re.Pattern[str] | None = None) -> str | None:
    r"""Return the right answer that an input's answer column holds, none where it holds none.

    Of a string that is, in this order, what follows its last `####`, its last `\boxed{}`, what
    the pattern matches, what follows `A:` or `Answer:` on its last line, or all of it. Markdown's
    emphasis and code marks and `$` around a marked answer or a number are not part of it. A number
    comes in canonical spelling; a value that is neither string, number nor bool holds no answer.
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        exact = Decimal(str(value))
        return _number(format(exact, "f")) if exact.is_finite() else None
    if not isinstance(value, str):
        return None
    matched = None if pattern is None else extract_answer(value, pattern)
    answer = _hashes(value) or _boxed(value) or matched or _answer_line(value) or value.strip()
    return (_number(_unwrapped(answer)) or answer) or None


def is_correct(response: str, reference: str, pattern: re.Pattern[str] | None = None) -> bool:
    r"""Tell whether a response gives the right answer, as `reference_answer` returns it.

    A reference that is a number is compared with the response's extracted answer (the last number
    of it, where the pattern takes in more). Any other is compared with the extracted answer, or
    without a pattern the whole response, and with what the response puts after its last `####`,
    in `\boxed{}` or after `A:` or `Answer:` on its last line, all without regard to case, white
    space, trailing punctuation and Markdown's marks around all of it.
    """
    expected = _number_once(reference)
    has_part = expected is not None or pattern is not None
    answer = extract_answer(response, pattern) if has_part else None
    if expected is not None:
        if answer is not None and pattern is not None:
            answer = extract_answer(answer)
        return answer == expected
    text = _folded(reference)
    given = (
        response if pattern is None else answer,
        _hashes(response),
        _boxed(response),
        _answer_line(response),
    )
    return bool(text) and any(_folded(part) == text for part in given if part is not None)


def _canonical(number: re.Match[str]) -> str:
    """No plus, no thousands separators, no leading zeros, no trailing zeros of a decimal."""
    whole, _, decimals = re.sub(r"[^0-9.]", "", number["digits"]).partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    digits = f"{whole}.{decimals}" if decimals else whole
    return f"-{digits}" if number["sign"] in ("-", "−") and digits != "0" else digits


def _number(text: str) -> str | None:
    """Canonical spelling of a text that is one number and nothing else."""
    match = _NUMBER_ALONE.fullmatch(text)
    if match is None:
        return None
    digits = _canonical(match)
    if match["exponent"] is None or digits == "0":
        return digits
    scaled = _NUMBER_IN_TEXT.fullmatch(format(Decimal(f"{digits}e{match['exponent']}"), "f"))
    return _canonical(scaled) if scaled else None


_number_once = lru_cache(maxsize=256)(_number)
"""For references, which are compared with one response after the other."""


def _last_number(text: str) -> str | None:
    """Canonical spelling of the last number in a text.

    No number holds white space, and what stands before white space decides nothing behind it: so
    only the word of the last digit is looked at. That is ten times as fast for a long text.
    """
    last = max(map(text.rfind, _DIGITS))
    if last < 0:
        return None
    word = text[: last + 1].rsplit(None, 1)[-1]
    following = text[last + 1 : last + 2]
    if following and not following.isspace():
        word += text[last + 1 :].split(None, 1)[0]
    *_, match = _NUMBER_IN_TEXT.finditer(word)  # any digit is a number's
    return _canonical(match)


def _hashes(text: str) -> str | None:
    """First line with text after the last `####`; what follows `Answer:`, where it is one."""
    before, hashes, rest = text.rpartition("####")
    line = next(iter(rest.strip().splitlines()), "") if hashes else ""
    opened = before[len(before.rstrip("*_`")) :]
    return _answer_line(line) or _marked(opened, line) or None


def _boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{}` whose braces close, the inner one of two nested."""
    opened: list[int | None] = []
    start, content = -1, None
    for match in _BRACE.finditer(text):
        token = match.group()
        if token == "}":
            begin = opened.pop() if opened else None
            if begin is not None and begin > start:
                start, content = begin, text[begin : match.start()]
        elif token == "{":
            opened.append(None)
        elif token.startswith("\\boxed"):
            opened.append(match.end())
    return _unwrapped(content) or None if content is not None else None


def _answer_line(text: str) -> str | None:
    """What follows `A:` or `Answer:` on the last line that is not blank."""
    lines = text.strip().splitlines()
    match = _ANSWER_LINE.fullmatch(lines[-1]) if lines else None
    if match is None:
        return None
    opened = "" if match["closed"] else match["opened"]
    return _marked(opened, match["answer"]) or None


def _marked(opened: str, rest: str) -> str:
    """What follows a mark, without the Markdown that may have been opened before the mark."""
    rest = rest.strip()
    for wrapped in (rest, opened + rest):
        inner = _unwrapped(wrapped)
        if inner != wrapped:
            return inner
    return _unwrapped(rest.removeprefix(opened))


def _unwrapped(text: str) -> str:
    """A text without the Markdown or the `$` around all of it, and a full stop after those."""
    text = text.strip()
    for _ in range(_MAX_WRAPPERS):
        wrapper = _WRAPPER.match(text)
        if wrapper is None:
            break
        mark, wrapped = wrapper[0], text.rstrip(".,;:!?")
        inner = wrapped[len(mark) : -len(mark)].strip()
        if not wrapped.endswith(mark) or not inner or mark in inner.replace("\\$", ""):
            break
        text = inner
    return text


def _folded(text: str) -> str:
    return " ".join(_unwrapped(text).casefold().split()).rstrip(".,;:!? ")
