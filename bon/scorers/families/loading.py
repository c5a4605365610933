"""Loading what families share: configuration, weights, tokenizer, limits; no remote code."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bon.chat import check_vocabulary
from bon.errors import ModelError, first_line
from bon.memory import FREE_MEMORY, is_lack_of_memory

__all__ = [
    "UNLIMITED",
    "load_config",
    "load_head",
    "load_mapped",
    "load_pretrained",
    "load_tokenizer",
    "longest_conversation",
    "misfits",
    "read_tensors",
    "refuse_misfits",
    "without_weights",
]

_POSITIONS_BEHIND_PAD = frozenset({"camembert", "roberta", "xlm-roberta"})
_HARMLESS = re.compile(r"lm_head|pooler|rotary_emb|position_ids|masked_bias|attn\.bias|^cls\.")
"""Weights that a checkpoint may have and a scorer need not use."""
UNLIMITED = 1 << 30
"""What stands for no limit of a conversation's tokens."""
_device_map: ContextVar[str | None] = ContextVar("_device_map", default=None)


@contextmanager
def without_weights() -> Iterator[None]:
    """Have models of transformers checked and made, but their weights not read, in this block."""
    before = _device_map.set("meta")
    try:
        yield
    finally:
        _device_map.reset(before)


def load_config(path: str, owner: str = "reward model") -> Any:
    """Load transformers' configuration object; messages call the model `owner`.

    Raises:
        ModelError: transformers has no such model type, or the file is damaged.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if "/" in str(config._attn_implementation):
            config._attn_implementation = None  # a kernel of the hub: code, which nobody asked for
        return config
    except Exception as error:  # its checks raise kinds of their own
        raise ModelError(
            f"cannot read the {owner}'s configuration",
            where=path,
            why=first_line(error),
            next_step="give a folder saved with save_pretrained; models whose code lives only in "
            "their repository are not supported",
        ) from error


def load_pretrained(
    model_class: Any, path: str, config: Any, dtype: str, unused: str | None = None,
    supplied: frozenset[str] = frozenset(), owner: str = "reward model",
) -> Any:  # fmt: skip
    """Load a model of transformers in evaluation mode; refuse a checkpoint that does not fit.

    `unused` is a regular expression of weights that the caller reads by itself, `supplied` are
    names of weights that the caller puts in.

    Raises:
        ModelError: files are damaged, weights are missing, or some would be left out.
    """
    # sdpa leaves soft-capping out; none: the model's own default
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else None
    try:
        with (
            _without_adapter(path) as folder,
            _without_warnings() if unused or supplied else nullcontext(),
        ):
            model, info = model_class.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=attention,
                output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
                device_map=_device_map.get(),
            )  # fmt: skip
    except Exception as error:  # damaged files raise kinds of their own (SafetensorError)
        raise _damaged(path, error, owner) from error
    info["missing_keys"] = set(info["missing_keys"]) - supplied
    refuse_misfits(path, info, unused, owner)
    return model.eval()


@contextmanager
def _without_adapter(path: str) -> Iterator[str]:
    """Give a folder of the same files but an adapter's, which transformers would put on top."""
    if not (Path(path) / "adapter_config.json").is_file():
        yield path
        return
    with TemporaryDirectory() as links:
        for file in Path(path).iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                (Path(links) / file.name).symlink_to(file.resolve())
        yield links


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep transformers from a report of weights that the caller reads by itself."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_mapped(model_class: Any, path: str, config: Any, dtype: str, tensors: Any) -> Any:
    """Make a model of transformers from tensors under its own names; equal types are not copied.

    Raises:
        ModelError: weights are missing, of another shape or left out.
    """
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype,
        output_loading_info=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    refuse_misfits(path, info)
    return model.eval()


