"""Forward passes over token tries against plain forward passes of one conversation at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.scoring import (
    flat,
    groups,
    largest_difference,
    limit_memory,
    reward_scorer,
    root_mean_square,
)
from support.short_of_memory import conversations
from support.tiny_models import save_reward

from bon.records import CandidateGroup
from bon.scorers import packed, running
from bon.scorers.encoding import Encoded
from bon.scorers.packed import PACKED_TYPES

torch = pytest.importorskip("torch")

TESTS = Path(__file__).parent.parent
WIDE: dict[str, Any] = {"sliding_window": 4096}
WINDOWED = ("gemma2", "gemma3_text", "mistral", "phi3")

Save = Callable[..., Path]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a reward model once for every set of options and gives its folder."""
    saved: dict[str, Path] = {}

    def folder(kind: str = "qwen3", **options: Any) -> Path:
        key = f"{kind} {sorted(options.items())}"
        if key not in saved:
            saved[key] = save_reward(tmp_path_factory.mktemp("reward"), kind=kind, **options)
        return saved[key]

    return folder


def scores(folder: Path, *, alone: bool = False, **settings: Any) -> tuple[list[float], int]:
    """Return all scores and how many tokens were computed."""
    with reward_scorer(folder, alone=alone, **settings) as scorer:
        return flat(scorer.score(groups())), scorer.num_tokens_computed


def num_distinct(folder: Path) -> tuple[int, int]:
    """Count the tokens given, of distinct conversations, and the distinct prefixes."""
    with reward_scorer(folder) as scorer:
        items = [one for group in groups() for one in scorer._encoder.encode(group)]
    sequences = {item.tokens for item in items if isinstance(item, Encoded)}
    prefixes = {tokens[:end] for tokens in sequences for end in range(1, len(tokens) + 1)}
    return sum(map(len, sequences)), len(prefixes)


@pytest.mark.parametrize("kind", sorted(PACKED_TYPES))
def test_scores_are_those_of_one_conversation_at_a_time(kind: str, save: Save) -> None:
    folder = save(kind, **(WIDE if kind in WINDOWED else {}))
    alone, computed_alone = scores(folder, alone=True)
    packed, computed = scores(folder)
    assert largest_difference(packed, alone) < 1e-4
    given, distinct = num_distinct(folder)
    assert computed_alone == given
    assert distinct <= computed < 0.8 * given


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *[(kind, "bfloat16") for kind in ("llama", "gemma2", "qwen3")],
        *[(kind, "float16") for kind in ("llama", "qwen3")],
    ],
)
def test_a_short_type_is_as_near_to_float32_as_one_at_a_time(
    kind: str, dtype: str, save: Save
) -> None:
    exact: list[float] = []
    alone: list[float] = []
    packed: list[float] = []
    for seed in range(6):  # rounding is chance: of one model, either may be nearer by far
        folder = save(kind, dtype=dtype, seed=seed, **(WIDE if kind in WINDOWED else {}))
        exact += scores(folder, alone=True, dtype="float32")[0]
        alone += scores(folder, alone=True, dtype=dtype)[0]
        packed += scores(folder, dtype=dtype)[0]
    assert largest_difference(alone, exact) > 1e-4
    assert root_mean_square(packed, exact) <= 1.5 * root_mean_square(alone, exact)
    assert largest_difference(packed, alone) <= 2 * largest_difference(alone, exact)


@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_budget_and_order_change_no_score(kind: str, save: Save) -> None:
    folder = save(kind, **(WIDE if kind in WINDOWED else {}))
    want, least = scores(folder)
    for tokens in (1, 150, 700, 1 << 20):
        found, computed = scores(folder, batch_tokens=tokens)
        assert largest_difference(found, want) < 1e-5
        assert computed >= least
    with reward_scorer(folder) as scorer:
        backwards = flat(scorer.score(tuple(reversed(groups())))[::-1])
    assert largest_difference(backwards, want) < 1e-5


