"""Where a command writes its set and in which form, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bon.cli.curation import check_upload, output_paths
from bon.cli.flags import Invocation
from bon.cli.places import input_stem
from bon.config import ExportSettings
from bon.exports.formats import Format, Kind, choose_format
from bon.exports.target import check_output
from bon.places import Place

__all__ = ["OutputPlan", "plan_output"]


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """A set to be written."""

    path: Place
    kind: Kind
    form: Format
    export: ExportSettings

    @property
    def places(self) -> list[Place]:
        """Every place that it takes: its folder, or a file for each split."""
        return output_paths(self.path, self.form, self.export)


def plan_output(call: Invocation, kind: Kind, name: str, form: Format | None = None) -> OutputPlan:
    """Plan the output of -o, by default `INPUT.NAME` with the form's own suffix.

    Raises:
        SettingsError: a form, a file type or an upload that cannot be.
        OutputError: the place is taken by other things, or nothing can be written there.
    """
    export = call.settings(ExportSettings)
    form = form or choose_format(export.format, kind)
    path = call.output or Path(f"{input_stem(call.source)}.{name}{form.suffixes[0]}")
    check_output(path, form, export.splits)
    check_upload(export, path)
    return OutputPlan(path, kind, form, export)
