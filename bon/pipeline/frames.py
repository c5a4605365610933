"""A pool read back as columns, some parts at a time: what curation at scale works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.errors import PoolCorruptError
from bon.pool.files import REDO
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["Frame", "Reading", "frame_groups", "frames"]

_KEYS = ("prompt_id", "candidate")
_FRAME_ROWS = 16_384
"""Candidates in a frame, at most, where it has several parts."""
_FRAME_BYTES = 64 << 20
"""Bytes of prompts and candidates in a frame, about; a prompt is never cut."""


@dataclass(frozen=True, slots=True)
class Frame:
    """P prompts that have candidates, and their C candidates, in the pool's order."""

    parts: tuple[int, ...]
    """The parts that they are from."""
    prompts: pa.Table
    """P rows of the columns of `PROMPTS_SCHEMA` that were asked for, and `prompt_id`, `row`."""
    candidates: pa.Table
    """C rows of the columns of `CANDIDATES_SCHEMA` that were asked for, and the two keys."""
    scores: dict[str, NDArray[np.floating]]
    """By scorer, shape (C,), NaN where there is no finite score; rewards that several scorers make
    together are float64, so that none of their order is lost."""
    start_P: NDArray[np.int64]
    """Where each prompt's candidates begin."""
    count_P: NDArray[np.int64]
    """How many each prompt has, at least 1."""

    @property
    def prompt_C(self) -> NDArray[np.int64]:
        """The prompt of each candidate, by position, shape (C,)."""
        return np.repeat(np.arange(len(self.start_P)), self.count_P)

    def padded(self, values_C: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return values of the candidates as a matrix, shape (P, largest N), NaN behind the end."""
        width = int(self.count_P.max(initial=0))
        matrix_PN = np.full((len(self.count_P), width), np.nan)
        matrix_PN[np.arange(width) < self.count_P[:, None]] = values_C
        return matrix_PN


@dataclass(frozen=True, slots=True)
class Reading:
    """Which columns of a pool's frames are read; can be pickled, so that processes share them."""

    pool: Pool
    limit: int | None = None
    scorers: tuple[str, ...] = ()
    prompt_columns: tuple[str, ...] = ()
    candidate_columns: tuple[str, ...] = ()
    added: Callable[[Frame], Frame] | None = None
    """Adds what is computed of the rest, such as rewards."""

    def read(self, parts: tuple[int, ...]) -> Frame:
        """Read the parts of a group.

        Raises:
            PoolCorruptError: a file cannot be read back, or files of one part do not belong
                together.
        """
        prompts = list(dict.fromkeys(["prompt_id", "row", *self.prompt_columns]))
        candidates = list(dict.fromkeys([*_KEYS, *self.candidate_columns]))
        return _read(self.pool, parts, self.scorers, self.limit, prompts, candidates)

    def pieces(self, whole: Frame) -> Iterator[Frame]:
        """Cut what was read of a group into frames, with what is added to them."""
        for frame in _pieces(whole):
            yield frame if self.added is None else self.added(frame)

    def frames(self) -> Iterator[Frame]:
        """Yield the whole pool in order; as `frames`."""
        for of_group in self.ahead(frame_groups(self.pool, self.limit)):
            yield from of_group

    def ahead(self, groups: Sequence[tuple[int, ...]]) -> Iterator[Iterator[Frame]]:
        """Yield the frames of each group; what comes next is read while the caller works.

        Raises:
            PoolCorruptError: as `read`.
        """
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = deque(reader.submit(self.read, parts) for parts in groups[:1])
            for following in [*groups[1:], None]:
                if following is not None:
                    ahead.append(reader.submit(self.read, following))
                if ahead:
                    yield self.pieces(ahead.popleft().result())


def frames(
    pool: Pool,
    *,
    scorers: Sequence[str] = (),
    limit: int | None = None,
    prompt_columns: Sequence[str] = (),
    candidate_columns: Sequence[str] = (),
) -> Iterator[Frame]:
    """Yield the pool in order, with only the columns that are needed.

    Small parts come together, since work on columns costs much the same for few rows as for many;
    large ones are cut between prompts.

    Raises:
        PoolCorruptError: a file cannot be read back, or files of one part do not belong together.
    """
    columns = (tuple(scorers), tuple(prompt_columns), tuple(candidate_columns))
    return Reading(pool, limit, *columns).frames()


def frame_groups(pool: Pool, limit: int | None) -> list[tuple[int, ...]]:
    """Cut a pool into runs of parts that stay below a frame's limits, or have a single part."""
    groups: list[list[int]] = []
    num_rows = num_bytes = 0
    for part in pool.parts(limit):
        rows = pool.num_rows(CANDIDATES, part)
        size = pool.num_bytes(PROMPTS, part) + pool.num_bytes(CANDIDATES, part)
        if groups and num_rows + rows <= _FRAME_ROWS and num_bytes + size <= _FRAME_BYTES:
            groups[-1].append(part)
            num_rows, num_bytes = num_rows + rows, num_bytes + size
        else:
            groups.append([part])
            num_rows, num_bytes = rows, size
    return [tuple(group) for group in groups]


def _pieces(frame: Frame) -> Iterator[Frame]:
    """Cut a frame that is too large between its prompts, and give each column one chunk."""
    num_pieces = max(1, (frame.prompts.nbytes + frame.candidates.nbytes) // _FRAME_BYTES)
    size = max(1, frame.candidates.num_rows // num_pieces)
    start = 0
    while start < len(frame.start_P) or start == 0:
        first = frame.start_P[start] if len(frame.start_P) else 0
        stop = max(start + 1, int(np.searchsorted(frame.start_P, first + size)))
        yield _sliced(frame, start, stop)
        start = stop


def _read(
    pool: Pool,
    parts: tuple[int, ...],
    scorers: Sequence[str],
    limit: int | None,
    prompt_columns: list[str],
    candidate_columns: list[str],
) -> Frame:
    prompts = pa.concat_tables(pool.read(PROMPTS, part, prompt_columns) for part in parts)
    of_parts = [pool.read(CANDIDATES, part, candidate_columns) for part in parts]
    scores: dict[str, NDArray[np.floating]] = {
        name: np.concatenate(
            [
                _read_scores(pool, part, name, candidates)
                for part, candidates in zip(parts, of_parts, strict=True)
            ]
        )
        for name in scorers
    }
    candidates = pa.concat_tables(of_parts)
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
    rows = frame.prompts.column("row").to_numpy()
    return _sliced(frame, 0, int(np.searchsorted(rows, limit)))


def _sliced(frame: Frame, start: int, stop: int) -> Frame:
    """Return the prompts from `start` up to `stop`, with their candidates."""
    count = frame.count_P[start:stop]
    first = int(frame.start_P[start]) if len(count) else 0
    num = int(count.sum())
    # One chunk a column: taking rows from many is slow.
    return Frame(
        frame.parts,
        frame.prompts.slice(start, len(count)).combine_chunks(),
        frame.candidates.slice(first, num).combine_chunks(),
        {name: values[first : first + num] for name, values in frame.scores.items()},
        frame.start_P[start:stop] - first,
        count,
    )


def _foreign(pool: Pool, kind: str, part: int, other: str) -> PoolCorruptError:
    return PoolCorruptError(
        f"part {part} of {kind} belongs to other {other}",
        where=str(pool.layout.part(kind, part)),
        next_step=REDO,
    )
