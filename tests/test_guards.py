import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.errors import UnknownChoiceError
from bon.guards import (
    GUARDS,
    below_min_chosen,
    both_right,
    both_wrong,
    check_guards,
    chosen_truncated,
    empty_response,
    guard_reasons,
    length_ratio,
    low_margin,
    margin_threshold,
    response_lengths,
    same_after_truncation,
    same_text,
    tie,
)

NAN = math.nan
NAME = st.sampled_from(list(GUARDS))
TEXT = st.lists(st.sampled_from(["a", "A", "ß", "ss", " ", "\n", "\u00a0", "\u3000", "é"])).map(
    "".join
)


def failed(mask_Q):
    assert mask_Q.dtype == bool
    return np.flatnonzero(mask_Q).tolist()


def test_first_failing_guard_in_order_is_the_reason():
    masks = {
        "same_text": np.array([True, True, False, False]),
        "tie": np.array([False, True, False, False]),
        "low_margin": np.array([False, True, True, False]),
    }
    assert guard_reasons(masks, 4).tolist() == ["same_text", "tie", "low_margin", ""]
    allowed = guard_reasons(masks, 4, allow=["tie", "same_text"])
    assert allowed.tolist() == ["", "low_margin", "low_margin", ""]
    assert guard_reasons(masks, 4, allow=GUARDS.keys()).tolist() == [""] * 4
    assert guard_reasons({}, 2).tolist() == ["", ""]
    assert guard_reasons({"tie": np.zeros(0, bool)}, 0).tolist() == []


@given(st.dictionaries(NAME, st.booleans()), st.sets(NAME))
def test_reason_is_the_first_of_all_guards(failing, allow):
    masks = {name: np.array([value]) for name, value in failing.items()}
    counted = [name for name in GUARDS if failing.get(name) and name not in allow]
    assert guard_reasons(masks, 1, allow)[0] == (counted[0] if counted else "")


def test_unknown_guards_name_the_nearest():
    with pytest.raises(UnknownChoiceError, match="did you mean 'same_text'"):
        check_guards(["tie", "same_txt"])
    with pytest.raises(UnknownChoiceError, match="unknown guard 'ties'"):
        guard_reasons({}, 1, allow=["ties"])
    with pytest.raises(UnknownChoiceError, match="unknown guard 'short'"):
        guard_reasons({"short": np.zeros(1, bool)}, 1)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="tie must have shape"):
        guard_reasons({"tie": np.zeros(3, bool)}, 2)


def test_margins_that_are_unknown_pass():
    margin_Q = np.array([0.0, 0.5, NAN, -1.0, 0.5000001])
    assert failed(tie(margin_Q)) == [0]
    assert failed(low_margin(margin_Q, 0.5)) == [0, 1, 3]
    assert failed(low_margin(margin_Q, -math.inf)) == []


@pytest.mark.parametrize(
    ("min_margin", "margins", "threshold"),
    [
        ("0", [1.0], 0.0),
        ("0.5", [], 0.5),
        (".25", [], 0.25),
        ("0.1", [], float(np.float32(0.1))),
        ("10%", list(range(1, 11)), 1.0),
        ("10%", list(range(1, 12)), 1.0),  # a tenth of 11 is one pair
        ("29%", list(range(1, 101)), 29.0),
        ("2.5%", list(range(1, 101)), 2.0),
        ("50%", [1.0, 1.0, 1.0, 2.0], -math.inf),  # three are equal: none or all of them
        ("75%", [1.0, 1.0, 1.0, 2.0], 1.0),
        ("50%", [4.0, NAN, 3.0, NAN], 3.0),
        ("10%", [5.0, 6.0], -math.inf),
        ("0%", [-1.0, 6.0], -math.inf),
        ("100%", [5.0, 6.0], 6.0),
        ("100%", [], -math.inf),
        ("10%", [NAN], -math.inf),
    ],
)
def test_margin_threshold(min_margin, margins, threshold):
    assert margin_threshold(min_margin, np.array(margins, dtype=np.float64)) == threshold


@pytest.mark.parametrize("min_margin", ["", "%", "a", "1%%"])
def test_margin_thresholds_that_are_none(min_margin):
    with pytest.raises(ValueError, match=r"convert|Fraction"):
        margin_threshold(min_margin, np.ones(1))


@given(st.lists(st.integers(-3, 9)), st.integers(0, 100))
def test_share_of_margins_drops_as_many_as_it_may_and_no_part_of_equal_ones(margins, percent):
    margin_Q = np.array(margins, dtype=np.float64)
    dropped = low_margin(margin_Q, margin_threshold(f"{percent}%", margin_Q))
    assert dropped.sum() * 100 <= percent * len(margins)
    assert set(margin_Q[dropped]).isdisjoint(margin_Q[~dropped])
    if not dropped.all():
        next_ones = np.count_nonzero(margin_Q == margin_Q[~dropped].min())
        assert (dropped.sum() + next_ones) * 100 > percent * len(margins)


