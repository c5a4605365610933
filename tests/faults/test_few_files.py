"""Too few file descriptors: success, or an error that says which limit to raise, and no damage."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from support.commands import bon, pool_files
from support.fakes import Run, prompt
from support.system_faults import bon_under

NUM_PARTS = 150


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of many parts, an input and what comes of both."""
    folder = tmp_path_factory.mktemp("files")
    Run([prompt(n) for n in range(NUM_PARTS)], part_size=1).scores(folder / "p.pool")
    rows = "".join(f'{{"prompt": "p{n}", "responses": ["a", "b b"]}}\n' for n in range(20))
    (folder / "in.jsonl").write_text(rows)
    for words in COMMANDS.values():
        done = bon(*words.format("free").split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


COMMANDS = {
    "select": "select p.pool -o {0}.jsonl -q",
    "folder": "select p.pool -o {0}-out -q",
    "filter": "filter p.pool --dedup near -o {0}.f.jsonl --dropped {0}.dropped.jsonl -q",
    "given": "score in.jsonl -r rule:length?max=3 --part-size 2 --pool {0}.pool -q",
}


def results(place: Path, name: str) -> dict[str, bytes]:
    found = {}
    for path in sorted(place.glob(f"{name}*")):
        inside = pool_files(path) if path.is_dir() else {"": path.read_bytes()}
        rest = path.name.removeprefix(name)
        found |= {f"{rest}/{one}": data for one, data in inside.items() if one != "run.log"}
    return found


@pytest.mark.faults
@pytest.mark.parametrize(
    ("command", "most"),
    [(command, most) for command in COMMANDS for most in (8, 12, 14, 18, 24, 64)],
)
def test_few_descriptors(place: Path, command: str, most: int) -> None:
    name = f"{command}-{most}"
    words = COMMANDS[command].format(name).split()
    done = bon_under(*words, cwd=place, limits={resource.RLIMIT_NOFILE: most})
    if done.returncode != 0:
        assert done.returncode == 1, done.stderr
        assert most <= 24
        assert "Too many open files" in done.stderr
        assert "ulimit -n" in done.stderr
        assert "bug in bon" not in done.stderr
        assert "--repair" not in done.stderr, "nothing is damaged"
        again = bon(*words, cwd=place)
        assert again.returncode == 0, again.stderr
    free, found = results(place, "free"), results(place, name)
    assert found
    for path, data in found.items():
        assert path.endswith("README.md") or free[path] == data  # a card quotes the command
