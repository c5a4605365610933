"""LoRA adapters against peft's own forward of the adapter that is not merged, one at a time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.parity import conversations
from support.scoring import flat, groups, largest_difference, reward_scorer, root_mean_square
from support.tiny_adapters import (
    adapter_scorer,
    edit_adapter,
    edit_tensors,
    peft_model,
    save_adapter,
    save_base,
)
from support.tiny_models import edit_config, save_reward, tokenizer
from support.tiny_prms import save_token_classifier, step_groups

from bon.cli.build import scoring_plans
from bon.config import ScoreSettings
from bon.errors import ModelError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

TOLERANCE = 1e-4
TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"
CLASSIFIER = "AutoModelForSequenceClassification"
STEPS = step_groups("\n")

Save = Callable[..., Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a base once for every set of options and gives its folder."""
    folders: dict[str, Path] = {}

    def folder(kind: str = "qwen3", **options: Any) -> Path:
        key = f"{kind} {sorted(options.items())}"
        if key not in folders:
            folders[key] = save_base(tmp_path_factory.mktemp("base"), kind=kind, **options)
        return folders[key]

    return folder


@pytest.fixture
def adapter(saved: Save, tmp_path: Path) -> Path:
    """An adapter on a generator, to be damaged."""
    return save_adapter(tmp_path / "adapter", saved())


@torch.inference_mode()
def by_peft(folder: Path, tokens_of: Path, dtype: str = "float32") -> list[float]:
    """Scores of `groups()` by peft, each conversation alone."""
    model = peft_model(folder, dtype=dtype)
    ids = conversations(tokens_of, TURN)
    return [model(input_ids=torch.tensor([one])).logits[0, 0].item() for one in ids]


def scores(folder: Path, **settings: Any) -> list[float]:
    with adapter_scorer(folder, **settings) as entered:
        return flat(entered.score(groups()))


def test_an_adapter_on_a_generator_is_run_over_token_tries(adapter: Path, saved: Save) -> None:
    with adapter_scorer(adapter) as entered:
        results = entered.score(groups())
        given = sum(number for result in results for number in result.num_tokens)
        assert entered.num_tokens_computed < 0.9 * given
    want = by_peft(adapter, saved())
    assert max(want) - min(want) > 0.5
    assert largest_difference(flat(results), want) < TOLERANCE


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        *((kind, "AutoModelForCausalLM") for kind in ("llama", "gemma2", "gpt2", "qwen3_5_text")),
        *((kind, CLASSIFIER) for kind in ("qwen3", "llama", "bert")),
        ("roberta", "AutoModelForMaskedLM"),
    ],
)
def test_scores_are_those_of_the_adapter_that_is_not_merged(
    kind: str, of: str, saved: Save, tmp_path: Path
) -> None:
    labels = {"num_labels": 1} if of == CLASSIFIER else {}
    base = saved(kind, of=of, **labels)
    folder = save_adapter(tmp_path, base, fan_in_fan_out=kind == "gpt2")
    want = by_peft(folder, base)
    assert max(want) - min(want) > 0.1
    assert largest_difference(scores(folder), want) < TOLERANCE
    if of == CLASSIFIER:  # its own head and weights have given way
        with reward_scorer(base) as entered:
            assert largest_difference(flat(entered.score(groups())), want) > 0.05


OPTIONS: dict[str, dict[str, Any]] = {
    "scaled by rank": {"use_rslora": True},
    "magnitudes (DoRA)": {"use_dora": True},
    "ranks by layer": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 32}},
    "embeddings": {"modules_to_save": ["score", "embed_tokens"]},
    "embeddings by LoRA": {"target_modules": ["q_proj", "embed_tokens"]},
    "some tokens": {"trainable_token_indices": {"embed_tokens": [1, 2, 70]}},
    "biases": {"bias": "all"},
    "some layers": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    "made from the base (PiSSA)": {"init_lora_weights": "pissa"},
    "no task": {"task_type": None, "modules_to_save": ["score"], "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_lora_can_be(name: str, saved: Save, tmp_path: Path) -> None:
    base = saved("qwen2")
    folder = save_adapter(tmp_path, base, **OPTIONS[name])
    assert largest_difference(scores(folder), by_peft(folder, base)) < TOLERANCE


def test_weights_as_older_versions_of_peft_save_them(adapter: Path) -> None:
    from safetensors.torch import load_file

    want = scores(adapter)
    weights = adapter / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter / "adapter_model.bin")
    weights.unlink()
    assert refused(adapter).what == "the model's weights are pickles"
    assert scores(adapter, reward_allow_pickle=True) == want


