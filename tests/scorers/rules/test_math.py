from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import SHARED_DATA

from bon.config import ScorerSettings
from bon.errors import EngineError
from bon.records import CandidateGroup, Drop
from bon.scorers.rules import RuleScorer, find_rule, make_rule, math
from bon.scorers.rules.math import MathRule, as_latex

pytest.importorskip("math_verify", reason="needs bon-cli[curation]")

SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture(scope="module")
def rule() -> Iterator[MathRule]:
    with MathRule(ScorerSettings(name="m", spec="rule:math")) as entered:
        yield entered


def verdict(rule: MathRule, response: str, answer: object) -> bool | Drop:
    reference = rule.reference(answer)
    assert reference is not None
    return rule.verdict(response, reference)


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        (r"\frac{1}{2}", r"\boxed{0.5}", True),
        ("0.5", "so it is 1/2", True),
        ("2/4", r"thus $\dfrac12$.", True),
        ("3 1/2", r"\boxed{3.5}", True),
        ("1/3", r"\boxed{0.333333}", True),  # math-verify rounds to six decimals
        ("1/3", r"\boxed{0.33}", False),
        ("18", "the chance is 1/18", False),
        ("3", r"\boxed{x=3}", True),
        ("x=3", r"\boxed{3}", True),
        ("x=3", r"\boxed{y=3}", False),
        ("x=-2, x=3", "A: x = 3 or x = -2", True),
        ("(x+1)^2", r"\boxed{x^2+2x+1}", True),
        (r"2\sqrt{2}", r"\boxed{\sqrt8}", True),
        (r"\frac{\pi}{2}", "A: pi/2", True),
        ("10^{-1}", "#### 0.1", True),
    ],
)
def test_the_same_value_in_other_words(
    rule: MathRule, answer: str, response: str, right: bool
) -> None:
    assert verdict(rule, response, answer) is right


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("[0,1)", r"\boxed{[0,1)}", True),
        ("[0,1)", "Answer: (0,1)", False),
        ("x<1", r"\boxed{(-\infty,1)}", True),
        (r"(-\infty,1)", r"\boxed{x<1}", False),  # the form asked for is the reference's
        ("1,2,3", r"\boxed{\{3,2,1\}}", True),
        ("(1,2)", r"\boxed{(2,1)}", False),
    ],
)
def test_intervals_sets_and_points(rule: MathRule, answer: str, response: str, right: bool) -> None:
    assert verdict(rule, response, answer) is right


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        (r"50\%", r"\boxed{0.5}", True),
        ("0.5", "A: 50%", True),
        ("50", r"\boxed{50\%}", True),
        ("50%", "A: 5%", False),
        ("0.5", r"Answer: $50\%$", True),
        ("18", "A: 18 dollars", True),
        ("18", "Answer: $18 per day", True),
        ("18 cm^2", "A: 18", True),
        ("18 cm", "A: 18 m", True),  # units are not compared
        (r"90^\circ", "A: 90°", True),
        ("1,234", r"\boxed{1{,}234}", True),
        ("-3", "A: −3", True),
        ("-3", r"\boxed{3}", False),
    ],
)
def test_percentages_units_separators_and_signs(
    rule: MathRule, answer: str, response: str, right: bool
) -> None:
    assert verdict(rule, response, answer) is right


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("Paris", "A: paris.", True),
        ("listen", r"\boxed{\text{silent}}", False),
        ("Evelyn", r"\boxed{\text{Evelyn}}", True),
        ("B", r"\boxed{\text{(B)}}", True),
        ("2", r"\boxed{1}, no: \boxed{2}", True),
        ("1", r"\boxed{1}, no: \boxed{2}", False),
        ("18", "答案是 18", True),
        ("18", "The answer is **18**.", True),
        ("7", "Final Answer: **7**", True),
        ("7", "#### **7**", True),
        ("7", "#### **Final answer: 7**", True),
        ("7", "7 < 8, so\n**Answer:** $7$", True),
        ("7", "**Answer: 7 apples**", True),
        ("7", "Answer: **7** apples", True),
        ("7", "**3 + 4 = 7**", True),
        ("7", "**Final answer: 8**", False),
        ("1e3", "Answer: 1000", True),
        ("1000", "#### 1e3", True),
        ("1e3", "Answer: 1001", False),
        ("1e99999", "1e99999", True),
        ("1/2", "so\n**Answer: `0.5`**", True),
        ("1/2", r"Answer: **$\frac{2}{4}$**.", True),
        ("2**3", "Answer: 8", True),
        ("Paris", "**Answer: Paris**", True),
        ("Paris", "**Answer:** *London*", False),
        ("18", "", False),
        ("18", r"\boxed{}", False),
    ],
)
def test_words_and_marks(rule: MathRule, answer: str, response: str, right: bool) -> None:
    assert verdict(rule, response, answer) is right


