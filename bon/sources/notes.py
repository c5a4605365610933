"""Where rows say the scores, verdicts, finish reasons and lengths of their responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from bon.sources.scalars import is_empty, to_count, to_name, to_score, to_verdict

__all__ = ["Convert", "Notes"]

Convert: TypeAlias = Callable[[Any], Any]
"""From a stored value to what it says, none where it says no such thing."""

_OBJECTS, _COLUMNS, _PAIRS = "objects", "columns", "pairs"
_IN_OBJECTS: tuple[tuple[str, tuple[str, ...], Convert], ...] = (
    ("score", ("score", "reward"), to_score),
    ("is_correct", ("is_correct", "correct", "label"), to_verdict),
    ("finish_reason", ("finish_reason",), to_name),
    ("num_tokens", ("num_tokens",), to_count),
)
_IN_COLUMNS: tuple[tuple[str, tuple[str, ...], Convert], ...] = (
    ("score", ("score", "reward", "scores", "rewards"), to_score),
    ("is_correct", ("is_correct", "correct", "label", "labels"), to_verdict),
    ("finish_reason", ("finish_reason", "finish_reasons"), to_name),
    ("num_tokens", ("num_tokens",), to_count),
)
_OWN = frozenset({"prompt_id", "messages", "response", "candidate", "reward"})
"""Columns that together tell a row that `bon` wrote."""


class Notes:
    """Decides for a whole input where each note is; the first row that has one anywhere does.

    A row with nothing at that place has no such note: a score from another column would be of
    another scale, and scores are compared.
    """

    def __init__(self, score_name: str | None) -> None:
        self.score_name = score_name
        """The column or key that --score-column names."""
        self._places: dict[str, tuple[str, ...]] = {}

    def describe(self) -> str | None:
        """Say where the scores are, none where no row so far had any."""
        kind, *names = self._places.get("score", ("",))
        if not names:
            return None
        said = " and ".join(f"`{name}`" for name in names)
        return f"{said} of each response" if kind == _OBJECTS else said

    def read_object(self, value: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Return what a response's object says of it, and the keys that said it."""
        notes: dict[str, Any] = {}
        used = set()
        for said, keys, convert in _IN_OBJECTS:
            for key in self._names(said, keys):
                if key not in value:
                    continue
                note = convert(value[key])
                if note is None and not is_empty(value[key]):
                    continue
                if self._take(said, _OBJECTS, key):
                    if note is not None:
                        notes[said] = note
                        used.add(key)
                    break
        return notes, used

    def columns(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str, Convert]]:
        """Yield the columns of a row that may hold a note: of what, the name, and the reading."""
        for said, names, convert in _IN_COLUMNS:
            if self._places.get(said, (_COLUMNS,))[0] != _COLUMNS:
                continue
            if said == "score" and values.keys() >= _OWN:
                # The other scores are the input's, of which `reward` was made or which it replaced.
                names = ("reward", *names)
            for name in self._names(said, names):
                if name in values:
                    yield said, name, convert

    def take_column(self, said: str, name: str) -> bool:
        """Tell whether a column that fits holds the note; the first one that asks does."""
        return self._take(said, _COLUMNS, name)

    def take_pair(self, said: str, names: tuple[str, str]) -> bool:
        """Tell whether columns for chosen and rejected hold the note; the first that ask do."""
        return self._take(said, _PAIRS, *names)

    def _names(self, said: str, names: tuple[str, ...]) -> tuple[str, ...]:
        return (self.score_name,) if said == "score" and self.score_name is not None else names

    def _take(self, said: str, *place: str) -> bool:
        return self._places.setdefault(said, place) == place
