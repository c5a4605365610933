"""Train and test: a prompt's split is drawn from its own text, so it is never in both."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["in_test", "prompt_texts", "without_last"]


def in_test(prompts: pa.Array | pa.ChunkedArray, share: float, seed: int) -> NDArray[np.bool_]:
    """Tell for each conversation (`MESSAGES_TYPE`) whether it belongs to the test split.

    The draw depends on the messages and the seed alone: not on the id, the order or the other
    rows. So prompts with one text lie on one side, a set that grows keeps its split, and the
    share is met on average, not to the row.
    """
    limit = int(share * 2**64)
    texts = prompt_texts(prompts)
    draws = {text: _draw(text, seed) < limit for text in set(texts)}
    return np.fromiter((draws[text] for text in texts), bool, count=len(texts))


def prompt_texts(prompts: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return one string for each conversation, the same for the same roles and contents."""
    return [json.dumps([[m["role"], m["content"]] for m in one]) for one in prompts.to_pylist()]


def without_last(messages: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return conversations without their last message."""
    array = messages.combine_chunks() if isinstance(messages, pa.ChunkedArray) else messages
    length = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    flat = array.flatten()
    begin = np.concatenate([[0], np.cumsum(length)])
    keep = np.ones(len(flat), dtype=bool)
    keep[begin[1:][length > 0] - 1] = False
    offsets = np.concatenate([[0], np.cumsum(np.maximum(length - 1, 0))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), flat.filter(pa.array(keep)), type=array.type
    )


def _draw(text: str, seed: int) -> int:
    digest = hashlib.blake2b(f"split\0{seed}\0{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
