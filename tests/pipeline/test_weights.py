"""Files of weights that are cut off or no weights, found without reading a weight."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_models import save_reward

from bon.errors import ModelError
from bon.pipeline.models import resolve_model
from bon.pipeline.weights import damaged_weights

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as transformers saves it."""
    return save_reward(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of its small files, and its weights."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def sharded(folder: Path) -> list[str]:
    """Cut the weights into shards, as transformers does, and return their names."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


def why(folder: Path) -> str:
    with pytest.raises(ModelError, match=r"weights (are|contradict)") as caught:
        resolve_model(str(folder), None)
    assert caught.value.where == str(folder)
    assert caught.value.next_step
    return caught.value.why


def test_what_transformers_saves_is_whole(folder: Path) -> None:
    assert damaged_weights(folder) is None
    assert len(sharded(folder)) > 2
    assert damaged_weights(folder) is None


def test_what_torch_saves_is_whole_until_it_is_cut(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for is_zip in (True, False):  # of before torch 1.6
        file = folder / "pytorch_model.bin"
        torch.save({"w": torch.zeros(99)}, file, _use_new_zipfile_serialization=is_zip)
        assert damaged_weights(folder) is None
    torch.save({"w": torch.zeros(999)}, file)
    file.write_bytes(file.read_bytes()[:-100])
    assert why(folder) == "pytorch_model.bin: it is cut off, or not what torch.save writes"


@pytest.mark.parametrize("kept", [0, 7, 8, 500, -1])
def test_a_file_that_is_cut_off(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert f"{len(whole[:kept]):,} bytes" in why(folder)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_shard_that_is_cut_off_or_gone(folder: Path, number: int) -> None:
    name = sharded(folder)[number]
    file = folder / name
    file.write_bytes(file.read_bytes()[:-10])
    assert why(folder).startswith(f"{name}: it has ")
    file.unlink()
    assert why(folder) == f"missing: {name}"


@pytest.mark.parametrize("shard", [5, None, 1.5, True])
def test_an_index_that_names_no_file(folder: Path, shard: object) -> None:
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    assert why(folder) == f"missing: {shard}"


def test_an_index_beside_one_whole_file_is_named(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert "one file of all weights" in why(folder)
    index.unlink()
    assert resolve_model(str(folder), None).path == str(folder)


def test_a_shard_of_another_model(folder: Path) -> None:
    first, second, *_ = sharded(folder)
    (folder / second).write_bytes((folder / first).read_bytes())
    assert why(folder).startswith(f"{second}: its index says that it holds ")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>rate limited</html>" * 100,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"oops",
        struct.pack("<Q", 7) + b'{"a":1}',
        struct.pack("<Q", 1 << 62) + bytes(100),
    ],
    ids=["html", "list", "no json", "no tensor", "endless"],
)
def test_what_is_no_safetensors_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert why(folder).startswith("model.safetensors: it")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "vocab.bin").write_bytes(b"not weights"),
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"never read"),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"another's"),
        lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps([])),
    ],
)
def test_what_loading_does_not_read_is_not_looked_at(
    folder: Path, change: Callable[[Path], object]
) -> None:
    change(folder)
    assert damaged_weights(folder) is None