def test_bfloat16_is_as_near_to_float32_as_peft_is(saved: Save, tmp_path: Path) -> None:
    ours: list[float] = []
    plain: list[float] = []
    exact: list[float] = []
    for seed in range(3):
        base = saved("llama", dtype="bfloat16", seed=seed)
        folder = save_adapter(tmp_path / str(seed), base, seed=seed)
        exact += by_peft(folder, base)
        plain += by_peft(folder, base, "bfloat16")
        ours += scores(folder)
    rounding = root_mean_square(plain, exact)
    assert 1e-3 < rounding < 0.1
    assert 1e-3 < root_mean_square(ours, exact) <= 2 * rounding


def test_the_type_is_the_bases_and_the_head_is_not_rounded(saved: Save, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, saved(dtype="bfloat16"))
    edit_tensors(folder, **{"base_model.model.score.weight": torch.full((1, 64), 1 + 2**-20)})
    with adapter_scorer(folder) as entered:
        assert entered._model.body.dtype == torch.bfloat16
        assert torch.equal(entered._model.module.score.weight, torch.full((1, 64), 1 + 2**-20))
    with adapter_scorer(folder, reward_dtype="float32") as entered:
        assert entered._model.body.dtype == torch.float32


@torch.inference_mode()
def steps_by_peft(folder: Path) -> list[float]:
    """Least right probability of each response's steps, tokenized as TRL trains them."""
    model, tokens = peft_model(folder, task="TOKEN_CLS"), tokenizer()
    result = []
    for group in STEPS:
        text = "\n\n".join(message["content"] for message in group.messages)
        prompt = tokens.encode(text, add_special_tokens=False)
        for response in group.responses:
            ids, ends = list(prompt), []
            for step in (line for line in response.split("\n") if line.strip()):
                ids += tokens.encode(f"{step}\n", add_special_tokens=False)
                ends.append(len(ids) - 1)
            right = model(input_ids=torch.tensor([ids])).logits[0, ends].softmax(-1)[:, 1]
            result.append(right.min().item())
    return result


@pytest.mark.parametrize("of", ["generator", "token classifier"])
def test_process_reward_adapters(of: str, saved: Save, tmp_path: Path) -> None:
    base = saved() if of == "generator" else save_token_classifier(tmp_path / "base")
    folder = save_adapter(tmp_path / "adapter", base, task="TOKEN_CLS")
    want = steps_by_peft(folder)
    assert max(want) - min(want) > 0.05
    with adapter_scorer(folder) as entered:
        assert largest_difference(flat(entered.score(STEPS)), want) < TOLERANCE


def test_the_adapters_own_tokenizer_is_taken(adapter: Path, saved: Save) -> None:
    before = scores(adapter)
    tokenizer(template="{{ messages[-1]['content'] }}").save_pretrained(adapter)
    model = peft_model(adapter)
    tokens = tokenizer()
    with torch.inference_mode():
        want = [
            model(input_ids=torch.tensor([ids])).logits[0, 0].item()
            for group in groups()
            for ids in (tokens.encode(text, add_special_tokens=False) for text in group.responses)
            if ids
        ]
    with adapter_scorer(adapter) as entered:
        results = entered.score(groups())
    got = [value for result in results for value in result.scores if value is not None]
    assert largest_difference(got, want) < TOLERANCE
    assert len(got) < len(before)  # an empty text has no token


