"""Qwen2.5-Math-PRM against a plain forward of one conversation, its ids put together by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, largest_difference, reward_scorer, root_mean_square
from support.tiny_models import CHATML, edit_weights, tokenizer
from support.tiny_prms import STEP_TOKEN, reasons, save_qwen2_process, step_groups

from bon.chat import ChatTemplate
from bon.errors import ModelError
from bon.records import CandidateGroup, Scores
from bon.scorers.families.qwen2_process import MarkedSteps

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GROUPS = step_groups("\n\n")
AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "last": lambda values: values[-1],
    "mean": lambda values: sum(values) / len(values),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_process(tmp_path_factory.mktemp("prm"))


def conversation(folder: Path, group: CandidateGroup, steps: list[str]) -> tuple[Any, list[int]]:
    """Ids of a conversation whose steps are given, and the places after each of them."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(text: str) -> list[int]:
        return list(tokens(text, add_special_tokens=False)["input_ids"])

    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in group.messages)
    result, ends = ids(f"{turns}<|im_start|>assistant\n"), []
    for step in steps:
        result += [*ids(step), tokens.convert_tokens_to_ids(STEP_TOKEN)]
        ends.append(len(result) - 1)
    return result + ids("<|im_end|>\n"), ends


def clean(response: str) -> list[str]:
    return [step.strip() for step in response.split("\n\n") if step.strip()]


def plain_model(folder: Path, dtype: str) -> Callable[[list[int]], Any]:
    """Right probabilities at every place of one sequence, from the file's tensors; the head works
    in float32, whatever the body does."""
    from safetensors.torch import load_file

    tensors = {
        name: value.float() for name, value in load_file(folder / "model.safetensors").items()
    }
    config = transformers.Qwen2Config.from_pretrained(folder)
    body = transformers.Qwen2Model(config).eval()
    for parameter in body.parameters():  # not `to`, which would round rotary frequencies as well
        parameter.data = parameter.data.to(getattr(torch, dtype))
    body.load_state_dict(
        {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
    )

    @torch.inference_mode()
    def probabilities(sequence: list[int]) -> Any:
        hidden = body(input_ids=torch.tensor([sequence])).last_hidden_state[0].float()
        inner = (hidden @ tensors["score.0.weight"].T + tensors["score.0.bias"]).clamp(min=0)
        logits = (inner @ tensors["score.2.weight"].T + tensors["score.2.bias"]).double()
        return torch.sigmoid(logits[:, 1] - logits[:, 0])

    return probabilities


def expected(folder: Path, dtype: str = "float32", how: str = "min") -> list[float]:
    probabilities, result = plain_model(folder, dtype), []
    for group in GROUPS:
        for response in group.responses:
            ids, ends = conversation(folder, group, clean(response))
            result.append(AGGREGATES[how](probabilities(ids)[ends].tolist()))
    return result


def score(folder: Path, groups: Any = GROUPS, **settings: Any) -> list[Scores]:
    with reward_scorer(folder, **settings) as entered:
        return entered.score(groups)


@pytest.mark.parametrize("how", AGGREGATES)
def test_scores_are_those_of_one_conversation_at_a_time(how: str, folder: Path) -> None:
    want = expected(folder, how=how)
    assert max(want) - min(want) > 0.1
    assert largest_difference(flat(score(folder, step_aggregate=how)), want) < 1e-4
    alone = flat(score(folder, step_aggregate=how, alone=True))
    assert largest_difference(alone, want) < 1e-4


def test_the_least_step_is_taken_by_default(folder: Path) -> None:
    assert score(folder) == score(folder, step_aggregate="min")
    assert score(folder) != score(folder, step_aggregate="mean")


def test_bfloat16_is_as_near_to_float32_as_one_at_a_time(tmp_path: Path) -> None:
    ours: list[float] = []
    plain: list[float] = []
    exact: list[float] = []
    for seed in range(6):
        folder = save_qwen2_process(tmp_path / str(seed), dtype="bfloat16", seed=seed)
        plain += expected(folder, "bfloat16", "mean")
        exact += expected(folder, how="mean")
        ours += flat(score(folder, step_aggregate="mean"))
        alone = flat(score(folder, step_aggregate="mean", alone=True))
        assert largest_difference(alone, plain[-len(alone) :]) < 1e-6
    assert largest_difference(plain, exact) > 1e-4
    # packed, it rounds in an order of its own, which takes it no further away
    assert root_mean_square(ours, exact) <= 1.5 * root_mean_square(plain, exact)


def test_tokens_are_those_put_together_by_hand(folder: Path) -> None:
    lengths = [
        len(conversation(folder, group, clean(response))[0])
        for group in GROUPS
        for response in group.responses
    ]
    assert [n for result in score(folder) for n in result.num_tokens] == lengths


def test_blank_steps_change_nothing(folder: Path) -> None:
    first = score(folder)[0]
    assert GROUPS[0].responses[2] != GROUPS[0].responses[3]
    assert first.scores[2] == first.scores[3]


def test_another_separator(folder: Path) -> None:
    groups = (CandidateGroup("p", GROUPS[0].messages, ("a | b\n\nc | ", "one")),)
    steps = [["a", "b\n\nc"], ["one"]]
    probabilities = plain_model(folder, "float32")
    want = []
    for parts in steps:
        ids, ends = conversation(folder, groups[0], parts)
        want.append(min(probabilities(ids)[ends].tolist()))
    got = flat(score(folder, groups, step_separator="|"))
    assert largest_difference(got, want) < 1e-4


def test_a_response_without_steps_has_no_score(folder: Path) -> None:
    group = CandidateGroup("p", GROUPS[0].messages, ("", "a", "\n\n \n\n"))
    (result,) = score(folder, (group,))
    assert [value is None for value in result.scores] == [True, False, True]
    assert {result.reasons[index].reason for index in (0, 2)} == {"no_steps"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [30, 60])
def test_what_is_cut_off_is_not_read(side: str, limit: int, folder: Path) -> None:
    probabilities = plain_model(folder, "float32")
    want: list[float | None] = []
    for group in GROUPS:
        for response in group.responses:
            ids, ends = conversation(folder, group, clean(response))
            gone = max(0, len(ids) - limit) if side == "left" else 0
            kept = [end - gone for end in ends if 0 <= end - gone < limit]
            cut = ids[gone:] if side == "left" else ids[:limit]
            want.append(min(probabilities(cut)[kept].tolist()) if kept else None)
    assert None in want or side == "left"
    results = score(folder, max_length=limit, truncation_side=side)
    got = [value for result in results for value in result.scores]
    assert [value is None for value in got] == [value is None for value in want]
    assert set(reasons(results)) <= {"no_steps"}
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if a is not None and b is not None]
    assert pairs
    assert max(abs(a - b) for a, b in pairs) < 1e-4


