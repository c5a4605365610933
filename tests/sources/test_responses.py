"""Rows with responses become prompts with candidates, or drops; nothing is lost between."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bon.config import InputSettings, ResponseSettings
from bon.errors import BonError, SettingsError, UnknownChoiceError, UnknownLayoutError
from bon.records import GIVEN_ID, Drop, GivenResponses
from bon.sources.ids import content_id
from bon.sources.responses import ResponseReader, recognise_kind

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CANDIDATES = DATA / "gsm8k_candidates.jsonl"
needs_data = pytest.mark.skipif(not CANDIDATES.is_file(), reason=f"no real data in {DATA}")
U = {"role": "user", "content": "Q"}
A, B = ({"role": "assistant", "content": text} for text in "AB")


def write(folder, rows) -> str:
    path = folder / "in.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def reader(folder, rows, *, group=True, responses=None, **inputs) -> ResponseReader:
    given_settings = ResponseSettings(**(responses or {}))
    return ResponseReader(write(folder, rows), InputSettings(**inputs), given_settings, group=group)


def texts(item) -> list[str] | str:
    """A prompt's responses, or why there are none."""
    if isinstance(item, Drop):
        return item.reason
    return [response.response for response in item.responses]


def test_consecutive_rows_of_one_prompt_are_one_prompt(tmp_path):
    rows = [
        {"prompt": "x", "response": "1", "score": 0.5, "topic": "t"},
        {"prompt": "x", "response": "2", "score": 1, "topic": "t", "more": 1},
        "{broken",
        {"prompt": "x", "response": "3", "score": None, "topic": "t"},
        {"prompt": "y", "response": "4", "score": 2, "topic": True},
        {"prompt": "x", "response": "5"},
    ]
    source = reader(tmp_path, rows)
    drop, x, y, again = source
    assert drop.reason == "malformed_json"
    assert [(r.response, r.score) for r in x.responses] == [("1", 0.5), ("2", 1.0), ("3", None)]
    assert x.prompt.extra == {"score": [0.5, 1, None], "topic": "t", "more": [None, 1, None]}
    assert (texts(y), y.prompt.extra) == (["4"], {"score": 2, "topic": True})
    assert texts(again) == ["5"]
    assert again.prompt.prompt_id == f"{x.prompt.prompt_id}-2"
    assert [drop.row, x.prompt.row, y.prompt.row, again.prompt.row] == [0, 1, 2, 3]
    assert (x.prompt.where, drop.where) == ("in.jsonl:1", "in.jsonl:3")
    assert source.describe().endswith("6 rows joined by prompt into 4")
    next(iter(source))
    assert "joined" not in source.describe()  # not counted to their end
    assert list(source) == [drop, x, y, again]


def test_equal_is_not_the_same_in_json(tmp_path):
    rows = [{"prompt": "x", "response": "1", "k": value} for value in (1, True, 1.0)]
    (item,) = reader(tmp_path, rows)
    assert [type(value) for value in item.prompt.extra["k"]] == [int, bool, float]


def test_ids_say_which_rows_belong_together(tmp_path):
    rows = [
        {"id": "a", "prompt": "x", "response": "1"},
        {"id": "b", "prompt": "x", "response": "2"},
        {"id": "b", "prompt": "x", "response": "3"},
        {"id": "b", "prompt": "y", "response": "4"},
        {"id": "a", "prompt": "x", "response": "5"},
        {"id": None, "prompt": "x", "response": "6"},
    ]
    items = list(reader(tmp_path, rows))
    expected = [["1"], "prompt_differs", ["2", "3"], "duplicate_id", ["6"]]
    assert [texts(item) for item in items] == expected
    assert items[-1].prompt.prompt_id == content_id(items[-1].prompt.messages)
    named = [texts(item) for item in reader(tmp_path, rows, id_column="id")]
    assert named == [["1"], "prompt_differs", ["2", "3"], "missing_id", "duplicate_id"]
    assert [item.prompt.prompt_id for item in (items[0], items[2])] == ["a", "b"]
    assert (items[1].id, items[1].where) == ("b", "in.jsonl:4")
    assert (items[3].id, items[3].row) == ("a", 3)


