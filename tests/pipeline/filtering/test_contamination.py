"""Evaluation data in a set: what is found, what is not, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bon.errors import InputError, InputNotFoundError, SettingsError

EVAL = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
GRAM = "sold clips to 48 of her friends in"  # its first 8-gram but one


@pytest.fixture
def evaluation(tmp_path: Path) -> str:
    path = tmp_path / "eval.jsonl"
    lines = [{"question": "How far is the Moon from here?", "answer": "far"}]
    lines += [{"question": EVAL, "answer": "72", "choices": ["one", "two"]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_planted_question_is_found_and_reported(filtered, row, evaluation):
    rows = [
        row(["fine"], prompt="What is the sum of the first ten odd numbers, my friend?"),
        row(["a", "b"], prompt=f"Solve this. {EVAL.upper()} How many in all?"),
    ]
    result = filtered(rows, {"name": "decontaminate", "files": evaluation})
    assert result.kept == ["fine"]
    (report,) = result.report["filters"]
    assert report["dropped_by_file"] == {evaluation: 2}
    (match,) = report["matches"]
    assert match["where"] == "eval.jsonl:2"
    assert match["column"] == "question"
    assert match["share"] == 1.0  # of the evaluation text
    assert match["span"] == EVAL.lower().replace(",", "").replace(".", "")
    assert result.report["drops"] == {"decontaminate": 1}
    assert "eval.jsonl:2, question" in result.details[0]


def test_one_shared_ngram_is_a_share_of_both_texts(filtered, row, evaluation):
    # 8 of the prompt's 24 words, and 8 of the evaluation text's 19.
    prompt = f"{' '.join(f'x{i}' for i in range(16))} {GRAM}"

    def kept(**keys: object) -> bool:
        table = {"name": "decontaminate", "files": evaluation, **keys}
        return bool(filtered([row(["r"], prompt=prompt)], table).kept)

    assert kept()
    assert kept(max_share=8 / 19)
    assert not kept(max_share=8 / 19 - 1e-6)
    assert not kept(max_share=0)
    assert kept(max_share=0, ngram=9)
    assert kept(max_share=0, ngram=8, columns=["answer"])


def test_the_share_of_a_short_text_in_a_long_one_counts_too(filtered, row, evaluation):
    # All 8 words of the prompt lie in the evaluation text.
    result = filtered([row(["r"], prompt=GRAM)], {"name": "decontaminate", "files": evaluation})
    assert result.kept == []


def test_a_repeated_ngram_counts_once_on_the_evaluation_side(filtered, row, evaluation):
    filler = " ".join(f"x{i}" for i in range(40))
    prompt = f"{GRAM} {GRAM} {GRAM} {filler}"  # 24 of 64 words; still 8 of 19
    table = {"name": "decontaminate", "files": evaluation}
    assert filtered([row(["r"], prompt=prompt)], table).kept == ["r"]


def test_short_evaluation_texts_match_as_a_whole(filtered, row, evaluation):
    table = {"name": "decontaminate", "files": evaluation}
    rows = [
        row(["r0"], prompt="how far is the moon from here"),
        row(["r1"], prompt="how far is the moon from Paris"),
        row(["r2"], prompt="far"),  # an answer of one word is no text to compare with
    ]
    assert filtered(rows, table).kept == ["r1", "r2"]


def test_responses_can_be_compared(filtered, row, evaluation):
    table = {"name": "decontaminate", "files": evaluation, "on": "response"}
    result = filtered([row([EVAL, "other"], prompt=EVAL)], table)
    assert result.kept == ["other"]
    pairs = [row(["good", EVAL]), row(["good", "bad"])]
    assert filtered(pairs, table, kind="pairs").kept == ["good|bad"]


def test_files_and_columns_that_are_not_there(filtered, row, evaluation):
    rows = [row(["r"])]
    with pytest.raises(InputNotFoundError):
        filtered(rows, "decontaminate:files=nowhere.jsonl")
    with pytest.raises(SettingsError, match="did you mean 'question'"):
        filtered(rows, {"name": "decontaminate", "files": evaluation, "columns": ["qestion"]})


def test_evaluation_data_without_any_text_would_find_nothing(filtered, row, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("not json\n[1]\n")
    with pytest.raises(InputError, match="no text") as caught:
        filtered([row(["r"])], f"decontaminate:files={broken}")
    assert caught.value.where == str(broken)
