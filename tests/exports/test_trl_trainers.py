"""Every TRL form trains for one step in its trainer, as the file says and without a map."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.tiny_models import save_generator, save_reward

from bon.exports.formats import choose_format
from bon.exports.writer import DatasetWriter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # theirs are not ours to mend
]


@pytest.mark.parametrize(
    ("form", "kind", "trainer"),
    [
        ("trl-dpo", "pairs", "DPO"),
        ("trl-reward", "pairs", "Reward"),
        ("trl-kto", "pairs", "KTO"),
        ("trl-sft", "pairs", "SFT"),
        ("trl-sft", "responses", "SFT"),
    ],
)
def test_one_step(
    tmp_path: Path, form: str, kind: Any, trainer: str, request: pytest.FixtureRequest
) -> None:
    from datasets import load_dataset

    trl = importlib.import_module("trl")
    table: pa.Table = request.getfixturevalue(kind)
    with DatasetWriter(
        tmp_path / "x.parquet", schema=table.schema, kind=kind, format=choose_format(form, kind)
    ) as writer:
        writer.write(table)
    rows = load_dataset("parquet", data_files=str(writer.files[0]), cache_dir=str(tmp_path / "c"))

    model = tmp_path / "model"
    model.mkdir()
    if trainer == "Reward":
        save_reward(model)
    else:
        save_generator(model)
    settings = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    result = getattr(trl, f"{trainer}Trainer")(
        str(model), args=settings, train_dataset=rows["train"]
    ).train()
    assert result.global_step == 1
    assert result.training_loss > 0
