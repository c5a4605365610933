"""The reward model: Bradley-Terry on the generator's own right and wrong candidates.

Its trunk starts from the generator's. Two further losses, dropped from what is saved, make so small
a model a good judge: it goes on learning to write right responses, and it says after every token
whether the answer is still right.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
)
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from . import negatives, sampling, tasks
from .generator import encode, model_config, response_mask
from .tokenizer import render


@dataclass(frozen=True)
class RewardSettings:
    """How the reward model is trained; the weights are those of the losses beside the main one."""

    num_prompts_per_family: int = 2500
    num_candidates: int = 4
    pairs_per_batch: int = 32
    num_steps: int = 4000
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    fresh_pair_rate: float = 0.3
    made_up_wrong_rate: float = 0.2
    process_weight: float = 1.0
    language_weight: float = 0.5
    center_weight: float = 0.005
    log_every_steps: int = 200


@dataclass(frozen=True)
class Judged:
    """One training prompt with the generator's candidates, parted by whether they are right."""

    task: tasks.Task
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A right and a wrong response to one prompt."""

    task: tasks.Task
    chosen: str
    rejected: str


def judge(asked: list[tasks.Task], candidates: list[list[str]]) -> list[Judged]:
    """Part each task's candidates into right and wrong ones."""
    return [
        Judged(
            task,
            tuple(text for text in texts if tasks.is_right(task, text)),
            tuple(text for text in texts if not tasks.is_right(task, text)),
        )
        for task, texts in zip(asked, candidates, strict=True)
    ]


def pair_of(rng: random.Random, judged: Judged, settings: RewardSettings) -> Pair:
    """Draw a pair; a side on which the generator has no candidate is made up."""
    chosen = rng.choice(judged.right or (tasks.response_text(rng, judged.task.answer),))
    if judged.wrong and rng.random() >= settings.made_up_wrong_rate:
        return Pair(judged.task, chosen, rng.choice(judged.wrong))
    return Pair(judged.task, chosen, negatives.wrong_response(rng, judged.task))


def fresh_pair(rng: random.Random) -> Pair:
    """Draw a new training task and make up both sides."""
    task = tasks.draw_task(rng, "train", rng.choice(tasks.FAMILIES))
    chosen = tasks.response_text(rng, task.answer)
    return Pair(task, chosen, negatives.wrong_response(rng, task))


def pair_batches(
    rng: random.Random, pool: list[Judged], settings: RewardSettings
) -> Iterator[list[Pair]]:
    """Yield batches of pairs of about one length, two batches drawn at a time."""
    weights = [1.0 if judged.right and judged.wrong else 0.5 for judged in pool]
    size = settings.pairs_per_batch
    while True:
        pairs = [
            fresh_pair(rng) if rng.random() < settings.fresh_pair_rate
            else pair_of(rng, judged, settings)
            for judged in rng.choices(pool, weights, k=2 * size)
        ]  # fmt: skip
        pairs.sort(key=lambda pair: len(pair.task.prompt))
        halves = [pairs[:size], pairs[size:]]
        rng.shuffle(halves)
        yield from halves


def still_right_labels(
    input_ids_T: list[int], is_response_T: list[bool], answer_ids: list[int], digit_ids: set[int]
) -> list[float]:
    """Return for each response token 1.0 while the number so far is the answer's beginning.

    Past the last digit the label says whether the whole number was right; it is 0.0 elsewhere.
    """
    labels = []
    num_digits, right, seen_after = 0, True, False
    for token_id, is_response in zip(input_ids_T, is_response_T, strict=True):
        if not is_response:
            labels.append(0.0)
            continue
        if token_id in digit_ids:
            expected = answer_ids[num_digits : num_digits + 1]
            right = right and not seen_after and expected == [token_id]
            num_digits += 1
        elif num_digits:
            seen_after = True
            right = right and num_digits == len(answer_ids)
        labels.append(float(right))
    return labels


