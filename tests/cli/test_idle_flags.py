"""Flags that no scorer of a command reads are refused, by a dry run as by the run itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import REWARD
from support.datasets import write_lines
from support.tiny_prms import save_token_classifier
from typer.testing import CliRunner

import bon.cli.build_dpo
import bon.cli.filter
import bon.cli.score
import bon.cli.select  # noqa: F401  (registers the command)
from bon.cli.app import app

MODEL = ("-r", str(REWARD))
RULE = ("-r", "rule:exact")
HUB = ("-r", "org/model")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prompts, `ask.jsonl`, and with responses, `in.jsonl`."""
    write_lines(tmp_path / "ask.jsonl", [{"prompt": "hi"}])
    write_lines(tmp_path / "in.jsonl", [{"prompt": "hi", "responses": ["a", "b"], "answer": "a"}])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "--dry-run"])
    return done.exit_code, " ".join(done.stderr.split())


MODEL_FLAGS = {
    "--reward-revision": "v1", "--reward-dtype": "float32", "--reward-max-length": "9",
    "--reward-truncation-side": "right", "--reward-template": "x.jinja",
    "--reward-batch-tokens": "9", "--reward-device": "cpu", "--scorer-engine": "vllm",
    "--step-separator": "|", "--step-aggregate": "mean",
}  # fmt: skip
RULE_FLAGS = {"--rule-answer-column": "x", "--rule-timeout-s": "2"}
READS_BOTH = ("-r", "rule:math")


@pytest.mark.parametrize(("flag", "value"), MODEL_FLAGS.items())
def test_flags_of_models_need_a_model(flag: str, value: str) -> None:
    code, said = dry("score", "in.jsonl", *RULE, flag, value)
    assert code == 2
    assert f"{flag} does nothing here" in said
    assert "none of the scorers is a reward model" in said
    assert dry("score", "in.jsonl", *RULE, *HUB, flag, value)[0] == 0


@pytest.mark.parametrize(("flag", "value"), RULE_FLAGS.items())
def test_flags_of_rules_need_a_rule(flag: str, value: str) -> None:
    code, said = dry("score", "in.jsonl", *MODEL, flag, value)
    assert code == 2
    assert f"{flag} does nothing here" in said
    assert "none of the scorers is a rule" in said
    assert "rule:math" in said
    assert dry("score", "in.jsonl", *MODEL, *READS_BOTH, flag, value)[0] == 0


ANSWER, TIMEOUT = RULE_FLAGS.items()


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        ("rule:math", [ANSWER, TIMEOUT]),
        ("rule:exact", [ANSWER]),
        ("rule:regex?pattern=a", [TIMEOUT]),
        ("rule:regex?pattern=a&against=answer", [TIMEOUT]),
        ("rule:format?name=boxed", [TIMEOUT]),
        ("rule:json", [TIMEOUT]),
        ("rule:length?max=5", []),
        ("rule:repetition", []),
        ("rule:own.py:ones", []),
    ],
)
def test_flags_of_rules_need_a_rule_that_reads_them(
    here: Path, spec: str, read: list[tuple[str, str]]
) -> None:
    (here / "own.py").write_text("def ones(prompts, responses, columns):\n    return responses\n")
    for flag in (ANSWER, TIMEOUT):
        code, said = dry("score", "in.jsonl", "-r", spec, *MODEL, *flag)
        assert code == (0 if flag in read else 2)
        if flag not in read:
            assert f"{flag[0]} does nothing here" in said
            assert f"{spec.partition('?')[0]} does not read it" in said


def test_the_error_names_rules_that_read_the_flag() -> None:
    _, said = dry("score", "in.jsonl", *RULE, "-r", "rule:repetition", *TIMEOUT)
    assert "rule:exact and rule:repetition do not read it" in said
    assert "give -r rule:math, rule:regex, rule:format or rule:json" in said
    _, said = dry("score", "in.jsonl", "-r", "rule:json", *ANSWER)
    assert "give -r rule:exact or rule:math" in said
    assert dry("score", "in.jsonl", *RULE, "-r", "rule:json", *TIMEOUT)[0] == 0


def test_flags_of_servers_need_a_judge_behind_one() -> None:
    flag = ("--server-timeout-s", "2")
    code, said = dry("score", "in.jsonl", "-r", "judge:org/model", *flag)
    assert code == 2
    assert "judge:org/model does not read it" in said
    assert "judge:server:URL" in said
    assert dry("score", "in.jsonl", "-r", "judge:server:http://127.0.0.1:9", *flag)[0] == 0


def test_a_folder_has_no_revision() -> None:
    code, said = dry("score", "in.jsonl", *MODEL, "--reward-revision", "v1")
    assert code == 2
    assert "--reward-revision does nothing here" in said
    assert "a folder has no revisions" in said
    assert dry("score", "in.jsonl", *MODEL, *HUB, "--reward-revision", "v1")[0] == 0


def test_steps_are_looked_for_in_a_folder(here: Path) -> None:
    save_token_classifier(here / "prm")
    flag = ("--step-aggregate", "mean")
    code, said = dry("score", "in.jsonl", *MODEL, *flag)
    assert code == 2
    assert "none of the scorers is a process reward model" in said
    assert dry("score", "in.jsonl", *MODEL, "-r", "./prm", *flag)[0] == 0
    assert dry("score", "in.jsonl", *MODEL, *HUB, *flag)[0] == 0  # only the run can tell


@pytest.mark.parametrize(
    "command",
    [
        ("score", "in.jsonl", *RULE),
        ("select", "ask.jsonl", *RULE),
        ("build-dpo", "in.jsonl"),
        ("build-dpo", "ask.jsonl", *RULE),
        ("filter", "in.jsonl", "--dedup", "exact", "--source-kind", "responses"),
        ("filter", "ask.jsonl", *RULE),
    ],
)
def test_every_command_that_scores_refuses_them(command: tuple[str, ...]) -> None:
    assert dry(*command)[0] == 0
    code, said = dry(*command, "--reward-dtype", "float32")
    assert code == 2
    assert "--reward-dtype does nothing here" in said


def test_a_rule_that_the_command_asks_reads_its_flags() -> None:
    flag = ("--rule-answer-column", "answer")
    assert dry("build-dpo", "in.jsonl", "--rule", "exact", *flag)[0] == 0
    assert dry("build-dpo", "ask.jsonl", *MODEL, "--strategy", "verified", *flag)[0] == 0
    assert dry("build-dpo", "ask.jsonl", *MODEL, *flag)[0] == 2
    assert dry("build-dpo", "in.jsonl", "--rule", "math", *flag, *TIMEOUT)[0] == 0
    with_length = ("-r", "rule:length?max=9", "--rule", "math", *flag, *TIMEOUT)
    assert dry("build-dpo", "in.jsonl", *with_length)[0] == 0


def test_what_stands_in_a_file_may_be_meant_for_others(here: Path) -> None:
    (here / "bon.toml").write_text('reward_dtype = "float32"\nrule_timeout_s = 2\n')
    for scorer in (MODEL, RULE):
        assert dry("score", "in.jsonl", *scorer, "--config", "bon.toml")[0] == 0


def test_the_run_refuses_as_the_dry_run_does(here: Path) -> None:
    command = ["score", "in.jsonl", *RULE, "--reward-dtype", "float32"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert (done.exit_code, " ".join(done.stderr.split())) == dry(*command)
    assert not (here / "in.pool").exists()
