#!/usr/bin/env python
"""Train the sample generator and reward model, and write the held-out prompts.

    python scripts/make_sample_models.py [--seed 0] [--output sample_data] [--quick]

Writes `prompts.jsonl`, `models/generator`, `models/reward` and `models/REPORT.json` under the
output folder; progress goes to stderr, the report to stdout. `--quick` is a smoke run of under a
minute whose models know nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sample_models import evaluation, generator, reward, tasks
from sample_models.tokenizer import build_tokenizer
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

NUM_PROMPTS_PER_FAMILY = 64
NUM_THREADS = 2

QUICK_GENERATOR = generator.GeneratorSettings(
    batch_size=16, max_steps=40, evaluate_every_steps=20, num_dev_tasks_per_family=4
)
QUICK_REWARD = reward.RewardSettings(
    num_prompts_per_family=8, num_candidates=2, pairs_per_batch=8, num_steps=40, log_every_steps=20
)


def parse_arguments() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    parser.add_argument("--output", type=Path, default=Path("sample_data"), help="folder to write")
    parser.add_argument("--quick", action="store_true", help="smoke run, under a minute")
    return parser.parse_args()


def log(message: str) -> None:
    """Print progress to stderr."""
    print(message, file=sys.stderr, flush=True)


def write_prompts(path: Path, held_out: list[tasks.Task]) -> None:
    """Write one row per held-out task, with ids like `addition-0001`."""
    counts = dict.fromkeys(tasks.FAMILIES, 0)
    with path.open("w", encoding="utf-8") as file:
        for task in held_out:
            counts[task.family] += 1
            row = {
                "id": f"{task.family}-{counts[task.family]:04d}",
                "prompt": task.prompt,
                "answer": task.answer,
                "family": task.family,
            }
            file.write(json.dumps(row) + "\n")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a model with its tokenizer and chat template, loadable by itself."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Return plain sampling that stops at the end of the assistant's turn."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def describe_folder(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """Return a model's parameter count and its files' sizes."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "size_bytes": sum(sizes.values()),
        "file_sizes_bytes": sizes,
    }


def rounded(value: Any) -> Any:
    """Round every float in nested dictionaries to four places."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Make everything and print the report."""
    arguments = parse_arguments()
    started_s = time.monotonic()
    torch.set_num_threads(NUM_THREADS)
    generator_settings = QUICK_GENERATOR if arguments.quick else generator.GeneratorSettings()
    reward_settings = QUICK_REWARD if arguments.quick else reward.RewardSettings()
    models_folder = arguments.output / "models"
    models_folder.mkdir(parents=True, exist_ok=True)
    held_out = list(
        tasks.unique_tasks(random.Random(arguments.seed + 3), "test", NUM_PROMPTS_PER_FAMILY)
    )
    write_prompts(arguments.output / "prompts.jsonl", held_out)

    tokenizer = build_tokenizer(arguments.seed)
    run = generator.train_generator(tokenizer, arguments.seed, generator_settings, log)
    run.model.generation_config = generation_config(tokenizer)
    save(run.model, tokenizer, models_folder / "generator")
    reward_model = reward.train_reward_model(
        run.model, tokenizer, arguments.seed, reward_settings, log
    )
    save(reward_model, tokenizer, models_folder / "reward")

    torch.manual_seed(arguments.seed + 4)
    result = evaluation.evaluate(run.model, reward_model, tokenizer, held_out)
    report = {
        "seed": arguments.seed,
        "quick": arguments.quick,
        "wall_s": time.monotonic() - started_s,
        "generator_steps": run.num_steps,
        "generator_dev_accuracy": run.accuracy,
        "reward_steps": reward_settings.num_steps,
        "held_out": dataclasses.asdict(result),
        "generator": describe_folder(run.model, models_folder / "generator"),
        "reward": describe_folder(reward_model, models_folder / "reward"),
    }
    text = json.dumps(rounded(report), indent=2)
    (models_folder / "REPORT.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
