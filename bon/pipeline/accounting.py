"""Rows in = rows out + drops: counted for every command, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bon.errors import AccountingError, SettingsError
from bon.records import Drop

__all__ = ["Accounting", "count_reasons", "drops_allowed"]

_MAX_EXAMPLES = 5


@dataclass
class Accounting:
    """The books of one command. A row is one input row: it becomes output or a drop, never both."""

    input_rows: int
    kept_rows: int = 0
    """Input rows that reached the output (as one or several output rows)."""
    output_rows: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    """Dropped input rows by reason."""
    candidate_drops: Counter[str] = field(default_factory=Counter)
    """Dropped single candidates by reason; their prompts live on."""
    examples: list[Drop] = field(default_factory=list)
    """A few drops, the first of each reason among them, to be shown with their places."""

    def add(self, drop: Drop) -> None:
        """Count one drop."""
        counts = self.drops if drop.candidate is None else self.candidate_drops
        counts[drop.reason] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(drop)
        elif counts[drop.reason] == 1:
            self._make_room(drop)

    def _make_room(self, drop: Drop) -> None:
        """Let the first of its reason take the place of the last of one that has two."""
        shown = Counter(map(_reason, self.examples))
        for place in reversed(range(len(self.examples))):
            if shown[_reason(self.examples[place])] > 1:
                del self.examples[place]
                self.examples.append(drop)
                return

    @property
    def num_drops(self) -> int:
        """Dropped input rows."""
        return self.drops.total()

    def close(self) -> None:
        """Check that nothing is missing.

        Raises:
            AccountingError: rows in and rows out plus drops disagree.
        """
        if self.input_rows != self.kept_rows + self.num_drops:
            raise AccountingError(
                f"{self.input_rows} input rows, but {self.kept_rows} kept and {self.num_drops} "
                "dropped",
                why="this is a bug in bon",
                next_step="please report it with the pool's pool.json; no file of the pool is lost",
            )

    def as_json(self) -> dict[str, Any]:
        """Return the books for `--json`."""
        return {
            "input_rows": self.input_rows,
            "kept_rows": self.kept_rows,
            "output_rows": self.output_rows,
            "drops": dict(sorted(self.drops.items())),
            "candidate_drops": dict(sorted(self.candidate_drops.items())),
            "drop_examples": [asdict(drop) for drop in self.examples],
        }


def count_reasons(drops: Iterable[Drop]) -> dict[str, int]:
    """Count drops by reason."""
    return dict(Counter(drop.reason for drop in drops))


def _reason(drop: Drop) -> tuple[str, bool]:
    return drop.reason, drop.candidate is None


def drops_allowed(max_drops: str | None, input_rows: int) -> float:
    """Return how many drops `--max-drops` allows: a count, or a share such as `1.5%`."""
    if max_drops is None:
        return float("inf")
    if max_drops.endswith("%"):
        return float(max_drops[:-1]) / 100 * input_rows
    if "." in max_drops:
        raise SettingsError(
            f"bad value for --max-drops: {max_drops!r}", next_step="give `20` or `1.5%`"
        )
    return float(max_drops)
