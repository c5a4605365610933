"""Scores of the real vLLM against plain forward passes of one conversation at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import vllm_scoring
from support.scoring import flat, groups, largest_difference, reward_scorer
from support.tiny_models import CHATML, edit_config, edit_weights, save_reward
from support.tiny_prms import save_qwen2_process, save_token_classifier, step_groups
from support.vllm_scoring import Scored, vllm_scorer
from support.vllm_worker import Worker

from bon.config import INSTALL_ADVICE
from bon.errors import EngineError, ModelError
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.encoding import Encoded
from bon.scorers.families import sequence_classification, token_classification

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

DECODERS = ("gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3", "qwen3_moe")
STEP_DECODERS = ("llama", "qwen2", "qwen3")
ENCODERS = ("bert", "modernbert", "roberta", "xlm-roberta")
TOLERANCE = 1e-4
CUT = vllm_scoring.CUT

Ask = Callable[..., Scored]
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    pytest.importorskip("vllm")
    with Worker(tmp_path_factory.mktemp("engine") / "log") as started:
        yield started


@pytest.fixture
def score(worker: Worker) -> Ask:
    return lambda *arguments, **named: worker.ask(vllm_scoring.score, *arguments, **named)


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


def alone(folder: Path, chosen: Any = None, **settings: Any) -> list[Scores]:
    """Score one conversation at a time by plain forward passes on transformers."""
    with reward_scorer(folder, alone=True, **settings) as entered:
        return entered.score(chosen or groups())


def assert_same(found: list[Scores], wanted: list[Scores], tolerance: float = TOLERANCE) -> None:
    """Scores are equal up to rounding, all else and what is missing exactly."""
    for left, right in zip(found, wanted, strict=True):
        assert left.prompt_id == right.prompt_id
        assert (left.num_tokens, left.truncated) == (right.num_tokens, right.truncated)
        assert left.reasons.keys() == right.reasons.keys()
        assert [reason.reason for reason in left.reasons.values()] == [
            reason.reason for reason in right.reasons.values()
        ]
        for a, b in zip(left.scores, right.scores, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or abs(a - b) < tolerance


def num_given(results: list[Scores]) -> int:
    return sum(sum(result.num_tokens) for result in results)


def test_every_measured_type_is_tested() -> None:
    use, step_use = sequence_classification.FAMILY.vllm, token_classification.FAMILY.vllm
    assert use is not None
    assert use.decoder_types == set(DECODERS)
    assert use.encoder_types == set(ENCODERS)
    assert step_use is not None
    assert step_use.decoder_types == set(STEP_DECODERS)


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS])
def test_scores_are_those_of_one_conversation_at_a_time(kind: str, save: Save, score: Ask) -> None:
    want = alone(save(kind))
    assert max(flat(want)) - min(flat(want)) > 0.1  # else nothing would be seen
    found = score(groups(), save(kind))
    assert_same(found.results, want)
    # of prompts that several candidates share, at least a block was computed once
    assert found.num_tokens_computed <= num_given(want) - (0 if kind in ENCODERS else 32)


def test_an_outcome_head_of_two_layers(tmp_path: Path, score: Ask) -> None:
    folder = save_qwen2_process(tmp_path)

    def keep_one_label(weights: dict[str, Any]) -> None:
        weights |= {name: weights[name][:1].clone() for name in ("score.2.weight", "score.2.bias")}

    edit_weights(folder, keep_one_label)
    edit_config(folder, architectures=["Qwen2ForRewardModel"])
    want = alone(folder)
    assert max(flat(want)) - min(flat(want)) > 0.1
    first, again = score(groups(), folder), score(groups(), folder)
    assert_same(first.results, want)
    assert_same(again.results, want)
    assert again.num_tokens_computed < first.num_tokens_computed < num_given(want)


@pytest.mark.parametrize("kind", ["process", *STEP_DECODERS])
def test_steps_are_read_where_they_end(kind: str, tmp_path: Path, score: Ask) -> None:
    separator = "\n\n" if kind == "process" else "\n"
    chosen = step_groups(separator)
    if kind == "process":
        folder = save_qwen2_process(tmp_path)
    else:
        folder = save_token_classifier(tmp_path, kind=kind)
    want = alone(folder, chosen, step_aggregate="mean")
    means = [value for result in want for value in result.scores if value is not None]
    assert max(means) - min(means) > 0.1
    assert_same(score(chosen, folder, step_aggregate="mean").results, want)
    # by now the cache holds rows that are needed, and does not give them
    again = score(chosen, folder, step_aggregate="mean")
    assert_same(again.results, want)
    assert again.num_tokens_computed > 0
    if kind in ("process", "qwen3"):  # conversations go through in pieces
        few = score(chosen, folder, step_aggregate="mean", batch_tokens=48)
        assert_same(few.results, want)


def test_the_engine_has_the_checkpoints_type_and_the_encoders_limit(
    save: Save, worker: Worker
) -> None:
    facts = worker.ask(vllm_scoring.engine_facts, save("qwen3"))
    assert facts["dtype"] == "torch.float32"
    assert facts["max_model_len"] == 2048
    assert facts["prefix_caching"]
    assert facts["block_size"] == 32


def test_results_keep_the_shape_of_their_groups(save: Save, score: Ask) -> None:
    empty = CandidateGroup("none", ({"role": "user", "content": "hi"},), ())
    assert score([], save()).results == []
    assert score([empty], save()).results == [Scores("none", (), (), ())]


def test_the_prefix_cache_and_the_batch_move_no_score(
    save: Save, score: Ask, worker: Worker
) -> None:
    folder = save("qwen3")
    cached = score(groups(), folder).results
    bare = worker.ask(vllm_scoring.score_without_cache, groups(), folder)
    lengths = {
        (group.prompt_id, text): length
        for group, result in zip(groups(), cached, strict=True)
        for text, length in zip(group.responses, result.num_tokens, strict=True)
    }
    assert bare.num_tokens_computed == sum(lengths.values())  # equal ones once, nothing shared
    assert_same(bare.results, cached, 1e-5)
    backwards = score(groups()[::-1], folder).results[::-1]
    assert_same(backwards, cached, 1e-5)
    assert_same(score(groups(), folder, batch_tokens=48).results, cached, 1e-5)
    facts = worker.ask(vllm_scoring.engine_facts, folder, batch_tokens=48)
    assert facts["max_num_batched_tokens"] == 48


def test_bfloat16_stays_within_the_models_own_rounding(save: Save, score: Ask) -> None:
    folder = save("qwen3", dtype="bfloat16")
    plain, exact = flat(alone(folder)), flat(alone(folder, dtype="float32"))
    rounding = largest_difference(plain, exact)
    assert rounding > 1e-3
    assert largest_difference(flat(score(groups(), folder).results), plain) <= rounding


def test_a_conversation_that_the_engine_refuses_costs_its_own_score(
    save: Save, worker: Worker
) -> None:
    want = alone(save())
    found = worker.ask(vllm_scoring.score_longer_than_the_engine, groups(), save()).results
    for left, right in zip(found, want, strict=True):
        assert left.num_tokens == right.num_tokens
        for index, (a, b) in enumerate(zip(left.scores, right.scores, strict=True)):
            if right.num_tokens[index] > CUT:
                assert a is None
                assert left.reasons[index].reason == "vllm_error"
                assert "maximum context length is 60" in left.reasons[index].detail
            else:
                assert a == pytest.approx(b, abs=TOLERANCE)


@pytest.mark.parametrize(("kind", "side"), [("qwen3", "left"), ("roberta", "right")])
def test_a_longer_conversation_is_cut_and_says_so(
    kind: str, side: str, save: Save, score: Ask
) -> None:
    cut: dict[str, Any] = {"max_length": CUT, "truncation_side": side}
    want = alone(save(kind), **cut)
    assert {flag for result in want for flag in result.truncated} == {True, False}
    assert_same(score(groups(), save(kind), **cut).results, want)


def test_what_cannot_be_scored_costs_its_own_score(tmp_path: Path, score: Ask) -> None:
    folder = save_reward(tmp_path, tokenizer_options={"pad": "<|added pad|>"}, vocab_size=260)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    (bad,) = tokens("~", add_special_tokens=False)["input_ids"]

    def overflow(weights: dict[str, Any]) -> None:
        weights["model.embed_tokens.weight"][bad].fill_(torch.inf)

    edit_weights(folder, overflow)
    refusing = "{% if messages[-1]['content'] == 'no' %}{{ raise_exception('no') }}{% endif %}"
    responses = ("good", "b~d", "<|added pad|>", "no", "~" * 30, "")
    group = CandidateGroup("p", ({"role": "user", "content": "hi"},), responses)
    (found,) = score([group], folder, refusing + CHATML).results
    assert {index: drop.reason for index, drop in found.reasons.items()} == {
        1: "non_finite_score", 2: "unknown_token", 3: "template_error", 4: "non_finite_score",
    }  # fmt: skip
    (want,) = alone(folder, [CandidateGroup("p", group.messages, ("good", ""))])
    assert found.scores[0] == pytest.approx(want.scores[0], abs=TOLERANCE)
    assert found.scores[5] == pytest.approx(want.scores[1], abs=TOLERANCE)
    (again,) = score([group], folder, refusing + CHATML).results  # with what is in the cache now
    assert again.scores[0] == pytest.approx(want.scores[0], abs=TOLERANCE)


@pytest.mark.parametrize("tensor", ["score.weight", "model.layers.1.self_attn.k_proj.weight"])
def test_missing_weights_are_refused(tensor: str, tmp_path: Path, score: Ask) -> None:
    folder = save_reward(tmp_path)
    edit_weights(folder, lambda weights: weights.pop(tensor))  # vLLM would leave them random
    with pytest.raises(ModelError, match="leaves weights random") as caught:
        score(groups(), folder)
    assert tensor in caught.value.why


def test_a_head_of_another_shape_is_refused(tmp_path: Path, score: Ask) -> None:
    folder = save_reward(tmp_path)
    edit_weights(folder, lambda weights: weights.update({"score.weight": torch.ones(3, 64)}))
    with pytest.raises(ModelError, match="leaves weights random") as caught:
        score(groups(), folder)
    assert "score.weight" in caught.value.why


def test_weights_that_would_be_left_out_are_refused(tmp_path: Path, score: Ask) -> None:
    folder = save_reward(tmp_path)
    name = "model.layers.0.self_attn.q_proj.bias"
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(64)}))
    with pytest.raises(ModelError, match="does not use") as caught:
        score(groups(), folder)
    assert name in caught.value.why


def test_a_model_without_a_template_is_refused(tmp_path: Path, score: Ask) -> None:
    folder = save_reward(tmp_path, tokenizer_options={"template": None})
    with pytest.raises(ModelError, match="no chat template") as caught:
        score(groups(), folder)
    assert "--reward-template" in caught.value.next_step


def test_another_device_than_vllm_is_built_for_is_refused(save: Save, score: Ask) -> None:
    with pytest.raises(ModelError, match="built for cpu") as caught:
        score(groups(), save(), device="cuda")
    assert "--scorer-engine transformers" in caught.value.next_step


@pytest.mark.parametrize(("kind", "why"), [("deberta-v2", "deberta-v2"), ("gpt_neox", "gpt_neox")])
def test_what_vllm_cannot_run_is_refused_before_anything_is_loaded(
    kind: str, why: str, save: Save
) -> None:
    with pytest.raises(ModelError, match="cannot run") as caught, vllm_scorer(save(kind)):
        pytest.fail("it was taken")
    assert why in caught.value.why
    assert "--scorer-engine transformers" in caught.value.next_step


def test_a_machine_without_vllm(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "")
    with pytest.raises(ModelError, match="not installed") as caught, vllm_scorer(save()):
        pytest.fail("it was taken")
    assert INSTALL_ADVICE in caught.value.next_step


class Refusing:
    """An engine that takes nothing."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def add_request(self, *_: object) -> None:
        raise self.error


def told(error: Exception, save: Save, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What becomes of a conversation that `add_request` meets with an error."""
    refusing = vllm_scorer(save())
    engine = SimpleNamespace(llm_engine=Refusing(error))
    for name, value in {"_llm": engine, "_capacity": 2, "_num_requests": 0}.items():
        monkeypatch.setattr(refusing, name, value, raising=False)
    monkeypatch.setattr(refusing, "_pooling_parameters", lambda _: None)
    (reward,) = refusing._rewards([Encoded((1, 2), False, (1,))])
    return reward


def test_only_what_the_request_is_blamed_for_costs_its_own_score(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions = pytest.importorskip("vllm.exceptions")
    for error in (ValueError("too long"), exceptions.VLLMValidationError("too long")):
        assert told(error, save, monkeypatch) == Drop("vllm_error", "too long")
    for error in (RuntimeError("dead"), MemoryError("dead"), exceptions.VLLMServerError("dead")):
        with pytest.raises(EngineError, match="failed while scoring") as caught:
            told(error, save, monkeypatch)
        assert (caught.value.why, caught.value.where) == ("dead", str(save()))
