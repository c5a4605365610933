"""What a filter run did: the books, and the counts of each filter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bon.pipeline.accounting import Accounting
from bon.pipeline.filtering.units import Kind, Units

__all__ = ["FilterCount", "FilterReport", "label_filters", "reasons_of_prompts"]

ALL_FILTERED = "all_filtered"
"""Reason of a prompt whose candidates were all dropped, by more than one filter."""


@dataclass
class FilterCount:
    """One filter's counts, in units: candidates, or pairs."""

    name: str
    """Its name, with a number behind it where a filter is there more than once."""
    settings: dict[str, Any]
    num_in: int
    num_dropped: int
    num_flipped: int = 0
    """Pairs whose chosen and rejected changed places."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What only this filter reports, such as the matches of decontaminate."""

    @property
    def num_kept(self) -> int:
        """Units that went on to the next filter."""
        return self.num_in - self.num_dropped

    def as_json(self) -> dict[str, Any]:
        """Return the counts for `--json`."""
        return {
            "name": self.name,
            "settings": self.settings,
            "num_in": self.num_in,
            "num_kept": self.num_kept,
            "num_dropped": self.num_dropped,
            "num_flipped": self.num_flipped,
            **self.extra,
        }


@dataclass
class FilterReport:
    """What filtering did."""

    accounting: Accounting
    kind: Kind
    scorer: str | None
    num_units: int
    """Candidates, or pairs, before the first filter."""
    filters: list[FilterCount] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            **self.accounting.as_json(),
            "kind": self.kind,
            "scorer": self.scorer,
            self.kind: self.num_units,
            f"{self.kind}_kept": self.accounting.output_rows,
            "filters": [one.as_json() for one in self.filters],
        }


def label_filters(names: list[str]) -> list[str]:
    """Return the names, the second of one name with `_2` behind it, and so on."""
    return [
        name if (count := names[: place + 1].count(name)) == 1 else f"{name}_{count}"
        for place, name in enumerate(names)
    ]


def reasons_of_prompts(units: Units, labels: list[str]) -> list[str | None]:
    """Return for each prompt why it is dropped, none where a unit of it lives.

    The filter's name where one filter took all that the prompt had, else `all_filtered`.
    """
    if not len(units.count_P):
        return []
    start_P = units.start_P
    lowest_P = np.minimum.reduceat(units.reason_U, start_P)
    highest_P = np.maximum.reduceat(units.reason_U, start_P)
    names: list[str | None] = [None, *labels, ALL_FILTERED]
    index_P = np.where(lowest_P == highest_P, lowest_P.astype(np.int64), len(labels) + 1)
    index_P[lowest_P == 0] = 0
    return [names[index] for index in index_P.tolist()]
