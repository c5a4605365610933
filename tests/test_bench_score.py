"""benchmarks/bench_score.py: what it counts, that its contenders score alike, that it runs."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import bench_score
import pytest
from score_costs import find_peak, forward_flops, peak_tflops, without_embedding
from score_peers import Ours, Plain, Run, build_model, small_sizes
from score_report import table
from score_requests import Requests, Shape, make_requests
from score_vllm import VllmOptions, VllmPeer, save_folder

SIZES = small_sizes(64, 2)
SHAPE = Shape(40, 3, 12, 4)


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(SIZES, "float32", "cpu")


@pytest.fixture(scope="module")
def requests() -> Requests:
    return make_requests(SHAPE, SIZES["vocab_size"])


@pytest.fixture(scope="module")
def alone(model: Any, requests: Requests) -> list[float]:
    """The head's output for the last token of each conversation, by hand."""
    import torch

    with torch.inference_mode():
        hidden = [
            model.model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
            for tokens in requests.conversations
        ]
        return [float(model.score(one)) for one in hidden]


def test_counts_are_those_of_distinct_prefixes(requests: Requests) -> None:
    rows = requests.conversations
    prefixes = {row[: length + 1] for row in rows for length in range(len(row))}
    assert requests.num_given == sum(len(row) for row in rows)
    assert requests.num_distinct == len(prefixes)
    assert requests.num_pairs == sum(len(prefix) for prefix in prefixes)


def test_lengths_are_quantiles_of_their_distribution() -> None:
    requests = make_requests(Shape(2000, 64, 60, 1), 4096)
    assert requests.prompt_length_P == [2000]
    (responses,) = requests.response_length_PN
    assert 58 <= median(responses) <= 62
    # the 0.5/64 quantile of a normal distribution is -2.4176: 60 * exp(-0.5 * 2.4176) = 17.9
    assert min(responses) == 18
    assert max(responses) == 201
    assert responses != sorted(responses)


def test_requests_are_the_same_every_time_and_without_the_pad_token(requests: Requests) -> None:
    assert make_requests(SHAPE, SIZES["vocab_size"]) == requests
    assert min(min(row) for row in requests.conversations) > 0


def test_flops_by_hand() -> None:
    config = SimpleNamespace(num_attention_heads=3, head_dim=5, num_hidden_layers=2)
    # 2 * 10 * 7 for parameters, 4 * 3 * 5 * 2 for each of 11 pairs
    assert forward_flops(config, 10, 7, 11) == 140 + 1320


