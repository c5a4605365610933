"""Which sequences share a padded batch."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["length_sorted_batches"]


def length_sorted_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group positions so that rows x longest row is at most `max_tokens`, longest first.

    Longest first shows memory trouble at once. A sequence longer than the budget is a batch of
    its own. The result depends on the lengths alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        last = batches[-1] if batches else []
        if last and (len(last) + 1) * lengths[last[0]] <= max_tokens:
            last.append(index)
        else:
            batches.append([index])
    return batches
