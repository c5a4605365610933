"""Tiny random LoRA adapters of reward models on disk, as peft saves them, and peft's own scores."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from bon.cli.build import scoring_plans
from bon.config import ScoreSettings
from bon.scorers.reward_model import RewardModelScorer
from support.tiny_models import config, tokenizer

TARGETS = (
    *("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    *("c_attn", "c_proj", "c_fc", "query", "value", "in_proj_qkv"),
)
"""Names of linear layers in one model type or another."""
LABELS = {"SEQ_CLS": 1, "TOKEN_CLS": 2}
CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}


def save_base(
    folder: Path, *, kind: str = "qwen3", of: str = "AutoModelForCausalLM", seed: int = 3,
    dtype: str = "float32", template: bool = True, **changes: Any,
) -> Path:  # fmt: skip
    """Save a random model of one of transformers' auto classes, large enough to be seen."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = getattr(transformers, of).from_config(config(kind, **changes))
    _enlarge(model.named_parameters(), 4)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if template:
        tokenizer().save_pretrained(folder)
    return folder


def save_adapter(
    folder: Path, base: Path, *, task: str = "SEQ_CLS", seed: int = 4, **options: Any
) -> Path:
    """Save a LoRA adapter and its head, both random, whose marks on the scores are plain."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    said = {"r": 4, "lora_alpha": 8, "target_modules": list(TARGETS), "task_type": task} | options
    torch.manual_seed(seed)
    model = _quietly(getattr(transformers, CLASSES[task]), base, num_labels=LABELS[task])
    tuned = get_peft_model(model, LoraConfig(**said))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
            elif "trainable_tokens_delta" in name:
                parameter.normal_()
            elif "modules_to_save" in name:
                parameter.normal_(std=0.08)
    with warnings.catch_warnings():  # of embeddings that are saved too
        warnings.simplefilter("ignore")
        tuned.save_pretrained(folder)
    return folder


def peft_model(folder: Path, *, task: str = "SEQ_CLS", dtype: str = "float32") -> Any:
    """Return an adapter on its base as peft runs it, not merged, read at the last position."""
    import torch
    import transformers
    from peft import PeftModel

    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    wanted = getattr(torch, dtype)
    kind = json.loads((Path(base) / "config.json").read_text())["model_type"]
    attention = "eager" if kind == "gemma2" else None  # with its soft-capping
    model = _quietly(
        getattr(transformers, CLASSES[task]),
        Path(base),
        num_labels=LABELS[task],
        dtype=wanted,
        attn_implementation=attention,
    )
    model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()
    model.config.pad_token_id = None  # transformers then pools the last position
    return model.to(wanted) if dtype != "float32" else model


def adapter_scorer(folder: Path, **settings: Any) -> RewardModelScorer:
    """Return the scorer that the command line makes of an adapter, not entered yet."""
    said = {"reward": (f"reward={folder}",), "reward_device": "cpu"} | settings
    (plan,) = scoring_plans(ScoreSettings.model_validate(said))
    assert isinstance(plan.scorer, RewardModelScorer)
    return plan.scorer


def edit_adapter(folder: Path, **changes: Any) -> None:
    """Change keys of an adapter's configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, without: str = "", **changes: Any) -> None:
    """Leave tensors out of an adapter whose name contains a text, and add others."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = {name: t for name, t in load_file(path).items() if not without or without not in name}
    save_file(tensors | changes, path, metadata={"format": "pt"})


def _enlarge(parameters: Any, factor: float) -> None:
    import torch

    with torch.no_grad():
        for _, parameter in parameters:
            if parameter.ndim > 1:
                parameter.mul_(factor)


def _quietly(model_class: Any, folder: Path, **options: Any) -> Any:
    """Load a base whose head is made up, without transformers' report of it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return model_class.from_pretrained(folder, **options)
    finally:
        logging.set_verbosity(before)
