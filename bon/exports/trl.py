"""Rows as TRL's trainers take them, all conversational."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from bon.exports.batches import (
    Batch,
    chosen_half,
    concatenated,
    interleaved,
    last_message,
    made,
    prompt_messages,
    without_last,
)

__all__ = ["dpo", "grpo", "kto", "reward", "sft"]

# TRL recognises a set's type by its columns, and takes any one of these to see whether it is
# conversational; columns of token ids make it skip tokenizing.
_TYPED = {"prompt", "chosen", "rejected", "completion", "messages", "conversations", "label"}
_TOKENIZED = {
    "input_ids", "labels", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids",
    "chosen_input_ids", "rejected_input_ids", "completion_mask", "assistant_masks",
    "ref_chosen_logps", "ref_rejected_logps", "ref_logps", "ref_KL_logps",
    "chat_template_kwargs",
}  # fmt: skip
# Tools must be schemas that a template can take; images make it a set for vision models.
_MEANINGFUL = {"tools", "image", "images"}
_RESERVED = _TYPED | _TOKENIZED | _MEANINGFUL
# Every column becomes a keyword of the reward functions, beside these.
_REWARD_KEYWORDS = {"prompts", "completions", "trainer_state", "log_extra", "log_metric"} | {
    "environments"
}


def dpo(batch: Batch) -> pa.Table:
    """Return pairs for DPOTrainer: prompt, chosen and rejected are lists of messages."""
    return made(batch, batch.ours(), reserved=_RESERVED)


def reward(batch: Batch) -> pa.Table:
    """Return pairs for RewardTrainer: chosen and rejected are whole conversations.

    A margin that is unknown is 0, which changes nothing in the loss −log σ(Δ − margin).
    """
    prompt = batch.array("prompt")
    whole = {
        "chosen": concatenated(prompt, batch.array("chosen")),
        "rejected": concatenated(prompt, batch.array("rejected")),
        "margin": pc.fill_null(batch.array("margin"), 0.0),
    }
    ours = batch.ours("prompt", "chosen", "rejected", "margin")
    return made(batch, {**whole, **ours}, reserved=_RESERVED)


def sft(batch: Batch) -> pa.Table:
    """Return prompt and completion for SFTTrainer, which then learns the completion alone."""
    if batch.kind == "pairs":
        parts = {"prompt": batch.array("prompt"), "completion": batch.array("chosen")}
        return made(batch, {**parts, **chosen_half(batch)}, reserved=_RESERVED)
    messages = batch.array("messages")
    parts = {"prompt": without_last(messages), "completion": last_message(messages)}
    ours = batch.ours("prompt", "response", "messages")
    return made(batch, {**parts, **ours}, reserved=_RESERVED)


def kto(batch: Batch) -> pa.Table:
    """Return two rows a pair for KTOTrainer: the chosen with label true, the rejected false."""

    def twice(values: pa.Array) -> pa.Array:
        return interleaved(values, values)

    size = batch.table.num_rows
    others = {name: twice(values) for name, values in batch.others().items()}
    columns = {
        "prompt": twice(batch.array("prompt")),
        "completion": interleaved(batch.array("chosen"), batch.array("rejected")),
        "label": interleaved(
            pa.array([True] * size, pa.bool_()), pa.array([False] * size, pa.bool_())
        ),
        "prompt_id": twice(batch.array("prompt_id")),
    }
    for name in ("score", "candidate", "num_tokens"):
        columns[name] = interleaved(batch.array(f"{name}_chosen"), batch.array(f"{name}_rejected"))
    return made(Batch(pa.table(others), batch.kind), columns, reserved=_RESERVED)


def grpo(batch: Batch) -> pa.Table:
    """Return prompts for GRPOTrainer; the input's columns reach its reward functions."""
    columns = {"prompt": prompt_messages(batch), "prompt_id": batch.array("prompt_id")}
    return made(batch, columns, reserved=_RESERVED | _REWARD_KEYWORDS)