def test_limit_counts_prompts_where_rows_are_joined(tmp_path):
    rows = [{"prompt": str(i // 2), "response": str(i)} for i in range(6)]
    assert [texts(item) for item in reader(tmp_path, rows, limit=2)] == [["0", "1"], ["2", "3"]]
    ungrouped = reader(tmp_path, rows, limit=2, group=False)
    assert [texts(item) for item in ungrouped] == [["0"], ["1"]]
    assert list(reader(tmp_path, rows, limit=0)) == []


def test_ungrouped_rows_have_their_number_as_id_and_keep_their_own(tmp_path):
    rows = [{"id": 7, "prompt": "x", "response": str(i)} for i in range(2)]
    first, second = reader(tmp_path, rows, group=False)
    assert (first.prompt.prompt_id, second.prompt.prompt_id) == ("0", "1")
    assert first.prompt.extra == second.prompt.extra == {GIVEN_ID: "7"}
    rows = [{"prompt": text, "response": "r"} for text in "xyx"]
    x, y, again = (item.prompt.extra[GIVEN_ID] for item in reader(tmp_path, rows, group=False))
    assert x == again != y


def test_pairs_are_never_grouped(tmp_path):
    rows = [{"id": "a", "prompt": "x", "chosen": "1", "rejected": str(i)} for i in range(2)]
    items = list(reader(tmp_path, rows))
    assert [texts(item) for item in items] == [["1", "0"], ["1", "1"]]
    assert [item.prompt.prompt_id for item in items] == ["0", "1"]
    assert [item.prompt.extra for item in items] == [{GIVEN_ID: "a"}] * 2


def test_a_bad_response_is_counted_and_the_others_stay(tmp_path):
    row = {"id": "a", "prompt": "Q", "responses": [None, "x", 3, ""], "scores": [1, 2, 3, 4]}
    item, *drops = reader(tmp_path, [row])
    assert [(r.response, r.score) for r in item.responses] == [("x", 2.0), ("", 4.0)]
    assert [(d.reason, d.candidate, d.id, d.row) for d in drops] == [
        ("missing_response", 2, "a", 0),
        ("wrong_type", 3, "a", 0),
    ]
    assert drops[0].detail == "response 1 of 'responses' is null or missing"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "responses": []}, "no_responses"),
        ({"prompt": "Q", "responses": [None, 1]}, "missing_response"),
        ({"prompt": "Q", "responses": None}, "missing_response"),
        ({"prompt": "Q"}, "missing_response"),
        ({"prompt": "Q", "responses": 4}, "wrong_type"),
        ({"prompt": "Q", "responses": [{"text": {"x": 1}}]}, "wrong_type"),
        ({"prompt": "Q", "responses": [{"x": 1}]}, "missing_response"),
        ({"prompt": "", "responses": ["a"]}, "empty_prompt"),
        ({"prompt": None, "responses": ["a"]}, "missing_prompt"),
        ({"prompt": "Q", "responses": [U, A, U]}, "missing_response"),
        ({"prompt": "Q", "responses": [[A, {"role": "alien", "content": ""}]]}, "unknown_role"),
    ],
)
def test_a_bad_row_is_a_drop(tmp_path, row, reason):
    good = {"prompt": "Q", "responses": ["a"]}
    first, second = reader(tmp_path, [good, row])
    assert isinstance(first, GivenResponses)
    assert (second.reason, second.row, second.candidate) == (reason, 1, None)


