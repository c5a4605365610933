"""A model's weight files, looked at without reading a weight: all there, none cut off."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "TRAINING_STATE",
    "WEIGHTS",
    "damaged_weights",
    "missing_shards",
    "stale_indices",
    "weight_files",
]

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
TRAINING_STATE = (
    *("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt"),
    "trainer_state.json",
)
"""What training leaves beside a model: no part of it."""
_LOADED = ("model", "pytorch_model")
"""How the names begin of the files that loading reads; others may lie beside them."""
_INDEX = ".index.json"
_LONGEST_HEADER = 100_000_000
"""Bytes that the safetensors format allows a header."""
_LENGTH_BYTES = 8


def weight_files(folder: Path, stem: str = "") -> list[Path]:
    """List a folder's weight files whose names begin with `stem`, those of training left out."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in WEIGHTS and path.name not in TRAINING_STATE and path.name.startswith(stem)
    ]


def missing_shards(folder: Path) -> Iterator[str]:
    """Yield the names of shards that an index lists and that are not there."""
    for index in _indices(folder):
        yield from sorted(name for name in _shards(index) if not (folder / name).is_file())


def stale_indices(folder: Path) -> list[str]:
    """List indices that stand beside one whole file of all weights.

    Transformers reads the one file, vLLM what the index names.
    """
    indices = _indices(folder)
    return [one.name for one in indices if one.with_name(one.name[: -len(_INDEX)]).is_file()]


def damaged_weights(folder: Path, stem: str = "") -> str | None:
    """Return which file of weights is cut off or not what its name says, and why; none: all whole.

    Only headers are read, so bits that flipped in a weight are not seen here. A digest sees them,
    but that of a large file is kept for as long as its size and times stay the same.
    """
    held: dict[str, set[str]] = {}
    for path in _loaded(folder, stem):
        try:
            if path.suffix == ".safetensors":
                held[path.name] = set(_read_header(path))
            elif not _may_be_torch(path):
                raise ValueError("it is cut off, or not what torch.save writes")
        except (OSError, ValueError) as error:
            return f"{path.name}: {error}"
    for index in _indices(folder):
        for shard, names in _shards(index).items():
            lost = sorted(names - held.get(shard, names))
            if lost:
                return f"{shard}: its index says that it holds {lost[0]}, which it does not"
    return None


def _loaded(folder: Path, stem: str) -> list[Path]:
    """List the files of one kind that loading reads: safetensors where there are some."""
    files = [path for path in weight_files(folder, stem) if path.name.startswith(stem or _LOADED)]
    safe = [path for path in files if path.suffix == ".safetensors"]
    return safe or [path for path in files if path.suffix == ".bin"]


def _indices(folder: Path) -> list[Path]:
    # what loads the model reads one kind, and a download may have left the other kinds' files out
    kind = "safetensors" if any(folder.glob("*.safetensors*")) else "bin"
    return sorted(folder.glob(f"*.{kind}{_INDEX}"))


def _shards(index: Path) -> dict[str, set[str]]:
    """Return the names of the tensors of each shard, nothing where the index cannot be read."""
    found: dict[str, set[str]] = {}
    try:
        for tensor, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            found.setdefault(str(shard), set()).add(tensor)  # a number, say, is no file's name
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return {}  # what loads the model says what is wrong with it
    return found


def _read_header(path: Path) -> Mapping[str, Any]:
    """Return what a safetensors file says of its tensors: 8 bytes of length, then JSON.

    Raises:
        ValueError: it is cut off, or no such file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(_LONGEST_HEADER, size - _LENGTH_BYTES):
            raise ValueError(f"it has {size:,} bytes, which end before its header does")
        try:
            header = json.loads(file.read(length))
            tensors = {name: said for name, said in header.items() if name != "__metadata__"}
            end = max((int(said["data_offsets"][1]) for said in tensors.values()), default=0)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError):
            raise ValueError("its header is not that of a safetensors file") from None
    if size != (wanted := _LENGTH_BYTES + length + end):
        raise ValueError(f"it has {size:,} bytes, its header says {wanted:,}")
    return tensors


def _may_be_torch(path: Path) -> bool:
    """Tell whether a file is a zip archive that is whole, or one of before torch 1.6."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return True
        file.seek(0)
        return file.read(1) == b"\x80"
