"""Rows as OpenRLHF, LLaMA-Factory, Axolotl, NeMo RL and ms-swift take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bon.exports.batches import (
    Batch,
    Kind,
    concatenated,
    first_message,
    interleaved,
    made,
)

__all__ = [
    "axolotl",
    "llama_factory",
    "llama_factory_entry",
    "ms_swift",
    "nemo_rl",
    "openrlhf",
]

_ROLE_TAGS = {"user": "human", "assistant": "gpt", "tool": "observation", "developer": "system"}


def openrlhf(batch: Batch) -> pa.Table:
    """Return pairs with prompt, chosen and rejected as lists of messages, and the margin."""
    return made(batch, batch.ours())


def llama_factory(batch: Batch) -> pa.Table:
    """Return sharegpt rows: conversations, and of pairs one chosen and one rejected object."""
    if batch.kind == "responses":
        columns = {"conversations": _sharegpt(batch.array("messages"))}
        return made(batch, {**columns, **batch.ours("prompt", "response", "messages")})
    columns = {
        "conversations": _sharegpt(batch.array("prompt")),
        "chosen": first_message(_sharegpt(batch.array("chosen"))),
        "rejected": first_message(_sharegpt(batch.array("rejected"))),
    }
    return made(batch, {**columns, **batch.ours("prompt", "chosen", "rejected")})


def llama_factory_entry(kind: Kind) -> dict[str, Any]:
    """Return what `dataset_info.json` says of such rows, but for the file's name."""
    columns = {"messages": "conversations"}
    if kind == "pairs":
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    return {"formatting": "sharegpt", "ranking": kind == "pairs", "columns": columns}


def axolotl(batch: Batch) -> pa.Table:
    """Return chat_template rows: messages, and of pairs one chosen and one rejected object."""
    if batch.kind == "responses":
        columns = {"messages": batch.array("messages")}
        return made(batch, {**columns, **batch.ours("prompt", "response", "messages")})
    columns = {
        "messages": batch.array("prompt"),
        "chosen": first_message(batch.array("chosen")),
        "rejected": first_message(batch.array("rejected")),
    }
    ours = batch.ours("prompt", "chosen", "rejected")
    return made(batch, {**columns, **ours}, reserved={"prompt"})


def nemo_rl(batch: Batch) -> pa.Table:
    """Return pairs as a context and two completions, rank 0 the chosen; no other columns."""
    size = batch.table.num_rows
    completion = interleaved(batch.array("chosen"), batch.array("rejected"))
    rank = pa.array(np.tile([0, 1], size), pa.int64())
    ranked = pa.StructArray.from_arrays([rank, completion], ["rank", "completion"])
    offsets = pa.array(np.arange(size + 1) * 2, pa.int32())
    completions = pa.ListArray.from_arrays(offsets, ranked)
    return pa.table({"context": batch.array("prompt"), "completions": completions})


def ms_swift(batch: Batch) -> pa.Table:
    """Return messages, and of pairs the rejected text; alone, as it reads meaning into others."""
    if batch.kind == "responses":
        return pa.table({"messages": batch.array("messages")})
    rejected = first_message(batch.array("rejected"))
    return pa.table(
        {
            "messages": concatenated(batch.array("prompt"), batch.array("chosen")),
            "rejected_response": pc.struct_field(rejected, "content"),
        }
    )


def _sharegpt(messages: pa.ListArray) -> pa.ListArray:
    role, content = messages.values.field("role"), messages.values.field("content")
    place = pc.index_in(role, pa.array(list(_ROLE_TAGS)))
    tag = pc.coalesce(pa.array(list(_ROLE_TAGS.values())).take(place), role)
    said = pa.StructArray.from_arrays([tag, content], ["from", "value"])
    return pa.ListArray.from_arrays(messages.offsets, said)
