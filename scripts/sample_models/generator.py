"""The generator: a small causal model trained on the tasks until it is right half of the time.

It is stopped on purpose while it still errs on about half of the prompts: a generator that is
always right leaves a reward model nothing to choose between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from . import sampling, tasks
from .tokenizer import MAX_NUM_TOKENS, SYSTEM_PROMPT, render


@dataclass(frozen=True)
class GeneratorSettings:
    """How the generator is trained."""

    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    max_steps: int = 6000
    evaluate_every_steps: int = 200
    num_dev_tasks_per_family: int = 60
    target_accuracy: float = 0.50
    system_prompt_rate: float = 0.05


@dataclass
class GeneratorRun:
    """What a training left behind: the model, its steps and its last dev accuracies."""

    model: Qwen3ForCausalLM
    num_steps: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """Return the shape both models share: about 0.9 million parameters."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_NUM_TOKENS,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> dict[str, torch.Tensor]:
    """Return right-padded ids and mask for templated texts."""
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        padding=True,
        padding_side="right",
        return_tensors="pt",
        return_token_type_ids=False,
    )
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def response_mask(input_ids_BT: torch.Tensor, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return True from the response's first token through its <|im_end|>."""
    start_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
    header_len = len(tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"])
    positions_T = torch.arange(input_ids_BT.shape[1])
    last_start_B = ((input_ids_BT == start_id) * positions_T).amax(dim=1)
    last_end_B = ((input_ids_BT == tokenizer.eos_token_id) * positions_T).amax(dim=1)
    after_header = positions_T >= (last_start_B + header_len).unsqueeze(1)
    return after_header & (positions_T <= last_end_B.unsqueeze(1))


def training_batches(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    family_weights: dict[str, float],
    settings: GeneratorSettings,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of fresh training tasks, each of texts of about one length.

    Two batches are drawn at a time and parted by length: less padding, the same mix. The weights
    are read at each draw, so changing the mapping changes the mix.
    """
    while True:
        weights = [family_weights[family] for family in tasks.FAMILIES]
        texts = []
        for family in rng.choices(tasks.FAMILIES, weights, k=2 * settings.batch_size):
            task = tasks.draw_task(rng, "train", family)
            system_prompt = SYSTEM_PROMPT if rng.random() < settings.system_prompt_rate else None
            response = tasks.response_text(rng, task.answer)
            texts.append(render(tokenizer, task.prompt, response, system_prompt))
        texts.sort(key=len)
        halves = [texts[: settings.batch_size], texts[settings.batch_size :]]
        rng.shuffle(halves)
        yield from (encode(tokenizer, half) for half in halves)


def response_loss(
    model: Qwen3ForCausalLM, batch: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerFast
) -> torch.Tensor:
    """Return the mean next-token loss over the response tokens alone."""
    is_target_BT = response_mask(batch["input_ids"], tokenizer)[:, 1:]
    hidden_BTD = model.model(**batch).last_hidden_state
    logits = model.lm_head(hidden_BTD[:, :-1][is_target_BT])
    return torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:][is_target_BT])


def family_weights_from(accuracy: dict[str, float]) -> dict[str, float]:
    """Return sampling weights that give the families that lag behind more of the batch."""
    return {family: max(0.1, 1.1 - accuracy[family]) ** 2 for family in tasks.FAMILIES}


def train_generator(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    settings: GeneratorSettings,
    log: Callable[[str], None],
) -> GeneratorRun:
    """Train until sampled dev accuracy reaches the target, or the steps run out."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    run = GeneratorRun(Qwen3ForCausalLM(model_config(tokenizer)))
    dev_tasks = list(
        tasks.unique_tasks(random.Random(seed + 1), "dev", settings.num_dev_tasks_per_family)
    )
    optimizer = torch.optim.AdamW(
        run.model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / settings.warmup_steps)
    )
    family_weights = dict.fromkeys(tasks.FAMILIES, 1.0)
    batches = training_batches(rng, tokenizer, family_weights, settings)
    started_s = time.monotonic()
    for run.num_steps in range(1, settings.max_steps + 1):
        run.model.train()
        loss = response_loss(run.model, next(batches), tokenizer)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if run.num_steps % settings.evaluate_every_steps:
            continue
        run.accuracy = sampling.sampled_accuracy(run.model, tokenizer, dev_tasks, 1)
        log(
            f"generator step {run.num_steps} loss {loss.item():.3f} dev accuracy "
            f"{describe(run.accuracy)} ({time.monotonic() - started_s:.0f} s)"
        )
        if run.accuracy["overall"] >= settings.target_accuracy:
            break
        family_weights.update(family_weights_from(run.accuracy))
    run.model.eval()
    return run


def describe(accuracy: dict[str, float]) -> str:
    """Return accuracies as one short line."""
    return " ".join(f"{name} {value:.2f}" for name, value in accuracy.items())
