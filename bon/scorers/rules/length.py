"""`rule:length`: the response is as long as was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.options import read_options

__all__ = ["LengthOptions", "LengthRule"]


class LengthOptions(Settings):
    """Options of `rule:length`."""

    min: int = Field(default=0, ge=0)
    """Shortest length of the band."""
    max: int | None = Field(default=None, ge=0)
    """Longest length of the band; by default it has no end."""
    unit: Literal["chars", "words", "tokens"] = "chars"
    """What is counted: characters, words (parted by white space), or tokens as the generator
    counted them."""
    soft: float = Field(default=0.0, ge=0.0)
    """Outside the band the reward falls in a straight line to 0 over so many units; 0: at once."""

    @model_validator(mode="after")
    def _is_a_band(self) -> LengthOptions:
        if not self.min and self.max is None:
            raise ValueError("give min, max or both")
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class LengthRule:
    """Right is a response whose length lies in the band: 1.0, and with `soft` less the farther off.

    Both ends of the band belong to it. A response that was given, not sampled, has no number of
    tokens, so in tokens it has no score (`no_num_tokens`).
    """

    version: ClassVar[int | None] = 1
    settings_read: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: ScorerSettings) -> None:
        self._options = read_options(LengthOptions, settings)

    def __enter__(self) -> LengthRule:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    @property
    def is_verdict(self) -> bool:
        """Tell whether it gives only 1 and 0."""
        return self._options.soft == 0

    @property
    def reads_candidates(self) -> bool:
        """Tell whether it needs the generator's counts."""
        return self._options.unit == "tokens"

    def fingerprint(self) -> dict[str, Any]:
        """Return its options."""
        return self._options.fingerprint()

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 within the band, less outside."""
        return [[self._reward(length) for length in self._lengths(group)] for group in groups]

    def _lengths(self, group: CandidateGroup) -> list[int | None]:
        if self._options.unit == "tokens":
            known = [one.num_tokens for one in group.candidates]
            return known or [None] * len(group.responses)
        if self._options.unit == "words":
            return [len(response.split()) for response in group.responses]
        return [len(response) for response in group.responses]

    def _reward(self, length: int | None) -> float | Drop:
        if length is None:
            return Drop("no_num_tokens", "nobody counted the response's tokens: it was given")
        low, high, soft = self._options.min, self._options.max, self._options.soft
        distance = max(low - length, 0 if high is None else length - high, 0)
        if distance == 0:
            return 1.0
        return max(0.0, 1.0 - distance / soft) if soft else 0.0
