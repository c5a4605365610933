"""The scripts in examples/ do what they say, each in a process of its own as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from consumers.samples import PAIRS, export, prompt_text, response_text
from support.commands import GENERATOR, PROMPTS, ROOT

pytestmark = [pytest.mark.slow]


def run_example(name: str, *arguments: object, cwd: Path) -> str:
    """Run a script of examples/ to its end and return what it printed."""
    pytest.importorskip("trl")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "HF_HOME": str(cwd / "cache"),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded  # dataclasses look their module up there
    spec.loader.exec_module(loaded)
    return loaded


def logprob(model_path: Path, prompt: str, response: str) -> float:
    """Return log p of a response, in nats."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    head, tail = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, response))
    with torch.inference_mode():
        ids = torch.tensor([head + tail])
        logprob_TV = AutoModelForCausalLM.from_pretrained(model_path)(ids).logits[0].log_softmax(-1)
    rows = torch.arange(len(head) - 1, len(head) + len(tail) - 1)
    return float(logprob_TV[rows, torch.tensor(tail)].sum())


def test_training_widens_the_gap_between_chosen_and_rejected(tmp_path: Path) -> None:
    pairs = export("bon", tmp_path / "pairs.parquet")
    trained = tmp_path / "trained"
    run_example("train_dpo.py", pairs, GENERATOR, "-o", trained, "--epochs", 3, cwd=tmp_path)

    def gaps(model_path: Path) -> list[float]:
        return [
            logprob(model_path, prompt_text(prompt), response_text(chosen))
            - logprob(model_path, prompt_text(prompt), response_text(rejected))
            for prompt, chosen, rejected in PAIRS
        ]

    assert np.all(np.array(gaps(trained)) > np.array(gaps(GENERATOR)))


def test_measuring_one_model_against_itself_finds_no_difference(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = PROMPTS.read_text(encoding="utf-8").splitlines(keepends=True)
    prompts.write_text("".join(lines[64:320:32]), encoding="utf-8")
    said = run_example("measure_accuracy.py", prompts, GENERATOR, GENERATOR, cwd=tmp_path)
    first, second, _ = said.splitlines()
    share = re.fullmatch(rf"{GENERATOR}: ([\d.]+) % ± [\d.]+ right", first)
    # 8 prompts of the families of which the generator gets about half right, 4 responses each.
    assert share and 10 < float(share[1]) < 90
    assert second == f"{first}, 0.0 % ± 0.0 more than {GENERATOR}"


def test_share_right_and_its_error_by_hand() -> None:
    pytest.importorskip("transformers")
    measure = module(ROOT / "examples" / "measure_accuracy.py")
    rows: list[dict[str, Any]] = [{"answer": "1,234"}, {"answer": 4}]
    right_P = measure.share_right(rows, [["It is 1234.", "1234"], ["4", "It is 4 or 5."]])
    assert right_P.tolist() == [1.0, 0.5]
    # Deviations ±.25: variance .125 with one degree of freedom, over 2 prompts sqrt(.0625).
    assert measure.with_error(right_P) == "75.0 % ± 25.0"


def test_held_out_prompts_are_new_to_the_model_and_to_the_file(tmp_path: Path) -> None:
    tasks = module(ROOT / "scripts" / "sample_models" / "tasks.py")
    drawn = tmp_path / "drawn" / "held-out.jsonl"
    arguments = ("--exclude", PROMPTS, "-o", drawn, "--per-family", 30, "--seed", 3)
    run_example("held_out_prompts.py", *arguments, cwd=tmp_path)
    rows = [json.loads(line) for line in drawn.read_text(encoding="utf-8").splitlines()]
    asked = {
        tasks.parse(json.loads(line)["prompt"])[0]
        for line in PROMPTS.read_text(encoding="utf-8").splitlines()
    }
    keys = [tasks.parse(row["prompt"])[0] for row in rows]
    assert len(set(keys)) == len(keys) == 5 * 30
    assert not asked & set(keys)
    assert {tasks.split_of(key) for key in keys} == {"test"}
    assert all(tasks.parse(row["prompt"])[1] == row["answer"] for row in rows)
