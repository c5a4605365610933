"""Scores of the batched scorer against plain batch-of-one forwards written here."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, groups, largest_difference, root_mean_square
from support.scoring import reward_scorer as scorer
from support.tiny_models import BOS_CHATML, CHATML, edit_weights, save_reward

from bon.records import CandidateGroup, Scores
from bon.scorers.families.sequence_classification import _LAST_TOKEN

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DECODERS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"),
    *("gpt2", "gpt_neox", "opt", "qwen3_moe", "gpt_oss", "qwen3_5_text"),
)
OWN_FORWARD = {  # decoders besides gpt2, gpt_neox and opt that are not transformers' generic class
    "biogpt": {},
    "bloom": {},
    "falcon": {"head_dim": None},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gptj": {"rotary_dim": 16},
    "mpt": {},
    "openai-gpt": {"n_positions": 2048},
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "modernbert", "deberta-v2")
MODEL_TOLERANCE, BATCH_TOLERANCE = 1e-4, 1e-5
PAD_IS_EOS = {"tokenizer_options": {"pad": "<|im_end|>"}, "pad_token_id": 2}
NO_PAD = {"tokenizer_options": {"pad": None}, "pad_token_id": None}
PADS = [
    *((kind, PAD_IS_EOS) for kind in ("llama", "qwen3", "gpt2", "bert", "roberta", "modernbert")),
    *((kind, NO_PAD) for kind in ("llama", "qwen3", "gpt2", "bert")),
]
ENDS_IN_EOS = (  # the last token is eos, as in most reward models' templates
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)

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


def score(folder: Path, *, template: str | None = None, **settings: Any) -> list[Scores]:
    with scorer(folder, template, **settings) as entered:
        return entered.score(groups())


def chatml_ids(folder: Path, group: CandidateGroup, response: str, end: str = "\n") -> list[int]:
    """Token ids of a conversation in ChatML, written out rather than templated."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [*group.messages, {"role": "assistant", "content": response}]
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>{end}" for m in turns)
    return list(tokens(text, add_special_tokens=False)["input_ids"])


@torch.inference_mode()
def one_by_one(folder: Path, sequences: list[list[int]], dtype: str = "float32") -> list[float]:
    """Scores of plain forwards, one unpadded sequence at a time, read at the last position."""
    config = transformers.AutoConfig.from_pretrained(folder)
    is_eager = getattr(config, "attn_logit_softcapping", None) or config.model_type == "gpt_oss"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager" if is_eager else None
    ).eval()
    if hasattr(model, "score"):
        model.config.pad_token_id = None  # transformers then pools the last position
    return [
        model(input_ids=torch.tensor([sequence])).logits[0, 0].float().item()
        for sequence in sequences
    ]


def expected(folder: Path, dtype: str = "float32", end: str = "\n") -> list[float]:
    sequences = [
        chatml_ids(folder, group, response, end)
        for group in groups()
        for response in group.responses
    ]
    return one_by_one(folder, sequences, dtype)


def fill_embedding(folder: Path, token: int, value: float) -> None:
    edit_weights(folder, lambda weights: weights["model.embed_tokens.weight"][token].fill_(value))


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS])
def test_scores_are_those_of_one_conversation_at_a_time(kind: str, save: Save) -> None:
    want = expected(save(kind))
    assert max(want) - min(want) > 0.1  # else nothing would be seen
    assert largest_difference(flat(score(save(kind))), want) < MODEL_TOLERANCE


def test_every_class_with_a_forward_of_its_own_is_tested() -> None:
    assert set(OWN_FORWARD) | {"gpt2", "gpt_neox", "opt"} == _LAST_TOKEN


@pytest.mark.parametrize("kind", OWN_FORWARD)
def test_classes_with_a_forward_of_their_own_read_the_last_token(kind: str, save: Save) -> None:
    folder = save(kind, **OWN_FORWARD[kind])
    want = expected(folder)
    assert max(want) - min(want) > 0.05
    assert largest_difference(flat(score(folder)), want) < MODEL_TOLERANCE


