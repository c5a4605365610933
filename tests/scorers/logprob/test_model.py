"""Which models are read, how their logits become log-probabilities, and which are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_causal import logprob_scorer, save_causal
from support.tiny_models import edit_config, edit_weights, save_reward

from bon.errors import ModelError
from bon.scorers.encoding import Encoded
from bon.scorers.logprob.model import LogprobHead, refuse_other_head

torch = pytest.importorskip("torch")


def head(weight: list[list[float]], **changes: float) -> LogprobHead:
    linear = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
    linear.weight.data = torch.tensor(weight)
    return LogprobHead(linear, **changes)


@pytest.mark.parametrize(
    ("changes", "logits"),
    [
        ({}, (0.0, 1.0, 3.0)),
        ({"scale": 0.5}, (0.0, 0.5, 1.5)),
        ({"cap": 2.0}, (0.0, 2 * math.tanh(0.5), 2 * math.tanh(1.5))),
        ({"scale": 2.0, "cap": 2.0}, (0.0, 2 * math.tanh(1.0), 2 * math.tanh(3.0))),
    ],
)
def test_a_conversation_s_score_is_the_sum_over_its_targets(
    changes: dict[str, float], logits: tuple[float, ...]
) -> None:
    total = math.log(sum(map(math.exp, logits)))
    items = [Encoded((5, 5), False, (0, 1), (2, 1)), Encoded((5,), False, (0,), (0,))]
    with torch.inference_mode():
        found = head([[0.0], [1.0], [3.0]], **changes)(torch.ones(3, 1), items)
    want = [logits[2] + logits[1] - 2 * total, logits[0] - total]
    assert found.tolist() == pytest.approx(want, abs=1e-6)


def test_extreme_logits_do_not_overflow() -> None:
    one = [Encoded((5,), False, (0,), (1,)), Encoded((5,), False, (0,), (0,))]
    with torch.inference_mode():
        found = head([[1e4], [-1e4]])(torch.ones(2, 1), one)
    assert found.tolist() == pytest.approx([-2e4, 0.0])


def refused(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught, logprob_scorer(folder):
        pytest.fail("it was taken")
    assert caught.value.where == str(folder)
    assert caught.value.next_step
    return caught.value


def test_a_reward_model_is_no_reference(tmp_path: Path) -> None:
    said = refused(save_reward(tmp_path))
    assert said.what == "Qwen3ForSequenceClassification is not a causal language model that bon " \
        "can load"  # fmt: skip


def test_an_encoder_is_no_reference(tmp_path: Path) -> None:
    save_causal(tmp_path)
    edit_config(tmp_path, model_type="bert", architectures=["BertLMHeadModel"])
    assert refused(tmp_path).what.startswith("BertLMHeadModel is not")


def test_a_base_model_without_its_head_is_refused(tmp_path: Path) -> None:
    save_causal(tmp_path, tie_word_embeddings=False)
    edit_weights(tmp_path, lambda weights: weights.pop("lm_head.weight"))
    said = refused(tmp_path)
    assert said.what == "the reference model's checkpoint leaves weights random"
    assert "lm_head.weight" in said.why


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    save_causal(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(tmp_path).what == "cannot load the reference model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{")
    assert refused(tmp_path).what == "cannot load the reference model's tokenizer"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    assert refused(tmp_path).what == "cannot read the reference model's configuration"


def test_a_head_that_is_read_otherwise_than_its_class_does_is_refused(tmp_path: Path) -> None:
    folder = save_causal(tmp_path, kind="granite")
    with logprob_scorer(folder) as scorer:
        loaded = scorer._model
        refuse_other_head(loaded, "here")
        assert isinstance(loaded.rewards_of, LogprobHead)
        loaded.rewards_of = replace(loaded.rewards_of, scale=loaded.rewards_of.scale * 1.1)
        with pytest.raises(ModelError, match="whose log-probabilities bon can read") as caught:
            refuse_other_head(loaded, "here")
    assert caught.value.where == "here"
