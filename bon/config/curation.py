"""Settings of what is made of a pool: sets, pairs, and the files they are written to."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from bon.config.base import PlaceSetting, Settings, number_as_text

__all__ = [
    "ExportSettings",
    "FilterCommandSettings",
    "PairSettings",
    "RankingSettings",
    "ResponseSettings",
    "SelectSettings",
]

_NUMBER_OR_SHARE = re.compile(r"((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|(\d+(\.\d*)?|\.\d+)%)", re.ASCII)


class ResponseSettings(Settings):
    """How responses that an input already has are read."""

    panel: ClassVar[str] = "Input"

    source_kind: Literal["auto", "prompts", "responses", "pairs"] = "auto"
    """What a row of the input is: a prompt to sample for, a prompt with one or several responses,
    or a chosen/rejected pair; by default recognised by its columns."""
    response_column: str | None = None
    """Column that holds the response or the list of responses."""
    score_column: str | None = None
    """Column that holds the responses' scores."""


class RankingSettings(Settings):
    """How a candidate's scores become the one reward that ranks it."""

    panel: ClassVar[str] = "Ranking"

    rank_by: str | None = None
    """Scorer that ranks, where there are several; or several, with commas, for --aggregate."""
    aggregate: Literal["sum", "mean", "min", "uwo", "lexicographic"] | None = None
    """How the scores of several become one reward: weighted sum or mean, the lowest, mean less
    disagreement, or the first one with the next breaking its ties (verdicts first, unless
    --rank-by says the order)."""
    weight: tuple[str, ...] = ()
    """Weight of a scorer in sum and mean, NAME=WEIGHT (repeatable); by default 1."""
    gate: tuple[str, ...] = ()
    """NAME>=SCORE: candidates below have no reward (repeatable)."""
    normalize: tuple[str, ...] = ()
    """[NAME=]KIND before the scores are put together (repeatable), for that scorer or for all:
    none, prompt-z (standard deviations from the prompt's mean), global-z (from the mean of all),
    rank (0 the prompt's lowest, 1 its highest)."""
    length_debias: tuple[str, ...] = ()
    """[NAME=]KIND (repeatable): take out of a scorer's scores what the response's length explains,
    by a linear or a lowess fit over all candidates; without a name, of all but verdicts."""
    uwo_penalty: float = Field(default=0.5, ge=0.0)
    """λ of uwo: mean − λ · variance of the scores."""
    kl_beta: float = Field(default=0.0, ge=0.0)
    """β of the KL penalty: reward − β · (log-probability under the sampling model − under
    --ref-model)."""

    @property
    def is_plain(self) -> bool:
        """Tell whether the scores of one scorer rank as they are."""
        said = (self.aggregate, self.weight, self.gate, self.normalize, self.length_debias)
        return not (any(said) or self.kl_beta or "," in (self.rank_by or ""))


class SelectSettings(Settings):
    """Which candidates of a ranked pool are kept."""

    panel: ClassVar[str] = "Selection"

    strategy: Literal["best", "top-k", "threshold", "majority", "weighted-majority", "soft"] = (
        "best"
    )
    """How candidates are chosen."""
    k: int = Field(default=2, ge=1)
    """Candidates kept per prompt by top-k."""
    threshold: float | None = None
    """Lowest reward of a prompt's best candidate that threshold accepts."""
    soft_lambda: float = Field(default=1.0, gt=0.0)
    """λ of soft: candidates are drawn with probability proportional to exp(reward / λ)."""
    answer_pattern: str | None = None
    """Regular expression whose last match (its first group) is a response's answer; by default
    the last number."""
    answer_column: str = "answer"
    """Input column with the right answer, for the accuracy lines."""