@pytest.mark.parametrize("window", [16, 4096])  # padded batches, token tries
@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_attention_is_capped_where_the_configuration_says_so(
    kind: str, window: int, save: Save
) -> None:
    for cap in (None, 0.5):
        folder = save(kind, sliding_window=window, attn_logit_softcapping=cap)
        with scorer(folder) as entered:
            assert (entered._model.body.config._attn_implementation == "eager") == bool(cap)
            found = flat(entered.score(groups()))
        assert largest_difference(found, expected(folder)) < MODEL_TOLERANCE


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gpt2", "qwen3_5_text", *ENCODERS])
def test_batch_budget_and_order_change_no_score(kind: str, save: Save) -> None:
    with scorer(save(kind)) as entered:
        want = flat(entered.score(groups()))
        backwards = entered.score(tuple(reversed(groups())))
        alone = [result for group in groups() for result in entered.score([group])]
    others = [flat(backwards[::-1]), flat(alone)]
    others += [flat(score(save(kind), batch_tokens=tokens)) for tokens in (1, 64, 1 << 30)]
    spread = max(1.0, max(want) - min(want))
    for other in others:
        assert largest_difference(other, want) < BATCH_TOLERANCE * spread


@pytest.mark.parametrize("kind", ["llama", "gemma2", "modernbert", "qwen3_5_text"])
def test_the_same_part_twice_gives_the_same_bits(kind: str, save: Save) -> None:
    with scorer(save(kind)) as entered:
        first, second = entered.score(groups()), entered.score(groups())
    assert first == second == score(save(kind))


def test_equal_responses_get_equal_scores(save: Save) -> None:
    group = CandidateGroup("p", ({"role": "user", "content": "hi"},), ("same", "other", "same"))
    with scorer(save()) as entered:
        (result,) = entered.score([group])
    assert result.scores[0] == result.scores[2] != result.scores[1]


def test_results_keep_the_shape_of_their_groups(save: Save) -> None:
    empty = CandidateGroup("none", ({"role": "user", "content": "hi"},), ())
    with scorer(save()) as entered:
        results = entered.score([*groups(), empty])
        assert entered.score([]) == []
    assert [result.prompt_id for result in results] == ["p0", "p1", "p2", "p3", "p4", "none"]
    for group, result in zip((*groups(), empty), results, strict=True):
        lengths = [len(chatml_ids(save(), group, response)) for response in group.responses]
        assert list(result.num_tokens) == lengths
        assert result.truncated == (False,) * len(group.responses)
        assert result.reasons == {}


@pytest.mark.parametrize(("kind", "pad"), PADS)
def test_the_pad_token_moves_no_score(kind: str, pad: dict[str, Any], save: Save) -> None:
    folder = save(kind, **pad)
    results = score(folder, template=ENDS_IN_EOS)
    assert largest_difference(flat(results), expected(folder, end="")) < MODEL_TOLERANCE


def test_a_pad_token_that_the_model_has_no_row_for(save: Save) -> None:
    folder = save(tokenizer_options={"pad": "<|added pad|>"})
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokens.pad_token_id == 260
    small = save(tokenizer_options={"pad": "<|added pad|>"}, vocab_size=260)
    assert largest_difference(flat(score(small)), expected(small)) < MODEL_TOLERANCE


def test_a_token_that_the_model_has_no_row_for_costs_its_own_score(save: Save) -> None:
    folder = save(tokenizer_options={"pad": "<|added pad|>"}, vocab_size=260)
    group = CandidateGroup("p", ({"role": "user", "content": "hi"},), ("a", "<|added pad|>", "b"))
    with scorer(folder) as entered:
        (result,) = entered.score([group])
    assert [drop.reason for drop in result.reasons.values()] == ["unknown_token"]
    assert [value is None for value in result.scores] == [False, True, False]


def test_a_pad_row_that_is_not_finite_spreads_to_no_score(save: Save, tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    fill_embedding(folder, 0, torch.inf)
    assert largest_difference(flat(score(folder)), expected(folder)) < MODEL_TOLERANCE


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_bos_in_the_template_comes_once(adds_bos: bool, save: Save) -> None:
    folder = save("llama", tokenizer_options={"template": BOS_CHATML, "bos": adds_bos})
    bos = 3
    sequences = [
        [bos, *chatml_ids(folder, group, response)]
        for group in groups()
        for response in group.responses
    ]
    results = score(folder)
    assert [n for result in results for n in result.num_tokens] == [len(s) for s in sequences]
    assert largest_difference(flat(results), one_by_one(folder, sequences)) < MODEL_TOLERANCE


def test_a_given_template_takes_the_place_of_the_models_own(save: Save) -> None:
    folder = save(tokenizer_options={"template": "{{ messages[0]['content'] }}"})
    results = flat(score(folder, template=CHATML))
    assert largest_difference(results, expected(folder)) < MODEL_TOLERANCE
    assert largest_difference(results, flat(score(folder))) > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_a_longer_conversation_is_cut_and_says_so(kind: str, side: str, save: Save) -> None:
    folder, limit = save(kind), 60
    whole = [
        chatml_ids(folder, group, response) for group in groups() for response in group.responses
    ]
    cut = [ids[-limit:] if side == "left" else ids[:limit] for ids in whole]
    results = score(folder, max_length=limit, truncation_side=side)
    assert [n for result in results for n in result.num_tokens] == [len(ids) for ids in cut]
    flags = [flag for result in results for flag in result.truncated]
    assert flags == [len(ids) > limit for ids in whole]
    assert set(flags) == {True, False}
    assert largest_difference(flat(results), one_by_one(folder, cut)) < MODEL_TOLERANCE


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("bert", 48), ("roberta", 47), ("camembert", 47), ("xlm-roberta", 47), ("gpt2", 48)],
)
def test_the_models_own_positions_are_the_limit(kind: str, limit: int, save: Save) -> None:
    folder = save(kind, max_position_embeddings=48)
    results = score(folder, max_length=4096, template=BOS_CHATML)
    assert max(n for result in results for n in result.num_tokens) == limit
    assert any(flag for result in results for flag in result.truncated)
    flat(results)