def test_parameters_without_embedding_by_hand(model: Any) -> None:
    attention = 64 * 128 + 2 * 64 * 64 + 128 * 64 + 2 * 64  # q, k and v, o, norms of q and k
    layer = attention + 3 * 64 * 192 + 2 * 64
    assert without_embedding(model) == 2 * layer + 64 + 64  # last norm, head


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 311.9),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A10G", 70.0),
        ("Tesla T4", None),
    ],
)
def test_peak_of_a_device(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_peak_that_is_given_or_measured(model: Any) -> None:
    assert find_peak(model, "cpu", 3.0) == (3.0, "--peak-tflops")
    measured, source = find_peak(model, "cpu", None)
    assert measured is not None
    assert 1e-4 < measured < 1e3
    assert source.startswith("measured")


@pytest.mark.parametrize("way", ["padded", "sorted", "single", "bon"])
def test_contenders_score_each_conversation_as_alone(
    way: str, model: Any, requests: Requests, alone: list[float]
) -> None:
    contenders = {
        "padded": Plain(model, "cpu", 8),
        "sorted": Plain(model, "cpu", 8, by_length=True),
        "single": Plain(model, "cpu", 1),
        "bon": Ours(model, "cpu"),
    }
    scores = contenders[way].run(requests.conversations).scores
    assert scores == pytest.approx(alone, abs=1e-5)


def test_bon_computes_distinct_tokens(model: Any, requests: Requests) -> None:
    ours = Ours(model, "cpu")
    for _ in range(2):  # of the last run, not of all
        ours.run(requests.conversations)
        assert requests.num_distinct <= ours.num_tokens_computed < requests.num_given


class Noting:
    """A contender that takes the time it is told and notes that it ran."""

    def __init__(self, name: str, seconds: float, notes: list[str]) -> None:
        self.name, self.seconds, self.notes = name, seconds, notes

    def run(self, conversations: Sequence[tuple[int, ...]]) -> Run:
        self.notes.append(self.name)
        return Run(self.seconds, [1.0] * len(conversations))


def test_contenders_run_in_turn_and_slow_ones_less(
    monkeypatch: pytest.MonkeyPatch, requests: Requests
) -> None:
    monkeypatch.setattr(bench_score, "PAUSE_S", 0.0)
    notes: list[str] = []
    times = {"padded": 9.0, "single": 1.0, "bon": 9.5}
    contenders = {name: Noting(name, seconds, notes) for name, seconds in times.items()}
    arguments = Namespace(device="cpu", rounds=3, slow_s=5.0, slow_rounds=1)
    figures = bench_score.time_all(contenders, requests, {0: 1.0, 2: 0.5}, arguments)
    warm_up = ["padded", "single", "bon"]
    assert notes == [*warm_up, "padded", "single", "bon", "single", "bon", "bon", "single"]
    assert figures["padded"]["seconds"] == [9.0]
    assert figures["bon"]["seconds"] == [9.5] * 3
    assert figures["single"]["largest_difference"] == 0.5
    assert figures["single"]["rms_difference"] == pytest.approx(0.125**0.5, rel=1e-2)


def test_table_takes_the_best_engine() -> None:
    row = {
        "shape": "1, 2, 3; 4",
        "tokens": {"given": 9000, "computed": 3000, "ratio": 3.0},
        "best_vllm": "vLLM, block 64, eager",
        "time_ratios": {"plain": 4.0, "vllm": 1.5},
        "contenders": {
            "single": {"median_s": 8.0},
            "vLLM, block 32, eager": {"median_s": 4.0},
            "vLLM, block 64, eager": {"median_s": 3.0},
            "bon": {"median_s": 2.0},
        },
    }
    last = table([row]).splitlines()[-1]
    assert last == "| 1, 2, 3; 4 | 9,000 | 3,000 | 8 s | 3 s | 2 s | 3.00 | 4.00 | 1.50 |"


def quick(folder: Path) -> list[str]:
    flags = ["--quick", "--no-vllm", "--hidden", "64", "--layers", "2", "--rounds", "1"]
    output, image = str(folder / "results" / "a.json"), str(folder / "images" / "a.png")
    return [*flags, "--dtype", "float32", "--output", output, "--image", image]


def test_the_script_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_score.main(quick(tmp_path))
    result = json.loads((tmp_path / "results" / "a.json").read_text())
    assert (tmp_path / "images" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("\n| ") == 3  # rule and two shapes
    for shape in result["shapes"]:
        assert set(shape["contenders"]) == {"padded", "sorted", "single", "bon"}
        median_s = shape["contenders"]["bon"]["median_s"]
        assert shape["given_tokens_per_s"] == round(shape["tokens"]["given"] / median_s)
        tflop = shape["linear_tflop"] + shape["attention_tflop"]
        assert shape["tflop_per_s"] == pytest.approx(tflop / median_s, abs=1e-4 + 1e-4 / median_s)
        assert shape["time_ratios"]["vllm"] is None
    assert result["vllm_engines"] == {}


def test_wrong_scores_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Ours.run

    def wrong(self: Ours, conversations: Sequence[tuple[int, ...]]) -> Run:
        run = right(self, conversations)
        return Run(run.seconds, [*run.scores[:-1], run.scores[-1] + 1e-3])

    monkeypatch.setattr(Ours, "run", wrong)
    with pytest.raises(SystemExit, match=r"off by 0\.001"):
        bench_score.main(quick(tmp_path))


def test_the_8b_shape_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_score.parse(["--shape-8b"])
    assert "--device cuda" in capsys.readouterr().err


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("has_weights", [True, False])
def test_vllm_in_a_process_of_its_own(
    has_weights: bool, model: Any, requests: Requests, alone: list[float], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_folder(model, folder, weights=has_weights)
    options = VllmOptions(str(folder), "float32", "cpu", 32, True, 256, has_weights)
    with VllmPeer(options, tmp_path / "log") as engine:
        scores = [engine.run(requests.conversations).scores for _ in range(2)]
    assert len(scores[0]) == len(alone)
    assert (scores[0] == pytest.approx(alone, abs=1e-4)) is has_weights
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.vllm
@pytest.mark.slow
def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    options = VllmOptions(str(tmp_path), "float32", "cpu", 32, True, 256)
    with pytest.raises(RuntimeError, match="vLLM, block 32, eager: "):
        VllmPeer(options, tmp_path / "log")
