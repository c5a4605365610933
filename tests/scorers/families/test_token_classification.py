"""TRL's process reward models against transformers' own forward of one conversation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, largest_difference, reward_scorer, root_mean_square
from support.tiny_models import CHATML, edit_config, edit_weights
from support.tiny_prms import reasons, save_token_classifier, step_groups

from bon.errors import ModelError
from bon.records import CandidateGroup, Scores
from bon.scorers.families.token_classification import _DECODERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GROUPS = step_groups("\n")
SMALL = {"moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4}
Save = Callable[..., Path]
AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "last": lambda values: values[-1],
    "mean": lambda values: sum(values) / len(values),
}


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a model once for every set of options and gives its folder."""
    saved: dict[str, Path] = {}

    def folder(kind: str = "qwen3", **options: Any) -> Path:
        key = f"{kind} {sorted(options.items())}"
        if key not in saved:
            saved[key] = save_token_classifier(tmp_path_factory.mktemp("prm"), kind=kind, **options)
        return saved[key]

    return folder


def score(
    folder: Path, template: str | None = None, groups: Any = GROUPS, **settings: Any
) -> list[Scores]:
    with reward_scorer(folder, template, **settings) as entered:
        return entered.score(groups)


def as_trained(tokens: Any, prompt: list[int], steps: list[str]) -> tuple[list[int], list[bool]]:
    """Ids of a prompt and its steps as TRL's trainer makes them, and which it labels."""
    ids, labelled = list(prompt), [False] * len(prompt)
    line_break = tokens("\n", add_special_tokens=False)["input_ids"]
    for step in steps:
        found = [*tokens(step, add_special_tokens=False)["input_ids"], *line_break]
        ids += found
        labelled += [False] * (len(found) - 1) + [True]
    return ids, labelled


