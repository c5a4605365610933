"""Attention over a token trie on a CPU, computing only what the mask lets through.

In a trie laid out depth-first, a segment's keys are seen by the queries of its own subtree, which
follow it directly. So attention is a few dense blocks: for every segment with branches below it
(a prompt), its keys against all queries of its subtree; for all that end a path (responses), each
against itself. A query's result is the sum of its blocks, weighted by their sums of exponentials
(as in flash attention, Dao et al. 2022, arXiv 2205.14135).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bon.trie import Segment, TrieBatch, segments

__all__ = [
    "LARGEST_CAP",
    "AttentionPlan",
    "Block",
    "attention_of_rows",
    "plan_attention",
    "trie_attention",
]

_BLOCK_SCORES = 2 << 20
"""Scores of one block that are in memory at once: a few megabytes, which stay in the cache."""
_LONGEST_END = 512
"""Tokens of a path's end above which its own triangle is worth cutting into pieces."""
_FEWEST_ROWS = 128
_LIKE = 0.65
"""Least share of a block's width that the shortest of its ends has."""
_SAMPLED_KEYS = 32
LARGEST_CAP = 60.0
"""Of scores that are soft-capped: above it, sums of their exponentials could overflow."""
_LOG2_E = math.log2(math.e)
_FAR_ABOVE = 3.0
"""Base-2 logarithm of a query's mean weight above which its reference was too low for bfloat16."""


