"""What of a model could run code when it is loaded: a person has to say that it may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bon.errors import ModelError
from bon.pipeline.weights import TRAINING_STATE

__all__ = ["NO_PICKLES", "Pickles", "pickled_weights", "refuse_modules"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WHOLE = "model.safetensors"
_ADAPTER = "adapter_model.safetensors"


def pickled_weights(folder: Path) -> list[str]:
    """List the pickles that loading a model, or an adapter, of this folder would read.

    Where there are safetensors, these are what transformers, peft and vLLM read; then only an
    index can lead them to other files.
    """
    found = _listed(folder / f"{_WHOLE}.index.json")
    others = [path for path in sorted(folder.iterdir()) if _is_pickle(path)]
    if not _is_there(folder, _WHOLE):
        # vLLM takes a file of any name where no other safetensors are there
        has_others = any(folder.glob("*.safetensors"))
        stem = "pytorch_model" if has_others else ""
        found |= {path.name for path in others if path.name.startswith(stem)}
    if _is_there(folder, _ADAPTER):
        found -= {path.name for path in others if path.name.startswith("adapter_")}
    else:
        found |= {path.name for path in others if path.name.startswith("adapter_")}
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Pickles:
    """Whether weights may be pickles, and the flag that says so."""

    are_allowed: bool
    flag: str

    def refuse(self, folder: Path) -> None:
        """Refuse a folder whose weights are pickles, where they are not allowed.

        Raises:
            ModelError: with their names.
        """
        names = [] if self.are_allowed else pickled_weights(folder)
        if names:
            raise self.refusal(str(folder), f"{', '.join(names[:3])}, and no safetensors")

    def refusal(self, where: str, found: str) -> ModelError:
        """Return the error of a model that has nothing else."""
        return ModelError(
            "the model's weights are pickles",
            where=where,
            why=f"{found}; to read a pickle can run code of whoever made it",
            next_step="if you trust that: load it with transformers once, and save_pretrained "
            f"writes safetensors; or add {self.flag}, and torch.load reads it with weights_only",
        )


NO_PICKLES = Pickles(are_allowed=False, flag="--allow-pickle")


def refuse_modules(adapter: Mapping[str, Any], where: str) -> None:
    """Refuse an adapter whose adapter_config.json names a Python module, which peft would import.

    Raises:
        ModelError: with the module.
    """
    if adapter.get("megatron_config") is not None:
        raise ModelError(
            "the adapter names a Python module to be imported",
            where=where,
            why=f"its megatron_core is {adapter.get('megatron_core')!r}",
            next_step="merge it into its base with peft, and give the result",
        )


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.index.json").is_file()


def _is_pickle(path: Path) -> bool:
    return path.suffix in _PICKLES and path.name not in TRAINING_STATE and path.is_file()


def _listed(index: Path) -> set[str]:
    """Return what an index of safetensors lists that are none."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return {str(name) for name in names if not str(name).endswith(".safetensors")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return set()  # what loads the model says what is wrong with it
