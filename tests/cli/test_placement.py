"""`--placement`: what is chosen and why, what is refused; nothing but the order differs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, REWARD, bon_json, pool_files
from support.datasets import write_lines
from support.fakes import FakeGenerator, FakeScorer
from support.server_pool import PART, SCORERS, gated, sampler, write_prompts
from typer.testing import CliRunner

from bon.cli import build_dpo, generate, score, select  # noqa: F401  (registers the commands)
from bon.cli.app import app
from bon.cli.flags import Invocation
from bon.cli.placement import is_streamed
from bon.errors import SettingsError
from bon.pipeline.plans import GenerationPlan, ScoringPlan


@dataclass
class Room:
    """An engine with room for so many models at once."""

    num_models: int
    asked: int = -1

    def why_in_turn(self, num_models: int) -> str | None:
        self.asked = num_models
        return None if num_models <= self.num_models else "there is no room"


def placed(
    engine: Room, scorers: Sequence[str | None], generator: str = "vllm", **flags: Any
) -> bool:
    call = Invocation("in", None, False, False, False, False, flags)
    generation = GenerationPlan(FakeGenerator(), {}, 1, 0, generator)
    scorings = [ScoringPlan("x", FakeScorer(), {}, engine=one) for one in scorers]
    return is_streamed(call, engine, generation, scorings)  # type: ignore[arg-type]


def test_each_model_needs_room_and_what_has_none_does_not() -> None:
    for generator, scorers, num_models in [
        ("vllm", [None], 1),
        ("transformers", ["transformers"], 2),
        ("vllm", ["vllm", None, "transformers", "a vLLM server", "server"], 3),
        ("server", ["vllm"], 1),
        ("server", [None], 0),
    ]:
        room = Room(num_models)
        assert placed(room, scorers, generator, placement="stream")
        assert room.asked == num_models
        if num_models:
            with pytest.raises(SettingsError, match="side by side") as caught:
                placed(Room(num_models - 1), scorers, generator, placement="stream")
            assert f"--num-workers {num_models}" in caught.value.next_step


def test_what_is_chosen_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bon")
    assert not placed(Room(9), [None])
    assert not placed(Room(9), [None], placement="in-turn")
    assert placed(Room(9), [None], placement="stream")
    assert not placed(Room(9), [])
    later, at_once = "scoring begins once all candidates are there: ", "each part is scored as soon"
    said = [one.getMessage() for one in caplog.records]
    assert said[0].startswith(f"{later}on one machine each stage takes all of it")
    assert said[1] == f"{later}it was asked for"
    assert said[2].startswith(at_once)
    assert len(said) == 3, "where nothing is scored there is nothing to say"


@pytest.mark.slow
def test_a_part_is_scored_while_others_are_sampled_and_the_pool_is_the_same(tmp_path: Path) -> None:
    """The server answers no prompt of part 1 and 2 before the scores of part 0 are there."""
    write_prompts(tmp_path / "in.jsonl")
    pool = tmp_path / "stream.pool"
    scores = [pool / f"scores/{name}/part-00000.parquet" for name in ("len", "is")]
    reply = gated(lambda: all(path.exists() for path in scores))
    with sampler(reply) as flags:
        command = (
            "select",
            "in.jsonl",
            *flags,
            *SCORERS,
            *PART,
            "--max-drops",
            "100%",
            "--rank-by",
            "len",
        )
        shown = {
            how: bon_json(
                *command, "--placement", how, "--pool", f"{how}.pool", "-o", f"{how}.jsonl",
                cwd=tmp_path,
            )
            for how in ("stream", "in-turn")
        }  # fmt: skip
    assert pool_files(pool) == pool_files(tmp_path / "in-turn.pool")
    assert (tmp_path / "stream.jsonl").read_bytes() == (tmp_path / "in-turn.jsonl").read_bytes()
    stages = {
        how: [{k: v for k, v in one.items() if not k.endswith("_s")} for one in said["stages"]]
        for how, said in shown.items()
    }
    assert stages["stream"] == stages["in-turn"]
    log = [json.loads(line) for line in (pool / ".bon" / "run.log").read_text().splitlines()]
    parts = [(one["stage"], one["part"]) for one in log if one["event"] == "part"]
    assert parts.index(("score is", 0)) < parts.index(("generate", 1))
    assert len(parts) == 9


@pytest.mark.parametrize("how", ["stream", "in-turn", "auto"])
def test_it_is_refused_where_nothing_is_both_sampled_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "ask.jsonl", [{"prompt": "hi"}])
    write_lines(tmp_path / "in.jsonl", [{"prompt": "hi", "responses": ["a", "b"]}])
    rule = ("-r", "rule:length?max=6", "--placement", how)
    for command in (
        ("generate", "ask.jsonl", "-m", str(GENERATOR), "--placement", how),
        ("generate", "ask.jsonl", "-m", str(GENERATOR), "--placement", how, "--dry-run"),
        ("score", "in.jsonl", *rule),
        ("build-dpo", "in.jsonl", *rule, "-o", "x.jsonl"),
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, (command, done.output)
        assert "--placement does nothing here" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ask.jsonl", "in.jsonl"]


def test_more_models_than_workers_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "ask.jsonl", [{"prompt": "hi"}])
    models = ("-m", str(GENERATOR), "--generator-engine", "transformers", "-r", f"r={REWARD}")
    done = CliRunner().invoke(
        app, ["select", "ask.jsonl", *models, "--placement", "stream", "-o", "x.jsonl"]
    )
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "2 models side by side need a worker each, here is room for 1 worker" in said
    assert "give --num-workers 2 or more, or --placement in-turn" in said
    assert not (tmp_path / "x.pool" / "pool.json").exists()
