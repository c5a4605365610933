import json
import pickle
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon import answers
from bon.answers import compile_answer_pattern, extract_answer, is_correct, reference_answer
from bon.errors import SettingsError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ANSWER_IS = re.compile(r"(?i)answer is:? *(.+)")


def read_rows(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}: the real data is not part of the package")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She makes 9 * 2 = $18 every day.", "18"),
        ("It costs $1,234.50.", "1234.5"),
        ("first 3, then 4", "4"),
        ("1, 2, 3", "3"),
        ("A: 18.00", "18"),
        ("007", "7"),
        ("+5", "5"),
        ("-0", "0"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("0.50", "0.5"),
        ("100", "100"),
        ("x = -3.", "-3"),
        ("it fell by −7", "-7"),
        ("-$5 or $-6", "-6"),
        ("a loss of -$5", "-5"),
        ("16-3", "3"),
        ("(2)-3", "3"),
        ("between 10 - 20", "20"),
        (r"\boxed{-12}", "-12"),
        (r"\boxed{\$1{,}234}", "1234"),
        (r"10,\!000", "10000"),
        ("1234,567", "567"),
        ("12,34", "34"),
        ("3/4", "4"),
        ("50%", "50"),
        ("<<9*2=18>>18", "18"),
        ("...5", "5"),
        ("1e3", "1000"),
        ("block 1e3 or 2e4", "4"),
        ("1e99999", "99999"),
        ("no number here", None),
        ("", None),
        ("٣", None),
    ],
)
def test_default_answer_is_the_last_number_in_canonical_spelling(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"answer is (\w+)", "answer is no. Wait, the answer is yes.", "yes"),
        (r"[A-D]", "A or B? C.", "C"),
        (r"Answer:(.*)", "Answer:   Paris  ", "Paris"),
        (r"Answer:(.*)", "Answer: 1,000.0", "1000"),
        (r"Answer:(.*)", "Answer: $5 a day", "$5 a day"),
        (r"(?:x=(\d+))|none", "x=3 none", "none"),
        (r"Answer: (.*)", "Answer: **7**", "7"),
        (r"Answer: (.*)", "Answer: **Paris**.", "Paris"),
        (r"\d*", "7 apples", "7"),  # the last match of all is empty
        (r"Answer:(.*)", "Answer: ", None),
        (r"Answer:(.*)", "42", None),
    ],
)
def test_pattern_takes_its_last_match(pattern, text, answer):
    assert extract_answer(text, re.compile(pattern)) == answer


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (18, "18"),
        (-3, "-3"),
        (18.0, "18"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (float("nan"), None),
        (float("inf"), None),
        (True, "True"),
        (None, None),
        (["18"], None),
        ("", None),
        ("  ", None),
        (" Paris ", "Paris"),
        ("1,234", "1234"),
        ("$18.00", "18"),
        ("50%", "50"),
        ("3/4", "3/4"),
        ("1e3", "1000"),
        ("1.50E+02", "150"),
        ("-2.5e-3", "-0.0025"),
        ("1,200e-2", "12"),
        ("-0e5", "0"),
        ("0.00e-5", "0"),
        ("so\n#### 1e3", "1000"),
        ("so\n**Answer: 6.02e4**", "60200"),
        ("1e3 apples", "1e3 apples"),
        ("1e", "1e"),
        ("1 e3", "1 e3"),
        ("1e3.5", "1e3.5"),
        ("1e99999", "1e99999"),
        ("1e999999999", "1e999999999"),
        ("16 - 3 = 13\n#### 13", "13"),
        ("#### 1\nno:\n#### 2,000\n", "2000"),
        ("####\n18\n", "18"),
        (r"so \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"{\boxed{5}", "5"),
        (r"\boxed{4} and cut off \boxed{\frac{1", "4"),
        (r"} \boxed{", r"} \boxed{"),
        ("2+1=3 bolts\nA: 3", "3"),
        ("because.\nAnswer: Paris", "Paris"),
        ("because.\nThe final answer: B\n", "B"),
        ("A: not the last line\nso there", "A: not the last line\nso there"),
        ("A", "A"),
        ("**7**", "7"),
        ("**Paris**", "**Paris**"),
        ("so\n#### **7**", "7"),
        ("so\n**#### 7**", "7"),
        ("**####** $7$.", "7"),
        ("#### **Final answer: 7**", "7"),
        ("so\n**Answer:** 7", "7"),
        ("so\n**Answer**: 7", "7"),
        ("so\n**Final answer: 7**", "7"),
        ("so\nFinal Answer: **7**.", "7"),
        ("so\n### Answer: `7`", "7"),
        ("so\n*The answer:* __Paris__!", "Paris"),
        ("so\n**Answer:** **`$x^2$`**", "x^2"),
        ("so\n_A:_ $$\\frac{1}{2}$$", r"\frac{1}{2}"),
        (r"\boxed{$7$}", "7"),
        ("Answer: $a$ or $b$", "$a$ or $b$"),
        ("Answer: **a** and **b**", "**a** and **b**"),
        ("Answer: 2**3", "2**3"),
        ("Answer: **", "**"),
        ("Answer: $ $", "$ $"),
        ("Answer: **7", "**7"),
    ],
)
def test_reference_answer_of_a_value(value, answer):
    assert reference_answer(value) == answer


def test_pattern_helps_where_a_reference_has_no_mark_of_its_own():
    assert reference_answer("The answer is: B", ANSWER_IS) == "B"
    assert reference_answer("The answer is: B #### C", ANSWER_IS) == "C"
    assert reference_answer("Paris", ANSWER_IS) == "Paris"


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("9 * 2 = $18.00.", "18", True),
        ("9 * 2 = 18", "$18.00", True),
        ("1,000 in all", "1000", True),
        ("18, so 17", "18", False),
        ("1000", "1e3", True),
        ("1e3", "1000", True),
        ("1e-3", "0.001", True),
        ("it is 1e3", "1000", False),
        ("1e99999", "1E99999", True),
        ("1e99998", "1e99999", False),
        ("I do not know", "18", False),
        ("-18", "18", False),
        ("paris.", "Paris", True),
        ("  New\n York!", "new york", True),
        ("It is Paris", "Paris", False),
        (r"It is \boxed{Paris}, as said.", "Paris", True),
        ("It is so.\n#### Paris", "Paris", True),
        ("It is so.\nAnswer: Paris.", "Paris", True),
        (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}", True),
        (r"\boxed{\frac{3}{5}}", r"\frac{3}{4}", False),
        ("", "", False),
        ("...", "?", False),
        ("It is so.\n**Answer:** Paris", "Paris", True),
        ("It is so.\n**Answer: `Paris`**", "paris", True),
        ("It is so.\n#### _Paris_", "Paris", True),
        ("**Paris**.", "Paris", True),
        ("Paris", "**Paris**", True),
        ("**London**", "Paris", False),
    ],
)
def test_is_correct(response, reference, expected):
    assert is_correct(response, reference) is expected


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("The answer is 18 apples, of 40.\nGood luck for 2024!", "40", True),
        ("The answer is: $18.\nGood luck for 2024!", "18", True),
        ("Good luck for 2024!", "2024", False),
        ("The answer is Paris.", "paris", True),
        ("Paris", "Paris", False),
        (r"\boxed{Paris}", "Paris", True),
    ],
)
def test_is_correct_with_a_pattern(response, reference, expected):
    assert is_correct(response, reference, ANSWER_IS) is expected


