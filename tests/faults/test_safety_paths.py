"""Names and ids that look like paths, a hostile pool, and symbolic links.

Forced: they stand in rows, flags, `pool.json` and folders, the real command runs on them, and then
nothing outside of its own places was made, changed or deleted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.terminal import environment

LENGTH = "rule:length?max=2"
PATHS = (
    "../../evil",
    "/tmp/evil-of-bon",
    "..",
    ".",
    "a/b",
    "a\\b",
    "con",
    "~/x",
    "x" * 300,
    "%2e%2e/",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "work"
    folder.mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    rows = [
        {"id": name, "prompt": f"q {n}", "responses": ["a", "aaa"], name: name, "split": name}
        for n, name in enumerate(PATHS)
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def outside(place: Path) -> dict[str, bytes]:
    """Return all files around the place that a command works in."""
    root = place.parents[1]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_relative_to(place)
    }


def made(place: Path, *arguments: object) -> None:
    done = run("score", "in.jsonl", "-r", LENGTH, "--pool", "a.pool", *arguments, cwd=place)
    assert done.returncode == 0, done.stderr


@pytest.mark.faults
def test_ids_and_columns_that_look_like_paths(place: Path) -> None:
    before = outside(place)
    made(place)
    for output in ("best.parquet", "folder", "best.csv"):
        more = ("--train-test-split", "0.5") if output == "folder" else ()
        done = run("select", "a.pool", "-o", output, *more, cwd=place)
        assert done.returncode == 0, done.stderr
    assert outside(place) == before
    assert not Path("/tmp/evil-of-bon").exists()
    names = {path.name for path in place.iterdir()}
    assert names == {"in.jsonl", "a.pool", "best.parquet", "folder", "best.csv"}
    assert {path.name for path in (place / "folder").iterdir()} == {
        "data", "README.md", ".bon-export.json",
    }  # fmt: skip


NAMES = ("../x", "/x", "..", "a/b", "a\x0bb", "-x", " x", "x" * 300, ".x", "a:b")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "../x" else pytest.mark.faults) for n in NAMES],
    ids=lambda n: repr(n)[:12],
)
def test_a_scorers_name_that_looks_like_a_path(name: str, place: Path) -> None:
    before = outside(place)
    done = run("score", "in.jsonl", "-r", f"{name}={LENGTH}", "--pool", "a.pool", cwd=place)
    assert done.returncode in (1, 2), done.stderr
    assert "this is a bug" not in done.stderr
    assert outside(place) == before


@pytest.mark.faults
@pytest.mark.parametrize("name", ["../../../../precious", "..", "/tmp/evil-of-bon", "a/b"])
def test_a_pool_from_elsewhere_whose_scorers_are_paths(name: str, place: Path) -> None:
    made(place)
    manifest = place / "a.pool" / "pool.json"
    said = json.loads(manifest.read_text())
    said["scorers"][name] = next(iter(said["scorers"].values()))
    said.pop("checksum", None)  # as older ones have none; who makes one can make it fit
    manifest.write_text(json.dumps(said))
    before = outside(place)
    for arguments in (
        ("select", "a.pool", "-o", "x.parquet"),
        ("score", "a.pool", "-r", f"new={LENGTH}"),
        ("inspect", "a.pool"),
        ("build-dpo", "a.pool", "-o", "x.jsonl"),
    ):
        done = run(*arguments, cwd=place)
        assert done.returncode == 1, (arguments, done.stderr)
        assert "is no name of a scorer" in done.stderr
    assert outside(place) == before


@pytest.mark.faults
@pytest.mark.parametrize(
    "name", [".bon", ".bon/staging", ".bon/lock", ".bon/worker.log", ".bon/run.log", "scores"]
)
def test_a_pool_from_elsewhere_with_links_that_lead_out(name: str, place: Path) -> None:
    made(place)
    link = place / "a.pool" / name
    if link.is_dir():
        link.rename(place / "aside")
    else:
        link.unlink(missing_ok=True)
    precious = place.parents[1] / "precious"
    link.symlink_to(precious if name in (".bon", ".bon/staging", "scores") else precious / "file")
    before = outside(place)
    done = run("score", "a.pool", "-r", "new=rule:length?max=1", cwd=place)
    assert done.returncode == 1, done.stderr
    assert "symbolic link" in done.stderr
    assert outside(place) == before


@pytest.mark.faults
def test_links_in_an_input_folder(place: Path) -> None:
    made(place)
    done = run("select", "a.pool", "-o", "best.parquet", cwd=place)
    assert done.returncode == 0, done.stderr
    folder = place / "inputs"
    folder.mkdir()
    (folder / "one.parquet").symlink_to(place / "best.parquet")
    (folder / "loop").symlink_to(folder)
    (folder / "endless.parquet").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.parquet")
    before = outside(place)
    done = run("convert", "inputs", "-o", "out.jsonl", "--format", "bon", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output_rows"] == len(PATHS)
    assert outside(place) == before


@pytest.mark.faults
@pytest.mark.parametrize("name", ["../x", "a/../../b", "a/b/c", "a/b\n", "a b/c", "--x/y"])
def test_hub_names_that_are_none(name: str, place: Path) -> None:
    made(place)
    done = run("select", "a.pool", "-o", "out", f"--push-to-hub={name}", cwd=place)
    assert done.returncode == 2, done.stderr
    assert "bad value for --push-to-hub" in done.stderr
    assert not (place / "out").exists()
