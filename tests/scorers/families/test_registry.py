"""Which family a config.json is of, and what is refused from it alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bon.errors import ModelError
from bon.scorers.families import FAMILIES, find_family
from bon.scorers.families.sequence_classification import _ENCODERS, _LAST_TOKEN
from bon.scorers.families.token_classification import _DECODERS
from bon.scorers.packed import PACKED_TYPES

DOCUMENT = Path(__file__).parents[3] / "docs" / "reward-models.md"


def reward(**config: Any) -> dict[str, Any]:
    return {"model_type": "x", "architectures": ["XForSequenceClassification"], **config}


@pytest.mark.parametrize(
    "labels",
    [
        {"num_labels": 1},
        {"id2label": {"0": "LABEL_0"}},
        {"num_labels": 1, "id2label": {"0": "a", "1": "b"}},  # transformers believes num_labels
    ],
)
def test_reward_model_with_one_label(labels: dict[str, Any]) -> None:
    find_family(reward(**labels), "some/folder")


@pytest.mark.parametrize(
    ("labels", "number"),
    [
        ({}, 2),
        ({"num_labels": 5}, 5),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3),
        ({"num_labels": 2, "id2label": {"0": "a"}}, 2),
        ({"id2label": None}, 2),
        ({"id2label": {}}, 0),
    ],
)
def test_reward_model_with_several_labels(labels: dict[str, Any], number: int) -> None:
    with pytest.raises(ModelError, match=f"the reward model has {number} labels") as caught:
        find_family(reward(**labels), "some/folder")
    assert caught.value.where == "some/folder"
    assert caught.value.next_step == "give -r a model with num_labels=1"
    assert caught.value.why


@pytest.mark.parametrize(
    ("architectures", "name"),
    [(["XForCausalLM"], "XForCausalLM"), ([], "none"), (None, "none")],
)
def test_generator_in_place_of_a_reward_model(architectures: list[str] | None, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_family(reward(architectures=architectures, num_labels=1), "some/folder")
    assert caught.value.what == f"{name} is not a reward model that bon can load"
    assert caught.value.where == "some/folder"
    assert "…ForSequenceClassification" in caught.value.why
    assert "(its model type is x)" in caught.value.why
    assert "give -r a reward model, not the generator" in caught.value.next_step
    assert "bon/scorers/families" in caught.value.next_step


def rows() -> list[list[str]]:
    """The cells of the table of what is supported, without its head."""
    lines = DOCUMENT.read_text(encoding="utf-8").split("## What is supported")[1].splitlines()
    table = [line for line in lines[: lines.index("### Which way")] if line[:1] == "|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_docs_have_every_architecture_and_no_other() -> None:
    known = {name.replace("*", "…") for family in FAMILIES for name in family.architectures}
    said = {name for row in rows() for name in re.findall(r"`(\S+For\S+)`", row[1])}
    assert said == known


def test_the_docs_say_what_vllm_runs() -> None:
    said: dict[str, set[str]] = {}
    for _, architecture, *_, vllm in rows():
        names = re.findall(r"`(\S+For\S+)`", architecture)
        (name,) = names or ["…ForSequenceClassification"]  # "the same"
        runs = re.split("[;:]", vllm)[0].replace(" without `longrope`", "").lower()
        kinds = re.sub("[()]", "", runs).split(", ")
        said.setdefault(name, set()).update(kind.replace(" ", "_") for kind in kinds)
    for family in FAMILIES:
        (name,) = (one.replace("*", "…") for one in family.architectures)
        if family.vllm is None:
            assert said[name] == {"no"}
        elif family.vllm.decoder_types is None:
            assert said[name] == {"yes"}
        else:
            assert said[name] == family.vllm.decoder_types | family.vllm.encoder_types


@pytest.mark.parametrize(
    ("start", "kinds"),
    [
        ("- **Token tries**", PACKED_TYPES),
        (
            "- **Padded batches**",
            _ENCODERS | (_LAST_TOKEN - PACKED_TYPES) | {"gpt_oss", "qwen3_5_text"},
        ),
        ("- Process reward models of TRL", _DECODERS),
    ],
)
def test_the_docs_have_every_type_in_its_list_and_no_other(
    start: str, kinds: frozenset[str]
) -> None:
    items = ("\n" + DOCUMENT.read_text(encoding="utf-8")).split("\n- ")
    (item,) = (item.split("\n\n")[0] for item in items if f"- {item}".startswith(start))
    assert set(re.findall(r"`([a-z0-9_-]+)`", item)) == kinds
