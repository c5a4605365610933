"""The requests of bench_score.py, and how much they share."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

__all__ = ["Requests", "Shape", "make_requests"]

PROMPT_SIGMA, RESPONSE_SIGMA = 0.3, 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a set of requests; lengths are medians in tokens."""

    prompt: int
    num_candidates: int
    response: int
    num_prompts: int

    def __str__(self) -> str:
        return f"{self.prompt}, {self.num_candidates}, {self.response}; {self.num_prompts}"


@dataclass(frozen=True, slots=True)
class Requests:
    """P prompts with N candidates each; the conversations in the order they arrive in."""

    shape: Shape
    prompt_length_P: list[int]
    response_length_PN: list[list[int]]
    conversations: list[tuple[int, ...]]
    """P * N rows of token ids, a prompt's candidates one after the other."""

    @property
    def num_given(self) -> int:
        """Tokens of all conversations."""
        return sum(len(tokens) for tokens in self.conversations)

    @property
    def num_distinct(self) -> int:
        """Tokens left when a prompt's are counted once: nothing else is shared."""
        return sum(self.prompt_length_P) + sum(map(sum, self.response_length_PN))

    @property
    def num_pairs(self) -> int:
        """Pairs of a distinct token and one that it sees: itself and those before it."""
        return sum(
            _triangle(prompt) + sum(response * prompt + _triangle(response) for response in row)
            for prompt, row in zip(self.prompt_length_P, self.response_length_PN, strict=True)
        )


def make_requests(shape: Shape, vocab_size: int, seed: int = 0) -> Requests:
    """Draw random token ids; 0, the pad token, is left out.

    Lengths are the evenly spaced quantiles of log-normal distributions, in random order: even one
    prompt has the length that the shape says. Prompts begin with different tokens, and so do the
    responses to one prompt.
    """
    rng = random.Random(seed)
    prompts, candidates = shape.num_prompts, shape.num_candidates
    prompt_length_P = _lengths(shape.prompt, PROMPT_SIGMA, prompts, rng)
    flat = _lengths(shape.response, RESPONSE_SIGMA, prompts * candidates, rng)
    cuts = pairwise(range(0, len(flat) + 1, candidates))
    response_length_PN = [flat[low:high] for low, high in cuts]
    ids = range(1, vocab_size)
    conversations = []
    prompt_P = _texts(prompt_length_P, ids, rng)
    for prompt, lengths in zip(prompt_P, response_length_PN, strict=True):
        conversations += [prompt + response for response in _texts(lengths, ids, rng)]
    return Requests(shape, prompt_length_P, response_length_PN, conversations)


def _lengths(median: int, sigma: float, count: int, rng: random.Random) -> list[int]:
    normal = NormalDist(0, sigma)
    quantiles = [normal.inv_cdf((number + 0.5) / count) for number in range(count)]
    lengths = [max(1, round(median * math.exp(value))) for value in quantiles]
    rng.shuffle(lengths)
    return lengths


def _texts(lengths: list[int], ids: range, rng: random.Random) -> list[tuple[int, ...]]:
    """Draw texts of the given lengths, no two of which begin with the same token."""
    firsts = rng.sample(ids, len(lengths))
    rests = [rng.choices(ids, k=length - 1) for length in lengths]
    return [(first, *rest) for first, rest in zip(firsts, rests, strict=True)]


def _triangle(length: int) -> int:
    return length * (length + 1) // 2
