from __future__ import annotations

from typing import Any

import pytest

from bon.report.inspection import show

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e"
SHOWN = "\\x1b[2J\\x1b]0;owned\\x07\\u202e"


def shown(facts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    show(facts)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "facts",
    [
        {"prompt_id": EVIL},
        {"columns": {"answer": EVIL}},
        {"columns": {EVIL: "x"}},
        {"parts": {"prompts": {"done": EVIL}}},
        {"parts": {"prompts": {EVIL: 1}}},
        {"messages": [{"role": "user", "content": EVIL}]},
        {"candidates": [{"candidate": 0, "rule": 1.0, "response": EVIL}]},
        {"drops": [EVIL]},
        {"rows": [{"prompt": EVIL, "reward": 1.0}]},
        {"rows": [{"prompt": [{"role": "user", "content": EVIL}]}]},
        {"rows": [{"text": EVIL}]},
        {"rows": [{EVIL: "x"}]},
    ],
)
def test_no_text_of_a_pool_or_a_file_controls_the_terminal(
    facts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(facts, capsys)
    assert SHOWN in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_a_cell_keeps_its_lines_and_a_line_of_facts_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = shown({"rows": [{"response": "one\ntwo"}]}, capsys)
    assert [line.strip(" │") for line in cells.splitlines() if "│" in line] == ["one", "two"]
    line = shown({"candidates": [{"candidate": 0, "response": "one\nreward: 9"}]}, capsys)
    assert line == "candidates\n  candidate 0, response one\\nreward: 9\n"


def test_facts_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "file": "a[b].parquet",
        "mean_reward": 0.5,
        "columns": {"prompt": "string"},
        "drops": [],
    }
    assert shown(facts, capsys) == (
        "file: a[b].parquet\nmean_reward: 0.5000\ncolumns\n  prompt: string\ndrops: none\n"
    )


def test_a_long_text_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown({"prompt_id": "x" * 201}, capsys) == f"prompt_id: {'x' * 199}…\n"
    assert shown({"prompt_id": "x" * 200}, capsys) == f"prompt_id: {'x' * 200}\n"
    assert shown({"prompt_id": "\x1b" * 300}, capsys) == "prompt_id: " + "\\x1b" * 199 + "…\n"


def test_a_conversation_is_told_by_turns(capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3"}]
    out = shown({"rows": [{"chosen": turns, "other": 1}]}, capsys)
    assert [line.strip(" │") for line in out.splitlines() if "│" in line] == [
        "user: 1 + 2?",
        "assistant: 3",
    ]
