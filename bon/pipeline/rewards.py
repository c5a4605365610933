"""A pool's rewards: scores put together by a recipe when the pool is read; no model is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon import aggregation
from bon.aggregation import LengthFit, Moments
from bon.errors import InputError
from bon.kl import kl_estimates
from bon.pipeline.frames import Frame, Reading
from bon.pipeline.mapping import map_frames
from bon.pipeline.recipes import REFERENCE, Recipe
from bon.pool.pool import Pool
from bon.protocols import Mapper

__all__ = ["Ranking", "fit_ranking", "ranked_reading"]

_Floats = NDArray[np.float64]


@dataclass
class _Kl:
    """Means of the sequence estimators over the candidates that have both log-probabilities."""

    count: int = 0
    num_missing: int = 0
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("k1", "k2", "k3"), 0.0))

    def add(self, log_ratio_C: _Floats) -> None:
        known = log_ratio_C[np.isfinite(log_ratio_C)]
        self.count += len(known)
        self.num_missing += len(log_ratio_C) - len(known)
        for name, value in zip(self.totals, kl_estimates(known), strict=True):
            self.totals[name] += float(value.sum())


@dataclass(frozen=True, slots=True)
class Ranking:
    """A recipe fitted to a pool: what it takes to give every candidate its reward."""

    recipe: Recipe
    moments: dict[str, Moments] = field(default_factory=dict)
    """Of scorers that are normalised over all, by name."""
    fits: dict[str, LengthFit] = field(default_factory=dict)
    """Of scorers whose lengths are taken out, by name."""
    length_unit: str | None = None
    """`tokens` or `characters`, where lengths count."""
    kl: _Kl | None = None
    num_gated: int = 0
    """Candidates that a gate keeps from having a reward."""

    @classmethod
    def of(cls, scorer: str) -> Ranking:
        """Return the ranking by one scorer's scores as they are."""
        return cls(Recipe((scorer,)))

    @property
    def name(self) -> str:
        """What reports and `Frame.scores` call the reward."""
        return self.recipe.name

    @property
    def reads(self) -> tuple[str, ...]:
        """The scorers whose scores it needs."""
        return self.recipe.reads

    def scorers_of(self, names: Sequence[str]) -> list[str]:
        """Return names of scores with the reward's own replaced by the scorers that it needs."""
        read = [self.reads if name == self.name else (name,) for name in names]
        return list(dict.fromkeys(one for several in read for one in several))

    def as_json(self) -> dict[str, Any]:
        """Return how rewards were made, for `--json` and the dataset card."""
        said = self.recipe.as_json()
        if self.length_unit:
            said["length_unit"] = self.length_unit
            said["length_slopes"] = {k: f.slope for k, f in self.fits.items() if f.slope}
        if self.kl is not None and self.kl.count:
            # a whole response's k3 may be infinite, which JSON cannot say
            means = {
                name: total / self.kl.count if math.isfinite(total) else None
                for name, total in self.kl.totals.items()
            }
            counts = {"candidates": self.kl.count, "num_missing": self.kl.num_missing}
            said["kl"] = {**counts, **means}
        if self.recipe.gates:
            said["num_gated"] = self.num_gated
        return said

    def with_rewards(self, frame: Frame) -> Frame:
        """Return a frame with the rewards among its scores, under this ranking's name."""
        return replace(frame, scores={**frame.scores, self.name: self.rewards(frame)})

    def rewards(self, frame: Frame) -> _Floats:
        """Return the rewards of a frame's candidates, shape (C,), NaN where there is none."""
        recipe, prompt_C = self.recipe, frame.prompt_C
        scores = [self._score(frame, name, prompt_C) for name in recipe.scorers]
        reward_C = self._aggregated(np.stack(scores), prompt_C)
        if recipe.kl_beta:
            reward_C = aggregation.kl_penalised(reward_C, _log_ratios(frame), recipe.kl_beta)
        is_kept_C = np.isfinite(reward_C) & self.passes_gates(frame)
        return np.where(is_kept_C, reward_C, np.nan)

    def passes_gates(self, frame: Frame) -> NDArray[np.bool_]:
        """Tell which of a frame's candidates every gate lets through, shape (C,)."""
        return _passes_gates(frame, self.recipe)

    def _score(self, frame: Frame, name: str, prompt_C: NDArray[np.int64]) -> _Floats:
        score_C = frame.scores[name].astype(np.float64)
        if name in self.fits:
            score_C = self.fits[name].residual(score_C, _lengths(frame, self.length_unit))
        match self.recipe.normalize.get(name):
            case "prompt-z":
                return aggregation.prompt_z(score_C, prompt_C)
            case "global-z":
                return aggregation.global_z(score_C, self.moments[name])
            case "rank":
                return aggregation.prompt_rank(score_C, prompt_C)
        return score_C

    def _aggregated(self, score_KC: _Floats, prompt_C: NDArray[np.int64]) -> _Floats:
        recipe = self.recipe
        weight_K = np.array([recipe.weights.get(name, 1.0) for name in recipe.scorers])
        match recipe.aggregate:
            case None:
                only_C: _Floats = score_KC[0]
                return only_C
            case "sum":
                return aggregation.weighted_sum(score_KC, weight_K)
            case "mean":
                return aggregation.weighted_mean(score_KC, weight_K)
            case "min":
                return aggregation.worst_case(score_KC)
            case "uwo":
                return aggregation.uncertainty_weighted(score_KC, recipe.uwo_penalty)
            case "lexicographic":
                return aggregation.lexicographic(score_KC, prompt_C)
        raise ValueError(f"no aggregate {recipe.aggregate!r}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What fitting looks at in one frame."""

    scores: dict[str, _Floats]
    """Of scorers that are normalised over all, or whose lengths are taken out."""
    length_C: _Floats | None
    log_ratio_C: _Floats | None
    num_gated: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Takes out of a frame what fitting needs."""

    recipe: Recipe
    names: tuple[str, ...]
    length_unit: str | None

    def __call__(self, frame: Frame) -> _Seen:
        recipe, unit = self.recipe, self.length_unit
        return _Seen(
            {name: frame.scores[name].astype(np.float64) for name in self.names},
            None if unit is None else _lengths(frame, unit),
            _log_ratios(frame) if recipe.kl_beta else None,
            int((~_passes_gates(frame, recipe)).sum()),
        )


def fit_ranking(
    pool: Pool, recipe: Recipe, limit: int | None, mapper: Mapper | None = None
) -> Ranking:
    """Read once what a recipe needs to know of all candidates, where it needs anything.

    Holds a score and a length of each candidate while lengths are fitted, else nothing.

    Raises:
        InputError: --kl-beta, and the candidates have no log-probabilities of their own.
        PoolCorruptError: a file cannot be read back.
    """
    over_all = [name for name, kind in recipe.normalize.items() if kind == "global-z"]
    if not (over_all or recipe.length_debias or recipe.kl_beta or recipe.gates):
        return Ranking(recipe)
    unit = _length_unit(pool, limit, mapper) if recipe.length_debias else None
    kl = _Kl() if recipe.kl_beta else None
    kept: dict[str, list[_Floats]] = {name: [] for name in recipe.length_debias}
    moments = {name: Moments() for name in over_all}
    length: list[_Floats] = []
    num_gated = 0
    columns = tuple(_columns(recipe, unit))
    reading = Reading(pool, limit, tuple(recipe.reads), candidate_columns=columns)
    look = _Look(recipe, tuple(dict.fromkeys([*moments, *kept])), unit)
    for seen in map_frames(mapper, reading, look):
        for name, pieces in kept.items():
            pieces.append(seen.scores[name])
        for name in moments.keys() - kept.keys():
            moments[name].add(seen.scores[name])
        num_gated += seen.num_gated
        if seen.length_C is not None:
            length.append(seen.length_C)
        if kl is not None and seen.log_ratio_C is not None:
            kl.add(seen.log_ratio_C)
    if kl is not None and not kl.count:
        raise _no_log_probabilities(pool)
    fits = _fits(recipe, kept, length, moments)
    return Ranking(recipe, moments, fits, unit, kl, num_gated)


def _fits(
    recipe: Recipe,
    kept: dict[str, list[_Floats]],
    length: list[_Floats],
    moments: dict[str, Moments],
) -> dict[str, LengthFit]:
    """Fit the lengths of each scorer, and add what is left to its moments."""
    fits = {}
    length_C = np.concatenate([np.zeros(0), *length])
    for name, pieces in kept.items():
        score_C = np.concatenate([np.zeros(0), *pieces])
        is_linear = recipe.length_debias[name] == "linear"
        fit = aggregation.fit_linear if is_linear else aggregation.fit_lowess
        fits[name] = fit(score_C, length_C)
        if name in moments:
            moments[name].add(fits[name].residual(score_C, length_C))
    return fits


def ranked_reading(
    pool: Pool,
    ranking: Ranking | None,
    *,
    scorers: Sequence[str] = (),
    limit: int | None = None,
    prompt_columns: Sequence[str] = (),
    candidate_columns: Sequence[str] = (),
) -> Reading:
    """Read frames with the rewards among their scores, under the ranking's name.

    `scorers` are further scores that are wanted; the ranking's name may be among them.
    """
    if ranking is None or ranking.recipe.is_plain:
        names = [*(() if ranking is None else ranking.reads), *scorers]
        read = tuple(dict.fromkeys(names))
        return Reading(pool, limit, read, tuple(prompt_columns), tuple(candidate_columns))
    return Reading(
        pool,
        limit,
        tuple(ranking.scorers_of([ranking.name, *scorers])),
        tuple(prompt_columns),
        (*candidate_columns, *_columns(ranking.recipe, ranking.length_unit)),
        ranking.with_rewards,
    )


def _columns(recipe: Recipe, length_unit: str | None) -> list[str]:
    """Name the columns of candidates that making rewards needs."""
    of_lengths = {"tokens": ["num_tokens"], "characters": ["response"], None: []}
    return [*of_lengths[length_unit], *(["logprob"] if recipe.kl_beta else [])]


def _length_unit(pool: Pool, limit: int | None, mapper: Mapper | None) -> str:
    """Say how responses are measured: in tokens where every one's are known."""
    reading = Reading(pool, limit, candidate_columns=("num_tokens",))
    return "characters" if any(map_frames(mapper, reading, _lacks_tokens)) else "tokens"


def _lacks_tokens(frame: Frame) -> bool:
    return bool(frame.candidates.column("num_tokens").null_count)


def _lengths(frame: Frame, unit: str | None) -> _Floats:
    if unit == "tokens":
        column = frame.candidates.column("num_tokens")
    else:
        column = pc.utf8_length(frame.candidates.column("response"))
    lengths: _Floats = column.to_numpy().astype(np.float64)
    return lengths


def _passes_gates(frame: Frame, recipe: Recipe) -> NDArray[np.bool_]:
    """Tell which candidates every gate lets through, shape (C,); bounds as scores are stored."""
    passes_C = np.ones(frame.candidates.num_rows, np.bool_)
    for name, lowest in recipe.gates.items():
        score_C = frame.scores[name].astype(np.float64)
        passes_C &= aggregation.passes(score_C, float(np.float32(lowest)))
    return passes_C


def _log_ratios(frame: Frame) -> _Floats:
    """Return log p(response) under the sampling model less that under the reference, (C,)."""
    own = pc.fill_null(frame.candidates.column("logprob"), np.nan).to_numpy()
    ratio: _Floats = own.astype(np.float64) - frame.scores[REFERENCE]
    return ratio


def _no_log_probabilities(pool: Pool) -> InputError:
    return InputError(
        "--kl-beta needs log-probabilities under the model that sampled",
        where=str(pool.layout.root),
        why="no candidate has both its own and the reference's",
        next_step="given responses, and those of some servers, have none: sample with bon, or "
        "leave --kl-beta out",
    )
