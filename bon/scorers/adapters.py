"""LoRA adapters of reward models: merged into their base when they are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bon.config import ScorerSettings
from bon.errors import ModelError, first_line
from bon.scorers.families import sequence_classification, token_classification
from bon.scorers.families.base import Family, RewardModel
from bon.scorers.families.loading import load_config, load_pretrained, load_tokenizer

__all__ = ["adapter_family", "load_merged", "tokenizer_folder"]

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_PREFIX = "base_model.model."
"""What peft puts before the base's own names."""
_HEADS = frozenset({"score", "classifier"})
_TRAINED = 'train it with peft\'s LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"])'
_MERGED = "merge it into its base with peft, and give -r the folder of the result"


class _Reader(Protocol):
    def __call__(
        self, model: Any, tokenizer: Any, path: str, settings: ScorerSettings
    ) -> RewardModel: ...


@dataclass(frozen=True, slots=True)
class _Task:
    """What peft's name of a task means here."""

    family: Family
    reward_model: _Reader
    suffix: str
    """How the names of transformers' classes end."""
    classes: str
    """Where transformers lists them."""
    num_labels: int


_TASKS = {
    "SEQ_CLS": _Task(
        sequence_classification.FAMILY,
        sequence_classification.reward_model,
        "ForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        num_labels=1,
    ),
    "TOKEN_CLS": _Task(
        token_classification.FAMILY,
        token_classification.reward_model,
        "ForTokenClassification",
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
        num_labels=2,
    ),
}


def adapter_family(
    adapter: dict[str, Any], base: dict[str, Any], path: str
) -> tuple[Family, dict[str, Any]]:
    """Return the family of an adapter on its base, and the base's config.json as adapted.

    `adapter` is its adapter_config.json, `path` where it lies.

    Raises:
        ModelError: it is not LoRA, not of a reward model, lacks the head that was trained, or its
            base cannot be merged.
    """
    if adapter.get("peft_type") != "LORA":
        why = f"its peft_type is {adapter.get('peft_type')}"
        raise ModelError(
            "the adapter is not a LoRA adapter", where=path, why=why, next_step=_MERGED
        )
    if base.get("quantization_config"):
        raise ModelError(
            "the LoRA adapter's base is quantized",
            where=path,
            why=f"{adapter.get('base_model_name_or_path')} has no exact weights to merge into",
            next_step="name the base that it was quantized from as base_model_name_or_path in its "
            "adapter_config.json",
        )
    name = _task_of(adapter, base, path)
    task = _TASKS[name]
    if not _architecture(base).endswith(task.suffix):
        _refuse_without_head(_names(path), path)
        base = base | {"num_labels": task.num_labels}
    task.family.check(base, path)
    load = partial(load_merged, adapter_path=path, task=name)
    return replace(task.family, name=f"{task.family.name}, LoRA", load=load), base


def load_merged(
    path: str, settings: ScorerSettings, *, adapter_path: str, task: str
) -> RewardModel:
    """Load the base at `path`, merge the adapter in float32, then cast to the wanted type.

    Raises:
        ModelError: peft is not installed, files are damaged, or the adapter does not fit.
    """
    import transformers

    chosen = _TASKS[task]
    tensors = _read_tensors(adapter_path)
    config = load_config(path)
    _refuse_base(chosen, config, path)
    dtype = _wanted_type(settings, config)
    if not config.architectures[0].endswith(chosen.suffix):
        _refuse_without_head(tensors, adapter_path)
        config.num_labels = chosen.num_labels
    tokenizer = load_tokenizer(tokenizer_folder(path, adapter_path))
    supplied = frozenset(name.removeprefix(_PREFIX) for name in tensors)
    auto = getattr(transformers, f"AutoModel{chosen.suffix}")
    base = load_pretrained(auto, path, config, "float32", supplied=supplied)
    model = _merged(base, adapter_path, tensors)
    for name, parameter in model.named_parameters():
        if not name.startswith("score."):  # heads work in float32: it need not be rounded
            # not `to`: it would round rotary frequencies as well
            parameter.data = parameter.data.to(dtype)
    return chosen.reward_model(model.eval(), tokenizer, path, settings)


