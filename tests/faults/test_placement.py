"""Sampling and scoring side by side, stopped in the middle: either placement goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.commands import bon, bon_stopped, pool_files
from support.damage import assert_nothing_lost, parts_of
from support.server_pool import PART, SCORERS, gated, sampler, write_prompts


@contextmanager
def served() -> Iterator[tuple[list[bool], tuple[str, ...]]]:
    """Serve a model that answers prompts of part 0 alone, until the list says that it may."""
    may = [False]
    with sampler(gated(lambda: may[0])) as flags:
        yield may, (*flags, *SCORERS, *PART, "--max-drops", "100%")


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    ("first", "second"), [("stream", "in-turn"), ("stream", "stream"), ("in-turn", "stream")]
)
def test_stopped_in_the_middle_and_gone_on(
    tmp_path: Path, first: str, second: str, how: signal.Signals
) -> None:
    write_prompts(tmp_path / "in.jsonl")
    pool = tmp_path / "in.pool"
    done = "scores/is" if first == "stream" else "candidates"
    with served() as (may, flags):
        command = ("score", "in.jsonl", *flags)
        stopped = bon_stopped(
            *command, "--placement", first, "--pool", pool, cwd=tmp_path,
            when=(pool / done / "part-00000.parquet").exists, how=how,
        )  # fmt: skip
        assert stopped.returncode == (-9 if how is signal.SIGKILL else 130), stopped.stderr
        assert "Traceback" not in stopped.stderr, stopped.stderr
        assert not (pool / "candidates" / "part-00001.parquet").exists()
        before = parts_of(pool)
        may[0] = True
        for place, placement in ((pool, second), (tmp_path / "whole.pool", "in-turn")):
            again = bon(*command, "--placement", placement, "--pool", place, cwd=tmp_path)
            assert again.returncode == 0, again.stderr
    whole = pool_files(tmp_path / "whole.pool")
    assert pool_files(pool) == whole
    assert_nothing_lost(pool, before, whole)
