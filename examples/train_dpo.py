#!/usr/bin/env python
"""Train a model by DPO on the pairs that `bon build-dpo` wrote, with TRL, on a CPU or a GPU.

    bon build-dpo prompts.jsonl -m MODEL -r REWARD -n 8 --strategy verified -o pairs.parquet
    python examples/train_dpo.py pairs.parquet MODEL --output trained

The columns prompt, chosen and rejected are what DPOTrainer wants; it ignores all others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def parse_arguments() -> argparse.Namespace:
    """Read the flags; the defaults suit the sample model, a large one wants a smaller rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="Parquet file of pairs")
    parser.add_argument("model", help="folder or hub id of the model that sampled them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to save it in")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--beta", type=float, default=1.0, help="pull towards the start (β)")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> DPOConfig:
    """Return TRL's settings: full precision on a CPU, nothing saved but the end."""
    has_gpu = torch.cuda.is_available()
    return DPOConfig(
        output_dir=str(arguments.output),
        learning_rate=arguments.learning_rate,
        beta=arguments.beta,
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=arguments.batch_size,
        warmup_steps=0.1,  # below 1 it is a share of all steps
        seed=arguments.seed,
        bf16=has_gpu,
        gradient_checkpointing=has_gpu,
        use_cpu=not has_gpu,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )


def main() -> None:
    """Train and save."""
    arguments = parse_arguments()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model),
        args=settings(arguments),
        train_dataset=load_dataset("parquet", data_files=str(arguments.pairs), split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(arguments.output))
    print(f"saved to {arguments.output}")


if __name__ == "__main__":
    main()
