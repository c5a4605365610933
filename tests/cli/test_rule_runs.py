"""Rules as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import bon, bon_json
from support.datasets import write_lines
from support.fakes import Run, input_rows
from typer.testing import CliRunner

from bon.cli import score as _score  # noqa: F401  (registers the command)
from bon.cli.app import app
from bon.pool.pool import Pool, scores_kind

FUNCTION = """
print("loading")

def longer(prompts, responses, columns):
    print("working")
    if any("bad" in one for one in responses):
        raise ValueError("bad words")
    return [len(one) - columns[0]["length"] for one in responses]
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with responses, `in.jsonl`, and a function, `my.py`."""
    rows = [
        {"prompt": "one", "responses": ["a", "so bad", '{"a": 1}'], "answer": "1", "length": 2},
        {"prompt": "two", "responses": ["A: 2", "bb bb bb"], "answer": "2", "length": 2},
    ]
    write_lines(tmp_path / "in.jsonl", rows)
    (tmp_path / "my.py").write_text(FUNCTION)
    return tmp_path


def scores(pool: Path, name: str) -> list[float | None]:
    values: list[float | None] = Pool.open(pool).read(scores_kind(name), 0)["score"].to_pylist()
    return values


def test_rules_beside_each_other(here: Path) -> None:
    specs = (
        "rule:exact", "rule:length?min=2&max=6&soft=4", "rule:repetition?n=1",
        "rule:regex?pattern=A: (.*)&against=answer", "rule:json", "mine=rule:my.py:longer",
    )  # fmt: skip
    shown = bon_json("score", "in.jsonl", *(f"-r{spec}" for spec in specs), cwd=here)
    assert shown["candidate_drops"] == {"function_failed": 1}
    (drop,) = shown["drop_examples"]
    assert (drop["candidate"], drop["detail"]) == (1, "ValueError: bad words (line 7)")
    pool = here / "in.pool"
    assert scores(pool, "rule-exact") == [0.0, 0.0, 1.0, 1.0, 0.0]
    assert scores(pool, "rule-length") == [0.75, 1.0, 0.5, 1.0, 0.5]
    assert scores(pool, "rule-repetition") == pytest.approx([1.0, 1.0, 1.0, 1.0, 1 / 3])
    assert scores(pool, "rule-regex") == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert scores(pool, "rule-json") == [0.0, 0.0, 1.0, 0.0, 0.0]
    assert scores(pool, "mine") == [-1.0, None, 6.0, 2.0, 6.0]
    assert "ValueError: bad words" in (pool / ".bon" / "worker.log").read_text()


def test_a_function_that_changed_is_another_scorer(here: Path) -> None:
    command = ("score", "in.jsonl", "-r", "mine=rule:my.py:longer")
    bon_json(*command, cwd=here)
    stages = bon_json(*command, cwd=here)["stages"]
    assert [one["num_parts_done"] for one in stages] == [0]
    (here / "elsewhere").mkdir()
    (here / "my.py").rename(here / "elsewhere" / "yours.py")
    bon_json(*command[:-1], "mine=rule:elsewhere/yours.py:longer", cwd=here)
    (here / "my.py").write_text(FUNCTION.replace("len(one) -", "len(one) +"))
    done = bon(*command, cwd=here)
    assert done.returncode == 2
    assert "digest" in done.stderr
    assert "-r NEWNAME=SPEC" in done.stderr


def test_scores_of_unknown_cost_outlive_another_input_and_those_of_rules_do_not(
    here: Path,
) -> None:
    bon_json("score", "in.jsonl", "-r", "rule:json", cwd=here)
    rows: list[dict[str, Any]] = [{"prompt": "new", "responses": ["1", "b"], "length": 0}]
    write_lines(here / "in.jsonl", rows)
    bon_json("score", "in.jsonl", "-r", "rule:json", "-r", "mine=rule:my.py:longer", cwd=here)
    assert scores(here / "in.pool", "rule-json") == [1.0, 0.0]
    write_lines(here / "in.jsonl", [{"prompt": "newer", "responses": ["1"], "length": 0}])
    done = bon("score", "in.jsonl", "-r", "mine=rule:my.py:longer", cwd=here)
    assert done.returncode == 2
    assert scores(here / "in.pool", "mine") == [1.0, 1.0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rule:my.py:larger", "has no function 'larger'"),
        ("rule:broken.py:f", "SyntaxError"),
        ("rule:regex?pattern=(", "not a regular expression"),
        ("rule:length?max=3&sft=1", "did you mean 'soft'?"),
        ("rule:lenght?max=3", "there are exact, math, regex"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str
) -> None:
    monkeypatch.chdir(here)
    (here / "broken.py").write_text("def f(:\n")
    for flags in (("--dry-run",), ()):
        done = CliRunner().invoke(app, ["score", "in.jsonl", "-r", spec, *flags])
        assert done.exit_code == 2
        assert said in " ".join(done.stderr.split())
    assert not (here / "in.pool").exists()


def test_tokens_are_those_the_generator_counted(tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path / "in.pool")
    pool = Pool.open(tmp_path / "in.pool")
    counts = pool.read("candidates", 0)["num_tokens"].to_pylist()
    limit = sorted(counts)[len(counts) // 2]
    bon_json("score", "in.pool", "-r", f"rule:length?max={limit}&unit=tokens", cwd=tmp_path)
    expected = [float(count <= limit) for count in counts]
    assert len(set(expected)) == 2
    assert scores(tmp_path / "in.pool", "rule-length") == expected
