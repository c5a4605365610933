"""Other trainers' own code reads what we write for them, and would train on the right tokens.

Each runs in an environment of its own, made at first use (`make test-consumers`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from consumers.environments import read_with
from consumers.samples import (
    MARGINS,
    PAIRS,
    PROMPTS,
    REFERENCES,
    conversation_text,
    export,
    prompt_text,
    response_text,
)

pytestmark = [pytest.mark.consumers, pytest.mark.slow]

EXPECTED_PAIRS = [
    {
        "prompt": prompt_text(prompt),
        "chosen": response_text(chosen),
        "rejected": response_text(rejected),
    }
    for prompt, chosen, rejected in PAIRS
]
EXPECTED_RESPONSES = [
    {"prompt": prompt_text(prompt), "completion": response_text(chosen)}
    for prompt, chosen, _ in PAIRS
]


def understood(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Of each row these keys, without the newline that templates put after the last turn."""
    return [
        {key: row[key].removesuffix("\n") if key != "prompt" else row[key] for key in keys}
        for row in rows
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_openrlhf_trains_dpo_on_our_pairs(tmp_path: Path, suffix: str) -> None:
    data = export("openrlhf", tmp_path / f"pairs{suffix}")
    rows = read_with("openrlhf", data, "dpo", tmp_path)
    assert understood(rows, "prompt", "chosen", "rejected") == EXPECTED_PAIRS


def test_openrlhf_trains_a_reward_model_on_our_pairs_and_margins(tmp_path: Path) -> None:
    data = export("openrlhf", tmp_path / "pairs.parquet")
    rows = read_with("openrlhf", data, "reward", tmp_path)
    assert rows == [
        {
            "text_chosen": conversation_text(prompt, chosen),
            "text_rejected": conversation_text(prompt, rejected),
            "margin": margin or 0,
        }
        for (prompt, chosen, rejected), margin in zip(PAIRS, MARGINS, strict=True)
    ]


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_llama_factory_reads_our_folder_of_pairs(tmp_path: Path, kind: str) -> None:
    data = export("llama-factory", f"{tmp_path / 'set'}/")
    rows = read_with("llama-factory", data, kind, tmp_path)
    assert understood(rows, "prompt", "chosen", "rejected") == EXPECTED_PAIRS


def test_llama_factory_reads_one_file_of_pairs(tmp_path: Path) -> None:
    data = export("llama-factory", tmp_path / "pairs.jsonl")
    rows = read_with("llama-factory", data.parent, "dpo", tmp_path)
    assert understood(rows, "prompt", "chosen", "rejected") == EXPECTED_PAIRS


def test_llama_factory_fine_tunes_on_our_responses(tmp_path: Path) -> None:
    data = export("llama-factory", f"{tmp_path / 'set'}/", kind="responses")
    rows = read_with("llama-factory", data, "sft", tmp_path)
    assert understood(rows, "prompt", "completion") == EXPECTED_RESPONSES


def test_ms_swift_trains_dpo_on_our_pairs(tmp_path: Path) -> None:
    data = export("ms-swift", tmp_path / "pairs.jsonl")
    rows = read_with("ms-swift", data, "dpo", tmp_path)
    assert understood(rows, "prompt", "chosen", "rejected") == EXPECTED_PAIRS


def test_ms_swift_fine_tunes_on_our_responses(tmp_path: Path) -> None:
    data = export("ms-swift", tmp_path / "responses.jsonl", kind="responses")
    rows = read_with("ms-swift", data, "sft", tmp_path)
    assert understood(rows, "prompt", "completion") == EXPECTED_RESPONSES


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_axolotl_trains_dpo_on_our_pairs(tmp_path: Path, suffix: str) -> None:
    data = export("axolotl", tmp_path / f"pairs{suffix}")
    rows = read_with("axolotl", data, "dpo", tmp_path)
    assert understood(rows, "prompt", "chosen", "rejected") == EXPECTED_PAIRS


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_verl_rolls_out_our_prompts_with_their_ground_truth(tmp_path: Path, suffix: str) -> None:
    data = export("verl", tmp_path / f"prompts{suffix}")
    rows = read_with("verl", data, "grpo", tmp_path)
    assert [row["prompt"] for row in rows] == [prompt_text(prompt) for prompt in PROMPTS]
    assert [row["ground_truth"] for row in rows] == REFERENCES
    assert [row["style"] for row in rows] == ["rule", "rule", "model"]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert {row["data_source"] for row in rows} == {"prompts"}
