"""The forms in which a set can be written, by name.

To add one: write a function from a `Batch` to a table, add a line to `FORMATS`, a row to
docs/formats.md and a case to tests/exports/test_formats.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.exports import trainers, trl
from bon.exports.batches import Batch, Kind
from bon.exports.verl import verl

__all__ = ["FORMATS", "Format", "Kind", "choose_format"]


@dataclass(frozen=True, slots=True)
class Format:
    """How native rows become rows for one trainer, and which files it reads."""

    name: str
    trainer: str
    """As people write it."""
    kinds: tuple[Kind, ...]
    """What it can be made from."""
    rows: Callable[[Batch], pa.Table]
    """Any batch, also an empty one; the schema depends on the batch's schema and kind only."""
    suffixes: tuple[str, ...]
    """File types the trainer reads; the first is a folder's."""
    tags: tuple[str, ...] = ()
    """For the dataset card."""
    once: Mapping[Kind, str] = field(default_factory=dict)
    """Rows that agree in the prompt's messages and this column become one row, by kind."""
    entry: Callable[[Kind], dict[str, Any]] | None = None
    """What `dataset_info.json` says of a file, where the trainer wants one."""

    def convert(self, table: pa.Table, kind: Kind, *, name: str = "", start: int = 0) -> pa.Table:
        """Return native rows in this form; `name` of the set, `start` rows came before."""
        return self.rows(Batch(table, kind, name, start))


def _native(batch: Batch) -> pa.Table:
    return batch.table


_TABLES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_EITHER = (".parquet", ".jsonl")
_ANY: tuple[Kind, ...] = ("prompts", "pairs", "responses")
_BOTH: tuple[Kind, ...] = ("pairs", "responses")
_PER_PROMPT: Mapping[Kind, str] = dict.fromkeys(_ANY, "prompt_id")
_PER_CHOSEN: Mapping[Kind, str] = {"pairs": "chosen"}

FORMATS: tuple[Format, ...] = (
    Format("bon", "any", _ANY, _native, (*_TABLES, ".csv")),
    Format("trl-dpo", "TRL DPOTrainer", ("pairs",), trl.dpo, _TABLES, ("trl", "dpo")),
    Format(
        "trl-reward", "TRL RewardTrainer", ("pairs",), trl.reward, _TABLES, ("trl", "reward-model")
    ),
    Format("trl-sft", "TRL SFTTrainer", _BOTH, trl.sft, _TABLES, ("trl", "sft"), _PER_CHOSEN),
    Format("trl-kto", "TRL KTOTrainer", ("pairs",), trl.kto, _TABLES, ("trl", "kto")),
    Format("trl-grpo", "TRL GRPOTrainer", _ANY, trl.grpo, _TABLES, ("trl", "grpo"), _PER_PROMPT),
    Format("openrlhf", "OpenRLHF", ("pairs",), trainers.openrlhf, _EITHER, ("openrlhf",)),
    Format(
        "llama-factory",
        "LLaMA-Factory",
        _BOTH,
        trainers.llama_factory,
        _EITHER,
        ("llama-factory",),
        entry=trainers.llama_factory_entry,
    ),
    Format("axolotl", "Axolotl", _BOTH, trainers.axolotl, _TABLES, ("axolotl",)),
    Format("nemo-rl", "NeMo RL", ("pairs",), trainers.nemo_rl, (".jsonl",), ("nemo-rl",)),
    Format("verl", "verl", _ANY, verl, _EITHER, ("verl", "grpo"), _PER_PROMPT),
    Format("ms-swift", "ms-swift", _BOTH, trainers.ms_swift, (".jsonl",), ("ms-swift",)),
)
"""Every form that `--format` takes."""


def choose_format(name: str, kind: Kind) -> Format:
    """Return the form of this name.

    Raises:
        UnknownChoiceError: no such form.
        SettingsError: it cannot be made from rows of this kind.
    """
    chosen = next((one for one in FORMATS if one.name == name), None)
    if chosen is None:
        known = [one.name for one in FORMATS]
        raise UnknownChoiceError(
            f"unknown value for --format: {name!r}", next_step=did_you_mean(name, known)
        )
    if kind not in chosen.kinds:
        fitting = [one.name for one in FORMATS if kind in one.kinds]
        raise SettingsError(
            f"--format {name} cannot be made from {kind}",
            why=f"{chosen.trainer} takes it from {' or '.join(chosen.kinds)}",
            next_step=f"for {kind} there are: {', '.join(fitting)}",
        )
    return chosen
