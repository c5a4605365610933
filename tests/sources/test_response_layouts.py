"""Every form of rows with responses or pairs, as people have them."""

import json

import pytest

from bon.config import InputSettings, ResponseSettings
from bon.records import GIVEN_ID, Drop, GivenResponse
from bon.sources.responses import ResponseReader, recognise_kind

S = {"role": "system", "content": "Be brief."}
U = {"role": "user", "content": "Q"}
V = {"role": "user", "content": "More"}
A, B = ({"role": "assistant", "content": text} for text in "AB")
TWO = [GivenResponse("A"), GivenResponse("B")]


def read(folder, row, group=True, **flags):
    path = folder / "in.jsonl"
    path.write_text(json.dumps(row) + "\n")
    settings = ResponseSettings(**flags)
    items = list(ResponseReader(str(path), InputSettings(), settings, group=group))
    assert len(items) == 1
    return recognise_kind(str(path), InputSettings(), settings), items[0]


def scored(*scores) -> list[GivenResponse]:
    return [GivenResponse(text, score) for text, score in zip("AB", scores, strict=True)]


RESPONSES = [
    ({"prompt": "Q", "responses": ["A", "B"], "scores": [1, 0.5]}, scored(1, 0.5), ["scores"]),
    ({"prompt": [U], "completions": [[A], [B]]}, TWO, []),
    ({"prompt": "Q", "completions": [A, B]}, TWO, []),
    ({"generations": [[U, A], [U, B]]}, TWO, []),
    ({"prompt": "Q", "outputs": ["A", "B"], "rewards": [2, None]}, scored(2, None), ["rewards"]),
    (
        {"question": "Q", "candidates": ["A", "B"], "is_correct": [True, False]},
        [GivenResponse("A", is_correct=True), GivenResponse("B", is_correct=False)],
        ["is_correct"],
    ),
    ({"instruction": "Q", "input": "", "output": ["A", "B"]}, TWO, []),
    ({"prompt": "Q", "response_2": "B", "response_1": "A"}, TWO, []),
    ({"prompt": "Q", "response1": "A", "response2": "B"}, TWO, []),
    (
        {
            "prompt": "Q",
            "generations": [
                {"generated_text": "A", "reward": 1, "finish_reason": "stop", "num_tokens": 3},
                {"text": "B", "reward": 2, "label": True, "critique": "good"},
            ],
        },
        [
            GivenResponse("A", 1.0, None, "stop", 3),
            GivenResponse("B", 2.0, True),
        ],
        ["generations"],
    ),
    (
        {"question": "Q", "ground_truth": "4", "small": {"solution": "A", "is_correct": False},
         "large": {"solution": "B", "is_correct": True, "note": 1}},
        [GivenResponse("A", is_correct=False), GivenResponse("B", is_correct=True)],
        ["ground_truth", "large", "response_columns"],
    ),
    ({"prompt": "Q", "response": "A", "helpfulness": 4}, [GivenResponse("A")], ["helpfulness"]),
    ({"prompt": [U], "completion": [A], "label": False}, [GivenResponse("A", None, False)],
     ["label"]),
    ({"prompt": "Q", "output": "A"}, [GivenResponse("A")], []),
    ({"prompt": "Q", "response": ""}, [GivenResponse("")], []),
]  # fmt: skip


@pytest.mark.parametrize(("row", "responses", "kept"), RESPONSES)
def test_responses(tmp_path, row, responses, kept):
    kind, item = read(tmp_path, row)
    assert kind == "responses"
    assert item.prompt.messages == (U,)
    assert list(item.responses) == responses
    assert sorted(item.prompt.extra) == kept


def test_what_objects_say_besides_is_kept_in_their_order(tmp_path):
    row = {"prompt": "Q", "responses": [{"text": "A", "why": "x"}, None, {"text": "B"}]}
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row))
    reader = ResponseReader(str(path), InputSettings(), ResponseSettings(), group=True)
    item, drop = reader
    assert item.prompt.extra == {"responses": [{"why": "x"}, {}]}
    assert isinstance(drop, Drop)


def test_a_column_a_model_keeps_the_names(tmp_path):
    row = RESPONSES[10][0]
    _, item = read(tmp_path, row)
    assert item.prompt.extra["response_columns"] == ["small", "large"]
    assert item.prompt.extra["large"] == {"note": 1}
    _, item = read(tmp_path, {**row, "response_columns": 5})
    assert item.prompt.extra["response_columns"] == 5
    assert item.prompt.extra["_response_columns"] == ["small", "large"]


