"""MinHash signatures, and which rows are alike: clusters, and a diverse choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.filters import UnionFind
from bon.pipeline.filtering.texts import digests, slices, words
from bon.pipeline.filtering.units import curation_missing

__all__ = ["Hasher", "Signatures", "band_buckets", "clusters", "diverse", "jaccard"]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

_WEIGHTS = (0.05, 0.95)
"""Of false and missed matches: a false one is found out by its Jaccard similarity, a missed one is
lost."""

Signatures = NDArray[np.uint32]
"""Shape (E, permutations)."""


class Hasher:
    """Makes signatures of texts with datasketch's MinHash over hashes of word n-grams."""

    def __init__(self, ngram: int, num_perm: int, seed: int, what: str) -> None:
        try:
            from datasketch import MinHash
        except ImportError:
            raise curation_missing(what, "datasketch") from None
        self._ngram = ngram
        # The n-grams come hashed already. A copy shares the permutations, which are dear to make.
        self._empty: Any = MinHash(num_perm=num_perm, seed=seed % (1 << 32), hashfunc=int)

    def signatures(self, texts: list[pa.Array]) -> Iterator[Signatures]:
        """Yield the signatures of some texts after the others, of all their columns together.

        An n-gram counts as another one in another column. A column without any word is its digest,
        so that it is only like its exact copies.
        """
        for parts in zip(*map(slices, texts), strict=True):
            yield self._slice(parts)

    def _slice(self, columns: Sequence[pa.Array]) -> Signatures:
        runs = [_hashes(column, self._ngram, place) for place, column in enumerate(columns)]
        rows = []
        for text in range(len(columns[0])):
            minhash = self._empty.copy()
            for hash_G, first in runs:
                minhash.update_batch(hash_G[first[text] : first[text + 1]].tolist())
            rows.append(minhash.hashvalues)
        return np.array(rows, np.uint32).reshape(len(rows), len(self._empty))

    def bands(self, threshold: float, bands: int | None, rows: int | None) -> tuple[int, int]:
        """Return bands and rows of the locality-sensitive hash, by default what datasketch finds.

        A pair at the threshold shares a bucket with probability 1 − (1 − threshold^rows)^bands.
        """
        if bands is not None and rows is not None:
            return bands, rows
        from datasketch import MinHashLSH

        num_perm = len(self._empty)
        try:
            lsh = MinHashLSH(threshold=threshold, num_perm=num_perm, weights=_WEIGHTS)
        except ValueError:  # so near 1 that one band would do best, which the library refuses
            return 2, num_perm // 2
        return int(lsh.b), int(lsh.r)


def _hashes(column: pa.Array, n: int, place: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return hashes of a column's n-grams, and where each text's begin (one entry more)."""
    hash_G, first_T = words(column).ngrams(n)
    bare = np.flatnonzero(np.diff(first_T) == 0)
    hash_G = np.insert(hash_G, first_T[bare], digests(column.take(pa.array(bare)))[:, 0])
    is_bare_T = np.isin(np.arange(len(column)), bare)
    hash_G = (hash_G ^ np.uint64(place)) * _MULTIPLIER
    return (hash_G ^ (hash_G >> np.uint64(32))).astype(np.uint32), first_T + np.r_[
        0, np.cumsum(is_bare_T)
    ]


def jaccard(one: Signatures, others: Signatures) -> NDArray[np.float64]:
    """Return the estimated Jaccard similarity of one signature with others, shape (others,)."""
    result: NDArray[np.float64] = (others == one).mean(axis=1)
    return result


def band_buckets(
    signature_E: Signatures, bands: int, rows: int, group_E: NDArray[np.integer] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield for each band the rows that share a bucket with another, and where each bucket starts.

    The buckets are those of datasketch's MinHashLSH with these parameters; held as sorted arrays,
    they take 8 bytes a row instead of its dictionaries' hundreds. With `group_E`, only rows of
    one group share a bucket.
    """
    for band in range(bands):
        key_E = np.zeros(len(signature_E), np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            key_E = (key_E ^ signature_E[:, column]) * _MULTIPLIER
            key_E ^= key_E >> np.uint64(29)
        if group_E is not None:
            key_E = (key_E ^ group_E.astype(np.uint64)) * _MULTIPLIER
        order = np.argsort(key_E, kind="stable")
        ordered = key_E[order]
        same_as_last = np.r_[False, ordered[1:] == ordered[:-1]][: len(ordered)]
        shared = same_as_last | np.r_[same_as_last[1:], False][: len(ordered)]
        yield order[shared], np.flatnonzero(~same_as_last[shared])


def clusters(
    signature_E: Signatures,
    threshold: float,
    bands: int,
    rows: int,
    group_E: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Return the first row of each row's cluster, shape (E,).

    Two rows of one bucket whose estimated similarity reaches the threshold are in one cluster, and
    so is whatever is linked through them.
    """
    joined = UnionFind(len(signature_E))
    for members, start_B in band_buckets(signature_E, bands, rows, group_E):
        for bucket in np.split(members, start_B[1:]):
            _join_bucket(signature_E, bucket, threshold, joined)
    return joined.roots()


def _join_bucket(
    signature_E: Signatures, bucket: NDArray[np.int64], threshold: float, joined: UnionFind
) -> None:
    """Join the linked rows of a bucket; a row once reached is not compared with again."""
    left = bucket
    frontier: list[int] = []
    while len(left):
        if not frontier:
            frontier, left = [int(left[0])], left[1:]
            continue
        row = frontier.pop()
        alike = jaccard(signature_E[row], signature_E[left]) >= threshold
        for other in left[alike].tolist():
            joined.join(row, other)
        frontier += left[alike].tolist()
        left = left[~alike]


def diverse(
    signature_E: Signatures,
    order: NDArray[np.int64],
    threshold: float,
    bands: int,
    rows: int,
    max_rows: int | None = None,
) -> NDArray[np.int64]:
    """Walk rows in an order, keep each that is less alike than the threshold to all kept before.

    Returns for each row itself if kept, the kept row that it is like, or -1 where `max_rows` were
    kept already (Liu et al. 2023, arXiv 2312.15685, section 2.3, with MinHash for embeddings).
    """
    bucket_of: list[NDArray[np.int32]] = []
    for members, start_B in band_buckets(signature_E, bands, rows):
        starts = np.zeros(len(members), np.int32)
        starts[start_B] = 1
        bucket_E = np.zeros(len(signature_E), np.int32)  # 0: shares a bucket with no other row
        bucket_E[members] = np.cumsum(starts)
        bucket_of.append(bucket_E)
    kept_in: list[dict[int, list[int]]] = [{} for _ in bucket_of]
    result = np.full(len(signature_E), -1, np.int64)
    num_kept = 0
    for row in order.tolist():
        if max_rows is not None and num_kept >= max_rows:
            break
        places = [
            kept.setdefault(int(bucket_E[row]), [])
            for bucket_E, kept in zip(bucket_of, kept_in, strict=True)
            if bucket_E[row]
        ]
        near = sorted({other for place in places for other in place})
        alike = jaccard(signature_E[row], signature_E[near]) >= threshold
        if alike.any():
            result[row] = near[int(np.argmax(alike))]
            continue
        result[row] = row
        num_kept += 1
        for place in places:
            place.append(row)
    return result
