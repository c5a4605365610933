"""`rule:repetition`: the response does not repeat itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.records import CandidateGroup, Drop
from bon.repetition import repeated_share
from bon.scorers.rules.options import read_options

__all__ = ["RepetitionOptions", "RepetitionRule"]


class RepetitionOptions(Settings):
    """Options of `rule:repetition`."""

    n: int = Field(default=4, ge=1, le=100)
    """Units in an n-gram."""
    unit: Literal["words", "chars"] = "words"
    """What they are: words (parted by white space), or characters, for texts without spaces."""


class RepetitionRule:
    """Higher is less repetition: 1 minus the share of n-grams that were there before.

    A response of fewer than n units, an empty one too, has nothing to repeat: 1.0.
    """

    version: ClassVar[int | None] = 1
    settings_read: ClassVar[frozenset[str]] = frozenset()
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = False

    def __init__(self, settings: ScorerSettings) -> None:
        self._options = read_options(RepetitionOptions, settings)

    def __enter__(self) -> RepetitionRule:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    def fingerprint(self) -> dict[str, Any]:
        """Return its options."""
        return self._options.fingerprint()

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return the share of n-grams that are new."""
        return [[self._reward(response) for response in group.responses] for group in groups]

    def _reward(self, response: str) -> float:
        units = response if self._options.unit == "chars" else response.split()
        return 1.0 - repeated_share(units, self._options.n)
