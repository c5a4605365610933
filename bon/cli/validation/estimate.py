"""What pool and output will take on the disk, at most."""

from __future__ import annotations

from dataclasses import dataclass

from bon.cli.validation.plan import PlannedRun
from bon.cost import CANDIDATE_BYTES, SCORE_BYTES, TEXT_BYTES, TOKEN_BYTES
from bon.pool.pool import CANDIDATES

__all__ = ["Estimate"]

_GATHERED_BYTES = 400
"""Of a row that is sorted first, besides its texts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes before compression, which are the most: zstd takes text to a third or less."""

    pool_bytes: int
    output_bytes: int
    formula: str

    @classmethod
    def of(cls, run: PlannedRun) -> Estimate | None:
        """Add up what the run would write; none where its input was not read.

        What is in the pool already costs nothing more.
        """
        if run.books is None or run.kind == "pool":
            return None
        prompts = run.books.kept_rows
        scorers = max(1, len(run.scorers))
        if run.kind != "prompts":
            rows = run.num_given * (CANDIDATE_BYTES + scorers * SCORE_BYTES)
            formula = "the texts, and so many bytes a response: "
            formula += f"{CANDIDATE_BYTES} + {scorers} scorers × {SCORE_BYTES}"
            size = run.num_bytes + rows
            if run.is_gathered:
                size += run.num_bytes + run.num_given * _GATHERED_BYTES
                formula += f"; to sort them first, the texts again and {_GATHERED_BYTES} a response"
            return cls(size, 2 * run.num_bytes, formula)
        settings = run.sampling
        number, length = settings.num_candidates, settings.max_tokens
        each = length * TOKEN_BYTES + CANDIDATE_BYTES + scorers * SCORE_BYTES
        left = max(0, prompts - _sampled(run))
        output = 2 * run.num_bytes + prompts * (2 * length * TEXT_BYTES + 8 * number)
        formula = (
            f"{left:,} prompts × {number:,} candidates × ({length:,} tokens × {TOKEN_BYTES} + "
            f"{each - length * TOKEN_BYTES} bytes), before compression"
        )
        return cls(run.num_bytes + left * number * each, output, formula)


def _sampled(run: PlannedRun) -> int:
    """Count the prompts whose candidates are there."""
    if run.pool is None:
        return 0
    return sum(run.pool.covers(CANDIDATES, part) for part in run.pool.layout.numbers(CANDIDATES))
