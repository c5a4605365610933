"""The log of runs: lines of JSON, whatever happens to the run or to the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bon.errors import PoolCorruptError
from bon.pool.run_log import RunLog


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_told_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/bon", "select", "p.jsonl", "-n", "8"])
    path = tmp_path / ".bon" / "run.log"
    with RunLog(path) as log:
        log.write("part", stage="generate", part=3, drops={"prompt_too_long": 1})
    start, part, end = lines(path)
    assert start["command"] == "bon select p.jsonl -n 8"
    assert (part["event"], part["part"], part["drops"]) == ("part", 3, {"prompt_too_long": 1})
    assert (end["event"], end["status"]) == ("end", "complete")
    assert start["time"].endswith("+00:00")
    assert 0 <= start["elapsed_s"] <= part["elapsed_s"] <= end["elapsed_s"]


def test_an_error_and_an_interruption_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with pytest.raises(PoolCorruptError), RunLog(path):
        raise PoolCorruptError("bad part", where="part-3", why="its checksum")
    with pytest.raises(KeyboardInterrupt), RunLog(path):
        raise KeyboardInterrupt
    ends = [line for line in lines(path) if line["event"] == "end"]
    assert [end["status"] for end in ends] == ["failed", "interrupted"]
    assert (ends[0]["what"], ends[0]["where"]) == ("bad part", "part-3")
    assert ends[0]["why"] == "its checksum"


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b'{"event": "part", "par')
    with RunLog(path):
        pass
    torn, *rest = path.read_text().splitlines()
    assert torn == '{"event": "part", "par'
    assert [json.loads(line)["event"] for line in rest] == ["start", "end"]


def test_secrets_and_line_feeds_do_not_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-secret-1234")
    monkeypatch.setattr("sys.argv", ["bon", "score", "-r", "server:https://me:canary-pass@host/v1"])
    path = tmp_path / "run.log"
    with RunLog(path) as log:
        log.write("note", text="first\nsecond canary-secret-1234 \x1b[31m")
    assert "canary" not in path.read_text()
    assert "\x1b" not in path.read_text()
    assert len(path.read_text().splitlines()) == 3


def test_quotes_in_what_looks_like_a_secret_leave_it_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bon", "score", "--answer-pattern", 'password="(.*)"'])
    with RunLog(tmp_path / "run.log"):
        pass
    start, _ = lines(tmp_path / "run.log")
    assert start["command"] == "bon score --answer-pattern 'password=\"***\"'"


@pytest.mark.parametrize("place", ["a_file/run.log", "/dev/full"])
def test_where_nothing_can_be_written_the_run_goes_on(tmp_path: Path, place: str) -> None:
    (tmp_path / "a_file").write_text("")
    with RunLog(tmp_path / place) as log:
        log.write("part", part=1)
