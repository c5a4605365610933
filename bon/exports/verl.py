"""Rows as verl takes them: prompts with a data source and a ground truth."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bon.answers import reference_answer
from bon.exports.batches import Batch, made, prompt_messages

__all__ = ["verl"]

_ANSWER_COLUMNS = ("answer", "ground_truth")
"""The rules of `bon score` look in the same order."""
# verl reads these of extra_info itself.
_RESERVED = frozenset({"index", "tools_kwargs", "interaction_kwargs", "need_tools_kwargs"})


def verl(batch: Batch) -> pa.Table:
    """Return one row a prompt; the input's other columns go into `extra_info`.

    The ground truth is the reference in a row's `answer`, or where that holds none in its
    `ground_truth`; where a row has neither it is null, and the style is `model` instead of
    `rule`: only a reward model can score it.
    """
    truth = _ground_truth(batch)
    style = pc.if_else(pc.is_valid(truth), "rule", "model")
    index = pa.array(np.arange(batch.start, batch.start + batch.table.num_rows), pa.int64())
    ours = {"index": index, "prompt_id": batch.array("prompt_id")}
    extra = made(batch, ours, reserved=_RESERVED)
    return pa.table(
        {
            "data_source": _text(batch, "data_source", batch.name or "bon"),
            "prompt": prompt_messages(batch),
            "ability": _text(batch, "ability", "unknown"),
            "reward_model": pa.StructArray.from_arrays([style, truth], ["style", "ground_truth"]),
            "extra_info": pa.StructArray.from_arrays(
                [column.combine_chunks() for column in extra.columns], extra.column_names
            ),
        }
    )


def _ground_truth(batch: Batch) -> pa.Array:
    others, size = batch.others(), batch.table.num_rows
    found: list[str | None] = [None] * size
    for column in (others[name] for name in _ANSWER_COLUMNS if name in others):
        references = map(reference_answer, column.to_pylist())
        found = [old or new for old, new in zip(found, references, strict=True)]
    return pa.array(found, pa.string())


def _text(batch: Batch, name: str, default: str) -> pa.Array:
    """Return the input's column of texts, or the default where there is none."""
    values = batch.others().get(name)
    if values is None or not (pa.types.is_string(values.type)):
        return pa.array([default] * batch.table.num_rows, pa.string())
    return pc.fill_null(values, default)
