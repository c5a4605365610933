"""What -r says, taken apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from bon.config.base import Settings
from bon.config.scorer_spec import ScorerSpec, parse_options, parse_scorer_spec
from bon.errors import SettingsError, UnknownChoiceError

KINDS = ("rule:", "server:", "judge:")


class Band(Settings):
    """Options of a made-up scorer."""

    low: float
    """The lowest."""
    high: float = Field(default=1.0, gt=0.0)
    """The highest."""
    unit: str | None = None
    """What is counted."""

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("org/model", ScorerSpec("model", "org/model")),
        ("rm=org/model", ScorerSpec("rm", "org/model")),
        ("./what?is=this", ScorerSpec("what-is-this", "./what?is=this")),
        ("rule:math", ScorerSpec("rule-math", "rule:math")),
        ("rule:dir/my.py:f", ScorerSpec("rule-my.py-f", "rule:dir/my.py:f")),
        ("rule:my.py:f", ScorerSpec("rule-my.py-f", "rule:my.py:f")),
        ("server:http://host:8000", ScorerSpec("server", "server:http://host:8000")),
        ("judge:server:http://h", ScorerSpec("judge", "judge:server:http://h")),
        ("judge:org/model?mode=x", ScorerSpec("judge-model", "judge:org/model", {"mode": "x"})),
        ("r=rule:regex?pattern=a=b+?", ScorerSpec("r", "rule:regex", {"pattern": "a=b+?"})),
        ("rule:x?a=1%262%25&b=", ScorerSpec("rule-x", "rule:x", {"a": "1&2%", "b": ""})),
        ("rule:x?a=5%de+C%2F%41é", ScorerSpec("rule-x", "rule:x", {"a": "5%de+C%2F%41é"})),
        ("rule:x?a=%2526%2525", ScorerSpec("rule-x", "rule:x", {"a": "%26%25"})),
    ],
)
def test_names_specs_and_options(said: str, expected: ScorerSpec) -> None:
    assert parse_scorer_spec(said, kinds=KINDS) == expected


@pytest.mark.parametrize("said", ["rule:x?", "rule:x?a", "rule:x?=1", "rule:x?a=1&a=2"])
def test_options_that_cannot_be_read(said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_scorer_spec(said, kinds=KINDS)
    assert caught.value.where == f"-r {said}"


@pytest.mark.parametrize("rest", ["@host?foo", "@host?a=1&a=2", "?x@host", "@host?=1"])
@pytest.mark.parametrize("start", ["judge:server:http://", "server:https://", "a=server:"])
def test_a_password_in_a_url_is_not_shown(start: str, rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_scorer_spec(f"{start}bob:hunter2{rest}", kinds=KINDS)
    assert "hunter2" not in str(caught.value)
    assert "x@host" not in str(caught.value)


def test_options_become_settings() -> None:
    band = parse_options(Band, {"low": "-2", "high": "3.5", "unit": "words"}, "-r x")
    assert (band.low, band.high, band.unit) == (-2.0, 3.5, "words")


@pytest.mark.parametrize(
    ("options", "message", "why"),
    [
        ({}, "the option 'low' is missing", "The lowest."),
        ({"low": "two"}, "bad value for the option 'low': 'two'", "valid number"),
        ({"low": "0", "high": "-1"}, "bad value for the option 'high'", "greater than 0"),
        ({"low": "2", "high": "1"}, "do not go together", "low is above high"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], message: str, why: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse_options(Band, options, "-r x")
    assert why in caught.value.why
    assert caught.value.where == "-r x"


def test_an_unknown_option_has_a_hint() -> None:
    with pytest.raises(UnknownChoiceError, match="unknown option 'hihg'") as caught:
        parse_options(Band, {"low": "0", "hihg": "1"}, "-r x")
    assert caught.value.next_step == "did you mean 'high'?"


@given(st.text())
def test_every_value_can_be_said(value: str) -> None:
    said = value.replace("%", "%25").replace("&", "%26")
    assert parse_scorer_spec(f"rule:x?a={said}", kinds=KINDS).options == {"a": value}


@given(st.text(st.sampled_from("%256ade+C")))
def test_only_two_marks_stand_for_something_else(value: str) -> None:
    (found,) = parse_scorer_spec(f"rule:x?a={value}", kinds=KINDS).options.values()
    first, *rest = re.split("%25", value)
    assert found == "%".join(one.replace("%26", "&") for one in (first, *rest))