def test_flags_name_the_columns(tmp_path):
    row = {"prompt": "wrong", "ask": "Q", "reply": ["a", "b"], "stars": ["1", 2.5], "key": "k"}
    flags = {"response_column": "reply", "score_column": "stars"}
    (item,) = reader(tmp_path, [row], responses=flags, prompt_column="ask", id_column="key")
    assert item.prompt.messages == (U,)
    assert item.prompt.prompt_id == "k"
    assert [(r.response, r.score) for r in item.responses] == [("a", 1.0), ("b", 2.5)]
    assert item.prompt.extra == {"prompt": "wrong", "stars": ["1", 2.5]}


def test_a_named_score_must_be_one(tmp_path):
    rows = [
        {"prompt": "Q", "responses": ["a", "b"], "stars": stars}
        for stars in ([1, 2], [1], [1, "good"], 3, None)
    ]
    items = list(reader(tmp_path, rows, responses={"score_column": "stars"}))
    assert [texts(item) for item in items[1:]] == [
        "wrong_length", "wrong_type", "wrong_type", "wrong_type",
    ]  # fmt: skip
    unnamed = [{**row, "scores": row["stars"]} for row in rows]
    items = list(reader(tmp_path, unnamed))
    assert [[r.score for r in item.responses] for item in items] == [[1, 2]] + [[None, None]] * 4
    assert [item.prompt.extra["scores"] for item in items] == [row["stars"] for row in rows]


def test_a_named_score_may_be_in_the_objects(tmp_path):
    row = {"instruction": "Q", "completions": [{"response": "a", "overall": 3, "score": 9}]}
    (item,) = reader(tmp_path, [row], responses={"score_column": "overall"})
    assert item.responses[0].score == 3.0
    assert item.prompt.extra == {"completions": [{"score": 9}]}


@pytest.mark.parametrize(
    ("flags", "inputs", "error"),
    [
        ({"response_column": "respons"}, {}, UnknownChoiceError),
        ({"score_column": "scor"}, {}, UnknownChoiceError),
        ({}, {"prompt_column": "promt"}, UnknownChoiceError),
        ({}, {"id_column": "ids"}, UnknownChoiceError),
        ({}, {"layout": "gsm8k"}, UnknownLayoutError),
        ({"source_kind": "pairs"}, {}, UnknownLayoutError),
    ],
)
def test_what_the_input_does_not_have_is_an_error(tmp_path, flags, inputs, error):
    with pytest.raises(error) as caught:
        list(reader(tmp_path, [{"prompt": "Q", "response": "a"}], responses=flags, **inputs))
    assert "in.jsonl:1" in caught.value.where or "--id-column" in caught.value.where


def test_rows_without_responses_or_prompts_are_an_error(tmp_path):
    for row in ({"prompt": "Q", "k": 1}, {"response": "a"}):
        with pytest.raises(UnknownLayoutError, match="column"):
            list(reader(tmp_path, [row]))
    with pytest.raises(SettingsError, match="together"):
        reader(tmp_path, [{}], layout="prompt", prompt_column="x")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "Q"}, "prompts"),
        ({"question": "Q", "answer": "#### 4"}, "prompts"),
        ({"messages": [U, A]}, "prompts"),
        ({"instruction": "Q", "input": "", "output": "A"}, "prompts"),
        ({"instruction": "Q", "response": "A"}, "responses"),
        ({"instruction": "Q", "output": ["A"]}, "responses"),
        ({"prompt": "Q", "output": "A"}, "responses"),
        ({"prompt": "Q", "response_1": "A", "response_2": "B"}, "responses"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "pairs"),
        ({"context": [U], "response1": "A", "response2": "B", "overall_preference": 1}, "pairs"),
        ({"strange": 1}, "prompts"),
    ],
)
def test_the_kind_is_recognised(tmp_path, row, kind):
    source = write(tmp_path, ["[1]", row])
    assert recognise_kind(source, InputSettings(), ResponseSettings()) == kind
    for asked in ("prompts", "responses", "pairs"):
        settings = ResponseSettings(source_kind=asked)
        assert recognise_kind(source, InputSettings(), settings) == asked
    named = ResponseSettings(response_column="prompt")
    assert recognise_kind(source, InputSettings(), named) == "responses"


