"""Which candidates of a prompt are compared with each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations

__all__ = ["chosen_pairs", "num_pairs"]

_ALL_UP_TO = 8
_PAIRS_A_PLAYER = 4


def chosen_pairs(
    prompt_id: str, texts: Sequence[str], max_pairs: int | None
) -> list[tuple[int, int]]:
    """Return the pairs of places in `texts` to compare, each pair once.

    All pairs where there are at most `max_pairs`; by default all of up to 8 texts, and 4 times as
    many pairs as texts beyond. Else the texts stand in a circle, in an order drawn from the
    prompt's id and their content, and each is compared with those at drawn distances, the next one
    first: so all are connected, and no text is in more than two comparisons more than another. N
    texts are never compared in fewer than N − 1 pairs: they would fall apart into groups.
    """
    num_texts = len(texts)
    num_chosen = num_pairs(num_texts, max_pairs)
    if num_chosen == _num_all(num_texts):
        return list(combinations(range(num_texts), 2))
    circle = sorted(range(num_texts), key=lambda place: _drawn(prompt_id, texts[place]))
    others = range(2, (num_texts + 1) // 2)
    distances = [1, *sorted(others, key=lambda distance: _drawn(prompt_id, str(distance)))]
    distances += [num_texts // 2] * (num_texts % 2 == 0)  # last: half a round meets all
    pairs: dict[tuple[int, int], None] = {}
    for distance in distances:
        for start in range(num_texts):
            left, right = circle[start], circle[(start + distance) % num_texts]
            pairs[(min(left, right), max(left, right))] = None
    return list(pairs)[:num_chosen]


def num_pairs(num_texts: int, max_pairs: int | None) -> int:
    """Return how many pairs of so many texts are compared."""
    every = _num_all(num_texts)
    if max_pairs is None:
        max_pairs = every if num_texts <= _ALL_UP_TO else _PAIRS_A_PLAYER * num_texts
    return min(max(max_pairs, num_texts - 1), every)


def _num_all(num_texts: int) -> int:
    return num_texts * (num_texts - 1) // 2


def _drawn(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
