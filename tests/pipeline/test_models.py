"""From a model's name to a folder, and what is said where there is none."""

from __future__ import annotations

import fnmatch
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bon.config import GenerateSettings
from bon.errors import ModelError, ModelNotFoundError
from bon.generators.vllm import VllmGenerator
from bon.pipeline.models import ResolvedModel, read_config, resolve_adapter, resolve_model
from bon.pipeline.trust import Pickles

MIB = 1 << 20
HEADER = 96
"""Bytes of the header of the weights made here."""
INSTALL = (
    "install an engine: pip install 'bon-cli[vllm]' on a GPU machine, 'bon-cli[cpu]' on Linux "
    "without one, 'bon-cli[transformers]' elsewhere"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of known digests, in a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bon" / "digests.json"


def weights(num_bytes: int) -> bytes:
    """A safetensors file of so many bytes: one tensor of zeros."""
    size = num_bytes - 8 - HEADER
    said = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    return HEADER.to_bytes(8, "little") + json.dumps(said).encode().ljust(HEADER) + bytes(size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the files of a model whose weights are 3 MiB and a bit."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "x"}')
    (folder / "model.safetensors").write_bytes(weights(3 * MIB + 5))
    (folder / "README.md").write_text("about")
    return folder


def digest(folder: Path) -> str:
    return resolve_model(str(folder), None).digest


def change_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def complete(error: ModelError) -> bool:
    return bool(error.what and error.why and error.next_step)


def test_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve_model(str(model), None)
    assert (found.name, found.path) == ("my-model", str(model))
    monkeypatch.chdir(model.parent)
    assert resolve_model("my-model", None) == resolve_model("./my-model/", None) == found


@pytest.mark.parametrize("at", [8 + HEADER, MIB - 1, MIB, 3 * MIB // 2, 2 * MIB, -1])
def test_digest_changes_with_any_byte_of_the_weights(model: Path, at: int) -> None:
    before = digest(model)
    change_byte(model / "model.safetensors", at)
    assert digest(model) != before


@pytest.fixture
def large(model: Path) -> Path:
    """The weights of a model that are large enough for their digest to be kept."""
    file = model / "model.safetensors"
    file.write_bytes(weights(16 * MIB + 1))
    return file


def test_only_large_files_are_kept_in_the_cache(model: Path, cache: Path) -> None:
    digest(model)
    (model / "model.safetensors").write_bytes(weights(16 * MIB))
    digest(model)
    assert not cache.exists()


def test_large_file_is_hashed_once(large: Path, cache: Path) -> None:
    first = digest(large.parent)
    known = json.loads(cache.read_text())
    assert len(known) == 1
    assert digest(large.parent) == first
    cache.write_text(json.dumps(dict.fromkeys(known, "0" * 64)))
    assert digest(large.parent) != first  # the cache was believed
    assert [path.name for path in cache.parent.iterdir()] == ["digests.json"]


def test_large_file_changed_in_its_middle_is_hashed_again(large: Path, cache: Path) -> None:
    first = digest(large.parent)
    times = large.stat()
    change_byte(large, 8 * MIB)
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))  # ctime cannot be set back
    assert digest(large.parent) != first
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null", b"\xff", "[" * 100_000])
def test_damaged_cache_is_replaced(large: Path, cache: Path, content: str | bytes) -> None:
    first = digest(large.parent)
    cache.write_bytes(content.encode() if isinstance(content, str) else content)
    assert digest(large.parent) == first
    assert len(next(iter(json.loads(cache.read_text()).values()))) == 64


def test_damaged_entry_is_not_believed(large: Path, cache: Path) -> None:
    first = digest(large.parent)
    cache.write_text(json.dumps(dict.fromkeys(json.loads(cache.read_text()), 1)))
    assert digest(large.parent) == first


def test_cache_that_cannot_be_written(large: Path, cache: Path) -> None:
    first = digest(large.parent)
    cache.unlink()
    cache.parent.rmdir()
    cache.parent.write_text("a file where the folder would be")
    assert digest(large.parent) == first


def test_cache_lies_under_home(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    digest(large.parent)
    assert (tmp_path / ".cache" / "bon" / "digests.json").is_file()


def test_digest_changes_with_config_size_and_files_but_not_with_name_or_readme(
    model: Path,
) -> None:
    before = digest(model)
    (model / "README.md").write_text("more")
    renamed = model.rename(model.parent / "renamed")
    assert digest(renamed) == before
    (renamed / "chat_template.jinja").write_text("x")
    with_template = digest(renamed)
    change_byte(renamed / "config.json", 3)
    with_config = digest(renamed)
    (renamed / "model.safetensors").write_bytes(weights(MIB))
    assert len({before, with_template, with_config, digest(renamed)}) == 4


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "trainer_state.json"])
def test_digest_does_not_see_what_is_of_the_training_alone(model: Path, name: str) -> None:
    before = digest(model)
    (model / name).write_bytes(b"state of a trainer")
    assert digest(model) == before


def test_digest_of_an_adapter_does_not_see_where_its_base_lies(model: Path) -> None:
    def adapter(content: str) -> str:
        (model / "adapter_config.json").write_text(content)
        return resolve_adapter(str(model)).digest

    first = adapter('{"r": 4, "base_model_name_or_path": "/a", "revision": null}')
    assert adapter('{"base_model_name_or_path": "org/b", "revision": "v2", "r": 4}') == first
    others = {adapter(content) for content in ('{"r": 8}', "{", "[]", "[1]", "")}
    assert len(others | {first}) == 6


def test_folder_without_config(model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match="not a model") as caught:
        digest(model)
    assert caught.value.why == "it has no config.json"
    assert caught.value.where == str(model)
    assert complete(caught.value)


@pytest.mark.parametrize("other", [None, "training_args.bin", "optimizer.pt"])
def test_folder_without_weights(model: Path, other: str | None) -> None:
    (model / "model.safetensors").unlink()
    if other:
        (model / other).write_bytes(b"state of a trainer")
    with pytest.raises(ModelError, match="no weights") as caught:
        digest(model)
    assert caught.value.where == str(model)
    assert complete(caught.value)


def test_missing_shards_are_named(model: Path) -> None:
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    (model / "model.safetensors").rename(model / names[1])
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[2], "d": names[0]}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="incomplete") as caught:
        digest(model)
    assert caught.value.why == f"missing: {names[0]}, {names[2]}"
    assert "copy or download" in caught.value.next_step


