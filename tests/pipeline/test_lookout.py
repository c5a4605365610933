"""Parts that are told to be done and are not there, as where a node has a pool of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.commands import pool_files
from support.fakes import InlineEngine, Run, input_rows

from bon.errors import PoolIncompleteError
from bon.pipeline import lookout
from bon.pool.layout import PoolLayout
from bon.protocols import Event, Needs, PartDone, PartWork, Progress


@dataclass
class OtherNode(InlineEngine):
    """Runs work on a copy of the pool, which lies where the pool does for whoever works there.

    With `shown_after`, the copy's parts come to the pool so many events later.
    """

    here: Path = Path()
    there: Path = Path()
    shown_after: int | None = None
    is_ended: bool = False

    def run(self, work: PartWork, parts: Sequence[int], needs: Needs = Needs()) -> Iterator[Event]:
        if not self.there.exists():
            shutil.copytree(self.here, self.there)
        try:
            for event in super().run(replace(work, pool_root=self.there), parts):  # type: ignore[type-var]
                yield event
                if isinstance(event, PartDone):
                    yield from [Progress()] * (self.shown_after or 0)
                if self.shown_after is not None:
                    shutil.copytree(self.there, self.here, dirs_exist_ok=True)
        finally:
            self.is_ended = True


def engine_of(tmp_path: Path, shown_after: int | None = None) -> OtherNode:
    return OtherNode(here=tmp_path / "a.pool", there=tmp_path / "b.pool", shown_after=shown_after)


def test_a_node_with_a_pool_of_its_own_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_PATIENCE_S", 0.0)
    engine = engine_of(tmp_path)
    with pytest.raises(PoolIncompleteError, match="part 0 of candidates") as caught:
        Run(input_rows(10), engine=engine).candidates(tmp_path / "a.pool")
    assert engine.is_ended
    assert PoolLayout(tmp_path / "b.pool").numbers("candidates") == [0], "at the first part"
    assert caught.value.where == str(tmp_path / "a.pool/candidates/part-00000.parquet")
    assert "shared folder" in caught.value.next_step


def test_at_the_end_it_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_PATIENCE_S", 1.0)
    with pytest.raises(PoolIncompleteError, match="part 0 of candidates"):
        Run(input_rows(10), engine=engine_of(tmp_path)).candidates(tmp_path / "a.pool")


@pytest.mark.parametrize("shown_after", [0, 3])
def test_a_file_that_is_shown_late_is_waited_for(tmp_path: Path, shown_after: int) -> None:
    Run(input_rows(10), engine=engine_of(tmp_path, shown_after)).candidates(tmp_path / "a.pool")
    Run(input_rows(10)).candidates(tmp_path / "whole.pool")
    assert pool_files(tmp_path / "a.pool") == pool_files(tmp_path / "whole.pool")


def test_side_by_side_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_PATIENCE_S", 0.0)
    with pytest.raises(PoolIncompleteError, match="part 0 of candidates"):
        Run(input_rows(10), engine=engine_of(tmp_path)).streamed(tmp_path / "a.pool")
