"""ms-swift's own load_dataset and template on a file: the tokens and labels it would train on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

IGNORED = -100
MODES = {"dpo": "rlhf", "reward": "rlhf", "sft": "train"}


def main(model: str, data: str, kind: str) -> list[dict[str, Any]]:
    from swift.dataset import EncodePreprocessor, load_dataset
    from swift.model import get_processor
    from swift.template import get_template

    tokenizer = get_processor(model, model_type="qwen3")
    # By default it learns the earlier assistant turns of a conversation too.
    template = get_template(
        tokenizer, template_type="chatml", max_length=4096, loss_scale="last_round"
    )
    template.set_mode(MODES[kind])
    rows, _ = load_dataset(data, strict=True, load_from_cache_file=False)
    rows = EncodePreprocessor(template)(rows, load_from_cache_file=False, strict=True)

    def trained(row: dict[str, Any], prefix: str = "") -> str:
        return str(tokenizer.decode([t for t in row[f"{prefix}labels"] if t != IGNORED]))

    def prompt(row: dict[str, Any], prefix: str = "") -> str:
        ids, labels = row[f"{prefix}input_ids"], row[f"{prefix}labels"]
        start = next(i for i, label in enumerate(labels) if label != IGNORED)
        return str(tokenizer.decode(ids[:start]))

    if kind == "sft":
        return [{"prompt": prompt(row), "completion": trained(row)} for row in rows]
    return [
        {
            "prompt": prompt(row, "chosen_"),
            "chosen": trained(row, "chosen_"),
            "rejected": trained(row, "rejected_"),
            **({"margin": row["margin"]} if "margin" in row else {}),
        }
        for row in rows
    ]


if __name__ == "__main__":
    result = main(*sys.argv[1:4])
    Path(sys.argv[4]).write_text(json.dumps(result), encoding="utf-8")
