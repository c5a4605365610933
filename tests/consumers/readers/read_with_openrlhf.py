"""OpenRLHF's own loader and RewardDataset on a file: the tokens it would train a model on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main(model: str, data: str, kind: str) -> list[dict[str, Any]]:
    from openrlhf.datasets import RewardDataset
    from openrlhf.datasets.utils import blending_datasets
    from transformers import AutoTokenizer

    keys = SimpleNamespace(
        prompt_key="prompt",
        chosen_key="chosen",
        rejected_key="rejected",
        apply_chat_template=True,
    )
    strategy = SimpleNamespace(
        args=SimpleNamespace(data=keys, use_ms=False),
        print=lambda *said: None,
        is_rank_0=lambda: True,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = RewardDataset(
        blending_datasets(data, None, strategy),
        tokenizer,
        max_length=4096,
        strategy=strategy,
        is_dpo=kind == "dpo",
        num_processors=1,
    )
    understood = []
    for chosen_ids, _, rejected_ids, _, extra in rows:
        row: dict[str, Any] = {"text_chosen": tokenizer.decode(chosen_ids[0])}
        row["text_rejected"] = tokenizer.decode(rejected_ids[0])
        if kind == "dpo":
            row["prompt"] = tokenizer.decode(chosen_ids[0][:extra])
            row["chosen"] = tokenizer.decode(chosen_ids[0][extra:])
            row["rejected"] = tokenizer.decode(rejected_ids[0][extra:])
        else:
            row["margin"] = extra
        understood.append(row)
    return understood


if __name__ == "__main__":
    result = main(*sys.argv[1:4])
    Path(sys.argv[4]).write_text(json.dumps(result), encoding="utf-8")
