"""`rule:format`: the whole response follows a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.limited import LimitedProcess
from bon.scorers.rules.options import check_pattern, one_pattern, read_options, where

__all__ = ["FORMS", "FormatOptions", "FormatRule"]

_NO_TAG = r"(?:(?!</?(?:think|answer)>).)*"
_FILLED = r"(?=\s*(?!</?(?:think|answer)>)\S)" + _NO_TAG
_NESTED = r"[^{}]*"
for _ in range(6):  # braces in braces, so deep
    _NESTED = rf"(?:[^{{}}]|\{{{_NESTED}\}})*"

FORMS = {
    "think-answer": rf"\s*<think>{_NO_TAG}</think>\s*<answer>{_FILLED}</answer>\s*",
    "think": rf"\s*<think>{_NO_TAG}</think>{_FILLED}",
    "boxed": rf".*\\boxed\{{(?=\s*[^\s}}]){_NESTED}\}}.*",
    "hashes": r"(?m).*^####[ \t]*[^\s#][^\n]*\s*",
}
"""What `name` takes: one block of thought and one of answer; one of thought, then text; a closed
`\\boxed{}` with something in it; a last line `#### ANSWER`."""


class FormatOptions(Settings):
    """Options of `rule:format`."""

    pattern: str | None = None
    """Regular expression for all of the response, as Python's re takes it; `.` is any character,
    line breaks too."""
    pattern_file: Path | None = None
    """File that holds it."""
    name: str | None = None
    """A ready one."""


class FormatRule:
    """Right is a response that follows the pattern from its first to its last character.

    The pattern runs in a process of its own with a limit on its computing time.
    """

    version: ClassVar[int | None] = 1
    settings_read: ClassVar[frozenset[str]] = frozenset({"rule_timeout_s"})
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = True

    def __init__(self, settings: ScorerSettings) -> None:
        options = read_options(FormatOptions, settings)
        self._pattern = _pattern(options, settings)
        check_pattern(self._pattern, settings, re.DOTALL)
        setup = {"how": "fullmatch", "pattern": self._pattern, "group": 0}
        self._fits = LimitedProcess(
            "pattern_work.py", setup, settings.rule_timeout_s, "rule:format"
        )

    def __enter__(self) -> FormatRule:
        self._fits.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._fits.stop()

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    def fingerprint(self) -> dict[str, Any]:
        """Return its pattern, whichever way it was said."""
        return {"pattern": self._pattern}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 where all of the response fits the pattern, else 0.0."""
        return [[self._reward(response) for response in group.responses] for group in groups]

    def _reward(self, response: str) -> float | Drop:
        fits: bool | Drop = self._fits.ask(response)
        return fits if isinstance(fits, Drop) else float(fits)


def _pattern(options: FormatOptions, settings: ScorerSettings) -> str:
    if options.name is None:
        names = f" or ?name=, one of {', '.join(FORMS)}"
        return one_pattern(options.pattern, options.pattern_file, settings, names)
    if options.pattern is not None or options.pattern_file is not None:
        raise SettingsError(
            "there are two patterns",
            where=where(settings),
            next_step="give one of name, pattern and pattern_file",
        )
    if options.name not in FORMS:
        raise UnknownChoiceError(
            f"there is no format {options.name!r}",
            where=where(settings),
            next_step=did_you_mean(options.name, FORMS),
        )
    return FORMS[options.name]
