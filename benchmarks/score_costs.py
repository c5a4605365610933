"""What a forward pass costs, what a device can do, and how much memory was taken."""

from __future__ import annotations

import time
from typing import Any

__all__ = [
    "find_peak",
    "forward_flops",
    "peak_gib",
    "peak_tflops",
    "reset_peak_memory",
    "without_embedding",
]

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200 NVL": 835.0,
    "GH200": 989.4,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 311.9,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "A10G": 70.0,
    "A10": 125.0,
}
"""Peak dense bfloat16 TFLOP/s by a part of the device's name, from NVIDIA's data sheets; the first
that fits counts."""
RATE_ROWS = 2048


def forward_flops(config: Any, num_parameters: int, num_tokens: int, num_pairs: int) -> int:
    """Return the floating-point operations of a plain forward pass over distinct tokens.

    What a contender leaves out of the last layer, which is read in few places, is counted too.
    Each parameter outside the embedding is multiplied and added once for a token; for a pair of
    query and key, each head multiplies and adds `head_dim` numbers twice (score, weighted value).
    """
    pair = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    return 2 * num_parameters * num_tokens + pair * num_pairs


def without_embedding(model: Any) -> int:
    """Count a model's parameters outside its embedding."""
    embedding = model.get_input_embeddings().weight.numel()
    return sum(parameter.numel() for parameter in model.parameters()) - embedding


def find_peak(model: Any, device: str, given: float | None) -> tuple[float | None, str]:
    """Return the TFLOP/s that utilisation is a share of, and where they come from."""
    if given:
        return given, "--peak-tflops"
    if device == "cpu":
        where = f"measured: one MLP projection at {RATE_ROWS} rows"
        return measured_tflops(model.model.layers[0].mlp.up_proj), where
    import torch

    name = torch.cuda.get_device_name()
    return peak_tflops(name), f"data sheet: dense bfloat16 of {name}"


def measured_tflops(linear: Any, repeats: int = 20) -> float:
    """Return the TFLOP/s of a linear layer, the fastest of some runs."""
    import torch

    rows = torch.randn(RATE_ROWS, linear.in_features).to(linear.weight.dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            linear(rows)
            seconds.append(time.perf_counter() - started)
    return 2 * RATE_ROWS * linear.weight.numel() / min(seconds) / 1e12


def peak_tflops(device_name: str) -> float | None:
    """Return a GPU's peak dense bfloat16 TFLOP/s, none for one that is not in the table."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device_name), None)


def reset_peak_memory(device: str) -> None:
    """Give a GPU back the memory that is not in use, and begin to watch the rest."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return the most memory that this process had on the GPU since it is watched, in GiB."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2)
