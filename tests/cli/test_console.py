"""Lines about a stage where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from bon.cli.app import guarded
from bon.cli.console import StageProgress, note
from bon.errors import InputError
from bon.protocols import PartDone, Progress, Ready, Restarted

Tick = Callable[[float], None]


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Tick:
    """Stop the clock of the console; calling this moves it on."""
    now_s = [1000.0]
    monkeypatch.setattr("bon.cli.console.time.monotonic", lambda: now_s[0])

    def move(seconds: float) -> None:
        now_s[0] += seconds

    return move


def _run(progress: StageProgress, tick: Tick, stage: str, num_parts: int, part_s: float) -> None:
    progress(stage, num_parts, Ready(2.0))
    for part in range(num_parts):
        tick(part_s)
        progress(stage, num_parts, Progress(num_tokens=20_000))
        progress(stage, num_parts, PartDone(part))


def test_a_line_a_minute_and_one_at_the_end(tick: Tick, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(quiet=False) as progress:
        _run(progress, tick, "generate", 8, 20.0)
        _run(progress, tick, "score reward", 2, 1.0)
    assert capsys.readouterr().err.splitlines() == [
        "generate: 8 parts to do",
        "generate: ready after 2 s",
        "generate: 2/8 parts, 1,000 tokens/s, about 3 min left",
        "generate: 5/8 parts, 1,000 tokens/s, about 72 s left",
        "generate: 8/8 parts, 1,000 tokens/s",
        "score reward: 2 parts to do",
        "score reward: ready after 2 s",
        "score reward: 2/2 parts, 20,000 tokens/s",
    ]


def test_stages_side_by_side_have_lines_of_their_own(
    tick: Tick, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress(quiet=False) as progress:
        progress("generate", 2, Ready(2.0))
        for part in range(2):
            tick(70.0)
            progress("generate", 2, Progress(num_tokens=7_000))
            progress("generate", 2, PartDone(part))
            if part == 0:
                progress("score reward", 2, Ready(1.0))
            tick(1.0)
            progress("score reward", 2, Progress(num_tokens=1_000))
            progress("score reward", 2, PartDone(part))
    assert capsys.readouterr().err.splitlines() == [
        "generate: 2 parts to do",
        "generate: ready after 2 s",
        "generate: 0/2 parts, 100 tokens/s",
        "score reward: 2 parts to do",
        "score reward: ready after 1 s",
        "generate: 1/2 parts, 99 tokens/s, about 2 min left",
        "generate: 2/2 parts, 99 tokens/s",
        "score reward: 1/2 parts, 28 tokens/s, about 72 s left",
        "score reward: 2/2 parts, 28 tokens/s",
    ]


def test_a_worker_that_starts_again_counts_its_own_tokens_and_each_part_once(
    tick: Tick, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress(quiet=False) as progress:
        progress("generate", 2, Ready(2.0))
        tick(10.0)
        progress("generate", 2, Progress(num_tokens=20_000))
        progress("generate", 2, PartDone(0))
        progress("generate", 2, Ready(2.0))
        tick(10.0)
        progress("generate", 2, PartDone(0))
        progress("generate", 2, Progress(num_tokens=10_000))
        progress("generate", 2, PartDone(1))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "generate: ready after 2 s",
        "generate: 2/2 parts, 1,000 tokens/s",
    ]


def test_a_part_that_takes_an_hour_has_its_line_a_minute(
    tick: Tick, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress(quiet=False) as progress:
        progress("score reward", 2, Ready(1.0))
        for _ in range(120):
            tick(1.0)
            progress("score reward", 2, Progress())
    lines = capsys.readouterr().err.splitlines()
    assert lines[2:] == ["score reward: 0/2 parts"] * 2


def test_a_lost_worker_is_told(tick: Tick, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(quiet=False) as progress:
        progress("generate", 1, Restarted("killed by SIGSEGV", "starting it again"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == ("generate: the model's process was lost (killed by SIGSEGV); starting it again")


def test_what_reads_no_tokens_is_counted_in_candidates(
    tick: Tick, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress(quiet=False) as progress:
        progress("score rule-math", 1, Ready(0.0))
        tick(10.0)
        progress("score rule-math", 1, Progress(num_candidates=2_000))
        progress("score rule-math", 1, PartDone(0))
    assert capsys.readouterr().err.splitlines() == [
        "score rule-math: 1 part to do",
        "score rule-math: ready after 0 s",
        "score rule-math: 1/1 parts, 200 candidates/s",
    ]


def test_quiet(tick: Tick, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(quiet=True) as progress:
        _run(progress, tick, "generate", 8, 40.0)
    assert capsys.readouterr().err == ""


def test_an_error_that_quotes_the_input_cannot_speak_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def body() -> None:
        raise InputError("bad row", where="x.jsonl:1: id=\x1b[2J", why="it is so")

    with pytest.raises(typer.Exit):
        guarded(body, False)
    note("read \x1b]0;pwn\x07")
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\x07" not in shown
    assert "error: bad row\n  where: x.jsonl:1: id=" in shown
