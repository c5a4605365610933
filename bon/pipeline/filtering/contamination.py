"""Rows that overlap with evaluation data: shared word n-grams, found by sorted hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.config.filters import Decontaminate
from bon.errors import InputError, SettingsError, UnknownChoiceError, did_you_mean
from bon.pipeline.filtering.dedup import needs_of
from bon.pipeline.filtering.texts import Words, slices, words
from bon.pipeline.filtering.units import Units, Verdict, View
from bon.sources.files import read_rows

__all__ = ["DecontaminateStep", "EvaluationIndex", "Match"]

_BATCH_TEXTS = 4096
_MAX_EXAMPLES = 20
_WHOSE = {"evaluation": "the evaluation text's", "text": "its", "either": "either text's"}


class Instance(NamedTuple):
    """One evaluation text: the file that was given, and where in it."""

    file: str
    where: str
    column: str


@dataclass(frozen=True, slots=True)
class Match:
    """The evaluation text that a text shares most with."""

    file: str
    where: str
    """`file:line` or `file:row n` of the evaluation text."""
    column: str
    span: str
    """The longest run of shared words, in lower case without punctuation."""
    share: float
    """Of the words that `share_of` says, in shared n-grams."""


class EvaluationIndex:
    """The n-grams of all evaluation texts.

    Of a text that is shorter than an n-gram, the whole counts as one where it has half an
    n-gram's words; shorter ones, such as single answers, are left out.
    """

    def __init__(self, settings: Decontaminate) -> None:
        self.n = settings.ngram
        self._share_of = settings.share_of
        self.shortest = (self.n + 1) // 2
        self.instances: list[Instance] = []
        hashes, owners, places, counts = [], [], [], []
        for batch in _batches(settings):
            gram_words = words(pa.array([text for _, text in batch], pa.string()))
            hash_G, first_T = gram_words.ngrams(self.n)
            length_T = np.diff(gram_words.start_T)
            owner_G = np.repeat(np.arange(len(batch)), np.diff(first_T))
            used_G = length_T[owner_G] >= self.shortest
            hashes.append(hash_G[used_G])
            owners.append((owner_G[used_G] + len(self.instances)).astype(np.int32))
            place_G = np.arange(len(hash_G)) - first_T[owner_G]
            places.append(place_G[used_G].astype(np.int32))
            counts.append(length_T)
            self.instances += [instance for instance, _ in batch]
        hash_G = np.concatenate([np.zeros(0, np.uint64), *hashes])
        order = np.argsort(hash_G, kind="stable")
        self._hash_G = hash_G[order]
        self._owner_G = np.concatenate([np.zeros(0, np.int32), *owners])[order]
        self._place_G = np.concatenate([np.zeros(0, np.int32), *places])[order]
        self._count_I = np.concatenate([np.zeros(0, np.int64), *counts])

    def matches(self, texts: pa.Array, max_share: float) -> dict[int, Match]:
        """Return by position the texts whose share with one evaluation text is above `max_share`.

        A word is shared when it lies in an n-gram that both have. By default the share is of the
        evaluation text's words, as `ngram_match` of Tulu 3's decontamination/search.py
        (allenai/open-instruct, arXiv 2411.15124) divides by the length of its query, which is a
        field of the evaluation data.
        """
        found: dict[int, Match] = {}
        for number, part in enumerate(slices(texts)):
            part_words = words(part)
            hash_G, first_T = part_words.ngrams(self.n)
            start_G = np.searchsorted(self._hash_G, hash_G, "left")
            count_G = np.searchsorted(self._hash_G, hash_G, "right") - start_G
            text_G = np.repeat(np.arange(len(part)), np.diff(first_T))
            count_G[np.diff(part_words.start_T)[text_G] < self.shortest] = 0
            base = number * len(next(slices(texts)))
            for text in np.unique(text_G[count_G > 0]).tolist():
                inside = slice(first_T[text], first_T[text + 1])
                match = self._best(part_words, text, start_G[inside], count_G[inside])
                if match.share > max_share:
                    found[base + text] = match
        return found

    def _best(
        self, texts: Words, text: int, start_G: NDArray[np.int64], count_G: NDArray[np.int64]
    ) -> Match:
        """Return the evaluation text with the largest share, the first of equals.

        All of them are counted at once: phrases such as "think step by step" are in thousands.
        """
        num_hits = count_G.sum()
        here_H = np.repeat(np.arange(len(count_G)), count_G)
        skipped_H = np.repeat(start_G - np.cumsum(count_G) + count_G, count_G)
        at_H = np.arange(num_hits) + skipped_H
        owner_H, there_H = self._owner_G[at_H], self._place_G[at_H]
        num_words = len(texts.of(text))
        owner_O = np.unique(owner_H)
        share_O = np.zeros(len(owner_O))
        if self._share_of != "evaluation":
            share_O = self._covered(owner_H, here_H, np.full(len(owner_O), num_words)) / num_words
        if self._share_of != "text":
            count_O = self._count_I[owner_O]
            share_O = np.maximum(share_O, self._covered(owner_H, there_H, count_O) / count_O)
        best = int(np.argmax(share_O))
        owner = int(owner_O[best])
        spelled = texts.of(text)
        places = np.unique(here_H[owner_H == owner]).tolist()
        start, end = max(_spans(places, min(self.n, num_words)), key=lambda span: span[1] - span[0])
        return Match(*self.instances[owner], " ".join(spelled[start:end]), float(share_O[best]))

    def _covered(
        self, owner_H: NDArray[np.int32], place_H: NDArray[np.integer], count_O: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return how many words the n-grams at these places cover for each owner, in their order.

        `count_O` has the words of the text that the places are in.
        """
        # One number for both; each n-gram's hits are in order, and a stable sort is fast on that.
        key_H = np.sort((owner_H.astype(np.int64) << 32) | place_H, kind="stable")
        owner_H, place_H = key_H >> 32, key_H & 0xFFFFFFFF
        starts_O = np.flatnonzero(np.r_[True, owner_H[1:] != owner_H[:-1]])
        n_O = np.minimum(self.n, count_O)
        last_H = np.zeros(len(key_H), bool)
        last_H[np.r_[starts_O[1:], len(key_H)] - 1] = True
        n_H = np.repeat(n_O, np.diff(starts_O, append=len(key_H)))
        # An n-gram adds the words up to where the next one of its owner begins.
        step_H = np.where(last_H, n_H, np.minimum(np.diff(place_H, append=0), n_H))
        covered: NDArray[np.int64] = np.add.reduceat(step_H, starts_O)
        return covered


