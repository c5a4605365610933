"""What bench_score.py shows: a Markdown table and a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["LABELS", "OURS", "chart", "table"]

OURS, VLLM = "bon", "vllm"
LABELS = {
    "padded": "padded by 8, order of arrival",
    "sorted": "padded by 8, by length",
    "single": "one at a time",
    VLLM: "vLLM pooling, prefix cache",
    OURS: "bon, token tries",
}
COLORS = {
    "padded": "#c9ced6",
    "sorted": "#9aa3b0",
    "single": "#6b7685",
    VLLM: "#e08a1e",
    OURS: "#1f5fbf",
}


def table(shapes: list[dict[str, Any]]) -> str:
    """Return the medians, in seconds, and the ratios as a Markdown table."""
    present = [name for name in LABELS if any(seconds(shape, name) for shape in shapes)]
    head = ["prompt, N, response; prompts", "tokens given", "computed by bon"]
    head += [LABELS[name] for name in present]
    head += ["tokens: given / computed", "time: best of transformers / bon", "time: vLLM / bon"]
    rows = [_row(shape, present) for shape in shapes]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(shape: dict[str, Any], present: list[str]) -> list[str]:
    tokens, ratios = shape["tokens"], shape["time_ratios"]
    row = [shape["shape"], f"{tokens['given']:,}", f"{tokens['computed']:,}"]
    for name in present:
        found = seconds(shape, name)
        row.append(f"{found:.3g} s" if found else "–")
    row.append(f"{tokens['ratio']:.2f}")
    return row + [f"{ratios[name]:.2f}" if ratios[name] else "–" for name in ("plain", VLLM)]


def seconds(shape: dict[str, Any], name: str) -> float | None:
    """Return a contender's median, of vLLM's variants the best one's; none if it did not run."""
    best = shape["best_vllm"] if name == VLLM else name
    return shape["contenders"][best]["median_s"] if best in shape["contenders"] else None


def chart(shapes: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the medians as groups of bars, one group a shape, seconds on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    present = [name for name in LABELS if any(seconds(shape, name) for shape in shapes)]
    figure, axes = pyplot.subplots(figsize=(10, 5.2), dpi=120, layout="constrained")
    width = 0.84 / len(present)
    for place, name in enumerate(present):
        offset = (place - (len(present) - 1) / 2) * width
        heights = [seconds(shape, name) or float("nan") for shape in shapes]
        where = [group + offset for group in range(len(shapes))]
        bars = axes.bar(where, heights, width * 0.94, color=COLORS[name], label=LABELS[name])
        bold = "bold" if name == OURS else "normal"
        texts = [f"{height:.2g}" if height < 10 else f"{height:.0f}" for height in heights]
        axes.bar_label(bars, texts, padding=2, fontsize=10, fontweight=bold)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.12)
    axes.set_ylabel("seconds, median (log scale)", fontsize=11)
    axes.set_xticks(range(len(shapes)), [_tick(shape) for shape in shapes], fontsize=10.5)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.grid(True, color="#e6e8ec")
    axes.set_axisbelow(True)
    figure.suptitle(title, fontsize=12.5, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=3, fontsize=10.5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _tick(shape: dict[str, Any]) -> str:
    sizes = f"prompt {shape['prompt']}, N = {shape['num_candidates']}\nresponse {shape['response']}"
    plain, vllm = (shape["time_ratios"][name] for name in ("plain", VLLM))
    ratios = [f"best transformers / bon: {plain:.1f}"] + (
        [f"vLLM / bon: {vllm:.2f}"] if vllm else []
    )
    return "\n".join([sizes, *ratios])
