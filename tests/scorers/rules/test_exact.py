from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config import ScorerSettings
from bon.scorers.rules.exact import ExactRule

RULE = ExactRule(ScorerSettings(name="e", spec="rule:exact"))


def verdict(response: str, answer: object) -> bool:
    reference = RULE.reference(answer)
    assert reference is not None
    return RULE.verdict(response, reference)


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("so 9 * 2 = 18\nA: 18", "she makes $18.00 a day", True),
        ("#### 1,234", r"it is \boxed{1234}, as 2 < 3", True),
        (18, "#### 18\n(that is 2 eggs)", True),
        (18, "#### 2\n18", False),
        ("-3", r"\boxed{3}", False),
        (0.5, ".50", True),
        ("Paris", "A: paris.", True),
        ("Paris", "It is Paris", False),
        (r"\frac{1}{2}", "0.5", False),
        (True, "Answer: true", True),
        ("18", "", False),
        ("7", "Final Answer: **7**", True),
        ("7", "#### **7**", True),
        ("7", "7 < 8, so\n**Answer:** $7$", True),
        ("7", "**Final answer: 8**", False),
        ("1e3", "Answer: 1000", True),
        ("1000", "#### 1e3", True),
        ("1e3", "Answer: 1001", False),
        ("1e99999", "1e99999", True),
        ("Paris", "**Answer: Paris**", True),
        ("Paris", "`Paris`", True),
    ],
)
def test_same_number_or_same_text(answer: object, response: str, right: bool) -> None:
    assert verdict(response, answer) is right


@pytest.mark.parametrize("value", [None, "", "  ", [1], {"a": 1}, float("nan")])
def test_no_reference(value: object) -> None:
    assert RULE.reference(value) is None


@given(st.integers(-(10**12), 10**12), st.booleans(), st.integers(0, 3))
def test_a_number_is_right_in_every_spelling(value: int, commas: bool, decimals: int) -> None:
    digits = f"{value:,}" if commas else str(value)
    digits += "." + "0" * decimals if decimals else ""
    assert verdict(f"I add them.\nAnswer: {digits}", value)
    assert not verdict(f"I add them.\nAnswer: {digits}", value + 1)