def test_nothing_to_recognise_is_read_as_prompts(tmp_path):
    source = write(tmp_path, ["[1]"])
    assert recognise_kind(source, InputSettings(), ResponseSettings()) == "prompts"
    items = ResponseReader(source, InputSettings(), ResponseSettings(), group=True)
    assert [item.reason for item in items] == ["not_an_object"]
    assert items.kind is None
    assert items.describe() == f"no row of {source} could be read"


@needs_data
def test_example_solutions(tmp_path):
    source = ResponseReader(str(CANDIDATES), InputSettings(), ResponseSettings(), group=True)
    items = list(source)
    raw = [json.loads(line) for line in CANDIDATES.read_text().splitlines()]
    models = ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"]
    assert len(items) == len(raw) == 1000
    for item, row in zip(items, raw, strict=True):
        assert item.prompt.messages[0]["content"] == row["question"]
        assert item.prompt.extra == {
            "ground_truth": row["ground_truth"],
            "response_columns": models,
        }
        for response, model in zip(item.responses, models, strict=True):
            assert response.response == row[model]["solution"]
            assert response.is_correct is row[model]["is_correct"]
    assert source.kind == "responses"
    assert "prompt from `question`, responses from `6b_finetuning`" in source.describe()


NAMES = """
id prompt messages instruction question response responses completions output chosen rejected score
scores label reward rejected_response response_1 response_2 preference_strength margin context m1 m2
finish_reason num_tokens score_chosen
"""
names = st.sampled_from(NAMES.split())
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
)
leaves |= st.sampled_from(["", "Q", "A", "\n\nHuman: Q\n\nAssistant: A", "1"])
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]),
        "content": st.sampled_from(["Q", "A", ""]),
    }
)
solution = st.fixed_dictionaries({"solution": leaves, "is_correct": leaves})
ranked = st.fixed_dictionaries({"rank": leaves, "completion": st.lists(message, max_size=2)})
keys = st.sampled_from(["text", "score", "role", "content", "rank", "completion", "z"])
values = st.recursive(
    leaves | message | solution | ranked | st.lists(message, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
rows_of_any_kind = st.lists(st.dictionaries(names, values, max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=400)
@given(rows_of_any_kind, st.booleans(), st.sampled_from(["auto", "responses", "pairs"]))
@example([{"prompt": "Q", "response": "a", "score": 10**400}], True, "auto")
@example([{"prompt": "Q", "response": {"text": "a", "num_tokens": 1 << 40}}], True, "auto")
def test_every_row_is_accounted_for(tmp_path_factory, rows, group, kind):
    folder = tmp_path_factory.mktemp("any")
    try:
        items = list(reader(folder, rows, group=group, responses={"source_kind": kind}))
    except BonError:
        return
    whole = [item for item in items if isinstance(item, GivenResponses) or item.candidate is None]
    numbers = [item.row if isinstance(item, Drop) else item.prompt.row for item in whole]
    assert numbers == list(range(len(whole)))
    assert len(whole) <= len(rows)
    if not group:
        assert len(whole) == len(rows)
    prompts = [item.prompt for item in whole if isinstance(item, GivenResponses)]
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
    assert all(item.responses for item in whole if isinstance(item, GivenResponses))
    json.dumps([prompt.extra for prompt in prompts], allow_nan=False)


columns = st.dictionaries(st.sampled_from("abcdef"), values, max_size=4)


@settings(deadline=None, max_examples=100)
@given(columns, st.booleans())
def test_other_columns_are_kept_as_they_are(tmp_path_factory, extra, group):
    row = {"prompt": "Q", "response": "A", **extra}
    (item,) = reader(tmp_path_factory.mktemp("kept"), [row], group=group)
    kept = {key: value for key, value in item.prompt.extra.items() if key != GIVEN_ID}
    assert kept == extra
