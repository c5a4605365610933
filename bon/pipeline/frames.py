"""A pool read back as columns, part by part: what curation at scale works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.errors import PoolCorruptError
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["Frame", "frames"]

_KEYS = ("prompt_id", "candidate")


@dataclass(frozen=True, slots=True)
class Frame:
    """One part: P prompts that have candidates, and their C candidates, in the pool's order."""

    part: int
    prompts: pa.Table
    """P rows of the columns of `PROMPTS_SCHEMA` that were asked for, and `prompt_id`, `row`."""
    candidates: pa.Table
    """C rows of the columns of `CANDIDATES_SCHEMA` that were asked for, and the two keys."""
    scores: dict[str, NDArray[np.float32]]
    """By scorer, shape (C,), NaN where there is no finite score."""
    start_P: NDArray[np.int64]
    """Where each prompt's candidates begin."""
    count_P: NDArray[np.int64]
    """How many each prompt has, at least 1."""

    @property
    def prompt_C(self) -> NDArray[np.int64]:
        """The prompt of each candidate, by position, shape (C,)."""
        return np.repeat(np.arange(len(self.start_P)), self.count_P)

    def padded(self, values_C: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of the candidates as a matrix, shape (P, largest N), NaN behind the end."""
        width = int(self.count_P.max(initial=0))
        matrix_PN = np.full((len(self.count_P), width), np.nan)
        matrix_PN[np.arange(width) < self.count_P[:, None]] = values_C
        return matrix_PN


def frames(
    pool: Pool,
    *,
    scorers: Sequence[str] = (),
    limit: int | None = None,
    prompt_columns: Sequence[str] = (),
    candidate_columns: Sequence[str] = (),
) -> Iterator[Frame]:
    """Yield the pool's parts in order, with only the columns that are needed.

    The next part is read while the caller works on this one; two or three are held at a time.

    Raises:
        PoolCorruptError: a file cannot be read back, or files of one part do not belong together.
    """
    prompt_names = list(dict.fromkeys(["prompt_id", "row", *prompt_columns]))
    candidate_names = list(dict.fromkeys([*_KEYS, *candidate_columns]))

    def read(part: int) -> Frame:
        return _read(pool, part, scorers, limit, prompt_names, candidate_names)

    parts = pool.parts(limit)
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = deque(reader.submit(read, part) for part in parts[:1])
        for following in [*parts[1:], None]:
            if following is not None:
                ahead.append(reader.submit(read, following))
            if ahead:
                yield ahead.popleft().result()


def _read(
    pool: Pool,
    part: int,
    scorers: Sequence[str],
    limit: int | None,
    prompt_columns: list[str],
    candidate_columns: list[str],
) -> Frame:
    prompts = pool.read(PROMPTS, part, prompt_columns)
    candidates = pool.read(CANDIDATES, part, candidate_columns)
    scores = {name: _read_scores(pool, part, name, candidates) for name in scorers}
    start = np.flatnonzero(candidates.column("candidate").to_numpy() == 0)
    count = np.diff(start, append=candidates.num_rows)
    sampled = candidates.column("prompt_id").take(pa.array(start))
    owner = pc.index_in(sampled, prompts.column("prompt_id"))
    if owner.null_count or (np.diff(owner.to_numpy()) <= 0).any():
        raise _foreign(pool, CANDIDATES, part, "prompts")
    prompts = prompts.take(owner)
    frame = Frame(part, prompts, candidates, scores, start, count)
    if not candidates.column("prompt_id").equals(_repeated(prompts, frame)):
        raise _foreign(pool, CANDIDATES, part, "prompts")
    return frame if limit is None else _limited(frame, limit)


def _repeated(prompts: pa.Table, frame: Frame) -> pa.ChunkedArray:
    return prompts.column("prompt_id").take(pa.array(frame.prompt_C))


def _read_scores(pool: Pool, part: int, name: str, candidates: pa.Table) -> NDArray[np.float32]:
    kind = scores_kind(name)
    scores = pool.read(kind, part, [*_KEYS, "score"])
    if not candidates.select(_KEYS).equals(scores.select(_KEYS)):
        raise _foreign(pool, kind, part, "candidates")
    raw = pc.fill_null(scores.column("score"), np.nan).to_numpy()
    values: NDArray[np.float32] = np.where(np.isfinite(raw), raw, np.float32(np.nan))
    return values


def _limited(frame: Frame, limit: int) -> Frame:
    """Keep the prompts of the first input rows; rows ascend, so these come first."""
    num = int(np.searchsorted(frame.prompts.column("row").to_numpy(), limit))
    end = int(frame.count_P[:num].sum())
    return Frame(
        frame.part,
        frame.prompts.slice(0, num),
        frame.candidates.slice(0, end),
        {name: values[:end] for name, values in frame.scores.items()},
        frame.start_P[:num],
        frame.count_P[:num],
    )


def _foreign(pool: Pool, kind: str, part: int, other: str) -> PoolCorruptError:
    return PoolCorruptError(
        f"part {part} of {kind} belongs to other {other}",
        where=str(pool.layout.part(kind, part)),
        next_step="delete this file and run the same command again: only this part is redone",
    )
