#!/usr/bin/env python
"""How often sampled responses are right, for one model or for several that are compared.

    python examples/measure_accuracy.py held-out.jsonl MODEL TRAINED

Each line of the file has a `prompt` and an `answer`. Responses are sampled at temperature 1, from
the same seed for every model; with several, each is compared with the first, prompt by prompt.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from bon.answers import is_correct, reference_answer

Rows = list[dict[str, Any]]


def parse_arguments() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path, help="JSONL file with prompt and answer")
    parser.add_argument("models", nargs="+", help="folders or hub ids")
    parser.add_argument("-n", "--num-responses", type=int, default=4, help="for each prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64, help="prompts at a time")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@torch.inference_mode()
def sample(model_name: str, prompts: list[str], arguments: argparse.Namespace) -> list[list[str]]:
    """Return `num_responses` responses to each prompt, drawn from the model's own distribution."""
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_name, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_name).eval().to(device)
    responses: list[str] = []
    for start in range(0, len(prompts), arguments.batch_size):
        batch = tokenizer.apply_chat_template(
            [[{"role": "user", "content": p}] for p in prompts[start:][: arguments.batch_size]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(device)
        batch.pop("token_type_ids", None)
        ids_BT = model.generate(
            **batch,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=arguments.max_tokens,
            num_return_sequences=arguments.num_responses,
        )
        new_BT = ids_BT[:, batch["input_ids"].shape[1] :]
        responses += tokenizer.batch_decode(new_BT, skip_special_tokens=True)
    n = arguments.num_responses
    return [responses[i : i + n] for i in range(0, len(responses), n)]


def share_right(rows: Rows, responses_PN: list[list[str]]) -> NDArray[np.float64]:
    """Return the share of right responses of each prompt, shape (P,)."""
    references_P = [reference_answer(row["answer"]) or "" for row in rows]
    return np.array(
        [
            np.mean([is_correct(response, reference) for response in responses])
            for reference, responses in zip(references_P, responses_PN, strict=True)
        ]
    )


def with_error(values_P: NDArray[np.float64]) -> str:
    """Return the mean over prompts and its standard error, in per cent."""
    error = values_P.std(ddof=1) / np.sqrt(len(values_P))
    return f"{100 * values_P.mean():.1f} % ± {100 * error:.1f}"


def main() -> None:
    """Sample, check and print a line a model."""
    arguments = parse_arguments()
    rows = [json.loads(line) for line in arguments.prompts.read_text("utf-8").splitlines()]
    prompts = [row["prompt"] for row in rows]
    right_P: list[NDArray[np.float64]] = []
    for name in arguments.models:
        right_P.append(share_right(rows, sample(name, prompts, arguments)))
        line = f"{name}: {with_error(right_P[-1])} right"
        if len(right_P) > 1:
            line += f", {with_error(right_P[-1] - right_P[0])} more than {arguments.models[0]}"
        print(line, flush=True)
    print(f"({len(rows)} prompts, {arguments.num_responses} responses each; ± is a standard error)")


if __name__ == "__main__":
    main()
