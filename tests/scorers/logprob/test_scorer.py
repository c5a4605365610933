"""Log-probabilities of sampled tokens against plain forward passes, one response at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, largest_difference, limit_memory
from support.tiny_causal import (
    END,
    candidate,
    group,
    logprob_scorer,
    plain_logprob,
    plain_logprobs,
    sampled_groups,
    save_causal,
    templated,
)
from support.tiny_models import CHATML, edit_weights

from bon.errors import ModelError, SettingsError
from bon.records import CandidateGroup
from bon.scorers.logprob import model as logprob_model
from bon.scorers.packed import PACKED_TYPES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

USER = {"role": "user", "content": "How many?"}
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a model once for every kind and gives its folder."""
    saved: dict[str, Path] = {}

    def folder(kind: str = "qwen3") -> Path:
        if kind not in saved:
            saved[kind] = save_causal(tmp_path_factory.mktemp("reference"), kind=kind)
        return saved[kind]

    return folder


@pytest.mark.parametrize("kind", sorted(PACKED_TYPES | {"granite", "cohere", "qwen3_5_text"}))
def test_scores_are_the_sums_of_one_forward_pass_for_each_response(kind: str, save: Save) -> None:
    folder = save(kind)
    want = plain_logprobs(folder, sampled_groups())
    assert max(want) - min(want) > 50
    lengths = [len(one.token_ids or ()) for g in sampled_groups() for one in g.candidates]
    with logprob_scorer(folder) as scorer:
        results = scorer.score(sampled_groups())
        given = sum(sum(one.num_tokens) for one in results)
        assert (scorer.num_tokens_computed < 0.8 * given) == (kind in PACKED_TYPES)
    found = flat(results)
    with logprob_scorer(folder, alone=True) as scorer:
        alone = flat(scorer.score(sampled_groups()))
    # 90 tokens of some nats each: the sums' own float32 is worth 3e-5
    assert largest_difference(found, want) < 3e-4
    assert largest_difference(alone, want) < 3e-4
    assert max(abs(a - b) / n for a, b, n in zip(found, want, lengths, strict=True)) < 1e-4


