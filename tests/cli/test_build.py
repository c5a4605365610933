from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import REWARD, bon, bon_json
from support.fakes import Run, input_rows
from support.tiny_prms import save_token_classifier

from bon.cli.build import scorer_settings, scoring_plans
from bon.config import ScoreSettings
from bon.errors import UnknownChoiceError
from bon.pool.pool import Pool, scores_kind
from bon.scorers.encoding import ENCODER_VERSION
from bon.scorers.reward_model import RewardModelScorer
from bon.scorers.rules import RULES, RuleScorer


def test_a_rule_is_a_scorer_like_any_other() -> None:
    settings = ScoreSettings(
        reward=("rule:exact", f"helpful={REWARD}"),
        rule_answer_column="solution",
        rule_timeout_s=2.0,
        reward_dtype="float32",
    )
    rule, model = scoring_plans(settings)
    assert isinstance(rule.scorer, RuleScorer)
    assert isinstance(rule.scorer.rule, RULES["exact"])
    assert rule.name == "rule-exact"
    assert rule.fingerprint == {
        "name": "rule-exact", "spec": "rule:exact", "answer_column": "solution",
        "rule_version": RULES["exact"].version,
    }  # fmt: skip
    assert model.name == "helpful"
    assert model.fingerprint["dtype"] == "float32"
    assert isinstance(model.reference, RewardModelScorer)
    assert model.reference.alone
    assert model.reference.settings.dtype == "float32"
    assert rule.reference is None
    assert not {"answer_column", "rule_timeout_s", "rule_version"} & model.fingerprint.keys()


def fingerprint(folder: Path, **settings: Any) -> dict[str, Any]:
    (plan,) = scoring_plans(ScoreSettings(reward=(f"rm={folder}",), **settings))
    return plan.fingerprint


def test_steps_decide_the_scores_of_process_reward_models_alone(tmp_path: Path) -> None:
    save_token_classifier(tmp_path)
    said: dict[str, Any] = {"step_separator": "|", "step_aggregate": "mean"}
    assert fingerprint(tmp_path, **said) == fingerprint(tmp_path) | said
    assert fingerprint(REWARD, **said) == fingerprint(REWARD)
    assert not said.keys() & fingerprint(REWARD).keys()


def test_the_separator_is_known_as_it_is_understood(tmp_path: Path) -> None:
    save_token_classifier(tmp_path)
    assert fingerprint(tmp_path)["step_separator"] == "\n"
    for typed in ("\\n", "\n"):
        assert fingerprint(tmp_path, step_separator=typed) == fingerprint(tmp_path)
    assert fingerprint(tmp_path, step_separator="\\n\\n")["step_separator"] == "\n\n"


def test_how_conversations_are_read_is_part_of_what_the_scores_are(tmp_path: Path) -> None:
    save_token_classifier(tmp_path)
    assert (fingerprint(tmp_path)["family_version"], fingerprint(REWARD)["family_version"]) == (
        2,
        1,
    )
    for folder in (tmp_path, REWARD):
        assert fingerprint(folder)["encoder_version"] == ENCODER_VERSION


@pytest.mark.parametrize("flag", ["--step-aggregate=mean", "--step-separator=|"])
def test_flags_of_steps_are_refused_where_no_scorer_reads_steps(flag: str, tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path / "in.pool")
    spec = ("-r", "rule:exact", "-r", str(REWARD))
    done = bon("score", "in.pool", *spec, flag, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{flag.partition('=')[0]} does nothing" in done.stderr
    assert not Pool.open(tmp_path / "in.pool").manifest.scorers


def test_flags_of_steps_are_taken_where_one_scorer_reads_steps(tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path / "in.pool")
    save_token_classifier(tmp_path / "prm")
    spec = ("-r", "rule:exact", "-r", "./prm")
    shown = bon_json("score", "in.pool", *spec, "--step-aggregate", "mean", cwd=tmp_path)
    assert shown["drops"] == {}
    assert bon_json("score", "in.pool", *spec, "--step-aggregate", "mean", cwd=tmp_path)
    done = bon("score", "in.pool", *spec, cwd=tmp_path)
    assert done.returncode == 2
    assert "step_aggregate" in done.stderr


def test_a_rule_may_have_a_name_of_its_own() -> None:
    (one,) = scorer_settings(ScoreSettings(reward=("right=rule:math",), rule_timeout_s=2.0))
    assert (one.name, one.spec, one.rule_timeout_s) == ("right", "rule:math", 2.0)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("rule:maths", "did you mean 'math'?"), ("rule:", "known: "), ("r=rule:xyz", "known: ")],
)
def test_an_unknown_rule_is_a_usage_error(spec: str, hint: str) -> None:
    with pytest.raises(UnknownChoiceError, match="there is no rule") as caught:
        scorer_settings(ScoreSettings(reward=(spec,)))
    assert caught.value.next_step.startswith(hint)
    assert caught.value.exit_code == 2


def test_score_a_pool_with_rules(tmp_path: Path) -> None:
    run = Run(input_rows(6))
    run.candidates(tmp_path / "in.pool")

    shown = bon_json("score", "in.pool", "-r", "rule:math", "-r", "rule:exact", cwd=tmp_path)

    assert shown["drops"] == {}
    pool = Pool.open(tmp_path / "in.pool")
    parts = pool.layout.numbers("candidates")
    for part in parts:
        answers = {prompt.prompt_id: prompt.extra["answer"] for prompt in pool.prompts(part)}
        candidates = pool.read("candidates", part).to_pylist()
        # a fake candidate ends with its answer, one digit
        right = [float(row["response"][-1] == str(answers[row["prompt_id"]])) for row in candidates]
        for name in ("rule-math", "rule-exact"):
            assert pool.read(scores_kind(name), part)["score"].to_pylist() == right
    assert len(parts) == 2


def test_a_pool_without_answers_loses_no_candidate_and_says_why(tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path / "in.pool")
    flags = ("-r", "rule:exact", "--rule-answer-column", "solution")

    bon("score", "in.pool", *flags, cwd=tmp_path)

    pool = Pool.open(tmp_path / "in.pool")
    kind = scores_kind("rule-exact")
    assert pool.read(kind, 0)["score"].to_pylist() == [None] * 6
    assert {drop.reason for drop in pool.drops(kind, 0)} == {"no_reference"}
    done = bon("score", "in.pool", "-r", "rule:exact", cwd=tmp_path)
    assert done.returncode == 2
    assert "answer_column" in done.stderr