def test_the_base_is_looked_for_from_where_bon_is_started(
    saved: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_adapter(tmp_path / "adapter", saved())
    want = scores(folder)
    shutil.copytree(saved(), tmp_path / "models" / "base")
    edit_adapter(folder, base_model_name_or_path="models/base")
    monkeypatch.chdir(tmp_path)
    assert scores(folder) == want


def test_hub_ids_of_both(adapter: Path, saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    edit_adapter(adapter, base_model_name_or_path="org/base", revision="v2")
    places = {("org/mine", "r1"): adapter, ("org/base", "v2"): saved()}

    def download(spec: str, *, revision: str | None, **_: object) -> str:
        return str(places[spec, revision])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    said = {"reward": ("mine=org/mine",), "reward_revision": "r1"}
    (plan,) = scoring_plans(ScoreSettings.model_validate(said))
    found = {key: plan.fingerprint[key] for key in ("spec", "digest", "base", "base_digest")}
    assert found == {
        "spec": "org/mine", "digest": adapter.name, "base": "org/base", "base_digest": saved().name
    }  # fmt: skip


def test_what_a_trainer_leaves_beside_an_adapter_makes_no_whole_model(
    adapter: Path, saved: Save
) -> None:
    want = scores(adapter)
    shutil.copy(saved() / "config.json", adapter)
    torch.save({}, adapter / "training_args.bin")
    assert scores(adapter) == want


def test_a_whole_model_is_not_changed_by_an_adapter_beside_it(saved: Save, tmp_path: Path) -> None:
    base = saved(of=CLASSIFIER, num_labels=1)
    with reward_scorer(base) as entered:
        want = flat(entered.score(groups()))
    folder = save_adapter(tmp_path / "both", base)
    shutil.copytree(base, folder, dirs_exist_ok=True)
    assert scores(folder) == want
    upon = save_adapter(tmp_path / "upon", base)  # nor is a base
    expected = scores(upon)
    edit_adapter(upon, base_model_name_or_path=str(folder))
    assert scores(upon) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
def test_what_trls_reward_trainer_saves(saved: Save, tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    from peft import LoraConfig

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}]

    settings = trl.RewardConfig(
        output_dir=str(tmp_path), max_steps=1, learning_rate=0.01, per_device_train_batch_size=2,
        save_strategy="no", report_to=[], use_cpu=True, bf16=False,
    )  # fmt: skip
    rows = [{"chosen": said("good"), "rejected": said("bad")}] * 2
    trainer = trl.RewardTrainer(
        str(saved()), args=settings, train_dataset=datasets.Dataset.from_list(rows),
        peft_config=LoraConfig(r=4, modules_to_save=["score"]),
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] is None
    model = trainer.model.eval()
    with torch.inference_mode():
        want = [
            model(input_ids=torch.tensor([ids])).logits[0, 0].item()
            for ids in conversations(saved(), TURN)
        ]
    assert largest_difference(scores(tmp_path), want) < TOLERANCE


def refused(folder: Path, **settings: Any) -> ModelError:
    """Return what is said of an adapter that must not be taken."""
    with pytest.raises(ModelError) as caught, adapter_scorer(folder, **settings):
        pytest.fail("it was taken")
    assert caught.value.where
    assert caught.value.why
    assert caught.value.next_step
    return caught.value


def test_a_head_in_the_file_is_a_head_whatever_the_configuration_says(adapter: Path) -> None:
    want = scores(adapter)
    edit_adapter(adapter, modules_to_save=None)
    assert scores(adapter) == want


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_lost_head_is_not_made_up(kind: str, adapter: Path) -> None:
    edit_tensors(adapter, without="score")
    if kind == "bin":
        from safetensors.torch import load_file

        weights = adapter / "adapter_model.safetensors"
        torch.save(load_file(weights), adapter / "adapter_model.bin")
        weights.unlink()
    error = refused(adapter, reward_allow_pickle=True)
    assert error.what == "the LoRA adapter has no head"
    assert error.where == str(adapter)
    assert 'modules_to_save=["score"]' in error.next_step


def test_a_head_that_is_only_lora_is_refused(saved: Save, tmp_path: Path) -> None:
    options = {"task_type": None, "target_modules": ["q_proj", "score"]}
    folder = save_adapter(tmp_path, saved(), **options)
    assert refused(folder).what == "the LoRA adapter has no head"


def test_a_head_that_the_adapter_lacks_is_not_the_bases(saved: Save, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, saved(of=CLASSIFIER, num_labels=1))
    edit_tensors(folder, without="score")
    error = refused(folder)
    assert error.what == "the LoRA adapter does not fit its base"
    assert "score" in error.why


def test_other_kinds_than_lora_are_refused(adapter: Path) -> None:
    edit_adapter(adapter, peft_type="LOHA")
    error = refused(adapter)
    assert error.what == "the adapter is not a LoRA adapter"
    assert (error.where, error.why) == (str(adapter), "its peft_type is LOHA")
    assert "merge" in error.next_step


def test_lora_that_cannot_be_merged_is_refused(adapter: Path) -> None:
    edit_adapter(adapter, alora_invocation_tokens=[1, 2])  # LoRA behind these tokens alone
    error = refused(adapter)
    assert error.where == str(adapter)
    assert "aLoRA" in error.why


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_other_tasks_are_refused(task: str | None, adapter: Path) -> None:
    edit_adapter(adapter, task_type=task)
    error = refused(adapter)
    assert error.what == "the adapter is not one of a reward model"
    assert error.why == f"its task_type is {task}; known: SEQ_CLS, TOKEN_CLS"


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
def test_a_base_of_another_number_of_labels_is_refused(
    task: str, saved: Save, tmp_path: Path
) -> None:
    base = (save_reward if task == "SEQ_CLS" else save_token_classifier)(tmp_path, num_labels=3)
    folder = save_adapter(tmp_path / "adapter", saved(), task=task)
    edit_adapter(folder, base_model_name_or_path=str(base))
    assert "3 labels" in refused(folder).what


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 96}, "size mismatch"),
        ({"num_hidden_layers": 1}, "without a place or a value: base_model.model.model.layers.1"),
        ({"num_hidden_layers": 3}, "without a place or a value: base_model.model.model.layers.2"),
    ],
)
def test_a_base_of_other_shape_is_refused(
    changes: dict[str, int], said: str, adapter: Path, saved: Save
) -> None:
    edit_adapter(adapter, base_model_name_or_path=str(saved(**changes)))
    error = refused(adapter)
    assert error.what == "the LoRA adapter does not fit its base"
    assert error.where == str(adapter)
    assert said in error.why


