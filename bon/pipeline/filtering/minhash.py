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

MAX_PIVOTS = 64
"""Rows of a bucket that are compared with all others of it. Text that many rows share, such as a
long template, puts them into one bucket though none are alike: comparing them all is quadratic."""

MAX_KEPT = 16
"""Kept rows of a bucket that the diverse choice compares with."""

_NEIGHBOURS = 2
_CHUNK_PAIRS = 1 << 15

Signatures = NDArray[np.uint32]
"""Shape (E, permutations)."""


class Hasher:
    """Makes signatures of texts with datasketch's MinHash over hashes of word n-grams."""

    def __init__(self, ngram: int, num_perm: int, seed: int, what: str) -> None:
        try:
            from datasketch import MinHash
        except ModuleNotFoundError:  # others say why it does not load
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
    """Return the estimated Jaccard similarity of one signature, or of each, with others."""
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
    so is whatever is linked through them. Of a bucket, `MAX_PIVOTS` rows are compared with all
    others; the rows that this leaves over only with those that come next to them in order of their
    signatures, once for each of these that the order may begin with. Rows that share a rare value
    are neighbours in many of those orders (the idea is that of Charikar 2002, section 4).
    """
    joined = UnionFind(len(signature_E))
    is_left_E = np.zeros(len(signature_E), bool)
    for members, start_B in band_buckets(signature_E, bands, rows, group_E):
        for bucket in np.split(members, start_B[1:]):
            is_left_E[_join_bucket(signature_E, bucket, threshold, joined)] = True
    left = np.flatnonzero(is_left_E)
    _join_neighbours(
        signature_E, left, None if group_E is None else group_E[left], threshold, joined
    )
    return joined.roots()


def _join_bucket(
    signature_E: Signatures, bucket: NDArray[np.int64], threshold: float, joined: UnionFind
) -> list[int]:
    """Join the linked rows of a bucket; a row once reached is not compared with again.

    Returns the rows that are not compared with all others, empty for a small bucket.
    """
    left = bucket
    frontier: list[int] = []
    for _ in range(MAX_PIVOTS):
        if not frontier:
            frontier, left = left[:1].tolist(), left[1:]
        if not len(left):
            return []
        row = frontier.pop()
        alike = jaccard(signature_E[row], signature_E[left]) >= threshold
        for other in left[alike].tolist():
            joined.join(row, other)
        frontier += left[alike].tolist()
        left = left[~alike]
    return [*frontier, *left.tolist()] if len(left) else []


def _join_neighbours(
    signature_E: Signatures,
    left: NDArray[np.int64],
    group_L: NDArray[np.integer] | None,
    threshold: float,
    joined: UnionFind,
) -> None:
    """Join rows that are alike and next to each other in one of the orders of their signatures."""
    num_perm = signature_E.shape[1]
    for first in range(num_perm if len(left) else 0):
        key_L = np.zeros(len(left), np.uint64)
        for column in range(first, first + 4):
            part_L = signature_E[left, column % num_perm] & np.uint32(0xFFFF)
            key_L = key_L << np.uint64(16) | part_L
        order = np.argsort(key_L, kind="stable")
        if group_L is not None:
            order = order[np.argsort(group_L[order], kind="stable")]
        value_L = signature_E[left[order], first]
        for step in range(1, _NEIGHBOURS + 1):
            near = np.flatnonzero(value_L[step:] == value_L[:-step])
            if group_L is not None:
                near = near[group_L[order[near]] == group_L[order[near + step]]]
            _join_alike(signature_E, left[order[near]], left[order[near + step]], threshold, joined)


def _join_alike(
    signature_E: Signatures,
    one_Q: NDArray[np.int64],
    other_Q: NDArray[np.int64],
    threshold: float,
    joined: UnionFind,
) -> None:
    """Join those of some pairs of rows whose estimated similarity reaches the threshold."""
    for start in range(0, len(one_Q), _CHUNK_PAIRS):
        one, other = one_Q[start : start + _CHUNK_PAIRS], other_Q[start : start + _CHUNK_PAIRS]
        alike = jaccard(signature_E[one], signature_E[other]) >= threshold
        for pair in zip(one[alike].tolist(), other[alike].tolist(), strict=True):
            joined.join(*pair)


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
    A row is compared with the first `MAX_KEPT` kept rows of each of its buckets; where a bucket has
    more, also with the last one kept that has the same value in a place of its signature.
    """
    bucket_of: list[NDArray[np.int32]] = []
    for members, start_B in band_buckets(signature_E, bands, rows):
        starts = np.zeros(len(members), np.int32)
        starts[start_B] = 1
        bucket_E = np.zeros(len(signature_E), np.int32)  # 0: shares a bucket with no other row
        bucket_E[members] = np.cumsum(starts)
        bucket_of.append(bucket_E)
    kept_in: list[dict[int, list[int]]] = [{} for _ in bucket_of]
    latest = _Latest(signature_E)
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
        if any(len(place) == MAX_KEPT for place in places):
            near = sorted({*near, *latest.like(row)})
        alike = jaccard(signature_E[row], signature_E[near]) >= threshold
        if alike.any():
            result[row] = near[int(np.argmax(alike))]
            continue
        result[row] = row
        num_kept += 1
        if places:
            latest.keep(row)
        for place in places:
            if len(place) < MAX_KEPT:
                place.append(row)
    return result


class _Latest:
    """For each value in each place of a signature the last row that was kept with it."""

    def __init__(self, signature_E: Signatures) -> None:
        self._signature_E = signature_E
        # A hash table without chains: rows that fall on one slot are told apart when compared.
        bits = 10 + len(signature_E).bit_length()
        self._shift = np.uint64(64 - min(bits, 28))
        self._row = np.full(1 << min(bits, 28), -1, np.int32)
        self._place = np.arange(signature_E.shape[1], dtype=np.uint64) << np.uint64(32)

    def _slots(self, row: int) -> NDArray[np.uint64]:
        slots: NDArray[np.uint64] = (self._place | self._signature_E[row]) * _MULTIPLIER
        return (slots ^ (slots >> np.uint64(29))) * _MULTIPLIER >> self._shift

    def like(self, row: int) -> list[int]:
        """Return kept rows that share a value with this one."""
        rows = self._row[self._slots(row)]
        found: list[int] = rows[rows >= 0].tolist()
        return found

    def keep(self, row: int) -> None:
        """Take in a kept row."""
        self._row[self._slots(row)] = row
