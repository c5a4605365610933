"""What is asked of each kind of server, and how what it says is read; all by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import tokenizer

from bon.scorers.encoding import Encoded
from bon.scorers.server.kinds import SglangIds, SglangTexts, VllmClassify, VllmPooling, as_text

ONE, TWO = Encoded((5, 6, 7), False, (2,)), Encoded((5, 9), False, (1,))
STEPS = Encoded((1, 4, 2, 4, 4), False, (1, 4))
FAULTS = (ValueError, KeyError, TypeError, IndexError, AttributeError)


def classified(*values: Any) -> dict[str, Any]:
    return {"data": [{"index": at, "probs": value} for at, value in enumerate(values)]}


def pooled(*values: Any) -> dict[str, Any]:
    return {"data": [{"index": at, "data": value} for at, value in enumerate(values)]}


def test_vllm_is_asked_for_raw_values_of_token_ids() -> None:
    body = {"model": "m", "input": [[5, 6, 7], [5, 9]], "use_activation": False}
    assert VllmClassify("m").body([ONE, TWO]) == body
    assert VllmPooling("m", False, "min").body([ONE, TWO]) == body


def test_sglang_is_asked_with_token_ids_or_texts() -> None:
    assert SglangIds("m").body([ONE]) == {"model": "m", "input_ids": [[5, 6, 7]]}
    texts = SglangTexts("m", lambda item: "x" * len(item.tokens))
    assert texts.body([ONE, TWO]) == {"model": "m", "text": ["xxx", "xx"]}


def test_classify_in_any_order() -> None:
    body = classified([1.5], [-2.0])
    body["data"].reverse()
    assert VllmClassify("m").rewards(body, [ONE, TWO]) == [1.5, -2.0]


@pytest.mark.parametrize("body", [[{"embedding": [1.5]}], {"embedding": [1.5]}])
def test_sglang_gives_a_list_or_for_one_an_object(body: Any) -> None:
    assert SglangIds("m").rewards(body, [ONE]) == [1.5]


def test_what_json_cannot_say_is_not_a_number() -> None:
    assert math.isnan(float(SglangIds("m").rewards([{"embedding": [None]}], [ONE])[0]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        *[None, [], {}, "no", 3, {"data": None}, {"data": [{"index": 0}]}, {"error": "busy"}],
        *[classified([1.0]), classified([1.0], [1.0], [1.0]), classified([1.0], [1.0, 2.0])],
        *[classified([1.0], ["2"]), classified([1.0], [True]), classified([1.0], 2.0)],
        {"data": [{"index": 0, "probs": [1.0]}, {"index": 0, "probs": [1.0]}]},
    ],
)
def test_what_no_classify_answer_is(body: Any) -> None:
    with pytest.raises(FAULTS):
        VllmClassify("m").rewards(body, [ONE, TWO])


@pytest.mark.parametrize(
    "body",
    [None, [], {}, "no", [{"embedding": [1.0]}], [{"embedding": [1.0, 2.0]}] * 2, [{}, {}], [1, 2]],
)
def test_what_no_sglang_answer_is(body: Any) -> None:
    with pytest.raises(FAULTS):
        SglangIds("m").rewards(body, [ONE, TWO])


def test_the_last_token_s_row_is_the_reward() -> None:
    speech = VllmPooling("m", False, "min")
    body = pooled([[0.1], [0.2], [0.3]], [[-1.0]])
    assert speech.rewards(body, [ONE, TWO]) == [0.3, -1.0]
    assert speech.rewards(pooled([0.7]), [ONE]) == [0.7]
    for wrong in ([[0.1], [0.2]], [], [[0.1, 0.2]] * 3, [0.1, 0.2]):
        with pytest.raises(FAULTS):
            speech.rewards(pooled(wrong), [ONE])


@pytest.mark.parametrize(
    ("how", "reward"), [("min", 0.25), ("product", 0.2), ("last", 0.25), ("mean", 0.525)]
)
def test_steps_are_the_probability_of_the_second_label(how: Any, reward: float) -> None:
    # odds 4 to 1 and 1 to 3: .8 and .25
    first, second, other = [0.0, math.log(4)], [math.log(3), 0.0], [9.0, -9.0]
    speech = VllmPooling("m", True, how, step_token=4)
    rows = [other, first, other, other, second]
    assert speech.rewards(pooled(rows), [STEPS]) == [pytest.approx(reward)]
    # a server that pools steps by itself gives one the user typed as well
    assert speech.rewards(pooled([first, other, second]), [STEPS]) == [pytest.approx(reward)]
    assert speech.rewards(pooled([[-800.0, 800.0]] * 5), [STEPS]) == [1.0]
    assert speech.rewards(pooled([[800.0, -800.0]] * 5), [STEPS]) == [0.0]
    for wrong in ([first, second], [first], [], [[1.0]] * 5, [[1.0, 2.0, 3.0]] * 5):
        with pytest.raises(FAULTS):
            speech.rewards(pooled(wrong), [STEPS])


@pytest.mark.parametrize("bos", [False, True])
def test_a_text_gives_the_same_tokens_to_the_server(bos: bool, tmp_path: Path) -> None:
    own = tokenizer(bos=bos)
    for text in ("", "hello <|im_end|> é", " a  b\n"):
        tokens = tuple(own(text)["input_ids"])
        if not tokens:
            continue
        found = as_text(own, Encoded(tokens, False, (0,)))
        assert found is not None
        assert tuple(own(found)["input_ids"]) == tokens
        assert not found.startswith("<|bos|>")


def test_tokens_that_no_text_has_are_told() -> None:
    own = tokenizer()
    (half, *_) = own("é")["input_ids"]
    assert as_text(own, Encoded((half,), False, (0,))) is None
