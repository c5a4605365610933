"""Which candidates of a prompt are kept: rewards and answers in, candidate numbers out.

A reward that is none, NaN or infinite is missing: its candidate is not scored, is never chosen
for its reward and never counts. Ties always go to the lowest candidate number, and are counted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bon.errors import UnknownChoiceError, did_you_mean

__all__ = [
    "STRATEGIES",
    "Choice",
    "Choices",
    "Rewards",
    "choose",
    "majority",
    "soft",
    "soft_probabilities",
    "top_k",
    "weighted_majority",
]

STRATEGIES = ("best", "top-k", "threshold", "majority", "weighted-majority", "soft")

Rewards: TypeAlias = Sequence[float | None] | NDArray[np.floating]
"""One reward a candidate, shape (N,), higher is better; none, NaN and infinite are missing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is kept of one prompt, or why the prompt is dropped."""

    candidates: tuple[int, ...]
    """Positions within the prompt's candidates, best first; empty when the prompt is dropped."""
    reason: str | None
    """`no_scored_candidate`, `below_threshold` or `no_answer`; none when something is kept."""
    detail: str
    """One sentence for a person on why the prompt is dropped, else empty."""
    num_tied: int
    """Candidates (answers, where answers vote) tied for the last kept place, kept or not; 1 is
    no tie, 0 a dropped prompt."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is kept of P prompts with C candidates together."""

    chosen_K: NDArray[np.int64]
    """Positions among the C candidates, prompt by prompt, of each the best first."""
    num_kept_P: NDArray[np.int64]
    """How many are kept of each prompt; 0 where it is dropped."""
    num_tied_P: NDArray[np.int64]
    """As `Choice.num_tied`."""
    dropped: dict[int, tuple[str, str]]
    """By position of a dropped prompt, ascending: its `Choice.reason` and `detail`."""


def choose(
    reward_C: NDArray[np.floating],
    count_P: NDArray[np.int64],
    *,
    strategy: str,
    k: int = 1,
    threshold: float = 0.0,
    soft_lambda: float = 1.0,
    answers_C: Sequence[str | None] | None = None,
    seeds_P: Sequence[int] | None = None,
) -> Choices:
    """Choose among the candidates of P prompts by the strategy of this name.

    `reward_C` has the C rewards one prompt after the other, `count_P` each prompt's number of
    candidates. `k`, `threshold`, `soft_lambda` with `seeds_P`, and `answers_C` are read only by
    the strategies that need them.

    - `best` (best-of-n) keeps the highest reward, `top-k` the k highest, best first, or all where
      fewer are scored. Candidates that share a reward count as tied only where some of them are
      kept and others not.
    - `threshold` keeps the best where its reward is at least `threshold`, both as float32 stores
      them: a reward of 0.1 reaches 0.1, whatever it was made of.
    - `majority`, `weighted-majority` and `soft` are the functions of these names, prompt by prompt.

    Raises:
        UnknownChoiceError: no such strategy.
        ValueError: a voting strategy without one answer (or none) a candidate, k below 1, or
            soft_lambda not above 0.
    """
    known_C: NDArray[np.float64] = np.where(np.isfinite(reward_C), reward_C, np.nan)
    match strategy:
        case "best":
            return _highest(known_C, count_P, 1)
        case "top-k":
            return _highest(known_C, count_P, k)
        case "threshold":
            return _above(_highest(known_C, count_P, 1), known_C, threshold)
        case "soft":
            seeds = [0] * len(count_P) if seeds_P is None else seeds_P
            return _one_by_one(
                known_C,
                count_P,
                lambda rewards, prompt, _: soft(rewards, soft_lambda, seeds[prompt]),
            )
        case "majority" | "weighted-majority":
            if answers_C is None:
                raise ValueError(f"strategy {strategy!r} needs answers_C")
            if len(answers_C) != len(reward_C):
                raise ValueError(f"{len(answers_C)} answers for {len(reward_C)} candidates")
            vote = majority if strategy == "majority" else weighted_majority
            return _one_by_one(
                known_C, count_P, lambda rewards, _, place: vote(rewards, answers_C[place])
            )
        case _:
            raise UnknownChoiceError(
                f"unknown strategy {strategy!r}", next_step=did_you_mean(strategy, STRATEGIES)
            )


def _highest(reward_C: NDArray[np.float64], count_P: NDArray[np.int64], k: int) -> Choices:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    num_prompts = len(count_P)
    prompt_C = np.repeat(np.arange(num_prompts), count_P)
    start_P = np.cumsum(count_P) - count_P
    is_scored_C = ~np.isnan(reward_C)
    order_C = _ranked(np.where(is_scored_C, -reward_C, np.inf), count_P, start_P)
    num_scored_P = np.bincount(prompt_C[is_scored_C], minlength=num_prompts)
    num_kept_P = np.minimum(num_scored_P, k)
    rank_C = np.arange(len(reward_C)) - start_P[prompt_C]
    chosen_K = order_C[rank_C < num_kept_P[prompt_C]]
    last_P = np.full(num_prompts, np.nan)
    some = num_kept_P > 0
    last_P[some] = reward_C[order_C[(start_P + num_kept_P - 1)[some]]]
    rest = num_scored_P > k
    is_tied_P = np.zeros(num_prompts, np.bool_)
    is_tied_P[rest] = reward_C[order_C[(start_P + k)[rest]]] == last_P[rest]
    num_same_P = np.bincount(prompt_C[reward_C == last_P[prompt_C]], minlength=num_prompts)
    num_tied_P = np.where(is_tied_P, num_same_P, some.astype(np.int64))
    details = {p: _none_scored(int(count_P[p])) for p in np.flatnonzero(~some).tolist()}
    return Choices(chosen_K, num_kept_P, num_tied_P, details)


