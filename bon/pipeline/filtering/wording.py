"""Filters on the wording of one row at a time: patterns, repetition, refusals, language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bon.config.filters import Language, Refusal, Regex, Repetition
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.pipeline.filtering.phrases import REFUSALS
from bon.pipeline.filtering.units import (
    Needs,
    Units,
    Verdict,
    View,
    curation_missing,
    either_fails,
)
from bon.repetition import RULES, first_broken_rule

__all__ = ["LanguageStep", "RefusalStep", "RegexStep", "RepetitionStep"]

Look = Callable[[str], "tuple[int, float] | None"]
"""From a text to the rule that it breaks and the number that says so, none if it passes."""


def _needs_text(on: str) -> Needs:
    return Needs(prompt_columns=("prompt",)) if on == "prompt" else Needs((), ("response",))


def _look_at_each(view: View, on: str, look: Look) -> Verdict:
    """Pass the texts in which nothing is found."""
    return either_fails([_look_at(texts, look, on == "prompt") for texts in view.texts(on)])


def _look_at(texts: pa.Array, look: Look, repeat: bool) -> Verdict:
    # The prompt is the same for all of its candidates: each is looked at once.
    encoded = texts.dictionary_encode() if repeat else None
    distinct = (texts if encoded is None else encoded.dictionary).to_pylist()
    found = [look(text or "") for text in distinct]
    passes = np.array([one is None for one in found], bool)
    code = np.array([0 if one is None else one[0] for one in found], np.uint8)
    value = np.array([0.0 if one is None else one[1] for one in found], np.float64)
    if encoded is None:
        return Verdict(passes, value, code)
    index = encoded.indices.to_numpy()
    return Verdict(passes[index], value[index], code[index])


class RegexStep:
    """`regex`."""

    def __init__(self, settings: Regex) -> None:
        self.needs = _needs_text(settings.on)
        self._settings = settings
        self._search = re.compile(settings.pattern).search

    def judge(self, view: View) -> Verdict:
        """Pass texts that match, or those that do not."""
        keep, search = self._settings.keep, self._search
        return _look_at_each(
            view, self._settings.on, lambda text: None if bool(search(text)) is keep else (0, 0.0)
        )

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say that the pattern matched, or did not."""
        matches = "does not match" if self._settings.keep else "matches"
        return f"the {self._settings.on} {matches} {self._settings.pattern!r}"


class RepetitionStep:
    """`repetition`."""

    needs = _needs_text("response")

    def __init__(self, settings: Repetition) -> None:
        self._settings = settings

    def judge(self, view: View) -> Verdict:
        """Pass responses that break no rule."""
        return _look_at_each(view, "response", lambda text: first_broken_rule(text, self._settings))

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the rule, the share and its limit."""
        limit = getattr(self._settings, RULES[code])
        return f"{RULES[code]} is {value:.4g}, above {limit:g}"


class RefusalStep:
    """`refusal`."""

    needs = Needs(candidate_columns=("response",))

    def __init__(self, settings: Refusal) -> None:
        phrases = [*(REFUSALS if settings.builtin else ()), *settings.phrases]
        if settings.phrases_file is not None:
            phrases += _lines(settings)
        self._phrases = [_straight(phrase.strip().lower()) for phrase in phrases]
        self._pattern = "|".join(re.escape(phrase) for phrase in self._phrases)
        self._first_chars = settings.first_chars

    def judge(self, view: View) -> Verdict:
        """Pass responses with no such phrase near their start."""
        return either_fails([self._judge(texts) for texts in view.responses()])

    def _judge(self, texts: pa.Array) -> Verdict:
        starts = pc.utf8_slice_codeunits(texts, 0, self._first_chars)
        starts = pc.replace_substring(pc.utf8_lower(starts), "’", "'")
        hits = np.asarray(pc.match_substring_regex(starts, self._pattern).fill_null(False))
        value_U = np.zeros(len(hits))
        for place in np.flatnonzero(hits):
            start = starts[int(place)].as_py()
            value_U[place] = next(i for i, p in enumerate(self._phrases) if p in start)
        return Verdict(~hits, value_U)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the phrase."""
        return f"it says {self._phrases[int(value)]!r}"


def _straight(text: str) -> str:
    return text.replace("’", "'")


def _lines(settings: Refusal) -> list[str]:
    path = settings.phrases_file
    assert path is not None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "cannot read the phrases of the filter refusal",
            where=str(path),
            why=getattr(error, "strerror", None) or str(error),
            next_step="give phrases_file a text file with one phrase a line",
        ) from None
    return [line for line in lines if line.strip()]


class LanguageStep:
    """`language`."""

    def __init__(self, settings: Language) -> None:
        self.needs = _needs_text(settings.on)
        self._settings = settings
        self._identifier = _identifier()
        unknown = sorted(set(settings.allowed) - set(self._identifier.labels))
        if unknown:
            raise UnknownChoiceError(
                f"unknown language {unknown[0]!r}",
                where="--filter language",
                next_step=did_you_mean(unknown[0], self._identifier.labels),
            )

    def judge(self, view: View) -> Verdict:
        """Pass texts that are likely enough in one of the allowed languages."""
        return _look_at_each(view, self._settings.on, self._look)

    def _look(self, text: str) -> tuple[int, float] | None:
        probs = dict(self._identifier.rank(text[: self._settings.max_chars]))
        prob = min(1.0, sum(probs[name] for name in self._settings.allowed))
        return None if prob >= self._settings.min_prob else (0, prob)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the probability of the allowed languages."""
        names = " or ".join(self._settings.allowed)
        return f"it is {names} with probability {value:.4f}, below {self._settings.min_prob:g}"


def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError:  # others say why it does not load
        raise curation_missing("language", "py3langid") from None
    # Only normalised scores are probabilities; restricting the languages would make every text
    # one of the allowed ones.
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