@dataclass(frozen=True, slots=True)
class Block:
    """Path ends of like length, side by side: n of them, padded to W tokens each."""

    index: Any
    """[n * W] where each one's tokens lie in the layout; its last token fills it up."""
    rows: Any
    """[sum of lengths] which of the n * W are real."""
    places: Any
    """[sum of lengths] where those lie in the layout."""
    num: int
    width: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The blocks of one batch; made once and used in every layer."""

    trunks: tuple[Segment, ...]
    """Those with branches below, and long ones."""
    ends: tuple[Block, ...]
    """Segments that end a path."""
    roots: tuple[tuple[int, int], ...]
    """Those ends that have nothing above them: start, stop."""
    log2_seen: Any
    """[T] base-2 logarithm of how many keys each query sees."""
    end: Any
    """[T] key k is visible to query q exactly when `k <= q < end[k]`."""


def plan_attention(batch: TrieBatch) -> AttentionPlan:
    """Divide a batch into blocks."""
    import torch

    trunks, ends, roots = [], [], []
    for one in segments(batch.end):
        length = one.stop - one.start
        if one.end > one.stop or length > _LONGEST_END:
            trunks.append(one)
            continue
        ends.append((length, one.start))
        if not one.depth:
            roots.append((one.start, one.stop))
    ends.sort(key=lambda end: -end[0])
    log2_seen = torch.from_numpy(batch.positions + 1).float().log2()
    end = torch.from_numpy(batch.end)
    return AttentionPlan(tuple(trunks), tuple(_blocks(ends)), tuple(roots), log2_seen, end)


def _blocks(ends: list[tuple[int, int]]) -> Iterator[Block]:
    """Put ends of like length together, longest first, so that little of a block is padding."""
    import torch

    low = 0
    while low < len(ends):
        width = ends[low][0]
        high = low + 1
        while (
            high < len(ends)
            and ends[high][0] >= _LIKE * width
            and (high + 1 - low) * width * width <= _BLOCK_SCORES // 8
        ):
            high += 1
        length_N, start_N = torch.tensor(ends[low:high]).unbind(1)
        column_W = torch.arange(width)
        index_NW = start_N[:, None] + torch.minimum(column_W, length_N[:, None] - 1)
        index = index_NW.reshape(-1)
        rows = (column_W < length_N[:, None]).reshape(-1).nonzero()[:, 0]
        yield Block(index, rows, index[rows], high - low, width)
        low = high


def trie_attention(
    query: Any, key: Any, value: Any, plan: AttentionPlan, scale: float, softcap: float | None
) -> Any:
    """Return the attention's output, `[1, T, H, D]`.

    `query` is `[1, H, T, D]`, `key` and `value` are `[1, G, T, D]`, H a multiple of G. bfloat16
    goes through matrix products, which are several times faster than torch's own kernel for it
    on a CPU; where an exponential overflows, and for other types, that kernel does the work.
    """
    import torch

    query, key, value = query[0], key[0], value[0]
    if softcap is not None:
        if softcap > LARGEST_CAP:
            raise ValueError(f"scores capped at {softcap} overflow; known: up to {LARGEST_CAP}")
        query_float, key, value = (x.float() for x in (query, key, value))
        total = _weighted_sums(query_float, key, value, plan, scale, softcap)
    elif query.dtype == torch.bfloat16:
        total = _by_products(query, key, value, plan, scale)
        sums_HT = total[..., -1]
        if not ((sums_HT > 0) & (sums_HT < torch.inf)).all():
            return _by_kernel(query, key, value, plan, scale)
    else:
        return _by_kernel(query, key, value, plan, scale)
    return (total[..., :-1] / total[..., -1:]).to(query.dtype).transpose(0, 1)[None]


def attention_of_rows(
    query: Any, key: Any, value: Any, plan: AttentionPlan, scale: float, softcap: float | None,
    rows: Any,
) -> Any:  # fmt: skip
    """Return what `trie_attention` does at some rows of the layout, `[R]`, and zeros elsewhere.

    Each row is computed against all keys under the mask, in float32.
    """
    import torch

    heads, length, width = query.shape[1:]
    groups = key.shape[1]
    found = query.new_zeros(length, heads, width)
    key, value = key[0].float(), value[0].float()
    # what is not finite may not reach rows that do not see it, and 0 * inf is no number
    bad_T = ~value.isfinite().all(-1).all(0)
    value = value.nan_to_num(0.0, 0.0, 0.0)
    place = torch.arange(length)
    for some in rows.split(max(1, _BLOCK_SCORES // (heads * length))):
        grouped = query[0, :, some].float().reshape(groups, -1, width)
        scores = torch.bmm(grouped, key.transpose(1, 2)).mul_(scale)
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        hidden = (place > some[:, None]) | (plan.end <= some[:, None])
        scores.view(heads, len(some), length).masked_fill_(hidden, -torch.inf)
        part = torch.bmm(scores.softmax(-1), value).view(heads, len(some), width)
        part[:, (bad_T & ~hidden).any(-1)] = torch.nan
        found[some] = part.transpose(0, 1).to(found.dtype)
    return found[None]


def _by_products(query: Any, key: Any, value: Any, plan: AttentionPlan, scale: float) -> Any:
    """Return sums as `_weighted_sums` does, each query's weights being exp(score - reference).

    The reference of a query should be near its largest score: then nothing overflows, and rounding
    counts least where the weights are. It is estimated from a few keys; heads in which some
    query's was too low are computed once more, with the sum that was found as reference.
    """
    reference_HT = _references(query, key, plan)
    total = _weighted_sums(*_centred(query, key, reference_HT), value, plan, scale)
    above_HT = total[..., -1].log2()
    sharp = ((above_HT - plan.log2_seen).amax(-1) > _FAR_ABOVE).nonzero()[:, 0]
    if len(sharp):
        better_HT = (reference_HT[sharp] + above_HT[sharp] / (scale * _LOG2_E)).to(query.dtype)
        key, value = (_per_head(x, len(query))[sharp] for x in (key, value))
        centred = _centred(query[sharp], key, better_HT)
        total[sharp] = _weighted_sums(*centred, value, plan, scale)
    return total


def _centred(query: Any, key: Any, reference_HT: Any) -> tuple[Any, Any]:
    """Let the product of queries and keys give scores less the reference: one more column."""
    import torch

    return torch.cat([query, -reference_HT[..., None]], -1), _with_ones(key)


def _with_ones(x: Any) -> Any:
    import torch

    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


def _weighted_sums(
    query: Any, key: Any, value: Any, plan: AttentionPlan, scale: float,
    softcap: float | None = None,
) -> Any:  # fmt: skip
    """Return each query's sum of values weighted by exp(score), `[H, T, D]`, and of the weights.

    The latter is one more column: it comes out of the product with the values.
    """
    import torch

    value = _with_ones(value)
    total = torch.empty((*query.shape[:2], value.shape[-1]), dtype=torch.float32)
    for start, stop in plan.roots:
        total[:, start:stop] = 0
    for trunk in plan.trunks:
        _add_trunk(total, query, key, value, trunk, scale, softcap)
    for block in plan.ends:
        _add_ends(total, query, key, value, block, scale, softcap)
    return total


def _add_trunk(
    total: Any, query: Any, key: Any, value: Any, trunk: Segment,
    scale: float, softcap: float | None,
) -> None:  # fmt: skip
    """Add what a segment's keys are to the queries of its subtree.

    Query heads that share a key head are more rows of one product, `[G, H / G * rows, D]`.
    """
    import torch

    start, stop, end = trunk.start, trunk.stop, trunk.end
    heads, groups, width = len(query), len(key), query.shape[-1]
    # contiguous, or every product would copy them
    whole = tuple(x[:, start:stop].contiguous() for x in (key, value))
    for low, high in _row_ranges(start, stop, end, heads):
        inside = low < stop
        seen = [x[:, : high - start].contiguous() for x in whole] if inside else whole
        rows = query[:, low:high].reshape(groups, -1, width)
        weights = _weights(rows, seen[0], scale, softcap)
        if inside:
            weights.view(heads, high - low, high - start).tril_(low - start)
        part = torch.bmm(weights, seen[1]).view(heads, high - low, -1)
        if trunk.depth:
            total[:, low:high] += part
        else:
            total[:, low:high] = part


def _add_ends(
    total: Any, query: Any, key: Any, value: Any, block: Block, scale: float, softcap: float | None
) -> None:
    """Add what path ends side by side are, each to itself."""
    import torch

    heads, shape = len(query), (len(query) * block.num, block.width, -1)
    rows, keys, values = (
        _per_head(x.index_select(1, block.index), heads).view(shape) for x in (query, key, value)
    )
    weights = _weights(rows, keys, scale, softcap).tril_()
    part = torch.bmm(weights, values).view(heads, block.num * block.width, -1)
    total.index_add_(1, block.places, part.index_select(1, block.rows).float())


def _weights(query_BRD: Any, key_BKD: Any, scale: float, softcap: float | None) -> Any:
    scores = query_BRD.new_empty(*query_BRD.shape[:2], key_BKD.shape[1])
    # the scale goes in before anything is rounded
    factor = scale * _LOG2_E if softcap is None else scale / softcap
    scores.baddbmm_(query_BRD, key_BKD.transpose(1, 2), beta=0, alpha=factor)
    if softcap is not None:
        scores.tanh_().mul_(softcap * _LOG2_E)
    return scores.exp2_()


def _references(query: Any, key: Any, plan: AttentionPlan) -> Any:
    """Estimate each query's largest score, before scaling.

    It is the largest of those with its own key and with a few keys of each segment above.
    """
    import torch

    heads, groups, width = len(query), len(key), query.shape[-1]
    own = query.unflatten(0, (groups, -1)) * key[:, None]
    reference_HT = own.flatten(0, 1).sum(-1)
    for trunk in plan.trunks:
        start, stop, end = trunk.start, trunk.stop, trunk.end
        step = max(1, (stop - start) // _SAMPLED_KEYS)
        rows = query[:, start:end].reshape(groups, -1, width)
        # a column for each query: the largest of a column is found several times faster
        scores = torch.bmm(key[:, start:stop:step], rows.transpose(1, 2))
        scores = scores.view(groups, -1, heads // groups, end - start)
        hidden = torch.arange(start, stop, step)[:, None] > torch.arange(start, stop)
        scores[..., : stop - start].masked_fill_(hidden[:, None], -torch.inf)
        seen = reference_HT[:, start:end]
        torch.maximum(seen, scores.amax(1).flatten(0, 1), out=seen)
    return reference_HT


def _row_ranges(start: int, stop: int, end: int, heads: int) -> Iterator[tuple[int, int]]:
    """Cut a segment's queries, its own first, so that their scores stay in the cache."""
    step = max(_FEWEST_ROWS, _BLOCK_SCORES // (heads * (stop - start)))
    for first, last in ((start, stop), (stop, end)):
        yield from ((low, min(low + step, last)) for low in range(first, last, step))


def _by_kernel(query: Any, key: Any, value: Any, plan: AttentionPlan, scale: float) -> Any:
    """Attention by torch's fused kernel, which also gives the logarithms of the sums.

    Its causal mask counts from the first key, which is just a segment's own triangle followed by
    queries that see it whole.
    """
    import torch

    query, key, value = (_per_head(x, len(query))[None] for x in (query, key, value))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output = torch.zeros_like(query)
    logsum = torch.full(query.shape[:3], -torch.inf)

    def add(index: Any, part: Any, part_logsum: Any) -> None:
        share = torch.sigmoid(part_logsum - logsum[:, :, index])[..., None].to(part.dtype)
        output[:, :, index] = torch.lerp(output[:, :, index], part, share)
        logsum[:, :, index] = torch.logaddexp(logsum[:, :, index], part_logsum)

    for trunk in plan.trunks:
        rows, keys = slice(trunk.start, trunk.end), slice(trunk.start, trunk.stop)
        parts = (query[:, :, rows], key[:, :, keys], value[:, :, keys])
        add(rows, *kernel(*parts, 0.0, True, scale=scale))
    for block in plan.ends:
        shape = (query.shape[1], block.num, block.width, -1)
        blocks = (
            x[0].index_select(1, block.index).view(shape).transpose(0, 1)
            for x in (query, key, value)
        )
        part, part_logsum = kernel(*blocks, 0.0, True, scale=scale)
        part = part.transpose(0, 1).flatten(1, 2).index_select(1, block.rows)[None]
        part_logsum = part_logsum.transpose(0, 1).flatten(1, 2).index_select(1, block.rows)[None]
        add(block.places, part, part_logsum)
    return output.transpose(1, 2)


def _per_head(x: Any, heads: int) -> Any:
    """Repeat keys or values, `[G, T, D]`, for the query heads that share them: `[H, T, D]`."""
    return x if x.shape[0] == heads else x.repeat_interleave(heads // x.shape[0], 0)
