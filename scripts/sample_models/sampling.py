"""Batched sampling at temperature 1, and what share of the samples is right."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from . import tasks
from .tokenizer import render

MAX_NEW_TOKENS = 32


@torch.inference_mode()
def sample_responses(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    num_candidates: int,
    batch_size: int = 64,
    greedy: bool = False,
) -> list[list[str]]:
    """Return `num_candidates` responses per prompt, plain sampling from the full distribution."""
    model.eval()
    candidates: list[list[str]] = []
    for start in range(0, len(prompts), batch_size):
        texts = [render(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
        batch = tokenizer(
            texts,
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        )
        choice = {"do_sample": False} if greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        output_ids = model.generate(
            **batch,
            **({"do_sample": True} | choice),
            num_return_sequences=num_candidates,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        new_ids = output_ids[:, batch["input_ids"].shape[1] :]
        responses = tokenizer.batch_decode(new_ids, skip_special_tokens=True)
        candidates += [
            responses[i : i + num_candidates] for i in range(0, len(responses), num_candidates)
        ]
    return candidates


def accuracy_by_family(asked: list[tasks.Task], candidates: list[list[str]]) -> dict[str, float]:
    """Return the share of right candidates overall and per family."""
    rates: dict[str, list[float]] = {"overall": []}
    for task, responses in zip(asked, candidates, strict=True):
        rate = sum(tasks.is_right(task, text) for text in responses) / len(responses)
        rates["overall"].append(rate)
        rates.setdefault(task.family, []).append(rate)
    return {name: sum(values) / len(values) for name, values in rates.items()}


def sampled_accuracy(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    asked: list[tasks.Task],
    num_candidates: int,
) -> dict[str, float]:
    """Sample every task's prompt and return the accuracies."""
    prompts = [task.prompt for task in asked]
    candidates = sample_responses(model, tokenizer, prompts, num_candidates, batch_size=256)
    return accuracy_by_family(asked, candidates)
