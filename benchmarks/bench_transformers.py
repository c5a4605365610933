"""The transformers generator's decoder against transformers' own two ways, on this CPU.

    python benchmarks/bench_transformers.py [--rounds 3]

One random Qwen3 model (6 layers of 512, vocabulary of 16,000, float32), 8 prompts of 100 to 300
tokens with 8 candidates each, of 16 to 96 tokens. All three sample greedily, in turn, one thread
each: `bon` is `Decoder.run`; `generate` is one left-padded batch of all candidates; `continuous` is
the continuous batching manager on sdpa. All must give the same tokens. Writes JSON to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, ContinuousBatchingConfig
from transformers import GenerationConfig as Generation

from bon.config import GenerateSettings
from bon.generators.decoding import Decoder
from bon.generators.rows import Ending, Row
from bon.records import GenerationRequest

PROMPTS, CANDIDATES, VOCABULARY = 8, 8, 16_000
LENGTHS = (16, 32, 64, 96)
Tokens = list[list[int]]


class NoText:
    """A tokenizer that writes nothing: only the model's work is measured."""

    def decode(self, *_: Any, **__: Any) -> str:
        """Return nothing."""
        return ""


def make_model() -> Any:
    """Make a random model that never ends by itself."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3", hidden_size=512, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, intermediate_size=1536, vocab_size=VOCABULARY,
        max_position_embeddings=4096, pad_token_id=0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = Generation(eos_token_id=None, pad_token_id=0, do_sample=False)
    return model


def bon(model: Any, prompts: Tokens, lengths: list[int]) -> Tokens:
    """Decode with bon's own decoder."""
    rows = [
        Row(
            GenerationRequest("p", (), CANDIDATES, 0),
            prompts[place // CANDIDATES],
            place % CANDIDATES,
            Ending(frozenset(), (), length, 4096),
            NoText(),
        )
        for place, length in enumerate(lengths)
    ]
    for _ in Decoder(model, GenerateSettings(temperature=0.0), "").run(rows):
        pass
    return [row.tokens for row in rows]


def generate(model: Any, prompts: Tokens, lengths: list[int]) -> Tokens:
    """Decode one padded batch; it runs on until its longest response has ended."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for place in range(len(lengths)):
        prompt = prompts[place // CANDIDATES]
        tokens[place, longest - len(prompt) :] = torch.tensor(prompt)
        mask[place, longest - len(prompt) :] = 1
    found = model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=max(LENGTHS))
    return [
        found[place, longest : longest + length].tolist() for place, length in enumerate(lengths)
    ]


def continuous(model: Any, prompts: Tokens, lengths: list[int]) -> Tokens:
    """Decode with transformers' continuous batching."""
    settings = ContinuousBatchingConfig(num_blocks=512, page_size=32, max_batch_tokens=512)
    ends = Generation(eos_token_id=-1, pad_token_id=0, do_sample=False)
    found: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(
        generation_config=ends, continuous_batching_config=settings
    ) as manager:
        names = [
            manager.add_request(prompts[place // CANDIDATES], max_new_tokens=length)
            for place, length in enumerate(lengths)
        ]
        while len(found) < len(names):
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                found[result.request_id] = list(result.generated_tokens)
    return [found[name] for name in names]


def main() -> None:
    """Measure all three in turn and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model, draw = make_model(), random.Random(0)
    prompts = [
        [draw.randrange(5, VOCABULARY) for _ in range(draw.randrange(100, 300))]
        for _ in range(PROMPTS)
    ]
    lengths = [draw.choice(LENGTHS) for _ in range(PROMPTS * CANDIDATES)]
    ways = {"bon": bon, "generate": generate, "continuous": continuous}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        answers = []
        for name, way in ways.items():
            start_s = time.perf_counter()
            answers.append(way(model, prompts, lengths))
            seconds[name].append(time.perf_counter() - start_s)
        assert answers[0] == answers[1] == answers[2]
    medians = {name: statistics.median(all_s) for name, all_s in seconds.items()}
    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "load_average": os.getloadavg()[0],
        "tokens": sum(lengths),
        "seconds": seconds,
        "tokens_per_s": {name: sum(lengths) / median for name, median in medians.items()},
        "times_as_fast": {name: medians[name] / medians["bon"] for name in ways},
    }
    target = Path(__file__).parent / "results" / "transformers.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