@pytest.mark.parametrize("kind", WINDOWED)
def test_conversations_beyond_a_window_are_padded(
    kind: str, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(kind, sliding_window=150)
    lengths: list[int] = []
    padded = running.padded_rewards

    def noting(model: Any, device: str, items: Sequence[Encoded]) -> Any:
        lengths.extend(len(item.tokens) for item in items)
        return padded(model, device, items)

    alone, _ = scores(folder, alone=True)
    monkeypatch.setattr(running, "padded_rewards", noting)
    found, _ = scores(folder)
    assert largest_difference(found, alone) < 1e-4
    assert lengths
    assert min(lengths) > 150


def test_long_and_short_rotations_never_share_a_batch(save: Save) -> None:
    factors = [1.0 + 0.5 * index for index in range(16)]
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 16,
        "long_factor": factors, "original_max_position_embeddings": 100,
    }  # fmt: skip
    folder = save("phi3", **WIDE, rope_parameters=rope, original_max_position_embeddings=100)
    alone, _ = scores(folder, alone=True)
    found, _ = scores(folder)
    assert largest_difference(found, alone) < 1e-4


def test_the_last_layer_is_computed_only_where_it_is_read(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, list[int]] = {"attention": [], "output": [], "mlp": []}
    some_rows = packed.attention_of_rows

    def noting(*arguments: Any) -> Any:
        rows["attention"].append(len(arguments[-1]))
        return some_rows(*arguments)

    monkeypatch.setattr(packed, "attention_of_rows", noting)
    with reward_scorer(save()) as scorer:
        last = scorer._model.body.layers[-1]
        for name, part in (("output", last.self_attn.o_proj), ("mlp", last.mlp.gate_proj)):
            part.register_forward_hook(
                lambda _, inputs, __, name=name: rows[name].append(inputs[0].shape[1])
            )
        scorer.score(groups())
        computed = scorer.num_tokens_computed
        items = [one for group in groups() for one in scorer._encoder.encode(group)]
    for counts in rows.values():
        assert sum(counts) == len(set(items)) < computed / 10


def test_a_last_layer_that_is_read_nearly_everywhere_is_computed_by_blocks(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save()
    want, _ = scores(folder)
    monkeypatch.setattr(packed, "_few", lambda rows, length: False)
    found, _ = scores(folder)
    assert largest_difference(found, want) < 1e-5


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_5_text"])
def test_out_of_memory_halves_the_budget_and_goes_on(
    kind: str, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(kind)
    want, _ = scores(folder)
    seen: list[int] = []
    with reward_scorer(folder) as scorer:
        assert scorer.halved_batch_tokens is None
        limit_memory(scorer._model, 600, seen)
        assert largest_difference(flat(scorer.score(groups())), want) < 1e-5
        first, seen[:] = list(seen), []
        assert largest_difference(flat(scorer.score(groups())), want) < 1e-5
        assert 300 <= (scorer.halved_batch_tokens or 0) <= 600
    failed = [num_tokens for num_tokens in first if num_tokens > 600]
    # a batch that was made before the budget was halved is not tried
    assert all(after <= before // 2 for before, after in pairwise(failed))
    assert max(first) > 600
    assert max(seen) <= 600  # the smaller budget is kept
    assert "out of memory" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="its limit on memory is Linux's")
def test_a_real_lack_of_memory_halves_the_budget(save: Save) -> None:
    folder = save(intermediate_size=4096)
    with reward_scorer(folder) as scorer:
        want = flat(scorer.score(conversations()))
    # a batch's rows of the MLP alone take 58 MiB at a time, three times; half of them fit
    done = subprocess.run(
        [sys.executable, "-m", "support.short_of_memory", folder, str(80 << 20)],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["halved"] < 3_724
    assert largest_difference(found["scores"], want) < 1e-5


def test_another_error_is_not_taken_for_a_lack_of_memory(save: Save) -> None:
    def fail(*arguments: Any, **rest: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    with reward_scorer(save()) as scorer:
        scorer._model.body.forward = fail
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            scorer.score(groups())


def test_nothing_one_and_equal_conversations(save: Save) -> None:
    user: Any = ({"role": "user", "content": "hi"},)
    with reward_scorer(save()) as scorer:
        assert scorer.score([]) == []
        assert scorer.score([CandidateGroup("none", user, ())])[0].scores == ()
        (one,) = scorer.score([CandidateGroup("one", user, ("a",))])
        (many,) = scorer.score([CandidateGroup("many", user, ("a", "a", "a"))])
    assert not math.isnan(one.scores[0] or math.nan)
    assert set(many.scores) == set(one.scores)
