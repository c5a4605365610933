"""What the two sample models reach on the held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import (
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from . import reward, sampling, tasks


@dataclass(frozen=True)
class Evaluation:
    """Shares between 0 and 1, measured on candidates sampled at temperature 1."""

    num_prompts: int
    num_candidates: int
    generator_accuracy: dict[str, float]
    pair_accuracy: dict[str, float]
    num_pairs: int
    random_candidate_accuracy: float
    best_of_n_accuracy: dict[str, float]
    any_right_rate: float
    mean_reward_right: float
    mean_reward_wrong: float


def evaluate(
    generator: Qwen3ForCausalLM,
    reward_model: Qwen3ForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    asked: list[tasks.Task],
    num_candidates: int = 8,
) -> Evaluation:
    """Sample candidates for each task, score them, and compare best-of-n with a random pick."""
    prompts = [task.prompt for task in asked]
    candidates = sampling.sample_responses(generator, tokenizer, prompts, num_candidates)
    conversations = [
        (task.prompt, text) for task, texts in zip(asked, candidates, strict=True) for text in texts
    ]
    flat = reward.score_responses(reward_model, tokenizer, conversations)
    reward_PN = [flat[i : i + num_candidates] for i in range(0, len(flat), num_candidates)]
    right_PN = [
        [tasks.is_right(task, text) for text in texts]
        for task, texts in zip(asked, candidates, strict=True)
    ]
    best = [
        [texts[max(range(num_candidates), key=rewards.__getitem__)]]
        for texts, rewards in zip(candidates, reward_PN, strict=True)
    ]
    accuracy = sampling.accuracy_by_family(asked, candidates)
    pairs = ordered_pairs(asked, reward_PN, right_PN)
    return Evaluation(
        num_prompts=len(asked),
        num_candidates=num_candidates,
        generator_accuracy=accuracy,
        pair_accuracy={name: mean(values) for name, values in pairs.items()},
        num_pairs=len(pairs["overall"]),
        random_candidate_accuracy=accuracy["overall"],
        best_of_n_accuracy=sampling.accuracy_by_family(asked, best),
        any_right_rate=mean([float(any(right)) for right in right_PN]),
        mean_reward_right=mean_reward(reward_PN, right_PN, True),
        mean_reward_wrong=mean_reward(reward_PN, right_PN, False),
    )


def ordered_pairs(
    asked: list[tasks.Task], reward_PN: list[list[float]], right_PN: list[list[bool]]
) -> dict[str, list[float]]:
    """Return, for every right-wrong pair of one prompt, 1.0 where the right one scores higher."""
    ordered: dict[str, list[float]] = {"overall": []}
    for task, rewards, right in zip(asked, reward_PN, right_PN, strict=True):
        for chosen in (r for r, is_right in zip(rewards, right, strict=True) if is_right):
            for rejected in (r for r, is_right in zip(rewards, right, strict=True) if not is_right):
                ordered["overall"].append(float(chosen > rejected))
                ordered.setdefault(task.family, []).append(float(chosen > rejected))
    return ordered


def mean_reward(reward_PN: list[list[float]], right_PN: list[list[bool]], want: bool) -> float:
    """Return the mean reward of the right, or of the wrong, candidates."""
    return mean(
        [
            reward
            for rewards, right in zip(reward_PN, right_PN, strict=True)
            for reward, is_right in zip(rewards, right, strict=True)
            if is_right == want
        ]
    )


def mean(values: list[float]) -> float:
    """Return the mean, or 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0
