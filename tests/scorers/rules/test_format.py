from __future__ import annotations

import time

import pytest
from support.rules import fingerprint, rewards, scorer_of

from bon.errors import SettingsError, UnknownChoiceError
from bon.scorers.rules.format import FORMS


def test_all_of_the_response_must_fit() -> None:
    spec = r"rule:format?pattern=Yes\..*"
    assert rewards(spec, "Yes. It\nis.", "Well. Yes.", "Yes", " Yes. It is") == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "response", "fits"),
    [
        ("think-answer", "<think>a\nb</think>\n<answer>7</answer>\n", True),
        ("think-answer", "<think></think><answer>7</answer>", True),
        ("think-answer", "<think>1 < 2</think><answer>x<y</answer>", True),
        ("think-answer", "<think>a</think><answer><b>4</b></answer>", True),
        ("think-answer", "<think>a</think><answer>\n < 4</answer>", True),
        ("think-answer", "<think>a</think><answer></answer>", False),
        ("think-answer", "<think>a</think><answer> </answer>", False),
        ("think-answer", "<think>a</think><answer> <answer>4</answer>", False),
        ("think-answer", "<think>a</think> so <answer>7</answer>", False),
        ("think-answer", "<think>a</think><answer>7</answer> done", False),
        ("think-answer", "<think>a<think>b</think></think><answer>7</answer>", False),
        ("think-answer", "<think>a</think><answer>6</answer><answer>7</answer>", False),
        ("think-answer", "<answer>7</answer><think>a</think>", False),
        ("think-answer", "<think>a<answer>7</answer></think>", False),
        ("think-answer", "7", False),
        ("think", "<think>a</think> 7", True),
        ("think", "<think>a</think> <div>7</div>", True),
        ("think", "<think>a</think><", True),
        ("think", "<think>a</think>", False),
        ("think", "<think>a</think> \n", False),
        ("think", "<think>a</think>\n<answer>7</answer>", False),
        ("think", "<think>a</think> 7 <think>b</think>", False),
        ("think", "a</think> 7", False),
        ("boxed", r"so \boxed{7}.", True),
        ("boxed", r"\boxed{\frac{1}{\sqrt{2}}}", True),
        ("boxed", r"\boxed{1}" + "\n" + r"\boxed{2}", True),
        ("boxed", r"\boxed{}", False),
        ("boxed", r"\boxed{ }", False),
        ("boxed", r"\boxed{7", False),
        ("boxed", r"\boxed{\frac{1}{2}", False),
        ("boxed", "boxed{7}", False),
        ("hashes", "2 + 5 = 7\n#### 7\n", True),
        ("hashes", "#### 7", True),
        ("hashes", "#### 7\nand more", False),
        ("hashes", "so #### 7", False),
        ("hashes", "####", False),
        ("hashes", "##### 7", False),
    ],
)
def test_ready_ones(name: str, response: str, fits: bool) -> None:
    assert rewards(f"rule:format?name={name}", response) == [float(fits)]


@pytest.mark.parametrize("name", FORMS)
def test_ready_ones_take_long_responses_quickly(name: str) -> None:
    started = time.monotonic()
    pieces = (
        "<think>",
        "</think>",
        "<answer>",
        "\\boxed{",
        "{",
        "}",
        "#### ",
        "\n",
        "< ",
        "<",
        "x ",
    )
    texts = [piece * 20_000 for piece in pieces]
    texts += ["<think>" + "a " * 100_000, "<think></think>" + " " * 100_000 + "</think>"]
    texts += ["\\boxed{" + "{1}" * 20_000, "".join(pieces) * 5_000]
    found = rewards(f"rule:format?name={name}", *texts)
    assert set(found) <= {0.0, 1.0}
    assert time.monotonic() - started < 20


def test_a_name_is_the_pattern_it_stands_for() -> None:
    named = fingerprint("rule:format?name=hashes")
    assert named["pattern"] == FORMS["hashes"]
    assert named["rule_timeout_s"] == 5.0
    assert named != fingerprint("rule:format?name=boxed")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs a pattern") as needs:
        scorer_of("rule:format")
    assert all(name in needs.value.next_step for name in FORMS)
    with pytest.raises(UnknownChoiceError, match="no format 'box'") as unknown:
        scorer_of("rule:format?name=box")
    assert unknown.value.next_step == "did you mean 'boxed'?"
    for options in (
        "name=boxed&pattern=x",
        "name=boxed&pattern_file=x",
        "pattern=a&pattern_file=b",
    ):
        with pytest.raises(SettingsError, match="two patterns"):
            scorer_of(f"rule:format?{options}")
    with pytest.raises(SettingsError, match="bad pattern"):
        scorer_of("rule:format?pattern=[")
