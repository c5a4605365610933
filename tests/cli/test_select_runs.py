"""`bon select` end to end: real vLLM, the sample models, real interruptions."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import (
    MODELS,
    PROMPTS,
    SHARED_DATA,
    assert_same_pool,
    bon,
    bon_json,
    bon_stopped,
    pool_files,
)

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
SMALL = (*MODELS, "-n", 4, "--max-tokens", 24, "--limit", 96, "--part-size", 8)
LONG = (*MODELS, "-n", 4, "--max-tokens", 64)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of an uninterrupted run of `SMALL`."""
    folder = tmp_path_factory.mktemp("finished")
    done = bon("select", PROMPTS, *SMALL, "-o", "best.parquet", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_best_of_8_beats_a_random_candidate_by_15_points(tmp_path: Path) -> None:
    result = bon_json(
        "select", PROMPTS, *MODELS, "-n", 8, "--max-tokens", 64, "-o", "b.parquet", cwd=tmp_path
    )

    assert 0.40 <= result["accuracy_random"] <= 0.65
    assert result["accuracy_chosen"] - result["accuracy_random"] >= 0.15
    assert result["lift"] > 0
    assert result["kept_rows"] == result["input_rows"] >= 300


def test_output_row(finished: Path) -> None:
    table = pq.read_table(finished / "best.parquet", page_checksum_verification=True)
    rows = table.to_pylist()
    inputs = [json.loads(line) for line in PROMPTS.read_text().splitlines()[:96]]

    assert [row["prompt_id"] for row in rows] == [row["id"] for row in inputs]
    assert [row["answer"] for row in rows] == [row["answer"] for row in inputs]
    for row, given in zip(rows, inputs, strict=True):
        assert row["prompt"] == given["prompt"]
        assert row["messages"] == [
            {"role": "user", "content": given["prompt"]},
            {"role": "assistant", "content": row["response"]},
        ]
        assert row["num_candidates"] == len(row["rewards"]) == 4
        assert row["reward"] == max(row["rewards"]) == row["rewards"][row["candidate"]]
        assert row["finish_reason"] in ("stop", "length")
        assert 0 < row["num_tokens"] <= 24


def test_second_run_does_no_engine_work_and_gives_the_same_bytes(finished: Path) -> None:
    before = pool_files(finished / "prompts.pool")
    best = (finished / "best.parquet").read_bytes()
    log = (finished / "prompts.pool/.bon/worker.log").stat().st_size

    result = bon_json("select", PROMPTS, *SMALL, "-o", "best.parquet", cwd=finished)

    assert [stage["num_parts_done"] for stage in result["stages"]] == [0, 0]
    assert (finished / "best.parquet").read_bytes() == best
    assert pool_files(finished / "prompts.pool") == before
    assert (finished / "prompts.pool/.bon/worker.log").stat().st_size == log


def test_other_settings_are_refused_by_name(finished: Path) -> None:
    before = pool_files(finished / "prompts.pool")
    other = [*SMALL, "-n", 8, "--seed", 7]

    done = bon("select", PROMPTS, *other, "-o", "best.parquet", cwd=finished)

    assert done.returncode == 2
    assert "num_candidates: 4 -> 8" in done.stderr
    assert "seed: 0 -> 7" in done.stderr
    assert "Traceback" not in done.stderr
    assert pool_files(finished / "prompts.pool") == before


def test_flags_that_a_pool_has_settled_are_refused(finished: Path) -> None:
    done = bon("select", "prompts.pool", "-n", 8, "-r", "x", "-o", "o.parquet", cwd=finished)

    assert done.returncode == 2
    assert "--num-candidates, --reward" in done.stderr
    assert not (finished / "o.parquet").exists()


def test_another_strategy_only_reads_the_pool(finished: Path) -> None:
    before = pool_files(finished / "prompts.pool")

    done = bon_json(
        "select", "prompts.pool", "--strategy", "top-k", "--k", 2, "-o", "two.parquet", cwd=finished
    )

    assert (done["kept_rows"], done["output_rows"], done["stages"]) == (96, 192, [])
    assert pool_files(finished / "prompts.pool") == before


@pytest.mark.parametrize(
    ("kind", "how"),
    [("candidates", signal.SIGKILL), ("scores/reward", signal.SIGKILL),
     ("candidates", signal.SIGTERM), ("candidates", signal.SIGINT)],
)  # fmt: skip
def test_interrupted_run_goes_on_to_the_same_bytes(
    finished: Path, tmp_path: Path, kind: str, how: signal.Signals
) -> None:
    pool = tmp_path / "prompts.pool"
    if kind != "candidates":  # start from all candidates, as an uninterrupted run would have them
        shutil.copytree(finished / "prompts.pool", pool)
        shutil.rmtree(pool / kind)
    command = ("select", PROMPTS, *SMALL, "-o", "best.parquet")

    stopped = bon_stopped(
        *command, cwd=tmp_path, how=how, when=lambda: len(list((pool / kind).glob("*"))) >= 2
    )

    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert stopped.returncode == codes[how]
    assert 2 <= len(list((pool / kind).glob("part-*"))) < 12, "it was stopped in the middle"
    assert not (tmp_path / "best.parquet").exists()

    done = bon(*command, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "best.parquet").read_bytes() == (finished / "best.parquet").read_bytes()
    assert_same_pool(pool, finished / "prompts.pool")


def test_growing_limit_samples_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "prompts.pool", tmp_path / "prompts.pool")
    grown = [*SMALL, "--limit", 100]

    result = bon_json("select", PROMPTS, *grown, "-o", "best.parquet", cwd=tmp_path)

    assert result["input_rows"] == result["kept_rows"] == 100
    assert result["stages"][0]["num_candidates"] == 4 * 4
    old = pq.read_table(finished / "best.parquet")
    assert pq.read_table(tmp_path / "best.parquet").slice(0, 96).equals(old)


