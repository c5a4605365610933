"""Rows with nearly the same text: near duplicates, and a diverse choice by score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.config.filters import Diversity, NearDedup
from bon.filters import best_of_groups
from bon.pipeline.filtering.dedup import Compared, Rows, needs_of
from bon.pipeline.filtering.minhash import Hasher, Signatures, clusters, diverse
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.units import Units, Verdict, View

__all__ = ["DiversityStep", "NearDedupStep"]


@dataclass(frozen=True, slots=True)
class _Signatures:
    """A frame's rows, each with its signature."""

    rows: Rows
    signature_E: Signatures


@dataclass(frozen=True, slots=True)
class _Sign:
    """Makes the signatures of a view's texts."""

    hasher: Hasher
    on: str
    scorer: str | None

    def __call__(self, view: View) -> _Signatures:
        rows = Rows.of(view, self.on, self.scorer)
        places = pa.array(rows.first_E)
        texts = []
        if self.on != "response":
            texts += view.texts("prompt")
        if self.on != "prompt":
            texts += view.responses()
        parts = self.hasher.signatures([column.take(places) for column in texts])
        return _Signatures(rows, np.concatenate(list(parts)))


class _Signed:
    """What is compared, each with its signature."""

    def __init__(self, on: str, num_perm: int) -> None:
        self.compared = Compared(on)
        self._num_perm = num_perm
        self._signatures: Signatures = np.zeros((0, num_perm), np.uint32)

    def begin(self, max_units: int) -> None:
        # Memory that is not written to is not taken, so the most there can be costs nothing.
        self._signatures = np.empty((max_units, self._num_perm), np.uint32)

    def take(self, seen: _Signatures, numbers: PromptNumbers) -> None:
        start = self.compared.num
        new = self.compared.add(seen.rows, numbers)
        self._signatures[start : start + len(new)] = seen.signature_E[new]

    @property
    def signature_E(self) -> Signatures:
        return self._signatures[: self.compared.num]

    def forget(self) -> None:
        self._signatures = np.zeros((0, self._num_perm), np.uint32)


class NearDedupStep:
    """`near_dedup`."""

    def __init__(self, settings: NearDedup, scorer: str | None, seed: int) -> None:
        self.needs = needs_of(settings.on, scorer)
        self._settings = settings
        hasher = Hasher(settings.ngram, settings.num_perm, seed, settings.name)
        self._bands = hasher.bands(settings.threshold, settings.bands, settings.rows)
        self.look = _Sign(hasher, settings.on, scorer)
        self._signed = _Signed(settings.on, settings.num_perm)

    def begin(self, max_units: int) -> None:
        """Make room for the signatures."""
        self._signed.begin(max_units)

    def take(self, seen: _Signatures, numbers: PromptNumbers) -> None:
        """Take in the texts' signatures."""
        self._signed.take(seen, numbers)

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass the best-scored of each cluster."""
        compared = self._signed.compared
        by_prompt = self._settings.scope == "prompt"
        cluster_E = clusters(
            self._signed.signature_E,
            self._settings.threshold,
            *self._bands,
            group_E=compared.prompt_E if by_prompt else None,
        )
        self._signed.forget()
        return compared.verdict(best_of_groups(compared.score_E, cluster_E), units)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say which one of its cluster was kept."""
        return f"nearly the same text as {units.place(int(value))}, which was kept"


class DiversityStep:
    """`diversity`."""

    def __init__(self, settings: Diversity, scorer: str, seed: int) -> None:
        self.needs = needs_of(settings.on, scorer)
        self._settings = settings
        hasher = Hasher(settings.ngram, settings.num_perm, seed, settings.name)
        self._bands = hasher.bands(settings.threshold, None, None)
        self.look = _Sign(hasher, settings.on, scorer)
        self._signed = _Signed(settings.on, settings.num_perm)

    def begin(self, max_units: int) -> None:
        """Make room for the signatures."""
        self._signed.begin(max_units)

    def take(self, seen: _Signatures, numbers: PromptNumbers) -> None:
        """Take in the texts' signatures."""
        self._signed.take(seen, numbers)

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass what is unlike everything better that was kept."""
        compared = self._signed.compared
        order = np.argsort(-compared.score_E, kind="stable")  # NaN, no score, comes last
        kept_E = diverse(
            self._signed.signature_E,
            order,
            self._settings.threshold,
            *self._bands,
            max_rows=self._settings.max_rows,
        )
        self._signed.forget()
        verdict = compared.verdict(np.maximum(kept_E, 0), units)
        full_E = kept_E < 0
        full_U = full_E[compared.of_unit_U]
        return Verdict(verdict.passes_U & ~full_U, verdict.value_U, full_U.astype(np.uint8))

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say which better one it is like, or that enough were kept."""
        if code:
            return f"{self._settings.max_rows} that come before it by score were kept already"
        return f"too much like {units.place(int(value))}, which comes before it by score"
