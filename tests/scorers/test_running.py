"""Which batches a loaded reward model is run over, and what is done where memory runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scoring import groups, limit_memory, reward_scorer
from support.tiny_models import edit_weights, save_reward

from bon.errors import ModelError
from bon.memory import is_lack_of_memory
from bon.records import Drop
from bon.scorers.encoding import Encoded
from bon.scorers.running import ForwardRunner

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward(tmp_path_factory.mktemp("reward"))


@pytest.fixture
def model(folder: Path) -> Iterator[Any]:
    with reward_scorer(folder) as scorer, torch.inference_mode():
        yield scorer._model


def conversation(*tokens: int) -> Encoded:
    return Encoded(tokens, False, (len(tokens) - 1,))


def alone(model: Any, items: Sequence[Encoded]) -> list[Any]:
    return ForwardRunner(model, "cpu", None, alone=True).rewards(items)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error: Exception, wanted: bool) -> None:
    assert is_lack_of_memory(error) == wanted


def test_after_a_halving_batches_are_no_larger_than_before(model: Any) -> None:
    seen: list[int] = []
    limit_memory(model, 5_000, seen)
    runner = ForwardRunner(model, "cpu", None)
    prompt = [7] * 1_000  # too long to be repeated: its 9,000 tokens are one batch
    runner.rewards([conversation(*prompt, number, *[8] * 799) for number in range(10, 20)])
    assert max(seen) == 9_000
    assert runner.halved_tokens == 4_500
    seen.clear()
    runner.rewards([conversation(number, *[8] * 99) for number in range(10, 110)])
    assert max(seen) <= 3_500


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_5_text"])
def test_a_conversation_that_does_not_fit_is_dropped_and_no_other(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with reward_scorer(save_reward(tmp_path, kind=kind)) as scorer, torch.inference_mode():
        want = scorer.score(groups())
        limit_memory(scorer._model, 250, [])
        found = scorer.score(groups())
    assert [one.prompt_id for one in found if one.reasons] == ["p1", "p3"]
    for before, after in zip(want, found, strict=True):
        for index, num_tokens in enumerate(after.num_tokens):
            if num_tokens <= 250:
                assert after.scores[index] == pytest.approx(before.scores[index], abs=1e-5)
            else:
                assert after.scores[index] is None
                assert after.reasons[index].reason == "out_of_memory"
                assert f"{num_tokens} tokens" in after.reasons[index].detail
    assert "of one conversation" in capsys.readouterr().out


def test_of_conversations_that_begin_each_other_those_that_fit_are_scored(model: Any) -> None:
    items = [conversation(*range(10, 10 + length)) for length in range(10, 60)]
    want = alone(model, items)
    limit_memory(model, 40, [])
    found = ForwardRunner(model, "cpu", None).rewards(items)
    for item, before, after in zip(items, want, found, strict=True):
        if len(item.tokens) > 40:
            assert after == Drop(
                "out_of_memory", f"{len(item.tokens)} tokens do not fit into memory"
            )
        else:
            assert after == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_machine_without_memory_is_no_fault_of_the_conversations(
    is_alone: bool, model: Any
) -> None:
    items = [conversation(number, 9, 9) for number in (1, 2)]
    limit_memory(model, 2, [])
    runner = ForwardRunner(model, "cpu", None, is_alone)
    with pytest.raises(ModelError, match="not enough memory for a single conversation") as caught:
        runner.rewards(items)
    assert "--reward-device" in caught.value.next_step
    (one,) = runner.rewards(items[:1])  # of one, nobody knows whether it is too long
    assert isinstance(one, Drop)


def test_a_part_that_does_not_fit_after_another_that_did_is_dropped(model: Any) -> None:
    runner = ForwardRunner(model, "cpu", None)
    runner.rewards([conversation(1)])
    limit_memory(model, 2, [])
    lost = runner.rewards([conversation(number, 9, 9) for number in (1, 2)])
    assert all(isinstance(one, Drop) for one in lost)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_a_conversation_that_is_not_finite_spoils_no_other(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    wide = {"sliding_window": 4096} if kind == "gemma2" else {}
    bad = 9
    items = [
        conversation(1), conversation(1, bad), conversation(1, 2, 3), conversation(1, 2, 3, bad),
        conversation(1, 2, 3, bad, 4), conversation(1, 2, 5), conversation(*[6] * 40),
        conversation(*[6] * 40, bad, 7), conversation(*[6] * 40, 8),
    ]  # fmt: skip
    folder = save_reward(tmp_path, kind=kind, dtype=dtype, **wide)
    for value in (torch.inf, torch.nan):
        edit_weights(folder, lambda weights, value=value: poison(weights, bad, value))
        with reward_scorer(folder) as scorer, torch.inference_mode():
            found = ForwardRunner(scorer._model, "cpu", None).rewards(items)
            want = alone(scorer._model, items)
        for item, one, other in zip(items, found, want, strict=True):
            assert math.isfinite(one) == math.isfinite(other) == (bad not in item.tokens)
            if math.isfinite(other):
                assert one == pytest.approx(other, abs=1e-4 if dtype == "float32" else 0.1)


def poison(weights: dict[str, Any], token: int, value: float) -> None:
    (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
    weights[name][token] = value


def test_what_a_batch_gives_that_is_not_finite_is_computed_alone(model: Any) -> None:
    items = [conversation(1, 2), conversation(1, 2, 3), conversation(4, 5)]
    want = alone(model, items)
    runner = ForwardRunner(model, "cpu", None)
    packed = runner._packed
    assert packed is not None
    forward = packed.rewards

    def spoilt(*arguments: Any) -> Any:
        rewards = forward(*arguments)
        rewards[1:] = torch.nan
        return rewards

    packed.rewards = spoilt  # type: ignore[method-assign]
    assert runner.rewards(items) == pytest.approx(want, abs=1e-5)
    # 5 distinct tokens, and two of the three conversations once more
    assert runner.num_tokens_computed == 5 + 3 + 2
    (single,) = runner.rewards([conversation(6, 7)])
    assert runner.num_tokens_computed == 10 + 2, "alone it is what it is"
    assert math.isfinite(single)


def test_scores_capped_too_high_for_tries_are_computed_in_padded_batches(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind="gemma2", sliding_window=4096, attn_logit_softcapping=90.0)
    items = [conversation(1, 2, 3), conversation(1, 2, 4, 5)]
    with reward_scorer(folder) as scorer, torch.inference_mode():
        runner = ForwardRunner(scorer._model, "cpu", None)
        found = runner.rewards(items)
        assert runner.num_tokens_computed == 8
        assert found == pytest.approx(alone(scorer._model, items), abs=1e-5)


@pytest.mark.parametrize(
    ("most", "budget", "halved"), [(2_048, 65_536, None), (1_500, 1_024, 1_024)]
)
def test_a_measured_budget_is_no_larger_than_what_measuring_it_has_shown(
    most: int, budget: int, halved: int | None, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "empty_cache": None, "reset_peak_memory_stats": None, "memory_allocated": 500,
        "max_memory_allocated": 500 + 2_048 * 1_000, "mem_get_info": (100_000_000, 0),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    limit_memory(model, most, [])
    runner = ForwardRunner(model, "cpu", None)
    runner._tokens = 0  # as on a GPU, where it is not known
    # 1,000 bytes a token: 80 % of the free ones are those of 80,000 tokens
    assert runner._budget() == budget
    assert (runner.halved_tokens, runner.num_tokens_computed) == (halved, 0)
