"""One scale ranks: where scores and verdicts are is decided once for an input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config import InputSettings, ResponseSettings
from bon.sources.notes import Notes
from bon.sources.responses import ResponseReader

U = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}


def read(folder, *rows, **flags) -> list:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = ResponseReader(str(path), InputSettings(), ResponseSettings(**flags), group=False)
    items = list(reader)
    assert [len(item.responses) > 0 for item in items] == [True] * len(rows)
    scores = [[response.score for response in item.responses] for item in items]
    return [scores, reader.describe(), [item.prompt.extra for item in items]]


def said(prompt: str = "Q", **columns) -> dict:
    return {"prompt": prompt, "response": "A", **columns}


def many(**columns) -> dict:
    return {"prompt": "Q", "responses": ["A", "B"], **columns}


def objects(*notes: dict, **columns) -> dict:
    return {"prompt": "Q", "responses": [{"text": "A", **note} for note in notes], **columns}


def pair(**columns) -> dict:
    return {"prompt": "Q", "chosen": "A", "rejected": "B", **columns}


@pytest.mark.parametrize(
    ("rows", "scores", "place"),
    [
        ([said(score=1, reward=90), said(score=None, reward=80)], [[1], [None]], "`score`"),
        ([said(score=None, reward=90), said(score=1, reward=80)], [[None], [1]], "`score`"),
        ([said(reward=90), said(score=1, reward=80)], [[90], [80]], "`reward`"),
        ([said(score="good", reward=90), said(score=1, reward=80)], [[90], [80]], "`reward`"),
        ([said(), said(reward=80), said(score=1)], [[None], [80], [None]], "`reward`"),
        (
            [many(scores=[1, 2], rewards=[80, 90]), many(scores=None, rewards=[80, 90])],
            [[1, 2], [None, None]],
            "`scores`",
        ),
        (
            [many(scores=None, rewards=[80, 90]), many(scores=[1, 2], rewards=[70, 60])],
            [[80, 90], [70, 60]],
            "`rewards`",
        ),
        (
            [objects({"score": 1, "reward": 80}, {"score": None, "reward": 90})],
            [[1, None]],
            "`score` of each response",
        ),
        (
            [objects({"reward": 80}), objects({"score": 1}, {"reward": 7})],
            [[80], [None, 7]],
            "`reward` of each response",
        ),
        (
            [objects({"score": 1}), objects({"score": None}, scores=[90])],
            [[1], [None]],
            "`score` of each response",
        ),
        (
            [objects({}, scores=[90]), objects({"score": 1}, scores=[80])],
            [[90], [80]],
            "`scores`",
        ),
        (
            [
                pair(score_chosen=2, score_rejected=1, chosen_rating=90, rejected_rating=80),
                pair(score_chosen=None, score_rejected=None, chosen_rating=90, rejected_rating=80),
            ],
            [[2, 1], [None, None]],
            "`score_chosen` and `score_rejected`",
        ),
        (
            [
                pair(chosen_rating=90, rejected_rating=80),
                pair(score_chosen=2, score_rejected=1, chosen_rating=70, rejected_rating=60),
            ],
            [[90, 80], [70, 60]],
            "`chosen_rating` and `rejected_rating`",
        ),
    ],
)
def test_two_scales_are_never_mixed(tmp_path, rows, scores, place):
    found, described, _ = read(tmp_path, *rows)
    assert found == scores
    assert f", scores from {place}, " in described


def test_a_named_score_of_objects_is_not_filled_from_pair_columns(tmp_path):
    rows = [
        {"prompt": "Q", "score_chosen": 90, "score_rejected": 80}
        | {side: {"text": side, "stars": stars} for side in ("chosen", "rejected")}
        for stars in (5, None)
    ]
    found, _, _ = read(tmp_path, *rows, score_column="stars")
    assert found == [[5, 5], [None, None]]


def test_verdicts_come_from_one_column_too(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [said(correct=True, label=False), said(correct=None, label=False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = ResponseReader(str(path), InputSettings(), ResponseSettings(), group=False)
    assert [item.responses[0].is_correct for item in items] == [True, None]


def own(**columns) -> dict:
    """A row as `bon` writes it."""
    return {
        "prompt_id": "p", "prompt": "Q", "response": "A", "messages": [U, A], "candidate": 0,
        "finish_reason": "stop", "num_tokens": 1, **columns,
    }  # fmt: skip


def test_bons_own_rows_rank_by_bons_reward(tmp_path):
    rows = [own(score=5, reward=0.25), own(score=4, reward=None)]
    found, described, extras = read(tmp_path, *rows)
    assert found == [[0.25], [None]]
    assert ", scores from `reward`, " in described
    assert [extra["score"] for extra in extras] == [5, 4]
    assert not any("reward" in extra for extra in extras)


def test_the_flag_goes_before_bons_reward(tmp_path):
    found, _, extras = read(tmp_path, own(score=5, reward=0.25), score_column="score")
    assert found == [[5]]
    assert extras[0]["reward"] == 0.25


def test_without_scores_none_are_described(tmp_path):
    assert "scores from" not in read(tmp_path, said())[1]


numbers = st.none() | st.floats(-9, 9, width=32)


@given(st.lists(st.fixed_dictionaries({}, optional={"score": numbers, "reward": numbers})))
def test_objects_give_the_scores_of_one_key(rows):
    notes = Notes(None)
    found = [notes.read_object(row)[0].get("score") for row in rows]
    first = next((row for row in rows if row), {})
    key = "score" if "score" in first else "reward"
    assert found == [row.get(key) for row in rows]
