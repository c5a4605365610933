"""verl's own RLHFDataset on a file: the prompts it would roll out and what rewards them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(model: str, data: str, kind: str) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tokenizer = AutoTokenizer.from_pretrained(model)
    config = OmegaConf.create({"max_prompt_length": 4096, "filter_overlong_prompts_workers": None})
    rows = RLHFDataset(data, tokenizer, config)
    return [
        {
            "prompt": tokenizer.apply_chat_template(
                row["raw_prompt"], add_generation_prompt=True, tokenize=False
            ),
            "ground_truth": row["reward_model"]["ground_truth"],
            "style": row["reward_model"]["style"],
            "data_source": row["data_source"],
            "index": row["index"],
        }
        for row in rows
    ]


if __name__ == "__main__":
    result = main(*sys.argv[1:4])
    Path(sys.argv[4]).write_text(json.dumps(result), encoding="utf-8")
