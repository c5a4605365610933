"""A folder that is replaced as a whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bon.durable import process_tag
from bon.errors import OutputError, PoolCorruptError
from bon.exports.folder import MARKER, read_marker, staged_folder
from bon.exports.staging import hold, staging_folders


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
        (staged,) = staging_folders(folder, MARKER)
        assert content(folder).keys() == {f"{staged.name}/lock", f"{staged.name}/new/data/x"}
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


OLD = {"data/x": "1", "data/y": "1", "README.md": "1", "index": "1"}
NEW = {"data/z": "2", "README.md": "2", "train/w": "2"}
MINE = {"notes.md": "mine"}
RENAMES = {True: 5, False: 8}
"""By whether it is the first export: two of the marker; data, README.md and train in; else before
that data, README.md and index away."""


def files(content: dict[str, str]) -> dict[str, str]:
    return {name.replace("/", "__"): text for name, text in content.items()}


def with_an_export(folder: Path, *, is_first: bool) -> dict[str, str]:
    """Put an earlier export and a person's file there; return what is there."""
    if not is_first:
        export(folder, **files(OLD))
    folder.mkdir(exist_ok=True)
    (folder / "notes.md").write_text("mine")
    return content(folder)


def assert_whole(folder: Path, *states: dict[str, str]) -> None:
    found = content(folder)
    assert found in states
    made = {name.split("/")[0] for name in found if name not in MINE}
    assert set(read_marker(folder) or []) == made
    assert {path.name for path in folder.iterdir()} - {MARKER} == made | set(MINE)


class Renames:
    """Lets so many renames pass, then fails so many of them."""

    def __init__(self, passed: int, failed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._passed, self._failed, self._replace = passed, failed, Path.replace
        monkeypatch.setattr(Path, "replace", lambda path, to: self(path, to))

    def __call__(self, path: Path, to: Path) -> Path:
        self._passed -= 1
        if self._passed < 0 and self._failed:
            self._failed -= 1
            raise OSError(5, "Input/output error")
        return self._replace(path, to)


@pytest.mark.parametrize(
    ("is_first", "number"), [(is_first, i) for is_first, n in RENAMES.items() for i in range(n)]
)
def test_a_rename_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool, number: int
) -> None:
    folder = tmp_path / "out"
    before = with_an_export(folder, is_first=is_first)
    Renames(number, 1, monkeypatch)
    with pytest.raises(OutputError, match="Input/output error"):
        export(folder, **files(NEW))
    assert_whole(folder, before)
    export(folder, **files(NEW))
    assert_whole(folder, NEW | MINE)


@pytest.mark.parametrize("is_first", [True, False])
def test_undoing_may_fail_too_and_is_done_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    for first in range(1, RENAMES[is_first]):
        for second in range(first + 1):
            folder = tmp_path / f"{first}-{second}"
            before = with_an_export(folder, is_first=is_first)
            for passed in (first, second):
                with monkeypatch.context() as patched:
                    Renames(passed, 99, patched)
                    with pytest.raises(OutputError):
                        export(folder, **files(NEW))
            with pytest.raises(ValueError), staged_folder(folder):
                raise ValueError
            assert_whole(folder, before)


KILLED = """
import os, socket, sys
from pathlib import Path
from bon.exports.folder import staged_folder

folder, number, moment, host, *files = sys.argv[1:]
if host:
    socket.gethostname = lambda: host
left, replace = int(number), Path.replace

def counted(path, to):
    global left
    left -= 1
    if left < 0 and moment == "before":
        os.kill(os.getpid(), 9)
    replace(path, to)
    if left < 0:
        os.kill(os.getpid(), 9)

with staged_folder(Path(folder)) as staging:
    for name in files:
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_text("2")
    Path.replace = counted
"""


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("moment", "host"), [("before", ""), ("after", ""), ("after", "pod-1")])
def test_killed_at_any_rename_the_next_run_finds_one_whole_export(
    tmp_path: Path, moment: str, host: str, is_first: bool
) -> None:
    """Also where the next run is on a machine of another name, as a job's next pod is."""
    for number in range(RENAMES[is_first]):
        folder = tmp_path / str(number)
        before = with_an_export(folder, is_first=is_first)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, folder, str(number), moment, host, *NEW], check=False
        )
        assert killed.returncode == -signal.SIGKILL
        with pytest.raises(ValueError), staged_folder(folder):
            raise ValueError
        is_done = number == RENAMES[is_first] - 1 and moment == "after"
        assert_whole(folder, NEW | MINE if is_done else before)
        export(folder, **files(NEW))
        assert_whole(folder, NEW | MINE)


def staging_of(tag: str) -> str:
    return f"{MARKER}.0123abcd.{tag}.staging"


def test_two_runs_never_move_at_once(tmp_path: Path) -> None:
    with_an_export(tmp_path, is_first=False)
    other = staging_of(process_tag())
    (tmp_path / other / "old").mkdir(parents=True)
    move = {"staging": other, "before": ["data"], "new": ["data"]}
    (tmp_path / MARKER).write_text(json.dumps({"made": ["data"], "move": move}))
    with hold(tmp_path / other) as is_held:
        assert is_held
        before = content(tmp_path)
        with pytest.raises(OutputError, match="another run is writing") as caught:
            export(tmp_path, **files(NEW))
        assert "has ended" in caught.value.next_step
        assert content(tmp_path) == before
    shutil.rmtree(tmp_path / other)  # somebody took it away: there is nothing to undo with
    export(tmp_path, **files(NEW))
    assert content(tmp_path)["data/z"] == "2"


def test_undoing_never_leaves_the_folder(tmp_path: Path) -> None:
    folder, staging = tmp_path / "out", staging_of("0123abcd-1")
    (tmp_path / "mine").write_text("mine")
    (folder / staging).mkdir(parents=True)
    move = {"staging": staging, "before": ["../mine"], "new": ["../mine", 3]}
    (folder / MARKER).write_text(json.dumps({"made": [], "move": move}))
    export(folder, data__x="1")
    assert content(tmp_path) == {"mine": "mine", "out/data/x": "1"}


def test_what_a_killed_export_left_is_swept(tmp_path: Path) -> None:
    dead, alive = tmp_path / staging_of("0123abcd-1"), tmp_path / staging_of("0123abcd-2")
    dead.mkdir()
    alive.mkdir()
    with hold(alive):
        export(tmp_path, data__x="1")
    assert not dead.exists()
    assert alive.exists()


def test_without_locks_a_run_of_this_machine_is_known_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    tags = (process_tag(2**22 + 1), process_tag(os.getppid()), "0123abcd-1")
    dead, alive, elsewhere = (tmp_path / staging_of(tag) for tag in tags)
    for path in (dead, alive, elsewhere):
        path.mkdir()
    monkeypatch.setattr(fcntl, "flock", flock)
    export(tmp_path, data__x="1")
    assert content(tmp_path)["data/x"] == "1"
    assert staging_folders(tmp_path, MARKER) == sorted([alive, elsewhere])


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