def test_lowest_chosen_reward_passes_as_it_is_stored():
    stored_Q = np.array([0.9, 0.8999999], dtype=np.float32).astype(np.float64)
    assert failed(below_min_chosen(stored_Q, 0.9)) == [1]
    assert failed(below_min_chosen(np.array([NAN, -1.0]), 0.0)) == [1]


@pytest.mark.parametrize("chunked", [False, True])
def test_only_a_known_cut_is_truncated(chunked):
    reasons = pa.array(["stop", "length", None, "abort"])
    mask_Q = chosen_truncated(pa.chunked_array([reasons[:1], reasons[1:]]) if chunked else reasons)
    assert failed(mask_Q) == [1]
    assert failed(chosen_truncated(pa.nulls(2, pa.string()))) == []


def test_blank_responses_are_empty():
    chosen = pa.array(["a", "", " \n\t", "a", "b", "\u3000\u00a0"])
    rejected = pa.array(["a", "b", "b", "", " . ", "b"])
    assert failed(empty_response(chosen, rejected)) == [1, 2, 3, 5]


LONG = "The same beginning and the same end, twice as long as is looked at first. " * 4


@pytest.mark.parametrize(
    ("chosen", "rejected", "same"),
    [
        ("Yes.", "Yes.", True),
        (" Yes,  sir\n", "yes,\u00a0SIR", True),
        ("\n" * 500 + "yes", "Yes" + " " * 500, True),
        ("straße", "STRASSE", True),
        ("yes", "yes.", False),
        ("a b", "ab", False),
        ("", " ", True),
        ("", "a", False),
        (LONG + "x" + LONG, LONG.upper() + " X " + LONG, False),
        (LONG + "x" + LONG, LONG.upper() + "\tX" + LONG, True),
        (LONG + "x" + LONG, LONG + "y" + LONG, False),
        (LONG + "x y" + LONG, LONG.upper().replace(" ", "\n") + "X  Y" + LONG, True),
        (LONG + LONG, LONG, False),
    ],
)
def test_same_text(chosen, rejected, same):
    assert same_text(pa.array([chosen]), pa.array([rejected])).tolist() == [same]
    assert same_text(pa.array([rejected]), pa.chunked_array([[chosen]])).tolist() == [same]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), st.sampled_from(["", "ab " * 60]))
def test_same_text_is_equality_of_words_in_any_case(texts, around):
    pairs = [(a + around + b, b + around.upper() + a) for a, b in texts]
    columns = [pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)]
    expected = [a.casefold().split() == b.casefold().split() for a, b in pairs]
    assert same_text(*columns).tolist() == expected


def test_verdicts_on_both_count_where_they_are_known():
    chosen_Q = np.array([1.0, 1.0, 0.0, 0.0, NAN, 1.0])
    rejected_Q = np.array([1.0, 0.0, 1.0, 0.0, 0.0, NAN])
    assert failed(both_right(chosen_Q, rejected_Q)) == [0]
    assert failed(both_wrong(chosen_Q, rejected_Q)) == [3]


def test_length_ratio_either_way_round():
    chosen_Q = np.array([115.0, 100.0, 116.0, 100.0, 0.0, 0.0, NAN])
    rejected_Q = np.array([100.0, 115.0, 100.0, 116.0, 1.0, 0.0, 1.0])
    assert failed(length_ratio(chosen_Q, rejected_Q, 1.15)) == [2, 3, 4]


def test_same_tokens():
    chosen, rejected = [[1, 2], [1, 2], [], []], [[1, 2], [1, 3], [], [1]]
    assert failed(same_after_truncation(chosen, rejected)) == [0, 2]
    assert failed(same_after_truncation([], [])) == []
    with pytest.raises(ValueError, match="shorter"):
        same_after_truncation([[1]], [])


def test_lengths_are_in_one_unit_for_a_prompt():
    responses = pa.array(["aé", "bbb", "cccc", "ddddd"])
    num_tokens = pa.array([7, 8, None, 9], pa.int32())
    count_P = np.array([2, 2])
    assert response_lengths(responses, num_tokens, count_P).tolist() == [7.0, 8.0, 4.0, 5.0]
    chunked = pa.chunked_array([num_tokens[:3], num_tokens[3:]])
    assert response_lengths(responses, chunked, np.array([4])).tolist() == [2.0, 3.0, 4.0, 5.0]
    known = pa.array([7, 8, 1, 9], pa.int32())
    assert response_lengths(responses, known, np.array([4])).tolist() == [7.0, 8.0, 1.0, 9.0]
    nothing = np.zeros(0, np.int64)
    assert response_lengths(responses[:0], num_tokens[:0], nothing).tolist() == []
