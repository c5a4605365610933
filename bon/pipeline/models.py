"""From a model's name to a folder on disk and to what identifies its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bon.errors import ModelError, ModelNotFoundError, first_line

__all__ = ["ResolvedModel", "resolve_adapter", "resolve_model"]

_SAMPLE_BYTES = 1 << 20
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_TRAINING_STATE = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt")
_CONTENT = (*_WEIGHTS, ".json", ".jinja", ".model", ".txt")
_ADVICE = "give the folder of a model saved with save_pretrained, or a hub id such as org/name"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on disk."""

    name: str
    """Hub id, or the folder's own name: where it lies does not change what it is."""
    path: str
    digest: str
    """Commit of a hub model; of a folder, a hash of its files (of large ones: size and ends)."""


def resolve_model(spec: str, revision: str | None) -> ResolvedModel:
    """Find a whole model: a folder, or a hub id that is downloaded.

    Raises:
        ModelNotFoundError: nothing is there, or the hub does not give it.
        ModelError: the folder has no configuration or no weights.
    """
    model = _resolve(spec, revision)
    _check_files(Path(model.path), "config.json")
    return model


def resolve_adapter(spec: str) -> ResolvedModel:
    """Find a LoRA adapter: a folder, or a hub id that is downloaded."""
    model = _resolve(spec, None)
    _check_files(Path(model.path), "adapter_config.json")
    return model


def _resolve(spec: str, revision: str | None) -> ResolvedModel:
    folder = Path(spec)
    with suppress(RuntimeError):  # ~ of a user that is not there
        folder = folder.expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return ResolvedModel(folder.name, str(folder), _digest(folder))
    if folder.exists() or spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise ModelNotFoundError(
            f"there is no model {spec!r}",
            where=str(folder.absolute()),
            why="it is a file" if folder.exists() else "no such folder, and not a hub id",
            next_step=_ADVICE,
        )
    path = _download(spec, revision)
    return ResolvedModel(spec, path, Path(path).name)


def _download(spec: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(spec, revision=revision))
    except Exception as error:
        # the hub client raises many kinds: no such id, no access, no network
        raise ModelNotFoundError(
            f"cannot get the model {spec!r}",
            why=first_line(error),
            next_step="check the id and the network (HF_TOKEN for a gated model), or " + _ADVICE,
        ) from error


def _check_files(folder: Path, config: str) -> None:
    if not (folder / config).is_file():
        raise ModelError(
            "this folder is not a model",
            where=str(folder),
            why=f"it has no {config}",
            next_step=_ADVICE,
        )
    missing = list(_missing_shards(folder))
    has_weights = any(
        path.suffix in _WEIGHTS and path.name not in _TRAINING_STATE for path in folder.iterdir()
    )
    if missing or not has_weights:
        raise ModelError(
            "the model has no weights" if not missing else "the model's weights are incomplete",
            where=str(folder),
            why=f"missing: {', '.join(missing)}" if missing else "no .safetensors or .bin file",
            next_step="copy or download the whole folder again",
        )


def _missing_shards(folder: Path) -> Iterator[str]:
    for index in sorted(folder.glob("*.index.json")):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            continue
        yield from sorted(name for name in names if not (folder / name).is_file())


def _digest(folder: Path) -> str:
    """Hash a model's files: small ones whole, large ones by size, first and last MiB."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in _CONTENT or not path.is_file():
            continue
        size = path.stat().st_size
        total.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            total.update(file.read(_SAMPLE_BYTES))
            if size > _SAMPLE_BYTES:
                file.seek(max(_SAMPLE_BYTES, size - _SAMPLE_BYTES))
                total.update(file.read(_SAMPLE_BYTES))
    return total.hexdigest()
