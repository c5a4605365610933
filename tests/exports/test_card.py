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


HOSTILE = (
    "[click](javascript:alert(1))",
    "![](https://tracker.example/x.png)",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a`](https://evil.example)`b",
    "``` \n# heading\n---\nlicense: evil\n---",
    "a | b\n\n<https://evil.example>",
    "\x1b]0;title\x07\u202egnp.exe",
    "\\`<b>\\|",
    "&lt;",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_values_of_others_make_no_markup(text: str) -> None:
    from huggingface_hub import DatasetCard
    from markdown_it import MarkdownIt

    facts = CardFacts(
        name=text, command=f"bon select '{text}'", version="0", source=text,
        models={"generator": text}, sampling={"stop": [text]}, scorers={text: text},
        method={text: {text: text}}, input_rows=1, drops={text: 1}, candidate_drops={text: 1},
    )  # fmt: skip
    files = {"train": "data/train-*.parquet"}
    schema = pa.schema([(text, pa.string())])
    made = Written(choose_format("bon", "pairs"), "pairs", {"train": 1}, files, schema)
    card = render_card(facts, made)
    assert "\x1b" not in card
    assert "\u202e" not in card
    data = DatasetCard(card).data.to_dict()
    assert data["pretty_name"] == text
    assert data.get("license") is None
    body = card.split("\n---\n", 1)[1]
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    for tag in ("<a", "<img", "<script", "<b>", "<hr"):
        assert tag not in html, tag
    assert html.count("<h1>") == 1
    assert html.count("<h2>") == 4
    assert html.count("<table>") == 3
    cells = [row.count("<td>") + row.count("<th>") for row in html.split("<tr>")[1:]]
    assert cells == [2] * 10 + [3] * 3 + [2] * 2
