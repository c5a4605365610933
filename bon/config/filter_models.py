"""Settings of each filter of `bon filter`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_origin

from pydantic import Field, field_validator, model_validator

from bon.config.base import Settings

__all__ = [
    "Agreement",
    "Decontaminate",
    "Difficulty",
    "Diversity",
    "ExactDedup",
    "FilterSettings",
    "FinishReason",
    "Language",
    "Length",
    "Margin",
    "NearDedup",
    "Refusal",
    "Regex",
    "Repetition",
    "Reward",
]

Side = Literal["response", "prompt"]
Sides = Literal["response", "prompt", "both"]

_CANDIDATES: frozenset[str] = frozenset({"candidates"})
_PAIRS: frozenset[str] = frozenset({"pairs"})


class FilterSettings(Settings):
    """Base of all filters."""

    name: ClassVar[str] = ""
    kinds: ClassVar[frozenset[str]] = _CANDIDATES | _PAIRS
    """What it works on: `candidates`, `pairs`."""

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any, info: Any) -> Any:
        many = get_origin(cls.model_fields[info.field_name].annotation) is tuple
        return (value,) if many and isinstance(value, str) else value

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        for low in type(self).model_fields:
            high = low.replace("min", "max", 1)
            if not low.startswith("min") or high not in type(self).model_fields:
                continue
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} is {least:g}, above {high}, {most:g}: nothing would pass")
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the filter with every key, for reports."""
        return {"name": self.name, **self.model_dump(mode="json")}


def _need_one_of(filter: FilterSettings, *names: str) -> None:
    if all(getattr(filter, name) is None for name in names):
        raise ValueError(f"give at least one of {', '.join(names)}")


class Reward(FilterSettings):
    """Keep candidates by their reward; one without a reward is dropped."""

    name: ClassVar[str] = "reward"
    kinds: ClassVar[frozenset[str]] = _CANDIDATES

    min: float | None = None
    """Lowest reward."""
    max: float | None = None
    """Highest reward."""
    min_quantile: float | None = Field(default=None, ge=0.0, le=1.0)
    """Lowest reward as a quantile (linearly interpolated) of the rewards that are left."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep the k highest; ties go to the first."""
    by: str | None = None
    """What min_quantile and top_k are taken over: `prompt` (or `prompt_id`, the same), or an input
    column whose values make the groups; by default all candidates together."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Reward:
        _need_one_of(self, "min", "max", "min_quantile", "top_k")
        if self.by is not None and self.min_quantile is None and self.top_k is None:
            raise ValueError("`by` needs min_quantile or top_k")
        return self


class Difficulty(FilterSettings):
    """Keep prompts whose share of right candidates lies between two bounds."""

    name: ClassVar[str] = "difficulty"
    kinds: ClassVar[frozenset[str]] = _CANDIDATES

    min: float = Field(default=0.0, ge=0.0, le=1.0)
    """Lowest share of right candidates."""
    max: float = Field(default=1.0, ge=0.0, le=1.0)
    """Highest share of right candidates."""
    scorer: str = "label"
    """Scorer that says right (1) or wrong (0); unknown verdicts do not count."""


class Length(FilterSettings):
    """Keep responses whose length lies between bounds, all inclusive."""

    name: ClassVar[str] = "length"

    min_chars: int | None = Field(default=None, ge=0)
    """Fewest characters."""
    max_chars: int | None = Field(default=None, ge=0)
    """Most characters."""
    min_words: int | None = Field(default=None, ge=0)
    """Fewest words (parted by white space)."""
    max_words: int | None = Field(default=None, ge=0)
    """Most words."""
    min_tokens: int | None = Field(default=None, ge=0)
    """Fewest tokens, as the generator counted them."""
    max_tokens: int | None = Field(default=None, ge=0)
    """Most tokens."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Length:
        _need_one_of(self, *type(self).model_fields)
        return self


class FinishReason(FilterSettings):
    """Keep responses that ended in a certain way."""

    name: ClassVar[str] = "finish_reason"

    keep: tuple[str, ...] = ("stop",)
    """Finish reasons that pass."""
    keep_unknown: bool = True
    """Responses that were given, not sampled, have no finish reason: let them pass."""


