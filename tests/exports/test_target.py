"""What an output path means, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bon.errors import OutputError, SettingsError
from bon.exports.folder import MARKER
from bon.exports.formats import choose_format
from bon.exports.target import check_output, target_of

BON = choose_format("bon", "pairs")
FACTORY = choose_format("llama-factory", "pairs")


@pytest.mark.parametrize("name", ["new", "new/", "with.dot/", "there.parquet"])
def test_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "there.parquet").mkdir()
    target = target_of(f"{tmp_path}/{name}", BON)
    assert target.is_folder
    assert target.suffix == ".parquet"
    assert target.name == name.rstrip("/")
    assert target.subfolder("test") == "data"
    assert target_of(tmp_path / "x", FACTORY).subfolder("test") == "test"


def test_files_of_splits(tmp_path: Path) -> None:
    target = target_of(tmp_path / "my.set.jsonl.gz", BON)
    splits = ("train", "test")
    assert not target.is_folder
    assert [target.file(s, splits).name for s in splits] == [
        "my.set.jsonl.gz",
        "my.set.test.jsonl.gz",
    ]
    assert [target.entry_name(s, splits) for s in splits] == ["my.set", "my.set_test"]


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("x.txt", "bon", "cannot tell the file type"),
        ("x.gz", "bon", "cannot tell the file type"),
        ("x.parquet", "ms-swift", "ms-swift does not read .parquet"),
        ("x.csv", "trl-dpo", "does not read .csv"),
        ("x.jsonl.gz", "verl", "does not read .jsonl.gz"),
    ],
)
def test_file_types_are_refused(tmp_path: Path, name: str, form: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        check_output(tmp_path / name, choose_format(form, "pairs"))
    assert caught.value.next_step


def test_what_is_there_already(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    check_output(folder, BON)
    check_output(folder / "deep" / "x.parquet", BON)
    folder.mkdir()
    (folder / ".git").mkdir()
    (folder / f"{MARKER}.1.staging").mkdir()
    check_output(folder, BON)

    (folder / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        check_output(folder, BON)
    (folder / MARKER).write_text('{"made": ["data", "README.md"]}')
    check_output(folder, BON)

    (folder / "data").mkdir()
    (folder / "data" / "train-00000-of-00001.parquet").write_text("x")
    check_output(folder, BON)
    (folder / "data" / "mine.csv").write_text("x")
    with pytest.raises(OutputError, match=r"data/mine\.csv"):
        check_output(folder, BON)


def test_a_name_that_people_took_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text('{"made": ["data"]}')
    (tmp_path / "train").mkdir()
    check_output(tmp_path, BON)
    with pytest.raises(OutputError, match="found train"):
        check_output(tmp_path, FACTORY)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    for output in (tmp_path / "taken", tmp_path / "taken" / "x.parquet"):
        with pytest.raises(OutputError, match="taken is a file, not a folder"):
            check_output(output, BON)


def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write
    with pytest.raises(OutputError, match="no permission"):
        check_output(tmp_path / "x.parquet", BON)


@pytest.mark.parametrize("text", ["not json", "[1]"])
def test_an_index_that_cannot_take_an_entry(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    check_output(tmp_path / "x.parquet", BON)
    with pytest.raises(OutputError, match=r"dataset_info\.json"):
        check_output(tmp_path / "x.parquet", FACTORY)
