"""One batch of native rows on its way into a trainer's form, and work on whole list columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.records import PAIR_FIELDS, PROMPT_FIELDS, RESPONSE_FIELDS

__all__ = [
    "Batch",
    "Kind",
    "chosen_half",
    "concatenated",
    "conversation_keys",
    "first_message",
    "interleaved",
    "last_message",
    "made",
    "prompt_messages",
    "without_last",
]

Kind: TypeAlias = Literal["pairs", "responses", "prompts"]
"""What a native row is: see `PAIR_FIELDS`, `RESPONSE_FIELDS` and `PROMPT_FIELDS`."""

_FIELDS: Mapping[Kind, tuple[pa.Field, ...]] = {
    "pairs": PAIR_FIELDS,
    "responses": RESPONSE_FIELDS,
    "prompts": PROMPT_FIELDS,
}
_TAKEN_PREFIX = "input_"


@dataclass(frozen=True, slots=True)
class Batch:
    """Native rows, and where they stand in the set."""

    table: pa.Table
    kind: Kind
    name: str = ""
    """Of the set, for formats whose rows say where they come from."""
    start: int = 0
    """Output rows before this batch."""

    def array(self, column: str) -> pa.Array:
        """Return a column as one array."""
        return self.table.column(column).combine_chunks()

    def ours(self, *but: str) -> dict[str, pa.Array]:
        """Return bon's own columns that are there, without those named."""
        names = [item.name for item in _FIELDS[self.kind]]
        there = [name for name in names if name in self.table.column_names and name not in but]
        return {name: self.array(name) for name in there}

    def others(self) -> dict[str, pa.Array]:
        """Return the input's other columns."""
        ours = {item.name for item in _FIELDS[self.kind]}
        return {name: self.array(name) for name in self.table.column_names if name not in ours}


def made(
    batch: Batch, columns: Mapping[str, pa.Array], *, reserved: Collection[str] = ()
) -> pa.Table:
    """Return a table of these columns and the input's others.

    An input column whose name is taken, or means something else to the trainer (`reserved`), is
    kept as `input_NAME`.
    """
    result = dict(columns)
    others = batch.others()
    for name, values in others.items():
        said = name
        while said in result or said in reserved or (said != name and said in others):
            said = _TAKEN_PREFIX + said
        result[said] = values
    return pa.table(result)


def prompt_messages(batch: Batch) -> pa.Array:
    """Return each row's prompt as messages, of any kind."""
    if batch.kind == "responses":
        return without_last(batch.array("messages"))
    return batch.array("prompt")


def chosen_half(batch: Batch) -> dict[str, pa.Array]:
    """Return of pairs what is about the chosen response alone."""
    names = ("prompt_id", "score_chosen", "candidate_chosen", "num_tokens_chosen")
    return {name: values for name, values in batch.ours().items() if name in names}


def last_message(messages: pa.ListArray) -> pa.ListArray:
    """Return lists of the last message alone."""
    start, end = _bounds(messages)
    return _gathered(messages.values, np.maximum(end - 1, start), end)


def without_last(messages: pa.ListArray) -> pa.ListArray:
    """Return the lists without their last message."""
    start, end = _bounds(messages)
    return _gathered(messages.values, start, np.maximum(end - 1, start))


def concatenated(heads: pa.ListArray, tails: pa.ListArray) -> pa.ListArray:
    """Return each head followed by its tail."""
    (head_start, head_end), (tail_start, tail_end) = _bounds(heads), _bounds(tails)
    shift = len(heads.values)
    values = pa.concat_arrays([heads.values, tails.values])
    start = np.stack([head_start, tail_start + shift], axis=1).ravel()
    end = np.stack([head_end, tail_end + shift], axis=1).ravel()
    pieces = _gathered(values, start, end)
    return pa.ListArray.from_arrays(pieces.offsets[::2], pieces.values)


def conversation_keys(messages: pa.ListArray) -> pa.StringArray:
    """Return one string for each list of messages: the same exactly where all of them agree."""
    said = [_measured(messages.values.field(name)) for name in ("role", "content")]
    texts = pc.binary_join_element_wise(*said, "")
    return pc.binary_join(_gathered(texts, *_bounds(messages)), "")


def first_message(messages: pa.ListArray) -> pa.StructArray:
    """Return the first message of each list; null of an empty one."""
    start, end = _bounds(messages)
    return messages.values.take(pa.array(start, mask=start == end))


def interleaved(first: pa.Array, second: pa.Array) -> pa.Array:
    """Return first[0], second[0], first[1], second[1], …"""
    order = np.arange(2 * len(first)).reshape(2, -1).T.ravel()
    return pa.concat_arrays([first, second]).take(pa.array(order))


def _measured(texts: pa.StringArray) -> pa.StringArray:
    """Return each text behind its length: joined, no two sequences of them are the same."""
    length = pc.fill_null(pc.cast(pc.binary_length(texts), pa.string()), "null")
    return pc.binary_join_element_wise(length, pc.fill_null(texts, ""), ":")


def _bounds(lists: pa.ListArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each list starts and ends in `.values`; a null list is an empty one."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    start, end = offsets[:-1], offsets[1:]
    if lists.null_count:
        end = np.where(pc.is_null(lists).to_numpy(zero_copy_only=False), start, end)
    return start, end


def _gathered(values: pa.Array, start: NDArray[np.int64], end: NDArray[np.int64]) -> pa.ListArray:
    """Return the lists values[start:end]."""
    length = end - start
    offsets = np.concatenate([[0], np.cumsum(length)])
    index = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(index)))
