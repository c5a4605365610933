"""How much a text repeats itself, by one n and by Gopher's rules (arXiv 2112.11446)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from bon.config.filters import Repetition

__all__ = ["RULES", "first_broken_rule", "repeated_share", "repetition_shares"]

RULES = (
    "duplicate_lines",
    "duplicate_line_chars",
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "duplicate_5_grams",
    "duplicate_6_grams",
    "duplicate_7_grams",
    "duplicate_8_grams",
    "duplicate_9_grams",
    "duplicate_10_grams",
)
"""In the order in which they are tried; each is a key of the filter."""
_PARAGRAPH_END = re.compile(r"\n\s*\n")


def repeated_share(units: Sequence[str], n: int) -> float:
    """Return the share of n-grams of these units that were there before, from 0 to 1.

    Fewer than n units have none: 0. One minus it is distinct-n (Li et al. 2016, arXiv 1510.03055),
    which divides by the number of words, here by that of n-grams.
    """
    grams = _grams(units, n)
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def first_broken_rule(text: str, limits: Repetition) -> tuple[int, float] | None:
    """Return the number of the first of `RULES` whose share is above its limit, and that share."""
    words = text.split()
    if len(words) < limits.min_words:
        return None
    for number, (rule, share) in enumerate(_shares(text, words)):
        if share > getattr(limits, rule):
            return number, share
    return None


def repetition_shares(text: str) -> dict[str, float]:
    """Return the share of each of `RULES`, from 0 to 1 (Table A1 of the paper).

    A repeat is a line, paragraph or n-gram from its second occurrence on; the most frequent n-gram
    counts with every occurrence, but only where it has at least two. Characters of overlapping
    n-grams count once; of n-grams the characters of words count, white space does not.
    """
    shares = dict.fromkeys(RULES, 0.0)
    shares.update(_shares(text, text.split()))
    return shares


def _shares(text: str, words: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield rule and share in the order of `RULES`; ends early where all the rest are 0."""
    lines = [line.strip() for line in text.split("\n")]
    count, chars = _repeats([line for line in lines if line])
    yield "duplicate_lines", count
    yield "duplicate_line_chars", chars
    paragraphs = [part.strip() for part in _PARAGRAPH_END.split(text)]
    count, chars = _repeats([part for part in paragraphs if part])
    yield "duplicate_paragraphs", count
    yield "duplicate_paragraph_chars", chars
    total = sum(map(len, words))
    for n in range(2, 11):
        grams = _grams(words, n)
        if len(set(grams)) == len(grams):
            return  # no n-gram repeats, so no longer one does
        if n <= 4:
            yield f"top_{n}_gram", _covered(words, _top(grams), n) / total
        else:
            yield f"duplicate_{n}_grams", _covered(words, _again(grams), n) / total


def _grams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(units[start:] for start in range(n)), strict=False))


def _repeats(pieces: list[str]) -> tuple[float, float]:
    """Return the share of pieces that are repeats, and of characters in them."""
    if not pieces:
        return 0.0, 0.0
    distinct = set(pieces)
    total = sum(map(len, pieces))
    share = (len(pieces) - len(distinct)) / len(pieces)
    return share, (total - sum(map(len, distinct))) / total


def _top(grams: list[tuple[str, ...]]) -> list[int]:
    """Return where the most frequent n-gram is; of equally frequent ones the longest counts."""
    counts = Counter(grams)
    top = max(counts.items(), key=lambda item: (item[1], sum(map(len, item[0]))))[0]
    return [place for place, gram in enumerate(grams) if gram == top]


def _again(grams: list[tuple[str, ...]]) -> list[int]:
    """Return where an n-gram is that was there before."""
    seen: set[tuple[str, ...]] = set()
    places = []
    for place, gram in enumerate(grams):
        if gram in seen:
            places.append(place)
        seen.add(gram)
    return places


def _covered(words: Sequence[str], places: list[int], n: int) -> int:
    """Count the characters of the words in the n-grams at these places, each word once."""
    chars, end = 0, 0
    for place in places:
        chars += sum(map(len, words[max(place, end) : place + n]))
        end = place + n
    return chars
