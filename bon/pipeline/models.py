"""From a model's name to a folder on disk and to what identifies its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bon.config import INSTALL_ADVICE
from bon.errors import ModelError, ModelNotFoundError, first_line
from bon.pipeline.trust import NO_PICKLES, Pickles, refuse_modules
from bon.pipeline.weights import (
    TRAINING_STATE,
    WEIGHTS,
    damaged_weights,
    missing_shards,
    stale_indices,
    weight_files,
)

__all__ = [
    "ResolvedModel",
    "local_folder",
    "read_config",
    "resolve_adapter",
    "resolve_model",
    "resolve_reward_model",
    "resolve_tokenizer",
]

_CACHED_ABOVE_BYTES = 16 << 20
_CONTENT = (*WEIGHTS, ".json", ".jinja", ".model", ".txt")
_ADVICE = "give the folder of a model saved with save_pretrained, or a hub id such as org/name"
_AGAIN = "copy or download the whole folder again"
_ADAPTER = "adapter_config.json"
_PLACE_OF_BASE = ("base_model_name_or_path", "revision")
_TEXTS = ("*.json", "*.jinja", "*.model", "*.txt")
_NEVER_FETCHED = ("original/*", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on disk."""

    name: str
    """Hub id, or the folder's own name: where it lies does not change what it is."""
    path: str
    digest: str
    """Commit of a hub model; of a folder, a hash of its files, each of them whole."""


def resolve_model(spec: str, revision: str | None, pickles: Pickles = NO_PICKLES) -> ResolvedModel:
    """Find a whole model: a folder, or a hub id that is downloaded.

    Raises:
        ModelNotFoundError: nothing is there, or the hub does not give it.
        ModelError: the folder has no configuration or no weights, or they are pickles.
    """
    model = _resolve(spec, revision, partial(_download, pickles=pickles))
    _check_files(Path(model.path), "config.json", pickles)
    return model


def resolve_adapter(spec: str, pickles: Pickles = NO_PICKLES) -> ResolvedModel:
    """Find a LoRA adapter: a folder, or a hub id that is downloaded."""
    model = _resolve(spec, None, partial(_download, pickles=pickles))
    _check_files(Path(model.path), _ADAPTER, pickles)
    try:
        said = read_config(model, _ADAPTER)
    except ModelError:
        return model  # what loads it says what is wrong with it
    refuse_modules(said, model.path)
    return model


def resolve_tokenizer(spec: str, revision: str | None) -> ResolvedModel:
    """Find a model whose weights are elsewhere: a folder, or a hub id whose texts are downloaded.

    Raises:
        ModelNotFoundError: nothing is there, or the hub does not give it.
    """
    return _resolve(spec, revision, _download_texts)


def resolve_reward_model(
    spec: str, revision: str | None, pickles: Pickles = NO_PICKLES
) -> tuple[ResolvedModel, ResolvedModel | None]:
    """Find a whole reward model, or the base of a LoRA adapter and the adapter.

    Raises:
        ModelNotFoundError: the model, the adapter or its base is not there.
        ModelError: a folder has no configuration or no weights, they are pickles, or an adapter
            names no base.
    """
    model = _resolve(spec, revision, partial(_download, pickles=pickles))
    folder = Path(model.path)
    if _is_adapter(folder):
        _check_files(folder, _ADAPTER, pickles, "adapter_model")
        return _base_of(model, pickles), model
    _check_files(folder, "config.json", pickles)
    return model, None


def _is_adapter(folder: Path) -> bool:
    """Tell an adapter from a whole model by its weights: trainers leave both configurations."""
    whole = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    is_whole = bool(whole) and (folder / "config.json").is_file()
    return (folder / _ADAPTER).is_file() and not is_whole


def _base_of(adapter: ResolvedModel, pickles: Pickles) -> ResolvedModel:
    config = read_config(adapter, _ADAPTER)
    refuse_modules(config, adapter.path)
    name = config.get("base_model_name_or_path")
    next_step = (
        f"correct base_model_name_or_path in its {_ADAPTER}: a hub id, or a folder, looked for "
        f"from {Path.cwd()}"
    )
    if not isinstance(name, str) or not name:
        raise ModelError(
            "the LoRA adapter names no base model",
            where=adapter.path,
            why=f"its base_model_name_or_path is {name!r}",
            next_step=next_step,
        )
    try:
        return resolve_model(name, config.get("revision"), pickles)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"the LoRA adapter's base model {name!r} is not there",
            where=adapter.path,
            why=error.why,
            next_step=f"{error.next_step}; or {next_step}",
        ) from error


def read_config(
    model: ResolvedModel, name: str = "config.json", owner: str = "reward model"
) -> dict[str, Any]:
    """Read a model's config.json, or its file of another name; messages call the model `owner`.

    Raises:
        ModelError: it is no JSON object.
    """
    try:
        config = json.loads((Path(model.path) / name).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{name} is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot read the {owner}'s configuration",
            where=model.path,
            why=first_line(error),
            next_step="give a folder saved with save_pretrained",
        ) from error
    return config


