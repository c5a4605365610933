"""`--placement`: what is chosen and why, what is refused; nothing but the order differs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, MODELS, PROMPTS, REWARD, bon_json, pool_files
from support.datasets import write_lines
from support.fakes import FakeGenerator, FakeScorer
from support.server_pool import PART, SCORERS, gated, sampler, write_prompts
from typer.testing import CliRunner

from bon.cli import build_dpo, generate, score, select  # noqa: F401  (registers the commands)
from bon.cli.app import app
from bon.cli.flags import Invocation
from bon.cli.placement import is_streamed, refuse_no_room
from bon.errors import SettingsError
from bon.pipeline.plans import GenerationPlan, ScoringPlan
from bon.protocols import Needs


@dataclass
class Room:
    """An engine that has room for stages side by side, or says why it has none."""

    why: str | None = None
    asked: Sequence[Needs] = ()

    def why_in_turn(self, needs: Sequence[Needs]) -> str | None:
        self.asked = needs
        return self.why


def placed(
    room: Room, scorers: Sequence[str | None], generator: str = "vllm", **flags: Any
) -> bool:
    call = Invocation("in", None, False, False, False, False, flags)
    generation = GenerationPlan(FakeGenerator(), {}, 1, 0, generator)
    scorings = [ScoringPlan("x", FakeScorer(), {}, engine=one) for one in scorers]
    refuse_no_room(call, room, generation, scorings)  # type: ignore[arg-type]
    return is_streamed(call, room, generation, scorings)  # type: ignore[arg-type]


def test_each_model_needs_room_and_what_has_none_does_not() -> None:
    for generator, scorers, has_model in [
        ("vllm", [None], [True, False]),
        ("transformers", ["transformers"], [True, True]),
        ("vllm", ["vllm", None, "a vLLM server", "server"], [True, True, False, False, False]),
        ("server", ["vllm"], [False, True]),
    ]:
        room = Room()
        assert placed(room, scorers, generator, placement="stream")
        assert [one.has_model for one in room.asked] == has_model
    with pytest.raises(SettingsError, match="side by side") as caught:
        placed(Room("there is no room"), ["vllm"], placement="stream")
    assert caught.value.why == "there is no room"


def test_what_is_chosen_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bon")
    assert not placed(Room(), [None])
    in_turn = Room()
    assert not placed(in_turn, [None], placement="in-turn")
    assert not in_turn.asked, "no cluster is looked at"
    assert placed(Room(), [None], placement="stream")
    assert not placed(Room(), [])
    later, at_once = "scoring begins once all candidates are there: ", "each part is scored as soon"
    assert placed(Room(), [None], engine="ray")
    assert not placed(Room("there is no room"), [None], engine="ray")
    said = [one.getMessage() for one in caplog.records]
    assert said[0].startswith(f"{later}on one machine each stage takes all of it")
    assert said[1] == f"{later}it was asked for"
    assert said[2].startswith(at_once)
    assert said[3] == f"{at_once} as it is sampled: the cluster has room for all stages"
    assert said[4] == f"{later}there is no room"
    assert len(said) == 5, "where nothing is scored there is nothing to say"


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


def test_models_side_by_side_that_the_machine_has_no_room_for_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_lines(tmp_path / "ask.jsonl", [{"prompt": "hi"}])
    models = ("-m", str(GENERATOR), "--generator-engine", "transformers", "-r", f"r={REWARD}")
    flags = ("--placement", "stream", "--cpus-per-worker", str(len(os.sched_getaffinity(0))))
    done = CliRunner().invoke(app, ["select", "ask.jsonl", *models, *flags, "-o", "x.jsonl"])
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "sampling and scoring cannot run side by side here" in said
    assert "2 workers with" in said
    assert not (tmp_path / "x.pool" / "pool.json").exists()


@pytest.mark.slow
def test_two_models_side_by_side_make_the_pool_of_one_after_the_other(tmp_path: Path) -> None:
    lines = PROMPTS.read_text().splitlines()[:6]
    (tmp_path / "in.jsonl").write_text("".join(f"{line}\n" for line in lines))
    flags = ("--generator-engine", "transformers", "--scorer-engine", "transformers", "-n", 2)
    for how in ("stream", "in-turn"):
        bon_json(
            "score", "in.jsonl", *MODELS, *flags, "--max-tokens", 8, "--part-size", 2,
            "--cpus-per-worker", 1, "--placement", how, "--pool", f"{how}.pool", cwd=tmp_path,
        )  # fmt: skip
    assert pool_files(tmp_path / "stream.pool") == pool_files(tmp_path / "in-turn.pool")