def test_bad_pattern_says_what_why_and_next():
    with pytest.raises(SettingsError) as caught:
        compile_answer_pattern("(")
    error = pickle.loads(pickle.dumps(caught.value))
    assert "--answer-pattern: '('" in error.what
    assert "unterminated subpattern" in error.why
    assert error.next_step


def test_patterns_compile_and_none_stays_none():
    assert compile_answer_pattern(None) is None
    assert compile_answer_pattern("a+") == re.compile("a+")


def test_agrees_with_the_authors_on_gsm8k_solutions():
    rows = read_rows("gsm8k_candidates.jsonl")
    agreements = [
        is_correct(solution["solution"], reference_answer(row["ground_truth"]))
        == solution["is_correct"]
        for row in rows
        for solution in row.values()
        if isinstance(solution, dict)
    ]
    assert len(agreements) == 4000
    assert sum(agreements) / len(agreements) >= 0.99


def test_reads_every_gsm8k_reference():
    rows = read_rows("gsm8k_test.jsonl")
    expected = [row["answer"].partition("#### ")[2].replace(",", "") for row in rows]
    assert [reference_answer(row["answer"]) for row in rows] == expected


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_is_read_back_and_equal_to_itself(number):
    canonical = reference_answer(number)
    assert float(canonical) == float(number)
    assert extract_answer(canonical) == canonical
    assert is_correct(f"so it is {canonical}.", canonical)


