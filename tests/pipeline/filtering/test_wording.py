"""Filters on wording: patterns, refusals, languages, repetition, on responses and on prompts."""

from __future__ import annotations

import pytest

from bon.errors import SettingsError, UnknownChoiceError
from bon.pipeline.filtering.phrases import REFUSALS

SENTENCES = {
    "en": "Where can I find the next train station, please?",
    "de": "Wo finde ich bitte den nächsten Bahnhof in dieser Stadt?",
    "fr": "Où se trouve la gare la plus proche, s'il vous plaît ?",
    "es": "¿Dónde puedo encontrar la estación de tren más cercana, por favor?",
    "ja": "一番近い駅はどこにありますか、教えてください。",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_each_language_is_told_from_the_others(filtered, row, language):
    result = filtered([row(list(SENTENCES.values()))], f"language:allowed={language}")
    assert result.kept == [SENTENCES[language]]
    assert len(result.dropped) == 4


def test_several_languages_share_their_probability(filtered, row):
    rows = [row(list(SENTENCES.values()))]
    result = filtered(rows, {"name": "language", "allowed": ["en", "fr"], "min_prob": 0.9})
    assert result.kept == [SENTENCES["en"], SENTENCES["fr"]]
    assert result.details[0].startswith("it is en or fr with probability 0.0000")


def test_text_without_a_language_is_not_in_an_allowed_one(filtered, row):
    result = filtered([row(["42", ""])], "language:allowed=en")
    assert result.kept == []
    assert filtered([row(["42"])], "language:allowed=en,min_prob=0").kept == ["42"]


def test_the_prompts_language(filtered, row):
    rows = [row(["a", "b"], prompt=SENTENCES["de"]), row(["c"], prompt=SENTENCES["en"])]
    assert filtered(rows, "language:allowed=de,on=prompt").kept == ["a", "b"]


def test_unknown_language(filtered, row):
    with pytest.raises(UnknownChoiceError, match="unknown language 'english'"):
        filtered([row(["a"])], "language:allowed=english")


def test_refusals_in_any_case_and_with_either_apostrophe(filtered, row):
    refusing = ["I’m sorry, but I can’t help with that.", "AS AN AI LANGUAGE MODEL, I do not."]
    result = filtered([row([*refusing, "The answer is 4."])], "refusal")
    assert result.kept == ["The answer is 4."]
    assert result.details[0] == 'it says "i can\'t help"'  # the first of the list that is there


def test_refusals_are_looked_for_near_the_start(filtered, row):
    late = "x" * 200 + " I cannot help"
    assert filtered([row([late])], "refusal").kept == [late]
    assert filtered([row([late])], "refusal:first_chars=214").kept == []


def test_own_phrases(filtered, row, tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("No Comment (sorry)\n\n")
    rows = [row(["no comment (sorry).", "I cannot help", "It depends."])]
    table = {"name": "refusal", "phrases_file": str(path), "phrases": ["Depends"]}
    assert filtered(rows, table).kept == []
    assert filtered(rows, {**table, "builtin": False}).kept == ["I cannot help"]
    path.unlink()
    with pytest.raises(SettingsError, match="cannot read the phrases"):
        filtered(rows, table)


def test_builtin_phrases_are_written_as_they_are_looked_for():
    assert all(phrase == phrase.lower().strip() and "’" not in phrase for phrase in REFUSALS)
    assert len(set(REFUSALS)) == len(REFUSALS)


def test_regex_keeps_or_drops(filtered, row):
    rows = [row(["#### 12", "twelve"], prompt="Sum?")]
    assert filtered(rows, r"regex:pattern=####\s+\d").kept == ["#### 12"]
    assert filtered(rows, r"regex:pattern=####\s+\d,keep=false").kept == ["twelve"]
    assert filtered(rows, "regex:pattern=^Sum,on=prompt").kept == ["#### 12", "twelve"]
    # the system message is not the user's prompt
    assert filtered(rows, "regex:pattern=brief,on=prompt").kept == []


def test_either_response_of_a_pair_may_fail(filtered, row):
    rows = [row(["ok", "ok"]), row(["ok", "no"]), row(["no", "ok"])]
    result = filtered(rows, "regex:pattern=no,keep=false", kind="pairs")
    assert result.kept == ["ok|ok"]
    assert result.report["drops"] == {"regex": 2}


def test_repetition_says_which_rule(filtered, row):
    looping = "\n".join(["again and again"] * 10)
    varied = " ".join(f"word{i}" for i in range(30))
    result = filtered([row([looping, varied])], "repetition")
    assert result.kept == [varied]
    assert result.details == ["duplicate_lines is 0.9, above 0.3"]
