"""Which candidates of one prompt are kept: rewards and answers in, candidate numbers out.

A reward that is none, NaN or infinite is missing: its candidate is not scored, is never chosen
for its reward and never counts. Ties always go to the lowest candidate number, and are counted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bon.errors import UnknownChoiceError, did_you_mean

__all__ = [
    "STRATEGIES",
    "Choice",
    "Rewards",
    "above_threshold",
    "best",
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


def choose(
    rewards_N: Rewards,
    *,
    strategy: str,
    k: int = 1,
    threshold: float = 0.0,
    soft_lambda: float = 1.0,
    answers_N: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Choice:
    """Choose among one prompt's candidates by the strategy of this name.

    `k`, `threshold`, `soft_lambda` with `seed`, and `answers_N` are read only by the strategies
    that need them.

    Raises:
        UnknownChoiceError: no such strategy.
        ValueError: a voting strategy without one answer (or none) a candidate, k below 1, or
            soft_lambda not above 0.
    """
    match strategy:
        case "best":
            return best(rewards_N)
        case "top-k":
            return top_k(rewards_N, k)
        case "threshold":
            return above_threshold(rewards_N, threshold)
        case "soft":
            return soft(rewards_N, soft_lambda, seed)
        case "majority" | "weighted-majority":
            if answers_N is None:
                raise ValueError(f"strategy {strategy!r} needs answers_N")
            vote = majority if strategy == "majority" else weighted_majority
            return vote(rewards_N, answers_N)
        case _:
            raise UnknownChoiceError(
                f"unknown strategy {strategy!r}", next_step=did_you_mean(strategy, STRATEGIES)
            )


def best(rewards_N: Rewards) -> Choice:
    """Keep the candidate with the highest reward (best-of-n)."""
    return top_k(rewards_N, 1)


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


def above_threshold(rewards_N: Rewards, lowest: float) -> Choice:
    """Keep the best candidate where its reward is at least `lowest`, else drop the prompt.

    Both as float32 stores them: a reward of 0.1 reaches 0.1, whatever it was made of.
    """
    choice = best(rewards_N)
    if choice.reason is not None:
        return choice
    reward = _as_list(rewards_N)[choice.candidates[0]]
    with np.errstate(over="ignore"):
        reaches = np.float32(reward) >= np.float32(lowest)
    if reaches:
        return choice
    detail = f"the best reward, {reward:g}, is below the threshold {lowest:g}"
    return Choice((), "below_threshold", detail, 0)


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
    detail = f"none of {num_candidates} candidates has a reward"
    return Choice((), "no_scored_candidate", detail, 0)
