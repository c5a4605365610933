"""Which files of a folder are the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_families import Files, write_tensors

from bon.errors import ModelError
from bon.scorers.families.loading import read_tensors

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

NAMES = ["a.weight", "a.bias", "b.weight", "c.weight"]
KINDS: list[Files] = ["safetensors", "sharded safetensors", "bin", "sharded bin"]


def tensors(value: float, names: list[str] = NAMES) -> dict[str, Any]:
    return {name: torch.full((2,), value) for name in names}


def values(folder: Path, pattern: str = ".*") -> dict[str, float]:
    return {name: float(tensor[0]) for name, tensor in read_tensors(str(folder), pattern).items()}


@pytest.mark.parametrize("files", KINDS)
def test_tensors_are_found_by_their_whole_names(files: Files, tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors(1.0), files)
    assert values(tmp_path) == dict.fromkeys(NAMES, 1.0)
    assert values(tmp_path, r"a\..*") == {"a.weight": 1.0, "a.bias": 1.0}
    assert values(tmp_path, "weight") == {}


@pytest.mark.parametrize("files", ["sharded safetensors", "sharded bin"])
def test_a_shard_that_is_not_in_the_index_is_not_read(files: Files, tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors(1.0), files)
    old = tmp_path / "old"
    old.mkdir()
    write_tensors(old, tensors(2.0, ["a.weight", "z.weight"]), files)
    stem, end = ("model", "safetensors") if "safe" in files else ("pytorch_model", "bin")
    for number in (1, 2):  # what a longer checkpoint left behind in the folder
        (old / f"{stem}-0000{number}-of-00003.{end}").rename(
            tmp_path / f"{stem}-0000{number + 3}-of-00005.{end}"
        )
    assert values(tmp_path) == dict.fromkeys(NAMES, 1.0)


def test_one_file_is_the_whole_checkpoint_as_for_transformers(tmp_path: Path) -> None:
    for files in reversed(KINDS):
        write_tensors(tmp_path, tensors(float(KINDS.index(files))), files)
    assert set(values(tmp_path).values()) == {0.0}
    (tmp_path / "model.safetensors").unlink()
    assert set(values(tmp_path).values()) == {1.0}
    for file in tmp_path.glob("model*"):
        file.unlink()
    assert set(values(tmp_path).values()) == {2.0}


def test_shards_without_an_index_are_all_read(tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors(1.0), "sharded safetensors")
    (tmp_path / "model.safetensors.index.json").unlink()
    assert values(tmp_path) == dict.fromkeys(NAMES, 1.0)


def test_files_of_the_old_format_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save(tensors(1.0), file, _use_new_zipfile_serialization=False)
    assert values(tmp_path) == dict.fromkeys(NAMES, 1.0)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot load the reward model"):
        values(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", json.dumps({"weight_map": {"a": "lost"}})])
def test_a_damaged_index_is_refused(index: str, tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors(1.0), "sharded safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match="cannot load the reward model") as caught:
        values(tmp_path)
    assert caught.value.where == str(tmp_path)
