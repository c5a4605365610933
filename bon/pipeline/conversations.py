"""Conversations as whole columns: responses as turns, and what a prompt ends with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.records import MESSAGES_TYPE

__all__ = ["after_prompts", "as_array", "last_user_turn", "single_turns"]


def as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, without a copy where it is one already."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def last_user_turn(prompts: pa.Array) -> pa.Array:
    """Return the content of each conversation's last user turn, null where there is none."""
    messages = prompts.flatten()
    is_user = np.asarray(pc.equal(messages.field("role"), "user").fill_null(False))
    ends = np.cumsum(pc.fill_null(pc.list_value_length(prompts), 0).to_numpy())
    starts = np.r_[0, ends][:-1]
    position = np.where(is_user, np.arange(len(is_user)), -1)
    last = np.r_[-1, np.maximum.accumulate(position)][ends]
    return messages.field("content").take(pa.array(last, mask=last < starts))


def single_turns(responses: pa.Array) -> pa.Array:
    """Return each response as a conversation of one assistant turn (`MESSAGES_TYPE`)."""
    offsets = pa.array(np.arange(len(responses) + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, _assistant(responses), type=MESSAGES_TYPE)


def after_prompts(prompts: pa.Array, prompt_U: NDArray[np.int64], responses: pa.Array) -> pa.Array:
    """Return each response as the last turn of its prompt (`MESSAGES_TYPE`).

    `prompts` has P conversations, `prompt_U` the place of each response's among them, shape (U,).
    """
    turns = prompts.flatten()
    length_P = pc.list_value_length(prompts).to_numpy()
    start_P = np.cumsum(length_P) - length_P
    length_U = length_P[prompt_U] + 1
    end_U = np.cumsum(length_U)
    row_T = np.repeat(np.arange(len(prompt_U)), length_U)
    place_T = np.arange(len(row_T)) - (end_U - length_U)[row_T]
    source_T = start_P[prompt_U][row_T] + place_T
    source_T[end_U - 1] = len(turns) + np.arange(len(prompt_U))
    turns = pa.StructArray.from_arrays(
        [turns.field("role"), turns.field("content")], fields=list(MESSAGES_TYPE.value_type)
    )
    both = pa.concat_arrays([turns, _assistant(responses)])
    offsets = pa.array(np.r_[0, end_U].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, both.take(pa.array(source_T)), type=MESSAGES_TYPE)


def _assistant(responses: pa.Array) -> pa.Array:
    roles = pa.repeat("assistant", len(responses))
    return pa.StructArray.from_arrays([roles, responses], fields=list(MESSAGES_TYPE.value_type))
