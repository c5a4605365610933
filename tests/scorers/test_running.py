"""Which batches a loaded reward model is run over, and what is done where memory runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scoring import largest_difference, limit_memory, reward_scorer
from support.tiny_models import save_reward

from bon.scorers.encoding import Encoded
from bon.scorers.running import ForwardRunner, _is_lack_of_memory

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
    assert _is_lack_of_memory(error) == wanted