def test_own_selection_is_read_back(tmp_path):
    row = {
        "answer": "4", "prompt_id": "p", "prompt": "More", "response": "B",
        "messages": [S, U, A, V, B], "reward": 0.5, "candidate": 3, "num_candidates": 4,
        "rewards": [0.1, 0.2, 0.3, 0.5], "finish_reason": "stop", "num_tokens": 7,
    }  # fmt: skip
    kind, item = read(tmp_path, row)
    assert kind == "responses"
    assert item.prompt.prompt_id == "p"
    assert list(item.prompt.messages) == [S, U, A, V]
    assert list(item.responses) == [GivenResponse("B", 0.5, None, "stop", 7)]
    rest = ("answer", "candidate", "num_candidates", "rewards")
    assert item.prompt.extra == {name: row[name] for name in rest}
    _, other = read(tmp_path, {**row, "response": "edited"})
    assert list(other.prompt.messages) == [V]
    assert other.prompt.extra["messages"] == row["messages"]


@pytest.mark.parametrize(
    ("row", "messages", "kept"),
    [
        ({"messages": [S, U, A]}, [S, U], []),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, [U],
         []),
        ({"messages": [U, B, {"role": "tool", "content": "4"}, A]},
         [U, B, {"role": "tool", "content": "4"}], []),
        ({"instruction": "Q", "input": "", "output": "A"}, [U], []),
        ({"messages": [U, {**A, "weight": 1}]}, [U], ["messages"]),
    ],
)  # fmt: skip
def test_conversations_are_responses_where_asked_for(tmp_path, row, messages, kept):
    _, item = read(tmp_path, row, source_kind="responses")
    assert list(item.prompt.messages) == messages
    assert list(item.responses) == [GivenResponse("A")]
    assert list(item.prompt.extra) == kept


@pytest.mark.parametrize("messages", [[U], [], [A], None])
def test_a_conversation_without_an_answer_is_a_drop(tmp_path, messages):
    _, drop = read(tmp_path, {"messages": messages}, source_kind="responses")
    assert drop.reason in ("missing_response", "no_responses", "no_user_turn")


HUMAN, SAID_A = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
PAIRS = [
    ({"prompt": "Q", "chosen": [U, A], "rejected": [U, B], "score_chosen": 8.5,
      "score_rejected": 7}, scored(8.5, 7), []),
    ({"instruction": "Q", "chosen_response": "A", "rejected_response": "B"}, TWO, []),
    ({"instruction": "Q", "chosen_response": "A", "rejected_response": "B",
      "chosen_avg_rating": 4.5, "rejected_avg_rating": 3},
     scored(4.5, 3), ["chosen_avg_rating", "rejected_avg_rating"]),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "chosen-rating": 5, "rejected-rating": None},
     scored(5, None), ["chosen-rating", "rejected-rating"]),
    ({"prompt": [U], "chosen": [A], "rejected": [B]}, TWO, []),
    ({"prompt": [U], "chosen": [A], "rejected": [B], "margin": 0.5}, TWO, ["margin"]),
    ({"chosen": [U, A], "rejected": [U, B]}, TWO, []),
    ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}, TWO,
     []),
    ({"conversations": [HUMAN], "chosen": SAID_A, "rejected": {"from": "gpt", "value": "B"}}, TWO,
     []),
    ({"messages": [U], "chosen": A, "rejected": B}, TWO, []),
    ({"context": [U], "completions": [{"rank": 1, "completion": [B]},
                                      {"rank": 0, "completion": [A]}]}, TWO, []),
    ({"messages": [U, A], "rejected_response": "B"}, TWO, []),
    ({"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": -1}, TWO,
     ["preference_strength"]),
    ({"context": [U], "response1": "B", "response2": "A", "overall_preference": 3}, TWO,
     ["overall_preference"]),
    ({"prompt": "Q", "chosen": {**A, "score": 2}, "rejected": {**B, "score": 1}}, scored(2, 1),
     []),
]  # fmt: skip


@pytest.mark.parametrize(("row", "responses", "kept"), PAIRS)
def test_pairs(tmp_path, row, responses, kept):
    kind, item = read(tmp_path, row)
    assert kind == "pairs"
    assert item.prompt.messages == (U,)
    assert list(item.responses) == responses
    assert sorted(item.prompt.extra) == [GIVEN_ID, *kept]


CALL = [U, B, {"role": "tool", "content": "4"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": CALL, "chosen": [A], "rejected": [B]},
        {"prompt": CALL, "completion": [A]},
        {"messages": CALL, "chosen": A, "rejected": B},
        {"context": CALL, "completions": [{"rank": 0, "completion": [A]},
                                          {"rank": 1, "completion": [B]}]},
        {"conversations": [HUMAN, {"from": "gpt", "value": "B"},
                           {"from": "observation", "value": "4"}],
         "chosen": SAID_A, "rejected": {"from": "gpt", "value": "B"}},
    ],
)  # fmt: skip
def test_a_response_may_answer_a_tool(tmp_path, row):
    _, item = read(tmp_path, row)
    assert list(item.prompt.messages) == CALL
    assert item.prompt.extra.keys() <= {"__prompt_id__"}


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_scores_and_margin_leave_no_columns(tmp_path, empty):
    unknown = ("score_chosen", "score_rejected", "margin", "num_tokens_chosen",
               "num_tokens_rejected")  # fmt: skip
    row = {"prompt": [U], "chosen": [A], "rejected": [B], **dict.fromkeys(unknown, empty)}
    _, item = read(tmp_path, row)
    assert list(item.responses) == TWO
    assert item.prompt.extra.keys() <= {"__prompt_id__"}


