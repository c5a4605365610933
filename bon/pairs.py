"""Which two candidates of a prompt become chosen and rejected: matrices in, pairs or reasons out.

Whole batches at once: one row a prompt, one column a candidate. A reward that is NaN or infinite is
missing: its candidate is not scored. Ties always go to the lowest candidate number. A prompt's
pairs depend on its own candidates, not on the other prompts of the batch or the matrix's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.margins import is_similar, widest_pairs

__all__ = ["REASONS", "STRATEGIES", "Pairs", "draw_bits", "form_pairs"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "one_candidate": "the prompt has one candidate only",
        "no_scored_candidate": "no candidate has a reward",
        "one_scored_candidate": "only one candidate has a reward",
        "all_tied": "all rewards are equal",
        "no_verdict": "no candidate is known to be right or wrong",
        "no_right": "no candidate is right",
        "no_wrong": "no candidate is wrong",
        "no_lower_reward": "no reward is below the chosen candidate's",
        "no_pair_above_probability": "no two candidates differ enough in reward",
        "no_similar_length": "no candidate to reject is about as long as the chosen one",
    }
)
"""Why a prompt has no pair, as a sentence for a person; the first that holds is the reason."""

_Floats: TypeAlias = NDArray[np.float64]
_Ints: TypeAlias = NDArray[np.int64]
_Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The Q pairs of a batch of P prompts, and why the other prompts have none."""

    prompt_Q: _Ints
    """Row of the prompt, ascending; the pairs of one prompt widest margin first."""
    chosen_Q: _Ints
    """Number of the chosen candidate: its column."""
    rejected_Q: _Ints
    reason_P: NDArray[np.str_]
    """Empty where the prompt has a pair, else one of `REASONS`."""

    def of_chosen(self, values_PN: NDArray[Any]) -> NDArray[Any]:
        """Return the chosen candidates' values, shape (Q,)."""
        return values_PN[self.prompt_Q, self.chosen_Q]

    def of_rejected(self, values_PN: NDArray[Any]) -> NDArray[Any]:
        """Return the rejected candidates' values, shape (Q,)."""
        return values_PN[self.prompt_Q, self.rejected_Q]

    def margins(self, reward_PN: _Floats) -> _Floats:
        """Return chosen minus rejected reward, shape (Q,), NaN where one of them is missing.

        Rounded to float32, as the output stores it: a guard sees what the reader will see. A margin
        that float32 cannot hold is missing too.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            margin_Q: _Floats = self.of_chosen(reward_PN) - self.of_rejected(reward_PN)
            margin_Q = margin_Q.astype(np.float32).astype(np.float64)
        return np.where(np.isfinite(margin_Q), margin_Q, np.nan)


def form_pairs(
    reward_PN: _Floats,
    count_P: _Ints,
    *,
    strategy: str,
    right_PN: _Floats | None = None,
    length_PN: _Floats | None = None,
    match_length: float | None = None,
    seed_P: NDArray[np.integer[Any]] | None = None,
    min_preference_prob: float = 0.85,
    preference_temperature: float = 1.0,
    max_pairs: int = 4,
    num_sigmas: float = 2.0,
    chosen_quantile: float = 1.0,
    rejected_quantile: float = 0.1,
    k: int = 2,
) -> Pairs:
    """Form the pairs of P prompts with up to N candidates by the strategy of this name.

    docs/build-dpo.md says what each strategy does. Columns behind a prompt's own `count_P`
    candidates are padding. `right_PN` (1 right, 0 wrong, NaN unknown) is for verified, `seed_P` (a
    seed a prompt) for best-random; `length_PN` (one unit a prompt, NaN unknown and similar to none)
    goes with `match_length`, the share of the chosen one's length that a rejected one's may be off.

    Sources: max-margin keeps σ((r_i − r_j)/τ) > η with η `min_preference_prob` and τ
    `preference_temperature` (RS-DPO, arXiv 2402.10038); sigma rejects the nearest, above or below,
    to μ − `num_sigmas`·σ, with the population's σ (arXiv 2502.16825).

    Raises:
        UnknownChoiceError: no such strategy.
        SettingsError: chosen_quantile is not above rejected_quantile.
        ValueError: an array that is needed is missing or does not fit, or another option of the
            strategy is out of its range.
    """
    if strategy not in _FORMS:
        raise UnknownChoiceError(
            f"unknown strategy {strategy!r}", next_step=did_you_mean(strategy, _FORMS)
        )
    options = _Options(
        right_PN,
        seed_P,
        np.shape(reward_PN),
        min_preference_prob,
        preference_temperature,
        max_pairs,
        num_sigmas,
        chosen_quantile,
        rejected_quantile,
        k,
    )
    return _FORMS[strategy](_batch(reward_PN, count_P, length_PN, match_length), options)


def draw_bits(seed_P: NDArray[np.integer[Any]], num_draws: int) -> NDArray[np.uint64]:
    """Return the first random 64-bit numbers of each seed's SplitMix64, shape (P, num_draws).

    Written out here, so that no library's generator can change what a seed draws. Source: Steele,
    Lea and Flood 2014, doi 10.1145/2660193.2660195.
    """
    step_D = np.arange(1, num_draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits_PD: NDArray[np.uint64] = seed_P.astype(np.uint64)[:, None] + step_D
    bits_PD = (bits_PD ^ (bits_PD >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits_PD = (bits_PD ^ (bits_PD >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits_PD ^ (bits_PD >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class _Options:
    """What single strategies need; `shape_PN` is that of the rewards as they were given."""

    right_PN: _Floats | None
    seed_P: NDArray[np.integer[Any]] | None
    shape_PN: tuple[int, ...]
    min_preference_prob: float
    preference_temperature: float
    max_pairs: int
    num_sigmas: float
    chosen_quantile: float
    rejected_quantile: float
    k: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """What every strategy needs of the prompts; there is at least one column."""

    there_PN: _Mask
    reward_PN: _Floats
    """NaN wherever missing."""
    ascending_PN: _Floats
    """Each prompt's rewards sorted, the missing ones last."""
    num_scored_P: _Ints
    last_P: _Ints
    """Column of the highest reward in `ascending_PN`, 0 where there is none."""
    length_PN: _Floats | None
    match_length: float

    def distance(self, target_P: _Floats) -> _Floats:
        """How far each reward is from the prompt's target, above or below it."""
        return np.abs(self.reward_PN - target_P[:, None])

    def lower(self, chosen_P: _Ints) -> _Mask:
        """Whose reward is below the chosen one's."""
        return self.reward_PN < _at(self.reward_PN, chosen_P)[:, None]

    def similar(self, chosen_P: _Ints) -> _Mask:
        """Whose length is within the share of the chosen one's."""
        if self.length_PN is None:
            return self.there_PN
        length_P = _at(self.length_PN, chosen_P)
        return is_similar(length_P[:, None], self.length_PN, self.match_length)

    def reasons(self, *further: tuple[_Mask, str]) -> NDArray[np.str_]:
        """The first reason that holds; `further` ones after those that all rewards share."""
        lowest_P, highest_P = self.ascending_PN[:, 0], _at(self.ascending_PN, self.last_P)
        return _first_reason(
            (self.there_PN.sum(axis=1) == 1, "one_candidate"),
            (self.num_scored_P == 0, "no_scored_candidate"),
            (self.num_scored_P == 1, "one_scored_candidate"),
            (lowest_P == highest_P, "all_tied"),
            *further,
        )


