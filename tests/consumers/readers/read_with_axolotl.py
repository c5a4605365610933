"""Axolotl's own preference loader on a file: the texts it would hand to its DPO trainer."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(model: str, data: str, kind: str) -> list[dict[str, Any]]:
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.data.rl import prepare_preference_datasets
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.enums import RLType

    config = DictDefault(
        {
            "rl": RLType(kind),
            "base_model": model,
            "tokenizer_config": model,
            "chat_template": "tokenizer_default",
            "datasets": [
                {
                    "path": data,
                    "ds_type": "parquet" if data.endswith(".parquet") else "json",
                    "split": "train",
                    "type": "chat_template.default",
                }
            ],
            "sequence_len": 4096,
            "excess_length_strategy": "raise",
            "dataset_prepared_path": tempfile.mkdtemp(),
            "shuffle_merged_datasets": False,
        }
    )
    rows, _ = prepare_preference_datasets(config, load_tokenizer(config))
    return [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]


if __name__ == "__main__":
    result = main(*sys.argv[1:4])
    Path(sys.argv[4]).write_text(json.dumps(result), encoding="utf-8")
