"""TRL's GRPOTrainer takes steps with our reward functions, and logs what they give."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from support.commands import GENERATOR, PROMPTS, REWARD, ROOT
from support.datasets import read_lines, user, write_lines
from support.scoring import flat, largest_difference, reward_scorer

from bon import load_scorer
from bon.records import CandidateGroup

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # theirs are not ours to mend
]
ROWS = [row for row in read_lines(PROMPTS) if row["family"] == "sorting"][:4]


def rows_for_trl(*, as_messages: bool) -> list[dict[str, Any]]:
    return [
        {"answer": row["answer"], "prompt": [user(row["prompt"])] if as_messages else row["prompt"]}
        for row in ROWS
    ]


class Witness:
    """A second reward function, which sees what ours is called with."""

    __name__ = "witness"

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def __call__(self, **call: Any) -> list[float]:
        self.seen = call
        return [0.0] * len(call["prompts"])


def one_step(folder: Path, function: Any, *, as_messages: bool) -> tuple[dict[str, Any], Any]:
    """Train one step; return what was logged and what the reward functions were called with."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    witness = Witness()
    trainer = GRPOTrainer(
        model=str(GENERATOR),
        reward_funcs=[function, witness],
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=1,
            per_device_train_batch_size=16,
            num_generations=4,
            max_completion_length=16,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            seed=3,
        ),
        train_dataset=Dataset.from_list(rows_for_trl(as_messages=as_messages)),
    )
    assert trainer.train().global_step == 1
    return next(entry for entry in trainer.state.log_history if "reward" in entry), witness.seen


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else value[-1]["content"]


@pytest.mark.parametrize("as_messages", [False, True], ids=["texts", "messages"])
def test_a_reward_model_and_a_step(tmp_path: Path, as_messages: bool) -> None:
    function = load_scorer(f"helpful={REWARD}", device="cpu")
    logged, call = one_step(tmp_path, function, as_messages=as_messages)

    asked, given = map(text_of, call["prompts"]), map(text_of, call["completions"])
    alone = [
        CandidateGroup(str(number), (user(prompt),), (response,))  # type: ignore[arg-type]
        for number, (prompt, response) in enumerate(zip(asked, given, strict=True))
    ]
    with reward_scorer(REWARD, alone=True) as reference:
        expected = flat(reference.score(alone))
    assert len(set(expected)) > 2
    assert logged["rewards/helpful/mean"] == pytest.approx(fmean(expected), abs=1e-4)
    assert logged["reward"] == pytest.approx(fmean(expected), abs=1e-4)
    found = function(**call)
    assert largest_difference(found, expected) < 1e-4  # type: ignore[arg-type]
    figures = function.metrics()
    assert figures["num_samples"] == 32  # TRL's call and ours
    assert figures["mean_reward"] == pytest.approx(fmean(expected), abs=1e-4)
    function.close()


def test_a_rule_and_a_step(tmp_path: Path) -> None:
    with load_scorer("rule:math") as function:
        logged, call = one_step(tmp_path, function, as_messages=True)
        # the sample model's answer is the last number of its response
        right = [
            float("".join(ch if ch.isdigit() else " " for ch in text_of(one)).split()[-1:] == [ref])
            for one, ref in zip(call["completions"], call["answer"], strict=True)
        ]
        assert set(right) == {0.0, 1.0}
        assert function(**call) == right
        assert logged["rewards/rule-math/mean"] == pytest.approx(fmean(right))
        assert function.metrics()["num_samples"] == 32


def test_without_answers_trl_is_told_that_the_rule_does_not_apply(tmp_path: Path) -> None:
    with load_scorer("rule:exact", answer_column="solution") as function:
        with pytest.warns(
            RuntimeWarning, match="16 of 16 completions have no reward: no_reference"
        ):
            logged, call = one_step(tmp_path, function, as_messages=False)
        assert function(**call) == [None] * 16
    assert logged["reward"] == 0.0  # the witness's


def test_the_example_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, output = ROOT / "examples" / "grpo_reward.py", tmp_path / "trained"
    prompts = write_lines(tmp_path / "prompts.jsonl", ROWS)
    call = [example, prompts, GENERATOR, REWARD, "--output", output, "--max-steps", "1"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in call])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    runpy.run_path(str(example), run_name="__main__")

    assert (output / "model.safetensors").is_file()
    right, helpful = capsys.readouterr().out.splitlines()[-2:]
    assert "'num_samples': 8, " in right
    assert "'num_samples': 8, " in helpful
