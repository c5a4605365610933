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
from bon.errors import InputError, SettingsError, did_you_mean
from bon.pipeline.filtering.dedup import needs_of
from bon.pipeline.filtering.texts import Words, slices, words
from bon.pipeline.filtering.units import Units, Verdict, View
from bon.sources.files import read_rows

__all__ = ["DecontaminateStep", "EvaluationIndex", "Match"]

_BATCH_TEXTS = 4096
_MAX_EXAMPLES = 20


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
    """Of the words of whichever of the two texts has the larger share in shared n-grams."""


class EvaluationIndex:
    """The n-grams of all evaluation texts.

    Of a text that is shorter than an n-gram, the whole counts as one where it has half an
    n-gram's words; shorter ones, such as single answers, are left out.
    """

    def __init__(self, settings: Decontaminate) -> None:
        self.n = settings.ngram
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

        A word is shared when it lies in an n-gram that both have; the share is that of either
        text's words, whichever is larger (Tulu 3, arXiv 2411.15124, section 3.2).
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
        hits: dict[int, tuple[list[int], set[int]]] = {}  # places here, places in the instance
        for place in np.flatnonzero(count_G).tolist():
            same = slice(start_G[place], start_G[place] + count_G[place])
            for owner, there in zip(
                self._owner_G[same].tolist(), self._place_G[same].tolist(), strict=True
            ):
                ours, theirs = hits.setdefault(owner, ([], set()))
                ours.append(place)
                theirs.add(there)
        spelled = texts.of(text)
        best: tuple[float, int, list[tuple[int, int]]] = (-1.0, -1, [])
        for owner, (ours, theirs) in hits.items():
            spans = _spans(ours, min(self.n, len(spelled)))
            num_words = int(self._count_I[owner])
            other = _spans(sorted(theirs), min(self.n, num_words))
            share = max(_covered(spans) / len(spelled), _covered(other) / num_words)
            if share > best[0]:
                best = (share, owner, spans)
        share, owner, spans = best
        start, end = max(spans, key=lambda span: span[1] - span[0])
        return Match(*self.instances[owner], " ".join(spelled[start:end]), share)


def _spans(places: list[int], n: int) -> list[tuple[int, int]]:
    """Join n-grams that overlap or touch into runs of words."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and place <= spans[-1][1]:
            spans[-1] = (spans[-1][0], place + n)
        else:
            spans.append((place, place + n))
    return spans


def _covered(spans: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in spans)


def _batches(settings: Decontaminate) -> Iterator[list[tuple[Instance, str]]]:
    batch: list[tuple[Instance, str]] = []
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
        missing = set(settings.columns) - columns
        if missing == set(settings.columns) and missing:
            raise _no_columns(sorted(missing)[0], file, columns)
        if not has_text:
            raise InputError(
                "the evaluation data has no text",
                where=file,
                why="none of its rows can be read, or none of their values is a text",
                next_step="check that the file holds what its name says",
            )
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


def _no_columns(name: str, file: str, columns: set[str]) -> SettingsError:
    return SettingsError(
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
        for text_U, texts in self._texts(view):
            match_T = np.full(len(texts), -1)
            for text, match in self._index.matches(texts, self._settings.max_share).items():
                match_T[text] = len(self._details)
                self._details.append(match)
            hit_U = passes_U & (match_T[text_U] >= 0)
            value_U[hit_U] = match_T[text_U][hit_U]
            passes_U &= ~hit_U
            for number, count in zip(
                *np.unique(match_T[text_U][hit_U], return_counts=True), strict=True
            ):
                self.by_file[self._details[int(number)].file] += int(count)
        return Verdict(passes_U, value_U)

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
            f"{match.share:.0%} of the words are shared with {match.where}, {match.column}: "
            f"{match.span!r}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return what matched, for the report: units by file, and the first few matches."""
        return {
            "evaluation_texts": len(self._index.instances),
            "dropped_by_file": dict(self.by_file),
            "matches": [asdict(match) for match in self._details[:_MAX_EXAMPLES]],
        }
