"""Which family a config.json is of, and what is refused from it alone."""

from __future__ import annotations

from typing import Any

import pytest

from bon.errors import ModelError
from bon.scorers.families import find_family


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
