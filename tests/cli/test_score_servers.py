"""`bon score -r server:…` as a user runs it: servers and runs that die, and what is told of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import REWARD, ROOT, assert_same_pool, bon, bon_json, bon_stopped
from support.servers import FakeServer, ServerProcess, Sglang, free_port, sglang_process

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

NUM_PROMPTS, NUM_PARTS = 60, 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 prompts with 4 responses each, 20 of them equal to another."""
    path = tmp_path_factory.mktemp("source") / "answers.jsonl"
    rows = [
        {
            "prompt": f"What is {n} + {n}?",
            "responses": [str(2 * n), "no", f"it is {2 * n}", "?" * n],
        }
        for n in range(NUM_PROMPTS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool of a run in which nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with FakeServer(Sglang(str(REWARD))) as server:
        done = bon_json(*arguments(source, server.url, folder / "pool"), cwd=folder)
    assert done["stages"][0]["retries"] == {}
    assert done["stages"][0]["num_candidates"] == 4 * NUM_PROMPTS
    return folder / "pool"


def arguments(source: Path, url: str, pool: Path) -> list[object]:
    more = ["--part-size", NUM_PROMPTS // NUM_PARTS, "--server-concurrency", "2"]
    return ["score", source, "-r", f"server:{url}", "--pool", pool, *more]


def parts(pool: Path) -> list[Path]:
    return sorted((pool / "scores" / "server").glob("*.parquet"))


def some_parts(pool: Path) -> Callable[[], bool]:
    return lambda: len(parts(pool)) >= 3


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that takes its time and is busy on every third request."""
    flags = ("--delay-s", "0.1", "--busy-every", "3")
    with sglang_process(tmp_path, str(REWARD), *flags) as started:
        yield started


def test_a_server_killed_and_started_again_changes_nothing(
    source: Path, undisturbed: Path, slow: ServerProcess, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    seen = []

    def disturb() -> None:
        while len(parts(pool)) < 3:
            time.sleep(0.01)
        slow.kill()
        time.sleep(1.0)
        seen.append(len(parts(pool)))
        slow.start()

    thread = threading.Thread(target=disturb)
    thread.start()
    done = bon(*arguments(source, slow.url, pool), "--json", cwd=tmp_path)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert 3 <= seen[0] < NUM_PARTS
    assert_same_pool(pool, undisturbed)
    retries = json.loads(done.stdout)["stages"][0]["retries"]
    assert retries["connection"] >= 1
    assert retries["429"] >= NUM_PARTS // 2
    assert f"429 ×{retries['429']}, connection ×{retries['connection']}" in done.stderr
    log = "".join(path.read_text() for path in (pool / ".bon").glob("*log*"))
    assert f"asked again {sum(retries.values())} times: 429 ×{retries['429']}" in log


def test_a_run_killed_with_its_server_goes_on_with_the_same_command(
    source: Path, undisturbed: Path, slow: ServerProcess, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    command = arguments(source, slow.url, pool)
    bon_stopped(*command, cwd=tmp_path, when=some_parts(pool), how=signal.SIGKILL)
    committed = {path: path.stat().st_mtime_ns for path in parts(pool)}
    assert 3 <= len(committed) < NUM_PARTS
    slow.kill()
    gone = bon(*command, "--server-patience-s", "1", cwd=tmp_path)
    assert gone.returncode == 1
    assert "the model server does not answer" in gone.stderr
    assert slow.url in gone.stderr
    assert "start it" in gone.stderr
    slow.start()
    done = bon_json(*command, cwd=tmp_path)
    assert_same_pool(pool, undisturbed)
    assert done["stages"][0]["num_parts_done"] == NUM_PARTS - len(committed)
    assert {path: path.stat().st_mtime_ns for path in committed} == committed


def test_every_candidate_has_one_score(undisturbed: Path) -> None:
    rows = [row for path in parts(undisturbed) for row in pq.read_table(path).to_pylist()]
    keys = Counter((row["prompt_id"], row["candidate"]) for row in rows)
    assert len(keys) == 4 * NUM_PROMPTS
    assert set(keys.values()) == {1}
    assert all(row["score"] is not None for row in rows)


def test_neither_address_nor_key_nor_path_is_kept(undisturbed: Path) -> None:
    kept = (undisturbed / "pool.json").read_text()
    assert "127.0.0.1" not in kept
    assert str(ROOT) not in kept
    assert json.loads(kept)["scorers"]["server"]["spec"] == f"server:{REWARD.name}"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["-r", "rule:exact", "--server-concurrency", "3"], "none of the scorers is"),
        (["-r", "server:http://h:1", "--reward-dtype", "float32"], "does nothing here"),
        (["-r", "server:http://h:1?tokeniser=x"], "did you mean 'tokenizer'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_a_dry_run_too(
    source: Path, tmp_path: Path, flags: list[str], told: str
) -> None:
    done = bon("score", source, "--dry-run", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_dry_run_asks_no_server(source: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = bon("score", source, "--dry-run", "-r", f"server:{url}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"with server:{url} as server" in done.stdout


def test_help_needs_no_http_client() -> None:
    code = "import sys, bon.cli.plans; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert {"httpx", "tenacity"}.isdisjoint(modules.split())
