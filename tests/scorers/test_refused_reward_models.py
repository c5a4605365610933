"""What is no reward model, or not a whole one, is refused before it can give a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scoring import reward_scorer
from support.tiny_models import edit_config, edit_weights, save_generator, save_reward, tokenizer

from bon.errors import ModelError

torch = pytest.importorskip("torch")

COMPASS_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 6, 4]}


def refused(folder: Path, template: str | None = None) -> ModelError:
    """Enter a scorer that must not be entered and return what it says."""
    with (
        pytest.raises(ModelError) as caught,
        reward_scorer(folder, template),
    ):
        pytest.fail("it was taken")
    assert caught.value.where == str(folder)
    assert caught.value.why
    assert caught.value.next_step
    return caught.value


def test_a_generator_is_refused(tmp_path: Path) -> None:
    error = refused(save_generator(tmp_path))
    assert "Qwen3ForCausalLM" in error.what
    assert "not the generator" in error.next_step


def test_a_generator_renamed_has_no_head(tmp_path: Path) -> None:
    folder = save_generator(tmp_path)
    edit_config(folder, architectures=["Qwen3ForSequenceClassification"], num_labels=1)
    error = refused(folder)
    assert "random" in error.what
    assert "score.weight" in error.why
    assert "a base model has none" in error.next_step


@pytest.mark.parametrize(
    ("kind", "head"), [("llama", "score.weight"), ("bert", "classifier.weight")]
)
def test_a_lost_head_is_not_made_up(kind: str, head: str, tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind=kind)
    edit_weights(folder, lambda weights: weights.pop(head))
    assert head in refused(folder).why


def test_a_lost_layer_is_not_made_up(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind="llama")
    edit_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.layers.1.mlp.up_proj.weight" in refused(folder).why


def test_a_head_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    edit_weights(folder, lambda weights: weights.update({"score.weight": torch.ones(3, 64)}))
    assert "score.weight" in refused(folder).why


def test_a_head_with_more_than_its_class_reads_is_refused(tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    edit_weights(folder, lambda weights: weights.update({"score.bias": torch.ones(1)}))
    assert "score.bias" in refused(folder).why


def test_layers_that_the_configuration_leaves_out_are_refused(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind="llama")
    edit_config(folder, num_hidden_layers=1)
    assert "model.layers.1" in refused(folder).why


def test_what_no_score_needs_may_be_in_the_checkpoint(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind="llama")
    edit_weights(folder, lambda weights: weights.update({"lm_head.weight": torch.ones(264, 64)}))
    with reward_scorer(folder):
        pass


def test_two_labels_are_refused(tmp_path: Path) -> None:
    error = refused(save_reward(tmp_path, num_labels=2))
    assert "2 labels" in error.what
    assert "num_labels=1" in error.next_step


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": "t5", "d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        | {"decoder_start_token_id": 0},
        {"kind": "convbert"},  # its convolutions read the padding
        {"kind": "fnet"},  # it has no mask
        {"kind": "ctrl"},  # it looks for the pad token to find the end
        {"kind": "modernbert-decoder", "bos_token_id": 3},
        {"kind": "cohere_compass_text", "pooling": "mean"}  # it has a `score` all the same
        | {"rope_parameters": {"full_attention": COMPASS_ROPE}},
    ],
    ids=lambda kind: str(kind["kind"]),
)
def test_a_kind_whose_scores_would_be_wrong_is_refused(kind: Any, tmp_path: Path) -> None:
    error = refused(save_reward(tmp_path, **kind))
    assert "not a reward model that bon can load" in error.what
    assert "known encoders" not in error.why  # some are decoders
    assert kind["kind"] in error.why


@pytest.mark.parametrize("model_type", ["mystery", "qwen3"])
def test_code_of_a_repository_is_never_run(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, proof = save_reward(tmp_path / "model"), tmp_path / "it ran"
    for name in ("configuration_evil", "modeling_evil", "tokenization_evil"):
        code = f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n"
        (folder / f"{name}.py").write_text(code)
    edit_config(
        folder,
        model_type=model_type,
        architectures=["EvilForSequenceClassification"],
        auto_map={
            "AutoConfig": "configuration_evil.EvilConfig",
            "AutoModelForSequenceClassification": "modeling_evil.EvilForSequenceClassification",
            "AutoTokenizer": ["tokenization_evil.EvilTokenizer", None],
        },
    )
    # transformers asks on a terminal whether it may
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    refused(folder)
    assert not proof.exists()


def test_no_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, tokenizer_options={"template": None})
    assert "--reward-template" in refused(folder).next_step


def test_an_empty_template_file_is_no_template(tmp_path: Path) -> None:
    assert "no chat template" in refused(save_reward(tmp_path), template="").what


def test_a_template_that_is_not_jinja_ends_the_run_at_its_start(tmp_path: Path) -> None:
    error = refused(save_reward(tmp_path), template="{% for message in messages %}\n{{ oops }")
    assert "not valid Jinja" in error.what
    assert "line 2" in error.why


@pytest.mark.parametrize("kind", ["qwen3", "llama", "bert", "gemma2"])
def test_a_tokenizer_is_not_made_up(kind: str, tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind=kind)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "tokenizer" in refused(folder).what


def test_a_tokenizer_without_a_pad_token_is_none_the_worse(tmp_path: Path) -> None:
    assert tokenizer(pad=None).pad_token_id is None
    folder = save_reward(tmp_path, tokenizer_options={"pad": None})
    with reward_scorer(folder):
        pass


def damaged(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content((folder / name).read_bytes()))


@pytest.mark.parametrize(
    "damage",
    [
        damaged("model.safetensors", lambda old: b"<html>rate limited</html>" * 100),
        damaged("model.safetensors", lambda old: old[:50_000]),
        damaged("model.safetensors", lambda old: b""),
        damaged("config.json", lambda old: old[:40]),
        damaged(
            "config.json", lambda old: old.replace(b'"hidden_size": 64', b'"hidden_size": "x"')
        ),
        damaged("config.json", lambda old: b"[]"),
        damaged("tokenizer.json", lambda old: old[:40]),
        damaged("tokenizer.json", lambda old: b"{}"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").unlink(),
    ],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    damage(folder)
    refused(folder)