def test_a_base_that_is_not_there_is_named(adapter: Path) -> None:
    edit_adapter(adapter, base_model_name_or_path="./no/base")
    error = refused(adapter)
    assert error.what == "the LoRA adapter's base model './no/base' is not there"
    assert error.where == str(adapter)
    assert "no such folder" in error.why
    assert "base_model_name_or_path" in error.next_step
    assert str(Path.cwd()) in error.next_step


def test_a_base_that_the_hub_does_not_give_is_named(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []

    def fail(spec: str, *, revision: str | None, **_: object) -> str:
        asked.append((spec, revision))
        raise OSError("gated")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    edit_adapter(adapter, base_model_name_or_path="org/base", revision="v2")
    error = refused(adapter)
    assert error.what == "the LoRA adapter's base model 'org/base' is not there"
    assert error.why == "gated"
    assert "HF_TOKEN" in error.next_step
    assert asked == [("org/base", "v2")]


@pytest.mark.parametrize("name", [None, ""])
def test_an_adapter_that_names_no_base_is_refused(name: str | None, adapter: Path) -> None:
    edit_adapter(adapter, base_model_name_or_path=name)
    error = refused(adapter)
    assert error.what == "the LoRA adapter names no base model"
    assert error.why == f"its base_model_name_or_path is {name!r}"


def test_a_quantized_base_is_refused(adapter: Path, saved: Save, tmp_path: Path) -> None:
    base = Path(shutil.copytree(saved(), tmp_path / "4bit"))
    edit_config(base, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    edit_adapter(adapter, base_model_name_or_path=str(base))
    error = refused(adapter)
    assert error.what == "the LoRA adapter's base is quantized"
    assert str(base) in error.why


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["EvilForCausalLM"]},  # a repository's own
        {"architectures": ["LlamaForCausalLM"]},  # another type's
        {"architectures": None},
        {"architectures": ["EvilForSequenceClassification"], "num_labels": 1},
    ],
)
def test_a_base_that_transformers_would_take_for_another_is_refused(
    changes: dict[str, Any], adapter: Path, saved: Save, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(saved(), tmp_path / "base"))
    edit_config(base, **changes)
    edit_adapter(adapter, base_model_name_or_path=str(base))
    error = refused(adapter)
    assert error.what == "the LoRA adapter's base cannot be a reward model"
    assert (changes["architectures"] or ["none"])[0] in error.why
    assert error.where == str(base)


@pytest.mark.parametrize("damage", ["cut", "not finite", "no weights", "configuration"])
def test_damaged_files_are_refused(damage: str, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    what, why = "cannot read the LoRA adapter", ""
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:900])
        what = "the model's weights are damaged"
    elif damage == "no weights":
        weights.unlink()
        torch.save({}, adapter / "optimizer.bin")
        what, why = "the model has no weights", "no adapter_model.safetensors or .bin"
    elif damage == "configuration":
        (adapter / "adapter_config.json").write_text("{")
        what = "cannot read the reward model's configuration"
    else:
        lora = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        edit_tensors(adapter, **{lora: torch.full((4, 64), torch.nan)})
        what, why = "the LoRA adapter does not fit its base", "NaNs"
    error = refused(adapter)
    assert (error.what, error.where) == (what, str(adapter))
    assert why in error.why


def test_without_peft_the_package_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    error = refused(adapter)
    assert error.what == "a LoRA adapter needs peft, which is not installed"
    assert error.next_step == "pip install peft"


def test_vllm_is_refused(adapter: Path) -> None:
    error = refused(adapter, scorer_engine="vllm")
    assert "LoRA" in error.why
    assert "--scorer-engine transformers" in error.next_step