class Language(FilterSettings):
    """Keep texts that are written in certain languages, by py3langid."""

    name: ClassVar[str] = "language"

    allowed: tuple[str, ...] = Field(min_length=1)
    """Language codes (ISO 639-1, such as en)."""
    min_prob: float = Field(default=0.5, ge=0.0, le=1.0)
    """Lowest probability that the text is in one of the allowed languages, all told."""
    on: Side = "response"
    """Which text."""
    max_chars: int = Field(default=1000, ge=1)
    """Characters that are looked at, from the start."""


class Repetition(FilterSettings):
    """Drop responses that repeat themselves, by the rules of Gopher (arXiv 2112.11446, A1)."""

    name: ClassVar[str] = "repetition"

    duplicate_lines: float = Field(default=0.30, ge=0.0, le=1.0)
    """Largest share of lines that are repeats; 1 switches a rule off."""
    duplicate_paragraphs: float = Field(default=0.30, ge=0.0, le=1.0)
    """Largest share of paragraphs that are repeats."""
    duplicate_line_chars: float = Field(default=0.20, ge=0.0, le=1.0)
    """Largest share of characters in repeated lines."""
    duplicate_paragraph_chars: float = Field(default=0.20, ge=0.0, le=1.0)
    """Largest share of characters in repeated paragraphs."""
    top_2_gram: float = Field(default=0.20, ge=0.0, le=1.0)
    """Largest share of characters in the most frequent run of 2 words."""
    top_3_gram: float = Field(default=0.18, ge=0.0, le=1.0)
    """Likewise of 3 words."""
    top_4_gram: float = Field(default=0.16, ge=0.0, le=1.0)
    """Likewise of 4 words."""
    duplicate_5_grams: float = Field(default=0.15, ge=0.0, le=1.0)
    """Largest share of characters in runs of 5 words that occur more than once."""
    duplicate_6_grams: float = Field(default=0.14, ge=0.0, le=1.0)
    """Likewise of 6 words."""
    duplicate_7_grams: float = Field(default=0.13, ge=0.0, le=1.0)
    """Likewise of 7 words."""
    duplicate_8_grams: float = Field(default=0.12, ge=0.0, le=1.0)
    """Likewise of 8 words."""
    duplicate_9_grams: float = Field(default=0.11, ge=0.0, le=1.0)
    """Likewise of 9 words."""
    duplicate_10_grams: float = Field(default=0.10, ge=0.0, le=1.0)
    """Likewise of 10 words."""
    min_words: int = Field(default=20, ge=0)
    """Shorter responses pass: of so few words a share says little."""


class Refusal(FilterSettings):
    """Drop responses that refuse to answer, by phrases near their start."""

    name: ClassVar[str] = "refusal"

    first_chars: int = Field(default=200, ge=1)
    """Characters that are looked at, from the start."""
    phrases: tuple[str, ...] = ()
    """Further phrases, in any case."""
    phrases_file: Path | None = None
    """Text file of further phrases, one a line."""
    builtin: bool = True
    """Look for the phrases that bon knows."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Refusal:
        if not (self.builtin or self.phrases or self.phrases_file):
            raise ValueError("builtin = false needs phrases or phrases_file")
        if any(not phrase.strip() for phrase in self.phrases):
            raise ValueError("an empty phrase is in every response")
        return self


class Regex(FilterSettings):
    """Keep or drop texts that a regular expression matches somewhere."""

    name: ClassVar[str] = "regex"

    pattern: str
    """Regular expression, as Python's re takes it."""
    keep: bool = True
    """Keep what it matches; false drops what it matches."""
    on: Side = "response"
    """Which text; of the prompt, its user turns."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value


class Margin(FilterSettings):
    """Keep pairs whose chosen response is scored higher by enough."""

    name: ClassVar[str] = "margin"
    kinds: ClassVar[frozenset[str]] = _PAIRS

    min: str
    """Smallest margin: a score difference, or a share (`10%` drops the smallest tenth of what is
    left, rounded down, and of equal margins none or all)."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""

    @field_validator("min", mode="before")
    @classmethod
    def _is_number_or_share(cls, value: Any) -> str:
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (text.endswith("%") and not 0 <= number <= 100):
            raise ValueError("give a score difference such as 0.5, or a share such as 10%")
        return text