def templated(tokens: Any, group: CandidateGroup) -> list[int]:
    """Ids of a prompt in ChatML, up to where the response begins."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in group.messages)
    return list(tokens(f"{turns}<|im_start|>assistant\n", add_special_tokens=False)["input_ids"])


def raw(tokens: Any, group: CandidateGroup) -> list[int]:
    """Ids of a prompt as TRL reads it; what it has no rule for is joined with an empty line."""
    text = "\n\n".join(message["content"] for message in group.messages)
    bos = [] if tokens.bos_token_id is None else [tokens.bos_token_id]
    return [*bos, *tokens(text, add_special_tokens=False)["input_ids"]]


def sequences(folder: Path, prompt: Any = raw) -> list[tuple[list[int], list[bool]]]:
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    return [
        as_trained(
            tokens, prompt(tokens, group), [line for line in response.split("\n") if line.strip()]
        )
        for group in GROUPS
        for response in group.responses
    ]


@torch.inference_mode()
def one_by_one(
    folder: Path, items: Sequence[tuple[list[int], list[bool]]], dtype: str = "float32"
) -> list[list[float]]:
    """Right probabilities of the labelled places, by plain forwards of one sequence each.

    The head works in float32, whatever the body does.
    """
    kind = transformers.AutoConfig.from_pretrained(folder).model_type
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager" if kind in ("gemma2", "gpt_oss") else None
    ).eval()
    model.score.float().register_forward_pre_hook(lambda _, hidden: (hidden[0].float(),))
    result = []
    for ids, labelled in items:
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        result.append(torch.sigmoid(logits[:, 1] - logits[:, 0])[torch.tensor(labelled)].tolist())
    return result


def expected(folder: Path, dtype: str = "float32", how: str = "min") -> list[float]:
    return [AGGREGATES[how](steps) for steps in one_by_one(folder, sequences(folder), dtype)]


@pytest.mark.parametrize("kind", sorted(_DECODERS))
def test_scores_are_those_of_one_conversation_at_a_time(kind: str, save: Save) -> None:
    folder = save(kind, **(SMALL if "mo" in kind or kind in ("gpt_oss", "mixtral") else {}))
    want = expected(folder, how="mean")
    assert max(want) - min(want) > 0.05
    assert largest_difference(flat(score(folder, step_aggregate="mean")), want) < 1e-4


@pytest.mark.parametrize("how", AGGREGATES)
def test_every_aggregate(how: str, save: Save) -> None:
    got = flat(score(save(), step_aggregate=how))
    assert largest_difference(got, expected(save(), how=how)) < 1e-4


def test_bfloat16_is_as_near_to_float32_as_one_at_a_time(save: Save) -> None:
    ours: list[float] = []
    plain: list[float] = []
    exact: list[float] = []
    for seed in range(6):
        folder = save("llama", dtype="bfloat16", seed=seed)
        plain += expected(folder, "bfloat16", "mean")
        exact += expected(folder, how="mean")
        ours += flat(score(folder, step_aggregate="mean"))
        alone = flat(score(folder, step_aggregate="mean", alone=True))
        assert largest_difference(alone, plain[-len(alone) :]) < 1e-6
    assert largest_difference(plain, exact) > 1e-3
    # packed, it rounds in an order of its own, which takes it no further away
    assert root_mean_square(ours, exact) <= 1.5 * root_mean_square(plain, exact)


def test_tokens_are_those_put_together_by_hand(save: Save) -> None:
    lengths = [len(ids) for ids, _ in sequences(save())]
    assert [n for result in score(save()) for n in result.num_tokens] == lengths


def test_batches_change_no_score(save: Save) -> None:
    want = flat(score(save()))
    assert largest_difference(flat(score(save(), alone=True)), want) < 1e-5
    assert largest_difference(flat(score(save(), batch_tokens=64)), want) < 1e-5


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", [None, CHATML])
def test_a_prompt_is_a_text_as_in_trls_data(bos: bool, template: str | None, save: Save) -> None:
    """Steps are given as they are, white space included."""
    folder = save(tokenizer_options={"bos": bos, "template": template})
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    user = {"role": "user", "content": "9.8 or 9.11?"}
    group = CandidateGroup("p", (user,), ("11 > 8. \n\n  So.\n \n",))  # type: ignore[arg-type]
    prompt = tokens("9.8 or 9.11?", add_special_tokens=False)["input_ids"]
    prompt = [tokens.bos_token_id, *prompt] if bos else prompt
    trained = as_trained(tokens, prompt, ["11 > 8. ", "  So."])
    assert trained[1].count(True) == 2
    assert trained[1][-1]
    (result,) = score(folder, groups=(group,), step_aggregate="product")
    assert result.num_tokens == (len(trained[0]),)
    (steps,) = one_by_one(folder, [trained])
    assert abs((result.scores[0] or 0) - steps[0] * steps[1]) < 1e-4


def test_a_given_template_takes_the_place_of_the_raw_text(save: Save) -> None:
    folder = save(tokenizer_options={"template": None})
    want = [min(steps) for steps in one_by_one(folder, sequences(folder, templated))]
    assert largest_difference(flat(score(folder, CHATML)), want) < 1e-4
    assert largest_difference(flat(score(folder)), want) > 1e-2


def test_a_given_template_that_is_not_jinja_is_refused(save: Save) -> None:
    with pytest.raises(ModelError, match="not valid Jinja"), reward_scorer(save(), "{% if %}"):
        pytest.fail("it was taken")


def test_a_separator_of_several_tokens_is_read_at_its_last(save: Save) -> None:
    folder = save()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    group = CandidateGroup("p", ({"role": "user", "content": "q"},), ("a\nb ки c",))
    ids = list(tokens("q", add_special_tokens=False)["input_ids"])
    labelled = [False] * len(ids)
    for step in ("a\nb", "c"):
        found = tokens(step, add_special_tokens=False)["input_ids"]
        found = found + tokens(" ки ", add_special_tokens=False)["input_ids"]
        ids += found
        labelled += [False] * (len(found) - 1) + [True]
    (steps,) = one_by_one(folder, [(ids, labelled)])
    (result,) = score(folder, groups=(group,), step_separator=" ки ")
    assert largest_difference(flat([result]), [min(steps)]) < 1e-4


def test_a_response_without_steps_has_no_score(save: Save) -> None:
    group = CandidateGroup("p", GROUPS[0].messages, ("", "a", "\n \n"))
    (result,) = score(save(), groups=(group,))
    assert [value is None for value in result.scores] == [True, False, True]
    assert {result.reasons[index].reason for index in (0, 2)} == {"no_steps"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_cut_off_is_not_read(side: str, save: Save) -> None:
    folder, limit, cut = save(), 60, []
    for ids, labelled in sequences(folder):
        if side == "left":
            cut.append((ids[-limit:], labelled[-limit:]))
        else:
            cut.append((ids[:limit], labelled[:limit]))
    steps = one_by_one(folder, cut)
    results = score(folder, max_length=limit, truncation_side=side)
    got = [value for result in results for value in result.scores]
    assert [value is None for value in got] == [not found for found in steps]
    assert reasons(results) == ["no_steps"] * steps.count([])
    want = [min(found) for found in steps if found]
    assert largest_difference([value for value in got if value is not None], want) < 1e-4


def refused(folder: Path, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as caught, reward_scorer(folder, **settings):
        pytest.fail("it was taken")
    assert caught.value.why
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_labels_is_refused(number: int, save: Save) -> None:
    error = refused(save(num_labels=number))
    assert f"{number} labels" in error.what
    assert "num_labels=2" in error.next_step


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2"])
def test_encoders_and_decoders_not_measured_are_refused(kind: str, save: Save) -> None:
    assert f"its type is {kind}" in refused(save(kind)).why


def test_a_lost_head_is_not_made_up(tmp_path: Path) -> None:
    folder = save_token_classifier(tmp_path)
    edit_weights(folder, lambda weights: weights.pop("score.weight"))
    assert "score.weight" in refused(folder).why


def test_a_class_of_a_repositorys_own_is_refused(tmp_path: Path) -> None:
    folder = save_token_classifier(tmp_path)
    edit_config(folder, architectures=["EvilForTokenClassification"])
    assert "EvilForTokenClassification" in refused(folder).what
