"""The dataset card, as huggingface_hub reads it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bon.exports.card import CardFacts, Written, render_card
from bon.exports.formats import choose_format

FACTS = CardFacts(
    name='Odd: "name" #1 🙂 \x7f\n| x',
    command="bon build-dpo prompts.jsonl -o out",
    version="0.2",
    source="prompts.jsonl",
    models={"generator": "org/model, revision abc"},
    sampling={"temperature": 0.8, "stop": ["a", "b"]},
    scorers={"reward": "org/reward"},
    method={"strategy": "best-worst", "filters": {"min_margin": "0|1"}},
    input_rows=12345,
    drops={"too_long": 3},
    candidate_drops={"no_score": 1234},
)


def written(pairs: pa.Table, rows: dict[str, int], form: str = "trl-dpo") -> Written:
    files = {split: f"data/{split}-*.parquet" for split in rows}
    return Written(choose_format(form, "pairs"), "pairs", rows, files, pairs.schema)


def test_the_hub_understands_it(pairs: pa.Table) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard(render_card(FACTS, written(pairs, {"train": 900, "test": 99})))
    data = card.data.to_dict()
    assert data["pretty_name"] == FACTS.name
    assert data["size_categories"] == ["n<1K"]
    assert {"best-of-n", "preference", "dpo", "trl"} <= set(data["tags"])
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]
    assert data["task_categories"] == ["text-generation", "reinforcement-learning"]


def test_it_says_how_the_set_was_made(pairs: pa.Table) -> None:
    text = render_card(FACTS, written(pairs, {"train": 2000}))
    for line in (
        "2,000 preference pairs, made with bon by best-of-N sampling, in the form that "
        "TRL DPOTrainer takes.",
        "| generator | org/model, revision abc |",
        "| sampling: stop | a, b |",
        "| scorer `reward` | org/reward |",
        "| filters | min_margin 0\\|1 |",
        "| input rows | 12,345 |",
        "| output rows | train: 2,000 rows |",
        "| `too_long` | input rows | 3 |",
        "| `no_score` | single candidates | 1,234 |",
        "| `chosen` | list of {role: string, content: string} |",
        "$ bon build-dpo prompts.jsonl -o out",
    ):
        assert line in text.splitlines(), line


def test_nothing_dropped_and_no_trainer(pairs: pa.Table) -> None:
    plain = CardFacts(name="x", command="c", version="0", source="s", input_rows=1)
    text = render_card(plain, written(pairs, {"train": 1}, "bon"))
    assert "Nothing was dropped." in text
    assert "in the form that" not in text


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (60_000, "10K<n<100K"),
        (999_999, "100K<n<1M"),
        (10**8, "100M<n<1B"),
    ],
)
def test_sizes(pairs: pa.Table, rows: int, size: str) -> None:
    assert f'size_categories: ["{size}"]' in render_card(FACTS, written(pairs, {"train": rows}))
