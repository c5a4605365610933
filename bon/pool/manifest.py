"""`pool.json`: what decides a pool's content, and the refusal to mix two of them."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from bon.durable import replace_file
from bon.errors import PoolCorruptError, PoolNotFoundError, SettingsMismatchError
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.notes import settings_digest
from bon.system_faults import refuse_system_fault

__all__ = [
    "FORMAT_VERSION",
    "GIVEN_ENGINE",
    "Manifest",
    "differences",
    "read_manifest",
    "write_manifest",
]

FORMAT_VERSION = 1
GIVEN_ENGINE = "given"
"""What `pool.json` says of candidates, and of scores, that came with the input."""
_CHECKSUM = "checksum"
"""Key in `pool.json` with a digest of all the others."""
_NAMES = {
    "model_digest": ("model", "model_revision"),
    "digest": ("spec", "revision"),
    "base_digest": ("base",),
}
"""Digests, and the settings that led to what has them."""


_SCORER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""It is the name of a folder, and `pool.json` may come from anywhere."""


class _Versioned(BaseModel):
    """What every version's `pool.json` has; it is read before the rest."""

    format_version: int


class Manifest(BaseModel):
    """The content of `pool.json`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format_version: int = FORMAT_VERSION
    """Layout of the pool's files."""
    part_size: int
    """Input rows in one part."""
    input: dict[str, Any]
    """How prompts were read: settings, layout, a digest of the files, rows read so far."""
    generation: dict[str, Any] | None = None
    """What decides the candidates: model, its digest, sampling settings, N, seed."""
    scorers: dict[str, dict[str, Any]] = {}
    """What decides the scores, by scorer."""
    same: dict[str, list[str]] = {}
    """Digests of settings that were written down before, by scorer: they are those of `scorers` in
    the words of another version, or with a model that has moved. Parts may still name them."""

    @property
    def is_given(self) -> bool:
        """Whether its candidates came with the input."""
        return (self.generation or {}).get("engine") == GIVEN_ENGINE

    def with_scorer(self, name: str, settings: dict[str, Any], *, is_same: bool) -> Manifest:
        """Return it with a scorer's settings; `is_same` says that parts may name the old ones."""
        old, same = self.scorers.get(name), dict(self.same)
        if not is_same:
            same.pop(name, None)
        elif old is not None and old != settings:
            before = [*same.get(name, []), str(settings_digest(old))]
            same[name] = [one for one in before if one != settings_digest(settings)]
        scorers = {**self.scorers, name: settings}
        return self.model_copy(update={"scorers": scorers, "same": same})

    @field_validator("scorers")
    @classmethod
    def _names_are_no_paths(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _SCORER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a scorer")
        return value


def read_manifest(path: Place) -> Manifest:
    """Read `pool.json`.

    Raises:
        PoolNotFoundError: there is none.
        SystemFaultError: the system does not let it be read.
        PoolCorruptError: it is damaged, or not one that this version can read.
    """
    copy = PoolLayout(path.parent).manifest_copy
    try:
        content = path.read_bytes()
    except OSError as error:
        refuse_system_fault(error, path)
        if copy.is_file() and copy != path:
            raise _corrupt("pool.json is gone", path, error.strerror or str(error)) from None
        raise PoolNotFoundError(
            "there is no pool here",
            where=str(path.parent),
            why="it has no pool.json",
            next_step="make one with `bon generate PROMPTS --pool FOLDER`",
        ) from None
    try:
        version = _Versioned.model_validate_json(content).format_version
        if version != FORMAT_VERSION:
            raise PoolCorruptError(
                f"the pool has format version {version}, this bon reads {FORMAT_VERSION}",
                where=str(path),
                next_step="use the version of bon that made it",
            )
        said = json.loads(content)
        checksum = said.pop(_CHECKSUM, None)  # older versions wrote none
        if checksum not in (None, settings_digest(said)):
            raise _corrupt("pool.json has changed", path, "its checksum does not fit")
        return Manifest.model_validate(said)
    except ValidationError as error:
        raise _corrupt("cannot read pool.json", path, str(error.errors()[0]["msg"])) from None


def write_manifest(manifest: Manifest, path: Place, staging: Place) -> None:
    """Write `pool.json` durably, where it is not the same already."""
    said = manifest.model_dump(mode="json")
    said[_CHECKSUM] = settings_digest(said)
    text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return
    with replace_file(path, staging) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _corrupt(what: str, path: Place, why: str) -> PoolCorruptError:
    copy = PoolLayout(path.parent).manifest_copy
    step = "restore it, or make the pool again in another folder"
    if copy.is_file():
        step = f"run the command that makes the pool again with --repair: it takes the copy {copy}"
    return PoolCorruptError(what, where=str(path), why=why, next_step=step)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List `key: old -> new` for every key whose value differs."""
    keys = sorted(set(old) | set(new))
    return [
        f"{key}: {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def refuse_differences(
    what: str,
    where: Place,
    old: dict[str, Any],
    new: dict[str, Any],
    defaults: dict[str, Any] | None = None,
) -> None:
    """Stop a run whose settings are not those that made the pool.

    A setting that is younger than the pool had its default when the pool was made.

    Raises:
        SettingsMismatchError: with the list of what differs.
    """
    old = {key: value for key, value in (defaults or {}).items() if key in new} | old
    changed = differences(_content(old, new), _content(new, old))
    if changed:
        raise SettingsMismatchError(
            f"this pool was made with other {what}",
            where=str(where),
            why="; ".join(changed),
            next_step="repeat the old settings to resume it, or start afresh with another --pool",
        )


def _content(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Leave out where models came from whose digests agree: a moved folder is the same model, and
    a branch stands for the commit that it led to."""
    same = {
        name
        for digest, names in _NAMES.items()
        if one.get(digest) is not None and one.get(digest) == other.get(digest)
        for name in names
    }
    return {key: value for key, value in one.items() if key not in same}