def test_a_template_that_loses_step_tokens_costs_the_score(folder: Path) -> None:
    losing = CHATML.replace("message['content']", f"message['content']|replace('{STEP_TOKEN}', '')")
    with reward_scorer(folder, losing) as entered:
        results = entered.score(GROUPS)
    assert set(reasons(results)) == {"template_error"}
    assert all(value is None for result in results for value in result.scores)


def test_the_places_read_are_those_after_steps() -> None:
    tokens = tokenizer()
    tokens.add_special_tokens({"additional_special_tokens": ["#"]})
    (mark,) = tokens.encode("#", add_special_tokens=False)
    form = MarkedSteps("|", "#", mark)
    chat = ChatTemplate(tokens, "{{ messages[0].content }}>{{ messages[1].content }}.", "r", "-r")
    found = form.stepped_tokens(chat, ({"role": "user", "content": "q#"},), "a#b|#|c")
    assert isinstance(found, tuple)
    ids, ends = found
    assert tokens.decode(ids) == "q#>a#b###c#."
    #                             0123456789..
    assert ends == [6, 8, 10]


def refused(folder: Path, template: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught, reward_scorer(folder, template):
        pytest.fail("it was taken")
    assert caught.value.where == str(folder)
    return caught.value


@pytest.mark.parametrize(
    ("name", "shape"),
    [("score.2.bias", None), ("score.0.weight", (64, 32)), ("score.2.weight", (1, 64))],
)
def test_a_head_that_does_not_fit_is_refused(name: str, shape: Any, tmp_path: Path) -> None:
    def edit(weights: dict[str, Any]) -> None:
        weights.pop(name)
        if shape:
            weights[name] = torch.zeros(shape)

    folder = save_qwen2_process(tmp_path)
    edit_weights(folder, edit)
    assert name in refused(folder).why


def test_a_tokenizer_without_the_step_token_is_refused(tmp_path: Path) -> None:
    folder = save_qwen2_process(tmp_path, step_token="<other>")
    assert STEP_TOKEN in refused(folder).what


def test_no_chat_template_is_refused_and_a_file_takes_its_place(
    folder: Path, tmp_path: Path
) -> None:
    bare = save_qwen2_process(tmp_path, tokenizer_options={"template": None})
    assert "--reward-template" in refused(bare).next_step
    with reward_scorer(bare, CHATML) as entered:
        assert entered.score(GROUPS) == score(folder)


def test_what_is_to_be_moved_to_a_device_is_in_the_module(folder: Path) -> None:
    with reward_scorer(folder) as entered:
        names = set(entered._model.module.state_dict())
        assert isinstance(entered._model.body, transformers.Qwen2Model)
    assert {name for name in names if "score" in name} == {
        f"head.score.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert any(name.startswith("body.layers") for name in names)