def test_the_tokenizers_limit_is_the_limit_too(save: Save, tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    tokens.model_max_length = 40
    tokens.save_pretrained(folder)
    assert max(n for result in score(folder) for n in result.num_tokens) == 40


def test_a_template_that_refuses_one_conversation_costs_one_score(save: Save) -> None:
    refusing = "{% if messages|length > 3 %}{{ raise_exception('one turn only') }}{% endif %}"
    results = score(save(), template=refusing + CHATML)
    (drop,) = results[2].reasons.values()
    assert (drop.reason, drop.detail) == ("template_error", "one turn only")
    assert (results[2].scores, results[2].num_tokens) == ((None,), (0,))
    rest = flat([result for result in results if result.prompt_id != "p2"])
    want = expected(save())
    assert largest_difference(rest, [*want[:7], *want[8:]]) < MODEL_TOLERANCE


def test_a_conversation_that_overflows_costs_its_own_score(tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    (bad,) = tokens("~", add_special_tokens=False)["input_ids"]
    fill_embedding(folder, bad, torch.inf)
    responses = ("good", "b~d", "fine", "~" * 30, "")
    group = CandidateGroup("p", ({"role": "user", "content": "hi"},), responses)
    with scorer(folder) as entered:
        (result,) = entered.score([group])
    assert [score is None for score in result.scores] == [False, True, False, True, False]
    assert set(result.reasons) == {1, 3}
    assert {drop.reason for drop in result.reasons.values()} == {"non_finite_score"}
    assert result.num_tokens[3] == len(chatml_ids(folder, group, "~" * 30))
    finite = [chatml_ids(folder, group, responses[index]) for index in (0, 2, 4)]
    got = [value for value in result.scores if value is not None]
    assert largest_difference(got, one_by_one(folder, finite)) < MODEL_TOLERANCE


def test_a_broken_head_gives_no_scores_but_ends_well(tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    edit_weights(folder, lambda weights: weights["score.weight"].fill_(torch.nan))
    for result in score(folder):
        assert set(result.scores) == {None}
        assert [drop.reason for drop in result.reasons.values()] == ["non_finite_score"] * len(
            result.scores
        )


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma2", "modernbert"])
def test_bfloat16_is_as_near_to_float32_as_one_at_a_time(kind: str, save: Save) -> None:
    folder = save(kind, dtype="bfloat16")
    alone, exact = expected(folder, "bfloat16"), expected(folder, "float32")
    rounding = largest_difference(alone, exact)
    assert rounding > 1e-3
    ours = flat(score(folder))
    # two roundings of their own, each as far from the exact score
    assert largest_difference(ours, alone) <= 2 * rounding
    assert root_mean_square(ours, exact) <= 1.25 * root_mean_square(alone, exact)


@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
def test_auto_is_the_checkpoints_own_type(saved: str, save: Save) -> None:
    with scorer(save(dtype=saved)) as entered:
        assert str(entered._model.body.dtype) == f"torch.{saved}"
    with scorer(save(dtype=saved), dtype="float32") as entered:
        assert entered._model.body.dtype == torch.float32


@pytest.mark.parametrize("fails", [False, True])
def test_leaving_frees_the_model(fails: bool, save: Save) -> None:
    entered = scorer(save())
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext(), entered:
        entered.score(groups())
        model = weakref.ref(entered._model.body)
        weight = weakref.ref(entered._model.module.score.weight)
        if fails:
            raise ZeroDivisionError
    gc.collect()
    assert model() is None
    assert weight() is None


def test_a_scorer_can_be_entered_again(save: Save) -> None:
    once = scorer(save())
    with once:
        first = once.score(groups())
    with once:
        assert once.score(groups()) == first
