"""TRL's own trainers load what we write for them and train one step on the right tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consumers.samples import (
    MARGINS,
    PAIRS,
    PROMPTS,
    REFERENCES,
    conversation_text,
    export,
    prompt_text,
    response_text,
)
from support.commands import GENERATOR, REWARD

pytestmark = [pytest.mark.slow]

SUFFIXES = (".parquet", ".jsonl")
Load = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from more, and lose much where the cores are taken."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    from datasets import load_dataset

    def load_file(path: Path) -> Any:
        builder = "parquet" if path.suffix == ".parquet" else "json"
        return load_dataset(
            builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
        )

    return load_file


@pytest.fixture
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GENERATOR)


def generator() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(GENERATOR)


def one_step(folder: Path) -> dict[str, Any]:
    """Return settings of one optimizer step over all rows, on the CPU, with nothing written."""
    return {
        "output_dir": str(folder / "trainer"),
        "max_steps": 1,
        "per_device_train_batch_size": 2 * len(PAIRS),
        "learning_rate": 1e-4,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def train(trainer: Any) -> float:
    """Return the loss of the one step, which must have changed the model."""
    before = [p.detach().clone() for p in trainer.model.parameters()]
    loss = float(trainer.train().training_loss)
    after = list(trainer.model.parameters())
    assert any(not old.equal(new) for old, new in zip(before, after, strict=True))
    return loss


def negative_logprobs(tokenizer: Any, prompt: str, response: str) -> list[float]:
    """Return −log p of each response token under the untrained generator, one text at a time."""
    import torch

    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(response, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits_TV = generator()(torch.tensor([head + tail])).logits[0]
    logprob_TV = logits_TV.log_softmax(-1)
    return [-float(logprob_TV[len(head) + i - 1, token]) for i, token in enumerate(tail)]


def reward_of(tokenizer: Any, text: str) -> float:
    """Return the reward model's score of one conversation by itself."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(REWARD)
    with torch.inference_mode():
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return float(model(ids).logits[0, 0])


def masked_texts(tokenizer: Any, batch: dict[str, Any], is_kept: bool) -> list[str]:
    """Decode a batch's completion tokens, or the tokens before them."""
    mask_BT = (batch["completion_mask"] == int(is_kept)) & (batch["attention_mask"] == 1)
    return [
        tokenizer.decode(ids[mask]) for ids, mask in zip(batch["input_ids"], mask_BT, strict=True)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("format_name", ["bon", "trl-dpo"])
def test_dpo_trains_on_our_chosen_and_rejected(
    tmp_path: Path, load: Load, tokenizer: Any, format_name: str, suffix: str
) -> None:
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=generator(),
        args=DPOConfig(**one_step(tmp_path)),
        train_dataset=load(export(format_name, tmp_path / f"pairs{suffix}")),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert masked_texts(tokenizer, batch, True) == [
        *(response_text(chosen) + "\n" for _, chosen, _ in PAIRS),
        *(response_text(rejected) + "\n" for _, _, rejected in PAIRS),
    ]
    assert masked_texts(tokenizer, batch, False) == 2 * [
        prompt_text(prompt) for prompt, *_ in PAIRS
    ]
    # Before its first step the policy is the reference: -log sigmoid(0).
    assert train(trainer) == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reward_training_reads_our_conversations_and_margins(
    tmp_path: Path, load: Load, tokenizer: Any, suffix: str
) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(REWARD),
        args=RewardConfig(**one_step(tmp_path)),
        train_dataset=load(export("trl-reward", tmp_path / f"pairs{suffix}")),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    texts = [conversation_text(prompt, chosen) + "\n" for prompt, chosen, _ in PAIRS]
    texts += [conversation_text(prompt, rejected) + "\n" for prompt, _, rejected in PAIRS]
    decoded = [
        tokenizer.decode(ids[mask == 1])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert decoded == texts
    assert batch["margin"].tolist() == [margin or 0.0 for margin in MARGINS]

    rewards = [reward_of(tokenizer, text) for text in texts]
    losses = [
        math.log1p(math.exp(-(rewards[i] - rewards[i + len(PAIRS)] - (margin or 0.0))))
        for i, margin in enumerate(MARGINS)
    ]
    assert train(trainer) == pytest.approx(sum(losses) / len(losses), rel=1e-3)


@pytest.mark.parametrize("kind", ["pairs", "responses"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sft_learns_our_completions_alone(
    tmp_path: Path, load: Load, tokenizer: Any, kind: Any, suffix: str
) -> None:
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=generator(),
        args=SFTConfig(**one_step(tmp_path)),
        train_dataset=load(export("trl-sft", tmp_path / f"rows{suffix}", kind)),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    learned = [tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]
    assert learned == [response_text(chosen) + "\n" for _, chosen, _ in PAIRS]
    texts = [
        tokenizer.decode(ids[mask == 1])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert texts == [conversation_text(prompt, chosen) + "\n" for prompt, chosen, _ in PAIRS]

    losses = [
        loss
        for prompt, chosen, _ in PAIRS
        for loss in negative_logprobs(tokenizer, prompt_text(prompt), response_text(chosen) + "\n")
    ]
    assert train(trainer) == pytest.approx(sum(losses) / len(losses), rel=1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_kto_learns_our_chosen_as_good_and_rejected_as_bad(
    tmp_path: Path, load: Load, tokenizer: Any, suffix: str
) -> None:
    from trl import KTOConfig, KTOTrainer

    trainer = KTOTrainer(
        model=generator(),
        args=KTOConfig(**one_step(tmp_path)),
        train_dataset=load(export("trl-kto", tmp_path / f"pairs{suffix}")),
        processing_class=tokenizer,
    )
    rows = list(trainer.train_dataset)
    understood = [
        (
            tokenizer.decode(row["prompt_ids"]),
            tokenizer.decode(row["completion_ids"]).removesuffix("\n"),
            row["label"],
        )
        for row in rows
    ]
    assert understood == [
        (prompt_text(prompt), response_text(response), label)
        for prompt, chosen, rejected in PAIRS
        for response, label in ((chosen, True), (rejected, False))
    ]
    # Before its first step the policy is the reference: 1 - sigmoid(0).
    assert train(trainer) == pytest.approx(0.5, abs=1e-4)


# Both are said while GRPOTrainer is imported: of the vLLM installed beside it, and by torch.
@pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_grpo_gives_our_other_columns_to_its_reward_functions(
    tmp_path: Path, load: Load, tokenizer: Any, suffix: str
) -> None:
    from trl import GRPOConfig, GRPOTrainer

    seen: dict[str, Any] = {}

    def length(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        seen.update({"prompts": prompts, **columns})
        return [float(len(one[0]["content"])) for one in completions]

    settings = one_step(tmp_path) | {
        "num_generations": 2,
        "max_completion_length": 8,
        "per_device_train_batch_size": 2 * len(PROMPTS),
    }
    trainer = GRPOTrainer(
        model=generator(),
        reward_funcs=length,
        args=GRPOConfig(**settings),
        train_dataset=load(export("trl-grpo", tmp_path / f"prompts{suffix}")),
        processing_class=tokenizer,
    )
    assert [row["prompt"] for row in trainer.train_dataset] == PROMPTS
    trainer.train()
    asked = {
        prompt_text(prompt): answer for prompt, answer in zip(PROMPTS, REFERENCES, strict=True)
    }
    given = {prompt_text(p): a for p, a in zip(seen["prompts"], seen["answer"], strict=True)}
    assert given == asked
    assert set(seen["input_label"] if "input_label" in seen else seen["label"]) == {
        "spam",
        None,
        "ham",
    }