def _spans(places: list[int], n: int) -> list[tuple[int, int]]:
    """Join n-grams that overlap or touch into runs of words."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and place <= spans[-1][1]:
            spans[-1] = (spans[-1][0], place + n)
        else:
            spans.append((place, place + n))
    return spans


def _batches(settings: Decontaminate) -> Iterator[list[tuple[Instance, str]]]:
    batch: list[tuple[Instance, str]] = []
    seen: set[str] = set()
    for file in settings.files:
        columns: set[str] = set()
        has_text = False
        for row in read_rows(file, settings.split):
            values = row.values or {}  # a bad row has no text to compare with
            columns |= values.keys()
            for column, value in values.items():
                if settings.columns and column not in settings.columns:
                    continue
                texts = list(_texts(value))
                has_text |= bool(texts)
                batch += [(Instance(file, row.where, column), text) for text in texts]
            if len(batch) >= _BATCH_TEXTS:
                yield batch
                batch = []
        if settings.columns and columns.isdisjoint(settings.columns):
            raise _no_column(settings.columns[0], file, columns)
        seen |= columns
        if not has_text:
            raise InputError(
                "the evaluation data has no text",
                where=file,
                why="none of its rows can be read, or none of their values is a text",
                next_step="check that the file holds what its name says",
            )
    for column in settings.columns:
        if column not in seen:
            raise _no_column(column, ", ".join(settings.files), seen)
    yield batch


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value: itself, or those in a list or an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _no_column(name: str, file: str, columns: set[str]) -> SettingsError:
    return UnknownChoiceError(
        f"the evaluation data has no column {name!r}",
        where=file,
        next_step=did_you_mean(name, columns),
    )


class DecontaminateStep:
    """`decontaminate`."""

    def __init__(self, settings: Decontaminate) -> None:
        self.needs = needs_of(settings.on, None)
        self._settings = settings
        self._index = EvaluationIndex(settings)
        self._details: list[Match] = []
        self.by_file: Counter[str] = Counter()
        """Dropped units by the evaluation file that they match."""

    def judge(self, view: View) -> Verdict:
        """Pass what shares no more than allowed with any evaluation text."""
        passes_U, value_U = np.ones(len(view), bool), np.zeros(len(view))
        found: list[Match] = []
        for text_U, texts in self._texts(view):
            match_T = np.full(len(texts), -1)
            for text, match in self._index.matches(texts, self._settings.max_share).items():
                match_T[text] = len(found)
                found.append(match)
            hit_U = passes_U & (match_T[text_U] >= 0)
            value_U[hit_U] = match_T[text_U][hit_U]
            passes_U &= ~hit_U
        return Verdict(passes_U, value_U, notes=tuple(found))

    def noted(self, verdict: Verdict) -> Verdict:
        """Keep the matches, and count them by file."""
        num_before = len(self._details)
        self._details += verdict.notes
        hit_U = ~verdict.passes_U
        value_U = np.where(hit_U, verdict.value_U + num_before, verdict.value_U)
        for number, count in zip(*np.unique(value_U[hit_U], return_counts=True), strict=True):
            self.by_file[self._details[int(number)].file] += int(count)
        return verdict._replace(value_U=value_U, notes=())

    def _texts(self, view: View) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """Yield texts, and for each unit which of them is its own; each prompt only once."""
        if self._settings.on != "response":
            prompts, of_unit_U = np.unique(view.prompt_U, return_inverse=True)
            yield of_unit_U, view.prompt_texts_P.take(pa.array(prompts))
        if self._settings.on != "prompt":
            for responses in view.responses():
                yield np.arange(len(view)), responses

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say what it overlaps with."""
        match = self._details[int(value)]
        return (
            f"{match.share:.0%} of {_WHOSE[self._settings.share_of]} words are shared with "
            f"{match.where}, {match.column}: {match.span!r}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return what matched, for the report: units by file, and the first few matches."""
        return {
            "evaluation_texts": len(self._index.instances),
            "dropped_by_file": dict(self.by_file),
            "matches": [asdict(match) for match in self._details[:_MAX_EXAMPLES]],
        }
