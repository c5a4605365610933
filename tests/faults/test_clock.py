"""A clock that goes back, by a week between two runs and by an hour at each look within one.

`time.time` and `time.time_ns` are moved by a `sitecustomize` that both `bon` and its worker load;
files are given dates in the future. Nothing may be decided by the order of such times.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from support.commands import pool_files
from support.system_faults import bon_under

from bon.pipeline.models import resolve_tokenizer

CLOCK = """
import os, time
with open(os.environ["CLOCK_SEEN"], "a") as seen:
    print(os.getpid(), file=seen)
_real, _state = time.time, {"back": float(os.environ["CLOCK_BACK_S"])}
def _time():
    _state["back"] += float(os.environ["CLOCK_STEP_S"])
    return _real() - _state["back"]
time.time, time.time_ns = _time, lambda: int(_time() * 1e9)
"""
WEEK_S = 7 * 24 * 3600
SCORE = "score in.jsonl -r rule:length?max=3 --part-size 2 --pool {}.pool -q"
SELECT = "select {0}.pool -o {0}.jsonl -q"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    write_rows(tmp_path, 4)
    return tmp_path


def write_rows(place: Path, num_rows: int) -> None:
    rows = (f'{{"prompt": "p{n}", "responses": ["a", "b b b"]}}\n' for n in range(num_rows))
    (place / "in.jsonl").write_text("".join(rows))


def run(place: Path, words: str, *, back_s: float = 0, step_s: float = 0) -> None:
    env = {
        "PYTHONPATH": os.pathsep.join([str(place / "clock"), os.environ.get("PYTHONPATH", "")]),
        "CLOCK_SEEN": str(place / "seen"),
        "CLOCK_BACK_S": str(back_s),
        "CLOCK_STEP_S": str(step_s),
    }
    done = bon_under(*words.split(), cwd=place, env=env)
    assert done.returncode == 0, done.stderr


def results(place: Path, name: str) -> dict[str, bytes]:
    pool = {k: v for k, v in pool_files(place / f"{name}.pool").items() if k != "run.log"}
    return {**pool, "best": (place / f"{name}.jsonl").read_bytes()}


@pytest.mark.faults
@pytest.mark.parametrize("step_s", [0, 3600])
def test_back_by_a_week_between_runs_and_by_an_hour_within(place: Path, step_s: float) -> None:
    write_rows(place, 9)
    for words in (SCORE, SELECT):
        run(place, words.format("free"))
    write_rows(place, 4)
    run(place, SCORE.format("p"))
    assert len(set((place / "seen").read_text().split())) > 3, "each bon and its worker"
    for path in [place / "in.jsonl", *(place / "p.pool").rglob("*")]:
        future = time.time() + WEEK_S
        os.utime(path, (future, future))
    write_rows(place, 9)  # its end grew, "before" the parts were made
    for words in (SCORE, SELECT):
        run(place, words.format("p"), back_s=WEEK_S, step_s=step_s)
    assert results(place, "p") == results(place, "free")


def test_a_model_file_changed_within_the_same_size_and_date_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files' digests are cached; the key has the time of change, which no program can set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(17 << 20)
    os.utime(weights, ns=(10**18, 10**18))
    before = resolve_tokenizer(str(model), None).digest
    assert (tmp_path / "cache" / "bon" / "digests.json").exists()
    with weights.open("r+b") as file:
        file.write(b"other")
    os.utime(weights, ns=(10**18, 10**18))
    assert weights.stat().st_mtime_ns == 10**18
    assert resolve_tokenizer(str(model), None).digest != before
