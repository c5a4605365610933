"""Settings: their order, their ranges, and what is part of a fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bon.config import (
    GROUPS,
    ExportSettings,
    FilterCommandSettings,
    GenerateSettings,
    InputSettings,
    PairSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
    SelectSettings,
    Settings,
    known_keys,
    read_config_file,
    resolve,
)
from bon.errors import SettingsError, UnknownChoiceError
from bon.guards import margin_threshold

ALL_GROUPS = tuple(dict.fromkeys(group for groups in GROUPS.values() for group in groups))
MODELS = (*ALL_GROUPS, ScorerSettings)


@pytest.mark.parametrize("group", MODELS)
def test_every_field_has_a_sentence_and_every_runtime_field_exists(group: type[Settings]) -> None:
    for name, info in group.model_fields.items():
        assert (info.description or "").endswith("."), name
    assert group.runtime_fields <= group.model_fields.keys()


@pytest.mark.parametrize("command", GROUPS)
def test_no_key_belongs_to_two_groups_of_a_command(command: str) -> None:
    names = [name for group in GROUPS[command] for name in group.model_fields]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_settings_are_frozen_and_refuse_unknown_keys(group: type[Settings]) -> None:
    settings = group()
    with pytest.raises(ValidationError):
        setattr(settings, next(iter(group.model_fields)), None)
    with pytest.raises(ValidationError):
        group(nothing=1)  # type: ignore[call-arg]


def test_order_is_defaults_then_file_then_flags() -> None:
    file = {"num_candidates": 4, "top_p": 0.5, "raw": True, "k": 3}
    flags = {"num_candidates": 2, "seed": None, "raw": False}
    settings = resolve(GenerateSettings, file, flags)
    assert (settings.num_candidates, settings.top_p, settings.seed) == (2, 0.5, 0)
    assert settings.raw is False, "a flag that says no is said"
    assert resolve(SelectSettings, file, flags).k == 3


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (GenerateSettings, "num_candidates", 0),
        (GenerateSettings, "num_candidates", "many"),
        (GenerateSettings, "temperature", -0.1),
        (GenerateSettings, "top_p", 1.1),
        (GenerateSettings, "top_p", 0),
        (GenerateSettings, "max_tokens", 0),
        (GenerateSettings, "dtype", "int4"),
        (GenerateSettings, "stop", "one string"),
        (InputSettings, "limit", -1),
        (ScoreSettings, "reward", "one string"),
        (SelectSettings, "k", 0),
        (SelectSettings, "soft_lambda", 0),
        (SelectSettings, "strategy", "bets"),
        (RunSettings, "part_size", 0),
        (RunSettings, "max_drops", "some"),
        (RunSettings, "max_drops", "1.5"),
        (RunSettings, "max_drops", "-1"),
        (RunSettings, "max_drops", True),
        (RunSettings, "max_drops", 1.5),
        (RunSettings, "max_drops", -1),
        (RunSettings, "engine", "cluster"),
        (PairSettings, "min_margin", "-1"),
        (PairSettings, "min_margin", -1),
        (PairSettings, "min_margin", "much"),
        (PairSettings, "min_margin", "٣"),
        (PairSettings, "min_margin", "1e-3%"),
        (PairSettings, "min_margin", True),
        (PairSettings, "min_margin", float("inf")),
        (GenerateSettings, "num_candidates", True),
        (GenerateSettings, "temperature", False),
        (InputSettings, "limit", True),
        (FilterCommandSettings, "min_agreement_prob", 0.4),
    ],
)
def test_bad_value_names_its_flag(group: type[Settings], name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(group, {}, {name: value})
    assert f"--{name.replace('_', '-')}" in caught.value.what
    assert repr(value) in caught.value.what
    assert caught.value.why
    assert "pattern" not in caught.value.why
    assert "Value error" not in caught.value.why
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["0", "20", "1.5%", "3%", "100%"])
def test_max_drops(value: str) -> None:
    assert RunSettings(max_drops=value).max_drops == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (2, "2"), (1e-7, "1e-07"), ("10%", "10%"), (".5", ".5"), ("2.", "2.")],
)
def test_a_margin_in_a_config_file_may_be_a_number(value: Any, text: str) -> None:
    settings = resolve(PairSettings, {"min_margin": value}, {})
    assert settings.min_margin == text
    margins = np.arange(10.0)
    expected = 0.0 if text == "10%" else float(text)
    assert margin_threshold(settings.min_margin, margins) == pytest.approx(expected)


def test_a_number_of_drops_in_a_config_file_may_be_a_number() -> None:
    assert resolve(RunSettings, {"max_drops": 5}, {}).max_drops == "5"
    assert resolve(RunSettings, {}, {}).max_drops is None


def test_what_a_margin_can_be_is_said() -> None:
    with pytest.raises(SettingsError, match="--min-margin") as caught:
        resolve(PairSettings, {}, {"min_margin": "-1"})
    assert caught.value.why == "give a number from 0, or a share such as 10%"


def test_a_key_in_both_spellings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text("[build-dpo]\nmax-pairs = 2\nmax_pairs = 3\n")
    with pytest.raises(SettingsError, match="the key 'max_pairs' is there twice") as caught:
        read_config_file(path, "build-dpo", known_keys())
    assert caught.value.where == f"{path}: [build-dpo]"
    path.write_text("max-pairs = 2\n[build-dpo]\nmax_pairs = 3\n")
    assert read_config_file(path, "build-dpo", known_keys()) == {"max_pairs": 3}


def test_fingerprint_leaves_out_what_does_not_decide_the_content() -> None:
    one = GenerateSettings()
    other = one.model_copy(update={"tensor_parallel_size": 8, "gpu_memory_utilization": 0.5})
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != GenerateSettings(seed=1).fingerprint()
    assert InputSettings(limit=3).fingerprint() == InputSettings().fingerprint()
    base = ScorerSettings(name="r", spec="m")
    assert base.fingerprint() == ScorerSettings(name="r", spec="m", batch_tokens=9).fingerprint()
    assert base.fingerprint() != ScorerSettings(name="r", spec="m", max_length=9).fingerprint()


def test_config_file_takes_both_spellings_and_keys_of_every_command(tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text(
        'num-candidates = 4\nmax_tokens = 9\nreward = ["a", "b"]\nstrategy = "top-k"\n'
        "[engine_args]\nmax_num_seqs = 2\n"
    )
    values = read_config_file(path, "select", known_keys())
    assert values == {
        "num_candidates": 4, "max_tokens": 9, "reward": ["a", "b"], "strategy": "top-k",
        "engine_args": {"max_num_seqs": 2},
    }  # fmt: skip
    assert resolve(ScoreSettings, values, {}).reward == ("a", "b")


def test_table_of_a_command_is_for_it_alone_and_wins(tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text('seed = 1\nlimit = 5\n[build-dpo]\nstrategy = "sigma"\nlimit = 7\n')
    keys = known_keys()
    assert read_config_file(path, "select", keys) == {"seed": 1, "limit": 5}
    assert read_config_file(path, "build-dpo", keys) == {
        "seed": 1, "limit": 7, "strategy": "sigma",
    }  # fmt: skip


def test_table_of_a_command_with_a_key_of_another(tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text("[generate]\nstrategy = 'best'\n")
    with pytest.raises(UnknownChoiceError, match="unknown key 'strategy'") as caught:
        read_config_file(path, "select", known_keys())
    assert caught.value.where == f"{path}: [generate]"


def test_unknown_key_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text("num-candidate = 4\n")
    with pytest.raises(UnknownChoiceError, match="unknown key 'num_candidate'") as caught:
        read_config_file(path, "select", known_keys())
    assert caught.value.next_step == "did you mean 'num_candidates'?"
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"a = ", "not TOML"), (b"seed = 1\nseed = 2", "not TOML"), (b"\xff", "not TOML"),
     (None, "cannot read")],
)  # fmt: skip
def test_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "bon.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=what) as caught:
        read_config_file(path, "select", known_keys())
    assert caught.value.where == str(path)
    assert caught.value.why


def test_help_names_every_filter_and_form() -> None:
    from bon.config.filters import FILTERS
    from bon.exports.formats import FORMATS

    filters = FilterCommandSettings.model_fields["filter"].description or ""
    forms = ExportSettings.model_fields["format"].description or ""
    assert all(name in filters for name in FILTERS)
    assert all(one.name in forms for one in FORMATS)