def test_bad_rows_are_dropped_by_name_and_the_good_ones_kept(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "prompt": "What is 1 + 2?"}',
        '{"id": "b", "prompt": ',
        '{"id": "a", "prompt": "What is 3 + 4?"}',
        '{"id": "c", "prompt": "  "}',
        json.dumps({"id": "d", "prompt": "word " * 5000}),
        '{"id": "e", "prompt": "What is 5 + 6?", "answer": 11}',
    ]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    command = ("select", "bad.jsonl", *MODELS, "-n", 2, "--max-tokens", 8, "-o", "best.parquet")

    done = bon(*command, "--json", "--max-drops", 3, cwd=tmp_path)

    result = json.loads(done.stdout)
    assert done.returncode == 3
    assert result["drops"] == {
        "duplicate_id": 1, "empty_prompt": 1, "malformed_json": 1, "prompt_too_long": 1,
    }  # fmt: skip
    assert result["input_rows"] == 6
    assert pq.read_table(tmp_path / "best.parquet")["prompt_id"].to_pylist() == ["a", "e"]
    for named in ("bad.jsonl:2", "bad.jsonl:3 id=a", "bad.jsonl:4 id=c", "bad.jsonl:5 id=d"):
        assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    ("name", "num_rows", "columns"),
    [
        ("gsm8k_test.jsonl", 200, {"answer"}),
        ("mt_bench_questions.jsonl", 80, {"category", "turns"}),
    ],
)
def test_real_prompts_load_in_datasets(
    tmp_path: Path, name: str, num_rows: int, columns: set[str]
) -> None:
    import datasets

    result = bon_json("select", SHARED_DATA / name, *LONG, "--limit", 200, cwd=tmp_path)

    assert result["input_rows"] == num_rows
    assert result["kept_rows"] + sum(result["drops"].values()) == num_rows
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / result["output"]), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded.num_rows == result["output_rows"]
    assert columns < set(loaded.column_names)
    message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    assert loaded.features["messages"] == datasets.List(message)
    assert loaded.features["rewards"] == datasets.List(datasets.Value("float32"))
    assert loaded.features["reward"] == datasets.Value("float32")
    assert loaded[0]["messages"][-1] == {"role": "assistant", "content": loaded[0]["response"]}