def test_a_tables_numbers_are_texts(tmp_path):
    row = {"prompt": "Q", "response": "A", "reward": "0.5", "num_tokens": "7"}
    _, item = read(tmp_path, row)
    assert list(item.responses) == [GivenResponse("A", 0.5, None, None, 7)]
    assert item.prompt.extra == {}


def test_own_pairs_are_read_back(tmp_path):
    row = {
        "topic": "t", "prompt": [S, U], "chosen": [A], "rejected": [B], "score_chosen": 0.75,
        "score_rejected": 0.5, "margin": 0.25, "prompt_id": "p", "candidate_chosen": 3,
        "candidate_rejected": 1, "num_tokens_chosen": 7, "num_tokens_rejected": 9,
    }  # fmt: skip
    _, item = read(tmp_path, row)
    assert list(item.prompt.messages) == [S, U]
    assert list(item.responses) == [
        GivenResponse("A", 0.75, num_tokens=7), GivenResponse("B", 0.5, num_tokens=9),
    ]  # fmt: skip
    assert item.prompt.extra == {
        "topic": "t", "candidate_chosen": 3, "candidate_rejected": 1, GIVEN_ID: "p",
    }  # fmt: skip
    _, other = read(tmp_path, {**row, "margin": 9})
    assert other.prompt.extra["margin"] == 9


@pytest.mark.parametrize(
    ("prompt", "chosen", "messages", "kept"),
    [
        ("Q", [U, A, V, B], [U, A, V], []),  # the prompt's column is its first turn
        ([S, U], [U, B], [S, U], []),  # the column says more
        ("Q", [S, U, B], [S, U], []),  # the conversation says more
        ([U], [A, V, B], [U, A, V], []),  # the conversation goes on
        ("other", [U, B], [U], ["prompt"]),
        (None, [U, B], [U], ["prompt"]),
    ],
)
def test_column_and_conversation_make_the_prompt(tmp_path, prompt, chosen, messages, kept):
    row = {"prompt": prompt, "chosen": chosen, "rejected": [*chosen[:-1], A]}
    _, item = read(tmp_path, row)
    assert list(item.prompt.messages) == messages
    assert [response.response for response in item.responses] == ["B", "A"]
    assert sorted(item.prompt.extra) == [GIVEN_ID, *kept]


def test_a_named_prompt_wins_and_the_conversation_is_kept(tmp_path):
    path = tmp_path / "in.jsonl"
    row = {"ask": "Other", "chosen": [U, A], "rejected": [U, B]}
    path.write_text(json.dumps(row))
    inputs = InputSettings(prompt_column="ask")
    (item,) = ResponseReader(str(path), inputs, ResponseSettings(), group=True)
    assert item.prompt.messages == ({"role": "user", "content": "Other"},)
    assert item.prompt.extra["chosen"] == [U, A]
    assert list(item.responses) == TWO


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": [U, A, V, A], "rejected": [U, B, V, B]}, "diverges_before_last_turn"),
        ({"chosen": [U, A], "rejected": [U]}, "missing_response"),
        ({"chosen": [A], "rejected": [B]}, "missing_prompt"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "missing_response"),
        ({"prompt": "Q", "chosen": "A", "rejected": 5}, "wrong_type"),
        ({"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": 0},
         "no_preference"),
        ({"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": None},
         "no_preference"),
        ({"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": "left"},
         "wrong_type"),
        ({"context": [U], "completions": [{"rank": 0, "completion": [A]}]}, "not_a_pair"),
        ({"context": [U], "completions": [{"rank": 1, "completion": [A]}] * 2}, "no_preference"),
    ],
)  # fmt: skip
def test_a_pair_that_is_none_is_a_drop(tmp_path, row, reason):
    good = next(pair for pair, _, _ in PAIRS if set(pair) == set(row))
    path = tmp_path / "in.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    _, drop = ResponseReader(str(path), InputSettings(), ResponseSettings(), group=True)
    assert drop.reason == reason


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "A"},
        {"prompt": [U], "chosen": [A], "rejected": [A]},
        {"chosen": [U, A], "rejected": [U, A]},
        {"prompt": "Q", "chosen": [U, A], "rejected": [U, A]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: A"},
        {"messages": [U, A], "rejected_response": "A"},
    ],
)
def test_equal_responses_are_a_pair_in_every_form(tmp_path, row):
    _, item = read(tmp_path, row)
    assert item.prompt.messages == (U,)
    assert list(item.responses) == [GivenResponse("A")] * 2
    assert list(item.prompt.extra) == [GIVEN_ID]


def test_a_named_score_column_of_pairs_is_a_list(tmp_path):
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "stars": [5, 1]}
    _, item = read(tmp_path, row, score_column="stars")
    assert list(item.responses) == scored(5, 1)
