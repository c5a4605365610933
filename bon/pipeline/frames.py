"""A pool read back as columns, some parts at a time: what curation at scale works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
_FRAME_ROWS = 16_384
"""Candidates held at a time, about; a part is never cut."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A few parts: P prompts that have candidates, and their C candidates, in the pool's order."""

    parts: tuple[int, ...]
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

    Small parts come together: work on columns costs much the same for few rows as for many. The
    next frame is read while the caller works on this one; two or three are held at a time.

    Raises:
        PoolCorruptError: a file cannot be read back, or files of one part do not belong together.
    """
    prompt_names = list(dict.fromkeys(["prompt_id", "row", *prompt_columns]))
    candidate_names = list(dict.fromkeys([*_KEYS, *candidate_columns]))

    def read(parts: tuple[int, ...]) -> Frame:
        return _read(pool, parts, scorers, limit, prompt_names, candidate_names)

    groups = _groups(pool, pool.parts(limit))
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = deque(reader.submit(read, parts) for parts in groups[:1])
        for following in [*groups[1:], None]:
            if following is not None:
                ahead.append(reader.submit(read, following))
            if ahead:
                yield ahead.popleft().result()


def _groups(pool: Pool, parts: list[int]) -> list[tuple[int, ...]]:
    """Cut into runs of parts with about `_FRAME_ROWS` candidates, by the first part's number."""
    rows = pool.num_rows(CANDIDATES, parts[0]) if parts else 1
    size = max(1, _FRAME_ROWS // max(1, rows))
    return [tuple(parts[start : start + size]) for start in range(0, len(parts), size)]


def _read(
    pool: Pool,
    parts: tuple[int, ...],
    scorers: Sequence[str],
    limit: int | None,
    prompt_columns: list[str],
    candidate_columns: list[str],
) -> Frame:
    prompts = _joined(pool.read(PROMPTS, part, prompt_columns) for part in parts)
    of_parts = [pool.read(CANDIDATES, part, candidate_columns) for part in parts]
    scores = {
        name: np.concatenate(
            [
                _read_scores(pool, part, name, candidates)
                for part, candidates in zip(parts, of_parts, strict=True)
            ]
        )
        for name in scorers
    }
    candidates = _joined(of_parts)
    start = np.flatnonzero(candidates.column("candidate").to_numpy() == 0)
    count = np.diff(start, append=candidates.num_rows)
    sampled = candidates.column("prompt_id").take(pa.array(start))
    owner = pc.index_in(sampled, prompts.column("prompt_id"))
    fits = owner.null_count == 0 and bool((np.diff(owner.to_numpy()) > 0).all())
    if fits:
        prompts = prompts.take(owner)
        frame = Frame(parts, prompts, candidates, scores, start, count)
        repeated = prompts.column("prompt_id").take(pa.array(frame.prompt_C))
        if candidates.column("prompt_id").equals(repeated):
            return frame if limit is None else _limited(frame, limit)
    for part in parts if len(parts) > 1 else ():  # find out which
        _read(pool, (part,), scorers, limit, prompt_columns, candidate_columns)
    raise _foreign(pool, CANDIDATES, parts[0], "prompts")


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    # One chunk a column: taking rows from many is slow.
    return pa.concat_tables(tables).combine_chunks()


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
        frame.parts,
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
