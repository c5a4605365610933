"""Sequences of token ids as token tries (prefix trees), each laid out depth-first in one batch.

Every distinct token of a trie is in its layout once, so a batch computes a shared prefix once. Key
`k` is visible to query `q` exactly when `k <= q < end[k]`: what follows a token up to the end of
its subtree continues that token's path, and nothing else does.

A trie is never built of linked nodes. In lexicographic order, the trie of any subset of sequences
is given by how many leading tokens each shares with the one before it; a sequence adds a run of the
tokens that it does not share. Sequences that are prefixes of others, and equal ones, add nothing:
they are read inside the path of the sequence that carries them, the next one that is no prefix.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Segment", "TrieBatch", "pack", "segments"]

_Ints: TypeAlias = NDArray[np.int64]
_Ranges: TypeAlias = list[tuple[int, int]]
_REPEATED_SHARE = 8
_Piece: TypeAlias = tuple[int, _Ranges]
"""Tokens with the path above them, and the leaves as ranges `[low, high)`."""


@dataclass(frozen=True, slots=True, eq=False)
class TrieBatch:
    """Sequences that share a forward pass, laid out as one token trie.

    B sequences, T distinct tokens, R runs. A run is the part of the layout that one sequence added;
    what comes before `run_depth` on its path lies in the runs above it.
    """

    sequences: _Ints
    """[B] which of the given sequences, in lexicographic order of their tokens."""
    lengths: _Ints
    """[B] tokens of each sequence."""
    tokens: _Ints
    """[T] each distinct token of the trie once, depth-first."""
    positions: _Ints
    """[T] depth of each token, which is its position in its sequences."""
    end: _Ints
    """[T] key k is visible to query q exactly when `k <= q < end[k]`."""
    run: _Ints
    """[B] the lowest run on each sequence's path."""
    run_start: _Ints
    """[R] index in the layout of each run's first token."""
    run_depth: _Ints
    """[R] position of each run's first token."""
    run_parent: _Ints
    """[R] the run above each run, -1 where `run_depth` is 0."""

    def index(self, sequence: ArrayLike, positions: ArrayLike) -> _Ints:
        """Return where in the layout the tokens at `positions` of sequences lie.

        `sequence` counts rows of this batch (0..B-1). Both are broadcast against each other, and
        the result has their common shape. Time grows with the depth of the trie.

        Raises:
            IndexError: A position is negative or not below the sequence's length.
        """
        row, position = np.broadcast_arrays(np.asarray(sequence), np.asarray(positions))
        outside = (position < 0) | (position >= self.lengths[row])
        if outside.any():
            place, length = position[outside][0], self.lengths[row[outside][0]]
            raise IndexError(f"position {place} of a sequence of {length} tokens")
        run = self.run[row]
        while (above := position < self.run_depth[run]).any():
            run = np.where(above, self.run_parent[run], run)
        return np.asarray(self.run_start[run] + position - self.run_depth[run], np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `[start, stop)` of a layout with no branching between them.

    Queries `[start, end)` see its keys (within the segment, causally); `depth` counts the segments
    above it.
    """

    start: int
    stop: int
    end: int
    depth: int


def segments(end: _Ints) -> list[Segment]:
    """Return the maximal runs of tokens with the same `end`, in layout order."""
    start_S = np.concatenate(([0], np.flatnonzero(np.diff(end)) + 1))[: len(end)]
    stop_S = np.append(start_S[1:], len(end))[: len(start_S)]
    end_S = end[start_S]
    # Of the segments that start before this one, those that end before it are no ancestors.
    depth_S = np.arange(len(start_S)) - np.searchsorted(np.sort(end_S), start_S, side="right")
    rows = zip(*(x.tolist() for x in (start_S, stop_S, end_S, depth_S)), strict=True)
    return [Segment(*row) for row in rows]


def pack(
    sequences: Sequence[Iterable[int]],
    max_tokens: int,
    *,
    sharing_cost: float = 0.0,
    aim_tokens: int | None = None,
) -> list[TrieBatch]:
    """Lay sequences out as token tries of at most `max_tokens` tokens, the largest first.

    Every sequence is in exactly one batch; one that is longer than `max_tokens` has a batch of its
    own, with those only that are prefixes of it. A subtree stays together where it fits, else it is
    cut at its branches and each piece repeats the path above the cut. Permuting the input permutes
    nothing but `TrieBatch.sequences`.

    Batches are filled up to `aim_tokens` only, where that is less; a subtree that is larger is
    still kept whole, up to `max_tokens`, if its pieces would repeat more than an eighth of it.

    Each level of sharing costs attention some time. A prefix of s tokens (not yet shared above
    it) with c branches at its end is shared only if the s x (c - 1) tokens that this saves exceed
    `sharing_cost` x the tokens below it; else every branch has its own copy. 0 shares all,
    infinity nothing but prefixes of whole sequences, which cost nothing.

    Raises:
        ValueError: A sequence is empty, is not one row of integers in 0..2^32 - 1, or a setting
            is out of range.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    if aim_tokens is not None and aim_tokens < 1:
        raise ValueError(f"aim_tokens must be at least 1, not {aim_tokens}")
    if not sharing_cost >= 0:
        raise ValueError(f"sharing_cost must be at least 0, not {sharing_cost}")
    keys = [_key(sequence, number) for number, sequence in enumerate(sequences)]
    if not keys:
        return []
    order = sorted(range(len(keys)), key=keys.__getitem__)
    rows = [np.frombuffer(keys[number], np.dtype(">u4")) for number in order]
    trie = _Sorted.of(np.array(order), rows)
    shared = _worth_sharing(trie.lengths, trie.shared, sharing_cost)
    aim_tokens = max_tokens if aim_tokens is None else min(aim_tokens, max_tokens)
    pieces = _cut(trie.lengths, shared, aim_tokens, max_tokens)
    pieces.sort(key=lambda piece: (-piece[0], piece[1]))
    return [_lay_out(trie, shared, _expand(ranges)) for _, ranges in pieces]


def _key(sequence: Iterable[int], number: int) -> bytes:
    """Return token ids as big-endian bytes, whose order is the lexicographic order of the ids."""
    try:
        if hasattr(sequence, "__array__"):
            ids = np.asarray(sequence)
            if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
                raise ValueError(f"shape {ids.shape}, {ids.dtype}")
            if ids.size and (ids.min() < 0 or ids.max() >= 1 << 32):
                raise ValueError(f"ids from {ids.min()} to {ids.max()}")
        else:
            # An iterator of bytes yields integers; the bytes themselves would be taken as memory.
            values = sequence if isinstance(sequence, list) else iter(sequence)
            ids = np.frombuffer(array("I", values), np.dtype("u4"))
    except (TypeError, ValueError, OverflowError) as error:
        what = f"sequence {number} is not one row of token ids in 0..2^32 - 1: {error}"
        raise ValueError(what) from error
    if not ids.size:
        raise ValueError(f"sequence {number} is empty")
    return ids.astype(">u4").tobytes()


@dataclass(frozen=True, slots=True)
class _Sorted:
    """B sequences in lexicographic order; M of them, the leaves, are no prefix of another."""

    order: _Ints
    """[B] which of the given sequences."""
    given_lengths: _Ints
    """[B]"""
    leaf: _Ints
    """[B] the leaf that carries each sequence; ascending."""
    rows: list[NDArray[np.uint32]]
    """[M] the leaves' tokens."""
    lengths: _Ints
    """[M]"""
    shared: _Ints
    """[M] leading tokens that a leaf shares with the one before it; 0 for the first."""

    @classmethod
    def of(cls, order: _Ints, rows: list[NDArray[np.uint32]]) -> _Sorted:
        lengths = np.array([len(row) for row in rows])
        # Which bytes differ does not depend on their order, and native integers compare faster.
        native = [row.view("u4") for row in rows]
        common = [_common(before, row) for before, row in pairwise(native)]
        shared = np.array([0, *common])
        is_leaf = np.append(shared[1:] < lengths[:-1], True)
        # A carried sequence shares all of itself with the next one, so what that shares with the
        # leaf before is the least of what lies between.
        (leaves,) = np.nonzero(is_leaf)
        firsts = np.append(0, leaves[:-1] + 1)
        return cls(
            order=order,
            given_lengths=lengths,
            leaf=np.cumsum(is_leaf) - is_leaf,
            rows=[rows[rank] for rank in leaves],
            lengths=lengths[leaves],
            shared=np.minimum.reduceat(shared, firsts),
        )


def _common(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> int:
    """Count the leading tokens that two sequences have in common."""
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    first = int(differs.argmax())
    return first if differs[first] else length


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The trie's branching points, parents before children; the first is the root.

    A node covers the leaves `[low, high)`, which share `depth` tokens. `gap` [M] is the node where
    a leaf parts from the one before it.
    """

    depth: _Ints
    low: _Ints
    high: _Ints
    parent: _Ints
    gap: _Ints

    @classmethod
    def of(cls, shared: _Ints) -> _Nodes:
        """Find them from what each leaf shares with the one before it, in one pass with a stack."""
        depth, low, high, parent, gap = [0], [0], [len(shared)], [0], [0]
        path = [0]
        for leaf, common in enumerate(shared[1:].tolist(), 1):
            first, closed = leaf - 1, None
            while depth[path[-1]] > common:
                closed = path.pop()
                high[closed], first = leaf, low[closed]
            if depth[path[-1]] < common:
                new = len(depth)
                depth.append(common)
                low.append(first)
                high.append(len(shared))
                parent.append(path[-1])
                if closed is not None:
                    parent[closed] = new
                path.append(new)
            gap.append(path[-1])
        by_depth = np.argsort(depth, kind="stable")
        rank = np.argsort(by_depth)
        return cls(
            depth=np.array(depth)[by_depth],
            low=np.array(low)[by_depth],
            high=np.array(high)[by_depth],
            parent=rank[np.array(parent)[by_depth]],
            gap=rank[gap],
        )

    def num_tokens(self, lengths: _Ints, shared: _Ints) -> _Ints:
        """Count the distinct tokens of each node's subtree with the path above it."""
        added = np.append(0, np.cumsum(lengths - shared))
        return np.asarray(added[self.high] - added[self.low] + shared[self.low])


def _worth_sharing(lengths: _Ints, shared: _Ints, cost: float) -> _Ints:
    """Return how much of `shared` is to be shared, decided from the root down."""
    if not cost:
        return shared
    nodes = _Nodes.of(shared)
    below = (nodes.num_tokens(lengths, shared) - nodes.depth).tolist()
    num_cuts = np.bincount(nodes.gap[1:], minlength=len(below)).tolist()  # branches - 1
    parents = nodes.parent.tolist()
    taken = [0] * len(below)
    for node, depth in enumerate(nodes.depth.tolist()):
        above = taken[parents[node]]
        is_worth = (depth - above) * num_cuts[node] > cost * below[node]
        taken[node] = depth if is_worth else above
    return np.append(0, np.array(taken)[nodes.gap[1:]])


def _cut(lengths: _Ints, shared: _Ints, aim_tokens: int, max_tokens: int) -> list[_Piece]:
    """Divide the leaves into pieces that fit, from the lowest node that does not fit upward."""
    nodes = _Nodes.of(shared)
    limits = np.where(nodes.depth * _REPEATED_SHARE <= aim_tokens, aim_tokens, max_tokens).tolist()
    totals = nodes.num_tokens(lengths, shared).tolist()
    fits = [total <= limit for total, limit in zip(totals, limits, strict=True)]
    if fits[0]:
        return [(totals[0], [(0, len(lengths))])]
    items: list[list[_Piece]] = [[] for _ in totals]
    # A leaf hangs where it parts from its nearer neighbour.
    after = np.append(shared[1:], 0)
    above = np.where(shared >= after, nodes.gap, np.append(nodes.gap[1:], 0))
    for leaf, (node, length) in enumerate(zip(above.tolist(), lengths.tolist(), strict=True)):
        if not fits[node]:
            items[node].append((length, [(leaf, leaf + 1)]))
    columns = (nodes.depth, nodes.low, nodes.high, nodes.parent)
    depth, low, high, parent = (column.tolist() for column in columns)
    for node in range(len(totals) - 1, 0, -1):
        if not fits[node]:
            items[parent[node]] += _first_fit(items[node], depth[node], limits[node])
        elif not fits[parent[node]]:
            items[parent[node]].append((totals[node], [(low[node], high[node])]))
    return _first_fit(items[0], 0, limits[0])


def _first_fit(items: list[_Piece], depth: int, max_tokens: int) -> list[_Piece]:
    """Put pieces together under the path of `depth` tokens that they have in common.

    The largest first, each where it first fits.
    """
    totals = np.zeros(len(items), np.int64)
    merged: list[_Ranges] = []
    for total, ranges in sorted(items, key=lambda item: (-item[0], item[1])):
        fits = totals[: len(merged)] + (total - depth) <= max_tokens
        place = int(fits.argmax()) if fits.any() else len(merged)
        if place == len(merged):
            merged.append([])
            totals[place] = depth
        merged[place] += ranges
        totals[place] += total - depth
    return [(total, sorted(ranges)) for total, ranges in zip(totals.tolist(), merged, strict=False)]


def _expand(ranges: _Ranges) -> _Ints:
    return np.concatenate([np.arange(low, high) for low, high in ranges])


def _lay_out(trie: _Sorted, shared: _Ints, leaves: _Ints) -> TrieBatch:
    """Lay the trie of some leaves, and of the sequences that they carry, out depth-first."""
    # Two leaves share what each pair of neighbours between them does.
    between = np.minimum.reduceat(shared[: leaves[-1] + 1], leaves[:-1] + 1)
    depth_R = np.append(0, between)
    added_R = trie.lengths[leaves] - depth_R
    start_R = np.cumsum(added_R) - added_R
    rows = [trie.rows[leaf][depth:] for leaf, depth in zip(leaves, depth_R, strict=True)]
    end_T, parent_R = _close_runs(start_R, depth_R, int(added_R.sum()))
    low_R, high_R = (np.searchsorted(trie.leaf, leaves, side=side) for side in ("left", "right"))
    ranks_B = _expand(list(zip(low_R, high_R, strict=True)))
    return TrieBatch(
        sequences=trie.order[ranks_B],
        lengths=trie.given_lengths[ranks_B],
        tokens=np.concatenate(rows).astype(np.int64),
        positions=np.arange(len(end_T)) - np.repeat(start_R - depth_R, added_R),
        end=end_T,
        run=np.repeat(np.arange(len(leaves)), high_R - low_R),
        run_start=start_R,
        run_depth=depth_R,
        run_parent=parent_R,
    )


def _close_runs(start_R: _Ints, depth_R: _Ints, num_tokens: int) -> tuple[_Ints, _Ints]:
    """Return each token's `end` and each run's parent.

    A run that branches off at depth d ends the subtree of every token at depth d or more before it.
    """
    end_T = np.empty(num_tokens, np.int64)
    starts, depths, parents = start_R.tolist(), depth_R.tolist(), []
    open_until = [*starts[1:], num_tokens]  # per run, the part [start, open_until) has no end yet
    path: list[int] = []
    for run, (start, depth) in enumerate(zip(starts, depths, strict=True)):
        while path and depths[path[-1]] >= depth:
            closed = path.pop()
            end_T[starts[closed] : open_until[closed]] = start
        if path:
            branch = starts[path[-1]] + depth - depths[path[-1]]
            end_T[branch : open_until[path[-1]]] = start
            open_until[path[-1]] = branch
        parents.append(path[-1] if path else -1)
        path.append(run)
    for run in path:
        end_T[starts[run] : open_until[run]] = num_tokens
    return end_T, np.array(parents)
