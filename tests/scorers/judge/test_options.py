from __future__ import annotations

from pathlib import Path

import pytest
from support.judges import settings_of

from bon.errors import BonError, SettingsError, UnknownChoiceError
from bon.scorers.judge import JudgeOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("mode=rating", "'yes-no', 'rubric' or 'pairwise'"),
        ("words=Yes", "two words"),
        ("words=Yes,Yes", "two words"),
        ("words=Yes,", "two words"),
        ("words=That is,It", "without spaces"),
        ("mode=rubric&words=Yes,No", "words does nothing with mode=rubric"),
        ("max_tokens=5", "max_tokens does nothing with mode=yes-no"),
        ("mode=rubric&max_pairs=5", "max_pairs does nothing with mode=rubric"),
        ("mode=rubric&scale=10-1", "lowest and the highest"),
        ("mode=rubric&scale=ten", "lowest and the highest"),
        ("mode=rubric&pattern=(", "not a regular expression"),
        ("mode=pairwise&pattern=A", "pattern needs max_tokens"),
        ("mode=pairwise&thinking=true", "thinking needs max_tokens"),
        ("mode=pairwise&max_tokens=9&words=A,B", "words does nothing with max_tokens"),
        ("mode=pairwise&ridge=0", "greater than 0"),
        ("mode=pairwise&max_pairs=0", "greater than or equal to 1"),
        ("model=x", "names a model on a server"),
        ("template=missing.jinja", "No such file"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(options: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(f"judge:some/model?{options}")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["dtype", "revision", "max_model_len", "kv_cache_gib"])
def test_a_server_runs_the_model_itself(name: str) -> None:
    value = {"dtype": "float16", "revision": "main"}.get(name, "8")
    with pytest.raises(SettingsError, match=f"{name}.*does nothing"):
        settings_of(f"judge:server:http://127.0.0.1:1?{name}={value}")


def test_an_unknown_option_has_a_near_one() -> None:
    with pytest.raises(UnknownChoiceError, match="did you mean 'template'"):
        settings_of("judge:some/model?templat=x")


@pytest.mark.parametrize(
    "options", ["?foo=1", "?mode=x", "?template=missing", "?dtype=float16", "?thinking=maybe"]
)
def test_a_password_is_never_shown(options: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(f"judge:server:http://bob:hunter2@127.0.0.1:9{options}")
    assert "hunter2" not in str(caught.value)
    assert "may not hold a user or a password" in caught.value.what


@pytest.mark.parametrize("spec", ["judge:", "judge:server:", "judge:server:ftp://x"])
def test_a_spec_without_a_judge(spec: str) -> None:
    with pytest.raises(BonError):
        settings_of(spec)


@pytest.mark.parametrize(
    ("values", "reads_text", "tokens"),
    [
        ({}, False, 1),
        ({"mode": "rubric"}, True, 512),
        ({"mode": "rubric", "max_tokens": 7}, True, 7),
        ({"mode": "pairwise"}, False, 1),
        ({"mode": "pairwise", "max_tokens": 7}, True, 7),
    ],
)
def test_how_long_an_answer_is(values: dict[str, str], reads_text: bool, tokens: int) -> None:
    options = JudgeOptions.model_validate(values)
    assert (options.reads_text, options.answer_tokens) == (reads_text, tokens)


@pytest.mark.parametrize(
    ("scale", "bounds"), [("1-10", (1, 10)), ("0-1.5", (0, 1.5)), ("-5--1", (-5, -1))]
)
def test_a_scale(scale: str, bounds: tuple[float, float]) -> None:
    assert JudgeOptions(mode="rubric", scale=scale).bounds == bounds


def test_a_template_may_lie_anywhere(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("{{ response }} {{ prompt }}")
    assert settings_of(f"judge:some/model?template={tmp_path / 't'}").options