@pytest.mark.parametrize("spec", ["./gone", "/nowhere/model", "gpt2", "a/b/c", "~no_one_here/x"])
def test_nothing_there(spec: str) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no model") as caught:
        resolve_model(spec, None)
    assert spec in caught.value.what
    assert caught.value.why == "no such folder, and not a hub id"
    assert complete(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_file_instead_of_a_folder(model: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(str(model / "model.safetensors"), None)
    assert caught.value.why == "it is a file"
    assert complete(caught.value)


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (OSError("offline mode is enabled\nsecond line"), "offline mode is enabled"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_hub_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, why: str
) -> None:
    import huggingface_hub

    def fail(spec: str, **_: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match="cannot get the model 'org/name'") as caught:
        resolve_model("org/name", None)
    assert caught.value.why == why
    assert "HF_TOKEN" in caught.value.next_step


class Hub:
    """`snapshot_download` of one repository, as the hub client filters and keeps files."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.folder, self.files = folder, files
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, spec: str, *, revision: str | None, ignore_patterns: list[str]) -> str:
        self.asked.append((spec, revision))
        for name in self.files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in ignore_patterns):
                continue
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._content(name))
        return str(self.folder)

    def _content(self, name: str) -> bytes:
        if name.endswith(".index.json"):
            return json.dumps({"weight_map": {"w": name.removesuffix(".index.json")}}).encode()
        return {".safetensors": weights(1000), ".bin": b"\x80\x02"}.get(Path(name).suffix, b"{}")

    def fetched(self) -> set[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in found}


UNUSED = (
    *("original/consolidated.00.pth", "original/params.json", "x.pth", "q4.gguf"),
    *("onnx/model.onnx", "tf_model.h5", "flax_model.msgpack"),
)


def test_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    hub = Hub(tmp_path / "0123abc", "config.json", "model.safetensors", "pytorch_model.bin")
    hub.files += UNUSED
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    found = resolve_model("org/name", "main")
    assert (found.name, found.digest, found.path) == ("org/name", "0123abc", str(hub.folder))
    assert hub.asked == [("org/name", "main")]
    assert hub.fetched() == {"config.json", "model.safetensors"}


def test_hub_model_that_has_only_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    hub = Hub(tmp_path / "0123abc", "config.json", "pytorch_model.bin", *UNUSED)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    with pytest.raises(ModelError, match="the model's weights are pickles") as caught:
        resolve_model("org/name", "main")
    assert caught.value.where == "org/name"
    assert "--allow-pickle" in caught.value.next_step
    assert hub.fetched() == {"config.json"}
    resolve_model("org/name", "main", Pickles(are_allowed=True, flag="--allow-pickle"))
    assert hub.fetched() == {"config.json", "pytorch_model.bin"}


def test_hub_model_does_not_miss_the_shards_that_were_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    names = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
    indexes = (f"{name}.index.json" for name in names)
    hub = Hub(tmp_path / "0123abc", "config.json", *names, *indexes)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve_model("org/name", None).digest == "0123abc"
    assert hub.fetched() >= {"model.safetensors", "model.safetensors.index.json"}


def test_missing_bin_shards_are_named(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model-00001-of-00002.bin")
    index = {"weight_map": {"a": "pytorch_model-00002-of-00002.bin"}}
    (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="incomplete") as caught:
        digest(model)
    assert caught.value.why == "missing: pytorch_model-00002-of-00002.bin"


def test_no_hub_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="cannot get the model 'org/name'") as caught:
        resolve_model("org/name", None)
    assert not isinstance(caught.value, ModelNotFoundError)
    assert "huggingface_hub" in caught.value.why
    assert caught.value.next_step == INSTALL


@pytest.mark.parametrize("module", [None, ModuleType("vllm")])
def test_no_vllm(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "vllm", module)
    generator = VllmGenerator(GenerateSettings(), "/model")
    with pytest.raises(ModelError, match="vLLM is not installed or cannot be imported") as caught:
        generator.__enter__()
    assert "vllm" in caught.value.why
    assert caught.value.next_step == INSTALL


def reward(model: Path, **config: Any) -> ResolvedModel:
    content = {"model_type": "x", "architectures": ["XForSequenceClassification"], **config}
    (model / "config.json").write_text(json.dumps(content))
    return resolve_model(str(model), None)


@pytest.mark.parametrize("content", ["{", "[]", b"\xff"])
def test_reward_configuration_that_cannot_be_read(model: Path, content: str | bytes) -> None:
    found = reward(model)
    raw = content.encode() if isinstance(content, str) else content
    (model / "config.json").write_bytes(raw)
    with pytest.raises(ModelError, match="cannot read the reward model's config") as caught:
        read_config(found)
    assert complete(caught.value)


def test_adapter_needs_its_own_config(model: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_adapter(str(model))
    assert caught.value.why == "it has no adapter_config.json"
    (model / "adapter_config.json").write_text("{}")
    assert resolve_adapter(str(model)).name == "my-model"
