from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.judges import group

from bon.errors import SettingsError
from bon.records import CandidateGroup, Drop
from bon.scorers.judge import JudgeOptions, Question, read_question


def question(folder: Path, source: str, **values: Any) -> Question:
    (folder / "own.jinja").write_text(source)
    return read_question(JudgeOptions(template=folder / "own.jinja", **values))


@pytest.mark.parametrize("mode", ["yes-no", "rubric", "pairwise"])
def test_bons_own_templates_hold_what_is_judged(mode: Any) -> None:
    asked = read_question(JudgeOptions(mode=mode))
    given = {"response": "RESPONSE"}
    if mode == "pairwise":
        given = {"response_a": "FIRST", "response_b": "SECOND"}
    text = asked.fill(group(ask="PROMPT"), **given)
    assert isinstance(text, str)
    for part in ("PROMPT", *given.values()):
        assert text.count(part) == 1
    # what all candidates share comes first: it is found in the prefix cache
    assert text.index("PROMPT") < min(text.index(part) for part in given.values())
    expected = {"yes-no": "Yes or No", "rubric": "from 1 to 10", "pairwise": "A or B"}
    assert expected[mode] in text


def test_a_pairwise_judge_that_answers_in_text_is_asked_for_a_verdict() -> None:
    asked = read_question(JudgeOptions(mode="pairwise", max_tokens=100))
    text = asked.fill(group(), response_a="1", response_b="2")
    assert isinstance(text, str)
    assert text.endswith("Verdict: A\nVerdict: B\nVerdict: tie")
    assert asked.words is None


def test_all_turns_of_a_conversation_are_shown() -> None:
    turns = [("system", "Short!"), ("user", "One"), ("assistant", "Two"), ("user", "Three")]
    messages = tuple({"role": role, "content": content} for role, content in turns)
    text = read_question(JudgeOptions()).fill(
        CandidateGroup("p", messages, ()),  # type: ignore[arg-type]
        response="Four",
    )
    assert isinstance(text, str)
    assert "system: Short!\nuser: One\nassistant: Two\nuser: Three\n" in text


def test_every_placeholder(tmp_path: Path) -> None:
    asked = question(
        tmp_path,
        "{{ prompt_id }}|{{ prompt }}|{{ messages[0].role }}|{{ response }}|{{ answer }}|"
        "{{ columns['the key'] }}|{{ lowest }}-{{ highest }}",
        mode="rubric",
        scale="0-1.5",
    )
    one = group(ask="Q", prompt_id="7", answer=3, **{"the key": [1]}, response="not this")
    assert asked.fill(one, response="R") == "7|Q|user|R|3|[1]|0-1.5"


def test_what_a_row_has_not_is_a_drop(tmp_path: Path) -> None:
    asked = question(tmp_path, "{{ response }} {{ answer }} {{ answer.strip() }}")
    for one in (group(), group(answer=3)):
        found = asked.fill(one, response="R")
        assert isinstance(found, Drop)
        assert found.reason == "template_error"
    assert asked.fill(group(answer="3 "), response="R") == "R 3  3"


def test_responses_are_text_not_templates(tmp_path: Path) -> None:
    asked = question(tmp_path, "{{ response }}")
    assert asked.fill(group(), response="{{ 1 + 1 }} {% x <b>") == "{{ 1 + 1 }} {% x <b>"


@pytest.mark.parametrize(
    ("mode", "source", "words"),
    [
        ("yes-no", "{{ prompt }}", "does not use {{ response }}"),
        ("yes-no", "{{ response_a }} {{ response_b }}", "does not use {{ response }}"),
        ("rubric", "{# response #}", "does not use {{ response }}"),
        ("rubric", "{% set response = 1 %}{{ response }}", "does not use {{ response }}"),
        ("pairwise", "{{ response_a }}", "does not use {{ response_b }}"),
        ("pairwise", "{{ response }}", "does not use {{ response_a }}"),
        ("yes-no", "{{ response }", "not valid Jinja"),
        ("yes-no", "a\n{% if response %}", "line 2"),
        ("yes-no", "{% include 'x' %}{{ response }}", "reads other templates"),
    ],
)
def test_a_template_that_cannot_be_is_refused(
    tmp_path: Path, mode: str, source: str, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        question(tmp_path, source, mode=mode)
    assert words in str(caught.value)
    assert "own.jinja" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("{{ response }}", {}, ("Yes", "No")),
        ("{{ response }} Answer yes or no. (YES? now)", {}, ("YES", "no")),
        ("{{ response }} Say YES or NO", {"words": "y, n"}, ("y", "n")),
        ("{{ response }} yes no {{ words[0] }}", {}, ("Yes", "No")),
    ],
)
def test_the_words_are_in_the_templates_case(
    tmp_path: Path, source: str, options: dict[str, str], words: tuple[str, str]
) -> None:
    assert question(tmp_path, source, **options).words == words


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    asked = question(tmp_path, "{{ response.__class__.__mro__ }}")
    assert isinstance(asked.fill(group(), response="R"), Drop)
