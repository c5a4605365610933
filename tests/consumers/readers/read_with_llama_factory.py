"""LLaMA-Factory's own get_dataset on a folder: the tokens and labels it would train on."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

IGNORED = -100
STAGES = {"dpo": "rm", "reward": "rm", "sft": "sft", "kto": "kto"}
"""The stage that each training's workflow gives to get_dataset."""


def main(model: str, data: str, kind: str) -> list[dict[str, Any]]:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from transformers import AutoTokenizer

    names = json.loads((Path(data) / "dataset_info.json").read_text(encoding="utf-8"))
    model_args, data_args, training_args, _, _ = get_train_args(
        {
            "stage": {"reward": "rm"}.get(kind, kind),
            "do_train": True,
            "finetuning_type": "full",
            "model_name_or_path": model,
            "dataset": ",".join(names),
            "dataset_dir": data,
            "template": "chatml",
            # Else it learns the earlier assistant turns of a conversation too.
            "mask_history": kind == "sft",
            "output_dir": tempfile.mkdtemp(),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    rows = get_dataset(
        template, model_args, data_args, training_args, stage=STAGES[kind], tokenizer=tokenizer
    )["train_dataset"]

    def trained(row: dict[str, Any], prefix: str = "") -> str:
        return str(tokenizer.decode([t for t in row[f"{prefix}labels"] if t != IGNORED]))

    def prompt(row: dict[str, Any], prefix: str = "") -> str:
        ids, labels = row[f"{prefix}input_ids"], row[f"{prefix}labels"]
        start = next(i for i, label in enumerate(labels) if label != IGNORED)
        return str(tokenizer.decode(ids[:start]))

    if kind == "sft":
        return [{"prompt": prompt(row), "completion": trained(row)} for row in rows]
    if kind == "kto":
        return [
            {"prompt": prompt(row), "completion": trained(row), "label": row["kto_tags"]}
            for row in rows
        ]
    return [
        {
            "prompt": prompt(row, "chosen_"),
            "chosen": trained(row, "chosen_"),
            "rejected": trained(row, "rejected_"),
        }
        for row in rows
    ]


if __name__ == "__main__":
    result = main(*sys.argv[1:4])
    Path(sys.argv[4]).write_text(json.dumps(result), encoding="utf-8")