@pytest.mark.parametrize(
    "response",
    [
        "a\0b",
        "{" * 100_000,
        "}" * 100_000,
        "$" * 100_000,
        "9" * 5_000 + "x",
        "5 " + "abc " * 250_000,
        " " * 1_000_000 + "%x",
        r"\text{" * 100_000,
        "\ud800",
        r"\boxed{" + r"\frac{1}{" * 3_000 + "2" + "}" * 3_001,
        r"\boxed{\frac{1}{",
    ],
    ids=lambda text: repr(text[:8]),
)
def test_garbage_is_wrong_and_quickly_so(rule: MathRule, response: str) -> None:
    assert verdict(rule, response, "3") is False
    assert verdict(rule, response + "\n#### 3", "3") is True


def test_a_number_of_thousands_of_digits_is_compared_exactly(rule: MathRule) -> None:
    digits = "7" * 100_000
    assert verdict(rule, f"A: {digits}", digits) is True
    assert verdict(rule, f"A: {digits[:-1]}8", digits) is False


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("0123456789 .,%$\\{}()[]=xyz-/\n#A:"), max_size=40))
def test_any_text_gets_a_verdict(rule: MathRule, text: str) -> None:
    assert isinstance(verdict(rule, text, "17"), bool)
    assert verdict(rule, f"{text}\n#### 17", "17") is True


@given(st.integers(-999, 999), st.integers(1, 99))
@settings(max_examples=30, deadline=None)
def test_a_fraction_is_right_however_it_is_expanded(
    rule: MathRule, numerator: int, factor: int
) -> None:
    response = rf"\boxed{{\frac{{{numerator * factor}}}{{{7 * factor}}}}}"
    assert verdict(rule, response, f"{numerator}/7") is True
    assert verdict(rule, response, f"{numerator + 1}/7") is False


@pytest.mark.parametrize(
    ("answer", "latex"),
    [
        ("1/2", r"\boxed{1/2}"),
        (r"$\frac12$", r"\boxed{\frac12}"),
        (r"$1$ and $2$", r"$1$ and $2$"),
        ("50 percent", r"\boxed{50\%}"),
        ("18 dollars", r"\boxed{18}"),
        ("12 dollars and 30 cents", "12 dollars and 30 cents"),
        ("-3 1/2", r"\boxed{-3\frac{1}{2}}"),
        (r"\sin x", r"\boxed{\sin x}"),
    ],
)
def test_as_latex(answer: str, latex: str) -> None:
    assert as_latex(answer) == latex


def test_without_math_verify_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="not installed") as caught:
        find_rule("math")
    assert "bon-cli[curation]" in caught.value.next_step


def gsm8k_groups() -> tuple[list[CandidateGroup], list[list[bool]]]:
    path = SHARED_DATA / "gsm8k_candidates.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}: the real data is not part of the package")
    with path.open(encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    groups = [
        CandidateGroup(
            str(number),
            ({"role": "user", "content": row["question"]},),
            tuple(row[solver]["solution"] for solver in SOLVERS),
            {"ground_truth": row["ground_truth"]},
        )
        for number, row in enumerate(rows)
    ]
    return groups, [[row[solver]["is_correct"] for solver in SOLVERS] for row in rows]


@pytest.mark.parametrize("name", ["exact", "math"])
def test_verdicts_are_those_of_the_authors_of_gsm8k(name: str) -> None:
    groups, correct = gsm8k_groups()
    settings = ScorerSettings(name="r", spec=f"rule:{name}")
    with RuleScorer(settings, make_rule(settings)) as scorer:
        scores = scorer.score(groups)
    assert len(scores) == 1_000
    assert [list(map(bool, one.scores)) for one in scores] == correct


def test_answers_that_nothing_marks_are_found_and_quickly_so(rule: MathRule) -> None:
    groups, correct = gsm8k_groups()
    started, agreed, total = time.monotonic(), 0, 0
    for group, expected in zip(groups[:100], correct, strict=False):
        for response, right in zip(group.responses, expected, strict=True):
            text = response.rpartition("\nA: ")[0] or response
            agreed += verdict(rule, text, group.extra["ground_truth"]) is right
            total += 1
    assert agreed / total > 0.98
    assert total / (time.monotonic() - started) > 50
