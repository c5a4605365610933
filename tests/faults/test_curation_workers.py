"""`--num-workers` of commands that curate, as a user runs them: stopped, killed, damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import ROOT, pool_files
from support.curated import made_up_pool
from support.processes import are_gone, children

from bon.pool.pool import CANDIDATES, Pool

pytestmark = pytest.mark.faults

_SMALL_GROUPS = (
    "import bon.pipeline.frames, bon.cli.mappers; bon.pipeline.frames._FRAME_ROWS = 8; "
    "bon.cli.mappers.FEWEST_GROUPS = 2; bon.cli.mappers.num_cores = lambda: 3; "
    "from bon.cli.entry import main; main()"
)
"""Groups of a few prompts, so that a small pool has work for several processes."""
_SLOW = ("--filter", r"regex:pattern=^(\w+\s?)*$", "--rank-by", "reward")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", _SMALL_GROUPS, *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return made_up_pool(tmp_path_factory.mktemp("pool") / "a.pool", 60)


@pytest.mark.parametrize(
    "said",
    [
        ("select", "--strategy", "top-k", "--k", "2", "--rank-by", "reward"),
        ("build-dpo", "--strategy", "best-random", "--min-margin", "10%", "--rank-by", "reward"),
        ("filter", "--filter", "exact_dedup:on=response", "--dropped", "dropped.jsonl",
         "--rank-by", "reward"),
    ],
    ids=lambda said: said[0],
)  # fmt: skip
def test_files_and_reports_are_those_of_one_process(
    pool: Pool, tmp_path: Path, said: tuple[str, ...]
) -> None:
    found = []
    for number in (1, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            command(said[0], pool.layout.root, *said[1:], "-o", "out.parquet", "--json", "-v",
                    "--num-workers", number),
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ("curating in 3 processes" in done.stderr) == (number == 3)
        found.append((json.loads(done.stdout), pool_files(folder)))
    assert found[0] == found[1]
    assert found[0][0]["output_rows"] > 5


@pytest.mark.parametrize("is_there", [True, False], ids=["damaged", "missing"])
def test_a_bad_part_is_told_as_by_one_process(tmp_path: Path, is_there: bool) -> None:
    pool = made_up_pool(tmp_path / "a.pool", 60)
    path = pool.layout.part(CANDIDATES, 11)
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(bytes(data))
    if not is_there:
        path.unlink()
    told = []
    for number in (1, 2):
        output = tmp_path / "out.parquet"
        arguments = ("select", pool.layout.root, "--rank-by", "reward", "-o", output)
        done = run(*arguments, "--num-workers", number)
        assert done.returncode == 1
        assert not output.exists()
        told.append(done.stderr)
    assert told[0] == told[1]
    assert ("part-00011.parquet" if is_there else "the first is part 11") in told[0]


@pytest.fixture
def slow(tmp_path: Path) -> Pool:
    """A pool with texts on which a pattern of `_SLOW` works for minutes."""
    return made_up_pool(tmp_path / "a.pool", 30, response="word " * 40 + "!")


def begun(pool: Pool, output: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """Begin to filter with two processes, and return it with those that compute."""
    process = subprocess.Popen(
        command("filter", pool.layout.root, *_SLOW, "-o", output, "--num-workers", 2, "-v"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    end_s = time.monotonic() + 120
    busy: set[int] = set()
    while len(busy) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.1)
        busy = {pid for pid in children(process.pid) if _cpu_s(pid) > 2}
    return process, children(process.pid)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(slow: Pool, tmp_path: Path, how: signal.Signals) -> None:
    process, there = begun(slow, tmp_path / "out.parquet")
    os.kill(process.pid, how)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + how
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert are_gone(there)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pool"]


def test_a_command_that_is_killed_leaves_no_process(slow: Pool, tmp_path: Path) -> None:
    process, there = begun(slow, tmp_path / "out.parquet")
    process.kill()
    process.communicate(timeout=30)
    assert are_gone(there)


def test_a_process_that_is_killed_ends_the_command(slow: Pool, tmp_path: Path) -> None:
    process, there = begun(slow, tmp_path / "out.parquet")
    victim = max(there, key=_cpu_s)
    os.kill(victim, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stdout == ""
    assert "killed by SIGKILL" in stderr
    assert "nothing was written" in stderr
    assert are_gone(there)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pool"]