class Agreement(FilterSettings):
    """Keep pairs with which a reward model agrees: probability of chosen over rejected."""

    name: ClassVar[str] = "agreement"
    kinds: ClassVar[frozenset[str]] = _PAIRS

    min_prob: float = Field(default=0.5, ge=0.5, le=1.0)
    """Lowest preference probability σ((r_chosen − r_rejected) / τ)."""
    temperature: float = Field(default=1.0, gt=0.0)
    """τ."""
    action: Literal["drop", "flip"] = "drop"
    """flip swaps chosen and rejected where the model prefers rejected by at least min_prob, and
    drops what is undecided."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""


class ExactDedup(FilterSettings):
    """Keep one of the rows with the same text: the best-scored, of equals the first."""

    name: ClassVar[str] = "exact_dedup"

    on: Sides = "both"
    """What is compared; on prompt keeps one prompt with all that it has."""
    scope: Literal["all", "prompt"] = "all"
    """Compare with all rows, or only within one prompt."""
    ignore_case: bool = False
    """Take upper and lower case as the same."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""


class NearDedup(FilterSettings):
    """Keep one of the rows with nearly the same text (MinHash): the best-scored, or the first."""

    name: ClassVar[str] = "near_dedup"

    on: Sides = "response"
    """What is compared; on prompt keeps one prompt with all that it has."""
    scope: Literal["all", "prompt"] = "all"
    """Compare with all rows, or only within one prompt."""
    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    """Jaccard similarity of the word n-grams from which on two texts are the same."""
    ngram: int = Field(default=5, ge=1)
    """Words in an n-gram."""
    num_perm: int = Field(default=128, ge=4, le=4096)
    """Hash values per text; 4 bytes each are held in memory for each row."""
    bands: int | None = Field(default=None, ge=2)
    """Bands of the locality-sensitive hash; by default what suits the threshold."""
    rows: int | None = Field(default=None, ge=1)
    """Hash values in a band."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""

    @model_validator(mode="after")
    def _bands_fit(self) -> NearDedup:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("give both of bands and rows, or none")
        if self.bands is not None and self.rows is not None:
            used = self.bands * self.rows
            if used > self.num_perm:
                raise ValueError(f"bands × rows is {used}, more than num_perm {self.num_perm}")
        return self


class Diversity(FilterSettings):
    """Keep rows in order of their score, each only if unlike all kept before (Deita)."""

    name: ClassVar[str] = "diversity"

    on: Sides = "both"
    """What is compared; on prompt keeps whole prompts."""
    threshold: float = Field(default=0.7, gt=0.0, le=1.0)
    """Jaccard similarity of the word n-grams from which on two texts are alike."""
    ngram: int = Field(default=3, ge=1)
    """Words in an n-gram."""
    num_perm: int = Field(default=128, ge=4, le=4096)
    """Hash values per text."""
    max_rows: int | None = Field(default=None, ge=1)
    """Stop at so many kept rows (prompts, on prompt)."""
    scorer: str | None = None
    """Scorer, where it is not the one that ranks."""


class Decontaminate(FilterSettings):
    """Drop rows that share long word n-grams with evaluation data."""

    name: ClassVar[str] = "decontaminate"

    files: tuple[str, ...] = Field(min_length=1)
    """Files of evaluation data (jsonl, parquet, txt, …), folders or Hub datasets."""
    split: str = "test"
    """Split of Hub datasets."""
    columns: tuple[str, ...] = ()
    """Columns to compare with; by default every text in a row."""
    on: Sides = "prompt"
    """What is compared; of the prompt, its user turns."""
    ngram: int = Field(default=8, ge=1)
    """Words in an n-gram."""
    max_share: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Largest share of words that may lie in n-grams shared with one evaluation text; 0 drops on
    any shared n-gram."""
    share_of: Literal["evaluation", "text", "either"] = "evaluation"
    """Whose words the share is of: the evaluation text's, as in Tulu 3, the row's text's, or those
    of whichever of the two has the larger share."""
