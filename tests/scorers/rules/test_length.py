from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rules import ASK, fingerprint, rewards, scorer_of

from bon.errors import SettingsError
from bon.records import Candidate, CandidateGroup


def of_lengths(options: str, *lengths: int) -> list[object]:
    return rewards(f"rule:length?{options}", *("x" * length for length in lengths))


def test_inside_the_band_is_one_and_outside_is_zero() -> None:
    assert of_lengths("min=2&max=4", 0, 1, 2, 3, 4, 5) == [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    assert of_lengths("max=2", 0, 2, 3) == [1.0, 1.0, 0.0]
    assert of_lengths("min=2", 1, 2, 9_999) == [0.0, 1.0, 1.0]
    assert of_lengths("min=3&max=3", 2, 3, 4) == [0.0, 1.0, 0.0]
    assert of_lengths("max=0", 0, 1) == [1.0, 0.0]


def test_with_soft_it_falls_in_a_straight_line() -> None:
    found = of_lengths("min=10&max=20&soft=4", 5, 6, 7, 8, 9, 10, 20, 21, 22, 23, 24, 25)
    assert found == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_what_is_counted() -> None:
    text = "two  words\nand ünï 漢字 "
    assert rewards("rule:length?min=22&max=22", text) == [1.0]
    assert rewards("rule:length?min=5&max=5&unit=words", text) == [1.0]


def test_tokens_are_the_generators() -> None:
    candidates = tuple(Candidate(i, "x", "stop", n, None, None) for i, n in enumerate((3, 5, None)))
    scorer = scorer_of("rule:length?max=4&unit=tokens")
    assert scorer.rule.reads_candidates
    assert not scorer_of("rule:length?max=4").rule.reads_candidates
    with scorer:
        known, unknown = scorer.score(
            [
                CandidateGroup("p", ASK, ("x", "x", "x"), candidates=candidates),
                CandidateGroup("q", ASK, ("x",)),
            ]
        )
    assert known.scores == (1.0, 0.0, None)
    assert unknown.scores == (None,)
    assert {known.reasons[2].reason, unknown.reasons[0].reason} == {"no_num_tokens"}


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 50), st.integers(0, 150))
def test_it_lies_between_0_and_1_and_falls_with_the_distance(
    low: int, width: int, soft: float, length: int
) -> None:
    rule = scorer_of(f"rule:length?min={low}&max={low + width}&soft={soft}").rule
    near, far = (
        rule.rewards([CandidateGroup("p", ASK, ("x" * n,))])[0][0] for n in (length, length + 1)
    )
    assert isinstance(near, float)
    assert isinstance(far, float)
    assert 0.0 <= near <= 1.0
    assert (near == 1.0) is (low <= length <= low + width)
    assert far >= near if length < low else far <= near


def test_the_fingerprint_has_every_option_by_its_value() -> None:
    assert fingerprint("rule:length?max=9&soft=1") == {
        "name": "r", "spec": "rule:length", "min": 0, "max": 9, "unit": "chars", "soft": 1.0,
        "rule_version": 1, "is_verdict": False,
    }  # fmt: skip
    assert fingerprint("rule:length?max=9") == fingerprint("rule:length?unit=chars&max=09&min=0")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("", "give min, max or both"),
        ("?min=0", "give min, max or both"),
        ("?min=3&max=2", "min 3 is above max 2"),
        ("?max=-1", "greater than or equal to 0"),
        ("?max=3.5", "valid integer"),
        ("?max=3&soft=-1", "greater than or equal to 0"),
        ("?max=3&soft=nan", "finite number"),
        ("?max=3&soft=inf", "finite number"),
        ("?max=3&unit=lines", "'chars', 'words' or 'tokens'"),
    ],
)
def test_what_cannot_be_is_refused(options: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        scorer_of(f"rule:length{options}")
    assert why in caught.value.why
    assert caught.value.where == "-r rule:length"
