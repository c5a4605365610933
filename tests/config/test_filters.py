"""How a filter is said, on the command line and in a table, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bon.config import FilterCommandSettings, resolve
from bon.config.filters import (
    FILTERS,
    Agreement,
    Diversity,
    ExactDedup,
    FinishReason,
    Length,
    Margin,
    NearDedup,
    Refusal,
    Regex,
    Reward,
    parse_filter,
)
from bon.errors import SettingsError, UnknownChoiceError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("length:min_chars=20,max_tokens=400", Length(min_chars=20, max_tokens=400)),
        ("length: min-chars = 20 , max_words = 3", Length(min_chars=20, max_words=3)),
        ("finish-reason", FinishReason()),
        (
            'finish_reason:keep=["stop","length"],keep_unknown=false',
            FinishReason(keep=("stop", "length"), keep_unknown=False),
        ),
        ("finish_reason:keep=length", FinishReason(keep=("length",))),
        ("reward:min=-0.5,top_k=2,by=prompt", Reward(min=-0.5, top_k=2, by="prompt")),
        (r"regex:pattern=\d+,keep=false", Regex(pattern=r"\d+", keep=False)),
        ("regex:pattern=[ab],keep=false", Regex(pattern="[ab]", keep=False)),
        ("regex:pattern=[1],keep=false", Regex(pattern="[1]", keep=False)),
        ("regex:pattern=42", Regex(pattern="42")),
        ("regex:pattern=a=b", Regex(pattern="a=b")),
        (r'regex:pattern="a,\\d \"b\"",on=prompt', Regex(pattern=r'a,\d "b"', on="prompt")),
        ("margin:min=10%", Margin(min="10%")),
        ("margin:min=0.5", Margin(min="0.5")),
        ("refusal:phrases=42,phrases_file=7", Refusal(phrases=("42",), phrases_file=Path("7"))),
        ("near_dedup:bands=14,rows=8", NearDedup(bands=14, rows=8)),
        ("exact_dedup:", ExactDedup()),
    ],
)
def test_a_filter_in_one_text(spec, expected):
    assert parse_filter(spec) == expected


def test_filters_in_a_config_file_keep_their_order():
    text = """
        [[filter]]
        name = "length"
        min-chars = 20

        [[filter]]
        name = "margin"
        min = -0.25

        [[filter]]
        name = "regex"
        pattern = "a,b"
    """
    tables = tomllib.loads(text)["filter"]
    assert [parse_filter(table) for table in tables] == [
        Length(min_chars=20),
        Margin(min="-0.25"),
        Regex(pattern="a,b"),
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lenght:min_chars=1", "unknown filter 'lenght'.*did you mean 'length'"),
        ("length:min_char=1", "unknown key 'min_char'.*did you mean 'min_chars'"),
        ({"name": "length", "min_char": 1}, "unknown key 'min_char'"),
        ({"min_chars": 1}, "a filter has no name"),
        ("length:20", "'20' is not KEY=VALUE"),
        ("length:min_chars=few", "bad value for min_chars of filter length: 'few'"),
        ("length:min_chars=-1", "bad value for min_chars"),
        ("length", "give at least one of min_chars"),
        ("reward:by=prompt", "give at least one of min, max"),
        ("reward:min=1,by=prompt", "`by` needs min_quantile or top_k"),
        ("reward:min=NaN", "bad value for min of filter reward"),
        ("regex", "the filter regex needs pattern"),
        ("regex:pattern=(", "not a regular expression"),
        ("margin:min=much", "a share such as 10%"),
        ("margin:min=101%", "a share such as 10%"),
        ("margin:min=inf", "a share such as 10%"),
        ("margin:min=true", "a share such as 10%"),
        ("near_dedup:bands=4", "give both of bands and rows"),
        ("near_dedup:bands=20,rows=20", "bands × rows is 400"),
        ("refusal:builtin=false", "needs phrases or phrases_file"),
        ('refusal:phrases=["a",""]', "an empty phrase"),
        ("language:allowed=[]", "bad value for allowed"),
        ("agreement:min_prob=0.4", "bad value for min_prob"),
        ("decontaminate", "needs files"),
        ("length:min_chars=10,max_chars=5", "min_chars is 10, above max_chars, 5"),
        ("length:min_words=2,max_words=1", "min_words is 2, above max_words, 1"),
        ("length:min_tokens=2,max_tokens=1", "min_tokens is 2, above max_tokens, 1"),
        ("reward:min=0.5,max=-1", "min is 0.5, above max, -1"),
        ("difficulty:min=0.6,max=0.4", "min is 0.6, above max, 0.4"),
        ("reward:min=1,min=2", "the key 'min' of a filter is there twice.*first '1', then '2'"),
        ("length:min-chars=1,min_chars=1", "the key 'min_chars' of a filter is there twice"),
        ({"name": "length", "min-chars": 1, "min_chars": 2}, "'min_chars' of a filter is there tw"),
        ("reward:top_k=true", "bad value for top_k of filter reward: True.*give a number, not tr"),
        ("reward:min=false", "give a number, not false"),
        ({"name": "language", "allowed": "en", "min_prob": True}, "give a number, not true"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_advice(spec, message):
    with pytest.raises(SettingsError, match=f"(?s){message}") as caught:
        parse_filter(spec)
    assert caught.value.next_step
    assert isinstance(caught.value, UnknownChoiceError) == ("unknown" in message)


@pytest.mark.parametrize(
    "spec", ["length:min_chars=5,max_chars=5", "reward:min=1,max=1", "difficulty:min=1"]
)
def test_bounds_may_meet(spec):
    assert parse_filter(spec)


@pytest.mark.parametrize(
    ("flag", "model", "key"),
    [("min_agreement_prob", Agreement, "min_prob"), ("diversity", Diversity, "threshold"),
     ("min_reward", Reward, "min")],
)  # fmt: skip
@given(value=st.floats(-0.5, 1.5) | st.sampled_from([0.0, 0.5, 1.0]))
def test_a_short_flag_takes_what_its_filter_takes_and_says_its_own_name(flag, model, key, value):
    def refusal(act):
        try:
            act()
        except SettingsError as error:
            return error.what
        return None

    by_filter = refusal(lambda: parse_filter({"name": model.name, key: value}))
    by_flag = refusal(lambda: resolve(FilterCommandSettings, {}, {flag: value}))
    assert (by_flag is None) == (by_filter is None)
    assert by_flag is None or f"--{flag.replace('_', '-')}" in by_flag


def test_every_filter_is_described_key_by_key_and_frozen():
    for name, model in FILTERS.items():
        assert model.name == name
        assert model.__doc__
        assert all(field.description for field in model.model_fields.values())
        assert model.kinds <= {"candidates", "pairs"}
    with pytest.raises(ValidationError):
        Length(min_chars=1).min_chars = 2


def test_a_filter_for_the_report_says_every_key():
    said = parse_filter("exact_dedup:on=prompt").as_json()
    assert said == {
        "name": "exact_dedup",
        "on": "prompt",
        "scope": "all",
        "ignore_case": False,
        "scorer": None,
    }
    assert json.dumps(parse_filter("refusal:phrases_file=a.txt").as_json())


@given(st.text(min_size=1))
def test_any_text_can_be_a_value_when_quoted(text):
    spec = f"refusal:first_chars=9,phrases=[{json.dumps('x' + text)}],builtin=false"
    expected = Refusal(first_chars=9, phrases=("x" + text,), builtin=False)
    assert parse_filter(spec) == expected


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_a_settings_error(text):
    for spec in (text, f"length:{text}", f"finish_reason:keep={text}"):
        try:
            parse_filter(spec)
        except SettingsError as error:
            assert error.what