class PairSettings(Settings):
    """Which two candidates of a prompt become chosen and rejected."""

    panel: ClassVar[str] = "Pairs"

    strategy: Literal[
        "best-worst",
        "best-random",
        "best-second",
        "best-median",
        "max-margin",
        "sigma",
        "quantile",
        "verified",
        "k-vs-k",
    ] = "best-worst"
    """How chosen and rejected are found."""
    rule: str | None = None
    """Verdicts that say which candidates are right: math, exact, or label (the input's own).
    verified needs them (label where the pool has it, else math); with other strategies, pairs
    that are both right or both wrong are dropped."""
    min_preference_prob: float = Field(default=0.85, ge=0.5, lt=1.0)
    """η of max-margin: pairs whose preference probability σ(Δ/τ) is above it."""
    preference_temperature: float = Field(default=1.0, gt=0.0)
    """τ of max-margin."""
    max_pairs: int = Field(default=4, ge=1)
    """Pairs per prompt that max-margin keeps, widest margin first."""
    num_sigmas: float = Field(default=2.0, gt=0.0)
    """sigma rejects the candidate nearest to μ − this many σ of the prompt's rewards."""
    chosen_quantile: float = Field(default=1.0, ge=0.0, le=1.0)
    """quantile chooses the candidate nearest to this quantile of the prompt's rewards."""
    rejected_quantile: float = Field(default=0.1, ge=0.0, le=1.0)
    """quantile rejects the candidate nearest to this quantile of the prompt's rewards."""
    k: int = Field(default=2, ge=1)
    """k-vs-k pairs the k best with the k worst: best with worst, second best with second worst."""
    min_margin: str = "0"
    """Pairs whose margin is not above this are dropped: a reward difference, or a share of all
    margins (`10%` drops the smallest tenth)."""
    min_chosen: float | None = None
    """Lowest reward that a chosen response may have."""
    max_length_ratio: float | None = Field(default=None, ge=1.0)
    """Longest of the two responses over the shortest, in tokens."""
    match_length: float | None = Field(default=None, gt=0.0, le=1.0)
    """Reject only candidates whose length is within this share of the chosen one's (0.2: ±20 %)."""
    max_length: int | None = Field(default=None, ge=2)
    """Drop pairs that are the same once prompt and response are cut to so many tokens."""
    tokenizer: str | None = None
    """Tokenizer for --max-length: a hub id or a folder."""
    allow: tuple[str, ...] = ()
    """Switch a guard off by its reason (repeatable), such as --allow chosen_truncated."""

    @field_validator("min_margin", mode="before")
    @classmethod
    def _is_number_or_share(cls, value: Any) -> Any:
        value = number_as_text(value)
        if not (isinstance(value, str) and _NUMBER_OR_SHARE.fullmatch(value)):
            raise ValueError("give a number from 0, or a share such as 10%")
        return value


class FilterCommandSettings(Settings):
    """Which rows stay; docs/filter.md lists the filters and their keys."""

    panel: ClassVar[str] = "Filters"

    filter: tuple[Any, ...] = ()
    """Filter as NAME:KEY=VALUE,KEY=VALUE (repeatable, applied in order), such as
    length:max_tokens=400; in a config file a list of tables. Names: reward, difficulty, length,
    finish_reason, language, repetition, refusal, regex, margin, agreement, exact_dedup, near_dedup,
    diversity, decontaminate."""
    min_reward: float | None = None
    """Short for --filter reward:min=…; short flags come after every --filter, in this order."""
    dedup: Literal["exact", "near"] | None = None
    """Short for --filter exact_dedup or near_dedup."""
    decontaminate: tuple[str, ...] = ()
    """Short for --filter decontaminate:files=…: drop what overlaps with this evaluation file
    (repeatable)."""
    min_agreement_prob: float | None = Field(default=None, ge=0.5, le=1.0)
    """Short for --filter agreement:min_prob=…: drop pairs that the reward model does not prefer
    as labelled with this probability."""
    diversity: float | None = Field(default=None, gt=0.0, le=1.0)
    """Short for --filter diversity:threshold=…: best first, drop what is this similar to a kept
    row."""
    dropped: PlaceSetting | None = None
    """File to write what was filtered out to, each row with its filter and reason."""


class ExportSettings(Settings):
    """How the result is written."""

    panel: ClassVar[str] = "Output"

    format: str = "bon"
    """Form of the rows: bon, trl-dpo, trl-reward, trl-sft, trl-kto, trl-grpo, openrlhf,
    llama-factory, axolotl, nemo-rl, verl or ms-swift."""
    train_test_split: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of the prompts that goes to a test split; a prompt is never in both."""
    shard_mb: int = Field(default=400, ge=1)
    """Largest shard of an output folder, in MB."""
    push_to_hub: str | None = None
    """Hub dataset (org/name) to upload the result to; needs an output folder and HF_TOKEN."""
    public: bool = False
    """Make the Hub dataset public; private by default."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, the one that has the output's own name first."""
        return ("train",) if self.train_test_split is None else ("train", "test")
