from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.rules import ASK, fingerprint, rewards, scorer_of

from bon.errors import SettingsError, UnknownChoiceError
from bon.records import CandidateGroup, Drop


def test_the_pattern_is_searched_for() -> None:
    found = rewards(r"rule:regex?pattern=\bcats?\b", "two cats", "a cat", "concat", "", "a\ncat")
    assert found == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_flags_stand_in_the_pattern_and_escapes_in_the_option() -> None:
    assert rewards("rule:regex?pattern=(?i)yes|a%26b", "YES", "a&b", "no") == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "response", "reward"),
    [
        ("18", "Answer: 18.", 1.0),
        ("18", "Answer: $18.00", 1.0),
        ("18", "Answer: 17, no. Answer: 18", 1.0),  # the last match counts
        ("18", "Answer: 18, no. Answer: 17", 0.0),
        ("so 9 * 2 = 18\n#### 18", "Answer: 18", 1.0),
        ("Paris", "Answer: paris", 1.0),
        ("Paris", "answer: Paris", 0.0),
        ("18", "18", 0.0),
        (None, "Answer: 18", "no_reference"),
        ("", "Answer: 18", "no_reference"),
    ],
)
def test_the_first_group_is_compared(answer: str | None, response: str, reward: object) -> None:
    spec = "rule:regex?pattern=Answer: ([^,]*)&against=right"
    assert rewards(spec, response, extra={"right": answer}) == [reward]


def test_which_group_is_compared() -> None:
    extra = {"right": "2", "answer": None, "ground_truth": "1"}
    two = r"rule:regex?pattern=(?P<a>\d) (?P<b>\d)"
    for group, expected in (("", 0.0), ("&group=1", 0.0), ("&group=2", 1.0), ("&group=b", 1.0)):
        assert rewards(f"{two}{group}&against=right", "1 2", extra=extra) == [expected], group
    assert rewards(r"rule:regex?pattern=\d&against=right", "1 2", extra=extra) == [1.0]
    assert rewards(f"{two}&against=answer", "1 2", extra=extra) == [1.0]  # ground_truth: 1
    # a group that has no part in the match gives no answer
    assert rewards("rule:regex?pattern=(2)?x&against=right", "x", extra=extra) == [0.0]


def test_a_pattern_that_explodes_costs_its_candidate_and_not_the_run() -> None:
    started = time.monotonic()
    spec = r"rule:regex?pattern=^(\w+\s?)*$"
    with scorer_of(spec, rule_timeout_s=0.3) as scorer:
        (found,) = scorer.score([CandidateGroup("p", ASK, ("fine", "word " * 20 + "!", "fine"))])
    assert found.scores == (1.0, None, 1.0)
    assert found.reasons == {1: Drop("rule_timeout", "not decided in 0.3 s of computing")}
    assert time.monotonic() - started < 10


def test_a_pattern_in_a_file_is_the_same_pattern(tmp_path: Path) -> None:
    path = tmp_path / "pattern.txt"
    path.write_text("a & b?\n")
    from_file = fingerprint(f"rule:regex?pattern_file={path}")
    assert from_file == fingerprint("rule:regex?pattern=a %26 b?")
    assert from_file == {
        "name": "r", "spec": "rule:regex", "pattern": "a & b?", "rule_timeout_s": 5.0,
        "rule_version": 1,
    }  # fmt: skip
    assert rewards(f"rule:regex?pattern_file={path}", "a & b", "a+b") == [1.0, 0.0]


def test_the_fingerprint_holds_the_group_as_it_is_understood() -> None:
    one = fingerprint("rule:regex?pattern=(a)(b)&against=x")
    assert one == fingerprint("rule:regex?pattern=(a)(b)&group=1&against=x")
    assert one != fingerprint("rule:regex?pattern=(a)(b)&group=2&against=x")
    assert one != fingerprint("rule:regex?pattern=(a)(b)&against=y")
    assert one != fingerprint("rule:regex?pattern=(a)(b)&against=x", rule_timeout_s=6.0)
    assert one == fingerprint("rule:regex?pattern=(a)(b)&against=x", answer_column="y")


@pytest.mark.parametrize(
    ("options", "what", "why"),
    [
        ("", "it needs a pattern", ""),
        ("?pattern=(", r"bad pattern '\('", "not a regular expression: missing )"),
        ("?pattern=a{9999999999}", "bad pattern", "too large"),
        ("?pattern=a&pattern_file=b", "two patterns", ""),
        ("?pattern_file=/no/file", "cannot read the file of the option 'pattern_file'", "No such"),
        ("?pattern=(a)&group=1", "do not go together", "against=COLUMN"),
    ],
)
def test_what_cannot_be_is_refused(options: str, what: str, why: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        scorer_of(f"rule:regex{options}")
    assert caught.value.where.startswith("-r rule:regex")
    assert why in caught.value.why


@pytest.mark.parametrize("group", ["2", "name", "", "²"])
def test_a_group_that_is_not_there_is_refused(group: str) -> None:
    with pytest.raises(UnknownChoiceError, match="no group") as caught:
        scorer_of(f"rule:regex?pattern=(?P<right>a)&against=x&group={group}")
    assert caught.value.next_step == "known: 0, 1, right"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pattern.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read the file of the option"):
        scorer_of(f"rule:regex?pattern_file={path}")
