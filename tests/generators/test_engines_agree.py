"""vLLM in this process and behind its server, and transformers: they give the same candidates."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import vllm_worker
from support.commands import GENERATOR, PROMPTS, assert_same_pool, bon_json, bon_stopped
from support.servers import ServerProcess, vllm_process
from support.vllm_worker import Worker

from bon.cli.plans.generators import generation_plan
from bon.config import GenerateSettings
from bon.records import Candidate, GenerationRequest, GenerationResult

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CONTEXT = int(vllm_worker.ENGINE["max_model_len"])
NUM_PROMPTS = 40


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Worker]]:
    """Both start at once: each takes a while."""
    folder = tmp_path_factory.mktemp("engines")
    flags = ("--no-enable-chunked-prefill", "--max-model-len", str(CONTEXT))
    with ThreadPoolExecutor(1) as pool, Worker(folder / "log") as worker:
        started = pool.submit(worker.ask, vllm_worker.start, GENERATOR)
        with vllm_process(folder, GENERATOR, *flags) as server:
            started.result()
            yield server, worker


def requests(n: int = 4) -> list[GenerationRequest]:
    rows = [json.loads(line) for line in PROMPTS.read_text().splitlines()[:NUM_PROMPTS]]
    return [
        GenerationRequest(
            f"p{number}", ({"role": "user", "content": row["prompt"]},), n, 2**40 + 100 * number
        )
        for number, row in enumerate(rows)
    ]


def sample(asked: list[GenerationRequest], **settings: Any) -> dict[str, GenerationResult]:
    values = {"max_tokens": 24, "num_candidates": 4, **settings}
    with generation_plan(GenerateSettings(**values)).generator as generator:
        return {one.prompt_id: one for one in generator.stream(asked)}


def close(some: tuple[Candidate, ...], others: tuple[Candidate, ...]) -> None:
    """Everything is equal, the log-probability up to rounding."""
    for left, right in zip(some, others, strict=True):
        assert left.logprob == pytest.approx(right.logprob, abs=1e-4)
        assert replace(left, logprob=None) == replace(right, logprob=None)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7, "top_p": 0.95, "top_k": 20, "min_p": 0.01, "stop": ("3", "e ")},
        {"temperature": 0.0},
        {"raw": True},
        {"system_prompt": "be brief", "max_tokens": 1000},
    ],
    ids=["plain", "truncated", "greedy", "raw", "system"],
)
def test_a_server_gives_the_local_engines_candidates(
    settings: dict[str, Any], engines: tuple[ServerProcess, Worker]
) -> None:
    server, worker = engines
    asked = requests()
    local = worker.ask(vllm_worker.sample, asked, **settings)
    found = sample(asked, model=f"server:{server.url}", **settings)
    assert len(found) == NUM_PROMPTS
    for prompt_id, result in found.items():
        close(result.candidates, local[prompt_id].result.candidates)
        assert result.num_prompt_tokens == local[prompt_id].result.num_prompt_tokens


def test_a_prompt_over_the_context_is_a_drop(engines: tuple[ServerProcess, Worker]) -> None:
    server, _ = engines
    long = GenerationRequest("long", ({"role": "user", "content": "x" * 3000},), 4, 1)
    found = sample([long, *requests()[:3]], model=f"server:{server.url}")
    drop = found["long"].drop
    assert drop is not None
    assert drop.reason == "server_refused"
    assert "context" in drop.detail
    assert {len(found[f"p{number}"].candidates) for number in range(3)} == {4}


def test_transformers_greedy_is_vllms(engines: tuple[ServerProcess, Worker]) -> None:
    _, worker = engines
    options = {"temperature": 0.0, "max_tokens": 64}
    local = worker.ask(vllm_worker.sample, requests(), **options)
    found = sample(
        requests(),
        model=str(GENERATOR),
        generator_engine="transformers",
        dtype="float32",
        **options,
    )
    for prompt_id, result in found.items():
        close(result.candidates, local[prompt_id].result.candidates)


def test_generate_killed_in_the_middle_resumes_to_the_same_bytes(
    engines: tuple[ServerProcess, Worker], tmp_path: Path
) -> None:
    server, _ = engines
    flags = ("generate", PROMPTS, "-m", f"server:{server.url}?concurrency=4", "-n", 4)
    flags = (*flags, "--max-tokens", 24, "--limit", 80, "--part-size", 8)
    shown = bon_json(*flags, "--pool", "whole.pool", cwd=tmp_path)
    assert (shown["stages"][0]["engine"], shown["drops"]) == ("server", {})
    pool = tmp_path / "killed.pool"
    killed = bon_stopped(
        *(*flags, "--pool", pool),
        cwd=tmp_path,
        when=lambda: any(pool.glob("candidates/*.parquet")),
        how=signal.SIGKILL,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(pool.glob("candidates/*.parquet"))) < 10
    shown = bon_json(*flags, "--pool", pool, cwd=tmp_path)
    assert shown["stages"][0]["num_parts_done"] < 10
    assert_same_pool(pool, tmp_path / "whole.pool")
    table = pq.read_table(pool / "candidates")
    assert table["token_ids"].null_count == table["logprob"].null_count == 0
    assert server.url not in (pool / "pool.json").read_text()
