"""Evaluation data in a set: what is found, what is not, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config.filters import Decontaminate
from bon.errors import InputError, InputNotFoundError, SettingsError, UnknownChoiceError
from bon.pipeline.filtering.contamination import EvaluationIndex

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


@pytest.mark.parametrize(
    ("share_of", "share"), [("evaluation", 8 / 19), ("text", 8 / 24), ("either", 8 / 19)]
)
def test_one_shared_ngram_is_a_share_of_the_text_that_is_named(
    filtered, row, evaluation, share_of, share
):
    # 8 of the prompt's 24 words, and 8 of the evaluation text's 19.
    prompt = f"{' '.join(f'x{i}' for i in range(16))} {GRAM}"

    def kept(**keys: object) -> bool:
        table = {"name": "decontaminate", "files": evaluation, "share_of": share_of, **keys}
        return bool(filtered([row(["r"], prompt=prompt)], table).kept)

    assert kept()
    assert kept(max_share=share)
    assert not kept(max_share=share - 1e-6)
    assert not kept(max_share=0)
    assert kept(max_share=0, ngram=9)
    assert kept(max_share=0, ngram=8, columns=["answer"])


def test_the_default_share_is_tulus(filtered, row, evaluation):
    # All 8 words of the prompt lie in the evaluation text, but 8 of 19 is less than half of that.
    table = {"name": "decontaminate", "files": evaluation}
    assert filtered([row(["r"], prompt=GRAM)], table).kept == ["r"]
    for share_of in ("text", "either"):
        assert filtered([row(["r"], prompt=GRAM)], {**table, "share_of": share_of}).kept == []


def test_a_repeated_ngram_counts_once_on_the_evaluation_side(filtered, row, evaluation):
    filler = " ".join(f"x{i}" for i in range(10))
    prompt = f"{GRAM} {GRAM} {GRAM} {filler}"  # 24 of 34 words; still 8 of 19
    table = {"name": "decontaminate", "files": evaluation}
    assert filtered([row(["r"], prompt=prompt)], table).kept == ["r"]
    assert filtered([row(["r"], prompt=prompt)], {**table, "share_of": "text"}).kept == []


@given(
    st.lists(st.text("abc", max_size=14), min_size=1, max_size=6),
    st.text("abc", max_size=14),
    st.integers(1, 4),
    st.sampled_from(["evaluation", "text", "either"]),
)
def test_shares_are_those_of_plain_loops(tmp_path_factory, evaluation_texts, text, n, share_of):
    path = tmp_path_factory.mktemp("shares") / "eval.jsonl"
    lines = [json.dumps({"text": " ".join(one)}) for one in [*evaluation_texts, "zzzzzzzz"]]
    path.write_text("\n".join(lines))
    index = EvaluationIndex(Decontaminate(files=(str(path),), ngram=n, share_of=share_of))

    def covered(one: str, other: str) -> float:
        size = min(n, len(one))
        if size != min(n, len(other)):
            return 0.0
        grams = {other[at : at + size] for at in range(len(other) - size + 1)}
        inside = [at for at in range(len(one) - size + 1) if one[at : at + size] in grams]
        return len({at + step for at in inside for step in range(size)}) / len(one)

    long_enough = [one for one in evaluation_texts if len(one) >= (n + 1) // 2]
    shares = [0.0]
    if len(text) >= (n + 1) // 2:
        for one in long_enough:
            sides = {"evaluation": covered(one, text), "text": covered(text, one)}
            shares.append(sides.get(share_of, max(sides.values())))
    found = index.matches(pa.array([" ".join(text)]), 0.0)
    assert [match.share for match in found.values()] == pytest.approx(
        [max(shares)] if max(shares) else []
    )


def test_a_phrase_that_thousands_share_is_found_in_each(tmp_path):
    suffix = "please reason step by step and put your final answer in a box"
    path = tmp_path / "eval.jsonl"
    lines = [
        json.dumps({"question": f"{' '.join(f'w{number}x{i}' for i in range(14))} {suffix}"})
        for number in range(300)
    ]
    path.write_text("\n".join(lines))
    index = EvaluationIndex(Decontaminate(files=(str(path),)))
    own = " ".join(f"w217x{i}" for i in range(14))
    texts = [f"something else entirely: {suffix}", f"{own} {suffix}"]
    found = index.matches(pa.array(texts), 0.0)
    assert found[0].share == pytest.approx(13 / 27)
    assert (found[1].share, found[1].where) == (1.0, "eval.jsonl:218")
    assert list(index.matches(pa.array(texts), 0.5)) == [1]


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


def test_a_column_that_none_of_the_files_has(filtered, row, evaluation, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"problem": "How many days has a year that is no leap year?"}\n')

    def keys(*columns: str) -> dict[str, object]:
        return {"name": "decontaminate", "files": [evaluation, str(other)], "columns": columns}

    assert filtered([row(["r"])], keys("question", "problem")).kept == ["r"]  # one in each
    with pytest.raises(UnknownChoiceError, match="no column 'solution'") as caught:
        filtered([row(["r"])], keys("question", "problem", "solution"))
    assert caught.value.where == f"{evaluation}, {other}"


def test_evaluation_data_without_any_text_would_find_nothing(filtered, row, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("not json\n[1]\n")
    with pytest.raises(InputError, match="no text") as caught:
        filtered([row(["r"])], f"decontaminate:files={broken}")
    assert caught.value.where == str(broken)