class JudgeInTraining(torch.nn.Module):
    """The reward model with the heads that only its training needs."""

    def __init__(self, generator: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        config = model_config(tokenizer)
        config.num_labels = 1
        config.tie_word_embeddings = False
        self.tokenizer = tokenizer
        self.model = Qwen3ForSequenceClassification(config)
        self.model.model.load_state_dict(generator.model.state_dict())
        self.process_head = torch.nn.Linear(config.hidden_size, 1)
        self.digit_ids = set(tokenizer.convert_tokens_to_ids(list("0123456789")))

    def losses(self, pairs: list[Pair], settings: RewardSettings) -> tuple[torch.Tensor, float]:
        """Return the weighted sum of the losses and the share of pairs ordered right."""
        texts = [render(self.tokenizer, pair.task.prompt, pair.chosen) for pair in pairs]
        texts += [render(self.tokenizer, pair.task.prompt, pair.rejected) for pair in pairs]
        batch = encode(self.tokenizer, texts)
        hidden_BTD = self.model.model(**batch).last_hidden_state
        last_B = batch["attention_mask"].sum(dim=1) - 1
        reward_B = self.model.score(hidden_BTD[torch.arange(len(texts)), last_B]).squeeze(-1)
        chosen_P, rejected_P = reward_B.chunk(2)
        mask_BT = response_mask(batch["input_ids"], self.tokenizer)
        loss = (
            -logsigmoid(chosen_P - rejected_P).mean()
            + settings.center_weight * (chosen_P + rejected_P).square().mean()
            + settings.process_weight * self.process_loss(pairs, batch, mask_BT, hidden_BTD)
            + settings.language_weight * self.language_loss(batch, mask_BT, hidden_BTD)
        )
        return loss, (chosen_P > rejected_P).float().mean().item()

    def process_loss(
        self,
        pairs: list[Pair],
        batch: dict[str, torch.Tensor],
        mask_BT: torch.Tensor,
        hidden_BTD: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of saying after each response token if the answer is still right."""
        answers = [list(pair.task.answer) for pair in pairs] * 2
        rows = zip(batch["input_ids"].tolist(), mask_BT.tolist(), answers, strict=True)
        labels_BT = torch.tensor(
            [
                still_right_labels(
                    ids, mask, self.tokenizer.convert_tokens_to_ids(answer), self.digit_ids
                )
                for ids, mask, answer in rows
            ]
        )
        logits = self.process_head(hidden_BTD[mask_BT]).squeeze(-1)
        return binary_cross_entropy_with_logits(logits, labels_BT[mask_BT])

    def language_loss(
        self, batch: dict[str, torch.Tensor], mask_BT: torch.Tensor, hidden_BTD: torch.Tensor
    ) -> torch.Tensor:
        """Return the next-token loss on the chosen responses."""
        num_chosen = len(mask_BT) // 2
        target_BT = mask_BT[:num_chosen, 1:]
        hidden = hidden_BTD[:num_chosen, :-1][target_BT]
        logits = hidden @ self.model.model.embed_tokens.weight.T
        return cross_entropy(logits, batch["input_ids"][:num_chosen, 1:][target_BT])


def learning_rate_factor(step: int, settings: RewardSettings) -> float:
    """Return the linear warm-up and cosine decay at a step."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.num_steps)))


def train_reward_model(
    generator: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    settings: RewardSettings,
    log: Callable[[str], None],
) -> Qwen3ForSequenceClassification:
    """Sample candidates for training prompts and train the judge on pairs of them."""
    rng = random.Random(seed + 2)
    torch.manual_seed(seed + 2)
    started_s = time.monotonic()
    asked = list(tasks.unique_tasks(rng, "train", settings.num_prompts_per_family))
    asked.sort(key=lambda task: len(task.prompt))
    prompts = [task.prompt for task in asked]
    pool = judge(
        asked,
        sampling.sample_responses(generator, tokenizer, prompts, settings.num_candidates),
    )
    log(f"reward: sampled {len(pool)} training prompts ({time.monotonic() - started_s:.0f} s)")
    judge_model = JudgeInTraining(generator, tokenizer)
    optimizer = torch.optim.AdamW(
        judge_model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, settings)
    )
    batches = pair_batches(rng, pool, settings)
    judge_model.train()
    ordered_rates: list[float] = []
    for step in range(1, settings.num_steps + 1):
        loss, ordered_rate = judge_model.losses(next(batches), settings)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge_model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ordered_rates.append(ordered_rate)
        if step % settings.log_every_steps == 0:
            recent = ordered_rates[-settings.log_every_steps :]
            log(
                f"reward step {step} loss {loss.item():.3f} training pairs ordered right "
                f"{sum(recent) / len(recent):.3f} ({time.monotonic() - started_s:.0f} s)"
            )
    judge_model.eval()
    return judge_model.model


@torch.inference_mode()
def score_responses(
    model: Qwen3ForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    conversations: list[tuple[str, str]],
    batch_size: int = 256,
) -> list[float]:
    """Return the reward of each (prompt, response), read at the conversation's last token."""
    model.eval()
    rewards: list[float] = []
    for start in range(0, len(conversations), batch_size):
        texts = [render(tokenizer, *pair) for pair in conversations[start : start + batch_size]]
        rewards += model(**encode(tokenizer, texts)).logits[:, 0].tolist()
    return rewards
