"""`pool.json` and the refusal to mix two pools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.errors import PoolCorruptError, PoolNotFoundError, SettingsError, SettingsMismatchError
from bon.pool.manifest import (
    FORMAT_VERSION,
    Manifest,
    differences,
    read_manifest,
    refuse_differences,
    write_manifest,
)
from bon.pool.notes import settings_digest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SETTINGS = st.dictionaries(st.sampled_from("abcdef"), SCALARS | st.lists(SCALARS, max_size=2))


def test_round_trip(tmp_path: Path) -> None:
    manifest = Manifest(
        part_size=8, input={"rows": 3, "ä": None}, generation={"stop": ["a"]}, scorers={"r": {}}
    )
    path = tmp_path / "pool.json"
    write_manifest(manifest, path, tmp_path / ".bon")
    assert read_manifest(path) == manifest
    assert json.loads(path.read_text())["format_version"] == FORMAT_VERSION == 1


def test_same_manifest_is_not_written_again(tmp_path: Path) -> None:
    manifest, path = Manifest(part_size=8, input={"ä": "é"}), tmp_path / "pool.json"
    write_manifest(manifest, path, tmp_path)
    node = path.stat().st_ino
    write_manifest(manifest, path, tmp_path)
    assert path.stat().st_ino == node


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"{}", b'{"format_version": 1}',
                b'{"format_version": 1, "part_size": "x", "input": {}}',
                b'{"format_version": 1, "part_size": 8, "input": {}, "more": 1}'],
)  # fmt: skip
def test_garbage_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pool.json"
    path.write_bytes(content)
    with pytest.raises(PoolCorruptError) as caught:
        read_manifest(path)
    assert caught.value.where == str(path)
    assert caught.value.why
    assert caught.value.next_step


def test_later_format_is_named_whatever_else_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text('{"format_version": 2, "shards": []}')
    with pytest.raises(PoolCorruptError, match=r"format version 2, this bon reads 1") as caught:
        read_manifest(path)
    assert caught.value.next_step == "use the version of bon that made it"


def test_no_pool(tmp_path: Path) -> None:
    with pytest.raises(PoolNotFoundError) as caught:
        read_manifest(tmp_path / "pool.json")
    assert caught.value.where == str(tmp_path)


def test_mismatch_lists_every_key_that_differs(tmp_path: Path) -> None:
    old: dict[str, Any] = {"model": "a", "n": 4, "seed": 0, "gone": True, "stop": ["x"]}
    new: dict[str, Any] = {"model": "b", "n": 4, "seed": 7, "stop": ["x", "y"], "none": None}

    with pytest.raises(SettingsMismatchError) as caught:
        refuse_differences("settings", tmp_path, old, new)

    assert caught.value.why.split("; ") == [
        "gone: true -> null", 'model: "a" -> "b"', "seed: 0 -> 7", 'stop: ["x"] -> ["x", "y"]',
    ]  # fmt: skip
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, SettingsError)
    refuse_differences("settings", tmp_path, old, {**old, "none": None})


@given(SETTINGS, SETTINGS)
def test_differences_are_symmetric_and_complete(old: dict[str, Any], new: dict[str, Any]) -> None:
    keys = [line.split(":")[0] for line in differences(old, new)]
    assert keys == sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    assert keys == [line.split(":")[0] for line in differences(new, old)]
    assert differences(old, json.loads(json.dumps(old))) == []


def test_a_model_under_another_name_is_the_same_model(tmp_path: Path) -> None:
    old = {"model": "first", "model_digest": "abc", "seed": 0}

    refuse_differences("settings", tmp_path, old, {**old, "model": "renamed"})

    with pytest.raises(SettingsMismatchError, match='model: "first" -> "renamed"'):
        refuse_differences(
            "settings", tmp_path, old, {**old, "model": "renamed", "model_digest": "def"}
        )


@pytest.mark.parametrize(
    ("digest", "names"),
    [
        ("model_digest", ("model", "model_revision")),
        ("digest", ("spec", "revision")),
        ("base_digest", ("base",)),
    ],
)
def test_what_led_to_the_same_digest_is_no_difference(
    digest: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    old = {digest: "abc", "seed": 0} | dict.fromkeys(names)
    new = {digest: "abc", "seed": 0} | dict.fromkeys(names, "other")
    refuse_differences("settings", tmp_path, old, new)
    refuse_differences("settings", tmp_path, new, old)
    for changed in ({digest: "def"}, {"seed": 1}):
        with pytest.raises(SettingsMismatchError):
            refuse_differences("settings", tmp_path, old, new | changed)


def test_a_setting_younger_than_the_pool_had_its_default(tmp_path: Path) -> None:
    old, new = {"seed": 0}, {"seed": 0, "repetition_penalty": 1.0}

    refuse_differences("settings", tmp_path, old, new, {"repetition_penalty": 1.0})

    with pytest.raises(SettingsMismatchError, match=r"repetition_penalty: 1.0 -> 1.2"):
        refuse_differences(
            "settings",
            tmp_path,
            old,
            {**new, "repetition_penalty": 1.2},
            {"repetition_penalty": 1.0},
        )


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".", "", ".bon", "a\0", "a\n"])
def test_a_scorer_whose_name_is_a_path_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text(
        json.dumps(
            {"format_version": 1, "part_size": 8, "input": {}, "scorers": {"a-1.0_x": {}, name: {}}}
        )
    )
    with pytest.raises(PoolCorruptError) as caught:
        read_manifest(path)
    assert repr(name) in caught.value.why


def test_settings_that_parts_may_name_are_remembered() -> None:
    old, new = {"spec": "a", "digest": "x"}, {"spec": "b", "digest": "x"}
    manifest = Manifest(part_size=8, input={}).with_scorer("rm", old, is_same=False)
    assert (manifest.scorers, manifest.same) == ({"rm": old}, {})
    moved = manifest.with_scorer("rm", new, is_same=True)
    assert (moved.scorers["rm"], moved.same) == (new, {"rm": [settings_digest(old)]})
    back = moved.with_scorer("rm", old, is_same=True)
    assert back.same == {"rm": [settings_digest(new)]}
    assert back.with_scorer("rm", new, is_same=False).same == {}