def local_folder(spec: str) -> Path | None:
    """Return the folder that a spec names, none where it is none: it may be a hub id."""
    folder = _path(spec)
    return folder.resolve() if folder.is_dir() else None


def _path(spec: str) -> Path:
    folder = Path(spec)
    with suppress(RuntimeError):  # ~ of a user that is not there
        folder = folder.expanduser()
    return folder


def _resolve(
    spec: str, revision: str | None, download: Callable[[str, str | None], str]
) -> ResolvedModel:
    folder = local_folder(spec)
    if folder is not None:
        return ResolvedModel(folder.name, str(folder), _digest(folder))
    folder = _path(spec)
    if folder.exists() or spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise ModelNotFoundError(
            f"there is no model {spec!r}",
            where=str(folder.absolute()),
            why="it is a file" if folder.exists() else "no such folder, and not a hub id",
            next_step=_ADVICE,
        )
    path = download(spec, revision)
    return ResolvedModel(spec, path, Path(path).name)


def _download(spec: str, revision: str | None, *, pickles: Pickles) -> str:
    folder = _fetch(spec, revision, ignore_patterns=[*_NEVER_FETCHED, "*.bin"])
    if any(Path(folder).glob("*.safetensors")):
        return folder
    if not pickles.are_allowed:
        raise pickles.refusal(spec, "there are no safetensors")
    return _fetch(spec, revision, ignore_patterns=[*_NEVER_FETCHED])  # an older model


def _download_texts(spec: str, revision: str | None) -> str:
    return _fetch(spec, revision, allow_patterns=[*_TEXTS], ignore_patterns=[*_NEVER_FETCHED])


def _fetch(spec: str, revision: str | None, **patterns: list[str]) -> str:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(
            f"cannot get the model {spec!r}", why=first_line(error), next_step=INSTALL_ADVICE
        ) from error
    try:
        return str(snapshot_download(spec, revision=revision, **patterns))
    except Exception as error:
        # the hub client raises many kinds: no such id, no access, no network
        raise ModelNotFoundError(
            f"cannot get the model {spec!r}",
            why=first_line(error),
            next_step="check the id and the network (HF_TOKEN for a gated model), or " + _ADVICE,
        ) from error


def _check_files(folder: Path, config: str, pickles: Pickles, stem: str = "") -> None:
    if not (folder / config).is_file():
        raise ModelError(
            "this folder is not a model",
            where=str(folder),
            why=f"it has no {config}",
            next_step=_ADVICE,
        )
    missing = list(missing_shards(folder))
    has_weights = bool(weight_files(folder, stem))
    stale = stale_indices(folder) if missing else []
    if stale:
        raise ModelError(
            "the model's weights contradict each other",
            where=str(folder),
            why=f"{stale[0]} names files that are not there ({', '.join(missing)}), but there is "
            "one file of all weights: transformers would read that one, vLLM what the index names",
            next_step=f"remove {stale[0]} where the one file is the model, or copy the whole "
            "folder again",
        )
    if missing or not has_weights:
        raise ModelError(
            "the model has no weights" if not missing else "the model's weights are incomplete",
            where=str(folder),
            why=f"missing: {', '.join(missing)}"
            if missing
            else f"no {stem or '*'}.safetensors or .bin",
            next_step=_AGAIN,
        )
    damage = damaged_weights(folder, stem)
    if damage:
        raise ModelError(
            "the model's weights are damaged", where=str(folder), why=damage, next_step=_AGAIN
        )
    pickles.refuse(folder)


def _digest(folder: Path) -> str:
    """Hash the names and contents of a model's files, those of its training alone left out."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _CONTENT and path.name not in TRAINING_STATE and path.is_file():
            digest = _adapter_digest(path) if path.name == _ADAPTER else _file_digest(path)
            total.update(f"{path.name}\0{digest}\0".encode())
    return total.hexdigest()


def _adapter_digest(path: Path) -> str:
    """Hash what an adapter's configuration says, but not where its base lies: that has a digest of
    its own."""
    content = path.read_bytes()
    with suppress(ValueError, AttributeError, RecursionError):
        said = json.loads(content)
        kept = {key: value for key, value in said.items() if key not in _PLACE_OF_BASE}
        content = json.dumps(kept, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    """Hash a whole file; a large one that has not changed since is not read again."""
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        if stat.st_size <= _CACHED_ABOVE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {path.resolve()}"
        known = _known_digests().get(key)
        if isinstance(known, str):
            return known
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _keep_digest(key, digest)
    return digest


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "bon" / "digests.json"


def _known_digests() -> dict[str, Any]:
    # RuntimeError: no home folder, or JSON nested too deep
    with suppress(OSError, ValueError, RuntimeError):
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _keep_digest(key: str, digest: str) -> None:
    with suppress(OSError, ValueError, RuntimeError):
        file = _cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        known = _known_digests() | {key: digest}  # with what other processes have added since
        try:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
            temporary.replace(file)  # os.replace: whole or not at all
        finally:
            temporary.unlink(missing_ok=True)
