"""A folder that is replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bon.errors import OutputError, PoolCorruptError
from bon.exports.folder import MARKER, read_marker, staged_folder


def export(folder: Path, **files: str) -> None:
    """Write `data__x` as data/x."""
    with staged_folder(folder) as staging:
        for name, text in files.items():
            path = staging / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }


def test_all_appears_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    with staged_folder(folder) as staging:
        (staging / "data").mkdir()
        (staging / "data" / "x").write_text("1")
        assert content(folder).keys() == {f"{staging.name}/data/x"}
    assert content(folder) == {"data/x": "1"}
    assert read_marker(folder) == ["data"]
    assert {path.name for path in folder.iterdir()} == {"data", MARKER}


def test_an_earlier_export_goes_what_people_added_stays(tmp_path: Path) -> None:
    export(tmp_path / "out", data__x="1", data__y="1", README="old", index="1")
    folder = tmp_path / "out"
    (folder / "notes.md").write_text("mine")
    export(folder, data__x="2", train__z="2")
    assert content(folder) == {"data/x": "2", "train/z": "2", "notes.md": "mine"}
    assert read_marker(folder) == ["data", "train"]

    export(folder, **{"data__x": "3", "notes.md": "theirs"})
    assert content(folder) == {"data/x": "3", "notes.md": "mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError(), PoolCorruptError("bad")])
def test_a_failing_block_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    export(tmp_path / "out", data__x="1")
    before = content(tmp_path)
    for folder in (tmp_path / "out", tmp_path / "new" / "deep"):
        with pytest.raises(type(error)), staged_folder(folder) as staging:
            (staging / "data").mkdir()
            (staging / "data" / "x").write_text("2")
            raise error
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left") as caught, staged_folder(tmp_path):
        raise OSError(28, "No space left on device")
    assert caught.value.where == str(tmp_path)


def test_killed_between_two_moves_is_mended_by_the_next_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    export(folder, data__x="1", README="1")
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: dies() if to.name == "train" else replace(self, to)
    )

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(folder, train__x="2")
    monkeypatch.undo()
    assert set(read_marker(folder) or []) == {"data", "README", "train"}
    export(folder, data__x="3")
    assert content(folder) == {"data/x": "3"}


def test_what_a_killed_export_left_is_swept(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f"{MARKER}.{pid}.staging" for pid in (2**22 + 1, os.getppid()))
    dead.mkdir()
    alive.mkdir()
    export(tmp_path, data__x="1")
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ('{"made": ["data", "../up", 3, "a/b"]}', ["data"]),
        ('{"made": 3}', []),
        ("[]", None),
        ("{}", None),
        ("no", None),
    ],
)
def test_a_marker_names_only_what_is_in_the_folder(
    tmp_path: Path, text: str, made: list[str] | None
) -> None:
    (tmp_path / MARKER).write_text(text)
    assert read_marker(tmp_path) == made