def _batch(
    rewards_PN: _Floats, counts_P: _Ints, lengths_PN: _Floats | None, match_length: float | None
) -> _Batch:
    shape = np.shape(rewards_PN)
    reward_PN = _fitting("reward_PN", rewards_PN, shape)
    count_P = _fitting("count_P", counts_P, shape[:1])
    length_PN = None if match_length is None else _fitting("length_PN", lengths_PN, shape)
    there_PN = np.arange(reward_PN.shape[1]) < count_P[:, None]
    reward_PN = np.where(there_PN & np.isfinite(reward_PN), reward_PN, np.nan)
    ascending_PN, num_P = np.sort(reward_PN, axis=1), np.isfinite(reward_PN).sum(axis=1)
    last_P = np.maximum(num_P - 1, 0)
    return _Batch(there_PN, reward_PN, ascending_PN, num_P, last_P, length_PN, match_length or 0.0)


def _best(batch: _Batch) -> _Ints:
    return _first_lowest(-batch.reward_PN, np.isfinite(batch.reward_PN))


def _below(batch: _Batch, chosen_P: _Ints, key_PN: _Floats) -> Pairs:
    """Pair the chosen with the lowest key among the similar candidates of lower reward."""
    lower_PN = batch.lower(chosen_P)
    open_PN = lower_PN & batch.similar(chosen_P)
    reason_P = batch.reasons(
        (_is_empty(lower_PN), "no_lower_reward"), (_is_empty(open_PN), "no_similar_length")
    )
    return _one_each(chosen_P, _first_lowest(key_PN, open_PN), reason_P)


def _best_worst(batch: _Batch, _: _Options) -> Pairs:
    return _below(batch, _best(batch), batch.reward_PN)


