"""Writes native rows in a trainer's form; nothing appears before all of it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from bon.durable import replace_file, sync
from bon.exports.card import CardFacts, Written, render_card
from bon.exports.dataset_info import DATASET_INFO, dataset_info_text, read_dataset_info
from bon.exports.files import RowFile, open_rows
from bon.exports.formats import Format, Kind
from bon.exports.streams import SplitStream
from bon.exports.target import check_output, real_file, target_of
from bon.exports.upload import replaced_folder
from bon.places import Place

__all__ = ["DatasetWriter"]

_SHARD_BYTES = 400_000_000


class DatasetWriter:
    """Writes one set: a file, a file a split, or a folder as the Hub wants it.

    Rows come in native form and input order, a split at a time or mixed. Everything is staged on
    the same file system and appears when the block ends without an error; else nothing does. A
    symbolic link stays one: the file that it leads to is replaced.

    Raises:
        SettingsError: a file type that is unknown, or that the trainer does not read.
        OutputError: the place is taken by other things, or nothing can be written there.
    """

    def __init__(
        self,
        output: Place | str,
        *,
        schema: pa.Schema,
        kind: Kind,
        format: Format,
        splits: Sequence[str] = ("train",),
        shard_bytes: int = _SHARD_BYTES,
    ) -> None:
        check_output(output, format, splits)
        self._target = target_of(output, format)
        self._format, self._kind, self._splits = format, kind, tuple(splits)
        self._native = schema.remove_metadata()
        name, empty = self._target.name, self._native.empty_table()
        self.schema: pa.Schema = format.convert(empty, kind, name=name).schema
        """Of the rows that are written."""
        self.files: list[Place] = []
        """Every file that was written; empty until the block has ended well."""
        self._shard_bytes = shard_bytes
        self._facts: CardFacts | None = None
        self._streams: dict[str, SplitStream] = {}
        self._staged: list[Path] = []
        self._is_finished = False
        self._session: AbstractContextManager[None] | None = None

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split in the trainer's form; reading it ends a row group."""
        for stream in self._streams.values():
            stream.flush()
        return {split: stream.num_rows for split, stream in self._streams.items()}

    @property
    def merged(self) -> dict[str, int]:
        """Native rows of each split that became part of another row; reading it ends a row group.

        Forms with one row a prompt (`trl-grpo`, `verl`) or a response (`trl-sft` of pairs) have
        such rows; with them, `rows` accounts for all that was written to those forms.
        """
        for stream in self._streams.values():
            stream.flush()
        return {split: stream.num_merged for split, stream in self._streams.items()}

    def write(self, table: pa.Table, split: str = "train") -> None:
        """Append native rows to a split.

        Raises:
            ValueError: columns other than those of the schema.
        """
        table = table.replace_schema_metadata(None)
        if not table.schema.equals(self._native):
            raise ValueError(f"columns are {table.schema}, not {self._native}")
        self._streams[split].write(table)

    def describe(self, card: CardFacts) -> None:
        """Give a folder a README.md, the dataset card; a single file has none."""
        self._facts = card

    def finish(self) -> None:
        """Bring all rows to the disk: no more can come, and the block's end has little to do.

        Where several sets appear together, all are finished before the first one's block ends.
        """
        if self._is_finished:
            return
        for stream in self._streams.values():
            stream.finish(self._native)
        for path in self._staged:
            sync(path)
        self._is_finished = True

    def __enter__(self) -> Self:
        self._session = self._folder() if self._target.is_folder else self._single_files()
        self._session.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        self._session.__exit__(kind, error, trace)

    @contextmanager
    def _single_files(self) -> Iterator[None]:
        target, format = self._target, self._format
        finals = {split: target.file(split, self._splits) for split in self._splits}
        real = {split: real_file(final) for split, final in finals.items()}
        with ExitStack() as stack:
            staged = {
                split: stack.enter_context(replace_file(final, final.parent))
                for split, final in real.items()
            }
            self._staged = list(staged.values())
            with self._opened(lambda split, _: staged[split], float("inf")):
                yield
        files = list(finals.values())
        if format.entry is not None:
            folder = target.path.parent
            named = {target.entry_name(s, self._splits): f.name for s, f in finals.items()}
            text = dataset_info_text(read_dataset_info(folder), named, format.entry(self._kind))
            with replace_file(folder / DATASET_INFO, folder) as path:
                path.write_text(text, encoding="utf-8")
            files.append(folder / DATASET_INFO)
        self.files = files

    @contextmanager
    def _folder(self) -> Iterator[None]:
        target = self._target
        with replaced_folder(target.path) as staging:
            for split in self._splits:
                (staging / target.subfolder(split)).mkdir(exist_ok=True)

            def shard(split: str, number: int) -> Path:
                return staging / target.subfolder(split) / f"{split}-{number:05d}"

            with self._opened(shard, self._shard_bytes):
                yield
            self._name_shards(staging)
            self._add_texts(staging)
            inside = sorted(p.relative_to(staging) for p in staging.rglob("*") if p.is_file())
        self.files = [target.path / path for path in inside]

    @contextmanager
    def _opened(self, path_of: Callable[[str, int], Path], shard_bytes: float) -> Iterator[None]:
        """Open a stream a split; finish them when the block ends well, close them anyway."""

        def opener(split: str) -> Callable[[int], RowFile]:
            suffix, schema = self._target.suffix, self.schema
            return lambda number: open_rows(path_of(split, number), suffix, schema)

        name = self._target.name
        self._streams = {
            split: SplitStream(self._format, self._kind, name, opener(split), shard_bytes)
            for split in self._splits
        }
        try:
            yield
            self.finish()
        finally:
            for stream in self._streams.values():
                stream.abandon()

    def _name_shards(self, staging: Path) -> None:
        """Only now it is known how many there are."""
        for split, stream in self._streams.items():
            total = stream.num_shards
            for number in range(total):
                path = staging / self._target.subfolder(split) / f"{split}-{number:05d}"
                path.rename(path.with_name(f"{path.name}-of-{total:05d}{self._target.suffix}"))

    def _add_texts(self, staging: Path) -> None:
        target, format = self._target, self._format
        if format.entry is not None:
            named = {target.entry_name(s, self._splits): target.subfolder(s) for s in self._splits}
            text = dataset_info_text({}, named, format.entry(self._kind))
            (staging / DATASET_INFO).write_text(text, encoding="utf-8")
        if self._facts is not None:
            globs = {s: f"{target.subfolder(s)}/{s}-*{target.suffix}" for s in self._splits}
            written = Written(format, self._kind, self.rows, globs, self.schema)
            (staging / "README.md").write_text(render_card(self._facts, written), encoding="utf-8")
