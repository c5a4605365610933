#!/usr/bin/env python
"""Train a model by GRPO in TRL, rewarded by scorers of `bon`, on a CPU or a GPU.

    python examples/grpo_reward.py prompts.jsonl MODEL REWARD_MODEL --output trained

The prompt file has the columns prompt and answer: a rule compares with the answer, the reward
model reads prompt and response.
"""

from __future__ import annotations

import argparse

import torch
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from bon import load_scorer


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prompts", "model", "reward_model", "--output"):
        parser.add_argument(name)
    parser.add_argument("--max-steps", type=int, default=100)
    arguments = parser.parse_args()

    prompts = load_dataset("json", data_files=arguments.prompts, split="train")
    chats = prompts.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    right = load_scorer("right=rule:math", answer_column="answer")
    with load_scorer(f"helpful={arguments.reward_model}") as helpful:
        trainer = GRPOTrainer(
            model=arguments.model,
            reward_funcs=[right, helpful],
            args=GRPOConfig(
                output_dir=arguments.output,
                reward_weights=[1.0, 0.1],
                num_generations=8,
                max_completion_length=64,
                max_steps=arguments.max_steps,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=chats,
        )
        trainer.train()
        trainer.save_model(arguments.output)
        print(right.metrics(), helpful.metrics(), sep="\n")


if __name__ == "__main__":
    main()
