"""`rule:regex`: a pattern is found in the response, or finds the right answer in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

from bon.answers import reference_answer
from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.errors import UnknownChoiceError, did_you_mean
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.exact import same_answer
from bon.scorers.rules.limited import LimitedProcess
from bon.scorers.rules.options import check_pattern, one_pattern, read_options, where
from bon.scorers.rules.references import compared

__all__ = ["RegexOptions", "RegexRule"]


class RegexOptions(Settings):
    """Options of `rule:regex`."""

    pattern: str | None = None
    """Regular expression, as Python's re takes it."""
    pattern_file: Path | None = None
    """File that holds it."""
    group: str | None = None
    """Group of the pattern, by number or name, that is compared; by default the first, and all of
    the match where the pattern has none."""
    against: str | None = None
    """Input column that the group is compared with; by default it is enough that the pattern is
    found."""

    @model_validator(mode="after")
    def _group_is_compared(self) -> RegexOptions:
        if self.group is not None and self.against is None:
            raise ValueError("group does nothing without against=COLUMN")
        return self


class RegexRule:
    """Right is a response in which the pattern is found.

    With `against`, right is one in whose last match of the pattern a group is the same number or
    text as the answer in that column, as `rule:exact` compares. The pattern runs in a process of
    its own with a limit on its computing time.
    """

    version: ClassVar[int | None] = 1
    settings_read: ClassVar[frozenset[str]] = frozenset({"rule_timeout_s"})
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = True

    def __init__(self, settings: ScorerSettings) -> None:
        options = read_options(RegexOptions, settings)
        self._pattern = one_pattern(options.pattern, options.pattern_file, settings)
        self._against = options.against
        compiled = check_pattern(self._pattern, settings)
        self._group = _group(compiled, options.group, settings)
        how = "search" if self._against is None else "last"
        setup = {"how": how, "pattern": self._pattern, "group": self._group}
        self._find = LimitedProcess("pattern_work.py", setup, settings.rule_timeout_s, "rule:regex")

    def __enter__(self) -> RegexRule:
        self._find.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._find.stop()

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    def fingerprint(self) -> dict[str, Any]:
        """Return its options."""
        if self._against is None:
            return {"pattern": self._pattern}
        return {"pattern": self._pattern, "group": self._group, "against": self._against}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 where the pattern, or the right answer, is found, else 0.0."""
        if self._against is not None:
            return compared(groups, self._against, reference_answer, self._finds)
        return [[self._reward(response) for response in group.responses] for group in groups]

    def _reward(self, response: str) -> float | Drop:
        found: bool | Drop = self._find.ask(response)
        return found if isinstance(found, Drop) else float(found)

    def _finds(self, response: str, reference: str) -> bool | Drop:
        found: str | Drop | None = self._find.ask(response)
        if found is None or isinstance(found, Drop):
            return found or False
        return same_answer(found, reference)


def _group(pattern: re.Pattern[str], said: str | None, settings: ScorerSettings) -> int | str:
    """Return the group that was said, as `re` knows it."""
    if said is None:
        return min(pattern.groups, 1)
    group = int(said) if said.isascii() and said.isdecimal() else said
    if group in pattern.groupindex or (isinstance(group, int) and group <= pattern.groups):
        return group
    known = [*map(str, range(pattern.groups + 1)), *pattern.groupindex]
    raise UnknownChoiceError(
        f"the pattern has no group {said!r}",
        where=where(settings),
        next_step=did_you_mean(said, known),
    )