def load_head(head: Any, path: str, tensors: dict[str, Any], dtype: Any) -> Any:
    """Fill a head of ours, whose parameters are named as the checkpoint's, in a data type.

    Raises:
        ModelError: weights are missing, of another shape or left out.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    refuse_misfits(path, misfits(shapes, tensors))
    head.load_state_dict({name: tensors[name] for name in shapes})
    return head.to(dtype).eval()


def misfits(shapes: dict[str, tuple[int, ...]], tensors: dict[str, Any]) -> dict[str, Any]:
    """Compare the shapes that a class wants with a checkpoint's tensors, as transformers does."""
    return {
        "missing_keys": set(shapes) - set(tensors),
        "unexpected_keys": set(tensors) - set(shapes),
        "mismatched_keys": {
            (name, tuple(tensors[name].shape), shape)
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        },
    }


def read_tensors(path: str, pattern: str) -> dict[str, Any]:
    """Read the checkpoint's tensors whose whole name matches a regular expression, on the CPU.

    Raises:
        ModelError: files are damaged.
    """
    matches = re.compile(pattern).fullmatch
    found: dict[str, Any] = {}
    try:
        for file in _weight_files(Path(path)):
            if file.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(file, framework="pt") as tensors:
                    found |= {n: tensors.get_tensor(n) for n in tensors.keys() if matches(n)}  # noqa: SIM118
            else:
                tensors = _read_bin(file)
                found |= {name: tensor for name, tensor in tensors.items() if matches(name)}
    except Exception as error:
        raise _damaged(path, error) from error
    return found


def _read_bin(file: Path) -> Any:
    """Read a file of torch.save; before torch 1.6 it was no zip file, and cannot be mapped."""
    import torch

    is_zip = zipfile.is_zipfile(file)
    return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)


def _weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's files, in transformers' order of choice: others may lie beside them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole, index = folder / name, folder / f"{name}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _damaged(path: str, error: Exception, owner: str = "reward model") -> ModelError:
    again = "copy or download the whole folder again; see the worker's log"
    return ModelError(
        f"cannot load the {owner}",
        where=path,
        why=first_line(error),
        next_step=FREE_MEMORY if is_lack_of_memory(error) else again,
    )


def refuse_misfits(
    path: str, info: dict[str, Any], unused: str | None = None, owner: str = "reward model"
) -> None:
    """Refuse a checkpoint that leaves weights random, or has some that would be left out."""
    wrong = sorted(info["missing_keys"]) + sorted(str(k[0]) for k in info["mismatched_keys"])
    if wrong:
        raise ModelError(
            f"the {owner}'s checkpoint leaves weights random",
            where=path,
            why=f"missing or of another shape: {', '.join(wrong[:5])}",
            next_step="give the folder that training saved, with its head (a base model has none)",
        )
    left_out = sorted(
        key
        for key in info["unexpected_keys"]
        if not _HARMLESS.search(key) and not (unused and re.fullmatch(unused, key))
    )
    if left_out:
        raise ModelError(
            f"the {owner}'s checkpoint has weights that its class does not use",
            where=path,
            why=f"left out, the scores would be another model's: {', '.join(left_out[:5])}",
            next_step="its architecture is another than config.json says; correct it or give "
            "another model",
        )


def load_tokenizer(path: str, owner: str = "reward model") -> Any:
    """Load the tokenizer; where its files are missing, transformers makes an empty one up.

    Raises:
        ModelError: it cannot be loaded, or knows no words.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(
            f"cannot load the {owner}'s tokenizer",
            where=path,
            why=first_line(error),
            next_step="give a folder that holds the model's tokenizer as well as its weights",
        ) from error
    check_vocabulary(tokenizer, owner, path)
    return tokenizer


def longest_conversation(config: Any, tokenizer: Any) -> int:
    """Return the longest conversation, in tokens, that the model and its tokenizer allow."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or UNLIMITED
    if config.model_type in _POSITIONS_BEHIND_PAD:
        positions -= (config.pad_token_id or 0) + 1
    return min(int(positions), int(min(tokenizer.model_max_length, UNLIMITED)))
