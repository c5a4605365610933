"""LLaMA-Factory's index of sets."""

from __future__ import annotations

import json
from pathlib import Path

from bon.exports.dataset_info import DATASET_INFO, dataset_info_text, read_dataset_info


def test_an_entry_is_added_and_the_others_stay(tmp_path: Path) -> None:
    assert read_dataset_info(tmp_path) == {}
    (tmp_path / DATASET_INFO).write_text('{"alpaca": {"file_name": "a.json"}, "x": 1}')
    text = dataset_info_text(
        read_dataset_info(tmp_path), {"x": "x.jsonl", "x_test": "x.test.jsonl"}, {"ranking": True}
    )
    assert json.loads(text) == {
        "alpaca": {"file_name": "a.json"},
        "x": {"file_name": "x.jsonl", "ranking": True},
        "x_test": {"file_name": "x.test.jsonl", "ranking": True},
    }