def _best_random(batch: _Batch, options: _Options) -> Pairs:
    seed_P = _fitting("seed_P", options.seed_P, options.shape_PN[:1])
    # One draw a candidate, the lowest wins: even among whichever may be rejected.
    drawn_PN = draw_bits(seed_P, batch.reward_PN.shape[1])
    return _below(batch, _best(batch), drawn_PN.astype(np.float64))


def _best_second(batch: _Batch, _: _Options) -> Pairs:
    return _below(batch, _best(batch), -batch.reward_PN)


def _best_median(batch: _Batch, _: _Options) -> Pairs:
    median_P = _at(batch.ascending_PN, batch.last_P // 2)  # the lower of two middles
    return _below(batch, _best(batch), batch.distance(median_P))


def _sigma(batch: _Batch, options: _Options) -> Pairs:
    if not options.num_sigmas > 0.0:
        raise ValueError(f"num_sigmas must be above 0, not {options.num_sigmas}")
    num_P = np.maximum(batch.num_scored_P, 1)
    mean_P = _row_sums(batch.reward_PN) / num_P
    sigma_P = np.sqrt(_row_sums((batch.reward_PN - mean_P[:, None]) ** 2) / num_P)
    return _below(batch, _best(batch), batch.distance(mean_P - options.num_sigmas * sigma_P))


def _row_sums(values_PN: _Floats) -> _Floats:
    # One after the other: np.sum groups its terms by the width, which padding changes.
    return np.cumsum(np.where(np.isnan(values_PN), 0.0, values_PN), axis=1)[:, -1]


def _quantile(batch: _Batch, options: _Options) -> Pairs:
    high, low = options.chosen_quantile, options.rejected_quantile
    if not 0.0 <= low < high <= 1.0:
        raise SettingsError(
            f"chosen_quantile {high:g} is not above rejected_quantile {low:g}",
            next_step="give two quantiles from 0 to 1, the chosen one's the higher",
        )
    off_chosen_PN = batch.distance(_interpolated(batch, high))
    chosen_P = _first_lowest(off_chosen_PN, np.isfinite(batch.reward_PN))
    return _below(batch, chosen_P, batch.distance(_interpolated(batch, low)))


def _interpolated(batch: _Batch, quantile: float) -> _Floats:
    """Each prompt's quantile as np.quantile has it by default; of ragged rows it has none."""
    place_P = quantile * batch.last_P
    lower_P = np.floor(place_P).astype(np.int64)
    low_P = _at(batch.ascending_PN, lower_P)
    high_P = _at(batch.ascending_PN, np.minimum(lower_P + 1, batch.last_P))
    share_P, gap_P = place_P - lower_P, high_P - low_P
    # From the nearer end, so that a share of 1 gives the upper value itself.
    return np.where(share_P < 0.5, low_P + gap_P * share_P, high_P - gap_P * (1.0 - share_P))


def _verified(batch: _Batch, options: _Options) -> Pairs:
    """Pair the best-rewarded right with the worst-rewarded wrong one, unscored ones last."""
    right_PN = _fitting("right_PN", options.right_PN, options.shape_PN)
    is_right_PN, is_wrong_PN = ((right_PN == x) & batch.there_PN for x in (1.0, 0.0))
    unscored_PN = np.isnan(batch.reward_PN)
    chosen_P = _first_lowest(np.where(unscored_PN, np.inf, -batch.reward_PN), is_right_PN)
    open_PN = is_wrong_PN & batch.similar(chosen_P)
    rejected_P = _first_lowest(np.where(unscored_PN, np.inf, batch.reward_PN), open_PN)
    reason_P = _first_reason(
        (batch.there_PN.sum(axis=1) == 1, "one_candidate"),
        (_is_empty(is_right_PN | is_wrong_PN), "no_verdict"),
        (_is_empty(is_right_PN), "no_right"),
        (_is_empty(is_wrong_PN), "no_wrong"),
        (_is_empty(open_PN), "no_similar_length"),
    )
    return _one_each(chosen_P, rejected_P, reason_P)


def _max_margin(batch: _Batch, options: _Options) -> Pairs:
    min_prob, temperature = options.min_preference_prob, options.preference_temperature
    if not 0.5 <= min_prob < 1.0 or not temperature > 0.0 or options.max_pairs < 1:
        raise ValueError(
            "max-margin needs min_preference_prob in [0.5, 1), preference_temperature > 0 and "
            f"max_pairs >= 1, not {min_prob}, {temperature} and {options.max_pairs}"
        )
    threshold = temperature * math.log(min_prob / (1.0 - min_prob))
    widest_P = _at(batch.ascending_PN, batch.last_P) - batch.ascending_PN[:, 0]
    prompt_Q, chosen_Q, rejected_Q = widest_pairs(
        batch.reward_PN, batch.length_PN, threshold, batch.match_length, options.max_pairs
    )
    has_none_P = np.bincount(prompt_Q, minlength=len(widest_P)) == 0
    reason_P = batch.reasons(
        (~(widest_P > threshold), "no_pair_above_probability"), (has_none_P, "no_similar_length")
    )
    return Pairs(prompt_Q, chosen_Q, rejected_Q, reason_P)


def _k_vs_k(batch: _Batch, options: _Options) -> Pairs:
    """Give each of the best in turn the worst one that is left below it and similar."""
    k = options.k
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    reward_PN = batch.reward_PN
    num_prompts, width = reward_PN.shape
    best_first_PN = np.argsort(-reward_PN, axis=1, kind="stable")
    descending_PN = np.take_along_axis(reward_PN, best_first_PN, axis=1)
    # Where the i-th best is above the i-th worst; so far the best and the worst cannot overlap.
    num_pairs_P = (descending_PN[:, :k] > batch.ascending_PN[:, :k]).sum(axis=1)
    left_PN = np.zeros(reward_PN.shape, dtype=bool)
    np.put_along_axis(left_PN, best_first_PN, np.arange(width) >= num_pairs_P[:, None], axis=1)
    found = [(np.empty(0, np.int64),) * 3]
    for i in range(int(num_pairs_P.max(initial=0))):
        chosen_P = best_first_PN[:, i]
        open_PN = left_PN & batch.lower(chosen_P) & batch.similar(chosen_P)
        rejected_P = _first_lowest(reward_PN, open_PN)
        prompt_Q = np.flatnonzero((i < num_pairs_P) & open_PN.any(axis=1))
        left_PN[prompt_Q, rejected_P[prompt_Q]] = False
        found.append((prompt_Q, chosen_P[prompt_Q], rejected_P[prompt_Q]))
    prompt_Q, chosen_Q, rejected_Q = (np.concatenate(parts) for parts in zip(*found, strict=True))
    margin_Q = reward_PN[prompt_Q, chosen_Q] - reward_PN[prompt_Q, rejected_Q]
    order_Q = np.lexsort((rejected_Q, chosen_Q, -margin_Q, prompt_Q))
    has_none_P = np.bincount(prompt_Q, minlength=num_prompts) == 0
    reason_P = batch.reasons((has_none_P, "no_similar_length"))
    return Pairs(prompt_Q[order_Q], chosen_Q[order_Q], rejected_Q[order_Q], reason_P)


def _first_lowest(key_PN: _Floats, open_PN: _Mask) -> _Ints:
    """The first column of the lowest key, infinite ones too, of the open ones; 0 where none is."""
    masked_PN = np.where(open_PN, key_PN, np.inf)
    lowest_P1 = masked_PN.min(axis=1, keepdims=True)
    column_P: _Ints = (open_PN & (masked_PN == lowest_P1)).argmax(axis=1)
    return column_P


def _is_empty(mask_PN: _Mask) -> _Mask:
    return np.logical_not(mask_PN.any(axis=1))


def _at(values_PN: _Floats, column_P: _Ints) -> _Floats:
    values_P: _Floats = values_PN[np.arange(len(values_PN)), column_P]
    return values_P


def _one_each(chosen_P: _Ints, rejected_P: _Ints, reason_P: NDArray[np.str_]) -> Pairs:
    prompt_Q = np.flatnonzero(reason_P == "")
    return Pairs(prompt_Q, chosen_P[prompt_Q], rejected_P[prompt_Q], reason_P)


def _first_reason(*cases: tuple[_Mask, str]) -> NDArray[np.str_]:
    names = np.array(["", *(name for _, name in cases)])
    code_P = np.select([mask for mask, _ in cases], range(1, len(names)), 0)
    reason_P: NDArray[np.str_] = names[code_P]
    return reason_P


def _fitting(name: str, values: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any]:
    if values is None or np.shape(values) != shape:
        got = "nothing" if values is None else f"shape {np.shape(values)}"
        raise ValueError(f"{name} must have shape {shape}, got {got}")
    # The lowest of no columns is an error, the lowest of a missing value is not.
    return np.asarray(values) if shape[-1] or len(shape) == 1 else np.full((shape[0], 1), np.nan)


_FORMS: Mapping[str, Callable[[_Batch, _Options], Pairs]] = {
    "best-worst": _best_worst,
    "best-random": _best_random,
    "best-second": _best_second,
    "best-median": _best_median,
    "max-margin": _max_margin,
    "sigma": _sigma,
    "quantile": _quantile,
    "verified": _verified,
    "k-vs-k": _k_vs_k,
}
STRATEGIES = tuple(_FORMS)
