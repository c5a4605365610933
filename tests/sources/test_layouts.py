"""Every layout on rows as people have them, and every way in which such a row can be bad."""

import pytest

from bon.errors import UnknownChoiceError, UnknownLayoutError
from bon.sources.layouts import LAYOUTS, choose, column_layout, recognise
from bon.sources.rows import RowFault

U = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}
S = {"role": "system", "content": "Be brief."}

EXAMPLES = [
    ("prompt", {"prompt": "Q", "topic": "x"}, [U]),
    ("prompt", {"prompt": [S, U]}, [S, U]),
    ("prompt", {"prompt": [{"from": "human", "value": "Q"}]}, [U]),
    ("prompt", {"prompt": "Q", "messages": [U, A], "prompt_id": "1"}, [U]),
    ("messages", {"messages": [S, U, A]}, [S, U]),
    ("messages", {"messages": [U, A, U, A]}, [U, A, U]),
    ("messages", {"messages": [{"role": "developer", "content": "D"}, U]}, None),
    (
        "conversations",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Q"},
                {"from": "gpt", "value": "A"},
            ]
        },
        [S, U],
    ),
    ("alpaca", {"instruction": "Q", "input": "", "output": "A"}, [U]),
    ("alpaca", {"instruction": "Q", "input": None, "output": "A"}, [U]),
    (
        "alpaca",
        {"instruction": "Sum", "input": "1 2", "output": "3"},
        [{"role": "user", "content": "Sum\n\n1 2"}],
    ),
    ("mt-bench", {"question_id": 81, "category": "writing", "turns": ["Q", "Again"]}, [U]),
    ("gsm8k", {"question": "Q", "answer": "#### 4"}, [U]),
    (
        "ultrafeedback",
        {
            "prompt": "Q",
            "prompt_id": "f0e37",
            "chosen": [U, A],
            "rejected": [U, A],
            "messages": [U, A],
            "score_chosen": 8.5,
            "score_rejected": 7.0,
        },
        [U],
    ),
    ("ultrafeedback", {"prompt": [U], "chosen": [A], "rejected": [A]}, [U]),
    (
        "argilla",
        {"instruction": "Q", "chosen_response": "A", "rejected_response": "B", "source": "s"},
        [U],
    ),
    (
        "openai-batch",
        {"custom_id": "r-1", "method": "POST", "body": {"model": "m", "messages": [S, U]}},
        [S, U],
    ),
]


@pytest.mark.parametrize(("name", "row", "messages"), EXAMPLES)
def test_a_row_is_recognised_and_read(name, row, messages):
    layout = recognise(set(row))
    assert layout.name == name
    read = list(layout.read(row).messages)
    assert read == (row["messages"] if messages is None else messages)
    assert layout.consumes <= {"prompt", "instruction", "input", "question"}


def test_every_layout_has_an_example_and_can_be_chosen():
    assert {name for name, _, _ in EXAMPLES} == {layout.name for layout in LAYOUTS}
    assert [choose(layout.name) for layout in LAYOUTS] == list(LAYOUTS)


def test_no_layout_hides_a_later_one():
    for number, layout in enumerate(LAYOUTS):
        assert recognise(layout.required) is layout
        assert all(set(layout.required) - set(later.required) for later in LAYOUTS[number + 1 :])


def test_unknown_columns_are_told_with_what_is_known():
    with pytest.raises(UnknownLayoutError) as caught:
        recognise({"text", "label"})
    message = str(caught.value)
    assert "label, text" in message
    assert "--prompt-column" in message and "--layout" in message
    assert all(layout.name in message for layout in LAYOUTS)


def test_an_unknown_layout_name_is_told_with_the_nearest():
    with pytest.raises(UnknownChoiceError, match="did you mean 'gsm8k'"):
        choose("gsm8")


@pytest.mark.parametrize(
    "value", ["Q", [U], [U, A], [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]]
)
def test_any_column_can_hold_the_prompt(value):
    assert column_layout("dialog").read({"dialog": value}).messages == (U,)


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ("Q", True),
        ([U], True),
        ([U, A], False),
        ([{**U, "name": "Ann"}], False),
        ([{**U, "name": None}], True),
    ],
)
def test_a_prompt_knows_whether_it_says_all(value, whole):
    assert choose("prompt").read({"prompt": value}).is_whole is whole


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = choose("messages").read({"messages": [{"role": "user", "content": parts}]}).messages
    assert messages == ({"role": "user", "content": "one two"},)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("prompt", {}, "missing_prompt"),
        ("prompt", {"prompt": None}, "missing_prompt"),
        ("prompt", {"prompt": " \n\t"}, "empty_prompt"),
        ("prompt", {"prompt": 3}, "wrong_type"),
        ("prompt", {"prompt": True}, "wrong_type"),
        ("prompt", {"prompt": {"a": 1}}, "wrong_type"),
        ("prompt", {"prompt": ["Q"]}, "wrong_type"),
        ("prompt", {"prompt": [{"from": "user_7", "value": "Q"}]}, "unknown_role"),
        ("messages", {"messages": None}, "missing_prompt"),
        ("messages", {"messages": "Q"}, "wrong_type"),
        ("messages", {"messages": []}, "no_user_turn"),
        ("messages", {"messages": [S, A]}, "no_user_turn"),
        ("messages", {"messages": [U, A, {"role": "user", "content": " "}]}, "empty_prompt"),
        ("messages", {"messages": [{"role": "human", "content": "Q"}]}, "unknown_role"),
        ("messages", {"messages": [{"content": "Q"}]}, "unknown_role"),
        ("messages", {"messages": [{"role": ["user"], "content": "Q"}]}, "unknown_role"),
        ("messages", {"messages": [{"role": "user", "content": None}]}, "unsupported_content"),
        ("messages", {"messages": [{"role": "user", "content": 3}]}, "unsupported_content"),
        ("messages", {"messages": [{"role": "user", "content": [3]}]}, "unsupported_content"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
            "unsupported_content",
        ),
        (
            "messages",
            {"messages": [U, {"role": "assistant", "content": "", "tool_calls": [{}]}, U]},
            "unsupported_content",
        ),
        ("conversations", {"conversations": [{"from": "gpt", "value": "A"}]}, "no_user_turn"),
        ("conversations", {"conversations": [None]}, "wrong_type"),
        ("alpaca", {"instruction": "", "input": "x"}, "empty_prompt"),
        ("alpaca", {"instruction": "Q", "input": ["x"]}, "wrong_type"),
        ("argilla", {"instruction": 1, "chosen_response": "A"}, "wrong_type"),
        ("mt-bench", {"turns": []}, "missing_prompt"),
        ("mt-bench", {"turns": [None]}, "missing_prompt"),
        ("mt-bench", {"turns": "Q"}, "wrong_type"),
        ("mt-bench", {"turns": [["Q"]]}, "wrong_type"),
        ("gsm8k", {"question": None, "answer": "4"}, "missing_prompt"),
        ("gsm8k", {"question": "", "answer": "4"}, "empty_prompt"),
        ("openai-batch", {"custom_id": "1", "body": "x"}, "wrong_type"),
        ("openai-batch", {"custom_id": "1", "body": {}}, "missing_prompt"),
        ("openai-batch", {"custom_id": "1", "body": {"messages": [A]}}, "no_user_turn"),
    ],
)
def test_a_bad_row_has_a_named_fault(name, row, reason):
    with pytest.raises(RowFault) as caught:
        choose(name).read(row)
    assert caught.value.fault.reason == reason
    assert len(caught.value.fault.detail) > 10