def tokenizer_folder(path: str, adapter_path: str) -> str:
    """Return where an adapter's tokenizer lies: with it, or with its base at `path`."""
    own = any((Path(adapter_path) / name).is_file() for name in _TOKENIZERS)
    return adapter_path if own else path


def _architecture(config: dict[str, Any]) -> str:
    return str((config.get("architectures") or ["none"])[0])


def _task_of(adapter: dict[str, Any], base: dict[str, Any], path: str) -> str:
    """Return peft's name of the task; where it has none, the class that was trained tells."""
    said = adapter.get("task_type")
    if said in _TASKS:
        return str(said)
    mapping = adapter.get("auto_mapping")
    trained = str(mapping.get("base_model_class")) if isinstance(mapping, dict) else ""
    for name, task in _TASKS.items():
        if said is None and (trained or _architecture(base)).endswith(task.suffix):
            return name
    raise ModelError(
        "the adapter is not one of a reward model",
        where=path,
        why=f"its task_type is {said}; known: {', '.join(_TASKS)}",
        next_step=_TRAINED,
    )


def _names(path: str) -> list[str] | None:
    """Return the names of an adapter's tensors, none where only reading them all would tell."""
    file = Path(path) / "adapter_model.safetensors"
    if not file.is_file():
        return None
    from safetensors import safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            return list(tensors.keys())
    except Exception as error:  # damaged files raise kinds of their own (SafetensorError)
        raise _damaged(path, error) from error


def _refuse_without_head(saved: Iterable[str] | None, path: str) -> None:
    """Refuse an adapter that saved no head; what is only LoRA needs the one it was put on."""
    if saved is None:
        return
    if not any(_HEADS & set(name.split(".")) for name in saved if "lora_" not in name):
        raise ModelError(
            "the LoRA adapter has no head",
            where=path,
            why="its base is no reward model and none of its own weights is a head (score), so "
            "the one that it was trained with is lost",
            next_step=_TRAINED,
        )


def _refuse_base(task: _Task, config: Any, path: str) -> None:
    """Refuse what transformers would load as another class than the adapter was trained on."""
    import transformers
    from transformers.models.auto import modeling_auto

    name = str((config.architectures or ["none"])[0])
    is_own = getattr(getattr(transformers, name, None), "config_class", None) is type(config)
    is_known = config.model_type in getattr(modeling_auto, task.classes)
    is_plain = config.get_text_config() is config and not config.is_encoder_decoder
    if not (is_own and is_known and is_plain):
        raise ModelError(
            "the LoRA adapter's base cannot be a reward model",
            where=path,
            why=f"transformers makes no …{task.suffix} of {name} (type {config.model_type})",
            next_step=_MERGED,
        )


def _wanted_type(settings: ScorerSettings, config: Any) -> Any:
    import torch

    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    return config.dtype or torch.float32


def _read_tensors(path: str) -> dict[str, Any]:
    try:
        from peft import load_peft_weights
    except ImportError as error:
        raise ModelError(
            "a LoRA adapter needs peft, which is not installed",
            where=path,
            why=first_line(error),
            next_step="pip install peft",
        ) from error
    try:
        return dict(load_peft_weights(path, device="cpu"))
    except Exception as error:  # damaged files raise kinds of their own
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> ModelError:
    return ModelError(
        "cannot read the LoRA adapter",
        where=path,
        why=first_line(error),
        next_step="copy or download the whole folder again",
    )


def _merged(base: Any, path: str, tensors: dict[str, Any]) -> Any:
    """Merge an adapter's tensors into its base; every one of them must have its place."""
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict

    try:
        config = PeftConfig.from_pretrained(path)
        config.inference_mode = True
        wrapped = PeftModel(base, config)
        result = set_peft_model_state_dict(wrapped, tensors)
        lost = [key for key in result.missing_keys if ".default" in key]
        if wrong := sorted([*result.unexpected_keys, *lost]):
            raise ValueError(f"without a place or a value: {', '.join(wrong[:5])}")
        return wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # other shapes, no such layers, weights not finite: kinds vary
        raise ModelError(
            "the LoRA adapter does not fit its base",
            where=path,
            why=" ".join(str(error).split())[:400],
            next_step="give the adapter that training saved, and its own base in its "
            "adapter_config.json",
        ) from error
