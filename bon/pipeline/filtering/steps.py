"""From the settings of filters to the steps that carry them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bon.config import filters as config
from bon.config.filters import FilterSettings
from bon.errors import SettingsError, did_you_mean
from bon.pipeline.filtering.contamination import DecontaminateStep
from bon.pipeline.filtering.dedup import ExactDedupStep
from bon.pipeline.filtering.ranking import DifficultyStep, MarginShareStep, RankStep
from bon.pipeline.filtering.rowwise import (
    AgreementStep,
    FinishReasonStep,
    LengthStep,
    RewardStep,
)
from bon.pipeline.filtering.similar import DiversityStep, NearDedupStep
from bon.pipeline.filtering.units import GlobalStep, Kind, RowStep, Units
from bon.pipeline.filtering.wording import LanguageStep, RefusalStep, RegexStep, RepetitionStep

__all__ = [
    "LAST_STEP",
    "NEED_SCORES",
    "READ_WORDING",
    "Compiled",
    "check_filters",
    "check_kinds",
    "compile_filter",
]

_SCORE_FIRST = (
    "give a reward model with -r (a pool is scored with `bon score`), name the column of the "
    "input's own scores with --score-column, or leave the filter out"
)
_MAX_FILTERS = 255  # a dropped row holds its filter's number in one byte
NEED_SCORES = frozenset({"reward", "margin", "agreement", "diversity"})
"""Names of the filters that cannot do without scores."""
READ_WORDING = frozenset(
    {"language", "repetition", "refusal", "regex", "decontaminate", "near_dedup", "diversity"}
)
"""Names of the filters that take long: they look at each text's words."""
LAST_STEP = 128
"""Added to the codes of a filter's last step, so that its details are told apart."""


@dataclass
class Compiled:
    """One filter's steps: those that see a row at a time, then one that sees them all."""

    settings: FilterSettings
    rows: list[RowStep] = field(default_factory=list)
    last: GlobalStep | None = None

    @property
    def steps(self) -> list[RowStep | GlobalStep]:
        """All of them, in their order."""
        return [*self.rows, *([] if self.last is None else [self.last])]

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say in one sentence why a unit was dropped."""
        if self.last is not None and code >= LAST_STEP:
            return self.last.detail(code - LAST_STEP, value, units)
        return self.rows[0].detail(code, value, units)

    def extra(self) -> dict[str, Any]:
        """Return what only this filter reports."""
        return next((s.as_json() for s in self.rows if isinstance(s, DecontaminateStep)), {})


def check_filters(
    filters: Sequence[FilterSettings],
    *,
    kind: Kind,
    scorer: str | None,
    scorers: Sequence[str],
) -> None:
    """Find what would stop a run before it reads anything.

    `scorer` ranks, none where there is none; `scorers` are all that the pool has.

    Raises:
        SettingsError: a filter that is not for this kind, or that needs scores that are not there.
    """
    check_kinds(filters, kind)
    for one in filters:
        named = getattr(one, "scorer", None)
        if named is not None and named not in scorers:
            raise SettingsError(
                f"there is no scorer {named!r}",
                where=f"the filter {one.name}",
                next_step=did_you_mean(named, scorers) if scorers else _SCORE_FIRST,
            )
        if one.name in NEED_SCORES and named is None and scorer is None:
            raise SettingsError(
                f"the filter {one.name} needs scores, and there are none",
                where="--filter",
                next_step=_SCORE_FIRST,
            )


def check_kinds(filters: Sequence[FilterSettings], kind: Kind) -> None:
    """Find filters that are for other rows.

    Raises:
        SettingsError: a filter that is not for this kind, or too many of them.
    """
    if len(filters) > _MAX_FILTERS:
        raise SettingsError(
            f"{len(filters)} filters are too many", next_step=f"give at most {_MAX_FILTERS}"
        )
    for one in filters:
        if kind not in one.kinds:
            (other,) = one.kinds
            raise SettingsError(
                f"the filter {one.name} is for {other}, these are {kind}",
                where="--filter",
                next_step=_other_filter(one.name),
            )


def _other_filter(name: str) -> str:
    instead = {"reward": "margin", "margin": "reward"}.get(name)
    return f"use {instead} for these" if instead else "leave it out"


def compile_filter(one: FilterSettings, scorer: str | None, seed: int) -> Compiled:
    """Return the steps of one filter; reads evaluation data and loads what the filter needs.

    Raises:
        SettingsError: a file, a language or a library that is not there.
    """
    named = getattr(one, "scorer", None) or scorer
    match one:
        case config.Reward():
            return _compile_reward(one, named or "")
        case config.Margin() if one.min.endswith("%"):
            return Compiled(one, [], MarginShareStep(one, named or ""))
        case config.Margin():
            return Compiled(one, [RewardStep.of_margin(one, named or "")])
        case config.Agreement():
            return Compiled(one, [AgreementStep(one, named or "")])
        case config.Difficulty():
            return Compiled(one, [], DifficultyStep(one))
        case config.ExactDedup():
            return Compiled(one, [], ExactDedupStep(one, named))
        case config.NearDedup():
            return Compiled(one, [], NearDedupStep(one, named, seed))
        case config.Diversity():
            return Compiled(one, [], DiversityStep(one, named or "", seed))
    return Compiled(one, [_ROW_STEPS[type(one)](one)])


_ROW_STEPS: dict[type[FilterSettings], Callable[[Any], RowStep]] = {
    config.Length: LengthStep,
    config.FinishReason: FinishReasonStep,
    config.Language: LanguageStep,
    config.Repetition: RepetitionStep,
    config.Refusal: RefusalStep,
    config.Regex: RegexStep,
    config.Decontaminate: DecontaminateStep,
}


def _compile_reward(one: config.Reward, scorer: str) -> Compiled:
    compiled = Compiled(one)
    if one.min is not None or one.max is not None:
        compiled.rows.append(RewardStep.of_reward(one, scorer))
    if one.min_quantile is not None or one.top_k is not None:
        compiled.last = RankStep(one, scorer)
    return compiled