@given(st.integers(), st.integers(0, 3), st.integers(1, 4))
def test_spelling_of_a_number_does_not_matter(number, num_zeros, num_decimals):
    plain = str(number)
    sign, digits = ("-", plain[1:]) if number < 0 else ("", plain)
    spellings = [
        f"{number:,}",
        f"{number:,}.{'0' * num_decimals}",
        f"{sign}{'0' * num_zeros}{digits}.",
        f"{sign}${digits}",
        f"it was 5 and is now {sign}{digits}",
    ]
    assert {extract_answer(text) for text in spellings} == {plain}


@given(st.text(alphabet=r"0123456789.,-$ \{}boxed#A:%" + "\n", max_size=40))
def test_any_text_is_taken_and_its_answer_is_stable(text):
    answer = extract_answer(text)
    assert answer is None or extract_answer(answer) == answer
    reference = reference_answer(text)
    assert (reference is None) == (text.strip() == "") or "####" in text or "boxed" in text
    assert is_correct(text, "1") == (answer == "1")


@given(st.sampled_from(["*", "**", "***", "_", "__", "`", "$", "$$"]), st.sampled_from("#:"))
def test_markdown_around_a_marked_answer_does_not_matter(wrapper, mark):
    before = {"#": "#### ", ":": "Final answer: "}[mark]
    assert reference_answer(f"2 + 5\n{before}{wrapper}7{wrapper}") == "7"
    assert reference_answer(f"2 + 5\n{before}{wrapper}1/7{wrapper}.") == "1/7"


@pytest.mark.parametrize("garbage", ["*", "*`", "_ ", "# ", "** ", "$", "*_`$"])
def test_endless_markdown_is_read_in_one_pass(garbage):
    text = garbage * (400_000 // len(garbage))
    started = time.process_time()
    for marked in (text, f"x\n{text}7", f"#### {text}7{text[::-1]}", f"x\nAnswer: {text}"):
        reference_answer(marked)
    assert time.process_time() - started < 5


@given(st.integers(-(10**6), 10**6), st.integers(-30, 30), st.sampled_from(["e", "E"]))
def test_an_exponent_is_a_spelling_of_the_number(mantissa, exponent, letter):
    canonical = reference_answer(f"{mantissa}{letter}{exponent:+d}")
    assert Fraction(canonical) == Fraction(mantissa) * Fraction(10) ** exponent
    assert reference_answer(canonical) == canonical


def test_a_huge_exponent_costs_no_memory():
    for text in ("1e999999999", "1e-999999999", "#### 1e" + "9" * 100_000):
        assert len(reference_answer(text)) <= len(text)
    assert reference_answer("7e9999") == "7" + "0" * 9999


NUMBERISH = st.text(alphabet="0123456789.,-+−$€£%\\!{}()x_*#eE²٣ \t\n\u00a0\u2009", max_size=40)


@given(NUMBERISH | st.lists(NUMBERISH | st.text(max_size=8), max_size=6).map(" ".join))
def test_the_last_number_is_the_last_of_all(text):
    alone = answers._number(text)
    found = [answers._canonical(match) for match in answers._NUMBER_IN_TEXT.finditer(text)]
    expected = alone if alone is not None else found[-1] if found else None
    answer = extract_answer(text)
    assert answer == expected
    if answer is not None:
        assert extract_answer(answer) == answer
        assert is_correct(text, answer)
