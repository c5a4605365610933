"""`bon plan`: flags and pools in, facts as a table and as JSON out, and how right they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, PROMPTS, REWARD, bon
from support.datasets import write_lines
from support.validating import called

from bon.cli import plan  # noqa: F401  (registers the command)

SPEEDS = ("--generate-tokens-per-s", 1000, "--score-tokens-per-s", 5000)
LENGTHS = ("--prompt-tokens", 100, "--mean-response-tokens", 200)


def planned(*arguments: object) -> dict[str, Any]:
    code, stdout, stderr = called("plan", *arguments, "--json")
    assert code == 0, stderr
    return dict(json.loads(stdout))


def refused(*arguments: object) -> str:
    code, stdout, stderr = called("plan", *arguments)
    assert (code, stdout) == (2, "")
    return stderr


def test_a_plan_by_hand() -> None:
    """1,000 × 4 × 200 tokens at 1,000 a second and GPU: 800 s, on two workers of 2 GPUs 200 s."""
    facts = planned(
        "--prompts", 1000, "-n", 4, *LENGTHS, *SPEEDS, "--num-workers", 2, "--gpus-per-worker", 2,
        "--part-size", 100, "--load-s", 10, "--price-per-gpu-hour", 2,
    )  # fmt: skip
    generate, score = facts["stages"]
    assert (generate["num_tokens"], score["num_tokens"]) == (800_000, 1_200_000)
    assert score["num_units"] == 1000 * (100 + 4 * 200)
    assert (generate["units_per_s"], score["units_per_s"]) == (2000, 10_000)
    assert (generate["run_s"], score["run_s"]) == (200, 45)
    assert generate["gpu_hours"] == pytest.approx(800 / 3600)
    in_turn, streaming = facts["placements"]
    first_s = facts["driver"]["read_s"] + facts["driver"]["look_s"]
    assert in_turn["wall_s"] == pytest.approx(200 + 45 + 2 * 10 + first_s)
    assert in_turn["gpu_hours"] == pytest.approx(4 * in_turn["wall_s"] / 3600)
    assert in_turn["price"] == pytest.approx(2 * in_turn["gpu_hours"])
    assert streaming["workers"] == {"generate": 1, "score reward": 1}
    assert facts["pool"]["files_in_a_folder"] == facts["parts"] == 10


def test_gpus_are_workers_times_their_gpus() -> None:
    assert planned("--prompts", 10, *SPEEDS, "--gpus", 8, "--gpus-per-worker", 4)["workers"] == 2
    six = ("--prompts", 10, *SPEEDS, "--gpus", 6)
    assert "makes no whole workers" in refused(*six, "--gpus-per-worker", 4)
    assert "not both" in refused(*six, "--num-workers", 6)


def test_a_prompt_file_is_counted(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "x" * 80}, {"prompt": "y" * 40}, {}])
    facts = planned(source, *SPEEDS, "--mean-response-tokens", 5)
    assert facts["prompts"] == 3
    assert facts["stages"][1]["num_units"] == 3 * (15 + 8 * 5)
    assert "15 tokens on average (4 characters a token" in facts["notes"][0]


@pytest.mark.slow
def test_a_model_counts_the_tokens_of_prompts() -> None:
    facts = planned(PROMPTS, *SPEEDS, "-m", GENERATOR)
    assert facts["prompts"] == 320
    assert f"by the tokenizer of {GENERATOR}" in facts["notes"][0]
    longer = planned(PROMPTS, *SPEEDS, "--prompt-tokens", 10_000)
    assert longer["stages"][1]["num_units"] > facts["stages"][1]["num_units"]


def test_max_tokens_stands_for_a_length_that_nobody_said() -> None:
    facts = planned("--prompts", 10, *SPEEDS, "--max-tokens", 300)
    assert facts["stages"][0]["num_tokens"] == 10 * 8 * 300
    assert any("the most there can be" in note for note in facts["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", 10], "a plan needs speeds"),
        ([*SPEEDS], "a plan needs a number of prompts"),
        ([str(PROMPTS), "--prompts", 10, *SPEEDS], "not both"),
        (["--prompts", 10, *SPEEDS, "-m", "x"], "give the file too"),
        (["--prompts", 10, "--score-tokens-per-s", 0], "nothing would ever be done"),
        (["--from", ".", "--max-tokens", 5], "--max-tokens cannot be given with --from"),
    ],
    ids=["no-speeds", "no-prompts", "two-numbers", "no-file", "no-speed", "lengths-of-a-pool"],
)
def test_what_cannot_be_planned_is_refused(arguments: list[object], message: str) -> None:
    assert message in refused(*arguments)


def test_no_prompts_can_be_planned() -> None:
    facts = planned("--prompts", 0, *SPEEDS)
    assert facts["parts"] == 0
    assert all(stage["run_s"] == 0 for stage in facts["stages"])


def test_the_table_is_the_result(tmp_path: Path) -> None:
    code, stdout, stderr = called("plan", "--prompts", 10**8, *LENGTHS, *SPEEDS, "--gpus", 256)
    assert (code, stderr) == (0, "")
    for text in ("781,250 parts of 128, 256 workers with 1 GPU each", "saved 29 %", "streaming"):
        assert text in stdout


def given(path: Path, num_rows: int) -> Path:
    responses = [f"It is {n}." for n in range(4)]
    rows = [
        {"id": f"q{n}", "prompt": f"What is {n % 97} + {n % 89}?", "responses": responses}
        for n in range(num_rows)
    ]
    return write_lines(path, rows)


@pytest.mark.slow
def test_a_run_of_400_rows_is_predicted_from_one_of_100(tmp_path: Path) -> None:
    """Tokens, files and bytes nearly; seconds within a factor, for the machine may be busy."""
    scorers = ("-r", f"reward={REWARD}", "-r", "length=rule:length?max=600", "--part-size", 16)
    pools = {}
    for num in (100, 400):
        pools[num] = tmp_path / f"{num}.pool"
        source = given(tmp_path / f"{num}.jsonl", num)
        assert (
            bon("score", source, *scorers, "--pool", pools[num], "-q", cwd=tmp_path).returncode == 0
        )
    facts = bon_plan("plan", "--from", pools[100], "--prompts", 400, cwd=tmp_path)
    log = [json.loads(line) for line in (pools[400] / ".bon/run.log").read_text().splitlines()]
    found = {line["name"]: line for line in log if line["event"] == "stage"}
    reward, length = facts["stages"]
    assert reward["num_tokens"] == pytest.approx(found["score reward"]["num_tokens"], rel=0.1)
    assert reward["num_units"] == pytest.approx(
        found["score reward"]["num_tokens_computed"], rel=0.1
    )
    assert (length["unit"], length["num_units"]) == ("candidates", 1600)
    files = [path for path in pools[400].rglob("part-*.parquet") if ".bon" not in path.parts]
    assert facts["pool"]["num_files"] == len(files) + 5
    assert facts["pool"]["num_bytes"] == pytest.approx(
        sum(p.stat().st_size for p in files), rel=0.15
    )
    assert log[-1]["elapsed_s"] / 4 < facts["placements"][0]["wall_s"] < log[-1]["elapsed_s"] * 4


def bon_plan(*arguments: object, cwd: Path) -> dict[str, Any]:
    done = bon(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_prompts_said_to_have_no_tokens_have_none_with_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a few words of a prompt"}\n' * 3)
    speeds = ("--score-tokens-per-s", 100, "--mean-response-tokens", 10, "-n", 2)

    def tokens(*more: object) -> float:
        (stage,) = planned(tmp_path / "in.jsonl", *speeds, *more)["stages"]
        return float(stage["num_tokens"])

    assert tokens("--prompt-tokens", 0) == 3 * 2 * 10 < tokens()
