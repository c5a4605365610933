"""From a model's name to a folder, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bon.errors import ModelError, ModelNotFoundError
from bon.pipeline.models import resolve_adapter, resolve_model

MIB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the files of a model whose weights are 3 MiB and a bit."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "x"}')
    (folder / "model.safetensors").write_bytes(bytes(3 * MIB + 5))
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


@pytest.mark.parametrize("at", [0, MIB - 1, -1, -MIB])
def test_digest_changes_with_a_weight_in_the_first_or_last_mib(model: Path, at: int) -> None:
    before = digest(model)
    change_byte(model / "model.safetensors", at)
    assert digest(model) != before


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
    with (renamed / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert len({before, with_template, with_config, digest(renamed)}) == 4


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

    def fail(spec: str, revision: str | None) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match="cannot get the model 'org/name'") as caught:
        resolve_model("org/name", None)
    assert caught.value.why == why
    assert "HF_TOKEN" in caught.value.next_step


def test_hub_model_is_known_by_its_commit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []
    commit = model.rename(model.parent / "0123abc")

    def download(spec: str, revision: str | None) -> str:
        asked.append((spec, revision))
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = resolve_model("org/name", "main")
    assert (found.name, found.digest, found.path) == ("org/name", "0123abc", str(commit))
    assert asked == [("org/name", "main")]


def test_adapter_needs_its_own_config(model: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_adapter(str(model))
    assert caught.value.why == "it has no adapter_config.json"
    (model / "adapter_config.json").write_text("{}")
    assert resolve_adapter(str(model)).name == "my-model"