def _ranked(
    key_C: NDArray[np.float64], count_P: NDArray[np.int64], start_P: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return positions, each prompt's by ascending key; equal ones stay in their order.

    Prompts with as many candidates are sorted as one matrix: a tenth of the time of sorting all.
    """
    order_C = np.empty(len(key_C), np.int64)
    for count in np.unique(count_P).tolist():
        place_PN = start_P[count_P == count][:, None] + np.arange(count)
        order_PN = np.argsort(key_C[place_PN], axis=1, kind="stable")
        order_C[place_PN] = np.take_along_axis(place_PN, order_PN, axis=1)
    return order_C


def _above(choices: Choices, reward_C: NDArray[np.float64], lowest: float) -> Choices:
    """Drop the prompts whose best is below the threshold."""
    prompts = np.flatnonzero(choices.num_kept_P)
    best_K = reward_C[choices.chosen_K]
    with np.errstate(over="ignore"):
        reaches_K = best_K.astype(np.float32) >= np.float32(lowest)
    below = {
        prompt: (
            "below_threshold",
            f"the best reward, {reward:g}, is below the threshold {lowest:g}",
        )
        for prompt, reward in zip(
            prompts[~reaches_K].tolist(), best_K[~reaches_K].tolist(), strict=True
        )
    }
    reaches_P = np.ones(len(choices.num_kept_P), np.bool_)
    reaches_P[list(below)] = False
    return Choices(
        choices.chosen_K[reaches_K],
        choices.num_kept_P * reaches_P,
        choices.num_tied_P * reaches_P,
        dict(sorted((choices.dropped | below).items())),
    )


def _one_by_one(
    reward_C: NDArray[np.float64],
    count_P: NDArray[np.int64],
    choose_one: Callable[[list[float], int, slice], Choice],
) -> Choices:
    rewards = reward_C.tolist()
    chosen: list[int] = []
    num_kept, num_tied = np.zeros_like(count_P), np.zeros_like(count_P)
    dropped: dict[int, tuple[str, str]] = {}
    start = 0
    for prompt, count in enumerate(count_P.tolist()):
        place = slice(start, start + count)
        choice = choose_one(rewards[place], prompt, place)
        chosen += [start + position for position in choice.candidates]
        num_kept[prompt], num_tied[prompt] = len(choice.candidates), choice.num_tied
        if choice.reason is not None:
            dropped[prompt] = choice.reason, choice.detail
        start += count
    return Choices(np.array(chosen, np.int64), num_kept, num_tied, dropped)


def top_k(rewards_N: Rewards, k: int) -> Choice:
    """Keep the k candidates with the highest rewards, best first, or all where fewer are scored.

    Candidates that share a reward count as tied only where some of them are kept and others not.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    reward_N = _as_list(rewards_N)
    ranked = _rank(reward_N)
    if not ranked:
        return _no_scored_candidate(len(reward_N))
    kept, rest = ranked[:k], ranked[k:]
    last = reward_N[kept[-1]]
    is_tied = bool(rest) and reward_N[rest[0]] == last
    num_tied = reward_N.count(last) if is_tied else 1
    return Choice(tuple(kept), None, "", num_tied)


def majority(rewards_N: Rewards, answers_N: Sequence[str | None]) -> Choice:
    """Keep the best-rewarded candidate of the answer that most candidates gave.

    Every candidate with an answer votes, scored or not. Answers with equally many votes are told
    apart by total reward, then best reward, then lowest candidate, an answer without any reward
    last; where none of the winning answer's candidates is scored, the lowest one is kept.

    Source: self-consistency, arXiv 2203.11171: argmax_a Σ_i 1[a_i = a].

    Raises:
        ValueError: not one answer (or none) a candidate.
    """
    reward_N = _as_list(rewards_N)
    groups = _by_answer(answers_N, len(reward_N))
    if not groups:
        return Choice((), "no_answer", f"none of {len(reward_N)} candidates has an answer", 0)
    num_votes = max(len(members) for members in groups)
    tied = [members for members in groups if len(members) == num_votes]
    winner = max(tied, key=lambda members: _merit(reward_N, members))
    ranked = _rank(reward_N, winner) or winner
    return Choice((ranked[0],), None, "", len(tied))


def weighted_majority(rewards_N: Rewards, answers_N: Sequence[str | None]) -> Choice:
    """Keep the best-rewarded candidate of the answer whose rewards have the highest sum.

    Only scored candidates with an answer count; equal sums are told apart by best reward, then
    lowest candidate. Meant for rewards that are not negative, such as a verifier's probability:
    each further vote with a negative reward counts against its answer.

    Source: weighted best-of-n, the voting verifier of Li et al. 2023, arXiv 2206.02336:
    argmax_a Σ_i 1[a_i = a]·r_i.

    Raises:
        ValueError: not one answer (or none) a candidate.
    """
    reward_N = _as_list(rewards_N)
    groups = _by_answer(answers_N, len(reward_N))
    if all(map(math.isnan, reward_N)):
        return _no_scored_candidate(len(reward_N))
    merits = [_merit(reward_N, members) for members in groups]
    highest = max(merits, default=_Merit(-math.inf, -math.inf, 0))
    if highest.total == -math.inf:
        return Choice((), "no_answer", "no scored candidate has an answer", 0)
    winner = groups[merits.index(highest)]
    num_tied = sum(merit.total == highest.total for merit in merits)
    return Choice((_rank(reward_N, winner)[0],), None, "", num_tied)


def soft(rewards_N: Rewards, soft_lambda: float, seed: int) -> Choice:
    """Keep one candidate drawn with `soft_probabilities` (soft best-of-n, arXiv 2505.03156).

    The draw depends on the rewards, soft_lambda and seed only: it inverts the cumulative
    distribution at a uniform number made from the seed's SHA-256, so no library's generator can
    change it. Give each prompt its own seed.

    Raises:
        ValueError: soft_lambda not above 0.
    """
    probability_N = soft_probabilities(rewards_N, soft_lambda).tolist()
    drawable = [i for i, probability in enumerate(probability_N) if probability > 0.0]
    if not drawable:
        return _no_scored_candidate(len(probability_N))
    cumulative = list(accumulate(probability_N[i] for i in drawable))
    target = _uniform(seed) * cumulative[-1]
    # Rounding may bring the target up to the total itself: then it is the last one's.
    rank = next((i for i, total in enumerate(cumulative) if total > target), -1)
    return Choice((drawable[rank],), None, "", 1)


def soft_probabilities(rewards_N: Rewards, soft_lambda: float) -> NDArray[np.float64]:
    """Return p_i ∝ exp(r_i / λ), shape (N,), 0 where unscored (all 0 where nothing is scored).

    Source: soft best-of-n, arXiv 2505.03156; λ → 0 is best-of-n, λ → ∞ a uniform draw.

    Raises:
        ValueError: soft_lambda not above 0.
    """
    if not soft_lambda > 0.0:
        raise ValueError(f"soft_lambda must be above 0, not {soft_lambda}")
    reward_N = _as_list(rewards_N)
    ranked = _rank(reward_N)
    if not ranked:
        return np.zeros(len(reward_N))
    top = reward_N[ranked[0]]
    # math.exp, not np.exp: numpy's differs in the last bit between versions and machines.
    weights = [
        0.0 if math.isnan(reward) else math.exp((reward - top) / soft_lambda) for reward in reward_N
    ]
    return np.array(weights) / math.fsum(weights)


class _Merit(NamedTuple):
    """What tells answers apart; the higher wins."""

    total: float
    """Sum of the rewards, the same in any order; -inf where none is scored."""
    top: float
    minus_candidate: int


def _merit(reward_N: Sequence[float], members: Sequence[int]) -> _Merit:
    rewards = [reward_N[i] for i in members if not math.isnan(reward_N[i])]
    total = math.fsum(rewards) if rewards else -math.inf
    return _Merit(total, max(rewards, default=-math.inf), -members[0])


def _as_list(rewards_N: Rewards) -> list[float]:
    """Rewards with NaN for every missing one."""
    values: list[float] = np.asarray(rewards_N, dtype=np.float64).tolist()
    return [value if math.isfinite(value) else math.nan for value in values]


def _rank(reward_N: Sequence[float], members: Iterable[int] | None = None) -> list[int]:
    """Scored candidates (of `members`, ascending, or of all), best first, ties by number."""
    chosen = range(len(reward_N)) if members is None else members
    scored = [i for i in chosen if not math.isnan(reward_N[i])]
    return sorted(scored, key=lambda i: -reward_N[i])


def _by_answer(answers_N: Sequence[str | None], num_candidates: int) -> list[list[int]]:
    """Candidates that share an answer, ascending; those without one are left out."""
    if len(answers_N) != num_candidates:
        raise ValueError(f"{len(answers_N)} answers for {num_candidates} candidates")
    groups: dict[str, list[int]] = {}
    for candidate, answer in enumerate(answers_N):
        if answer is not None:
            groups.setdefault(answer, []).append(candidate)
    return list(groups.values())


def _uniform(seed: int) -> float:
    """A number in [0, 1) from the first 53 bits of the seed's SHA-256."""
    digest = hashlib.sha256(f"bon-soft:{seed}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _no_scored_candidate(num_candidates: int) -> Choice:
    return Choice((), *_none_scored(num_candidates), 0)


def _none_scored(num_candidates: int) -> tuple[str, str]:
    return "no_scored_candidate", f"none of {num_candidates} candidates has a reward"