def test_few_logits_at_a_time_give_the_same_scores(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logprob_scorer(save()) as scorer:
        want = flat(scorer.score(sampled_groups()))
    for num_logits in (1, 264 * 7):
        monkeypatch.setattr(logprob_model, "_CHUNK_LOGITS", num_logits)
        with logprob_scorer(save()) as scorer:
            assert largest_difference(flat(scorer.score(sampled_groups())), want) < 3e-5


def test_small_batches_and_little_memory_give_the_same_scores(save: Save) -> None:
    with logprob_scorer(save()) as scorer:
        want = flat(scorer.score(sampled_groups()))
    with logprob_scorer(save(), batch_tokens=64) as scorer:
        assert largest_difference(flat(scorer.score(sampled_groups())), want) < 1e-4
    with logprob_scorer(save()) as scorer:
        limit_memory(scorer._model, 300, [])
        assert largest_difference(flat(scorer.score(sampled_groups())), want) < 1e-4
        assert scorer.halved_batch_tokens is not None


def test_bfloat16_is_as_far_as_rounding_goes(tmp_path: Path) -> None:
    folder = save_causal(tmp_path, dtype="bfloat16")
    want = plain_logprobs(folder, sampled_groups())
    with logprob_scorer(folder) as scorer, logprob_scorer(folder, alone=True) as one_by_one:
        found = flat(scorer.score(sampled_groups()))
        alone = flat(one_by_one.score(sampled_groups()))
    assert 1e-3 < largest_difference(alone, want) < 5
    assert math.dist(found, want) <= 1.5 * math.dist(alone, want)


def test_the_prompt_is_the_one_that_was_sampled_from(save: Save) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(save())
    tokens = transformers.PreTrainedTokenizerFast.from_pretrained(save())
    system, ids = {"role": "system", "content": "Be brief."}, tokens.encode("12")
    one = (candidate(0, ids, "12"),)
    cases: list[tuple[CandidateGroup, list[int]]] = [
        (group("plain", (USER,), one), templated(tokens, [USER])),
        (
            group("system", (USER,), one, system_prompt="Be brief.", raw=False),
            templated(tokens, [system, USER]),
        ),
        (
            group("its own", (system, USER), one, system_prompt="Be long."),
            templated(tokens, [system, USER]),
        ),
        (group("raw", (USER,), one, raw=True), tokens.encode("How many?")),
    ]
    with logprob_scorer(save()) as scorer:
        found = flat(scorer.score([case for case, _ in cases]))
    want = [plain_logprob(model, prompt, ids) for _, prompt in cases]
    assert found == pytest.approx(want, abs=1e-4)
    assert len({round(value, 3) for value in want}) == 3, "else the prompts would not be told apart"


def test_a_response_without_token_ids_is_tokenised_behind_the_prompt(save: Save) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(save())
    tokens = transformers.PreTrainedTokenizerFast.from_pretrained(save())
    ids, prompt = tokens.encode("12"), templated(tokens, [USER])
    given = CandidateGroup("given", (USER,), ("12",))
    stopped = group("served", (USER,), (candidate(0, None, "12", finish_reason="stop"),))
    with logprob_scorer(save()) as scorer:
        found = flat(scorer.score([given, stopped]))
    want = [plain_logprob(model, prompt, one) for one in (ids, [*ids, END])]
    assert found == pytest.approx(want, abs=1e-4)


def test_what_is_not_finite_is_null_and_spoils_no_other(tmp_path: Path) -> None:
    folder = save_causal(tmp_path, tie_word_embeddings=False)

    def poison(weights: dict[str, Any]) -> None:
        weights["model.embed_tokens.weight"][9] = torch.nan

    edit_weights(folder, poison)
    ids = [(5, 9, 6), (5, 6, 9), (5, 6, 7)]  # the last token is not read
    groups = [group("p", (USER,), [candidate(n, one, "") for n, one in enumerate(ids)])]
    with logprob_scorer(folder) as scorer:
        (found,) = scorer.score(groups)
    assert [score is None for score in found.scores] == [True, False, False]
    assert found.reasons[0].reason == "non_finite_score"
    tokens = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert found.num_tokens == (len(templated(tokens, [USER])) + 3,) * 3


def test_no_groups_and_no_responses(save: Save) -> None:
    with logprob_scorer(save()) as scorer:
        assert scorer.score([]) == []
        (empty,) = scorer.score([CandidateGroup("none", (USER,), ())])
    assert empty.scores == ()


def test_a_template_that_was_sampled_with_must_be_given(save: Save) -> None:
    said = {"chat_template": "0123456789abcdef"}
    with pytest.raises(SettingsError, match="a --chat-template of their own") as caught:
        logprob_scorer(save()).check_sampling(said)
    assert caught.value.next_step.endswith(f"-r ref=logprob:{save()}?template=FILE")
    other = CHATML.replace("<|im_start|>", "<|bos|>")
    logprob_scorer(save(), other).check_sampling(said)
    logprob_scorer(save()).check_sampling({"chat_template": None})
    logprob_scorer(save()).check_sampling({})
    one = group("p", (USER,), (candidate(0, [60], "Y"),), **said)
    with logprob_scorer(save(), other) as scorer, logprob_scorer(save()) as plain:
        (found,), (without,) = flat(scorer.score([one])), flat(plain.score([one]))
    assert abs(found - without) > 1e-2


def test_a_model_without_a_template_serves_raw_prompts_only(tmp_path: Path) -> None:
    folder = save_causal(tmp_path, tokenizer_options={"template": None})
    one = (candidate(0, [60], "Y"),)
    with logprob_scorer(folder) as scorer:
        assert flat(scorer.score([group("raw", (USER,), one, raw=True)]))
        with pytest.raises(ModelError, match="the reference model has no chat template") as caught:
            scorer.score([group("chat", (USER,), one)])
    assert "template=" in caught.value.next_step


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gpt2", "granite"])
def test_on_a_gpu(kind: str, save: Save) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    want = plain_logprobs(save(kind), sampled_groups())
    with logprob_scorer(save(kind), device="cuda") as scorer:
        found = flat(scorer.score(sampled_groups()))
    assert largest_difference(found, want) < 1e-2
